//! `docs/wire-format.md` against the code: kinds, fields, tags, sizes, layouts and constants. Its tables are read here,
//! so that neither can change alone.

use crate::largest::largest;
use crate::source::{Field, fields, protocol_constants, read, variants};
use cbddc::id::ReplicaId;
use cbddc::limits;
use cbddc::limits::FRAME_HEADER_BYTES;
use cbddc::wire::{Beacon, BeaconKey};
use std::collections::BTreeMap;

const DOCUMENT: &str = "docs/wire-format.md";

/// Where each declaration stands that the document describes.
const STRUCTS: &[(&str, &[&str])] = &[
    (
        "src/wire/message.rs",
        &[
            "Hello",
            "StartToken",
            "ClockSample",
            "MemberNote",
            "Pull",
            "Changes",
            "Closure",
            "Confirm",
            "RelayedConfirmation",
            "Fetch",
            "Fetched",
            "Ping",
            "Pong",
        ],
    ),
    ("src/wire/site.rs", &["Ask", "Report", "MemberReport"]),
    ("src/row.rs", &["Row", "RowKey"]),
    ("src/id.rs", &["Dot"]),
    ("src/proto/members.rs", &["MemberRecord"]),
    ("src/replica/knowledge.rs", &["Knowledge", "MemberState"]),
];
const ENUMS: &[(&str, &[&str])] = &[
    ("src/wire/message.rs", &["Mode", "Bye"]),
    ("src/row.rs", &["Scope", "Body"]),
    ("src/proto/members.rs", &["Standing"]),
];

type Tables = BTreeMap<String, Vec<Vec<String>>>;

/// The rows of all tables below each heading, by the heading's first word; without back quotes and heads of tables.
fn tables() -> Tables {
    let (mut tables, mut heading, mut in_body) = (Tables::new(), String::new(), false);
    for line in read(DOCUMENT).lines() {
        if let Some(text) = line.strip_prefix('#') {
            heading = text.trim_start_matches('#').trim().split([',', ' ']).next().unwrap_or("").to_string();
        }
        match line.strip_prefix('|') {
            Some(rule) if rule.starts_with("---") => in_body = true,
            Some(cells) if in_body => {
                let cells = cells.trim_end_matches('|').split('|');
                let cells = cells.map(|cell| cell.trim().replace('`', "")).collect();
                tables.entry(heading.clone()).or_default().push(cells);
            }
            Some(_) => {}
            None => in_body = false,
        }
    }
    tables
}

fn table<'a>(tables: &'a Tables, heading: &str) -> &'a [Vec<String>] {
    tables.get(heading).unwrap_or_else(|| panic!("{DOCUMENT} has no table below a heading `{heading}`"))
}

/// The document's word for a Rust type.
fn on_the_wire(kind: &str) -> String {
    let inner = |prefix: &str| kind.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>')).map(on_the_wire);
    if let Some(inner) = inner("Vec<") {
        return format!("list of {inner}");
    }
    if let Some(inner) = inner("Option<") {
        return format!("optional {inner}");
    }
    match kind {
        "u16" | "u32" | "u64" | "u128" => format!("varint {kind}"),
        "Seq" | "LocalSeq" | "Millis" => "varint u64".to_string(),
        "u64 fixint" => "u64 le".to_string(),
        "String" => "text".to_string(),
        "NodeId" => "name".to_string(),
        "ReplicaId" => "replica".to_string(),
        "DeviceId" => "device".to_string(),
        "Stamp" | "Hlc" => "stamp".to_string(),
        "VersionVector" => "vector".to_string(),
        other => other.to_string(),
    }
}

#[test]
fn every_struct_stands_in_the_document_field_by_field() {
    let tables = tables();
    for (file, names) in STRUCTS {
        let source = read(file);
        for name in *names {
            let code: Vec<(String, String)> =
                fields(&source, name).into_iter().map(|Field { name, kind }| (name, on_the_wire(&kind))).collect();
            assert!(!code.is_empty(), "no fields of {name} found in {file}");
            let documented: Vec<(String, String)> =
                table(&tables, name).iter().map(|cells| (cells[0].clone(), cells[1].clone())).collect();
            assert_eq!(documented, code, "{name}: left {DOCUMENT}, right {file}");
        }
    }
}

#[test]
fn every_enumeration_stands_in_the_document_tag_by_tag() {
    let tables = tables();
    for (file, names) in ENUMS {
        for name in *names {
            let code: Vec<(String, String)> = variants(&read(file), name)
                .into_iter()
                .enumerate()
                .map(|(tag, variant)| (tag.to_string(), variant))
                .collect();
            let documented: Vec<(String, String)> =
                table(&tables, name).iter().map(|cells| (cells[0].clone(), cells[1].clone())).collect();
            assert_eq!(documented, code, "{name}: left {DOCUMENT}, right {file}");
        }
    }
}

#[test]
fn every_declaration_of_the_messages_is_described() {
    let source = read("src/wire/message.rs");
    let described: Vec<&str> = STRUCTS.iter().chain(ENUMS).flat_map(|(_, names)| names.iter().copied()).collect();
    for line in source.lines() {
        let declared = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "));
        let Some(name) = declared.and_then(|rest| rest.split([' ', '(', '<']).next()) else { continue };
        // Neither of them is on the wire: what any frame holds, and why one holds nothing.
        if name != "Message" && name != "MessageError" {
            assert!(
                described.contains(&name),
                "{name} of src/wire/message.rs is missing in {DOCUMENT} and in this test"
            );
        }
    }
}

