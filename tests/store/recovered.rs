//! Rows that were kept aside: listed, written again, forgotten.

use crate::place::*;
use cbddc::id::{DeviceId, Dot, NodeId, ReplicaId, VersionVector};
use cbddc::replica::{Choice, Decided, Decision, Knowledge, Meeting, Origin, Reply, Request, Said};
use cbddc::row::{Body, Row, RowKey};
use cbddc::store::Store;
use cbddc::time::Stamp;
use cbddc::wire::{Closure, StartToken};

const PEER: u64 = 9 << 40;

fn ask(store: &Store, request: Request) -> (Reply, Knowledge) {
    smol::block_on(store.submit(NOW, request)).unwrap()
}

/// A node whose own rows had been sent.
fn filled(name: &str, count: usize) -> Store {
    let (store, _) = open(&database(name));
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        write(&store, chunk.iter().map(|n| put(&format!("k{n:04}"), &format!("\"old {n}\""))).collect());
    }
    ask(&store, Request::MarkSent { upto: u64::MAX });
    store
}

/// Which took the state of a peer that does not know them.
fn with_rows_aside(name: &str, count: usize) -> Store {
    let store = filled(name, count);
    assert_eq!(take_state(&store).recovered, count as u64);
    store
}

/// Takes the state of a peer that has one row.
fn take_state(store: &Store) -> Knowledge {
    let (device, replica) = (DeviceId([9; 32]), ReplicaId::from_bits(PEER));
    let row = Row {
        key: RowKey::replicated("c", "k0000"),
        stamp: Stamp::new(NOW.millis + 5, 0),
        dot: Dot { origin: replica, seq: 1 },
        body: Body::Live(b"\"of the peer\"".to_vec()),
        expires_at: None,
    };
    let vector: VersionVector = [row.dot].into_iter().collect();
    let starts = vec![StartToken { token: 1, seq: 0, tail: 0 }];
    let said = Said { replica, starts, tail: 1, vector: vector.clone(), same_process: false };
    let node_id = NodeId::new("peer").unwrap();
    ask(store, Request::Meet(Meeting { device, node_id, tracked: Some(true), said: Some(said) }));
    ask(store, Request::Stage { first: true, rows: vec![row] });
    let closure =
        Closure { vector, floor: VersionVector::new(), digest: 0, clean: true, hlc: Stamp::new(NOW.millis + 5, 0) };
    let origin = Origin { device, replica, upto: 1, closure };
    ask(store, Request::Bootstrap { origin, random: 3 }).1
}

/// The peer gives a row.
fn comes(store: &Store, late: Row) -> Knowledge {
    let incoming = cbddc::replica::Incoming {
        device: DeviceId([9; 32]),
        replica: ReplicaId::from_bits(PEER),
        announced: VersionVector::new(),
        mode: cbddc::wire::Mode::Increment,
        asked_as: stream(store).1.replica,
        follows: None,
        rows: vec![late],
        upto: 2,
        closure: None,
    };
    let (reply, knowledge) = ask(store, Request::Apply(incoming));
    assert!(matches!(reply, Reply::Applied(cbddc::replica::Applied::Applied { .. })), "{reply:?}");
    knowledge
}

/// Carries a decision out to its end; the sums, and how many transactions it took.
fn decide(store: &Store, choice: Choice, keys: &[&str]) -> (Decided, Knowledge, usize) {
    let (mut sum, mut after, mut turns) = (Decided::default(), 0, 0);
    loop {
        turns += 1;
        let keys = keys.iter().map(ToString::to_string).collect();
        let decision = Decision { choice, collection: None, keys, after };
        let (Reply::Decided(done), knowledge) = ask(store, Request::Decide { decision, sending: true }) else {
            panic!("another reply");
        };
        sum.settled += done.settled;
        sum.damaged += done.damaged;
        sum.written.extend(done.written);
        match done.next {
            Some(next) => after = next,
            None => return (sum, knowledge, turns),
        }
    }
}

