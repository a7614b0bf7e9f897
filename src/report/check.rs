//! The judgement of the entry `cbddc`: how far the peers are behind, held against two thresholds. Measures nothing.

use super::{HealthEntry, HealthStatus, Timestamp};
use crate::time::Millis;
use serde_json::{Map, Value, json};
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// What one tracked peer has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfirmation {
    /// Its name.
    pub node_id: String,
    /// Whether it has ever said what it has on disk.
    pub has_confirmed: bool,
    /// How long our oldest change that it has not confirmed has been waiting, in milliseconds; 0 when none waits.
    pub lag_ms: Millis,
    /// When it last confirmed something, by our clock.
    pub last_confirmation: Option<Timestamp>,
}

/// Judges peers by their lag. The node uses one; a program may use its own, with other thresholds.
///
/// ```
/// use cbddc::HealthCheck;
/// use cbddc::report::{HealthStatus, PeerConfirmation};
/// let late = PeerConfirmation {
///     node_id: "gateway-07".into(), has_confirmed: true, lag_ms: 41_250, last_confirmation: None,
/// };
/// let entry = HealthCheck::default().check(&[late], Ok(()));
/// assert_eq!(entry.status, HealthStatus::Degraded);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    lag_threshold_ms: Millis,
    critical_lag_threshold_ms: Millis,
}

impl Default for HealthCheck {
    /// Lag from 30 s, critical from 120 s.
    fn default() -> HealthCheck {
        HealthCheck::new(30_000, 120_000)
    }
}

impl HealthCheck {
    /// With thresholds in milliseconds, both still within what they allow. A critical one below the other is raised to it.
    pub fn new(lag_threshold_ms: Millis, critical_lag_threshold_ms: Millis) -> HealthCheck {
        HealthCheck { lag_threshold_ms, critical_lag_threshold_ms: critical_lag_threshold_ms.max(lag_threshold_ms) }
    }

    /// From here on a peer lags, in milliseconds.
    pub fn lag_threshold_ms(&self) -> Millis {
        self.lag_threshold_ms
    }
    /// From here on it lags critically, in milliseconds; at least the former.
    pub fn critical_lag_threshold_ms(&self) -> Millis {
        self.critical_lag_threshold_ms
    }

