//! Which interfaces beacons go out on: read anew each time, since cables and addresses come and go.
//!
//! Usable is an IPv4 interface that is up with a carrier and has a subnet to broadcast in. Not usable are loopback
//! (another node on this machine would need the same UDP port, which it cannot have), point-to-point links, and the
//! bridges of containers and virtual machines: whoever lives behind those is this machine. A plain `veth`, `eth` or
//! `wlan` is taken whatever it leads to; a bridge that is a LAN (`br0`) too.

use if_addrs::{IfAddr, Interface};
use std::io;
use std::net::Ipv4Addr;
use std::string::String;
use std::vec::Vec;

/// Beginnings of the names of interfaces that only lead into this machine.
const INSIDE_THIS_MACHINE: [&str; 5] = ["docker", "br-", "virbr", "cni", "flannel"];

/// An address of this node and where its subnet is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroadcastInterface {
    /// The interface's name.
    pub name: String,
    /// This node's address on it.
    pub address: Ipv4Addr,
    /// All nodes of its subnet.
    pub broadcast: Ipv4Addr,
}

/// The usable interfaces now, each subnet once, in the operating system's order.
///
/// # Errors
/// Where the operating system does not list them.
pub fn broadcast_interfaces() -> io::Result<Vec<BroadcastInterface>> {
    let mut usable: Vec<BroadcastInterface> = Vec::new();
    for interface in if_addrs::get_if_addrs()?.iter().filter_map(usable_part) {
        if usable.iter().all(|known| known.broadcast != interface.broadcast) {
            usable.push(interface);
        }
    }
    Ok(usable)
}

fn usable_part(interface: &Interface) -> Option<BroadcastInterface> {
    let IfAddr::V4(v4) = &interface.addr else { return None };
    let inside = INSIDE_THIS_MACHINE.iter().any(|prefix| interface.name.starts_with(prefix));
    if inside || v4.is_loopback() || interface.is_p2p() || !interface.is_oper_up() {
        return None;
    }
    // The operating system's own broadcast address is missing where nobody configured one; that of the subnet always
    // has a route.
    let broadcast = directed_broadcast(v4.ip, v4.netmask)?;
    Some(BroadcastInterface { name: interface.name.clone(), address: v4.ip, broadcast })
}

/// The last address of a subnet; none where it is too small to have one (RFC 3021).
fn directed_broadcast(address: Ipv4Addr, netmask: Ipv4Addr) -> Option<Ipv4Addr> {
    let hosts = !u32::from(netmask);
    let is_prefix = hosts & hosts.wrapping_add(1) == 0;
    if address.is_unspecified() || !is_prefix || hosts <= 1 || hosts == u32::MAX {
        return None;
    }
    Some(Ipv4Addr::from(u32::from(address) | hosts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use if_addrs::{IfOperStatus, Ifv4Addr};

    fn interface(name: &str, ip: [u8; 4], oper_status: IfOperStatus) -> Interface {
        let netmask = Ipv4Addr::new(255, 255, 255, 0);
        let addr = IfAddr::V4(Ifv4Addr { ip: ip.into(), netmask, prefixlen: 24, broadcast: None });
        Interface { name: name.into(), addr, index: None, oper_status, is_p2p: false }
    }

    #[test]
    fn the_broadcast_address_is_the_last_of_the_subnet() {
        let of = |ip: [u8; 4], mask: [u8; 4]| directed_broadcast(ip.into(), mask.into());
        assert_eq!(of([192, 168, 7, 9], [255, 255, 255, 0]), Some([192, 168, 7, 255].into()));
        assert_eq!(of([10, 1, 2, 3], [255, 255, 252, 0]), Some([10, 1, 3, 255].into()));
        for mask in [[255, 255, 255, 255], [255, 255, 255, 254], [0, 0, 0, 0], [255, 0, 255, 0]] {
            assert_eq!(of([10, 0, 0, 1], mask), None);
        }
    }

    #[test]
    fn container_bridges_loopback_and_dead_links_are_left_out() {
        let names = |name: &str, ip, up| usable_part(&interface(name, ip, up)).is_some();
        for name in ["eth0", "end0", "wlan0", "br0", "veth-a", "enp3s0"] {
            assert!(names(name, [10, 0, 0, 1], IfOperStatus::Up), "{name}");
            assert!(!names(name, [10, 0, 0, 1], IfOperStatus::Down), "{name}");
        }
        for name in ["docker0", "br-1f2e3d", "virbr0", "cni0", "flannel.1"] {
            assert!(!names(name, [172, 17, 0, 1], IfOperStatus::Up), "{name}");
        }
        assert!(!names("lo", [127, 0, 0, 1], IfOperStatus::Up));
    }

    #[test]
    fn the_operating_system_lists_them() {
        assert!(broadcast_interfaces().expect("listed").iter().all(|one| !one.broadcast.is_loopback()));
    }
}
