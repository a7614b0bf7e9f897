//! Handshakes and sessions against every kind of wrong byte.

use super::*;
use alloc::vec::Vec;
use snow::params::DHChoice;
use snow::resolvers::CryptoResolver;
use std::vec;

fn seeded(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut generator = fastrand::Rng::with_seed(seed);
    move |bytes: &mut [u8]| generator.fill(bytes)
}
fn device(seed: u64) -> DeviceKey {
    DeviceKey::generate(&mut seeded(seed))
}
fn key(byte: u8) -> ClusterKey {
    ClusterKey::new([byte; 32])
}

struct Transcript {
    first: [u8; FIRST_MESSAGE_BYTES],
    reply: [u8; REPLY_BYTES],
    third: [u8; THIRD_MESSAGE_BYTES],
    left: Session,
    right: Session,
}

fn meet(dialled_with: &ClusterKey, accepted: &[ClusterKey]) -> Result<Transcript, HandshakeError> {
    let (initiator, first) = Initiator::new(&device(1), dialled_with, &mut seeded(11))?;
    let (responder, reply) = Responder::accept(&device(2), accepted, &first, &mut seeded(12))?;
    let (left, third) = initiator.finish(&reply)?;
    let right = responder.finish(&third)?;
    Ok(Transcript { first, reply, third, left, right })
}

fn sealed(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plain.len() + TAG_BYTES];
    assert_eq!(sealer.seal(plain, &mut out), Ok(out.len()));
    out
}
fn opened(opener: &mut Opener, message: &[u8]) -> Result<Vec<u8>, SessionError> {
    let mut out = vec![0; message.len()];
    let bytes = opener.open(message, &mut out)?;
    out.truncate(bytes);
    Ok(out)
}

#[test]
fn members_learn_each_others_device_and_talk_both_ways() {
    let mut met = meet(&key(1), &[key(1)]).expect("the same key");
    assert_eq!((met.left.peer, met.right.peer), (device(2).device_id(), device(1).device_id()));
    for round in 0..3u8 {
        let message = sealed(&mut met.left.sealer, &[round; 100]);
        assert_eq!(opened(&mut met.right.opener, &message), Ok(vec![round; 100]));
        let message = sealed(&mut met.right.sealer, &[round; 7]);
        assert_eq!(opened(&mut met.left.opener, &message), Ok(vec![round; 7]));
    }
}

#[test]
fn the_halves_can_live_in_two_threads() {
    fn movable<T: Send + Sync + 'static>() {}
    movable::<Sealer>();
    movable::<Opener>();
}

#[test]
fn another_cluster_key_is_refused_at_the_first_message() {
    assert_eq!(meet(&key(1), &[key(2)]).err(), Some(HandshakeError::NotAMember));
}

#[test]
fn while_a_key_is_rotated_both_keys_open_and_the_responder_knows_which() {
    let both = [key(9), key(1)];
    assert_eq!(meet(&key(1), &both).expect("the old key").right.key_index, 1);
    assert_eq!(meet(&key(9), &both).expect("the new key").right.key_index, 0);
    assert_eq!(meet(&key(3), &both).err(), Some(HandshakeError::NotAMember));
    let many = [key(1), key(2), key(3), key(4)];
    assert_eq!(meet(&key(1), &many).err(), Some(HandshakeError::Keys));
    assert_eq!(meet(&key(1), &[]).err(), Some(HandshakeError::Keys));
}

