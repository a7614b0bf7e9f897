//! The offline queue: what the store refuses now waits, in order, and is there when the store takes it again.

use crate::client::{document, documents};
use crate::probe::Probe;
use crate::process::{Node, wait, wait_for};
use crate::program::seconds;
use crate::small_disk::Disk;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::UNIX_EPOCH;

fn queue(node: &Node) -> Value {
    node.status()["queue"].clone()
}
fn empty(node: &Node) -> Option<()> {
    (queue(node)["length"] == 0).then_some(())
}
/// Writes one more; whether that was queued.
fn filled(node: &Node, value: &str) -> bool {
    let documents = node.everything("c").len();
    node.put("c", &format!("fill{documents}"), value).status == 202
}
/// A node whose syncs fail while a file exists, and that file.
fn fragile(name: &str) -> (Node, std::path::PathBuf) {
    let mut node = Node::new(name).set("Network__RetryDelayMs", "20");
    let fail = node.path("fail");
    for (key, value) in Probe::default().fail(&fail).environment() {
        node.change(key, &value);
    }
    (node, fail)
}

/// What a writer was told: the value that each key must have in the end, `None` where it must not exist.
type Told = BTreeMap<String, Option<String>>;

/// Writes, overwrites and deletes its own keys until it is told to stop; counts its answers.
fn write(node: &Node, writer: usize, seed: u64, stop: &AtomicBool, told: &mut Told) -> BTreeMap<u16, usize> {
    let mut random = fastrand::Rng::with_seed(seed + writer as u64);
    let mut connection = node.connect();
    let mut counts = BTreeMap::new();
    for n in told.len().. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let old = random.usize(..n.max(1));
        let key = format!("{writer}-{}", if random.u8(..3) == 0 { old } else { n });
        let value = format!("\"{n} {}\"", "x".repeat(random.usize(1000..40_000)));
        let deletes = random.u8(..12) == 0;
        let path = document("c", &key);
        let answer = match deletes {
            true => connection.ask("DELETE", &path, &[], b""),
            false => connection.ask("PUT", &path, &[], value.as_bytes()),
        };
        let answer = answer.unwrap();
        *counts.entry(answer.status).or_insert(0) += 1;
        match (answer.status, deletes) {
            (200 | 201, false) => drop(told.insert(key, Some(value))),
            (204, true) => drop(told.insert(key, None)),
            (202, _) => {
                assert_eq!(answer.text(), "{\"queued\":true}");
                assert_eq!(answer.header("etag"), None, "it has no version yet");
                told.insert(key, (!deletes).then_some(value));
            }
            (503, _) => {
                assert!(answer.header("retry-after").is_some(), "seed {seed}");
                assert_eq!(answer.problem(), "PERSISTENCE_ERROR/QueueFull", "seed {seed}");
            }
            (507, _) => assert_eq!(answer.problem(), "PERSISTENCE_ERROR/DiskFull", "seed {seed}"),
            _ => panic!("seed {seed}: {} {}", answer.status, answer.text()),
        }
    }
    counts
}

