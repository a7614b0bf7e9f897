//! The command line: what was typed, who does it, and how its end is told.
//!
//! Each command is a file in `cli/`. Results go to stdout, everything else to stderr; an error is one line there with
//! its code, printed once, here.

mod api;
mod args;
mod care;
mod changes;
mod client;
mod config;
mod doctor;
mod documents;
mod export;
mod import;
mod key;
mod left_out;
mod members;
mod recovered;
mod rows;
mod run;
mod service;
mod site;
mod tables;
mod target;

use crate::Error;
use args::{Arguments, Command};
use clap::Parser;
use clap::error::ErrorKind;
use std::ffi::OsString;
use std::format;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::string::{String, ToString};
use std::vec::Vec;

/// Done.
const DONE: u8 = 0;
/// The command failed.
const FAILED: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// Wrong configuration (`EX_CONFIG` of sysexits.h).
const CONFIGURATION: u8 = 78;

/// Does what was typed. The first item of `typed` is the program's name.
pub fn main(typed: impl IntoIterator<Item = OsString>) -> ExitCode {
    let code = match Arguments::try_parse_from(typed) {
        Ok(arguments) => match dispatch(arguments) {
            Ok(code) => code,
            Err(error) => {
                say_on_stderr(&one_line(&error));
                exit_code(&error)
            }
        },
        // Errors are one line, this one too.
        Err(help) if help.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            say_on_stderr("error[REQUEST_ERROR]: a command is missing; try 'cbddc --help'");
            USAGE
        }
        Err(error) if error.use_stderr() => {
            say_on_stderr(&usage_line(&error.to_string()));
            USAGE
        }
        // `--help` and `--version`.
        Err(help) => say(&help.to_string()).map_or(FAILED, |()| DONE),
    };
    ExitCode::from(code)
}

fn dispatch(arguments: Arguments) -> Result<u8, Error> {
    let options = arguments.options;
    match arguments.command {
        Command::Run => run::run(&options),
        Command::Backup { file } => care::backup(file.as_deref(), &options),
        Command::Restore { file } => care::restore(&file, &options),
        Command::Check => care::check(&options),
        Command::Key(command) => key::run(command, &options),
        Command::Config(command) => config::run(command, &options),
        Command::Doctor => doctor::run(&options),
        Command::Client(command) => client::run(command, &options),
    }
}

fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Configuration { .. } => CONFIGURATION,
        _ => FAILED,
    }
}

/// An error and its causes as `error[CODE]: message: cause`.
fn one_line(error: &Error) -> String {
    let mut line = format!("error[{}]: {error}", error.code());
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let text = next.to_string();
        // Many libraries repeat their cause in their own text.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = next.source();
    }
    without_control_characters(&line)
}

/// What clap says on several lines, on one: the fault and its tips, without the usage.
fn usage_line(said: &str) -> String {
    let fault =
        said.split("\n\nUsage:").next().unwrap_or(said).split("\n\nFor more information").next().unwrap_or(said);
    let fault = fault.strip_prefix("error: ").unwrap_or(fault);
    let words: Vec<&str> = fault.split_whitespace().collect();
    without_control_characters(&format!("error[REQUEST_ERROR]: {}; try 'cbddc --help'", words.join(" ")))
}

fn without_control_characters(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}

/// Writes bytes to stdout; `false` where its reader wants no more, as `head` does: then the rest is not needed.
fn say_bytes(bytes: &[u8]) -> Result<bool, Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::persistence("stdout cannot be written", Some(error.into()))),
    }
}

/// Writes a result to stdout. Whoever has closed it wants no more: that is an error, but not a panic.
fn say(text: &str) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| Error::persistence("stdout cannot be written", Some(error.into())))
}

/// Writes one line to stderr; there is nobody to tell when that fails.
fn say_on_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A path as offline commands print it.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_code_and_its_causes_once() {
        let cause = io::Error::other("connection refused\nby host");
        let error = Error::network("no node answers at 127.0.0.1:5080", Some(cause.into()));
        let line = one_line(&error);
        assert_eq!(line, "error[NETWORK_ERROR]: no node answers at 127.0.0.1:5080: connection refused\\nby host");
        assert_eq!(exit_code(&error), FAILED);
        assert_eq!(exit_code(&Error::configuration("x")), CONFIGURATION);
    }

    #[test]
    fn wrong_usage_is_one_line_that_names_the_fault() {
        let said = |typed: &[&str]| usage_line(&Arguments::try_parse_from(typed).unwrap_err().to_string());
        let line = said(&["cbddc", "put", "users"]);
        assert!(
            line.starts_with("error[REQUEST_ERROR]: ") && line.contains("<KEY>") && line.contains("<JSON>"),
            "{line}"
        );
        assert!(!line.contains('\n') && !line.contains("Usage"), "{line}");
        assert!(said(&["cbddc", "run", "--confg", "x"]).contains("--config"));
        assert!(said(&["cbddc", "stats"]).contains("status"));
    }
}
