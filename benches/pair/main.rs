//! Two real nodes, measured against what the same machine does without them, in the same run.
//!
//! `cargo bench --bench pair` prints tables: first on the disk that there is (`CBDDC_BENCH_DIR`, else the target
//! folder), then throughput and catch-up with syncs that take 3 ms longer, as a card's do. `-- --quick` is for CI,
//! `-- --json` prints one object a line, `-- --loopback` does without namespaces, `-- --only NAME,NAME` chooses tables,
//! `-- --sync-ms N` slows the disk. Node and floor take turns and figures are medians: what else the machine does meets
//! both. Where a sync takes a tenth of a millisecond, what is measured is the processor's way to the disk.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

mod card;
mod client;
mod documents;
mod floor;
mod site;
mod table;

use client::{path, writers};
use documents::{Pattern, document};
use floor::{BATCH, Disk, ECHO_CLIENT, ECHO_SERVER, Plain, RoundTrip};
use site::{Node, Site, written};
use std::io::{Error, ErrorKind};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};
use table::{Aim, Table};

/// What a step of the benchmark gives; any error ends the run and is printed.
pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Documents of one bulk request, and such requests at once: as `cbddc import` has them.
const LINES: u64 = 1_000;
const UNDER_WAY: usize = 4;
/// What a good card takes for a sync.
const CARD_SYNC_MS: u64 = 3;
const WRITERS: u64 = 64;
/// Single puts, and batches, until it is the other's turn.
const TURN: usize = 50;
const BATCHES: u64 = 20;
/// Between two looks of the reader that waits for a document.
const POLL: Duration = Duration::from_micros(50);
/// Between two puts whose way to the other node is measured.
const REST: Duration = Duration::from_millis(20);

type Measure = fn(&Site, &Plan) -> Fallible<Table>;

/// How much is done.
struct Plan {
    rounds: usize,
    latencies: usize,
    singles: u64,
    concurrent: u64,
    documents: u64,
    wear: u64,
}

const FULL: Plan =
    Plan { rounds: 5, latencies: 300, singles: 1_000, concurrent: 12_800, documents: 100_000, wear: 30_000 };
const QUICK: Plan = Plan { rounds: 2, latencies: 60, singles: 300, concurrent: 3_200, documents: 20_000, wear: 5_000 };

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(ECHO_SERVER) => return floor::echo_server(arguments.get(1).ok_or("no address")?),
        Some(ECHO_CLIENT) => return floor::echo_client(arguments.get(1).ok_or("no address")?),
        _ => {}
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let value = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag);
        at.and_then(|at| arguments.get(at + 1)).map(String::as_str)
    };
    if let (Some(delay_ms), None) = (value("--sync-ms"), card::delay_ms()) {
        return card::again(delay_ms.parse()?, &arguments);
    }
    let (plan, json) = (if has("--quick") { QUICK } else { FULL }, has("--json"));
    run(&plan, json, has("--loopback"), value("--only"))?;
    if value("--only").is_some() || card::delay_ms().is_some() {
        return Ok(());
    }
    let only = ["--only", "throughput,catch-up"].map(String::from);
    let arguments: Vec<String> = arguments.iter().cloned().chain(only).collect();
    if let Err(error) = card::again(CARD_SYNC_MS, &arguments) {
        eprintln!("left out: {error}");
    }
    Ok(())
}

fn run(plan: &Plan, json: bool, loopback: bool, only: Option<&str>) -> Fallible<()> {
    // The target folder is on a real disk, where /tmp may be memory.
    let folder = std::env::var_os("CBDDC_BENCH_DIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let site = Site::new(folder.join(format!("pair-{}", std::process::id())), loopback)?;
    if !json {
        let slow = card::delay_ms().map(|delay| format!(", every sync {delay} ms longer")).unwrap_or_default();
        println!("\n== {}{slow}", site.describe());
    }
    let measurements: [(&str, Measure); 4] =
        [("latency", latency), ("throughput", throughput), ("catch-up", catch_up), ("bytes", bytes)];
    for (name, measure) in measurements {
        if only.is_none_or(|only| only.split(',').any(|only| only == name)) {
            let table = measure(&site, plan)?;
            if json {
                let (site, added) = (site.describe(), card::delay_ms().unwrap_or(0));
                println!("{}", serde_json::json!({ "site": site, "addedSyncMs": added, "table": table.json() }));
            } else {
                table.print();
            }
        }
    }
    Ok(())
}

pub(crate) fn seconds<T>(work: impl FnOnce() -> Fallible<T>) -> Fallible<f64> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}

fn at(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = ((values.len() as f64 - 1.0) * part).round() as usize;
    values.get(index).copied().unwrap_or(f64::NAN)
}
fn median(values: Vec<f64>) -> f64 {
    at(values, 0.5)
}

