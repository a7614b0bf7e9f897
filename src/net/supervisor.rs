//! Messages to the service manager that started this process: systemd's `sd_notify` protocol, one datagram each. When
//! something is said, and what, is decided elsewhere.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the service manager listens, and a socket to reach it.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Supervisor {
    /// The service manager behind `NOTIFY_SOCKET`: a path, or a name in the abstract namespace that begins with `@`.
    ///
    /// # Errors
    /// What is neither, and the operating system's.
    pub fn new(address: &OsStr) -> io::Result<Supervisor> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a path and not an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        // Whoever does not read its messages must not make the loop wait.
        socket.set_nonblocking(true)?;
        Ok(Supervisor { socket, address })
    }
    /// Says `KEY=value` lines.
    ///
    /// # Errors
    /// The operating system's, also where the other side reads too slowly; nothing was said then.
    pub fn say(&self, state: &str) -> io::Result<()> {
        self.socket.send_to_addr(state.as_bytes(), &self.address).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_message_arrives_whole_by_path_and_by_abstract_name() {
        let folder = std::env::temp_dir();
        let path = folder.join(format!("cbddc-supervisor-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("cbddc-supervisor-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let addresses = [(by_path, path.clone().into_os_string()), (by_name, format!("@{name}").into())];
        for (manager, address) in addresses {
            let supervisor = Supervisor::new(&address).unwrap();
            supervisor.say("READY=1\nSTATUS=x").unwrap();
            let mut bytes = [0; 64];
            let length = manager.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1\nSTATUS=x");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn an_address_that_is_none_and_a_manager_that_is_gone_are_errors() {
        for address in ["", "relative", "vsock:2:1"] {
            assert!(Supervisor::new(OsStr::new(address)).is_err(), "{address}");
        }
        let nobody = Supervisor::new(OsStr::new("/nonexistent/notify")).unwrap();
        assert!(nobody.say("READY=1").is_err());
    }
}
