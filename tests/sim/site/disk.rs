//! The disk of a host: group commits that take their time, fail or lose their answer, and readers beside them.

use super::host::tidies;
use super::{Event, Outcome, Site};
use crate::ledger::show;
use cbddc::proto::{Input, StoreFault, Ticket};
use cbddc::replica::{Damaged, Request, Stream, Write, look, read};
use cbddc::row::{Body, RowKey};

impl Site {
    pub(super) fn begin_commit(&mut self, at: usize) {
        let slow = self.hosts[at].slow_until > self.time;
        let latency = if slow { self.rng.u64(100..500) } else { self.rng.u64(1..8) };
        let host = &mut self.hosts[at];
        host.committing = host.queue.len();
        let epoch = host.epoch;
        self.after(latency, Event::Commit { host: at, epoch });
    }
    /// The commit is durable: its requests have happened, all at once.
    pub fn commit(&mut self, at: usize, epoch: u64) -> Outcome {
        if self.hosts[at].epoch != epoch {
            return Ok(());
        }
        let count = self.hosts[at].committing;
        let batch: Vec<_> = self.hosts[at].queue.drain(..count).collect();
        let fails = self.hosts[at].faulty_until > self.time && self.rng.bool();
        let (happens, unknown) = (!fails || self.rng.u8(..3) == 0, self.rng.bool());
        let mut answers = Vec::new();
        for (ticket, now, request) in batch {
            let text = if self.tell { describe(&request) } else { None };
            let tidies = tidies(&request);
            let answer = if happens {
                let thorough = self.rng.u8(..40) == 0 || self.plan.thorough;
                let host = &mut self.hosts[at];
                let answer = self.judge.execute(at, &mut host.table, now, request, thorough);
                if let (Err(_), Some(text)) = (&answer, &text) {
                    self.story.push_str(&format!("{:>7} n{at} {text}\n", self.time));
                }
                let (answer, host) = (answer?, &mut self.hosts[at]);
                host.durable.insert(ticket);
                if let Some(text) = text {
                    let reply = format!("{:?}", answer.0);
                    self.say(|| format!("n{at} {text} => {}", reply.chars().take(150).collect::<String>()));
                }
                Some(answer)
            } else {
                None
            };
            let fault = if happens || unknown { StoreFault::Unknown } else { StoreFault::Failed };
            answers.push((ticket, answer.filter(|_| !fails).ok_or(fault), tidies));
        }
        if self.plan.faults.contains(&super::faults::Fault::Crash) && !self.settling && self.rng.u16(..2000) == 0 {
            self.tally.count("crash after commit");
            return self.crash(at);
        }
        self.hosts[at].answers = answers;
        let most = if self.rng.u8(..8) == 0 { 40 } else { self.plan.card };
        let delay = self.rng.u64(0..most);
        self.after(delay, Event::Answers { host: at, epoch });
        Ok(())
    }
    pub fn answers(&mut self, at: usize, epoch: u64) -> Outcome {
        if self.hosts[at].epoch != epoch {
            return Ok(());
        }
        self.hosts[at].committing = 0;
        for (ticket, result, _) in std::mem::take(&mut self.hosts[at].answers) {
            if self.hosts[at].epoch != epoch {
                return Ok(());
            }
            self.drive(at, Input::Stored { ticket, result })?;
            if !self.hosts[at].callers.values().any(|of| *of == ticket) {
                self.hosts[at].durable.remove(&ticket);
            }
        }
        let host = &self.hosts[at];
        if host.epoch == epoch && host.committing == 0 && !host.queue.is_empty() {
            self.begin_commit(at);
        }
        Ok(())
    }
    /// Rows are looked up for a peer.
    pub fn look(&mut self, at: usize, epoch: u64, ticket: Ticket, keys: &[RowKey]) -> Outcome {
        if self.hosts[at].epoch != epoch {
            return Ok(());
        }
        let Ok(found) = look(&mut self.hosts[at].table, keys);
        self.drive(at, Input::Looked { ticket, result: Ok(found) })
    }
    /// Somebody reads whatever is damaged on this disk.
    pub fn meet_damage(&mut self, at: usize) -> Outcome {
        let table = &self.hosts[at].table;
        let met: Vec<Damaged> = (table.damaged.keys())
            .map(|at| Damaged { local_seq: *at, key: table.rows.rows.get(at).map(|(row, _)| row.key.clone()) })
            .collect();
        met.into_iter().try_for_each(|damaged| self.drive(at, Input::Damaged(damaged)))
    }
    pub fn read(&mut self, at: usize, epoch: u64, ticket: Ticket, stream: Stream) -> Outcome {
        if self.hosts[at].epoch != epoch {
            return Ok(());
        }
        let faulty = self.hosts[at].faulty_until > self.time && self.rng.u8(..4) == 0;
        let Ok(batch) = read(&mut self.hosts[at].table, &stream);
        let result = if faulty { Err(StoreFault::Failed) } else { Ok(batch) };
        self.drive(at, Input::Streamed { ticket, result })
    }
}

fn describe(request: &Request) -> Option<String> {
    match request {
        Request::Write { writes, sending } => {
            let body = |write: &Write| match &write.body {
                Body::Live(value) => String::from_utf8_lossy(value).trim_end().to_owned(),
                Body::Tombstone => "deleted".into(),
            };
            let keys: Vec<String> = writes.iter().map(|write| format!("{}={}", write.key.key, body(write))).collect();
            Some(format!("writes {keys:?}{}", if *sending { ", sent" } else { "" }))
        }
        Request::Apply(incoming) => {
            let rows: Vec<String> = incoming.rows.iter().map(show).collect();
            let closes = incoming.closure.as_ref().map(|closure| &closure.vector);
            Some(format!(
                "applies {:?} {rows:?} of {} upto {} closure {closes:?}",
                incoming.mode, incoming.replica, incoming.upto
            ))
        }
        Request::Bootstrap { .. } => Some("bootstraps".into()),
        Request::Stage { first, rows } => Some(format!("stages {} rows, first {first}", rows.len())),
        Request::Fork { shared, .. } => Some(format!("forks, shared {shared}")),
        _ => None,
    }
}
