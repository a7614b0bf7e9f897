//! The offline queue of the node: writes that the store refuses now, in the order in which they were accepted, until it
//! takes them.
//!
//! Only what is refused is queued: a store that is slow is waited for, and then the outcome is unknown. A write gets its
//! stamp when it is accepted and competes by it when it is carried out (rule 39 of `docs/replication.md`), so that
//! carrying it out twice is harmless. Conditional writes and lines of a bulk are never queued.
//!
//! Invariant: while a key waits, nothing that is written to it overtakes what waits.

mod drain;

use super::documents::{Op, check};
use super::shell::Shell;
use crate::document::{Condition, Queued, WriteOp, json};
use crate::error::{Error, PersistenceKind};
use crate::id::ReplicaId;
use crate::limits::{CLOCK_MILLIS_MAX, QUEUED_EXTRA_BYTES};
use crate::log::{error, info, warn};
use crate::queue::{OfflineQueue, OperationKind, PendingOperation};
use crate::report::QueueStatus;
use crate::store::{Spill, said_of_loss};
use crate::time::{Millis, Stamp};
use async_channel::{Receiver, Sender};
use smol::Timer;
use std::cell::{Cell, RefCell};
use std::format;
use std::future::Future;
use std::path::Path;
use std::string::ToString;
use std::sync::Arc;
use std::vec::Vec;

/// The queue and its spill file.
pub(super) struct Offline {
    queue: RefCell<OfflineQueue>,
    enabled: bool,
    capacity: usize,
    capacity_bytes: usize,
    spill: RefCell<Option<Spill>>,
    /// The operations that the spill file holds; none where it is empty.
    in_file: RefCell<Option<Vec<Arc<PendingOperation>>>>,
    last_stamp: Cell<Stamp>,
    retries: Cell<u64>,
    lost: Cell<u64>,
    /// Nothing is accepted any more.
    closed: Cell<bool>,
    /// It was full when it was last asked.
    full: Cell<bool>,
    wake: Sender<()>,
    woken: Receiver<()>,
    /// Closed, and made anew, whenever the last operation has left.
    emptied: RefCell<(Sender<()>, Receiver<()>)>,
}

