//! Backups in the place of a database: by command and by hand, and files that are not what they should be.

use crate::place::*;
use cbddc::store::{Options, Store};
use std::fs;

#[test]
fn a_restored_database_has_an_identity_of_its_own_and_the_old_one_is_set_aside() {
    let path = database("restore");
    let (store, _) = open(&path);
    fill(&store, 0, 100);
    let file = backup(&store, &path);
    fill(&store, 100, 150);
    let before = replica(&store);
    let refused = restore(&path, &file).unwrap_err().to_string();
    assert!(refused.contains("already open"), "{refused}");
    // The process dies with a log that is not copied back.
    let wal = path.with_file_name("cbddc.db-wal");
    let (database, log) = (fs::read(&path).unwrap(), fs::read(&wal).unwrap());
    close(store);
    fs::write(&path, &database).unwrap();
    fs::write(&wal, &log).unwrap();

    let restored = restore(&path, &file).unwrap();
    let old = restored.set_aside.unwrap();
    assert_eq!(old, path.with_file_name("cbddc.db.old-1"));
    assert_eq!(fs::read(&old).unwrap(), database);
    assert_eq!(
        fs::read(path.with_file_name("cbddc.db.old-1-wal")).unwrap(),
        log,
        "what was only in the log is kept too"
    );
    assert!(!wal.exists());
    let (store, opened) = open(&path);
    let knowledge = opened.knowledge;
    assert!(opened.restored && knowledge.replica > before && knowledge.vector.of(before) == 100);
    assert!(get(&store, "key-00099").is_some() && get(&store, "key-00100").is_none());
    fill(&store, 150, 151);
    close(store);
    let (store, opened) = open(&path);
    assert!(!opened.restored && opened.knowledge.replica == knowledge.replica, "once is enough");
    assert!(get(&store, "key-00150").is_some());
    close(store);
    // The old one is a whole database still.
    let (store, _) = open(&old);
    assert!(get(&store, "key-00149").is_some());
    close(store);
}

#[test]
fn a_backup_copied_over_the_database_by_hand_is_noticed_and_the_stale_log_is_not_played_into_it() {
    let path = database("by-hand");
    let (store, _) = open(&path);
    fill(&store, 0, 300);
    let file = backup(&store, &path);
    fill(&store, 300, 600);
    let before = replica(&store);
    let logs = ["-wal", "-shm"].map(|suffix| path.with_file_name(format!("cbddc.db{suffix}")));
    let stale = logs.clone().map(|log| fs::read(log).unwrap());
    close(store);
    // As people do it: the process was killed, and the backup is copied over.
    fs::copy(&file, &path).unwrap();
    logs.iter().zip(&stale).for_each(|(log, bytes)| fs::write(log, bytes).unwrap());
    let (store, opened) = open(&path);
    assert!(opened.restored && opened.knowledge.replica > before);
    assert!(get(&store, "key-00299").is_some() && get(&store, "key-00300").is_none());
    assert_eq!(fs::read(path.with_file_name("cbddc.db.old-1-wal")).unwrap(), stale[0]);
    fill(&store, 0, 10);
    let log = fs::read(&logs[0]).unwrap();
    let database = fs::read(&path).unwrap();
    close(store);
    // A cut right after: the log that is there now is its own and is read.
    fs::write(&path, database).unwrap();
    fs::write(&logs[0], log).unwrap();
    let (store, opened) = open(&path);
    assert!(!opened.restored && opened.knowledge.seq == 10, "{:?}", opened.knowledge);
    close(store);
}

#[test]
fn two_databases_made_of_one_backup_never_use_the_same_number() {
    let path = database("cloned");
    let (store, _) = open(&path);
    fill(&store, 0, 10);
    let file = backup(&store, &path);
    let original = replica(&store);
    close(store);
    let mut replicas = vec![original];
    for (seed, name) in (1..).zip(["clone-a", "clone-b"]) {
        let clone = database(name);
        restore(&clone, &file).unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let options = Options { min_free_bytes: 0, ..Options::new(&clone) };
        let (store, opened) = Store::open(options, &mut || random.u64(..)).unwrap();
        replicas.push(opened.knowledge.replica);
        close(store);
    }
    replicas.sort_unstable();
    replicas.dedup();
    assert_eq!(replicas.len(), 3);
}

