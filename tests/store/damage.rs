//! Files that are not what they should be.

use crate::place::*;
use cbddc::Error;
use cbddc::id::{Dot, VersionVector};
use cbddc::replica::{Batch, Offer, Reply, Request, Retention, Stream, Write};
use cbddc::row::{Row, Scope};
use cbddc::store::{Damage, Options};
use cbddc::time::Stamp;
use cbddc::wire::Mode;
use std::path::Path;

/// Flips a bit of what stands in a closed database.
fn flip(path: &Path, what: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(what.len()).position(|window| window == what).unwrap();
    bytes[at + 3] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_byte_in_a_value_is_found_when_it_is_read() {
    let path = database("flipped");
    let (store, _) = open(&path);
    write(&store, vec![put("good", "untouched"), put("bad", "precious-cargo"), put("other", "fine")]);
    close(store);
    flip(&path, b"precious-cargo");
    let (store, opened) = open(&path);
    assert!(!opened.unclean);
    let error = smol::block_on(store.get(Scope::Replicated, "c", "bad", NOW.millis)).unwrap_err();
    assert!(matches!(error, Error::DatabaseCorruption { .. }) && error.to_string().contains("bad"), "{error}");
    assert_eq!(get(&store, "good").as_deref(), Some("untouched"));
    let page = smol::block_on(store.list(Scope::Replicated, "c", &Default::default(), NOW.millis)).unwrap();
    assert_eq!(page.damaged, ["bad"], "it is named");
    assert_eq!(
        page.documents.iter().map(|d| d.key.as_str()).collect::<Vec<_>>(),
        ["good", "other"],
        "the rest is listed"
    );
    let found = smol::block_on(store.met_damage()).unwrap();
    assert_eq!(found.key.map(|key| key.key).as_deref(), Some("bad"));
    write(&store, vec![put("bad", "new")]);
    assert_eq!(get(&store, "bad").as_deref(), Some("new"), "a write mends it");
    close(store);
}

#[test]
fn a_damaged_row_holds_up_neither_expiry_nor_streams_nor_the_feed() {
    let path = database("goes-on");
    let (store, _) = open(&path);
    let expiring = |key: &str, value: &str| Write { expires_at: Some(NOW.millis - 1), ..put(key, value) };
    write(&store, vec![put("first", "1"), expiring("bad", "precious-cargo"), expiring("past", "2"), put("last", "3")]);
    close(store);
    flip(&path, b"precious-cargo");
    let (store, _) = open(&path);
    let slice = Retention {
        confirmed_by_all: None,
        min_age: 0,
        keep: 0,
        tombstones_max: u64::MAX,
        bytes_over: 0,
        upto: u64::MAX,
        after: 0,
        slice: 10,
    };
    let (reply, _) = smol::block_on(store.submit(NOW, Request::Maintain(slice))).unwrap();
    assert!(matches!(reply, Reply::Maintained(done) if done.expired.len() == 1));
    let read = |passes_upto, after| {
        let stream = Stream { mode: Mode::Bootstrap, after, covers: Default::default(), passes_upto };
        let Batch::Rows { rows, upto, closure, damaged, .. } = smol::block_on(store.read(stream)).unwrap() else {
            panic!("a bootstrap has no floor")
        };
        (rows.into_iter().map(|row| row.key.key).collect::<Vec<_>>(), upto, closure.is_some(), damaged)
    };
    let (rows, upto, closes, damaged) = read(0, 0);
    assert_eq!((rows, upto, closes), (vec!["first".to_string()], 1, false), "it stops before the damaged row");
    assert_eq!(damaged.and_then(|damaged| damaged.key).map(|key| key.key).as_deref(), Some("bad"));
    let (rows, _, closes, damaged) = read(2, 1);
    assert_eq!((rows, closes, damaged), (vec!["last".to_string(), "past".to_string()], true, None));
    close(store);
}

#[test]
fn a_damaged_row_takes_what_a_peer_has_if_that_is_certain_and_keeps_its_identity() {
    let path = database("mended");
    let (store, _) = open(&path);
    let knowledge = write(&store, vec![put("a", "1"), put("bad", "precious-cargo"), put("b", "2")]);
    let good = stream(&store).0.into_iter().find(|row| row.key.key == "bad").unwrap();
    close(store);
    flip(&path, b"precious-cargo");
    let (store, opened) = open(&path);
    let offer = |row: &Row, vector: &VersionVector| {
        Request::Repair(Offer {
            keys: vec![row.key.clone()],
            rows: vec![row.clone()],
            vector: vector.clone(),
            known: opened.knowledge.vector.clone(),
            covered: vec![row.key.clone()],
            highest: Vec::new(),
        })
    };
    let repair = |request| match smol::block_on(store.submit(NOW, request)).unwrap() {
        (Reply::Repaired(done), knowledge) => (done.mended.len(), knowledge),
        other => panic!("{other:?}"),
    };
    let older = Row { stamp: Stamp::new(1, 0), dot: Dot { seq: 1, ..good.dot }, ..good.clone() };
    assert_eq!(repair(offer(&older, &VersionVector::new())).0, 0, "an older one is not taken from who knows less");
    let (mended, after) = repair(offer(&good, &VersionVector::new()));
    assert_eq!(mended, 1);
    assert_eq!(get(&store, "bad").as_deref(), Some("precious-cargo"));
    assert_eq!((after.replica, after.seq, after.digest), (knowledge.replica, knowledge.seq, knowledge.digest));
    close(store);
}

#[test]
fn a_database_is_held_by_one_store() {
    let path = database("held");
    let (store, _) = open(&path);
    let error = refused(&path);
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    close(store);
    close(open(&path).0);
}

#[test]
fn a_later_schema_is_refused_and_names_the_release_that_opens_it() {
    let path = database("newer");
    close(open(&path).0);
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    sqlite.execute_batch("UPDATE schema SET version = 9, min_reader = 9, min_release = '3.1'").unwrap();
    drop(sqlite);
    let error = refused(&path);
    assert!(error.contains("cbddc 3.1 or later"), "{error}");
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    sqlite.execute_batch("UPDATE schema SET min_reader = 1").unwrap();
    drop(sqlite);
    close(open(&path).0);
}

#[test]
fn what_is_not_a_database_of_ours_is_left_alone() {
    let folder = folder("not-ours");
    let text = folder.join("notes.txt");
    std::fs::write(&text, "these are my notes").unwrap();
    assert!(refused(&text).contains("not a database"));
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "these are my notes");
    assert!(refused(&folder).contains("a file inside a folder"), "{}", refused(&folder));
    assert!(refused(&text.join("cbddc.db")).contains("a file inside a folder"), "{}", refused(&text.join("cbddc.db")));
    let foreign = folder.join("foreign.db");
    let sqlite = rusqlite::Connection::open(&foreign).unwrap();
    sqlite.execute_batch("CREATE TABLE mine (x)").unwrap();
    drop(sqlite);
    assert!(refused(&foreign).contains("another program"));
    let named = folder.join("named.db");
    let sqlite = rusqlite::Connection::open(&named).unwrap();
    sqlite.execute_batch("PRAGMA application_id = 77; CREATE TABLE mine (x)").unwrap();
    drop(sqlite);
    assert!(refused(&named).contains("another program"));
    assert!(refused(std::path::Path::new("/proc/nowhere/cbddc.db")).contains("Persistence.DatabasePath"));
}

