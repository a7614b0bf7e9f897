//! What happened, told to the log and to the sync tracker.

use super::shell::Shell;
use crate::config::default_node_id;
use crate::log::{critical, debug, error, info, warn};
use crate::net::{Fault, LinkError};
use crate::proto::{Event, Input, LinkId, Refusal, Target};
use crate::secure::DeviceKey;
use crate::time::Millis;
use crate::wire::{BeaconError, Bye};
use std::format;
use std::net::SocketAddr;
use std::rc::Rc;
use std::string::{String, ToString};

/// What whoever forgot the key needs to read.
pub(super) const OTHER_KEY: &str =
    "if it belongs to this site, give both the same key: 'cbddc key show' on one, 'cbddc key set -' on the other";

impl Shell {
    pub(super) fn happened(self: &Rc<Self>, event: Event) {
        match event {
            Event::Discovered { address, replica } => {
                info!("peer discovered address={} replica={}", address, replica.to_string());
            }
            Event::Linked { node_id, device, address } => {
                info!("peer linked node={} device={} address={}", node_id.as_str(), device.to_string(), address);
            }
            Event::Unlinked { node_id, reason } => {
                let node = node_id.map_or_else(|| "unknown".to_string(), |node| node.to_string());
                let reason = reason.map_or_else(|| "the connection ended".to_string(), |reason| reason.reason());
                info!("peer unlinked node={} reason=\"{}\"", node, reason);
            }
            Event::DialFailed { attempt, again_ms, .. } => self.dial_failed(attempt, again_ms),
            Event::Stranger { address, reason } => {
                let next = match reason {
                    BeaconError::OtherCluster => OTHER_KEY,
                    BeaconError::Foreign | BeaconError::Forged => "it is ignored",
                };
                warn!("beacon of a stranger address={} reason=\"{}\", {}", address, reason.to_string(), next);
            }
            Event::CaughtUp { node_id } => debug!("sync caught up node={}", node_id.as_str()),
            Event::InSync { node_id } => {
                let now = self.engine.borrow().reading(self.now()).millis;
                self.tracker.borrow_mut().in_sync(now);
                debug!("sync equal digests node={}", node_id.as_str());
            }
            Event::DigestsDiffer { node_id } => {
                error!("sync digests differ, both nodes are compared row by row now node={}", node_id.as_str());
                self.note("digests differ at equal vectors", Some(node_id.as_str()), "SYNC_ERROR");
            }
            Event::BootstrapStarted { node_id } => {
                warn!("bootstrap, this node was away for too long and takes the whole state from={}", node_id.as_str());
            }
            Event::BootstrapDone { done } => {
                warn!(
                    "bootstrap done deleted_again={} written_again={} recovered={}",
                    done.deleted_again, done.written_again, done.recovered
                );
            }
            Event::Forked { replica } => {
                error!(
                    "this disk was rolled back or cloned, the database has a new identity replica={}",
                    replica.to_string()
                );
                self.note("the disk was rolled back or cloned", None, "SYNC_ERROR");
            }
            Event::PeerForked { node_id } => {
                warn!("the peer's disk was rolled back or cloned, it takes a new identity node={}", node_id.as_str());
            }
            Event::DeviceCloned => self.take_new_device_key(),
            Event::Refused(refusal) => {
                let (said, name) = (self.said_of_refused(&refusal), name_of(&refusal));
                warn!(
                    "link refused node={} address={} device={}, {}",
                    name,
                    refusal.address,
                    refusal.device.to_string(),
                    said
                );
                self.note(&said, Some(&name), "SYNC_ERROR");
            }
            Event::RefusedBy(refusal) => {
                let (said, name) = (self.said_of_refusing(&refusal), name_of(&refusal));
                warn!("this node is refused by={} address={}, {}", name, refusal.address, said);
                self.note(&said, Some(&name), "SYNC_ERROR");
            }
            Event::Mended { keys } => {
                self.damage.mended_keys(&keys);
                info!("event=RowsMended rows={} from=peer", keys.len());
            }
            Event::ApplyFailed { node_id } => {
                let cause = self.fault.borrow_mut().take().map_or_else(String::new, |fault| fault.to_string());
                error!("sync failed, the store did not take a batch node={} cause=\"{}\"", node_id.as_str(), cause);
                self.note(&cause, Some(node_id.as_str()), "PERSISTENCE_ERROR");
            }
        }
    }

    /// Two cards were cloned while one ran: this device takes a key of its own.
    fn take_new_device_key(self: &Rc<Self>) {
        match crate::key::replace_device_key(&self.config.device_key_file()) {
            Ok(bytes) => {
                let key = DeviceKey::from_private(bytes);
                let device = key.device_id();
                self.identity.device.set(device);
                *self.identity.device_key.borrow_mut() = key;
                // A name that nobody configured is made of the key: the old one stays with whoever keeps the old key.
                let configured = self.config.cluster.node_id.clone();
                let node_id = configured.or_else(|| default_node_id(&device)).unwrap_or_else(|| self.node_id());
                self.identity.node_id.replace(node_id.clone());
                error!(
                    "another device has this device's key, this one has a new one device={} node={}",
                    device.to_string(),
                    node_id.as_str()
                );
                self.note("another device had this device's key, this one took a new one", None, "SYNC_ERROR");
                self.feed(Input::NewDevice { device, node_id });
            }
            Err(cause) => critical!("another device has this device's key and no new one can be written: {}", cause),
        }
    }

