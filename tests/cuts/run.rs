//! One seed: two nodes that write, delete, expire, replicate, bootstrap, tidy, stop and start, until the power goes at a
//! call that the seed says; then what is there is compared with what was promised. Several times over the same disks.
//!
//! When the power goes, and what comes after. What a node does meanwhile is `steps`, what two do together `exchange`.

mod exchange;
mod steps;

use crate::backups;
use crate::bed::{Call, Failing, Fault, Plan};
use crate::ledger::{Ledger, Outcome};
use crate::media::Cut;
use crate::node::{Kept, Node};
use cbddc::id::{ReplicaId, VersionVector};
use cbddc::time::Reading;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a run did.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally(pub(crate) BTreeMap<&'static str, u64>);

impl Tally {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
    pub(crate) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
    pub(crate) fn add(&mut self, other: &Tally) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
    pub(crate) fn line(&self) -> String {
        self.0.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
    }
}

pub(crate) struct Run {
    random: fastrand::Rng,
    nodes: [Node; 2],
    ledger: Ledger,
    pub(crate) tally: Tally,
    now: u64,
    requests: u64,
    keys: u64,
    /// What node `i` has durably noted that the other has on its disk.
    noted: [(ReplicaId, VersionVector); 2],
    pub(crate) story: Option<Vec<String>>,
}

/// Which databases a search looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    Wal,
    Rollback,
    /// Both: each start may choose anew.
    Either,
}

const CUTS: u64 = 6;

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) tally: Tally,
    /// What was found.
    pub(crate) why: Option<String>,
    /// All that happened, where it was to be told.
    pub(crate) story: Vec<String>,
}

/// Runs a seed.
pub(crate) fn run(seed: u64, journal: Journal, tell: bool) -> Ended {
    let mut run = Run::new(seed, journal, tell);
    let why = run.lives(journal).and_then(|()| run.settle()).err();
    Ended { tally: std::mem::take(&mut run.tally), why, story: run.story.take().unwrap_or_default() }
}

