//! `cbddc run`: configuration, log, and the node in the foreground; what the service manager is told of it.

use super::args::Options;
use crate::Error;
use crate::clock;
use crate::config::Config;
use crate::log::{self, critical, info, warn};
use crate::net::Supervisor;
use crate::node::Node;
use async_signal::{Signal, Signals};
use smol::LocalExecutor;
use smol::Timer;
use smol::stream::StreamExt;
use std::boxed::Box;
use std::env;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;

/// A signal that follows another within this is the same one.
const SAME_SIGNAL_MS: u64 = 500;

/// Runs a node until it is told to stop; answers the exit code.
pub(super) fn run(options: &Options) -> Result<u8, Error> {
    let config = Config::load(options.config.as_deref())?;
    log::start(config.logging.level, config.logging.format, config.logging.path.as_deref())?;
    match &config.file {
        Some(file) => info!("configuration read file={} board={}", file.display(), config.board.name),
        None => info!("no configuration file, built-in values are used board={}", config.board.name),
    }
    for warning in &config.warnings {
        warn!("{}", warning);
    }
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(until_told(executor.clone(), config)))
}

async fn until_told(executor: Rc<LocalExecutor<'static>>, config: Config) -> Result<u8, Error> {
    let signals = Signals::new([Signal::Int, Signal::Term]);
    let mut signals =
        signals.map_err(|cause| Error::network("signals cannot be received", Some(Box::from(cause) as _)))?;
    let node = match Node::start(executor.clone(), config).await {
        Ok(node) => node,
        Err(error) => {
            if !matches!(error, Error::Configuration { .. } | Error::Network { .. }) {
                critical!("the node cannot start: {}", error.to_string());
            }
            return Err(error);
        }
    };
    let supervisor = supervisor().map(Rc::new);
    tell(supervisor.as_deref(), &format!("READY=1\nSTATUS=serving as {}", node.node_id()));
    if let (Some(supervisor), Some(limit)) = (&supervisor, watchdog_limit()) {
        executor.spawn(feed_watchdog(node.clone(), supervisor.clone(), limit)).detach();
    }
    // A stream of signals does not end; an error on it is as good a reason to stop as a signal. It waits in a task of
    // its own: polled with every turn of the executor, it would ask the kernel each time.
    let told = executor.spawn(async move {
        let _ = signals.next().await;
        signals
    });
    let mut signals = told.await;
    info!("stopping, a second signal ends the process at once");
    tell(supervisor.as_deref(), "STOPPING=1\nSTATUS=stopping");
    let again = async {
        let told_at = clock::monotonic_ms();
        while signals.next().await.is_some() {
            // Programs that stop a whole group of processes often signal each of them twice in one go.
            if clock::monotonic_ms() >= told_at + SAME_SIGNAL_MS {
                break;
            }
        }
        None
    };
    let stopped = smol::future::or(async { Some(node.shutdown().await) }, again).await;
    match stopped {
        Some(Ok(())) => {
            info!("stopped");
            Ok(super::DONE)
        }
        Some(Err(error)) => Err(error),
        None => {
            // Else the process would wait for the disk's threads.
            node.abandon();
            Ok(super::FAILED)
        }
    }
}

/// The service manager, where there is one that wants to be told.
fn supervisor() -> Option<Supervisor> {
    let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
    Supervisor::new(&address)
        .inspect_err(|error| {
            warn!("the service manager cannot be told anything NOTIFY_SOCKET={:?} cause={}", address, error)
        })
        .ok()
}

fn tell(supervisor: Option<&Supervisor>, state: &str) {
    if let Some(Err(error)) = supervisor.map(|supervisor| supervisor.say(state)) {
        warn!("the service manager was not told state={:?} cause={}", state, error);
    }
}

/// How long the service manager waits for a sign of life, where it waits for one of this process.
fn watchdog_limit() -> Option<Duration> {
    let ours = |pid: String| pid.parse() == Ok(std::process::id());
    if !env::var("WATCHDOG_PID").ok().is_none_or(ours) {
        return None;
    }
    let limit = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(limit)).filter(|limit| !limit.is_zero())
}

/// A sign of life four times within the limit, but only while storage and network move: a node that hangs is ended and
/// started anew.
async fn feed_watchdog(node: Node, supervisor: Rc<Supervisor>, limit: Duration) {
    loop {
        match node.check_progress(limit / 2).await {
            Ok(()) => tell(Some(&supervisor), "WATCHDOG=1"),
            Err(error) => critical!("the watchdog is not fed, the node stands still cause=\"{}\"", error.to_string()),
        }
        Timer::after(limit / 4).await;
    }
}
