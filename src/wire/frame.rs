//! Frames: how messages lie one behind the other in a link's stream of bytes.
//!
//! `length: u32 little endian, kind: u8, payload: length bytes`. A frame of a kind that this build does not know is
//! skipped by its length; one that is longer than the protocol allows is an error that costs the peer its link.

use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Why a stream of frames cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FrameError {
    /// The header says more bytes than any message may have.
    TooLong {
        /// Bytes that it says.
        bytes: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrameError::TooLong { bytes } = self;
        write!(f, "a frame of {bytes} bytes is longer than the {FRAME_BYTES_MAX} that the protocol allows")
    }
}
impl core::error::Error for FrameError {}

/// Appends one frame whose payload `write` appends. Gives back how many bytes that were in all.
pub fn encode_frame(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    write(out);
    let payload = out.len() - start - FRAME_HEADER_BYTES;
    debug_assert!(payload <= FRAME_BYTES_MAX, "a message longer than a frame");
    out[start..start + 4].copy_from_slice(&(payload as u32).to_le_bytes());
    out.len() - start
}

/// Takes bytes as they come and gives frames as they are complete, in a buffer that never grows past one frame.
pub struct Decoder {
    buffer: Box<[u8]>,
    filled: usize,
    consumed: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new()
    }
}

impl Decoder {
    /// A decoder with room for the longest frame.
    pub fn new() -> Decoder {
        Decoder { buffer: alloc::vec![0; FRAME_HEADER_BYTES + FRAME_BYTES_MAX].into(), filled: 0, consumed: 0 }
    }
    /// Takes as many of `bytes` as there is room for and says how many. Never 0 while no frame is complete.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        if self.filled + bytes.len() > self.buffer.len() && self.consumed > 0 {
            self.buffer.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
        }
        let taken = bytes.len().min(self.buffer.len() - self.filled);
        self.buffer[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
        self.filled += taken;
        taken
    }
    /// Whether no byte waits: the stream stands between two frames.
    pub fn is_empty(&self) -> bool {
        self.filled == self.consumed
    }
    /// The next complete frame, its kind and payload; `None` until more bytes come.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]; the stream cannot go on after it.
    pub fn next_frame(&mut self) -> Result<Option<(u8, &[u8])>, FrameError> {
        let pending = &self.buffer[self.consumed..self.filled];
        let Some((header, rest)) = pending.split_at_checked(FRAME_HEADER_BYTES) else {
            return Ok(None);
        };
        let bytes = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if bytes > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong { bytes });
        }
        if rest.len() < bytes {
            return Ok(None);
        }
        let kind = header[4];
        let start = self.consumed + FRAME_HEADER_BYTES;
        self.consumed = start + bytes;
        if self.consumed == self.filled {
            // Everything is read: the next push starts at the front without moving bytes.
            (self.consumed, self.filled) = (0, 0);
        }
        Ok(Some((kind, &self.buffer[start..start + bytes])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let mut stream = Vec::new();
        for (kind, bytes) in [(1u8, 0usize), (9, 1), (3, 70_000), (200, 5)] {
            encode_frame(&mut stream, kind, |out| out.resize(out.len() + bytes, kind));
        }
        for chunk in [1, 2, 3, 7, 4096, 100_000] {
            let (mut decoder, mut seen) = (Decoder::new(), Vec::new());
            for mut piece in stream.chunks(chunk) {
                while !piece.is_empty() {
                    piece = &piece[decoder.push(piece)..];
                    while let Some((kind, payload)) = decoder.next_frame().expect("legal") {
                        assert!(payload.iter().all(|byte| *byte == kind));
                        seen.push((kind, payload.len()));
                    }
                }
            }
            assert_eq!(seen, [(1, 0), (9, 1), (3, 70_000), (200, 5)], "in pieces of {chunk}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_an_error_before_its_bytes_come() {
        let mut decoder = Decoder::new();
        decoder.push(&[0xff, 0xff, 0xff, 0x7f, 1]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong { bytes: 0x7fff_ffff }));
    }
}
