//! `cbddc key`: make, print and take over the cluster key of the configuration that is found. Works offline.

use super::args::{KeyCommand, Options};
use super::{DONE, absolute, say, say_on_stderr};
use crate::Error;
use crate::config::Config;
use crate::key::{KeyBytes, hex_line, load_cluster_key, parse, previous, random_key, replace_cluster_key};
use serde_json::json;
use std::format;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::string::{String, ToString};

/// Does one command; answers the exit code.
pub(super) fn run(command: KeyCommand, options: &Options) -> Result<u8, Error> {
    let path = absolute(&Config::load(options.config.as_deref())?.cluster.key_file);
    match command {
        KeyCommand::New => put(&path, &random_key()?, options)?,
        KeyCommand::Set { file } => put(&path, &read(&file)?, options)?,
        KeyCommand::Show => show(&path, options)?,
    }
    Ok(DONE)
}

fn put(path: &Path, key: &KeyBytes, options: &Options) -> Result<(), Error> {
    let replaced = replace_cluster_key(path, key)?;
    let before = previous(path);
    if options.json {
        let before = replaced.then(|| before.display().to_string());
        return say(&format!("{}\n", json!({ "path": path.display().to_string(), "previous": before })));
    }
    let kept = if replaced { format!("the key before it is kept in {}\n", before.display()) } else { String::new() };
    let next = "a node that runs here takes it over within seconds; every device of the site needs this key: bring the file \
         there, or use 'cbddc key show' and 'key set -'\n";
    say(&format!("cluster key written to {}\n{kept}{next}", path.display()))
}

fn show(path: &Path, options: &Options) -> Result<(), Error> {
    let line = hex_line(&load_cluster_key(path)?);
    if options.json {
        return say(&format!("{}\n", json!({ "path": path.display().to_string(), "key": line.trim_end() })));
    }
    // stdout holds the key alone, so that it can be piped into `cbddc key set -`.
    say_on_stderr(&format!("cluster key in {}", path.display()));
    say(&line)
}

/// A key from a file, or from stdin where it is `-`. Not checked for its mode: it is on its way.
fn read(file: &Path) -> Result<KeyBytes, Error> {
    // A key is 65 bytes; what is far longer is not one, and need not be read to know.
    const BYTES_MAX: u64 = 1024;
    let mut text = String::new();
    let (shown, result) = if file == Path::new("-") {
        (String::from("stdin"), io::stdin().take(BYTES_MAX).read_to_string(&mut text))
    } else {
        let result = File::open(file).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
        (format!("{}", absolute(file).display()), result)
    };
    result.map_err(|error| Error::configuration(format!("{shown}: cannot be read ({error})")))?;
    parse(&text).map_err(|why| Error::configuration(format!("{shown} {why}")))
}
