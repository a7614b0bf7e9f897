//! What is asked of storage, and what its answers set going.
//!
//! A request goes out with a ticket, and what it was for is remembered under that. Nothing follows from a request before its
//! answer. What an answer means to a session is `receiving`, `sending` and `hello`.

use super::engine::Engine;
use super::io::{Client, Event, LinkId, Now, Output, StoreFault, Ticket};
use super::members::{MemberRecord, Standing};
use super::session::Session;
use crate::id::{DeviceId, LocalSeq, NodeId};
use crate::mutants::{Mutant, planted};
use crate::replica::{Knowledge, Precondition, Refused, Reply, Request, Write, Written};
use crate::row::{Body, Row, RowKey, Scope};
use crate::wire::Bye;
use alloc::vec::Vec;

/// What a request to storage was for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Pending {
    /// With the keys that it writes, where anything is damaged.
    Client {
        client: u64,
        system: bool,
        keys: Vec<RowKey>,
    },
    Meet {
        link: LinkId,
    },
    HeardOf,
    Apply {
        link: LinkId,
        stream: u32,
        upto: LocalSeq,
        closed: bool,
    },
    Stage {
        link: LinkId,
        stream: u32,
        upto: LocalSeq,
        closes: bool,
    },
    Bootstrap,
    MarkSent,
    Noted,
    Maintain,
    Fork,
    Records,
    Own,
    Repair {
        device: DeviceId,
        keys: Vec<RowKey>,
    },
}

impl Engine {
    pub(super) fn store(&mut self, now: Now, pending: Pending, request: Request) {
        let ticket = self.next_ticket();
        self.pending.insert(ticket, pending);
        let now = self.clock.reading(now);
        self.outputs.push_back(Output::Store { ticket, now, request });
    }
    pub(super) fn client(&mut self, now: Now, client: u64, request: Client) {
        let record = |device: DeviceId, standing: Standing, node_id: NodeId| Write {
            key: MemberRecord::key(&device),
            body: Body::Live(MemberRecord { node_id, standing }.encode()),
            expires_at: None,
            precondition: Precondition::None,
        };
        let name = |device: &DeviceId| self.members.by_device.get(device).map(|member| member.state.node_id.clone());
        let sending = self.sessions.values().any(|session| session.outgoing.is_some());
        let writes = match request {
            Client::Write(writes) => writes,
            Client::Decide(decision) => {
                let request = Request::Decide { decision, sending };
                return self.store(now, Pending::Client { client, system: true, keys: Vec::new() }, request);
            }
            Client::Untrack(device) => match name(&device) {
                Some(node_id) => alloc::vec![record(device, Standing::Untracked, node_id)],
                None => Vec::new(),
            },
            Client::Replace { old, new } => match name(&old) {
                Some(node_id) => alloc::vec![
                    record(old, Standing::Replaced, node_id.clone()),
                    record(new, Standing::Tracked, node_id)
                ],
                None => Vec::new(),
            },
        };
        if planted(Mutant::AnswerBeforeSync) {
            let early = writes.iter().map(|_| Err(crate::replica::Refused)).collect();
            self.outputs.push_back(Output::Answer { client, result: Ok(Reply::Written(early)) });
        }
        let system = writes.iter().any(|write| write.key.scope == Scope::System);
        let keys: Vec<RowKey> =
            if self.repairs.is_empty() { Vec::new() } else { writes.iter().map(|w| w.key.clone()).collect() };
        self.store(now, Pending::Client { client, system, keys }, Request::Write { writes, sending });
    }

