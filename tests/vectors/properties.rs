//! Any bytes: decoders never panic, never take what is out of bounds, never lose their place.
//!
//! Seeded: a failure names its seed, and `CBDDC_VECTORS_SEED` starts there. `CBDDC_VECTORS_RUNS` sets how many.

use crate::golden;
use crate::messages::split;
use crate::sample::{samples, vector};
use cbddc::id::{DeviceId, Dot, NodeId, ReplicaId, VersionVector};
use cbddc::limits::{
    BATCH_ROWS_MAX, COLLECTION_BYTES_MAX, DOCUMENT_BYTES_MAX, FETCH_KEYS_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES,
    KEY_BYTES_MAX, MEMBERS_MAX, NODE_ID_BYTES_MAX, RELAYED_CONFIRMATIONS_MAX, REPLICAS_MAX, STAMP_MILLIS_MAX,
    START_TOKENS_MAX,
};
use cbddc::row::{Body, Row, RowKey, Scope};
use cbddc::time::Stamp;
use cbddc::wire::{
    Ask, BeaconKey, Bye, Changes, ClockSample, Closure, Confirm, Decoder, Fetch, Fetched, FrameError, Hello,
    MemberNote, MemberReport, Message, Mode, Ping, Pong, Pull, RelayedConfirmation, Report, StartToken, encode_frame,
};
use fastrand::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs a property over many seeds and names the one that fails.
fn each_seed(property: impl Fn(&mut Rng)) {
    let setting = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
    };
    let (first, runs) = (setting("CBDDC_VECTORS_SEED", 0), setting("CBDDC_VECTORS_RUNS", 2_000));
    for seed in first..first + runs {
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| property(&mut Rng::with_seed(seed)))) {
            eprintln!("failed with seed {seed}: CBDDC_VECTORS_SEED={seed} CBDDC_VECTORS_RUNS=1 replays it");
            resume_unwind(cause);
        }
    }
}

// ---- what must hold of a message that was taken: said here a second time, in other words ----

fn check_name(name: &NodeId) {
    let text = name.as_str();
    assert!((1..=NODE_ID_BYTES_MAX).contains(&text.len()) && !text.contains([' ', '\n', '\t', '\0', '\u{7f}']));
}

fn check_vector(vector: &VersionVector) {
    assert!(vector.len() <= REPLICAS_MAX);
    let entries: Vec<Dot> = vector.iter().collect();
    assert!(entries.windows(2).all(|pair| pair[0].origin < pair[1].origin));
    assert!(entries.iter().all(|dot| dot.seq > 0 && dot.origin.to_bits() > 0));
}

fn check_row(row: &Row) {
    assert_ne!(row.key.scope, Scope::Local);
    assert!((1..=COLLECTION_BYTES_MAX).contains(&row.key.collection.len()));
    assert!((1..=KEY_BYTES_MAX).contains(&row.key.key.len()));
    assert!(row.stamp.millis() < STAMP_MILLIS_MAX && row.dot.seq > 0 && row.dot.origin.to_bits() > 0);
    assert!(row.value().unwrap_or(&[]).len() <= DOCUMENT_BYTES_MAX);
}

