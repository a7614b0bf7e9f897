//! The network: interfaces to broadcast on, ports, and whether the name of this node is taken.

use super::Point;
use super::running::Running;
use crate::config::{Config, default_node_id};
use crate::id::{DeviceId, NodeId};
use crate::key;
use crate::net::{self, Beacons, PortSetting, Seen};
use crate::secure::{ClusterKey, DeviceKey};
use std::format;
use std::net::SocketAddr;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// Beacons come every few seconds, on a large site every half minute.
const LISTEN: Duration = Duration::from_secs(6);

pub(super) async fn points(config: &Config, running: Option<&Running>) -> Vec<Point> {
    let mut points = Vec::from([interfaces(config)]);
    points.extend(ports(config, running).await);
    points.push(match running {
        Some(running) => running.name(),
        None => name(config).await,
    });
    points
}

fn interfaces(config: &Config) -> Point {
    let discovery = config.network.discovery;
    if let Some(explicit) = config.network.broadcast_addresses.as_ref().filter(|_| discovery) {
        let shown: Vec<String> = explicit.iter().map(ToString::to_string).collect();
        return Point::ok("interfaces", format!("beacons go to {}, as configured", shown.join(", ")));
    }
    let usable = match net::broadcast_interfaces() {
        Ok(usable) => usable,
        Err(error) => return Point::warn("interfaces", format!("cannot be listed: {error}"), "look with 'ip address'"),
    };
    let shown: Vec<String> = usable.iter().map(|one| format!("{} {}", one.name, one.address)).collect();
    let peers = config.cluster.peers.len();
    match (discovery, usable.is_empty()) {
        (false, _) if peers == 0 => Point::warn(
            "interfaces",
            "CBDDC.Network.EnableDiscovery is false and CBDDC.Cluster.Peers is empty: it waits to be dialled",
            "name at least one peer in CBDDC.Cluster.Peers, here or on the others",
        ),
        (false, _) => Point::ok("interfaces", format!("no beacons, as configured; {peers} fixed peer(s)")),
        (true, false) => Point::ok("interfaces", format!("beacons on {}", shown.join(", "))),
        (true, true) if peers > 0 => Point::warn(
            "interfaces",
            "none that is up and can broadcast (bridges of containers do not count); only fixed peers are found",
            "plug the cable in, or name the addresses in CBDDC.Network.BroadcastAddresses",
        ),
        (true, true) => Point::fail(
            "interfaces",
            "none that is up and can broadcast (bridges of containers do not count): no other node can be found",
            "plug the cable in; where broadcasts do not pass, name peers in CBDDC.Cluster.Peers",
        ),
    }
}

async fn ports(config: &Config, running: Option<&Running>) -> Vec<Point> {
    let mut points = Vec::new();
    let link = SocketAddr::new(config.network.listen_address, config.network.tcp_port);
    points.push(tcp("port of links", link, PortSetting::Tcp, running).await);
    if config.network.discovery {
        let bound = Beacons::bind(config.network.udp_port, None).await.map(drop);
        let shown = format!("UDP {}", config.network.udp_port);
        points.push(judged("port of beacons", &shown, (PortSetting::Udp, config.network.udp_port), bound, running));
    }
    if let Some(address) = config.api.http_address {
        points.push(tcp("port of the API", address, PortSetting::Http, running).await);
    }
    if let Some(address) = config.api.health_address {
        points.push(tcp("port of health", address, PortSetting::Health, running).await);
    }
    points
}

async fn tcp(point: &'static str, address: SocketAddr, setting: PortSetting, running: Option<&Running>) -> Point {
    let bound = net::listen(address.ip(), address.port(), setting).await.map(drop);
    judged(point, &format!("TCP {address}"), (setting, address.port()), bound, running)
}

