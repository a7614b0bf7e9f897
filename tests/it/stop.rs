//! Stops: under load, with a disk that has stalled and a peer that never reads, and impatient ones.
//!
//! `CBDDC_STOPS=50` makes it fifty; by default there are fewer, since each with a stalled disk takes eight seconds.

use crate::client::document;
use crate::probe::Probe;
use crate::process::{KEY, Node, wait};
use crate::program::seconds;
use crate::speaker::Speaker;
use cbddc::wire::Message;
use rustix::process::{Signal, kill_process};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const STOPS: usize = 6;
/// One stop of so many meets a disk that has stalled and a peer that never reads.
const STALLED: usize = 5;
/// A stop takes less, whatever disk and peers do.
fn limit() -> Duration {
    seconds(10)
}

/// A node whose syncs take half a minute while a file exists, and that file.
fn stallable(name: &str) -> (Node, PathBuf) {
    let mut node = Node::new(name);
    let stall = node.path("stall");
    for (key, value) in Probe::default().stall(&stall).environment() {
        node.change(key, &value);
    }
    (node, stall)
}

/// What was acknowledged: of each key the number of the last write, and the last one that was tried.
type Acknowledged = BTreeMap<String, (u64, u64)>;

/// Writes until the node is gone. `count` rises with each acknowledged write.
fn write(node: &Node, writer: usize, from: u64, count: &AtomicU64) -> Acknowledged {
    let mut connection = node.connect();
    let mut acknowledged = Acknowledged::new();
    for n in from.. {
        let key = if n % 3 == 0 { format!("hot-{writer}") } else { format!("{writer}-{n}") };
        let entry = acknowledged.entry(key.clone()).or_insert((0, 0));
        entry.1 = n;
        let value = format!("{{\"n\":{n},\"padding\":\"{}\"}}", "x".repeat(2000));
        match connection.ask("PUT", &document("c", &key), &[], value.as_bytes()) {
            Ok(answer) if matches!(answer.status, 200 | 201) => entry.0 = n,
            Ok(answer) => assert!(matches!(answer.status, 503 | 504), "{}", answer.text()),
            Err(_) => break,
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

#[test]
fn stops_under_load_are_in_order_and_in_time_and_lose_nothing() {
    let stops = std::env::var("CBDDC_STOPS").ok().and_then(|stops| stops.parse().ok()).unwrap_or(STOPS);
    let (mut node, stall) = stallable("stopped");
    node.start();
    let mut all = Acknowledged::new();
    let mut longest = [Duration::ZERO; 2];
    for round in 0..stops {
        let stalled = round % STALLED == STALLED - 1;
        // It listens no more once it has said who it is, and what it is sent fills every buffer.
        let mut deaf = stalled.then(|| {
            let mut speaker = Speaker::dial(&format!("deaf-{round}"), node.links(), KEY).unwrap();
            let hello = speaker.hello();
            speaker.say(&Message::Hello(hello)).unwrap();
            speaker
        });
        let count = AtomicU64::new(0);
        let (began, acknowledged): (Instant, Vec<Acknowledged>) = thread::scope(|scope| {
            let (writing, counted) = (&node, &count);
            let writers: Vec<_> = (0..2)
                .map(|writer| scope.spawn(move || write(writing, writer, 1 + round as u64 * 1_000_000, counted)))
                .collect();
            let written = || count.load(Ordering::Relaxed);
            wait("there is load", || (written() > 50).then_some(()));
            if stalled {
                fs::write(&stall, "").unwrap();
                // No answer for a while: the commit is on its way to a disk that says nothing.
                let (mut seen, mut since) = (written(), Instant::now());
                wait("the disk has stalled", || {
                    if written() != seen {
                        (seen, since) = (written(), Instant::now());
                    }
                    (since.elapsed() > Duration::from_millis(500)).then_some(())
                });
            }
            let began = Instant::now();
            kill_process(node.process(), Signal::TERM).unwrap();
            (began, writers.into_iter().map(|writer| writer.join().unwrap()).collect())
        });
        let (code, took) = node.end(began);
        assert_eq!(code, Some(0), "stop {round}: {}", node.tail());
        assert!(took < limit(), "stop {round} took {took:?}");
        let longest = &mut longest[usize::from(stalled)];
        *longest = took.max(*longest);
        drop(deaf.take());
        for (key, (stored, tried)) in acknowledged.into_iter().flatten() {
            let known = all.entry(key).or_insert((0, 0));
            *known = (known.0.max(stored), known.1.max(tried));
        }
        let _ = fs::remove_file(&stall);
        // With no peer: what is there now is what was on this disk.
        node.start();
        let there: BTreeMap<String, u64> = (node.everything("c").into_iter())
            .map(|(key, _, value)| {
                (key, serde_json::from_str::<serde_json::Value>(&value).unwrap()["n"].as_u64().unwrap())
            })
            .collect();
        for (key, (stored, tried)) in all.iter().filter(|(_, (stored, _))| *stored > 0) {
            let found = there.get(key).unwrap_or_else(|| panic!("stop {round}: {key} was stored and is gone"));
            assert!(
                (*stored..=*tried).contains(found),
                "stop {round}: {key} is {found}, stored {stored}, tried {tried}"
            );
        }
    }
    println!("{stops} stops, the longest took {:?}, with a stalled disk {:?}", longest[0], longest[1]);
    node.stop_cleanly();
}

#[test]
fn a_second_signal_ends_the_process_at_once_and_loses_nothing_that_was_stored() {
    let (mut node, stall) = stallable("impatient");
    node.start();
    for n in 0..20 {
        node.put("c", &format!("k{n}"), "1").expect(201);
    }
    fs::write(&stall, "").unwrap();
    let mut connection = node.connect();
    connection.send("PUT", &document("c", "stuck"), &[], b"1").unwrap();
    kill_process(node.process(), Signal::TERM).unwrap();
    wait("it has heard the first", || node.log().contains("stopping").then_some(()));
    // Two in one go count as one: some programs signal twice.
    thread::sleep(Duration::from_millis(700));
    let began = Instant::now();
    kill_process(node.process(), Signal::TERM).unwrap();
    let (code, took) = node.end(began);
    assert_eq!(code, Some(1), "{}", node.tail());
    assert!(took < seconds(4), "{took:?}");
    fs::remove_file(&stall).unwrap();
    node.start();
    assert!(node.everything("c").len() >= 20);
}

#[test]
fn a_slow_disk_means_waiting_and_then_a_timeout_and_never_queued() {
    let (mut node, stall) = stallable("slow");
    node.start();
    fs::write(&stall, "").unwrap();
    let first = thread::scope(|scope| {
        let node = &node;
        let ask = |key: &'static str| scope.spawn(move || node.put("c", key, "1"));
        let (one, two) = (ask("a"), ask("b"));
        [one.join().unwrap(), two.join().unwrap()]
    });
    for answer in first {
        // A disk that answers within the half minute has stored it.
        match answer.status {
            201 => {}
            _ => assert_eq!(answer.expect(504).problem(), "TIMEOUT_ERROR/-"),
        }
    }
    assert_eq!(node.status()["queue"]["accepted"], 0);
    fs::remove_file(&stall).unwrap();
    wait("it answers again", || (node.put("c", "a", "2").status / 100 == 2).then_some(()));
}
