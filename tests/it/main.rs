//! Whole processes from outside.
#![allow(clippy::unwrap_used, reason = "a test stops at the first failure")]

mod probe;
mod storage;
