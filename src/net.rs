//! Sockets: bytes in, bytes out, no decisions.

// Until the node wires them, only tests call the parts.
#[cfg_attr(not(test), allow(dead_code, unused_imports))]
pub(crate) mod http;
