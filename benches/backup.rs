//! A backup under load: what it costs the writers, and whether what was answered before it began is in it.
//!
//! A database of so many MiB, documents written at a fixed rate, each latency counted from the moment at which the write was
//! due: a stall meets all that were due meanwhile. Once without a backup, once with one, in turns. Then the backup is
//! restored and every document compared. `cargo bench --bench backup`; `--mib 500 --rate 1000` are the defaults, the disk is
//! that of `CARGO_TARGET_TMPDIR` or of `CBDDC_BENCH_DIR`.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first failure")]

use cbddc::document::Query;
use cbddc::replica::{Precondition, Request, Write};
use cbddc::row::{Body, RowKey, Scope};
use cbddc::store::{BackupOrder, Options, Store};
use cbddc::time::Reading;
use smol::Timer;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

const NOW: Reading = Reading { millis: 1_700_000_000_000, believed: true };
const VALUE_BYTES: usize = 500;
/// Keys that the load writes again and again, all over the database.
const HOT: u64 = 5_000;
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |text| text.parse().unwrap())
    };
    let (mib, rate) = (number("--mib", 500), number("--rate", 1000));
    let root = std::env::var_os("CBDDC_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let folder = root.join("bench-backup");
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("cbddc.db");
    let executor = Rc::new(smol::LocalExecutor::new());
    let store = open(&path);
    let documents = smol::block_on(fill(&store, &path, mib * 1024 * 1024));
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!("{documents} documents, {} MiB, {rate} writes a second", bytes / 1024 / 1024);
    let load = Rc::new(Load {
        store: store.clone(),
        documents,
        acknowledged: RefCell::new(vec![0; HOT as usize]),
        written: Cell::new(0),
        refused: Cell::new(0),
    });
    let (mut ratios, mut last) = (Vec::new(), None);
    for round in 0..ROUNDS {
        let backup = smol::block_on(executor.run(one_backup(&executor, &load, &folder, rate)));
        let quiet = smol::block_on(executor.run(run_for(&executor, &load, rate, backup.took)));
        let (with, without) = (backup.latencies, quiet);
        println!(
            "round {round}: backup {:.1} s, {} writes meanwhile; p50 {} p99 {} max {} us with, p50 {} p99 {} max {} us without: p99 x {:.2}",
            backup.took.as_secs_f64(),
            with.len(),
            share(&with, 50),
            share(&with, 99),
            share(&with, 100),
            share(&without, 50),
            share(&without, 99),
            share(&without, 100),
            share(&with, 99) as f64 / share(&without, 99) as f64,
        );
        ratios.push(share(&with, 99) as f64 / share(&without, 99) as f64);
        last = Some((backup.path, backup.acknowledged));
    }
    ratios.sort_by(f64::total_cmp);
    println!("p99 of writes during a backup: x {:.2} (median of {ROUNDS})", ratios[ROUNDS / 2]);
    println!("{} writes were refused: beyond what this machine takes at that rate", load.refused.get());
    drop(load);
    smol::block_on(store.close()).unwrap();
    let (backup, acknowledged) = last.unwrap();
    let copy = folder.join("restored.db");
    let began = Instant::now();
    let restored = Store::restore(&copy, &backup).unwrap();
    println!("restored {} rows in {:.1} s", restored.rows, began.elapsed().as_secs_f64());
    let store = open(&copy);
    let all = smol::block_on(compare(&store, documents, &acknowledged));
    println!("{all} documents compared: everything that was acknowledged before the backup began is there");
    smol::block_on(store.close()).unwrap();
    std::fs::remove_dir_all(&folder).ok();
}

struct Load {
    store: Store,
    documents: u64,
    /// For each hot key the last number that was answered.
    acknowledged: RefCell<Vec<u64>>,
    written: Cell<u64>,
    refused: Cell<u64>,
}

struct Measured {
    path: PathBuf,
    took: Duration,
    latencies: Vec<u64>,
    acknowledged: Vec<u64>,
}

async fn one_backup(
    executor: &Rc<smol::LocalExecutor<'static>>,
    load: &Rc<Load>,
    folder: &Path,
    rate: u64,
) -> Measured {
    let stop = Rc::new(Cell::new(false));
    let running = executor.spawn(run(executor.clone(), load.clone(), rate, stop.clone()));
    let acknowledged = load.acknowledged.borrow().clone();
    let began = Instant::now();
    let order = BackupOrder { folder: folder.join("backups"), keep: 1, now: NOW.millis };
    let path = load.store.backup(order).await.unwrap().path;
    let took = began.elapsed();
    stop.set(true);
    Measured { path, took, latencies: running.await, acknowledged }
}

