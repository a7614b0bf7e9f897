//! Time as the node knows it: milliseconds, hybrid logical stamps, and the clock that produces them.
//!
//! Nothing here asks the operating system; the caller passes readings in.
//! The stamp is the hybrid logical clock of Kulkarni et al., "Logical Physical Clocks" (OPODIS 2014), with 48 bits of
//! milliseconds since 1970 and a 16-bit counter in one integer.

use crate::limits::{CLOCK_MILLIS_MAX, STAMP_AHEAD_MILLIS, STAMP_MILLIS_MAX};
use serde::{Deserialize, Serialize};

/// Milliseconds: since 1970 where it is a time of day, else a duration.
pub type Millis = u64;

/// A hybrid logical timestamp. Ordered; unique for each key together with the replica that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Stamp(#[serde(with = "postcard::fixint::le")] u64);

impl Stamp {
    /// Before every stamp that a replica makes.
    pub const ZERO: Stamp = Stamp(0);
    /// Above every stamp of a row.
    pub const LAST: Stamp = Stamp(u64::MAX);

    /// From milliseconds (48 bits) and a counter.
    pub const fn new(millis: Millis, counter: u16) -> Stamp {
        Stamp((millis << 16) | counter as u64)
    }
    /// From its stored integer; any value is a stamp, [`Stamp::is_well_formed`] says whether peers accept it.
    pub const fn from_bits(bits: u64) -> Stamp {
        Stamp(bits)
    }
    /// The stored integer: milliseconds in the upper 48 bits.
    pub const fn to_bits(self) -> u64 {
        self.0
    }
    /// The physical part, milliseconds since 1970.
    pub const fn millis(self) -> Millis {
        self.0 >> 16
    }
    /// The counter within the millisecond.
    pub const fn counter(self) -> u16 {
        self.0 as u16
    }
    /// The next stamp; past 65 535 in one millisecond it borrows from the next.
    pub const fn next(self) -> Stamp {
        Stamp(self.0.saturating_add(1))
    }
    /// Whether the physical part is below the cap that all nodes share.
    pub const fn is_well_formed(self) -> bool {
        self.millis() < STAMP_MILLIS_MAX
    }
}

/// A reading of this node's best clock, passed in with each input that may make stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Reading {
    /// Best known milliseconds since 1970.
    pub millis: Millis,
    /// Whether that is believed: synchronised by the kernel, or the median of peers that are. Who is not believed
    /// judges nobody.
    pub believed: bool,
}

/// The stamp source of one replica: never goes back, over restarts included, since its last stamp is persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Hlc {
    last: Stamp,
}

impl Hlc {
    /// A clock that continues after `last`.
    pub const fn after(last: Stamp) -> Hlc {
        Hlc { last }
    }
    /// The highest stamp made or witnessed.
    pub const fn last(&self) -> Stamp {
        self.last
    }
    /// The stamp of a new event: above everything this clock has seen, at or above the reading.
    pub fn tick(&mut self, now: Reading) -> Stamp {
        let physical = Stamp::new(now.millis.min(CLOCK_MILLIS_MAX), 0);
        self.last = physical.max(self.last.next());
        self.last
    }
    /// The stamp of a write that replaces a row stamped `replaced`: above it, whatever that is.
    ///
    /// Where the replaced stamp lies far in a believed future, only the row's own stamp goes there; the clock stays.
    pub fn tick_above(&mut self, now: Reading, replaced: Stamp) -> Stamp {
        let stamp = self.tick(now);
        if stamp > replaced {
            return stamp;
        }
        let above = replaced.next();
        self.witness(now, above);
        above
    }
    /// Takes note of a stamp from elsewhere, unless it is far ahead of a believed clock.
    pub fn witness(&mut self, now: Reading, seen: Stamp) {
        let far_ahead = now.believed && seen.millis() > now.millis.saturating_add(STAMP_AHEAD_MILLIS);
        let beyond = seen.millis() > CLOCK_MILLIS_MAX;
        if !far_ahead && !beyond {
            self.last = self.last.max(seen);
        }
    }
    /// Raises the clock without judgement: to the clock of the node that a newcomer bootstraps from.
    pub fn raise_to(&mut self, at_least: Stamp) {
        self.last = self.last.max(at_least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const fn at(millis: Millis, believed: bool) -> Reading {
        Reading { millis, believed }
    }

    #[test]
    fn stamps_rise_while_the_clock_stands_still_or_goes_back() {
        let mut hlc = Hlc::default();
        let first = hlc.tick(at(1000, true));
        let second = hlc.tick(at(1000, true));
        let third = hlc.tick(at(10, true));
        assert!(first < second && second < third);
    }

    #[test]
    fn the_counter_borrows_from_the_next_millisecond() {
        let mut hlc = Hlc::after(Stamp::new(7, u16::MAX));
        assert_eq!(hlc.tick(at(7, true)), Stamp::new(8, 0));
    }

    #[test]
    fn a_row_from_the_far_future_can_be_overwritten_and_does_not_move_a_believed_clock() {
        let mut hlc = Hlc::default();
        let future = Stamp::new(90_000_000_000, 3);
        assert!(hlc.tick_above(at(1000, true), future) > future);
        assert!(hlc.tick(at(1001, true)) < Stamp::new(2000, 0));
    }

    #[test]
    fn a_clock_that_nobody_vouches_for_follows_what_it_sees() {
        let mut hlc = Hlc::default();
        let future = Stamp::new(90_000_000_000, 3);
        hlc.witness(at(1000, false), future);
        assert!(hlc.tick(at(1000, false)) > future);
    }
}
