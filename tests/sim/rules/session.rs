//! A session between two replicas as a correct link would hold it: Hello, streams in both directions, confirmations;
//! messages in order, cut anywhere.

use super::world::{Outcome, World};
use cbddc::id::{DeviceId, LocalSeq, ReplicaId, VersionVector};
use cbddc::replica::{Applied, Batch, Incoming, Origin, Reply, Request, Stream, read};
use cbddc::row::Row;
use cbddc::wire::{Closure, Mode};
use std::collections::VecDeque;

pub struct Session {
    pub ends: [usize; 2],
    pub(super) lives: [ReplicaId; 2],
    /// `ways[i]` leads from `ends[i]` to the other end.
    pub(super) ways: [Way; 2],
}

/// One direction.
pub(super) struct Way {
    /// The stream that flows here, if any.
    pub(super) stream: Option<Stream>,
    /// The sender's knowledge when it last closed the stream.
    pub(super) closed_at: Option<u64>,
    pub(super) queue: VecDeque<Packet>,
    /// What the receiver knows that the sender covers.
    pub(super) announced: VersionVector,
    pub(super) first: bool,
    pub(super) reconciled: bool,
}

pub(super) enum Packet {
    Rows { mode: Mode, rows: Vec<Row>, upto: LocalSeq, closure: Option<Closure> },
    Confirm { vector: VersionVector, relayed: Vec<(DeviceId, ReplicaId, VersionVector)> },
    Floor { vector: VersionVector, floor: VersionVector },
}

impl Session {
    /// How far a node has served a bootstrap here.
    pub fn serves_bootstrap(&self, node: usize) -> Option<LocalSeq> {
        let way = &self.ways[self.ends.iter().position(|end| *end == node)?];
        way.stream.as_ref().filter(|stream| stream.mode == Mode::Bootstrap).map(|stream| stream.after)
    }
}

impl World {
    pub fn cut(&mut self, session: usize, why: &'static str) {
        let gone = self.sessions.swap_remove(session);
        self.tally.count(why);
        let [a, b] = gone.ends;
        self.say(|| format!("the session of n{a} and n{b} ends: {why}"));
        for (from, way) in gone.ways.iter().enumerate() {
            if way.stream.as_ref().is_some_and(|stream| stream.mode == Mode::Bootstrap) {
                self.nodes[gone.ends[1 - from]].bootstrapping = false;
            }
        }
    }
    pub fn cut_all(&mut self, node: usize) {
        while let Some(at) = self.sessions.iter().position(|session| session.ends.contains(&node)) {
            self.cut(at, "cut");
        }
    }
    /// A raised floor is said on open links.
    pub fn say_floor(&mut self, node: usize) {
        if self.plan.lax_floors {
            return;
        }
        let known = &self.nodes[node].table.knowledge;
        for session in &mut self.sessions {
            if let Some(from) = session.ends.iter().position(|end| *end == node) {
                let (vector, floor) = (known.vector.clone(), known.floor.clone());
                session.ways[from].queue.push_back(Packet::Floor { vector, floor });
            }
        }
    }

    /// One thing happens on a session; false when it is over.
    pub fn advance(&mut self, session: usize) -> Result<bool, String> {
        let from = self.rng.usize(..2);
        match self.rng.u8(..12) {
            0..5 => self.send(session, from, true),
            5..10 => self.deliver(session, from),
            _ => {
                self.confirm(session, from);
                Ok(true)
            }
        }
    }
    /// Both directions to their ends, without faults, until there is nothing more to say.
    pub fn exchange(&mut self, a: usize, b: usize) -> Outcome {
        for _ in 0..4 {
            self.sessions.clear();
            self.meet(a, b)?;
            if self.sessions.is_empty() {
                continue;
            }
            let mut open = true;
            for _ in 0..6 {
                for from in [0, 1] {
                    for _ in 0..3 {
                        open = open && self.send(0, from, false)?;
                        open = open && self.deliver(0, from)?;
                    }
                    if open {
                        self.confirm(0, from);
                        open = self.deliver(0, from)?;
                    }
                }
            }
            if open {
                break;
            }
        }
        self.sessions.clear();
        for at in [a, b] {
            self.nodes[at].bootstrapping = false;
        }
        Ok(())
    }

