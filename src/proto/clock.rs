//! The best clock that a node has: synchronised by its kernel, vouched for by peers that are, or running free.
//!
//! The free clock starts at the later of the last persisted stamp and the build date and follows the monotonic clock.
//! Only peers whose own kernel is synchronised vote; without any, nobody judges.

use super::io::Now;
use crate::mutants::{Mutant, planted};
use crate::time::{Millis, Reading};
use crate::wire::ClockSample;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Samples older than this no longer vote.
const SAMPLE_AGE_MAX_MS: Millis = 600_000;
/// A synchronised clock further from believed peers than this is named in health.
const DISAGREEMENT_MS: i64 = 10_000;

/// The clock of one node.
#[derive(Debug, Clone)]
pub struct Clock {
    free_base: Millis,
    mono_base: Millis,
    floor: Millis,
    offsets: BTreeMap<u64, (i64, Millis)>,
}

impl Clock {
    /// Starts at `now`. `persisted` is the last stamp's time, `built` when the program was built.
    pub fn new(now: Now, persisted: Millis, built: Millis) -> Clock {
        let free_base = persisted.max(built);
        Clock { free_base, mono_base: now.mono, floor: built, offsets: BTreeMap::new() }
    }
    /// The reading for stamps and expiry.
    pub fn reading(&self, now: Now) -> Reading {
        if now.synchronised && now.wall >= self.floor {
            return Reading { millis: now.wall, believed: true };
        }
        match self.median_offset(now) {
            Some(offset) => Reading { millis: self.free(now).saturating_add_signed(offset), believed: true },
            None => Reading { millis: self.free(now), believed: false },
        }
    }
    /// What is told to peers.
    pub fn sample(&self, now: Now) -> ClockSample {
        let synchronised = now.synchronised && now.wall >= self.floor;
        ClockSample { millis: if synchronised { now.wall } else { self.reading(now).millis }, synchronised }
    }
    /// Takes a peer's sample. `peer` is any number that stays the same for it.
    pub fn hear(&mut self, now: Now, peer: u64, sample: ClockSample) {
        if sample.synchronised || planted(Mutant::EveryClockVotes) {
            let offset = (sample.millis as i64).wrapping_sub(self.free(now) as i64);
            self.offsets.insert(peer, (offset, now.mono));
        } else {
            self.offsets.remove(&peer);
        }
        self.offsets.retain(|_, (_, heard)| *heard + SAMPLE_AGE_MAX_MS >= now.mono);
        if self.offsets.len() > crate::limits::MEMBERS_MAX {
            self.offsets.pop_first();
        }
    }
    /// How far the kernel's synchronised clock is from the median of believed peers, where that is a fault.
    pub fn disagreement(&self, now: Now) -> Option<i64> {
        let offset = self.median_offset(now)?;
        let peers = self.free(now).saturating_add_signed(offset) as i64;
        let ours = if now.synchronised { now.wall as i64 } else { return None };
        Some(ours - peers).filter(|difference| difference.abs() > DISAGREEMENT_MS)
    }
    fn free(&self, now: Now) -> Millis {
        self.free_base + now.mono.saturating_sub(self.mono_base)
    }
    fn median_offset(&self, now: Now) -> Option<i64> {
        let fresh = self.offsets.values().filter(|(_, heard)| *heard + SAMPLE_AGE_MAX_MS >= now.mono);
        let mut offsets: Vec<i64> = fresh.map(|(offset, _)| *offset).collect();
        offsets.sort_unstable();
        offsets.get(offsets.len().checked_sub(1)? / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(mono: Millis, wall: Millis, synchronised: bool) -> Now {
        Now { mono, wall, synchronised }
    }

    #[test]
    fn four_boxes_at_their_build_date_do_not_outvote_the_one_that_has_ntp() {
        let mut clock = Clock::new(now(0, 0, false), 0, 1_000);
        for peer in 0..4 {
            clock.hear(now(10, 0, false), peer, ClockSample { millis: 1_010, synchronised: false });
        }
        clock.hear(now(10, 0, false), 9, ClockSample { millis: 5_000_000, synchronised: true });
        assert_eq!(clock.reading(now(20, 0, false)), Reading { millis: 5_000_010, believed: true });
    }

    #[test]
    fn an_unsynchronised_wall_clock_is_not_believed_and_the_free_clock_never_starts_before_the_last_stamp() {
        let clock = Clock::new(now(5, 77, false), 9_000, 1_000);
        assert_eq!(clock.reading(now(15, 99_999_999, false)), Reading { millis: 9_010, believed: false });
    }
}
