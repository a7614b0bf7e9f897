//! Order, preconditions, pages, bounds, and the life of a database.

use crate::place::*;
use cbddc::document::{CollectionSummary, Query};
use cbddc::id::{DeviceId, NodeId, ReplicaId, VersionVector};
use cbddc::replica::{Meeting, Precondition, Reply, Request, Said, Write};
use cbddc::row::{RowKey, Scope};
use cbddc::store::{Options, WAL_BYTES_MAX};
use cbddc::{Error, PersistenceKind};

#[test]
fn requests_that_share_a_commit_keep_their_order_and_see_each_other() {
    let path = database("order");
    let (store, _) = open(&path);
    let absent = |value: usize| Write { precondition: Precondition::Absent, ..put("one", &value.to_string()) };
    let waiting: Vec<_> =
        (0..200).map(|n| store.submit(NOW, request(vec![absent(n), put("last", &n.to_string())]))).collect();
    let mut versions = Vec::new();
    for (n, answer) in waiting.into_iter().enumerate() {
        let (reply, knowledge) = smol::block_on(answer).unwrap();
        let Reply::Written(written) = reply else { unreachable!() };
        assert_eq!(written[0].is_ok(), n == 0, "only the first finds it absent");
        assert_eq!(written[1].unwrap().existed, n > 0);
        versions.push(knowledge.version);
    }
    assert!(versions.is_sorted_by(|a, b| a < b), "each answer carries the knowledge after its own request");
    assert_eq!(get(&store, "one").as_deref(), Some("0"));
    assert_eq!(get(&store, "last").as_deref(), Some("199"));
    close(store);
}

#[test]
fn what_was_acknowledged_is_there_after_a_crash_at_that_instant() {
    let path = database("crash");
    let (store, _) = open(&path);
    for n in 0..50 {
        write(&store, vec![put(&format!("k{n}"), "v"), put("same", &n.to_string())]);
    }
    let knowledge = write(&store, vec![delete("k7")]);
    let before = stream(&store);
    // The files as a power cut would leave them: nothing of the process, everything that it synced.
    let image = database("crash-image");
    std::fs::copy(&path, &image).unwrap();
    std::fs::copy(path.with_extension("db-wal"), image.with_extension("db-wal")).unwrap();
    let (after, opened) = open(&image);
    assert!(opened.unclean && !opened.created);
    assert_eq!(stream(&after).0, before.0);
    let start = opened.knowledge.tokens.last().copied().unwrap();
    assert_eq!((start.seq, start.tail), (knowledge.seq, knowledge.tail));
    assert_eq!((opened.knowledge.vector, opened.knowledge.hlc), (knowledge.vector, knowledge.hlc));
    assert_eq!((get(&after, "k7"), get(&after, "same").as_deref()), (None, Some("49")));
    close(after);
    close(store);
}

#[test]
fn an_orderly_stop_leaves_one_file_and_all_that_was_known() {
    for wal in [true, false] {
        let path = database(if wal { "reopen" } else { "reopen-journal" });
        let options = Options { wal, min_free_bytes: 0, ..Options::new(&path) };
        let (store, opened) = open_with(options.clone()).unwrap();
        assert!(opened.created && !opened.unclean && opened.members.is_empty());
        let replica = ReplicaId::mint(&[], 9);
        let said = Said { replica, starts: Vec::new(), tail: 0, vector: VersionVector::new(), same_process: true };
        let node_id = NodeId::new("gateway-02").unwrap();
        let meeting = Meeting { device: DeviceId([2; 32]), node_id, tracked: Some(true), said: Some(said) };
        let met = smol::block_on(store.submit(NOW, Request::Meet(meeting))).unwrap().0;
        let knowledge = write(&store, vec![put("a", "1")]);
        close(store);
        assert!(!path.with_extension("db-wal").exists());
        let (store, opened) = open_with(options).unwrap();
        assert!(!opened.created && !opened.unclean);
        assert_eq!(met, Reply::Met(opened.members[0].0, opened.members[0].1.clone()));
        assert_eq!(opened.knowledge.vector, knowledge.vector);
        assert_eq!(opened.knowledge.tokens.len(), 2, "each start is noted");
        assert_eq!(get(&store, "a").as_deref(), Some("1"));
        close(store);
    }
}

#[test]
fn the_last_handle_closes_in_order() {
    let path = database("handles");
    let (store, _) = open(&path);
    let other = store.clone();
    drop(store);
    write(&other, vec![put("a", "1")]);
    drop(other);
    assert!(!open(&path).1.unclean);
}

#[test]
fn a_closed_store_refuses_and_says_so() {
    let (store, _) = open(&database("closed"));
    smol::block_on(store.close()).unwrap();
    let error = smol::block_on(store.submit(NOW, request(vec![put("a", "1")]))).unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    assert!(smol::block_on(store.statistics()).is_err());
    smol::block_on(store.close()).unwrap();
}

