//! What goes wrong at a site, drawn from the seed: which kinds, and when.

use super::{Event, Outcome, Site};
use cbddc::proto::Client;
use cbddc::row::{Head, Row};
use cbddc::time::{Millis, Stamp};
use std::rc::Rc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::enum_variant_names, reason = "a fault of the store is called so everywhere")]
pub enum Fault {
    Crash,
    Death,
    Rollback,
    Clone,
    Cut,
    Partition,
    OneWay,
    Jump,
    Untrack,
    SlowCard,
    StoreFault,
    Rot,
}

impl Fault {
    pub const ALL: [Fault; 11] = [
        Fault::Crash,
        Fault::Death,
        Fault::Rollback,
        Fault::Clone,
        Fault::Cut,
        Fault::Partition,
        Fault::OneWay,
        Fault::Jump,
        Fault::Untrack,
        Fault::SlowCard,
        Fault::StoreFault,
    ];
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::Death => "death",
            Fault::Rollback => "rollback",
            Fault::Clone => "clone",
            Fault::Cut => "cut",
            Fault::Partition => "partition",
            Fault::OneWay => "one-way cut",
            Fault::Jump => "clock jump",
            Fault::Untrack => "untrack",
            Fault::SlowCard => "slow card",
            Fault::StoreFault => "store fault",
            Fault::Rot => "bit rot",
        }
    }
}

/// One run's circumstances.
#[derive(Clone)]
pub struct Plan {
    pub nodes: usize,
    pub operations: usize,
    pub keys: usize,
    pub bulk: usize,
    /// Mean milliseconds between two callers.
    pub pause: Millis,
    pub length: Millis,
    pub faults: Vec<Fault>,
    pub links_max: usize,
    pub window_bytes: usize,
    pub min_age: Millis,
    pub keep: Millis,
    pub expiry: bool,
    pub visitors: bool,
    pub no_rtc: bool,
    pub loss: u8,
    pub doubled: u8,
    pub delay: Millis,
    /// Longest time of a read, and of an answer after the commit: a slow card.
    pub card: Millis,
    /// Bytes of each document at some of the keys: with them a bootstrap takes several batches.
    pub large: usize,
    pub thorough: bool,
}

impl Plan {
    /// Drawn from the seed. A run with all faults at once shows little, so each is in or out.
    pub fn of(seed: u64) -> Plan {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = match rng.u8(..32) {
            0..22 => rng.usize(3..5),
            22..30 => rng.usize(5..8),
            30 => rng.usize(8..13),
            _ => rng.usize(13..21),
        };
        let faults = Fault::ALL.into_iter().filter(|fault| match fault {
            Fault::Crash | Fault::Cut => rng.bool(),
            Fault::Rollback | Fault::Clone => rng.u8(..6) == 0,
            _ => rng.u8(..4) == 0,
        });
        let faults: Vec<Fault> = faults.collect();
        // Of its own, so that the other runs are those that they were.
        let mut rot = fastrand::Rng::with_seed(seed ^ 0x0b17_2075);
        let rots = rot.u8(..4) == 0;
        let mut card = fastrand::Rng::with_seed(seed ^ 0x510c_a2d5);
        let mut plan = Plan {
            faults,
            nodes,
            operations: 500,
            keys: rng.usize(2..16),
            bulk: 24,
            pause: 70,
            length: 4_500,
            links_max: if rng.u8(..4) == 0 { rng.usize(2..4) } else { 8 },
            window_bytes: if rng.bool() { 64 } else { 64 * 1024 },
            min_age: if rng.bool() { 0 } else { 1_000 },
            keep: if rng.u8(..3) == 0 { rng.u64(50..2_000) } else { Millis::MAX },
            expiry: rng.u8(..4) == 0,
            visitors: rng.u8(..8) == 0,
            no_rtc: rng.u8(..5) == 0,
            loss: if rng.u8(..3) == 0 { rng.u8(1..100) } else { 0 },
            doubled: if rng.u8(..3) == 0 { 40 } else { 0 },
            delay: if rng.u8(..4) == 0 { rng.u64(1..60) } else { 0 },
            card: if card.u8(..4) == 0 { card.u64(10..120) } else { 3 },
            large: 0,
            thorough: false,
        };
        // A member that nobody has a link to cannot be asked for what is damaged, and is waited for an hour; one that is untracked
        // is not waited for, whatever it has.
        if rots && plan.links_max >= plan.nodes && !plan.faults.contains(&Fault::Untrack) {
            plan.faults.push(Fault::Rot);
        }
        // Small sites can be looked at closely, and their callers write less at once.
        if plan.nodes <= 4 && rng.u8(..8) == 0 {
            plan.bulk = 8;
            plan.pause = 30;
        }
        // Large documents make a run slow.
        if plan.nodes <= 4 && rng.u8(..16) == 0 {
            (plan.large, plan.keys) = (24 * 1024, 12);
            plan.keep = rng.u64(50..1_000);
        }
        plan
    }
}