impl Offline {
    /// The queue of a node, with what its last stop has spilled. Blocks: the file is made and read.
    /// `queue` is empty, and gives the bounds.
    pub(super) fn open(database: &Path, enabled: bool, mut queue: OfflineQueue) -> Offline {
        let (operations, bytes) = queue.bounds();
        let (mut spilled, mut lost, mut holds) = (Vec::new(), 0, false);
        let spill = match Spill::open(database, if enabled { bytes as u64 } else { 0 }) {
            Ok((spill, found)) => {
                if let Some(said) = said_of_loss(&found) {
                    error!("the spill file of the offline queue is damaged path={}, {}", spill.path().display(), said);
                }
                lost = found.lost;
                holds = found.headless || found.lost > 0 || !found.operations.is_empty();
                spilled = found.operations;
                Some(spill)
            }
            Err(error) => {
                error!("the offline queue has no spill file and takes nothing cause=\"{}\"", error.to_string());
                None
            }
        };
        // What a stop could not spill is not accepted.
        let room = spill.as_ref().map_or(0, |spill| usize::try_from(spill.room()).unwrap_or(usize::MAX));
        queue.bound_bytes(bytes.min(room));
        let (sound, unsound): (Vec<_>, Vec<_>) = spilled.into_iter().partition(|one| Entry::of(one).is_some());
        lost += unsound.len() as u64;
        lost += queue.resume(sound).len() as u64;
        if !queue.is_empty() {
            info!("operations wait since the last stop and are carried out now operations={}", queue.len());
        }
        let in_file = queue.oldest(usize::MAX, usize::MAX);
        let last_stamp = in_file.iter().filter_map(|one| Entry::of(one)).map(|entry| entry.stamp).max();
        let (wake, woken) = async_channel::bounded(1);
        Offline {
            capacity: operations,
            capacity_bytes: bytes.min(room),
            queue: RefCell::new(queue),
            enabled,
            spill: RefCell::new(spill),
            in_file: RefCell::new(holds.then_some(in_file)),
            last_stamp: Cell::new(last_stamp.unwrap_or(Stamp::ZERO)),
            retries: Cell::new(0),
            lost: Cell::new(lost),
            closed: Cell::new(false),
            full: Cell::new(false),
            wake,
            woken,
            emptied: RefCell::new(async_channel::bounded(1)),
        }
    }
    /// Whether anything waits for this key: then whatever is written to it must go behind.
    pub(super) fn holds(&self, collection: &str, key: &str) -> bool {
        self.queue.borrow().latest(collection, key).is_some()
    }
    /// What a reader of this key sees instead of what is stored.
    pub(super) fn latest(&self, collection: &str, key: &str) -> Option<Queued> {
        let queue = self.queue.borrow();
        let operation = queue.latest(collection, key)?;
        Some(match operation.kind {
            OperationKind::Put => Queued::Put(Entry::of(operation).map(|entry| entry.value.to_vec())?),
            OperationKind::Delete => Queued::Delete,
        })
    }
    /// The store may take writes again.
    pub(super) fn try_again(&self) {
        if !self.queue.borrow().is_empty() {
            // Full means that it is woken already.
            let _ = self.wake.try_send(());
        }
    }
    pub(super) fn status(&self) -> QueueStatus {
        let statistics = self.queue.borrow().statistics();
        QueueStatus {
            enabled: self.enabled,
            length: statistics.operations as u64,
            capacity: self.capacity as u64,
            bytes: statistics.bytes as u64,
            capacity_bytes: self.capacity_bytes as u64,
            accepted: statistics.accepted,
            delivered: statistics.delivered,
            refused: statistics.refused,
            retries: self.retries.get(),
            lost: self.lost.get(),
        }
    }
    fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }
    /// These have been carried out.
    fn delivered(&self, operations: &[Arc<PendingOperation>]) {
        let mut queue = self.queue.borrow_mut();
        for operation in operations {
            queue.delivered(operation);
        }
        self.full.set(false);
        if queue.is_empty() {
            info!("the offline queue is empty again");
            self.emptied.replace(async_channel::bounded(1));
        }
    }
    /// Waits until nothing waits.
    async fn drained(&self) {
        while !self.is_empty() {
            let emptied = self.emptied.borrow().1.clone();
            // Nothing is ever sent: it ends when the sender goes.
            let _ = emptied.recv().await;
        }
    }
    /// Empties the spill file once all that it holds has been carried out.
    fn file_is_done(&self) -> Option<impl Future<Output = Result<(), Error>> + use<>> {
        // What it holds is in front of all that was accepted since.
        let first = self.queue.borrow().first();
        if first.is_some_and(|first| self.is_in_file(&first)) || self.in_file.take().is_none() {
            return None;
        }
        self.spill.borrow_mut().as_mut().map(|spill| spill.write(Vec::new()))
    }
    fn is_in_file(&self, operation: &Arc<PendingOperation>) -> bool {
        let in_file = self.in_file.borrow();
        in_file.as_ref().is_some_and(|held| held.iter().any(|one| Arc::ptr_eq(one, operation)))
    }
    /// Ends it: nothing is accepted any more, and what waits is written to the spill file.
    ///
    /// # Errors
    /// The disk's, or there is no file: what waits is lost with the process.
    pub(super) async fn spill(&self) -> Result<(), Error> {
        self.closed.set(true);
        let waiting = self.queue.borrow().oldest(usize::MAX, usize::MAX);
        if waiting.is_empty() && self.in_file.borrow().is_none() {
            return Ok(());
        }
        let count = waiting.len();
        if count > 0 && waiting.iter().all(|one| self.is_in_file(one)) {
            info!("operations that wait stay in the spill file for the next start operations={}", count);
            return Ok(());
        }
        let writing = self.spill.borrow_mut().as_mut().map(|spill| spill.write(waiting));
        match writing {
            Some(writing) => writing.await?,
            None if count > 0 => return Err(Error::persistence("there is no spill file", None)),
            None => {}
        }
        if count > 0 {
            info!("operations that wait are kept in the spill file for the next start operations={}", count);
        }
        Ok(())
    }
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.queue.borrow().len()
    }
}

/// Whether the store refuses this for now, so that it can be queued: not where it is slow, nor where the operation itself
/// is at fault.
fn refused_for_now(error: &Error) -> bool {
    match error {
        Error::Persistence { kind, .. } => matches!(kind, PersistenceKind::DiskFull | PersistenceKind::Other),
        Error::DatabaseCorruption { .. } => true,
        _ => false,
    }
}

/// What the node keeps of an operation beside its name, as the queue's `data`: the value, then stamp, replica and expiry.
struct Entry<'a> {
    value: &'a [u8],
    stamp: Stamp,
    replica: ReplicaId,
    expires_at: Option<Millis>,
}

