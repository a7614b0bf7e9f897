//! What `list`, `export` and `changes` could not give, since it is damaged on the node's disk: never left out in silence.
//!
//! Also asks again where the node has just met the damage: it looks at its database then, and answers past the damage afterwards.

use super::api::{Api, Reply};
use super::{DONE, FAILED, say_on_stderr, without_control_characters};
use crate::Error;
use serde::{Deserialize, Serialize};
use smol::Timer;
use std::format;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// How often and after how long a page is asked for again.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// Keys that are told in the summary as JSON; each is named in a line of its own, too.
const KEYS_MAX: usize = 1000;

/// Rows that are missing of the whole database, as the node says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Missing {
    at_least: u64,
    at_most: Option<u64>,
}

/// Counts it over all pages.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LeftOut {
    complete: bool,
    /// Documents or changes that are known to be there, and damaged.
    documents: u64,
    /// Their keys, where they are known.
    damaged: Vec<String>,
    /// Places at which the node could not tell which documents there were.
    ranges: u64,
    missing: Option<Missing>,
}

impl LeftOut {
    /// Takes note of a page's, and names each key on stderr.
    pub(super) fn add(&mut self, damaged: &[String], missing: Option<Missing>) {
        for key in damaged {
            let shown = without_control_characters(key);
            say_on_stderr(&format!("{shown} is damaged on disk and left out: see 'cbddc health'"));
            if self.damaged.len() < KEYS_MAX {
                self.damaged.push(key.clone());
            }
        }
        self.count(damaged.len() as u64, missing);
    }
    /// The same, where no keys are known.
    pub(super) fn count(&mut self, documents: u64, missing: Option<Missing>) {
        self.documents += documents;
        self.ranges += u64::from(missing.is_some());
        self.missing = missing.or(self.missing);
    }
    /// What is missing of a file that was gone over as a whole; nothing where it is none.
    pub(super) fn missing_of_all(&mut self, missing: Option<crate::document::Missing>) {
        let lost = missing.filter(|missing| *missing != crate::document::Missing { at_least: 0, at_most: Some(0) });
        self.count(0, lost.map(|lost| Missing { at_least: lost.at_least, at_most: lost.at_most }));
    }
    /// The last line on stderr, and the exit code.
    pub(super) fn said(&self, what: &str, json: bool) -> u8 {
        if self.documents == 0 && self.missing.is_none() {
            return DONE;
        }
        if json {
            say_on_stderr(&serde_json::to_string(self).unwrap_or_default());
            return FAILED;
        }
        let documents = match self.documents {
            0 => None,
            1 => Some("1 document is damaged on disk and left out".to_string()),
            n => Some(format!("{n} documents are damaged on disk and left out")),
        };
        let missing = self.missing.map(|Missing { at_least, at_most }| {
            let most = at_most.map_or_else(|| "how many more is unknown".to_string(), |most| format!("{most} at most"));
            let ranges = self.ranges;
            format!(
                "at {ranges} places the node had to go past broken pages, and what only they named cannot be told: of the whole \
                 database at least {at_least} rows are missing, {most}"
            )
        });
        let said: Vec<String> = documents.into_iter().chain(missing).collect();
        say_on_stderr(&format!(
            "error[PERSISTENCE_ERROR]: {what} is not complete: {}; see 'cbddc health'",
            said.join("; ")
        ));
        FAILED
    }
}

/// A page, asked for again where the node has just met damage.
pub(super) async fn page(api: &Api, path: &str) -> Result<Reply, Error> {
    let mut tries = 0;
    loop {
        match api.get(path).await {
            Err(Error::DatabaseCorruption { .. }) if tries < TRIES => tries += 1,
            answer => return answer,
        }
        Timer::after(PAUSE).await;
    }
}