#[test]
fn what_is_not_a_whole_backup_of_ours_is_refused_and_nothing_is_touched() {
    let path = database("bad-backups");
    let (store, _) = open(&path);
    fill(&store, 0, 1000);
    let good = fs::read(backup(&store, &path)).unwrap();
    close(store);
    let before = beside(&path);
    let folder = path.with_file_name("files");
    fs::create_dir(&folder).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let at = folder.join(name);
        fs::write(&at, bytes).unwrap();
        at
    };
    let foreign = folder.join("foreign.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    let newer = file("newer.db", &good);
    let sqlite = rusqlite::Connection::open(&newer).unwrap();
    sqlite.execute_batch("UPDATE schema SET version = 99, min_reader = 99, min_release = '9.9'").unwrap();
    drop(sqlite);
    let with_log = file("with-log.db", &good);
    file("with-log.db-wal", b"left over");
    let mut flipped = good.clone();
    let at = good.windows(11).position(|window| window == b"value-00500").unwrap();
    flipped[at + 3] ^= 4;
    let mut torn = good.clone();
    let page = good.len() / 2 / 4096 * 4096;
    torn[page..page + 512].fill(0);
    let cases = [
        (file("truncated.db", &good[..good.len() / 3]), "damaged"),
        (file("header.db", &good[..50]), "not a database"),
        (file("flipped.db", &flipped), "1 row is damaged"),
        (file("torn.db", &torn), "damaged"),
        (file("empty.db", b""), "empty"),
        (file("text.db", &[b'x'; 8192]), "not a database"),
        (foreign, "another program"),
        (newer, "cbddc 9.9 or later"),
        (with_log, "with-log.db-wal"),
        (folder.clone(), "a backup is a file"),
        (folder.join("nowhere.db"), "check the path"),
    ];
    for (at, expected) in cases {
        let error = restore(&path, &at).unwrap_err();
        let said = error.to_string();
        match expected {
            "damaged" => assert_eq!(error.kind(), Some("DatabaseCorruption"), "{}: {said}", at.display()),
            expected => assert!(said.contains(expected), "{}: {said}", at.display()),
        }
        assert_eq!(error.code(), "PERSISTENCE_ERROR", "{said}");
        assert!(beside(&path) == before, "{}: something was touched", at.display());
    }
    let itself = restore(&path, &path).unwrap_err();
    assert_eq!(itself.code(), "REQUEST_ERROR", "{itself}");
    assert!(beside(&path) == before);
}

#[test]
fn every_flipped_byte_of_a_backup_is_found_or_without_effect_on_any_document() {
    let path = database("flips");
    let (store, _) = open(&path);
    fill(&store, 0, 300);
    let good = fs::read(backup(&store, &path)).unwrap();
    let (rows, _) = stream(&store);
    close(store);
    let seed = 4;
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut found, mut harmless) = (0, 0);
    for _ in 0..30 {
        let at = random.usize(..good.len());
        let mut bytes = good.clone();
        bytes[at] ^= 1 << random.u8(..8);
        let target = database("flips-target");
        let file = target.with_file_name("flipped.db");
        fs::write(&file, &bytes).unwrap();
        if restore(&target, &file).is_err() {
            found += 1;
            assert!(!target.exists());
            continue;
        }
        harmless += 1;
        let (store, _) = open(&target);
        assert!(stream(&store).0 == rows, "seed {seed}: byte {at} of {} was flipped and not found", good.len());
        close(store);
    }
    assert!(found > 5, "seed {seed}: {found} were found, {harmless} were harmless");
}
