//! The engine as others see it: members, addresses, what is under way. Changes nothing.

use super::engine::Engine;
use super::io::{Counters, LinkId, Now, Target};
use super::links::LinkState;
use super::members::Standing;
use super::refusals::Refusal;
use super::session::{Incoming, Session};
use super::storage::Pending;
use crate::id::{DeviceId, Dot, NodeId, ReplicaId};
use crate::replica::Knowledge;
use crate::time::{Millis, Reading};
use crate::wire::BeaconError;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// One member as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its name.
    pub node_id: NodeId,
    /// Its key.
    pub device: DeviceId,
    /// Its replica.
    pub replica: ReplicaId,
    /// What the link to it is doing.
    pub link: LinkState,
    /// Its address: of its link, else where it is heard or was last reached.
    pub address: Option<SocketAddr>,
    /// How it is dialled, where that is known.
    pub target: Option<Target>,
    /// Whether it counts for health and holds tombstones back.
    pub tracked: bool,
    /// What the site has decided about it.
    pub standing: Option<Standing>,
    /// Whether it has ever said what it has on disk.
    pub has_confirmed: bool,
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

impl PeerView {
    /// Whether a link is in session.
    pub fn is_linked(&self) -> bool {
        self.link == LinkState::Open
    }
}

impl Engine {
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

    /// Every member.
    pub fn peers(&self, now: Now) -> Vec<PeerView> {
        let view = |(device, member): (&DeviceId, &super::members::Member)| {
            let session = self.sessions.values().find(|session| session.device == *device && session.peer.is_some());
            let heard = self.discovery.heard.iter().find(|(_, heard)| heard.replica == member.state.replica);
            let heard_at = heard.and_then(|(_, heard)| heard.addresses().first().copied());
            let target = heard.map(|(instance, _)| Target::Heard(*instance)).or(member.target);
            let link = match (session, target) {
                (Some(_), _) => LinkState::Open,
                (None, Some(target)) => self.dialler.state(now, target),
                (None, None) => LinkState::Closed,
            };
            let confirmed = &member.state.confirmed;
            let missing = |dot: Dot| dot.seq - confirmed.of(dot.origin).min(dot.seq);
            PeerView {
                node_id: member.state.node_id.clone(),
                device: *device,
                replica: member.state.replica,
                link,
                address: session.map(|session| session.address).or(heard_at).or(member.address),
                target,
                tracked: member.is_tracked(),
                standing: member.standing,
                has_confirmed: member.state.has_confirmed,
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

    /// Tracked members that are known to have a write on disk, or what has replaced it since. They say so themselves, or
    /// others that are linked to them do.
    pub fn confirmed_by(&self, dot: Dot) -> Vec<NodeId> {
        let has = |member: &&super::members::Member| member.state.has_confirmed && member.state.confirmed.covers(dot);
        self.members
            .tracked()
            .map(|(_, member)| member)
            .filter(has)
            .map(|member| member.state.node_id.clone())
            .collect()
    }

    /// Rises whenever [`Engine::confirmed_by`] may answer something else than before.
    pub fn confirmations(&self) -> u64 {
        self.members.revision()
    }

    /// Members that are heard: their addresses, the latest first, and whether each is linked.
    pub fn heard(&self) -> Vec<(Vec<SocketAddr>, ReplicaId, bool)> {
        let linked = |instance: u64| self.sessions.values().any(|session| session.instance() == Some(instance));
        let all = self.discovery.heard.iter();
        all.map(|(instance, heard)| (heard.addresses(), heard.replica, linked(*instance))).collect()
    }

    /// Addresses that were heard and are not of this cluster, why, and how often.
    pub fn strangers(&self) -> Vec<(IpAddr, BeaconError, u64)> {
        self.discovery.strangers().collect()
    }

    /// Devices that this node has refused of late, the latest first.
    pub fn refused(&self, now: Now) -> Vec<Refusal> {
        self.refused.of_late(now)
    }

    /// Devices that have refused this node of late, the latest first.
    pub fn refused_by(&self, now: Now) -> Vec<Refusal> {
        self.refused_by.of_late(now)
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

    /// Peers that this node sees and is not in session with although they may hold what it lacks: heard with another state
    /// than its own, linked without having met yet, or fixed and not tried yet. A fixed peer that does not answer is not seen.
    pub fn to_be_met(&self, now: Now) -> Vec<SocketAddr> {
        let met = |instance: u64| self.sessions.values().any(|s| s.instance() == Some(instance) && s.met().is_some());
        let own = self.settings.keys.first().map(|key| key.state_tag(&self.knowledge.vector, self.knowledge.digest));
        let heard = (self.discovery.heard.iter())
            .filter(|(instance, heard)| Some(heard.state) != own && !met(**instance))
            .filter_map(|(_, heard)| heard.addresses().first().copied());
        let meeting = self.sessions.values().filter(|session| session.met().is_none()).map(|session| session.address);
        // Whoever waits for a person to settle its name is not waited for here.
        let refused: Vec<SocketAddr> = self.refused.of_late(now).iter().map(|refusal| refusal.address).collect();
        let mut all: Vec<SocketAddr> = heard.chain(meeting).filter(|address| !refused.contains(address)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether it is too early to say who is there: fixed peers are being tried for the first time, or nobody was heard in
    /// the first interval of beacons.
    pub fn is_looking_around(&self, now: Now) -> bool {
        let first = |number: &usize| {
            let target = Target::Fixed(*number);
            let linked = self.sessions.values().any(|session| session.dialled == Some(target));
            !linked && self.dialler.is_first(target)
        };
        let early = now.mono < self.started_at + self.settings.beacon_interval;
        self.fixed.iter().any(first) || (self.settings.discovery && early && self.discovery.heard.is_empty())
    }

    /// Peers in session whose streams have not reached this node's rows yet.
    pub fn catching_up_with(&self) -> Vec<NodeId> {
        let behind = |session: &&Session| session.is_catching_up() || session.incoming == Incoming::Waiting;
        let name = |session: &Session| session.peer.as_ref().map(|peer| peer.hello.node_id.clone());
        self.sessions.values().filter(behind).filter_map(name).collect()
    }
}
