//! `cbddc run` under a service manager: what that is told, and the watchdog that it keeps. Where there is none, nothing.

use crate::log::{critical, warn};
use crate::net::Supervisor;
use crate::node::Node;
use smol::Timer;
use std::env;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;

/// The service manager, where there is one that wants to be told.
pub(super) fn supervisor() -> Option<Rc<Supervisor>> {
    let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
    Supervisor::new(&address)
        .inspect_err(|error| {
            warn!("the service manager cannot be told anything NOTIFY_SOCKET={:?} cause={}", address, error)
        })
        .ok()
        .map(Rc::new)
}

pub(super) fn tell(supervisor: Option<&Supervisor>, state: &str) {
    if let Some(Err(error)) = supervisor.map(|supervisor| supervisor.say(state)) {
        warn!("the service manager was not told state={:?} cause={}", state, error);
    }
}

/// How long the service manager waits for a sign of life, where it waits for one of this process.
pub(super) fn watchdog_limit() -> Option<Duration> {
    let ours = |pid: String| pid.parse() == Ok(std::process::id());
    if !env::var("WATCHDOG_PID").ok().is_none_or(ours) {
        return None;
    }
    let limit = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(limit)).filter(|limit| !limit.is_zero())
}

/// A sign of life four times within the limit, but only while storage and network move: a node that hangs is ended and
/// started anew.
pub(super) async fn feed_watchdog(node: Node, supervisor: Rc<Supervisor>, limit: Duration) {
    loop {
        match node.check_progress(limit / 2).await {
            Ok(()) => tell(Some(&supervisor), "WATCHDOG=1"),
            Err(error) => critical!("the watchdog is not fed, the node stands still cause=\"{}\"", error.to_string()),
        }
        Timer::after(limit / 4).await;
    }
}
