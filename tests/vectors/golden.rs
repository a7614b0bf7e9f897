//! Golden files: `golden/<name>.hex`, lines of `#` that say what it is, then the bytes in hexadecimal.

use std::fs;
use std::path::PathBuf;

/// Bytes in one line of a file.
const LINE_BYTES: usize = 32;

/// What a difference means, for whoever caused it.
const MEANING: &str = "\
These bytes are what released nodes send and store. With this change a node of the last version (N-1) and this one do
not understand each other, or an existing database does not open any more.
- Not intended: undo it. A field that was added, removed, reordered or retyped is enough.
- New information: give it a new message kind, which older nodes skip, or append it to Hello, Bye or Report, the only
  messages that may grow; see the versioning rules in docs/wire-format.md.
- A new golden file, or nothing was ever released with the old bytes: CBDDC_BLESS=1 cargo test --test vectors";

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/golden")
}

/// Whether golden files are to be rewritten.
fn blessing() -> bool {
    std::env::var("CBDDC_BLESS").is_ok_and(|value| value == "1")
}

/// Compares what the code encodes with the golden file and gives the file's bytes, for decoding.
pub(crate) fn check(name: &str, about: &str, encoded: &[u8]) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    if blessing() {
        fs::create_dir_all(folder()).expect("the folder of golden files can be made");
        fs::write(&path, written(about, encoded)).expect("a golden file can be written");
        return encoded.to_vec();
    }
    let Ok(text) = fs::read_to_string(&path) else {
        panic!("there is no golden file {}\n{MEANING}", path.display());
    };
    let golden = bytes(name, &text);
    if golden != encoded {
        let at = golden.iter().zip(encoded).take_while(|(old, new)| old == new).count();
        panic!(
            "{name}: the encoding differs from its golden file at byte {at} ({} bytes there, {} now)\n{MEANING}",
            golden.len(),
            encoded.len()
        );
    }
    golden
}

/// Every golden file by name, without a value.
pub(crate) fn all() -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder())
        .expect("tests/vectors/golden exists")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .map(|path| {
            let name = path.file_stem().expect("it has an extension").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a golden file can be read");
            let bytes = bytes(&name, &text);
            (name, bytes)
        })
        .collect();
    files.sort();
    files
}

fn written(about: &str, bytes: &[u8]) -> String {
    let mut text: String = about.lines().map(|line| format!("# {}\n", line.trim())).collect();
    for line in bytes.chunks(LINE_BYTES) {
        line.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        text.push('\n');
    }
    text
}

fn bytes(name: &str, text: &str) -> Vec<u8> {
    let digits: Vec<u32> = (text.lines().filter(|line| !line.starts_with('#')))
        .flat_map(str::chars)
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).unwrap_or_else(|| panic!("{name}: {digit:?} is not a hexadecimal digit")))
        .collect();
    assert_eq!(digits.len() % 2, 0, "{name}: half a byte at the end");
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[test]
fn a_golden_file_reads_back_as_it_was_written() {
    let bytes_in: Vec<u8> = (0..=255).collect();
    assert_eq!(bytes("x", &written("a line\nanother", &bytes_in)), bytes_in);
}
