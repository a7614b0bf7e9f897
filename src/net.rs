//! The node's sockets: bytes in, bytes out. Nothing is decided here; whom to dial, whom to keep and what to say is
//! `proto`'s, and this room knows no document.
//!
//! - `listen`: TCP listeners, and who holds a port that is in use.
//! - `dial`: from a TCP connection to a [`link`], within time limits, as the side that dials or the one that accepts.
//! - [`link`]: messages over an established link, its two halves owned separately.
//! - `udp`: beacons out on every usable interface, beacons in.
//! - `interfaces`: which interfaces those are.
//! - `probe`: a connection of the node to itself.
//! - `supervisor`: messages to the service manager.
//! - `look`: who else is there, without joining them.
//! - `http`: the local API, over anything that answers its calls.
//!
//! Invariant: nothing in this room holds more memory for a peer than its constants say, and no bytes of a peer can make
//! it panic.

mod dial;
pub(crate) mod http;
mod interfaces;
pub mod link;
mod listen;
mod look;
mod port_holder;
mod probe;
mod supervisor;
mod udp;

pub use dial::{ADDRESSES_MAX, Patience, accept, dial, resolve};
pub use interfaces::{BroadcastInterface, broadcast_interfaces};
pub use link::{Established, Fault, LinkError, LinkReader, LinkWriter};
pub use listen::{Listener, PortSetting, listen};
pub(crate) use look::{Seen, look};
pub(crate) use port_holder::{PortHolder, Protocol, port_holder};
pub use probe::{Probe, ProbeError, probe};
pub use supervisor::Supervisor;
pub use udp::{BROADCAST_TARGETS_MAX, Beacons, SentBeacon};