fn check_message(message: &Message) {
    match message {
        Message::Hello(hello) => {
            check_name(&hello.node_id);
            check_vector(&hello.vector);
            check_vector(&hello.floor);
            assert!((1..=START_TOKENS_MAX).contains(&hello.tokens.len()) && hello.members.len() <= MEMBERS_MAX);
            hello.members.iter().for_each(|member| check_name(&member.node_id));
            assert!(hello.hlc.millis() < STAMP_MILLIS_MAX && hello.replica.to_bits() > 0);
        }
        Message::Pull(pull) => check_vector(&pull.vector),
        Message::Changes(changes) => {
            assert!(changes.rows.len() <= BATCH_ROWS_MAX);
            changes.rows.iter().for_each(check_row);
            if let Some(closure) = &changes.closure {
                check_vector(&closure.vector);
                check_vector(&closure.floor);
                assert!(closure.hlc.millis() < STAMP_MILLIS_MAX);
            }
        }
        Message::Confirm(confirm) => {
            check_vector(&confirm.vector);
            assert!(confirm.relayed.len() <= RELAYED_CONFIRMATIONS_MAX);
            confirm.relayed.iter().for_each(|relayed| check_vector(&relayed.vector));
        }
        Message::Fetch(fetch) => {
            assert!((1..=FETCH_KEYS_MAX).contains(&fetch.keys.len()));
            fetch.keys.iter().for_each(|key| assert!(key.is_well_formed() && key.scope != Scope::Local));
        }
        Message::Fetched(fetched) => {
            check_vector(&fetched.vector);
            assert!(fetched.rows.len() <= FETCH_KEYS_MAX);
            fetched.rows.iter().for_each(check_row);
        }
        Message::Bye(Bye::Protocol(text)) => assert!(text.len() <= 64),
        Message::Report(report) => {
            check_name(&report.member.node_id);
            assert!(report.member.release.len() <= 32);
        }
        Message::Ping(_) | Message::Pong(_) | Message::Bye(_) | Message::Ask(_) => {}
    }
}

/// Decodes; what is taken is within its bounds, fits a frame and survives a round trip.
fn decode(kind: u8, payload: &[u8]) {
    let Ok(Some(message)) = Message::decode(kind, payload) else { return };
    check_message(&message);
    let mut frame = Vec::new();
    message.encode(&mut frame);
    let (kind, payload) = split(&frame);
    assert!(payload.len() <= FRAME_BYTES_MAX);
    assert_eq!(Message::decode(kind, payload), Ok(Some(message)));
}

// ---- random values ----

