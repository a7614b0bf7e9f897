//! What happens within sessions: Hello, whose rows go where, batches, confirmations, bootstrap, forks.

use super::engine::{Engine, Pending, ROTATED_REST_MS};
use super::io::{Event, LinkId, Now, Output, StoreFault, Target, Ticket};
use super::links::BACKOFF_CAP_MS;
use super::members::{MemberRecord, Standing};
use super::session::{Incoming, Outgoing, Peer, Session};
use crate::id::{DeviceId, LocalSeq};
use crate::limits::{LINKS_MAX, RELAYED_CONFIRMATIONS_MAX};
use crate::mutants::{Mutant, planted};
use crate::replica::{
    Applied, Batch, Bootstrapped, Incoming as IncomingBatch, Meeting, Newcomer, Origin, Precondition, Request, Said,
    Stream, Write, history_verdict, newcomer, shared_until,
};
use crate::row::{Body, Row};
use crate::time::Millis;
use crate::wire::{
    Bye, Changes, ClockSample, Confirm, Hello, MemberNote, Message, Mode, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Pong,
    Pull, RelayedConfirmation,
};
use alloc::vec::Vec;

/// A node tells the peers that sent it nothing what it has on disk after this; below the shortest relay delay, so that
/// nobody passes on what was already here.
const ANNOUNCE_MS: Millis = 25;
/// A relay waits at least this long for the origin's own push to arrive.
const RELAY_MIN_MS: Millis = 50;
/// And at most this long.
const RELAY_MAX_MS: Millis = 200;
/// A peer whose stream does not move gives its turn to another after this.
const TURN_MS: Millis = 10_000;
/// Between two reconciliations with one peer.
const RECONCILE_MS: Millis = 10_000;
/// Between two forks: a peer that cries wolf must not make this node change its identity all the time.
const FORK_MS: Millis = 1_000;
/// A stream of which storage has refused a batch is asked for again after this, and twice as late each time.
const STORE_RETRY_MS: Millis = 500;
/// But not later than this: somebody may have made room.
const STORE_RETRY_MAX_MS: Millis = 10_000;
/// Between two new device keys on a peer's word: each makes a new member of this device.
const NEW_DEVICE_MS: Millis = 600_000;

impl Session {
    pub(super) fn instance(&self) -> Option<u64> {
        self.peer.as_ref().map(|peer| peer.hello.instance)
    }
}