/// Whether a document is there, and which.
fn holds(node: &Node, key: &str) -> Fallible<bool> {
    Ok(node.client()?.get(&path(key))?.0 == 200)
}

/// From the acknowledgement of a put on one node to its document on the other.
fn latency(site: &Site, plan: &Plan) -> Fallible<Table> {
    let a = site.node(0, "latency-a", None)?;
    let mut b = site.node(1, "latency-b", Some(&a))?;
    let (mut writer, mut reader) = (a.client()?, b.client()?);
    writer.put("first", "1")?;
    b.until("the pair is linked", |b| holds(b, "first"))?;
    let mut disk = Disk::new(&site.folder)?;
    let mut wire = RoundTrip::start(site)?;
    let (mut visible, mut floors, mut syncs, mut trips, mut puts) = (vec![], vec![], vec![], vec![], vec![]);
    for n in 0..plan.latencies as u64 {
        let key = Pattern::TimeOrdered.key(n);
        let (question, value) = (path(&key), document(n));
        puts.push(seconds(|| writer.put(&key, &value))?);
        visible.push(seconds(|| {
            while reader.get(&question)?.0 != 200 {
                // A moment for the node to do what is waited for, where processors are few.
                sleep(POLL);
            }
            Ok(())
        })?);
        let (sync, trip) = (disk.sync()?, wire.once()?);
        floors.push(sync + trip);
        syncs.push(sync);
        trips.push(trip);
        // The pair comes to rest: the next put finds it idle.
        sleep(REST);
    }
    let mut table = Table::new("latency", "from the answer to a put until the other node answers with the document");
    let floor = median(floors);
    table.add("readable on the other node, median", "ms", median(visible.clone()) * 1e3).floor(floor * 1e3);
    table.lines[0].value_aim(Aim::AtMost(10.0));
    table.add("readable on the other node, 99 in 100", "ms", at(visible, 0.99) * 1e3).floor(floor * 1e3);
    table.add("the put itself, median", "ms", median(puts) * 1e3);
    table.add("one sync of 4 KiB appended, median", "ms", median(syncs) * 1e3);
    table.add("one round trip, median", "ms", median(trips) * 1e3);
    Ok(table)
}

/// Durable writes of one node by itself.
fn throughput(site: &Site, plan: &Plan) -> Fallible<Table> {
    let (mut single, mut many, mut bulk) = (vec![], vec![], vec![]);
    let (mut plain_single, mut plain_batched) = (vec![], vec![]);
    let pattern = Pattern::TimeOrdered;
    let mut idle = 0;
    let documents = pattern.documents(0..plan.documents);
    for round in 0..plan.rounds {
        // A few of the one, a few of the other.
        let mut plain = Plain::create(&site.folder.join("plain.db"))?;
        let node = site.node(0, &format!("single-{round}"), None)?;
        idle = node.resident()?.0;
        let mut client = node.client()?;
        for documents in documents[..plan.singles as usize].chunks(TURN) {
            let rate = |took: f64| documents.len() as f64 / took;
            plain_single.push(rate(seconds(|| plain.write(documents, 1))?));
            single.push(rate(seconds(|| documents.iter().try_for_each(|(key, value)| client.put(key, value)))?));
        }
        let range = plan.singles..plan.singles + plan.concurrent;
        let took = seconds(|| writers(&node.socket, WRITERS, pattern, &range))?;
        many.push(plan.concurrent as f64 / took);
        drop(node);

        let mut plain = Plain::create(&site.folder.join("plain.db"))?;
        let node = site.node(0, &format!("import-{round}"), None)?;
        let mut from = 0;
        while from < plan.documents {
            let to = (from + BATCHES * BATCH as u64).min(plan.documents);
            let took = seconds(|| plain.write(&documents[from as usize..to as usize], BATCH))?;
            plain_batched.push((to - from) as f64 / took);
            bulk.push((to - from) as f64 / import(&node, pattern, from..to)?);
            from = to;
        }
    }
    let mut table = Table::new("throughput", "durable; floor: SQLite, two tables a write, by one and by 1000");
    let (single, floor) = (median(single), median(plain_single));
    table.add("single puts, one client", "put/s", single).floor(floor).ratio_aim(Aim::AtLeast(0.8));
    table
        .add("64 writers at once (floor: the single puts)", "put/s", median(many))
        .floor(single)
        .ratio_aim(Aim::AtLeast(20.0));
    table.add("bulk import", "doc/s", median(bulk)).floor(median(plain_batched)).ratio_aim(Aim::AtLeast(0.6));
    table.add("resident memory, idle", "MiB", idle as f64 / 1024.0);
    Ok(table)
}

/// Seconds of an import; the bodies are made before.
fn import(node: &Node, pattern: Pattern, range: std::ops::Range<u64>) -> Fallible<f64> {
    let starts = range.clone().step_by(LINES as usize);
    let bodies: Vec<Vec<u8>> = starts.map(|from| pattern.lines(from..(from + LINES).min(range.end))).collect();
    seconds(|| client::import(&node.socket, UNDER_WAY, &bodies))
}

