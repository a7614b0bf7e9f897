//! The largest of each message, built: nothing that a node may send is longer than a frame.

use crate::sample::{MILLIS, device};
use cbddc::id::{Dot, NodeId, ReplicaId, VersionVector};
use cbddc::limits::{
    BATCH_BYTES_TARGET, BATCH_ROWS_MAX, BEACON_BYTES_MAX, COLLECTION_BYTES_MAX, DOCUMENT_BYTES_MAX, FETCH_KEYS_MAX,
    FRAME_BYTES_MAX, FRAME_HEADER_BYTES, KEY_BYTES_MAX, MEMBERS_MAX, NODE_ID_BYTES_MAX, RELAYED_CONFIRMATIONS_MAX,
    RELEASE_BYTES_MAX, REPLICAS_MAX, ROW_BYTES_MAX, START_TOKENS_MAX, VECTOR_BYTES_MAX,
};
use cbddc::row::{Body, Row, RowKey, Scope};
use cbddc::time::Stamp;
use cbddc::wire::{
    Ask, Beacon, BeaconKey, Bye, Changes, ClockSample, Closure, Confirm, Fetch, Fetched, Hello, MemberNote,
    MemberReport, Message, Mode, Ping, Pong, Pull, RelayedConfirmation, Report, StartToken,
};

const CLOCK: ClockSample = ClockSample { millis: u64::MAX, synchronised: true };
const HIGHEST: Stamp = Stamp::new((1 << 47) - 1, u16::MAX);

fn vector() -> VersionVector {
    let origin = |number: usize| ReplicaId::from_bits(u64::MAX - number as u64);
    (0..REPLICAS_MAX).map(|number| Dot { origin: origin(number), seq: u64::MAX }).collect()
}

fn node_id() -> NodeId {
    NodeId::new(&"n".repeat(NODE_ID_BYTES_MAX)).expect("as long as a name may be")
}

fn row(collection: usize, key: usize, value: Option<usize>) -> Row {
    Row {
        key: RowKey { scope: Scope::System, collection: "c".repeat(collection), key: "k".repeat(key) },
        stamp: HIGHEST,
        dot: Dot { origin: ReplicaId::from_bits(u64::MAX), seq: u64::MAX },
        body: value.map_or(Body::Tombstone, |bytes| Body::Live(vec![b'"'; bytes])),
        expires_at: Some(u64::MAX),
    }
}

fn largest_row() -> Row {
    row(COLLECTION_BYTES_MAX, KEY_BYTES_MAX, Some(DOCUMENT_BYTES_MAX))
}

fn closure() -> Option<Closure> {
    Some(Closure { vector: vector(), floor: vector(), digest: u128::MAX, clean: true, hlc: HIGHEST })
}

fn member_report() -> MemberReport {
    MemberReport {
        device: device(0xff),
        node_id: node_id(),
        release: "r".repeat(RELEASE_BYTES_MAX),
        replica: ReplicaId::from_bits(u64::MAX),
        health: u8::MAX,
        clock: CLOCK,
        uptime_ms: u64::MAX,
        free_bytes: u64::MAX,
        database_bytes: u64::MAX,
        tracked: u32::MAX,
        linked: u32::MAX,
        lagging: u32::MAX,
        lag_ms: u64::MAX,
        queued: u64::MAX,
        recovered: u64::MAX,
    }
}

/// A batch as a sender gathers it: rows like `small` until the target is reached, or one short of it and then the
/// largest.
fn batch(small: Row) -> Message {
    let mut rows = Vec::new();
    let mut bytes = 0;
    while rows.len() < BATCH_ROWS_MAX - 1 && bytes + small.encoded_bytes() < BATCH_BYTES_TARGET {
        bytes += small.encoded_bytes();
        rows.push(small.clone());
    }
    rows.push(largest_row());
    Message::Changes(Changes { stream: u32::MAX, rows, upto: u64::MAX, closure: closure() })
}

