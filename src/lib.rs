//! CBDDC keeps a small JSON document database on every device of a LAN and keeps those databases the same, with no
//! server, no broker and no cloud.
//!
//! The house, in reading order. The upper half is pure: no clock, no socket, no file, no `std`.
#![no_std]

extern crate alloc;
#[cfg(any(feature = "std", feature = "mutants", test))]
extern crate std;

pub mod id;
pub mod limits;
pub mod row;
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
pub mod store;

#[cfg(feature = "std")]
pub use error::{Error, PersistenceKind, RequestKind};
