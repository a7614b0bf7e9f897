//! Readers of the change feed, away at random while rows change, expire and are forgotten: whoever is told that it may
//! go on has in the end exactly what the store has.

use crate::place::*;
use cbddc::document::Query;
use cbddc::replica::{
    Bookmark, Feed, FeedPage, Maintained, Precondition, Reply, Request, Retention, Since, Stale, Write,
};
use cbddc::row::{Body, Row, RowKey, Scope};
use cbddc::store::{Options, Store};
use cbddc::time::Reading;
use std::collections::BTreeMap;

const COLLECTIONS: [&str; 2] = ["a", "b"];

fn page(store: &Store, since: Since, collection: Option<&str>, limit: usize) -> FeedPage {
    smol::block_on(store.feed(Feed { since, collection: collection.map(Into::into), limit })).unwrap()
}

/// A reader that keeps a copy of what it reads.
struct Reader {
    collection: Option<&'static str>,
    since: Since,
    copy: BTreeMap<RowKey, Row>,
    resumed: u32,
    stale: u32,
}

impl Reader {
    fn new(collection: Option<&'static str>) -> Reader {
        Reader { collection, since: Since::Start, copy: BTreeMap::new(), resumed: 0, stale: 0 }
    }
    /// One page; says whether the tail was reached.
    fn read(&mut self, store: &Store, limit: usize) -> bool {
        match page(store, self.since, self.collection, limit) {
            FeedPage::Stale(stale) => {
                assert_eq!(stale, Stale::Dropped);
                self.stale += 1;
                self.copy.clear();
                self.since = Since::Start;
                false
            }
            FeedPage::Rows { rows, next, more, .. } => {
                self.resumed += u32::from(self.since != Since::Start);
                assert!(rows.len() <= limit);
                for (_, row) in rows {
                    assert!(row.key.scope != Scope::System && self.collection.is_none_or(|c| c == row.key.collection));
                    match row.is_tombstone() {
                        true => self.copy.remove(&row.key),
                        false => self.copy.insert(row.key.clone(), row),
                    };
                }
                self.since = Since::Bookmark(Bookmark::parse(&next.to_string()).unwrap());
                !more
            }
        }
    }
    /// What it holds of what has not expired by now.
    fn holds(&self, now: u64) -> BTreeMap<RowKey, Vec<u8>> {
        let live = self.copy.iter().filter(|(_, row)| !row.is_expired(now));
        live.map(|(key, row)| (key.clone(), row.value().unwrap().to_vec())).collect()
    }
}

/// Every live document of the store.
fn documents(store: &Store, collection: Option<&str>, now: u64) -> BTreeMap<RowKey, Vec<u8>> {
    let mut all = BTreeMap::new();
    for name in COLLECTIONS.into_iter().filter(|name| collection.is_none_or(|wanted| wanted == *name)) {
        for scope in [Scope::Replicated, Scope::Local] {
            let page = smol::block_on(store.list(scope, name, &Query::default(), now)).unwrap();
            for document in page.documents {
                all.insert(RowKey { scope, collection: name.into(), key: document.key }, document.value);
            }
        }
    }
    all
}

