//! The habits of the house, proved instead of reviewed: what may be named where, how files look, and documents against
//! the code. Reads the repository's text and nothing else; knows rustfmt's layout, not Rust.
//!
//! A rule that does not fit is changed here, in data, with its reason: the lists stand at the top of each file.

mod documents;
mod files;
mod operations;
mod repository;
mod targets;
mod walls;
