//! One host: an engine on a disk with group commit, a machine clock, and what its outputs do.

use super::{Event, Outcome, START, Site};
use crate::ledger::show;
use crate::table::MemTable;
use cbddc::id::{DeviceId, NodeId};
use cbddc::proto::{Engine, Event as Said, Input, Now, Output, Settings, StoreFault, Ticket};
use cbddc::replica::{Knowledge, Reply, Request};
use cbddc::retry::RetryPolicy;
use cbddc::row::Row;
use cbddc::time::{Millis, Reading};
use cbddc::wire::Message;
use std::collections::{BTreeMap, BTreeSet};

/// So many of the keys have large documents, in a run that has any.
pub(super) const LARGE_KEYS: usize = 4;

/// What became of a request, and whether it could change documents.
pub(super) type Answer = (Ticket, Result<(Reply, Knowledge), StoreFault>, bool);

pub struct Host {
    pub device: DeviceId,
    pub name: NodeId,
    pub visitor: bool,
    /// None while it is down.
    pub engine: Option<Engine>,
    /// Rises at each stop: what was meant for an earlier life comes to nothing.
    pub epoch: u64,
    pub dead: bool,
    pub table: MemTable,
    pub disk_before: Option<MemTable>,
    pub wall_offset: i64,
    pub synchronised: bool,
    pub booted: Millis,
    pub slow_until: Millis,
    pub faulty_until: Millis,
    pub(super) queue: Vec<(Ticket, Reading, Request)>,
    /// Requests in the commit that runs, or is durable and not answered yet.
    pub(super) committing: usize,
    /// What storage answers soon: until then the engine does not know what a reader may see already.
    pub(super) answers: Vec<Answer>,
    tick_at: Millis,
    /// The tickets of callers' requests, and the tickets that are durable.
    pub(super) callers: BTreeMap<u64, Ticket>,
    pub(super) durable: BTreeSet<Ticket>,
}

impl Host {
    pub fn new(device: DeviceId, name: NodeId, table: MemTable, visitor: bool) -> Host {
        Host {
            device,
            name,
            visitor,
            engine: None,
            epoch: 0,
            dead: false,
            table,
            disk_before: None,
            wall_offset: 0,
            synchronised: true,
            booted: 0,
            slow_until: 0,
            faulty_until: 0,
            queue: Vec::new(),
            committing: 0,
            answers: Vec::new(),
            tick_at: 0,
            callers: BTreeMap::new(),
            durable: BTreeSet::new(),
        }
    }
    pub fn now(&self, time: Millis) -> Now {
        Now {
            mono: time - self.booted,
            wall: (START + time).saturating_add_signed(self.wall_offset),
            synchronised: self.synchronised,
        }
    }
    /// Nothing waits that could still change documents. Maintenance never ends and may meet every look.
    pub fn is_idle(&self) -> bool {
        self.queue.iter().all(|(_, _, request)| tidies(request)) && self.answers.iter().all(|(_, _, tidies)| *tidies)
    }
}

pub(super) fn tidies(request: &Request) -> bool {
    matches!(request, Request::Maintain(_) | Request::Confirmed { .. })
}

impl Site {
    /// Power on.
    pub fn start(&mut self, at: usize, epoch: u64) -> Outcome {
        let (token, instance, seed) = (self.rng.u64(..), self.rng.u64(1..), self.rng.u64(..));
        let host = &mut self.hosts[at];
        if host.dead || host.epoch != epoch || host.engine.is_some() {
            return Ok(());
        }
        host.booted = self.time;
        host.table.knowledge.start(token);
        host.table.knowledge.version += 1;
        let settings = Settings {
            node_id: host.name.clone(),
            device: host.device,
            instance,
            visitor: host.visitor,
            tcp_port: 7000,
            keys: vec![self.key.clone()],
            discovery: true,
            beacon_interval: 400,
            fixed_peers: 0,
            retry: RetryPolicy::new(3, 100),
            links_max: self.plan.links_max,
            window_bytes: self.plan.window_bytes,
            tombstone_min_age: self.plan.min_age,
            tombstone_keep: self.plan.keep,
            maintain_interval: 200,
            build_millis: START - 86_400_000 * 100,
            seed,
        };
        let now = host.now(self.time);
        let members = host.table.members.iter().map(|(device, member)| (*device, member.clone())).collect();
        host.engine = Some(Engine::new(now, settings, host.table.knowledge.clone(), members));
        self.say(|| format!("n{at} starts"));
        self.drain(at)?;
        self.set_timer(at);
        Ok(())
    }
    /// Power off: what was not committed is gone.
    pub fn stop(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.engine = None;
        host.epoch += 1;
        host.queue.clear();
        host.committing = 0;
        host.answers.clear();
        host.callers.clear();
        host.durable.clear();
        self.lose_links(at);
    }
    /// One input, then all its outputs.
    pub fn drive(&mut self, at: usize, input: Input) -> Outcome {
        let host = &mut self.hosts[at];
        let now = host.now(self.time);
        let Some(engine) = &mut host.engine else { return Ok(()) };
        engine.handle(now, input).map_err(|undrained| format!("undrained: n{at}: {undrained}"))?;
        self.drain(at)?;
        self.set_timer(at);
        Ok(())
    }
    pub(super) fn set_timer(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(engine) = &host.engine else { return };
        let due = host.booted + engine.deadline(host.now(self.time));
        if host.tick_at <= self.time || due < host.tick_at {
            host.tick_at = due;
            let delay = due - self.time;
            self.after(delay, Event::Tick { host: at });
        }
    }
    pub fn tick(&mut self, at: usize) -> Outcome {
        if self.hosts[at].tick_at != self.time {
            return Ok(());
        }
        self.drive(at, Input::Tick)
    }

