//! The bound under random work, freshness, and the hit rate beside plain LRU of the same bytes.

use super::*;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use std::collections::{HashMap, VecDeque};

fn value(bytes: usize) -> Vec<u8> {
    vec![7; bytes]
}

#[test]
fn what_was_set_is_read_until_it_is_removed() {
    let mut cache = DocumentCache::new(100_000);
    assert!(cache.set("users", "a", value(10), 1) && cache.set("users", "b", value(20), 2));
    assert_eq!(cache.get("users", "a").map(|document| (document.value.len(), document.version)), Some((10, 1)));
    assert!(cache.set("users", "a", value(30), 3));
    assert_eq!(cache.get("users", "a").map(|document| document.version), Some(3));
    assert!(cache.get("other", "a").is_none());
    assert!(cache.remove("users", "a") && !cache.remove("users", "a"));
    assert!(cache.get("users", "a").is_none());
    let statistics = cache.statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.documents), (2, 2, 1));
    assert_eq!(statistics.hit_rate, 0.5);
    cache.clear();
    let cleared = cache.statistics();
    assert_eq!((cleared.bytes, cleared.documents, cleared.hits, cache.index.len()), (0, 0, 2, 0));
}

#[test]
fn a_document_too_large_is_not_kept_and_neither_is_the_one_that_it_replaced() {
    let mut cache = DocumentCache::new(8_000);
    assert!(cache.set("c", "k", value(10), 1));
    assert!(!cache.set("c", "k", value(1_000), 2));
    assert!(cache.get("c", "k").is_none());
    assert!(!DocumentCache::new(0).set("c", "k", value(0), ()));
}

#[test]
fn the_byte_bound_and_the_links_hold_under_random_work() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut cache = DocumentCache::new(50_000);
        let mut truth = HashMap::new();
        for step in 0..3000u32 {
            let key = (format!("c{}", random.u8(0..4)), format!("key-{}", random.u16(0..200)));
            match random.u8(0..20) {
                0..8 => {
                    if let Some(found) = cache.get(&key.0, &key.1) {
                        assert_eq!(Some(&found.version), truth.get(&key), "stale at step {step} of seed {seed}");
                    }
                }
                8..16 => {
                    cache.set(&key.0, &key.1, value(random.usize(0..3000)), step);
                    truth.insert(key, step);
                }
                16..18 => {
                    cache.remove(&key.0, &key.1);
                    truth.remove(&key);
                }
                18 => cache.resize(random.usize(0..60_000)),
                _ if step % 50 == 0 => cache.clear(),
                _ => {}
            }
            check(&cache, &format!("step {step} of seed {seed}"));
        }
    }
}

/// The order is one chain through all documents, the index names each of them, and the bytes are their sum.
fn check(cache: &DocumentCache<u32>, when: &str) {
    let (mut at, mut seen, mut bytes, mut older) = (cache.oldest, 0, 0, None);
    while let Some(place) = at {
        let slot = cache.slots[place].as_ref().expect("the chain leads through occupied slots");
        assert_eq!((slot.older, cache.place(&slot.collection, &slot.key)), (older, Some(place)), "{when}");
        bytes += DocumentCache::<u32>::cost(&slot.collection, &slot.key, slot.document.value.len());
        (older, seen, at) = (at, seen + 1, slot.newer);
    }
    assert_eq!((cache.newest, seen), (older, cache.slots.len() - cache.vacant.len()), "{when}");
    assert_eq!(cache.index.values().map(BTreeMap::len).sum::<usize>(), seen, "{when}");
    assert!(bytes == cache.bytes && bytes <= cache.bytes_max, "{when}: {bytes} bytes");
    assert!(cache.hand.is_none_or(|hand| cache.slots[hand].is_some()), "{when}");
}

/// Least recently used, to compare with: same costs, same bound.
struct Lru {
    order: VecDeque<String>,
    costs: HashMap<String, usize>,
    bytes: usize,
}

impl Lru {
    fn read(&mut self, key: &str, cost: usize, bytes_max: usize) -> bool {
        let hit = self.costs.contains_key(key);
        if hit {
            let at = self.order.iter().position(|one| one == key).expect("it is in the order");
            self.order.remove(at);
        } else {
            while self.bytes + cost > bytes_max {
                let victim = self.order.pop_front().expect("something holds the bytes");
                self.bytes -= self.costs.remove(&victim).expect("it has a cost");
            }
            self.bytes += cost;
            self.costs.insert(key.into(), cost);
        }
        self.order.push_back(key.into());
        hit
    }
}

/// Hit rates of the cache and of LRU; `scan_every` reads of a Zipf distribution all documents are read once.
fn hit_rates(seed: u64, scan_every: usize) -> (f64, f64) {
    const KEYS: usize = 2000;
    const BYTES: usize = 120_000;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut cumulative: Vec<f64> = Vec::new();
    for rank in 1..=KEYS {
        cumulative.push(cumulative.last().unwrap_or(&0.0) + 1.0 / rank as f64);
    }
    let mut cache = DocumentCache::new(BYTES);
    let mut lru = Lru { order: VecDeque::new(), costs: HashMap::new(), bytes: 0 };
    let mut reads: Vec<usize> = Vec::new();
    for read in 1..=20_000 {
        let drawn = random.f64() * cumulative[KEYS - 1];
        reads.push(cumulative.partition_point(|sum| *sum < drawn));
        if read % scan_every == 0 {
            reads.extend(0..KEYS);
        }
    }
    let mut lru_hits = 0;
    for rank in &reads {
        let key = format!("{rank:05}");
        if cache.get("zipf", &key).is_none() {
            cache.set("zipf", &key, value(100 + rank % 200), ());
        }
        let cost = DocumentCache::<()>::cost("zipf", &key, 100 + rank % 200);
        lru_hits += usize::from(lru.read(&key, cost, BYTES));
    }
    (cache.statistics().hit_rate, lru_hits as f64 / reads.len() as f64)
}

#[test]
fn on_a_skewed_load_it_hits_as_often_as_lru_or_more() {
    for (what, scan_every) in [("zipf", usize::MAX), ("zipf with scans", 4000)] {
        for seed in 1..4 {
            let (ours, lru) = hit_rates(seed, scan_every);
            std::println!("{what}, seed {seed}: hit rate {ours:.3}, plain LRU {lru:.3}");
            assert!(ours >= 0.95 * lru, "{what}, seed {seed}: {ours:.3} against {lru:.3}");
        }
    }
}
