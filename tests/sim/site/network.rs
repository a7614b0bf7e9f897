//! The network of a site: datagrams that are lost, doubled, late and out of order; links that keep order and are cut
//! anywhere; paths that are blocked, both ways or one way.

use super::{Event, Outcome, Site};
use cbddc::proto::{DialFailure, Input, LinkId, Target};
use cbddc::time::Millis;
use cbddc::wire::Message;
use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What is wrong with the paths.
#[derive(Default)]
pub struct Air {
    /// Nothing gets from the first to the second.
    pub blocked: BTreeSet<(usize, usize)>,
    /// Of 256 datagrams, so many are lost, and doubled.
    pub loss: u8,
    pub doubled: u8,
    pub delay: Millis,
}

pub struct Link {
    pub ends: [usize; 2],
    pub epochs: [u64; 2],
    /// `ways[i]` leads from `ends[i]` to the other.
    ways: [VecDeque<Packet>; 2],
    last: [Millis; 2],
    /// What flows here is new: the stream of this way has been at its sender's tail.
    live: [bool; 2],
}

enum Packet {
    Message(Box<Message>),
    Close,
}

pub fn address(host: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host as u8 + 1)), 7000)
}

impl Site {
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.air.blocked.contains(&(from, to))
    }
    fn latency(&mut self) -> Millis {
        let most = 3 + self.air.delay;
        self.rng.u64(0..most)
    }

    pub fn announce(&mut self, from: usize, datagram: &[u8]) {
        for to in 0..self.hosts.len() {
            if to == from || self.hosts[to].engine.is_none() || self.is_blocked(from, to) {
                continue;
            }
            let copies = match self.rng.u8(..) {
                byte if byte < self.air.loss => 0,
                byte if byte >= 255 - self.air.doubled => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let delay = self.latency() * 3;
                self.after(delay, Event::Datagram { host: to, from, bytes: datagram.to_vec() });
            }
        }
    }
    pub fn datagram(&mut self, to: usize, from: usize, bytes: Vec<u8>) -> Outcome {
        self.drive(to, Input::Datagram { from: address(from), bytes })
    }

    pub fn dial(&mut self, from: usize, target: Target, addresses: &[SocketAddr]) {
        let to = addresses.first().and_then(|dialled| (0..self.hosts.len()).find(|host| address(*host) == *dialled));
        let epoch = self.hosts[from].epoch;
        let reachable = to.filter(|to| !self.is_blocked(from, *to) && !self.is_blocked(*to, from));
        let Some(to) = reachable else {
            return self.after(300, Event::DialFailed { host: from, epoch, target, failure: DialFailure::TimedOut });
        };
        if self.hosts[to].engine.is_none() {
            return self.after(5, Event::DialFailed { host: from, epoch, target, failure: DialFailure::Refused });
        }
        let delay = 1 + 2 * self.latency();
        self.after(delay, Event::Up { ends: [from, to], epochs: [epoch, self.hosts[to].epoch], target });
    }
    pub fn dial_failed(&mut self, host: usize, epoch: u64, target: Target, failure: DialFailure) -> Outcome {
        if self.hosts[host].epoch != epoch {
            return Ok(());
        }
        self.drive(host, Input::DialFailed { target, failure })
    }
    pub fn up(&mut self, ends: [usize; 2], epochs: [u64; 2], target: Target) -> Outcome {
        let [from, to] = ends;
        if self.hosts[from].epoch != epochs[0] || self.hosts[from].engine.is_none() {
            return Ok(());
        }
        if self.hosts[to].epoch != epochs[1] || self.hosts[to].engine.is_none() {
            return self.drive(from, Input::DialFailed { target, failure: DialFailure::Refused });
        }
        self.next_link += 1;
        let link = self.next_link;
        let last = [self.time; 2];
        self.links.insert(link, Link { ends, epochs, ways: Default::default(), last, live: [false; 2] });
        let (dialler, listener) = (self.hosts[from].device, self.hosts[to].device);
        let id = LinkId(link);
        self.drive(to, Input::Linked { link: id, device: dialler, address: address(from), dialled: None })?;
        self.drive(from, Input::Linked { link: id, device: listener, address: address(to), dialled: Some(target) })
    }

    pub fn send(&mut self, from: usize, link: u64, message: Message) {
        self.put_on_link(from, link, Packet::Message(Box::new(message)));
    }
    pub fn close(&mut self, from: usize, link: u64) {
        self.put_on_link(from, link, Packet::Close);
    }
    fn put_on_link(&mut self, from: usize, id: u64, packet: Packet) {
        let latency = self.latency();
        let time = self.time;
        let Some(link) = self.links.get_mut(&id) else { return };
        let way = usize::from(link.ends[0] != from);
        link.ways[way].push_back(packet);
        link.last[way] = link.last[way].max(time + latency);
        let delay = link.last[way] - time;
        self.after(delay, Event::Flow { link: id, way });
    }
    /// The oldest packet of a way arrives, unless the path is blocked: then it waits, as TCP does.
    pub fn flow(&mut self, id: u64, way: usize) -> Outcome {
        let Some(link) = self.links.get_mut(&id) else { return Ok(()) };
        let (from, to, epoch) = (link.ends[way], link.ends[1 - way], link.epochs[1 - way]);
        if self.air.blocked.contains(&(from, to)) {
            self.after(100, Event::Flow { link: id, way });
            return Ok(());
        }
        let Some(packet) = link.ways[way].pop_front() else { return Ok(()) };
        if self.hosts[to].epoch != epoch {
            return Ok(());
        }
        match packet {
            Packet::Close => {
                self.links.remove(&id);
                self.drive(to, Input::Unlinked { link: LinkId(id) })
            }
            Packet::Message(message) => {
                let message = if self.rng.u8(..16) == 0 { over_the_wire(&message)? } else { *message };
                self.count_relays(id, way, &message);
                self.drive(to, Input::Received { link: LinkId(id), message })
            }
        }
    }
    /// Rows that are passed on to who has them by now: the price of a mesh in which nobody is in charge.
    fn count_relays(&mut self, id: u64, way: usize, message: &Message) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (from, to) = (link.ends[way], link.ends[1 - way]);
        match message {
            Message::Pull(_) => link.live[1 - way] = false,
            Message::Changes(changes) => {
                if link.live[way] {
                    let sender = self.hosts[from].table.knowledge.replica;
                    let known = &self.hosts[to].table.knowledge.vector;
                    let origins = changes.rows.iter().map(|row| row.dot);
                    let again = origins.filter(|dot| dot.origin != sender && known.covers(*dot)).count();
                    self.relayed_again += again as u64;
                }
                link.live[way] |= changes.closure.is_some();
            }
            _ => {}
        }
    }
    /// A link breaks: what was under way is lost, each end hears of it some time.
    pub fn break_link(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else { return };
        for end in [0, 1] {
            let delay = self.rng.u64(0..60);
            let event = Event::Unlinked { host: link.ends[end], epoch: link.epochs[end], link: LinkId(id) };
            self.after(delay, event);
        }
    }
    /// All links of a host that lost its power; sometimes nobody tells the others.
    pub fn lose_links(&mut self, host: usize) {
        let of_host: Vec<u64> =
            self.links.iter().filter(|(_, link)| link.ends.contains(&host)).map(|(id, _)| *id).collect();
        for id in of_host {
            match self.rng.u8(..4) {
                0 => {
                    self.links.remove(&id);
                }
                _ => self.break_link(id),
            }
        }
    }
    pub fn unlinked(&mut self, host: usize, epoch: u64, link: LinkId) -> Outcome {
        if self.hosts[host].epoch != epoch {
            return Ok(());
        }
        self.drive(host, Input::Unlinked { link })
    }
}

/// Through the encoder and the decoder: what arrives must be what was sent.
fn over_the_wire(message: &Message) -> Result<Message, String> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let payload = &bytes[cbddc::limits::FRAME_HEADER_BYTES..];
    match Message::decode(message.kind(), payload) {
        Ok(Some(back)) if back == *message => Ok(back),
        Ok(_) => Err(format!("wire: a {} came back different", message.name())),
        Err(error) => Err(format!("wire: {error}")),
    }
}
