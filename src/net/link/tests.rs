//! Links over the loopback interface: everything honest arrives, whatever the timing.

mod hostile;

use super::*;
use crate::id::{Dot, NodeId, ReplicaId, VersionVector};
use crate::limits::*;
use crate::net::{Listener, Patience, PortSetting, accept, dial, listen, resolve};
use crate::row::{Body, Row, RowKey, Scope};
use crate::secure::{ClusterKey, DeviceKey, HandshakeError, SessionError};
use crate::time::Stamp;
use crate::wire::{
    Bye, Changes, ClockSample, Closure, Confirm, Hello, MemberNote, Mode, Ping, Pong, Pull, RelayedConfirmation,
    StartToken, encode_frame,
};
use smol::future::{block_on, zip};
use std::format;
use std::net::Ipv4Addr;

fn random(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut generator = fastrand::Rng::with_seed(seed);
    move |bytes: &mut [u8]| generator.fill(bytes)
}
fn device(seed: u64) -> DeviceKey {
    DeviceKey::generate(&mut random(seed))
}
fn key(byte: u8) -> ClusterKey {
    ClusterKey::new([byte; 32])
}
async fn listener() -> Listener {
    listen(Ipv4Addr::LOCALHOST.into(), 0, PortSetting::Tcp).await.expect("a free port")
}
async fn accepted(listener: &mut Listener, keys: &[ClusterKey], patience: Patience) -> Result<Established, LinkError> {
    let (stream, _) = listener.accept().await.expect("somebody dials");
    accept(stream, keys, &device(2), patience, &mut random(12)).await
}
async fn dialled(address: SocketAddr, keys: &[ClusterKey], patience: Patience) -> Result<Established, LinkError> {
    dial(&[address], keys, &device(1), patience, &mut random(11)).await
}
async fn pair_with(patience: Patience) -> (Established, Established) {
    let mut listener = listener().await;
    let (address, keys) = (listener.address(), [key(1)]);
    let (left, right) = zip(dialled(address, &keys, patience), accepted(&mut listener, &keys, patience)).await;
    (left.expect("a member"), right.expect("a member"))
}
async fn pair() -> (Established, Established) {
    pair_with(Patience::default()).await
}

fn vector(entries: usize) -> VersionVector {
    let dot = |at: usize| Dot { origin: ReplicaId::from_bits(u64::MAX - at as u64), seq: u64::MAX - at as u64 };
    (0..entries).map(dot).collect()
}
fn row(collection: &str, name: &str, value: Vec<u8>) -> Row {
    let key = RowKey { scope: Scope::Replicated, collection: collection.into(), key: name.into() };
    let dot = Dot { origin: ReplicaId::from_bits(u64::MAX), seq: u64::MAX };
    Row { key, stamp: Stamp::new(STAMP_MILLIS_MAX - 1, 7), dot, body: Body::Live(value), expires_at: Some(u64::MAX) }
}
fn changes(rows: Vec<Row>) -> Message {
    Message::Changes(Changes { stream: 1, rows, upto: u64::MAX, closure: None })
}
fn hello() -> Message {
    let name = NodeId::new("gateway-in-the-barn").expect("legal");
    Message::Hello(Hello {
        version_min: 1,
        version_max: 1,
        node_id: name.clone(),
        replica: ReplicaId::from_bits(77),
        instance: 1,
        tokens: vec![StartToken { token: 1, seq: 2, tail: 3 }],
        clock: ClockSample { millis: 5, synchronised: true },
        hlc: Stamp::new(5, 0),
        visitor: false,
        bootstrapping: false,
        tail: 9,
        vector: vector(20),
        floor: vector(3),
        digest: 4,
        clean: true,
        members: vec![MemberNote { device: device(3).device_id(), node_id: name }],
    })
}
fn all_kinds() -> Vec<Message> {
    let clock = ClockSample { millis: 1, synchronised: false };
    let relayed = RelayedConfirmation {
        device: device(3).device_id(),
        replica: ReplicaId::from_bits(5),
        vector: vector(REPLICAS_MAX),
    };
    vec![
        hello(),
        Message::Pull(Pull {
            stream: 1,
            of: ReplicaId::mint(&[], 5),
            mode: Mode::Bootstrap,
            after: 0,
            vector: vector(9),
        }),
        changes((0..50).map(|at| row("temperatures", &format!("sensor-{at}"), vec![b'v'; 1500])).collect()),
        Message::Confirm(Confirm { stream: 1, upto: 5, vector: vector(2), relayed: vec![relayed; 4] }),
        Message::Ping(Ping { nonce: 1, clock }),
        Message::Pong(Pong { nonce: 1, clock }),
        Message::Bye(Bye::protocol("a reason")),
    ]
}
/// Writes bytes past the link's own code, as a broken or hostile member would.
async fn inject(link: &mut Established, bytes: &[u8]) {
    link.writer.stream.write_all(bytes).await.expect("the other side still reads");
}
fn sealed(link: &mut Established, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; plain.len() + TAG_BYTES];
    link.writer.sealer.seal(plain, &mut out).expect("it fits");
    [&(out.len() as u16).to_be_bytes()[..], &out].concat()
}

