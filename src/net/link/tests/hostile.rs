//! Strangers, broken members, bad lines and eavesdroppers: each costs its link and nothing more.

use super::*;
use std::cell::RefCell;

#[test]
fn strangers_who_speak_something_else_are_refused_and_the_next_member_is_served() {
    block_on(async {
        let (mut listener, keys) = (listener().await, [key(1)]);
        let address = listener.address();
        let mut noise = fastrand::Rng::with_seed(3);
        let mut openings = vec![b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0; 400], vec![0xff; 9000]];
        for bytes in [3, 50, 5000] {
            openings.push((0..bytes).map(|_| noise.u8(..)).collect());
        }
        for opening in openings {
            let mut stranger = TcpStream::connect(address).await.expect("it listens");
            stranger.write_all(&opening).await.expect("taken by the system");
            let error = accepted(&mut listener, &keys, Patience::default()).await.expect_err("a stranger");
            assert!(matches!(error, LinkError::Handshake(HandshakeError::Malformed)), "{error}");
            assert_eq!(error.fault(), Fault::Peer);
        }
        let mut stranger = TcpStream::connect(address).await.expect("it listens");
        stranger.write_all(&[&[0, 48][..], &[9; 48]].concat()).await.expect("taken by the system");
        let error = accepted(&mut listener, &keys, Patience::default()).await.expect_err("a stranger");
        assert!(matches!(error, LinkError::Handshake(HandshakeError::NotAMember)), "{error}");
        let gone = TcpStream::connect(address).await.expect("it listens");
        drop(gone);
        let error = accepted(&mut listener, &keys, Patience::default()).await.expect_err("it left");
        assert!(matches!(error, LinkError::Closed), "{error}");
        let waits = Patience::default();
        let (left, right) = zip(dialled(address, &keys, waits), accepted(&mut listener, &keys, waits)).await;
        assert!(left.is_ok() && right.is_ok());
    });
}

#[test]
fn one_that_opens_and_says_nothing_or_stops_halfway_costs_a_bounded_time() {
    let short = Patience { handshake: Duration::from_millis(30), ..Patience::default() };
    block_on(async {
        let (mut listener, keys) = (listener().await, [key(1)]);
        for said in [&[][..], &[0], &[0, 48], &[0, 48, 1, 2, 3]] {
            let mut silent = TcpStream::connect(listener.address()).await.expect("it listens");
            silent.write_all(said).await.expect("taken by the system");
            let error = accepted(&mut listener, &keys, short).await.expect_err("silent");
            assert!(matches!(error, LinkError::Timeout { phase: Phase::Handshake, .. }), "{error}");
        }
        // The same for one that is dialled and never answers.
        let error = dialled(listener.address(), &keys, short).await.expect_err("nobody accepts");
        assert!(matches!(error, LinkError::Timeout { phase: Phase::Handshake, .. }), "{error}");
    });
}

#[test]
fn another_cluster_key_is_told_on_both_sides() {
    block_on(async {
        let mut listener = listener().await;
        let (address, waits) = (listener.address(), Patience::default());
        let (ours, theirs) = ([key(1)], [key(2)]);
        let (left, right) = zip(dialled(address, &theirs, waits), accepted(&mut listener, &ours, waits)).await;
        let (left, right) = (left.expect_err("refused"), right.expect_err("refused"));
        assert!(matches!(left, LinkError::Refused), "{left}");
        assert!(format!("{left}").contains("key"), "the message names the next step");
        assert!(matches!(right, LinkError::Handshake(HandshakeError::NotAMember)), "{right}");
    });
}

#[test]
fn a_peer_that_does_not_read_is_given_up_and_the_reader_does_not_mind() {
    let short = Patience { stall: Duration::from_millis(50), ..Patience::default() };
    block_on(async {
        let (mut left, mut right) = pair_with(short).await;
        let message = changes(vec![row("c", "k", vec![b'x'; DOCUMENT_BYTES_MAX])]);
        let error = loop {
            if let Err(error) = left.writer.send(&message).await {
                break error;
            }
        };
        assert!(matches!(error, LinkError::Slow { .. }), "{error}");
        assert_eq!(error.fault(), Fault::Network);
        let after = left.writer.send(&message).await.expect_err("half a message is on the stream");
        assert!(matches!(after, LinkError::Abandoned), "{after}");
        right.writer.send(&hello()).await.expect("this direction is free");
        assert_eq!(left.reader.next().await.expect("received"), hello());
    });
}

#[test]
fn a_link_that_ends_between_messages_is_closed_and_one_that_ends_within_is_cut() {
    block_on(async {
        let (mut left, mut right) = pair().await;
        left.writer.send(&hello()).await.expect("sent");
        drop(left);
        assert_eq!(right.reader.next().await.expect("it was sent before"), hello());
        assert!(matches!(right.reader.next().await, Err(LinkError::Closed)));
        // Within a Noise message, between two that make one frame, and within a length.
        let mut frame = Vec::new();
        hello().encode(&mut frame);
        for cut in 0..3 {
            let (mut left, mut right) = pair().await;
            let (first, second) = (sealed(&mut left, &frame[..20]), sealed(&mut left, &frame[20..]));
            let all = [&first[..], &second].concat();
            let bytes = [all.len() - 1, first.len(), 1][cut];
            inject(&mut left, &all[..bytes]).await;
            left.writer.close();
            let error = right.reader.next().await.expect_err("cut");
            assert!(matches!(error, LinkError::Cut), "cut {cut}: {error}");
        }
    });
}

