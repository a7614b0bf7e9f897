//! Backups of a store: what is in them, what they are called, and that nobody waits for them.

use crate::place::*;
use cbddc::document::Query;
use cbddc::store::{BackupOrder, Options};
use std::fs;
use std::os::unix::fs::PermissionsExt;

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

/// Freeing a large file in one piece holds up every sync on some file systems.
#[test]
fn an_old_backup_is_emptied_before_its_name_goes_unless_it_has_another_name() {
    let path = database("emptied");
    let (store, _) = open(&path);
    let mut held = Vec::new();
    for n in 0..3 {
        fill(&store, n, n + 1);
        let made = smol::block_on(store.backup(order(&path, 1))).unwrap();
        held.push((fs::File::open(&made.path).unwrap(), made));
        if n == 1 {
            fs::hard_link(&held[1].1.path, path.with_file_name("mine.db")).unwrap();
        }
    }
    let bytes = |n: usize| held[n].0.metadata().unwrap().len();
    assert_eq!((bytes(0), bytes(1), bytes(2)), (0, held[1].1.bytes, held[2].1.bytes));
    assert_eq!(names(&path), ["backup-20231114-000003.db", "latest.db"]);
    close(store);
    let copy = database("emptied-copy");
    assert_eq!(restore(&copy, &path.with_file_name("mine.db")).unwrap().rows, 2, "it is whole under its other name");
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
        assert!(meanwhile > 0, "{meanwhile} writes were answered while it was made, wal {wal}");
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
fn one_job_at_a_time_and_a_stop_does_not_wait_for_it() {
    let path = database("stopping");
    let (store, _) = open(&path);
    for n in 0..20 {
        fill(&store, n * 250, (n + 1) * 250);
    }
    let mut made = 0;
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
        store.close().await.unwrap();
        // Mostly it is cut short; where the machine stood still meanwhile, it is whole.
        made = u64::from(first.await.is_ok());
    });
    assert_eq!(names(&path).is_empty(), made == 0, "{:?}", names(&path));
    let (store, opened) = open(&path);
    assert!(!opened.unclean && opened.backups.counter == made);
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

#[test]
fn a_backup_that_rotted_or_lost_its_second_name_is_made_again_although_nothing_has_changed() {
    let path = database("rotten-backup");
    let (store, _) = open(&path);
    fill(&store, 0, 500);
    let first = backup(&store, &path);
    let mut bytes = fs::read(&first).unwrap();
    let at = bytes.windows(11).position(|window| window == b"value-00300").unwrap();
    bytes[at + 3] ^= 4;
    fs::write(&first, bytes).unwrap();
    let second = smol::block_on(store.backup(order(&path, 3))).unwrap();
    assert!(!second.unchanged && second.path != first, "{second:?}");
    assert!(smol::block_on(store.backup(order(&path, 3))).unwrap().unchanged);
    fs::remove_file(path.with_file_name("backups").join("latest.db")).unwrap();
    let third = smol::block_on(store.backup(order(&path, 3))).unwrap();
    assert!(!third.unchanged && names(&path).contains(&"latest.db".to_string()), "{third:?}");
    close(store);
}
