//! What the members' confirmations say about the site's health. The shell adds storage, queue, clock and backup.

use super::io::Now;
use super::members::Members;
use crate::id::NodeId;
use crate::time::Millis;
use alloc::vec::Vec;

/// From well to not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Verdict {
    /// Every tracked member has confirmed, and lags at most the threshold.
    Healthy,
    /// One lags more, or has not confirmed yet.
    Degraded,
    /// One lags more than the critical threshold.
    Unhealthy,
}

/// The entry `cbddc` of the health report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembersHealth {
    /// The worst of all members.
    pub verdict: Verdict,
    /// How many are tracked.
    pub tracked: usize,
    /// Who has never confirmed.
    pub unconfirmed: Vec<NodeId>,
    /// The longest lag, milliseconds.
    pub max_lag_ms: Millis,
    /// Who lags more than the threshold.
    pub lagging: Vec<NodeId>,
    /// When each last confirmed, milliseconds since 1970.
    pub last_confirmation: Vec<(NodeId, Option<Millis>)>,
}

impl MembersHealth {
    pub(super) fn of(members: &Members, now: Now, threshold: Millis, critical: Millis) -> MembersHealth {
        let mut health = MembersHealth {
            verdict: Verdict::Healthy,
            tracked: 0,
            unconfirmed: Vec::new(),
            max_lag_ms: 0,
            lagging: Vec::new(),
            last_confirmation: Vec::new(),
        };
        for (_, member) in members.tracked() {
            health.tracked += 1;
            let name = &member.state.node_id;
            let lag = members.lag_ms(now, member);
            health.max_lag_ms = health.max_lag_ms.max(lag);
            health.last_confirmation.push((name.clone(), member.state.confirmed_at));
            if !member.state.has_confirmed {
                health.unconfirmed.push(name.clone());
                health.verdict = health.verdict.max(Verdict::Degraded);
            }
            if lag > threshold {
                health.lagging.push(name.clone());
                health.verdict = health.verdict.max(Verdict::Degraded);
            }
            if lag > critical {
                health.verdict = Verdict::Unhealthy;
            }
        }
        health
    }
}
