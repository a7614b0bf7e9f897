//! Why there is no link, or no more: what happened, and whose fault it is.

use crate::secure::{HandshakeError, SessionError};
use crate::wire::{FrameError, MessageError};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::string::String;
use std::time::Duration;

/// What a link was waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A name to resolve.
    Resolve,
    /// TCP to connect.
    Connect,
    /// The handshake to end.
    Handshake,
}

/// Whose fault it is; who misbehaves is backed off for longer than who is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The other side sent what no honest member sends.
    Peer,
    /// The way, or a peer that is away, stopping or overloaded.
    Network,
    /// This node.
    Own,
}

/// Why a link could not be made or cannot go on. It costs this link and nothing else.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkError {
    /// A name that does not resolve.
    Unresolved {
        /// The name.
        peer: String,
        /// The cause.
        source: io::Error,
    },
    /// There was no address to dial.
    NoAddress,
    /// TCP does not connect.
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// It took too long.
    Timeout {
        /// What.
        phase: Phase,
        /// How long it could take.
        limit: Duration,
    },
    /// The peer hung up on our first message.
    Refused,
    /// The handshake failed.
    Handshake(HandshakeError),
    /// The peer closed the link between two messages.
    Closed,
    /// The link ended within a message.
    Cut,
    /// The connection failed.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A Noise message does not verify, or the session is used up.
    Session(SessionError),
    /// A Noise message of a length that nobody sends.
    MessageLength {
        /// Bytes that it says.
        bytes: usize,
    },
    /// A frame that breaks the protocol.
    Frame(FrameError),
    /// A message that breaks the protocol.
    Message(MessageError),
    /// The peer takes nothing.
    Slow {
        /// How long it could take nothing.
        limit: Duration,
    },
    /// A message of ours that is longer than a frame may be; nothing of it was sent.
    TooLong {
        /// Bytes that it has.
        bytes: usize,
        /// Which message.
        name: &'static str,
    },
    /// An earlier message was not sent to its end.
    Abandoned,
}

impl LinkError {
    /// Whose fault it is, as far as this side can tell.
    pub fn fault(&self) -> Fault {
        match self {
            LinkError::Handshake(HandshakeError::Keys | HandshakeError::Internal)
            | LinkError::Session(SessionError::Over | SessionError::Buffer)
            | LinkError::TooLong { .. }
            | LinkError::NoAddress
            | LinkError::Abandoned => Fault::Own,
            LinkError::Handshake(_)
            | LinkError::Session(SessionError::Forged)
            | LinkError::Refused
            | LinkError::MessageLength { .. }
            | LinkError::Frame(_)
            | LinkError::Message(_)
            | LinkError::Timeout { phase: Phase::Handshake, .. } => Fault::Peer,
            LinkError::Unresolved { .. }
            | LinkError::Unreachable { .. }
            | LinkError::Timeout { .. }
            | LinkError::Closed
            | LinkError::Cut
            | LinkError::Io { .. }
            | LinkError::Slow { .. } => Fault::Network,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Unresolved { peer, .. } => {
                write!(f, "{peer} does not resolve; check the name in CBDDC.Cluster.Peers and the DNS server")
            }
            LinkError::NoAddress => f.write_str("no address to dial is known"),
            LinkError::Unreachable { address, source } if source.kind() == io::ErrorKind::ConnectionRefused => write!(
                f,
                "TCP port {} is refused at {}: no node listens there, or a firewall rejects it",
                address.port(),
                address.ip()
            ),
            LinkError::Unreachable { address, .. } => write!(f, "{address} cannot be reached"),
            LinkError::Timeout { phase: Phase::Connect, limit } => write!(
                f,
                "the TCP port is filtered: no answer within {} ms; a firewall drops it, or the machine is off",
                limit.as_millis()
            ),
            LinkError::Timeout { phase, limit } => {
                let what = match phase {
                    Phase::Resolve => "the name was not resolved",
                    Phase::Connect | Phase::Handshake => "the handshake did not end",
                };
                write!(f, "{what} within {} ms", limit.as_millis())
            }
            LinkError::Refused => f.write_str(
                "the peer hung up on the first message: it has another cluster key, or no free place; compare the key \
                 files with `cbddc key show`",
            ),
            LinkError::Handshake(error) => write!(f, "handshake: {error}"),
            LinkError::Closed => f.write_str("the peer closed the link"),
            LinkError::Cut => f.write_str("the link was cut within a message"),
            LinkError::Io { doing, .. } => write!(f, "the connection failed ({doing})"),
            LinkError::Session(error) => fmt::Display::fmt(error, f),
            LinkError::MessageLength { bytes } => {
                write!(f, "the peer broke the protocol: a sealed message of {bytes} bytes")
            }
            LinkError::Frame(error) => write!(f, "the peer broke the protocol: {error}"),
            LinkError::Message(error) => write!(f, "the peer broke the protocol: {error}"),
            LinkError::Slow { limit } => write!(f, "the peer took no byte for {} ms", limit.as_millis()),
            LinkError::TooLong { bytes, name } => {
                write!(f, "a {name} of {bytes} bytes is longer than a frame; nothing of it was sent")
            }
            LinkError::Abandoned => f.write_str("an earlier message was not sent to its end"),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LinkError::Unresolved { source, .. }
            | LinkError::Unreachable { source, .. }
            | LinkError::Io { source, .. } => Some(source),
            LinkError::Handshake(error) => Some(error),
            LinkError::Session(error) => Some(error),
            LinkError::Frame(error) => Some(error),
            LinkError::Message(error) => Some(error),
            _ => None,
        }
    }
}

impl From<HandshakeError> for LinkError {
    fn from(error: HandshakeError) -> Self {
        LinkError::Handshake(error)
    }
}
impl From<SessionError> for LinkError {
    fn from(error: SessionError) -> Self {
        LinkError::Session(error)
    }
}
impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> Self {
        LinkError::Frame(error)
    }
}
impl From<MessageError> for LinkError {
    fn from(error: MessageError) -> Self {
        LinkError::Message(error)
    }
}
