//! Parts of a node that its caller made, in place of those that the configuration would make.
//!
//! Holds them and says what they mean for the configuration; the start puts each where it belongs.

use super::tracker::SyncTracker;
use crate::cache::DocumentCache;
use crate::config::Config;
use crate::document::CachedVersion;
use crate::queue::OfflineQueue;
use crate::report::HealthCheck;
use crate::retry::RetryPolicy;

/// Parts to build a node on, for [`Node::start_with`](super::Node::start_with). What is not given is made as the
/// configuration says; what is given wins over it, and over what the board can spare.
///
/// ```no_run
/// # use std::rc::Rc;
/// use cbddc::queue::{OfflineQueue, PendingOperation};
/// # async fn start(executor: Rc<smol::LocalExecutor<'static>>, config: cbddc::Config) -> Result<(), cbddc::Error> {
/// let mut queue = OfflineQueue::new(200, 1024 * 1024);
/// // What a program accepted before it had a node is carried out by the node.
/// let _ = queue.enqueue(PendingOperation::put("orders", "o-17", r#"{"paid":true}"#));
/// let parts = cbddc::Parts::default().queue(queue).retry(cbddc::retry::RetryPolicy::new(5, 200));
/// let node = cbddc::Node::start_with(executor, config, parts).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Parts {
    pub(super) queue: Option<OfflineQueue>,
    pub(super) cache: Option<DocumentCache<CachedVersion>>,
    pub(super) tracker: SyncTracker,
    retry: Option<RetryPolicy>,
    health_check: Option<HealthCheck>,
}

impl Parts {
    /// The offline queue, which is then on: its bounds, and whether an operation replaces older ones on its key, are the
    /// node's. Operations that it holds count as accepted now: `data` is one JSON value, and they are carried out behind
    /// what the last stop has kept. One that no node can store, since it is not JSON or too large, is left out, logged and
    /// counted as lost. Operations beyond what the spill file has room for are carried out, but an orderly stop before that
    /// cannot keep them, and says so.
    pub fn queue(mut self, queue: OfflineQueue) -> Parts {
        self.queue = Some(queue);
        self
    }
    /// The document cache: its bound and its counters go on. Documents that it holds are taken out, since only the store
    /// knows what is true.
    pub fn cache(mut self, cache: DocumentCache<CachedVersion>) -> Parts {
        self.cache = Some(cache);
        self
    }
    /// How dialling and the queue try again.
    pub fn retry(mut self, policy: RetryPolicy) -> Parts {
        self.retry = Some(policy);
        self
    }
    /// The sync tracker, with the errors that it holds.
    pub fn tracker(mut self, tracker: SyncTracker) -> Parts {
        self.tracker = tracker;
        self
    }
    /// What judges the peers' lag; in force until a reload brings other thresholds.
    pub fn health_check(mut self, check: HealthCheck) -> Parts {
        self.health_check = Some(check);
        self
    }

