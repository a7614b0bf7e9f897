//! The values whose bytes are golden. Fixed for ever: a new shape is a new value, not a change of an old one.

use cbddc::id::{DeviceId, Dot, NodeId, ReplicaId, VersionVector};
use cbddc::row::{Body, Row, RowKey, Scope};
use cbddc::time::Stamp;
use cbddc::wire::{
    Ask, Bye, Changes, ClockSample, Closure, Confirm, Fetch, Fetched, Hello, MemberNote, MemberReport, Message, Mode,
    Ping, Pong, Pull, RelayedConfirmation, Report, StartToken,
};

/// 2026-01-15T10:20:30.123Z.
pub(crate) const MILLIS: u64 = 1_768_472_430_123;

pub(crate) fn replica(number: u64) -> ReplicaId {
    ReplicaId::from_bits((number << 40) | 0x12_3456_789a)
}
pub(crate) fn device(fill: u8) -> DeviceId {
    DeviceId(core::array::from_fn(|at| fill ^ at as u8))
}
pub(crate) fn name(text: &str) -> NodeId {
    NodeId::new(text).expect("a legal name")
}
pub(crate) fn dot(number: u64, seq: u64) -> Dot {
    Dot { origin: replica(number), seq }
}
pub(crate) fn vector(entries: &[(u64, u64)]) -> VersionVector {
    entries.iter().map(|(number, seq)| dot(*number, *seq)).collect()
}
pub(crate) fn row(key: &str, body: Body) -> Row {
    Row {
        key: RowKey::replicated("temps", key),
        stamp: Stamp::new(MILLIS, 7),
        dot: dot(1, 300),
        body,
        expires_at: None,
    }
}

/// A document.
pub(crate) fn live_row() -> Row {
    row("2010/01/01 00:00", Body::Live(b"{\"temp\":39.4,\"date\":\"2010/01/01 00:00\"}".to_vec()))
}
/// A deleted document.
pub(crate) fn tombstone_row() -> Row {
    row("2010/01/01 01:00", Body::Tombstone)
}
/// A document that expires.
pub(crate) fn expiring_row() -> Row {
    Row { expires_at: Some(MILLIS + 2_592_000_000), ..row("2010/01/01 02:00", Body::Live(b"1".to_vec())) }
}
/// What it turns into.
pub(crate) fn expired_row() -> Row {
    expiring_row().expired()
}
/// A record about a member.
pub(crate) fn system_row() -> Row {
    let key = RowKey { scope: Scope::System, collection: "members".into(), key: "00ff".into() };
    Row { key, ..row("", Body::Live(vec![1, b'a', 0])) }
}
/// A document that never leaves the node: on disk only.
pub(crate) fn local_row() -> Row {
    let key = RowKey { scope: Scope::Local, collection: "scratch".into(), key: "\u{e4}/\u{1f980}".into() };
    Row { key, dot: Dot { origin: replica(1), seq: 0 }, ..row("", Body::Live(b"null".to_vec())) }
}

/// One golden message.
pub(crate) struct Sample {
    /// Of the file.
    pub(crate) name: &'static str,
    /// Its comment.
    pub(crate) about: &'static str,
    /// Its value.
    pub(crate) message: Message,
}

fn sample(name: &'static str, about: &'static str, message: Message) -> Sample {
    Sample { name, about, message }
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        node_id: name("gateway-01"),
        replica: replica(1),
        instance: 0x0123_4567_89ab_cdef,
        tokens: vec![StartToken { token: 0xfeed_0000_0000_beef, seq: 0, tail: 0 }],
        clock: ClockSample { millis: MILLIS, synchronised: false },
        hlc: Stamp::ZERO,
        visitor: false,
        bootstrapping: false,
        tail: 0,
        vector: VersionVector::new(),
        floor: VersionVector::new(),
        digest: 0,
        clean: true,
        members: vec![],
    }
}

fn closure() -> Closure {
    Closure {
        vector: vector(&[(1, 300), (2, 128)]),
        floor: vector(&[(1, 17)]),
        digest: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        clean: true,
        hlc: Stamp::new(MILLIS, 8),
    }
}

fn pull(mode: Mode) -> Message {
    Message::Pull(Pull { stream: 2, of: replica(2), mode, after: 300, vector: vector(&[(1, 300)]) })
}

fn changes(rows: Vec<Row>, closure: Option<Closure>) -> Message {
    Message::Changes(Changes { stream: 2, rows, upto: 70_000, closure })
}

fn bye(name: &'static str, about: &'static str, reason: Bye) -> Sample {
    sample(name, about, Message::Bye(reason))
}

fn member_report() -> MemberReport {
    MemberReport {
        device: device(0x40),
        node_id: name("gateway-04"),
        release: "1.2.3".into(),
        replica: replica(4),
        health: 2,
        clock: ClockSample { millis: MILLIS, synchronised: true },
        uptime_ms: 3_600_000,
        free_bytes: 8_000_000_000,
        database_bytes: 1_048_576,
        tracked: 49,
        linked: 8,
        lagging: 1,
        lag_ms: 41_250,
        queued: 3,
        recovered: 2,
    }
}

