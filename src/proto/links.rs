//! Whom to dial and when: back-off for each target, and who waits for whom when both could dial.

use super::io::{Now, Target};
use crate::retry::{DELAY_CAP_MS, RetryPolicy};
use crate::time::Millis;
use alloc::collections::BTreeMap;

/// Longest time between two dials of one target.
pub(super) const BACKOFF_CAP_MS: Millis = DELAY_CAP_MS;
/// A name that was taken is offered again after this: a person has to settle it first.
pub(super) const REFUSED_REST_MS: Millis = 20_000;
/// The node with the higher replica gives the other this long to dial first.
pub(super) const PATIENCE_MS: Millis = 3_000;
/// Targets that are remembered; heard ones are at most as many as discovery remembers.
const TARGETS_MAX: usize = crate::limits::HEARD_MAX + 64;

/// What the link to a member is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum LinkState {
    /// In session.
    Open,
    /// Being dialled.
    Connecting,
    /// Dialled in vain, and again after a while.
    Backoff,
    /// It is not heard, and no address to dial is known.
    Closed,
}

#[derive(Debug, Clone, Copy, Default)]
struct Backoff {
    failures: u32,
    not_before: Millis,
    dialling: bool,
}

/// The state of every target.
#[derive(Default)]
pub(super) struct Dialler {
    targets: BTreeMap<Target, Backoff>,
}

impl Dialler {
    pub(super) fn may_dial(&self, now: Now, target: Target) -> bool {
        self.targets.get(&target).is_none_or(|state| !state.dialling && state.not_before <= now.mono)
    }
    /// Whether it is being dialled, or rests after a failure.
    pub(super) fn state(&self, now: Now, target: Target) -> LinkState {
        match self.targets.get(&target) {
            Some(state) if state.dialling => LinkState::Connecting,
            Some(state) if state.failures > 0 || state.not_before > now.mono => LinkState::Backoff,
            _ => LinkState::Closed,
        }
    }
    /// Whether no attempt at it has ended yet.
    pub(super) fn is_first(&self, target: Target) -> bool {
        self.targets.get(&target).is_none_or(|state| state.failures == 0 && state.not_before == 0)
    }
    pub(super) fn dialling(&self) -> usize {
        self.targets.values().filter(|state| state.dialling).count()
    }
    pub(super) fn started(&mut self, target: Target) {
        if self.targets.len() >= TARGETS_MAX {
            let idle = self.targets.iter().find(|(_, state)| !state.dialling).map(|(target, _)| *target);
            idle.and_then(|target| self.targets.remove(&target));
        }
        self.targets.entry(target).or_default().dialling = true;
    }
    /// A dial, or the link that it led to, has failed: tried again as the policy says, beyond its attempts for ever, up to its
    /// cap. Answers how many have failed in a row, and after how long it is tried again.
    pub(super) fn failed(
        &mut self,
        now: Now,
        target: Target,
        policy: &RetryPolicy,
        rng: &mut fastrand::Rng,
    ) -> (u32, Millis) {
        let state = self.targets.entry(target).or_default();
        state.dialling = false;
        state.failures = state.failures.saturating_add(1);
        // Never at once: a peer that hangs up right away is not dialled without a pause.
        let delay = policy.delay_ms() / 4 + policy.jittered(state.failures, rng.u64(..));
        state.not_before = now.mono + delay;
        (state.failures, delay)
    }
    /// The link is in session.
    pub(super) fn succeeded(&mut self, target: Target) {
        self.targets.insert(target, Backoff::default());
    }
    /// Everybody may be dialled at once: what they failed for may be over.
    pub(super) fn forgive(&mut self) {
        self.targets.retain(|_, state| state.dialling);
    }
    /// Fixed peers that are none of these are forgotten; those under way end by themselves.
    pub(super) fn keep_fixed(&mut self, numbers: &[usize]) {
        let kept = |target: &Target| !matches!(target, Target::Fixed(number) if !numbers.contains(number));
        self.targets.retain(|target, state| kept(target) || state.dialling);
    }
    /// Not before some time from now, whatever happened.
    pub(super) fn rest(&mut self, now: Now, target: Target, time: Millis) {
        let state = self.targets.entry(target).or_default();
        state.dialling = false;
        state.not_before = state.not_before.max(now.mono + time);
    }
    pub(super) fn ended(&mut self, target: Target) {
        if let Some(state) = self.targets.get_mut(&target) {
            state.dialling = false;
        }
    }
    /// The earliest time at which a resting target may be dialled.
    pub(super) fn deadline(&self, now: Now) -> Option<Millis> {
        self.targets.values().filter(|state| !state.dialling && state.not_before > now.mono).map(|s| s.not_before).min()
    }
}
