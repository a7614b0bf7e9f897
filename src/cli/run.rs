//! `cbddc run`: configuration, log, and the node in the foreground.

use super::args::Options;
use crate::Error;
use crate::clock;
use crate::config::Config;
use crate::log::{self, critical, info, warn};
use crate::node::Node;
use async_signal::{Signal, Signals};
use smol::LocalExecutor;
use smol::stream::StreamExt;
use std::boxed::Box;
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
    // A stream of signals does not end; an error on it is as good a reason to stop as a signal. It waits in a task of
    // its own: polled with every turn of the executor, it would ask the kernel each time.
    let told = executor.spawn(async move {
        let _ = signals.next().await;
        signals
    });
    let mut signals = told.await;
    info!("stopping, a second signal ends the process at once");
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
