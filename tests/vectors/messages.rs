//! Golden messages: each decodes to the value that it had, and the value encodes to the same bytes.

use crate::golden;
use crate::sample::samples;
use cbddc::limits::FRAME_HEADER_BYTES;
use cbddc::wire::{Message, MessageError};
use std::collections::BTreeSet;

/// The kind and payload of a golden frame.
pub(crate) fn split(frame: &[u8]) -> (u8, &[u8]) {
    let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    assert_eq!(length, frame.len() - FRAME_HEADER_BYTES, "a golden file is one whole frame");
    (frame[4], &frame[FRAME_HEADER_BYTES..])
}

#[test]
fn every_message_has_the_bytes_that_it_always_had() {
    for sample in samples() {
        let mut encoded = Vec::new();
        assert_eq!(sample.message.encode(&mut encoded), encoded.len());
        let about = format!("{}\nA whole frame: length, kind, payload. Protocol version 1.", sample.about);
        let golden = golden::check(sample.name, &about, &encoded);
        let (kind, payload) = split(&golden);
        assert_eq!(kind, sample.message.kind(), "{}", sample.name);
        assert_eq!(Message::decode(kind, payload), Ok(Some(sample.message)), "{}", sample.name);
    }
}

#[test]
fn every_kind_and_every_golden_file_has_its_sample() {
    let kinds: BTreeSet<u8> = samples().iter().map(|sample| sample.message.kind()).collect();
    let known: BTreeSet<u8> = (0..=u8::MAX).filter(|kind| !matches!(Message::decode(*kind, &[]), Ok(None))).collect();
    assert_eq!(kinds, known, "a kind without a golden file, or a golden file of a kind that does not decode");
    let mut names: BTreeSet<String> = samples().iter().map(|sample| sample.name.to_string()).collect();
    names.extend(crate::disk::NAMES.iter().chain(crate::tags::NAMES).map(|name| name.to_string()));
    for (name, _) in golden::all() {
        assert!(names.contains(&name), "tests/vectors/golden/{name}.hex is compared with nothing: remove it or use it");
    }
}

#[test]
fn only_hello_bye_and_report_may_grow_at_their_end() {
    for sample in samples() {
        let mut frame = Vec::new();
        sample.message.encode(&mut frame);
        frame.extend_from_slice(&[1, 2, 3]);
        let (kind, payload) = (frame[4], &frame[FRAME_HEADER_BYTES..]);
        let decoded = Message::decode(kind, payload);
        match sample.message {
            Message::Hello(_) | Message::Bye(_) | Message::Report(_) => {
                assert_eq!(decoded, Ok(Some(sample.message)), "{}", sample.name);
            }
            _ => assert_eq!(decoded, Err(MessageError::Malformed { kind }), "{}", sample.name),
        }
    }
}

#[test]
fn no_message_decodes_when_it_is_cut() {
    for sample in samples() {
        let mut frame = Vec::new();
        sample.message.encode(&mut frame);
        let (kind, payload) = split(&frame);
        for length in 0..payload.len() {
            let decoded = Message::decode(kind, &payload[..length]);
            assert_eq!(decoded, Err(MessageError::Malformed { kind }), "{} cut to {length} bytes", sample.name);
        }
    }
}
