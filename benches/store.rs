//! The store against a plain SQLite floor, measured in the same run, round by round in turn.
//!
//! The floor writes two tables for each document (the document, and a log of changes) in one transaction with the same
//! durability, on the calling thread: what a program without replication would do. Absolute figures are this machine's;
//! the ratios are what is compared. `cargo bench --bench store`; the folder is that of `CARGO_TARGET_TMPDIR`, or of
//! `CBDDC_BENCH_DIR` to measure another disk.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first failure")]

use cbddc::id::{DeviceId, ReplicaId, VersionVector};
use cbddc::replica::{Batch, Incoming, Precondition, Request, Stream, Write};
use cbddc::row::{Body, RowKey};
use cbddc::store::{Options, Store};
use cbddc::time::Reading;
use cbddc::wire::Mode;
use std::path::{Path, PathBuf};
use std::time::Instant;

const NOW: Reading = Reading { millis: 1_700_000_000_000, believed: true };
const ROUNDS: usize = 7;
/// Documents of one bulk transaction.
const BULK: usize = 256;

struct Document {
    collection: &'static str,
    key: String,
    value: Vec<u8>,
}

fn main() {
    let root = std::env::var_os("CBDDC_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let folder = root.join("bench-store");
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).unwrap();

    let sets = [
        ("sf-temps, time-ordered keys", table("sf-temps.csv", 1, 8000)),
        ("airports, short keys", table("airports.csv", 0, 3000)),
        ("synthetic, random keys, 200 bytes", synthetic(20_000, 200)),
        ("synthetic, hot set of 100 keys", hot(8000)),
    ];
    println!("durable single put and 64 writers at once ({ROUNDS} rounds each, median)");
    for (name, documents) in &sets {
        single(&folder, name, &documents[..2000]);
    }
    println!("\nbulk, {BULK} documents a transaction; written = bytes to disk for each document (/proc/self/io)");
    for (name, documents) in &sets {
        bulk(&folder, name, documents);
    }
    println!("\ncatch-up: the stream of one store read and applied by another, against the batched floor");
    catch_up(&folder, &synthetic(20_000, 200));
    std::fs::remove_dir_all(&folder).ok();
}

fn single(folder: &Path, name: &str, documents: &[Document]) {
    let mut floor = Floor::open(&folder.join("single-floor.db"));
    let store = open(&folder.join("single.db"));
    let (mut ratios, mut gains, mut micros) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    for part in documents.chunks(documents.len() / ROUNDS).take(ROUNDS) {
        let per = |seconds: f64| seconds / part.len() as f64 * 1e6;
        let base = per(seconds(|| part.iter().for_each(|document| floor.put(std::slice::from_ref(document)))));
        let one = per(seconds(|| {
            smol::block_on(async {
                for document in part {
                    store.submit(NOW, request(std::slice::from_ref(document))).await.unwrap();
                }
            });
        }));
        let many = per(seconds(|| together(&store, part, 64)));
        ratios.push(base / one);
        gains.push(one / many);
        micros.0.push(one);
        micros.1.push(base);
    }
    smol::block_on(store.close()).unwrap();
    let (ratio, gain) = (median(ratios), median(gains));
    let (one, base) = (median(micros.0), median(micros.1));
    println!("  {name:<36} put {one:6.0} us (floor {base:5.0} us) = {ratio:4.2} of the floor; 64 writers {gain:5.1} x");
    clean(folder);
}

/// Every writer sends its next document when the last one was answered.
fn together(store: &Store, documents: &[Document], writers: usize) {
    let next = std::cell::Cell::new(0);
    let executor = smol::LocalExecutor::new();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            executor.spawn(async {
                while let Some(document) = documents.get(next.replace(next.get() + 1)) {
                    store.submit(NOW, request(std::slice::from_ref(document))).await.unwrap();
                }
            })
        })
        .collect();
    smol::block_on(executor.run(async {
        for task in tasks {
            task.await;
        }
    }));
}

fn bulk(folder: &Path, name: &str, documents: &[Document]) {
    let bytes = documents.iter().map(|document| document.value.len() + document.key.len()).sum::<usize>();
    let (mut ratios, mut rates, mut written) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    for round in 0..5 {
        let before = disk_bytes();
        let mut floor = Floor::open(&folder.join(format!("bulk-floor-{round}.db")));
        let base = seconds(|| documents.chunks(BULK).for_each(|part| floor.put(part)));
        drop(floor);
        let between = disk_bytes();
        let store = open(&folder.join(format!("bulk-{round}.db")));
        let ours = seconds(|| {
            smol::block_on(async {
                let mut last = None;
                for part in documents.chunks(BULK) {
                    let answer = store.submit(NOW, request(part));
                    if let Some(last) = last.replace(answer) {
                        last.await.unwrap();
                    }
                }
                last.unwrap().await.unwrap();
            });
        });
        smol::block_on(store.close()).unwrap();
        let each = |bytes: u64| bytes as f64 / documents.len() as f64;
        written.0.push(each(disk_bytes() - between));
        written.1.push(each(between - before));
        ratios.push(base / ours);
        rates.push(documents.len() as f64 / ours);
        clean(folder);
    }
    let (rate, ratio) = (median(rates), median(ratios));
    let (ours, base) = (median(written.0), median(written.1));
    let size = bytes / documents.len();
    println!(
        "  {name:<36} {rate:7.0}/s = {ratio:4.2} of the floor; written {ours:5.0} B (floor {base:5.0} B) for {size} B"
    );
}

