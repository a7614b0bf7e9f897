//! The engine: takes one input, decides, and leaves its outputs to be drained.
//!
//! What happens within a session is in `sync`; here is who is linked, who is dialled, and the passing of time.

use super::clock::Clock;
use super::discovery::{Discovery, Learnt};
use super::io::{Client, Counters, Event, Input, LinkId, Now, Output, Settings, StoreFault, Ticket};
use super::links::Dialler;
use super::members::{MemberRecord, Members, Standing};
use super::refusals::Refusals;
use super::repair::{Fetching, Repairs};
use super::session::Session;
use super::site::Site;
use crate::id::{DeviceId, LocalSeq, NodeId, ReplicaId};
use crate::limits::{CLUSTER_KEYS_MAX, TOMBSTONE_BYTES_MAX, TOMBSTONES_MAX};
use crate::mutants::{Mutant, planted};
use crate::replica::{
    Knowledge, Members as Remembered, Origin, Precondition, Refused, Reply, Request, Retention, Write, Written,
};
use crate::row::{Body, Row, RowKey, Scope};
use crate::time::Millis;
use crate::wire::{Beacon, BeaconError, Bye, Message, PROTOCOL_VERSION};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

/// A link that is quiet is pinged after this.
const PING_MS: Millis = 5_000;
/// Confirmed vectors are written down this often: after a restart they are only a little behind.
const CONFIRMED_NOTED_MS: Millis = 30_000;
/// Rows of one slice of maintenance.
const MAINTAIN_SLICE: usize = 256;

/// Outputs were left when the next input came; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Undrained;

impl fmt::Display for Undrained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outputs were left when the next input came: drain them with poll first")
    }
}
impl core::error::Error for Undrained {}

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

/// One node's state machines.
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) rng: fastrand::Rng,
    pub(super) knowledge: Knowledge,
    pub(super) members: Members,
    pub(super) sessions: BTreeMap<LinkId, Session>,
    pub(super) dialler: Dialler,
    /// The fixed peers, by the numbers that the shell knows them by.
    pub(super) fixed: Vec<usize>,
    /// Devices that this node has refused.
    pub(super) refused: Refusals,
    /// Devices that have refused this node.
    pub(super) refused_by: Refusals,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    /// Rows that are damaged on this disk.
    pub(super) repairs: Repairs,
    pub(super) outputs: VecDeque<Output>,
    pub(super) pending: BTreeMap<Ticket, Pending>,
    /// The link that a bootstrap comes from.
    pub(super) bootstrapping: Option<LinkId>,
    /// The end of it has come; the last part is on its way to the stage.
    pub(super) staged_whole: Option<Origin>,
    /// The replica that peers know this node as.
    pub(super) said_as: ReplicaId,
    pub(super) forking: bool,
    pub(super) fork_after: Millis,
    pub(super) new_device_after: Millis,
    pub(super) discovery: Discovery,
    pub(super) site: Site,
    next_ticket: u64,
    pub(super) started_at: Millis,
    pub(super) rotate_after: Millis,
    maintain_at: Millis,
    maintaining: bool,
    maintain_position: LocalSeq,
    /// Bytes of tombstones in the last round over all of them, and in this one so far.
    tombstone_bytes: u64,
    tombstone_bytes_seen: u64,
    note_confirmed_at: Millis,
    pub(super) stopping: bool,
}

impl Engine {
    /// An engine on what storage holds. Its first outputs are there at once: drain them before the first input.
    pub fn new(now: Now, settings: Settings, knowledge: Knowledge, members: Remembered) -> Engine {
        let clock =
            Clock::new(now, knowledge.hlc.last().millis().min(crate::limits::CLOCK_MILLIS_MAX), settings.build_millis);
        let mut engine = Engine {
            rng: fastrand::Rng::with_seed(settings.seed),
            members: Members::new(members),
            sessions: BTreeMap::new(),
            dialler: Dialler::default(),
            fixed: (0..settings.fixed_peers).collect(),
            refused: Refusals::default(),
            refused_by: Refusals::default(),
            clock,
            counters: Counters::default(),
            repairs: Repairs::default(),
            outputs: VecDeque::new(),
            pending: BTreeMap::new(),
            bootstrapping: None,
            staged_whole: None,
            said_as: knowledge.replica,
            forking: false,
            fork_after: 0,
            new_device_after: 0,
            discovery: Discovery::new(now),
            site: Site::default(),
            next_ticket: 0,
            started_at: now.mono,
            rotate_after: 0,
            maintain_at: now.mono + settings.maintain_interval,
            maintaining: false,
            maintain_position: 0,
            tombstone_bytes: 0,
            tombstone_bytes_seen: 0,
            note_confirmed_at: now.mono + CONFIRMED_NOTED_MS,
            stopping: false,
            settings,
            knowledge,
        };
        let vector = engine.knowledge.vector.clone();
        engine.members.checkpoint(now, &vector);
        engine.store(now, Pending::Records, Request::Records);
        engine
    }