impl Site {
    /// A fault strikes; where it cannot, it tries again a little later.
    pub fn fault(&mut self, fault: Fault) -> Outcome {
        if self.settling {
            return Ok(());
        }
        if self.strike(fault)? {
            self.tally.count(fault.name());
        } else {
            self.after(40, Event::Fault(fault));
        }
        Ok(())
    }
    fn strike(&mut self, fault: Fault) -> Result<bool, String> {
        let up: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].engine.is_some()).collect();
        let Some(at) = self.rng.choice(&up).copied() else { return Ok(false) };
        let others: Vec<usize> = up.iter().copied().filter(|other| *other != at).collect();
        let Some(other) = self.rng.choice(&others).copied() else { return Ok(false) };
        let pause = self.rng.u64(100..1_500);
        match fault {
            Fault::Crash => self.crash(at)?,
            Fault::Death => {
                if self.hosts.iter().filter(|host| !host.dead).count() <= 2 {
                    return Ok(true);
                }
                self.say(|| format!("n{at} dies"));
                self.stop(at);
                self.hosts[at].dead = true;
                self.lost(at);
            }
            Fault::Rollback => {
                let Some(disk) = self.hosts[at].disk_before.take() else {
                    self.hosts[at].disk_before = Some(self.hosts[at].table.clone());
                    let saved = self.hosts.iter().position(|host| host.disk_before.is_some());
                    let Some(saved) = saved.filter(|saved| *saved != at) else { return Ok(true) };
                    return self.roll_back(saved).map(|()| true);
                };
                self.hosts[at].disk_before = Some(disk);
                self.roll_back(at)?;
            }
            Fault::Clone => {
                if self.hosts.len() > 20 || self.judge.ledger.any_fork() && self.rng.bool() {
                    return Ok(true);
                }
                let fresh = self.clone_card(at);
                // On the other half of a site that is split, both go on under one name and are believed: nothing but the
                // digests tells afterwards what one half has skipped as known.
                if (fresh + at) % 2 == 1 && self.rng.bool() {
                    self.tally.count("clone on the other half");
                    self.split(pause);
                }
            }
            Fault::Cut => {
                let links: Vec<u64> = self.links.keys().copied().collect();
                let Some(link) = self.rng.choice(links) else { return Ok(false) };
                self.break_link(link);
                if self.rng.u8(..4) > 0 {
                    self.after(pause / 2, Event::Fault(fault));
                }
            }
            Fault::Partition => self.split(pause),
            Fault::OneWay => {
                self.air.blocked.insert((at, other));
                self.say(|| format!("nothing gets from n{at} to n{other}"));
                self.after(pause, Event::Heal(fault, at, other));
            }
            Fault::Jump => {
                let far = 40 * 365 * 86_400_000;
                let offset = match self.rng.u8(..5) {
                    0 => far,
                    1 => -far,
                    2 => 0,
                    _ => self.rng.i64(-5_000..5_000),
                };
                let host = &mut self.hosts[at];
                (host.wall_offset, host.synchronised) = (offset, self.rng.bool());
                self.liars |= host.synchronised && offset != 0;
                self.say(|| format!("n{at}: clock {offset:+}"));
            }
            Fault::Untrack => {
                let device = self.hosts[other].device;
                self.say(|| format!("n{at} untracks n{other}"));
                self.ask(at, Client::Untrack(device))?;
            }
            Fault::Rot => return Ok(self.rot(at)),
            Fault::SlowCard => self.hosts[at].slow_until = self.time + pause,
            Fault::StoreFault => self.hosts[at].faulty_until = self.time + pause / 4,
        }
        Ok(true)
    }
    /// Bits of a row rot on a card, while that of a tracked member has it or a later one; half the time its head says something else
    /// from then on.
    fn rot(&mut self, at: usize) -> bool {
        let table = &self.hosts[at].table;
        let peers = self.hosts[at].engine.iter().flat_map(|engine| engine.peers(self.hosts[at].now(self.time)));
        let tracked: Vec<_> = peers.filter(|peer| peer.tracked).map(|peer| peer.device).collect();
        let elsewhere = |row: &Row| {
            let mut others = self.hosts.iter().filter(|host| !host.dead && tracked.contains(&host.device));
            others.any(|host| {
                let known = host.table.knowledge.vector.covers(row.dot);
                let there = host.table.readable(&row.key);
                there.is_some_and(|there| there.dot == row.dot || (known && there.rank() >= row.rank()))
            })
        };
        let fit = |(row, head): &&(Rc<Row>, Head)| {
            let whole = !row.is_local() && !table.damaged.contains_key(&head.local_seq);
            whole && head.local_seq <= table.knowledge.covered_upto && elsewhere(row)
        };
        let rows: Vec<&Row> = table.rows.rows.values().filter(fit).map(|(row, _)| &**row).collect();
        // Sooner one of which somebody has an older version still: taking that would undo a write.
        let older = |row: &&Row| {
            let mut others = self.hosts.iter().filter(|host| tracked.contains(&host.device));
            others.any(|host| host.table.readable(&row.key).is_some_and(|there| there.rank() < row.rank()))
        };
        let sooner: Vec<&Row> = rows.iter().copied().filter(older).collect();
        if sooner.is_empty() && self.rng.u8(..4) > 0 {
            return false;
        }
        let Some(row) = self.rng.choice(if sooner.is_empty() { rows } else { sooner }) else { return false };
        let key = row.key.clone();
        let (garbled, shift) = (self.rng.bool(), self.rng.u64(..2_000));
        self.hosts[at].table.rot(&key, |head| {
            if garbled {
                head.stamp = Stamp::new(head.stamp.millis().saturating_add(1_000).saturating_sub(shift), 0);
                // One that nobody covers: what looks like a row that the receiver has is passed over unseen until somebody
                // reads it, and then the digests mend it.
                head.dot.seq = 1_000_000 + shift;
            }
        });
        self.say(|| format!("n{at}: {} rots, garbled {garbled}", key.key));
        let delay = self.rng.u64(..800);
        self.after(delay, Event::Met { host: at });
        true
    }
    fn clone_card(&mut self, at: usize) -> usize {
        let disk = self.hosts[at].table.clone();
        self.judge.ledger.note_second_life(&disk);
        self.say(|| format!("n{at} is cloned"));
        let fresh = self.add(disk, Some(at));
        let disk = self.hosts[fresh].table.clone();
        self.judge.new_disk(fresh, &disk);
        fresh
    }
    fn split(&mut self, pause: Millis) {
        for host in 0..self.hosts.len() {
            for far in 0..self.hosts.len() {
                if host % 2 != far % 2 {
                    self.air.blocked.insert((host, far));
                }
            }
        }
        self.say(|| "the site is split into even and odd".into());
        self.after(pause, Event::Heal(Fault::Partition, 0, 0));
    }
    pub fn heal(&mut self, fault: Fault, a: usize, b: usize) {
        match fault {
            Fault::OneWay => {
                self.air.blocked.remove(&(a, b));
            }
            _ => self.air.blocked.clear(),
        }
    }
    pub fn crash(&mut self, at: usize) -> Outcome {
        self.say(|| format!("n{at} loses its power"));
        self.stop(at);
        let pause = self.rng.u64(10..1_000);
        let epoch = self.hosts[at].epoch;
        self.after(pause, Event::Start { host: at, epoch });
        Ok(())
    }
    /// The card of a host is as it was before.
    pub fn roll_back(&mut self, at: usize) -> Outcome {
        let Some(disk) = self.hosts[at].disk_before.take() else { return Ok(()) };
        self.say(|| format!("n{at} is rolled back"));
        self.stop(at);
        self.judge.ledger.note_second_life(&disk);
        self.judge.new_disk(at, &disk);
        let (replica, seq) = (disk.knowledge.replica, disk.knowledge.seq);
        let others = self.hosts.iter().enumerate().filter(|(other, host)| *other != at && !host.dead);
        // Who knows only through others may meet it when it has written as much again: then only the digests tell.
        let device = self.hosts[at].device;
        let knows = |(_, host): &(usize, &super::Host)| {
            let met = host.table.members.get(&device).filter(|member| member.replica == replica);
            met.is_some_and(|member| member.heard > seq)
        };
        let witnesses: Vec<usize> = others.filter(knows).map(|(other, _)| other).collect();
        if !witnesses.is_empty() {
            self.must_change.push((at, replica, witnesses));
        }
        self.hosts[at].table = disk;
        self.lost(at);
        let epoch = self.hosts[at].epoch;
        self.after(200, Event::Start { host: at, epoch });
        Ok(())
    }
    fn lost(&mut self, at: usize) {
        let alive = self.hosts.iter().filter(|host| !host.dead).map(|host| &host.table);
        self.judge.ledger.excuse(at, alive);
    }
}