    /// The sender reads its next batch.
    fn send(&mut self, session: usize, from: usize, cruel: bool) -> Result<bool, String> {
        let it = &mut self.sessions[session];
        let sender = it.ends[from];
        let way = &mut it.ways[from];
        let node = &mut self.nodes[sender];
        let Some(stream) = &mut way.stream else { return Ok(true) };
        if way.queue.len() > 4 || way.closed_at == Some(node.table.knowledge.version) {
            return Ok(true);
        }
        let floor = node.table.knowledge.floor.clone();
        if self.plan.lax_floors {
            node.table.knowledge.floor = VersionVector::new();
        }
        let Ok(mut batch) = read(&mut node.table, stream);
        if let Batch::Rows { closure: Some(closure), .. } = &mut batch {
            closure.floor = floor.clone();
        }
        node.table.knowledge.floor = floor;
        let Batch::Rows { mut rows, mut upto, mut closure, mut own, .. } = batch else {
            self.cut(session, "below floor when sending");
            return Ok(false);
        };
        if cruel && !rows.is_empty() && self.rng.bool() {
            rows.truncate(self.rng.usize(1..=rows.len()));
            upto = node.table.rows.keys[&rows[rows.len() - 1].key];
            closure = None;
            let mine = rows.iter().filter(|row| row.dot.origin == node.table.knowledge.replica);
            own = mine.map(|row| row.dot.seq).max().unwrap_or(0);
        }
        if let Some(row) = rows.iter().find(|row| !row.is_well_formed()) {
            return Err(format!("wire: {} must not leave the node", super::super::ledger::show(row)));
        }
        way.closed_at = closure.as_ref().map(|_| node.table.knowledge.version);
        stream.after = upto;
        let mode = stream.mode;
        let sent = node.table.knowledge.sent;
        if own > sent {
            self.run(sender, Request::MarkSent { upto: own })?;
        }
        let known = &self.nodes[sender].table.knowledge;
        let it = &mut self.sessions[session];
        let way = &mut it.ways[from];
        way.closed_at = closure.as_ref().map(|_| known.version);
        way.queue.push_back(Packet::Rows { mode, rows, upto, closure });
        Ok(true)
    }
    /// `ends[from]` says what it has on disk.
    fn confirm(&mut self, session: usize, from: usize) {
        let me = self.sessions[session].ends[from];
        let node = &self.nodes[me];
        let vector = node.table.knowledge.vector.clone();
        let known = node.table.members.iter().filter(|(_, member)| member.has_confirmed);
        let known: Vec<_> = known.map(|(device, m)| (*device, m.replica, m.confirmed.clone())).collect();
        let relayed = self.rng.choose_multiple(known, 2);
        self.sessions[session].ways[from].queue.push_back(Packet::Confirm { vector, relayed });
    }
    /// The oldest message of a direction arrives.
    fn deliver(&mut self, session: usize, from: usize) -> Result<bool, String> {
        let it = &mut self.sessions[session];
        let Some(packet) = it.ways[from].queue.pop_front() else { return Ok(true) };
        let (sender, receiver, life) = (it.ends[from], it.ends[1 - from], it.lives[from]);
        let asked_as = it.lives[1 - from];
        let device = self.nodes[sender].device;
        match packet {
            Packet::Confirm { vector, relayed } => {
                it.ways[from].announced.join(&vector);
                if let Some(stream) = &mut it.ways[1 - from].stream {
                    stream.covers.join(&vector);
                }
                let mut vectors = vec![(device, life, vector)];
                vectors.extend(relayed.into_iter().filter(|(of, ..)| *of != self.nodes[receiver].device));
                self.run(receiver, Request::Confirmed { vectors })?;
                Ok(true)
            }
            Packet::Floor { vector, floor } => {
                it.ways[from].announced.join(&vector);
                let known = &self.nodes[receiver].table.knowledge;
                if !known.vector.includes(&floor) || !vector.includes(&known.floor) {
                    self.cut(session, "below floor on an open link");
                    return Ok(false);
                }
                Ok(true)
            }
            Packet::Rows { mode: Mode::Bootstrap, rows, upto, closure } => {
                let first = std::mem::replace(&mut it.ways[from].first, false);
                self.say(|| format!("n{receiver} stages {} rows of n{sender}", rows.len()));
                self.run(receiver, Request::Stage { first, rows })?;
                let Some(closure) = closure else { return Ok(true) };
                let origin = Origin { device, replica: life, upto, closure };
                let random = self.rng.u64(..);
                let reply = self.run(receiver, Request::Bootstrap { origin, random })?;
                self.tally.count("bootstrap");
                let known = &self.nodes[receiver].table.knowledge;
                let text = format!("n{receiver} bootstrapped from n{sender}: {reply:?}, now {:?}", known.vector);
                self.say(|| text);
                self.cut_all(receiver);
                Ok(false)
            }
            Packet::Rows { mode, rows, upto, closure } => {
                let announced = it.ways[from].announced.clone();
                let text: Vec<String> = rows.iter().map(super::super::ledger::show).collect();
                let closes = if closure.is_some() { ", closed" } else { "" };
                if !text.is_empty() || !self.settling {
                    self.say(|| format!("n{sender} -> n{receiver}: {text:?} upto {upto}{closes}"));
                }
                let incoming =
                    Incoming { device, replica: life, announced, mode, asked_as, follows: None, rows, upto, closure };
                let Reply::Applied(applied) = self.run(receiver, Request::Apply(incoming))? else {
                    return Err("reply: not Applied".into());
                };
                self.applied(session, from, applied)
            }
        }
    }
    fn applied(&mut self, session: usize, from: usize, applied: Applied) -> Result<bool, String> {
        let receiver = self.sessions[session].ends[1 - from];
        match applied {
            Applied::Applied { alarm: false, .. } => Ok(true),
            Applied::Applied { .. } => {
                self.tally.count("alarm");
                self.say(|| format!("n{receiver}: alarm"));
                if !self.judge.ledger.any_fork() {
                    return Err(format!("alarm: n{receiver}: equal vectors, different documents"));
                }
                let way = &mut self.sessions[session].ways[from];
                if !std::mem::replace(&mut way.reconciled, true) {
                    way.queue.clear();
                    way.closed_at = None;
                    let covers = way.stream.as_ref().map(|stream| stream.covers.clone()).unwrap_or_default();
                    way.stream = Some(Stream { mode: Mode::Reconcile, after: 0, covers, passes_upto: 0 });
                }
                Ok(true)
            }
            Applied::SenderBelowFloor => {
                self.cut(session, "sender below floor");
                Ok(false)
            }
            Applied::ReceiverBelowFloor => {
                self.cut(session, "receiver below floor");
                Ok(false)
            }
            Applied::RolledBack => {
                if !self.judge.ledger.any_fork() {
                    return Err(format!("false fork: n{receiver} takes itself for a fork"));
                }
                self.fork(receiver, 0)?;
                Ok(false)
            }
            Applied::Gap => Err("gap: every batch was taken".into()),
            Applied::Held { .. } => Err("held: no row rots here".into()),
            Applied::TooManyReplicas => Err("replicas: too many".into()),
        }
    }
}