    /// Storage's answers that concern no session; those of sessions are in `sync`.
    pub(super) fn stored(&mut self, now: Now, ticket: Ticket, result: Result<(Reply, Knowledge), StoreFault>) {
        let Some(pending) = self.pending.remove(&ticket) else { return };
        let (reply, knowledge) = match result {
            Ok((reply, knowledge)) => (Ok(reply), Some(knowledge)),
            Err(fault) => (Err(fault), None),
        };
        if let Some(knowledge) = knowledge {
            self.learn(now, knowledge);
        }
        match (pending, reply) {
            (Pending::Client { client, system, keys }, result) => {
                if let Ok(Reply::Written(written)) = &result
                    && written.iter().any(|one| one.is_ok_and(|written| written.changed))
                {
                    let changed = |(_, one): &(_, &Result<Written, Refused>)| one.is_ok_and(|written| written.changed);
                    self.overwritten(now, keys.iter().zip(written).filter(changed).map(|(key, _)| key));
                    self.own_rows_stored(now);
                }
                if let Ok(Reply::Decided(done)) = &result
                    && !done.written.is_empty()
                {
                    self.outputs.push_back(Output::Changed { keys: done.written.clone() });
                    self.own_rows_stored(now);
                }
                if !planted(Mutant::AnswerBeforeSync) {
                    self.outputs.push_back(Output::Answer { client, result });
                }
                if system {
                    self.store(now, Pending::Records, Request::Records);
                }
            }
            (Pending::Meet { link }, Ok(Reply::Met(device, member))) => {
                self.members.remember(device, member);
                self.met(now, link, device);
            }
            (Pending::Meet { link }, Ok(Reply::TwoHistories(_, common))) => self.two_histories(now, link, common),
            (Pending::Meet { link }, _) => self.store_failed(now, link),
            (Pending::HeardOf, Ok(Reply::Met(device, member))) => self.members.remember(device, member),
            (Pending::Apply { link, stream, upto, closed }, Ok(Reply::Applied(applied))) => {
                self.applied(now, link, stream, upto, closed, applied);
            }
            (Pending::Stage { link, stream, upto, closes }, Ok(Reply::Staged)) => {
                self.staged(now, link, stream, upto, closes);
            }
            (Pending::Apply { link, stream, .. } | Pending::Stage { link, stream, .. }, _) => {
                self.batch_refused(now, link, stream);
            }
            (Pending::Bootstrap, Ok(Reply::Bootstrapped(done))) => self.bootstrapped(now, done),
            // The others' streams were laid aside for it: giving the link up asks for them again.
            (Pending::Bootstrap, _) => self.bootstrapping.into_iter().for_each(|link| self.store_failed(now, link)),
            (Pending::MarkSent, Ok(_)) => self.flush_held(now),
            (Pending::MarkSent, Err(_)) => {
                let holds = |session: &&Session| session.outgoing.as_ref().is_some_and(|out| out.held.is_some());
                let links: Vec<LinkId> = self.sessions.values().filter(holds).map(|session| session.link).collect();
                links.into_iter().for_each(|link| self.store_failed(now, link));
            }
            (Pending::Maintain, Ok(Reply::Maintained(done))) => self.maintained(now, done),
            (Pending::Maintain, _) => self.upkeep.maintaining = false,
            (Pending::Fork, outcome) => {
                self.forking = false;
                if outcome.is_ok() {
                    self.event(Event::Forked { replica: self.knowledge.replica });
                    self.new_life_begun(now);
                } else {
                    // Whoever was met meanwhile was asked for nothing.
                    self.evaluate_all(now);
                }
            }
            (Pending::Records, Ok(Reply::Records(rows))) => self.records(&rows, now),
            (Pending::Repair { device, keys }, result) => {
                let repaired = match result {
                    Ok(Reply::Repaired(repaired)) => Ok(repaired),
                    Ok(_) => Err(StoreFault::Failed),
                    Err(fault) => Err(fault),
                };
                self.repaired(now, device, &keys, repaired);
            }
            (Pending::Own, _) => {
                self.own_rows_stored(now);
                self.store(now, Pending::Records, Request::Records);
            }
            (Pending::Noted | Pending::HeardOf | Pending::Records, _) => {}
        }
    }

    /// Takes what storage knows now, if that is later than what was known.
    pub(super) fn learn(&mut self, now: Now, knowledge: Knowledge) {
        if knowledge.version <= self.knowledge.version {
            return;
        }
        let vector_rose = knowledge.vector != self.knowledge.vector;
        self.knowledge = knowledge;
        if vector_rose {
            let vector = self.knowledge.vector.clone();
            self.members.checkpoint(now, &vector);
            self.announce_vector(now);
            // Also where no row came with it: whoever covers the same is dropped tombstones for.
            self.rows_relayed(now);
        }
    }

    fn records(&mut self, rows: &[Row], now: Now) {
        let changed = self.members.apply_records(rows, &self.settings.device);
        if !changed.is_empty() {
            // Whoever was refused may be welcome now, and waits no longer for it.
            self.dialler.forgive();
        }
        let standing = |session: &Session| self.members.by_device.get(&session.device).and_then(|m| m.standing);
        // Retired with its link open: whoever is still there links anew, which makes it a member again.
        let retired =
            |session: &&Session| changed.contains(&session.device) && standing(session) == Some(Standing::Untracked);
        let retired: Vec<LinkId> = self.sessions.values().filter(retired).map(|session| session.link).collect();
        retired.into_iter().for_each(|link| self.bye(now, link, Bye::Untracked));
        let refused =
            |session: &&Session| self.members.by_device.get(&session.device).is_some_and(|member| member.is_refused());
        let refused: Vec<LinkId> = self.sessions.values().filter(refused).map(|session| session.link).collect();
        refused.into_iter().for_each(|link| self.bye(now, link, Bye::NotAMember));
    }
}
