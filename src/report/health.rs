//! The health report, and whether the node is ready to take work.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::format;
use std::string::String;
use std::vec::Vec;

/// How well something is. Ordered: the greatest is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum HealthStatus {
    /// All promises hold.
    #[default]
    Healthy,
    /// It works, and somebody should look.
    Degraded,
    /// It does not do its work.
    Unhealthy,
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HealthStatus::Healthy => "Healthy",
            HealthStatus::Degraded => "Degraded",
            HealthStatus::Unhealthy => "Unhealthy",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthEntry {
    /// How well it is.
    pub status: HealthStatus,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How long looking took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// Figures; the fields of the entry `cbddc` are fixed, the others speak for themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Map<String, Value>>,
}

impl HealthEntry {
    /// An entry with a sentence and its figures, which are an object.
    pub(crate) fn new(status: HealthStatus, description: impl Into<String>, data: Value) -> HealthEntry {
        let data = if let Value::Object(data) = data { Some(data) } else { None };
        HealthEntry { status, description: Some(description.into()), duration_ms: None, data }
    }
    /// An entry that holds a status alone.
    pub fn of(status: HealthStatus) -> HealthEntry {
        HealthEntry { status, ..HealthEntry::default() }
    }
}

/// `GET /health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// The worst of the entries.
    pub status: HealthStatus,
    /// How long the whole report took, in milliseconds.
    pub total_duration_ms: f64,
    /// By name: `cbddc` as [`HealthCheck`](super::HealthCheck) judges it, `storage`, `queue`, `clock`, `backup`,
    /// `recovered`.
    pub entries: BTreeMap<String, HealthEntry>,
}

impl HealthReport {
    /// A report whose status is the worst of its entries; Healthy when there are none.
    pub fn new(entries: BTreeMap<String, HealthEntry>, total_duration_ms: f64) -> HealthReport {
        let status = entries.values().map(|entry| entry.status).max().unwrap_or_default();
        HealthReport { status, total_duration_ms, entries }
    }

    /// The same for strangers: counts and no names. Sentences and strings go; lists and maps become their lengths,
    /// under their name with `Count` behind it.
    #[must_use]
    pub fn without_names(mut self) -> HealthReport {
        for entry in self.entries.values_mut() {
            entry.description = None;
            entry.data = entry.data.take().map(|data| data.into_iter().filter_map(counted).collect());
        }
        self
    }
}

fn counted((name, value): (String, Value)) -> Option<(String, Value)> {
    match value {
        Value::Array(list) => Some((format!("{name}Count"), list.len().into())),
        Value::Object(map) => Some((format!("{name}Count"), map.len().into())),
        Value::String(_) => None,
        scalar => Some((name, scalar)),
    }
}

/// `GET /readyz`: whether the node takes work, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// Whether it does.
    pub ready: bool,
    /// One sentence for each thing that is missing; empty when ready.
    pub reasons: Vec<String>,
}

impl Readiness {
    /// Ready when there is no reason not to be.
    pub fn new(reasons: Vec<String>) -> Readiness {
        Readiness { ready: reasons.is_empty(), reasons }
    }

    /// The same for strangers: how many reasons, not which.
    #[must_use]
    pub fn without_names(self) -> Readiness {
        let reasons = match self.reasons.len() {
            0 => Vec::new(),
            count => [format!("{count} reason(s), shown to who has the token")].into(),
        };
        Readiness { ready: self.ready, reasons }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn report() -> HealthReport {
        let data = serde_json::json!({
            "trackedPeerCount": 2, "laggingPeers": ["gateway-07"], "maxLagMs": 41250, "worst": "gateway-07",
            "lastSuccessfulConfirmationUpdateByPeer": { "gateway-07": "2026-01-15T10:20:30.123Z", "gateway-02": null },
        });
        let Value::Object(data) = data else { unreachable!() };
        let lagging = HealthEntry {
            status: HealthStatus::Degraded,
            description: Some("gateway-07 lags".to_string()),
            duration_ms: Some(1.8),
            data: Some(data),
        };
        let entries = [("cbddc", lagging), ("storage", HealthEntry::of(HealthStatus::Healthy))];
        HealthReport::new(entries.map(|(name, entry)| (name.to_string(), entry)).into(), 1.8)
    }

    #[test]
    fn the_status_at_the_top_is_the_worst() {
        assert!(HealthStatus::Healthy < HealthStatus::Degraded && HealthStatus::Degraded < HealthStatus::Unhealthy);
        assert_eq!(report().status, HealthStatus::Degraded);
        assert_eq!(HealthReport::new(BTreeMap::new(), 0.0).status, HealthStatus::Healthy);
    }

    #[test]
    fn fields_are_named_as_programs_expect_them() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["totalDurationMs"], 1.8);
        assert_eq!(json["entries"]["cbddc"]["durationMs"], 1.8);
        assert_eq!(json["entries"]["storage"], serde_json::json!({ "status": "Healthy" }));
    }

    #[test]
    fn strangers_see_counts_and_no_names() {
        let json = serde_json::to_string(&report().without_names()).unwrap();
        assert!(!json.contains("gateway"), "{json}");
        assert!(json.contains(r#""laggingPeersCount":1"#) && json.contains(r#""maxLagMs":41250"#), "{json}");
        assert!(json.contains(r#""lastSuccessfulConfirmationUpdateByPeerCount":2"#), "{json}");
    }
}