impl Entry<'_> {
    fn of(operation: &PendingOperation) -> Option<Entry<'_>> {
        let (value, extra) = operation.data.split_last_chunk::<QUEUED_EXTRA_BYTES>()?;
        let number =
            |at: usize| extra[at..at + 8].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let stamp = Some(Stamp::from_bits(number(0))).filter(|stamp| stamp.is_well_formed())?;
        let expires_at = (extra[24] == 1).then(|| number(16));
        Some(Entry { value, stamp, replica: ReplicaId::from_bits(number(8)), expires_at })
    }
    fn data(mut value: Vec<u8>, stamp: Stamp, replica: ReplicaId, expires_at: Option<Millis>) -> Vec<u8> {
        value.reserve_exact(QUEUED_EXTRA_BYTES);
        value.extend_from_slice(&stamp.to_bits().to_le_bytes());
        value.extend_from_slice(&replica.to_bits().to_le_bytes());
        value.extend_from_slice(&expires_at.unwrap_or(0).to_le_bytes());
        value.push(u8::from(expires_at.is_some()));
        value
    }
}

impl Shell {
    /// Queues what the store has refused, or what must go behind something that waits. The caller's error otherwise.
    pub(super) async fn queue_refused(&self, op: Op, error: Error) -> Result<(), Error> {
        if !refused_for_now(&error) {
            return Err(error);
        }
        if !self.offline.enabled {
            // A full disk has an answer of its own.
            return Err(match error {
                Error::Persistence { kind: PersistenceKind::DiskFull, .. } => error,
                cause => queue_full(format!("the store refuses writes now and the offline queue is off: {cause}")),
            });
        }
        // Above what stands here, or it would be answered and then lose to what its writer had before its eyes.
        let seen = self.stored_stamp(&op.collection, &op.key).await;
        self.enqueue(op, seen, &error.to_string())
    }

    /// Takes over what a queue held that the node's caller had made: accepted now, whatever the bounds say.
    pub(super) fn take_over(&self, operations: Vec<PendingOperation>) {
        if operations.is_empty() {
            return;
        }
        let now = self.engine.borrow().reading(self.now()).millis;
        let (mut stamped, mut lost) = (Vec::new(), 0);
        for PendingOperation { kind, collection, key, data } in operations {
            let value = (kind == OperationKind::Put).then_some(data);
            let whole = value.as_deref().is_none_or(|value| json::check(value).is_ok());
            let op = WriteOp { collection, key, value, ttl: None, condition: Condition::Always };
            if whole && check(&op).is_ok() {
                stamped.push(self.stamped(self.meant(op, now).1, Stamp::ZERO));
            } else {
                lost += 1;
            }
        }
        let accepted = stamped.len();
        lost += self.offline.queue.borrow_mut().resume(stamped).len() as u64;
        self.offline.lost.set(self.offline.lost.get() + lost);
        if lost > 0 {
            error!(
                "operations of the queue that was handed over cannot be stored and are left out operations={}",
                lost
            );
        }
        info!("operations of the queue that was handed over are carried out now operations={}", accepted);
    }

    /// The operation with the stamp by which it competes.
    fn stamped(&self, op: Op, seen: Stamp) -> PendingOperation {
        let offline = &self.offline;
        let (stamp, replica) = {
            let engine = self.engine.borrow();
            let now = Stamp::new(engine.reading(self.now()).millis.min(CLOCK_MILLIS_MAX), 0);
            let above = [engine.knowledge().hlc.last(), offline.last_stamp.get(), seen].map(Stamp::next);
            (above.into_iter().fold(now, Stamp::max), engine.knowledge().replica)
        };
        let Op { collection, key, fresh } = op;
        let (kind, (value, expires_at)) = match fresh {
            Some(fresh) => (OperationKind::Put, fresh),
            None => (OperationKind::Delete, (Vec::new(), None)),
        };
        // Only where nobody goes beyond it: the far future of one row must not carry the others along.
        if stamp != seen.next() {
            offline.last_stamp.set(stamp);
        }
        let data = Entry::data(value, stamp, replica, expires_at);
        PendingOperation { kind, collection, key, data }
    }

    /// Puts an operation at the end of the queue, stamped.
    pub(super) fn enqueue(&self, op: Op, seen: Stamp, why: &str) -> Result<(), Error> {
        let offline = &self.offline;
        if offline.closed.get() {
            return Err(queue_full("the node stops, nothing is accepted any more".to_string()));
        }
        let operation = self.stamped(op, seen);
        let first = offline.is_empty();
        if offline.queue.borrow_mut().enqueue(operation).is_err() {
            if !offline.full.replace(true) {
                warn!("the offline queue is full, writes are refused operations={}", offline.len());
            }
            return Err(queue_full(format!("the store refuses writes now and the offline queue is full: {why}")));
        }
        if first {
            warn!("the store refuses writes, they wait in the offline queue cause=\"{}\"", why);
        }
        offline.try_again();
        Ok(())
    }

