//! Our stream to a peer: batches within a window, own rows at once, rows of others after a while.

use super::engine::Engine;
use super::io::{LinkId, Now, Output, StoreFault, Ticket};
use super::session::{Incoming, Outgoing, Session};
use super::storage::Pending;
use crate::mutants::{Mutant, planted};
use crate::replica::{Batch, Request, Stream};
use crate::row::Row;
use crate::time::Millis;
use crate::wire::{Changes, Confirm, Message, Mode, Pull};
use alloc::vec::Vec;

/// A relay waits at least this long for the origin's own push to arrive.
const RELAY_MIN_MS: Millis = 50;
/// And at most this long.
const RELAY_MAX_MS: Millis = 200;

impl Engine {
    pub(super) fn pulled(&mut self, now: Now, link: LinkId, pull: Pull) {
        if pull.of != self.knowledge.replica {
            return;
        }
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.outgoing = Some(Outgoing {
            stream: pull.stream,
            mode: pull.mode,
            position: pull.after,
            reading: None,
            held: None,
            in_flight: Default::default(),
            in_flight_bytes: 0,
            closed_at: None,
            closures: 0,
            say_closure: false,
            stopped: None,
            passes_upto: 0,
            hole: None,
            closed_with: None,
        });
        if let Some(peer) = &mut session.peer {
            peer.announced.join(&pull.vector);
        }
        self.reconsider(now, link);
        self.pump(now, link);
    }

    /// Reads the next batch for a peer, if the window has room and there may be something to send.
    pub(super) fn pump(&mut self, now: Now, link: LinkId) {
        let version = self.knowledge.version;
        let window = self.settings.window_bytes;
        let has_hole = |session: &Session| session.outgoing.as_ref().is_some_and(|out| out.hole.is_some());
        let hole_is_over = self.sessions.get(&link).is_some_and(has_hole) && self.is_given_up(now);
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(peer) = &session.peer else { return };
        let Some(out) = &mut session.outgoing else { return };
        if hole_is_over {
            out.begin_again_at_hole();
        }
        let nothing_new = out.closed_at == Some(version);
        if out.reading.is_some()
            || out.held.is_some()
            || out.stopped.is_some()
            || nothing_new
            || out.in_flight_bytes >= window
        {
            return;
        }
        // Past its first closure every stream is an increment.
        let mode = if out.closures > 0 { Mode::Increment } else { out.mode };
        let stream = Stream { mode, after: out.position, covers: peer.announced.clone(), passes_upto: out.passes_upto };
        self.next_ticket_for(link, stream);
    }

    pub(super) fn next_ticket_for(&mut self, link: LinkId, stream: Stream) {
        let ticket = self.next_ticket();
        if let Some(out) = self.sessions.get_mut(&link).and_then(|session| session.outgoing.as_mut()) {
            out.reading = Some(ticket);
        }
        self.outputs.push_back(Output::Stream { ticket, stream });
    }

    pub(super) fn streamed(&mut self, now: Now, ticket: Ticket, result: Result<Batch, StoreFault>) {
        let reads = |session: &&mut Session| session.outgoing.as_ref().is_some_and(|out| out.reading == Some(ticket));
        let Some(session) = self.sessions.values_mut().find(reads) else { return };
        let link = session.link;
        let Some(stream) = session.outgoing.as_ref().map(|out| out.stream) else { return };
        match result {
            Err(_) => self.store_failed(now, link),
            Ok(Batch::BelowFloor { knowledge }) => {
                session.outgoing = None;
                self.learn(now, knowledge);
                // Its vector does not cover our floor any more: it must know, and bootstrap.
                self.hello(now, link);
                if let Some(session) = self.sessions.get_mut(&link) {
                    session.reset_streams();
                }
                self.evaluate(now, link);
            }
            Ok(Batch::Rows { rows, upto, mut closure, own, knowledge, damaged }) => {
                // What cannot be read here cannot be compared.
                closure.iter_mut().for_each(|closure| closure.clean &= self.repairs.is_empty());
                if knowledge.replica != self.knowledge.replica && !planted(Mutant::BatchOfAnotherLife) {
                    // Positions of one life say nothing in another: what was asked for is not what was read.
                    session.outgoing.iter_mut().for_each(|out| out.reading = None);
                    return self.learn(now, knowledge);
                }
                let sent = knowledge.sent.max(self.knowledge.sent);
                let closed_at = closure.is_some().then_some(knowledge.version);
                // A snapshot may show what storage has not answered yet: then this stirs the streams, and no other batch of
                // this one may be read before this batch has its place, or it would overtake it or take its place.
                if !planted(Mutant::BatchOvertakes) {
                    self.learn(now, knowledge.clone());
                }
                let Some(out) = self.sessions.get_mut(&link).and_then(|session| session.outgoing.as_mut()) else {
                    return;
                };
                out.reading = None;
                out.stopped = damaged.as_ref().map(|damaged| damaged.local_seq);
                if out.hole.is_some() {
                    closure = None;
                }
                let said_upto = out.hole.map_or(upto, |hole| upto.min(hole));
                out.position = upto;
                out.closed_at = closed_at.or(out.closed_at);
                self.learn(now, knowledge);
                let changes = Changes { stream, rows, upto: said_upto, closure };
                let stopped = damaged.as_ref().map(|damaged| damaged.local_seq);
                let asked = damaged.is_some_and(|damaged| self.found_damaged(now, damaged));
                if own > sent && !planted(Mutant::SentNotMarked) {
                    let upto = self.knowledge.seq.max(own);
                    if let Some(out) = self.sessions.get_mut(&link).and_then(|session| session.outgoing.as_mut()) {
                        out.held = Some((changes, own));
                    }
                    self.store(now, Pending::MarkSent, Request::MarkSent { upto });
                } else {
                    self.send_changes(now, link, changes);
                }
                if stopped.is_some() && asked {
                    self.fetch(now, link);
                } else if let Some(at) = stopped {
                    // Nobody can be asked for it, as for a row that is gone again. A bootstrap stays before it.
                    if let Some(out) = self.sessions.get_mut(&link).and_then(|session| session.outgoing.as_mut())
                        && (out.mode != Mode::Bootstrap || out.closures > 0)
                    {
                        (out.stopped, out.passes_upto) = (None, out.passes_upto.max(at));
                        out.hole.get_or_insert(at.saturating_sub(1));
                    }
                    self.pump(now, link);
                }
            }
        }
    }

