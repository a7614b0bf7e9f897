//! Any single flipped byte of a closed database: found, or without effect on any document; never taken for what was
//! written; and with a peer, whole again.
//!
//! A few positions by default; `CBDDC_FLIPS=5000 cargo flips` tries as many, `CBDDC_FLIPS_SEED` others,
//! `CBDDC_FLIPS_AT` the bits of one byte. Two threads, each with
//! a database of its own, in memory where the machine has a file system for that: no disk is looked at here.

use crate::place::*;
use cbddc::id::{DeviceId, NodeId};
use cbddc::replica::{Knowledge, Meeting, Offer, Request, Said};
use cbddc::row::{RowKey, Scope};
use cbddc::store::{Options, Recovery, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DOCUMENTS: usize = 10_000;
/// The flags of a row become NULL: the check failed, and the row was called damage of an index for ever. A column of the table of
/// rows kept aside gets another name: the check failed, and led to nothing. A row's own name is no UTF-8 any more: it was looked up
/// by that, which failed for ever.
const FOUND: [(usize, u8); 3] = [(702_273, 0x80), (1819, 0x80), (310_619, 0x80)];
/// Until a database must be whole again.
const PATIENCE: Duration = Duration::from_secs(120);

fn value(n: usize) -> String {
    format!("{{\"n\":{n},\"text\":\"{}\"}}", "abcdefgh".repeat(n % 13))
}
fn key(n: usize) -> String {
    format!("{:05}-{}", n * 7919 % 100_000, n)
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// What every document should be.
fn expected() -> BTreeMap<String, Vec<u8>> {
    (0..DOCUMENTS).map(|n| (key(n), value(n).into_bytes())).collect()
}

/// What a node says of itself to another.
fn said(knowledge: Knowledge) -> Option<Said> {
    let Knowledge { replica, tokens: starts, tail, vector, .. } = knowledge;
    Some(Said { replica, starts, tail, vector, same_process: false })
}

/// `at` hears of `of`.
fn meet(at: &Store, of: &Store, device: u8) {
    let node_id = NodeId::new("peer").unwrap();
    let said = said(knowledge(of));
    let meeting = Meeting { device: DeviceId([device; 32]), node_id, tracked: Some(true), said };
    smol::block_on(at.submit(NOW, Request::Meet(meeting))).unwrap();
}

/// The rows of a store, given to another as a peer's batches.
fn follow(from: &Store, device: u8, to: &Store) {
    meet(to, from, device);
    follow_from(from, DeviceId([device; 32]), to, NOW, 0, None);
}

fn knowledge(store: &Store) -> Knowledge {
    smol::block_on(store.knowledge()).unwrap()
}

/// What became of one flipped byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    NoEffect,
    RowFound,
    IndexFound,
    Recovered,
    Refused,
}

/// What is flipped, and the peer that has all of it.
struct Bench {
    pristine: Vec<u8>,
    peer: Store,
    expected: BTreeMap<String, Vec<u8>>,
}

impl Bench {
    fn new() -> Bench {
        let path = database("any-flip");
        let (store, _) = open(&path);
        for chunk in (0..DOCUMENTS).collect::<Vec<_>>().chunks(200) {
            write(&store, chunk.iter().map(|n| put(&key(*n), &value(*n))).collect());
        }
        let peer = open_as(&database("any-flip-peer"), 2);
        follow(&store, 1, &peer);
        meet(&store, &peer, 2);
        close(store);
        Bench { pristine: std::fs::read(path).unwrap(), peer, expected: expected() }
    }
}

/// Where flipped databases are opened, one after the other.
struct Place<'a> {
    bench: &'a Bench,
    work: PathBuf,
}

