//! The state machines: discovery, links, sync, members, clock.
//!
//! One input, then drain the outputs, then the next input. [`Engine`] is a value; time and randomness are passed in,
//! and storage is a peer like any other: what is durable is known when [`Input::Stored`] says so, never before.
//!
//! Invariant: no socket, no file, no clock. Invariant: nothing is answered or confirmed before its `Stored`.

mod clock;
mod discovery;
mod engine;
mod hello;
mod io;
mod links;
mod members;
mod receiving;
mod refusals;
mod repair;
mod sending;
mod session;
mod site;
mod slots;
mod storage;
mod sync;
#[cfg(test)]
mod tests;
mod turns;
mod upkeep;
mod view;

pub use clock::Clock;
pub use engine::{Engine, Undrained};
pub use io::{Client, Counters, DialFailure, Event, Input, LinkId, Now, Output, Settings, StoreFault, Target, Ticket};
pub use links::LinkState;
pub use members::{MemberRecord, Standing};
pub use refusals::Refusal;
pub use site::SiteView;
pub use view::PeerView;
