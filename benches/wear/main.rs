//! Flash wear: bytes written to the block device for each byte of document (key and value), the database's file, its log, the
//! file system's own journal and the orderly stop included.
//!
//! `cargo bench --bench wear`; root for a device of its own. `--page N` and `--log-kib N` measure another page size, or
//! another length of the log at which it is copied back; `--only time,hot,random` chooses patterns.
#![allow(clippy::disallowed_methods, reason = "a benchmark lives in real time")]
#![allow(clippy::unwrap_used, reason = "a benchmark stops at the first failure")]

mod device;

use cbddc::replica::{Precondition, Request, Write};
use cbddc::row::{Body, RowKey};
use cbddc::store::{Options, Store};
use cbddc::time::Reading;
use device::{Device, own_account};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NOW: Reading = Reading { millis: 1_700_000_000_000, believed: true };
const VALUE_BYTES: usize = 200;
/// Documents that are there before anything is counted, so that trees have their depth.
const BEFORE: usize = 20_000;
/// Writes that are counted, for each number of writes a commit.
const COMMITS: [(usize, usize); 3] = [(1, 4_000), (10, 20_000), (100, 40_000)];
/// `CommitDelayMs`, and what arrives meanwhile.
const DELAY_MS: u64 = 50;
const WRITES_PER_SECOND: usize = 200;
const DELAYED: usize = 4_000;

#[derive(Clone, Copy, PartialEq)]
enum Pattern {
    Time,
    Hot,
    Random,
}

const PATTERNS: [(Pattern, &str, &str); 3] = [
    (Pattern::Time, "time", "time-ordered keys"),
    (Pattern::Hot, "hot", "hot set of 100 keys"),
    (Pattern::Random, "random", "random keys"),
];

struct Plan {
    page_bytes: usize,
    log_bytes: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|at| arguments.get(at + 1));
    let number = |name: &str, default: usize| value(name).map_or(default, |text| text.parse().unwrap());
    let plan = Plan { page_bytes: number("--page", 4096), log_bytes: number("--log-kib", 4096) as u64 * 1024 };
    let root = std::env::var_os("CBDDC_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let folder = root.join("bench-wear");
    std::fs::create_dir_all(&folder).unwrap();
    let device = Device::new(&folder);
    println!(
        "bytes written for each byte of document, {VALUE_BYTES} bytes and 24 of key; page {} bytes, log {} KiB; {}",
        plan.page_bytes,
        plan.log_bytes / 1024,
        if device.is_some() { "device (process)" } else { "process only: no device without root" }
    );
    println!("{:<22}{:>16}{:>16}{:>16}{:>22}", "", "1 a commit", "10", "100", "CommitDelayMs 50");
    for (pattern, word, name) in PATTERNS {
        if value("--only").is_some_and(|only| !only.split(',').any(|chosen| chosen == word)) {
            continue;
        }
        let mut line = format!("{name:<22}");
        for (per_commit, writes) in COMMITS {
            line += &format!("{:>16}", measure(&folder, device.as_ref(), &plan, pattern, per_commit, writes, false));
        }
        line += &format!("{:>22}", measure(&folder, device.as_ref(), &plan, pattern, 1, DELAYED, true));
        println!("{line}");
    }
    drop(device);
    std::fs::remove_dir_all(&folder).ok();
}

fn measure(
    folder: &Path,
    device: Option<&Device>,
    plan: &Plan,
    pattern: Pattern,
    per_commit: usize,
    writes: usize,
    delayed: bool,
) -> String {
    let path = device.map_or(folder, Device::folder).join("wear.db");
    with_page_size(&path, plan.page_bytes);
    let mut keys = Keys { pattern, next: 0, random: fastrand::Rng::with_seed(5) };
    let mut random = fastrand::Rng::with_seed(6);
    let mut value =
        || format!("\"{}\"", (2..VALUE_BYTES).map(|_| random.alphanumeric()).collect::<String>()).into_bytes();
    let commit_delay_ms = if delayed { DELAY_MS } else { 0 };
    // The store counts the log in pages of 4096 bytes.
    let log_bytes = plan.log_bytes * 4096 / plan.page_bytes as u64;
    let options = Options { min_free_bytes: 0, commit_delay_ms, log_bytes, ..Options::new(&path) };
    let mut seed = fastrand::Rng::with_seed(7);
    let store = Store::open(options, &mut || seed.u64(..)).unwrap().0;
    let mut request = |n: usize| {
        let body = |value| Body::Live(value);
        let writes = (0..n).map(|_| {
            let key = RowKey::replicated("telemetry", &keys.next());
            Write { key, body: body(value()), expires_at: None, precondition: Precondition::None }
        });
        Request::Write { writes: writes.collect(), sending: false }
    };
    smol::block_on(async {
        for _ in 0..BEFORE / 500 {
            store.submit(NOW, request(500)).await.unwrap();
        }
        // The log of what was there before is copied back.
        smol::Timer::after(Duration::from_secs(1)).await;
    });
    let before = (device.map_or(0, Device::written), own_account());
    smol::block_on(async {
        if delayed {
            let (began, gap) = (Instant::now(), Duration::from_secs(1) / WRITES_PER_SECOND as u32);
            let mut waiting = Vec::new();
            for n in 0..writes {
                smol::Timer::at(began + gap * n as u32).await;
                waiting.push(store.submit(NOW, request(1)));
            }
            for answer in waiting {
                answer.await.unwrap();
            }
        } else {
            for _ in 0..writes / per_commit {
                store.submit(NOW, request(per_commit)).await.unwrap();
            }
        }
        store.close().await.unwrap();
    });
    let after = (device.map_or(0, Device::written), own_account());
    let document = (writes * (VALUE_BYTES + 24)) as f64;
    let (on_device, of_process) = ((after.0 - before.0) as f64 / document, (after.1 - before.1) as f64 / document);
    for suffix in ["", ".lock", ".backups"] {
        std::fs::remove_file(format!("{}{suffix}", path.display())).ok();
    }
    match device {
        Some(_) => format!("{on_device:.1} ({of_process:.1})"),
        None => format!("{of_process:.1}"),
    }
}

struct Keys {
    pattern: Pattern,
    next: u64,
    random: fastrand::Rng,
}

impl Keys {
    /// 24 bytes.
    fn next(&mut self) -> String {
        self.next += 1;
        match self.pattern {
            Pattern::Time => format!("2026-01-15T{:013}", self.next),
            Pattern::Hot => format!("sensor-{:017}", self.next * 37 % 100),
            Pattern::Random => format!("{:024x}", self.random.u128(..) >> 32),
        }
    }
}

/// An empty database of that page size, which the store takes for its own.
fn with_page_size(path: &Path, bytes: usize) {
    let sqlite = rusqlite::Connection::open(path).unwrap();
    let pragmas = format!("PRAGMA page_size = {bytes}; PRAGMA auto_vacuum = 2; CREATE TABLE t (x); DROP TABLE t;");
    sqlite.execute_batch(&pragmas).unwrap();
}
