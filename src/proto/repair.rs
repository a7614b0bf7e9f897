//! Rows that are damaged on this disk: every linked peer is asked for them by key, until one has given what is certain.
//!
//! A stream of ours does not close beyond such a row until every member was asked: a closure would make the receiver
//! claim a row that it never got. What nobody has stays named until it is written anew; everything else goes on.

use super::engine::Engine;
use super::io::{Event, LinkId, Now, Output, StoreFault, Ticket};
use super::storage::Pending;
use crate::id::{DeviceId, LocalSeq, ReplicaId, VersionVector};
use crate::limits::{DAMAGED_MAX, FETCH_KEYS_MAX};
use crate::replica::{Damaged, Found, Offer, Repaired, Request};
use crate::row::{Row, RowKey, Scope};
use crate::time::{Millis, Stamp};
use crate::wire::{Fetch, Fetched, Message, Mode};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

/// A peer that does not answer for so long is of a version that does not know the question.
const FETCH_MS: Millis = 10_000;
/// Peers that had nothing certain are asked again after this, and later each time.
const AGAIN_MS: Millis = 2_000;
/// But not later than this.
const AGAIN_MAX_MS: Millis = 600_000;
/// A member that cannot be asked, since it is away or has no link to this node, is waited for so long.
const GIVE_UP_MS: Millis = 3_600_000;

/// What is known to be damaged.
#[derive(Default)]
pub(super) struct Repairs {
    rows: BTreeMap<RowKey, Wanted>,
    /// More are damaged: their names are, too, or they are too many. A stream does not close beyond them in this life.
    unknown: bool,
    /// What was covered when the last of them was found.
    known: VersionVector,
    again_at: Option<Millis>,
    turns: u32,
    /// Looked up for peers.
    looking: BTreeMap<Ticket, (LinkId, u32)>,
    nonce: u32,
}

struct Wanted {
    local_seq: LocalSeq,
    found_at: Millis,
    /// It was covered by what was known then.
    covered: bool,
    /// Who was asked of late and had nothing certain.
    without: BTreeSet<DeviceId>,
    /// What each has answered at last: the rank of its row, if it has one.
    offers: BTreeMap<DeviceId, Option<(Stamp, ReplicaId)>>,
}

/// A question to a peer that is not answered yet.
pub(super) struct Fetching {
    nonce: u32,
    keys: Vec<RowKey>,
    at: Millis,
}

impl Repairs {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && !self.unknown
    }
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.again_at
    }
    fn without(&mut self, keys: &[RowKey], device: DeviceId) {
        for key in keys {
            if let Some(wanted) = self.rows.get_mut(key) {
                wanted.without.insert(device);
            }
        }
    }
}

impl Fetching {
    pub(super) fn deadline(&self) -> Millis {
        self.at + FETCH_MS
    }
}

impl Engine {
    /// Keys of rows that are damaged here and that no peer has given yet, with whether every linked peer was asked.
    pub fn damaged(&self) -> Vec<(RowKey, bool)> {
        self.repairs.rows.iter().map(|(key, wanted)| (key.clone(), self.has_nobody(wanted))).collect()
    }

    /// Whether every linked peer was asked, and has none that is certain.
    fn has_nobody(&self, wanted: &Wanted) -> bool {
        let mut linked = self.sessions.values().filter(|session| session.met().is_some());
        linked.all(|session| wanted.without.contains(&session.device))
    }

    /// Whether every member has said what it has at each damaged key, and none has anything: then nobody has what could be
    /// lost by a closure beyond.
    pub(super) fn is_given_up(&self, now: Now) -> bool {
        let given_up = |wanted: &Wanted| self.has_been_answered(now, wanted) && self.highest(wanted).is_none();
        !self.repairs.unknown && self.repairs.rows.values().all(given_up)
    }
    /// Who cannot be asked is waited for so long, and no longer.
    fn has_been_answered(&self, now: Now, wanted: &Wanted) -> bool {
        let late = now.mono >= wanted.found_at + GIVE_UP_MS;
        let has = |device: &DeviceId| wanted.offers.contains_key(device);
        self.members.tracked().all(|(device, _)| has(device) || (late && !self.is_linked(device)))
    }
    /// The highest rank that anybody offers who may be asked again.
    fn highest(&self, wanted: &Wanted) -> Option<(Stamp, ReplicaId)> {
        let offers = wanted.offers.iter().filter(|(device, _)| self.is_linked(device) || self.is_tracked(device));
        offers.filter_map(|(_, offer)| *offer).max()
    }
    fn is_linked(&self, device: &DeviceId) -> bool {
        self.sessions.values().any(|session| session.device == *device && session.met().is_some())
    }
    fn is_tracked(&self, device: &DeviceId) -> bool {
        self.members.tracked().any(|(tracked, _)| tracked == device)
    }

