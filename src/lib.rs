//! CBDDC keeps a small JSON document database on every device of a LAN and keeps those databases the same, with no
//! server, no broker and no cloud.
//!
//! The house, in reading order. The first half is pure: no clock, no socket, no file, no `std`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(feature = "std", feature = "mutants", test))]
extern crate std;

// What everything is made of.
pub mod id;
pub mod limits;
pub mod row;
pub mod time;
pub mod wire;

// What is decided: the rules over rows, and the state machines over links.
#[doc(hidden)]
pub mod mutants;
pub mod proto;
pub mod replica;

// Parts that also stand by themselves.
pub mod cache;
pub mod queue;
pub mod retry;
pub mod secure;

// The other half touches the world. What callers say and hear:
#[cfg(feature = "std")]
pub mod document;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
pub mod report;

// what the node is told,
#[cfg(feature = "std")]
pub mod board;
#[cfg(feature = "std")]
pub mod config;

// clocks, log and key files,
#[cfg(feature = "std")]
mod clock;
#[cfg(feature = "std")]
mod key;
#[cfg(feature = "std")]
mod log;

// sockets,
#[cfg(feature = "std")]
pub mod net;

// the disk,
#[cfg(feature = "std")]
pub mod store;

// the parts put together,
#[cfg(feature = "std")]
mod node;

// and the command line, public for `main.rs` alone.
#[cfg(feature = "std")]
#[doc(hidden)]
pub mod cli;

#[cfg(feature = "std")]
pub use config::Config;
#[cfg(feature = "std")]
pub use error::{Cause, Error, PersistenceKind, RequestKind};
#[cfg(feature = "std")]
pub use node::{Collection, Node, Parts, SyncTracker};
#[cfg(feature = "std")]
pub use report::HealthCheck;
