//! The offline queue: operations that cannot be delivered now, in the order in which they were accepted.
//!
//! In memory, bounded in slots and in bytes. It knows no store and no clock; whoever flushes it says what delivering
//! means. An operation leaves only after it was delivered; a full queue gives the operation back.

pub mod spill;

use crate::limits::QUEUE_SLOTS;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OperationKind {
    /// Stores a document.
    Put,
    /// Deletes one.
    Delete,
}

/// One operation that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingOperation {
    /// Store or delete.
    pub kind: OperationKind,
    /// Collection of the document.
    pub collection: String,
    /// Key of the document.
    pub key: String,
    /// The document; empty for a delete.
    pub data: Vec<u8>,
}

impl PendingOperation {
    /// Stores `data`.
    pub fn put(collection: impl Into<String>, key: impl Into<String>, data: impl Into<Vec<u8>>) -> PendingOperation {
        let (collection, key, data) = (collection.into(), key.into(), data.into());
        PendingOperation { kind: OperationKind::Put, collection, key, data }
    }
    /// Deletes.
    pub fn delete(collection: impl Into<String>, key: impl Into<String>) -> PendingOperation {
        let (collection, key) = (collection.into(), key.into());
        PendingOperation { kind: OperationKind::Delete, collection, key, data: Vec::new() }
    }
    /// Bytes that it counts for: its texts and data, and what holds them.
    pub fn bytes(&self) -> usize {
        const HOLDING: usize = size_of::<PendingOperation>() + 2 * size_of::<usize>();
        HOLDING + self.collection.capacity() + self.key.capacity() + self.data.capacity()
    }
    fn is_about(&self, collection: &str, key: &str) -> bool {
        self.key == key && self.collection == collection
    }
}

/// The queue is full; here is the operation again. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full(pub PendingOperation);

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the offline queue is full; {} in {} was not accepted, try again later",
            self.0.key, self.0.collection
        )
    }
}
impl core::error::Error for Full {}

/// What a flush does when an operation cannot be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum OnFailure {
    /// It ends: what failed is probably the way, not the operation.
    #[default]
    Stop,
    /// It goes on with operations on other keys; later ones on the same key wait behind the one that failed.
    GoOn,
}

/// What the queue holds and what went through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct QueueStatistics {
    /// Operations that wait.
    pub operations: usize,
    /// Bytes that they count for.
    pub bytes: usize,
    /// Accepted since the start.
    pub accepted: u64,
    /// Given back because the queue was full.
    pub refused: u64,
    /// Superseded by a later one on the same key, where that was chosen.
    pub replaced: u64,
    /// Delivered.
    pub delivered: u64,
    /// Attempts to deliver that failed; the operation stayed.
    pub failed: u64,
}

/// Operations that wait, oldest first. `OfflineQueue::new(slots, bytes)`, then [`enqueue`](Self::enqueue) and
/// [`flush`](Self::flush).
pub struct OfflineQueue {
    /// One pointer a slot: the operations themselves are allocated as they come.
    slots: Box<heapless::Deque<Arc<PendingOperation>, QUEUE_SLOTS>>,
    slots_max: usize,
    bytes_max: usize,
    replaces_older: bool,
    on_failure: OnFailure,
    statistics: QueueStatistics,
}