fn any_kind(rng: &mut Rng) -> u8 {
    if rng.u8(..8) == 0 { rng.u8(..) } else { rng.u8(0..=10) }
}
fn any_vector(rng: &mut Rng) -> VersionVector {
    let count = if rng.u8(..50) == 0 { REPLICAS_MAX } else { rng.usize(..6) };
    (0..count)
        .map(|_| Dot { origin: ReplicaId::from_bits(rng.u64(1..)), seq: rng.u64(1..) >> rng.u32(..63) | 1 })
        .collect()
}
fn any_stamp(rng: &mut Rng) -> Stamp {
    Stamp::new(rng.u64(..STAMP_MILLIS_MAX), rng.u16(..))
}
fn any_name(rng: &mut Rng) -> NodeId {
    let letters: String = (0..rng.usize(1..=NODE_ID_BYTES_MAX)).map(|_| rng.alphanumeric()).collect();
    NodeId::new(&letters).expect("letters and digits, not too many")
}
fn any_device(rng: &mut Rng) -> DeviceId {
    DeviceId(core::array::from_fn(|_| rng.u8(..)))
}
fn any_clock(rng: &mut Rng) -> ClockSample {
    ClockSample { millis: rng.u64(..), synchronised: rng.bool() }
}
fn any_text(rng: &mut Rng, longest: usize) -> String {
    let length = if rng.u8(..30) == 0 { longest } else { rng.usize(1..=longest.min(20)) };
    (0..length).map(|_| rng.alphanumeric()).collect()
}
fn any_row(rng: &mut Rng) -> Row {
    Row {
        key: RowKey {
            scope: if rng.bool() { Scope::Replicated } else { Scope::System },
            collection: any_text(rng, COLLECTION_BYTES_MAX),
            key: any_text(rng, KEY_BYTES_MAX),
        },
        stamp: any_stamp(rng),
        dot: Dot { origin: ReplicaId::from_bits(rng.u64(1..)), seq: rng.u64(1..) },
        body: if rng.bool() { Body::Tombstone } else { Body::Live(any_text(rng, 500).into_bytes()) },
        expires_at: rng.bool().then(|| rng.u64(..)),
    }
}
fn any_closure(rng: &mut Rng) -> Option<Closure> {
    rng.bool().then(|| Closure {
        vector: any_vector(rng),
        floor: any_vector(rng),
        digest: rng.u128(..),
        clean: rng.bool(),
        hlc: any_stamp(rng),
    })
}
fn any_bye(rng: &mut Rng) -> Bye {
    match rng.u8(..11) {
        0 => Bye::Stopping,
        1 => Bye::Rotated,
        2 => Bye::Duplicate,
        3 => Bye::Version,
        4 => Bye::protocol(&any_text(rng, 100)),
        5 => Bye::NameTaken,
        6 => Bye::NotAMember,
        7 => Bye::Forked { common: rng.bool().then(|| rng.u64(..)) },
        8 => Bye::Myself,
        9 => Bye::Silent,
        _ => Bye::BelowFloor,
    }
}
fn any_report(rng: &mut Rng) -> MemberReport {
    MemberReport {
        device: any_device(rng),
        node_id: any_name(rng),
        release: any_text(rng, 32),
        replica: ReplicaId::from_bits(rng.u64(..)),
        health: rng.u8(..),
        clock: any_clock(rng),
        uptime_ms: rng.u64(..),
        free_bytes: rng.u64(..),
        database_bytes: rng.u64(..),
        tracked: rng.u32(..),
        linked: rng.u32(..),
        lagging: rng.u32(..),
        lag_ms: rng.u64(..),
        queued: rng.u64(..),
        recovered: rng.u64(..),
    }
}
fn any_message(rng: &mut Rng) -> Message {
    match rng.u8(..11) {
        9 => {
            Message::Fetch(Fetch { nonce: rng.u32(..), keys: (0..rng.usize(1..8)).map(|_| any_row(rng).key).collect() })
        }
        10 => Message::Fetched(Fetched {
            nonce: rng.u32(..),
            looked: rng.u32(..),
            rows: (0..rng.usize(..8)).map(|_| any_row(rng)).collect(),
            vector: any_vector(rng),
        }),
        0 => Message::Hello(Hello {
            version_min: rng.u16(..),
            version_max: rng.u16(..),
            node_id: any_name(rng),
            replica: ReplicaId::from_bits(rng.u64(1..)),
            instance: rng.u64(..),
            tokens: (0..rng.usize(1..=START_TOKENS_MAX))
                .map(|_| StartToken { token: rng.u64(..), seq: rng.u64(..), tail: rng.u64(..) })
                .collect(),
            clock: any_clock(rng),
            hlc: any_stamp(rng),
            visitor: rng.bool(),
            bootstrapping: rng.bool(),
            tail: rng.u64(..),
            vector: any_vector(rng),
            floor: any_vector(rng),
            digest: rng.u128(..),
            clean: rng.bool(),
            members: (0..rng.usize(..5))
                .map(|_| MemberNote { device: any_device(rng), node_id: any_name(rng) })
                .collect(),
        }),
        1 => {
            let mode = [Mode::Increment, Mode::Bootstrap, Mode::Reconcile][rng.usize(..3)];
            let of = ReplicaId::from_bits(rng.u64(..));
            Message::Pull(Pull { stream: rng.u32(..), of, mode, after: rng.u64(..), vector: any_vector(rng) })
        }
        2 => Message::Changes(Changes {
            stream: rng.u32(..),
            rows: (0..rng.usize(..8)).map(|_| any_row(rng)).collect(),
            upto: rng.u64(..),
            closure: any_closure(rng),
        }),
        3 => Message::Confirm(Confirm {
            stream: rng.u32(..),
            upto: rng.u64(..),
            vector: any_vector(rng),
            relayed: (0..rng.usize(..=RELAYED_CONFIRMATIONS_MAX))
                .map(|_| RelayedConfirmation {
                    device: any_device(rng),
                    replica: ReplicaId::from_bits(rng.u64(..)),
                    vector: any_vector(rng),
                })
                .collect(),
        }),
        4 => Message::Ping(Ping { nonce: rng.u32(..), clock: any_clock(rng) }),
        5 => Message::Pong(Pong { nonce: rng.u32(..), clock: any_clock(rng) }),
        6 => Message::Ask(Ask { nonce: rng.u64(..), hops: rng.u8(..) }),
        7 => Message::Report(Report { nonce: rng.u64(..), age_ms: rng.u64(..), member: any_report(rng) }),
        _ => Message::Bye(any_bye(rng)),
    }
}