#[test]
fn an_empty_file_becomes_a_database() {
    let path = database("empty");
    std::fs::write(&path, "").unwrap();
    let (store, opened) = open(&path);
    assert!(opened.created);
    close(store);
}

#[test]
fn structural_damage_is_found_after_an_unclean_stop() {
    let path = database("torn");
    let (store, _) = open(&path);
    write(&store, (0..500).map(|n| put(&format!("key-{n}"), &"v".repeat(200))).collect());
    close(store);
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    sqlite.execute_batch("UPDATE schema SET clean = 0").unwrap();
    drop(sqlite);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(7).position(|window| window == b"key-250").unwrap() / 4096 * 4096;
    bytes[at..at + 64].fill(0xA5);
    std::fs::write(&path, bytes).unwrap();
    // Nothing says what to do about it, so it is read and not written.
    let (store, opened) = open_with(Options::new(&path)).unwrap();
    assert!(opened.unclean);
    assert!(opened.read_only.is_some_and(|why| why.contains("is damaged")));
    let refused = smol::block_on(store.submit(NOW, request(vec![put("later", "v")])));
    assert!(matches!(refused, Err(Error::DatabaseCorruption { .. })));
    close(store);
}

#[test]
fn the_scrub_names_every_row_that_is_damaged_and_no_other() {
    let path = database("scrubbed");
    let (store, _) = open(&path);
    write(&store, (0..3000).map(|n| put(&format!("key-{n:04}"), &format!("value-of-{n:04}"))).collect());
    write(&store, vec![delete("key-0007")]);
    close(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let find = |what: &str| -> Vec<usize> {
        bytes
            .windows(what.len())
            .enumerate()
            .filter(|(_, window)| *window == what.as_bytes())
            .map(|(at, _)| at)
            .collect()
    };
    let value = find("value-of-1234")[0];
    // The name stands in the row and in the index. Which is which is told by what follows.
    let names = find("key-2345");
    assert_eq!(names.len(), 2);
    let in_row = names.into_iter().find(|at| bytes[at + 8..].starts_with(b"value-of")).unwrap();
    bytes[value + 2] ^= 1;
    bytes[in_row + 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (store, _) = open(&path);
    let (mut after, mut found, mut slices, mut rows) = (0, Vec::new(), 0, 0);
    loop {
        let seen = smol::block_on(store.scrub(after, 16 * 1024)).unwrap();
        found.extend(seen.found);
        (slices, rows) = (slices + 1, rows + seen.rows);
        match seen.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert!(slices > 10 && rows == 3000, "{slices} slices, {rows} rows");
    let keys: Vec<_> = found.iter().map(|finding| finding.key.clone().unwrap().key).collect();
    assert_eq!(keys, ["key-1234", "key-2345"], "a damaged name is known from the index");
    assert_eq!((found[0].damage, found[1].damage), (Damage::Row, Damage::Index));
    write(&store, vec![put("key-1234", "again")]);
    let seen = smol::block_on(store.scrub(found[0].seq - 1, 16)).unwrap();
    assert!(seen.found.is_empty(), "a new row took its place: {seen:?}");
    close(store);
}
