//! Power cuts, disk errors and full disks below the real store: a disk that forgets what was not synced, and what must
//! be there after it. CONTRIBUTING.md has the commands.
//!
//! `media` is the disk, `bed` counts its calls and fails them, `vfs` shows it to SQLite. `run` draws two nodes and what
//! happens to them from a seed, `errors`, `recovery` and `space` go through calls and bytes one by one; `ledger` knows what was promised.
#![allow(clippy::unwrap_used, reason = "a test stops at the first failure")]
#![allow(clippy::disallowed_methods, reason = "the search measures its own time; nodes get what the seed says")]

mod backups;
mod bed;
mod errors;
mod ledger;
mod locks;
mod media;
#[cfg(feature = "mutants")]
mod mutants;
mod node;
mod own;
mod recovery;
mod run;
mod search;
mod space;
mod stories;
mod vfs;