    pub(super) fn flush_held(&mut self, now: Now) {
        let sent = self.knowledge.sent;
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            let Some(out) = self.sessions.get_mut(&link).and_then(|session| session.outgoing.as_mut()) else {
                continue;
            };
            if let Some((changes, _)) = out.held.take_if(|(_, own)| *own <= sent) {
                self.send_changes(now, link, changes);
            }
        }
    }

    pub(super) fn send_changes(&mut self, now: Now, link: LinkId, changes: Changes) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let (Some(out), Some(peer)) = (session.outgoing.as_mut(), session.peer.as_mut()) else { return };
        let closes = changes.closure.is_some();
        // A closure that tells the peer nothing is not sent; the first one always is.
        let news = match &changes.closure {
            Some(closure) => {
                // Other documents under the same vector: a reconciliation has changed them, the peer must compare anew.
                let same = out.closed_with.take().filter(|(vector, _)| *vector == closure.vector);
                let reconciled = same.is_some_and(|(_, digest)| digest != closure.digest);
                out.closed_with = Some((closure.vector.clone(), closure.digest));
                let unknown = out.closures == 0 || !peer.announced.includes(&closure.vector);
                let differs = core::mem::take(&mut out.say_closure);
                unknown || reconciled || differs || !changes.rows.is_empty()
            }
            None => !changes.rows.is_empty(),
        };
        if closes {
            out.closures += 1;
        }
        let live = out.closures > 0 && matches!(session.incoming, Incoming::Open { closed: true, .. });
        if live && peer.live_since.is_none() {
            peer.live_since = Some(now.mono);
        }
        if news {
            if let Some(closure) = &changes.closure {
                session.compared = closure.vector.clone();
            }
            let bytes = changes.rows.iter().map(Row::encoded_bytes).sum::<usize>() + 64;
            out.in_flight.push_back((changes.upto, bytes));
            out.in_flight_bytes += bytes;
            self.counters.rows_sent += changes.rows.len() as u64;
            self.send(link, Message::Changes(changes));
        }
        self.pump(now, link);
    }

    /// This node has written: everybody who follows gets it at once.
    pub(super) fn own_rows_stored(&mut self, now: Now) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        links.into_iter().for_each(|link| self.pump(now, link));
    }

    /// Rows of others have come: whoever still lacks them in a while gets them from here.
    pub(super) fn rows_relayed(&mut self, now: Now) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            let delay = if planted(Mutant::RelayAtOnce) { 0 } else { self.rng.u64(RELAY_MIN_MS..=RELAY_MAX_MS) };
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.outgoing.as_ref().is_some_and(|out| out.closures == 0) {
                self.pump(now, link);
            } else if session.relay_at.is_none() {
                session.relay_at = Some(now.mono + delay);
            }
        }
    }

    pub(super) fn confirmed(&mut self, now: Now, link: LinkId, confirm: Confirm) {
        let wall = self.clock.reading(now).millis;
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let device = session.device;
        let Some(peer) = &mut session.peer else { return };
        peer.announced.join(&confirm.vector);
        // Before that its starts are not remembered, which what it says belongs to.
        let session_met = peer.met;
        let replica = peer.hello.replica;
        if let Some(out) = session.outgoing.as_mut().filter(|out| out.stream == confirm.stream) {
            while let Some((_, bytes)) = out.in_flight.front().copied().filter(|(upto, _)| *upto <= confirm.upto) {
                out.in_flight.pop_front();
                out.in_flight_bytes -= bytes;
            }
        }
        let before = self.members.revision();
        self.members.confirm(&device, replica, &confirm.vector, wall);
        if session_met {
            self.members.heard(&device, replica, &confirm.vector, 0);
        }
        for relayed in confirm.relayed {
            if relayed.device != self.settings.device && relayed.device != device {
                self.members.confirm(&relayed.device, relayed.replica, &relayed.vector, wall);
            }
        }
        if self.members.revision() != before {
            self.confirmations_are_news(now, link);
        }
        self.reconsider(now, link);
        self.pump(now, link);
    }
}
