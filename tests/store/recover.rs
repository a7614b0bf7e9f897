//! Databases whose structure is damaged: set aside, and what is whole in them carried over.

use crate::place::*;
use cbddc::Error;
use cbddc::id::{DeviceId, NodeId, ReplicaId, VersionVector};
use cbddc::replica::{Meeting, Request, Said};
use cbddc::store::{Opened, Options, Store};
use cbddc::wire::StartToken;
use std::path::Path;

const PAGE: usize = 4096;

fn fill(store: &Store, range: std::ops::Range<usize>) {
    for chunk in range.collect::<Vec<_>>().chunks(100) {
        write(
            store,
            chunk.iter().map(|n| put(&format!("k{n:05}"), &format!("\"value {n} {}\"", "x".repeat(n % 97)))).collect(),
        );
    }
}

/// A peer that has confirmed own writes of this node up to here.
fn meet(store: &Store, opened: &Opened, confirmed: u64) {
    let (device, replica) = (DeviceId([7; 32]), ReplicaId::from_bits(5 << 40));
    let starts = vec![StartToken { token: 1, seq: 0, tail: 0 }];
    let mut vector = VersionVector::new();
    vector.set(opened.knowledge.replica, confirmed);
    let said = Said { replica, starts, tail: 0, vector, same_process: false };
    let node_id = NodeId::new("peer").unwrap();
    let meeting = Meeting { device, node_id, tracked: Some(true), said: Some(said) };
    smol::block_on(store.submit(NOW, Request::Meet(meeting))).unwrap();
}

/// Writes nonsense over pages of a closed database that hold rows.
fn break_leaves(path: &Path, count: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let leaves: Vec<usize> = (2..bytes.len() / PAGE).filter(|page| bytes[page * PAGE] == 13).collect();
    assert!(leaves.len() > 3 * count, "{} leaves", leaves.len());
    for page in leaves.iter().skip(12).step_by(2).take(count) {
        bytes[page * PAGE..page * PAGE + 64].fill(0xa5);
    }
    std::fs::write(path, bytes).unwrap();
}

/// How many of the documents are there, each with its value.
fn present(store: &Store, count: usize) -> usize {
    (0..count)
        .filter(|n| match get(store, &format!("k{n:05}")) {
            Some(value) => {
                assert_eq!(value, format!("\"value {n} {}\"", "x".repeat(n % 97)));
                true
            }
            None => false,
        })
        .count()
}

#[test]
fn of_a_database_with_broken_trees_every_whole_row_is_carried_over() {
    let path = database("broken-trees");
    let (store, opened) = open(&path);
    fill(&store, 0..2000);
    meet(&store, &opened, 1900);
    smol::block_on(store.submit(NOW, Request::MarkSent { upto: 1950 })).unwrap();
    let before = write(&store, vec![delete("k00003")]);
    close(store);
    break_leaves(&path, 4);
    let broken = std::fs::read(&path).unwrap();
    // The structure is looked at after a stop that was not in order; a row that is asked for finds it as well.
    let (store, opened) = open_with(recovering(&path, false)).unwrap();
    let mut there = 0;
    for n in 0..2000 {
        let key = format!("k{n:05}");
        let got = smol::block_on(store.get(cbddc::row::Scope::Replicated, "c", &key, NOW.millis));
        there += usize::from(matches!(got, Ok(Some(_))));
    }
    // Whoever writes next is refused once, and then there is another database.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while store.counters().recovered == 0 {
        assert!(std::time::Instant::now() < deadline, "it is not recovered");
        let _ = smol::block_on(store.submit(NOW, request(vec![put("probe", "1")])));
    }
    let incident = smol::block_on(store.incident()).expect("a person is told");
    assert_eq!(std::fs::read(&incident.set_aside).unwrap().len(), broken.len(), "nothing is deleted");
    assert!(incident.backup.is_none() && incident.carried > 1500, "{incident:?}");
    let whole = present(&store, 2000);
    assert!(whole >= there && whole > 1500 && whole < 2000, "{whole} now, {there} before");
    assert_eq!(whole as u64 + 1, incident.carried + u64::from(get(&store, "probe").is_some()), "and the tombstone");
    assert_eq!(get(&store, "k00003"), None, "a delete is carried over, too");
    let knowledge = write(&store, vec![put("after", "2")]);
    assert!(knowledge.replica.to_bits() > before.replica.to_bits(), "a new identity, above the old one");
    assert!(knowledge.version > before.version && knowledge.seq > knowledge.sent, "what was never sent still is not");
    let (rows, _) = stream(&store);
    let own = rows.iter().filter(|row| row.dot.origin == knowledge.replica).count();
    assert!(own <= 110, "{own} rows have new numbers: those that the peer is known to have keep theirs");
    smol::block_on(store.acknowledge()).unwrap();
    assert_eq!(smol::block_on(store.incident()), None);
    close(store);
    drop(opened);
}