/// Changes bytes the way that decoders stumble over: bits, lengths, cuts, repetitions, foreign pieces.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..rng.usize(1..=6) {
        let at = rng.usize(..=bytes.len());
        match rng.u8(..7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, [0, 1, 0x7f, 0x80, 0xff][rng.usize(..5)]),
            2 if !other.is_empty() => {
                let from = rng.usize(..other.len());
                let piece = &other[from..(from + rng.usize(..20)).min(other.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            _ if at == bytes.len() => {}
            // A length prefix that says far more than there is.
            3 => drop(bytes.splice(at..=at, [0xff, 0xff, 0xff, rng.u8(..)])),
            4 => drop(bytes.remove(at)),
            5 => bytes[at] = rng.u8(..),
            _ => bytes[at] ^= 1 << rng.u8(..8),
        }
    }
}

// ---- properties ----

#[test]
fn any_message_comes_back_as_it_was_sent() {
    each_seed(|rng| {
        let message = any_message(rng);
        let mut frame = Vec::new();
        message.encode(&mut frame);
        let (kind, payload) = split(&frame);
        assert_eq!(Message::decode(kind, payload), Ok(Some(message)));
    });
}

#[test]
fn random_bytes_never_panic_and_never_pass_a_bound() {
    each_seed(|rng| {
        let bytes: Vec<u8> = (0..rng.usize(..400)).map(|_| rng.u8(..)).collect();
        decode(any_kind(rng), &bytes);
        // Small numbers look more like a message than large ones do.
        let bytes: Vec<u8> = (0..rng.usize(..400)).map(|_| rng.u8(..) >> rng.u32(..8)).collect();
        decode(any_kind(rng), &bytes);
    });
}

#[test]
fn changed_messages_never_panic_and_never_pass_a_bound() {
    let golden: Vec<Vec<u8>> = (samples().iter())
        .map(|sample| {
            let mut frame = Vec::new();
            sample.message.encode(&mut frame);
            frame.split_off(FRAME_HEADER_BYTES)
        })
        .collect();
    let kinds: Vec<u8> = samples().iter().map(|sample| sample.message.kind()).collect();
    each_seed(|rng| {
        for (payload, kind) in golden.iter().zip(&kinds) {
            let mut bytes = payload.clone();
            let other = &golden[rng.usize(..golden.len())];
            mutate(rng, &mut bytes, other);
            decode(if rng.u8(..10) == 0 { any_kind(rng) } else { *kind }, &bytes);
        }
        let mut frame = Vec::new();
        any_message(rng).encode(&mut frame);
        let kind = frame[4];
        let mut bytes = frame.split_off(FRAME_HEADER_BYTES);
        let other = &golden[rng.usize(..golden.len())];
        mutate(rng, &mut bytes, other);
        decode(kind, &bytes);
    });
}

#[test]
fn golden_files_with_any_single_bit_flipped_never_panic() {
    for (name, bytes) in golden::all() {
        if !samples().iter().any(|sample| sample.name == name) {
            continue;
        }
        for bit in FRAME_HEADER_BYTES * 8..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            decode(changed[4], &changed[FRAME_HEADER_BYTES..]);
        }
    }
}