#[test]
fn kinds_and_largest_sizes_are_the_documented_ones() {
    let mut code: BTreeMap<u8, (String, usize)> = BTreeMap::new();
    for (_, message) in largest() {
        let mut frame = Vec::new();
        let payload = message.encode(&mut frame) - FRAME_HEADER_BYTES;
        let entry = code.entry(message.kind()).or_insert((message.name().to_string(), 0));
        entry.1 = entry.1.max(payload);
    }
    let tables = tables();
    let documented: BTreeMap<u8, (String, usize)> = table(&tables, "Messages")
        .iter()
        .map(|cells| (cells[0].parse().expect("a kind"), (cells[1].clone(), cells[2].parse().expect("a size"))))
        .collect();
    assert_eq!(documented, code, "left {DOCUMENT}, right the code");
    for (kind, (name, _)) in &documented {
        assert!(read(DOCUMENT).contains(&format!("### {name}, kind {kind}\n")), "a section for {name}");
    }
}

#[test]
fn constants_have_the_documented_values() {
    macro_rules! values {
        ($($name:ident)*) => { BTreeMap::from([$((stringify!($name), limits::$name as u128)),*]) };
    }
    let values = values! {
        DOCUMENT_BYTES_MAX KEY_BYTES_MAX COLLECTION_BYTES_MAX NODE_ID_BYTES_MAX REPLICAS_MAX FRAME_BYTES_MAX
        FRAME_HEADER_BYTES ROW_BYTES_MAX BATCH_BYTES_TARGET BATCH_ROWS_MAX FETCH_KEYS_MAX START_TOKENS_MAX MEMBERS_MAX
        RELAYED_CONFIRMATIONS_MAX RELEASE_BYTES_MAX LOOSE_MAX STAMP_MILLIS_MAX CLUSTER_KEYS_MAX NOISE_PLAIN_BYTES_MAX NOISE_MESSAGE_BYTES_MAX
        BEACON_BYTES_MAX
    };
    let tables = tables();
    let documented: BTreeMap<&str, u128> = table(&tables, "Constants")
        .iter()
        .map(|cells| (cells[0].as_str(), cells[1].parse().expect("a number")))
        .collect();
    assert_eq!(documented, values, "left {DOCUMENT}, right src/limits.rs");
    let mut marked: Vec<&str> = table(&tables, "Constants")
        .iter()
        .filter(|cells| cells[3] == "protocol")
        .map(|cells| cells[0].as_str())
        .collect();
    let mut protocol = protocol_constants(&read("src/limits.rs"));
    marked.sort_unstable();
    protocol.sort_unstable();
    assert_eq!(marked, protocol, "left what {DOCUMENT} calls protocol, right what src/limits.rs does");
}

#[test]
fn a_beacon_lies_as_it_is_drawn() {
    let key = BeaconKey::derive(&[3; 32]);
    let beacon = Beacon {
        version: 0x0102,
        tcp_port: 0x0304,
        replica: ReplicaId::from_bits(0x0506_0708_090a_0b0c),
        instance: 0x1112_1314_1516_1718,
        state: 0x2122_2324_2526_2728,
        uptime_ms: 0x3132_3334_3536_3738,
    };
    let datagram = key.seal(&beacon);
    let mut expected: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
        ("magic", b"CBD1".to_vec()),
        ("version", beacon.version.to_le_bytes().to_vec()),
        ("tcp_port", beacon.tcp_port.to_le_bytes().to_vec()),
        ("cluster", key.cluster_tag().to_le_bytes().to_vec()),
        ("replica", beacon.replica.to_bits().to_le_bytes().to_vec()),
        ("instance", beacon.instance.to_le_bytes().to_vec()),
        ("state", beacon.state.to_le_bytes().to_vec()),
        ("uptime_ms", beacon.uptime_ms.to_le_bytes().to_vec()),
        ("reserved", vec![0; 8]),
    ]);
    let mut end = 0;
    for cells in table(&tables(), "Beacons") {
        let (offset, bytes): (usize, usize) = (cells[0].parse().expect("offset"), cells[1].parse().expect("bytes"));
        assert_eq!(offset, end, "{}: a gap or an overlap before it", cells[2]);
        end = offset + bytes;
        if cells[2] != "mac" {
            let field = expected.remove(cells[2].as_str()).unwrap_or_else(|| panic!("{}: no such field", cells[2]));
            assert_eq!(datagram[offset..end], field, "{}", cells[2]);
        }
    }
    assert_eq!(end, datagram.len());
    assert!(expected.is_empty(), "not in {DOCUMENT}: {expected:?}");
}

#[test]
fn names_and_labels_of_the_cryptography_are_the_documented_ones() {
    let document = read(DOCUMENT);
    let mut labels = Vec::new();
    for file in ["src/wire/beacon.rs", "src/secure.rs", "src/secure/keys.rs"] {
        let source = read(file);
        let code = source.split("#[cfg(test)]").next().unwrap_or(&source);
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let pieces: Vec<&str> = line.split('"').collect();
            for pair in pieces.chunks_exact(2) {
                if pair[0].ends_with('b') || pair[1].starts_with("Noise_") {
                    labels.push(pair[1].to_string());
                }
            }
        }
    }
    assert!(labels.len() >= 9, "found only {labels:?}");
    for label in labels {
        assert!(document.contains(&format!("`{label}`")), "{DOCUMENT} does not name the label `{label}`");
    }
}
