//! Databases of which a part that nothing else tells of is gone: the first sector, a byte of the header, the members, the
//! whole file. Each comes back by itself where there is a peer or a backup, and room.

use crate::place::*;
use cbddc::Error;
use cbddc::id::{DeviceId, NodeId};
use cbddc::replica::{Meeting, Request};
use cbddc::store::{Options, Salvage, Store};
use std::path::{Path, PathBuf};

const PAGE: usize = 4096;

/// A closed database with 500 documents, of a node that has a peer where that is wanted.
fn filled(name: &str, peer: bool) -> PathBuf {
    let path = database(name);
    let (store, _) = open(&path);
    fill(&store, 0, 500);
    if peer {
        let node_id = NodeId::new("peer").unwrap();
        let meeting = Meeting { device: DeviceId([7; 32]), node_id, tracked: Some(true), said: None };
        smol::block_on(store.submit(NOW, Request::Meet(meeting))).unwrap();
    }
    close(store);
    path
}
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}
fn documents(store: &Store) -> usize {
    (0..500).filter(|n| get(store, &format!("key-{n:05}")).is_some()).count()
}

#[test]
fn a_database_without_its_first_bytes_is_recovered_row_by_row() {
    for (lost, name) in [(16, "magic"), (512, "sector"), (PAGE, "page")] {
        for with in [0, 0x5a] {
            let path = filled(&format!("lost-{name}-{with}"), true);
            change(&path, |bytes| bytes[..lost].fill(with));
            let (store, opened) = open_with(recovering(&path, false)).unwrap();
            assert_eq!((documents(&store), &opened.read_only), (500, &None), "{lost} bytes of {with}");
            let incident = smol::block_on(store.incident()).expect("a person is told");
            assert!(incident.set_aside.exists() && incident.carried == 500, "{incident:?}");
            close(store);
        }
    }
}

#[test]
fn a_file_without_rows_of_ours_is_still_no_database() {
    let path = database("lost-nothing");
    std::fs::write(&path, vec![0; 8 * PAGE]).unwrap();
    let said = open_with(recovering(&path, true)).map(drop).unwrap_err().to_string();
    assert!(said.contains("not a database") && said.contains("cbddc restore"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), vec![0; 8 * PAGE]);
}

#[test]
fn a_version_of_the_format_that_there_is_not_is_told_of_and_put_right() {
    for (at, bit) in [18, 19].into_iter().flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let path = filled("lost-version", false);
        let before = std::fs::read(&path).unwrap()[at];
        change(&path, |bytes| bytes[at] ^= 1 << bit);
        let checked = Store::check_offline(&path);
        assert!(!checked.is_ok_and(|checked| checked.is_ok()), "byte {at}, bit {bit}: the check says nothing");
        let (store, opened) = open_with(recovering(&path, false)).unwrap();
        assert_eq!((documents(&store), &opened.read_only), (500, &None), "byte {at}, bit {bit}");
        assert!(smol::block_on(store.incident()).is_none(), "nothing was lost");
        close(store);
        assert_eq!(std::fs::read(&path).unwrap()[at], before);
    }
}

#[test]
fn members_that_cannot_be_read_may_be_peers() {
    let path = filled("lost-members", true);
    let root: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'member'", [], |row| row.get(0))
        .unwrap();
    let page = (usize::try_from(root).unwrap() - 1) * PAGE;
    change(&path, |bytes| bytes[page] = 0xa5);
    let (store, opened) = open_with(recovering(&path, false)).unwrap();
    assert_eq!((documents(&store), opened.read_only), (500, None));
    assert!(smol::block_on(store.incident()).is_some());
    close(store);
}

#[test]
fn a_file_that_is_empty_or_gone_and_of_which_there_are_backups_is_no_new_database() {
    for gone in [false, true] {
        let path = filled(&format!("lost-file-{gone}"), false);
        let (store, _) = open(&path);
        backup(&store, &path);
        close(store);
        match gone {
            true => std::fs::remove_file(&path).unwrap(),
            false => std::fs::write(&path, b"").unwrap(),
        }
        let (store, opened) = open_with(recovering(&path, false)).unwrap();
        assert!(documents(&store) == 500 && opened.restored, "{opened:?}");
        let incident = smol::block_on(store.incident()).expect("a person is told");
        assert!(incident.backup.is_some() && incident.found.contains("holds nothing"), "{incident:?}");
        close(store);
        // Where nobody is to bring it back by itself, or nothing is there to bring back, a file that was moved away is not missed.
        std::fs::remove_file(&path).unwrap();
        let (store, opened) = open(&path);
        assert!(documents(&store) == 0 && opened.created);
        close(store);
    }
}

