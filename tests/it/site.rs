//! Nodes on a LAN that share nothing but a key file.

use crate::client::document;
use crate::lan::Lan;
use crate::process::{KEY, Node, copy_folder, data, wait, wait_for};
use crate::program::seconds;
use std::time::Duration;

const OTHER_KEY: &str = "5566778899aabbccddeeff00112233445566778899aabbccddeeff0011223344";
fn soon() -> Duration {
    seconds(20)
}

fn equal_exports(left: &Node, right: &Node, collection: &str) -> Vec<u8> {
    wait_for(soon(), &format!("{collection} is the same on both"), || {
        let (left, right) = (left.says(&["export", collection]), right.says(&["export", collection]));
        (left == right).then_some(left)
    })
}

#[test]
fn two_nodes_that_share_the_key_file_find_each_other_and_a_third_learns_nothing() {
    let test = "two_nodes_that_share_the_key_file_find_each_other_and_a_third_learns_nothing";
    let Some(lan) = Lan::new(test, 3) else { return };
    // Everything that passes the switch, the links of the members included.
    let ear = lan.switch.listen();
    let first = Node::on(&lan.hosts[0], "gateway-first", KEY).started();
    let second = Node::on(&lan.hosts[1], "gateway-second", KEY).started();
    let peers = format!("{}:5000,{}:5000", lan.hosts[0].address(), lan.hosts[1].address());
    let third = Node::on(&lan.hosts[2], "stranger-third", OTHER_KEY).set("Cluster__Peers", &peers).started();
    wait_for(soon(), "they find each other", || first.is_linked_to("gateway-second").then_some(()));

    let (temps, airports) = (data("sf-temps.csv"), data("airports.csv"));
    first.says(&["import", "temps", temps.to_str().unwrap(), "--key", "date"]);
    first.says(&["import", "airports", airports.to_str().unwrap(), "--key", "iata"]);
    let exported = equal_exports(&first, &second, "temps");
    assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), 8_759);
    let exported = equal_exports(&first, &second, "airports");
    assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), 3_376);
    assert!(String::from_utf8(exported).unwrap().contains("Bay Springs"));

    second.says(&["put", "airports", "00M", "{\"name\":\"Thigpen, renamed-on-second\"}"]);
    second.says(&["delete", "airports", "00R"]);
    wait_for(soon(), "the update appears", || {
        first.value("airports", "00M").filter(|value| value.contains("renamed-on-second"))
    });
    wait_for(soon(), "the delete appears", || first.value("airports", "00R").is_none().then_some(()));
    equal_exports(&first, &second, "airports");

    // The third was refused on its links and its beacons were counted, and it says so itself.
    let address = lan.hosts[2].address().to_string();
    wait_for(soon(), "the stranger is refused and counted", || {
        let peers = first.page("/v1/peers");
        let reasons: Vec<String> = (peers["heard"].as_array().unwrap().iter())
            .filter(|one| one["address"] == *address)
            .map(|one| one["reason"].to_string())
            .collect();
        let said = reasons.iter().any(|reason| reason.contains("beacons") && reason.contains("key"));
        (said && first.status()["links"]["refused"].as_u64().unwrap() > 0).then_some(())
    });
    assert_eq!(first.page("/v1/peers")["peers"].as_array().unwrap().len(), 1);
    assert!(third.page("/v1/peers")["peers"].as_array().unwrap().is_empty());
    assert_eq!(third.page("/v1/collections")["collections"].as_array().unwrap().len(), 0);
    third.still_serves();

    let heard = ear.heard();
    assert!(heard.len() > 200_000, "the ear heard the replication: {} bytes", heard.len());
    for secret in [
        "gateway-first",
        "gateway-second",
        "stranger-third",
        "temps",
        "airports",
        "2010/01/01",
        "Thigpen",
        "Bay Springs",
        "renamed-on-second",
        "iata",
        "latitude",
        KEY,
    ] {
        let found = heard.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} is on the wire");
    }
    let key: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&KEY[at * 2..at * 2 + 2], 16).unwrap()).collect();
    assert!(!heard.windows(32).any(|window| window == key));
}

