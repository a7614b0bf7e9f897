//! Any single flipped byte of a closed database: found, or without effect on any document; never taken for what was
//! written; and with a peer, whole again.
//!
//! A few positions by default; `CBDDC_FLIPS=5000` tries as many, `CBDDC_FLIPS_SEED` others.

use crate::place::*;
use cbddc::id::{DeviceId, NodeId};
use cbddc::replica::{Meeting, Offer, Request, Said};
use cbddc::row::{RowKey, Scope};
use cbddc::store::{Options, Recovery, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const DOCUMENTS: usize = 10_000;

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

/// The rows of a store, given to another as a peer's batches.
fn follow(from: &Store, device: u8, to: &Store) {
    let device = DeviceId([device; 32]);
    let knowledge = stream_knowledge(from);
    let said = Said {
        replica: knowledge.replica,
        starts: knowledge.tokens.clone(),
        tail: knowledge.tail,
        vector: knowledge.vector,
        same_process: false,
    };
    let node_id = NodeId::new("peer").unwrap();
    let meeting = Meeting { device, node_id, tracked: Some(true), said: Some(said) };
    smol::block_on(to.submit(NOW, Request::Meet(meeting))).unwrap();
    follow_from(from, device, to, NOW, 0, None);
}

fn stream_knowledge(store: &Store) -> cbddc::replica::Knowledge {
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

struct Bench {
    pristine: PathBuf,
    peer: Store,
    expected: BTreeMap<String, Vec<u8>>,
    work: PathBuf,
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
        let confirmed = stream_knowledge(&peer);
        let said = Said {
            replica: confirmed.replica,
            starts: confirmed.tokens.clone(),
            tail: confirmed.tail,
            vector: confirmed.vector.clone(),
            same_process: false,
        };
        let meeting = Meeting {
            device: DeviceId([2; 32]),
            node_id: NodeId::new("peer").unwrap(),
            tracked: Some(true),
            said: Some(said),
        };
        smol::block_on(store.submit(NOW, Request::Meet(meeting))).unwrap();
        close(store);
        let work = path.with_file_name("work.db");
        Bench { pristine: path, peer, expected: expected(), work }
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

    fn flip(&self, at: usize, mask: u8) -> Outcome {
        let told = format!("byte {at} ^ {mask:#04x}");
        for suffix in ["", "-wal", "-shm", ".incident", ".recovering"] {
            std::fs::remove_file(beside(&self.work, suffix)).ok();
        }
        let mut bytes = std::fs::read(&self.pristine).unwrap();
        bytes[at] ^= mask;
        std::fs::write(&self.work, bytes).unwrap();
        let Ok((store, opened)) = open_with(self.options()) else { return Outcome::Refused };
        let before = opened.knowledge.replica;
        let recovered = |store: &Store| smol::block_on(store.incident()).is_some();
        let mut outcome = if recovered(&store) { Outcome::Recovered } else { Outcome::NoEffect };
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let read = self.read_all(&store);
            if let Ok((all, _)) = &read {
                for (key, value) in all {
                    assert_eq!(self.expected.get(key), Some(value), "{told}: {key} is not what was written");
                }
            }
            let whole = matches!(&read, Ok((all, damaged)) if damaged.is_empty() && all.len() == DOCUMENTS);
            if whole && smol::block_on(store.check()).is_ok_and(|checked| checked.is_ok()) {
                break;
            }
            // A counted sum, a free page or the like: no document is touched by it, and the check names it.
            if whole && Instant::now() + Duration::from_secs(110) > deadline {
                outcome = outcome.max(Outcome::IndexFound);
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{told}: not whole again: {:?}",
                read.map(|(all, damaged)| (all.len(), damaged))
            );
            outcome = outcome.max(self.mend(&store, &told));
            if recovered(&store) {
                outcome = Outcome::Recovered;
            }
        }
        let knowledge = stream_knowledge(&store);
        if outcome != Outcome::Recovered {
            assert_eq!(knowledge.replica, before, "{told}: a new identity where only a row was hurt");
        }
        smol::block_on(store.close()).ok();
        outcome
    }

    /// What the node does of itself: looks, asks the peer for what is damaged, takes the peer's stream where rows are
    /// missing.
    fn mend(&self, store: &Store, told: &str) -> Outcome {
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
        let known = stream_knowledge_or_new(store);
        for keys in keys.chunks(32) {
            let found = smol::block_on(self.peer.look(keys.to_vec())).unwrap();
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
            follow(&self.peer, 2, store);
            return Outcome::Recovered;
        }
        let _ = told;
        if index { Outcome::IndexFound } else { Outcome::RowFound }
    }
}

fn stream_knowledge_or_new(store: &Store) -> cbddc::id::VersionVector {
    smol::block_on(store.knowledge()).map(|knowledge| knowledge.vector).unwrap_or_default()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

#[test]
fn any_flipped_byte_is_found_or_changes_no_document_and_with_a_peer_all_is_whole_again() {
    let bench = Bench::new();
    let (count, seed) = (setting("CBDDC_FLIPS", 12), setting("CBDDC_FLIPS_SEED", 1));
    let bytes = std::fs::metadata(&bench.pristine).unwrap().len() as usize;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut outcomes = BTreeMap::<Outcome, usize>::new();
    for _ in 0..count {
        let (at, mask) = (random.usize(..bytes), 1 << random.u8(..8));
        *outcomes.entry(bench.flip(at, mask)).or_default() += 1;
    }
    println!("{count} flipped bytes of {bytes}, seed {seed}: {outcomes:?}");
}
