//! Tests of the state machines: one engine, whose peers, storage and clock are played by hand. No rows are kept here; what
//! rules do to rows is tested in the simulation.

mod confirmations;
mod dialling;
mod members;
mod sessions;
mod site;
mod streams;

use super::io::{Event, Input, LinkId, Now, Output, Settings, Target, Ticket};
use super::{Engine, StoreFault};
use crate::id::{DeviceId, Dot, NodeId, ReplicaId, Seq, VersionVector};
use crate::replica::{Knowledge, Maintained, Meeting, MemberState, Reply, Request, Stream};
use crate::retry::RetryPolicy;
use crate::row::{Body, Row, RowKey};
use crate::time::{Millis, Stamp};
use crate::wire::{Beacon, BeaconKey, Bye, Changes, ClockSample, Closure, Hello, Message, Pull, StartToken};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::format;

pub(super) const WALL: Millis = 1_700_000_000_000;

/// One engine on a desk.
pub(super) struct Desk {
    pub(super) engine: Engine,
    pub(super) now: Now,
    /// What storage remembers of members, and answers to each meeting.
    pub(super) members: BTreeMap<DeviceId, MemberState>,
    pub(super) knowledge: Knowledge,
    /// The records about members that storage holds.
    pub(super) records: Vec<Row>,
    /// What it did at its start.
    pub(super) first: Vec<Output>,
}

pub(super) fn device(number: u8) -> DeviceId {
    DeviceId([number; 32])
}
pub(super) fn name(number: u8) -> NodeId {
    NodeId::new(&format!("n{number}")).expect("a short name")
}
pub(super) fn replica(number: u8) -> ReplicaId {
    ReplicaId::mint(&[], u64::from(number))
}
pub(super) fn address(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)), 7000)
}
pub(super) fn covering(entries: &[(u8, Seq)]) -> VersionVector {
    entries.iter().map(|(number, seq)| Dot { origin: replica(*number), seq: *seq }).collect()
}
pub(super) fn cluster_key() -> BeaconKey {
    BeaconKey::derive(&[7; 32])
}
/// Of a node that has nothing.
pub(super) fn hello(number: u8) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        node_id: name(number),
        replica: replica(number),
        instance: u64::from(number),
        tokens: alloc::vec![StartToken { token: u64::from(number), seq: 0, tail: 0 }],
        clock: ClockSample { millis: WALL, synchronised: false },
        hlc: Stamp::ZERO,
        visitor: false,
        bootstrapping: false,
        tail: 0,
        vector: VersionVector::new(),
        floor: VersionVector::new(),
        digest: 0,
        clean: true,
        members: Vec::new(),
    }
}
/// Of a node that has rows of its own.
pub(super) fn hello_with_rows(number: u8, rows: u64) -> Hello {
    let mut hello = hello(number);
    (hello.tail, hello.vector, hello.digest) = (rows, covering(&[(number, rows)]), 1);
    hello
}
pub(super) fn beacon(number: u8, uptime_ms: Millis) -> Beacon {
    let instance = u64::from(number);
    Beacon { version: 1, tcp_port: 7000, replica: replica(number), instance, state: 1, uptime_ms }
}
pub(super) fn row_of(number: u8, seq: Seq, bytes: usize) -> Row {
    Row {
        key: RowKey::replicated("x", &format!("k{seq}")),
        stamp: Stamp::new(WALL, seq as u16),
        dot: Dot { origin: replica(number), seq },
        body: Body::Live(alloc::vec![0; bytes]),
        expires_at: None,
    }
}
pub(super) fn closure_of(number: u8, seq: Seq) -> Closure {
    let (vector, floor) = (covering(&[(number, seq)]), VersionVector::new());
    Closure { vector, floor, digest: 1, clean: true, hlc: Stamp::ZERO }
}