#[test]
fn every_kind_of_message_arrives_in_order_both_ways() {
    block_on(async {
        let (mut left, mut right) = pair().await;
        assert_eq!((left.device, right.device), (device(2).device_id(), device(1).device_id()));
        assert_eq!((left.peer_addr, left.local_addr), (right.local_addr, right.peer_addr));
        for (from, to) in [(&mut left.writer, &mut right.reader), (&mut right.writer, &mut left.reader)] {
            let before = from.bytes_out();
            let send = async {
                let mut sent = 0;
                for message in all_kinds() {
                    sent += from.send(&message).await.expect("sent");
                }
                sent as u64
            };
            let receive = async {
                for message in all_kinds() {
                    assert_eq!(to.next().await.expect("received"), message);
                }
            };
            let (sent, ()) = zip(send, receive).await;
            assert_eq!(from.bytes_out(), before + sent);
            assert_eq!(to.bytes_in(), from.bytes_out());
        }
    });
}

#[test]
fn the_largest_batch_that_is_legal_arrives() {
    let largest = row(
        &"c".repeat(COLLECTION_BYTES_MAX),
        &"k".repeat(KEY_BYTES_MAX),
        (0..DOCUMENT_BYTES_MAX).map(|at| at as u8).collect(),
    );
    let closure = Closure {
        vector: vector(REPLICAS_MAX),
        floor: vector(REPLICAS_MAX),
        digest: u128::MAX,
        clean: true,
        hlc: Stamp::new(STAMP_MILLIS_MAX - 1, u16::MAX),
    };
    let rows = vec![row("small", "row", vec![b'x'; BATCH_BYTES_TARGET - 100]), largest];
    let message = Message::Changes(Changes { stream: u32::MAX, rows, upto: u64::MAX, closure: Some(closure) });
    block_on(async {
        let (mut left, mut right) = pair().await;
        let (sent, received) = zip(left.writer.send(&message), right.reader.next()).await;
        assert!(sent.expect("sent") > DOCUMENT_BYTES_MAX + 2 * VECTOR_BYTES_MAX);
        assert_eq!(received.expect("received"), message);
        assert!(left.writer.frame.capacity() <= FRAME_BYTES_KEPT, "the long message's memory is given back");
    });
}

