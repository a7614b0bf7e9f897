//! What one node of a run does between two cuts: it writes, reads, tidies, is backed up, restored, stopped and started.

use super::Run;
use crate::ledger::{Outcome, rows, value};
use crate::media::Cut;
use crate::node::Answer;
use cbddc::id::{ReplicaId, VersionVector};
use cbddc::replica::{Precondition, Reply, Request, Retention, Write};
use cbddc::row::{Body, RowKey, Scope};

impl Run {
    pub(super) fn step(&mut self) -> Outcome {
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
    /// What stands there now is what is promised.
    pub(super) fn rebase(&mut self, at: usize) -> Outcome {
        match rows(&self.nodes[at]) {
            Ok((rows, knowledge)) => {
                self.nodes[at].rebase(&rows, knowledge);
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
        match self.nodes[at].backup(self.now)? {
            Ok(made) => {
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
        self.noted[at] = (ReplicaId::NONE, VersionVector::new());
        let done = self.nodes[at].restore();
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
        let dead = self.nodes[at].is_dead();
        if let Err(why) = &stopped
            && !dead
            && !self.nodes[at].hurt
        {
            return Err(format!("stop: {why}"));
        }
        self.tally.count("stop");
        if dead {
            return Ok(());
        }
        if stopped.is_ok() && self.random.u8(..3) == 0 {
            self.age(at)?;
        }
        match self.nodes[at].start() {
            Ok(()) => Ok(()),
            Err(_) if self.nodes[at].is_dead() => Ok(()),
            // A start that the disk refused is tried again when the disk is well.
            Err(_) if self.nodes[at].hurt => self.cut_or_start(at),
            Err(why) => Err(format!("start: {why}")),
        }
    }
    /// The next start finds the schema of an earlier release.
    fn age(&mut self, at: usize) -> Outcome {
        let aged = self.nodes[at].age();
        self.nodes[at].note_fault();
        match aged {
            Ok(true) => {
                self.tally.count("migration");
                self.say(|| format!("{at} has the first schema"));
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(_) if self.nodes[at].is_dead() || self.nodes[at].hurt => Ok(()),
            Err(error) => Err(format!("to the first schema: {error}")),
        }
    }
    fn cut_or_start(&mut self, at: usize) -> Outcome {
        if self.random.bool() {
            let how = Cut::drawn(&mut self.random);
            self.cut(at, how);
        }
        self.start(at)
    }
}

fn short(answer: &Answer) -> String {
    match answer {
        Answer::Done(done) => format!("done, version {}", done.1.version),
        Answer::Unknown(why) => format!("unknown: {why}"),
        Answer::Not(why) => format!("not done: {why}"),
    }
}
