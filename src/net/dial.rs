//! From a TCP connection to a link: connect, handshake, each within its time. Who is dialled is decided elsewhere.
//!
//! On the stream each Noise message is its length (two bytes, big endian) and its bytes. A handshake message has one
//! legal length, so whoever speaks something else is refused after two bytes.

use super::link::{Established, LinkError, Phase, joined};
use crate::limits::CLUSTER_KEYS_MAX;
use crate::secure::{
    ClusterKey, DeviceKey, Entropy, FIRST_MESSAGE_BYTES, HandshakeError, Initiator, REPLY_BYTES, Responder,
    THIRD_MESSAGE_BYTES,
};
use async_net::TcpStream;
use smol::Timer;
use smol::future::{self, poll_fn};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::boxed::Box;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::string::String;
use std::task::Poll;
use std::time::Duration;
use std::vec::Vec;

/// Addresses of one peer that are tried at once.
pub const ADDRESSES_MAX: usize = 8;

/// How long a link waits in each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a name to resolve and for TCP to connect. 5 s: three SYNs (at 0, 1 and 3 s), so two lost ones are survived.
    pub connect: Duration,
    /// For the whole handshake. 5 s: two round trips and a few milliseconds of arithmetic even on an old ARM core, with
    /// room for one retransmission; a stranger who says nothing holds his place no longer.
    pub handshake: Duration,
    /// For a peer that reads to take any byte at all. 20 s: longer than one SD card stalls, shorter than anybody wants
    /// to hold half a megabyte for a peer that is gone.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { connect: Duration::from_secs(5), handshake: Duration::from_secs(5), stall: Duration::from_secs(20) }
    }
}

/// Resolves `host:port`, or takes an address as it is, to at most [`ADDRESSES_MAX`] addresses.
///
/// # Errors
/// [`LinkError::Unresolved`] and [`LinkError::Timeout`].
pub async fn resolve(peer: &str, patience: Patience) -> Result<Vec<SocketAddr>, LinkError> {
    let unresolved = |source| LinkError::Unresolved { peer: String::from(peer), source };
    let resolving = async { async_net::resolve(peer).await.map_err(unresolved) };
    let mut addresses = within(patience.connect, Phase::Resolve, resolving).await?;
    addresses.truncate(ADDRESSES_MAX);
    if addresses.is_empty() { Err(unresolved(io::ErrorKind::NotFound.into())) } else { Ok(addresses) }
}

/// Connects to all addresses of a peer at once and makes a link of the first that answers as a member.
///
/// The keys are tried in their order, each on a connection of its own, since a peer hangs up on a key that it does not
/// have: while a key is rotated, the one that this node prefers stands first.
///
/// # Errors
/// [`LinkError`] of the address that came furthest last.
pub async fn dial(
    addresses: &[SocketAddr],
    keys: &[ClusterKey],
    device_key: &DeviceKey,
    patience: Patience,
    random: Entropy<'_>,
) -> Result<Established, LinkError> {
    if keys.is_empty() || keys.len() > CLUSTER_KEYS_MAX {
        return Err(LinkError::Handshake(HandshakeError::Keys));
    }
    let mut connecting: Vec<_> = addresses
        .iter()
        .take(ADDRESSES_MAX)
        .map(|&address| Box::pin(async move { (address, connect(address, patience).await) }))
        .collect();
    let (mut unreached, mut refused) = (None, None);
    while !connecting.is_empty() {
        let (address, connected) = first_of(&mut connecting).await;
        match connected {
            Ok(stream) => match with_each_key(stream, address, keys, device_key, patience, random).await {
                Ok(established) => return Ok(established),
                Err(error) => refused = Some(error),
            },
            Err(error) => unreached = Some(error),
        }
    }
    Err(refused.or(unreached).unwrap_or(LinkError::NoAddress))
}

/// Makes a link of an accepted connection. The first message is tried against each key.
///
/// # Errors
/// [`LinkError`]; the connection is closed without a word, which tells a stranger nothing.
pub async fn accept(
    stream: TcpStream,
    keys: &[ClusterKey],
    device_key: &DeviceKey,
    patience: Patience,
    random: Entropy<'_>,
) -> Result<Established, LinkError> {
    within(patience.handshake, Phase::Handshake, async move {
        let mut wire = Wire::new(stream)?;
        let first: [u8; FIRST_MESSAGE_BYTES] = wire.read().await?;
        let (responder, reply) = Responder::accept(device_key, keys, &first, random)?;
        wire.write(&reply).await?;
        let third: [u8; THIRD_MESSAGE_BYTES] = wire.read().await?;
        joined(wire.stream, responder.finish(&third)?, wire.bytes_in, wire.bytes_out, patience.stall)
    })
    .await
}