/// A page of the pointer map is nonsense. No read, no write and no row knows of it: only a look at all of the structure does,
/// and until that led to something the node said so for ever, and lived on with it.
#[test]
fn damage_that_only_a_check_or_a_backup_finds_is_recovered_from_all_the_same() {
    for by_check in [true, false] {
        let path = database(&format!("only-by-check-{by_check}"));
        let (store, opened) = open(&path);
        fill(&store, 0..2000);
        meet(&store, &opened, 2000);
        close(store);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[PAGE + 10 * 5] ^= 0x04;
        std::fs::write(&path, bytes).unwrap();
        let (store, opened) = open_with(recovering(&path, false)).unwrap();
        assert_eq!((present(&store, 2000), &opened.read_only), (2000, &None));
        if by_check {
            let checked = smol::block_on(store.check()).unwrap();
            assert!(checked.damaged.is_empty() && !checked.structure.is_empty(), "{checked:?}");
        } else {
            assert!(matches!(smol::block_on(store.backup(order(&path, 3))), Err(Error::DatabaseCorruption { .. })));
        }
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while store.counters().recovered == 0 {
            assert!(std::time::Instant::now() < deadline, "it is not recovered");
            std::thread::yield_now();
        }
        let checked = smol::block_on(store.check()).unwrap();
        assert!(checked.is_ok() && checked.complete, "{checked:?}");
        assert_eq!(present(&store, 2000), 2000);
        assert!(smol::block_on(store.incident()).is_some(), "a person is told");
        close(store);
    }
}

#[test]
fn a_hundred_writes_that_no_peer_has_are_there_after_the_recovery() {
    let path = database("hundred");
    let (store, opened) = open(&path);
    fill(&store, 0..1500);
    meet(&store, &opened, 1400);
    close(store);
    // The header is nonsense: SQLite does not open it at all.
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16..40].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let (store, opened) = open_with(recovering(&path, false)).unwrap();
    assert_eq!(opened.read_only, None);
    assert_eq!(present(&store, 1500), 1500, "rows of a whole tree are whole, whatever the header says");
    let (rows, knowledge) = stream(&store);
    let new = rows.iter().filter(|row| row.dot.origin == knowledge.replica).count();
    assert_eq!(new, 100, "the hundred that nobody is known to have go out under new numbers");
    close(store);
    // A start after it finds a database like any other.
    let (store, again) = open_with(recovering(&path, false)).unwrap();
    assert_eq!((again.knowledge.replica, present(&store, 1500)), (opened.knowledge.replica, 1500));
    close(store);
}

#[test]
fn a_damaged_record_of_the_node_leads_to_a_recovery_that_loses_no_row() {
    let path = database("record");
    let (store, _) = open(&path);
    fill(&store, 0..300);
    let knowledge = write(&store, vec![put("last", "1")]);
    close(store);
    let mut bytes = std::fs::read(&path).unwrap();
    // The replica stands in the record, eight bytes as they are.
    let replica = knowledge.replica.to_bits();
    for order in [replica.to_be_bytes(), replica.to_le_bytes()] {
        let at: Vec<usize> = (0..bytes.len() - 8).filter(|at| bytes[*at..at + 8] == order).collect();
        let end = bytes.len() - 48;
        for at in at.into_iter().filter(|at| *at < end) {
            bytes[at + 12] ^= 4;
        }
    }
    std::fs::write(&path, bytes).unwrap();
    match open_with(recovering(&path, true)) {
        Ok((store, opened)) => {
            assert!(present(&store, 300) > 0);
            assert!(opened.knowledge.hlc.last().millis() >= NOW.millis, "the clock is not behind the rows");
            close(store);
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn with_a_good_backup_what_is_lost_comes_from_there() {
    let path = database("with-backup");
    let (store, _) = open(&path);
    fill(&store, 0..1000);
    let order = cbddc::store::BackupOrder { folder: path.with_file_name("backups"), keep: 3, now: NOW.millis };
    smol::block_on(store.backup(order)).unwrap();
    fill(&store, 1000..2000);
    close(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16..40].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    break_leaves(&path, 6);
    let (store, opened) = open_with(recovering(&path, false)).unwrap();
    let incident = smol::block_on(store.incident()).unwrap();
    assert!(incident.backup.is_some() && incident.damaged + incident.carried > 0, "{incident:?}");
    assert_eq!(present(&store, 1000), 1000, "all that was in the backup");
    assert!(present(&store, 2000) > 1600);
    assert!(opened.read_only.is_none());
    close(store);
}

#[test]
fn without_backup_and_peer_it_is_left_as_it_is_and_read() {
    let path = database("alone");
    let (store, _) = open(&path);
    fill(&store, 0..2000);
    close(store);
    break_leaves(&path, 3);
    let broken = std::fs::read(&path).unwrap();
    let (store, _) = open_with(recovering(&path, false)).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        for n in 0..2000 {
            let _ = smol::block_on(store.get(cbddc::row::Scope::Replicated, "c", &format!("k{n:05}"), NOW.millis));
        }
        match smol::block_on(store.submit(NOW, request(vec![put("new", "1")]))) {
            Err(Error::DatabaseCorruption { message, .. }) if message.contains("neither a backup nor a peer") => break,
            _ => assert!(std::time::Instant::now() < deadline, "writes are not refused"),
        }
    }
    assert!((0..2000).any(|n| matches!(
        smol::block_on(store.get(cbddc::row::Scope::Replicated, "c", &format!("k{n:05}"), NOW.millis)),
        Ok(Some(_))
    )));
    close(store);
    let after = std::fs::read(&path).unwrap();
    assert!(after.len() >= broken.len(), "nothing is overwritten");
}

#[test]
fn without_auto_recover_the_start_is_refused_and_says_what_to_do() {
    let path = database("recover-by-hand");
    let (store, _) = open(&path);
    fill(&store, 0..200);
    close(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16..40].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    let error = open_with(Options { min_free_bytes: 0, ..Options::new(&path) }).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::DatabaseCorruption { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("AutoRecover") && said.contains("cbddc restore"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing was touched");
}
