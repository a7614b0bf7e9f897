//! One host: an engine on a disk with group commit, a machine clock, and what its outputs do.

use super::{Event, Outcome, START, Site};
use crate::ledger::show;
use crate::table::MemTable;
use cbddc::id::{DeviceId, NodeId};
use cbddc::proto::{Client, Engine, Event as Said, Input, Now, Output, Settings, StoreFault, Ticket};
use cbddc::replica::{Knowledge, Precondition, Reply, Request, Stream, Write, read};
use cbddc::row::{Body, RowKey, Scope};
use cbddc::time::{Millis, Reading};
use cbddc::wire::Message;
use std::collections::{BTreeMap, BTreeSet};

/// So many of the keys have large documents, in a run that has any.
const LARGE_KEYS: usize = 4;

/// What became of a request, and whether it could change documents.
type Answer = (Ticket, Result<(Reply, Knowledge), StoreFault>, bool);

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
    queue: Vec<(Ticket, Reading, Request)>,
    /// Requests in the commit that runs, or is durable and not answered yet.
    committing: usize,
    /// What storage answers soon: until then the engine does not know what a reader may see already.
    answers: Vec<Answer>,
    tick_at: Millis,
    /// The tickets of callers' requests, and the tickets that are durable.
    callers: BTreeMap<u64, Ticket>,
    durable: BTreeSet<Ticket>,
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

fn tidies(request: &Request) -> bool {
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
            retry_delay: 100,
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
    fn set_timer(&mut self, at: usize) {
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
    fn carry_out(&mut self, at: usize, output: Output) -> Outcome {
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
                    let delay = self.rng.u64(0..3);
                    self.after(delay, Event::Read { host: at, epoch, ticket, stream });
                }
                Output::Answer { client, result } => {
                    let host = &mut self.hosts[at];
                    let ticket = host.callers.remove(&client);
                    if result.is_ok() && ticket.is_none_or(|ticket| !host.durable.remove(&ticket)) {
                        return Err(format!("answer: n{at}: answered before it was on disk"));
                    }
                }
                Output::Changed { .. } => {}
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

    // ---- the disk ----

    fn begin_commit(&mut self, at: usize) {
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
        let most = if self.rng.u8(..8) == 0 { 40 } else { 3 };
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
    pub fn read(&mut self, at: usize, epoch: u64, ticket: Ticket, stream: Stream) -> Outcome {
        if self.hosts[at].epoch != epoch {
            return Ok(());
        }
        let faulty = self.hosts[at].faulty_until > self.time && self.rng.u8(..4) == 0;
        let Ok(batch) = read(&mut self.hosts[at].table, &stream);
        let result = if faulty { Err(StoreFault::Failed) } else { Ok(batch) };
        self.drive(at, Input::Streamed { ticket, result })
    }

    // ---- callers ----

    /// Somebody writes some documents somewhere.
    pub fn work(&mut self) -> Outcome {
        if self.work == 0 {
            return Ok(());
        }
        let pause = self.rng.u64(1..2 * self.plan.pause);
        self.after(pause, Event::Work);
        let up: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].engine.is_some()).collect();
        let Some(at) = self.rng.choice(up) else { return Ok(()) };
        let count = self.rng.usize(1..=self.plan.bulk).min(self.work);
        self.work -= count;
        self.operations += count as u64;
        let writes = (0..count).map(|_| self.draw_write()).collect();
        self.ask(at, Client::Write(writes))
    }
    fn draw_write(&mut self) -> Write {
        let number = self.rng.usize(..self.plan.keys);
        let key = format!("k{number}");
        let scope = match self.rng.u8(..30) {
            0 => Scope::Local,
            1 => Scope::System,
            _ => Scope::Replicated,
        };
        let body = match self.rng.u8(..3) == 0 {
            true => Body::Tombstone,
            false => self.value(if number < LARGE_KEYS { self.plan.large } else { 0 }),
        };
        let expires = self.plan.expiry && body != Body::Tombstone && self.rng.u8(..4) == 0;
        let expires_at = expires.then(|| START + self.time + self.rng.u64(1..3000));
        let key = RowKey { scope, collection: "x".into(), key };
        Write { key, body, expires_at, precondition: Precondition::None }
    }
    fn value(&mut self, bytes: usize) -> Body {
        self.values += 1;
        let mut value = format!("v{}", self.values).into_bytes();
        value.resize(bytes.max(value.len()), b' ');
        Body::Live(value)
    }
    /// A caller asks a node.
    pub fn ask(&mut self, at: usize, request: Client) -> Outcome {
        self.next_client += 1;
        let client = self.next_client;
        let host = &mut self.hosts[at];
        let now = host.now(self.time);
        let Some(engine) = &mut host.engine else { return Ok(()) };
        engine.handle(now, Input::Client { client, request }).map_err(|why| format!("undrained: n{at}: {why}"))?;
        // The first write request that it leads to is the caller's.
        let outputs: Vec<Output> = std::iter::from_fn(|| engine.poll()).collect();
        for output in &outputs {
            if let Output::Store { ticket, request: Request::Write { .. }, .. } = output {
                host.callers.entry(client).or_insert(*ticket);
            }
        }
        for output in outputs {
            self.carry_out(at, output)?;
        }
        self.set_timer(at);
        Ok(())
    }
    /// Writes one document, for a told story.
    pub fn put(&mut self, at: usize, key: &str) -> Outcome {
        let body = self.value(0);
        let key = RowKey::replicated("x", key);
        self.ask(at, Client::Write(vec![Write { key, body, expires_at: None, precondition: Precondition::None }]))
    }
    /// Deletes one.
    pub fn delete(&mut self, at: usize, key: &str) -> Outcome {
        let (key, body) = (RowKey::replicated("x", key), Body::Tombstone);
        self.ask(at, Client::Write(vec![Write { key, body, expires_at: None, precondition: Precondition::None }]))
    }
    /// What a reader on a node sees.
    pub fn get(&self, at: usize, key: &str) -> Option<String> {
        let (row, _) = self.hosts[at].table.rows.of(&RowKey::replicated("x", key))?;
        row.value().map(|value| String::from_utf8_lossy(value).into_owned())
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
