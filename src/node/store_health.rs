//! Whether storage takes what it is given: for health and readiness, and the log, once for each change.

use crate::error::{Error, PersistenceKind};
use crate::log::{critical, error, info};
use crate::replica::Request;
use crate::row::Body;
use std::cell::RefCell;
use std::string::{String, ToString};

/// Why storage did not do what it was last asked to.
#[derive(Debug, Default)]
pub(super) struct StoreHealth(RefCell<Option<Refusal>>);

#[derive(Debug)]
struct Refusal {
    why: String,
    /// Only what grows the database is refused: that a delete or a mark was stored does not end it.
    space: bool,
}

/// Whether a request adds documents.
pub(super) fn grows(request: &Request) -> bool {
    match request {
        Request::Write { writes, .. } => writes.iter().any(|write| matches!(write.body, Body::Live(_))),
        Request::Apply(incoming) => incoming.rows.iter().any(|row| !row.is_tombstone()),
        Request::Stage { rows, .. } => !rows.is_empty(),
        _ => false,
    }
}

impl StoreHealth {
    /// Takes note of an answer to a request; `grew` where that added documents. Says whether it ends a refusal.
    pub(super) fn answered(&self, error: Option<&Error>, grew: bool) -> bool {
        let mut refusal = self.0.borrow_mut();
        match error {
            // Too many wait: an answer to those callers, and nothing that is wrong with the disk.
            Some(Error::Persistence { kind: PersistenceKind::QueueFull, .. }) => {}
            Some(error) => {
                let space = matches!(error, Error::Persistence { kind: PersistenceKind::DiskFull, .. });
                let why = error.to_string();
                if refusal.as_ref().is_none_or(|before| before.space != space) {
                    match space {
                        true => error!("the store refuses what it is given cause=\"{}\"", why),
                        false => critical!("the database cannot be used cause=\"{}\"", why),
                    }
                }
                *refusal = Some(Refusal { why, space });
            }
            None if refusal.as_ref().is_some_and(|before| grew || !before.space) => {
                info!("the store takes writes again");
                *refusal = None;
                return true;
            }
            None => {}
        }
        false
    }
    /// The database is only read, until the node is started anew.
    pub(super) fn read_only(&self, why: Option<String>) {
        if let Some(why) = why {
            *self.0.borrow_mut() = Some(Refusal { why, space: false });
        }
    }
    /// There is room again, whether or not anybody has tried since. Says whether that ends a refusal.
    pub(super) fn has_room(&self) -> bool {
        let mut refusal = self.0.borrow_mut();
        let ends = refusal.take_if(|refusal| refusal.space).is_some();
        if ends {
            info!("there is room for documents again");
        }
        ends
    }
    /// Why the last request was refused.
    pub(super) fn refusal(&self) -> Option<String> {
        self.0.borrow().as_ref().map(|refusal| refusal.why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: PersistenceKind) -> Error {
        Error::Persistence { kind, message: "told".to_string(), source: None }
    }

    #[test]
    fn a_full_disk_is_remembered_until_a_document_was_stored() {
        let health = StoreHealth::default();
        health.answered(Some(&failed(PersistenceKind::DiskFull)), true);
        health.answered(None, false);
        assert_eq!(health.refusal().as_deref(), Some("told"));
        health.answered(None, true);
        assert_eq!(health.refusal(), None);
        health.answered(Some(&failed(PersistenceKind::DiskFull)), true);
        health.has_room();
        assert_eq!(health.refusal(), None);
    }

    #[test]
    fn another_fault_ends_with_the_next_answer_and_a_full_inbox_is_none() {
        let health = StoreHealth::default();
        health.answered(Some(&failed(PersistenceKind::QueueFull)), true);
        assert_eq!(health.refusal(), None);
        health.answered(Some(&failed(PersistenceKind::Other)), false);
        health.has_room();
        assert!(health.refusal().is_some());
        health.answered(None, false);
        assert_eq!(health.refusal(), None);
    }
}