    pub(super) fn stranger_refused(&self, address: SocketAddr, error: &LinkError) {
        self.links.refused.set(self.links.refused.get() + 1);
        let (now, from) = (self.now().mono, address.ip().to_string());
        let mut tracker = self.tracker.borrow_mut();
        // Whoever sends garbage is refused for another reason each time: only the first is worth a warning.
        let known = tracker.failures(now).any(|(address, _)| address == from);
        tracker.failed(now, &from, &error.to_string());
        if !known {
            warn!("link refused address={} reason=\"{}\"", address, error.to_string());
        } else {
            debug!("link refused address={} reason=\"{}\"", address, error.to_string());
        }
    }

    /// Why the dial that the engine is about to hear of has failed.
    pub(super) fn dial_went_wrong(&self, peer: String, error: &LinkError) {
        let reason = match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
        self.tracker.borrow_mut().failed(self.now().mono, &peer, &reason);
        self.dial_error.replace(Some((peer, reason)));
    }

    /// An attempt at a peer has failed. Whoever is away is dialled for ever: the error is kept once the attempts of a burst are
    /// used up, and what else went wrong stays in sight.
    fn dial_failed(&self, attempt: u32, again_ms: Millis) {
        let Some((peer, reason)) = self.dial_error.borrow_mut().take() else { return };
        let attempts = self.config.network.retry_attempts;
        if attempt < attempts {
            warn!(
                "dial failed, it is tried again peer={} attempt={} attempts={} delay_ms={} reason=\"{}\"",
                peer, attempt, attempts, again_ms, reason
            );
        } else if self.tracker.borrow_mut().is_to_be_recorded(&peer) {
            warn!("dial failed, it goes on in the background peer={} attempts={} reason=\"{}\"", peer, attempt, reason);
            self.note(&reason, Some(&peer), "NETWORK_ERROR");
        } else {
            debug!("dial failed peer={} attempts={} delay_ms={} reason=\"{}\"", peer, attempt, again_ms, reason);
        }
    }

    pub(super) fn link_failed(&self, link: LinkId, address: SocketAddr, error: &LinkError) {
        match error {
            LinkError::Closed | LinkError::Cut => debug!("link ended link={} address={}", link.0, address),
            _ if error.fault() == Fault::Peer => {
                warn!("link broken by the peer address={} reason=\"{}\"", address, error.to_string());
                self.note(&error.to_string(), Some(&address.to_string()), "NETWORK_ERROR");
            }
            _ => debug!("link broken address={} reason=\"{}\"", address, error.to_string()),
        }
    }

    fn note(&self, message: &str, peer: Option<&str>, code: &str) {
        self.tracker.borrow_mut().record_error(message, peer, code);
    }

    /// Why a device was refused, and what to do.
    pub(super) fn said_of_refused(&self, refusal: &Refusal) -> String {
        let name = name_of(refusal);
        match refusal.reason {
            Bye::NameTaken if name == self.node_id().as_str() => {
                format!("{name} is this node's own name: give the other device a name of its own")
            }
            Bye::NameTaken => format!(
                "the name {name} belongs to another device key: if this is its new board, run 'cbddc peers replace {name}' \
                 on any member; else give it a name of its own"
            ),
            Bye::NotAMember => format!("the device was revoked, or its name {name} was given to another"),
            _ => refusal.reason.reason(),
        }
    }

    /// Why a peer has refused this node, and what to do.
    pub(super) fn said_of_refusing(&self, refusal: &Refusal) -> String {
        let own = self.node_id();
        match refusal.reason {
            Bye::NameTaken => format!(
                "the name {own} belongs to another device key: if this is its new board, run 'cbddc peers replace {own}' on \
                 any other member; else give this node a name of its own"
            ),
            Bye::NotAMember => {
                format!(
                    "this device was revoked, or its name {own} was given to another: give it a new device key and name"
                )
            }
            _ => refusal.reason.reason(),
        }
    }

    /// A target as people know it: what is configured, or the address that was heard.
    pub(super) fn target(&self, target: Target, addresses: &[SocketAddr]) -> String {
        match target {
            Target::Fixed(number) => self.fixed.borrow().named(number).cloned().unwrap_or_default(),
            Target::Heard(_) => addresses.first().map_or_else(String::new, ToString::to_string),
        }
    }
}

/// The name that a refused device goes by.
fn name_of(refusal: &Refusal) -> String {
    refusal.node_id.as_ref().map_or_else(|| refusal.address.to_string(), ToString::to_string)
}
