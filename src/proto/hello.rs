//! Hello: who says so, whether it is one history, one name and one link; and how a session ends.

use super::engine::Engine;
use super::io::{Event, LinkId, Now, Output, Target};
use super::links::{BACKOFF_CAP_MS, REFUSED_REST_MS};
use super::members::{MemberRecord, Standing};
use super::refusals::Refusal;
use super::session::Peer;
use super::slots::ROTATED_REST_MS;
use super::storage::Pending;
use crate::id::DeviceId;
use crate::limits::LINKS_MAX;
use crate::mutants::{Mutant, planted};
use crate::replica::{Meeting, Precondition, Request, Said, Write, history_verdict, shared_until};
use crate::row::Body;
use crate::time::Millis;
use crate::wire::{Bye, Hello, MemberNote, Message, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN};
use alloc::vec::Vec;

/// Between two forks: a peer that cries wolf must not make this node change its identity all the time.
const FORK_MS: Millis = 1_000;
/// Between two new device keys on a peer's word: each makes a new member of this device.
const NEW_DEVICE_MS: Millis = 600_000;

impl Engine {
    pub(super) fn hello(&mut self, now: Now, link: LinkId) {
        let knowledge = &self.knowledge;
        let note = |(device, member): (&DeviceId, &super::members::Member)| MemberNote {
            device: *device,
            node_id: member.state.node_id.clone(),
        };
        let hello = Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            node_id: self.settings.node_id.clone(),
            replica: knowledge.replica,
            instance: self.settings.instance,
            tokens: knowledge.tokens.clone(),
            clock: self.clock.sample(now),
            hlc: knowledge.hlc.last(),
            visitor: self.settings.visitor,
            bootstrapping: self.bootstrapping.is_some(),
            tail: knowledge.tail,
            vector: knowledge.vector.clone(),
            floor: knowledge.floor.clone(),
            digest: knowledge.digest,
            clean: knowledge.covered_upto == knowledge.tail && self.repairs.is_empty(),
            members: self.members.tracked().map(note).collect(),
        };
        let (said_seq, said_floor) = (hello.vector.of(hello.replica), hello.floor.clone());
        self.send(link, Message::Hello(hello));
        if let Some(session) = self.sessions.get_mut(&link) {
            // Of the first: an answer that comes after a second may still be to it.
            session.said_seq.get_or_insert(said_seq);
            session.said_floor = said_floor;
        }
    }

    /// Says Hello anew everywhere: this node is another replica now.
    pub(super) fn hello_all(&mut self, now: Now) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            self.hello(now, link);
            if let Some(session) = self.sessions.get_mut(&link) {
                session.reset_streams();
            }
        }
        self.evaluate_all(now);
    }

    pub(super) fn said_hello(&mut self, now: Now, link: LinkId, hello: Hello) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let device = session.device;
        if hello.version_min > PROTOCOL_VERSION || hello.version_max < PROTOCOL_VERSION_MIN {
            return self.refuse(now, link, Some(&hello), Bye::Version);
        }
        if device == self.settings.device {
            return self.clone_met(now, link, &hello);
        }
        if self.members.holder_of(&hello.node_id, &device).is_some() || hello.node_id == self.settings.node_id {
            return self.refuse(now, link, Some(&hello), Bye::NameTaken);
        }
        let seen = self.members.by_device.get(&device).map(|member| &member.state);
        let same_process = self.members.by_device.get(&device).is_some_and(|m| m.instance == Some(hello.instance));
        let said = Said::of(&hello, same_process);
        if let Err(common) = history_verdict(seen, &self.knowledge.vector, &said) {
            self.event(Event::PeerForked { node_id: hello.node_id });
            return self.bye(now, link, Bye::Forked { common });
        }
        if let Some(Target::Heard(instance)) = session.dialled.filter(|target| *target != Target::Heard(hello.instance))
        {
            // Whoever was heard there has started anew since: there is nobody to dial under the old number.
            self.discovery.heard.remove(&instance);
        }
        if !self.keep_one_link(now, link, &hello) {
            return;
        }
        let first = self.sessions.get(&link).is_some_and(|session| session.peer.is_none());
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.reset_streams();
        if self.bootstrapping == Some(link) {
            // It starts again once this Hello is on disk, from what the peer is now.
            self.bootstrapping = None;
        }
        let clock = hello.clock;
        let visitor = hello.visitor && !planted(Mutant::VisitorTracked);
        let meeting = Meeting { device, node_id: hello.node_id.clone(), tracked: Some(!visitor), said: Some(said) };
        let (node_id, members, address) = (hello.node_id.clone(), hello.members.clone(), session.address);
        let target = session.dialled.unwrap_or(Target::Heard(hello.instance));
        let (announced, streamed) = (hello.vector.clone(), hello.vector.clone());
        session.peer = Some(Peer { announced, streamed, hello, met: false, cursor: 0, live_since: None });
        self.dialler.succeeded(target);
        self.refused.settled(&device);
        self.store(now, Pending::Meet { link }, Request::Meet(meeting));
        if first {
            self.counters.sessions += 1;
            self.event(Event::Linked { node_id: node_id.clone(), device, address });
            let retired = self.members.by_device.get(&device).is_some_and(|m| m.standing == Some(Standing::Untracked));
            if retired && !visitor {
                // It has come back: a member again, for the whole site.
                let record = MemberRecord { node_id, standing: Standing::Tracked };
                let write = Write {
                    key: MemberRecord::key(&device),
                    body: Body::Live(record.encode()),
                    expires_at: None,
                    precondition: Precondition::None,
                };
                self.store(now, Pending::Own, Request::Write { writes: alloc::vec![write], sending: true });
            }
        }
        self.heard_clock(now, link, clock);
        self.heard_of(now, members);
    }

    /// Members that a peer tracks and this node does not know yet.
    pub(super) fn heard_of(&mut self, now: Now, notes: Vec<MemberNote>) {
        for MemberNote { device, node_id } in notes {
            let known = self.members.by_device.contains_key(&device) || device == self.settings.device;
            if !known && self.members.has_room() {
                let meeting = Meeting { device, node_id, tracked: Some(true), said: None };
                self.store(now, Pending::HeardOf, Request::Meet(meeting));
            }
        }
    }

    /// Two links to one peer: both sides keep the same one. And the bound on links, once it is known who wants in.
    pub(super) fn keep_one_link(&mut self, now: Now, link: LinkId, hello: &Hello) -> bool {
        let Some(session) = self.sessions.get(&link) else { return false };
        let (device, we_dialled) = (session.device, session.dialled.is_some());
        let other =
            self.sessions.values().find(|other| other.device == device && other.link != link && other.peer.is_some());
        if let Some(other) = other {
            let (other_link, other_dialled) = (other.link, other.dialled.is_some());
            let other_instance = other.instance();
            let restarted = other_instance != Some(hello.instance);
            if other.superseded == Some(hello.instance) {
                // The process that was thought to have ended is back: two devices hold this key, and would take this
                // link from each other for ever where they never meet themselves.
                self.bye(now, link, Bye::Myself);
                return false;
            }
            // The link that the device with the lower key dialled stays; of two such, the later.
            let lower_dials = self.settings.device < device;
            let keep_new = restarted || we_dialled == other_dialled || we_dialled == lower_dials;
            let gone = if keep_new { other_link } else { link };
            self.bye(now, gone, Bye::Duplicate);
            if !keep_new {
                return false;
            }
            if let Some(session) = self.sessions.get_mut(&link).filter(|_| restarted) {
                session.superseded = other_instance;
            }
        }
        let in_session = self.sessions.values().filter(|other| other.peer.is_some() && other.link != link).count();
        if in_session >= self.settings.links_max.min(LINKS_MAX) {
            let same = hello.vector == self.knowledge.vector && hello.digest == self.knowledge.digest;
            if same || !self.rotate(now, self.settings.beacon_interval) {
                self.bye(now, link, Bye::Rotated);
                return false;
            }
        }
        true
    }

    /// A card was cloned while both run: both histories part here, and one device takes a new key.
    pub(super) fn clone_met(&mut self, now: Now, link: LinkId, hello: &Hello) {
        if hello.instance == self.settings.instance {
            return self.bye(now, link, Bye::Myself);
        }
        let ours = &self.knowledge.tokens;
        let common = ours.iter().rev().find(|start| hello.tokens.iter().any(|other| other.token == start.token));
        let common = common.map(|start| start.token);
        let same_history = hello.replica == self.knowledge.replica;
        if self.settings.instance < hello.instance {
            self.event(Event::DeviceCloned);
        }
        if same_history {
            self.fork(now, common);
        }
        self.bye(now, link, Bye::Myself);
    }

    /// Ends a link whose peer may not be a member as it is, and remembers that for whoever can settle it.
    pub(super) fn refuse(&mut self, now: Now, link: LinkId, hello: Option<&Hello>, reason: Bye) {
        let refusal = self.refusal(link, hello, reason.clone());
        if let Some(refusal) = refusal.filter(|refusal| self.refused.note(now, refusal.clone())) {
            self.event(Event::Refused(refusal));
        }
        self.bye(now, link, reason);
    }

    fn refusal(&self, link: LinkId, hello: Option<&Hello>, reason: Bye) -> Option<Refusal> {
        let session = self.sessions.get(&link)?;
        let hello = hello.or(session.peer.as_ref().map(|peer| &peer.hello));
        let known = self.members.by_device.get(&session.device).map(|member| &member.state.node_id);
        let node_id = hello.map(|hello| &hello.node_id).or(known).cloned();
        // The other end of a link that was accepted is no address that can be dialled; a beacon says one.
        let heard = hello.and_then(|hello| self.discovery.heard.get(&hello.instance));
        let address = heard.and_then(|heard| heard.addresses().first().copied()).unwrap_or(session.address);
        Some(Refusal { node_id, device: session.device, address, reason, age_ms: 0 })
    }

    pub(super) fn said_bye(&mut self, now: Now, link: LinkId, reason: Bye) {
        let target =
            self.sessions.get(&link).and_then(|session| session.dialled.or(session.instance().map(Target::Heard)));
        let refusal = self.refusal(link, None, reason.clone());
        let (mut by_another, mut said_seq) = (false, None);
        if let Some(session) = self.sessions.get_mut(&link) {
            session.goodbye = Some(reason.clone());
            by_another = session.device != self.settings.device;
            said_seq = session.said_seq;
        }
        self.outputs.push_back(Output::Close { link });
        self.unlinked(now, link);
        match reason {
            // A Hello that took long may have been overtaken, by way of others, by what was written since: it is judged
            // again on the next link.
            Bye::Forked { common } if said_seq == Some(self.knowledge.seq) => self.fork(now, common),
            // Somebody who is linked to both clones says so; a clone that says it itself is dealt with in `clone_met`.
            Bye::Myself if by_another && now.mono >= self.new_device_after => {
                self.new_device_after = now.mono + NEW_DEVICE_MS;
                self.event(Event::DeviceCloned);
            }
            Bye::NameTaken | Bye::NotAMember | Bye::Version => {
                let rest = if reason == Bye::NameTaken { REFUSED_REST_MS } else { BACKOFF_CAP_MS };
                target.into_iter().for_each(|target| self.dialler.rest(now, target, rest));
                if let Some(refusal) = refusal.filter(|refusal| self.refused_by.note(now, refusal.clone())) {
                    self.event(Event::RefusedBy(refusal));
                }
            }
            Bye::Rotated => target.into_iter().for_each(|target| self.dialler.rest(now, target, ROTATED_REST_MS)),
            _ => {}
        }
    }

    /// What the peer said does not continue what the disk remembers of it.
    pub(super) fn two_histories(&mut self, now: Now, link: LinkId, common: Option<u64>) {
        let Some(peer) = self.sessions.get(&link).and_then(|session| session.peer.as_ref()) else { return };
        let node_id = peer.hello.node_id.clone();
        self.event(Event::PeerForked { node_id });
        self.bye(now, link, Bye::Forked { common });
    }

    pub(super) fn fork(&mut self, now: Now, common: Option<u64>) {
        if self.forking || now.mono < self.fork_after {
            return;
        }
        self.forking = true;
        self.fork_after = now.mono + FORK_MS;
        let shared = shared_until(&self.knowledge, common);
        let random = self.rng.u64(..);
        self.store(now, Pending::Fork, Request::Fork { shared, random });
    }
}