/// A second node takes everything that the first has.
fn catch_up(site: &Site, plan: &Plan) -> Fallible<Table> {
    let pattern = Pattern::TimeOrdered;
    let a = site.node(0, "catch-up-a", None)?;
    import(&a, pattern, 0..plan.documents)?;
    let last = path(&pattern.key(plan.documents - 1));
    let documents = pattern.documents(0..plan.documents);
    let (mut taken, mut plain_batched, mut memory) = (vec![], vec![], vec![]);
    for round in 0..plan.rounds {
        let mut plain = Plain::create(&site.folder.join("plain.db"))?;
        let took = seconds(|| plain.write(&documents, BATCH))?;
        plain_batched.push(plan.documents as f64 / took);
        let mut b = site.node(1, &format!("catch-up-b{round}"), Some(&a))?;
        let mut reader = b.client()?;
        // From its first answer on: it dials at its start, so at most some milliseconds are not counted.
        let took = seconds(|| b.until("it has caught up", |_| Ok(reader.get(&last)?.0 == 200)))?;
        taken.push(plan.documents as f64 / took);
        memory.push(b.resident()?.1 as f64 / 1024.0);
    }
    let mut table = Table::new("catch-up", "a new node takes all documents; floor: SQLite, 1000 in a transaction");
    table
        .add(format!("{} documents", plan.documents), "doc/s", median(taken))
        .floor(median(plain_batched))
        .ratio_aim(Aim::AtLeast(0.6));
    table.add("most resident memory, the new node", "MiB", median(memory));
    table.add("most resident memory, the serving node", "MiB", a.resident()?.1 as f64 / 1024.0);
    Ok(table)
}

/// What goes over the wire and to the disk for each document, by the order of its keys.
fn bytes(site: &Site, plan: &Plan) -> Fallible<Table> {
    let mut table =
        Table::new("bytes", "for each document written; floor: the same by SQLite, or the bytes of its line");
    let each = |bytes: u64, count: u64| bytes as f64 / count as f64;
    for pattern in Pattern::ALL {
        let lines = pattern.lines(0..plan.wear).len() as u64;
        let documents = pattern.documents(0..plan.wear);
        let singles = plan.singles as usize;
        let mut plain = Plain::create(&site.folder.join("plain.db"))?;
        let mine = "/proc/self/io";
        let start = written(mine)?;
        plain.write(&documents, BATCH)?;
        plain.settle()?;
        let batched = written(mine)?;
        plain.write(&documents[..singles], 1)?;
        plain.settle()?;
        let (batched, alone) = (batched - start, written(mine)? - batched);
        drop(plain);

        let mut a = site.node(0, "bytes-a", None)?;
        let start = a.written_at_rest()?;
        import(&a, pattern, 0..plan.wear)?;
        let imported = a.written_at_rest()? - start;
        let name = |what: &str| format!("{}: {what}", pattern.name());
        table.add(name("disk, import"), "bytes", each(imported, plan.wear)).floor(each(batched, plan.wear));

        let quiet = a.wire()?;
        let mut b = site.node(1, "bytes-b", Some(&a))?;
        let last = path(&documents[documents.len() - 1].0);
        let mut reader = b.client()?;
        b.until("it has caught up", |_| Ok(reader.get(&last)?.0 == 200))?;
        let taken = b.written_at_rest()?;
        let (wire, start) = (a.wire()?, a.written_at_rest()?);
        let distinct = documents.iter().map(|(key, _)| key).collect::<std::collections::BTreeSet<_>>().len() as u64;
        table.add(name("disk, catch-up"), "bytes", each(taken, distinct)).floor(each(batched, plan.wear));
        table.add(name("wire, catch-up"), "bytes", each(wire - quiet, distinct)).floor(each(lines, plan.wear));

        let (mut client, before) = (a.client()?, b.written_at_rest()?);
        documents[..singles].iter().try_for_each(|(key, value)| client.put(key, value))?;
        let singly = a.written_at_rest()? - start;
        table.add(name("disk, single puts"), "bytes", each(singly, plan.singles)).floor(each(alone, plan.singles));
        let followed = b.written_at_rest()? - before;
        table.add(name("disk, following them"), "bytes", each(followed, plan.singles)).floor(each(alone, plan.singles));
        let crossed = a.wire()? - wire;
        table.add(name("wire, single puts"), "bytes", each(crossed, plan.singles)).floor(each(lines, plan.wear));
    }
    if table.lines.iter().any(|line| line.value == 0.0) {
        return Err(Error::new(ErrorKind::Unsupported, "the kernel counts no bytes for this disk or wire").into());
    }
    Ok(table)
}
