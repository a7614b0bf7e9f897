//! An established link: messages in, messages out. What they mean is decided elsewhere.
//!
//! The plain bytes of all Noise messages of one direction, one behind the other, are the frame stream of `wire`. Reader
//! and writer are owned separately, so that reading never waits for writing. For each link the reader holds one frame
//! and about 48 KiB, the writer one frame while it sends and about 64 KiB; both use their buffers again.

mod error;

pub use error::{Fault, LinkError, Phase};

use crate::id::DeviceId;
use crate::limits::{BATCH_BYTES_TARGET, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, NOISE_PLAIN_BYTES_MAX};
use crate::secure::{Opener, Sealer, Session, TAG_BYTES};
use crate::wire::{Decoder, Message};
use async_net::TcpStream;
use smol::Timer;
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::boxed::Box;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;
use std::vec;
use std::vec::Vec;

/// Bytes before each Noise message: its length.
const LENGTH_BYTES: usize = 2;
/// Longest Noise message on the stream, with its length.
const SEALED_BYTES_MAX: usize = LENGTH_BYTES + NOISE_PLAIN_BYTES_MAX + TAG_BYTES;
/// Noise messages that one system call writes: a whole batch of rows mostly goes out at once.
const SEALED_IN_ONE_WRITE: usize = 4;
/// A link keeps this much for encoding between messages; a longer message borrows and gives back.
const FRAME_BYTES_KEPT: usize = 2 * BATCH_BYTES_TARGET;

/// A link with a proved member of the cluster.
#[derive(Debug)]
pub struct Established {
    /// Who it is.
    pub device: DeviceId,
    /// Which of the cluster keys that were passed in both have.
    pub key_index: usize,
    /// Where it is.
    pub peer_addr: SocketAddr,
    /// The address of this node that the link uses.
    pub local_addr: SocketAddr,
    /// What comes in.
    pub reader: LinkReader,
    /// What goes out.
    pub writer: LinkWriter,
}

/// Puts a connection and the session that was agreed on it together.
pub(super) fn joined(
    stream: TcpStream,
    session: Session,
    bytes_in: u64,
    bytes_out: u64,
    stall: Duration,
) -> Result<Established, LinkError> {
    let failed = |source| LinkError::Io { doing: "set up", source };
    let (peer_addr, local_addr) = (stream.peer_addr().map_err(failed)?, stream.local_addr().map_err(failed)?);
    let reader = LinkReader {
        stream: stream.clone(),
        opener: session.opener,
        sealed: vec![0; 2 * SEALED_BYTES_MAX].into(),
        sealed_from: 0,
        sealed_to: 0,
        plain: vec![0; NOISE_PLAIN_BYTES_MAX].into(),
        plain_from: 0,
        plain_to: 0,
        decoder: Decoder::new(),
        bytes_in,
        skipped: 0,
    };
    let writer = LinkWriter {
        stream,
        sealer: session.sealer,
        frame: Vec::new(),
        sealed: vec![0; SEALED_IN_ONE_WRITE * SEALED_BYTES_MAX].into(),
        stall,
        unfinished: false,
        bytes_out,
    };
    Ok(Established { device: session.peer, key_index: session.key_index, peer_addr, local_addr, reader, writer })
}

/// The receiving half.
pub struct LinkReader {
    stream: TcpStream,
    opener: Opener,
    /// Bytes of the stream; those from `sealed_from` to `sealed_to` are not opened yet.
    sealed: Box<[u8]>,
    sealed_from: usize,
    sealed_to: usize,
    /// One opened Noise message; the bytes from `plain_from` to `plain_to` are not with the decoder yet.
    plain: Box<[u8]>,
    plain_from: usize,
    plain_to: usize,
    decoder: Decoder,
    bytes_in: u64,
    skipped: u64,
}

