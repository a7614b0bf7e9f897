//! Strangers, garbage, and peers that do not keep to the rules: each costs itself its link, and is seen.

use crate::client::document;
use crate::process::{KEY, Node, wait, wait_for};
use crate::program::{self, seconds};
use crate::speaker::Speaker;
use cbddc::id::VersionVector;
use cbddc::net::LinkError;
use cbddc::wire::{Bye, Message, Mode, Ping, Pull};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const OTHER_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What `/v1/peers` says of an address that is not linked.
fn heard(node: &Node, address: &str) -> Option<String> {
    let peers = node.page("/v1/peers");
    let heard = peers["heard"].as_array().unwrap().iter();
    let mut reasons = heard.filter(|one| one["address"] == address).map(|one| one["reason"].to_string());
    reasons.next()
}
fn refused(node: &Node) -> u64 {
    node.status()["links"]["refused"].as_u64().unwrap()
}
/// Node and peer still replicate.
fn still_replicates(node: &Node, peer: &Node, key: &str) {
    node.still_serves();
    node.put("c", key, "1").expect(201);
    wait("the peer is served", || peer.value("c", key));
}
/// Reads until the other side ends it, within a time.
fn is_closed(mut stream: &TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut byte = [0; 64];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn a_wrong_cluster_key_is_refused_counted_and_said_on_both_sides() {
    let node = Node::new("right").started();
    let peer = Node::new("right-peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let stranger = Node::new("wrong");
    stranger.write_key(OTHER_KEY);
    let stranger = stranger.peers(&[&node]).started();
    wait("it is refused more than once", || (refused(&node) >= 2).then_some(()));
    let reason = wait("it is said here", || heard(&node, "127.0.0.1"));
    assert!(reason.contains("key"), "{reason}");
    let log = node.log();
    assert_eq!(log.matches("link refused").count(), 1, "once in the log at this level: {log}");
    let address = node.links().to_string();
    let reason = wait("it is said there", || heard(&stranger, &address));
    assert!(reason.contains("key"), "{reason}");
    // An error is recorded when the burst of dials is over.
    wait("it is recorded there", || {
        let errors = stranger.status()["recentErrors"].to_string();
        (errors.contains("NETWORK_ERROR") && errors.contains(&address)).then_some(())
    });
    assert!(stranger.page("/v1/peers")["peers"].as_array().unwrap().is_empty());
    assert_eq!(node.page("/v1/peers")["peers"].as_array().unwrap().len(), 1);
    still_replicates(&node, &peer, "k");
    assert!(matches!(Speaker::dial("s", node.links(), OTHER_KEY), Err(LinkError::Refused)));
}

#[test]
fn a_key_that_was_corrected_clears_what_was_said() {
    let node = Node::new("corrected").started();
    let other = Node::new("corrected-b");
    other.write_key(OTHER_KEY);
    let mut other = other.peers(&[&node]).started();
    let address = node.links().to_string();
    wait("it is said", || heard(&other, &address).and(heard(&node, "127.0.0.1")));
    other.stop_cleanly();
    other.write_key(KEY);
    other.start();
    node.wait_linked(&other);
    wait("nothing is held against it", || {
        (heard(&other, &address).is_none() && heard(&node, "127.0.0.1").is_none()).then_some(())
    });
}

#[test]
fn garbage_on_the_link_port_costs_only_its_sender() {
    let node = Node::new("garbage").started();
    let peer = Node::new("garbage-peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let mut random = fastrand::Rng::with_seed(11);
    for at in 0..200 {
        let mut stream = node.dial(node.links());
        let mut bytes: Vec<u8> = (0..random.usize(1..3000)).map(|_| random.u8(..)).collect();
        if at % 3 == 0 {
            // The right length of a first message, so that it is tried against the key.
            bytes.splice(..0, [0, 48]);
        }
        // It may hang up before everything was said.
        let _ = stream.write_all(&bytes);
        if at % 2 == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        if at % 20 == 0 && bytes.len() > 2 {
            assert!(is_closed(&stream, seconds(10)), "{:?}", &bytes[..3]);
        }
    }
    wait("they are counted", || (refused(&node) >= 100).then_some(()));
    still_replicates(&node, &peer, "k");
    assert!(node.log().lines().count() < 60, "strangers do not fill the log: {}", node.log());
}

#[test]
fn strangers_who_say_nothing_do_not_keep_members_out() {
    let node = Node::new("mute").started();
    // Three times as many as may be in their handshake at once, and each comes again as soon as it was put out.
    let address = node.links();
    let mut silent: Vec<TcpStream> = (0..24).map(|_| node.dial(address)).collect();
    let mut peer = Node::new("mute-peer").peers(&[&node]);
    peer.start();
    wait_for(seconds(4), "a member is let in meanwhile", || {
        silent.push(TcpStream::connect(address).unwrap());
        node.is_linked_to("mute-peer").then_some(())
    });
    still_replicates(&node, &peer, "k");
    for stream in silent.iter().take(24) {
        assert!(is_closed(stream, seconds(10)), "a silent stranger is put out");
    }
}

#[test]
fn a_member_that_never_says_hello_is_put_out() {
    let node = Node::new("hello").started();
    let peer = Node::new("hello-peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let mut speaker = Speaker::dial("speaker", node.links(), KEY).unwrap();
    let began = Instant::now();
    assert!(matches!(speaker.hear(), Ok(Message::Hello(_))));
    loop {
        match speaker.hear() {
            Ok(Message::Bye(reason)) => assert!(matches!(reason, Bye::Silent), "{reason:?}"),
            Ok(Message::Ping(_)) => {}
            Ok(other) => panic!("{other:?} to somebody who has not said Hello"),
            Err(_) => break,
        }
        still_replicates(&node, &peer, "k");
        node.delete("c", "k").expect(204);
        wait("the delete arrives", || peer.value("c", "k").is_none().then_some(()));
    }
    assert!(began.elapsed() < seconds(20), "{:?}", began.elapsed());
    still_replicates(&node, &peer, "k2");
}

#[test]
fn a_member_that_breaks_the_protocol_is_told_and_put_out() {
    let node = Node::new("protocol").started();
    let peer = Node::new("protocol-peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let farewell = |first: &dyn Fn(&Speaker) -> Message| -> Option<Bye> {
        let mut speaker = Speaker::dial("speaker", node.links(), KEY).unwrap();
        let message = first(&speaker);
        speaker.say(&message).unwrap();
        loop {
            match speaker.hear() {
                Ok(Message::Bye(reason)) => return Some(reason),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    let clock = |speaker: &Speaker| speaker.hello().clock;
    let early = farewell(&|speaker| Message::Ping(Ping { nonce: 1, clock: clock(speaker) }));
    assert!(matches!(early, Some(Bye::Protocol { .. })), "{early:?}");
    let version = farewell(&|speaker| {
        Message::Hello(cbddc::wire::Hello { version_min: 900, version_max: 901, ..speaker.hello() })
    });
    assert!(matches!(version, Some(Bye::Version)), "{version:?}");
    let name = farewell(&|speaker| {
        let node_id = cbddc::id::NodeId::new("protocol-peer").unwrap();
        Message::Hello(cbddc::wire::Hello { node_id, ..speaker.hello() })
    });
    assert!(matches!(name, Some(Bye::NameTaken)), "{name:?}");
    still_replicates(&node, &peer, "k");
}

#[test]
fn a_member_that_reads_nothing_holds_nobody_back() {
    let node = Node::new("reads").started();
    let peer = Node::new("reads-peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let value = format!("\"{}\"", "x".repeat(100_000));
    for n in 0..20 {
        node.put("c", &format!("large{n}"), &value).expect(201);
    }
    let mut speaker = Speaker::dial("slow", node.links(), KEY).unwrap();
    let hello = speaker.hello();
    speaker.say(&Message::Hello(hello)).unwrap();
    let Message::Hello(theirs) = speaker.hear().unwrap() else { panic!("Hello comes first") };
    // Asks for everything, again and again, and reads nothing of it.
    let pull = Pull { stream: 1, of: theirs.replica, mode: Mode::Increment, after: 0, vector: VersionVector::new() };
    for stream in 1..500 {
        let clock = speaker.hello().clock;
        let asked = speaker.say(&Message::Pull(Pull { stream, ..pull.clone() }));
        if asked.and_then(|()| speaker.say(&Message::Ping(Ping { nonce: stream, clock }))).is_err() {
            break;
        }
    }
    still_replicates(&node, &peer, "k");
    let resident = std::fs::read_to_string(format!("/proc/{}/status", node.process().as_raw_nonzero())).unwrap();
    let line = resident.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(program::emulated() || kib < 120 * 1024, "{line}");
}

#[test]
fn datagrams_of_any_bytes_are_counted_and_change_nothing() {
    let ear = UdpSocket::bind("127.0.0.1:0").unwrap();
    ear.set_read_timeout(Some(seconds(20))).unwrap();
    let node = Node::new("datagrams")
        .set("Network__EnableDiscovery", "true")
        .set("Network__UdpPort", "0")
        .set("Network__BeaconIntervalMs", "100")
        .set("Network__BroadcastAddresses", &ear.local_addr().unwrap().to_string())
        .started();
    let peer = Node::new("datagrams-peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    // A real beacon of this cluster, and everything that can be made of it.
    let mut beacon = [0; 512];
    let bytes = ear.recv(&mut beacon).unwrap();
    let beacon = &beacon[..bytes];
    let target: SocketAddr = node.beacons();
    let mut random = fastrand::Rng::with_seed(5);
    for at in 0..6000_usize {
        let datagram = match at % 4 {
            0 => (0..random.usize(0..1400)).map(|_| random.u8(..)).collect(),
            1 => beacon[..random.usize(0..bytes)].to_vec(),
            2 => {
                let mut forged = beacon.to_vec();
                forged[random.usize(0..bytes)] ^= 1 << random.u8(0..8);
                forged
            }
            _ => [beacon, &[0; 40][..random.usize(0..40)]].concat(),
        };
        ear.send_to(&datagram, target).unwrap();
    }
    let reason = wait("they are counted by address", || heard(&node, "127.0.0.1"));
    assert!(reason.contains("datagrams)") || reason.contains("beacons)"), "{reason}");
    still_replicates(&node, &peer, "k");
    assert!(node.log().matches("stranger").count() <= 8, "said once for each reason: {}", node.log());
    assert_eq!(node.page("/v1/peers")["peers"].as_array().unwrap().len(), 1);
}

#[test]
fn a_request_flood_is_refused_and_not_queued_for_ever() {
    let node = Node::new("flood").started();
    let path = document("c", "k");
    // A hundred clients at once, each with its own connection.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..100)
            .map(|_| scope.spawn(|| node.connect().ask("PUT", &path, &[], b"1").map_or(0, |answer| answer.status)))
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 0 | 200 | 201 | 429 | 503)), "{statuses:?}");
    assert!(statuses.iter().filter(|status| matches!(status, 200 | 201)).count() >= 10, "{statuses:?}");
    node.still_serves();
}