fn catch_up(folder: &Path, documents: &[Document]) {
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let mut floor = Floor::open(&folder.join(format!("catch-floor-{round}.db")));
        let base = seconds(|| documents.chunks(BULK).for_each(|part| floor.put(part)));
        let (from, to) = (open(&folder.join(format!("from-{round}.db"))), open(&folder.join(format!("to-{round}.db"))));
        smol::block_on(async {
            for part in documents.chunks(BULK) {
                from.submit(NOW, request(part)).await.unwrap();
            }
        });
        let ours = seconds(|| smol::block_on(replicate(&from, &to)));
        smol::block_on(async { (from.close().await.unwrap(), to.close().await.unwrap()) });
        ratios.push(base / ours);
        rates.push(documents.len() as f64 / ours);
        clean(folder);
    }
    println!(
        "  {:<36} {:7.0}/s = {:4.2} of the floor",
        "synthetic, random keys, 200 bytes",
        median(rates),
        median(ratios)
    );
}

/// The next batch is read while the last one is committed, as a link with a window does it.
async fn replicate(from: &Store, to: &Store) {
    let (mut after, mut last) = (0, None);
    let replica = ReplicaId::mint(&[], 1);
    let upto = 0;
    let (_, knowledge) = to.submit(NOW, Request::MarkSent { upto }).await.unwrap();
    let asked_as = knowledge.replica;
    loop {
        let stream = Stream { mode: Mode::Increment, after, covers: VersionVector::new(), passes_upto: 0 };
        let Batch::Rows { rows, upto, closure, knowledge, .. } = from.read(stream).await.unwrap() else { return };
        let done = closure.is_some();
        let (device, announced) = (DeviceId([1; 32]), knowledge.vector);
        let incoming = Incoming {
            device,
            replica,
            announced,
            mode: Mode::Increment,
            asked_as,
            follows: None,
            rows,
            upto,
            closure,
        };
        let answer = to.submit(NOW, Request::Apply(incoming));
        if let Some(last) = last.replace(answer) {
            last.await.unwrap();
        }
        after = upto;
        if done {
            last.unwrap().await.unwrap();
            return;
        }
    }
}

/// Plain SQLite with the same durability.
struct Floor(rusqlite::Connection);

impl Floor {
    fn open(path: &Path) -> Floor {
        let sqlite = rusqlite::Connection::open(path).unwrap();
        sqlite
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE document (collection TEXT NOT NULL, key TEXT NOT NULL, value BLOB,
                                        PRIMARY KEY (collection, key));
                 CREATE TABLE change (seq INTEGER PRIMARY KEY, collection TEXT NOT NULL, key TEXT NOT NULL);",
            )
            .unwrap();
        Floor(sqlite)
    }
    fn put(&mut self, documents: &[Document]) {
        let transaction = self.0.transaction().unwrap();
        for Document { collection, key, value } in documents {
            let mut document =
                transaction.prepare_cached("INSERT OR REPLACE INTO document VALUES (?1, ?2, ?3)").unwrap();
            document.execute((collection, key, value)).unwrap();
            let mut change =
                transaction.prepare_cached("INSERT INTO change (collection, key) VALUES (?1, ?2)").unwrap();
            change.execute((collection, key)).unwrap();
        }
        transaction.commit().unwrap();
    }
}

fn open(path: &Path) -> Store {
    let mut random = fastrand::Rng::with_seed(path.as_os_str().len() as u64);
    Store::open(Options { min_free_bytes: 0, ..Options::new(path) }, &mut || random.u64(..)).unwrap().0
}
fn request(documents: &[Document]) -> Request {
    let write = |Document { collection, key, value }: &Document| Write {
        key: RowKey::replicated(collection, key),
        body: Body::Live(value.clone()),
        expires_at: None,
        precondition: Precondition::None,
    };
    Request::Write { writes: documents.iter().map(write).collect(), sending: false }
}

/// Rows of a file as JSON documents, keyed by one column.
fn table(file: &str, key: usize, rows: usize) -> Vec<Document> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file);
    let mut reader = csv::Reader::from_path(path).unwrap();
    let names = reader.headers().unwrap().clone();
    let document = |record: csv::StringRecord| {
        let object: serde_json::Map<_, _> = names.iter().map(String::from).zip(record.iter().map(Into::into)).collect();
        let value = serde_json::to_vec(&object).unwrap();
        Document { collection: "bench", key: record[key].to_string(), value }
    };
    reader.records().map(|record| document(record.unwrap())).take(rows).collect()
}
fn synthetic(count: usize, bytes: usize) -> Vec<Document> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut value =
        || format!("\"{}\"", (0..bytes - 2).map(|_| random.alphanumeric()).collect::<String>()).into_bytes();
    let mut keys = fastrand::Rng::with_seed(4);
    (0..count)
        .map(|_| Document { collection: "bench", key: format!("{:016x}", keys.u64(..)), value: value() })
        .collect()
}
fn hot(count: usize) -> Vec<Document> {
    let mut documents = synthetic(count, 200);
    for (n, document) in documents.iter_mut().enumerate() {
        document.key = format!("sensor-{:03}", n * 37 % 100);
    }
    documents
}

/// Bytes that this process has caused to be sent to the disk.
fn disk_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
}
fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
fn clean(folder: &Path) {
    for file in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
}
