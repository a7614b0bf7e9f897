//! Listening for TCP connections. Who is let in is decided elsewhere.

use super::port_holder::{Protocol, port_holder};
use crate::{Cause, Error};
use async_net::{TcpListener, TcpStream};
use smol::Timer;
use std::boxed::Box;
use std::format;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::string::String;
use std::time::Duration;

/// Out of file descriptors, `accept` fails again at once: the next call waits this long, so that the loop does not
/// spin, and links that end meanwhile give theirs back.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(500);

/// Connections accepted before others of this thread have their turn.
const ACCEPTED_IN_A_TURN: u8 = 32;

/// The configuration key that changes a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortSetting {
    /// Links.
    Tcp,
    /// Beacons.
    Udp,
    /// The HTTP API.
    Http,
    /// The health address.
    Health,
}

impl PortSetting {
    /// The key as it is written.
    pub const fn key(self) -> &'static str {
        match self {
            PortSetting::Tcp => "CBDDC.Network.TcpPort",
            PortSetting::Udp => "CBDDC.Network.UdpPort",
            PortSetting::Http => "CBDDC.Api.HttpAddress",
            PortSetting::Health => "CBDDC.Api.HealthAddress",
        }
    }
    /// The key that changes the address beside the port.
    const fn address_key(self) -> &'static str {
        match self {
            PortSetting::Tcp | PortSetting::Udp => "CBDDC.Network.ListenAddress",
            PortSetting::Http | PortSetting::Health => self.key(),
        }
    }
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            PortSetting::Udp => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }
}

/// A listener whose errors are values.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    failed: bool,
    in_turn: u8,
}

/// Listens on an address; port 0 is any free one.
///
/// # Errors
/// [`Error::Network`], with the setting to change and, where it can be found out, who holds the port.
pub async fn listen(address: IpAddr, port: u16, setting: PortSetting) -> Result<Listener, Error> {
    let address = SocketAddr::from((address, port));
    let failed = |source| binding_failed(address, setting, source);
    let socket = TcpListener::bind(address).await.map_err(failed)?;
    lengthen_queue(&socket).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    Ok(Listener { socket, address, failed: false, in_turn: 0 })
}

/// Lets more connections wait to be accepted than the standard library asks for: while strangers come by the hundred, a
/// member whose first packet finds the queue full would try again only after a second. Not very many either: whoever stands
/// at the end waits for all before it.
pub(super) fn lengthen_queue(socket: &impl AsFd) -> io::Result<()> {
    const WAITING_MAX: i32 = 256;
    Ok(rustix::net::listen(socket, WAITING_MAX)?)
}

impl Listener {
    /// Where it listens, also where any free port was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
    /// The next connection. May be dropped while it waits.
    ///
    /// # Errors
    /// An error of one connection, or of the system; the next call waits a moment and goes on.
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        if self.failed {
            Timer::after(PAUSE_AFTER_ERROR).await;
            self.failed = false;
        }
        // A flood of connections must not keep other tasks of this thread from running; nor must one that is meant wait a
        // turn of them all for each stranger before it.
        self.in_turn = (self.in_turn + 1) % ACCEPTED_IN_A_TURN;
        if self.in_turn == 0 {
            smol::future::yield_now().await;
        }
        let accepted = self.socket.accept().await;
        self.failed = accepted.is_err();
        accepted
    }
}

/// Says why a port could not be had, who has it, and what to change.
pub(super) fn binding_failed(address: SocketAddr, setting: PortSetting, source: io::Error) -> Error {
    let (name, key) = (setting.protocol().name(), setting.key());
    let message = match source.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = port_holder(setting.protocol(), address.port());
            let holder = holder.map_or_else(String::new, |holder| format!(" by {holder}"));
            format!("{name} {address} is in use{holder}; stop that program, or change {key}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("{name} {address}: ports below 1024 need a privilege; change {key}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{name} {address} is not an address of this device; change {}", setting.address_key())
        }
        _ => format!("{name} {address} cannot be opened; see {key}"),
    };
    let cause: Cause = Box::new(source);
    Error::network(message, cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::block_on;
    use std::net::Ipv4Addr;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_port_in_use_is_told_with_the_setting_that_changes_it_and_who_holds_it() {
        block_on(async {
            let first = listen(LOCALHOST, 0, PortSetting::Tcp).await.expect("a free port");
            let port = first.address().port();
            for (setting, key) in
                [(PortSetting::Tcp, "CBDDC.Network.TcpPort"), (PortSetting::Http, "CBDDC.Api.HttpAddress")]
            {
                let error = listen(LOCALHOST, port, setting).await.expect_err("in use");
                let text = format!("{error}");
                assert!(text.contains(key) && text.contains(&format!("127.0.0.1:{port}")), "{text}");
                assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
                assert_eq!(error.code(), "NETWORK_ERROR");
            }
        });
    }

    #[test]
    fn an_address_of_another_machine_is_told_with_its_setting() {
        let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let error = block_on(listen(elsewhere, 0, PortSetting::Tcp)).expect_err("not ours");
        assert!(format!("{error}").contains("CBDDC.Network.ListenAddress"), "{error}");
    }

    #[test]
    fn connections_are_accepted() {
        block_on(async {
            let mut listener = listen(LOCALHOST, 0, PortSetting::Tcp).await.expect("a free port");
            let stream = TcpStream::connect(listener.address()).await.expect("it listens");
            let (_, from) = listener.accept().await.expect("it was dialled");
            assert_eq!(from, stream.local_addr().expect("connected"));
        });
    }
}