impl LinkReader {
    /// The next message of a kind that this build knows; others are skipped and counted.
    ///
    /// May be dropped while it waits: nothing that has arrived is lost.
    ///
    /// # Errors
    /// [`LinkError`]; the link cannot go on after it. [`LinkError::Closed`] where the peer closed it between messages.
    pub async fn next(&mut self) -> Result<Message, LinkError> {
        loop {
            if let Some((kind, payload)) = self.decoder.next_frame()? {
                match Message::decode(kind, payload)? {
                    Some(message) => return Ok(message),
                    None => self.skipped += 1,
                }
            } else if self.plain_from < self.plain_to {
                self.plain_from += self.decoder.push(&self.plain[self.plain_from..self.plain_to]);
            } else if !self.open_next()? {
                self.receive().await?;
            }
        }
    }
    /// Bytes received, handshake and overhead included.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }
    /// Frames of kinds that this build does not know.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Opens the next Noise message if it is here whole.
    fn open_next(&mut self) -> Result<bool, LinkError> {
        let waiting = &self.sealed[self.sealed_from..self.sealed_to];
        let Some((length, rest)) = waiting.split_at_checked(LENGTH_BYTES) else {
            return Ok(false);
        };
        let bytes = usize::from(u16::from_be_bytes([length[0], length[1]]));
        // An empty message is legal Noise, but nobody sends one: it would only make us work.
        if bytes <= TAG_BYTES || bytes > NOISE_PLAIN_BYTES_MAX + TAG_BYTES {
            return Err(LinkError::MessageLength { bytes });
        }
        let Some(message) = rest.get(..bytes) else {
            return Ok(false);
        };
        self.plain_to = self.opener.open(message, &mut self.plain)?;
        self.plain_from = 0;
        self.sealed_from += LENGTH_BYTES + bytes;
        Ok(true)
    }
    async fn receive(&mut self) -> Result<(), LinkError> {
        // A peer that always has more for us must not keep other tasks of this thread from running.
        future::yield_now().await;
        if self.sealed_from > 0 {
            self.sealed.copy_within(self.sealed_from..self.sealed_to, 0);
            self.sealed_to -= self.sealed_from;
            self.sealed_from = 0;
        }
        // There is room: at most one incomplete message is left, and two fit.
        let read = self.stream.read(&mut self.sealed[self.sealed_to..]).await;
        let read = read.map_err(|source| LinkError::Io { doing: "read", source })?;
        if read == 0 {
            let between = self.sealed_to == 0 && self.decoder.is_empty();
            return Err(if between { LinkError::Closed } else { LinkError::Cut });
        }
        self.sealed_to += read;
        self.bytes_in += read as u64;
        Ok(())
    }
}

impl std::fmt::Debug for LinkReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkReader").field("bytes_in", &self.bytes_in).finish_non_exhaustive()
    }
}

/// The sending half.
pub struct LinkWriter {
    stream: TcpStream,
    sealer: Sealer,
    frame: Vec<u8>,
    sealed: Box<[u8]>,
    stall: Duration,
    /// A message was begun and not ended: whatever came next on the stream would not be understood.
    unfinished: bool,
    bytes_out: u64,
}

impl LinkWriter {
    /// Sends one message and says how many bytes that took on the stream.
    ///
    /// The bytes are with the operating system then, and leave at once. Dropping it midway ends the link: the next call
    /// is [`LinkError::Abandoned`].
    ///
    /// # Errors
    /// [`LinkError::Slow`] where the peer takes nothing for too long, and others; the link cannot go on after it.
    pub async fn send(&mut self, message: &Message) -> Result<usize, LinkError> {
        if self.unfinished {
            return Err(LinkError::Abandoned);
        }
        self.frame.clear();
        let bytes = message.encode(&mut self.frame);
        if bytes > FRAME_HEADER_BYTES + FRAME_BYTES_MAX {
            return Err(LinkError::TooLong { bytes, name: message.name() });
        }
        self.unfinished = true;
        let before = self.bytes_out;
        for part in self.frame.chunks(SEALED_IN_ONE_WRITE * NOISE_PLAIN_BYTES_MAX) {
            let mut filled = 0;
            for plain in part.chunks(NOISE_PLAIN_BYTES_MAX) {
                let (length, rest) = self.sealed[filled..].split_at_mut(LENGTH_BYTES);
                let sealed = self.sealer.seal(plain, rest)?;
                // At most NOISE_PLAIN_BYTES_MAX + TAG_BYTES, which limits.rs asserts to fit.
                length.copy_from_slice(&(sealed as u16).to_be_bytes());
                filled += LENGTH_BYTES + sealed;
            }
            write_all(&mut self.stream, &self.sealed[..filled], self.stall).await?;
            self.bytes_out += filled as u64;
        }
        if self.frame.capacity() > FRAME_BYTES_KEPT {
            self.frame = Vec::new();
        }
        self.unfinished = false;
        Ok((self.bytes_out - before) as usize)
    }
    /// Bytes sent, handshake and overhead included.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out
    }
    /// Closes both directions: a reader that waits wakes up, and so does the peer's after what was sent.
    pub fn close(&self) {
        // A connection that is gone already cannot be closed, and need not be.
        self.stream.shutdown(Shutdown::Both).ok();
    }
}

impl std::fmt::Debug for LinkWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkWriter").field("bytes_out", &self.bytes_out).finish_non_exhaustive()
    }
}

async fn write_all(stream: &mut TcpStream, mut bytes: &[u8], stall: Duration) -> Result<(), LinkError> {
    while !bytes.is_empty() {
        let writing = async {
            match stream.write(bytes).await {
                Ok(0) => Err(LinkError::Cut),
                written => written.map_err(|source| LinkError::Io { doing: "write", source }),
            }
        };
        let stalled = async {
            Timer::after(stall).await;
            Err(LinkError::Slow { limit: stall })
        };
        let written = future::or(writing, stalled).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

#[cfg(test)]
mod tests;
