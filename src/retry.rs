//! Retries of what may heal by itself: how often, and how long to wait in between.
//!
//! The delays are pure, with randomness passed in. Carrying them out needs the shell's timers and is compiled with it.
//! Exponential back-off with full jitter, so that fifty nodes that lost one switch do not come back in step.

use crate::time::Millis;

#[cfg(feature = "std")]
mod execute;

/// Longest delay between two attempts, whatever the configuration says: a device that comes back is found within a
/// minute.
pub const DELAY_CAP_MS: Millis = 60_000;

/// How often something is tried, and how long it waits in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RetryPolicy {
    max_attempts: u32,
    delay_ms: Millis,
}

impl RetryPolicy {
    /// At most `max_attempts` (at least one) attempts; the first delay is up to `delay_ms`, each later one up to twice
    /// the one before, never above [`DELAY_CAP_MS`].
    pub const fn new(max_attempts: u32, delay_ms: Millis) -> RetryPolicy {
        RetryPolicy { max_attempts: if max_attempts == 0 { 1 } else { max_attempts }, delay_ms }
    }
    /// Attempts in all, the first one counted.
    pub const fn max_attempts(&self) -> u32 {
        self.max_attempts
    }
    /// The bound of the first delay, milliseconds.
    pub const fn delay_ms(&self) -> Millis {
        self.delay_ms
    }
    /// How long to wait after attempt number `attempt` (from 1) has failed; `None` when that was the last.
    ///
    /// `random` is fresh for each call: the delay is uniform between zero and its bound.
    pub fn next_delay(&self, attempt: u32, random: u64) -> Option<Millis> {
        if attempt < self.max_attempts { Some(self.jittered(attempt, random)) } else { None }
    }
    /// The delay after attempt number `attempt`, for one who never gives up: dialling goes on at the cap.
    pub fn jittered(&self, attempt: u32, random: u64) -> Millis {
        let bound = self.bound(attempt);
        ((u128::from(random) * (u128::from(bound) + 1)) >> 64) as Millis
    }
    fn bound(&self, attempt: u32) -> Millis {
        let doublings = attempt.saturating_sub(1).min(16);
        self.delay_ms.saturating_mul(1 << doublings).min(DELAY_CAP_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_cap_and_are_spread_over_their_whole_range() {
        let policy = RetryPolicy::new(u32::MAX, 1000);
        let longest = |attempt| policy.next_delay(attempt, u64::MAX);
        assert_eq!([1, 2, 3, 6, 7, 90].map(longest), [1000, 2000, 4000, 32_000, 60_000, 60_000].map(Some));
        let mut random = fastrand::Rng::with_seed(5);
        let delays: alloc::vec::Vec<Millis> = (0..1000).map(|_| policy.jittered(3, random.u64(..))).collect();
        assert!(delays.iter().all(|delay| *delay <= 4000));
        assert!(delays.iter().any(|delay| *delay < 200) && delays.iter().any(|delay| *delay > 3800));
        assert_eq!(policy.jittered(3, 0), 0);
    }

    #[test]
    fn attempts_are_bounded_and_there_is_always_one() {
        let policy = RetryPolicy::new(3, 10);
        assert!(policy.next_delay(2, 7).is_some());
        assert_eq!((policy.next_delay(3, 7), policy.next_delay(4, 7)), (None, None));
        assert_eq!((RetryPolicy::new(0, 10).max_attempts(), RetryPolicy::new(0, 10).next_delay(1, 7)), (1, None));
    }

    #[test]
    fn no_configuration_overflows() {
        assert_eq!(RetryPolicy::new(u32::MAX, Millis::MAX).next_delay(u32::MAX - 1, u64::MAX), Some(DELAY_CAP_MS));
    }
}
