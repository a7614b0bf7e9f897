//! CBDDC keeps a small JSON document database on every device of a LAN and keeps those databases the same, with no
//! server, no broker and no cloud.
//!
//! The house, in reading order. The upper half is pure: no clock, no socket, no file, no `std`.
#![no_std]

extern crate alloc;
#[cfg(any(feature = "std", feature = "mutants", test))]
extern crate std;

pub mod cache;
pub mod id;
pub mod limits;
pub mod queue;
pub mod retry;
pub mod row;
pub mod secure;
pub mod time;
pub mod wire;

#[doc(hidden)]
pub mod mutants;
pub mod replica;

#[cfg(feature = "std")]
pub mod document;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
pub mod net;
#[cfg(feature = "std")]
pub mod report;

// What the node is told: the machine that it runs on, and the file that its owner wrote.
#[cfg(feature = "std")]
pub mod board;
#[cfg(feature = "std")]
pub mod config;

// Where the shell touches the system: the clocks, the log, the key files.
#[cfg(feature = "std")]
mod clock;
#[cfg(feature = "std")]
mod key;
#[cfg(feature = "std")]
mod log;

// The command line; public for `main.rs` alone.
#[cfg(feature = "std")]
#[doc(hidden)]
pub mod cli;

#[cfg(feature = "std")]
pub use config::Config;

#[cfg(feature = "std")]
pub use error::{Cause, Error, PersistenceKind, RequestKind};
