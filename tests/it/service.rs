//! The node as a service: what it tells the service manager, and the key that it is handed.

use crate::client::document;
use crate::probe::Probe;
use crate::process::{KEY, Node, patience, wait};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// The other end of `NOTIFY_SOCKET`.
struct Manager(UnixDatagram);

impl Manager {
    fn of(node: &mut Node) -> Manager {
        let path = node.path("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        node.change("NOTIFY_SOCKET", path.to_str().unwrap());
        Manager(socket)
    }
    fn hears(&self) -> String {
        let mut bytes = [0; 512];
        let length = self.0.recv(&mut bytes).expect("the node says something");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
    /// Waits for a message that begins like this.
    fn waits_for(&self, start: &str) -> String {
        wait(start, || Some(self.hears()).filter(|said| said.starts_with(start)))
    }
    /// Forgets what was said until now, and whether anything is said within a time.
    fn is_silent_for(&self, time: Duration) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let mut bytes = [0; 512];
        while self.0.recv(&mut bytes).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
        self.0.set_read_timeout(Some(time)).unwrap();
        let heard = self.0.recv(&mut bytes);
        self.0.set_read_timeout(Some(patience())).unwrap();
        heard.is_err()
    }
}

#[test]
fn the_service_manager_is_told_of_the_start_and_of_the_stop() {
    let mut node = Node::new("told");
    let manager = Manager::of(&mut node);
    node.start();
    assert_eq!(manager.hears(), "READY=1\nSTATUS=serving as told");
    // Ready means that it serves: no waiting here.
    node.get("c", "k").expect(404);
    node.stop_cleanly();
    assert_eq!(manager.hears(), "STOPPING=1\nSTATUS=stopping", "no watchdog was asked for");
}

#[test]
fn the_watchdog_is_fed_while_the_disk_works_and_starves_while_it_does_not() {
    let mut node = Node::new("fed");
    let hold = node.path("hold");
    for (key, value) in Probe::default().hold(&hold).environment() {
        node.change(key, &value);
    }
    node.change("WATCHDOG_USEC", "1000000");
    let manager = Manager::of(&mut node);
    node.start();
    manager.waits_for("WATCHDOG=1");
    manager.waits_for("WATCHDOG=1");
    // Quiet nodes are fed too: a network without anybody in it and a disk without work are no reason to start anew.
    fs::write(&hold, "").unwrap();
    let mut caller = node.connect();
    caller.send("PUT", &document("c", "k"), &[], b"1").unwrap();
    wait("the node says that it stands still", || node.log().contains("the watchdog is not fed").then_some(()));
    assert!(manager.is_silent_for(Duration::from_secs(2)), "fed although the disk stands still");
    assert!(node.log().contains("storage thread"), "{}", node.log());
    // All else goes on, and so does this, once it can.
    node.connect().ask("GET", "/livez", &[], b"").unwrap().expect(200);
    fs::remove_file(&hold).unwrap();
    manager.waits_for("WATCHDOG=1");
    caller.receive(false).unwrap().expect(201);
    let strangers = node.log().lines().filter(|line| line.contains("link refused")).count();
    assert_eq!(strangers, 0, "the node's connections to itself are nobody's business\n{}", node.log());
    node.stop_cleanly();
}

#[test]
fn a_key_that_is_handed_over_makes_the_key_file_and_undoes_no_later_change() {
    let mut node = Node::bare("credential", None);
    let folder = node.path("credentials");
    fs::create_dir(&folder).unwrap();
    let credential = folder.join("cluster.key");
    fs::write(&credential, format!("{KEY}\n")).unwrap();
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o400)).unwrap();
    for (key, value) in [
        ("CREDENTIALS_DIRECTORY", folder.to_str().unwrap()),
        ("Network__TcpPort", "0"),
        ("Network__UdpPort", "0"),
        ("Network__EnableDiscovery", "false"),
        ("Api__HttpAddress", "127.0.0.1:0"),
    ] {
        node.change(key, value);
    }
    node.start();
    let file = node.path("data/cluster.key");
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), KEY);
    node.stop_cleanly();
    let later = "ab".repeat(32);
    node.write_key(&later);
    node.start();
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), later);
    assert!(node.log().contains("not the one of the key file"), "{}", node.log());
    assert!(!node.log().contains(KEY) && !node.log().contains(&later), "a key in the log");
    node.stop_cleanly();
    // No key in it is the same as none: the unit's way of saying so.
    fs::remove_file(&file).unwrap();
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o600)).unwrap();
    for none in ["", "\n"] {
        fs::write(&credential, none).unwrap();
        node.start();
        assert_ne!(fs::read_to_string(&file).unwrap().trim(), KEY);
        node.stop_cleanly();
        fs::remove_file(&file).unwrap();
    }
    // What is no key stops the start.
    fs::write(&credential, "no key").unwrap();
    let began = Instant::now();
    let (ended, said) = node.run_to_end();
    assert_eq!(ended.code(), Some(78), "{said} after {:?}", began.elapsed());
    assert!(said.contains("error[CONFIG_ERROR]") && said.contains("credentials/cluster.key"), "{said}");
}