    /// A row of a peer belongs where a damaged one stands: it may be what is looked for.
    pub(super) fn held_by(&mut self, now: Now, link: LinkId, damaged: Damaged) {
        let key = damaged.key.clone();
        self.found_damaged(now, damaged);
        let Some(device) = self.sessions.get(&link).map(|session| session.device) else { return };
        if let Some(wanted) = key.and_then(|key| self.repairs.rows.get_mut(&key)) {
            wanted.without.remove(&device);
        }
        self.fetch(now, link);
    }

    /// A damaged row was found. What never leaves the node nobody else can have. Says whether peers are asked for it.
    pub(super) fn found_damaged(&mut self, now: Now, damaged: Damaged) -> bool {
        let Damaged { local_seq, key: Some(key) } = damaged else {
            self.repairs.unknown = true;
            return false;
        };
        // One that is not known of yet is found again.
        if key.scope == Scope::Local || local_seq > self.knowledge.tail {
            return false;
        }
        let covered = local_seq <= self.knowledge.covered_upto;
        let repairs = &mut self.repairs;
        if repairs.rows.get(&key).is_some_and(|wanted| wanted.local_seq == local_seq) {
            return true;
        }
        if repairs.rows.len() >= DAMAGED_MAX {
            repairs.unknown = true;
            return false;
        }
        let (without, offers) = Default::default();
        let wanted = Wanted { local_seq, found_at: now.mono, covered, without, offers };
        repairs.rows.insert(key, wanted);
        repairs.known.join(&self.knowledge.vector);
        repairs.turns = 0;
        repairs.again_at = Some(now.mono + AGAIN_MS);
        self.fetch_all(now);
        true
    }

    pub(super) fn fetch_all(&mut self, now: Now) {
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        links.into_iter().for_each(|link| self.fetch(now, link));
    }

    /// Asks a peer for what it was not asked for yet. Where that is nothing, our stream to it goes on.
    pub(super) fn fetch(&mut self, now: Now, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        if session.fetching.is_some() || session.met().is_none() {
            return;
        }
        let device = session.device;
        let wanted = self.repairs.rows.iter().filter(|(_, wanted)| !wanted.without.contains(&device));
        let keys: Vec<RowKey> = wanted.map(|(key, _)| key.clone()).take(FETCH_KEYS_MAX).collect();
        if keys.is_empty() {
            return self.go_on_behind(now, link);
        }
        self.repairs.nonce = self.repairs.nonce.wrapping_add(1);
        let nonce = self.repairs.nonce;
        session.fetching = Some(Fetching { nonce, keys: keys.clone(), at: now.mono });
        self.send(link, Message::Fetch(Fetch { nonce, keys }));
    }

    /// A stream that stood before a damaged row goes on, since its receiver was asked. A bootstrap does not: what is passed
    /// over there would be gone from its receiver, so it waits until everybody was.
    fn go_on_behind(&mut self, now: Now, link: LinkId) {
        let given_up = self.is_given_up(now);
        let Some(out) = self.sessions.get_mut(&link).and_then(|session| session.outgoing.as_mut()) else { return };
        let Some(at) = out.stopped.filter(|_| given_up || out.mode != Mode::Bootstrap || out.closures > 0) else {
            return;
        };
        out.stopped = None;
        if !self.repairs.is_empty() {
            out.passes_upto = out.passes_upto.max(at);
            out.hole.get_or_insert(at - 1);
        }
        self.pump(now, link);
    }

    /// A peer asks.
    pub(super) fn asked_for_rows(&mut self, link: LinkId, fetch: Fetch) {
        // One question of a peer at a time: whoever asks more gets no answer to that.
        if self.repairs.looking.values().any(|(of, _)| *of == link) {
            return;
        }
        let ticket = self.next_ticket();
        self.repairs.looking.insert(ticket, (link, fetch.nonce));
        self.outputs.push_back(Output::Look { ticket, keys: fetch.keys });
    }

    pub(super) fn looked(&mut self, ticket: Ticket, result: Result<Found, StoreFault>) {
        let Some((link, nonce)) = self.repairs.looking.remove(&ticket) else { return };
        let Ok(Found { rows, looked, vector }) = result else { return };
        // Nothing can be said about the first yet, and it is asked for again; but whose state is about to be taken gets to know
        // of it only after that.
        let looked = if self.bootstrapping == Some(link) { looked.max(1) } else { looked };
        if looked > 0 && self.sessions.contains_key(&link) {
            let looked = u32::try_from(looked).unwrap_or(u32::MAX);
            self.send(link, Message::Fetched(Fetched { nonce, looked, rows, vector }));
        }
    }