#[test]
fn a_vector_that_says_a_billion_entries_costs_nothing() {
    // 0xffff_ffff entries are announced and none comes: refused without room being made for them.
    let payload = [2u8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(Message::decode(2, &payload).is_err());
}

#[test]
fn frames_of_unknown_kinds_are_skipped_wherever_the_stream_is_cut() {
    each_seed(|rng| {
        let (mut stream, mut sent) = (Vec::new(), Vec::new());
        for _ in 0..rng.usize(1..8) {
            if rng.bool() {
                let (kind, length) = (rng.u8(12..), rng.usize(..2_000));
                encode_frame(&mut stream, kind, |out| out.extend((0..length).map(|at| at as u8)));
            } else {
                let message = any_message(rng);
                message.encode(&mut stream);
                sent.push(message);
            }
        }
        let (mut decoder, mut received, mut rest) = (Decoder::new(), Vec::new(), stream.as_slice());
        while !rest.is_empty() {
            let piece = rng.usize(1..=rest.len().min(3_000));
            let taken = decoder.push(&rest[..piece]);
            assert!(taken > 0, "the decoder stands still");
            rest = &rest[taken..];
            while let Some((kind, payload)) = decoder.next_frame().expect("no frame is too long") {
                received.extend(Message::decode(kind, payload).expect("all known kinds are legal"));
            }
        }
        assert_eq!(received, sent);
    });
}

#[test]
fn a_stream_of_any_bytes_never_panics_and_ends_at_a_frame_that_is_too_long() {
    each_seed(|rng| {
        let mut decoder = Decoder::new();
        'stream: for _ in 0..20 {
            let bytes: Vec<u8> = (0..rng.usize(1..500)).map(|_| rng.u8(..) >> rng.u32(..8)).collect();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let taken = decoder.push(rest);
                rest = &rest[taken..];
                loop {
                    match decoder.next_frame() {
                        Ok(Some((kind, payload))) => decode(kind, payload),
                        Ok(None) => break,
                        Err(FrameError::TooLong { bytes }) => {
                            assert!(bytes > FRAME_BYTES_MAX);
                            break 'stream;
                        }
                    }
                }
                assert!(taken > 0, "the decoder stands still");
            }
        }
    });
}

#[test]
fn the_longest_frame_passes_and_one_byte_more_does_not() {
    for (length, legal) in [(FRAME_BYTES_MAX, true), (FRAME_BYTES_MAX + 1, false)] {
        let mut stream = (length as u32).to_le_bytes().to_vec();
        stream.push(99);
        stream.resize(FRAME_HEADER_BYTES + length, 0);
        let (mut decoder, mut rest, mut frames) = (Decoder::new(), stream.as_slice(), 0);
        let verdict = loop {
            match decoder.next_frame() {
                Ok(Some((kind, payload))) => {
                    assert_eq!((kind, payload.len()), (99, length));
                    frames += 1;
                }
                Ok(None) if rest.is_empty() => break Ok(()),
                Ok(None) => rest = &rest[decoder.push(rest)..],
                Err(error) => break Err(error),
            }
        };
        assert_eq!((verdict.is_ok(), frames), (legal, usize::from(legal)));
    }
}

#[test]
fn datagrams_of_any_bytes_never_panic_and_never_verify() {
    let key = BeaconKey::derive(&[9; 32]);
    let other = BeaconKey::derive(&[10; 32]);
    each_seed(|rng| {
        let length = if rng.bool() { 72 } else { rng.usize(..300) };
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        assert!(key.open(&bytes).is_err());
        if bytes.len() >= 16 {
            bytes[..4].copy_from_slice(b"CBD1");
            bytes[8..16].copy_from_slice(&key.cluster_tag().to_le_bytes());
            assert!(key.open(&bytes).is_err(), "the tag is heard by everybody and proves nothing");
        }
    });
    let covers = vector(&[(1, 1)]);
    assert_ne!(key.state_tag(&covers, 5), other.state_tag(&covers, 5), "a state tag means nothing to a stranger");
    assert_ne!(key.state_tag(&covers, 5), key.state_tag(&covers, 6));
    assert_ne!(key.state_tag(&covers, 5), key.state_tag(&VersionVector::new(), 5));
}