impl Desk {
    /// Node 1, without discovery.
    pub(super) fn new() -> Desk {
        Desk::with(|_| {})
    }
    pub(super) fn with(change: impl FnOnce(&mut Settings)) -> Desk {
        let mut settings = Settings {
            node_id: name(1),
            device: device(1),
            instance: 1,
            visitor: false,
            tcp_port: 7000,
            keys: alloc::vec![cluster_key()],
            discovery: false,
            beacon_interval: 5_000,
            fixed_peers: 0,
            retry: RetryPolicy::new(3, 1_000),
            links_max: 8,
            window_bytes: 10_000,
            tombstone_min_age: 86_400_000,
            tombstone_keep: Millis::MAX,
            maintain_interval: 1_000,
            build_millis: WALL - 1_000,
            seed: 1,
        };
        change(&mut settings);
        let mut knowledge = Knowledge::new(u64::from(settings.device.0[0]));
        knowledge.start(1);
        Desk::start(settings, knowledge, BTreeMap::new())
    }
    pub(super) fn start(settings: Settings, knowledge: Knowledge, members: BTreeMap<DeviceId, MemberState>) -> Desk {
        let now = Now { mono: 0, wall: WALL, synchronised: true };
        let known = members.iter().map(|(device, member)| (*device, member.clone())).collect();
        let engine = Engine::new(now, settings, knowledge.clone(), known);
        let mut desk = Desk { engine, now, members, knowledge, records: Vec::new(), first: Vec::new() };
        desk.first = desk.drain();
        desk
    }
    /// One input; all that follows until storage has answered what it answers by itself.
    pub(super) fn drive(&mut self, input: Input) -> Vec<Output> {
        self.engine.handle(self.now, input).expect("outputs are drained after each input");
        self.drain()
    }
    fn drain(&mut self) -> Vec<Output> {
        let mut all = Vec::new();
        loop {
            let outputs: Vec<Output> = core::iter::from_fn(|| self.engine.poll()).collect();
            let answers: Vec<(Ticket, Reply)> = outputs.iter().filter_map(|output| self.answer(output)).collect();
            all.extend(outputs);
            if answers.is_empty() {
                break;
            }
            for (ticket, reply) in answers {
                let result = Ok((reply, self.knowledge.clone()));
                self.engine.handle(self.now, Input::Stored { ticket, result }).expect("they were drained above");
                all.extend(self.drain());
            }
        }
        all
    }
    fn answer(&mut self, output: &Output) -> Option<(Ticket, Reply)> {
        let Output::Store { ticket, request, .. } = output else { return None };
        let reply = match request {
            Request::Meet(Meeting { device, node_id, tracked, said }) => {
                let fresh = || MemberState::new(node_id.clone(), ReplicaId::NONE);
                let member = self.members.entry(*device).or_insert_with(fresh);
                member.tracked = tracked.unwrap_or(member.tracked);
                if let Some(said) = said {
                    member.become_replica(said.replica);
                    member.confirmed.join(&said.vector);
                    member.has_confirmed = true;
                    member.tokens = said.starts.iter().map(|start| start.token).collect();
                }
                Reply::Met(*device, member.clone())
            }
            Request::Records => Reply::Records(self.records.clone()),
            Request::Maintain(_) => Reply::Maintained(Maintained::default()),
            Request::Confirmed { .. } => Reply::Noted,
            _ => return None,
        };
        Some((*ticket, reply))
    }