    /// A peer has answered.
    pub(super) fn fetched(&mut self, now: Now, link: LinkId, fetched: Fetched) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let Some(asked) = session.fetching.take_if(|asked| asked.nonce == fetched.nonce) else { return };
        let looked = usize::try_from(fetched.looked).unwrap_or(usize::MAX);
        let keys: Vec<RowKey> = asked.keys.into_iter().take(looked.max(1)).collect();
        let rows: Vec<Row> = fetched.rows.into_iter().filter(|row| keys.contains(&row.key)).collect();
        let device = session.device;
        let highest = self.compare_offers(now, device, &keys, &rows);
        let wanted = |key: &&RowKey| self.repairs.rows.get(*key).is_some_and(|wanted| wanted.covered);
        let covered = keys.iter().filter(wanted).cloned().collect();
        let known = self.repairs.known.clone();
        let offer = Offer { keys: keys.clone(), rows, vector: fetched.vector, known, covered, highest };
        self.store(now, Pending::Repair { device, keys }, Request::Repair(offer));
    }

    /// Notes what a peer has. Says at which keys everybody has answered and it has the highest row.
    fn compare_offers(&mut self, now: Now, device: DeviceId, keys: &[RowKey], rows: &[Row]) -> Vec<RowKey> {
        let mut highest = Vec::new();
        for key in keys {
            let Some(wanted) = self.repairs.rows.get_mut(key) else { continue };
            let offer = rows.iter().find(|row| row.key == *key).map(|row| (row.stamp, row.dot.origin));
            let news = wanted.offers.insert(device, offer).is_none();
            let wanted = &self.repairs.rows[key];
            let best = self.highest(wanted);
            if best.is_none() || !self.has_been_answered(now, wanted) {
                continue;
            }
            if best == offer {
                highest.push(key.clone());
            } else if news {
                // Who has it is asked again.
                self.repairs.again_at = Some(now.mono + AGAIN_MS);
            }
        }
        highest
    }

    pub(super) fn repaired(
        &mut self,
        now: Now,
        device: DeviceId,
        keys: &[RowKey],
        result: Result<Repaired, StoreFault>,
    ) {
        let Repaired { mended, left, gone } = result.unwrap_or_default();
        mended.iter().chain(&gone).for_each(|key| drop(self.repairs.rows.remove(key)));
        self.repairs.without(&left, device);
        if mended.is_empty() && left.is_empty() && gone.is_empty() {
            // The disk could not do it: the same is asked for again, later.
            self.repairs.without(keys, device);
        }
        if !mended.is_empty() {
            self.counters.rows_mended += mended.len() as u64;
            self.outputs.push_back(Output::Changed { keys: mended.clone() });
            self.event(Event::Mended { keys: mended });
            self.rows_relayed(now);
        }
        self.close_again(now);
        self.fetch_all(now);
        self.own_rows_stored(now);
    }

    /// Where nothing is damaged any more, or what is was given up, streams may close again; and digests may be compared:
    /// whoever was told that they may not hears so.
    fn close_again(&mut self, now: Now) {
        let whole = self.repairs.is_empty();
        let given_up = self.is_given_up(now);
        if whole {
            self.repairs.again_at = None;
        }
        for out in self.sessions.values_mut().filter_map(|session| session.outgoing.as_mut()) {
            if whole {
                // What is being read was asked for while a row could not be: it may be passed over in that.
                (out.reading, out.passes_upto) = (None, 0);
            }
            if whole || given_up {
                let behind_hole = out.begin_again_at_hole();
                if whole || behind_hole {
                    (out.closed_at, out.say_closure) = (None, true);
                }
            }
        }
    }

    /// Rows of these keys were written anew here, or have come from a peer: nothing of them is damaged any more.
    pub(super) fn overwritten<'a>(&mut self, now: Now, keys: impl Iterator<Item = &'a RowKey>) {
        let before = self.repairs.rows.len();
        if before > 0 {
            keys.for_each(|key| drop(self.repairs.rows.remove(key)));
        }
        if self.repairs.rows.len() < before {
            self.close_again(now);
            self.fetch_all(now);
            self.own_rows_stored(now);
        }
    }

    /// A session has begun: who it is with may have got meanwhile what it lacked.
    pub(super) fn may_be_asked_again(&mut self, device: DeviceId) {
        for wanted in self.repairs.rows.values_mut() {
            wanted.without.remove(&device);
        }
    }

    pub(super) fn repair_timers(&mut self, now: Now) {
        let late = |fetching: &mut Fetching| now.mono >= fetching.deadline();
        let mut unanswered = Vec::new();
        for session in self.sessions.values_mut() {
            if let Some(fetching) = session.fetching.take_if(late) {
                unanswered.push((session.device, fetching.keys));
            }
        }
        let any = !unanswered.is_empty();
        unanswered.into_iter().for_each(|(device, keys)| self.repairs.without(&keys, device));
        let again = self.repairs.again_at.is_some_and(|at| at <= now.mono);
        if again {
            self.repairs.turns = self.repairs.turns.saturating_add(1);
            let wait = (AGAIN_MS << self.repairs.turns.min(16)).min(AGAIN_MAX_MS);
            self.repairs.again_at = (!self.repairs.is_empty()).then_some(now.mono + wait);
            self.repairs.rows.values_mut().for_each(|wanted| wanted.without.clear());
        }
        if any || again {
            self.fetch_all(now);
        }
    }
}
