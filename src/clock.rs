//! The clocks of the operating system, read here and nowhere else; everybody else is passed a reading.
//!
//! Decides nothing: whether a reading is believed, and what follows from that, is for `proto`.

use crate::time::Millis;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
#[allow(clippy::disallowed_methods, reason = "this file is the one place that reads clocks")]
pub(crate) fn wall_ms() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Millis)
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
    fn the_wall_clock_counts_from_1970() {
        // The build machine may be off, but not by half a century.
        assert!(wall_ms() > 1_000_000_000_000);
    }
}
