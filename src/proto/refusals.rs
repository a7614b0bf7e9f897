//! Who was refused lately and why: what only a person can settle. Kept in memory and forgotten after a while, since whoever
//! still wants in comes again.

use super::io::Now;
use crate::id::{DeviceId, NodeId};
use crate::limits::REFUSALS_MAX;
use crate::time::Millis;
use crate::wire::Bye;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// A refusal that was not repeated for so long is forgotten: some times the longest rest between two dials.
pub(super) const REFUSAL_KEPT_MS: Millis = 300_000;

/// One device that was refused, or that has refused this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The name that it said, or is known by; `None` where it had said nothing.
    pub node_id: Option<NodeId>,
    /// Its key.
    pub device: DeviceId,
    /// Where it is: as heard in its beacon, else the other end of the link.
    pub address: SocketAddr,
    /// Why.
    pub reason: Bye,
    /// How long ago it was last refused, milliseconds.
    pub age_ms: Millis,
}

/// By device, the latest of each.
#[derive(Default)]
pub(super) struct Refusals {
    by_device: BTreeMap<DeviceId, (Refusal, Millis)>,
}

impl Refusals {
    /// Notes one; true where it is news.
    pub(super) fn note(&mut self, now: Now, refusal: Refusal) -> bool {
        self.forget_old(now);
        let known = self.by_device.get(&refusal.device);
        let news = known.is_none_or(|(known, _)| known.reason != refusal.reason || known.node_id != refusal.node_id);
        if known.is_none() && self.by_device.len() == REFUSALS_MAX {
            let oldest = self.by_device.iter().min_by_key(|(_, (_, at))| *at).map(|(device, _)| *device);
            oldest.and_then(|device| self.by_device.remove(&device));
        }
        self.by_device.insert(refusal.device, (refusal, now.mono));
        news
    }
    /// It is a matter of the past.
    pub(super) fn settled(&mut self, device: &DeviceId) {
        self.by_device.remove(device);
    }
    fn forget_old(&mut self, now: Now) {
        self.by_device.retain(|_, (_, at)| *at + REFUSAL_KEPT_MS >= now.mono);
    }
    /// Those of late, the latest first.
    pub(super) fn of_late(&self, now: Now) -> Vec<Refusal> {
        let aged =
            |(refusal, at): &(Refusal, Millis)| Refusal { age_ms: now.mono.saturating_sub(*at), ..refusal.clone() };
        let mut all: Vec<Refusal> = self.by_device.values().map(aged).collect();
        all.retain(|refusal| refusal.age_ms <= REFUSAL_KEPT_MS);
        all.sort_by_key(|refusal| refusal.age_ms);
        all
    }
}
