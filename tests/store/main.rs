//! The store from outside: real files, real SQLite, its own threads.
#![allow(clippy::unwrap_used, reason = "a test stops at the first failure")]

mod backup;
mod damage;
mod feed;
mod flips;
mod model;
mod place;
mod recover;
mod recovered;
mod rules;
mod serving;
mod year;
