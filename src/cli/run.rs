//! `cbddc run`: configuration, log, and the node in the foreground.

use super::args::Options;
use crate::Error;
use crate::config::Config;
use crate::log::{self, info, warn};

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
    Err(Error::network("this build has no node to run", None))
}