fn maintain(store: &Store, now: Reading, after: u64) -> Maintained {
    let knowledge = smol::block_on(store.submit(now, Request::Records)).unwrap().1;
    let retention = Retention {
        confirmed_by_all: Some(knowledge.vector),
        min_age: 60,
        keep: u64::MAX,
        tombstones_max: 16,
        bytes_over: 0,
        upto: u64::MAX,
        after,
        slice: 4,
    };
    match smol::block_on(store.submit(now, Request::Maintain(retention))).unwrap().0 {
        Reply::Maintained(done) => done,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_may_go_on_has_missed_nothing_however_long_it_was_away() {
    for seed in 1..=2 {
        follow(seed);
    }
}

fn follow(seed: u64) {
    let path = database(&format!("feed-{seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    // Each start has a token of its own.
    let mut tokens = fastrand::Rng::with_seed(seed);
    let mut start = || {
        let options = Options { min_free_bytes: 0, ..Options::new(&path) };
        Store::open(options, &mut || tokens.u64(..)).unwrap().0
    };
    let mut store = start();
    let mut now = NOW;
    let mut after = 0;
    let mut readers = [None, None, Some("a"), Some("b")].map(Reader::new);
    for step in 0..300 {
        now.millis += random.u64(..6);
        if random.u8(..4) == 0 {
            after = maintain(&store, now, after).next;
        } else {
            let scope = *random.choice(&[Scope::Replicated, Scope::Local, Scope::System]).unwrap();
            let collection = (*random.choice(&COLLECTIONS).unwrap()).into();
            let key = RowKey { scope, collection, key: format!("k{}", random.u8(..6)) };
            let body = if random.u8(..3) == 0 { Body::Tombstone } else { Body::Live(step.to_string().into_bytes()) };
            let expires_at = (random.u8(..3) == 0 && body != Body::Tombstone).then(|| now.millis + random.u64(1..40));
            let write = Write { key, body, expires_at, precondition: Precondition::None };
            smol::block_on(store.submit(now, request(vec![write]))).unwrap();
        }
        if random.u16(..100) == 0 {
            close(store);
            store = start();
        }
        // The first is always there, the others come by.
        for (at, reader) in readers.iter_mut().enumerate() {
            while at == 0 && !reader.read(&store, 3) {}
            if at == 0 || random.u8(..30) == 0 && reader.read(&store, random.usize(1..5)) {
                assert_eq!(
                    reader.holds(now.millis),
                    documents(&store, reader.collection, now.millis),
                    "seed {seed}, step {step}, reader {at}"
                );
            }
        }
    }
    // In the end, when everything that can expire has, nobody has to know of times.
    now.millis += 40;
    while maintain(&store, now, 0).more {}
    for (at, reader) in readers.iter_mut().enumerate() {
        while !reader.read(&store, 3) {}
        assert_eq!(reader.holds(0), documents(&store, reader.collection, now.millis), "seed {seed}, reader {at}");
    }
    let (resumed, stale) = (readers[1].resumed, readers[1].stale);
    assert!(resumed > 5 && stale > 0, "seed {seed}: resumed {resumed} times, stale {stale} times");
    assert_eq!(readers[0].stale, 0, "seed {seed}: one that is always there is never sent back");
    close(store);
}

#[test]
fn a_page_of_the_feed_is_bounded_and_local_documents_are_in_it() {
    let (store, _) = open(&database("feed-pages"));
    let large = "x".repeat(30 * 1024);
    for n in 0..6 {
        write(&store, vec![put(&format!("k{n}"), &large)]);
    }
    let local = Write { key: RowKey { scope: Scope::Local, ..RowKey::replicated("l", "k") }, ..put("", "1") };
    let system = Write { key: RowKey { scope: Scope::System, ..RowKey::replicated("s", "k") }, ..put("", "1") };
    write(&store, vec![local, system]);
    let (mut since, mut pages, mut keys) = (Since::Start, 0, Vec::new());
    loop {
        let FeedPage::Rows { rows, next, more, .. } = page(&store, since, None, 1000) else { panic!() };
        keys.extend(rows.into_iter().map(|(_, row)| row.key.collection + "/" + &row.key.key));
        (since, pages) = (Since::Bookmark(next), pages + 1);
        if !more {
            break;
        }
    }
    assert_eq!(keys, ["c/k0", "c/k1", "c/k2", "c/k3", "c/k4", "c/k5", "l/k"]);
    assert_eq!(pages, 3, "three documents of 30 KiB pass the bound of one page");
    let FeedPage::Rows { rows, next, more, .. } = page(&store, Since::Now, None, 1000) else { panic!() };
    assert!(rows.is_empty() && !more);
    assert_eq!(
        Since::Bookmark(Bookmark { began_at: 0, ..next }),
        match since {
            Since::Bookmark(last) => Since::Bookmark(Bookmark { began_at: 0, ..last }),
            other => other,
        }
    );
    close(store);
}