/// Two writers at once, until the queue has refused something. Says how many were queued.
fn fill(node: &Node, seed: u64, told: &mut [Told; 2]) -> usize {
    let stop = AtomicBool::new(false);
    let counts: Vec<BTreeMap<u16, usize>> = thread::scope(|scope| {
        let writers: Vec<_> = (told.iter_mut().enumerate())
            .map(|(writer, told)| {
                let stop = &stop;
                scope.spawn(move || write(node, writer, seed, stop, told))
            })
            .collect();
        wait_for(seconds(120), "the queue is full", || (queue(node)["refused"].as_u64().unwrap() > 3).then_some(()));
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let all = |status| counts.iter().filter_map(|counts| counts.get(&status)).sum::<usize>();
    assert!(all(503) > 0, "seed {seed}: {counts:?}");
    all(202)
}

/// All that was answered 200, 201, 202 or 204 is there, and nothing else.
fn check(node: &Node, seed: u64, told: &[Told; 2]) {
    let expected: BTreeMap<String, String> =
        (told.iter().flatten()).filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    let stored: BTreeMap<String, String> =
        node.everything("c").into_iter().map(|(key, _, value)| (key, value)).collect();
    for (key, value) in &expected {
        let short = |value: &str| value.chars().take(12).collect::<String>();
        let found = stored.get(key).map(|value| short(value));
        assert_eq!(found, Some(short(value)), "seed {seed}: {key} was accepted");
    }
    let extra: Vec<&String> = stored.keys().filter(|key| !expected.contains_key(*key)).collect();
    assert!(extra.is_empty() && stored == expected, "seed {seed}: refused or deleted, and there: {extra:?}");
}

/// Grows a file until its disk is full.
fn take_the_rest(mut more: &fs::File) {
    use std::io::Write;
    while more.write_all(&[0; 4096]).is_ok() {}
}

fn a_disk_fills_up(test: &str, seed: u64, restart: bool, to_the_last_byte: bool) {
    let node = Node::new("full").set("Persistence__DatabasePath", "disk/cbddc.db").set("Persistence__MinFreeMb", "2");
    let node = node.set("Sync__MaxQueueSize", "40");
    let Some(disk) = Disk::new(test, &node.path("disk"), 32) else { return };
    disk.take(14);
    let mut node = node.started();
    let mut told = [Told::new(), Told::new()];
    assert!(fill(&node, seed, &mut told) > 3, "seed {seed}");
    let health = node.page("/health");
    assert_eq!(health["entries"]["queue"]["status"], "Degraded", "{health}");
    assert_ne!(health["status"], "Healthy", "{health}");
    if restart {
        let more = fs::File::create(node.path("disk/more")).unwrap();
        if to_the_last_byte {
            take_the_rest(&more);
        }
        let waiting = queue(&node)["length"].as_u64();
        node.stop_cleanly();
        // A stop leaves no log behind; others take the room before the node is back.
        take_the_rest(&more);
        if !to_the_last_byte {
            more.set_len(more.metadata().unwrap().len().saturating_sub(1024 * 1024)).unwrap();
        }
        node.start();
        let status = queue(&node);
        assert!(status["length"].as_u64() > Some(0) && status["length"].as_u64() <= waiting, "{status} of {waiting:?}");
        assert_eq!(status["lost"], 0);
        // It goes on as before: queued, or refused.
        fill(&node, seed + 100, &mut told);
        node.stop_cleanly();
        node.start();
        fs::remove_file(node.path("disk/more")).unwrap();
    }
    disk.free();
    wait("the queue drains", || empty(&node));
    check(&node, seed, &told);
    wait("all is well again", || (node.page("/health")["entries"]["storage"]["status"] == "Healthy").then_some(()));
    node.put("c", "again", "1").expect(201);
    // Nothing comes back, and nothing is missing, after one more stop.
    told[0].insert("again".to_string(), Some("1".to_string()));
    node.stop_cleanly();
    node.start();
    assert_eq!(queue(&node)["length"], 0);
    check(&node, seed, &told);
    node.stop_cleanly();
    drop(disk);
}

#[test]
fn a_disk_that_fills_up_under_two_writers_loses_nothing_that_was_accepted() {
    let test = "a_disk_that_fills_up_under_two_writers_loses_nothing_that_was_accepted";
    a_disk_fills_up(test, 1, false, false);
}

#[test]
fn what_waits_for_a_full_disk_survives_stops_and_starts_on_it() {
    let test = "what_waits_for_a_full_disk_survives_stops_and_starts_on_it";
    a_disk_fills_up(test, 2, true, false);
}

#[test]
fn a_node_stops_and_starts_on_a_disk_without_a_byte_left() {
    let test = "a_node_stops_and_starts_on_a_disk_without_a_byte_left";
    a_disk_fills_up(test, 3, true, true);
}

#[test]
fn while_a_key_waits_everything_that_is_written_to_it_goes_behind() {
    let (node, fail) = fragile("waits");
    let node = node.started();
    let version = node.put("c", "old", "1").expect(201).version().to_string();
    fs::write(&fail, "").unwrap();
    node.put("c", "a", "{\"n\":1}").expect(202);
    node.put("c", "a", "{\"n\":2}").expect(202);
    node.put("c", "old", "2").expect(202);
    node.delete("c", "old").expect(202);
    fs::remove_file(&fail).unwrap();
    // Whether or not the store has recovered by now: an answer says what is so, and the order stays.
    let third = node.put("c", "a", "{\"n\":3}");
    assert!(matches!(third.status, 200..=202), "{}", third.text());
    wait("the queue drains", || empty(&node));
    assert_eq!((node.value("c", "a").as_deref(), node.value("c", "old")), (Some("{\"n\":3}"), None));
    let stored = node.get("c", "a").expect(200);
    assert!(stored.header("cbddc-queued").is_none() && stored.version() != version);
    assert_eq!(queue(&node)["delivered"], queue(&node)["accepted"]);
}

#[test]
fn a_delete_that_a_full_database_would_take_goes_behind_what_waits_for_its_key() {
    let mut node = Node::new("behind").set("Persistence__MaxDatabaseMb", "1").started();
    let value = format!("\"{}\"", "x".repeat(100_000));
    wait("the database is full", || filled(&node, &value).then_some(()));
    node.put("c", "k", &value).expect(202);
    // A delete makes nothing larger...
    node.delete("c", "other").expect(204);
    // ...but this one would be carried out before what was accepted earlier for the same key.
    node.delete("c", "k").expect(202);
    node.put("c", "k", "1").expect(202);
    node.stop_cleanly();
    node.change("Persistence__MaxDatabaseMb", "64");
    node.start();
    wait("the queue drains", || empty(&node));
    assert_eq!(node.value("c", "k").as_deref(), Some("1"));
}

#[test]
fn what_waits_is_shown_as_waiting_and_conditions_and_bulk_lines_never_wait() {
    let (node, fail) = fragile("shown");
    let node = node.started();
    node.put("c", "deleted", "1").expect(201);
    fs::write(&fail, "").unwrap();
    node.put("c", "a", " {\"n\": 1.0} ").expect(202);
    node.delete("c", "deleted").expect(202);
    let shown = node.get("c", "a").expect(200);
    assert_eq!((shown.text().as_str(), shown.header("cbddc-queued")), ("{\"n\": 1.0}", Some("true")));
    assert_eq!(shown.header("etag"), None);
    let gone = node.get("c", "deleted").expect(404);
    assert_eq!(gone.header("cbddc-queued"), Some("true"));
    let conditional = |key: &str, header: (&str, &str)| node.ask("PUT", &document("c", key), &[header], b"2");
    let answer = conditional("a", ("If-None-Match", "*")).expect(503);
    assert_eq!(answer.problem(), "PERSISTENCE_ERROR/QueueFull");
    assert!(answer.text().contains("waits in the offline queue"), "{}", answer.text());
    let answer = conditional("fresh", ("If-None-Match", "*"));
    assert!(answer.status >= 500, "{}", answer.text());
    let ndjson = [("Content-Type", "application/x-ndjson")];
    let lines = b"{\"key\":\"a\",\"value\":5}\n{\"key\":\"bulk\",\"value\":5}";
    let answer = node.ask("POST", &documents("c"), &ndjson, lines);
    assert_eq!(answer.json()["failed"], 2, "{}", answer.text());
    assert_eq!(queue(&node)["length"], 2);
    let page = node.page("/health");
    assert_eq!(page["entries"]["queue"]["data"]["length"], 2, "{page}");
    let metrics = node.ask("GET", "/metrics", &[], b"").text();
    assert!(metrics.contains("cbddc_queue_operations 2\n"), "{metrics}");
    assert!(metrics.contains("cbddc_queue_accepted_total 2\n"), "{metrics}");
    fs::remove_file(&fail).unwrap();
    wait("the queue drains", || empty(&node));
    assert_eq!(node.value("c", "a").as_deref(), Some("{\"n\": 1.0}"));
    node.get("c", "deleted").expect(404);
    assert_eq!((node.value("c", "bulk"), node.value("c", "fresh")), (None, None));
    assert!(node.ask("GET", "/metrics", &[], b"").text().contains("cbddc_queue_delivered_total 2\n"));
}

#[test]
fn without_the_queue_a_refused_write_is_told_to_come_again() {
    let (node, fail) = fragile("off");
    let node = node.set("Sync__EnableOfflineQueue", "false").started();
    fs::write(&fail, "").unwrap();
    let answer = node.put("c", "a", "1").expect(503);
    assert_eq!(answer.problem(), "PERSISTENCE_ERROR/QueueFull");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(queue(&node)["enabled"], false);
    fs::remove_file(&fail).unwrap();
    wait("the store takes it", || (node.put("c", "a", "1").status / 100 == 2).then_some(()));
}

#[test]
fn a_newer_write_of_a_peer_wins_over_one_that_waited() {
    let (node, fail) = fragile("waiter");
    let node = node.started();
    let peer = Node::new("winner").peers(&[&node]).started();
    node.wait_linked(&peer);
    node.put("c", "first", "1").expect(201);
    wait("they are in step", || peer.value("c", "first"));
    fs::write(&fail, "").unwrap();
    node.put("c", "x", "\"waited\"").expect(202);
    node.put("c", "y", "\"waited\"").expect(202);
    // Their clocks need not agree: the peer's write is the later one once its stamp is beyond the other's time.
    let now = humantime::parse_rfc3339(node.status()["clock"]["now"].as_str().unwrap()).unwrap();
    let now = now.duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    wait("the peer's write is the later one", || {
        let version = peer.put("c", "x", "\"newer\"").version().trim_matches('"').to_string();
        (u64::from_str_radix(&version[..12], 16).unwrap() > now).then_some(())
    });
    fs::remove_file(&fail).unwrap();
    wait("the queue drains", || empty(&node));
    wait("both hold the same", || (node.everything("c") == peer.everything("c")).then_some(()));
    let value = |key: &str| peer.value("c", key);
    assert_eq!((value("x").as_deref(), value("y").as_deref()), (Some("\"newer\""), Some("\"waited\"")));
    assert!(!node.log().contains("digests differ"));
}

#[test]
fn a_spill_file_that_was_cut_gives_back_what_is_whole_and_says_what_is_lost() {
    let mut node = Node::new("cut").set("Persistence__MaxDatabaseMb", "1").started();
    let value = format!("\"{}\"", "x".repeat(100_000));
    let full = (0..40).map(|n| node.put("c", &format!("fill{n}"), &value).status).find(|status| *status == 202);
    assert_eq!(full, Some(202));
    for n in 0..12 {
        node.put("c", &format!("k{n:02}"), &value).expect(202);
    }
    let waiting = queue(&node)["length"].as_u64().unwrap();
    node.stop_cleanly();
    let file = OpenOptions::new().write(true).open(node.path("data/cbddc.db.queue")).unwrap();
    // In the middle of the sixth of these.
    file.set_len(100_000 * (waiting - 7) + 50_000).unwrap();
    drop(file);
    node.change("Persistence__MaxDatabaseMb", "64");
    node.start();
    wait("the queue drains", || empty(&node));
    let there: Vec<bool> = (0..12).map(|n| node.value("c", &format!("k{n:02}")).is_some()).collect();
    let whole = there.iter().take_while(|there| **there).count();
    assert!((3..=7).contains(&whole) && there[whole..].iter().all(|there| !there), "{there:?}");
    assert_eq!(queue(&node)["lost"].as_u64(), Some(12 - whole as u64));
    let log = node.log();
    assert!(log.contains("ERROR the spill file of the offline queue is damaged"), "{log}");
    let health = node.page("/health");
    assert_eq!(health["entries"]["queue"]["status"], "Degraded", "{health}");
    node.stop_cleanly();
    node.start();
    assert_eq!(queue(&node)["lost"], 0, "said once");
}

#[test]
fn what_the_last_stop_has_kept_survives_a_kill_before_it_is_carried_out() {
    let mut node = Node::new("killed").set("Persistence__MaxDatabaseMb", "1").started();
    let value = format!("\"{}\"", "x".repeat(100_000));
    wait("the database is full", || filled(&node, &value).then_some(()));
    for n in 0..5 {
        node.put("c", &format!("k{n}"), &value).expect(202);
    }
    node.stop_cleanly();
    node.start();
    // Later than what was kept, and lost with the process: it was not kept.
    node.put("c", "k0", "2").expect(202);
    node.kill();
    node.change("Persistence__MaxDatabaseMb", "64");
    node.start();
    wait("the queue drains", || empty(&node));
    assert!((0..5).all(|n| node.value("c", &format!("k{n}")).as_deref() == Some(&value)));
    assert_eq!(queue(&node)["lost"], 0);
    // The file is empty again: what is written since is not undone by it.
    node.put("c", "k1", "3").expect(200);
    node.kill();
    node.start();
    wait("nothing waits", || empty(&node));
    assert_eq!(node.value("c", "k1").as_deref(), Some("3"));
}

#[test]
fn a_stop_that_cannot_keep_what_waits_says_so_and_fails() {
    let (node, fail) = fragile("unkept");
    let mut node = node.started();
    node.put("c", "kept", "1").expect(201);
    fs::write(&fail, "").unwrap();
    node.put("c", "a", "1").expect(202);
    let (code, took) = node.stop();
    assert_eq!(code, Some(1), "{}", node.tail());
    assert!(took < seconds(10), "{took:?}");
    assert!(node.tail().contains("queued operations are lost"), "{}", node.tail());
    fs::remove_file(&fail).unwrap();
    node.start();
    assert_eq!(node.value("c", "kept").as_deref(), Some("1"));
}
