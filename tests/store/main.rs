//! The store from outside: real files, real SQLite, its own threads.
#![allow(clippy::unwrap_used, reason = "a test stops at the first failure")]
#![allow(clippy::disallowed_methods, reason = "deadlines of the tests themselves; stores get virtual time")]
#![allow(clippy::type_complexity, reason = "what a helper gives back is taken apart at once")]

mod astray;
mod backup;
mod care;
mod check;
mod damage;
mod feed;
mod flips;
mod full;
mod golden;
mod lost;
mod migration;
mod model;
mod place;
mod recover;
mod recovered;
mod restore;
mod rules;
mod serving;
mod still;
mod year;
