//! `kill -9` in the middle of writing, replicating, copying the log back and backing up: what was acknowledged is there,
//! and so is what the peer was told is on this disk.
//!
//! `CBDDC_KILL_ROUNDS` says how many rounds each test has.

use crate::client::{document, documents};
use crate::process::{Node, wait};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Rounds of each test among all others.
const ROUNDS: usize = 5;
/// Acknowledged writes in each round, at least.
const ACKNOWLEDGED: usize = 200;
const LINES: usize = 25;

fn rounds() -> usize {
    std::env::var("CBDDC_KILL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}
/// Another moment each time: the seed is in every failure.
fn seed() -> u64 {
    std::env::var("CBDDC_KILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4)
}

/// What is imported.
#[derive(Debug, Clone, Copy)]
struct Load {
    collection: &'static str,
    /// Bytes of each value, about.
    filler: usize,
    /// Groups of lines until keys are used again.
    groups: usize,
}

/// Imports until the node is gone; every line that was acknowledged, with its value.
fn import(node: &Node, load: Load, round: usize, writer: usize, count: &AtomicUsize) -> BTreeMap<String, String> {
    let mut connection = node.connect();
    let mut acknowledged = BTreeMap::new();
    let filler = "x".repeat(load.filler);
    for group in 0.. {
        // Some keys are written again by every group.
        let key = |n: usize| match n % 5 {
            0 => format!("hot-{writer}-{n}"),
            _ if load.groups == usize::MAX => format!("{round}-{writer}-{group:05}-{n}"),
            _ => format!("{writer}-{:05}-{n}", group % load.groups),
        };
        let lines: Vec<(String, String)> =
            (0..LINES).map(|n| (key(n), format!("\"{round} {group} {filler}\""))).collect();
        let body: Vec<String> =
            lines.iter().map(|(key, value)| format!("{{\"key\":\"{key}\",\"value\":{value}}}")).collect();
        let headers = [("Content-Type", "application/x-ndjson")];
        let answer = connection.ask("POST", &documents(load.collection), &headers, body.join("\n").as_bytes());
        let Ok(answer) = answer else { return acknowledged };
        assert_eq!(answer.json()["successful"], LINES, "{}", answer.text());
        acknowledged.extend(lines);
        count.fetch_add(LINES, Ordering::Relaxed);
    }
    acknowledged
}

/// Everything of a collection by key.
fn stored(node: &Node, collection: &str) -> BTreeMap<String, String> {
    node.everything(collection).into_iter().map(|(key, _, value)| (key, value)).collect()
}

/// Whether every acknowledged line is there, or a later one of its key that was not acknowledged any more.
fn compare(acknowledged: &BTreeMap<String, String>, stored: &BTreeMap<String, String>, told: &str) {
    let place = |value: &str| -> Vec<usize> {
        value.trim_matches('"').split(' ').take(2).filter_map(|number| number.parse().ok()).collect()
    };
    for (key, value) in acknowledged {
        let stored = stored.get(key).unwrap_or_else(|| panic!("{told}: {key} was acknowledged and is gone"));
        let start = |value: &str| value.chars().take(40).collect::<String>();
        let later = place(stored) > place(value) && stored.len() >= value.len();
        assert!(stored == value || later, "{told}: {key} was {}, is {}", start(value), start(stored));
    }
}

/// Orders backups until the node is gone; the names of those that it answered.
fn back_up(node: &Node) -> Vec<PathBuf> {
    let mut connection = node.connect();
    let mut made = Vec::new();
    while let Ok(answer) = connection.ask("POST", "/v1/backups", &[], b"") {
        if answer.status == 201 {
            made.push(PathBuf::from(answer.json()["path"].as_str().unwrap()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    made
}

/// Whatever has a backup's name is whole.
fn whole_backups(node: &Node, told: &str) -> usize {
    let Ok(folder) = fs::read_dir(node.path("backups")) else { return 0 };
    let files =
        folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "db"));
    let mut whole = 0;
    for path in files {
        let rows = cbddc::store::Store::verify_backup(&path);
        assert!(rows.is_ok(), "{told}: {}: {rows:?}", path.display());
        whole += 1;
    }
    whole
}

/// Times that the log was copied back since the start.
fn checkpoints(node: &Node) -> u64 {
    let metrics = node.ask("GET", "/metrics", &[], b"").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("cbddc_store_checkpoints_total "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

fn kill_hard(node: &Node) {
    rustix::process::kill_process(node.process(), rustix::process::Signal::KILL).unwrap();
}

#[test]
fn every_acknowledged_line_is_there_after_kill_9_many_times_in_a_row() {
    let mut node = Node::new("killed").started();
    node.keep_port();
    let mut peer = Node::new("comparer").peers(&[&node]);
    let mut all = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(seed());
    for round in 0..rounds() {
        let count = AtomicUsize::new(0);
        // Killed at another moment each time: somewhere within the next few groups.
        let kill_at = ACKNOWLEDGED + random.usize(0..5 * LINES);
        let acknowledged = thread::scope(|scope| {
            let (writing, counted) = (&node, &count);
            let load = Load { collection: "temps", filler: 0, groups: usize::MAX };
            let writers: Vec<_> =
                (0..2).map(|writer| scope.spawn(move || import(writing, load, round, writer, counted))).collect();
            wait("enough is acknowledged", || (count.load(Ordering::Relaxed) >= kill_at).then_some(()));
            kill_hard(&node);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        let address = node.links();
        node.kill();
        acknowledged.into_iter().for_each(|lines| all.extend(lines));
        node.start();
        assert_eq!(node.links(), address, "the peer is held off, and knows this address");
        compare(&all, &stored(&node, "temps"), &format!("seed {}, round {round}", seed()));
    }
    peer.start();
    wait("the pair holds the same", || (peer.everything("temps") == node.everything("temps")).then_some(()));
    assert!(peer.everything("temps").len() >= all.len());
    assert!(!node.log().contains("digests differ") && !peer.log().contains("digests differ"));
}

#[test]
fn nothing_acknowledged_or_confirmed_is_lost_when_a_node_is_killed_while_it_replicates_and_copies_its_log_back() {
    // Long values, so that the log is copied back every few hundred lines; few keys, so that the database stays small.
    const LOAD: Load = Load { collection: "here", filler: 8000, groups: 30 };
    let mut node = Node::new("killed").started();
    node.keep_port();
    let peer = Node::new("peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let (mut here, mut confirmed) = (BTreeMap::new(), BTreeMap::new());
    let mut random = fastrand::Rng::with_seed(seed());
    let (mut copied_back, mut made) = (0, 0);
    for round in 0..rounds() {
        let mut newest = None;
        let (count, known, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        let kill_at = ACKNOWLEDGED + random.usize(0..20 * LINES);
        // What the peer stored, as long as it was told that it is on this disk too.
        thread::scope(|scope| {
            let (writing, counted, stop) = (&node, &count, &stop);
            let writers: Vec<_> =
                (0..2).map(|writer| scope.spawn(move || import(writing, LOAD, round, writer, counted))).collect();
            let (peer, known) = (&peer, &known);
            let there = scope.spawn(move || {
                let mut told = BTreeMap::new();
                for part in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{round}-{part}");
                    let value = format!("\"{key}\"");
                    let path = format!("{}?confirmedBy=1&timeout=2s", document("there", &key));
                    // 504 where the node was killed before it could say so.
                    if peer.ask("PUT", &path, &[], value.as_bytes()).status == 200 {
                        told.insert(key, value);
                        known.fetch_add(1, Ordering::Relaxed);
                    }
                }
                told
            });
            let backups = scope.spawn(move || back_up(writing));
            wait("enough is acknowledged", || (count.load(Ordering::Relaxed) >= kill_at).then_some(()));
            wait("something is confirmed", || (known.load(Ordering::Relaxed) > 0).then_some(()));
            copied_back += checkpoints(&node);
            kill_hard(&node);
            newest = backups.join().unwrap().pop();
            made += usize::from(newest.is_some());
            for writer in writers {
                here.extend(writer.join().unwrap());
            }
            stop.store(true, Ordering::Relaxed);
            confirmed.extend(there.join().unwrap());
        });
        node.kill();
        // The peer stands still while this node is compared: it brings nothing back.
        peer.freeze();
        node.start();
        let told = format!("seed {}, round {round}", seed());
        compare(&here, &stored(&node, "here"), &told);
        whole_backups(&node, &told);
        if let Some(newest) = newest {
            assert!(newest.exists(), "{told}: {} was answered and is gone", newest.display());
        }
        compare(&confirmed, &stored(&node, "there"), &format!("{told}, confirmed to the peer"));
        peer.thaw();
        node.wait_linked(&peer);
    }
    for collection in ["here", "there"] {
        wait("the pair holds the same", || (peer.everything(collection) == node.everything(collection)).then_some(()));
    }
    assert!(!confirmed.is_empty(), "the peer was never told that anything is on the other's disk");
    let (lines, words) = (here.len(), confirmed.len());
    println!(
        "{} rounds, {lines} keys acknowledged, {words} confirmed, {copied_back} checkpoints, {made} rounds with a backup",
        rounds()
    );
    assert!(!node.log().contains("digests differ") && !peer.log().contains("digests differ"));
}
