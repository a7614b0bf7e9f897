//! What callers do: writes through the engine to storage, reads through the cache.

use super::offline::key_waits;
use super::shell::Shell;
use crate::cache::{CacheStatistics, DocumentCache};
use crate::document::{
    Accepted, CachedVersion, CollectionSummary, Condition, Document, PAGE_DOCUMENTS_MAX, Page, Query, Stored, Version,
    WriteOp,
};
use crate::error::{Error, PersistenceKind};
use crate::limits::{COLLECTION_BYTES_MAX, DOCUMENT_BYTES_MAX, KEY_BYTES_MAX};
use crate::log::{trace, warn};
use crate::proto::{Client, Input, StoreFault};
use crate::replica::{Precondition, Reply, Write};
use crate::row::{Body, RowKey, Scope};
use crate::time::{Millis, Stamp};
use async_channel::Sender;
use smol::Timer;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// A write that storage does not answer for so long is answered with `TIMEOUT_ERROR`: its outcome is unknown.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Callers whose writes are on their way.
#[derive(Default)]
pub(super) struct Waiting {
    callers: RefCell<HashMap<u64, Caller>>,
    next: Cell<u64>,
}

struct Caller {
    ops: Vec<Op>,
    answer: Sender<Result<Reply, Failed>>,
}

/// Why storage did not do it, and what it was to do.
pub(super) struct Failed {
    pub(super) error: Error,
    ops: Vec<Op>,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        failed.error
    }
}

/// What of an operation is needed when its answer comes.
pub(super) struct Op {
    pub(super) collection: String,
    pub(super) key: String,
    /// The document and its expiry; none for a delete.
    pub(super) fresh: Option<(Vec<u8>, Option<Millis>)>,
}

/// The cache, and reads that are filling it.
pub(super) struct Reads {
    cache: RefCell<DocumentCache<CachedVersion>>,
    /// Reads on their way to storage; true once the document has changed since they began.
    filling: RefCell<HashMap<(String, String), Changed>>,
}

/// Whether a document has changed since a read of it began.
type Changed = Rc<Cell<bool>>;

impl Reads {
    /// Over an empty cache: nothing is believed that was not read here.
    pub(super) fn new(mut cache: DocumentCache<CachedVersion>) -> Reads {
        cache.clear();
        Reads { cache: RefCell::new(cache), filling: RefCell::default() }
    }
    pub(super) fn resize(&self, bytes: usize) {
        self.cache.borrow_mut().resize(bytes);
    }
    pub(super) fn statistics(&self) -> CacheStatistics {
        self.cache.borrow().statistics()
    }
    /// Rows changed by replication or time; no keys means all of them.
    pub(super) fn changed(&self, keys: &[RowKey]) {
        if keys.is_empty() {
            self.cache.borrow_mut().clear();
            self.filling.borrow().values().for_each(|changed| changed.set(true));
        }
        for key in keys.iter().filter(|key| key.scope != Scope::System) {
            self.forget(&key.collection, &key.key);
        }
    }
    fn forget(&self, collection: &str, key: &str) {
        self.cache.borrow_mut().remove(collection, key);
        let filling = self.filling.borrow();
        // Mostly nobody reads while something is written: the name is only put together where it is needed.
        let name = || (collection.to_string(), key.to_string());
        if let Some(changed) = (!filling.is_empty()).then(name).and_then(|name| filling.get(&name)) {
            changed.set(true);
        }
    }
    fn stored(&self, op: Op, version: Version, alone: bool) {
        self.forget(&op.collection, &op.key);
        // A bulk import must not push out what is being read.
        if let Some((value, expires_at)) = op.fresh.filter(|_| alone) {
            self.cache.borrow_mut().set(&op.collection, &op.key, value, CachedVersion { version, expires_at });
        }
    }
}

impl Shell {
    /// Writes one operation, or queues it where the store refuses it now and nothing is asked of what stands there.
    pub(crate) async fn accept(self: &Rc<Self>, op: WriteOp) -> Result<Accepted, Error> {
        check(&op)?;
        let now = self.engine.borrow().reading(self.now()).millis;
        if op.condition != Condition::Always {
            let stored = self.write(Vec::from([op])).await?.pop();
            return stored.unwrap_or_else(|| Err(answered_less())).map(Accepted::Stored);
        }
        let waits = self.offline.holds(&op.collection, &op.key);
        let (write, op) = self.meant(op, now);
        if waits {
            self.enqueue(op, Stamp::ZERO, "what was written before it waits")?;
            return Ok(Accepted::Queued);
        }
        match self.ask(Client::Write(Vec::from([write])), Vec::from([op])).await {
            Ok(Reply::Written(written)) => match written.first() {
                Some(Ok(written)) => Ok(Accepted::Stored(Stored {
                    version: Version { stamp: written.stamp, origin: written.origin },
                    existed: written.existed,
                    seq: written.seq,
                })),
                _ => Err(answered_less()),
            },
            Ok(_) => Err(answered_else()),
            Err(Failed { error, mut ops }) => match ops.pop() {
                Some(op) => self.queue_refused(op, error).await.map(|()| Accepted::Queued),
                None => Err(error),
            },
        }
    }

