//! A database as recorded bytes: every machine writes the same, every later release opens it, and a release opens what the
//! next one has added to it.
//!
//! `golden/NAME.hex` is a whole database file, lines of its offset and 32 bytes, those of nothing but zeros left out. It
//! holds what a database can hold: documents with overflow pages, a tombstone, an expiry, another node's rows, a member, a
//! local row. `CBDDC_BLESS=1 cargo test --test store golden` writes one that is not there yet.

use crate::place::{NOW, close, database, delete, follow_from, get, open, open_as, put, write};
use cbddc::id::DeviceId;
use cbddc::replica::Write;
use cbddc::row::{RowKey, Scope};
use cbddc::store::Store;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The newest: what this release writes. Those of earlier schemas stay beside it.
const NEWEST: &str = "schema-2";
/// In SQLite's header: its own version, and when that was noted. They change with SQLite, and mean nothing.
const WRITERS_VERSION: std::ops::Range<usize> = 92..100;

const MEANING: &str = "\
A new database has other bytes than one that was recorded on another machine, or by an earlier release.
- On one kind of machine only: something is as wide as the machine's words, or in an order that it does not keep.
- On all: existing databases must still open (the other tests here), and the last release must open new ones. Where that
  holds, as with another SQLite, take the file away and record it again: CBDDC_BLESS=1 cargo test --test store golden";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden").join(format!("{name}.hex"))
}
fn to_lines(file: &[u8]) -> String {
    let mut text = format!("# A database of {} bytes, see golden.rs.\n", file.len());
    for (n, line) in file.chunks(32).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0)) {
        write!(text, "{:06x}:", n * 32).unwrap();
        line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    text
}
fn from_lines(text: &str) -> Vec<u8> {
    let bytes = text.lines().next().unwrap().split(' ').nth(4).unwrap().parse().unwrap();
    let mut file = vec![0; bytes];
    for line in text.lines().skip(1) {
        let (offset, hex) = line.split_once(':').unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for at in 0..hex.len() / 2 {
            file[offset + at] = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        }
    }
    file
}
fn recorded(name: &str) -> Vec<u8> {
    let path = golden(name);
    from_lines(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Larger than a page.
fn large() -> String {
    format!("\"{}\"", "0123456789abcdef".repeat(300))
}

/// A database of what a database can hold, with nothing left to chance. One write a transaction.
fn written(path: &Path) {
    let store = open_as(path, 7);
    let other = open_as(&database("golden-other"), 8);
    write(&other, vec![put("theirs", "{\"of\":\"another node\"}"), put("lost", "\"an earlier write loses\"")]);
    for n in 0..40 {
        write(&store, vec![put(&format!("key-{n:02}"), &format!("{{\"n\":{n},\"text\":\"größer, 大きい\"}}"))]);
    }
    follow_from(&other, DeviceId([9; 32]), &store, NOW, 0, None);
    write(&store, vec![put("large", &large())]);
    write(&store, vec![put("lost", "\"and a later one wins\""), delete("key-07")]);
    write(&store, vec![Write { expires_at: Some(NOW.millis + 86_400_000), ..put("expiring", "1") }]);
    let local = RowKey { scope: Scope::Local, ..RowKey::replicated("scratch", "own") };
    write(&store, vec![Write { key: local, ..put("own", "[null]") }]);
    close(other);
    close(store);
}

/// What is in it, whoever wrote it.
fn is_whole(store: &Store) {
    assert_eq!(get(store, "key-00").unwrap(), "{\"n\":0,\"text\":\"größer, 大きい\"}");
    assert_eq!(get(store, "theirs").unwrap(), "{\"of\":\"another node\"}");
    assert_eq!(get(store, "lost").unwrap(), "\"and a later one wins\"");
    assert_eq!((get(store, "large").unwrap(), get(store, "expiring").unwrap()), (large(), "1".to_string()));
    assert_eq!(get(store, "key-07"), None);
    let local = smol::block_on(store.get(Scope::Local, "scratch", "own", NOW.millis)).unwrap().unwrap();
    assert_eq!(local.0.value, b"[null]");
    let knowledge = smol::block_on(store.knowledge()).unwrap();
    assert_eq!((knowledge.tombstones, knowledge.vector.len()), (1, 2));
    assert_eq!(format!("{:032x}", knowledge.digest), DIGEST);
    let checked = smol::block_on(store.check()).unwrap();
    assert!(checked.is_ok(), "{checked:?}");
}

/// Of its documents that every node must agree on.
const DIGEST: &str = "ade6cc349894b40b900cff0a10391370";

#[test]
fn a_database_has_the_same_bytes_on_every_machine() {
    let path = database("golden-written");
    written(&path);
    let mut file = fs::read(&path).unwrap();
    let place = golden(NEWEST);
    if std::env::var("CBDDC_BLESS").is_ok_and(|value| value == "1") && !place.exists() {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, to_lines(&file)).unwrap();
    }
    let mut golden = recorded(NEWEST);
    for bytes in [&mut golden, &mut file] {
        bytes[WRITERS_VERSION].fill(0);
    }
    let at = golden.iter().zip(&file).position(|(one, other)| one != other);
    assert!(
        at.is_none() && golden.len() == file.len(),
        "at byte {at:?} of {} and {}\n{MEANING}",
        golden.len(),
        file.len()
    );
}

#[test]
fn a_database_of_every_schema_that_there_was_opens_and_goes_on() {
    let names = fs::read_dir(golden("").parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    for name in names.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()) {
        let path = database(&format!("golden-opened-{name}"));
        fs::write(&path, recorded(&name)).unwrap();
        let (store, _) = open(&path);
        is_whole(&store);
        write(&store, vec![put("new", "1"), put("key-00", "2"), delete("large")]);
        close(store);
        let (store, _) = open(&path);
        assert_eq!((get(&store, "new").as_deref(), get(&store, "key-00").as_deref()), (Some("1"), Some("2")), "{name}");
        assert_eq!(get(&store, "large"), None);
        assert!(smol::block_on(store.check()).unwrap().is_ok(), "{name}");
        close(store);
    }
}

/// A roll-back of the program, not of its data. Schema changes are additive: this release, the older one, meets tables, columns
/// and indexes that it does not know, and leaves them as they are.
#[test]
fn a_database_that_the_next_release_has_added_to_opens_and_goes_on() {
    let path = database("golden-next");
    fs::write(&path, recorded(NEWEST)).unwrap();
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    let added = "ALTER TABLE row_0 ADD COLUMN note TEXT;
         ALTER TABLE row_1 ADD COLUMN note TEXT;
         ALTER TABLE member ADD COLUMN note TEXT;
         ALTER TABLE recovered ADD COLUMN note TEXT;
         CREATE INDEX row_0_note ON row_0 (note);
         CREATE TABLE later (id INTEGER PRIMARY KEY, state BLOB);
         INSERT INTO later VALUES (1, x'01');
         UPDATE row_0 SET note = 'kept' WHERE key = 'theirs';
         UPDATE row_1 SET note = 'kept' WHERE key = 'theirs';
         UPDATE schema SET version = version + 1";
    sqlite.execute_batch(added).unwrap();
    let version = sqlite.query_row("SELECT version FROM schema", [], |row| row.get::<_, i64>(0)).unwrap();
    drop(sqlite);
    let (store, _) = open(&path);
    is_whole(&store);
    write(&store, vec![put("new", "1"), put("key-00", "2"), delete("large")]);
    close(store);
    let (store, _) = open(&path);
    assert_eq!((get(&store, "new").as_deref(), get(&store, "key-00").as_deref()), (Some("1"), Some("2")));
    close(store);
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    let one = |query: &str| sqlite.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    let rows = "(SELECT note FROM row_0 WHERE note = 'kept' UNION ALL SELECT note FROM row_1 WHERE note = 'kept')";
    let kept = one(&format!("SELECT count(*) FROM {rows}")) + one("SELECT count(*) FROM later");
    assert_eq!(kept, 2, "what the next release wrote is there when it comes back");
    assert_eq!(one("SELECT version FROM schema"), version, "and it is still of its schema");
}
