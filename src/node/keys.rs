//! The cluster keys in force. A new key in the key file is taken over while the node runs; the one before still opens links
//! for a day, so that a site can be given a new key one node after the other.

use super::shell::Shell;
use crate::error::Error;
use crate::key;
use crate::limits::CLUSTER_KEYS_MAX;
use crate::log::{info, warn};
use crate::proto::Input;
use crate::secure::ClusterKey;
use crate::wire::BeaconKey;
use smol::Timer;
use std::rc::Rc;
use std::string::ToString;
use std::time::Duration;
use std::vec::Vec;

/// How often the key file is looked at. It is taken over once it has stayed the same for so long, hence written whole.
const LOOK: Duration = Duration::from_secs(1);
/// A key that was replaced opens links for this long. A restart ends it at once.
const ROTATION: Duration = Duration::from_secs(24 * 3600);

impl Shell {
    /// Takes over the key that is in the key file now. Says whether it is another one than before.
    ///
    /// # Errors
    /// [`Error::Configuration`] where there is none; the keys in force stay.
    pub(crate) fn reload_keys(self: &Rc<Self>) -> Result<bool, Error> {
        let key = ClusterKey::new(key::load_cluster_key(&self.config.cluster.key_file)?);
        let before = self.identity.cluster_keys.borrow().clone();
        if before.first() == Some(&key) {
            return Ok(false);
        }
        info!("a new cluster key is in force, the one before it opens links for another day");
        self.put_in_force(preferring(&before, key));
        let shell = self.clone();
        self.spawn(async move {
            Timer::after(ROTATION).await;
            let keys = shell.identity.cluster_keys.borrow().clone();
            let left = without_old(&keys, &before);
            if left.len() < keys.len() {
                info!("the cluster key before the last one opens no links any more");
                shell.put_in_force(left);
            }
        });
        Ok(true)
    }

    fn put_in_force(self: &Rc<Self>, keys: Vec<ClusterKey>) {
        let beacon_keys = keys.iter().map(|key| BeaconKey::derive(key.expose())).collect();
        self.links.close_all_but(&keys);
        self.identity.cluster_keys.replace(keys);
        self.feed(Input::NewKeys { keys: beacon_keys });
    }

    /// Takes over a key that somebody puts into the key file, by whatever means.
    pub(super) async fn watch_key_file(self: Rc<Self>) {
        let path = &self.config.cluster.key_file;
        // Looked at once more after the start: it may have changed meanwhile.
        let (mut taken, mut seen) = (None, None);
        loop {
            Timer::after(LOOK).await;
            let now = key::stamp(path);
            let settled = now.is_some() && now == seen && now != taken;
            seen = now;
            if settled {
                taken = now;
                if let Err(error) = self.reload_keys() {
                    warn!(
                        "the key file has changed and is not taken over, the key before stays in force: {}",
                        error.to_string()
                    );
                }
            }
        }
    }
}

/// A key in front of those before it, within their bound.
fn preferring(before: &[ClusterKey], key: ClusterKey) -> Vec<ClusterKey> {
    let others = before.iter().filter(|known| **known != key).cloned();
    core::iter::once(key.clone()).chain(others).take(CLUSTER_KEYS_MAX).collect()
}

/// What stays once the time of `old` is over: the key to send with always does.
fn without_old(keys: &[ClusterKey], old: &[ClusterKey]) -> Vec<ClusterKey> {
    keys.iter().enumerate().filter(|(at, key)| *at == 0 || !old.contains(key)).map(|(_, key)| key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(numbers: &[u8]) -> Vec<ClusterKey> {
        numbers.iter().map(|number| ClusterKey::new([*number; 32])).collect()
    }

    #[test]
    fn a_new_key_stands_first_and_two_before_it_still_open_links() {
        assert_eq!(preferring(&keys(&[1]), ClusterKey::new([2; 32])), keys(&[2, 1]));
        assert_eq!(preferring(&keys(&[3, 2, 1]), ClusterKey::new([4; 32])), keys(&[4, 3, 2]));
        assert_eq!(preferring(&keys(&[2, 1]), ClusterKey::new([1; 32])), keys(&[1, 2]), "back to the one before");
    }

    #[test]
    fn an_old_key_ends_unless_it_is_in_force_again() {
        assert_eq!(without_old(&keys(&[2, 1]), &keys(&[1])), keys(&[2]));
        assert_eq!(without_old(&keys(&[1, 2]), &keys(&[1])), keys(&[1, 2]));
        assert_eq!(without_old(&keys(&[3, 2, 1]), &keys(&[1])), keys(&[3, 2]));
    }
}
