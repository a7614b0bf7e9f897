//! `kill -9` in the middle of writing, replicating, copying the log back and backing up: what was acknowledged is there,
//! and so is what the peer was told is on this disk.
//!
//! `CBDDC_KILL_ROUNDS` says how many rounds each test has.

use crate::client::documents;
use crate::process::{Node, wait};
use serde_json::Value;
use std::collections::BTreeMap;
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

/// Imports until the node is gone or `stop` says so; every line that was acknowledged, with its value.
fn import(
    node: &Node,
    collection: &str,
    round: usize,
    writer: usize,
    filler: usize,
    count: &AtomicUsize,
    stop: &AtomicBool,
) -> BTreeMap<String, String> {
    let mut connection = node.connect();
    let mut acknowledged = BTreeMap::new();
    let filler = "x".repeat(filler);
    for group in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Keys of this round alone, and some that every round writes again.
        let line = |n: usize| match n % 5 {
            0 => (format!("hot-{writer}-{n}"), format!("\"{round} {group} {filler}\"")),
            _ => {
                (format!("{round}-{writer}-{group:05}-{n}"), format!("{{\"temp\": {n}.{group}, \"f\": \"{filler}\"}}"))
            }
        };
        let lines: Vec<(String, String)> = (0..LINES).map(line).collect();
        let body: Vec<String> =
            lines.iter().map(|(key, value)| format!("{{\"key\":\"{key}\",\"value\":{value}}}")).collect();
        let headers = [("Content-Type", "application/x-ndjson")];
        let answer = connection.ask("POST", &documents(collection), &headers, body.join("\n").as_bytes());
        let Ok(answer) = answer else { break };
        assert_eq!(answer.json()["successful"], LINES, "{}", answer.text());
        acknowledged.extend(lines);
        count.fetch_add(LINES, Ordering::Relaxed);
    }
    acknowledged
}

/// Everything of a collection by key, as values.
fn stored(node: &Node, collection: &str) -> BTreeMap<String, Value> {
    let all = node.everything(collection).into_iter();
    all.map(|(key, _, value)| (key, serde_json::from_str(&value).unwrap())).collect()
}

/// Whether every acknowledged line is there; a hot key may hold a later one that was not acknowledged any more.
fn compare(acknowledged: &BTreeMap<String, String>, stored: &BTreeMap<String, Value>, told: &str) {
    for (key, value) in acknowledged {
        let value: Value = serde_json::from_str(value).unwrap();
        let stored = stored.get(key).unwrap_or_else(|| panic!("{told}: {key} was acknowledged and is gone"));
        assert!(key.starts_with("hot") || *stored == value, "{told}: {key} is {stored}");
    }
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
        let (count, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        // Killed at another moment each time: somewhere within the next few groups.
        let kill_at = ACKNOWLEDGED + random.usize(0..5 * LINES);
        let acknowledged = thread::scope(|scope| {
            let (writing, counted, stop) = (&node, &count, &stop);
            let writers: Vec<_> = (0..2)
                .map(|writer| scope.spawn(move || import(writing, "temps", round, writer, 0, counted, stop)))
                .collect();
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
    // Long values, so that the log is copied back every few hundred lines, and the card is not much worn all the same.
    const FILLER: usize = 4000;
    let mut node = Node::new("killed").started();
    node.keep_port();
    let peer = Node::new("peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let (mut here, mut confirmed) = (BTreeMap::new(), BTreeMap::new());
    let mut random = fastrand::Rng::with_seed(seed());
    let mut checkpoints = 0;
    for round in 0..rounds() {
        let (count, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let kill_at = ACKNOWLEDGED + random.usize(0..20 * LINES);
        // What the peer stored, and up to where it was told that it is on this disk.
        thread::scope(|scope| {
            let (writing, counted, stop) = (&node, &count, &stop);
            let writers: Vec<_> = (0..2)
                .map(|writer| scope.spawn(move || import(writing, "here", round, writer, FILLER, counted, stop)))
                .collect();
            let (peer, away) = (&peer, AtomicUsize::new(0));
            let there = scope.spawn(move || {
                let mut told = BTreeMap::new();
                for part in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("{round}-{part}");
                    peer.put("there", &key, &format!("\"{key}\"")).expect(201);
                    told.insert(key.clone(), format!("\"{key}\""));
                    away.fetch_add(1, Ordering::Relaxed);
                    // Everything that was stored before this question was asked is confirmed where the answer says so.
                    if peer.peer("killed").is_some_and(|killed| killed["unconfirmedChanges"] == 0) {
                        return_confirmed(&mut told);
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                told.retain(|_, value| value.starts_with('+'));
                told
            });
            wait("enough is acknowledged", || (count.load(Ordering::Relaxed) >= kill_at).then_some(()));
            checkpoints += node.status()["store"]["checkpoints"].as_u64().unwrap_or(0);
            kill_hard(&node);
            for writer in writers {
                here.extend(writer.join().unwrap());
            }
            stop.store(true, Ordering::Relaxed);
            confirmed.extend(there.join().unwrap().into_iter().map(|(key, value)| (key, value[1..].to_string())));
        });
        node.kill();
        // The peer stands still while this node is compared: it brings nothing back.
        peer.freeze();
        node.start();
        let told = format!("seed {}, round {round}", seed());
        compare(&here, &stored(&node, "here"), &told);
        compare(&confirmed, &stored(&node, "there"), &format!("{told}, confirmed to the peer"));
        peer.thaw();
        node.wait_linked(&peer);
    }
    for collection in ["here", "there"] {
        wait("the pair holds the same", || (peer.everything(collection) == node.everything(collection)).then_some(()));
    }
    assert!(!confirmed.is_empty(), "the peer was never told that anything is on the other's disk");
    println!(
        "{} rounds, {} acknowledged, {} confirmed, {checkpoints} checkpoints",
        rounds(),
        here.len(),
        confirmed.len()
    );
    assert!(!node.log().contains("digests differ") && !peer.log().contains("digests differ"));
}

/// Marks what is confirmed.
fn return_confirmed(told: &mut BTreeMap<String, String>) {
    for value in told.values_mut().filter(|value| !value.starts_with('+')) {
        value.insert(0, '+');
    }
}
