//! `kill -9` in the middle of writing: what was acknowledged is there.

use crate::client::documents;
use crate::process::{Node, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

const ROUNDS: usize = 10;
/// Acknowledged writes in each round, at least.
const ACKNOWLEDGED: usize = 200;
const LINES: usize = 25;

/// Imports until the node is gone; every line that was acknowledged, with its value.
fn import(node: &Node, round: usize, writer: usize, count: &AtomicUsize) -> BTreeMap<String, String> {
    let mut connection = node.connect();
    let mut acknowledged = BTreeMap::new();
    for group in 0.. {
        // Keys of this round alone, and some that every round writes again.
        let line = |n: usize| match n % 5 {
            0 => (format!("hot-{writer}-{n}"), format!("\"{round} {group}\"")),
            _ => (format!("{round}-{writer}-{group:05}-{n}"), format!("{{\"temp\": {n}.{group}}}")),
        };
        let lines: Vec<(String, String)> = (0..LINES).map(line).collect();
        let body: Vec<String> =
            lines.iter().map(|(key, value)| format!("{{\"key\":\"{key}\",\"value\":{value}}}")).collect();
        let headers = [("Content-Type", "application/x-ndjson")];
        let Ok(answer) = connection.ask("POST", &documents("temps"), &headers, body.join("\n").as_bytes()) else {
            return acknowledged;
        };
        assert_eq!(answer.json()["successful"], LINES, "{}", answer.text());
        acknowledged.extend(lines);
        count.fetch_add(LINES, Ordering::Relaxed);
    }
    acknowledged
}

#[test]
fn every_acknowledged_line_is_there_after_kill_9_ten_times_in_a_row() {
    let mut node = Node::new("killed").started();
    node.keep_port();
    let mut peer = Node::new("comparer").peers(&[&node]);
    let mut all = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..ROUNDS {
        let count = AtomicUsize::new(0);
        // Killed at another moment each time: somewhere within the next few groups.
        let kill_at = ACKNOWLEDGED + random.usize(0..5 * LINES);
        let (address, acknowledged) = thread::scope(|scope| {
            let (said, hear) = mpsc::channel();
            let (writing, counted) = (&node, &count);
            let writers: Vec<_> = (0..2)
                .map(|writer| {
                    let said = said.clone();
                    scope.spawn(move || {
                        let done = import(writing, round, writer, counted);
                        drop(said);
                        done
                    })
                })
                .collect();
            drop(said);
            wait("enough is acknowledged", || (count.load(Ordering::Relaxed) >= kill_at).then_some(()));
            let pid = node.process();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            // Ends when both writers have seen the connection end.
            let _: Result<(), _> = hear.recv();
            (node.links(), writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<_>>())
        });
        node.kill();
        let before = all.len();
        acknowledged.into_iter().for_each(|lines| all.extend(lines));
        assert!(count.load(Ordering::Relaxed) >= ACKNOWLEDGED, "only {} new ones", all.len() - before);
        node.start();
        assert_eq!(node.links(), address, "the peer is held off, and knows this address");
        let stored: BTreeMap<String, Value> = (node.everything("temps").into_iter())
            .map(|(key, _, value)| (key, serde_json::from_str(&value).unwrap()))
            .collect();
        for (key, value) in &all {
            let value: Value = serde_json::from_str(value).unwrap();
            let stored = stored.get(key).unwrap_or_else(|| panic!("round {round}: {key} was acknowledged and is gone"));
            // A hot key may hold a later line that was stored and not acknowledged any more.
            assert!(key.starts_with("hot") || *stored == value, "round {round}: {key} is {stored}");
        }
    }
    peer.start();
    wait("the pair holds the same", || (peer.everything("temps") == node.everything("temps")).then_some(()));
    assert!(peer.everything("temps").len() >= all.len());
    assert!(!node.log().contains("digests differ") && !peer.log().contains("digests differ"));
}
