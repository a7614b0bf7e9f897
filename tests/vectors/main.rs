//! What is on the wire and on disk, byte by byte: golden files, properties of the decoders, and `docs/wire-format.md`
//! against the code.
//!
//! Only the pure half is used: `cargo test --no-default-features --test vectors` runs all of it. No socket, no clock.
//! `CBDDC_BLESS=1` rewrites the golden files; without it a difference fails and says what it means.

mod disk;
mod document;
mod golden;
mod largest;
mod messages;
mod properties;
mod sample;
mod source;
mod tags;