async fn connect(address: SocketAddr, patience: Patience) -> Result<TcpStream, LinkError> {
    let connecting =
        async { TcpStream::connect(address).await.map_err(|source| LinkError::Unreachable { address, source }) };
    within(patience.connect, Phase::Connect, connecting).await
}

/// Waits for the first of some futures and takes it out of them, which must not be empty.
async fn first_of<F: Future + Unpin>(futures: &mut Vec<F>) -> F::Output {
    poll_fn(|context| {
        for at in 0..futures.len() {
            if let Poll::Ready(output) = std::pin::Pin::new(&mut futures[at]).poll(context) {
                drop(futures.swap_remove(at));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

async fn with_each_key(
    stream: TcpStream,
    address: SocketAddr,
    keys: &[ClusterKey],
    device_key: &DeviceKey,
    patience: Patience,
    random: Entropy<'_>,
) -> Result<Established, LinkError> {
    let (mut connected, mut refusal) = (Some(stream), LinkError::Refused);
    for (key_index, key) in keys.iter().enumerate() {
        let stream = match connected.take() {
            Some(stream) => stream,
            None => connect(address, patience).await?,
        };
        let offered = offer(stream, key, device_key, patience.stall, &mut *random);
        match within(patience.handshake, Phase::Handshake, offered).await {
            Ok(established) => return Ok(Established { key_index, ..established }),
            Err(LinkError::Refused) => refusal = LinkError::Refused,
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

async fn offer(
    stream: TcpStream,
    key: &ClusterKey,
    device_key: &DeviceKey,
    stall: Duration,
    random: Entropy<'_>,
) -> Result<Established, LinkError> {
    let mut wire = Wire::new(stream)?;
    let (initiator, first) = Initiator::new(device_key, key, random)?;
    wire.write(&first).await?;
    let reply: [u8; REPLY_BYTES] = match wire.read().await {
        Err(LinkError::Closed | LinkError::Io { .. }) => return Err(LinkError::Refused),
        reply => reply?,
    };
    let (session, third) = initiator.finish(&reply)?;
    wire.write(&third).await?;
    joined(wire.stream, session, wire.bytes_in, wire.bytes_out, stall)
}

/// A connection while it shakes hands.
struct Wire {
    stream: TcpStream,
    bytes_in: u64,
    bytes_out: u64,
}

impl Wire {
    fn new(stream: TcpStream) -> Result<Wire, LinkError> {
        // A confirmation must not wait for more bytes to share its packet.
        stream.set_nodelay(true).map_err(|source| LinkError::Io { doing: "set up", source })?;
        Ok(Wire { stream, bytes_in: 0, bytes_out: 0 })
    }
    async fn read<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], LinkError> {
        let mut length = [0; 2];
        let mut message = [0; BYTES];
        self.fill(&mut length).await?;
        if usize::from(u16::from_be_bytes(length)) != BYTES {
            return Err(LinkError::Handshake(HandshakeError::Malformed));
        }
        self.fill(&mut message).await?;
        Ok(message)
    }
    async fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), LinkError> {
        while !buffer.is_empty() {
            let read = self.stream.read(buffer).await.map_err(|source| LinkError::Io { doing: "read", source })?;
            if read == 0 {
                return Err(if self.bytes_in == 0 { LinkError::Closed } else { LinkError::Cut });
            }
            self.bytes_in += read as u64;
            buffer = &mut buffer[read..];
        }
        Ok(())
    }
    async fn write(&mut self, message: &[u8]) -> Result<(), LinkError> {
        let length = u16::try_from(message.len()).map_err(|_| LinkError::Handshake(HandshakeError::Internal))?;
        let framed = [&length.to_be_bytes()[..], message].concat();
        self.stream.write_all(&framed).await.map_err(|source| LinkError::Io { doing: "write", source })?;
        self.bytes_out += framed.len() as u64;
        Ok(())
    }
}

/// The future's answer, or a timeout if it takes longer.
async fn within<T>(
    limit: Duration,
    phase: Phase,
    future: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    future::or(future, async {
        Timer::after(limit).await;
        Err(LinkError::Timeout { phase, limit })
    })
    .await
}
