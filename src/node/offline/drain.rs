//! Carries out what waits in the offline queue, whenever the store takes it, and a last time at the stop.

use super::Entry;
use crate::error::Error;
use crate::log::{critical, warn};
use crate::node::documents::Op;
use crate::node::shell::Shell;
use crate::proto::Client;
use crate::queue::{OperationKind, PendingOperation};
use crate::replica::{Precondition, Reply, Write};
use crate::retry::RetryPolicy;
use crate::row::{Body, RowKey};
use crate::time::Millis;
use smol::Timer;
use std::rc::Rc;
use std::string::ToString;
use std::time::Duration;
use std::vec::Vec;

/// Operations and bytes that are carried out in one group.
const GROUP_MAX: usize = 64;
const GROUP_BYTES: usize = 256 * 1024;
/// Between two attempts there is at least this, though the store may have taken something else meanwhile...
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(100);
/// ...and at most this: an attempt costs little, and room may be made by somebody who says nothing.
const PAUSE_MAX_MS: Millis = 5_000;

impl Shell {
    /// Carries out what waits, oldest first, whenever the store takes it.
    pub(in crate::node) async fn drain_forever(self: Rc<Self>) {
        let policy = RetryPolicy::new(self.config.network.retry_attempts, self.config.network.retry_delay_ms);
        let offline = &self.offline;
        let (mut attempt, mut group) = (0, 1);
        loop {
            if let Some(emptying) = offline.file_is_done()
                && let Err(error) = emptying.await
            {
                // It is read once more at the next start, which changes nothing.
                warn!("the spill file could not be emptied cause=\"{}\"", error.to_string());
            }
            let operations = offline.queue.borrow().oldest(group, GROUP_BYTES);
            if operations.is_empty() {
                // The sender lives in the same shell as this task.
                let _ = offline.woken.recv().await;
                // What was just refused is not tried at once.
                Timer::after(PAUSE_MIN).await;
                continue;
            }
            let (writes, ops): (Vec<Write>, Vec<Op>) =
                operations.iter().filter_map(|one| self.waiting_write(one)).unzip();
            match self.ask_patiently(Client::Write(writes), ops).await {
                Ok(Reply::Written(_)) => {
                    offline.delivered(&operations);
                    (attempt, group) = (0, (group * 2).min(GROUP_MAX));
                }
                // Perhaps one of them fits where all do not.
                _ if group > 1 => group = 1,
                _ => {
                    offline.queue.borrow_mut().not_delivered();
                    offline.retries.set(offline.retries.get() + 1);
                    attempt += 1;
                    let random = getrandom::u64().unwrap_or(u64::MAX);
                    let pause = Duration::from_millis(policy.jittered(attempt, random).min(PAUSE_MAX_MS));
                    Timer::after(PAUSE_MIN).await;
                    let paused = async {
                        Timer::after(pause).await;
                    };
                    let woken = async {
                        let _ = offline.woken.recv().await;
                    };
                    smol::future::or(paused, woken).await;
                }
            }
        }
    }

    fn waiting_write(&self, operation: &PendingOperation) -> Option<(Write, Op)> {
        let (collection, key) = (operation.collection.clone(), operation.key.clone());
        let entry = Entry::of(operation)?;
        let expires_at = entry.expires_at;
        let (body, fresh) = match operation.kind {
            OperationKind::Put => (Body::Live(entry.value.to_vec()), Some((entry.value.to_vec(), expires_at))),
            OperationKind::Delete => (Body::Tombstone, None),
        };
        let precondition = Precondition::Accepted(entry.stamp, entry.replica);
        let name = RowKey { scope: self.scope(&collection), collection: collection.clone(), key: key.clone() };
        Some((Write { key: name, body, expires_at, precondition }, Op { collection, key, fresh }))
    }

    /// At the stop: what waits is carried out if the store takes it within `limit`, else it is spilled.
    ///
    /// # Errors
    /// What waits could be neither carried out nor spilled, and is lost.
    pub(in crate::node) async fn empty_queue(&self, drain: Duration, limit: Duration) -> Result<(), Error> {
        self.offline.try_again();
        let enough = async {
            Timer::after(drain).await;
        };
        smol::future::or(self.offline.drained(), enough).await;
        let late = async {
            Timer::after(limit).await;
            Err(Error::Timeout { operation: "write the spill file".to_string(), after_ms: limit.as_millis() as u64 })
        };
        let spilled = smol::future::or(self.offline.spill(), late).await;
        let waiting = self.offline.len();
        if let Err(error) = &spilled
            && waiting > 0
        {
            critical!(
                "queued operations are lost, they could not be spilled operations={} cause=\"{}\"",
                waiting,
                error
            );
            return spilled;
        }
        Ok(())
    }
}