    /// Judges the tracked peers. `persistence` says why the store does not do its work, where it does not.
    ///
    /// Healthy: every peer has a confirmation and lags at most the threshold. Degraded: one lags more, or has no
    /// confirmation yet. Unhealthy: one lags more than the critical threshold, or the persistence check fails.
    pub fn check(&self, peers: &[PeerConfirmation], persistence: Result<(), &str>) -> HealthEntry {
        let names = |which: &dyn Fn(&PeerConfirmation) -> bool| -> Vec<&str> {
            peers.iter().filter(|peer| which(peer)).map(|peer| peer.node_id.as_str()).collect()
        };
        let lagging = names(&|peer| peer.lag_ms > self.lag_threshold_ms);
        let unconfirmed = names(&|peer| !peer.has_confirmed);
        let max_lag_ms = peers.iter().map(|peer| peer.lag_ms).max().unwrap_or(0);
        let status = if persistence.is_err() || max_lag_ms > self.critical_lag_threshold_ms {
            HealthStatus::Unhealthy
        } else if !lagging.is_empty() || !unconfirmed.is_empty() {
            HealthStatus::Degraded
        } else {
            HealthStatus::Healthy
        };
        let tracked = format!("{} tracked peer{}", peers.len(), if peers.len() == 1 { "" } else { "s" });
        let description = match (persistence, lagging.len(), unconfirmed.len()) {
            (Err(why), _, _) => format!("the persistence check fails: {why}"),
            (Ok(()), 0, 0) if peers.is_empty() => "no peers yet".to_string(),
            (Ok(()), 0, 0) if max_lag_ms > 0 => {
                format!("{tracked}, at most {max_lag_ms} ms behind, within the threshold")
            }
            (Ok(()), 0, 0) => format!("{tracked} in step"),
            (Ok(()), 0, 1) => format!("1 of {tracked} has not confirmed anything yet"),
            (Ok(()), 0, n) => format!("{n} of {tracked} have not confirmed anything yet"),
            (Ok(()), 1, _) => format!("1 of {tracked} lags"),
            (Ok(()), n, _) => format!("{n} of {tracked} lag"),
        };
        let last: Map<String, Value> =
            peers.iter().map(|peer| (peer.node_id.clone(), json!(peer.last_confirmation))).collect();
        let data = json!({
            "trackedPeerCount": peers.len(),
            "peersWithNoConfirmation": unconfirmed,
            "maxLagMs": max_lag_ms,
            "laggingPeers": lagging,
            "lastSuccessfulConfirmationUpdateByPeer": last,
        });
        HealthEntry::new(status, description, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, has_confirmed: bool, lag_ms: Millis) -> PeerConfirmation {
        let last_confirmation = has_confirmed.then_some(Timestamp(1_768_472_430_123));
        PeerConfirmation { node_id: name.to_string(), has_confirmed, lag_ms, last_confirmation }
    }
    fn status(peers: &[PeerConfirmation]) -> HealthStatus {
        HealthCheck::default().check(peers, Ok(())).status
    }

    #[test]
    fn health_turns_at_its_thresholds_and_not_before() {
        for (lag_ms, expected) in [
            (0, HealthStatus::Healthy),
            (30_000, HealthStatus::Healthy),
            (30_001, HealthStatus::Degraded),
            (120_000, HealthStatus::Degraded),
            (120_001, HealthStatus::Unhealthy),
        ] {
            assert_eq!(status(&[peer("a", true, 0), peer("b", true, lag_ms)]), expected, "{lag_ms} ms");
        }
    }

    #[test]
    fn a_peer_that_has_never_confirmed_is_a_degradation_and_has_a_name() {
        let entry = HealthCheck::default().check(&[peer("a", false, 0)], Ok(()));
        assert_eq!(entry.status, HealthStatus::Degraded);
        let data = entry.data.unwrap();
        assert_eq!(data["peersWithNoConfirmation"], json!(["a"]));
        assert_eq!(data["lastSuccessfulConfirmationUpdateByPeer"], json!({ "a": null }));
    }

    #[test]
    fn nobody_is_tracked_and_everything_is_well() {
        assert_eq!(status(&[]), HealthStatus::Healthy);
    }

    #[test]
    fn a_store_that_fails_is_unhealthy_whatever_the_peers_say() {
        let entry = HealthCheck::default().check(&[peer("a", true, 0)], Err("the disk is gone"));
        assert_eq!(entry.status, HealthStatus::Unhealthy);
        assert!(entry.description.unwrap().contains("the disk is gone"));
    }

    #[test]
    fn thresholds_the_wrong_way_round_are_one_threshold() {
        let check = HealthCheck::new(5_000, 100);
        assert_eq!(check.check(&[peer("a", true, 4_000)], Ok(())).status, HealthStatus::Healthy);
        assert_eq!(check.check(&[peer("a", true, 5_001)], Ok(())).status, HealthStatus::Unhealthy);
    }

    #[test]
    fn the_entry_is_shaped_as_programs_expect_it() {
        let entry =
            HealthCheck::default().check(&[peer("gateway-07", true, 41_250), peer("gateway-02", true, 0)], Ok(()));
        assert_eq!(entry.description.as_deref(), Some("1 of 2 tracked peers lags"));
        let expected = json!({
            "trackedPeerCount": 2, "peersWithNoConfirmation": [], "maxLagMs": 41250, "laggingPeers": ["gateway-07"],
            "lastSuccessfulConfirmationUpdateByPeer":
                { "gateway-07": "2026-01-15T10:20:30.123Z", "gateway-02": "2026-01-15T10:20:30.123Z" },
        });
        assert_eq!(Value::Object(entry.data.unwrap()), expected);
    }
}
