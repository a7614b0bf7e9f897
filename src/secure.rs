//! Links that only members can open and nobody else can read: `Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s`.
//!
//! Bytes in, bytes out; no sockets, no clock, and randomness is passed in. Each phase is a type that the next one
//! consumes: [`Initiator`] or [`Responder`], then [`Session`], then its two halves.
//! Noise Protocol Framework, revision 34; the first message proves the cluster key before any costly answer (psk0),
//! both device keys travel encrypted (XX). A replayed first message costs one answer and ends at the third.

use crate::id::DeviceId;
use crate::limits::CLUSTER_KEYS_MAX;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, StatelessTransportState};

mod keys;
mod resolver;

pub use keys::{ClusterKey, DeviceKey};
use resolver::Resolver;

/// Fills a buffer from a cryptographic generator.
pub type Entropy<'a> = &'a mut dyn FnMut(&mut [u8]);

/// Bytes that sealing adds to each message.
pub const TAG_BYTES: usize = 16;
/// Bytes of the first message: an ephemeral key and a tag.
pub const FIRST_MESSAGE_BYTES: usize = 32 + TAG_BYTES;
/// Bytes of the reply: an ephemeral key, the sealed device key and a tag.
pub const REPLY_BYTES: usize = 32 + 32 + TAG_BYTES + TAG_BYTES;
/// Bytes of the third message: the sealed device key and a tag.
pub const THIRD_MESSAGE_BYTES: usize = 32 + TAG_BYTES + TAG_BYTES;

const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";
/// Name and version of what is spoken inside: another one never gets as far as a session.
const PROLOGUE: &[u8] = b"CBDDC link 1";

/// Why two sides do not get a session. Nothing of the attempt is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum HandshakeError {
    /// The other side does not have any of our cluster keys, or its first message was changed on the way.
    NotAMember,
    /// Not a handshake message at all: wrong length.
    Malformed,
    /// A later message that does not verify: changed, replayed, or from somebody else.
    Forged,
    /// More keys than [`CLUSTER_KEYS_MAX`], or none: the caller's mistake.
    Keys,
    /// The cryptography library refused: a mistake in this build.
    Internal,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandshakeError::NotAMember => "it has another cluster key; give both devices the same key file",
            HandshakeError::Malformed => "it does not speak this protocol",
            HandshakeError::Forged => "a handshake message does not verify",
            HandshakeError::Keys => "a node needs at least one cluster key and at most three",
            HandshakeError::Internal => "the handshake could not be set up",
        })
    }
}
impl core::error::Error for HandshakeError {}

/// The side that dials, waiting for the reply.
pub struct Initiator {
    state: HandshakeState,
}

impl Initiator {
    /// Starts a handshake and gives its first message.
    ///
    /// # Errors
    /// [`HandshakeError::Internal`].
    pub fn new(
        device_key: &DeviceKey,
        cluster_key: &ClusterKey,
        random: Entropy<'_>,
    ) -> Result<(Initiator, [u8; FIRST_MESSAGE_BYTES]), HandshakeError> {
        let mut state = handshake(Side::Initiator, device_key, cluster_key, draw(random))?;
        let mut message = [0; FIRST_MESSAGE_BYTES];
        write(&mut state, &mut message)?;
        Ok((Initiator { state }, message))
    }
    /// Takes the reply; gives the session and the third message, which must still be sent.
    ///
    /// # Errors
    /// [`HandshakeError`]; the attempt is over.
    pub fn finish(mut self, reply: &[u8]) -> Result<(Session, [u8; THIRD_MESSAGE_BYTES]), HandshakeError> {
        read(&mut self.state, reply, REPLY_BYTES)?;
        let mut message = [0; THIRD_MESSAGE_BYTES];
        write(&mut self.state, &mut message)?;
        Ok((Session::new(self.state, 0)?, message))
    }
}

/// The side that accepts, waiting for the third message.
pub struct Responder {
    state: HandshakeState,
    key_index: usize,
}

impl Responder {
    /// Tries a first message against each key; gives the reply to send.
    ///
    /// # Errors
    /// [`HandshakeError::NotAMember`] where no key fits.
    pub fn accept(
        device_key: &DeviceKey,
        keys: &[ClusterKey],
        first_message: &[u8],
        random: Entropy<'_>,
    ) -> Result<(Responder, [u8; REPLY_BYTES]), HandshakeError> {
        if keys.is_empty() || keys.len() > CLUSTER_KEYS_MAX {
            return Err(HandshakeError::Keys);
        }
        let ephemeral = draw(random);
        for (key_index, key) in keys.iter().enumerate() {
            let mut state = handshake(Side::Responder, device_key, key, ephemeral)?;
            match read(&mut state, first_message, FIRST_MESSAGE_BYTES) {
                Ok(()) => {
                    let mut reply = [0; REPLY_BYTES];
                    write(&mut state, &mut reply)?;
                    return Ok((Responder { state, key_index }, reply));
                }
                Err(HandshakeError::Forged) => {}
                Err(error) => return Err(error),
            }
        }
        Err(HandshakeError::NotAMember)
    }
    /// Takes the third message, which proves who the initiator is.
    ///
    /// # Errors
    /// [`HandshakeError`]; the attempt is over.
    pub fn finish(mut self, third_message: &[u8]) -> Result<Session, HandshakeError> {
        read(&mut self.state, third_message, THIRD_MESSAGE_BYTES)?;
        Session::new(self.state, self.key_index)
    }
}