#[test]
fn bytes_that_are_replayed_changed_or_made_up_end_the_link() {
    type Attack = fn(&[u8]) -> Vec<u8>;
    let attacks: [(Attack, &str); 5] = [
        (|sealed| [sealed, sealed].concat(), "replayed"),
        (|sealed| sealed.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 30)).collect(), "flipped"),
        (|sealed| [sealed, &[0; 60][..]].concat(), "length zero"),
        (|sealed| [sealed, &[0xff; 60][..]].concat(), "length too long"),
        (|sealed| [sealed, &[0, 40], &[7; 40][..]].concat(), "made up"),
    ];
    for (attack, name) in attacks {
        block_on(async {
            let (mut left, mut right) = pair().await;
            let mut frame = Vec::new();
            hello().encode(&mut frame);
            let honest = sealed(&mut left, &frame);
            inject(&mut left, &attack(&honest)).await;
            let mut result = right.reader.next().await;
            if name != "flipped" {
                assert_eq!(result.expect("the first is honest"), hello(), "{name}");
                result = right.reader.next().await;
            }
            let error = result.expect_err(name);
            let expected = matches!(error, LinkError::Session(SessionError::Forged) | LinkError::MessageLength { .. });
            assert!(expected && error.fault() == Fault::Peer, "{name}: {error}");
        });
    }
}

#[test]
fn a_member_that_breaks_the_protocol_loses_its_link_and_unknown_kinds_are_skipped() {
    block_on(async {
        let (mut left, mut right) = pair().await;
        let mut frames = Vec::new();
        encode_frame(&mut frames, 200, |out| out.extend_from_slice(&[1; 5000]));
        encode_frame(&mut frames, 0, |_| ());
        hello().encode(&mut frames);
        let bytes = sealed(&mut left, &frames);
        inject(&mut left, &bytes).await;
        assert_eq!(right.reader.next().await.expect("after the unknown ones"), hello());
        assert_eq!(right.reader.skipped(), 2);
        let bytes = sealed(&mut left, &[0xff, 0xff, 0xff, 0xff, 3, 0]);
        inject(&mut left, &bytes).await;
        assert!(matches!(right.reader.next().await, Err(LinkError::Frame(_))));
        let (mut left, mut right) = pair().await;
        let mut frame = Vec::new();
        encode_frame(&mut frame, 1, |out| out.extend_from_slice(&[0xff; 9]));
        let bytes = sealed(&mut left, &frame);
        inject(&mut left, &bytes).await;
        assert!(matches!(right.reader.next().await, Err(LinkError::Message(_))));
    });
}

#[test]
fn plain_bytes_of_any_shape_never_panic_the_reader() {
    for seed in 0..40 {
        block_on(async {
            let (mut left, mut right) = pair().await;
            let mut noise = fastrand::Rng::with_seed(seed);
            let mut plain = Vec::new();
            for _ in 0..20 {
                let kind = noise.u8(0..9);
                let bytes = noise.usize(0..200);
                encode_frame(&mut plain, kind, |out| out.extend((0..bytes).map(|_| noise.u8(..))));
            }
            let bytes = sealed(&mut left, &plain);
            inject(&mut left, &bytes).await;
            left.writer.close();
            while right.reader.next().await.is_ok() {}
        });
    }
}

#[test]
fn a_capture_of_the_wire_shows_no_name_no_key_no_value_and_no_device() {
    let captured = RefCell::new(Vec::new());
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        let captured = &captured;
        async move {
            let mut buffer = [0; 4096];
            loop {
                let read = from.read(&mut buffer).await.unwrap_or(0);
                if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
                    to.shutdown(Shutdown::Write).ok();
                    return;
                }
                captured.borrow_mut().extend_from_slice(&buffer[..read]);
            }
        }
    };
    block_on(async {
        let (mut listener, mut proxy, keys) = (listener().await, listener().await, [key(1)]);
        let (address, waits) = (listener.address(), Patience::default());
        let through = proxy.address();
        let tap = async {
            let (near, _) = proxy.accept().await.expect("dialled");
            let far = TcpStream::connect(address).await.expect("it listens");
            zip(copy(near.clone(), far.clone()), copy(far, near)).await;
        };
        let talk = async {
            let (left, right) = zip(dialled(through, &keys, waits), accepted(&mut listener, &keys, waits)).await;
            let (mut left, mut right) = (left.expect("a member"), right.expect("a member"));
            for message in all_kinds() {
                let (sent, received) = zip(left.writer.send(&message), right.reader.next()).await;
                assert!(sent.is_ok() && received.is_ok());
                let (sent, received) = zip(right.writer.send(&message), left.reader.next()).await;
                assert!(sent.is_ok() && received.is_ok());
            }
        };
        zip(tap, talk).await;
    });
    let captured = captured.into_inner();
    assert!(captured.len() > 100_000, "the capture holds the whole talk");
    let seen = |needle: &[u8]| captured.windows(needle.len()).any(|window| window == needle);
    let devices = [device(1).device_id().0, device(2).device_id().0, device(3).device_id().0];
    for secret in ["gateway", "temperatures", "sensor-", "vvvvvv", "a reason"] {
        assert!(!seen(secret.as_bytes()), "{secret} is on the wire");
    }
    assert!(devices.iter().all(|device| !seen(&device[..8])), "a device key is on the wire");
}
