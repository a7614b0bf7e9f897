//! The server over loopback, with a service in memory: every route, every error, and clients that mean no good.

pub(crate) mod bench;
mod bulk;
mod changes;
mod crowded;
mod documents;
mod guarded;
mod hostile;
pub(crate) mod memory;
mod waiting;
