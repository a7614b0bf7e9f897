//! Starting, stopping and refusing to start.

use crate::lan::Lan;
use crate::process::{Node, field};
use crate::program::{self, seconds};
use crate::speaker::Speaker;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

#[test]
fn with_no_configuration_at_all_a_node_serves() {
    let Some(lan) = Lan::new("with_no_configuration_at_all_a_node_serves", 1) else { return };
    let mut node = Node::bare("default", Some(lan.hosts[0].clone()));
    node.start();
    assert_eq!(node.http().to_string(), "127.0.0.1:5080");
    assert_eq!((node.links().port(), node.beacons().port()), (5000, 6000));
    node.still_serves();
    assert!(node.path("data/cbddc.db").exists());
    let key = fs::read_to_string(node.path("data/cluster.key")).unwrap();
    assert!(key.len() == 65 && key.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()), "{key:?}");
    assert_eq!(fs::metadata(node.path("data/cluster.key")).unwrap().permissions().mode() & 0o777, 0o600);
    // Whatever holds keys or documents is its owner's alone.
    for file in fs::read_dir(node.path("data")).unwrap().map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
    }
    let name = node.status()["nodeId"].as_str().unwrap().to_string();
    let log = node.log();
    let device = field(log.lines().find(|line| line.contains("node started")).unwrap(), "device");
    assert!(name.ends_with(&format!("-{}", &device[..6])), "{name} {device}");
    // Another node beside it is told who holds the port, and what to change.
    let second = Node::bare("second", Some(lan.hosts[0].clone()));
    let (ended, said) = lan.hosts[0].inside(|| second.run_to_end());
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("error[NETWORK_ERROR]") && said.contains("CBDDC.Network.TcpPort"), "{said}");
    node.stop_cleanly();
}

#[test]
fn a_port_in_use_is_told_with_its_holder_and_the_key_that_changes_it() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let tcp_port = tcp.local_addr().unwrap().port().to_string();
    let udp_port = udp.local_addr().unwrap().port().to_string();
    let me = format!("(process {})", std::process::id());
    let address = format!("127.0.0.1:{tcp_port}");
    for (node, key) in [
        (
            Node::new("tcp").set("Network__ListenAddress", "127.0.0.1").set("Network__TcpPort", &tcp_port),
            "CBDDC.Network.TcpPort",
        ),
        (
            Node::new("udp").set("Network__EnableDiscovery", "true").set("Network__UdpPort", &udp_port),
            "CBDDC.Network.UdpPort",
        ),
        (Node::new("http").set("Api__HttpAddress", &address), "CBDDC.Api.HttpAddress"),
    ] {
        let (ended, said) = node.run_to_end();
        assert_eq!(ended.code(), Some(1), "{said}");
        let line = said.lines().last().unwrap();
        assert!(line.starts_with("error[NETWORK_ERROR]: "), "{said}");
        assert!(line.contains(&me) && line.contains(key) && line.contains("in use"), "{said}");
    }
}

