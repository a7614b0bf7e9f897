//! Backups, restores and checks of a store: what is in them, and files that are not what they should be.

use crate::place::*;
use cbddc::document::Query;
use cbddc::id::ReplicaId;
use cbddc::store::{BackupOrder, Options, Restored, Store};
use cbddc::{Error, replica::Request};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

fn order(path: &Path, keep: u32) -> BackupOrder {
    BackupOrder { folder: path.with_file_name("backups"), keep, now: NOW.millis }
}
fn backup(store: &Store, path: &Path) -> PathBuf {
    smol::block_on(store.backup(order(path, 3))).unwrap().path
}
/// Names in the folder of the backups.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.with_file_name("backups")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
/// Names beside the database.
fn beside(path: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut files: Vec<_> =
        files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    files.retain(|(name, _)| !name.ends_with(".lock"));
    files.sort();
    files
}
fn fill(store: &Store, from: u32, to: u32) {
    write(
        store,
        (from..to).map(|n| put(&format!("key-{n:05}"), &format!("value-{n:05}-{}", "x".repeat(200)))).collect(),
    );
}
fn replica(store: &Store) -> ReplicaId {
    smol::block_on(store.knowledge()).unwrap().replica
}
fn restore(path: &Path, file: &Path) -> Result<Restored, Error> {
    Store::restore(path, file)
}

