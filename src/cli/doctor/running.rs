//! The node that runs here, if one does: its health, and what it says of its own name.

use super::super::api::Api;
use super::super::args::Options;
use super::super::target::Target;
use super::Point;
use crate::config::Config;
use crate::report::{HealthReport, HealthStatus, Status};
use hyper::Method;
use hyper::body::Bytes;
use smol::LocalExecutor;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// A node that answers nothing for so long does not do its work.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the node at the configured address says.
pub(super) struct Running {
    shown: String,
    health: HealthReport,
    /// Where it answers to the token at hand.
    status: Option<Status>,
}

/// `None` where nobody answers.
pub(super) async fn look(_: &Config, options: &Options, executor: Rc<LocalExecutor<'static>>) -> Option<Running> {
    let api = Api::new(Target::of(options).ok()?, PATIENCE, executor);
    // An unhealthy node answers 503, with its report.
    let health = api.send(Method::GET, "/health", None, Bytes::new()).await.ok()?.json().ok()?;
    let status = match api.get("/v1/status").await {
        Ok(reply) => reply.json().ok(),
        Err(_) => None,
    };
    Some(Running { shown: api.shown(), health, status })
}

impl Running {
    /// Whether its name is its own.
    pub(super) fn name(&self) -> Point {
        let name = self.status.as_ref().map_or("this node", |status| status.node_id.as_str());
        let members = self.health.entries.get("members");
        match members.filter(|entry| entry.status > HealthStatus::Healthy) {
            Some(entry) => {
                let said = entry.description.clone().unwrap_or_else(|| "a device was refused".to_string());
                Point::fail("name", said, "see 'cbddc peers', which lists who was refused and what to do")
            }
            None => Point::ok("name", format!("{name}; nobody else goes by it")),
        }
    }
}

pub(super) fn point(running: Option<&Running>) -> Point {
    const POINT: &str = "running node";
    let Some(Running { shown, health, status }) = running else {
        return Point::ok(POINT, "none runs here");
    };
    let version = status.as_ref().map(|status| format!(", version {}", status.version)).unwrap_or_default();
    let unwell: Vec<String> = (health.entries.iter())
        .filter(|(_, entry)| entry.status > HealthStatus::Healthy)
        .map(|(name, entry)| {
            format!("{name}: {}", entry.description.as_deref().unwrap_or("no names without the token"))
        })
        .collect();
    let found = format!("{} at {shown}{version}", health.status);
    match health.status {
        HealthStatus::Healthy => Point::ok(POINT, found),
        HealthStatus::Degraded => Point::warn(POINT, format!("{found}: {}", unwell.join("; ")), "see 'cbddc health'"),
        HealthStatus::Unhealthy => Point::fail(POINT, format!("{found}: {}", unwell.join("; ")), "see 'cbddc health'"),
    }
}
