//! Bytes to values and back: frames, messages, beacons. No sockets, no decisions.
//!
//! `docs/wire-format.md` draws what stands here; `tests/vectors` holds it byte for byte.

mod beacon;
mod frame;
mod message;
mod site;

pub use beacon::{Beacon, BeaconError, BeaconKey, ClusterTag, StateTag};
pub use frame::{Decoder, FrameError, encode_frame};
pub use message::{
    Bye, Changes, ClockSample, Closure, Confirm, Fetch, Fetched, Hello, MemberNote, Message, MessageError, Mode, Ping,
    Pong, Pull, RelayedConfirmation, StartToken,
};
pub use site::{Ask, MemberReport, Report};

/// The protocol version that this build speaks, and the oldest that it understands.
pub const PROTOCOL_VERSION: u16 = 1;
/// See [`PROTOCOL_VERSION`].
pub const PROTOCOL_VERSION_MIN: u16 = 1;
