//! Commands that talk to a running node over its HTTP API.

use super::args::{ClientCommand, Options};
use super::target::Target;
use crate::Error;
use std::format;

/// Does one command; answers the exit code.
pub(super) fn run(command: ClientCommand, options: &Options) -> Result<u8, Error> {
    let target = Target::of(options)?;
    Err(Error::network(format!("{command:?}: this build cannot talk to {:?}", target.address), None))
}
