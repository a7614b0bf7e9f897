//! What became of a backup and of a check.

use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::string::String;

/// `POST /v1/backups`: a backup that is on disk, whole and verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupReport {
    /// The file, absolute, on the node's machine.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// How long it took.
    pub duration_ms: Millis,
    /// Nothing has changed since this one was made: no new one was.
    #[serde(default)]
    pub unchanged: bool,
}

/// `POST /v1/integrity-check`: nothing is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IntegrityReport {
    /// Always true: damage is an error.
    pub ok: bool,
    /// Rows whose checksums and indexes were looked at.
    pub rows: u64,
    /// Trees, free pages and sums were looked at to their end too. Under many writes they may not be.
    pub complete: bool,
    /// How long it took.
    pub duration_ms: Millis,
}