    fn drain(&mut self, at: usize) -> Outcome {
        while let Some(output) = self.hosts[at].engine.as_mut().and_then(Engine::poll) {
            self.carry_out(at, output)?;
        }
        Ok(())
    }
    pub(super) fn carry_out(&mut self, at: usize, output: Output) -> Outcome {
        {
            match output {
                Output::Send { link, message } => {
                    self.check_message(at, &message)?;
                    self.send(at, link.0, message);
                }
                Output::Close { link } => self.close(at, link.0),
                Output::Dial { target, addresses } => self.dial(at, target, &addresses),
                Output::Announce { datagram } => self.announce(at, &datagram),
                Output::Store { ticket, now, request } => {
                    let host = &mut self.hosts[at];
                    host.queue.push((ticket, now, request));
                    if host.committing == 0 {
                        self.begin_commit(at);
                    }
                }
                Output::Stream { ticket, stream } => {
                    let epoch = self.hosts[at].epoch;
                    let delay = self.rng.u64(0..self.plan.card);
                    self.after(delay, Event::Read { host: at, epoch, ticket, stream });
                }
                Output::Look { ticket, keys } => {
                    let epoch = self.hosts[at].epoch;
                    let delay = self.rng.u64(0..self.plan.card);
                    self.after(delay, Event::Look { host: at, epoch, ticket, keys });
                }
                Output::Answer { client, result } => {
                    let host = &mut self.hosts[at];
                    let ticket = host.callers.remove(&client);
                    if result.is_ok() && ticket.is_none_or(|ticket| !host.durable.remove(&ticket)) {
                        return Err(format!("answer: n{at}: answered before it was on disk"));
                    }
                }
                Output::Changed { .. } | Output::Report { .. } => {}
                Output::Event(event) => self.said(at, event)?,
            }
        }
        Ok(())
    }
    fn said(&mut self, at: usize, event: Said) -> Outcome {
        let count = match &event {
            Said::DigestsDiffer { .. } => "alarm",
            Said::BootstrapDone { .. } => "bootstrap",
            Said::BootstrapStarted { .. } => "bootstrap begun",
            Said::Forked { .. } => "fork mended",
            Said::PeerForked { .. } => "fork noticed",
            Said::DeviceCloned => "clone noticed",
            Said::ApplyFailed { .. } => "apply failed",
            Said::InSync { .. } => "in sync",
            Said::Mended { .. } => "row mended",
            Said::Unlinked { .. } | Said::Linked { .. } => "session ends and begins",
            _ => return Ok(()),
        };
        self.tally.count(count);
        self.say(|| format!("n{at}: {event:?}"));
        let forks = matches!(event, Said::DigestsDiffer { .. } | Said::Forked { .. } | Said::DeviceCloned);
        if forks && !self.judge.ledger.any_fork() {
            let known = self.hosts.iter().map(|host| {
                let known = &host.table.knowledge;
                let members = host.table.members.values().map(|m| (m.node_id.as_str(), m.heard, m.cursor, &m.tokens));
                let members: Vec<_> = members.collect();
                format!(
                    "{} seq {} tail {} {:?} tokens {:?} {members:?}\n",
                    host.name, known.seq, known.tail, known.vector, known.tokens
                )
            });
            let known: String = known.collect();
            self.say(|| known);
            return Err(format!("alarm: n{at}: {event:?} though no disk had a second life"));
        }
        if matches!(event, Said::DeviceCloned) {
            // The shell takes a new key and with it a new name.
            self.stop(at);
            let fresh = self.hosts.len() + 100 + at;
            let host = &mut self.hosts[at];
            (host.device, host.name) = (super::device(fresh), super::name(fresh));
            let epoch = host.epoch;
            self.after(100, Event::Start { host: at, epoch });
        }
        Ok(())
    }
    fn check_message(&mut self, at: usize, message: &Message) -> Outcome {
        let host = &self.hosts[at];
        // A new life may be on disk while its answer is on the way: what is said then is of the old one, and counts for it.
        let disk = &host.table.knowledge;
        let same_life = host.engine.as_ref().is_some_and(|engine| engine.knowledge().replica == disk.replica);
        let rows = match message {
            Message::Changes(changes) => &changes.rows[..],
            Message::Fetched(fetched) => &fetched.rows[..],
            _ => &[],
        };
        let unmarked = |row: &&Row| same_life && row.dot.origin == disk.replica && row.dot.seq > disk.sent;
        if let Some(row) = rows.iter().find(unmarked) {
            return Err(format!("sent: n{at}: {} leaves before that is on disk", show(row)));
        }
        match message {
            Message::Confirm(confirm) if same_life && !disk.vector.includes(&confirm.vector) => {
                Err(format!("confirm: n{at}: confirmed before it was on disk"))
            }
            Message::Changes(changes) => {
                self.tally.0.entry("rows sent").and_modify(|sent| *sent += changes.rows.len() as u64).or_default();
                match changes.rows.iter().find(|row| !row.is_well_formed()) {
                    Some(row) => Err(format!("wire: n{at}: {} must not leave the node", show(row))),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