    /// Time passes.
    pub(super) fn wait(&mut self, millis: Millis) -> Vec<Output> {
        self.now.mono += millis;
        self.now.wall += millis;
        self.drive(Input::Tick)
    }
    pub(super) fn link(&mut self, link: u64, number: u8, dialled: Option<Target>) -> Vec<Output> {
        let (device, address) = (device(number), address(number));
        self.drive(Input::Linked { link: LinkId(link), device, address, dialled })
    }
    pub(super) fn say(&mut self, link: u64, message: Message) -> Vec<Output> {
        self.drive(Input::Received { link: LinkId(link), message })
    }
    /// A link on which both have said Hello.
    pub(super) fn meet(&mut self, link: u64, hello: Hello) -> Vec<Output> {
        let mut all = self.link(link, hello.instance as u8, None);
        all.extend(self.say(link, Message::Hello(hello)));
        all
    }
    pub(super) fn stored(&mut self, ticket: Ticket, reply: Reply) -> Vec<Output> {
        let result = Ok((reply, self.knowledge.clone()));
        self.drive(Input::Stored { ticket, result })
    }
    pub(super) fn store_fails(&mut self, ticket: Ticket) -> Vec<Output> {
        self.drive(Input::Stored { ticket, result: Err(StoreFault::Failed) })
    }
    /// This node writes: storage knows of so many own rows now.
    pub(super) fn write(&mut self, seq: Seq) -> Vec<Output> {
        let write = super::Client::Write(Vec::new());
        let outputs = self.drive(Input::Client { client: 1, request: write });
        let ticket = stores(&outputs).remove(0).0;
        self.has_written(seq);
        self.stored(ticket, Reply::Written(Vec::new()))
    }
    pub(super) fn has_written(&mut self, seq: Seq) {
        let known = &mut self.knowledge;
        (known.seq, known.tail, known.covered_upto) = (seq, seq, seq);
        known.vector.raise(Dot { origin: known.replica, seq });
        known.version += 1;
    }
    pub(super) fn hear(&mut self, from: u8, beacon: &Beacon) -> Vec<Output> {
        let bytes = cluster_key().seal(beacon).to_vec();
        self.drive(Input::Datagram { from: address(from), bytes })
    }
}

pub(super) fn sends(outputs: &[Output]) -> Vec<(u64, &Message)> {
    let sends = outputs.iter().filter_map(|output| match output {
        Output::Send { link, message } => Some((link.0, message)),
        _ => None,
    });
    sends.collect()
}
pub(super) fn byes(outputs: &[Output]) -> Vec<(u64, Bye)> {
    let bye = |(link, message): (u64, &Message)| {
        if let Message::Bye(bye) = message { Some((link, bye.clone())) } else { None }
    };
    sends(outputs).into_iter().filter_map(bye).collect()
}
pub(super) fn pulls(outputs: &[Output]) -> Vec<(u64, Pull)> {
    let pull = |(link, message): (u64, &Message)| {
        if let Message::Pull(pull) = message { Some((link, pull.clone())) } else { None }
    };
    sends(outputs).into_iter().filter_map(pull).collect()
}
pub(super) fn batches(outputs: &[Output]) -> Vec<(u64, Changes)> {
    let batch = |(link, message): (u64, &Message)| match message {
        Message::Changes(changes) => Some((link, changes.clone())),
        _ => None,
    };
    sends(outputs).into_iter().filter_map(batch).collect()
}
pub(super) fn dials(outputs: &[Output]) -> Vec<(Target, Vec<SocketAddr>)> {
    let dial = |output: &Output| match output {
        Output::Dial { target, addresses } => Some((*target, addresses.clone())),
        _ => None,
    };
    outputs.iter().filter_map(dial).collect()
}
pub(super) fn stores(outputs: &[Output]) -> Vec<(Ticket, Request)> {
    let store = |output: &Output| match output {
        Output::Store { ticket, request, .. } => Some((*ticket, request.clone())),
        _ => None,
    };
    outputs.iter().filter_map(store).collect()
}
pub(super) fn reads(outputs: &[Output]) -> Vec<(Ticket, Stream)> {
    let read = |output: &Output| match output {
        Output::Stream { ticket, stream } => Some((*ticket, stream.clone())),
        _ => None,
    };
    outputs.iter().filter_map(read).collect()
}
pub(super) fn has_event(outputs: &[Output], is: impl Fn(&Event) -> bool) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Event(event) if is(event)))
}
pub(super) fn is_closed(outputs: &[Output], link: u64) -> bool {
    outputs.contains(&Output::Close { link: LinkId(link) })
}