/// A finished handshake: who the other side is, and both directions.
#[derive(Debug)]
pub struct Session {
    /// The other side, proved.
    pub peer: DeviceId,
    /// Which of the keys that were passed in both sides have.
    pub key_index: usize,
    /// What we send.
    pub sealer: Sealer,
    /// What we receive.
    pub opener: Opener,
}

impl Session {
    fn new(state: HandshakeState, key_index: usize) -> Result<Session, HandshakeError> {
        let remote = state.get_remote_static().and_then(|key| <[u8; 32]>::try_from(key).ok());
        let peer = DeviceId(remote.ok_or(HandshakeError::Internal)?);
        let state = Arc::new(state.into_stateless_transport_mode().map_err(|_| HandshakeError::Internal)?);
        let sealer = Sealer { state: state.clone(), nonce: Some(0) };
        Ok(Session { peer, key_index, sealer, opener: Opener { state, nonce: Some(0) } })
    }
}

/// Why a session cannot go on. It stays so: the half that said it says nothing else afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SessionError {
    /// The message does not verify: changed, replayed, left out, or out of order.
    Forged,
    /// 2^64 - 1 messages were sent, or an earlier one failed.
    Over,
    /// The buffer is too small, or the message too long: the caller's mistake.
    Buffer,
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SessionError::Forged => "a message does not verify: it was changed, replayed or left out on the way",
            SessionError::Over => "the session is over",
            SessionError::Buffer => "a message does not fit its buffer",
        })
    }
}
impl core::error::Error for SessionError {}

/// The sending half.
#[derive(Debug)]
pub struct Sealer {
    state: Arc<StatelessTransportState>,
    /// Of the next message; none when the session is over. Never used twice.
    nonce: Option<u64>,
}

impl Sealer {
    /// Encrypts one message into `out`, which has room for [`TAG_BYTES`] more, and says how many bytes that are.
    ///
    /// # Errors
    /// [`SessionError::Buffer`], [`SessionError::Over`].
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, SessionError> {
        let nonce = self.nonce.ok_or(SessionError::Over)?;
        let bytes = self.state.write_message(nonce, plain, out).map_err(|_| SessionError::Buffer)?;
        self.nonce = following(nonce);
        Ok(bytes)
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Opener {
    state: Arc<StatelessTransportState>,
    nonce: Option<u64>,
}

impl Opener {
    /// Decrypts the next message into `out` and says how many bytes it holds.
    ///
    /// # Errors
    /// [`SessionError::Forged`] for anything but exactly the next message; the half is closed by it.
    pub fn open(&mut self, message: &[u8], out: &mut [u8]) -> Result<usize, SessionError> {
        let nonce = self.nonce.take().ok_or(SessionError::Over)?;
        if message.len().saturating_sub(TAG_BYTES) > out.len() {
            self.nonce = Some(nonce);
            return Err(SessionError::Buffer);
        }
        let bytes = self.state.read_message(nonce, message, out).map_err(|_| SessionError::Forged)?;
        self.nonce = following(nonce);
        Ok(bytes)
    }
}

/// Noise keeps the last nonce for itself (section 5.1).
fn following(nonce: u64) -> Option<u64> {
    nonce.checked_add(1).filter(|next| *next != u64::MAX)
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Initiator,
    Responder,
}

fn handshake(
    side: Side,
    device_key: &DeviceKey,
    cluster_key: &ClusterKey,
    ephemeral: [u8; 32],
) -> Result<HandshakeState, HandshakeError> {
    let build = || {
        let params: NoiseParams = PATTERN.parse()?;
        let psk = cluster_key.psk();
        let builder = Builder::with_resolver(params, Box::new(Resolver { ephemeral }))
            .psk(0, &psk)?
            .local_private_key(&device_key.private)?
            .prologue(PROLOGUE)?;
        if side == Side::Initiator { builder.build_initiator() } else { builder.build_responder() }
    };
    build().map_err(|_: snow::Error| HandshakeError::Internal)
}

/// Handshake messages carry no payload: a buffer of the message's exact length is filled to its end.
fn write(state: &mut HandshakeState, message: &mut [u8]) -> Result<(), HandshakeError> {
    match state.write_message(&[], message) {
        Ok(bytes) if bytes == message.len() => Ok(()),
        _ => Err(HandshakeError::Internal),
    }
}

fn read(state: &mut HandshakeState, message: &[u8], expected_bytes: usize) -> Result<(), HandshakeError> {
    if message.len() != expected_bytes {
        return Err(HandshakeError::Malformed);
    }
    state.read_message(message, &mut []).map(drop).map_err(|_| HandshakeError::Forged)
}

fn draw(random: Entropy<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    random(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
