//! A look at the site without joining it: who is heard, who answers, and what each calls itself.
//!
//! Says no Hello, so nobody takes note of it: a peer says its own Hello first, and the link ends with that.

use super::dial::{Patience, dial, resolve};
use super::udp::Beacons;
use crate::id::{DeviceId, NodeId};
use crate::secure::{ClusterKey, DeviceKey, Entropy};
use crate::wire::{BeaconError, BeaconKey, Hello, Message};
use smol::Timer;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// Nodes that are asked for their name at most.
const ASKED_MAX: usize = 16;
/// Strangers that are remembered.
const STRANGERS_MAX: usize = 64;

/// What was seen of the site.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Names by device, of those who answered and of the members that they track.
    pub(crate) names: BTreeMap<DeviceId, NodeId>,
    /// Members that were heard or reached.
    pub(crate) members: BTreeSet<SocketAddr>,
    /// Addresses whose beacons are of another cluster.
    pub(crate) strangers: BTreeSet<IpAddr>,
    /// Fixed peers that did not answer, and why.
    pub(crate) unreachable: Vec<(String, String)>,
}

/// Listens to beacons for a while, then asks whoever was heard, and the fixed peers, for their names.
///
/// `ear` is `None` where beacons are not to be heard.
pub(crate) async fn look(
    ear: Option<Beacons>,
    listen_for: Duration,
    fixed: &[String],
    key: &ClusterKey,
    random: Entropy<'_>,
) -> Seen {
    let mut seen = Seen::default();
    if let Some(ear) = ear {
        let over = async {
            Timer::after(listen_for).await;
        };
        smol::future::or(hear(ear, &BeaconKey::derive(key.expose()), &mut seen), over).await;
    }
    let patience = Patience { connect: Duration::from_secs(3), ..Patience::default() };
    // A key that nobody has seen: whoever is dialled does not take this for the device itself.
    let device_key = DeviceKey::generate(random);
    let heard: Vec<SocketAddr> = seen.members.iter().copied().take(ASKED_MAX).collect();
    for address in heard {
        if let Ok(hello) = ask(&[address], key, &device_key, patience, random).await {
            take(&mut seen, hello);
        }
    }
    for peer in fixed.iter().take(ASKED_MAX) {
        let hello = match resolve(peer, patience).await {
            Ok(addresses) => ask(&addresses, key, &device_key, patience, random).await.map(|hello| (addresses, hello)),
            Err(error) => Err(error.to_string()),
        };
        match hello {
            Ok((addresses, hello)) => {
                seen.members.extend(addresses.first());
                take(&mut seen, hello);
            }
            Err(why) => seen.unreachable.push((peer.clone(), why)),
        }
    }
    seen
}

async fn hear(mut ear: Beacons, key: &BeaconKey, seen: &mut Seen) {
    loop {
        let Ok((bytes, from)) = ear.recv().await else { continue };
        match key.open(bytes) {
            Ok(beacon) => drop(seen.members.insert(SocketAddr::new(from.ip(), beacon.tcp_port))),
            Err(BeaconError::OtherCluster) if seen.strangers.len() < STRANGERS_MAX => {
                seen.strangers.insert(from.ip());
            }
            Err(_) => {}
        }
    }
}

/// The key of a node, and the Hello that it says first.
async fn ask(
    addresses: &[SocketAddr],
    key: &ClusterKey,
    device_key: &DeviceKey,
    patience: Patience,
    random: Entropy<'_>,
) -> Result<(DeviceId, Hello), String> {
    let mut link = dial(addresses, core::slice::from_ref(key), device_key, patience, random)
        .await
        .map_err(|error| error.to_string())?;
    let hello = async {
        match link.reader.next().await {
            Ok(Message::Hello(hello)) => Ok((link.device, hello)),
            Ok(other) => Err(std::format!("it says {} first", other.name())),
            Err(error) => Err(error.to_string()),
        }
    };
    let late = async {
        Timer::after(patience.handshake).await;
        Err("it accepts the link and says nothing".to_string())
    };
    let hello = smol::future::or(hello, late).await;
    link.writer.close();
    hello
}

fn take(seen: &mut Seen, (device, hello): (DeviceId, Hello)) {
    seen.names.insert(device, hello.node_id);
    seen.names.extend(hello.members.into_iter().map(|member| (member.device, member.node_id)));
}
