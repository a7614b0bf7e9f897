//! `backup`, `restore` and `check`: the database as a whole. A restore, and the check of a node that is stopped, work on the
//! files themselves and print where they are.

use super::api::Api;
use super::args::Options;
use super::target::Target;
use super::{DONE, absolute, say};
use crate::Error;
use crate::config::Config;
use crate::error::RequestKind;
use crate::report::{BackupReport, IntegrityReport};
use crate::store::{Checked, Store};
use hyper::Method;
use hyper::body::Bytes;
use serde_json::json;
use smol::LocalExecutor;
use std::env;
use std::format;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;

/// A large database on a slow card takes its time.
const LONG: Duration = Duration::from_secs(3660);

/// Has the running node make a backup, and copies it to `file` where one is named.
pub(super) fn backup(file: Option<&Path>, options: &Options) -> Result<u8, Error> {
    // Known before the node is asked, since that takes long.
    let to = file.map(destination).transpose()?;
    let made: BackupReport = ask(options, "/v1/backups")?;
    let mut report = made.clone();
    if let Some(to) = to {
        let to = if to.is_dir() { to.join(Path::new(&made.path).file_name().unwrap_or_default()) } else { to };
        copy(Path::new(&made.path), &to)?;
        report.path = absolute(&to).display().to_string();
    }
    if options.json {
        return said(&format!("{}\n", json!(report)));
    }
    let BackupReport { path, bytes, duration_ms, unchanged } = report;
    let what = if unchanged { "nothing has changed since " } else { "" };
    said(&format!("{what}{path}: {bytes} bytes, verified, {duration_ms} ms\n"))
}

/// Puts a backup in the place of the database of a stopped node.
pub(super) fn restore(file: &Path, options: &Options) -> Result<u8, Error> {
    let database = absolute(&Config::load(options.config.as_deref())?.persistence.database_path);
    let restored = Store::restore(&database, &absolute(file))?;
    let old = restored.set_aside.as_ref().map(|old| old.display());
    let warning = "this file is no backup but a copy of a database that was in use, without its log: the last writes before it was \
                   copied may be missing; a backup is made with 'cbddc backup'";
    let warning = restored.unclean.then_some(warning);
    if let Some(warning) = warning.filter(|_| !options.json) {
        super::say_on_stderr(&format!("warning: {warning}"));
    }
    if options.json {
        let old = old.map(|old| format!("{old}"));
        let report = json!({
            "restored": absolute(file).display().to_string(), "database": restored.database.display().to_string(),
            "setAside": old, "rows": restored.rows, "bytes": restored.bytes,
            "warning": warning,
        });
        return said(&format!("{report}\n"));
    }
    let kept = old.map_or_else(String::new, |old| format!("the database before it is kept as {old}\n"));
    said(&format!(
        "{} is restored to {} ({} rows)\n{kept}the next start of the node takes a new replica identity\n",
        absolute(file).display(),
        restored.database.display(),
        restored.rows
    ))
}

/// Looks at all of the database: through the node where one runs, else on the file.
pub(super) fn check(options: &Options) -> Result<u8, Error> {
    let named = options.api.is_some() || env::var_os("CBDDC_API").is_some_and(|api| !api.is_empty());
    if !named {
        let database = absolute(&Config::load(options.config.as_deref())?.persistence.database_path);
        if !Store::is_held(&database) {
            let checked = Store::check_offline(&database)?;
            return match checked.error(&database) {
                Some(error) => Err(error),
                None => offline_report(&database, &checked, options),
            };
        }
    }
    let report: IntegrityReport = ask(options, "/v1/integrity-check")?;
    if options.json {
        return said(&format!("{}\n", json!(report)));
    }
    let IntegrityReport { rows, complete, duration_ms, .. } = report;
    let less = if complete { "" } else { "; too much was written to look at trees and sums, the rows were looked at" };
    said(&format!("the running node's database is whole: {rows} rows, {duration_ms} ms{less}\n"))
}

fn offline_report(database: &Path, checked: &Checked, options: &Options) -> Result<u8, Error> {
    let (path, rows) = (database.display(), checked.rows);
    if options.json {
        return said(&format!("{}\n", json!({ "ok": true, "path": path.to_string(), "rows": rows, "complete": true })));
    }
    said(&format!("{path} is whole: {rows} rows\n"))
}

fn said(text: &str) -> Result<u8, Error> {
    say(text)?;
    Ok(DONE)
}

/// Asks the node for something that takes long.
fn ask<T: serde::de::DeserializeOwned>(options: &Options, path: &str) -> Result<T, Error> {
    let executor = Rc::new(LocalExecutor::new());
    let api = Api::new(Target::of(options)?, LONG, executor.clone());
    smol::block_on(executor.run(async {
        let reply = api.send(Method::POST, path, None, Bytes::new()).await?.ok()?;
        reply.json()
    }))
}

/// Where a copy may go: to a name that is free, into a folder, or over another backup. Nothing else is overwritten: it could be
/// the database itself.
fn destination(file: &Path) -> Result<PathBuf, Error> {
    if file.is_dir() || fs::symlink_metadata(file).is_err() || Store::is_backup(file) {
        return Ok(file.to_path_buf());
    }
    let message = format!("{} exists and is no backup: name another file", absolute(file).display());
    Err(Error::Request { kind: RequestKind::BadRequest, message })
}

/// Copies a backup, reads it again, and only then gives it its name.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let mut partial = to.as_os_str().to_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let told = |error: io::Error| {
        let shown = absolute(to);
        let message = format!(
            "the backup {} is made, but could not be copied to {}: run this on the node's machine, as a user who may read the \
             one and write the other",
            from.display(),
            shown.display()
        );
        Error::persistence(message, Some(error.into()))
    };
    let copied = || -> io::Result<()> {
        let mut source = File::open(from)?;
        let mut copy = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
        io::copy(&mut source, &mut copy)?;
        copy.sync_all()
    };
    let whole = copied().map_err(told).and_then(|()| Store::verify_backup(&partial).map(drop));
    let folder = match to.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let named =
        whole.and_then(|()| fs::rename(&partial, to).and_then(|()| File::open(folder)?.sync_all()).map_err(told));
    named.inspect_err(|_| {
        // Not there, or of no use.
        let _ = fs::remove_file(&partial);
    })
}
