//! The node that runs here, if one does: its health, and what it says of its own name.

use super::super::api::Api;
use super::super::args::Options;
use super::super::target::{Address, Target};
use super::Point;
use crate::config::Config;
use crate::net::{PortHolder, Protocol, port_holder};
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
    /// Who holds the port that answered.
    holder: Option<PortHolder>,
}

/// `None` where nobody answers.
pub(super) async fn look(_: &Config, options: &Options, executor: Rc<LocalExecutor<'static>>) -> Option<Running> {
    let target = Target::of(options).ok()?;
    let port = match &target.address {
        Address::Tcp(address) => address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()),
        Address::Unix(_) => None,
    };
    let api = Api::new(target, PATIENCE, executor);
    // An unhealthy node answers 503, with its report.
    let health = api.send(Method::GET, "/health", None, Bytes::new()).await.ok()?.json().ok()?;
    let status = match api.get("/v1/status").await {
        Ok(reply) => reply.json().ok(),
        Err(_) => None,
    };
    let holder = port.and_then(|port| port_holder(Protocol::Tcp, port));
    Some(Running { shown: api.shown(), health, status, holder })
}

impl Running {
    /// Whether a port that is in use is this node's.
    pub(super) fn holds(&self, protocol: Protocol, port: u16) -> bool {
        port_holder(protocol, port).is_some_and(|holder| self.is(&holder))
    }
    /// Whoever holds the port of its API is this node, whatever its program is called, and also where no more is told than
    /// the user that it runs as. Where it answers at a Unix socket, it goes by its name.
    fn is(&self, holder: &PortHolder) -> bool {
        match (&self.holder, holder) {
            (Some(own), holder) => own == holder,
            (None, PortHolder::Process { name, .. }) => name.contains("cbddc"),
            (None, PortHolder::User(_)) => false,
        }
    }
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
    let Some(Running { shown, health, status, .. }) = running else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_node_is_known_by_the_port_that_it_answers_at_and_by_its_name_only_where_it_has_none() {
        let process = |id, name: &str| PortHolder::Process { id, name: name.into() };
        let answering = |holder| Running {
            shown: String::new(),
            health: HealthReport { status: HealthStatus::Healthy, total_duration_ms: 0.0, entries: BTreeMap::new() },
            status: None,
            holder,
        };
        let renamed = answering(Some(process(7, "edge-node")));
        assert!(renamed.is(&process(7, "edge-node")));
        assert!(!renamed.is(&process(8, "cbddc")), "another node holds that port");
        let of_a_service = answering(Some(PortHolder::User(998)));
        assert!(of_a_service.is(&PortHolder::User(998)) && !of_a_service.is(&PortHolder::User(0)));
        let at_a_socket = answering(None);
        assert!(at_a_socket.is(&process(7, "cbddc")) && !at_a_socket.is(&process(7, "mosquitto")));
        assert!(!at_a_socket.is(&PortHolder::User(998)));
    }
}