#[test]
fn a_backup_holds_what_was_answered_before_it_and_the_newest_is_called_latest() {
    let path = database("backup");
    let (store, _) = open(&path);
    fill(&store, 0, 2000);
    write(&store, vec![delete("key-00007")]);
    let first = smol::block_on(store.backup(order(&path, 3))).unwrap();
    assert_eq!(first.path.file_name().unwrap(), "backup-20231114-000001.db");
    assert_eq!(fs::metadata(&first.path).unwrap().len(), first.bytes);
    assert_eq!(fs::metadata(&first.path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = smol::block_on(store.backup(order(&path, 3))).unwrap();
    assert!(again.unchanged && again.path == first.path, "nothing has changed: {again:?}");
    fill(&store, 2000, 2001);
    let second = backup(&store, &path);
    assert_eq!(second.file_name().unwrap(), "backup-20231114-000002.db");
    assert_eq!(fs::read(&second).unwrap(), fs::read(path.with_file_name("backups").join("latest.db")).unwrap());
    let (rows, _) = stream(&store);
    close(store);

    let copy = database("backup-copy");
    let restored = restore(&copy, &first.path).unwrap();
    assert_eq!((restored.set_aside, restored.rows), (None, 2000));
    let (store, opened) = open(&copy);
    assert!(opened.restored && !opened.created);
    let (copied, knowledge) = stream(&store);
    assert_eq!(copied, rows[..2000], "rows keep their stamps and dots");
    assert_eq!((knowledge.seq, knowledge.sent), (0, 0), "all that it held counts as sent, under the identity before");
    assert!(get(&store, "key-00007").is_none() && get(&store, "key-01999").is_some());
    close(store);
}

#[test]
fn the_oldest_by_number_go_and_numbers_are_not_used_again() {
    let path = database("rotation");
    let (mut store, _) = open(&path);
    for n in 0..5 {
        fill(&store, n, n + 1);
        // The date goes back: it decides nothing.
        let order = BackupOrder { now: NOW.millis - u64::from(n) * 86_400_000, ..order(&path, 2) };
        smol::block_on(store.backup(order)).unwrap();
    }
    let expected = ["backup-20231110-000005.db", "backup-20231111-000004.db", "latest.db"];
    assert_eq!(names(&path), expected);
    let folder = path.with_file_name("backups");
    fs::write(folder.join("backup-20231110-000003.db.partial"), "cut off").unwrap();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    close(store);
    for name in &expected[..2] {
        fs::remove_file(folder.join(name)).unwrap();
    }
    store = open(&path).0;
    let next = backup(&store, &path);
    assert_eq!(next.file_name().unwrap(), "backup-20231114-000006.db", "its backup is gone: another one is made");
    assert_eq!(names(&path), ["backup-20231114-000006.db", "latest.db", "notes.txt"]);
    close(store);
}

#[test]
fn writes_and_reads_go_on_while_a_backup_is_made() {
    for wal in [true, false] {
        let path = database(if wal { "backup-busy" } else { "backup-busy-journal" });
        let options = Options { wal, min_free_bytes: 0, ..Options::new(&path) };
        let (store, _) = open_with(options.clone()).unwrap();
        for n in 0..40 {
            fill(&store, n * 250, (n + 1) * 250);
        }
        let (path_of_backup, meanwhile) = smol::block_on(async {
            let mut made = std::pin::pin!(store.backup(order(&path, 3)));
            let mut meanwhile = 0u32;
            loop {
                if let Some(made) = smol::future::poll_once(&mut made).await {
                    return (made.unwrap().path, meanwhile);
                }
                // Pages that are copied already change again, others come, and some are freed.
                let key = format!("key-{:05}", meanwhile.wrapping_mul(7919) % 10_000);
                let writes =
                    vec![put(&key, &format!("again-{meanwhile}")), delete(&format!("key-{:05}", meanwhile % 500))];
                store.submit(NOW, request(writes)).await.unwrap();
                assert!(
                    store.get(cbddc::row::Scope::Replicated, "c", "key-09999", NOW.millis).await.unwrap().is_some()
                );
                meanwhile += 1;
            }
        });
        assert!(meanwhile > 3, "{meanwhile} writes were answered while it was made, wal {wal}");
        close(store);
        let copy = database(if wal { "backup-busy-copy" } else { "backup-busy-journal-copy" });
        let restored = restore(&copy, &path_of_backup).unwrap();
        assert!(restored.rows >= 10_000, "{} rows", restored.rows);
        let (store, _) = open_with(Options { path: copy.clone(), ..options }).unwrap();
        assert!(smol::block_on(store.check()).unwrap().is_ok());
        close(store);
    }
}

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

#[test]
fn a_folder_that_cannot_be_written_or_is_a_file_costs_the_backup_and_nothing_else() {
    let path = database("bad-folder");
    let (store, _) = open(&path);
    fill(&store, 0, 10);
    let to = |folder: PathBuf| smol::block_on(store.backup(BackupOrder { folder, ..order(&path, 3) })).unwrap_err();
    let file = path.with_file_name("file");
    fs::write(&file, "x").unwrap();
    let said = to(file.join("backups")).to_string();
    assert!(said.contains("Persistence.BackupPath"), "{said}");
    assert!(matches!(to(file), Error::Persistence { .. }));
    assert!(matches!(to("/proc/nowhere".into()), Error::Persistence { .. }));
    // A whole tebibyte must stay free: space is short.
    close(store);
    let short = Options { min_free_bytes: 1 << 50, ..Options::new(&path) };
    let (store, _) = open_with(short).unwrap();
    let error = smol::block_on(store.backup(order(&path, 3))).unwrap_err();
    assert_eq!(error.kind(), Some("DiskFull"), "{error}");
    assert!(names(&path).is_empty());
    assert!(get(&store, "key-00009").is_some());
    close(store);
}

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
fn one_job_at_a_time_and_a_stop_does_not_wait_for_it() {
    let path = database("stopping");
    let (store, _) = open(&path);
    for n in 0..20 {
        fill(&store, n * 250, (n + 1) * 250);
    }
    smol::block_on(async {
        let mut first = std::pin::pin!(store.backup(order(&path, 3)));
        // The second is refused as soon as the first has begun.
        let second = loop {
            assert!(smol::future::poll_once(&mut first).await.is_none());
            match store.note_backup_clock(5).await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(second.kind(), Some("TooManyRequests"));
        store.submit(NOW, Request::Records).await.unwrap();
        store.close().await.unwrap();
        assert!(first.await.is_err());
    });
    assert!(names(&path).is_empty(), "{:?}", names(&path));
    let (store, opened) = open(&path);
    assert!(!opened.unclean && opened.backups.counter == 0);
    let (keys, _) = keys(&store, &Query { limit: 1, ..Query::default() });
    assert_eq!(keys, ["key-00000"]);
    close(store);
}

#[test]
fn the_time_since_the_last_backup_survives_a_restart() {
    let path = database("elapsed");
    let (store, opened) = open(&path);
    assert_eq!(opened.backups.elapsed_ms, 0);
    smol::block_on(store.note_backup_clock(77_000)).unwrap();
    close(store);
    let (store, opened) = open(&path);
    assert_eq!(opened.backups.elapsed_ms, 77_000);
    fill(&store, 0, 1);
    backup(&store, &path);
    close(store);
    fs::write(path.with_file_name("cbddc.db.backups.partial"), "{").unwrap();
    let (store, opened) = open(&path);
    let last = opened.backups.last.unwrap();
    assert_eq!((opened.backups.elapsed_ms, opened.backups.counter), (0, 1));
    assert_eq!((last.name.as_str(), last.at), ("backup-20231114-000001.db", NOW.millis));
    close(store);
    fs::write(path.with_file_name("cbddc.db.backups"), "garbage").unwrap();
    let (store, opened) = open(&path);
    assert_eq!(opened.backups.counter, 0);
    fill(&store, 1, 2);
    let next = backup(&store, &path);
    assert_eq!(next.file_name().unwrap(), "backup-20231114-000002.db", "the folder says where to go on");
    close(store);
}
