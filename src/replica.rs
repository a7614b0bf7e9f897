//! The rules of replication over one table of rows: what a write, a batch, a bootstrap, a fork and time do to it.
//!
//! Everything here happens inside one storage transaction and is the same code in SQLite and in the simulation; the
//! only thing that differs is who implements [`Table`]. No clock, no disk, no link. `docs/replication.md` gives each
//! rule its reason.
//!
//! Invariant: the vector's sentence. *For every dot that the version vector covers, the row of that key is that dot or
//! a later winner, or a tombstone at or above it was rightly dropped.* Nothing here may weaken it.

mod apply;
mod bootstrap;
mod carry;
mod feed;
mod fork;
mod knowledge;
mod maintain;
mod read;
mod recovered;
mod repair;
mod request;
mod table;
mod write;

pub use apply::{Applied, Incoming};
pub use bootstrap::{Bootstrapped, Newcomer, Origin, newcomer};
pub use feed::{Bookmark, Feed, FeedPage, Since, Stale};
pub use fork::{history_verdict, shared_until};
pub(crate) use knowledge::meet;
pub use knowledge::{Knowledge, MemberState, Members};
pub use maintain::{Maintained, Retention};
pub use read::{Batch, Stream};
pub use recovered::{Choice, Decided, Decision, Waiting};
pub use repair::{Damaged, Found, Offer, Repaired, look};
pub use request::{Meeting, Reply, Request, Said, execute, read};
pub use table::{Area, Aside, Table, Want};
pub use write::{Precondition, Refused, Write, Written};