/// Every kind of message, and every shape of it that matters.
pub(crate) fn samples() -> Vec<Sample> {
    let full = Hello {
        version_max: 3,
        tokens: vec![StartToken { token: 1, seq: 0, tail: 0 }, StartToken { token: u64::MAX, seq: 300, tail: 70_000 }],
        clock: ClockSample { millis: MILLIS, synchronised: true },
        hlc: Stamp::new(MILLIS, 8),
        visitor: true,
        bootstrapping: true,
        tail: 70_001,
        vector: vector(&[(1, 300), (2, 128), (3, u64::MAX)]),
        floor: vector(&[(1, 17)]),
        digest: u128::MAX - 1,
        clean: false,
        members: vec![
            MemberNote { device: device(0x10), node_id: name("gateway-02") },
            MemberNote { device: device(0x20), node_id: name("k\u{fc}che") },
        ],
        ..hello()
    };
    let relayed = RelayedConfirmation { device: device(0x30), replica: replica(3), vector: vector(&[(1, 299)]) };
    let clock = ClockSample { millis: MILLIS, synchronised: true };
    vec![
        sample(
            "hello-new",
            "Hello (kind 1) of a node with an empty database at its first start.",
            Message::Hello(hello()),
        ),
        sample(
            "hello-full",
            "Hello (kind 1) with every field set, two starts, three replicas, two members.",
            Message::Hello(full),
        ),
        sample("pull-increment", "Pull (kind 2) of what the receiver lacks.", pull(Mode::Increment)),
        sample("pull-bootstrap", "Pull (kind 2) of everything, to be staged.", pull(Mode::Bootstrap)),
        sample("pull-reconcile", "Pull (kind 2) of everything, merged row by row.", pull(Mode::Reconcile)),
        sample(
            "changes-batch",
            "Changes (kind 3) in the middle of a stream: a document, a tombstone, no closure.",
            changes(vec![live_row(), tombstone_row()], None),
        ),
        sample(
            "changes-closure",
            "Changes (kind 3) at the sender's tail: an expiring row, an expired one, a record, and the closure.",
            changes(vec![expiring_row(), expired_row(), system_row()], Some(closure())),
        ),
        sample(
            "changes-closure-alone",
            "Changes (kind 3) without a row: only the closure.",
            changes(vec![], Some(closure())),
        ),
        sample(
            "confirm",
            "Confirm (kind 4) of a batch.",
            Message::Confirm(Confirm { stream: 2, upto: 70_000, vector: vector(&[(1, 300)]), relayed: vec![] }),
        ),
        sample(
            "confirm-relayed",
            "Confirm (kind 4) that also tells what another member has on disk.",
            Message::Confirm(Confirm {
                stream: 0,
                upto: 0,
                vector: vector(&[(1, 300), (2, 1)]),
                relayed: vec![relayed],
            }),
        ),
        sample("ping", "Ping (kind 5).", Message::Ping(Ping { nonce: u32::MAX, clock })),
        sample("pong", "Pong (kind 6).", Message::Pong(Pong { nonce: 1, clock })),
        sample(
            "fetch",
            "Fetch (kind 10) of two keys, one of a document and one of a record.",
            Message::Fetch(Fetch { nonce: 300, keys: vec![live_row().key, system_row().key] }),
        ),
        sample(
            "fetched",
            "Fetched (kind 11): both were looked up, and a document is there.",
            Message::Fetched(Fetched { nonce: 300, looked: 2, rows: vec![live_row()], vector: vector(&[(1, 300)]) }),
        ),
        sample(
            "fetched-nothing",
            "Fetched (kind 11): one was looked up, and nothing is there.",
            Message::Fetched(Fetched { nonce: 1, looked: 1, rows: vec![], vector: vector(&[]) }),
        ),
        bye("bye-stopping", "Bye (kind 7): the node stops.", Bye::Stopping),
        bye("bye-rotated", "Bye (kind 7): the slot is wanted for another member.", Bye::Rotated),
        bye("bye-duplicate", "Bye (kind 7): another link to the same peer is kept.", Bye::Duplicate),
        bye("bye-version", "Bye (kind 7): no protocol version in common.", Bye::Version),
        bye("bye-protocol", "Bye (kind 7): the peer broke the protocol.", Bye::protocol("a message before Hello")),
        bye("bye-name-taken", "Bye (kind 7): the name belongs to another device key.", Bye::NameTaken),
        bye("bye-not-a-member", "Bye (kind 7): revoked or replaced.", Bye::NotAMember),
        bye("bye-forked", "Bye (kind 7): two histories, a start in common.", Bye::Forked { common: Some(0xfeed) }),
        bye(
            "bye-forked-unknown",
            "Bye (kind 7): two histories, nothing known in common.",
            Bye::Forked { common: None },
        ),
        bye("bye-myself", "Bye (kind 7): both have the same device key.", Bye::Myself),
        bye("bye-silent", "Bye (kind 7): nothing was heard for too long.", Bye::Silent),
        bye("bye-below-floor", "Bye (kind 7): the sender is behind this node's floor.", Bye::BelowFloor),
        bye("bye-untracked", "Bye (kind 7): the peer was retired while the link was open.", Bye::Untracked),
        sample(
            "ask",
            "Ask (kind 8), passed on twice already.",
            Message::Ask(Ask { nonce: 0x0123_4567_89ab_cdef, hops: 14 }),
        ),
        sample(
            "report",
            "Report (kind 9) of a member that is not well, told by another a minute later.",
            Message::Report(Report { nonce: 0x0123_4567_89ab_cdef, age_ms: 60_000, member: member_report() }),
        ),
    ]
}
