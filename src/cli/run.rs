//! `cbddc run`: configuration, log, and the node in the foreground; what the service manager is told of it.

use super::args::Options;
use super::service;
use crate::Error;
use crate::clock;
use crate::config::{Config, Reloaded};
use crate::log::{self, critical, error, info, warn};
use crate::node::Node;
use async_signal::{Signal, Signals};
use smol::LocalExecutor;
use smol::stream::StreamExt;
use std::boxed::Box;
use std::format;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::string::ToString;

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
    let ended = smol::block_on(executor.run(until_told(executor.clone(), config, options.config.clone())));
    log::finish();
    ended
}

async fn until_told(executor: Rc<LocalExecutor<'static>>, config: Config, named: Option<PathBuf>) -> Result<u8, Error> {
    let signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup]);
    let mut signals =
        signals.map_err(|cause| Error::network("signals cannot be received", Some(Box::from(cause) as _)))?;
    let before = Before { file: config.file.clone(), key_file: config.cluster.key_file.clone() };
    let node = match Node::start(executor.clone(), config).await {
        Ok(node) => node,
        Err(error) => {
            if !matches!(error, Error::Configuration { .. } | Error::Network { .. }) {
                critical!("the node cannot start: {}", error.to_string());
            }
            return Err(error);
        }
    };
    let supervisor = service::supervisor();
    service::tell(supervisor.as_deref(), &format!("READY=1\nSTATUS=serving as {}", node.node_id()));
    if let (Some(supervisor), Some(limit)) = (&supervisor, service::watchdog_limit()) {
        executor.spawn(service::feed_watchdog(node.clone(), supervisor.clone(), limit)).detach();
    }
    // A stream of signals does not end; an error on it is as good a reason to stop as a signal. It waits in a task of
    // its own: polled with every turn of the executor, it would ask the kernel each time.
    let running = node.clone();
    let told = executor.spawn(async move {
        while let Some(Ok(Signal::Hup)) = signals.next().await {
            reload(&running, named.as_deref(), &before);
        }
        signals
    });
    let mut signals = told.await;
    info!("stopping, a second signal ends the process at once");
    service::tell(supervisor.as_deref(), "STOPPING=1\nSTATUS=stopping");
    let again = async {
        let told_at = clock::monotonic_ms();
        while let Some(signal) = signals.next().await {
            if matches!(signal, Ok(Signal::Hup)) {
                continue;
            }
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

/// What the node was started with.
struct Before {
    file: Option<PathBuf>,
    key_file: PathBuf,
}

/// Reads the configuration again, as it was found at the start, and the node takes over what may change. What is wrong
/// changes nothing.
fn reload(node: &Node, named: Option<&Path>, before: &Before) {
    let taken_over = Config::load(named).and_then(|config| {
        if let Some(file) = before.file.as_ref().filter(|file| config.file.as_ref() != Some(*file)) {
            let gone = format!("{}: the file that this node was started with is gone", file.display());
            return Err(Error::configuration(gone));
        }
        // All that can be wrong comes before anything is changed.
        crate::key::load_cluster_key(&before.key_file)?;
        log::start(config.logging.level, config.logging.format, config.logging.path.as_deref())?;
        let reloaded = node.reload(&config)?;
        Ok((config, reloaded))
    });
    match taken_over {
        Ok((config, reloaded)) => {
            let Reloaded { changed, at_next_start, cluster_key } = reloaded;
            let what = if changed.is_empty() && !cluster_key { "nothing".to_string() } else { changed.join(",") };
            info!("configuration reloaded changed=\"{}\" new_cluster_key={}", what, cluster_key);
            config.warnings.iter().for_each(|warning| warn!("{}", warning));
            if !at_next_start.is_empty() {
                warn!("changed keys take effect at the next start keys=\"{}\"", at_next_start.join(","));
            }
        }
        Err(error) => {
            error!("the configuration is not reloaded, the one before stays in force: {}", super::one_line(&error));
        }
    }
}
