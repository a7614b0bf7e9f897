//! The real binary, on a real disk and a real network: what a person, a program or a stranger can see of it.
//!
//! - `process`: a node as a process of its own, in a folder of its own. `client`: HTTP to it, byte by byte.
//! - `program`: how a binary is started, also one for another machine.
//! - `lan`: nodes in network namespaces with a switch between them, and an ear on the switch.
//! - `group`: a control group that bounds a node's memory.
//! - `small_disk`: a file system that can be filled.
//! - `probe`: what the process asks of the kernel, in its order.
//!
//! No test knows the inside of the node; `speaker` alone uses the crate, to speak to a node as a peer does.
#![allow(clippy::unwrap_used, reason = "a test stops at the first failure")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the world of the node is made of real time")]
#![allow(unreachable_pub, reason = "this crate has no outside")]

mod client;
mod group;
mod lan;
mod probe;
mod process;
mod program;
mod small_disk;
mod speaker;

mod abuse;
mod alone;
mod backup;
mod bad_input;
mod cli;
mod collections;
mod crash;
mod damaged;
mod disk;
mod doctor;
mod durability;
mod edge;
mod feed;
mod languages;
mod logging;
mod members;
mod metrics;
mod openapi;
mod overview;
mod packages;
mod pair;
mod queue;
mod reload;
mod service;
mod site;
mod start;
mod stop;
mod storage;
mod versions;
mod waiting;