impl Place<'_> {
    fn new(bench: &Bench, number: usize) -> Place<'_> {
        let memory = Path::new("/dev/shm");
        let name = format!("cbddc-flips-{}-{number}", std::process::id());
        let in_memory = memory.join(&name);
        let folder = if std::fs::create_dir_all(&in_memory).is_ok() { in_memory } else { folder(&name) };
        Place { bench, work: folder.join("cbddc.db") }
    }

    fn options(&self) -> Options {
        let recovery = Some(Recovery { backups: self.work.with_file_name("none"), peers: true });
        Options { min_free_bytes: 0, recovery, ..Options::new(&self.work) }
    }

    /// Every document as it is listed; damaged ones are named. An error is something that was found.
    fn read_all(&self, store: &Store) -> Result<(BTreeMap<String, Vec<u8>>, Vec<String>), cbddc::Error> {
        let (mut all, mut damaged) = (BTreeMap::new(), Vec::new());
        let mut query = cbddc::document::Query { limit: 1000, ..Default::default() };
        loop {
            let page = smol::block_on(store.list(Scope::Replicated, "c", &query, NOW.millis))?;
            all.extend(page.documents.into_iter().map(|document| (document.key, document.value)));
            damaged.extend(page.damaged);
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok((all, damaged)),
            }
        }
    }

    /// Opens the database with one byte of it changed, as a node does, until all of it is whole again.
    fn flip(&self, at: usize, mask: u8) -> Outcome {
        let told = format!("byte {at} ^ {mask:#04x}");
        self.clear();
        let mut bytes = self.bench.pristine.clone();
        bytes[at] ^= mask;
        std::fs::write(&self.work, bytes).unwrap();
        let Ok((store, opened)) = open_with(self.options()) else { return Outcome::Refused };
        let before = opened.knowledge.replica;
        let recovered = || smol::block_on(store.incident()).is_some();
        let mut outcome = if recovered() { Outcome::Recovered } else { Outcome::NoEffect };
        // Before anything else has looked: a search must not go astray in silence.
        for n in (at % 97..DOCUMENTS).step_by(97).filter(|_| outcome != Outcome::Recovered) {
            match smol::block_on(store.get(Scope::Replicated, "c", &key(n), NOW.millis)) {
                Ok(Some((document, _))) => assert_eq!(document.value, value(n).into_bytes(), "{told}: {}", key(n)),
                Ok(None) if !recovered() => panic!("{told}: {} is there and is called absent", key(n)),
                _ => {}
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let read = self.read_all(&store);
            if let Ok((all, _)) = &read {
                for (key, value) in all {
                    assert_eq!(self.bench.expected.get(key), Some(value), "{told}: {key} is not what was written");
                }
            }
            let whole = matches!(&read, Ok((all, damaged)) if damaged.is_empty() && all.len() == DOCUMENTS);
            let checked = smol::block_on(store.check());
            if whole && checked.as_ref().is_ok_and(cbddc::store::Checked::is_ok) {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{told}: not whole again: {:?}, {checked:?}",
                read.map(|(all, damaged)| (all.len(), damaged))
            );
            outcome = outcome.max(self.mend(&store));
            if recovered() {
                outcome = Outcome::Recovered;
            }
        }
        // It may have come between the last look and the check.
        if recovered() {
            outcome = Outcome::Recovered;
        }
        if outcome != Outcome::Recovered {
            assert_eq!(knowledge(&store).replica, before, "{told}: a new identity where only a row was hurt");
        }
        smol::block_on(store.close()).ok();
        outcome
    }

    /// What the node does of itself: looks, asks the peer for what is damaged, takes the peer's stream where rows are
    /// missing.
    fn mend(&self, store: &Store) -> Outcome {
        let (mut after, mut keys, mut index) = (0, Vec::<RowKey>::new(), false);
        loop {
            let Ok(seen) = smol::block_on(store.scrub(after, 256 * 1024)) else {
                index = true;
                break;
            };
            for finding in seen.found {
                match (finding.damage, finding.key) {
                    (cbddc::store::Damage::Row, Some(key)) => keys.push(key),
                    _ => index = true,
                }
            }
            match seen.next {
                Some(next) => after = next,
                None => break,
            }
        }
        let known = smol::block_on(store.knowledge()).map(|knowledge| knowledge.vector).unwrap_or_default();
        for keys in keys.chunks(32) {
            let found = smol::block_on(self.bench.peer.look(keys.to_vec())).unwrap();
            let offer = Offer {
                keys: keys.to_vec(),
                rows: found.rows,
                vector: found.vector,
                known: known.clone(),
                covered: keys.to_vec(),
                highest: Vec::new(),
            };
            let _ = smol::block_on(store.submit(NOW, Request::Repair(offer)));
        }
        if smol::block_on(store.incident()).is_some() {
            follow(&self.bench.peer, 2, store);
            return Outcome::Recovered;
        }
        if index { Outcome::IndexFound } else { Outcome::RowFound }
    }

    /// Nothing is left of the one before.
    fn clear(&self) {
        for entry in std::fs::read_dir(self.work.parent().unwrap()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // A failed flip stays where it can be looked at.
        if !std::thread::panicking() {
            std::fs::remove_dir_all(self.work.parent().unwrap()).ok();
        }
    }
}

#[test]
fn any_flipped_byte_is_found_or_changes_no_document_and_with_a_peer_all_is_whole_again() {
    let bench = Bench::new();
    let (count, seed) = (setting("CBDDC_FLIPS", 12), setting("CBDDC_FLIPS_SEED", 1));
    let bytes = bench.pristine.len();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut flips: Vec<(usize, u8)> = (0..count).map(|_| (random.usize(..bytes), 1 << random.u8(..8))).collect();
    if let Ok(at) = std::env::var("CBDDC_FLIPS_AT") {
        flips = (0..8).map(|bit| (at.parse().unwrap(), 1 << bit)).collect();
    }
    // What was found once.
    flips.extend(FOUND);
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<Outcome, usize>::new()));
    let work = |number| {
        let place = Place::new(&bench, number);
        while let Some((at, mask)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = place.flip(*at, *mask);
            *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
        }
    };
    std::thread::scope(|scope| {
        let work = &work;
        (0..2).for_each(|number| drop(scope.spawn(move || work(number))));
    });
    let outcomes = outcomes.into_inner().unwrap();
    let count = flips.len();
    println!("{count} flipped bytes of {bytes}, seed {seed}: {outcomes:?}");
}
