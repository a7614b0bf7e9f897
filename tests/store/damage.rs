//! Files that are not what they should be.

use crate::place::*;
use cbddc::Error;
use cbddc::replica::{Request, Retention, Write};
use cbddc::row::Scope;
use cbddc::store::{Damage, Options};

#[test]
fn a_flipped_byte_in_a_value_is_found_when_it_is_read() {
    let path = database("flipped");
    let (store, _) = open(&path);
    write(&store, vec![put("good", "untouched"), put("bad", "precious-cargo"), put("other", "fine")]);
    close(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(14).position(|window| window == b"precious-cargo").unwrap();
    bytes[at + 3] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    let (store, opened) = open(&path);
    assert!(!opened.unclean);
    let error = smol::block_on(store.get(Scope::Replicated, "c", "bad", NOW.millis)).unwrap_err();
    assert!(matches!(error, Error::DatabaseCorruption { .. }) && error.to_string().contains("bad"), "{error}");
    assert_eq!(get(&store, "good").as_deref(), Some("untouched"));
    let page = smol::block_on(store.list(Scope::Replicated, "c", &Default::default(), NOW.millis));
    assert!(matches!(page, Err(Error::DatabaseCorruption { .. })));
    write(&store, vec![put("bad", "new")]);
    assert_eq!(get(&store, "bad").as_deref(), Some("new"), "a write mends it");
    close(store);
}

#[test]
fn a_request_that_fails_takes_none_of_its_commit_with_it() {
    let path = database("savepoints");
    let (store, _) = open(&path);
    let expiring = Write { expires_at: Some(NOW.millis - 1), ..put("bad", "precious-cargo") };
    write(&store, vec![expiring]);
    close(store);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(14).position(|window| window == b"precious-cargo").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (store, _) = open(&path);
    let slice = Retention {
        confirmed_by_all: None,
        min_age: 0,
        keep: 0,
        tombstones_max: u64::MAX,
        upto: u64::MAX,
        after: 0,
        slice: 10,
    };
    let waiting: Vec<_> = (0..90)
        .map(|n| match n % 3 {
            1 => store.submit(NOW, Request::Maintain(slice.clone())),
            _ => store.submit(NOW, request(vec![put(&format!("k{n}"), "v")])),
        })
        .collect();
    let outcomes: Vec<_> = waiting.into_iter().map(smol::block_on).collect();
    let mut last = 1;
    for (n, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok((_, knowledge)) => {
                assert!(n % 3 != 1 && knowledge.seq == last + 1, "every write has its own number, in order");
                last = knowledge.seq;
                assert_eq!(get(&store, &format!("k{n}")).as_deref(), Some("v"));
            }
            Err(error) => assert!(n % 3 == 1 && matches!(error, Error::DatabaseCorruption { .. }), "{n}: {error}"),
        }
    }
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
    let error = open_with(Options::new(&path)).map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::DatabaseCorruption { .. }), "{error}");
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
    assert!(found.iter().all(|finding| finding.damage == Damage::Row));
    write(&store, vec![put("key-1234", "again"), put("key-2345", "again")]);
    let seen = smol::block_on(store.scrub(found[0].seq - 1, 16)).unwrap();
    assert!(seen.found.is_empty(), "a new row took its place: {seen:?}");
    close(store);
}
