//! A bench: a few engines, links that keep order, disks that commit when they are let, one virtual clock. No luck at all:
//! everything takes a millisecond, and what goes wrong is what the story says.

use super::replica::{NOON, Replica, documents, get};
use crate::table::MemTable;
use cbddc::id::{DeviceId, Seq};
use cbddc::proto::{Client, DialFailure, Engine, Event, Input, LinkId, Now, Output, PeerView, Settings};
use cbddc::proto::{Target, Ticket};
use cbddc::replica::{Precondition, Request, Stream, Write, execute, look, read};
use cbddc::retry::RetryPolicy;
use cbddc::row::{Body, Head, RowKey};
use cbddc::time::{Millis, Reading};
use cbddc::wire::{BeaconKey, Message};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub struct Node {
    pub device: DeviceId,
    pub table: MemTable,
    pub engine: Option<Engine>,
    pub events: Vec<Event>,
    pub answers: Vec<u64>,
    /// The card does not finish its fsync.
    pub stalled: bool,
    pub wall: Millis,
    pub synchronised: bool,
    settings: Settings,
    booted: Millis,
    due: Millis,
    store: VecDeque<(Ticket, Reading, Request)>,
    reads: VecDeque<(Ticket, Stream)>,
    looks: VecDeque<(Ticket, Vec<RowKey>)>,
}

/// A message that left, with what was on the sender's disk then.
pub struct Sent {
    pub from: usize,
    pub message: Message,
    /// Own dots up to here were marked as sent.
    pub marked: Seq,
}

struct Wire {
    ends: [usize; 2],
    ways: [VecDeque<Option<Message>>; 2],
}

#[derive(Default)]
pub struct Bench {
    pub nodes: Vec<Node>,
    pub sent: Vec<Sent>,
    pub time: Millis,
    links: BTreeMap<u64, Wire>,
    air: Vec<(usize, Vec<u8>)>,
    dials: Vec<(usize, Target, Option<SocketAddr>)>,
    last_link: u64,
    last_client: u64,
    /// Who is named here hears no beacon of the other.
    pub deaf: Vec<(usize, usize)>,
}

fn address(at: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, at as u8 + 1)), 7000)
}

