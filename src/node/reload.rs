//! Another configuration for a running node: what may change does, the rest is named.

use super::shell::Shell;
use crate::config::{Config, Reloaded};
use crate::error::Error;
use crate::key;
use crate::proto::Input;
use crate::report::HealthCheck;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

/// `Cluster.Peers`, each under a number that is never used for another.
#[derive(Debug, Default)]
pub(super) struct FixedPeers {
    by_number: BTreeMap<usize, String>,
    next: usize,
}

impl FixedPeers {
    pub(super) fn new(peers: &[String]) -> FixedPeers {
        let mut fixed = FixedPeers::default();
        fixed.become_these(peers);
        fixed
    }
    /// `host:port` of a number.
    pub(super) fn named(&self, number: usize) -> Option<&String> {
        self.by_number.get(&number)
    }
    fn become_these(&mut self, peers: &[String]) {
        // Each entry of the list keeps one number, also where a peer is written twice.
        let mut before = std::mem::take(&mut self.by_number);
        for peer in peers {
            let known = before.iter().find(|(_, known)| *known == peer).map(|(number, _)| *number);
            let number = known.unwrap_or(self.next);
            if before.remove(&number).is_none() {
                self.next += 1;
            }
            self.by_number.insert(number, peer.clone());
        }
    }
    fn numbers(&self) -> Vec<usize> {
        self.by_number.keys().copied().collect()
    }
}

impl Shell {
    /// Takes over what may change while the node runs.
    pub(crate) fn reload(self: &Rc<Self>, new: &Config) -> Result<Reloaded, Error> {
        // The one thing that may be wrong by now, so it comes first.
        key::load_cluster_key(&self.config.cluster.key_file)?;
        let cache_before = self.in_force.borrow().persistence.cache_mib;
        let mut reloaded = self.in_force.borrow_mut().take_over(new);
        reloaded.cluster_key = self.reload_keys()?;
        let (cluster, cache_mib) = {
            let config = self.in_force.borrow();
            (config.cluster.clone(), config.persistence.cache_mib)
        };
        self.health_check.set(HealthCheck::new(cluster.lag_threshold_ms, cluster.critical_lag_threshold_ms));
        // One that the program made has its own bound until another is configured.
        if cache_mib != cache_before {
            self.reads.resize(cache_mib as usize * 1024 * 1024);
        }
        let numbers = {
            let mut fixed = self.fixed.borrow_mut();
            fixed.become_these(&cluster.peers);
            fixed.numbers()
        };
        self.feed(Input::FixedPeers { numbers });
        self.reloads.wake();
        Ok(reloaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_stays_keeps_its_number_and_no_number_is_used_again() {
        let list = |names: &[&str]| -> Vec<String> { names.iter().map(|name| String::from(*name)).collect() };
        let mut fixed = FixedPeers::new(&list(&["a:1", "b:1", "a:1"]));
        assert_eq!(fixed.numbers(), [0, 1, 2]);
        fixed.become_these(&list(&["c:1", "b:1"]));
        assert_eq!((fixed.numbers(), fixed.named(3)), (Vec::from([1, 3]), Some(&String::from("c:1"))));
        fixed.become_these(&list(&["a:1", "b:1"]));
        assert_eq!(fixed.numbers(), [1, 4]);
        fixed.become_these(&[]);
        assert!(fixed.numbers().is_empty() && fixed.named(1).is_none());
    }
}
