//! Databases and backups of the first schema: they are read as they are, and a start takes the steps from there.

use crate::place::{backup, close, database, fill, get, open, restore};
use cbddc::store::Store;
use std::path::Path;

/// Makes a file what a release of the first schema would have left.
fn age(path: &Path) {
    let sqlite = rusqlite::Connection::open(path).unwrap();
    sqlite.execute_batch("BEGIN; DROP TABLE recovered; UPDATE schema SET version = 1; COMMIT").unwrap();
}

fn version(path: &Path) -> (i64, i64, i64) {
    let sqlite = rusqlite::Connection::open(path).unwrap();
    let all =
        "SELECT version, min_reader, (SELECT count(*) FROM sqlite_schema WHERE name LIKE 'recovered%') FROM schema";
    sqlite.query_row(all, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

#[test]
fn a_database_of_the_first_schema_is_migrated_and_goes_on() {
    let path = database("migration");
    let (store, _) = open(&path);
    fill(&store, 0, 100);
    close(store);
    let migrated = version(&path);
    age(&path);
    assert_eq!(version(&path), (1, 1, 0));
    let checked = Store::check_offline(&path).unwrap();
    assert!(checked.rows == 100 && checked.structure.is_empty() && checked.damaged.is_empty(), "{checked:?}");
    let (store, opened) = open(&path);
    assert!(!opened.restored && opened.knowledge.seq == 100);
    fill(&store, 100, 110);
    close(store);
    assert_eq!(version(&path), migrated);
    assert_eq!(migrated, (2, 1, 2));
}

#[test]
fn a_backup_of_the_first_schema_is_whole_and_can_be_restored() {
    let path = database("migration-backup");
    let (store, _) = open(&path);
    fill(&store, 0, 100);
    let file = backup(&store, &path);
    fill(&store, 100, 120);
    close(store);
    age(&file);
    restore(&path, &file).unwrap();
    assert_eq!(version(&path).0, 1);
    let (store, opened) = open(&path);
    assert!(opened.restored);
    assert!(get(&store, "key-00099").is_some() && get(&store, "key-00100").is_none());
    close(store);
    assert_eq!(version(&path), (2, 1, 2));
}
