//! What a node says about itself: status, peers, health and readiness, in the JSON shapes of the HTTP API.
//!
//! Shapes, and the one judgement that programs may want by itself: the node measures, the HTTP server sends these, the
//! command line reads them back. Fields are
//! added, never renamed or removed. Durations end in their unit; times of day are RFC 3339 in UTC with milliseconds.

mod care;
mod check;
mod health;
mod metrics;
mod peers;
mod site;
mod status;
mod timestamp;

pub use care::{BackupReport, IntegrityReport};
pub use check::{HealthCheck, PeerConfirmation};
pub use health::{HealthEntry, HealthReport, HealthStatus, Readiness};
pub use metrics::{Figure, Metrics};
pub use peers::{HeardAddress, PeerReport, PeersReport, Replacement};
pub use site::{MemberStatus, Said, SiteReport};
pub use status::{CacheStatus, ClockStatus, LinksStatus, QueueStatus, RecentError, Status, StoreStatus};
pub use timestamp::Timestamp;