    /// Writes a group; each operation has its own result, given once it is on disk.
    pub(crate) async fn write(self: &Rc<Self>, ops: Vec<WriteOp>) -> Result<Vec<Result<Stored, Error>>, Error> {
        let now = self.engine.borrow().reading(self.now()).millis;
        let mut results: Vec<Option<Error>> = Vec::with_capacity(ops.len());
        let (mut writes, mut kept, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for op in ops {
            let waits = || self.offline.holds(&op.collection, &op.key).then(|| key_waits(&op));
            let refused = check(&op).err().or_else(waits);
            if refused.is_none() {
                let (write, op) = self.meant(op, now);
                names.push((op.collection.clone(), op.key.clone()));
                writes.push(write);
                kept.push(op);
            }
            results.push(refused);
        }
        let mut written = if writes.is_empty() { Vec::new() } else { self.submit(writes, kept).await? }.into_iter();
        let mut names = names.into_iter();
        Ok(results
            .into_iter()
            .map(|refused| match refused {
                Some(error) => Err(error),
                None => {
                    let (collection, key) = names.next().unwrap_or_default();
                    match written.next() {
                        Some(Ok(written)) => Ok(Stored {
                            version: Version { stamp: written.stamp, origin: written.origin },
                            existed: written.existed,
                            seq: written.seq,
                        }),
                        Some(Err(_)) => Err(Error::Concurrency { collection, key }),
                        None => Err(answered_less()),
                    }
                }
            })
            .collect())
    }

    async fn submit(
        self: &Rc<Self>,
        writes: Vec<Write>,
        ops: Vec<Op>,
    ) -> Result<Vec<Result<crate::replica::Written, crate::replica::Refused>>, Error> {
        match self.ask(Client::Write(writes), ops).await? {
            Reply::Written(written) => Ok(written),
            _ => Err(answered_else()),
        }
    }

    /// Gives the engine a caller's request and waits for what becomes of it, for a bounded time.
    pub(super) async fn ask(self: &Rc<Self>, request: Client, ops: Vec<Op>) -> Result<Reply, Failed> {
        let timeout = async {
            Timer::after(WRITE_TIMEOUT).await;
            let after_ms = WRITE_TIMEOUT.as_millis() as u64;
            Err(Failed { error: Error::Timeout { operation: "store".to_string(), after_ms }, ops: Vec::new() })
        };
        smol::future::or(self.ask_patiently(request, ops), timeout).await
    }

    /// As [`Shell::ask`], for as long as it takes.
    pub(super) async fn ask_patiently(self: &Rc<Self>, request: Client, ops: Vec<Op>) -> Result<Reply, Failed> {
        let client = self.waiting.next.get() + 1;
        self.waiting.next.set(client);
        let (answer, answered) = async_channel::bounded(1);
        self.waiting.callers.borrow_mut().insert(client, Caller { ops, answer });
        self.feed(Input::Client { client, request });
        let stopping = |_| {
            let error = Error::Timeout { operation: "store, the node stops".to_string(), after_ms: 0 };
            Err(Failed { error, ops: Vec::new() })
        };
        answered.recv().await.unwrap_or_else(stopping)
    }

    /// The engine answers a caller: the cache follows in the same step, then the caller is told.
    pub(super) fn answer(&self, client: u64, result: Result<Reply, StoreFault>) {
        let Some(Caller { ops, answer }) = self.waiting.callers.borrow_mut().remove(&client) else { return };
        let alone = ops.len() == 1;
        let result = match result {
            Ok(Reply::Written(written)) => {
                for (op, written) in ops.into_iter().zip(&written) {
                    match written {
                        Ok(written) if written.changed => {
                            let version = Version { stamp: written.stamp, origin: written.origin };
                            self.damage.overwritten(&op.collection, &op.key);
                            self.reads.stored(op, version, alone);
                            self.readers.wake();
                        }
                        _ => {}
                    }
                }
                Ok(Reply::Written(written))
            }
            Ok(reply) => Ok(reply),
            Err(fault) => {
                ops.iter().for_each(|op| self.reads.forget(&op.collection, &op.key));
                let unknown = || Error::Timeout { operation: "store".to_string(), after_ms: 0 };
                let failed = || Error::persistence("the store could not do it", None::<Box<_>>);
                let error = self.fault.borrow_mut().take();
                let error = error.unwrap_or_else(|| if fault == StoreFault::Unknown { unknown() } else { failed() });
                Err(Failed { error, ops })
            }
        };
        // A caller that no longer waits has been told that the outcome is unknown.
        let _ = answer.try_send(result);
    }

    /// One document, from the cache or from disk.
    pub(crate) async fn get(&self, collection: &str, key: &str) -> Result<Option<Document>, Error> {
        check_names(collection, key)?;
        let now = self.engine.borrow().reading(self.now()).millis;
        let cached = self.reads.cache.borrow_mut().get(collection, key);
        if let Some(cached) = cached {
            trace!("cache hit collection={}", collection);
            let over = cached.version.expires_at.is_some_and(|at| at <= now);
            if over {
                warn!("document not found, it has expired collection={}", collection);
            }
            let document =
                || Document { key: key.to_string(), version: cached.version.version, value: cached.value.to_vec() };
            return Ok((!over).then(document));
        }
        trace!("cache miss collection={}", collection);
        let name = (collection.to_string(), key.to_string());
        let changed = self.reads.filling.borrow_mut().entry(name.clone()).or_default().clone();
        let read = self.store.get(self.scope(collection), collection, key, now).await;
        {
            let mut filling = self.reads.filling.borrow_mut();
            // Another read of the same key may share the mark: the last one takes it away.
            if Rc::strong_count(&changed) <= 2 || changed.get() {
                filling.remove(&name);
            }
        }
        let Some((document, expires_at)) = read? else {
            warn!("document not found collection={}", collection);
            return Ok(None);
        };
        if !changed.get() {
            let cached = CachedVersion { version: document.version, expires_at };
            self.reads.cache.borrow_mut().set(collection, key, document.value.as_slice(), cached);
        }
        Ok(Some(document))
    }

    pub(crate) async fn get_many(&self, collection: &str, keys: &[String]) -> Result<Page, Error> {
        keys.iter().try_for_each(|key| check_names(collection, key))?;
        if keys.len() > PAGE_DOCUMENTS_MAX {
            return Err(Error::bad_request(format!("at most {PAGE_DOCUMENTS_MAX} keys at once")));
        }
        let now = self.engine.borrow().reading(self.now()).millis;
        self.store.get_many(self.scope(collection), collection, keys.to_vec(), now).await
    }

    pub(crate) async fn list(&self, collection: &str, query: &Query) -> Result<Page, Error> {
        check_collection(collection)?;
        let now = self.engine.borrow().reading(self.now()).millis;
        self.store.list(self.scope(collection), collection, query, now).await
    }

    pub(crate) async fn collections(&self) -> Result<Vec<CollectionSummary>, Error> {
        let now = self.engine.borrow().reading(self.now()).millis;
        self.store.collections(now).await
    }

    /// What an operation means on this node: scope, expiry, precondition.
    pub(super) fn meant(&self, op: WriteOp, now: Millis) -> (Write, Op) {
        let configured =
            self.in_force.borrow().collections.get(&op.collection).and_then(|collection| collection.ttl_ms);
        let ttl = op.ttl.or(configured).filter(|_| op.value.is_some());
        let expires_at = ttl.map(|ttl| now.saturating_add(ttl));
        let precondition = match op.condition {
            Condition::Always => Precondition::None,
            Condition::Absent => Precondition::Absent,
            Condition::Present => Precondition::Present,
            Condition::At(version) => Precondition::At(version.stamp, version.origin),
        };
        let key = RowKey { scope: self.scope(&op.collection), collection: op.collection.clone(), key: op.key.clone() };
        let fresh = op.value.clone().map(|value| (value, expires_at));
        let body = op.value.map_or(Body::Tombstone, Body::Live);
        (Write { key, body, expires_at, precondition }, Op { collection: op.collection, key: op.key, fresh })
    }
}

fn answered_less() -> Error {
    Error::persistence("the store answered less than it was asked", None::<Box<_>>)
}
fn answered_else() -> Error {
    Error::persistence("the store answered something else", None::<Box<_>>)
}

pub(super) fn check(op: &WriteOp) -> Result<(), Error> {
    check_names(&op.collection, &op.key)?;
    let Some(value) = &op.value else { return Ok(()) };
    if value.len() > DOCUMENT_BYTES_MAX {
        let message = format!("{} bytes are more than the {DOCUMENT_BYTES_MAX} that a document may have", value.len());
        return Err(Error::Persistence { kind: PersistenceKind::DocumentTooLarge, message, source: None });
    }
    Ok(())
}

fn check_collection(collection: &str) -> Result<(), Error> {
    if (1..=COLLECTION_BYTES_MAX).contains(&collection.len()) {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "a collection's name has 1 to {COLLECTION_BYTES_MAX} bytes, not {}",
        collection.len()
    )))
}

fn check_names(collection: &str, key: &str) -> Result<(), Error> {
    check_collection(collection)?;
    if (1..=KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::bad_request(format!("a key has 1 to {KEY_BYTES_MAX} bytes, not {}", key.len())))
}