impl OfflineQueue {
    /// An empty queue of at most `slots_max` operations (and never more than [`QUEUE_SLOTS`]) and `bytes_max` bytes.
    pub fn new(slots_max: usize, bytes_max: usize) -> OfflineQueue {
        OfflineQueue {
            slots: Box::new(heapless::Deque::new()),
            slots_max: slots_max.min(QUEUE_SLOTS),
            bytes_max,
            replaces_older: false,
            on_failure: OnFailure::default(),
            statistics: QueueStatistics::default(),
        }
    }
    /// An operation takes the place of older ones on the same key, at the end of the queue. Off by default: whoever
    /// delivers then never sees the values in between.
    pub fn replacing_older(mut self) -> OfflineQueue {
        self.replaces_older = true;
        self
    }
    /// What a flush does when an operation cannot be delivered; by default it stops.
    pub fn on_failure(mut self, choice: OnFailure) -> OfflineQueue {
        self.on_failure = choice;
        self
    }
    /// Accepts an operation behind all others.
    ///
    /// # Errors
    /// [`Full`], with the operation.
    pub fn enqueue(&mut self, operation: PendingOperation) -> Result<(), Full> {
        let replaced = |waiting: &Arc<PendingOperation>| waiting.is_about(&operation.collection, &operation.key);
        let freed: (usize, usize) = if self.replaces_older {
            self.slots
                .iter()
                .filter(|waiting| replaced(waiting))
                .fold((0, 0), |sum, waiting| (sum.0 + 1, sum.1 + waiting.bytes()))
        } else {
            (0, 0)
        };
        let bytes = operation.bytes();
        let fits = self.slots.len() - freed.0 < self.slots_max
            && (self.statistics.bytes - freed.1).checked_add(bytes).is_some_and(|sum| sum <= self.bytes_max);
        if !fits {
            self.statistics.refused += 1;
            return Err(Full(operation));
        }
        if freed.0 > 0 {
            self.slots.retain(|waiting| !replaced(waiting));
            self.statistics.replaced += freed.0 as u64;
        }
        let pushed = self.slots.push_back(Arc::new(operation));
        debug_assert!(pushed.is_ok(), "slots_max is at most the capacity");
        self.statistics.accepted += 1;
        self.statistics.bytes = self.statistics.bytes - freed.1 + bytes;
        Ok(())
    }
    /// Delivers what waits, oldest first, one at a time; gives how many were delivered and how many failed.
    ///
    /// An operation is removed after `deliver` said that it succeeded, so a flush that is dropped midway loses nothing;
    /// the operation that was under way is delivered again by the next, which must be harmless. What failed stays
    /// where it was.
    pub async fn flush<F, Fut, E>(&mut self, mut deliver: F) -> (usize, usize)
    where
        F: FnMut(Arc<PendingOperation>) -> Fut,
        Fut: Future<Output = Result<(), E>>,
    {
        let (mut delivered, mut failed) = (0, 0);
        // Everything in front of it failed in this flush, or waits behind such a one.
        let mut at = 0;
        while let Some(operation) = self.slots.get(at).cloned() {
            if self.slots.iter().take(at).any(|earlier| earlier.is_about(&operation.collection, &operation.key)) {
                at += 1;
                continue;
            }
            if deliver(operation.clone()).await.is_ok() {
                self.delivered(&operation);
                delivered += 1;
                continue;
            }
            self.statistics.failed += 1;
            failed += 1;
            at += 1;
            if self.on_failure == OnFailure::Stop {
                break;
            }
        }
        (delivered, failed)
    }
    /// Takes back what another queue held, oldest first, in front of all that is accepted later, and over this queue's
    /// own bounds if need be: what was accepted once stays accepted. Gives back what is beyond [`QUEUE_SLOTS`], which no
    /// queue has held.
    pub fn resume(&mut self, operations: Vec<PendingOperation>) -> Vec<PendingOperation> {
        let mut beyond = Vec::new();
        for operation in operations {
            let bytes = operation.bytes();
            match self.slots.push_back(Arc::new(operation)) {
                Ok(()) => self.statistics.bytes += bytes,
                Err(operation) => beyond.extend(Arc::into_inner(operation)),
            }
        }
        beyond
    }
    /// The oldest operation, for one who delivers without borrowing the queue meanwhile.
    pub fn first(&self) -> Option<Arc<PendingOperation>> {
        self.slots.front().cloned()
    }
    /// The oldest operations, for one who delivers several at once: at most so many, and so many bytes beyond the first.
    pub fn oldest(&self, operations: usize, bytes: usize) -> Vec<Arc<PendingOperation>> {
        let mut taken = 0usize;
        let fits = |waiting: &&Arc<PendingOperation>| {
            let first = taken == 0;
            taken = taken.saturating_add(waiting.bytes());
            first || taken <= bytes
        };
        self.slots.iter().take(operations).take_while(fits).cloned().collect()
    }
    /// Counts an attempt that failed, for one who delivers without [`flush`](Self::flush).
    pub fn not_delivered(&mut self) {
        self.statistics.failed += 1;
    }
    /// Removes exactly this operation; false where it is not here any more.
    pub fn delivered(&mut self, operation: &Arc<PendingOperation>) -> bool {
        let Some(at) = self.slots.iter().position(|waiting| Arc::ptr_eq(waiting, operation)) else {
            return false;
        };
        // Walks to the front past the others, whose order stays.
        (0..at).rev().for_each(|earlier| self.slots.swap(earlier, earlier + 1));
        self.slots.pop_front();
        self.statistics.bytes -= operation.bytes();
        self.statistics.delivered += 1;
        true
    }
    /// The newest operation that waits for a key: later ones must go behind it, and readers see its value.
    pub fn latest(&self, collection: &str, key: &str) -> Option<&PendingOperation> {
        self.slots.iter().rev().find(|waiting| waiting.is_about(collection, key)).map(Arc::as_ref)
    }
    /// What waits, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &PendingOperation> {
        self.slots.iter().map(Arc::as_ref)
    }
    /// How many operations it takes, and how many bytes.
    pub fn bounds(&self) -> (usize, usize) {
        (self.slots_max, self.bytes_max)
    }
    /// Another bound of bytes; what waits stays, whatever it takes.
    pub fn bound_bytes(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }
    /// Takes out all that waits, oldest first, for one who passes it on: it is neither delivered nor failed.
    pub fn take(&mut self) -> Vec<PendingOperation> {
        let mut taken = Vec::with_capacity(self.slots.len());
        while let Some(operation) = self.slots.pop_front() {
            self.statistics.bytes -= operation.bytes();
            taken.push(Arc::unwrap_or_clone(operation));
        }
        taken
    }
    /// Operations that wait.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
    /// Numbers.
    pub fn statistics(&self) -> QueueStatistics {
        QueueStatistics { operations: self.slots.len(), ..self.statistics }
    }
}

impl fmt::Debug for OfflineQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfflineQueue").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
