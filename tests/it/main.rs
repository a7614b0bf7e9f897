//! Whole processes from outside.

mod probe;
mod storage;
