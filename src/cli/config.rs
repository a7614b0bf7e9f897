//! `cbddc config`: whether the configuration is right, and what it means. Works offline.

mod paths;

use super::args::{ConfigCommand, Options};
use super::{DONE, absolute, say, say_on_stderr};
use crate::Error;
use crate::config::{Config, Setting};
use serde_json::{Value, json};
use std::format;
use std::io::Write;
use std::string::{String, ToString};
use std::vec::Vec;
use tabwriter::TabWriter;

/// Does one command; answers the exit code.
pub(super) fn run(command: ConfigCommand, options: &Options) -> Result<u8, Error> {
    let config = Config::load(options.config.as_deref())?;
    if matches!(command, ConfigCommand::Check) {
        paths::usable(&config)?;
    }
    let text = match command {
        ConfigCommand::Check => check(&config, options.json),
        ConfigCommand::Show if options.json => format!("{}\n", as_json(&config)),
        ConfigCommand::Show => table(&config),
    };
    if !options.json {
        config.warnings.iter().for_each(|warning| say_on_stderr(&format!("warning: {warning}")));
    }
    say(&text)?;
    Ok(DONE)
}

/// The file in force.
fn place(config: &Config) -> String {
    match &config.file {
        Some(file) => absolute(file).display().to_string(),
        None => "no configuration file, built-in values".to_string(),
    }
}

fn check(config: &Config, as_json: bool) -> String {
    let warnings = config.warnings.len();
    if as_json {
        let file = config.file.as_ref().map(|file| absolute(file).display().to_string());
        return format!("{}\n", json!({ "file": file, "ok": true, "warnings": config.warnings }));
    }
    match warnings {
        0 => format!("{}: correct\n", place(config)),
        1 => format!("{}: correct, with 1 warning\n", place(config)),
        many => format!("{}: correct, with {many} warnings\n", place(config)),
    }
}

fn as_json(config: &Config) -> Value {
    let setting =
        |setting: &Setting| json!({ "key": setting.key, "value": setting.value, "origin": setting.origin.to_string() });
    let settings: Vec<Value> = config.settings().iter().map(setting).collect();
    let file = config.file.as_ref().map(|file| absolute(file).display().to_string());
    json!({ "file": file, "board": config.board.name, "warnings": config.warnings, "settings": settings })
}

fn table(config: &Config) -> String {
    let board = &config.board;
    let mut text =
        format!("{}\nboard {}: {}, {} MiB\n\n", place(config), board.name, board.description, board.budget.ram_mib);
    let mut table = TabWriter::new(Vec::new()).padding(2);
    // Writing into memory does not fail.
    for setting in config.settings() {
        let _ = writeln!(table, "{}\t{}\t{}", setting.key.escape_debug(), setting.value, setting.origin);
    }
    let bytes = table.into_inner().unwrap_or_default();
    text.push_str(&String::from_utf8_lossy(&bytes));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_key_value_and_origin() {
        let config = Config::builder().tcp_port(5001).build().unwrap();
        let table = table(&config);
        let line = table.lines().find(|line| line.contains("Network.TcpPort")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, ["CBDDC.Network.TcpPort", "5001", "program"]);
    }

    #[test]
    fn a_check_counts_warnings() {
        let config = Config::builder().lag_thresholds_ms(2, 1).build().unwrap();
        assert_eq!(check(&config, false), "no configuration file, built-in values: correct, with 1 warning\n");
        let object: Value = serde_json::from_str(&check(&config, true)).unwrap();
        assert_eq!(object["ok"], true);
        assert_eq!(as_json(&config)["settings"][0]["key"], "CBDDC.Board");
    }
}