/// Every message at its largest; of those whose shape can vary, several.
pub(crate) fn largest() -> Vec<(&'static str, Message)> {
    let hello = Hello {
        version_min: u16::MAX,
        version_max: u16::MAX,
        node_id: node_id(),
        replica: ReplicaId::from_bits(u64::MAX),
        instance: u64::MAX,
        tokens: vec![StartToken { token: u64::MAX, seq: u64::MAX, tail: u64::MAX }; START_TOKENS_MAX],
        clock: CLOCK,
        hlc: HIGHEST,
        visitor: true,
        bootstrapping: true,
        tail: u64::MAX,
        vector: vector(),
        floor: vector(),
        digest: u128::MAX,
        clean: true,
        members: vec![MemberNote { device: device(0xff), node_id: node_id() }; MEMBERS_MAX],
    };
    let relayed =
        RelayedConfirmation { device: device(0xff), replica: ReplicaId::from_bits(u64::MAX), vector: vector() };
    let pull = Pull {
        stream: u32::MAX,
        of: ReplicaId::from_bits(u64::MAX),
        mode: Mode::Reconcile,
        after: u64::MAX,
        vector: vector(),
    };
    let confirm = Confirm {
        stream: u32::MAX,
        upto: u64::MAX,
        vector: vector(),
        relayed: vec![relayed; RELAYED_CONFIRMATIONS_MAX],
    };
    // As they are gathered: one short of the target, then the largest.
    let most = (BATCH_BYTES_TARGET - 1) / (FETCH_KEYS_MAX - 1) - 50;
    let mut fetched = vec![row(1, 1, Some(most)); FETCH_KEYS_MAX - 1];
    fetched.push(largest_row());
    vec![
        ("Hello", Message::Hello(hello)),
        ("Pull", Message::Pull(pull)),
        ("Changes, many small rows", batch(row(1, 1, Some(0)))),
        ("Changes, many tombstones", batch(row(1, 1, None))),
        ("Changes, long keys", batch(row(COLLECTION_BYTES_MAX, KEY_BYTES_MAX, None))),
        ("Changes, two large rows", batch(row(1, 1, Some(BATCH_BYTES_TARGET - 43)))),
        ("Confirm", Message::Confirm(confirm)),
        ("Ping", Message::Ping(Ping { nonce: u32::MAX, clock: CLOCK })),
        ("Pong", Message::Pong(Pong { nonce: u32::MAX, clock: CLOCK })),
        ("Fetch", Message::Fetch(Fetch { nonce: u32::MAX, keys: vec![largest_row().key; FETCH_KEYS_MAX] })),
        ("Fetched", Message::Fetched(Fetched { nonce: u32::MAX, looked: u32::MAX, rows: fetched, vector: vector() })),
        ("Bye", Message::Bye(Bye::protocol(&"x".repeat(200)))),
        ("Ask", Message::Ask(Ask { nonce: u64::MAX, hops: u8::MAX })),
        ("Report", Message::Report(Report { nonce: u64::MAX, age_ms: u64::MAX, member: member_report() })),
    ]
}

#[test]
fn the_largest_of_every_message_fits_one_frame_and_decodes() {
    for (name, message) in largest() {
        let mut frame = Vec::new();
        let length = message.encode(&mut frame);
        let payload = &frame[FRAME_HEADER_BYTES..];
        assert!(payload.len() <= FRAME_BYTES_MAX, "{name}: {} bytes, a frame takes {FRAME_BYTES_MAX}", payload.len());
        assert_eq!(length, frame.len());
        assert_eq!(Message::decode(message.kind(), payload), Ok(Some(message)), "{name}");
    }
}

#[test]
fn every_message_has_a_largest_one() {
    let kinds = largest().into_iter().map(|(_, message)| message.kind()).collect::<std::collections::BTreeSet<u8>>();
    let known = (0..=u8::MAX).filter(|kind| !matches!(Message::decode(*kind, &[]), Ok(None)));
    assert!(known.eq(kinds), "a new kind needs its largest message here");
}

#[test]
fn rows_vectors_and_beacons_keep_their_bounds() {
    let length = |row: &Row| postcard::to_allocvec(row).expect("a row encodes").len();
    assert!(length(&largest_row()) <= ROW_BYTES_MAX, "{}", length(&largest_row()));
    let vector = postcard::to_allocvec(&vector()).expect("a vector encodes").len();
    assert!(vector <= VECTOR_BYTES_MAX, "{vector}");
    let beacon = Beacon {
        version: 1,
        tcp_port: u16::MAX,
        replica: ReplicaId::from_bits(u64::MAX),
        instance: u64::MAX,
        state: u64::MAX,
        uptime_ms: MILLIS,
    };
    assert!(BeaconKey::derive(&[0; 32]).seal(&beacon).len() <= BEACON_BYTES_MAX);
}