fn judged(
    point: &'static str,
    shown: &str,
    (setting, port): (PortSetting, u16),
    bound: Result<(), crate::Error>,
    running: Option<&Running>,
) -> Point {
    match (bound, running) {
        (Ok(()), _) if port == 0 => Point::ok(point, "any free one, as configured"),
        (Ok(()), Some(_)) => Point::warn(
            point,
            format!("{shown} is free although the node runs"),
            "the node was started with another configuration; restart it to take this one",
        ),
        (Ok(()), None) => Point::ok(point, format!("{shown} is free")),
        (Err(_), Some(running)) if running.holds(setting.protocol(), port) => {
            Point::ok(point, format!("{shown} is held by the running node"))
        }
        (Err(error), _) => Point::fail(
            point,
            error.to_string(),
            "stop that program or change the key; open the port in the firewall for the other nodes, too",
        ),
    }
}

/// Looks whether another device goes by the name that this node will have. Joins nobody.
async fn name(config: &Config) -> Point {
    const POINT: &str = "name";
    let Ok(cluster_key) = key::load_cluster_key(&config.cluster.key_file) else {
        return Point::ok(POINT, "not looked for: without a cluster key nobody answers");
    };
    let device = key::load_device_key(&config.device_key_file()).ok();
    let device = device.map(|bytes| DeviceKey::from_private(bytes).device_id());
    let configured = config.cluster.node_id.clone();
    let Some(own) = configured.or_else(|| device.as_ref().and_then(default_node_id)) else {
        return Point::ok(POINT, "made of the host's name and a device key at the first start, so it is free");
    };
    let ear = match config.network.discovery {
        true => Beacons::bind(config.network.udp_port, None).await.ok(),
        false => None,
    };
    let mut random = |bytes: &mut [u8]| {
        // Whoever cannot draw random numbers cannot run a node either, and is told so by its start.
        let _ = getrandom::fill(bytes);
    };
    let key = ClusterKey::new(cluster_key);
    let seen = net::look(ear, LISTEN, &config.cluster.peers, &key, &mut random).await;
    among(&own, device, &seen)
}

fn among(own: &NodeId, device: Option<DeviceId>, seen: &Seen) -> Point {
    let namesake = seen.names.iter().find(|(other, name)| *name == own && Some(**other) != device);
    let heard = format!("{} other node(s) of this cluster heard", seen.members.len());
    if let Some((other, _)) = namesake {
        let found = format!("{own} belongs to another device ({other}) on this site");
        let todo = format!(
            "if this board replaces that one: start it, then 'cbddc peers replace {own}' on any other member; else give it a \
             name of its own in CBDDC.Cluster.NodeId"
        );
        return Point::fail("name", found, todo);
    }
    if let Some((peer, why)) = seen.unreachable.first() {
        let todo = "is it switched on, is its TCP port open in its firewall, has it the same key? see 'cbddc peers' once both run";
        return Point::warn("name", format!("{own} is free as far as was seen; {peer} does not answer: {why}"), todo);
    }
    if seen.members.is_empty() && !seen.strangers.is_empty() {
        let strangers: Vec<String> = seen.strangers.iter().take(4).map(ToString::to_string).collect();
        let found = format!("{own} is free; heard nodes of another cluster key at {}", strangers.join(", "));
        let todo =
            "if they belong to this site, give this device their key: 'cbddc key show' there, 'cbddc key set -' here";
        return Point::warn("name", found, todo);
    }
    Point::ok("name", format!("{own} is free; {heard}"))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn named(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    #[test]
    fn a_name_is_taken_by_another_device_and_not_by_this_one() {
        let mut seen = Seen::default();
        seen.names.insert(DeviceId([2; 32]), named("gw-2"));
        assert_eq!(among(&named("gw-1"), Some(DeviceId([1; 32])), &seen).state, State::Ok);
        assert_eq!(among(&named("gw-2"), Some(DeviceId([2; 32])), &seen).state, State::Ok, "it is this device itself");
        for device in [Some(DeviceId([1; 32])), None] {
            let taken = among(&named("gw-2"), device, &seen);
            assert!(taken.state == State::Fail && taken.todo.contains("peers replace gw-2"), "{taken:?}");
        }
    }

    #[test]
    fn whoever_forgot_the_key_reads_it_here() {
        let mut seen = Seen::default();
        seen.strangers.insert("10.0.0.9".parse().unwrap());
        let point = among(&named("gw-1"), None, &seen);
        assert!(point.state == State::Warn && point.found.contains("10.0.0.9") && point.todo.contains("key set"));
    }
}