async fn run_for(executor: &Rc<smol::LocalExecutor<'static>>, load: &Rc<Load>, rate: u64, time: Duration) -> Vec<u64> {
    let stop = Rc::new(Cell::new(false));
    let running = executor.spawn(run(executor.clone(), load.clone(), rate, stop.clone()));
    Timer::after(time.max(Duration::from_secs(5))).await;
    stop.set(true);
    running.await
}

/// Microseconds of each write, from when it was due.
async fn run(executor: Rc<smol::LocalExecutor<'static>>, load: Rc<Load>, rate: u64, stop: Rc<Cell<bool>>) -> Vec<u64> {
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let (began, gap) = (Instant::now(), Duration::from_secs(1) / rate as u32);
    let mut tasks = Vec::new();
    for n in 0.. {
        if stop.get() {
            break;
        }
        let due = began + gap * n;
        Timer::at(due).await;
        let number = load.written.get() + 1;
        load.written.set(number);
        let at = number % HOT;
        // All over the key space, so that pages that are copied already change again.
        let key = at * (load.documents / HOT);
        let answer = load.store.submit(NOW, put(key, number));
        let (load, latencies) = (load.clone(), latencies.clone());
        tasks.push(executor.spawn(async move {
            // A machine that cannot take that many says so; it is counted, and no latency.
            if answer.await.is_err() {
                load.refused.set(load.refused.get() + 1);
                return;
            }
            latencies.borrow_mut().push(due.elapsed().as_micros() as u64);
            let mut acknowledged = load.acknowledged.borrow_mut();
            acknowledged[at as usize] = acknowledged[at as usize].max(number);
        }));
    }
    for task in tasks {
        task.await;
    }
    latencies.borrow().clone()
}

async fn fill(store: &Store, path: &Path, bytes: u64) -> u64 {
    let mut documents = 0;
    let mut last = None;
    while std::fs::metadata(path).unwrap().len() < bytes {
        let writes = (documents..documents + 256).map(|n| write(n, 0)).collect();
        documents += 256;
        if let Some(last) = last.replace(store.submit(NOW, Request::Write { writes, sending: false })) {
            last.await.unwrap();
        }
    }
    last.unwrap().await.unwrap();
    documents
}

/// Every document is there; of the hot ones, no older version than was acknowledged.
async fn compare(store: &Store, documents: u64, acknowledged: &[u64]) -> u64 {
    let (mut after, mut seen) = (None, 0);
    loop {
        let query = Query { after, limit: 1000, ..Query::default() };
        let page = store.list(Scope::Replicated, "c", &query, NOW.millis).await.unwrap();
        for document in &page.documents {
            let key: u64 = document.key.parse().unwrap();
            let number: u64 = std::str::from_utf8(&document.value[1..21]).unwrap().trim().parse().unwrap();
            let stride = documents / HOT;
            let wanted =
                if key.is_multiple_of(stride) { acknowledged.get((key / stride) as usize).copied() } else { None };
            assert!(number >= wanted.unwrap_or(0), "{key}: {number} is older than {wanted:?}");
            seen += 1;
        }
        after = page.next;
        if after.is_none() {
            assert_eq!(seen, documents);
            return seen;
        }
    }
}

fn write(key: u64, number: u64) -> Write {
    let value = format!("\"{number:<20}{}\"", "x".repeat(VALUE_BYTES - 22));
    let body = Body::Live(value.into_bytes());
    Write {
        key: RowKey::replicated("c", &format!("{key:012}")),
        body,
        expires_at: None,
        precondition: Precondition::None,
    }
}
fn put(key: u64, number: u64) -> Request {
    Request::Write { writes: vec![write(key, number)], sending: false }
}
fn open(path: &Path) -> Store {
    let mut random = fastrand::Rng::with_seed(path.as_os_str().len() as u64);
    Store::open(Options { min_free_bytes: 0, ..Options::new(path) }, &mut || random.u64(..)).unwrap().0
}
fn share(sorted: &[u64], percent: usize) -> u64 {
    let mut sorted = sorted.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}
