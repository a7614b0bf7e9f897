//! A year of telemetry on two nodes that replicate, in virtual time on real disks: what a node holds, what its file takes
//! and how long its start takes must be flat once the first documents have expired.
//!
//! A document every `CBDDC_YEAR_EVERY` seconds, 5 000 by default; 1 is the real thing, 31.5 million documents, for
//! `cargo test --release --test store year` and an hour. `CBDDC_YEAR_PLOT` names an SVG to draw.

use crate::place::*;
use cbddc::id::{DeviceId, NodeId};
use cbddc::limits::{TOMBSTONE_BYTES_MAX, TOMBSTONES_MAX};
use cbddc::replica::{Knowledge, Meeting, Reply, Request, Retention, Said, Write};
use cbddc::store::{Options, Store};
use cbddc::time::Reading;
use std::path::{Path, PathBuf};
use std::time::Instant;

const DAY: u64 = 86_400_000;
const TTL_DAYS: u64 = 30;

struct Node {
    path: PathBuf,
    store: Store,
    device: DeviceId,
    after: u64,
    follows: Option<u64>,
}

/// What was seen at the end of a day.
struct Look {
    day: u64,
    documents: u64,
    tombstones: u64,
    database: u64,
    log: u64,
    memory: u64,
    start_ms: f64,
}

fn options(path: &Path) -> Options {
    Options { min_free_bytes: 0, ..Options::new(path) }
}

impl Node {
    fn new(name: &str, device: u8) -> Node {
        let path = database(name);
        let store = open_as(&path, u64::from(device));
        Node { path, store, device: DeviceId([device; 32]), after: 0, follows: None }
    }
    fn ask(&self, now: Reading, request: Request) -> (Reply, Knowledge) {
        smol::block_on(self.store.submit(now, request)).unwrap()
    }
    /// Hears of the other, and what it has on disk.
    fn meet(&self, now: Reading, other: &Node) {
        let known = smol::block_on(other.store.knowledge()).unwrap();
        let said = Said {
            replica: known.replica,
            starts: known.tokens.clone(),
            tail: known.tail,
            vector: known.vector,
            same_process: false,
        };
        let node_id = NodeId::new("other").unwrap();
        let meeting = Meeting { device: other.device, node_id, tracked: Some(true), said: Some(said) };
        let (reply, _) = self.ask(now, Request::Meet(meeting));
        assert!(matches!(reply, Reply::Met(..)), "{reply:?}");
    }
    /// Takes the other's stream up to its tail.
    fn follow(&mut self, now: Reading, other: &Node) {
        self.meet(now, other);
        (self.after, self.follows) =
            follow_from(&other.store, other.device, &self.store, now, self.after, self.follows);
    }
    /// Expiry and dropping, until nothing is left to do.
    fn maintain(&self, now: Reading, other: &Node) {
        let confirmed = smol::block_on(other.store.knowledge()).unwrap().vector;
        let (mut after, mut bytes) = (0, 0);
        loop {
            let retention = Retention {
                confirmed_by_all: Some(confirmed.clone()),
                min_age: DAY,
                keep: 90 * DAY,
                tombstones_max: TOMBSTONES_MAX,
                bytes_over: 0,
                upto: u64::MAX,
                after,
                slice: 256,
            };
            let (Reply::Maintained(done), _) = self.ask(now, Request::Maintain(retention)) else { panic!("a reply") };
            bytes += done.bytes;
            after = done.next;
            if !done.more && done.next == 0 {
                break;
            }
        }
        assert!(bytes <= TOMBSTONE_BYTES_MAX, "{bytes}");
    }
    /// Stops in order and starts again: how long the start takes.
    fn restart(&mut self) -> f64 {
        smol::block_on(self.store.close()).unwrap();
        let mut random = fastrand::Rng::with_seed(self.after ^ u64::from(self.device.0[0]));
        let began = Instant::now();
        let (store, _) = Store::open(options(&self.path), &mut || random.u64(..)).unwrap();
        let took = began.elapsed().as_secs_f64() * 1000.0;
        self.store = store;
        took
    }
}

fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn plot(looks: &[Look], every: u64) -> String {
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 430\" font-family=\"sans-serif\" font-size=\"11\">\n",
    );
    svg.push_str(&format!(
        "<text x=\"10\" y=\"16\">A year of telemetry, one document every {every} s, TTL 30 days, two nodes</text>\n"
    ));
    let series: [(&str, &str, fn(&Look) -> f64); 3] = [
        ("database, MiB", "#1f77b4", |look| look.database as f64 / 1048576.0),
        ("resident memory, MiB", "#d62728", |look| look.memory as f64 / 1048576.0),
        ("start, ms", "#2ca02c", |look| look.start_ms),
    ];
    for (nth, (name, colour, value)) in series.into_iter().enumerate() {
        let top = 30.0 + nth as f64 * 132.0;
        let most = looks.iter().map(value).fold(0.0, f64::max).max(0.001);
        let points: Vec<String> = looks
            .iter()
            .map(|look| {
                format!("{:.1},{:.1}", 60.0 + look.day as f64 * 690.0 / 365.0, top + 110.0 - value(look) / most * 100.0)
            })
            .collect();
        svg.push_str(&format!("<text x=\"60\" y=\"{top}\" fill=\"{colour}\">{name}, at most {most:.1}</text>\n"));
        svg.push_str(&format!("<line x1=\"60\" y1=\"{0}\" x2=\"750\" y2=\"{0}\" stroke=\"#999\"/>\n", top + 110.0));
        svg.push_str(&format!("<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/>\n", points.join(" ")));
    }
    svg.push_str("</svg>\n");
    svg
}

#[test]
fn a_year_of_telemetry_keeps_database_memory_and_start_flat() {
    let every = std::env::var("CBDDC_YEAR_EVERY").map_or(5_000, |text| text.parse::<u64>().unwrap());
    let (mut a, mut b) = (Node::new("year-a", 1), Node::new("year-b", 2));
    let mut looks = Vec::new();
    let mut number = 0u64;
    let start = NOW.millis;
    println!(
        "{:>4} {:>10} {:>10} {:>12} {:>10} {:>10} {:>9}",
        "day", "documents", "tombstones", "database", "log", "memory", "start ms"
    );
    for day in 1..=365u64 {
        let mut writes: Vec<Write> = Vec::new();
        let mut at = start + (day - 1) * DAY;
        while at < start + day * DAY {
            let body =
                format!("{{\"t\":{:.1},\"h\":{},\"n\":{number}}}", 20.0 + (number % 97) as f64 / 10.0, number % 100);
            let write = put(&format!("sensor-7/{at:015}"), &body);
            writes.push(Write { expires_at: Some(at + TTL_DAYS * DAY), ..write });
            number += 1;
            at += every * 1000;
            if writes.len() == 256 || at >= start + day * DAY {
                let now = Reading { millis: at, believed: true };
                a.ask(now, Request::Write { writes: std::mem::take(&mut writes), sending: true });
            }
        }
        let now = Reading { millis: start + day * DAY, believed: true };
        b.follow(now, &a);
        a.follow(now, &b);
        a.maintain(now, &b);
        b.maintain(now, &a);
        if day % 10 == 0 || day == 365 {
            let start_ms = a.restart();
            b.restart();
            let statistics = smol::block_on(a.store.statistics()).unwrap();
            let sizes = smol::block_on(a.store.sizes()).unwrap();
            let look = Look {
                day,
                documents: statistics.documents,
                tombstones: statistics.tombstones,
                database: sizes.database_bytes,
                log: sizes.log_bytes,
                memory: memory(),
                start_ms,
            };
            println!(
                "{day:>4} {:>10} {:>10} {:>12} {:>10} {:>10} {start_ms:>9.1}",
                look.documents, look.tombstones, look.database, look.log, look.memory
            );
            looks.push(look);
        }
    }
    println!("{number} documents, one every {every} s, written on one node and replicated to another");
    if let Ok(path) = std::env::var("CBDDC_YEAR_PLOT") {
        std::fs::write(path, plot(&looks, every)).unwrap();
    }
    let most = |from: u64, to: u64, value: fn(&Look) -> u64| {
        looks.iter().filter(|look| (from..=to).contains(&look.day)).map(value).max().unwrap_or(0)
    };
    for (what, value, slack) in [
        ("documents", (|look| look.documents) as fn(&Look) -> u64, 0),
        ("tombstones", |look| look.tombstones, 64),
        ("database", |look| look.database, 128 * 1024),
        ("log", |look| look.log, 4 << 20),
        ("memory", |look| look.memory, 16 << 20),
    ] {
        let (early, late) = (most(60, 150, value), most(270, 365, value));
        assert!(late <= early + early / 10 + slack, "{what} grows: {early} in the spring, {late} in the winter");
    }
    let (of_a, of_b) = (smol::block_on(a.store.knowledge()).unwrap(), smol::block_on(b.store.knowledge()).unwrap());
    assert_eq!((of_a.vector, of_a.digest), (of_b.vector, of_b.digest));
    smol::block_on(a.store.close()).unwrap();
    smol::block_on(b.store.close()).unwrap();
}