    /// The stamp of the document that stands here, as far as it can be read now.
    async fn stored_stamp(&self, collection: &str, key: &str) -> Stamp {
        let now = self.engine.borrow().reading(self.now()).millis;
        let reading = self.store.get(self.scope(collection), collection, key, now);
        let enough = async {
            Timer::after(drain::PAUSE_MIN).await;
            Ok(None)
        };
        match smol::future::or(reading, enough).await {
            Ok(Some((document, _))) => document.version.stamp,
            _ => Stamp::ZERO,
        }
    }
}

/// Whoever is told this may try again.
pub(super) fn queue_full(message: impl Into<std::string::String>) -> Error {
    Error::Persistence { kind: PersistenceKind::QueueFull, message: message.into(), source: None }
}

/// What is said of a write that may not be queued while its key waits.
pub(super) fn key_waits(op: &WriteOp) -> Error {
    let (key, collection) = (&op.key, &op.collection);
    queue_full(format!(
        "{key} in {collection} waits in the offline queue; conditional writes and lines of a bulk are never queued: try again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::time::Duration;

    #[test]
    fn what_the_node_keeps_of_an_operation_comes_back() {
        let (stamp, replica) = (Stamp::new(1_700_000_000_000, 7), ReplicaId::mint(&[], 5));
        for (value, expires_at) in [(b"{}".to_vec(), Some(9)), (Vec::new(), None)] {
            let data = Entry::data(value.clone(), stamp, replica, expires_at);
            let operation = PendingOperation::put("c", "k", data);
            let entry = Entry::of(&operation).expect("it is whole");
            assert_eq!((entry.value, entry.stamp), (value.as_slice(), stamp));
            assert_eq!((entry.replica, entry.expires_at), (replica, expires_at));
        }
        assert!(Entry::of(&PendingOperation::put("c", "k", "short")).is_none());
    }

    #[test]
    fn a_program_that_embeds_a_node_can_choose_that_a_write_waits() {
        use crate::document::{Accepted, Condition};
        use crate::{Config, Node};
        let folder = std::env::temp_dir().join(format!("cbddc-accept-{}", std::process::id()));
        let run = |max_database_mib: u64, first: bool| {
            let executor = Rc::new(smol::LocalExecutor::new());
            smol::block_on(executor.run(async {
                let config = Config::builder().data_directory(&folder).tcp_port(0).discovery(false).http_address(None);
                let mut config = config.build().expect("a configuration");
                config.persistence.max_database_mib = Some(max_database_mib);
                let node = Node::start(executor.clone(), config).await.expect("it starts");
                let documents = node.collection("c");
                if first {
                    let large = "x".repeat(200_000);
                    let mut n = 0;
                    let refused = loop {
                        n += 1;
                        match documents.put(&format!("fill{n}"), &large).await {
                            Ok(_) => assert!(n < 100, "it never fills"),
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(refused.kind(), Some("DiskFull"), "put alone never queues: {refused}");
                    let value = serde_json::to_vec(&large).expect("JSON");
                    let accepted = documents.accept("k", Some(value.clone()), None).await.expect("room in the queue");
                    assert_eq!(accepted, Accepted::Queued);
                    assert_eq!(documents.queued("k"), Some(Queued::Put(value)));
                    let behind = documents.put("k", &1).await.expect_err("it would overtake");
                    assert_eq!(behind.kind(), Some("QueueFull"), "{behind}");
                    let condition = documents.put_if("k", &1, Condition::Absent).await.expect_err("nor this");
                    assert_eq!(condition.kind(), Some("QueueFull"), "{condition}");
                    assert_eq!(documents.accept("k", None, None).await.expect("behind it"), Accepted::Queued);
                    assert_eq!(documents.accept("k", Some(b"7".to_vec()), None).await.expect("too"), Accepted::Queued);
                } else {
                    while documents.queued("k").is_some() {
                        Timer::after(Duration::from_millis(5)).await;
                    }
                    assert_eq!(documents.get::<u8>("k").await.expect("it can be read"), Some(7));
                }
                node.shutdown().await.expect("what waits is kept");
            }));
        };
        run(1, true);
        run(64, false);
        std::fs::remove_dir_all(&folder).expect("the folder is there");
    }

    #[test]
    fn only_what_the_store_refuses_is_queued() {
        let persistence = |kind| Error::Persistence { kind, message: "told".to_string(), source: None };
        assert!(refused_for_now(&persistence(PersistenceKind::DiskFull)));
        assert!(refused_for_now(&persistence(PersistenceKind::Other)));
        for other in [
            persistence(PersistenceKind::QueueFull),
            persistence(PersistenceKind::DocumentTooLarge),
            Error::Timeout { operation: "store".to_string(), after_ms: 30_000 },
            Error::bad_request("no"),
        ] {
            assert!(!refused_for_now(&other), "{other}");
        }
    }
}