#[test]
fn both_sides_send_five_megabytes_at_once_without_waiting_for_each_other() {
    const MESSAGES: usize = 80;
    let message = changes(vec![row("c", "k", vec![b'x'; 64 * 1024])]);
    let both = |link: Established, message: Message| async move {
        let Established { mut reader, mut writer, .. } = link;
        let before = (reader.bytes_in(), writer.bytes_out());
        let send = async {
            for _ in 0..MESSAGES {
                writer.send(&message).await.expect("sent");
            }
        };
        let receive = async {
            for _ in 0..MESSAGES {
                assert_eq!(reader.next().await.expect("received"), message);
            }
        };
        zip(send, receive).await;
        let bytes = (reader.bytes_in() - before.0, writer.bytes_out() - before.1);
        assert!(bytes.0 == bytes.1 && bytes.0 > 5_000_000, "{bytes:?}");
        (reader, writer)
    };
    block_on(async {
        let (left, right) = pair().await;
        zip(both(left, message.clone()), both(right, message.clone())).await;
    });
}

#[test]
fn while_a_key_is_rotated_a_node_with_both_reaches_one_with_the_old_key_only() {
    block_on(async {
        let mut listener = listener().await;
        let (address, waits) = (listener.address(), Patience::default());
        let (both, old) = ([key(9), key(1)], [key(1)]);
        let accepting = async {
            let refused = accepted(&mut listener, &old, waits).await.expect_err("the new key is not known there yet");
            assert!(matches!(refused, LinkError::Handshake(HandshakeError::NotAMember)), "{refused}");
            accepted(&mut listener, &old, waits).await
        };
        let (left, right) = zip(dialled(address, &both, waits), accepting).await;
        assert_eq!((left.expect("a member").key_index, right.expect("a member").key_index), (1, 0));
    });
}

#[test]
fn the_address_that_answers_is_taken_and_nobody_answering_is_an_error() {
    block_on(async {
        let mut listener = listener().await;
        let (alive, keys, waits) = (listener.address(), [key(1)], Patience::default());
        // The near end of a connection: nobody listens there, and nobody else is given that port.
        let elsewhere = self::listener().await;
        let held = TcpStream::connect(elsewhere.address()).await.expect("it listens");
        let dead = held.local_addr().expect("connected");
        let error = dialled(dead, &keys, waits).await.expect_err("nobody listens");
        assert!(matches!(error, LinkError::Unreachable { address, .. } if address == dead), "{error}");
        let (device, mut entropy) = (device(1), random(4));
        let addresses = [dead, alive];
        let dialling = dial(&addresses, &keys, &device, waits, &mut entropy);
        let (left, right) = zip(dialling, accepted(&mut listener, &keys, waits)).await;
        assert_eq!((left.expect("a member").peer_addr, right.is_ok()), (alive, true));
        let error = dial(&[], &keys, &device, waits, &mut random(4)).await.expect_err("no address");
        assert!(matches!(error, LinkError::NoAddress));
        assert_eq!(resolve("127.0.0.1:5000", waits).await.expect("an address").len(), 1);
        assert!(matches!(resolve("no port", waits).await, Err(LinkError::Unresolved { .. })));
    });
}

#[test]
fn a_reader_that_is_dropped_while_it_waits_loses_nothing() {
    block_on(async {
        let (mut left, mut right) = pair().await;
        let mut frame = Vec::new();
        hello().encode(&mut frame);
        let bytes = sealed(&mut left, &frame);
        let (mut given_up, mut received) = (0, None);
        for piece in bytes.chunks(7) {
            inject(&mut left, piece).await;
            for _ in 0..3 {
                match future::poll_once(std::pin::pin!(right.reader.next())).await {
                    Some(message) => received = message.ok(),
                    None => given_up += 1,
                }
            }
        }
        while received.is_none() {
            received = right.reader.next().await.ok();
        }
        assert_eq!(received, Some(hello()));
        assert!(given_up > bytes.len() / 7);
    });
}

#[test]
fn closing_wakes_the_own_reader() {
    block_on(async {
        let (left, mut right) = pair().await;
        let Established { mut reader, writer, .. } = left;
        let (ended, ()) = zip(reader.next(), async {
            future::yield_now().await;
            writer.close();
        })
        .await;
        assert!(ended.is_err());
        assert!(matches!(right.reader.next().await, Err(LinkError::Closed)));
    });
}
