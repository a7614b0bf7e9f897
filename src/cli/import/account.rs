//! What became of each line of an import: stored, failed and why, or unknown.

use super::shown;
use crate::Error;
use crate::cli::say_on_stderr;
use serde::Deserialize;
use serde_json::json;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// Failures that are told one by one; all are counted.
const FAILURES_MAX: usize = 1000;

/// The account of a whole import.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Lines that the node said are on disk.
    pub(super) stored: u64,
    /// Lines that are not.
    pub(super) failed: u64,
    failures: Vec<Failure>,
    /// Lines whose request was not answered: first, last, number.
    unknown: Option<(u64, u64, u64)>,
}

#[derive(Debug)]
struct Failure {
    line: u64,
    code: String,
    detail: String,
}

/// What the node says of one request.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    successful: u64,
    failed: u64,
    errors: Vec<LineError>,
    /// Why it stopped before the end.
    #[serde(skip)]
    stopped: Option<Error>,
}

#[derive(Debug, Deserialize)]
struct LineError {
    line: usize,
    code: String,
    detail: String,
}

impl Told {
    /// A request that was refused as a whole: no line of it was tried.
    pub(super) fn refused(error: Error) -> Told {
        Told { successful: 0, failed: 0, errors: Vec::new(), stopped: Some(error) }
    }
    /// The same lines, and why there are no more.
    pub(super) fn stopped_by(self, error: Error) -> Told {
        Told { stopped: Some(error), ..self }
    }
}

impl Account {
    /// A line that never left, or that the node refused.
    pub(super) fn fail(&mut self, line: u64, error: &Error) {
        self.add(line, error.code(), &error.to_string());
    }

    fn add(&mut self, line: u64, code: &str, detail: &str) {
        self.failed += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(Failure { line, code: code.to_string(), detail: detail.to_string() });
        }
    }

    /// Books the answer for the lines of one request.
    pub(super) fn book(&mut self, lines: &[u64], answer: Result<Told, Error>) -> Result<(), Error> {
        let told = match answer {
            Ok(told) => told,
            Err(error) => {
                if let (Some(first), Some(last)) = (lines.first(), lines.last()) {
                    let (low, high, count) = self.unknown.unwrap_or((*first, *last, 0));
                    self.unknown = Some((low.min(*first), high.max(*last), count + lines.len() as u64));
                }
                return Err(error);
            }
        };
        self.stored += told.successful;
        let listed = told.errors.len() as u64;
        for error in &told.errors {
            let line = error.line.checked_sub(1).and_then(|at| lines.get(at)).copied().unwrap_or_default();
            self.add(line, &error.code, &error.detail);
        }
        self.failed += told.failed.saturating_sub(listed);
        match told.stopped {
            None => Ok(()),
            Some(error) => {
                // The lines that the node did not come to.
                let untried = (lines.len() as u64).saturating_sub(told.successful + told.failed);
                self.failed += untried;
                Err(error)
            }
        }
    }

    /// One line for each failure, in the order of the file, on stderr.
    pub(super) fn say_failures(&mut self) {
        self.failures.sort_by_key(|failure| failure.line);
        for Failure { line, code, detail } in &self.failures {
            say_on_stderr(&shown(*line, code, detail));
        }
        let more = self.failed.saturating_sub(self.failures.len() as u64);
        if more > 0 && !self.failures.is_empty() {
            say_on_stderr(&format!("and {more} more"));
        }
    }

    /// One line for people.
    pub(super) fn summary(&self) -> String {
        let unknown = self.unknown.map_or_else(String::new, |(_, _, count)| format!(", {count} unknown"));
        format!("{} stored, {} failed{unknown}\n", self.stored, self.failed)
    }

    /// The same for programs.
    pub(super) fn json(&mut self) -> String {
        self.failures.sort_by_key(|failure| failure.line);
        let errors: Vec<_> = self
            .failures
            .iter()
            .map(|failure| json!({ "line": failure.line, "code": failure.code, "detail": failure.detail }))
            .collect();
        let unknown =
            self.unknown.map(|(first, last, count)| json!({ "firstLine": first, "lastLine": last, "lines": count }));
        json!({ "successful": self.stored, "failed": self.failed, "errors": errors, "unknown": unknown }).to_string()
    }

    /// An error that ended the import, with what had been done before and the next step.
    pub(super) fn explain(&self, error: Error) -> Error {
        let done = match self.unknown {
            None => format!("{} lines are stored; import the file again to go on, repeating is safe", self.stored),
            Some((first, last, _)) => format!(
                "{} lines are stored, of lines {first} to {last} it is not known; import the file again, repeating is safe",
                self.stored
            ),
        };
        let with = |message: String| format!("{message} ({done})");
        match error {
            Error::Network { message, source } => Error::Network { message: with(message), source },
            Error::Persistence { kind, message, source } => Error::Persistence { kind, message: with(message), source },
            Error::Request { kind, message } => Error::Request { kind, message: with(message) },
            Error::Timeout { operation, after_ms } => Error::Timeout { operation: with(operation), after_ms },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_booked_under_its_number_in_the_file() {
        let mut account = Account::default();
        let answer: Told = serde_json::from_str(
            r#"{"successful":2,"failed":1,"errors":[{"line":2,"code":"REQUEST_ERROR","detail":"x"}]}"#,
        )
        .unwrap();
        account.book(&[10, 20, 30], Ok(answer)).unwrap();
        account.fail(15, &Error::bad_request("y"));
        assert_eq!((account.stored, account.failed), (2, 2));
        let json: serde_json::Value = serde_json::from_str(&account.json()).unwrap();
        assert_eq!((json["errors"][0]["line"].as_u64(), json["errors"][1]["line"].as_u64()), (Some(15), Some(20)));
        assert_eq!(account.summary(), "2 stored, 2 failed\n");
    }

    #[test]
    fn a_request_without_an_answer_leaves_its_lines_unknown() {
        let mut account = Account::default();
        let error = account.book(&[5, 6, 9], Err(Error::network("gone", None))).unwrap_err();
        assert_eq!(account.summary(), "0 stored, 0 failed, 3 unknown\n");
        assert!(account.explain(error).to_string().contains("lines 5 to 9"));
    }

    #[test]
    fn lines_that_the_node_did_not_come_to_have_failed() {
        let mut account = Account::default();
        let told: Told = serde_json::from_str(r#"{"successful":1,"failed":1,"errors":[]}"#).unwrap();
        let told = told.stopped_by(Error::network("disk", None));
        assert!(account.book(&[1, 2, 3, 4], Ok(told)).is_err());
        assert_eq!((account.stored, account.failed), (1, 3));
    }
}
