//! One seed: two nodes that write, delete, expire, replicate, bootstrap, tidy, stop and start, until the power goes at a
//! call that the seed says; then what is there is compared with what was promised. Several times over the same disks.

use crate::backups;
use crate::bed::{Call, Failing, Fault, Plan};
use crate::ledger::{Ledger, Outcome, rows, value};
use crate::media::Cut;
use crate::node::{Answer, DATABASE, Kept, Node};
use crate::own::Own;
use cbddc::id::{ReplicaId, VersionVector};
use cbddc::replica::{
    Applied, Batch, Incoming, Knowledge, Meeting, Origin, Precondition, Reply, Request, Retention, Said, Stream, Write,
};
use cbddc::row::{Body, RowKey, Scope};
use cbddc::store::{BackupOrder, Store};
use cbddc::time::Reading;
use cbddc::wire::Mode;
use std::collections::BTreeMap;
use std::sync::Arc;
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
            self.nodes[victim].hurt |= self.nodes[victim].bed.lock().failed > 0;
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
        self.nodes[at].hurt = false;
        self.ledger.check(&mut self.nodes[at])?;
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

    // ---- steps ----

    fn step(&mut self) -> Outcome {
        let at = self.random.usize(..2);
        match self.random.u8(..20) {
            0..9 => self.write(at),
            9..15 => self.exchange(at).map(drop),
            15 => self.maintain(at),
            16 => self.read(at),
            17 => self.restart(at),
            18 if self.random.u8(..3) == 0 => self.bootstrap(at),
            18 => self.backup(at),
            19 if self.random.u8(..4) == 0 => self.restore(at),
            _ => self.write(at),
        }
    }
    fn key(&mut self) -> RowKey {
        RowKey::replicated("c", &format!("key-{:03}", self.random.u64(..self.keys)))
    }
    fn write(&mut self, at: usize) -> Outcome {
        let group = if self.random.u8(..3) == 0 { self.random.usize(2..8) } else { 1 };
        let (mut requests, mut numbers) = (Vec::new(), Vec::new());
        for _ in 0..group {
            self.requests += 1;
            let number = self.requests;
            let count = if self.random.bool() { 1 } else { self.random.usize(1..6) };
            let mut keys: Vec<RowKey> = (0..count).map(|_| self.key()).collect();
            keys.sort();
            keys.dedup();
            let writes = keys.iter().map(|key| {
                let bytes = *self.random.choice(&[10, 100, 900, 5000]).expect("four");
                let body = match self.random.u8(..6) {
                    0 => Body::Tombstone,
                    _ => Body::Live(value(number, key, bytes)),
                };
                let live = body != Body::Tombstone;
                let expires_at = (live && self.random.u8(..10) == 0).then(|| self.now + self.random.u64(1..40));
                Write { key: key.clone(), body, expires_at, precondition: Precondition::None }
            });
            let writes: Vec<Write> = writes.collect();
            requests.push(Request::Write { writes, sending: self.random.bool() });
            self.ledger.requests.insert(number, keys);
            self.nodes[at].open_requests.insert(number);
            numbers.push(number);
        }
        let now = self.now();
        // Later requests of the other node must be later in the order of all, too.
        self.now += group as u64;
        let asked = requests.clone();
        let answers = self.nodes[at].ask_together(now, requests);
        let name = if at == 0 { "a" } else { "b" };
        for ((answer, number), request) in answers.into_iter().zip(numbers).zip(asked) {
            self.say(|| format!("{name} writes {number}: {}", short(&answer)));
            match answer {
                Answer::Done(done) => {
                    let Reply::Written(written) = &done.0 else { return Err("reply: not Written".into()) };
                    let Request::Write { writes, .. } = request else { continue };
                    for (write, written) in writes.iter().zip(written) {
                        let Ok(written) = written else { return Err("refused without a condition".into()) };
                        if written.changed {
                            let rank = (written.stamp, written.origin, write.body == Body::Tombstone, 0);
                            self.nodes[at].promise(&write.key, rank);
                        }
                    }
                    self.nodes[at].open_requests.remove(&number);
                    self.tally.count("acknowledged");
                }
                Answer::Unknown(_) => self.tally.count("unknown"),
                Answer::Not(why) => {
                    if !self.nodes[at].hurt {
                        return Err(format!("refused without a fault: {why}"));
                    }
                    self.tally.count("denied");
                    self.nodes[at].open_requests.remove(&number);
                    self.nodes[at].denied.insert(number);
                }
            }
        }
        Ok(())
    }
    /// A request whose answer is all that is wanted; `None` where the disk has refused.
    fn ask(&mut self, at: usize, request: Request) -> Result<Option<Reply>, String> {
        let now = self.now();
        match self.nodes[at].ask(now, request) {
            Answer::Done(done) => Ok(Some(done.0)),
            Answer::Unknown(_) => Ok(None),
            Answer::Not(_) if self.nodes[at].hurt => Ok(None),
            Answer::Not(why) => Err(format!("refused without a fault: {why}")),
        }
    }
    fn known(&self, at: usize) -> Knowledge {
        self.nodes[at].known.clone().expect("it has started")
    }
    /// Each hears of the other.
    fn meet(&mut self, at: usize) -> Result<bool, String> {
        let other = &self.nodes[1 - at];
        let known = self.known(1 - at);
        let said = Said {
            replica: known.replica,
            starts: known.tokens.clone(),
            tail: known.tail,
            vector: known.vector.clone(),
            same_process: false,
        };
        let meeting =
            Meeting { device: other.device, node_id: other.name.clone(), tracked: Some(true), said: Some(said) };
        match self.ask(at, Request::Meet(meeting))? {
            Some(Reply::Met(_, member)) => {
                self.set_member(at, member);
                Ok(true)
            }
            Some(Reply::TwoHistories(..)) => Err("rolled back: the peer knows a start that is gone".into()),
            Some(other) => Err(format!("reply: {other:?}")),
            None => Ok(false),
        }
    }
    fn set_member(&mut self, at: usize, member: cbddc::replica::MemberState) {
        let other = self.nodes[1 - at].device;
        self.nodes[at].members.retain(|(device, _)| *device != other);
        self.nodes[at].members.push((other, member));
    }
    fn stream(&mut self, from: usize, mode: Mode, after: u64) -> Result<Option<Batch>, String> {
        let covers = self.known(1 - from).vector;
        let Some(store) = self.nodes[from].store.clone() else { return Ok(None) };
        match smol::block_on(store.read(Stream { mode, after, covers, passes_upto: 0 })) {
            Ok(batch) => Ok(Some(batch)),
            Err(_) if self.nodes[from].is_dead() || self.nodes[from].bed.lock().failed > 0 => Ok(None),
            Err(error) => Err(format!("reading a stream: {error}")),
        }
    }
    /// `from` sends what the other does not cover; the other confirms; that is noted. Says whether it came to the end.
    fn exchange(&mut self, from: usize) -> Result<bool, String> {
        let to = 1 - from;
        if !self.meet(to)? || !self.meet(from)? {
            return Ok(false);
        }
        let member = |run: &Run| {
            let device = run.nodes[from].device;
            run.nodes[to].members.iter().find(|(of, _)| *of == device).map(|(_, member)| member.clone())
        };
        let mut follows = None;
        loop {
            let Some(mut sender) = member(self) else { return Err("members: it has just been met".into()) };
            let Some(batch) = self.stream(from, Mode::Increment, sender.cursor)? else { return Ok(false) };
            let Batch::Rows { rows, upto, closure, own, knowledge, .. } = batch else {
                self.tally.count("below the floor");
                self.bootstrap(to)?;
                return Ok(false);
            };
            // As a link does it: what is durable at the sender, and only that, leaves it.
            if own > knowledge.sent && self.ask(from, Request::MarkSent { upto: own })?.is_none() {
                return Ok(false);
            }
            rows.iter().try_for_each(|row| self.ledger.see(row))?;
            let closed = closure.is_some();
            let asked_as = self.known(to).replica;
            let ranks: Vec<_> = rows.iter().map(|row| (row.key.clone(), row.rank(), row.dot)).collect();
            let incoming = Incoming {
                device: self.nodes[from].device,
                replica: knowledge.replica,
                announced: knowledge.vector.clone(),
                mode: Mode::Increment,
                asked_as,
                follows,
                rows,
                upto,
                closure,
            };
            follows = Some(upto);
            let before = self.known(to);
            let Some(reply) = self.ask(to, Request::Apply(incoming))? else { return Ok(false) };
            match reply {
                Reply::Applied(Applied::Applied { alarm, .. }) => {
                    if alarm {
                        return Err("digest: equal vectors, different documents".into());
                    }
                    self.say(|| format!("{from} sends {} rows, confirmed", ranks.len()));
                    for (key, rank, dot) in ranks {
                        if !before.vector.covers(dot) {
                            self.nodes[to].promise(&key, rank);
                        }
                    }
                    sender.cursor = sender.cursor.max(upto);
                    self.set_member(to, sender);
                    self.tally.count("confirmed");
                }
                Reply::Applied(Applied::SenderBelowFloor | Applied::ReceiverBelowFloor) => {
                    self.tally.count("below the floor");
                    return Ok(false);
                }
                other => return Err(format!("reply: {other:?}")),
            }
            let confirmed = self.known(to);
            let vectors = vec![(self.nodes[to].device, confirmed.replica, confirmed.vector.clone())];
            if self.ask(from, Request::Confirmed { vectors })?.is_none() {
                return Ok(false);
            }
            self.noted[from] = (confirmed.replica, confirmed.vector);
            if closed {
                return Ok(true);
            }
        }
    }
    /// It takes the whole state of the other.
    fn bootstrap(&mut self, to: usize) -> Outcome {
        let from = 1 - to;
        if !self.meet(to)? || !self.meet(from)? {
            return Ok(());
        }
        let (mut after, mut first, mut taken) = (0, true, BTreeMap::new());
        loop {
            let Some(batch) = self.stream(from, Mode::Bootstrap, after)? else { return Ok(()) };
            let Batch::Rows { rows, upto, closure, own, knowledge, .. } = batch else {
                return Err("a bootstrap has no floor".into());
            };
            if own > knowledge.sent && self.ask(from, Request::MarkSent { upto: own })?.is_none() {
                return Ok(());
            }
            rows.iter().try_for_each(|row| self.ledger.see(row))?;
            taken.extend(rows.iter().map(|row| (row.key.clone(), row.rank())));
            if self.ask(to, Request::Stage { first, rows })?.is_none() {
                return Ok(());
            }
            (after, first) = (upto, false);
            if let Some(closure) = closure {
                let (device, replica) = (self.nodes[from].device, knowledge.replica);
                let origin = Origin { device, replica, upto, closure };
                self.nodes[to].bootstrapping = true;
                let random = self.random.u64(..);
                self.say(|| format!("{from} is put in force at {to}"));
                if self.ask(to, Request::Bootstrap { origin, random })?.is_none() {
                    return Ok(());
                }
                self.tally.count("bootstrap");
                self.nodes[to].promised = taken;
                if let Some((_, member)) = self.nodes[to].members.iter_mut().find(|(of, _)| *of == device) {
                    member.cursor = upto;
                }
                return self.rebase(to);
            }
        }
    }
    /// What stands there now is what is promised.
    fn rebase(&mut self, at: usize) -> Outcome {
        match rows(&self.nodes[at]) {
            Ok((rows, knowledge)) => {
                let node = &mut self.nodes[at];
                node.promised = rows.iter().map(|row| (row.key.clone(), row.rank())).collect();
                node.known = Some(knowledge);
                (node.bootstrapping, node.restoring) = (false, false);
                node.dropping = false;
                node.open_requests.clear();
                Ok(())
            }
            // After the cut it is found out which of the two states it is.
            Err(_) if self.nodes[at].is_dead() || self.nodes[at].bed.lock().failed > 0 => Ok(()),
            Err(why) => Err(why),
        }
    }
    fn maintain(&mut self, at: usize) -> Outcome {
        let (replica, vector) = self.noted[at].clone();
        let known = self.nodes[1 - at].known.as_ref().map(|known| known.replica);
        let confirmed_by_all = Some(vector).filter(|vector| !vector.is_empty() && known == Some(replica));
        let retention = Retention {
            confirmed_by_all,
            min_age: 0,
            keep: u64::MAX,
            tombstones_max: u64::MAX,
            bytes_over: 0,
            upto: u64::MAX,
            after: 0,
            slice: self.random.usize(1..40),
        };
        self.nodes[at].dropping = true;
        if let Some(Reply::Maintained(done)) = self.ask(at, Request::Maintain(retention))? {
            self.tally.count(if done.dropped > 0 { "tombstones dropped" } else { "maintained" });
            return self.rebase(at);
        }
        Ok(())
    }
    fn read(&mut self, at: usize) -> Outcome {
        let key = self.key();
        let (now, Some(store)) = (self.now, self.nodes[at].store.clone()) else { return Ok(()) };
        let found = match smol::block_on(store.get(Scope::Replicated, &key.collection, &key.key, now)) {
            Ok(found) => found,
            Err(_) if self.nodes[at].is_dead() || self.nodes[at].bed.lock().failed > 0 => return Ok(()),
            Err(error) => return Err(format!("reading: {error}")),
        };
        let promised = self.nodes[at].promised.get(&key).filter(|promised| !promised.2);
        match (promised, found) {
            (Some(promised), Some((document, _)))
                if (document.version.stamp, document.version.origin) < (promised.0, promised.1) =>
            {
                Err(format!("stale: {} was promised at {promised:?}, read is {:?}", key.key, document.version))
            }
            _ => Ok(()),
        }
    }
    fn backup(&mut self, at: usize) -> Outcome {
        let Some(store) = self.nodes[at].store.clone() else { return Ok(()) };
        let node = &mut self.nodes[at];
        let promised = node.promised.clone();
        let order = BackupOrder { folder: node.bed.path(backups::FOLDER), keep: 2, now: self.now };
        let made = smol::block_on(store.backup(order));
        node.hurt |= node.bed.lock().failed > 0;
        match made {
            Ok(made) => {
                let name = made.path.file_name().and_then(|name| name.to_str()).ok_or("backup: no name")?;
                if !made.unchanged {
                    node.backup = Some((name.into(), promised));
                }
                self.tally.count("backup");
                self.say(|| format!("{at} is backed up: {made:?}"));
            }
            Err(_) if self.nodes[at].is_dead() || self.nodes[at].hurt => {}
            Err(error) => return Err(format!("backup: {error}")),
        }
        self.calm(at);
        Ok(())
    }
    /// What the writing thread still does is part of this step.
    fn calm(&mut self, at: usize) {
        let now = self.now();
        if let Some(store) = &self.nodes[at].store {
            let _ = smol::block_on(store.submit(now, Request::Records));
        }
    }
    /// The newest backup takes the place of the database, with the cut somewhere in it, or not.
    fn restore(&mut self, at: usize) -> Outcome {
        if self.nodes[at].backup.is_none() {
            return Ok(());
        }
        let _ = self.nodes[at].stop();
        self.noted[at] = (ReplicaId::NONE, VersionVector::new());
        let node = &mut self.nodes[at];
        // Another identity and older rows are right from here on.
        (node.bootstrapping, node.restoring) = (true, true);
        let (database, file) = (node.bed.path(DATABASE), node.bed.path(backups::LATEST));
        let done = Store::restore_on(&Own(Arc::clone(&node.bed)), &database, &file);
        node.hurt |= node.bed.lock().failed > 0;
        self.say(|| format!("{at} is restored: {done:?}"));
        match done {
            Ok(_) => self.tally.count("restore"),
            Err(_) if self.nodes[at].is_dead() => return Ok(()),
            Err(_) if self.nodes[at].hurt => {}
            Err(error) => return Err(format!("restore: {error}")),
        }
        match self.nodes[at].start() {
            Ok(()) => self.rebase(at),
            Err(_) if self.nodes[at].is_dead() => Ok(()),
            Err(_) if self.nodes[at].hurt => self.cut_or_start(at),
            Err(why) => Err(format!("start of a backup: {why}")),
        }
    }
    /// An orderly stop and a start, with the cut somewhere in it, or not.
    fn restart(&mut self, at: usize) -> Outcome {
        let stopped = self.nodes[at].stop();
        let (dead, failed) = (self.nodes[at].is_dead(), self.nodes[at].bed.lock().failed > 0);
        self.nodes[at].hurt |= failed;
        if let Err(why) = stopped
            && !dead
            && !failed
        {
            return Err(format!("stop: {why}"));
        }
        self.tally.count("stop");
        if dead {
            return Ok(());
        }
        let started = self.nodes[at].start();
        let failed = self.nodes[at].bed.lock().failed > 0;
        match started {
            Ok(()) => Ok(()),
            Err(_) if self.nodes[at].is_dead() => Ok(()),
            // A start that the disk refused is tried again when the disk is well.
            Err(_) if failed => {
                self.nodes[at].hurt = true;
                self.cut_or_start(at)
            }
            Err(why) => Err(format!("start: {why}")),
        }
    }
    fn cut_or_start(&mut self, at: usize) -> Outcome {
        if self.random.bool() {
            let how = Cut::drawn(&mut self.random);
            self.cut(at, how);
        }
        self.start(at)
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

fn short(answer: &Answer) -> String {
    match answer {
        Answer::Done(done) => format!("done, version {}", done.1.version),
        Answer::Unknown(why) => format!("unknown: {why}"),
        Answer::Not(why) => format!("not done: {why}"),
    }
}
