//! The HTTP API: a bounded HTTP/1.1 server on one thread, over anything that implements [`Service`].
//!
//! It knows no node, no store and no peer. It turns bytes into calls and results into bytes, and it bounds what a
//! client can cost: connections, header bytes, body bytes in memory, and time at every step. A slow or hostile client
//! costs its own connection.
//!
//! A route to come has its place: an arm of [`route::Route`] and of [`handle`].

mod answer;
mod body;
mod budget;
mod bulk;
mod changes;
mod confirmed;
mod connection;
mod crowd;
mod documents;
mod guard;
mod handle;
mod lines;
mod listen;
mod problem;
mod recovered;
mod route;
mod serve;
mod service;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use budget::Bodies;
pub(crate) use listen::Listener;
pub(crate) use serve::{Counters, serve};
pub(crate) use service::Service;

use std::rc::Rc;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

/// Which routes a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// All of them.
    Full,
    /// `/health`, `/livez`, `/readyz` (and `/metrics`), with counts and no names unless the token is given.
    HealthOnly,
}

/// How a listener behaves. Each listener has its own; bounds are per listener, but for the memory of bodies.
#[derive(Debug, Clone)]
pub(crate) struct HttpOptions {
    /// Which routes.
    pub surface: Surface,
    /// With one, each `/v1` request carries it as `Authorization: Bearer …`.
    pub token: Option<String>,
    /// Names besides IP addresses and `localhost` that `Host` may hold, without port.
    pub host_names: Vec<String>,
    /// Connections open at once; a few more are served for monitoring alone.
    pub connections_max: usize,
    /// Bytes of request line and headers.
    pub header_bytes_max: usize,
    /// Bytes of bodies in memory at once, over all connections, requests and answers together. Listeners of one node share
    /// them.
    pub bodies: Bodies,
    /// Readers of the change feed at once, those who wait and those whose stream is open.
    pub feeds_max: usize,
    /// Requests that wait for peers at once: for confirmations, or until the node is in step.
    pub awaiting_max: usize,
    /// An open stream says something at least so often.
    pub feed_keep_alive: Duration,
    /// For a request's headers to arrive, counted from the end of the answer before: idle time of a kept connection too.
    pub header_timeout: Duration,
    /// A connection that has sent nothing whole for this long is idle. While others wait for a place or for memory, who
    /// moves less than 32 KiB of a body or an answer in so long loses its connection.
    pub grace: Duration,
    /// For each 32 KiB of a body to arrive, or of an answer to be taken.
    pub transfer_timeout: Duration,
    /// For the service to do one thing.
    pub request_timeout: Duration,
    /// For a backup or a check.
    pub job_timeout: Duration,
    /// For requests under way to end at shutdown.
    pub shutdown_timeout: Duration,
    /// What happened, for status and metrics.
    pub counters: Rc<Counters>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        HttpOptions {
            surface: Surface::Full,
            token: None,
            host_names: Vec::new(),
            connections_max: 64,
            header_bytes_max: 32 * 1024,
            bodies: Bodies::new(8 * 1024 * 1024),
            feeds_max: 16,
            awaiting_max: 32,
            feed_keep_alive: Duration::from_secs(15),
            header_timeout: Duration::from_secs(15),
            grace: Duration::from_secs(1),
            transfer_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(30),
            job_timeout: Duration::from_secs(3600),
            shutdown_timeout: Duration::from_secs(3),
            counters: Rc::default(),
        }
    }
}
