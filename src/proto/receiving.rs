//! A peer's stream to us: batches to storage, confirmed once they are durable; bootstraps and what follows them.

use super::engine::Engine;
use super::io::{Event, LinkId, Now, Output};
use super::repair::Repairs;
use super::session::Incoming;
use super::storage::Pending;
use crate::id::LocalSeq;
use crate::mutants::{Mutant, planted};
use crate::replica::{Applied, Bootstrapped, Incoming as IncomingBatch, Meeting, Origin, Request};
use crate::row::RowKey;
use crate::time::Millis;
use crate::wire::{Bye, Changes, Confirm, Message, Mode};
use alloc::vec::Vec;

/// Between two reconciliations with one peer.
const RECONCILE_MS: Millis = 10_000;
/// So often it is looked at whether a peer covers the same as this node and neither has compared.
const COMPARE_MS: Millis = 30_000;
/// A stream of which storage has refused a batch is asked for again after this, and twice as late each time.
const STORE_RETRY_MS: Millis = 500;
/// But not later than this: somebody may have made room.
const STORE_RETRY_MAX_MS: Millis = 10_000;

impl Engine {
    pub(super) fn changes(&mut self, now: Now, link: LinkId, changes: Changes) {
        let bootstrapping = self.bootstrapping;
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let device = session.device;
        let Incoming::Open { stream, mode, closed, progress_at, upto: last } = &mut session.incoming else { return };
        if *stream != changes.stream {
            return;
        }
        let (stream, already_closed) = (*stream, *closed);
        *progress_at = now.mono;
        let Some(peer) = &mut session.peer else { return };
        let replica = peer.hello.replica;
        self.counters.rows_received += changes.rows.len() as u64;
        let upto = changes.upto;
        let follows = last.replace(upto);
        if *mode == Mode::Bootstrap {
            // What comes behind the closure is asked for again afterwards, as an increment: staged behind it, it would not be in
            // the state that the closure speaks of.
            if bootstrapping != Some(link) || self.staged_whole.is_some() {
                return;
            }
            let first = follows.is_none();
            let early = planted(Mutant::BootstrapInForceEarly).then(|| crate::wire::Closure {
                vector: peer.announced.clone(),
                floor: peer.hello.floor.clone(),
                digest: 0,
                clean: false,
                hlc: peer.hello.hlc,
            });
            // In force once all of it is known to be staged: had an earlier part failed, the stream would be given up by then.
            let whole = changes.closure.or(early).map(|closure| Origin { device, replica, upto, closure });
            let closes = whole.is_some();
            self.staged_whole = whole;
            self.store(
                now,
                Pending::Stage { link, stream, upto, closes },
                Request::Stage { first, rows: changes.rows },
            );
            return;
        }
        if let Some(closure) = &changes.closure {
            peer.announced.join(&closure.vector);
            peer.streamed.join(&closure.vector);
            // Nothing is asked of a peer before it is met.
            self.members.heard(&device, replica, &closure.vector, 0);
        }
        let mode = if already_closed { Mode::Increment } else { *mode };
        let announced = peer.streamed.clone();
        let closed = changes.closure.is_some();
        let incoming = IncomingBatch {
            device,
            replica,
            announced,
            mode,
            asked_as: self.knowledge.replica,
            follows,
            rows: changes.rows,
            upto,
            closure: changes.closure,
        };
        if planted(Mutant::ConfirmBeforeSync) {
            let mut vector = self.knowledge.vector.clone();
            incoming.closure.iter().for_each(|closure| vector.join(&closure.vector));
            self.send(link, Message::Confirm(Confirm { stream, upto, vector, relayed: Vec::new() }));
        }
        self.store(now, Pending::Apply { link, stream, upto, closed }, Request::Apply(incoming));
    }

