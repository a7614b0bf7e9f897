//! Whose rows are taken, how, and in which order: who is a newcomer, whose turn it is to be caught up with.

use super::engine::Engine;
use super::io::{Event, LinkId, Now, Target};
use super::session::{Incoming, Session};
use crate::id::{DeviceId, LocalSeq};
use crate::mutants::{Mutant, planted};
use crate::replica::{Newcomer, newcomer};
use crate::wire::{Message, Mode, Pull};
use alloc::vec::Vec;

impl Engine {
    /// The member is on disk with its cursor: decide what to ask of it.
    pub(super) fn met(&mut self, now: Now, link: LinkId, device: DeviceId) {
        let Some(member) = self.members.by_device.get_mut(&device) else { return };
        let (replica, cursor) = (member.state.replica, member.state.cursor);
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(peer) = session.peer.as_mut() else { return };
        if peer.hello.replica != replica {
            // It has said Hello as another replica since, and that meeting is still on its way to the disk: this cursor
            // counts positions of a stream that is no more.
            return;
        }
        member.instance = Some(peer.hello.instance);
        member.target = session.dialled.or(Some(Target::Heard(peer.hello.instance)));
        let heard = self.discovery.heard.get(&peer.hello.instance).and_then(|heard| heard.addresses().first().copied());
        // The other end of a link that was accepted is no address that can be dialled; a beacon says one.
        member.address = heard.or(session.dialled.map(|_| session.address));
        peer.met = true;
        peer.cursor = cursor;
        self.may_be_asked_again(device);
        self.fetch(now, link);
        self.evaluate(now, link);
    }

    pub(super) fn evaluate_all(&mut self, now: Now) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        links.into_iter().for_each(|link| self.evaluate(now, link));
    }

    /// A peer that was a newcomer here may cover our floor by now, without a bootstrap: with what was on its way to it.
    pub(super) fn reconsider(&mut self, now: Now, link: LinkId) {
        // One that waits for storage to have room again has its own time.
        let idle = |session: &Session| session.incoming == Incoming::Idle && session.retry_at.is_none();
        if self.sessions.get(&link).is_some_and(idle) {
            self.evaluate(now, link);
        }
    }

    /// The peer decides by the floor that it was told. Where ours has risen since, each could hold the other for the
    /// newcomer, and both would wait for ever.
    fn say_floor_again(&mut self, now: Now, link: LinkId) {
        let floor = &self.knowledge.floor;
        let stale = |session: &Session| session.outgoing.is_none() && session.said_floor != *floor;
        if self.sessions.get(&link).is_some_and(stale) {
            self.hello(now, link);
        }
    }

    /// Decides whether to take the peer's rows, and how.
    pub(super) fn evaluate(&mut self, now: Now, link: LinkId) {
        if self.bootstrapping.is_some() || self.forking {
            return;
        }
        let Some(session) = self.sessions.get(&link) else { return };
        let Some(peer) = session.met() else { return };
        if matches!(session.incoming, Incoming::Open { .. }) || session.retry_at.is_some() {
            return;
        }
        let verdict = match planted(Mutant::NoFloorCheckAtHello) {
            true => Newcomer::Neither,
            false => newcomer((&self.knowledge.vector, &self.knowledge.floor), (&peer.announced, &peer.hello.floor)),
        };
        match verdict {
            Newcomer::Us => return self.start_bootstrap(now, link),
            // It takes everything; nothing of it is taken.
            Newcomer::Peer => return self.say_floor_again(now, link),
            Newcomer::Neither => {}
        }
        let other_turn = self.sessions.values().any(|other| other.link != link && other.is_catching_up());
        let nothing_to_fetch = self.knowledge.vector.includes(&peer.hello.vector) && peer.hello.clean;
        if other_turn && !nothing_to_fetch {
            if let Some(session) = self.sessions.get_mut(&link) {
                session.incoming = Incoming::Waiting;
            }
            return;
        }
        // What our vector covers needs no scan: its stream is ours from its tail on.
        let after = if nothing_to_fetch { peer.hello.tail.max(peer.cursor) } else { peer.cursor };
        let differ = self.knowledge.vector == peer.hello.vector
            && peer.hello.clean
            && self.knowledge.covered_upto == self.knowledge.tail
            && self.repairs.is_empty()
            && self.knowledge.digest != peer.hello.digest;
        self.pull(now, link, Mode::Increment, after);
        if differ {
            self.digests_differ(now, link);
        }
    }

    pub(super) fn pull(&mut self, now: Now, link: LinkId, mode: Mode, after: LocalSeq) {
        let vector = self.knowledge.vector.clone();
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let stream = session.next_stream();
        let Some(peer) = &session.peer else { return };
        let of = peer.hello.replica;
        session.incoming = Incoming::Open { stream, mode, closed: false, progress_at: now.mono, upto: None };
        self.send(link, Message::Pull(Pull { stream, of, mode, after, vector }));
    }

    pub(super) fn start_bootstrap(&mut self, now: Now, link: LinkId) {
        self.bootstrapping = Some(link);
        self.staged_whole = None;
        for session in self.sessions.values_mut() {
            // What others send now would have to be taken back: it is asked for again afterwards.
            session.incoming = Incoming::Idle;
        }
        let name = self.sessions.get(&link).and_then(|session| session.peer.as_ref()).map(|p| p.hello.node_id.clone());
        name.into_iter().for_each(|node_id| self.event(Event::BootstrapStarted { node_id }));
        self.pull(now, link, Mode::Bootstrap, 0);
    }

    /// Another waiting peer gets its turn.
    pub(super) fn next_turn(&mut self, now: Now) {
        if self.sessions.values().any(Session::is_catching_up) {
            return;
        }
        let waiting = self.sessions.values().find(|session| session.incoming == Incoming::Waiting);
        if let Some(link) = waiting.map(|session| session.link) {
            self.evaluate(now, link);
        }
    }

    pub(super) fn next_waiting(&mut self, now: Now, stalled: LinkId) {
        let waiting = self.sessions.values().find(|s| s.incoming == Incoming::Waiting).map(|session| session.link);
        if let Some(session) = self.sessions.get_mut(&stalled) {
            match waiting {
                Some(_) => session.incoming = Incoming::Waiting,
                None => return,
            }
        }
        waiting.into_iter().for_each(|link| self.evaluate(now, link));
    }
}
