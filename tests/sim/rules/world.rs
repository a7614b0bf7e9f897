//! Replicas with their disks and clocks, what happens to them, and what must hold after each step.

use super::Tally;
use super::session::Session;
use crate::judge::Judge;
use crate::ledger::show;
use crate::table::MemTable;
use cbddc::id::{DeviceId, LocalSeq, NodeId, VersionVector};
use cbddc::limits::CLOCK_MILLIS_MAX;
use cbddc::replica::{Precondition, Reply, Request, Retention, Write};
use cbddc::row::{Body, RowKey, Scope};
use cbddc::time::{Millis, Reading, Stamp};

/// A replica.
pub struct Node {
    pub device: DeviceId,
    pub name: NodeId,
    pub table: MemTable,
    pub alive: bool,
    pub visitor: bool,
    /// It takes another's state; the stage is in use.
    pub bootstrapping: bool,
    pub(super) offset: i64,
    pub(super) believed: bool,
    /// Where its next slice of maintenance starts.
    pub(super) slice_after: LocalSeq,
    pub(super) disks: Vec<MemTable>,
    /// Writes that were accepted while the disk refused them, oldest first.
    pub(super) queued: Vec<Write>,
}

/// Which faults a run may have, drawn from its seed: a run with all of them at once shows little.
pub struct Plan {
    keys: usize,
    pub(super) deaths: bool,
    pub(super) rollbacks: bool,
    pub(super) clones: bool,
    pub(super) early_drops: bool,
    pub(super) forced_drops: bool,
    pub(super) untracks: bool,
    pub(super) clock_jumps: bool,
    expiry: bool,
    /// Disks refuse writes for a while, which wait until they are taken.
    queues: bool,
    pub partial_members: bool,
    pub visitors: bool,
    /// A node that is bootstrapping goes on giving its old rows to others.
    pub lax_bootstrap: bool,
    /// Floors are looked at by senders when a stream is asked for, not again, and are not said on open links: what
    /// receivers look at must be enough.
    pub lax_floors: bool,
    pub(super) keep: Millis,
}

pub struct World {
    pub nodes: Vec<Node>,
    pub sessions: Vec<Session>,
    pub judge: Judge,
    pub plan: Plan,
    pub rng: fastrand::Rng,
    pub time: Millis,
    pub story: String,
    pub tally: Tally,
    pub(super) tell: bool,
    /// Faults have stopped.
    pub settling: bool,
    values: u64,
}

pub type Outcome = Result<(), String>;