#[test]
fn one_more_than_the_limit_is_refused() {
    let refused = |message: &Message| {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        Message::decode(message.kind(), &frame[FRAME_HEADER_BYTES..]).is_err()
    };
    let changes = |rows: Vec<Row>| Message::Changes(Changes { stream: 1, rows, upto: 1, closure: None });
    assert!(!refused(&changes(vec![row(1, 1, None)])));
    assert!(refused(&changes(vec![row(0, 1, None)])), "an empty collection");
    assert!(refused(&changes(vec![row(1, 0, None)])), "an empty key");
    assert!(refused(&changes(vec![row(COLLECTION_BYTES_MAX + 1, 1, None)])));
    assert!(refused(&changes(vec![row(1, KEY_BYTES_MAX + 1, None)])));
    assert!(refused(&changes(vec![row(1, 1, Some(DOCUMENT_BYTES_MAX + 1))])));
    assert!(refused(&changes(vec![row(1, 1, None); BATCH_ROWS_MAX + 1])));
    assert!(refused(&changes(vec![Row { stamp: HIGHEST.next(), ..row(1, 1, None) }])), "beyond the highest stamp");
    let local = RowKey { scope: Scope::Local, collection: "c".into(), key: "k".into() };
    assert!(refused(&changes(vec![Row { key: local, ..row(1, 1, None) }])), "a local row");
    let unborn = Dot { origin: ReplicaId::NONE, seq: 1 };
    assert!(refused(&changes(vec![Row { dot: unborn, ..row(1, 1, None) }])));
    assert!(refused(&changes(vec![Row { dot: Dot { seq: 0, ..row(1, 1, None).dot }, ..row(1, 1, None) }])));

    let key = |scope| RowKey { scope, collection: "c".into(), key: "k".into() };
    let fetch = |keys| Message::Fetch(Fetch { nonce: 1, keys });
    assert!(!refused(&fetch(vec![key(Scope::Replicated)])) && refused(&fetch(vec![])));
    assert!(refused(&fetch(vec![key(Scope::Local)])), "what never leaves a node is not asked for");
    assert!(refused(&fetch(vec![key(Scope::Replicated); FETCH_KEYS_MAX + 1])));
    let fetched = |rows| Message::Fetched(Fetched { nonce: 1, looked: 1, rows, vector: VersionVector::new() });
    assert!(refused(&fetched(vec![row(1, 1, None); FETCH_KEYS_MAX + 1])) && refused(&fetched(vec![row(1, 0, None)])));

    let mut wide = vector();
    wide.raise(Dot { origin: ReplicaId::from_bits(1), seq: 1 });
    let confirm = |vector, relayed| Message::Confirm(Confirm { stream: 1, upto: 1, vector, relayed });
    assert!(refused(&confirm(wide, vec![])), "one replica too many");
    let relayed = RelayedConfirmation { device: device(0), replica: ReplicaId::NONE, vector: VersionVector::new() };
    assert!(refused(&confirm(VersionVector::new(), vec![relayed; RELAYED_CONFIRMATIONS_MAX + 1])));

    let member = MemberReport { release: "r".repeat(RELEASE_BYTES_MAX + 1), ..member_report() };
    assert!(refused(&Message::Report(Report { nonce: 1, age_ms: 0, member })));

    let Some((_, Message::Hello(hello))) = largest().into_iter().next() else { panic!("Hello stands first") };
    let mut crowded = hello.clone();
    crowded.members.push(crowded.members[0].clone());
    assert!(refused(&Message::Hello(crowded)));
    assert!(refused(&Message::Hello(Hello { tokens: vec![], ..hello.clone() })), "no start at all");
    let mut started = hello.clone();
    started.tokens.push(started.tokens[0]);
    assert!(refused(&Message::Hello(started)));
    assert!(refused(&Message::Hello(Hello { hlc: HIGHEST.next(), ..hello.clone() })));
    assert!(refused(&Message::Hello(Hello { replica: ReplicaId::NONE, ..hello })));
}
