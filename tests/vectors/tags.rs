//! Golden numbers: rows on disk and on the wire, their hashes and digest terms, stamps, vectors, beacons and tags.

use crate::golden;
use crate::sample::{
    MILLIS, expired_row, expiring_row, live_row, local_row, replica, system_row, tombstone_row, vector,
};
use blake2::digest::{Update, VariableOutput};
use cbddc::id::VersionVector;
use cbddc::row::{Head, Row};
use cbddc::time::Stamp;
use cbddc::wire::{Beacon, BeaconKey};

pub(crate) const NAMES: &[&str] = &[
    "row-live",
    "row-tombstone",
    "row-expiring",
    "row-expired",
    "row-system",
    "row-local",
    "stamps",
    "vector",
    "beacon",
    "tags",
];

#[test]
fn rows_and_their_hashes_have_the_bytes_that_they_always_had() {
    for (name, about, row) in [
        ("row-live", "A document.", live_row()),
        ("row-tombstone", "A deleted document.", tombstone_row()),
        ("row-expiring", "A document that can expire: it is left out of the digest.", expiring_row()),
        ("row-expired", "What it turns into: same stamp, same dot.", expired_row()),
        ("row-system", "A record about a member.", system_row()),
        ("row-local", "A document that never leaves its node.", local_row()),
    ] {
        let about = format!("{about}\nhash (16, little endian), digest term (16, little endian), row as in Changes.");
        let mut encoded = row.hash().to_le_bytes().to_vec();
        encoded.extend_from_slice(&row.digest_term().to_le_bytes());
        encoded.extend_from_slice(&postcard::to_allocvec(&row).expect("a row encodes"));
        let golden = golden::check(name, &about, &encoded);
        let decoded: Row = postcard::from_bytes(&golden[32..]).expect("golden bytes decode");
        assert_eq!(decoded, row, "{name}");
        assert_eq!(decoded.hash().to_le_bytes(), golden[..16], "{name}");
        assert_eq!(Head::of(&row, 1).digest_term(), row.digest_term(), "{name}: a head adds what its row adds");
    }
}

#[test]
fn the_hash_of_a_row_is_the_one_that_the_document_describes() {
    for row in [live_row(), tombstone_row(), expiring_row(), expired_row(), system_row(), local_row()] {
        let mut bytes = vec![1, row.key.scope as u8, u8::from(row.is_tombstone()), u8::from(row.expires_at.is_some())];
        bytes.extend((row.key.collection.len() as u32).to_le_bytes());
        bytes.extend((row.key.key.len() as u32).to_le_bytes());
        bytes.extend(row.stamp.to_bits().to_le_bytes());
        bytes.extend(row.dot.origin.to_bits().to_le_bytes());
        bytes.extend(row.dot.seq.to_le_bytes());
        bytes.extend(row.expires_at.unwrap_or(0).to_le_bytes());
        bytes.extend(row.key.collection.bytes().chain(row.key.key.bytes()));
        bytes.extend_from_slice(row.value().unwrap_or(&[]));
        let mut hasher = blake2::Blake2sVar::new(16).expect("a legal size");
        hasher.update(&bytes);
        let mut out = [0; 16];
        hasher.finalize_variable(&mut out).expect("the size it was made for");
        assert_eq!(row.hash(), u128::from_le_bytes(out), "{:?}", row.key);
    }
}

#[test]
fn any_change_of_a_row_changes_its_hash() {
    let row = expiring_row();
    let mut others = vec![expired_row(), live_row()];
    others.push(Row { stamp: row.stamp.next(), ..row.clone() });
    others.push(Row { dot: cbddc::id::Dot { seq: row.dot.seq + 1, ..row.dot }, ..row.clone() });
    others.push(Row { dot: cbddc::id::Dot { origin: replica(9), ..row.dot }, ..row.clone() });
    others.push(Row { expires_at: None, ..row.clone() });
    others.push(Row { expires_at: Some(0), ..row.clone() });
    // The border between collection and key is part of it.
    let mut moved = row.clone();
    moved.key.collection.push('2');
    moved.key.key.remove(0);
    others.push(moved);
    for other in others {
        assert_ne!(other.hash(), row.hash(), "{other:?}");
    }
}

#[test]
fn stamps_have_the_bytes_that_they_always_had() {
    let stamps = [Stamp::ZERO, Stamp::new(1, 0), Stamp::new(MILLIS, 7), Stamp::new((1 << 47) - 1, u16::MAX)];
    let encoded = postcard::to_allocvec(&stamps).expect("stamps encode");
    let about = "Stamps: zero, one millisecond, 2026-01-15T10:20:30.123Z with counter 7, the highest accepted.\n\
        Each eight bytes, little endian.";
    let golden = golden::check("stamps", about, &encoded);
    assert_eq!(postcard::from_bytes::<[Stamp; 4]>(&golden).expect("golden bytes decode"), stamps);
    assert!(stamps.iter().all(|stamp| stamp.is_well_formed()));
    assert!(!stamps[3].next().is_well_formed());
}

#[test]
fn a_version_vector_has_the_bytes_that_it_always_had() {
    let value = vector(&[(1, 1), (2, 127), (3, 128), (0xff_ffff, u64::MAX)]);
    let encoded = postcard::to_allocvec(&value).expect("a vector encodes");
    let about = "A version vector of four replicas: count, then replica (8, big endian) and sequence (varint) each.";
    let golden = golden::check("vector", about, &encoded);
    assert_eq!(postcard::from_bytes::<VersionVector>(&golden).expect("golden bytes decode"), value);
}

#[test]
fn a_beacon_has_the_bytes_that_it_always_had() {
    let key = BeaconKey::derive(&[0x42; 32]);
    let beacon = Beacon {
        version: 1,
        tcp_port: 5000,
        replica: replica(1),
        instance: 0x0123_4567_89ab_cdef,
        state: 0xfedc_ba98_7654_3210,
        uptime_ms: 60_000,
    };
    let about = "A beacon of TCP port 5000 under the cluster key of 32 bytes 0x42.";
    let golden = golden::check("beacon", about, &key.seal(&beacon));
    assert_eq!(key.open(&golden), Ok(beacon));
}

#[test]
fn the_tags_of_beacons_have_the_bytes_that_they_always_had() {
    let key = BeaconKey::derive(&[0x42; 32]);
    let mut encoded = key.cluster_tag().to_le_bytes().to_vec();
    encoded.extend(key.state_tag(&VersionVector::new(), 0).to_le_bytes());
    encoded.extend(key.state_tag(&vector(&[(1, 300), (2, 128)]), u128::MAX / 3).to_le_bytes());
    let about = "Under the cluster key of 32 bytes 0x42: cluster tag, state tag of an empty node, state tag of a node\n\
        that covers two replicas. Each eight bytes, little endian.";
    golden::check("tags", about, &encoded);
}
