//! The engine: takes one input, decides, and leaves its outputs to be drained.
//!
//! What happens within a session is in `sync`; here is who is linked, who is dialled, and the passing of time.

use super::clock::Clock;
use super::discovery::{Discovery, Learnt};
use super::health::MembersHealth;
use super::io::{
    Client, Counters, DialFailure, Event, Input, LinkId, Now, Output, Settings, StoreFault, Target, Ticket,
};
use super::links::{Dialler, PATIENCE_MS};
use super::members::{MemberRecord, Members, Standing};
use super::session::{Incoming, Session};
use crate::id::{DeviceId, LocalSeq, NodeId, ReplicaId};
use crate::limits::{CLUSTER_KEYS_MAX, LINKS_MAX, TOMBSTONES_MAX};
use crate::mutants::{Mutant, planted};
use crate::replica::{Knowledge, Members as Remembered, Origin, Precondition, Reply, Request, Retention, Write};
use crate::row::{Body, Row, Scope};
use crate::time::{Millis, Reading};
use crate::wire::{Beacon, BeaconError, Bye, Message, PROTOCOL_VERSION, Ping, StateTag};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

/// A link that is quiet is pinged after this.
const PING_MS: Millis = 5_000;
/// And given up after this.
pub(super) const SILENT_MS: Millis = 20_000;
/// A link whose peer does not say Hello is given up after this.
const HELLO_MS: Millis = 10_000;
/// A link has been live for at least this long before its slot is given to another member.
const LIVE_BEFORE_ROTATION_MS: Millis = 2_000;
/// Whoever was rotated out does not dial again before this, unless there is something to fetch.
pub(super) const ROTATED_REST_MS: Millis = 10_000;
/// Links above the bound while their Hello is waited for.
const SPARE_LINKS: usize = 2;
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
    Client { client: u64, system: bool },
    Meet { link: LinkId },
    HeardOf,
    Apply { link: LinkId, stream: u32, upto: LocalSeq, closed: bool },
    Stage { link: LinkId, stream: u32, upto: LocalSeq },
    Bootstrap,
    MarkSent,
    Noted,
    Maintain,
    Fork,
    Records,
    Own,
}

/// One member as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its name.
    pub node_id: NodeId,
    /// Its key.
    pub device: DeviceId,
    /// Its replica.
    pub replica: ReplicaId,
    /// Whether a link is in session.
    pub linked: bool,
    /// Its address, where it is linked.
    pub address: Option<SocketAddr>,
    /// Whether it counts for health and holds tombstones back.
    pub tracked: bool,
    /// What the site has decided about it.
    pub standing: Option<Standing>,
    /// Whether it has everything that this node has.
    pub confirmed: bool,
    /// Milliseconds since this node stored the oldest change that it has not confirmed.
    pub lag_ms: Millis,
    /// How many changes it has not confirmed.
    pub unconfirmed_changes: u64,
    /// When it last confirmed anything.
    pub last_confirmation: Option<Millis>,
    /// How far its synchronised clock is from ours.
    pub clock_offset_ms: Option<i64>,
    /// Time of the last ping.
    pub round_trip_ms: Option<Millis>,
}

