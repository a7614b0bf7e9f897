//! A damaged database with neither a backup nor a peer: everything that is whole can be taken out of it, and what is said of the rest is
//! never less than the truth.

use crate::place::*;
use cbddc::document::{Page, Query};
use cbddc::replica::{Feed, FeedPage, Since};
use cbddc::row::{Missing, Scope};
use cbddc::store::{Incident, Store};
use std::collections::BTreeSet;
use std::path::Path;

const PAGE: usize = 4096;
const COUNT: usize = 2000;

fn name(n: usize) -> String {
    // Keys that do not come in the order of writing: neighbours in the index lie in many leaves of the table.
    format!("k{:05}", n * 7919 % COUNT)
}

fn filled(test: &str) -> std::path::PathBuf {
    let path = database(test);
    let (store, _) = open(&path);
    for chunk in (0..COUNT).collect::<Vec<_>>().chunks(100) {
        write(&store, chunk.iter().map(|n| put(&name(*n), &format!("\"value {n} {}\"", "x".repeat(n % 97)))).collect());
    }
    write(&store, (0..40).map(|n| delete(&name(n))).collect());
    close(store);
    path
}

/// Pages of the file whose first byte says that they are of this kind.
fn pages(path: &Path, kind: u8) -> Vec<usize> {
    let bytes = std::fs::read(path).unwrap();
    (2..bytes.len() / PAGE).filter(|page| bytes[page * PAGE] == kind).collect()
}

fn overwrite(path: &Path, page: usize, from: usize, with: &[u8]) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[page * PAGE + from..page * PAGE + from + with.len()].copy_from_slice(with);
    std::fs::write(path, bytes).unwrap();
}

/// Keys of the rows in the cells of a leaf. What stands between them is of rows that were moved.
fn keys_of(page: &[u8]) -> BTreeSet<String> {
    let short = |at: usize| usize::from(u16::from_be_bytes([page[at], page[at + 1]]));
    let cells = (0..short(3)).map(|nth| &page[short(8 + 2 * nth)..]);
    // The collection, then the key.
    let key = |cell: &[u8]| {
        let at = cell.windows(7).position(|text| text.starts_with(b"ck") && text[2..].iter().all(u8::is_ascii_digit));
        String::from_utf8(cell[at.expect("a row") + 1..][..6].to_vec()).unwrap()
    };
    cells.map(key).collect()
}

/// The store once it has found out that it can only be read.
fn still(path: &Path) -> (Store, String) {
    let (store, opened) = open_with(recovering(path, false)).unwrap();
    if let Some(why) = opened.read_only {
        return (store, why);
    }
    let checked = smol::block_on(store.check());
    assert!(checked.is_err() || checked.is_ok_and(|checked| !checked.structure.is_empty()));
    let late = async {
        smol::Timer::after(std::time::Duration::from_secs(60)).await;
        None
    };
    let why = smol::block_on(smol::future::or(store.lies_still(), late)).expect("it is found in time");
    let refused = smol::block_on(store.submit(NOW, request(vec![put("new", "1")]))).unwrap_err().to_string();
    assert!(refused.contains(&why) && why.contains("neither a backup"), "{refused}");
    (store, why)
}

fn listed(store: &Store, reverse: bool) -> (Vec<String>, Vec<String>, Option<Missing>) {
    let (mut keys, mut damaged, mut missing, mut after) = (Vec::new(), Vec::new(), None, None);
    loop {
        let query = Query { after: after.clone(), limit: 300, reverse, ..Query::default() };
        let page: Page = smol::block_on(store.list(Scope::Replicated, "c", &query, NOW.millis)).unwrap();
        keys.extend(page.documents.into_iter().map(|document| document.key));
        damaged.extend(page.damaged);
        missing = page.missing.or(missing);
        match page.next {
            None => return (keys, damaged, missing),
            next => {
                assert_ne!(next, after, "it goes on");
                after = next;
            }
        }
    }
}