    /// Takes one input. Drain [`Engine::poll`] before the next.
    ///
    /// # Errors
    /// [`Undrained`] when that was not done; nothing was changed.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), Undrained> {
        if !self.outputs.is_empty() {
            return Err(Undrained);
        }
        match input {
            Input::Tick => {}
            Input::Datagram { from, bytes } => self.datagram(now, from, &bytes),
            Input::Linked { link, device, address, dialled } => self.linked(now, link, device, address, dialled),
            Input::DialFailed { target, failure } => self.dial_failed(now, target, failure),
            Input::Received { link, message } => self.received(now, link, message),
            Input::Unlinked { link } => self.unlinked(now, link),
            Input::Stored { ticket, result } => self.stored(now, ticket, result),
            Input::Streamed { ticket, result } => self.streamed(now, ticket, result),
            Input::Damaged(damaged) => drop(self.found_damaged(now, damaged)),
            Input::Looked { ticket, result } => self.looked(ticket, result),
            Input::Client { client, request } => self.client(now, client, request),
            Input::NewDevice { device, node_id } => {
                self.settings.device = device;
                self.settings.node_id = node_id;
            }
            Input::NewKeys { keys } => {
                self.settings.keys = keys;
                self.settings.keys.truncate(CLUSTER_KEYS_MAX);
                // Whoever was a stranger may be a member, and the other way round.
                self.discovery.renew(now);
                self.dialler.forgive();
            }
            Input::FixedPeers { numbers } => {
                self.fixed = numbers;
                self.dialler.keep_fixed(&self.fixed);
            }
            Input::AskSite => self.ask_site(now),
            Input::Report { to, nonce, report } => self.own_report(to, nonce, report),
            Input::Stop => self.stop(now),
        }
        if self.knowledge.replica != self.said_as {
            // A bootstrap or a fork whose outcome storage did not know has happened after all.
            self.new_life_begun(now);
        }
        self.pass_time(now);
        Ok(())
    }

    /// The next thing to do; `None` when all is done and the next input may come.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the next [`Input::Tick`] is due, in monotonic milliseconds.
    pub fn deadline(&self, now: Now) -> Millis {
        let mut deadline = self.maintain_at.min(self.note_confirmed_at);
        if self.settings.discovery && !self.settings.keys.is_empty() {
            deadline = deadline.min(self.discovery.deadline());
        }
        deadline = deadline.min(self.dialler.deadline(now).unwrap_or(Millis::MAX));
        deadline = deadline.min(self.repairs.deadline().unwrap_or(Millis::MAX));
        for session in self.sessions.values() {
            deadline = deadline.min(session.fetching.as_ref().map_or(Millis::MAX, Fetching::deadline));
            deadline = deadline.min(session.announce_at.unwrap_or(Millis::MAX));
            deadline = deadline.min(session.news_at.unwrap_or(Millis::MAX));
            deadline = deadline.min(session.relay_at.unwrap_or(Millis::MAX));
            deadline = deadline.min(session.retry_at.unwrap_or(Millis::MAX));
            deadline = deadline.min(session.compare_at.unwrap_or(Millis::MAX));
            deadline = deadline.min(session.heard_at.max(session.pinged_at) + PING_MS);
        }
        deadline.max(now.mono + 1).min(now.mono + 1_000)
    }

    pub(super) fn send(&mut self, link: LinkId, message: Message) {
        self.outputs.push_back(Output::Send { link, message });
    }
    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
    pub(super) fn next_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }
    pub(super) fn store(&mut self, now: Now, pending: Pending, request: Request) {
        let ticket = self.next_ticket();
        self.pending.insert(ticket, pending);
        let now = self.clock.reading(now);
        self.outputs.push_back(Output::Store { ticket, now, request });
    }
    /// Ends a link with a reason that is told to the peer.
    pub(super) fn bye(&mut self, now: Now, link: LinkId, reason: Bye) {
        self.send(link, Message::Bye(reason.clone()));
        if let Some(session) = self.sessions.get_mut(&link) {
            session.goodbye = Some(reason);
        }
        self.drop_link(now, link);
    }
    fn drop_link(&mut self, now: Now, link: LinkId) {
        self.outputs.push_back(Output::Close { link });
        self.unlinked(now, link);
    }

    fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &[u8]) {
        if !self.settings.discovery {
            return;
        }
        match self.discovery.learn(now, &self.settings.keys, self.settings.instance, from, bytes) {
            Ok(Learnt::New(instance)) => {
                self.counters.beacons += 1;
                let heard = &self.discovery.heard[&instance];
                let event = Event::Discovered {
                    address: heard.addresses().first().copied().unwrap_or(from),
                    replica: heard.replica,
                };
                self.event(event);
            }
            Ok(Learnt::Known(_)) => self.counters.beacons += 1,
            Ok(Learnt::Own | Learnt::Replay) => {}
            Err(reason) => {
                match reason {
                    BeaconError::OtherCluster => self.counters.other_cluster += 1,
                    BeaconError::Foreign | BeaconError::Forged => self.counters.foreign += 1,
                }
                if self.discovery.stranger(from.ip(), reason) {
                    self.event(Event::Stranger { address: from, reason });
                }
            }
        }
    }

    fn client(&mut self, now: Now, client: u64, request: Client) {
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
    fn stored(&mut self, now: Now, ticket: Ticket, result: Result<(Reply, Knowledge), StoreFault>) {
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
            (Pending::Maintain, Ok(Reply::Maintained(done))) => {
                self.maintaining = false;
                self.maintain_position = done.next;
                self.tombstone_bytes_seen += done.bytes;
                if done.next == 0 {
                    self.tombstone_bytes = core::mem::take(&mut self.tombstone_bytes_seen);
                }
                self.counters.tombstones_dropped += done.dropped;
                self.counters.expired += done.expired.len() as u64;
                if done.more || done.next > 0 {
                    self.maintain_at = now.mono + self.settings.maintain_interval / 10;
                }
                if !done.expired.is_empty() {
                    self.outputs.push_back(Output::Changed { keys: done.expired });
                    self.rows_relayed(now);
                }
            }
            (Pending::Maintain, _) => self.maintaining = false,
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

    fn stop(&mut self, now: Now) {
        self.stopping = true;
        self.note_confirmed(now);
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            self.send(link, Message::Bye(Bye::Stopping));
            self.outputs.push_back(Output::Close { link });
        }
        self.sessions.clear();
    }

    /// Everything that is due.
    fn pass_time(&mut self, now: Now) {
        if self.stopping {
            return;
        }
        let interval = Discovery::interval(self.settings.beacon_interval, self.members.by_device.len());
        if self.settings.discovery {
            self.discovery.forget(now, interval);
            if let Some(key) = self.settings.keys.first()
                && self.discovery.due(now, interval, &mut self.rng)
            {
                let beacon = Beacon {
                    version: PROTOCOL_VERSION,
                    tcp_port: self.settings.tcp_port,
                    replica: self.knowledge.replica,
                    instance: self.settings.instance,
                    state: key.state_tag(&self.knowledge.vector, self.knowledge.digest),
                    uptime_ms: now.mono.saturating_sub(self.started_at),
                };
                let datagram = key.seal(&beacon).to_vec();
                self.outputs.push_back(Output::Announce { datagram });
            }
        }
        self.watch_links(now);
        self.dial(now, interval);
        self.session_timers(now);
        self.repair_timers(now);
        if now.mono >= self.maintain_at && !self.maintaining && !self.forking && self.bootstrapping.is_none() {
            self.maintain_at = now.mono + self.settings.maintain_interval;
            self.maintaining = true;
            let served = self.sessions.values().filter_map(Session::serving_bootstrap).min();
            let retention = Retention {
                confirmed_by_all: self.members.confirmed_by_all(),
                min_age: self.settings.tombstone_min_age,
                keep: self.settings.tombstone_keep,
                tombstones_max: TOMBSTONES_MAX,
                bytes_over: self.tombstone_bytes.saturating_sub(TOMBSTONE_BYTES_MAX),
                upto: served.unwrap_or(LocalSeq::MAX),
                after: self.maintain_position,
                slice: MAINTAIN_SLICE,
            };
            self.store(now, Pending::Maintain, Request::Maintain(retention));
        }
        if now.mono >= self.note_confirmed_at {
            self.note_confirmed(now);
        }
    }

    /// Writes down what members are known to have on disk, where that has changed.
    fn note_confirmed(&mut self, now: Now) {
        self.note_confirmed_at = now.mono + CONFIRMED_NOTED_MS;
        let dirty = self.members.by_device.iter_mut().filter(|(_, member)| member.dirty);
        let vectors: Vec<_> = dirty
            .map(|(device, member)| {
                member.dirty = false;
                (*device, member.state.replica, member.state.confirmed.clone())
            })
            .collect();
        if !vectors.is_empty() {
            self.store(now, Pending::Noted, Request::Confirmed { vectors });
        }
    }
}
