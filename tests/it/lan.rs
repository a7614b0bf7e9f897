//! A LAN of network namespaces around one switch, on one machine. Needs root and iproute2; where they are missing a
//! test says `skipped: …`, which is a failure where `CBDDC_REQUIRE_ALL` is set.

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

static LANS: AtomicU32 = AtomicU32::new(0);

/// One machine on the LAN, or the switch itself.
#[derive(Clone)]
pub struct Host(Arc<Namespace>);

struct Namespace {
    name: String,
    address: Ipv4Addr,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Cables end with the namespace that they lead into.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

impl Host {
    /// Does something on this machine: sockets that it opens and processes that it starts stay there.
    pub fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let entrance = File::open(format!("/run/netns/{}", self.0.name)).unwrap();
                move_into_link_name_space(entrance.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                what()
            });
            inside.join().unwrap()
        })
    }
    pub fn address(&self) -> IpAddr {
        IpAddr::V4(self.0.address)
    }
    /// Pulls the cable, or puts it in again.
    pub fn plug(&self, state: &str) {
        ip(&["-n", &self.0.name, "link", "set", "eth0", state]).unwrap();
    }
    /// Hears everything on this machine's wires from now on.
    pub fn listen(&self) -> Ear {
        let socket = self.inside(|| {
            socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::NONBLOCK, Some(eth::ALL)).unwrap()
        });
        let stop = Arc::new(AtomicBool::new(false));
        let hearing = thread::spawn({
            let stop = stop.clone();
            move || hear(&socket, &stop)
        });
        Ear { hearing, stop }
    }
}

/// Everything that was heard, packet after packet, headers included.
pub struct Ear {
    hearing: JoinHandle<Vec<u8>>,
    stop: Arc<AtomicBool>,
}

impl Ear {
    pub fn heard(self) -> Vec<u8> {
        self.stop.store(true, Ordering::Relaxed);
        self.hearing.join().unwrap()
    }
}

fn hear(socket: &OwnedFd, stop: &AtomicBool) -> Vec<u8> {
    let mut heard = Vec::new();
    let mut packet = vec![0; 1 << 17];
    loop {
        match recv(socket, &mut packet[..], RecvFlags::empty()) {
            Ok((_, bytes)) => heard.extend_from_slice(&packet[..bytes]),
            Err(Errno::AGAIN) if stop.load(Ordering::Relaxed) => return heard,
            Err(Errno::AGAIN) => thread::sleep(Duration::from_millis(1)),
            Err(Errno::INTR | Errno::NETDOWN) => {}
            Err(error) => panic!("the ear is deaf: {error}"),
        }
    }
}

/// Machines 10.77.0.1, 10.77.0.2 and so on, each with its `eth0` in the switch.
pub struct Lan {
    pub hosts: Vec<Host>,
    pub switch: Host,
}

impl Lan {
    /// `None` where this machine cannot have one: the test is skipped then.
    pub fn new(test: &str, hosts: u8) -> Option<Lan> {
        match Lan::try_new(hosts) {
            Ok(lan) => Some(lan),
            Err(reason) => {
                assert!(std::env::var_os("CBDDC_REQUIRE_ALL").is_none(), "{test} may not be skipped here: {reason}");
                // To the terminal, also where the harness keeps the output of tests that pass.
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "skipped: {test} {reason}");
                None
            }
        }
    }
    fn try_new(count: u8) -> Result<Lan, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root makes network namespaces".into());
        }
        let number = LANS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("cbddc-{}-{number}", std::process::id());
        let switch = namespace(&format!("{prefix}-s"), 0)?;
        let inside = &switch.0.name;
        ip(&["-n", inside, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", inside, "link", "set", "br0", "up"])?;
        let mut hosts = Vec::new();
        for at in 1..=count {
            let host = namespace(&format!("{prefix}-{at}"), at)?;
            let (name, port, address) = (&host.0.name, format!("p{at}"), format!("10.77.0.{at}/24"));
            ip(&["link", "add", &port, "netns", inside, "type", "veth", "peer", "name", "eth0", "netns", name])?;
            ip(&["-n", inside, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", name, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", name, "link", "set", "eth0", "up"])?;
            hosts.push(host);
        }
        Ok(Lan { hosts, switch })
    }
}

fn namespace(name: &str, number: u8) -> Result<Host, String> {
    ip(&["netns", "add", name])?;
    let host = Host(Arc::new(Namespace { name: name.into(), address: Ipv4Addr::new(10, 77, 0, number) }));
    ip(&["-n", name, "link", "set", "lo", "up"])?;
    Ok(host)
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let ran = Command::new("ip").args(arguments).output().map_err(|error| format!("`ip` cannot be run: {error}"))?;
    match ran.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&ran.stderr).trim())),
    }
}
