//! Golden records of the database: what a node knows of itself and of its members, and the site's records about them.
//!
//! The store adds its own checksum behind them; that is its own format and its own test.

use crate::golden;
use crate::sample::{MILLIS, device, dot, name, replica, vector};
use cbddc::proto::{MemberRecord, Standing};
use cbddc::queue::{PendingOperation, spill};
use cbddc::replica::{Knowledge, MemberState};
use cbddc::row::{Body, Row};
use cbddc::time::{Hlc, Stamp};
use cbddc::wire::StartToken;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

pub(crate) const NAMES: &[&str] = &[
    "knowledge-new",
    "knowledge-full",
    "member-heard-of",
    "member-confirmed",
    "record-tracked",
    "record-untracked",
    "record-replaced",
    "record-revoked",
    "spill-head",
    "spill-operation",
];

fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, about: &str, value: &T) {
    let encoded = postcard::to_allocvec(value).expect("plain values encode");
    let golden = golden::check(name, &format!("{about}\nOn disk, postcard."), &encoded);
    let (decoded, rest): (T, &[u8]) = postcard::take_from_bytes(&golden).expect("golden bytes decode");
    assert_eq!((&decoded, rest.len()), (value, 0), "{name}");
}

#[test]
fn what_a_node_knows_of_itself_has_the_bytes_that_it_always_had() {
    both_ways("knowledge-new", "Knowledge of a new, empty database.", &Knowledge::new(0x12_3456_789a));
    let full = Knowledge {
        version: 1_000_000,
        replica: replica(3),
        seq: 300,
        sent: 299,
        tail: 70_000,
        covered_upto: 69_999,
        hlc: Hlc::after(Stamp::new(MILLIS, 9)),
        digest: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        recovered: 2,
        tombstones: 1_000,
        vector: vector(&[(1, 12), (2, 128), (3, 300)]),
        floor: vector(&[(1, 11)]),
        gone: vector(&[(2, 130)]),
        loose: vec![dot(2, 131), dot(4, 1)],
        tokens: vec![StartToken { token: 1, seq: 0, tail: 0 }, StartToken { token: u64::MAX, seq: 200, tail: 60_000 }],
        dropped_upto: 65_000,
        dropped_stamp: Stamp::new(MILLIS - 86_400_000, 3),
    };
    both_ways("knowledge-full", "Knowledge with every field set.", &full);
}

#[test]
fn what_is_remembered_of_a_member_has_the_bytes_that_it_always_had() {
    both_ways(
        "member-heard-of",
        "MemberState of a member that another one named and that was never met.",
        &MemberState::new(name("gateway-07"), cbddc::id::ReplicaId::NONE),
    );
    let met = MemberState {
        tracked: true,
        confirmed: vector(&[(1, 12), (2, 127)]),
        has_confirmed: true,
        confirmed_at: Some(MILLIS),
        cursor: 4_096,
        tokens: vec![7, u64::MAX],
        heard: 127,
        ..MemberState::new(name("gateway-02"), replica(2))
    };
    both_ways("member-confirmed", "MemberState of a tracked member that has confirmed.", &met);
}

#[test]
fn the_records_about_members_have_the_bytes_that_they_always_had() {
    for (file, standing) in [
        ("record-tracked", Standing::Tracked),
        ("record-untracked", Standing::Untracked),
        ("record-replaced", Standing::Replaced),
        ("record-revoked", Standing::Revoked),
    ] {
        let record = MemberRecord { node_id: name("gateway-07"), standing };
        let about =
            format!("MemberRecord, {standing:?}.\nThe value of a row of scope System; replicates like a document.");
        let golden = golden::check(file, &about, &record.encode());
        let row = Row { key: MemberRecord::key(&device(0x40)), ..crate::sample::row("", Body::Live(golden)) };
        assert_eq!(MemberRecord::decode(&row), Some((device(0x40), record)), "{file}");
    }
}

#[test]
fn what_the_offline_queue_spills_has_the_bytes_that_it_always_had() {
    let operation = PendingOperation::put("users", "ada", [b"{\"n\":1}".as_slice(), &[7; 25]].concat());
    let mut encoded = Vec::new();
    spill::encode(&mut encoded, 3, 0, &operation);
    let about =
        "A put in the spill file, number 0 of generation 3.\nThe node's data: the document, then 25 bytes of its own.";
    let golden = golden::check("spill-operation", about, &encoded);
    let head = spill::Head { generation: 3, operations: 1, bytes: (spill::HEAD_BYTES + golden.len()) as u64 };
    let mut file = golden::check("spill-head", "The head of a spill file with one operation.", &head.encode());
    assert_eq!(spill::Head::decode(&file), Some(head));
    file.extend_from_slice(&golden);
    let found = spill::decode(Some(head), &file);
    assert_eq!((found.operations, found.lost), (vec![operation], 0));
}

#[test]
fn a_record_of_a_later_version_or_of_any_bytes_is_none_of_ours() {
    let with = |value: &[u8]| Row {
        key: MemberRecord::key(&device(0x40)),
        ..crate::sample::row("", Body::Live(value.to_vec()))
    };
    assert_eq!(MemberRecord::decode(&with(&[1, b'a', 9])), None, "a standing that does not exist yet");
    assert_eq!(MemberRecord::decode(&with(&[])), None);
    assert_eq!(
        MemberRecord::decode(&with(&[1, b'a', 0, 77])).map(|(_, record)| record.standing),
        Some(Standing::Tracked)
    );
}
