//! The bytes of a small database: the same on every machine, 32 bits and 64, and readable for ever. What single records
//! look like is in `tests/vectors`; this is the file that they lie in.

use crate::place::*;
use cbddc::row::{Body, RowKey, Scope};
use cbddc::store::{Options, Store};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes in one line of the golden file; lines of zeros are left out.
const LINE_BYTES: usize = 32;
/// Bytes of the header that say which SQLite wrote last and how often: they may differ.
const ANY: [std::ops::Range<usize>; 2] = [24..28, 92..100];

const MEANING: &str = "\
A database that this release writes has other bytes than the golden one.
- On one kind of machine only: a width or an order of bytes has leaked into a record. A card moves between machines: undo it.
- A new step of the schema, or another order of the same rows: say so in CHANGELOG.md, keep the old file as one that must
  still open, and CBDDC_BLESS=1 cargo test --test store golden";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden/database.hex")
}

fn opened(path: &Path) -> Store {
    // Nothing is tidied meanwhile, however slow the machine.
    open_with(Options { min_free_bytes: 0, idle: Duration::from_secs(3600), ..Options::new(path) }).unwrap().0
}

/// Live, rewritten, deleted, expiring, large and local rows, in two runs.
fn written(path: &Path) -> Vec<u8> {
    let store = opened(path);
    for n in 0..20 {
        write(&store, vec![put(&format!("temp-{n}"), &format!("{{\"temperature\":{n}.5}}"))]);
    }
    let expiring = cbddc::replica::Write { expires_at: Some(NOW.millis + 60_000), ..put("expiring", "\"soon\"") };
    let own = cbddc::replica::Write {
        key: RowKey { scope: Scope::Local, ..RowKey::replicated("own", "k") },
        body: Body::Live(b"{\"local\":true}".to_vec()),
        ..put("", "")
    };
    write(&store, vec![expiring, own, put("large", &format!("\"{}\"", "0123456789".repeat(900)))]);
    close(store);
    let store = opened(path);
    write(&store, vec![put("temp-3", "{\"temperature\":-3.25}"), delete("temp-4"), put("größe", "\"ä\"")]);
    close(store);
    let mut bytes = std::fs::read(path).unwrap();
    ANY.into_iter().for_each(|range| bytes[range].fill(0));
    bytes
}

fn to_text(bytes: &[u8]) -> String {
    let mut text =
        format!("# A database of the tests, {} bytes. Offset: bytes; what is left out is zero.\n", bytes.len());
    for (at, line) in bytes.chunks(LINE_BYTES).enumerate().filter(|(_, line)| line.iter().any(|byte| *byte != 0)) {
        let digits: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{:06x}: {digits}", at * LINE_BYTES).unwrap();
    }
    text
}

fn from_text(text: &str) -> Vec<u8> {
    let size = text.split_once(" bytes.").unwrap().0.rsplit(' ').next().unwrap();
    let mut bytes = vec![0; size.parse().unwrap()];
    for (offset, digits) in text.lines().filter_map(|line| line.split_once(": ").filter(|_| !line.starts_with('#'))) {
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for (at, pair) in digits.as_bytes().chunks(2).enumerate() {
            bytes[offset + at] = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
    }
    bytes
}

#[test]
fn a_golden_database_is_written_with_the_same_bytes_and_opens() {
    let text = to_text(&written(&database("golden-written")));
    if std::env::var("CBDDC_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(golden(), &text).unwrap();
    }
    let golden = std::fs::read_to_string(golden()).unwrap_or_else(|error| panic!("{error}\n{MEANING}"));
    let differs = golden.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(golden == text, "golden, then now: {differs:?}\n{MEANING}");

    let path = database("golden-opened");
    std::fs::write(&path, from_text(&golden)).unwrap();
    let store = opened(&path);
    assert_eq!(get(&store, "temp-0").as_deref(), Some("{\"temperature\":0.5}"));
    assert_eq!(get(&store, "temp-3").as_deref(), Some("{\"temperature\":-3.25}"));
    assert_eq!(get(&store, "temp-4"), None);
    assert_eq!(get(&store, "größe").as_deref(), Some("\"ä\""));
    assert_eq!(get(&store, "large").map(|value| value.len()), Some(9002));
    write(&store, vec![put("after", "1")]);
    close(store);
}
