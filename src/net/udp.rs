//! Beacons: datagrams out on every usable interface, datagrams in. What is in them is checked elsewhere.
//!
//! The port is not shared (`SO_REUSEADDR` is not set): a second node on it would take some of our datagrams in silence,
//! while an error at the start names the setting. Two nodes on one machine use two ports and explicit addresses.

use super::interfaces::broadcast_interfaces;
use super::listen::{PortSetting, binding_failed};
use crate::Error;
use crate::limits::BEACON_BYTES_MAX;
use async_net::UdpSocket;
use smol::Timer;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use std::vec::Vec;

/// Addresses that one beacon goes to at most: interfaces of a gateway, or what is configured in their place.
pub const BROADCAST_TARGETS_MAX: usize = 32;
/// A socket that fails does so again at once: the next read waits this long, so that the loop does not spin.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// What became of a beacon on one address.
#[derive(Debug)]
pub struct SentBeacon {
    /// Where it went.
    pub target: SocketAddr,
    /// Why it did not.
    pub result: io::Result<()>,
}

/// The socket of discovery.
#[derive(Debug)]
pub struct Beacons {
    socket: UdpSocket,
    port: u16,
    explicit: Option<Vec<SocketAddr>>,
    buffer: [u8; BEACON_BYTES_MAX],
    failed: bool,
}

impl Beacons {
    /// Opens the socket on all IPv4 addresses. `explicit` targets (`Network.BroadcastAddresses`) take the place of the
    /// interfaces' broadcast addresses; at most [`BROADCAST_TARGETS_MAX`] of them are used.
    ///
    /// # Errors
    /// [`Error::Network`], with the setting that changes the port and, where it can be found out, who holds it.
    pub async fn bind(port: u16, explicit: Option<Vec<SocketAddr>>) -> Result<Beacons, Error> {
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let failed = |source| binding_failed(address, PortSetting::Udp, source);
        let socket = UdpSocket::bind(address).await.map_err(failed)?;
        socket.set_broadcast(true).map_err(failed)?;
        let port = socket.local_addr().map_err(failed)?.port();
        Ok(Beacons { socket, port, explicit, buffer: [0; BEACON_BYTES_MAX], failed: false })
    }
    /// The port, also where any free one was asked for.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// The next datagram, cut to [`BEACON_BYTES_MAX`], and who sent it. May be dropped while it waits.
    ///
    /// # Errors
    /// An error of the socket is a value; the next call waits a moment and goes on.
    pub async fn recv(&mut self) -> io::Result<(&[u8], SocketAddr)> {
        if self.failed {
            Timer::after(PAUSE_AFTER_ERROR).await;
            self.failed = false;
        }
        // A flood of datagrams must not keep other tasks of this thread from running.
        smol::future::yield_now().await;
        match self.socket.recv_from(&mut self.buffer).await {
            Ok((bytes, from)) => Ok((&self.buffer[..bytes], from)),
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }
    /// Sends a datagram to every target; says for each what became of it. The interfaces are read anew.
    ///
    /// # Errors
    /// Where the operating system does not list the interfaces; nothing was sent then.
    pub async fn send(&self, datagram: &[u8]) -> io::Result<Vec<SentBeacon>> {
        let targets = self.targets()?;
        let mut sent = Vec::with_capacity(targets.len());
        for target in targets {
            let result = self.socket.send_to(datagram, target).await.map(drop);
            sent.push(SentBeacon { target, result });
        }
        Ok(sent)
    }
    /// A way to send from another task while this one receives.
    pub fn sender(&self) -> Beacons {
        let (socket, explicit) = (self.socket.clone(), self.explicit.clone());
        Beacons { socket, port: self.port, explicit, buffer: [0; BEACON_BYTES_MAX], failed: false }
    }
    fn targets(&self) -> io::Result<Vec<SocketAddr>> {
        let mut targets = match &self.explicit {
            Some(explicit) => explicit.clone(),
            None => broadcast_interfaces()?.iter().map(|one| SocketAddr::from((one.broadcast, self.port))).collect(),
        };
        targets.truncate(BROADCAST_TARGETS_MAX);
        Ok(targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::block_on;
    use std::format;
    use std::vec;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn a_datagram_goes_to_every_explicit_target_and_one_that_fails_does_not_stop_the_others() {
        block_on(async {
            let mut left = Beacons::bind(0, None).await.expect("a free port");
            let mut right = Beacons::bind(0, None).await.expect("a free port");
            let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 9));
            let targets = vec![v6, local(left.port()), local(right.port())];
            let sender = Beacons::bind(0, Some(targets)).await.expect("a free port");
            let sent = sender.sender().send(b"beacon").await.expect("explicit targets are not looked up");
            assert_eq!(sent.iter().map(|one| one.result.is_ok()).collect::<Vec<_>>(), [false, true, true]);
            for receiver in [&mut left, &mut right] {
                let (bytes, from) = receiver.recv().await.expect("a datagram");
                assert_eq!((bytes, from), (&b"beacon"[..], local(sender.port())));
            }
        });
    }

    #[test]
    fn a_datagram_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        block_on(async {
            let mut receiver = Beacons::bind(0, None).await.expect("a free port");
            let target = Some(vec![local(receiver.port())]);
            let sender = Beacons::bind(0, target).await.expect("a free port");
            sender.send(&[7; 9000]).await.expect("sent");
            sender.send(&[]).await.expect("sent");
            sender.send(&[8; 72]).await.expect("sent");
            assert_eq!(receiver.recv().await.expect("a datagram").0, [7; BEACON_BYTES_MAX]);
            assert_eq!(receiver.recv().await.expect("a datagram").0, [0u8; 0]);
            assert_eq!(receiver.recv().await.expect("a datagram").0, [8; 72]);
        });
    }

    #[test]
    fn a_port_in_use_is_told_with_the_setting_that_changes_it_and_who_holds_it() {
        block_on(async {
            let first = Beacons::bind(0, None).await.expect("a free port");
            let error = Beacons::bind(first.port(), None).await.expect_err("in use");
            let text = format!("{error}");
            assert!(text.contains("CBDDC.Network.UdpPort") && text.contains(&format!("{}", first.port())), "{text}");
            assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        });
    }
}