impl World {
    pub fn new(seed: u64, tell: bool) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = Plan {
            keys: rng.usize(1..5),
            deaths: rng.u8(..3) == 0,
            rollbacks: rng.u8(..4) == 0,
            clones: rng.u8(..6) == 0,
            early_drops: rng.bool(),
            forced_drops: rng.bool(),
            untracks: rng.u8(..4) == 0,
            clock_jumps: rng.u8(..3) == 0,
            expiry: rng.u8(..4) == 0,
            // Not drawn: runs without it go as they went before there was a queue.
            queues: seed % 4 == 3,
            partial_members: rng.bool(),
            visitors: rng.u8(..4) == 0,
            lax_bootstrap: rng.bool(),
            lax_floors: rng.u8(..4) == 0,
            keep: rng.u64(1..200),
        };
        let count = rng.usize(2..7);
        let mut world = World {
            nodes: Vec::new(),
            sessions: Vec::new(),
            judge: Judge::default(),
            plan,
            rng,
            time: 1_000_000,
            story: String::new(),
            tally: Tally::default(),
            tell,
            settling: false,
            values: 0,
        };
        for at in 0..count {
            let mut table = MemTable::new(world.rng.u64(..));
            table.knowledge.start(world.rng.u64(..));
            let visitor = world.plan.visitors && world.rng.u8(..4) == 0;
            world.add(at, device(at), table, visitor);
        }
        world
    }
    pub(super) fn add(&mut self, at: usize, device: DeviceId, table: MemTable, visitor: bool) {
        self.nodes.push(Node {
            device,
            name: NodeId::new(&format!("n{at}")).expect("a short name"),
            table,
            alive: true,
            visitor,
            bootstrapping: false,
            offset: 0,
            believed: true,
            slice_after: 0,
            disks: Vec::new(),
            queued: Vec::new(),
        });
    }
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.tell {
            self.story.push_str(&format!("{:>8} {}\n", self.time, text()));
        }
    }
    pub fn reading(&self, node: usize) -> Reading {
        let node = &self.nodes[node];
        Reading { millis: self.time.saturating_add_signed(node.offset), believed: node.believed }
    }
    pub(super) fn alive(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].alive).collect();
        self.rng.choice(alive)
    }

    /// Carries out a request on a node's disk, then judges.
    pub fn run(&mut self, at: usize, request: Request) -> Result<Reply, String> {
        let now = self.reading(at);
        let (reply, _) = self.judge.execute(at, &mut self.nodes[at].table, now, request, true)?;
        Ok(reply)
    }

    /// One step, drawn from its own small seed.
    pub fn step(&mut self, seed: u64) -> Outcome {
        self.rng = fastrand::Rng::with_seed(seed);
        self.time += self.rng.u64(0..12);
        match self.rng.u8(..100) {
            0..22 => self.write(),
            22..34 => self.open(),
            34..80 => self.move_session(),
            80..90 => self.maintain(),
            _ => self.fault(),
        }
    }
    fn key(&mut self) -> RowKey {
        let key = ["a", "b", "c", "d"][self.rng.usize(..self.plan.keys)];
        let scope = match self.rng.u8(..20) {
            0 => Scope::Local,
            1 => Scope::System,
            _ => Scope::Replicated,
        };
        RowKey { scope, collection: "x".into(), key: key.into() }
    }
    fn write(&mut self) -> Outcome {
        let Some(at) = self.alive() else { return Ok(()) };
        let key = self.key();
        let now = self.reading(at);
        self.values += 1;
        let body = match self.rng.u8(..5) < 2 {
            true => Body::Tombstone,
            false => Body::Live(format!("v{}", self.values).into_bytes()),
        };
        let expires = self.plan.expiry && body != Body::Tombstone && self.rng.u8(..3) == 0;
        let expires_at = expires.then(|| now.millis + self.rng.u64(1..200));
        let mut write = Write { key, body, expires_at, precondition: Precondition::None };
        let waits = |queued: &[Write], write: &Write| queued.iter().any(|one| one.key == write.key);
        if self.plan.queues && (self.rng.u8(..4) == 0 || waits(&self.nodes[at].queued, &write)) {
            let known = &self.nodes[at].table.knowledge;
            let stamp = known.hlc.last().next().max(Stamp::new(now.millis.min(CLOCK_MILLIS_MAX), 0));
            // Above what was accepted before it, which may not have been written yet.
            let before = self.nodes[at].queued.iter().filter_map(|one| match one.precondition {
                Precondition::Accepted(stamp, _) => Some(stamp.next()),
                _ => None,
            });
            write.precondition = Precondition::Accepted(before.fold(stamp, Stamp::max), known.replica);
            self.tally.count("queued");
            self.say(|| format!("n{at} queues {write:?}"));
            self.nodes[at].queued.push(write);
            return if self.rng.bool() { self.take_queued(at) } else { Ok(()) };
        }
        self.store(at, write)
    }
    /// The disk takes the oldest write that waits.
    pub(super) fn take_queued(&mut self, at: usize) -> Outcome {
        if self.nodes[at].queued.is_empty() {
            return Ok(());
        }
        let write = self.nodes[at].queued.remove(0);
        // Once more, as after a stop between writing and forgetting.
        if self.rng.u8(..4) == 0 {
            self.store(at, write.clone())?;
        }
        self.store(at, write)
    }
    fn store(&mut self, at: usize, write: Write) -> Outcome {
        let key = write.key.clone();
        let sending = self.sessions.iter().any(|session| session.ends.contains(&at));
        let Reply::Written(written) = self.run(at, Request::Write { writes: vec![write], sending })? else {
            return Err("reply: not Written".into());
        };
        if written.first().is_some_and(|one| one.is_ok_and(|written| written.changed)) {
            let row =
                self.nodes[at].table.rows.of(&key).map(|(row, _)| row.clone()).ok_or("read own write: nothing")?;
            self.tally.count(if row.is_tombstone() { "delete" } else { "write" });
            self.say(|| format!("n{at} writes {}{}", show(&row), if sending { ", sent" } else { "" }));
        }
        Ok(())
    }
    fn open(&mut self) -> Outcome {
        let (Some(a), Some(b)) = (self.alive(), self.alive()) else { return Ok(()) };
        let linked = self.sessions.iter().any(|session| session.ends.contains(&a) && session.ends.contains(&b));
        if a == b || linked {
            return Ok(());
        }
        self.meet(a, b)
    }
    fn move_session(&mut self) -> Outcome {
        if self.sessions.is_empty() {
            return self.open();
        }
        let at = self.rng.usize(..self.sessions.len());
        for _ in 0..self.rng.usize(1..6) {
            if at < self.sessions.len() && !self.advance(at)? {
                break;
            }
        }
        Ok(())
    }
    fn maintain(&mut self) -> Outcome {
        let Some(at) = self.alive() else { return Ok(()) };
        let min_age = if self.plan.early_drops { 0 } else { 100 };
        let keep = if self.plan.forced_drops { self.plan.keep } else { Millis::MAX };
        self.maintain_node(at, min_age, keep)
    }
    pub fn maintain_node(&mut self, at: usize, min_age: Millis, keep: Millis) -> Outcome {
        let node = &self.nodes[at];
        let tracked = node.table.members.values().filter(|member| member.tracked);
        let confirmed_by_all = tracked.map(|member| member.confirmed.clone()).reduce(|met, vector| {
            met.iter()
                .filter_map(|dot| {
                    let seq = dot.seq.min(vector.of(dot.origin));
                    (seq > 0).then_some(cbddc::id::Dot { seq, ..dot })
                })
                .collect::<VersionVector>()
        });
        let served = self.sessions.iter().filter_map(|session| session.serves_bootstrap(at)).min();
        let upto = served.unwrap_or(LocalSeq::MAX);
        let slice = self.rng.usize(1..20);
        let after = node.slice_after;
        let tombstones_max = if self.rng.u8(..20) == 0 { 3 } else { u64::MAX };
        let retention =
            Retention { confirmed_by_all, min_age, keep, tombstones_max, bytes_over: 0, upto, after, slice };
        let Reply::Maintained(done) = self.run(at, Request::Maintain(retention))? else { return Err("reply".into()) };
        self.nodes[at].slice_after = done.next;
        if done.dropped > 0 {
            self.tally.count("drop");
            let floor = self.nodes[at].table.knowledge.floor.clone();
            self.say(|| format!("n{at} drops {} tombstones, floor {floor:?}", done.dropped));
            self.say_floor(at);
        }
        if !done.expired.is_empty() {
            self.tally.count("expire");
            self.say(|| format!("n{at} expires {}", done.expired.len()));
        }
        Ok(())
    }
}

pub(super) fn device(at: usize) -> DeviceId {
    DeviceId([at as u8 + 1; 32])
}