#[test]
fn any_flipped_bit_of_any_handshake_message_is_refused() {
    let whole = meet(&key(1), &[key(1)]).expect("the same key");
    // Bit 255 of a public key is masked off by X25519 but is still part of the transcript hash.
    for bit in 0..FIRST_MESSAGE_BYTES * 8 {
        let mut first = whole.first;
        first[bit / 8] ^= 1 << (bit % 8);
        let refused = Responder::accept(&device(2), &[key(1)], &first, &mut seeded(12)).err();
        assert_eq!(refused, Some(HandshakeError::NotAMember), "bit {bit}");
    }
    for bit in 0..REPLY_BYTES * 8 {
        let (initiator, _) = Initiator::new(&device(1), &key(1), &mut seeded(11)).expect("built");
        let mut reply = whole.reply;
        reply[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(initiator.finish(&reply).err(), Some(HandshakeError::Forged), "bit {bit}");
    }
    for bit in 0..THIRD_MESSAGE_BYTES * 8 {
        let accepted = Responder::accept(&device(2), &[key(1)], &whole.first, &mut seeded(12));
        let mut third = whole.third;
        third[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(accepted.expect("ours").0.finish(&third).err(), Some(HandshakeError::Forged), "bit {bit}");
    }
}

#[test]
fn messages_of_another_length_are_malformed_in_every_phase() {
    let whole = meet(&key(1), &[key(1)]).expect("the same key");
    for cut in [0, 1, 31, 32, FIRST_MESSAGE_BYTES - 1] {
        let refused = Responder::accept(&device(2), &[key(1)], &whole.first[..cut], &mut seeded(12)).err();
        assert_eq!(refused, Some(HandshakeError::Malformed), "cut at {cut}");
    }
    let (initiator, _) = Initiator::new(&device(1), &key(1), &mut seeded(11)).expect("built");
    assert_eq!(initiator.finish(&whole.reply[1..]).err(), Some(HandshakeError::Malformed));
    let (responder, _) = Responder::accept(&device(2), &[key(1)], &whole.first, &mut seeded(12)).expect("ours");
    let longer = [&whole.third[..], &[0]].concat();
    assert_eq!(responder.finish(&longer).err(), Some(HandshakeError::Malformed));
}

#[test]
fn a_replayed_handshake_ends_at_the_third_message() {
    let whole = meet(&key(1), &[key(1)]).expect("the same key");
    let (responder, reply) = Responder::accept(&device(2), &[key(1)], &whole.first, &mut seeded(99)).expect("ours");
    assert_ne!(reply, whole.reply);
    assert_eq!(responder.finish(&whole.third).err(), Some(HandshakeError::Forged));
    let (initiator, _) = Initiator::new(&device(1), &key(1), &mut seeded(98)).expect("built");
    assert_eq!(initiator.finish(&whole.reply).err(), Some(HandshakeError::Forged));
}

#[test]
fn no_device_key_is_seen_on_the_wire() {
    let whole = meet(&key(1), &[key(1)]).expect("the same key");
    let wire = [&whole.first[..], &whole.reply, &whole.third].concat();
    for secret in [device(1).device_id().0, device(2).device_id().0, *key(1).expose(), key(1).psk()] {
        assert!(wire.windows(8).all(|seen| !secret.windows(8).any(|part| part == seen)));
    }
}

#[test]
fn a_device_key_that_needs_no_private_half_is_refused() {
    for point in [[0; 32], core::array::from_fn(|at| u8::from(at == 0))] {
        let dh = Resolver { ephemeral: [1; 32] }.resolve_dh(&DHChoice::Curve25519).expect("compiled in");
        assert_eq!(dh.dh(&point, &mut [0; 32]), Err(snow::Error::Dh));
    }
}

#[test]
fn a_changed_message_ends_the_session_for_good() {
    let mut met = meet(&key(1), &[key(1)]).expect("the same key");
    let message = sealed(&mut met.left.sealer, b"document");
    let mut changed = message.clone();
    changed[3] ^= 1;
    assert_eq!(opened(&mut met.right.opener, &changed), Err(SessionError::Forged));
    assert_eq!(opened(&mut met.right.opener, &message), Err(SessionError::Over));
}

#[test]
fn replayed_left_out_cut_and_reflected_messages_are_forged() {
    let attack = |pick: fn(&mut Session, &[u8], &[u8]) -> Vec<u8>| {
        let mut met = meet(&key(1), &[key(1)]).expect("the same key");
        let first = sealed(&mut met.left.sealer, b"one");
        let second = sealed(&mut met.left.sealer, b"two");
        assert!(opened(&mut met.right.opener, &first).is_ok());
        let message = pick(&mut met.right, &first, &second);
        opened(&mut met.right.opener, &message)
    };
    assert_eq!(attack(|_, _, second| second.to_vec()), Ok(b"two".to_vec()));
    assert_eq!(attack(|_, first, _| first.to_vec()), Err(SessionError::Forged));
    assert_eq!(attack(|_, _, second| second[..second.len() - 1].to_vec()), Err(SessionError::Forged));
    assert_eq!(attack(|_, _, _| vec![1; 5]), Err(SessionError::Forged));
    assert_eq!(attack(|own, _, _| sealed(&mut own.sealer, b"one")), Err(SessionError::Forged));
    let mut met = meet(&key(1), &[key(1)]).expect("the same key");
    drop(sealed(&mut met.left.sealer, b"one"));
    let second = sealed(&mut met.left.sealer, b"two");
    assert_eq!(opened(&mut met.right.opener, &second), Err(SessionError::Forged));
}

#[test]
fn nonces_are_not_used_beyond_their_end() {
    let mut met = meet(&key(1), &[key(1)]).expect("the same key");
    met.left.sealer.nonce = Some(u64::MAX - 1);
    met.right.opener.nonce = Some(u64::MAX - 1);
    let last = sealed(&mut met.left.sealer, b"last");
    assert_eq!(opened(&mut met.right.opener, &last), Ok(b"last".to_vec()));
    assert_eq!(met.left.sealer.seal(b"more", &mut [0; 64]), Err(SessionError::Over));
    assert_eq!(opened(&mut met.right.opener, &last), Err(SessionError::Over));
}

#[test]
fn a_buffer_that_is_too_small_costs_nothing() {
    let mut met = meet(&key(1), &[key(1)]).expect("the same key");
    assert_eq!(met.left.sealer.seal(b"plain", &mut [0; 20]), Err(SessionError::Buffer));
    let message = sealed(&mut met.left.sealer, b"plain");
    assert_eq!(met.right.opener.open(&message, &mut [0; 4]), Err(SessionError::Buffer));
    assert_eq!(opened(&mut met.right.opener, &message), Ok(b"plain".to_vec()));
}

#[test]
fn a_key_is_read_from_its_file_form_and_never_printed() {
    let key = ClusterKey::from_hex(&"aB".repeat(32)).expect("64 digits");
    assert_eq!(key.expose(), &[0xab; 32]);
    assert!(ClusterKey::from_hex(&"ab".repeat(31)).is_none() && ClusterKey::from_hex(&"+a".repeat(32)).is_none());
    assert!(!std::format!("{key:?}").contains("ab") && !std::format!("{key:?}").contains("171"));
}