    pub(super) fn applied(
        &mut self,
        now: Now,
        link: LinkId,
        of_stream: u32,
        upto: LocalSeq,
        closes: bool,
        applied: Applied,
    ) {
        match applied {
            Applied::Applied { changed, system, alarm, equal } => {
                self.rows_taken(now, changed, system);
                self.confirm(link, of_stream, upto);
                let Some(session) = self.sessions.get_mut(&link) else { return };
                session.refusals = 0;
                let Some(peer) = &mut session.peer else { return };
                // A batch of a stream before the last Hello may be of another life of the peer.
                if matches!(&session.incoming, Incoming::Open { stream, .. } if *stream == of_stream) {
                    peer.cursor = peer.cursor.max(upto);
                    self.members.heard(&session.device, peer.hello.replica, &peer.announced, peer.cursor);
                }
                if (equal || alarm) && self.repairs.is_empty() {
                    session.compared = self.knowledge.vector.clone();
                }
                let node_id = peer.hello.node_id.clone();
                if let Incoming::Open { stream, closed, .. } = &mut session.incoming
                    && closes
                    && *stream == of_stream
                    && !*closed
                {
                    *closed = true;
                    if session.outgoing.as_ref().is_some_and(|out| out.closures > 0) {
                        peer.live_since = Some(now.mono);
                    }
                    self.event(Event::CaughtUp { node_id: node_id.clone() });
                    self.next_turn(now);
                }
                if equal {
                    self.counters.equal_digests += 1;
                    self.event(Event::InSync { node_id });
                }
                if alarm && self.repairs.is_empty() {
                    self.digests_differ(now, link);
                }
            }
            Applied::Held { changed, system, damaged } => {
                self.rows_taken(now, changed, system);
                self.held_by(now, link, damaged);
                // By the time it comes again the peers were asked for what is damaged.
                self.batch_refused(now, link, of_stream);
            }
            Applied::ReceiverBelowFloor => {
                // The sender has forgotten deletes since its Hello that this node may have missed.
                if self.bootstrapping.is_none() && self.sessions.contains_key(&link) {
                    self.start_bootstrap(now, link);
                }
            }
            Applied::Gap => self.batch_refused(now, link, of_stream),
            Applied::SenderBelowFloor => self.bye(now, link, Bye::BelowFloor),
            Applied::RolledBack => {
                // Found within the transaction, so it is certain: another disk has gone on under this identity.
                self.bye(now, link, Bye::protocol("it knows more of this replica than this replica"));
                self.fork(now, None);
            }
            Applied::TooManyReplicas => self.bye(now, link, Bye::protocol("too many replicas")),
        }
    }

    /// Rows of a peer have taken their place.
    fn rows_taken(&mut self, now: Now, changed: Vec<RowKey>, system: bool) {
        self.overwritten(now, changed.iter());
        if !changed.is_empty() {
            self.outputs.push_back(Output::Changed { keys: changed });
            self.rows_relayed(now);
        }
        if system {
            self.store(now, Pending::Records, Request::Records);
        }
    }

    pub(super) fn digests_differ(&mut self, now: Now, link: LinkId) {
        self.counters.alarms += 1;
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(peer) = &session.peer else { return };
        let node_id = peer.hello.node_id.clone();
        self.outputs.push_back(Output::Event(Event::DigestsDiffer { node_id }));
        if planted(Mutant::NoReconcile) {
            return;
        }
        if now.mono < session.reconcile_after {
            // What has been done about it may still be on its way.
            session.compare_at = Some(session.reconcile_after);
            return;
        }
        session.reconcile_after = now.mono + RECONCILE_MS;
        // Perhaps it is the peer that lacks something, and it has had no reason to compare.
        if let Some(out) = &mut session.outgoing {
            out.say_closure = true;
            out.closed_at = None;
        }
        self.pull(now, link, Mode::Reconcile, 0);
        self.pump(now, link);
    }

    /// Asks for the peer's closure once more: what was different may be the same by now, or must be reconciled again.
    pub(super) fn compare_again(&mut self, now: Now, link: LinkId) {
        let Some(session) = self.sessions.get(&link) else { return };
        let Some(cursor) = session.met().map(|peer| peer.cursor) else { return };
        if matches!(session.incoming, Incoming::Open { closed: true, .. }) && self.bootstrapping.is_none() {
            self.pull(now, link, Mode::Increment, cursor);
        }
    }

