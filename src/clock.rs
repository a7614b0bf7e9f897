//! The clocks of the operating system, read here and nowhere else; everybody else is passed a reading.
//!
//! Decides nothing: whether a reading is believed, and what follows from that, is for `proto`.

use crate::time::Millis;
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

/// Microseconds since the first call in this process. Never goes back; stands still while the machine is suspended.
#[allow(clippy::disallowed_methods, reason = "this file is the one place that reads clocks")]
pub(crate) fn monotonic_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// The same in milliseconds.
pub(crate) fn monotonic_ms() -> Millis {
    monotonic_us() / 1000
}

/// Milliseconds since 1970 by the wall clock, 0 where it stands before that.
///
/// The kernel is asked for 64 bits of seconds. `SystemTime::now` asks musl on a 32-bit machine for 32 of them and panics where
/// they are not enough: a clock that stands beyond January 2038, rightly or not, would end the process at each start.
#[allow(clippy::disallowed_methods, reason = "this file is the one place that reads clocks")]
pub(crate) fn wall_ms() -> Millis {
    let now = clock_gettime(ClockId::Realtime);
    match (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec)) {
        (Ok(seconds), Ok(nanoseconds)) => seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000),
        _ => 0,
    }
}

/// Touched by systemd-timesyncd at each successful synchronisation, in memory, so gone after a boot. Any other time
/// service can be made to touch it too (for chrony: a unit ordered after `chrony-wait.service`).
const SYNCHRONISED_MARK: &str = "/run/systemd/timesync/synchronized";

/// Whether the system's time service says that the wall clock has been synchronised since boot.
///
/// The kernel's own word (`adjtimex`, `STA_UNSYNC`) has no safe wrapper in a well-kept crate, and unsafe code is
/// forbidden here, so this asks for the mark that systemd-timesyncd leaves for other programs. A machine whose time
/// service leaves none is not believed, which is the safe side: it follows its peers and judges nobody.
pub(crate) fn synchronised() -> bool {
    Path::new(SYNCHRONISED_MARK).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let first = monotonic_ms();
        assert!(monotonic_ms() >= first);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the standard library's reading is compared")]
    fn the_wall_clock_has_room_for_more_than_32_bits_of_seconds() {
        let now = clock_gettime(ClockId::Realtime);
        assert_eq!(size_of_val(&now.tv_sec), 8);
        let theirs = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as Millis;
        assert!(wall_ms().abs_diff(theirs) < 60_000);
    }

    #[test]
    fn the_wall_clock_counts_from_1970() {
        // The build machine may be off, but not by half a century.
        assert!(wall_ms() > 1_000_000_000_000);
    }
}
