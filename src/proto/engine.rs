//! The engine: takes one input, decides, and leaves its outputs to be drained.
//!
//! What happens within a session is in `sync`; here is who is linked, who is dialled, and the passing of time.

use super::clock::Clock;
use super::discovery::{Discovery, Learnt};
use super::io::{Counters, Event, Input, LinkId, Now, Output, Settings, Ticket};
use super::links::Dialler;
use super::members::Members;
use super::refusals::Refusals;
use super::repair::{Fetching, Repairs};
use super::session::Session;
use super::site::Site;
use super::storage::Pending;
use super::upkeep::Upkeep;
use crate::id::ReplicaId;
use crate::limits::CLUSTER_KEYS_MAX;
use crate::replica::{Knowledge, Members as Remembered, Origin, Request};
use crate::time::Millis;
use crate::wire::{Beacon, BeaconError, Bye, Message, PROTOCOL_VERSION};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

/// A link that is quiet is pinged after this.
const PING_MS: Millis = 5_000;

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
    pub(super) upkeep: Upkeep,
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
            upkeep: Upkeep::new(now, settings.maintain_interval),
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
        let mut deadline = self.upkeep.deadline();
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
                self.discovery.greet(now, &mut self.rng);
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
        self.upkeep_timers(now);
    }
}
