//! Who is heard on the LAN: announcing, learning, forgetting. Says who could be dialled, not whether.

use super::io::Now;
use crate::id::ReplicaId;
use crate::limits::HEARD_MAX;
use crate::time::Millis;
use crate::wire::{Beacon, BeaconError, BeaconKey, StateTag};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// Addresses remembered for one node.
const ADDRESSES_MAX: usize = 4;
/// A node that was silent for this many beacon intervals is forgotten.
const SILENT_INTERVALS: u64 = 6;
/// The first beacons follow each other quickly: a board that boots wants to be found.
const FIRST_BEACONS: u32 = 3;
/// So quickly.
const FIRST_INTERVAL_MS: Millis = 500;
/// A site's beacons are spaced out as it grows.
const INTERVAL_PER_MEMBER_MS: Millis = 500;

/// A member that is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) replica: ReplicaId,
    pub(super) state: StateTag,
    pub(super) first: Millis,
    pub(super) last: Millis,
    uptime: Millis,
    addresses: Vec<(SocketAddr, Millis)>,
}

impl Heard {
    /// Its addresses, the latest heard first.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let mut sorted = self.addresses.clone();
        sorted.sort_by_key(|(_, heard)| core::cmp::Reverse(*heard));
        sorted.into_iter().map(|(address, _)| address).collect()
    }
}

/// What a datagram told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learnt {
    /// A node that was not known, by its instance.
    New(u64),
    /// A known one.
    Known(u64),
    /// This node's own beacon.
    Own,
    /// An old beacon, sent again.
    Replay,
}

/// An address that is not of this cluster.
struct Stranger {
    reason: BeaconError,
    datagrams: u64,
    /// Reasons that were told already, one bit each: whoever alternates between them must not fill the log.
    told: u8,
}

/// The ear and the voice of one node.
pub(super) struct Discovery {
    pub(super) heard: BTreeMap<u64, Heard>,
    strangers: BTreeMap<IpAddr, Stranger>,
    next_beacon: Millis,
    sent: u32,
}

impl Discovery {
    pub(super) fn new(now: Now) -> Discovery {
        Discovery { heard: BTreeMap::new(), strangers: BTreeMap::new(), next_beacon: now.mono, sent: 0 }
    }

    /// The time between two beacons on a site of this size.
    pub(super) fn interval(shortest: Millis, members: usize) -> Millis {
        shortest.max(members as Millis * INTERVAL_PER_MEMBER_MS)
    }

    /// Whether a beacon is due; if so, the next one is set.
    pub(super) fn due(&mut self, now: Now, interval: Millis, rng: &mut fastrand::Rng) -> bool {
        if now.mono < self.next_beacon {
            return false;
        }
        self.sent = self.sent.saturating_add(1);
        let interval = if self.sent < FIRST_BEACONS { FIRST_INTERVAL_MS.min(interval) } else { interval };
        // A fifth of jitter, so that boards that were switched on together do not speak together.
        self.next_beacon = now.mono + interval - interval / 10 + rng.u64(0..=interval / 5);
        true
    }
    pub(super) fn deadline(&self) -> Millis {
        self.next_beacon
    }
    /// A newcomer has heard nobody yet: it gets a beacon soon, not at once, since others answer it, too.
    pub(super) fn greet(&mut self, now: Now, rng: &mut fastrand::Rng) {
        self.next_beacon = self.next_beacon.min(now.mono + rng.u64(0..=FIRST_INTERVAL_MS));
    }

    /// Takes a datagram.
    pub(super) fn learn(
        &mut self,
        now: Now,
        keys: &[BeaconKey],
        own_instance: u64,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Result<Learnt, BeaconError> {
        let mut verdict = Err(BeaconError::Foreign);
        for key in keys {
            verdict = key.open(bytes);
            if verdict.is_ok() {
                break;
            }
        }
        let beacon: Beacon = verdict?;
        if beacon.instance == own_instance {
            return Ok(Learnt::Own);
        }
        let address = SocketAddr::new(from.ip(), beacon.tcp_port);
        if let Some(heard) = self.heard.get_mut(&beacon.instance) {
            if beacon.uptime_ms < heard.uptime {
                return Ok(Learnt::Replay);
            }
            heard.uptime = beacon.uptime_ms;
            heard.last = now.mono;
            heard.state = beacon.state;
            heard.replica = beacon.replica;
            heard.addresses.retain(|(known, _)| *known != address);
            if heard.addresses.len() == ADDRESSES_MAX {
                let oldest = (0..ADDRESSES_MAX).min_by_key(|at| heard.addresses[*at].1).unwrap_or(0);
                heard.addresses.swap_remove(oldest);
            }
            heard.addresses.push((address, now.mono));
            return Ok(Learnt::Known(beacon.instance));
        }
        if self.heard.len() == HEARD_MAX {
            let oldest = self.heard.iter().min_by_key(|(_, heard)| heard.last).map(|(instance, _)| *instance);
            oldest.and_then(|instance| self.heard.remove(&instance));
        }
        // Whoever speaks from there has the key now; said once for each node, since an address may have several.
        self.strangers.remove(&from.ip());
        let heard = Heard {
            replica: beacon.replica,
            state: beacon.state,
            first: now.mono,
            last: now.mono,
            uptime: beacon.uptime_ms,
            addresses: alloc::vec![(address, now.mono)],
        };
        self.heard.insert(beacon.instance, heard);
        Ok(Learnt::New(beacon.instance))
    }

    /// The keys are others now: strangers are judged anew, and this node makes itself heard at once.
    pub(super) fn renew(&mut self, now: Now) {
        self.strangers.clear();
        self.next_beacon = now.mono;
        self.sent = 0;
    }

    /// Counts a stranger; true the first time its address is seen with this reason.
    pub(super) fn stranger(&mut self, from: IpAddr, reason: BeaconError) -> bool {
        let bit = match reason {
            BeaconError::Foreign => 1,
            BeaconError::OtherCluster => 2,
            BeaconError::Forged => 4,
        };
        if let Some(stranger) = self.strangers.get_mut(&from) {
            stranger.datagrams += 1;
            stranger.reason = reason;
            let news = stranger.told & bit == 0;
            stranger.told |= bit;
            return news;
        }
        if self.strangers.len() == HEARD_MAX {
            return false;
        }
        self.strangers.insert(from, Stranger { reason, datagrams: 1, told: bit });
        true
    }
    /// Addresses of strangers, why, and how many datagrams.
    pub(super) fn strangers(&self) -> impl Iterator<Item = (IpAddr, BeaconError, u64)> + '_ {
        self.strangers.iter().map(|(address, stranger)| (*address, stranger.reason, stranger.datagrams))
    }

    /// Forgets who has been silent, and addresses that a node no longer speaks from.
    pub(super) fn forget(&mut self, now: Now, interval: Millis) {
        let too_old = SILENT_INTERVALS * interval;
        // Seldom anybody: this is asked with every input.
        if self.heard.values().any(|heard| heard.last + too_old < now.mono) {
            self.heard.retain(|_, heard| heard.last + too_old >= now.mono);
        }
        for heard in self.heard.values_mut() {
            let newest = heard.last;
            heard.addresses.retain(|(_, last)| *last + too_old >= newest);
        }
    }
}
