//! Two real nodes, measured against what the same machine does without them, in the same run.
//!
//! `cargo bench --bench pair` prints tables; `-- --quick` does so in less than a minute, `-- --json` for programs,
//! `-- --loopback` without namespaces, `-- --only NAME` one table. Rounds of node and floor alternate, figures are
//! medians: what else the machine does meets both. The aims are for a disk that takes a millisecond or more to sync;
//! where a sync takes a tenth of that, what is measured is mostly the way to the disk.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

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
use std::time::Instant;
use table::{Aim, Table};

/// What a step of the benchmark gives; any error ends the run and is printed.
pub(crate) type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// Documents of one bulk request.
const LINES: u64 = 5_000;
const WRITERS: u64 = 64;

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
const QUICK: Plan = Plan { rounds: 3, latencies: 60, singles: 300, concurrent: 3_200, documents: 20_000, wear: 5_000 };

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(ECHO_SERVER) => return floor::echo_server(arguments.get(1).ok_or("no address")?),
        Some(ECHO_CLIENT) => return floor::echo_client(arguments.get(1).ok_or("no address")?),
        _ => {}
    }
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let only = arguments.iter().position(|argument| argument == "--only").and_then(|at| arguments.get(at + 1));
    let plan = if has("--quick") { QUICK } else { FULL };
    // Under the target folder: a real disk, where /tmp may be memory.
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pair-{}", std::process::id()));
    let site = Site::new(folder, has("--loopback"))?;
    if !has("--json") {
        println!("{}", site.describe());
    }
    let measurements: [(&str, fn(&Site, &Plan) -> Fallible<Table>); 4] =
        [("latency", latency), ("throughput", throughput), ("catch-up", catch_up), ("bytes", bytes)];
    let mut tables = Vec::new();
    for (name, measure) in measurements {
        if only.is_none_or(|only| only == name) {
            let table = measure(&site, &plan)?;
            if !has("--json") {
                table.print();
            }
            tables.push(table.json());
        }
    }
    if has("--json") {
        println!("{}", serde_json::json!({ "site": site.describe(), "tables": tables }));
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
            while reader.get(&question)?.0 != 200 {}
            Ok(())
        })?);
        let (sync, trip) = (disk.sync()?, wire.once()?);
        floors.push(sync + trip);
        syncs.push(sync);
        trips.push(trip);
        // The pair comes to rest: the next put finds it idle.
        std::thread::sleep(std::time::Duration::from_millis(20));
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
    for round in 0..plan.rounds {
        let documents = pattern.documents(0..plan.documents);
        let mut plain = Plain::create(&site.folder.join("plain.db"))?;
        let took = seconds(|| plain.write(&documents[..plan.singles as usize], 1))?;
        plain_single.push(plan.singles as f64 / took);

        let node = site.node(0, &format!("throughput-{round}"), None)?;
        idle = node.resident()?.0;
        let mut client = node.client()?;
        let took =
            seconds(|| (0..plan.singles as usize).try_for_each(|n| client.put(&documents[n].0, &documents[n].1)))?;
        single.push(plan.singles as f64 / took);
        let range = plan.singles..plan.singles + plan.concurrent;
        let took = seconds(|| writers(&node.socket, WRITERS, pattern, range))?;
        many.push(plan.concurrent as f64 / took);
        drop(node);

        let mut plain = Plain::create(&site.folder.join("plain.db"))?;
        let took = seconds(|| plain.write(&documents, BATCH))?;
        plain_batched.push(plan.documents as f64 / took);
        let node = site.node(0, &format!("import-{round}"), None)?;
        bulk.push(plan.documents as f64 / import(&node, pattern, 0..plan.documents)?);
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
    let mut client = node.client()?;
    seconds(|| bodies.iter().try_for_each(|lines| client.post_lines(lines)))
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
        let batched = written(mine)?;
        plain.write(&documents[..singles], 1)?;
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