fn waiting(store: &Store) -> usize {
    smol::block_on(store.recovered(0, 1000)).unwrap().len()
}

#[test]
fn rows_kept_aside_are_listed_applied_and_dropped_and_a_restart_changes_nothing() {
    let store = with_rows_aside("recovered", 10);
    let rows = smol::block_on(store.recovered(0, 4)).unwrap();
    assert_eq!(rows.len(), 4);
    let behind = smol::block_on(store.recovered(rows[3].0, 1000)).unwrap();
    assert_eq!(behind.len(), 6, "pages go on where the last one ended");
    assert_eq!(get(&store, "k0001"), None, "what waits is not shown");

    let (done, knowledge, _) = decide(&store, Choice::Apply, &["k0000", "k0001"]);
    assert_eq!((done.settled, done.written.len(), knowledge.recovered), (2, 2, 8));
    assert_eq!(get(&store, "k0000").as_deref(), Some("\"old 0\""), "above what stood there");
    assert_eq!(get(&store, "k0001").as_deref(), Some("\"old 1\""));
    assert_eq!((knowledge.seq, knowledge.sent), (2, 2), "written under this replica's own numbers, a link was open");

    let (done, knowledge, _) = decide(&store, Choice::Drop, &["k0002"]);
    assert_eq!((done.settled, done.written.len(), knowledge.recovered), (1, 0, 7));
    close(store);
    let (store, opened) = open(&folder_of("recovered"));
    assert_eq!((opened.knowledge.recovered, waiting(&store)), (7, 7));
    assert_eq!(get(&store, "k0002"), None);
    close(store);
}

#[test]
fn many_rows_are_decided_about_in_slices() {
    let store = with_rows_aside("recovered-many", 300);
    let (done, knowledge, turns) = decide(&store, Choice::Apply, &[]);
    assert_eq!((done.settled, knowledge.recovered, waiting(&store)), (300, 0, 0));
    assert!(turns >= 5, "300 rows in {turns} transactions");
    assert_eq!(get(&store, "k0299").as_deref(), Some("\"old 299\""));
    close(store);
}

#[test]
fn a_dropped_row_that_arrives_after_all_is_not_taken_for_deleted_here() {
    let store = with_rows_aside("recovered-trace", 2);
    let rows = smol::block_on(store.recovered(0, 10)).unwrap();
    let late = rows.into_iter().filter_map(|(_, row)| row).find(|row| row.key.key == "k0001").unwrap();
    decide(&store, Choice::Drop, &[]);
    let knowledge = comes(&store, late);
    assert_eq!(get(&store, "k0001").as_deref(), Some("\"old 1\""));
    assert_eq!(knowledge.recovered, 0);
    close(store);
}

#[test]
fn a_row_that_was_damaged_when_the_state_of_a_peer_was_taken_is_not_taken_for_deleted_here() {
    let store = filled("recovered-unread", 2);
    let late = stream(&store).0.into_iter().find(|row| row.key.key == "k0001").unwrap();
    close(store);
    let path = folder_of("recovered-unread");
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(sqlite.execute("UPDATE row_0 SET value = x'00' WHERE key = 'k0001'", ()).unwrap(), 1);
    drop(sqlite);
    let (store, _) = open(&path);
    assert_eq!(take_state(&store).recovered, 1, "what can be read is kept aside");
    comes(&store, late.clone());
    assert_eq!(get(&store, "k0001").as_deref(), Some("\"old 1\""), "its absence was no delete");
    // A row has stood there since: what is deleted now is deleted.
    let traces = |at: &std::path::Path| -> i64 {
        let sqlite = rusqlite::Connection::open(at).unwrap();
        sqlite.query_row("SELECT count(*) FROM recovered WHERE key = 'k0001'", (), |row| row.get(0)).unwrap()
    };
    close(store);
    assert_eq!(traces(&path), 0);
}

fn folder_of(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("store").join(name).join("cbddc.db")
}