#[test]
fn a_file_that_was_overwritten_comes_back_from_its_backup() {
    for (with, name) in [(0, "zeros"), (0xff, "ones")] {
        let path = filled(&format!("lost-to-{name}"), false);
        let (store, _) = open(&path);
        backup(&store, &path);
        close(store);
        change(&path, |bytes| bytes.fill(with));
        let (store, opened) = open_with(recovering(&path, false)).unwrap();
        assert!(documents(&store) == 500 && opened.restored, "{name}: {opened:?}");
        assert!(smol::block_on(store.incident()).is_some_and(|incident| incident.set_aside.exists()));
        close(store);
    }
}

#[test]
fn a_log_whose_database_is_gone_is_set_aside_with_all_that_it_holds() {
    for empty in [false, true] {
        let path = database(&format!("lost-beside-its-log-{empty}"));
        let copy = path.with_file_name("log");
        let (store, _) = open(&path);
        fill(&store, 0, 500);
        // As after kill -9: the log is there, and what it holds is nowhere else.
        std::fs::copy(Path::new(&format!("{}-wal", path.display())), &copy).unwrap();
        close(store);
        match empty {
            true => std::fs::write(&path, b"").unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
        std::fs::rename(&copy, format!("{}-wal", path.display())).unwrap();
        let (store, _) = open(&path);
        assert_eq!(documents(&store), 0, "a new database");
        close(store);
        let old = PathBuf::from(format!("{}.old-1", path.display()));
        let page = Store::whole_documents(&old, "c", "", &mut Salvage::default()).unwrap();
        assert_eq!(page.documents.len(), 500, "what only the log held can be taken out");
    }
}

#[test]
fn a_fifo_beside_the_database_is_told_of_and_not_waited_for() {
    for suffix in ["-wal", "-journal", "-shm"] {
        let path = filled(&format!("lost-fifo{suffix}"), false);
        let at = format!("{}{suffix}", path.display());
        std::fs::remove_file(&at).ok();
        assert!(std::process::Command::new("mkfifo").arg(&at).status().unwrap().success());
        let said = open_with(Options::new(&path)).map(drop).unwrap_err().to_string();
        assert!(said.contains(suffix) && said.contains("move it away"), "{said}");
    }
}

#[test]
fn a_recovery_that_has_no_room_touches_nothing_and_serves_what_can_be_read() {
    let path = filled("lost-room", true);
    let broken = |bytes: &mut Vec<u8>| bytes[20..100].fill(0xa5);
    change(&path, broken);
    let before = std::fs::read(&path).unwrap();
    let options = Options { min_free_bytes: 1 << 60, ..recovering(&path, true) };
    let said = match open_with(options) {
        Ok((store, opened)) => {
            close(store);
            opened.read_only.expect("nothing may be written")
        }
        Err(error @ Error::DatabaseCorruption { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
    };
    assert!(said.contains("MiB are free") && said.contains("start the node again"), "{said}");
    assert!(std::fs::read(&path).unwrap() == before);
    let (store, _) = open_with(recovering(&path, true)).unwrap();
    assert_eq!(documents(&store), 500, "with room it is recovered");
    close(store);
}

#[test]
fn an_incident_that_nobody_has_acknowledged_is_not_forgotten_for_the_next_one() {
    let path = filled("lost-twice", true);
    let mut aside = Vec::new();
    for _ in 0..3 {
        change(&path, |bytes| bytes[..512].fill(0));
        let (store, _) = open_with(recovering(&path, true)).unwrap();
        let incident = smol::block_on(store.incident()).unwrap();
        assert_eq!(incident.earlier, aside);
        assert!(aside.iter().all(|at: &PathBuf| incident.said().contains(at.to_str().unwrap())), "{}", incident.said());
        aside.push(incident.set_aside);
        assert_eq!(documents(&store), 500);
        close(store);
    }
}
