//! Another version at the other end: what an update of a site, one box after the other, is to the boxes that wait for theirs.
//!
//! What their messages may differ in is in `tests/vectors`, and databases of other versions in `tests/store/golden.rs`.

use crate::process::{KEY, Node, patience, wait};
use crate::speaker::Speaker;
use cbddc::id::{Dot, VersionVector};
use cbddc::row::{Body, Row, RowKey};
use cbddc::time::Stamp;
use cbddc::wire::{Changes, Closure, Hello, Message, Mode, PROTOCOL_VERSION, Pong, Pull};

#[test]
fn a_member_that_speaks_the_next_protocol_version_too_replicates_both_ways() {
    let node = Node::new("this-version").started();
    node.put("c", "ours", "\"of this version\"").expect(201);
    let mut next = Speaker::dial("next-version", node.links(), KEY).unwrap();
    let first = next.hello();
    let row = Row {
        key: RowKey::replicated("c", "theirs"),
        stamp: Stamp::new(1_800_000_000_000, 0),
        dot: Dot { origin: first.replica, seq: 1 },
        body: Body::Live(b"\"of the next\"".to_vec()),
        expires_at: None,
    };
    let vector: VersionVector = [row.dot].into_iter().collect();
    let (version_max, vector_said) = (PROTOCOL_VERSION + 1, vector.clone());
    let hello = Hello { version_max, visitor: false, tail: 1, vector: vector_said, clean: false, ..first };
    next.say(&Message::Hello(hello.clone())).unwrap();
    let (mut given, mut confirmed) = (None, false);
    while given.is_none() || !confirmed {
        let late = async {
            smol::Timer::after(patience()).await;
            None
        };
        let heard = smol::block_on(smol::future::or(async { Some(next.reader.next().await) }, late));
        let heard = heard.unwrap_or_else(|| panic!("given {given:?}, confirmed {confirmed}\n{}", node.tail()));
        match heard.unwrap() {
            Message::Hello(theirs) => {
                assert_eq!((theirs.version_min, theirs.version_max), (PROTOCOL_VERSION, PROTOCOL_VERSION));
                let vector = vector.clone();
                let pull = Pull { stream: 1, of: theirs.replica, mode: Mode::Increment, after: 0, vector };
                next.say(&Message::Pull(pull)).unwrap();
            }
            Message::Pull(Pull { stream, .. }) => {
                let (vector, floor) = (vector.clone(), VersionVector::new());
                let closure = Some(Closure { vector, floor, digest: 0, clean: false, hlc: row.stamp });
                next.say(&Message::Changes(Changes { stream, rows: vec![row.clone()], upto: 1, closure })).unwrap();
            }
            Message::Changes(changes) => {
                let ours = changes.rows.into_iter().find(|row| row.key.key == "ours");
                given = given.or(ours.map(|row| row.body));
            }
            Message::Confirm(confirm) => confirmed |= confirm.vector.covers(row.dot),
            Message::Ping(ping) => next.say(&Message::Pong(Pong { nonce: ping.nonce, clock: hello.clock })).unwrap(),
            Message::Bye(why) => panic!("it is refused: {why:?}"),
            _ => {}
        }
    }
    assert_eq!(given, Some(Body::Live(b"\"of this version\"".to_vec())));
    wait("its document is there", || node.value("c", "theirs").filter(|value| value == "\"of the next\""));
    assert!(node.is_linked_to("next-version"));
}