    /// The configuration as these parts have it, for everything that reads it from there.
    pub(super) fn prevail(&self, config: &mut Config) {
        if let Some(queue) = &self.queue {
            config.sync.offline_queue = true;
            config.sync.max_queue_size = u32::try_from(queue.bounds().0).unwrap_or(u32::MAX);
        }
        if let Some(policy) = self.retry {
            config.network.retry_attempts = policy.max_attempts();
            config.network.retry_delay_ms = policy.delay_ms();
        }
        if let Some(check) = self.health_check {
            config.cluster.lag_threshold_ms = check.lag_threshold_ms();
            config.cluster.critical_lag_threshold_ms = check.critical_lag_threshold_ms();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Node;
    use crate::document::Version;
    use crate::id::ReplicaId;
    use crate::queue::PendingOperation;
    use crate::time::Stamp;
    use smol::{LocalExecutor, Timer};
    use std::path::PathBuf;
    use std::rc::Rc;
    use std::time::Duration;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(std::format!("cbddc-parts-{name}-{}", std::process::id()))
    }
    fn config(folder: &PathBuf) -> Config {
        let config = Config::builder().data_directory(folder).tcp_port(0).discovery(false).http_address(None);
        config.set("Sync.EnableOfflineQueue", false).build().expect("a configuration")
    }
    fn run(test: impl AsyncFnOnce(Rc<LocalExecutor<'static>>)) {
        let executor = Rc::new(LocalExecutor::new());
        smol::block_on(executor.run(test(executor.clone())));
    }

    #[test]
    fn a_node_carries_out_what_a_queue_holds_that_its_caller_made_and_goes_on_with_that_queue() {
        let folder = folder("queue");
        run(async |executor| {
            let mut queue = OfflineQueue::new(5, 10_000);
            for operation in [
                PendingOperation::put("c", "a", "1"),
                PendingOperation::put("c", "a", "2"),
                PendingOperation::put("c", "gone", "3"),
                PendingOperation::put("c", "broken", "{"),
                PendingOperation::delete("c", "gone"),
            ] {
                queue.enqueue(operation).expect("there is room");
            }
            let node = Node::start_with(executor, config(&folder), Parts::default().queue(queue)).await;
            let node = node.expect("it starts");
            while node.status().await.queue.length > 0 {
                Timer::after(Duration::from_millis(5)).await;
            }
            let documents = node.collection("c");
            assert_eq!(documents.get::<u8>("a").await.expect("it can be read"), Some(2), "the order is kept");
            assert_eq!(documents.get::<u8>("gone").await.expect("it can be read"), None);
            assert_eq!(documents.get::<u8>("broken").await.expect("it can be read"), None);
            let status = node.status().await.queue;
            assert!(status.enabled, "a queue that is handed over is on, whatever is configured");
            assert_eq!((status.capacity, status.capacity_bytes, status.lost), (5, 10_000, 1), "{status:?}");
            assert_eq!((status.accepted, status.delivered), (5, 4), "{status:?}");
            node.shutdown().await.expect("nothing waits");
        });
        std::fs::remove_dir_all(&folder).expect("the folder is there");
    }

    #[test]
    fn cache_tracker_retry_policy_and_health_check_of_the_caller_are_the_ones_in_force() {
        let folder = folder("others");
        run(async |executor| {
            let mut cache = DocumentCache::new(12_345);
            let version = Version { stamp: Stamp::ZERO, origin: ReplicaId::from_bits(1) };
            cache.set("c", "k", b"\"untrue\"".as_slice(), CachedVersion { version, expires_at: None });
            let mut tracker = SyncTracker::default();
            tracker.record_error("before the node", None, "NETWORK_ERROR");
            let parts = Parts::default().cache(cache).tracker(tracker);
            let parts = parts.retry(RetryPolicy::new(7, 11)).health_check(HealthCheck::new(500, 600));
            let config = config(&folder);
            let node = Node::start_with(executor, config.clone(), parts).await.expect("it starts");
            let documents = node.collection("c");
            assert_eq!(documents.get_bytes("k").await.expect("it can be read"), None, "only the store knows");
            documents.put("k", &1).await.expect("it is stored");
            let status = node.status().await;
            assert_eq!(status.recent_errors.len(), 1, "{status:?}");
            assert_eq!(status.recent_errors[0].message, "before the node");
            let bound = || node.shell.reads.statistics().bytes_max;
            assert_eq!(bound(), 12_345);
            let network = &node.shell.config.network;
            assert_eq!((network.retry_attempts, network.retry_delay_ms), (7, 11));
            assert_eq!(node.shell.health_check.get(), HealthCheck::new(500, 600));
            // A reload of the same configuration changes the cache no more than it changes the configuration.
            node.reload(&config).expect("the configuration is right");
            assert_eq!(bound(), 12_345);
            node.shutdown().await.expect("nothing waits");
        });
        std::fs::remove_dir_all(&folder).expect("the folder is there");
    }
}