/// One node's state machines.
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) rng: fastrand::Rng,
    pub(super) knowledge: Knowledge,
    pub(super) members: Members,
    pub(super) sessions: BTreeMap<LinkId, Session>,
    pub(super) dialler: Dialler,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
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
    next_ticket: u64,
    started_at: Millis,
    rotate_after: Millis,
    maintain_at: Millis,
    maintaining: bool,
    maintain_position: LocalSeq,
    note_confirmed_at: Millis,
    stopping: bool,
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
            clock,
            counters: Counters::default(),
            outputs: VecDeque::new(),
            pending: BTreeMap::new(),
            bootstrapping: None,
            staged_whole: None,
            said_as: knowledge.replica,
            forking: false,
            fork_after: 0,
            new_device_after: 0,
            discovery: Discovery::new(now),
            next_ticket: 0,
            started_at: now.mono,
            rotate_after: 0,
            maintain_at: now.mono + settings.maintain_interval,
            maintaining: false,
            maintain_position: 0,
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
            Input::Client { client, request } => self.client(now, client, request),
            Input::NewDevice { device, node_id } => {
                self.settings.device = device;
                self.settings.node_id = node_id;
            }
            Input::NewKeys { keys } => {
                self.settings.keys = keys;
                self.settings.keys.truncate(CLUSTER_KEYS_MAX);
            }
            Input::Stop => self.stop(),
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
        for session in self.sessions.values() {
            deadline = deadline.min(session.announce_at.unwrap_or(Millis::MAX));
            deadline = deadline.min(session.relay_at.unwrap_or(Millis::MAX));
            deadline = deadline.min(session.retry_at.unwrap_or(Millis::MAX));
            deadline = deadline.min(session.heard_at.max(session.pinged_at) + PING_MS);
        }
        deadline.max(now.mono + 1).min(now.mono + 1_000)
    }

    /// What this node durably knows.
    pub fn knowledge(&self) -> &Knowledge {
        &self.knowledge
    }
    /// Numbers since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }
    /// The clock for what callers see: expiry of documents.
    pub fn reading(&self, now: Now) -> Reading {
        self.clock.reading(now)
    }
    /// How far the kernel's clock is from the peers', where that is a fault.
    pub fn clock_disagreement(&self, now: Now) -> Option<i64> {
        self.clock.disagreement(now)
    }
    /// What the members' confirmations say.
    pub fn members_health(&self, now: Now) -> MembersHealth {
        MembersHealth::of(&self.members, now, self.settings.lag_threshold, self.settings.lag_critical)
    }
    /// Every member.
    pub fn peers(&self, now: Now) -> Vec<PeerView> {
        let view = |(device, member): (&DeviceId, &super::members::Member)| {
            let session = self.sessions.values().find(|session| session.device == *device && session.peer.is_some());
            let confirmed = &member.state.confirmed;
            let missing = |dot: crate::id::Dot| dot.seq - confirmed.of(dot.origin).min(dot.seq);
            PeerView {
                node_id: member.state.node_id.clone(),
                device: *device,
                replica: member.state.replica,
                linked: session.is_some(),
                address: session.map(|session| session.address),
                tracked: member.is_tracked(),
                standing: member.standing,
                confirmed: member.state.has_confirmed && confirmed.includes(&self.knowledge.vector),
                lag_ms: self.members.lag_ms(now, member),
                unconfirmed_changes: self.knowledge.vector.iter().map(missing).sum(),
                last_confirmation: member.state.confirmed_at,
                clock_offset_ms: member.clock_offset_ms,
                round_trip_ms: session.and_then(|session| session.round_trip_ms),
            }
        };
        self.members.by_device.iter().map(view).collect()
    }
    /// Addresses of members that are heard, and whether each is linked.
    pub fn heard(&self) -> Vec<(SocketAddr, ReplicaId, bool)> {
        let linked = |instance: u64| self.sessions.values().any(|session| session.instance() == Some(instance));
        let all = self.discovery.heard.iter();
        all.filter_map(|(instance, heard)| Some((*heard.addresses().first()?, heard.replica, linked(*instance))))
            .collect()
    }
    /// Addresses that were heard and are not of this cluster, why, and how often.
    pub fn strangers(&self) -> Vec<(IpAddr, BeaconError, u64)> {
        self.discovery.strangers().collect()
    }
    /// Batches of one link that storage has not answered yet.
    pub fn unanswered(&self, of: LinkId) -> usize {
        let waits = |pending: &&Pending| match pending {
            Pending::Apply { link, .. } | Pending::Stage { link, .. } => *link == of,
            _ => false,
        };
        self.pending.values().filter(waits).count()
    }
    /// Whether a bootstrap is under way: reads are served from the old state.
    pub fn is_bootstrapping(&self) -> bool {
        self.bootstrapping.is_some()
    }
    /// Peers in session whose streams have not reached this node's rows yet.
    pub fn catching_up_with(&self) -> Vec<NodeId> {
        let behind = |session: &&Session| session.is_catching_up() || session.incoming == Incoming::Waiting;
        let name = |session: &Session| session.peer.as_ref().map(|peer| peer.hello.node_id.clone());
        self.sessions.values().filter(behind).filter_map(name).collect()
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

    fn linked(&mut self, now: Now, link: LinkId, device: DeviceId, address: SocketAddr, dialled: Option<Target>) {
        let session = Session::new(link, device, address, dialled, now.mono);
        self.sessions.insert(link, session);
        if self.stopping {
            return self.bye(now, link, Bye::Stopping);
        }
        if device == self.settings.device {
            return self.met_myself(now, link);
        }
        if self.members.by_device.get(&device).is_some_and(|member| member.is_refused()) {
            return self.bye(now, link, Bye::NotAMember);
        }
        if self.sessions.len() > self.settings.links_max.min(LINKS_MAX) + SPARE_LINKS {
            return self.bye(now, link, Bye::Rotated);
        }
        self.hello(now, link);
    }

    fn dial_failed(&mut self, now: Now, target: Target, failure: DialFailure) {
        self.dialler.failed(now, target, self.settings.retry_delay, &mut self.rng);
        self.event(Event::DialFailed { target, failure });
    }

    pub(super) fn unlinked(&mut self, now: Now, link: LinkId) {
        let Some(session) = self.sessions.remove(&link) else { return };
        let rotated = matches!(session.goodbye, Some(Bye::Rotated | Bye::Duplicate));
        let told_of_fork = matches!(session.goodbye, Some(Bye::Forked { .. }));
        let targets = session.dialled.into_iter().chain(session.instance().map(Target::Heard));
        for target in targets {
            if rotated {
                self.dialler.rest(now, target, ROTATED_REST_MS);
            } else if session.met().is_some() || told_of_fork {
                self.dialler.ended(target);
                self.dialler.rest(
                    now,
                    target,
                    self.settings.retry_delay / 4 + self.rng.u64(0..=self.settings.retry_delay / 4),
                );
            } else {
                self.dialler.failed(now, target, self.settings.retry_delay, &mut self.rng);
            }
        }
        let node_id = session.peer.map(|peer| peer.hello.node_id);
        self.event(Event::Unlinked { node_id, reason: session.goodbye });
        if self.bootstrapping == Some(link) {
            self.bootstrapping = None;
            self.evaluate_all(now);
        }
        self.next_turn(now);
    }

    fn client(&mut self, now: Now, client: u64, request: Client) {
        let record = |device: DeviceId, standing: Standing, node_id: NodeId| Write {
            key: MemberRecord::key(&device),
            body: Body::Live(MemberRecord { node_id, standing }.encode()),
            expires_at: None,
            precondition: Precondition::None,
        };
        let name = |device: &DeviceId| self.members.by_device.get(device).map(|member| member.state.node_id.clone());
        let writes = match request {
            Client::Write(writes) => writes,
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
        let sending = self.sessions.values().any(|session| session.outgoing.is_some());
        let system = writes.iter().any(|write| write.key.scope == Scope::System);
        self.store(now, Pending::Client { client, system }, Request::Write { writes, sending });
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
            (Pending::Client { client, system }, result) => {
                if let Ok(Reply::Written(written)) = &result {
                    if written.iter().any(|one| one.is_ok_and(|written| written.changed)) {
                        self.own_rows_stored(now);
                    }
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
            (Pending::Meet { link }, _) => self.store_failed(now, link),
            (Pending::HeardOf, Ok(Reply::Met(device, member))) => self.members.remember(device, member),
            (Pending::Apply { link, stream, upto, closed }, Ok(Reply::Applied(applied))) => {
                self.applied(now, link, stream, upto, closed, applied);
            }
            (Pending::Stage { link, stream, upto }, Ok(Reply::Staged)) => self.staged(now, link, stream, upto),
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
        }
    }

    fn records(&mut self, rows: &[Row], now: Now) {
        self.members.apply_records(rows);
        let refused =
            |session: &&Session| self.members.by_device.get(&session.device).is_some_and(|member| member.is_refused());
        let refused: Vec<LinkId> = self.sessions.values().filter(refused).map(|session| session.link).collect();
        refused.into_iter().for_each(|link| self.bye(now, link, Bye::NotAMember));
    }

    fn stop(&mut self) {
        self.stopping = true;
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
            if let Some(key) = self.settings.keys.first() {
                if self.discovery.due(now, interval, &mut self.rng) {
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
        }
        self.watch_links(now);
        self.dial(now, interval);
        self.session_timers(now);
        if now.mono >= self.maintain_at && !self.maintaining && !self.forking && self.bootstrapping.is_none() {
            self.maintain_at = now.mono + self.settings.maintain_interval;
            self.maintaining = true;
            let served = self.sessions.values().filter_map(Session::serving_bootstrap).min();
            let retention = Retention {
                confirmed_by_all: self.members.confirmed_by_all(),
                min_age: self.settings.tombstone_min_age,
                keep: self.settings.tombstone_keep,
                tombstones_max: TOMBSTONES_MAX,
                upto: served.unwrap_or(LocalSeq::MAX),
                after: self.maintain_position,
                slice: MAINTAIN_SLICE,
            };
            self.store(now, Pending::Maintain, Request::Maintain(retention));
        }
        if now.mono >= self.note_confirmed_at {
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

    fn watch_links(&mut self, now: Now) {
        let (mut dead, mut quiet) = (Vec::new(), Vec::new());
        for session in self.sessions.values() {
            let silent = now.mono.saturating_sub(session.heard_at);
            let mute = session.peer.is_none() && now.mono >= session.opened_at + HELLO_MS;
            if silent >= SILENT_MS || mute {
                dead.push(session.link);
            } else if silent >= PING_MS && now.mono >= session.pinged_at + PING_MS {
                quiet.push(session.link);
            }
        }
        for link in quiet {
            let clock = self.clock.sample(now);
            let nonce = now.mono as u32;
            self.send(link, Message::Ping(Ping { nonce, clock }));
            if let Some(session) = self.sessions.get_mut(&link) {
                session.pinged_at = now.mono;
            }
        }
        dead.into_iter().for_each(|link| self.bye(now, link, Bye::Silent));
    }

    fn links_free(&self) -> bool {
        self.sessions.len() + self.dialler.dialling() < self.settings.links_max.min(LINKS_MAX)
    }

    fn dial(&mut self, now: Now, interval: Millis) {
        for index in 0..self.settings.fixed_peers {
            let target = Target::Fixed(index);
            let linked = self.sessions.values().any(|session| session.dialled == Some(target));
            if !linked && self.dialler.may_dial(now, target) && self.links_free() {
                self.dialler.started(target);
                self.outputs.push_back(Output::Dial { target, addresses: Vec::new() });
            }
        }
        let own_order = (self.knowledge.replica, self.settings.instance);
        let candidates: Vec<(u64, StateTag)> = (self.discovery.heard.iter())
            .filter(|(instance, heard)| {
                let first = own_order < (heard.replica, **instance);
                let patient = first || now.mono >= heard.first + PATIENCE_MS;
                let linked = |session: &Session| session.instance() == Some(**instance);
                patient && self.dialler.may_dial(now, Target::Heard(**instance)) && !self.sessions.values().any(linked)
            })
            .map(|(instance, heard)| (*instance, heard.state))
            .collect();
        let Some(key) = self.settings.keys.first().filter(|_| !candidates.is_empty()) else { return };
        // A MAC over the whole vector: not for every input, only where there is somebody to dial.
        let own_state = key.state_tag(&self.knowledge.vector, self.knowledge.digest);
        for (instance, state) in candidates {
            if !self.links_free() && (state == own_state || !self.rotate(now, interval)) {
                continue;
            }
            let Some(heard) = self.discovery.heard.get(&instance) else { continue };
            let (target, addresses) = (Target::Heard(instance), heard.addresses());
            self.dialler.started(target);
            self.outputs.push_back(Output::Dial { target, addresses });
        }
    }

    /// Gives up the link that has been live longest, so that another member can be served. At most one at a time, and
    /// only a link that has had its turn.
    pub(super) fn rotate(&mut self, now: Now, interval: Millis) -> bool {
        if planted(Mutant::NoRotation) || now.mono < self.rotate_after {
            return false;
        }
        let live = |session: &Session| session.peer.as_ref().and_then(|peer| peer.live_since);
        let longest = (self.sessions.values())
            .filter_map(|session| Some((live(session)?, session.link)))
            .filter(|(since, _)| since + LIVE_BEFORE_ROTATION_MS <= now.mono)
            .min();
        let Some((_, link)) = longest else { return false };
        self.rotate_after = now.mono + interval / 4;
        self.counters.rotations += 1;
        self.bye(now, link, Bye::Rotated);
        true
    }

    /// The peer has this device's own key: one is a clone of the other.
    fn met_myself(&mut self, now: Now, link: LinkId) {
        // Who is who is only known from the Hellos; both say them, then part.
        self.hello(now, link);
    }
}