fn fed(store: &Store) -> (BTreeSet<String>, Option<Missing>) {
    let (mut keys, mut since, mut all_missing) = (BTreeSet::new(), Since::Start, None);
    loop {
        let feed = Feed { since, collection: Some("c".to_string()), limit: 300 };
        let FeedPage::Rows { rows, next, more, missing, .. } = smol::block_on(store.feed(feed)).unwrap() else {
            panic!()
        };
        keys.extend(rows.into_iter().filter(|(_, row)| !row.is_tombstone()).map(|(_, row)| row.key.key));
        all_missing = missing.or(all_missing);
        if !more {
            return (keys, all_missing);
        }
        since = Since::Bookmark(next);
    }
}

#[test]
fn past_a_broken_leaf_of_rows_every_whole_document_is_listed_and_the_others_are_named() {
    let path = filled("still-leaf");
    let leaves = pages(&path, 13);
    let leaf = leaves[leaves.len() / 2];
    let lost = keys_of(&std::fs::read(&path).unwrap()[leaf * PAGE..(leaf + 1) * PAGE]);
    overwrite(&path, leaf, 0, &[0xa5; 64]);
    let all: BTreeSet<String> = (40..COUNT).map(name).collect();
    let whole = &all - &lost;
    assert!(lost.len() > 5 && lost.is_subset(&all), "{lost:?}");
    let (store, said) = still(&path);
    // The start was noted before the damage was found.
    let before = std::fs::read(&path).unwrap();
    assert!(said.contains("cbddc export") && said.matches("is damaged").count() == 1, "{said}");
    for reverse in [false, true] {
        let (keys, damaged, missing) = listed(&store, reverse);
        assert!(keys.windows(2).all(|pair| (pair[0] < pair[1]) != reverse), "in order, each once");
        assert_eq!(missing, None, "the index knows all names");
        let (keys, damaged): (BTreeSet<_>, BTreeSet<_>) = (keys.into_iter().collect(), damaged.into_iter().collect());
        assert_eq!(keys, whole);
        assert_eq!(damaged, lost, "each lost document is named, and no deleted one");
    }
    let (fed, missing) = fed(&store);
    assert_eq!(fed, whole, "the feed gives them, too");
    let lost = lost.len() as u64;
    let missing = missing.expect("and says that something is missing");
    assert!(missing.at_least <= lost && missing.at_most.is_none_or(|most| most >= lost), "{missing:?}, {lost} are");
    assert!(missing.at_least >= lost, "the entries of the index say how many: {missing:?}, {lost} are");
    let refused = smol::block_on(store.backup(order(&path, 3))).unwrap_err().to_string();
    assert!(
        refused.contains("no backup is made of a damaged database") && refused.contains("cbddc export"),
        "{refused}"
    );
    close(store);
    assert!(std::fs::read(&path).unwrap() == before, "nothing is overwritten");
}

#[test]
fn a_leaf_in_the_wrong_place_is_found_all_the_same() {
    let path = filled("still-swapped");
    let leaves = pages(&path, 13);
    let bytes = std::fs::read(&path).unwrap();
    let page = |at: usize| &bytes[leaves[at] * PAGE..(leaves[at] + 1) * PAGE];
    overwrite(&path, leaves[10], 0, page(14));
    overwrite(&path, leaves[14], 0, page(10));
    let (store, _) = still(&path);
    for reverse in [false, true] {
        let (keys, damaged, _) = listed(&store, reverse);
        assert_eq!((keys.len(), damaged), (COUNT - 40, Vec::new()), "nothing is lost");
        assert!(keys.windows(2).all(|pair| (pair[0] < pair[1]) != reverse), "in order, each once");
    }
    close(store);
}

