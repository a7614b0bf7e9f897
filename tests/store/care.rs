//! Backups, restores and what they leave behind, where an operator or a disk does something odd.

use crate::place::*;
use cbddc::Error;
use cbddc::store::{Options, Store};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// What it answers, if it does: opening a FIFO would wait for ever.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || drop(done.send(work())));
    ended.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{what} does not answer"))
}

#[test]
fn a_fifo_or_a_folder_where_a_file_is_due_is_an_error_that_says_what_to_do() {
    let path = database("care-fifo");
    let (store, _) = open(&path);
    fill(&store, 0, 10);
    close(store);
    let fifo = path.with_file_name("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let said = |answer: Result<(), Error>| answer.unwrap_err().to_string();
    let (database, file) = (path.clone(), fifo.clone());
    let refused = in_time("a restore", move || said(restore(&database, &file).map(drop)));
    assert!(refused.contains("FIFO") && refused.contains("name a file"), "{refused}");
    let file = fifo.clone();
    let refused = in_time("a check", move || said(Store::check_offline(&file).map(drop)));
    assert!(refused.contains("FIFO"), "{refused}");
    let file = fifo.clone();
    assert!(!in_time("a look", move || Store::is_backup(&file)));
    let file = fifo.clone();
    let refused = in_time("a start", move || said(open_with(Options::new(&file)).map(drop)));
    assert!(refused.contains("FIFO"), "{refused}");
    let refused = said(restore(&path, path.parent().unwrap()).map(drop));
    assert!(refused.contains("a backup is a file"), "{refused}");
    let refused = said(restore(&path, &path.with_file_name("none.db")).map(drop));
    assert!(refused.contains("there is no file") && refused.contains("BackupPath"), "{refused}");
    let refused = said(Store::check_offline(&path.with_file_name("none.db")).map(drop));
    assert!(refused.contains("there is no database"), "{refused}");
}

#[test]
fn a_copy_of_a_database_in_use_without_its_log_is_restored_with_a_warning() {
    let path = database("care-in-use");
    // The log is copied back while it writes, and not while this test copies the file.
    let (store, _) =
        open_with(Options { min_free_bytes: 0, idle: Duration::from_secs(600), ..Options::new(&path) }).unwrap();
    for n in 0..60 {
        fill(&store, n * 500, (n + 1) * 500);
    }
    let copy = path.with_file_name("copy.db");
    fs::copy(&path, &copy).unwrap();
    let made = backup(&store, &path);
    close(store);
    let restored = restore(&path, &copy).unwrap();
    assert!(restored.unclean && restored.rows > 0 && restored.rows < 30_000, "{restored:?}");
    let restored = restore(&path, &made).unwrap();
    assert!(!restored.unclean && restored.rows == 30_000, "a backup is made of a database in use, and is whole");
}

#[test]
fn a_backup_that_is_cut_off_is_not_advised_to_be_restored() {
    let path = database("care-cut-off");
    let (store, _) = open(&path);
    for n in 0..8 {
        fill(&store, n * 500, (n + 1) * 500);
    }
    let made = backup(&store, &path);
    close(store);
    let bytes = fs::read(&made).unwrap();
    for length in [bytes.len() / 2, 8192, 5000] {
        fs::write(&made, &bytes[..length]).unwrap();
        let said = restore(&path, &made).unwrap_err().to_string();
        assert!(said.contains("take another backup"), "{said}");
        assert!(!said.contains("restore a backup"), "{said}");
        assert_eq!(said.matches("is damaged").count(), 1, "{said}");
    }
}

#[test]
fn what_only_has_the_name_of_a_backup_pushes_no_good_one_out() {
    let path = database("care-junk");
    let (store, _) = open(&path);
    fill(&store, 0, 100);
    let first = backup(&store, &path);
    let folder = path.with_file_name("backups");
    fs::write(folder.join("backup-20231114-000007.db"), "junk").unwrap();
    let whole = fs::read(&first).unwrap();
    fs::write(folder.join("backup-20231114-000008.db"), &whole[..whole.len() - 4096]).unwrap();
    fill(&store, 100, 101);
    let second = smol::block_on(store.backup(order(&path, 2))).unwrap();
    assert_eq!((second.path.file_name().unwrap().to_str(), second.removed), (Some("backup-20231114-000009.db"), 0));
    assert!(first.exists(), "{:?}", names(&path));
    fill(&store, 101, 102);
    let third = smol::block_on(store.backup(order(&path, 2))).unwrap();
    assert_eq!(third.removed, 1);
    assert!(!first.exists() && second.path.exists() && third.path.exists(), "{:?}", names(&path));
    close(store);
}

#[test]
fn no_backup_goes_before_a_new_one_is_in_place() {
    let path = database("care-no-room");
    let (store, _) = open(&path);
    for n in 0..3 {
        fill(&store, n, n + 1);
        backup(&store, &path);
    }
    fill(&store, 10, 20);
    close(store);
    let before = names(&path);
    let (store, _) = open_with(Options { min_free_bytes: 1 << 60, ..Options::new(&path) }).unwrap();
    let error = smol::block_on(store.backup(order(&path, 3))).unwrap_err();
    assert_eq!(error.kind(), Some("DiskFull"));
    assert!(error.to_string().contains("none is removed before a new one is in place"), "{error}");
    assert_eq!(names(&path), before);
    close(store);
}

#[test]
fn what_an_interrupted_restore_has_left_is_removed_at_the_next_start() {
    let path = database("care-leftovers");
    let (store, _) = open(&path);
    fill(&store, 0, 10);
    close(store);
    let left = [".restoring.partial", ".restoring", ".recovering.partial", ".incident.partial", ".backups.partial"];
    let at = |suffix: &str| path.with_file_name(format!("cbddc.db{suffix}"));
    left.iter().for_each(|suffix| fs::write(at(suffix), "left").unwrap());
    let (store, _) = open(&path);
    for suffix in left {
        assert!(!at(suffix).exists(), "{suffix}");
    }
    assert!(get(&store, "key-00005").is_some());
    close(store);
}

#[test]
fn a_note_of_a_recovery_that_cannot_be_read_stops_no_start_and_loses_nothing() {
    for (nth, garbage) in ["", "{\"found\":", "\u{0}\u{0}"].into_iter().enumerate() {
        // The database is in place: it is what counts.
        let path = database(&format!("care-note-{nth}"));
        let (store, _) = open(&path);
        fill(&store, 0, 50);
        close(store);
        let note = path.with_file_name("cbddc.db.recovering");
        fs::write(&note, garbage).unwrap();
        let (store, opened) = open_with(recovering(&path, true)).unwrap();
        assert!(!opened.created && get(&store, "key-00049").is_some() && !note.exists());
        assert_eq!(smol::block_on(store.incident()), None, "nothing was set aside");
        close(store);
        // It was set aside, and nothing has taken its place yet.
        let old = path.with_file_name("cbddc.db.old-1");
        fs::rename(&path, &old).unwrap();
        fs::write(&note, garbage).unwrap();
        let (store, _) = open_with(recovering(&path, true)).unwrap();
        assert!((0..50).all(|n| get(&store, &format!("key-{n:05}")).is_some()) && !note.exists());
        let incident = smol::block_on(store.incident()).expect("a person is told");
        assert_eq!((incident.set_aside.as_path(), incident.carried), (old.as_path(), 50));
        smol::block_on(store.acknowledge()).unwrap();
        close(store);
        // Something has taken its place, and nobody knows whether all was carried over: a person is told where to look.
        fs::write(&note, garbage).unwrap();
        let (store, _) = open_with(recovering(&path, true)).unwrap();
        let incident = smol::block_on(store.incident()).expect("a person is told");
        assert_eq!(incident.set_aside.as_path(), old.as_path());
        let sizes = smol::block_on(store.sizes()).unwrap();
        assert_eq!(sizes.set_aside, 1);
        assert!(sizes.set_aside_bytes >= fs::metadata(&old).unwrap().len(), "what was set aside is counted");
        close(store);
    }
}

#[test]
fn what_is_full_is_said_without_a_bound_of_nothing() {
    let path = database("care-full");
    let said = |options: Options| {
        let (store, _) = open_with(options).unwrap();
        let error = smol::block_on(store.submit(NOW, request(vec![put("k", &"x".repeat(200_000))])));
        let said = error.unwrap_err().to_string();
        close(store);
        said
    };
    let bound = |path: &Path, max| Options { min_free_bytes: 0, max_database_bytes: max, ..Options::new(path) };
    let by_max = said(bound(&path, Some(64 * 1024)));
    assert!(by_max.contains("MaxDatabaseMb") && !by_max.contains("MinFreeMb"), "{by_max}");
    let by_free = said(Options { min_free_bytes: 1 << 60, ..Options::new(&path) });
    assert!(by_free.contains("MinFreeMb = ") && !by_free.contains("MaxDatabaseMb"), "{by_free}");
}
