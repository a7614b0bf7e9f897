//! What the members of a site say of themselves: asked for over the links when a person wants to know, passed on by those in
//! between, and told unasked once in a while, so that something is known of whoever has gone away.
//!
//! Kept in memory alone: it costs no card a write, and a quiet site hardly a byte.

use super::engine::Engine;
use super::io::{LinkId, Now, Output};
use crate::id::DeviceId;
use crate::limits::{ASKS_MAX, MEMBERS_MAX};
use crate::time::Millis;
use crate::wire::{Ask, MemberNote, MemberReport, Message, Report};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// A question travels over so many nodes: a site whose links form a longer chain than that is none.
const HOPS_MAX: u8 = 16;
/// Reports find their way back for so long.
const ASK_KEPT_MS: Millis = 10_000;
/// Each peer is told unasked at the start of a session, and again after so long.
const UNASKED_MS: Millis = 600_000;

/// What a member has said of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteView {
    /// What it said.
    pub report: MemberReport,
    /// How long ago, milliseconds.
    pub age_ms: Millis,
    /// Its clock minus this node's when it was heard, milliseconds.
    pub clock_offset_ms: i64,
}

/// Reports that are known, and questions that are under way.
#[derive(Default)]
pub(super) struct Site {
    known: BTreeMap<DeviceId, Known>,
    asked: VecDeque<Asked>,
    revision: u64,
}

struct Known {
    report: MemberReport,
    /// When it was said, on this node's monotonic clock; before its zero, where the machine was started later.
    said_at: i64,
    clock_offset_ms: i64,
}

impl Known {
    fn age_ms(&self, now: Now) -> Millis {
        (now.mono as i64).saturating_sub(self.said_at).max(0) as Millis
    }
}

/// A question, and where its answers go.
struct Asked {
    nonce: u64,
    /// `None`: this node's own.
    asker: Option<LinkId>,
    at: Millis,
    /// Reports that may still be passed on: a peer that makes them up is not carried for ever.
    left: usize,
}

impl Site {
    fn remember(&mut self, now: Now, nonce: u64, asker: Option<LinkId>) -> bool {
        self.asked.retain(|asked| asked.at + ASK_KEPT_MS > now.mono);
        if self.asked.len() >= ASKS_MAX || self.asked.iter().any(|asked| asked.nonce == nonce) {
            return false;
        }
        self.asked.push_back(Asked { nonce, asker, at: now.mono, left: 4 * MEMBERS_MAX });
        true
    }
}

impl Engine {
    /// What members have said of themselves of late, by device.
    pub fn site(&self, now: Now) -> BTreeMap<DeviceId, SiteView> {
        let view = |(device, known): (&DeviceId, &Known)| {
            let age_ms = known.age_ms(now);
            (*device, SiteView { report: known.report.clone(), age_ms, clock_offset_ms: known.clock_offset_ms })
        };
        self.site.known.iter().map(view).collect()
    }

    /// Rises with each report.
    pub fn site_revision(&self) -> u64 {
        self.site.revision
    }

    /// Asks the whole site.
    pub(super) fn ask_site(&mut self, now: Now) {
        let nonce = self.rng.u64(1..);
        if self.site.remember(now, nonce, None) {
            self.pass_on(None, Ask { nonce, hops: HOPS_MAX });
        }
    }

    pub(super) fn asked(&mut self, now: Now, link: LinkId, ask: Ask) {
        if ask.nonce == 0 || !self.site.remember(now, ask.nonce, Some(link)) {
            return;
        }
        self.outputs.push_back(Output::Report { to: link, nonce: ask.nonce });
        if ask.hops >= HOPS_MAX {
            // It comes from the asker itself: what is known of those who cannot answer is told, too.
            self.tell_of_absent(now, link, ask.nonce);
        }
        if ask.hops > 0 {
            self.pass_on(Some(link), Ask { hops: ask.hops.min(HOPS_MAX) - 1, ..ask });
        }
    }

    fn pass_on(&mut self, from: Option<LinkId>, ask: Ask) {
        let met = self.sessions.values().filter(|session| session.met().is_some() && Some(session.link) != from);
        let links: Vec<LinkId> = met.map(|session| session.link).collect();
        links.into_iter().for_each(|link| self.send(link, Message::Ask(ask)));
    }