impl Engine {
    pub(super) fn received(&mut self, now: Now, link: LinkId, message: Message) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.heard_at = now.mono;
        match message {
            Message::Hello(hello) => self.said_hello(now, link, hello),
            // Who is not let in is told so before any Hello.
            Message::Bye(reason) => self.said_bye(now, link, reason),
            _ if session.peer.is_none() => self.bye(now, link, Bye::protocol("a message before Hello")),
            Message::Pull(pull) => self.pulled(now, link, pull),
            Message::Changes(changes) => self.changes(now, link, changes),
            Message::Confirm(confirm) => self.confirmed(now, link, confirm),
            Message::Ping(ping) => {
                self.heard_clock(now, link, ping.clock);
                let clock = self.clock.sample(now);
                self.send(link, Message::Pong(Pong { nonce: ping.nonce, clock }));
            }
            Message::Pong(pong) => {
                session.round_trip_ms = Some(now.mono.saturating_sub(session.pinged_at));
                self.heard_clock(now, link, pong.clock);
            }
        }
    }

    fn heard_clock(&mut self, now: Now, link: LinkId, sample: ClockSample) {
        let Some(session) = self.sessions.get(&link) else { return };
        let device = session.device;
        let peer = u64::from_le_bytes(core::array::from_fn(|at| device.0[at]));
        self.clock.hear(now, peer, sample);
        let offset = sample.millis as i64 - self.clock.reading(now).millis as i64;
        if let Some(member) = self.members.by_device.get_mut(&device) {
            member.clock_offset_ms = sample.synchronised.then_some(offset);
        }
    }

    // ---- Hello ----

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
            clean: knowledge.covered_upto == knowledge.tail,
            members: self.members.tracked().map(note).collect(),
        };
        let said_seq = hello.vector.of(hello.replica);
        self.send(link, Message::Hello(hello));
        if let Some(session) = self.sessions.get_mut(&link) {
            session.said_seq = said_seq;
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

    fn said_hello(&mut self, now: Now, link: LinkId, hello: Hello) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let device = session.device;
        if hello.version_min > PROTOCOL_VERSION || hello.version_max < PROTOCOL_VERSION_MIN {
            return self.bye(now, link, Bye::Version);
        }
        if device == self.settings.device {
            return self.clone_met(now, link, &hello);
        }
        if self.members.holder_of(&hello.node_id, &device).is_some() || hello.node_id == self.settings.node_id {
            self.event(Event::NameTaken { node_id: hello.node_id, device });
            return self.bye(now, link, Bye::NameTaken);
        }
        let seen = self.members.by_device.get(&device).map(|member| &member.state);
        let verdict = history_verdict(seen, &self.knowledge.vector, &hello);
        let same_process = self.members.by_device.get(&device).is_some_and(|m| m.instance == Some(hello.instance));
        if let Err(common) = verdict.or_else(|common| if same_process { Ok(()) } else { Err(common) }) {
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
        let said = Said {
            replica: hello.replica,
            tokens: hello.tokens.iter().map(|start| start.token).collect(),
            vector: hello.vector.clone(),
        };
        let visitor = hello.visitor && !planted(Mutant::VisitorTracked);
        let meeting = Meeting { device, node_id: hello.node_id.clone(), tracked: Some(!visitor), said: Some(said) };
        let (node_id, members, address) = (hello.node_id.clone(), hello.members.clone(), session.address);
        let target = session.dialled.unwrap_or(Target::Heard(hello.instance));
        let (announced, streamed) = (hello.vector.clone(), hello.vector.clone());
        session.peer = Some(Peer { announced, streamed, hello, met: false, cursor: 0, live_since: None });
        self.dialler.succeeded(target);
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
    fn heard_of(&mut self, now: Now, notes: Vec<MemberNote>) {
        for MemberNote { device, node_id } in notes {
            let known = self.members.by_device.contains_key(&device) || device == self.settings.device;
            if !known && self.members.has_room() {
                let meeting = Meeting { device, node_id, tracked: Some(true), said: None };
                self.store(now, Pending::HeardOf, Request::Meet(meeting));
            }
        }
    }

    /// Two links to one peer: both sides keep the same one. And the bound on links, once it is known who wants in.
    fn keep_one_link(&mut self, now: Now, link: LinkId, hello: &Hello) -> bool {
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
    fn clone_met(&mut self, now: Now, link: LinkId, hello: &Hello) {
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

    fn said_bye(&mut self, now: Now, link: LinkId, reason: Bye) {
        let target =
            self.sessions.get(&link).and_then(|session| session.dialled.or(session.instance().map(Target::Heard)));
        let (mut by_another, mut said_seq) = (false, None);
        if let Some(session) = self.sessions.get_mut(&link) {
            session.goodbye = Some(reason.clone());
            by_another = session.device != self.settings.device;
            said_seq = Some(session.said_seq);
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
                target.into_iter().for_each(|target| self.dialler.rest(now, target, BACKOFF_CAP_MS));
            }
            Bye::Rotated => target.into_iter().for_each(|target| self.dialler.rest(now, target, ROTATED_REST_MS)),
            _ => {}
        }
    }

    fn fork(&mut self, now: Now, common: Option<u64>) {
        if self.forking || now.mono < self.fork_after {
            return;
        }
        self.forking = true;
        self.fork_after = now.mono + FORK_MS;
        let shared = shared_until(&self.knowledge, common);
        let random = self.rng.u64(..);
        self.store(now, Pending::Fork, Request::Fork { shared, random });
    }

    // ---- whose rows go where ----

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
        peer.met = true;
        peer.cursor = cursor;
        self.evaluate(now, link);
    }

    pub(super) fn evaluate_all(&mut self, now: Now) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        links.into_iter().for_each(|link| self.evaluate(now, link));
    }

    /// A peer that was a newcomer here may cover our floor by now, without a bootstrap: with what was on its way to it.
    fn reconsider(&mut self, now: Now, link: LinkId) {
        if self.sessions.get(&link).is_some_and(|session| session.incoming == Incoming::Idle) {
            self.evaluate(now, link);
        }
    }

    /// Decides whether to take the peer's rows, and how.
    fn evaluate(&mut self, now: Now, link: LinkId) {
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
            Newcomer::Peer => return,
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
            && self.knowledge.digest != peer.hello.digest;
        self.pull(now, link, Mode::Increment, after);
        if differ {
            self.digests_differ(now, link);
        }
    }

    fn pull(&mut self, now: Now, link: LinkId, mode: Mode, after: LocalSeq) {
        let vector = self.knowledge.vector.clone();
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let stream = session.next_stream();
        let Some(peer) = &session.peer else { return };
        let of = peer.hello.replica;
        session.incoming = Incoming::Open { stream, mode, closed: false, progress_at: now.mono, upto: None };
        self.send(link, Message::Pull(Pull { stream, of, mode, after, vector }));
    }

    fn start_bootstrap(&mut self, now: Now, link: LinkId) {
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

    // ---- our stream to a peer ----

    fn pulled(&mut self, now: Now, link: LinkId, pull: Pull) {
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
        });
        if let Some(peer) = &mut session.peer {
            peer.announced.join(&pull.vector);
        }
        self.reconsider(now, link);
        self.pump(now, link);
    }

    /// Reads the next batch for a peer, if the window has room and there may be something to send.
    pub(super) fn pump(&mut self, _now: Now, link: LinkId) {
        let version = self.knowledge.version;
        let window = self.settings.window_bytes;
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(peer) = &session.peer else { return };
        let Some(out) = &mut session.outgoing else { return };
        let nothing_new = out.closed_at == Some(version);
        if out.reading.is_some() || out.held.is_some() || nothing_new || out.in_flight_bytes >= window {
            return;
        }
        // Past its first closure every stream is an increment.
        let mode = if out.closures > 0 { Mode::Increment } else { out.mode };
        let stream = Stream { mode, after: out.position, covers: peer.announced.clone() };
        self.next_ticket_for(link, stream);
    }

    fn next_ticket_for(&mut self, link: LinkId, stream: Stream) {
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
        let Some(out) = session.outgoing.as_mut() else { return };
        out.reading = None;
        let stream = out.stream;
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
            Ok(Batch::Rows { rows, upto, closure, own, knowledge }) => {
                if knowledge.replica != self.knowledge.replica && knowledge.version < self.knowledge.version {
                    return;
                }
                out.position = upto;
                if closure.is_some() {
                    out.closed_at = Some(knowledge.version);
                }
                let sent = knowledge.sent.max(self.knowledge.sent);
                self.learn(now, knowledge);
                let changes = Changes { stream, rows, upto, closure };
                if own > sent && !planted(Mutant::SentNotMarked) {
                    let upto = self.knowledge.seq.max(own);
                    if let Some(out) = self.sessions.get_mut(&link).and_then(|session| session.outgoing.as_mut()) {
                        out.held = Some((changes, own));
                    }
                    self.store(now, Pending::MarkSent, Request::MarkSent { upto });
                } else {
                    self.send_changes(now, link, changes);
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

    fn send_changes(&mut self, now: Now, link: LinkId, changes: Changes) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let (Some(out), Some(peer)) = (session.outgoing.as_mut(), session.peer.as_mut()) else { return };
        let closes = changes.closure.is_some();
        // A closure that tells the peer nothing is not sent; the first one always is.
        let news = match &changes.closure {
            Some(closure) => out.closures == 0 || !changes.rows.is_empty() || !peer.announced.includes(&closure.vector),
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

    fn confirmed(&mut self, now: Now, link: LinkId, confirm: Confirm) {
        let wall = self.clock.reading(now).millis;
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let device = session.device;
        let Some(peer) = &mut session.peer else { return };
        peer.announced.join(&confirm.vector);
        // Before that its starts are not remembered, which what it says belongs to.
        let session_met = peer.met;
        let replica = peer.hello.replica;
        if let Some(out) = session.outgoing.as_mut().filter(|out| out.stream == confirm.stream) {
            while let Some((_, bytes)) = out.in_flight.pop_front_if(|(upto, _)| *upto <= confirm.upto) {
                out.in_flight_bytes -= bytes;
            }
        }
        self.members.confirm(&device, replica, &confirm.vector, wall);
        if session_met {
            self.members.heard(&device, replica, &confirm.vector, 0);
        }
        for relayed in confirm.relayed {
            if relayed.device != self.settings.device && relayed.device != device {
                self.members.confirm(&relayed.device, relayed.replica, &relayed.vector, wall);
            }
        }
        self.reconsider(now, link);
        self.pump(now, link);
    }

    // ---- a peer's stream to us ----

    fn changes(&mut self, now: Now, link: LinkId, changes: Changes) {
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
            if bootstrapping != Some(link) {
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
            self.store(now, Pending::Stage { link, stream, upto }, Request::Stage { first, rows: changes.rows });
            // In force once all of it is known to be staged: had an earlier part failed, the link would be gone by then.
            if let (None, Some(closure)) = (&self.staged_whole, changes.closure.or(early)) {
                self.staged_whole = Some(Origin { device, replica, upto, closure });
            }
            return;
        }
        if let Some(closure) = &changes.closure {
            peer.announced.join(&closure.vector);
            peer.streamed.join(&closure.vector);
            // Nothing is asked of a peer before it is met.
            self.members.heard(&device, replica, &closure.vector, 0);
        }
        let mode = if already_closed { Mode::Increment } else { *mode };
        let closed = changes.closure.is_some();
        let incoming = IncomingBatch {
            device,
            replica,
            announced: peer.streamed.clone(),
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
                if !changed.is_empty() {
                    self.outputs.push_back(Output::Changed { keys: changed });
                    self.rows_relayed(now);
                }
                if system {
                    self.store(now, Pending::Records, Request::Records);
                }
                self.confirm(link, of_stream, upto);
                let Some(session) = self.sessions.get_mut(&link) else { return };
                session.refusals = 0;
                let Some(peer) = &mut session.peer else { return };
                // A batch of a stream before the last Hello may be of another life of the peer.
                if matches!(&session.incoming, Incoming::Open { stream, .. } if *stream == of_stream) {
                    peer.cursor = peer.cursor.max(upto);
                    self.members.heard(&session.device, peer.hello.replica, &peer.announced, peer.cursor);
                }
                let node_id = peer.hello.node_id.clone();
                if let Incoming::Open { stream, closed, .. } = &mut session.incoming {
                    if closes && *stream == of_stream && !*closed {
                        *closed = true;
                        if session.outgoing.as_ref().is_some_and(|out| out.closures > 0) {
                            peer.live_since = Some(now.mono);
                        }
                        self.event(Event::CaughtUp { node_id: node_id.clone() });
                        self.next_turn(now);
                    }
                }
                if equal {
                    self.counters.equal_digests += 1;
                    self.event(Event::InSync { node_id });
                }
                if alarm {
                    self.digests_differ(now, link);
                }
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

    fn digests_differ(&mut self, now: Now, link: LinkId) {
        self.counters.alarms += 1;
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(peer) = &session.peer else { return };
        let node_id = peer.hello.node_id.clone();
        self.outputs.push_back(Output::Event(Event::DigestsDiffer { node_id }));
        if planted(Mutant::NoReconcile) || now.mono < session.reconcile_after {
            return;
        }
        session.reconcile_after = now.mono + RECONCILE_MS;
        self.pull(now, link, Mode::Reconcile, 0);
    }

    pub(super) fn staged(&mut self, now: Now, link: LinkId, stream: u32, upto: LocalSeq) {
        let current = self
            .sessions
            .get(&link)
            .is_some_and(|session| matches!(&session.incoming, Incoming::Open { stream: open, .. } if *open == stream));
        if self.bootstrapping != Some(link) || !current {
            return;
        }
        self.confirm(link, stream, upto);
        if let Some(origin) = self.staged_whole.take_if(|origin| origin.upto == upto) {
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
        for session in self.sessions.values_mut() {
            if let Some(peer) = &mut session.peer {
                // The cursors on disk were set anew; they are read again with the next meeting.
                peer.met = false;
            }
        }
        self.hello_all(now);
        self.meet_again(now);
    }

    /// Reads the members' cursors from disk again.
    fn meet_again(&mut self, now: Now) {
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
    fn confirm(&mut self, link: LinkId, stream: u32, upto: LocalSeq) {
        if planted(Mutant::ConfirmBeforeSync) {
            return;
        }
        let vector = self.knowledge.vector.clone();
        let Some(session) = self.sessions.get_mut(&link) else { return };
        session.announce_at = None;
        self.send(link, Message::Confirm(Confirm { stream, upto, vector, relayed: Vec::new() }));
    }

    /// Our vector has risen: whoever did not cause it hears of it soon, before it would pass the same rows on.
    pub(super) fn announce_vector(&mut self, now: Now) {
        for session in self.sessions.values_mut().filter(|session| session.peer.is_some()) {
            session.announce_at.get_or_insert(now.mono + ANNOUNCE_MS);
        }
    }

    pub(super) fn session_timers(&mut self, now: Now) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.relay_at.take_if(|at| *at <= now.mono).is_some() {
                self.pump(now, link);
            }
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.announce_at.take_if(|at| *at <= now.mono).is_some() {
                self.announce(link);
            }
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if session.retry_at.take_if(|at| *at <= now.mono).is_some() {
                self.evaluate(now, link);
            }
            let Some(session) = self.sessions.get_mut(&link) else { continue };
            if let Incoming::Open { closed: false, progress_at, mode: Mode::Increment, .. } = session.incoming {
                if now.mono >= progress_at + TURN_MS {
                    // It keeps its place, and somebody else may begin.
                    self.next_waiting(now, link);
                }
            }
        }
    }

    fn next_waiting(&mut self, now: Now, stalled: LinkId) {
        let waiting = self.sessions.values().find(|s| s.incoming == Incoming::Waiting).map(|session| session.link);
        if let Some(session) = self.sessions.get_mut(&stalled) {
            match waiting {
                Some(_) => session.incoming = Incoming::Waiting,
                None => return,
            }
        }
        waiting.into_iter().for_each(|link| self.evaluate(now, link));
    }

    fn announce(&mut self, link: LinkId) {
        let vector = self.knowledge.vector.clone();
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(peer) = &session.peer else { return };
        let (stream, upto) = match &session.incoming {
            Incoming::Open { stream, .. } => (*stream, peer.cursor),
            _ => (0, 0),
        };
        let (receiver, seen) = (session.device, session.relayed_upto);
        let mut news: Vec<(u64, RelayedConfirmation)> = (self.members.by_device.iter())
            .filter(|(device, member)| {
                **device != receiver && member.changed > seen && member.state.has_confirmed && member.is_tracked()
            })
            .map(|(device, member)| {
                let vector = member.state.confirmed.clone();
                (member.changed, RelayedConfirmation { device: *device, replica: member.state.replica, vector })
            })
            .collect();
        news.sort_by_key(|(changed, _)| *changed);
        news.truncate(RELAYED_CONFIRMATIONS_MAX);
        if let Some((changed, _)) = news.last() {
            session.relayed_upto = *changed;
        }
        let relayed = news.into_iter().map(|(_, relayed)| relayed).collect();
        self.send(link, Message::Confirm(Confirm { stream, upto, vector, relayed }));
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