#[test]
fn pages_have_bounds_and_directions() {
    let (store, _) = open(&database("pages"));
    let names = ["a", "aa", "ab", "b", "b\u{10FFFF}", "c"];
    write(&store, names.iter().map(|name| put(name, "1")).collect());
    write(&store, vec![delete("b")]);
    let list = |prefix: &str, after: Option<&str>, limit, reverse| {
        let query = Query { prefix: prefix.into(), after: after.map(Into::into), limit, reverse };
        let (keys, next) = keys(&store, &query);
        (keys.join(" "), next.unwrap_or_default())
    };
    let page = |keys: &str, next: &str| (keys.to_string(), next.to_string());
    assert_eq!(list("", None, 100, false), page("a aa ab b\u{10FFFF} c", ""));
    assert_eq!(list("", None, 2, false), page("a aa", "aa"));
    assert_eq!(list("", Some("aa"), 2, false), page("ab b\u{10FFFF}", "b\u{10FFFF}"));
    assert_eq!(list("", Some("b\u{10FFFF}"), 2, false), page("c", ""));
    assert_eq!(list("a", None, 100, false), page("a aa ab", ""));
    assert_eq!(list("a", None, 2, true), page("ab aa", "aa"));
    assert_eq!(list("a", Some("aa"), 2, true), page("a", ""));
    assert_eq!(list("b", None, 100, true), page("b\u{10FFFF}", ""));
    assert_eq!(list("a", Some("z"), 100, false), page("", ""));
    assert_eq!(list("b", Some("a"), 100, false), page("b\u{10FFFF}", ""));

    let large = "x".repeat(200 * 1024);
    for n in 0..7 {
        write(&store, vec![put(&format!("l{n}"), &large)]);
    }
    assert_eq!(list("l", None, 100, false), page("l0 l1 l2 l3 l4", "l4"));
    let wanted = ["l6", "l0", "no", "l0"].map(String::from).to_vec();
    let many = smol::block_on(store.get_many(Scope::Replicated, "c", wanted, NOW.millis)).unwrap();
    assert_eq!(many.documents.iter().map(|document| document.key.as_str()).collect::<Vec<_>>(), ["l0", "l6"]);
    close(store);
}

#[test]
fn collections_count_what_a_reader_sees() {
    let (store, _) = open(&database("collections"));
    let of = |scope, collection: &str, key: &str, expires_at| Write {
        key: RowKey { scope, collection: collection.into(), key: key.into() },
        expires_at,
        ..put("", "1")
    };
    write(
        &store,
        vec![
            of(Scope::Replicated, "c", "1", None),
            of(Scope::Replicated, "c", "2", None),
            of(Scope::Replicated, "c", "3", Some(NOW.millis)),
            of(Scope::Replicated, "c", "4", Some(u64::MAX)),
            of(Scope::Local, "scratch", "1", None),
            of(Scope::System, "members", "1", None),
            of(Scope::Replicated, "gone", "1", Some(NOW.millis - 1)),
        ],
    );
    write(&store, vec![delete("2")]);
    let counts = smol::block_on(store.collections(NOW.millis)).unwrap();
    let named = |name: &str, documents| CollectionSummary { name: name.into(), documents };
    assert_eq!(counts, [named("c", 2), named("scratch", 1)]);
    let statistics = smol::block_on(store.statistics()).unwrap();
    assert_eq!((statistics.documents, statistics.tombstones), (5, 1), "not yet expired by a slice of maintenance");
    let sizes = smol::block_on(store.sizes()).unwrap();
    assert!(sizes.database_bytes + sizes.log_bytes > 0 && sizes.free_bytes > 0, "{sizes:?}");
    close(store);
}

#[test]
fn the_log_stays_within_its_bound_and_one_transaction() {
    let (store, _) = open(&database("log"));
    let value = "x".repeat(60 * 1024);
    for n in 0..200 {
        write(&store, vec![put(&format!("k{n}"), &value)]);
    }
    let sizes = smol::block_on(store.sizes()).unwrap();
    assert!(sizes.log_bytes <= WAL_BYTES_MAX + 512 * 1024, "{sizes:?}");
    close(store);
}

#[test]
fn documents_are_refused_at_the_bound_and_deletes_go_on() {
    let path = database("full");
    let bounds = Options { max_database_bytes: Some(1024 * 1024), min_free_bytes: 0, ..Options::new(&path) };
    let (store, _) = open_with(bounds).unwrap();
    let value = "x".repeat(10 * 1024);
    let outcome = |n: usize| smol::block_on(store.submit(NOW, request(vec![put(&format!("k{n}"), &value)])));
    let stored = (0..200).take_while(|n| outcome(*n).is_ok()).count();
    assert!((80..110).contains(&stored), "{stored}");
    let error = outcome(stored).unwrap_err();
    assert!(matches!(error, Error::Persistence { kind: PersistenceKind::DiskFull, .. }), "{error}");
    assert_eq!(get(&store, "k3").as_deref(), Some(value.as_str()), "reads go on");
    for n in 0..stored {
        write(&store, vec![delete(&format!("k{n}"))]);
    }
    outcome(0).expect("space has come back");
    close(store);
    // A new database has no pages of deleted documents to write in.
    let floor = Options { min_free_bytes: u64::MAX, ..Options::new(database("floor")) };
    let (store, _) = open_with(floor).unwrap();
    let error = smol::block_on(store.submit(NOW, request(vec![put("a", "1")]))).unwrap_err();
    assert!(error.to_string().contains("MinFreeMb"), "{error}");
    close(store);
}

#[test]
fn one_refused_request_takes_nobody_with_it() {
    let path = database("partly");
    let bounds = Options { max_database_bytes: Some(512 * 1024), min_free_bytes: 0, ..Options::new(&path) };
    let (store, _) = open_with(bounds).unwrap();
    let large = "x".repeat(250 * 1024);
    let mut waiting = Vec::new();
    for n in 0..12 {
        let value = if n % 2 == 0 { large.as_str() } else { "small" };
        waiting.push(store.submit(NOW, request(vec![put(&format!("k{n}"), value)])));
    }
    let outcomes: Vec<bool> = waiting.into_iter().map(|answer| smol::block_on(answer).is_ok()).collect();
    assert!(outcomes.iter().skip(1).step_by(2).all(|stored| *stored), "{outcomes:?}");
    assert!(outcomes.iter().any(|stored| !stored), "{outcomes:?}");
    for (n, stored) in outcomes.iter().enumerate() {
        assert_eq!(get(&store, &format!("k{n}")).is_some(), *stored);
    }
    close(store);
}
