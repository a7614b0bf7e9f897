//! A folder for each test, and the words that all tests use.

use cbddc::document::Query;
use cbddc::id::{DeviceId, ReplicaId, VersionVector};
use cbddc::replica::{Applied, Batch, Incoming, Knowledge, Precondition, Reply, Request, Stream, Write};
use cbddc::row::{Body, Row, RowKey, Scope};
use cbddc::store::{BackupOrder, Opened, Options, Recovery, Restored, Store};
use cbddc::time::Reading;
use cbddc::wire::Mode;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const NOW: Reading = Reading { millis: 1_700_000_000_000, believed: true };

/// An empty folder of that name; what an earlier run left is gone.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("store").join(name);
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).unwrap();
    folder
}
pub(crate) fn database(name: &str) -> PathBuf {
    folder(name).join("cbddc.db")
}
pub(crate) fn open_with(options: Options) -> Result<(Store, Opened), cbddc::Error> {
    let mut random = fastrand::Rng::with_seed(7);
    Store::open(options, &mut || random.u64(..))
}
pub(crate) fn open(path: &Path) -> (Store, Opened) {
    open_with(Options { min_free_bytes: 0, ..Options::new(path) }).unwrap()
}
/// A node that recovers a damaged database, from backups beside it or, where there are any, from peers.
pub(crate) fn recovering(path: &Path, peers: bool) -> Options {
    let backups = path.with_file_name("backups");
    Options { min_free_bytes: 0, recovery: Some(Recovery { backups, peers }), ..Options::new(path) }
}
/// A store whose identity is another one than that of the others here.
pub(crate) fn open_as(path: &Path, seed: u64) -> Store {
    let mut random = fastrand::Rng::with_seed(seed);
    let options = Options { min_free_bytes: 0, ..Options::new(path) };
    Store::open(options, &mut || random.u64(..)).unwrap().0
}
pub(crate) fn refused(path: &Path) -> String {
    open_with(Options::new(path)).map(|_| ()).unwrap_err().to_string()
}
pub(crate) fn close(store: Store) {
    smol::block_on(store.close()).unwrap();
}

pub(crate) fn put(key: &str, value: &str) -> Write {
    let body = Body::Live(value.as_bytes().to_vec());
    Write { key: RowKey::replicated("c", key), body, expires_at: None, precondition: Precondition::None }
}
pub(crate) fn delete(key: &str) -> Write {
    Write { body: Body::Tombstone, ..put(key, "") }
}
pub(crate) fn request(writes: Vec<Write>) -> Request {
    Request::Write { writes, sending: false }
}
pub(crate) fn write(store: &Store, writes: Vec<Write>) -> Knowledge {
    let (reply, knowledge) = smol::block_on(store.submit(NOW, request(writes))).unwrap();
    assert!(matches!(reply, Reply::Written(_)));
    knowledge
}
pub(crate) fn get(store: &Store, key: &str) -> Option<String> {
    let found = smol::block_on(store.get(Scope::Replicated, "c", key, NOW.millis)).unwrap();
    found.map(|(document, _)| String::from_utf8(document.value).unwrap())
}
pub(crate) fn keys(store: &Store, query: &Query) -> (Vec<String>, Option<String>) {
    let page = smol::block_on(store.list(Scope::Replicated, "c", query, NOW.millis)).unwrap();
    (page.documents.into_iter().map(|document| document.key).collect(), page.next)
}
/// Every row that would go to a newcomer, in order of position, and the knowledge of that snapshot.
pub(crate) fn stream(store: &Store) -> (Vec<Row>, Knowledge) {
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let stream = Stream { mode: Mode::Bootstrap, after, covers: VersionVector::new(), passes_upto: 0 };
        match smol::block_on(store.read(stream)).unwrap() {
            Batch::Rows { rows, upto, closure, knowledge, .. } => {
                all.extend(rows);
                after = upto;
                if closure.is_some() {
                    return (all, knowledge);
                }
            }
            Batch::BelowFloor { .. } => unreachable!("a bootstrap has no floor"),
        }
    }
}

pub(crate) fn order(path: &Path, keep: u32) -> BackupOrder {
    BackupOrder { folder: path.with_file_name("backups"), keep, now: NOW.millis }
}
pub(crate) fn backup(store: &Store, path: &Path) -> PathBuf {
    smol::block_on(store.backup(order(path, 3))).unwrap().path
}
/// Names in the folder of the backups.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.with_file_name("backups")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
/// Names beside the database.
pub(crate) fn beside(path: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut files: Vec<_> =
        files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    files.retain(|(name, _)| !name.ends_with(".lock"));
    files.sort();
    files
}
pub(crate) fn fill(store: &Store, from: u32, to: u32) {
    write(
        store,
        (from..to).map(|n| put(&format!("key-{n:05}"), &format!("value-{n:05}-{}", "x".repeat(200)))).collect(),
    );
}
pub(crate) fn replica(store: &Store) -> ReplicaId {
    smol::block_on(store.knowledge()).unwrap().replica
}
pub(crate) fn restore(path: &Path, file: &Path) -> Result<Restored, cbddc::Error> {
    Store::restore(path, file)
}

/// Gives the stream of one store to another, from a position up to its tail; where the next goes on.
pub(crate) fn follow_from(
    from: &Store,
    device: DeviceId,
    to: &Store,
    now: Reading,
    mut after: u64,
    mut follows: Option<u64>,
) -> (u64, Option<u64>) {
    let sender = smol::block_on(from.knowledge()).unwrap();
    let receiver = smol::block_on(to.knowledge()).unwrap();
    loop {
        let covers = receiver.vector.clone();
        let stream = Stream { mode: Mode::Increment, after, covers, passes_upto: 0 };
        let Batch::Rows { rows, upto, closure, .. } = smol::block_on(from.read(stream)).unwrap() else {
            panic!("below the floor")
        };
        let closes = closure.is_some();
        let incoming = Incoming {
            device,
            replica: sender.replica,
            announced: sender.vector.clone(),
            mode: Mode::Increment,
            asked_as: receiver.replica,
            follows,
            rows,
            upto,
            closure,
        };
        let (reply, _) = smol::block_on(to.submit(now, Request::Apply(incoming))).unwrap();
        assert!(matches!(reply, Reply::Applied(Applied::Applied { .. })), "{reply:?}");
        (after, follows) = (upto, Some(upto));
        if closes {
            return (after, follows);
        }
    }
}