impl Bench {
    /// Engines on these disks; links are made by hand.
    pub fn of<const N: usize>(replicas: [Replica; N]) -> Bench {
        let mut bench = Bench::default();
        for replica in replicas {
            bench.add(replica, |_| {});
        }
        bench
    }
    /// So many empty nodes that find each other by beacons.
    pub fn that_finds_itself(count: u8, links_max: usize) -> Bench {
        let mut bench = Bench::default();
        for number in 1..=count {
            bench.add(Replica::new(number), |settings| {
                settings.discovery = true;
                settings.links_max = links_max;
            });
        }
        bench
    }
    /// One more node, which starts at once.
    pub fn add(&mut self, replica: Replica, change: impl FnOnce(&mut Settings)) -> usize {
        let at = self.nodes.len();
        let mut settings = Settings {
            node_id: replica.name.clone(),
            device: replica.device,
            instance: 0,
            visitor: false,
            tcp_port: 7000,
            keys: vec![BeaconKey::derive(&[7; 32])],
            discovery: false,
            beacon_interval: 1_000,
            fixed_peers: 0,
            retry: RetryPolicy::new(3, 100),
            links_max: 8,
            window_bytes: 512 * 1024,
            tombstone_min_age: 86_400_000,
            tombstone_keep: Millis::MAX,
            maintain_interval: 1_000,
            build_millis: NOON - 86_400_000,
            seed: 0,
        };
        change(&mut settings);
        self.nodes.push(Node {
            device: replica.device,
            table: replica.table,
            engine: None,
            events: Vec::new(),
            answers: Vec::new(),
            stalled: false,
            wall: replica.clock.millis,
            synchronised: true,
            settings,
            booted: 0,
            due: 0,
            store: VecDeque::new(),
            reads: VecDeque::new(),
            looks: VecDeque::new(),
        });
        self.start(at);
        at
    }
    pub fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let token = 1_000 * (at as u64 + 1) + self.time + node.table.knowledge.version;
        node.table.knowledge.start(token);
        node.table.knowledge.version += 1;
        node.settings.instance = token;
        node.settings.seed = token;
        node.booted = self.time;
        let members = node.table.members.iter().map(|(device, member)| (*device, member.clone())).collect();
        let now = node.now(self.time);
        node.engine = Some(Engine::new(now, node.settings.clone(), node.table.knowledge.clone(), members));
        self.drain(at);
    }
    /// Power off: what was not committed is gone, and the others find their links broken.
    pub fn stop(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.engine = None;
        node.store.clear();
        node.reads.clear();
        node.looks.clear();
        node.stalled = false;
        self.cut_all(at);
    }
    pub fn cut_all(&mut self, at: usize) {
        let of: Vec<u64> = self.links.iter().filter(|(_, wire)| wire.ends.contains(&at)).map(|(id, _)| *id).collect();
        for id in of {
            let wire = self.links.remove(&id).expect("it was found above");
            wire.ends.into_iter().for_each(|end| self.drive(end, Input::Unlinked { link: LinkId(id) }));
        }
    }
    /// A link that neither dials again.
    pub fn link(&mut self, a: usize, b: usize) {
        self.connect(a, b, None);
    }
    fn connect(&mut self, a: usize, b: usize, target: Option<Target>) {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links.insert(link.0, Wire { ends: [a, b], ways: Default::default() });
        let (of_a, of_b) = (self.nodes[a].device, self.nodes[b].device);
        self.drive(b, Input::Linked { link, device: of_a, address: address(a), dialled: None });
        self.drive(a, Input::Linked { link, device: of_b, address: address(b), dialled: target });
    }

    /// Time passes.
    pub fn run(&mut self, millis: Millis) {
        for _ in 0..millis {
            self.step();
        }
    }
    /// Time passes until this holds, at most so long; says whether it does.
    pub fn run_until(&mut self, most: Millis, holds: impl Fn(&Bench) -> bool) -> bool {
        (0..most).any(|_| {
            self.step();
            holds(self)
        })
    }
    fn step(&mut self) {
        self.time += 1;
        let on_their_way: Vec<(u64, usize, usize)> = (self.links.iter())
            .flat_map(|(id, wire)| [(*id, 0, wire.ways[0].len()), (*id, 1, wire.ways[1].len())])
            .collect();
        for (id, way, count) in on_their_way {
            for _ in 0..count {
                let Some(wire) = self.links.get_mut(&id) else { break };
                let (to, link) = (wire.ends[1 - way], LinkId(id));
                match wire.ways[way].pop_front() {
                    Some(Some(message)) => self.drive(to, Input::Received { link, message }),
                    Some(None) => {
                        self.links.remove(&id);
                        self.drive(to, Input::Unlinked { link });
                    }
                    None => break,
                }
            }
        }
        for (from, bytes) in core::mem::take(&mut self.air) {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                if !self.deaf.contains(&(to, from)) && !self.deaf.contains(&(from, to)) {
                    self.drive(to, Input::Datagram { from: address(from), bytes: bytes.clone() });
                }
            }
        }
        for (from, target, to) in core::mem::take(&mut self.dials) {
            let to = (0..self.nodes.len()).find(|at| Some(address(*at)) == to && self.nodes[*at].engine.is_some());
            match to {
                Some(to) => self.connect(from, to, Some(target)),
                None => self.drive(from, Input::DialFailed { target, failure: DialFailure::Refused }),
            }
        }
        for at in 0..self.nodes.len() {
            self.disk(at);
            if self.nodes[at].engine.is_some() && self.nodes[at].due <= self.time {
                self.drive(at, Input::Tick);
            }
        }
    }
    fn disk(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let stores = if node.stalled { VecDeque::new() } else { core::mem::take(&mut node.store) };
        for (ticket, now, request) in stores {
            let Ok(answer) = execute(&mut self.nodes[at].table, now, request);
            self.drive(at, Input::Stored { ticket, result: Ok(answer) });
        }
        for (ticket, stream) in core::mem::take(&mut self.nodes[at].reads) {
            let Ok(batch) = read(&mut self.nodes[at].table, &stream);
            self.drive(at, Input::Streamed { ticket, result: Ok(batch) });
        }
        for (ticket, keys) in core::mem::take(&mut self.nodes[at].looks) {
            let Ok(found) = look(&mut self.nodes[at].table, &keys);
            self.drive(at, Input::Looked { ticket, result: Ok(found) });
        }
    }
    pub fn drive(&mut self, at: usize, input: Input) {
        let node = &mut self.nodes[at];
        let now = node.now(self.time);
        let Some(engine) = &mut node.engine else { return };
        engine.handle(now, input).expect("outputs are drained after each input");
        self.drain(at);
    }
    fn drain(&mut self, at: usize) {
        while let Some(output) = self.nodes[at].engine.as_mut().and_then(Engine::poll) {
            let node = &mut self.nodes[at];
            match output {
                Output::Send { link, message } => self.send(at, link, message),
                Output::Close { link } => {
                    if let Some(wire) = self.links.get_mut(&link.0) {
                        wire.ways[usize::from(wire.ends[0] != at)].push_back(None);
                    }
                }
                Output::Dial { target, addresses } => self.dials.push((at, target, addresses.first().copied())),
                Output::Announce { datagram } => self.air.push((at, datagram)),
                Output::Store { ticket, now, request } => node.store.push_back((ticket, now, request)),
                Output::Stream { ticket, stream } => node.reads.push_back((ticket, stream)),
                Output::Look { ticket, keys } => node.looks.push_back((ticket, keys)),
                Output::Answer { client, .. } => node.answers.push(client),
                Output::Changed { .. } | Output::Report { .. } => {}
                Output::Event(event) => node.events.push(event),
            }
        }
        let node = &mut self.nodes[at];
        let now = node.now(self.time);
        node.due = node.engine.as_ref().map_or(0, |engine| node.booted + engine.deadline(now));
    }
    fn send(&mut self, from: usize, link: LinkId, message: Message) {
        let Some(wire) = self.links.get_mut(&link.0) else { return };
        let way = usize::from(wire.ends[0] != from);
        let marked = self.nodes[from].table.knowledge.sent;
        self.sent.push(Sent { from, message: message.clone(), marked });
        wire.ways[way].push_back(Some(message));
    }

    /// A caller asks; gives the number that its answer will carry.
    pub fn ask(&mut self, at: usize, request: Client) -> u64 {
        self.last_client += 1;
        let client = self.last_client;
        self.drive(at, Input::Client { client, request });
        client
    }
    pub fn put(&mut self, at: usize, key: &str, value: &str) -> u64 {
        let (key, body) = (RowKey::replicated("x", key), Body::Live(value.into()));
        self.ask(at, Client::Write(vec![Write { key, body, expires_at: None, precondition: Precondition::None }]))
    }
    pub fn get(&self, at: usize, key: &str) -> Option<String> {
        get(&self.nodes[at].table, key)
    }
    /// A row rots, and somebody reads it.
    pub fn rot(&mut self, at: usize, key: &str, garble: impl FnOnce(&mut Head)) {
        let damaged = self.nodes[at].table.rot(&RowKey::replicated("x", key), garble).expect("it is there");
        self.drive(at, Input::Damaged(damaged));
    }
    /// Whether all that are up show the same documents, and at least one.
    pub fn agrees(&self) -> bool {
        let mut up = self.nodes.iter().filter(|node| node.engine.is_some()).map(|node| documents(&node.table));
        let first = up.next().unwrap_or_default();
        !first.is_empty() && up.all(|other| other == first)
    }
    pub fn engine(&self, at: usize) -> &Engine {
        self.nodes[at].engine.as_ref().expect("the story has it running")
    }
    pub fn now(&self, at: usize) -> Now {
        self.nodes[at].now(self.time)
    }
    /// How `at` sees `of`.
    pub fn peer(&self, at: usize, of: usize) -> Option<PeerView> {
        let device = self.nodes[of].device;
        self.engine(at).peers(self.now(at)).into_iter().find(|peer| peer.device == device)
    }
    /// Rows in all batches since the start.
    pub fn rows_sent(&self) -> usize {
        let rows = |sent: &Sent| if let Message::Changes(changes) = &sent.message { changes.rows.len() } else { 0 };
        self.sent.iter().map(rows).sum()
    }
    pub fn count(&self, at: usize, is: impl Fn(&Event) -> bool) -> usize {
        self.nodes[at].events.iter().filter(|event| is(event)).count()
    }
}

impl Node {
    fn now(&self, time: Millis) -> Now {
        Now { mono: time - self.booted, wall: self.wall + time, synchronised: self.synchronised }
    }
}