impl Run {
    fn new(seed: u64, journal: Journal, tell: bool) -> Run {
        let mut random = fastrand::Rng::with_seed(seed);
        let wal = match journal {
            Journal::Wal => true,
            Journal::Rollback => false,
            Journal::Either => random.bool(),
        };
        let mut kept = Kept::new(wal);
        if random.u8(..8) == 0 {
            // Idle work beside everything: its moment is luck, so these alone need not be the same run again.
            kept.idle = Duration::from_micros(200);
        }
        kept.log_bytes = *random.choice(&[16 * 1024, 64 * 1024, 256 * 1024]).expect("three");
        let nodes = [Node::new(0, kept, seed), Node::new(1, kept, seed)];
        let keys = random.u64(3..30);
        let noted = [(ReplicaId::NONE, VersionVector::new()), (ReplicaId::NONE, VersionVector::new())];
        Run {
            random,
            nodes,
            ledger: Ledger::default(),
            tally: Tally::default(),
            now: 1_700_000_000_000,
            requests: 0,
            keys,
            noted,
            story: tell.then(Vec::new),
        }
    }
    fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(text());
        }
    }
    fn now(&mut self) -> Reading {
        self.now += 1;
        Reading { millis: self.now, believed: true }
    }

    fn lives(&mut self, journal: Journal) -> Outcome {
        // The first start of all may be cut as any other: the database is created in it.
        for at in [0, 1] {
            self.recover(at)?;
        }
        for _ in 0..CUTS {
            let victim = self.random.usize(..2);
            let plan = self.plan();
            self.nodes[victim].bed.plan(plan);
            let steps = self.random.usize(1..25);
            for _ in 0..steps {
                if self.nodes[victim].is_dead() {
                    break;
                }
                self.step()?;
            }
            self.nodes[victim].note_fault();
            if journal == Journal::Either {
                self.nodes[victim].kept.wal = self.random.bool();
            }
            let name = if victim == 0 { "a" } else { "b" };
            let killed = if self.nodes[victim].is_dead() { plan.kill } else { self.random.u8(..5) == 0 };
            if killed {
                self.say(|| format!("{name} is killed"));
                self.tally.count("kill");
                self.nodes[victim].kill();
            } else {
                let how = Cut::drawn(&mut self.random);
                self.cut(victim, how);
            }
            self.recover(victim)?;
        }
        Ok(())
    }
    /// When the power goes: at any call, in a sync, or soon after an error, when the store mends itself; there also the
    /// process alone.
    fn plan(&mut self) -> Plan {
        let calls = *self.random.choice(&[20, 100, 300, 1000]).expect("four");
        let mut plan = Plan { cut_at: Some(self.random.u64(..calls)), ..Plan::default() };
        match self.random.u8(..8) {
            0..3 => plan.failing = Some(self.failing(calls)),
            3..6 => (plan.cut_on, plan.cut_at) = (Some(Call::Sync), Some(self.random.u64(..25))),
            _ => {}
        }
        if let Some(failing) = plan.failing
            && self.random.bool()
        {
            plan.cut_at = Some(failing.from + self.random.u64(1..60));
            plan.kill = self.random.bool();
        }
        plan
    }
    fn failing(&mut self, calls: u64) -> Failing {
        let fault = if self.random.u8(..4) == 0 { Fault::Full } else { Fault::Io };
        let only = [None, Some(Call::Sync), Some(Call::Write)][self.random.usize(..3)];
        Failing { from: self.random.u64(..calls), count: self.random.u64(1..4), only, fault }
    }
    fn cut(&mut self, at: usize, how: Cut) {
        let node = &self.nodes[at];
        let (name, calls) = (node.name.clone(), node.bed.lock().calls);
        self.say(|| format!("the power of {} goes at call {calls}", name.as_str()));
        self.tally.count("cut");
        self.nodes[at].cut(how);
    }
    /// Starts a node after a cut; the power may go again meanwhile.
    fn recover(&mut self, at: usize) -> Outcome {
        while self.random.u8(..3) == 0 {
            let calls = *self.random.choice(&[30, 150]).expect("two");
            let plan = Plan { cut_at: Some(self.random.u64(..calls)), ..Plan::default() };
            self.nodes[at].bed.plan(plan);
            let started = self.nodes[at].start();
            if self.nodes[at].is_dead() {
                self.tally.count("cut in a start");
            } else if let Err(why) = started {
                return Err(format!("start: {why}"));
            }
            let how = Cut::drawn(&mut self.random);
            self.cut(at, how);
        }
        self.start(at)
    }
    fn start(&mut self, at: usize) -> Outcome {
        self.nodes[at].bed.plan(Plan::default());
        let started = self.nodes[at].start();
        let name = self.nodes[at].name.clone();
        self.say(|| format!("{} starts: {started:?}", name.as_str()));
        started.map_err(|why| format!("start: {why}"))?;
        self.ledger.check(&mut self.nodes[at])?;
        self.nodes[at].hurt = false;
        self.nodes[at].denied.clear();
        backups::check(&self.nodes[at])?;
        let (replica, noted) = &self.noted[at];
        let other = self.nodes[1 - at].device;
        if let Some((_, member)) = self.nodes[at].members.iter().find(|(device, _)| *device == other)
            && member.replica == *replica
            && !member.confirmed.includes(noted)
        {
            return Err(format!("lost: what the peer had confirmed, {noted:?}; there is {:?}", member.confirmed));
        }
        Ok(())
    }

    /// Without faults both come to hold the same, and nothing that was promised is missing.
    fn settle(&mut self) -> Outcome {
        for at in [0, 1] {
            self.nodes[at].bed.plan(Plan::default());
            if self.nodes[at].store.is_none() {
                self.start(at)?;
            }
        }
        for _ in 0..4 {
            for from in [0, 1] {
                self.exchange(from)?;
            }
            let (known, peers) = (self.known(0), self.known(1));
            if known.vector == peers.vector && known.digest == peers.digest {
                return self.restarted_whole();
            }
        }
        let (known, peers) = (self.known(0), self.known(1));
        Err(format!("convergence: {:?} {:x}, {:?} {:x}", known.vector, known.digest, peers.vector, peers.digest))
    }
    fn restarted_whole(&mut self) -> Outcome {
        for at in [0, 1] {
            self.nodes[at].stop().map_err(|why| format!("stop: {why}"))?;
            self.start(at)?;
        }
        Ok(())
    }
}
