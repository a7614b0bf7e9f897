//! The document cache: documents that were read or written lately, within a bound of bytes.
//!
//! It knows no store and no clock: who fills it says what changed. Keys and bookkeeping count towards the bound.
//! Eviction is SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024): a hit sets one bit and moves nothing, and
//! a document that is read once, as by an export, leaves before one that is read again and again.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// A document takes at most this part of the cache: a larger one would push out many for the sake of one.
pub const DOCUMENT_SHARE: usize = 8;

/// A document as it is cached; `V` is its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedDocument<V> {
    /// Its bytes, shared with whoever reads them.
    pub value: Arc<[u8]>,
    /// Its version.
    pub version: V,
}

/// How the cache does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CacheStatistics {
    /// Reads that it answered.
    pub hits: u64,
    /// Reads that it could not answer.
    pub misses: u64,
    /// Documents that made room for others.
    pub evictions: u64,
    /// Bytes in use, keys and bookkeeping included.
    pub bytes: usize,
    /// Bound of `bytes`.
    pub bytes_max: usize,
    /// Documents.
    pub documents: usize,
    /// Hits for each read, 0 to 1; 0 before the first.
    pub hit_rate: f64,
}

/// Documents by collection and key.
pub struct DocumentCache<V> {
    index: BTreeMap<Arc<str>, BTreeMap<Arc<str>, usize>>,
    /// Documents at the places that `index` names; a vacant place is in `vacant`.
    slots: Vec<Option<Slot<V>>>,
    vacant: Vec<usize>,
    /// The order of arrival, linked through the slots.
    newest: Option<usize>,
    oldest: Option<usize>,
    /// Where the next search for a victim starts, towards newer ones; none is the oldest.
    hand: Option<usize>,
    bytes: usize,
    bytes_max: usize,
    hits: u64,
    misses: u64,
    evictions: u64,
}

struct Slot<V> {
    collection: Arc<str>,
    key: Arc<str>,
    document: CachedDocument<V>,
    visited: bool,
    newer: Option<usize>,
    older: Option<usize>,
}

impl<V: Clone> DocumentCache<V> {
    /// An empty cache of at most `bytes_max` bytes; 0 keeps nothing.
    pub fn new(bytes_max: usize) -> DocumentCache<V> {
        DocumentCache {
            index: BTreeMap::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            newest: None,
            oldest: None,
            hand: None,
            bytes: 0,
            bytes_max,
            hits: 0,
            misses: 0,
            evictions: 0,
        }
    }
    /// The document, if it is here. Counted as a hit or a miss.
    pub fn get(&mut self, collection: &str, key: &str) -> Option<CachedDocument<V>> {
        let at = self.place(collection, key);
        let Some(slot) = at.and_then(|at| self.slots[at].as_mut()) else {
            self.misses += 1;
            return None;
        };
        self.hits += 1;
        slot.visited = true;
        Some(slot.document.clone())
    }
    /// Puts a document in, or in place of the one that was there; false where it is too large to be kept. What was
    /// there before is gone in either case.
    pub fn set(&mut self, collection: &str, key: &str, value: impl Into<Arc<[u8]>>, version: V) -> bool {
        let value = value.into();
        // A document that is read and rewritten stays as hard to push out as it was.
        let visited = self.place(collection, key).and_then(|at| self.take_out(at)) == Some(true);
        let bytes = Self::cost(collection, key, value.len());
        if bytes > self.bytes_max / DOCUMENT_SHARE {
            return false;
        }
        self.evict_until(self.bytes_max - bytes);
        let (collection, key) = (self.shared_name(collection), Arc::<str>::from(key));
        let slot = Slot {
            collection: collection.clone(),
            key: key.clone(),
            document: CachedDocument { value, version },
            visited,
            newer: None,
            older: self.newest,
        };
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[at] = Some(slot);
        match self.newest.and_then(|newest| self.slots[newest].as_mut()) {
            Some(second) => second.newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.newest = Some(at);
        self.index.entry(collection).or_default().insert(key, at);
        self.bytes += bytes;
        true
    }
    /// Takes a document out; false where it was not here.
    pub fn remove(&mut self, collection: &str, key: &str) -> bool {
        self.place(collection, key).and_then(|at| self.take_out(at)).is_some()
    }
    /// Takes everything out. The counters of hits, misses and evictions go on.
    pub fn clear(&mut self) {
        let empty = DocumentCache::new(self.bytes_max);
        let (hits, misses, evictions) = (self.hits, self.misses, self.evictions);
        *self = DocumentCache { hits, misses, evictions, ..empty };
    }
    /// Another bound, at once.
    pub fn resize(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.evict_until(bytes_max);
    }
    /// Numbers.
    pub fn statistics(&self) -> CacheStatistics {
        let reads = self.hits + self.misses;
        CacheStatistics {
            hits: self.hits,
            misses: self.misses,
            evictions: self.evictions,
            bytes: self.bytes,
            bytes_max: self.bytes_max,
            documents: self.slots.len() - self.vacant.len(),
            hit_rate: if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 },
        }
    }

    /// What a document counts for. Bookkeeping is counted at twice its size, since the tables grow by doubling and a
    /// B-tree node may be half empty; the name of a collection is counted with each of its documents.
    fn cost(collection: &str, key: &str, value_bytes: usize) -> usize {
        const SHARED_COUNTS: usize = 2 * size_of::<usize>();
        let tables = size_of::<Option<Slot<V>>>() + size_of::<(Arc<str>, usize)>() + size_of::<usize>();
        2 * tables + 3 * SHARED_COUNTS + collection.len() + key.len() + value_bytes
    }
    fn place(&self, collection: &str, key: &str) -> Option<usize> {
        self.index.get(collection)?.get(key).copied()
    }
    fn shared_name(&self, collection: &str) -> Arc<str> {
        self.index.get_key_value(collection).map_or_else(|| Arc::from(collection), |(name, _)| name.clone())
    }
    fn evict_until(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let Some(victim) = self.victim() else { return };
            self.take_out(victim);
            self.evictions += 1;
        }
    }
    /// Walks from the hand towards newer documents and round again, and takes the first that was not read since the
    /// hand passed it. At most two rounds: the first one takes all the bits away.
    fn victim(&mut self) -> Option<usize> {
        let mut at = self.hand.or(self.oldest)?;
        loop {
            let slot = self.slots[at].as_mut()?;
            if !slot.visited {
                self.hand = Some(at);
                return Some(at);
            }
            slot.visited = false;
            at = slot.newer.or(self.oldest)?;
        }
    }
    /// Says whether the document had been read since it came in.
    fn take_out(&mut self, at: usize) -> Option<bool> {
        let slot = self.slots[at].take()?;
        self.vacant.push(at);
        self.bytes -= Self::cost(&slot.collection, &slot.key, slot.document.value.len());
        match slot.newer.and_then(|newer| self.slots[newer].as_mut()) {
            Some(newer) => newer.older = slot.older,
            None => self.newest = slot.older,
        }
        match slot.older.and_then(|older| self.slots[older].as_mut()) {
            Some(older) => older.newer = slot.newer,
            None => self.oldest = slot.newer,
        }
        if self.hand == Some(at) {
            self.hand = slot.newer;
        }
        if let Some(keys) = self.index.get_mut(&slot.collection) {
            keys.remove(&slot.key);
            if keys.is_empty() {
                self.index.remove(&slot.collection);
            }
        }
        Some(slot.visited)
    }
}

impl<V: Clone> fmt::Debug for DocumentCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentCache").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
