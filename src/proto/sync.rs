//! What comes in on a link goes to whom it concerns; and what a session says by itself as time passes.

use super::engine::Engine;
use super::io::{LinkId, Now};
use super::members::Member;
use super::session::{Incoming, Session};
use crate::id::DeviceId;
use crate::limits::RELAYED_CONFIRMATIONS_MAX;
use crate::time::Millis;
use crate::wire::{Bye, ClockSample, Confirm, Message, Mode, Pong, RelayedConfirmation};
use alloc::vec::Vec;

/// A node tells the peers that sent it nothing what it has on disk after this; below the shortest relay delay, so that
/// nobody passes on what was already here.
const ANNOUNCE_MS: Millis = 25;
/// What others have confirmed is told after this, gathered: whoever has no link to them waits for it.
const NEWS_MS: Millis = 250;
/// A stream that nobody else may begin beside is given up after this without a batch.
const STALLED_MS: Millis = 60_000;
/// A peer whose stream does not move gives its turn to another after this.
const TURN_MS: Millis = 10_000;

impl Session {
    pub(super) fn instance(&self) -> Option<u64> {
        self.peer.as_ref().map(|peer| peer.hello.instance)
    }
}

impl Engine {
    pub(super) fn received(&mut self, now: Now, link: LinkId, message: Message) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.heard_at = now.mono;
        if session.peer.is_some() && matches!(message, Message::Pull(_) | Message::Confirm(_)) {
            // Said to members alone: whatever it refused this node for is over.
            self.refused_by.settled(&session.device);
        }
        match message {
            Message::Hello(hello) => self.said_hello(now, link, hello),
            // Who is not let in is told so before any Hello.
            Message::Bye(reason) => self.said_bye(now, link, reason),
            _ if session.peer.is_none() => self.bye(now, link, Bye::protocol("a message before Hello")),
            Message::Pull(pull) => self.pulled(now, link, pull),
            Message::Changes(changes) => self.changes(now, link, changes),
            Message::Confirm(confirm) => self.confirmed(now, link, confirm),
            Message::Fetch(fetch) => self.asked_for_rows(link, fetch),
            Message::Fetched(fetched) => self.fetched(now, link, fetched),
            Message::Ping(ping) => {
                self.heard_clock(now, link, ping.clock);
                let clock = self.clock.sample(now);
                self.send(link, Message::Pong(Pong { nonce: ping.nonce, clock }));
            }
            Message::Ask(ask) => self.asked(now, link, ask),
            Message::Report(report) => self.heard_report(now, link, report),
            Message::Pong(pong) => {
                session.round_trip_ms = Some(now.mono.saturating_sub(session.pinged_at));
                self.heard_clock(now, link, pong.clock);
            }
        }
    }

    pub(super) fn heard_clock(&mut self, now: Now, link: LinkId, sample: ClockSample) {
        let Some(session) = self.sessions.get(&link) else { return };
        let device = session.device;
        let peer = u64::from_le_bytes(core::array::from_fn(|at| device.0[at]));
        self.clock.hear(now, peer, sample);
        let offset = sample.millis as i64 - self.clock.reading(now).millis as i64;
        if let Some(member) = self.members.by_device.get_mut(&device) {
            member.clock_offset_ms = sample.synchronised.then_some(offset);
        }
    }

    /// Our vector has risen: whoever did not cause it hears of it soon, before it would pass the same rows on.
    pub(super) fn announce_vector(&mut self, now: Now) {
        for session in self.sessions.values_mut().filter(|session| session.peer.is_some()) {
            session.announce_at.get_or_insert(now.mono + ANNOUNCE_MS);
        }
    }

    /// Somebody has confirmed more than was known: whoever did not say so hears of it, also where nothing is written any more.
    pub(super) fn confirmations_are_news(&mut self, now: Now, from: LinkId) {
        let others = self.sessions.values_mut().filter(|session| session.link != from && session.peer.is_some());
        for session in others {
            session.news_at.get_or_insert(now.mono + NEWS_MS);
        }
    }

    pub(super) fn session_timers(&mut self, now: Now) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            self.tell_unasked(now, link);
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.relay_at.take_if(|at| *at <= now.mono).is_some() {
                self.pump(now, link);
            }
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.announce_at.take_if(|at| *at <= now.mono).is_some() {
                self.announce(now, link);
            }
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.news_at.take_if(|at| *at <= now.mono).is_some() && self.has_news(link) {
                self.announce(now, link);
            }
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.retry_at.take_if(|at| *at <= now.mono).is_some() {
                self.evaluate(now, link);
            }
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.compare_at.take_if(|at| *at <= now.mono).is_some() {
                self.compare_again(now, link);
            }
            self.compare_what_was_not(now, link);
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            let Incoming::Open { closed: false, progress_at, mode, .. } = session.incoming else { continue };
            if mode == Mode::Increment && now.mono >= progress_at + TURN_MS {
                // It keeps its place, and somebody else may begin.
                self.next_waiting(now, link);
            } else if now.mono >= progress_at + STALLED_MS && self.unanswered(link) == 0 {
                // Nobody else may begin beside a bootstrap or a reconciliation: one that stands still ends.
                self.bye(now, link, Bye::Silent);
            }
        }
    }

    /// What others have confirmed since it was last told to this peer, the oldest first.
    fn news(&self, link: LinkId) -> Vec<(u64, RelayedConfirmation)> {
        let Some(session) = self.sessions.get(&link) else { return Vec::new() };
        let is_news = |(device, member): &(&DeviceId, &Member)| {
            **device != session.device
                && member.changed > session.relayed_upto
                && member.state.has_confirmed
                && member.is_tracked()
        };
        let told = |(device, member): (&DeviceId, &Member)| {
            let vector = member.state.confirmed.clone();
            (member.changed, RelayedConfirmation { device: *device, replica: member.state.replica, vector })
        };
        let mut news: Vec<_> = self.members.by_device.iter().filter(is_news).map(told).collect();
        news.sort_by_key(|(changed, _)| *changed);
        news
    }

    fn has_news(&self, link: LinkId) -> bool {
        !self.news(link).is_empty()
    }

    pub(super) fn announce(&mut self, now: Now, link: LinkId) {
        let vector = self.knowledge.vector.clone();
        let mut news = self.news(link);
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(peer) = &session.peer else { return };
        let (stream, upto) = match &session.incoming {
            Incoming::Open { stream, .. } => (*stream, peer.cursor),
            _ => (0, 0),
        };
        // The rest is told a little later, a few at a time.
        session.news_at = (news.len() > RELAYED_CONFIRMATIONS_MAX).then_some(now.mono + NEWS_MS);
        news.truncate(RELAYED_CONFIRMATIONS_MAX);
        if let Some((changed, _)) = news.last() {
            session.relayed_upto = *changed;
        }
        let relayed = news.into_iter().map(|(_, relayed)| relayed).collect();
        self.send(link, Message::Confirm(Confirm { stream, upto, vector, relayed }));
    }
}