    fn tell_of_absent(&mut self, now: Now, link: LinkId, nonce: u64) {
        let linked = |device: &DeviceId| self.sessions.values().any(|session| session.device == *device);
        let absent = self.site.known.iter().filter(|(device, _)| !linked(device));
        let reports: Vec<Report> = absent
            .map(|(_, known)| {
                let age_ms = known.age_ms(now);
                Report { nonce, age_ms, member: known.report.clone() }
            })
            .collect();
        reports.into_iter().for_each(|report| self.send(link, Message::Report(report)));
    }

    /// This node's own report, for a peer.
    pub(super) fn own_report(&mut self, link: LinkId, nonce: u64, member: MemberReport) {
        if self.sessions.get(&link).is_some_and(|session| session.met().is_some()) {
            self.send(link, Message::Report(Report { nonce, age_ms: 0, member }));
        }
    }

    pub(super) fn heard_report(&mut self, now: Now, link: LinkId, report: Report) {
        let awaited = |asked: &&mut Asked| asked.nonce == report.nonce && asked.at + ASK_KEPT_MS > now.mono;
        let asked = self.site.asked.iter_mut().find(awaited).filter(|_| report.nonce != 0);
        let asker = match asked {
            Some(asked) if asked.left > 0 => {
                asked.left -= 1;
                asked.asker.filter(|asker| *asker != link)
            }
            _ => None,
        };
        let device = report.member.device;
        let is_new = !self.site.known.contains_key(&device) && device != self.settings.device;
        self.note_report(now, &report);
        if is_new && report.nonce == 0 {
            self.tell_of_new(now, link, &report);
        }
        if let Some(asker) = asker.filter(|asker| self.sessions.contains_key(asker)) {
            self.send(asker, Message::Report(report));
        }
    }

    /// A member that this node has heard nothing of so far is passed on, once, so that those without a link to it know it too:
    /// Hello names only the members that were known when it was said.
    fn tell_of_new(&mut self, now: Now, link: LinkId, report: &Report) {
        let Some(peer) = self.sessions.get(&link).and_then(|session| session.peer.as_ref()) else { return };
        let first_hand = self.sessions.get(&link).is_some_and(|session| session.device == report.member.device);
        if first_hand && peer.hello.visitor {
            return;
        }
        let (device, node_id) = (report.member.device, report.member.node_id.clone());
        if !first_hand {
            self.heard_of(now, alloc::vec![MemberNote { device, node_id }]);
        }
        let others = self.sessions.values().filter(|other| other.met().is_some() && other.link != link);
        let links: Vec<LinkId> = others.filter(|other| other.device != device).map(|other| other.link).collect();
        links.into_iter().for_each(|link| self.send(link, Message::Report(report.clone())));
    }

    fn note_report(&mut self, now: Now, Report { age_ms, member, .. }: &Report) {
        // Of members, and of those that are about to become known: there are never more than a site may have.
        let known = self.members.by_device.contains_key(&member.device);
        let room = self.site.known.contains_key(&member.device) || self.site.known.len() < MEMBERS_MAX;
        if member.device == self.settings.device || !room || !(known || self.members.has_room()) {
            return;
        }
        let said_at = (now.mono as i64).saturating_sub_unsigned(*age_ms);
        if self.site.known.get(&member.device).is_some_and(|known| known.said_at > said_at) {
            return;
        }
        let then = (self.clock.reading(now).millis as i64).saturating_sub_unsigned(*age_ms);
        let clock_offset_ms = (member.clock.millis as i64).saturating_sub(then);
        self.site.known.insert(member.device, Known { report: member.clone(), said_at, clock_offset_ms });
        self.site.revision += 1;
    }

    /// Tells a peer unasked, where that is due.
    pub(super) fn tell_unasked(&mut self, now: Now, link: LinkId) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        if session.met().is_some() && session.report_at.is_none_or(|at| at <= now.mono) {
            session.report_at = Some(now.mono + UNASKED_MS);
            self.outputs.push_back(Output::Report { to: link, nonce: 0 });
        }
    }
}