#[test]
fn a_wrong_configuration_ends_with_78_and_names_the_key() {
    for (key, value, said) in [
        ("Network__TcpPort", "70000", "CBDDC.Network.TcpPort"),
        ("Network__TcpPrt", "5000", "did you mean TcpPort"),
        ("Cluster__NodeId", "two words", "CBDDC.Cluster.NodeId"),
        ("Api__HttpAddress", "0.0.0.0:0", "CBDDC.Api"),
        ("Api__TokenFile", "nowhere/token", "nowhere/token"),
        ("Board", "no-such-board", "CBDDC.Board"),
        ("Logging__Level", "Loud", "CBDDC.Logging.Level"),
    ] {
        let node = Node::new("wrong").set(key, value);
        let (ended, text) = node.run_to_end();
        assert_eq!(ended.code(), Some(78), "{key}: {text}");
        let line = text.lines().last().unwrap();
        assert!(line.starts_with("error[CONFIG_ERROR]: ") && line.contains(said), "{key}: {text}");
    }
    let node = Node::new("wrong");
    fs::write(node.path("appsettings.json"), r#"{"CBDDC": {"Network": {"TcpPort": "many"}"#).unwrap();
    let (ended, text) = node.run_to_end();
    assert_eq!(ended.code(), Some(78), "{text}");
    assert!(text.contains("appsettings.json"), "{text}");
}

#[test]
fn a_key_file_that_is_no_key_or_open_to_everybody_stops_the_start() {
    let node = Node::new("key");
    node.write_key("too short");
    let (ended, said) = node.run_to_end();
    assert_eq!(ended.code(), Some(78), "{said}");
    assert!(said.contains("error[CONFIG_ERROR]") && said.contains("cluster.key"), "{said}");
    node.write_key(crate::process::KEY);
    fs::set_permissions(node.path("data/cluster.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (ended, said) = node.run_to_end();
    assert_eq!(ended.code(), Some(78), "{said}");
    assert!(said.contains("cluster.key") && said.contains("600"), "{said}");
}

#[test]
fn a_database_that_cannot_be_opened_stops_the_start_and_stays_as_it_is() {
    let (fresh, mut newer) = (Node::new("fresh"), Node::new("newer"));
    // Not a database.
    let text = "this is a letter, not a database, and long enough to have a header of its own: ".repeat(100);
    fs::write(fresh.path("data/cbddc.db"), &text).unwrap();
    let (ended, said) = fresh.run_to_end();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("error[PERSISTENCE_ERROR]") && said.contains("cbddc.db"), "{said}");
    assert_eq!(fs::read_to_string(fresh.path("data/cbddc.db")).unwrap(), text);
    // One of a later release.
    newer.start();
    newer.put("c", "k", "1").expect(201);
    newer.stop_cleanly();
    let path = newer.path("data/cbddc.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute("UPDATE schema SET version = 1000, min_reader = 1000, min_release = '9.0.0'", []).unwrap();
    drop(database);
    let (ended, said) = newer.run_to_end();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("error[PERSISTENCE_ERROR]") && said.contains("9.0.0 or later"), "{said}");
}

#[test]
fn an_unwritable_folder_stops_the_start_with_its_path() {
    // Below a regular file nobody can write, root neither.
    for (key, value) in [("Persistence__DatabasePath", "file/data/cbddc.db"), ("Cluster__KeyFile", "file/cluster.key")]
    {
        let node = Node::new("unwritable").set(key, value);
        fs::write(node.path("file"), "in the way").unwrap();
        let (ended, said) = node.run_to_end();
        assert!(matches!(ended.code(), Some(1 | 78)), "{ended:?} {said}");
        let line = said.lines().last().unwrap();
        assert!(line.starts_with("error[") && line.contains("file"), "{said}");
    }
    let node = Node::new("unwritable").set("Persistence__DatabasePath", "/proc/cbddc/cbddc.db");
    let (ended, said) = node.run_to_end();
    assert!(matches!(ended.code(), Some(1 | 78)), "{ended:?} {said}");
    assert!(said.lines().last().unwrap().starts_with("error[") && said.contains("/proc/cbddc"), "{said}");
}

#[test]
fn a_second_node_on_the_same_database_is_refused() {
    let node = Node::new("first").started();
    let mut second = Node::new("second");
    second.change("Persistence__DatabasePath", node.path("data/cbddc.db").to_str().unwrap());
    let (ended, said) = second.run_to_end();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("error[PERSISTENCE_ERROR]") && said.contains("cbddc.db"), "{said}");
    node.still_serves();
}

#[test]
fn a_node_stops_within_seconds_whatever_its_clients_and_peers_are_doing() {
    let mut node = Node::new("stops").started();
    let other = Node::new("peer").peers(&[&node]).started();
    node.wait_linked(&other);
    // A client that keeps its connection, one in the middle of its upload, one that said nothing, a peer that reads
    // nothing, one that said nothing.
    let mut idle = node.connect();
    idle.ask("GET", "/livez", &[], b"").unwrap().expect(200);
    let mut uploading = node.connect();
    uploading.raw(b"PUT /v1/collections/c/documents/k HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n123").unwrap();
    let _silent = node.connect();
    let _speaker = Speaker::dial("speaker", node.links(), crate::process::KEY).unwrap();
    let _stranger = node.dial(node.links());
    other.freeze();
    for n in 0..50 {
        node.put("c", &format!("k{n}"), &format!("{n}")).expect(201);
    }
    node.stop_cleanly();
    other.thaw();
    // A clean stop needs no check at the next start, and nothing is missing.
    node.start();
    assert!(!node.log().to_lowercase().contains("unclean"), "{}", node.log());
    assert_eq!(node.everything("c").len(), 50);
}

#[test]
fn two_signals_end_it_at_once() {
    let mut node = Node::new("twice").started();
    let _uploading = {
        let mut uploading = node.connect();
        uploading.raw(b"PUT /v1/collections/c/documents/k HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1").unwrap();
        uploading
    };
    let (code, took) = node.stop();
    assert!(code.is_some() && took < seconds(8), "{code:?} {took:?}");
}

#[test]
fn wrong_usage_ends_with_2_and_one_line() {
    let began = Instant::now();
    for arguments in [&["put", "users"][..], &["stats"], &["run", "--confg", "x"], &[]] {
        let ran = program::node().args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(2), "{arguments:?} {said}");
        assert!(said.starts_with("error[REQUEST_ERROR]: ") && said.lines().count() == 1, "{said}");
    }
    assert!(began.elapsed() < seconds(10));
}