    /// Two that have come to cover the same by way of others had nothing to say to each other, so neither has compared.
    pub(super) fn compare_what_was_not(&mut self, now: Now, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link).filter(|s| now.mono >= s.compared_at + COMPARE_MS) else {
            return;
        };
        session.compared_at = now.mono;
        let ours = &self.knowledge.vector;
        if session.compared != *ours
            && session.met().is_some_and(|peer| peer.announced == *ours)
            && self.repairs.is_empty()
        {
            self.compare_again(now, link);
        }
    }

    pub(super) fn staged(&mut self, now: Now, link: LinkId, stream: u32, upto: LocalSeq, closes: bool) {
        let current = self
            .sessions
            .get(&link)
            .is_some_and(|session| matches!(&session.incoming, Incoming::Open { stream: open, .. } if *open == stream));
        if self.bootstrapping != Some(link) || !current {
            return;
        }
        self.confirm(link, stream, upto);
        // It stays known until that is done: nothing is staged any more.
        if let Some(origin) = self.staged_whole.clone().filter(|_| closes) {
            let random = self.rng.u64(..);
            self.store(now, Pending::Bootstrap, Request::Bootstrap { origin, random });
        }
    }

    pub(super) fn bootstrapped(&mut self, now: Now, done: Bootstrapped) {
        self.bootstrapping = None;
        self.event(Event::BootstrapDone { done });
        // Everything that callers saw may be different now.
        self.outputs.push_back(Output::Changed { keys: Vec::new() });
        self.new_life_begun(now);
    }

    /// This node is another replica now: every session starts over.
    pub(super) fn new_life_begun(&mut self, now: Now) {
        self.said_as = self.knowledge.replica;
        // A bootstrap of the old life begins again, if it is still needed.
        self.bootstrapping = None;
        self.staged_whole = None;
        // What is damaged still is found again, and judged by what this life covers.
        self.repairs = Repairs::default();
        for session in self.sessions.values_mut() {
            session.fetching = None;
            if let Some(peer) = &mut session.peer {
                // The cursors on disk were set anew; they are read again with the next meeting.
                peer.met = false;
            }
        }
        self.hello_all(now);
        self.meet_again(now);
    }

    /// Reads the members' cursors from disk again.
    pub(super) fn meet_again(&mut self, now: Now) {
        let met: Vec<(LinkId, Meeting)> = (self.sessions.values())
            .filter_map(|session| {
                let hello = &session.peer.as_ref()?.hello;
                let meeting =
                    Meeting { device: session.device, node_id: hello.node_id.clone(), tracked: None, said: None };
                Some((session.link, meeting))
            })
            .collect();
        for (link, meeting) in met {
            self.store(now, Pending::Meet { link }, Request::Meet(meeting));
        }
    }

    /// What is on our disk, said to whom it came from.
    pub(super) fn confirm(&mut self, link: LinkId, stream: u32, upto: LocalSeq) {
        if planted(Mutant::ConfirmBeforeSync) {
            return;
        }
        let vector = self.knowledge.vector.clone();
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.announce_at = None;
        self.send(link, Message::Confirm(Confirm { stream, upto, vector, relayed: Vec::new() }));
    }

    /// Storage did not take a batch, for want of space say. Nothing more of that stream is taken; it is asked for again
    /// from where the disk stands, later each time. The link stays: what this node has still goes out.
    pub(super) fn batch_refused(&mut self, now: Now, link: LinkId, of_stream: u32) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        // What was on its way behind a refused batch is refused too, and changes nothing any more.
        if !matches!(session.incoming, Incoming::Open { stream, .. } if stream == of_stream) {
            return;
        }
        session.incoming = Incoming::Idle;
        session.retry_at = Some(now.mono + (STORE_RETRY_MS << session.refusals.min(6)).min(STORE_RETRY_MAX_MS));
        session.refusals = session.refusals.saturating_add(1);
        let first = session.refusals == 1;
        let name = session.peer.as_ref().map(|peer| peer.hello.node_id.clone());
        if first {
            name.into_iter().for_each(|node_id| self.event(Event::ApplyFailed { node_id }));
        }
        if self.bootstrapping == Some(link) {
            self.bootstrapping = None;
            self.staged_whole = None;
            self.evaluate_all(now);
        }
        self.next_turn(now);
    }

    /// Storage could not do it: the link is given up, and what came on it comes again.
    pub(super) fn store_failed(&mut self, now: Now, link: LinkId) {
        let Some(session) = self.sessions.get(&link) else { return };
        let name = session.peer.as_ref().map(|peer| peer.hello.node_id.clone());
        name.into_iter().for_each(|node_id| self.event(Event::ApplyFailed { node_id }));
        self.bye(now, link, Bye::Stopping);
    }
}
