//! An entry of the key index whose name has rotted: a search goes astray there, and must not be believed that nothing is found.

use crate::place::*;
use cbddc::Error;
use cbddc::replica::{Precondition, Reply, Write};
use cbddc::row::Scope;
use std::path::Path;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const DOCUMENTS: u32 = 900;

fn key(n: u32) -> String {
    format!("key-{n:05}")
}

/// Turns one byte of a name in an inner page of the key index: half a tree is on the wrong side of it.
fn rot(path: &Path, seed: u8) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    // Inner pages of indexes begin with 2 (SQLite's file format, section 1.6); a name there ends with its number.
    let inner = (1..bytes.len() / PAGE).map(|page| page * PAGE).filter(|at| bytes[*at] == 2);
    let two = |at: usize| usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1]);
    let cells = inner.flat_map(|page| (0..two(page + 3)).map(move |cell| (page, page + 12 + 2 * cell)));
    let cells = cells.map(|(page, pointer)| page + two(pointer));
    let names = cells.filter_map(|cell| (cell..cell + 24).find(|at| bytes[*at..].starts_with(b"key-00")));
    let names: Vec<usize> = names.collect();
    let at = names[usize::from(seed) % names.len()];
    let name = String::from_utf8(bytes[at..at + 9].to_vec()).unwrap();
    bytes[at + 6] ^= 0x45;
    std::fs::write(path, bytes).unwrap();
    name
}
fn rotten(name: &str, seed: u8) -> std::path::PathBuf {
    let path = database(name);
    let (store, _) = open(&path);
    fill(&store, 0, DOCUMENTS);
    close(store);
    rot(&path, seed);
    path
}

#[test]
fn no_document_is_called_absent_because_the_index_leads_astray() {
    for seed in 0..4 {
        let path = rotten("astray-reads", seed);
        let (store, _) = open(&path);
        let mut refused = 0;
        for n in 0..DOCUMENTS {
            let until = Instant::now() + Duration::from_secs(60);
            loop {
                match smol::block_on(store.get(Scope::Replicated, "c", &key(n), NOW.millis)) {
                    Ok(Some(_)) => break,
                    Ok(None) => panic!("seed {seed}: {} is there and is called absent", key(n)),
                    Err(Error::DatabaseCorruption { .. }) => refused += 1,
                    Err(error) => panic!("seed {seed}: {error}"),
                }
                assert!(Instant::now() < until, "seed {seed}: the index is built anew");
            }
        }
        assert!(refused > 0, "seed {seed}: nothing rotted");
        assert!(smol::block_on(store.get(Scope::Replicated, "c", "key-1", NOW.millis)).unwrap().is_none());
        close(store);
    }
}

#[test]
fn no_delete_and_no_condition_is_answered_by_what_an_index_that_leads_astray_does_not_show() {
    for (seed, precondition) in
        [Precondition::None, Precondition::Absent, Precondition::Present].into_iter().enumerate()
    {
        let path = rotten("astray-writes", seed as u8);
        let (store, _) = open(&path);
        for n in 0..DOCUMENTS {
            let body = delete(&key(n)).body;
            let until = Instant::now() + Duration::from_secs(60);
            let written = loop {
                let write = Write { body: body.clone(), precondition, ..put(&key(n), "") };
                match smol::block_on(store.submit(NOW, request(vec![write]))) {
                    Ok((Reply::Written(written), _)) => break written[0],
                    Ok(other) => panic!("{other:?}"),
                    Err(Error::DatabaseCorruption { .. }) => assert!(Instant::now() < until, "the index is built anew"),
                    Err(error) => panic!("{error}"),
                }
            };
            match precondition {
                Precondition::Absent => assert!(written.is_err(), "{} is there", key(n)),
                _ => assert!(written.is_ok_and(|written| written.existed && written.changed), "{}", key(n)),
            }
        }
        let left = if precondition == Precondition::Absent { DOCUMENTS as usize } else { 0 };
        assert!(smol::block_on(store.check()).unwrap().is_ok());
        let page = |after: String| keys(&store, &cbddc::document::Query { after: Some(after), ..Default::default() });
        let (mut all, mut after) = (0, String::new());
        loop {
            let (names, next) = page(after);
            all += names.len();
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(all, left);
        close(store);
    }
}