#[test]
fn past_a_broken_leaf_of_the_key_index_every_document_is_listed() {
    let path = filled("still-index");
    let leaves = pages(&path, 10);
    // Beyond SQLite's mending: the tree of the index itself is broken.
    overwrite(&path, leaves[leaves.len() / 2], 0, &[0xa5; 64]);
    let all: BTreeSet<String> = (40..COUNT).map(name).collect();
    let (store, _) = still(&path);
    for reverse in [false, true] {
        let (keys, damaged, missing) = listed(&store, reverse);
        assert_eq!((keys.into_iter().collect::<BTreeSet<_>>(), damaged), (all.clone(), Vec::new()));
        assert!(missing.is_some(), "that it went past damage is said");
    }
    for key in &all {
        assert!(get(&store, key).is_some(), "{key}");
    }
    let collections = smol::block_on(store.collections(NOW.millis)).unwrap();
    assert_eq!((collections.len(), collections[0].documents), (1, all.len() as u64));
    close(store);
}

/// What an incident says is missing, of a database that is recovered from one with this damage.
fn said_to_be_missing(path: &Path) -> (Incident, u64) {
    let (store, opened) = open_with(recovering(path, true)).unwrap();
    assert_eq!(opened.read_only, None);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let incident = loop {
        if let Some(incident) = smol::block_on(store.incident()) {
            break incident;
        }
        assert!(std::time::Instant::now() < deadline, "it is not recovered");
        let _ = smol::block_on(store.check());
    };
    // It began empty: what is there was carried over.
    let whole = listed(&store, false).0.len();
    close(store);
    (incident, (COUNT - 40 - whole) as u64)
}

#[test]
fn what_is_said_to_be_missing_is_never_less_than_the_truth() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 8] = [
        ("a leaf is written over another", |path| {
            let leaves = pages(path, 13);
            let bytes = std::fs::read(path).unwrap();
            overwrite(path, leaves[10], 0, &bytes[leaves[14] * PAGE..(leaves[14] + 1) * PAGE]);
        }),
        ("a leaf is garbage, and so is the node's own record", |path| {
            let leaves = pages(path, 13);
            let root: i64 = rusqlite::Connection::open(path)
                .unwrap()
                .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'knowledge'", [], |row| row.get(0))
                .unwrap();
            overwrite(path, leaves[10], 0, &[0xa5; PAGE]);
            overwrite(path, usize::try_from(root).unwrap() - 1, 0, &[0xa5; PAGE]);
        }),
        ("garbage", |path| {
            let leaves = pages(path, 13);
            leaves[10..13].iter().for_each(|leaf| overwrite(path, *leaf, 0, &[0xa5; PAGE]));
        }),
        ("zeros", |path| {
            let leaves = pages(path, 13);
            leaves[10..13].iter().for_each(|leaf| overwrite(path, *leaf, 0, &[0; PAGE]));
        }),
        ("a leaf says that it has no cells", |path| {
            let leaves = pages(path, 13);
            overwrite(path, leaves[10], 3, &[0, 0]);
        }),
        ("cells are garbage", |path| {
            let leaves = pages(path, 13);
            overwrite(path, leaves[10], 1024, &[0xa5; PAGE - 1024]);
        }),
        ("cut off", |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() * 2 / 3 / PAGE * PAGE]).unwrap();
        }),
        ("cut off, and the header is gone", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes.truncate(bytes.len() * 2 / 3 / PAGE * PAGE + 100);
            bytes[16..40].fill(0xff);
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (nth, (what, harm)) in harms.into_iter().enumerate() {
        let path = filled(&format!("still-figures-{nth}"));
        harm(&path);
        let (incident, lost) = said_to_be_missing(&path);
        let said = incident.said();
        assert!(lost > 0, "{what}");
        assert!(incident.missing_at_most.is_none_or(|most| most >= lost), "{what}: {lost} are missing, {said}");
        assert!(incident.missing_at_least <= lost + 40, "{what}: {lost} are missing, {said}");
        assert!(incident.missing_at_most.is_some() || said.contains("unknown"), "{what}: {said}");
    }
}
