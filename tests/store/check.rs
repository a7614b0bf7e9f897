//! Damage in the database that a backup or a check meets.

use crate::place::*;
use cbddc::Error;
use cbddc::store::Store;
use std::fs;

#[test]
fn a_damaged_row_never_gets_into_a_backup_and_the_ones_before_stay() {
    let path = database("damaged-source");
    let (store, _) = open(&path);
    fill(&store, 0, 50);
    let before = backup(&store, &path);
    fill(&store, 50, 60);
    close(store);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(11).position(|window| window == b"value-00030").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (store, _) = open(&path);
    let error = smol::block_on(store.backup(order(&path, 3))).unwrap_err();
    assert!(matches!(error, Error::DatabaseCorruption { .. }), "{error}");
    assert_eq!(names(&path), [before.file_name().unwrap().to_str().unwrap(), "latest.db"]);
    let checked = smol::block_on(store.check()).unwrap();
    assert!(checked.complete && checked.rows == 60 && checked.structure.is_empty(), "{checked:?}");
    assert_eq!(checked.damaged[0].key.as_ref().unwrap().key, "key-00030");
    close(store);
    let offline = Store::check_offline(&path).unwrap();
    assert_eq!((offline.damaged.len(), offline.rows, offline.is_ok()), (1, 60, false));
}

#[test]
fn a_check_reads_the_log_of_a_node_that_was_killed_and_leaves_all_as_it_is() {
    let path = database("check-log");
    let (store, _) = open(&path);
    fill(&store, 0, 100);
    let files = beside(&path);
    close(store);
    for (name, bytes) in &files {
        fs::write(path.with_file_name(name), bytes).unwrap();
    }
    let checked = Store::check_offline(&path).unwrap();
    assert!(checked.is_ok() && checked.complete && checked.rows == 100, "{checked:?}");
    let without_index = |files: Vec<(String, Vec<u8>)>| {
        files.into_iter().filter(|(name, _)| !name.ends_with("-shm")).collect::<Vec<_>>()
    };
    assert!(without_index(beside(&path)) == without_index(files));
    let (store, _) = open(&path);
    assert!(Store::is_held(&path));
    assert!(Store::check_offline(&path).unwrap_err().to_string().contains("already open"));
    assert!(smol::block_on(store.check()).unwrap().is_ok());
    close(store);
    assert!(!Store::is_held(&path));
}

#[test]
fn sums_that_are_not_those_of_the_rows_are_counted_again() {
    let path = database("sums");
    let (store, _) = open(&path);
    fill(&store, 0, 100);
    close(store);
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(sqlite.execute("DELETE FROM row_0 WHERE key = 'key-00030'", []).unwrap(), 1);
    drop(sqlite);
    let (store, opened) = open(&path);
    let checked = smol::block_on(store.check()).unwrap();
    assert!(checked.structure.iter().any(|fault| fault.contains("digest")), "{checked:?}");
    // The writing thread saw to it behind the check.
    write(&store, vec![put("one-more", "x")]);
    let checked = smol::block_on(store.check()).unwrap();
    assert!(checked.is_ok() && checked.rows == 100, "{checked:?}");
    let known = smol::block_on(store.knowledge()).unwrap();
    assert!(known.digest != opened.knowledge.digest && known.replica == opened.knowledge.replica);
    close(store);
}
