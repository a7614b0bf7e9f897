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

#[cfg(feature = "std")]
pub mod document;
#[cfg(feature = "std")]
mod error;
#[cfg(feature = "std")]
pub mod net;

#[cfg(feature = "std")]
pub use error::{Cause, Error, PersistenceKind, RequestKind};