#[test]
fn eight_nodes_agree_and_one_that_dies_for_ever_holds_nobody_back() {
    let Some(lan) = Lan::new("eight_nodes_agree_and_one_that_dies_for_ever_holds_nobody_back", 8) else { return };
    let mut nodes: Vec<Node> = (lan.hosts.iter().enumerate())
        .map(|(at, host)| Node::on(host, &format!("node-{at}"), KEY).set("Network__BeaconIntervalMs", "500").started())
        .collect();
    let write = |nodes: &[Node], round: &str| {
        for node in nodes {
            let mut connection = node.connect();
            for n in 0..10 {
                let path = document("site", &format!("{round}-{}-{n}", node.name));
                connection.ask("PUT", &path, &[], b"{\"a\":1}").unwrap().expect(201);
                let value = format!("\"{}\"", node.name);
                connection.ask("PUT", &document("site", &format!("shared-{n}")), &[], value.as_bytes()).unwrap();
            }
        }
    };
    let agree = |nodes: &[Node], documents: usize| {
        wait_for(soon(), &format!("{} nodes hold the same {documents} documents", nodes.len()), || {
            let first = nodes[0].everything("site");
            let same = nodes[1..].iter().all(|node| node.everything("site") == first);
            (same && first.len() == documents).then_some(())
        });
    };
    write(&nodes, "before");
    agree(&nodes, 8 * 10 + 10);
    let mut dead = nodes.pop().unwrap();
    dead.kill();
    write(&nodes, "after");
    agree(&nodes, 8 * 10 + 7 * 10 + 10);
    let report = nodes[0].page("/v1/peers");
    let gone = report["peers"].as_array().unwrap().iter().find(|peer| peer["nodeId"] == "node-7").unwrap();
    assert!(gone["unconfirmedChanges"].as_u64().unwrap() > 0, "{gone}");
    // One that is cut off and comes back.
    lan.hosts[0].plug("down");
    write(&nodes[..1], "alone");
    write(&nodes[1..], "others");
    lan.hosts[0].plug("up");
    wait_for(seconds(45), "the island is taken in again", || {
        let documents = 8 * 10 + 7 * 10 + 7 * 10 + 10;
        (nodes[0].everything("site").len() == documents && nodes[6].everything("site").len() == documents).then_some(())
    });
    assert!(nodes.iter().all(|node| !node.log().contains("digests differ")));
}

#[test]
fn a_key_file_copied_to_a_second_device_is_all_that_it_needs() {
    let Some(lan) = Lan::new("a_key_file_copied_to_a_second_device_is_all_that_it_needs", 2) else { return };
    // The walk-through of the README: no configuration on either, the key that the first one made.
    let first = Node::bare("first", Some(lan.hosts[0].clone())).started();
    let second = Node::bare("second", Some(lan.hosts[1].clone()));
    second.write_key(std::fs::read_to_string(first.path("data/cluster.key")).unwrap().trim());
    let second = second.started();
    first.put("c", "k", "\"hello\"").expect(201);
    wait("it arrives", || second.value("c", "k"));
    let health = second.page("/health");
    assert_eq!(health["entries"]["cbddc"]["data"]["trackedPeerCount"], 1, "{health}");
}

#[test]
fn devices_flashed_from_one_image_do_not_become_one() {
    let Some(lan) = Lan::new("devices_flashed_from_one_image_do_not_become_one", 3) else { return };
    // An image that was made of a device which had run: its database, its device key, no name of its own.
    let mut image = Node::bare("image", Some(lan.hosts[0].clone())).started();
    image.put("c", "image", "1").expect(201);
    image.stop_cleanly();
    let flashed = |at: usize| {
        let node = Node::bare(&format!("flashed-{at}"), Some(lan.hosts[at].clone()));
        copy_folder(&image.path("data"), &node.path("data"));
        node.set("Network__BeaconIntervalMs", "500").started()
    };
    let nodes = [flashed(0), flashed(1), flashed(2)];
    for (at, node) in nodes.iter().enumerate() {
        node.put("c", &format!("own-{at}"), "1").expect(201);
    }
    wait_for(soon(), "all hold what all wrote", || {
        let all: Vec<_> = nodes.iter().map(|node| node.everything("c")).collect();
        (all[0].len() == 4 && all[0] == all[1] && all[1] == all[2]).then_some(())
    });
    let distinct = |name: &str| {
        let names: std::collections::BTreeSet<String> =
            nodes.iter().map(|node| node.status()[name].to_string()).collect();
        names.len() == nodes.len()
    };
    wait_for(soon(), "each is somebody else", || (distinct("nodeId") && distinct("replicaId")).then_some(()));
    wait_for(soon(), "each is linked to the others", || {
        let linked = |node: &Node| node.status()["activePeers"] == 2;
        nodes.iter().all(linked).then_some(())
    });
}
