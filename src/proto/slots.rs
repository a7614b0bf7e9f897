//! Links as a scarce good: who is dialled, who is let in, whose slot goes to another, who is given up.

use super::engine::Engine;
use super::io::{DialFailure, Event, LinkId, Now, Output, Target};
use super::links::PATIENCE_MS;
use super::session::Session;
use crate::id::DeviceId;
use crate::limits::LINKS_MAX;
use crate::mutants::{Mutant, planted};
use crate::time::Millis;
use crate::wire::{Bye, Message, Ping, StateTag};
use alloc::vec::Vec;
use core::net::SocketAddr;

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

impl Engine {
    pub(super) fn linked(
        &mut self,
        now: Now,
        link: LinkId,
        device: DeviceId,
        address: SocketAddr,
        dialled: Option<Target>,
    ) {
        let session = Session::new(link, device, address, dialled, now.mono);
        self.sessions.insert(link, session);
        if self.stopping {
            return self.bye(now, link, Bye::Stopping);
        }
        if device == self.settings.device {
            return self.met_myself(now, link);
        }
        if self.members.by_device.get(&device).is_some_and(|member| member.is_refused()) {
            return self.refuse(now, link, None, Bye::NotAMember);
        }
        if self.sessions.len() > self.settings.links_max.min(LINKS_MAX) + SPARE_LINKS {
            return self.bye(now, link, Bye::Rotated);
        }
        self.hello(now, link);
    }

    pub(super) fn dial_failed(&mut self, now: Now, target: Target, failure: DialFailure) {
        let (attempt, again_ms) = self.dialler.failed(now, target, &self.settings.retry, &mut self.rng);
        self.event(Event::DialFailed { target, failure, attempt, again_ms });
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
                let quarter = self.settings.retry.delay_ms() / 4;
                self.dialler.rest(now, target, quarter + self.rng.u64(0..=quarter));
            } else {
                self.dialler.failed(now, target, &self.settings.retry, &mut self.rng);
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

    pub(super) fn watch_links(&mut self, now: Now) {
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

    pub(super) fn links_free(&self) -> bool {
        self.sessions.len() + self.dialler.dialling() < self.settings.links_max.min(LINKS_MAX)
    }

    pub(super) fn dial(&mut self, now: Now, interval: Millis) {
        for number in self.fixed.clone() {
            let target = Target::Fixed(number);
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
    pub(super) fn met_myself(&mut self, now: Now, link: LinkId) {
        // Who is who is only known from the Hellos; both say them, then part.
        self.hello(now, link);
    }
}
