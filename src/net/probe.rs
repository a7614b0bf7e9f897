//! A connection of the node to its own listener: whether anybody could come in. It says nothing, and closes.

use async_net::TcpStream;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A connection that stands until it is dropped.
#[derive(Debug)]
pub struct Probe {
    _stream: TcpStream,
    address: SocketAddr,
}

/// Why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeError {
    /// The listener's address cannot be reached now, since the machine has it no more.
    NoWay,
    /// Nobody took it, or the machine has no means left.
    Failed,
}

impl Probe {
    /// Where the listener sees it come from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Connects to a listener of this machine; where that listens on every address, by the loopback interface.
///
/// # Errors
/// [`ProbeError`]. Waits as long as the operating system does: to be given up from outside.
pub async fn probe(listener: SocketAddr) -> Result<Probe, ProbeError> {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let connected = TcpStream::connect(SocketAddr::from((ip, listener.port()))).await;
    let connected = connected.and_then(|stream| Ok((stream.local_addr()?, stream)));
    connected.map(|(address, stream)| Probe { _stream: stream, address }).map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkDown => ProbeError::NoWay,
        _ => ProbeError::Failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_net::TcpListener;
    use smol::future::block_on;

    #[test]
    fn a_listener_on_every_address_is_reached_and_one_that_is_gone_is_not() {
        block_on(async {
            let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let connection = probe(address).await.unwrap();
            let (_, from) = listener.accept().await.unwrap();
            assert_eq!(from, connection.address());
            drop(listener);
            assert_eq!(probe(address).await.unwrap_err(), ProbeError::Failed);
        });
    }
}
