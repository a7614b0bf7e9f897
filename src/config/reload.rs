//! What a running node takes over of another configuration, and what has to wait for its next start.
//!
//! Reads nothing: both configurations are whole and right.

use super::keys::{COLLECTIONS, KEYS};
use super::{Config, Setting};
use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

/// What a reload has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reloaded {
    /// Keys whose new values are in force.
    pub changed: Vec<String>,
    /// Keys that were changed and are in force with their old values until the next start.
    pub at_next_start: Vec<String>,
    /// Whether the key file holds another cluster key than before, which is in force now.
    pub cluster_key: bool,
}

impl Config {
    /// Takes over what may change while a node runs; answers which keys did, and which were changed and wait.
    pub(crate) fn take_over(&mut self, new: &Config) -> Reloaded {
        let mut reloaded = Reloaded::default();
        for key in differing(&self.settings, &new.settings) {
            if reloads(&key) { reloaded.changed.push(key) } else { reloaded.at_next_start.push(key) }
        }
        self.cluster.peers = new.cluster.peers.clone();
        self.cluster.lag_threshold_ms = new.cluster.lag_threshold_ms;
        self.cluster.critical_lag_threshold_ms = new.cluster.critical_lag_threshold_ms;
        self.cluster.health_check_interval_ms = new.cluster.health_check_interval_ms;
        // The board stays, and so does what it can spare.
        self.persistence.cache_mib = new.persistence.cache_mib.min(self.board.budget.cache_mib);
        self.logging = new.logging.clone();
        for (name, collection) in &mut self.collections {
            collection.ttl_ms = new.collections.get(name).and_then(|new| new.ttl_ms);
        }
        for (name, collection) in &new.collections {
            self.collections.entry(name.clone()).or_default().ttl_ms = collection.ttl_ms;
        }
        let waits = |setting: &Setting| !reloads(&setting.key);
        let old = self.settings.iter().filter(|setting| waits(setting));
        let taken = new.settings.iter().filter(|setting| !waits(setting));
        let mut settings: Vec<Setting> = old.chain(taken).cloned().collect();
        settings.sort_by_key(|setting| place(&setting.key));
        self.settings = settings;
        reloaded
    }
}

/// Whether a key may change while a node runs.
fn reloads(key: &str) -> bool {
    let path = key.strip_prefix("CBDDC.").unwrap_or(key);
    let of_collection = path.starts_with(COLLECTIONS) && path.ends_with(".TtlSeconds");
    of_collection || KEYS.iter().any(|known| known.reloads && known.path == path)
}

/// Keys that stand with another value in one than in the other, or in one alone.
fn differing(old: &[Setting], new: &[Setting]) -> Vec<String> {
    let by_key = |settings: &[Setting]| -> BTreeMap<String, serde_json::Value> {
        settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    let (before, after) = (by_key(old), by_key(new));
    let mut keys: Vec<String> = before.keys().chain(after.keys()).cloned().collect();
    keys.retain(|key| before.get(key) != after.get(key));
    keys.sort_by_key(|key| place(key));
    keys.dedup();
    keys
}

/// The order of the documentation, collections behind it by name.
fn place(key: &str) -> (usize, String) {
    let path = key.strip_prefix("CBDDC.").unwrap_or(key);
    (KEYS.iter().position(|known| known.path == path).unwrap_or(KEYS.len()), String::from(key))
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::*;
    use std::string::ToString;

    fn file(text: &str) -> Config {
        Config::builder().file(text, "/f").build().unwrap()
    }

    #[test]
    fn what_may_change_is_in_force_and_what_may_not_is_named_until_the_next_start() {
        let mut config = file(
            r#"{"CBDDC":{"Network":{"TcpPort":5000},"Cluster":{"Peers":["a:1"]},
                "Collections":{"t":{"TtlSeconds":5},"gone":{"TtlSeconds":7}}}}"#,
        );
        let new = file(
            r#"{"CBDDC":{"Network":{"TcpPort":5001},"Cluster":{"Peers":["b:1"],"PeerConfirmationLagThresholdMs":10},
                "Logging":{"Level":"Debug"},"Persistence":{"CacheSizeMb":1},
                "Collections":{"t":{"TtlSeconds":6},"s":{"Scope":"local"}}}}"#,
        );
        let reloaded = config.take_over(&new);
        assert_eq!(
            reloaded.changed,
            [
                "CBDDC.Cluster.Peers",
                "CBDDC.Cluster.PeerConfirmationLagThresholdMs",
                "CBDDC.Persistence.CacheSizeMb",
                "CBDDC.Logging.Level",
                "CBDDC.Collections.gone.TtlSeconds",
                "CBDDC.Collections.t.TtlSeconds"
            ]
        );
        assert_eq!(reloaded.at_next_start, ["CBDDC.Network.TcpPort", "CBDDC.Collections.s.Scope"]);
        assert_eq!((config.cluster.peers[0].as_str(), config.network.tcp_port), ("b:1", 5000));
        assert_eq!((config.collections["t"].ttl_ms, config.collections["gone"].ttl_ms), (Some(6_000), None));
        assert_eq!(config.collections["s"].scope, Scope::Site, "a scope does not change while the node runs");
        let again = config.take_over(&new);
        assert_eq!((again.changed, again.at_next_start.len()), (Vec::new(), 2), "it is said each time");
        let port = config.settings().iter().find(|setting| setting.key == "CBDDC.Network.TcpPort").unwrap();
        assert_eq!(port.value.to_string(), "5000", "what is shown is what is in force");
    }

    #[test]
    fn the_same_configuration_changes_nothing() {
        let mut config = file(r#"{"CBDDC":{}}"#);
        assert_eq!(config.take_over(&file(r#"{"CBDDC":{"Network":{"TcpPort":5000}}}"#)), Reloaded::default());
    }
}
