//! Two places for two nodes: network namespaces joined by a veth where this program may make them, else loopback; and
//! the real binary, run there.

use super::Fallible;
use super::client::Client;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// For a node to start, and for a rest of its writing to come to the disk.
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(2);

/// Where the two nodes are.
pub(crate) struct Site {
    /// One for each.
    pub(crate) addresses: [IpAddr; 2],
    /// Names of the namespaces; removed at the end, and the veth with them.
    namespaces: Option<[String; 2]>,
    pub(crate) folder: PathBuf,
}

impl Site {
    pub(crate) fn new(folder: PathBuf, loopback: bool) -> Fallible<Site> {
        fs::create_dir_all(&folder)?;
        let mut site = Site { addresses: [IpAddr::V4(Ipv4Addr::LOCALHOST); 2], namespaces: None, folder };
        if !loopback {
            let names = ["a", "b"].map(|side| format!("cbddc-{}{side}", std::process::id()));
            let devices = ["a", "b"].map(|side| format!("cb{}{side}", std::process::id()));
            site.namespaces = Some(names.clone());
            if site.join(&names, &devices).is_err() {
                site.remove();
            } else {
                site.addresses = [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2))];
            }
        }
        Ok(site)
    }
    fn join(&self, names: &[String; 2], devices: &[String; 2]) -> Fallible<()> {
        names.iter().try_for_each(|name| ip(&["netns", "add", name]))?;
        ip(&["link", "add", &devices[0], "type", "veth", "peer", "name", &devices[1]])?;
        for side in 0..2 {
            let (name, device) = (&names[side], &devices[side]);
            ip(&["link", "set", device, "netns", name])?;
            ip(&["-n", name, "addr", "add", &format!("10.77.0.{}/24", side + 1), "dev", device])?;
            ip(&["-n", name, "link", "set", device, "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }
    fn remove(&mut self) {
        for name in self.namespaces.take().into_iter().flatten() {
            // Some of it may not be there.
            let _ = ip(&["netns", "del", &name]);
        }
    }
    pub(crate) fn describe(&self) -> &'static str {
        match self.namespaces {
            Some(_) => "two network namespaces joined by a veth",
            None => "two nodes on loopback (namespaces need root and `ip`): wire bytes count all of loopback",
        }
    }
    /// A program on one side.
    pub(crate) fn command(&self, side: usize, program: impl AsRef<OsStr>) -> Command {
        match &self.namespaces {
            None => Command::new(program),
            Some(names) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &names[side]]).arg(program);
                command
            }
        }
    }
    /// Starts a node on one side in a new folder; `peer` is dialled.
    pub(crate) fn node(&self, side: usize, name: &str, peer: Option<&Node>) -> Fallible<Node> {
        let folder = self.folder.join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let port = match self.namespaces {
            Some(_) => 5000,
            None => TcpListener::bind((self.addresses[side], 0))?.local_addr()?.port(),
        };
        let peers: Vec<String> = peer.iter().map(|peer| format!("{}:{}", peer.address, peer.port)).collect();
        let socket = folder.join("api.sock");
        let configuration = serde_json::json!({ "CBDDC": {
            "Cluster": { "NodeId": name, "KeyFile": self.folder.join("cluster.key"), "Peers": peers },
            "Network": { "TcpPort": port, "ListenAddress": self.addresses[side].to_string(), "EnableDiscovery": false,
                         "RetryDelayMs": 50 },
            "Persistence": { "DatabasePath": folder.join("cbddc.db"), "EnableAutoBackup": false },
            "Api": { "HttpAddress": null, "UnixSocket": socket },
            "Logging": { "Level": "Warning" },
        }});
        let file = folder.join("appsettings.json");
        fs::write(&file, configuration.to_string())?;
        let log = File::create(folder.join("log"))?;
        let process = self
            .command(side, env!("CARGO_BIN_EXE_cbddc"))
            .args(["run".as_ref(), "--config".as_ref(), file.as_os_str()])
            .env_remove("STATE_DIRECTORY")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut node = Node { process, socket, address: self.addresses[side], port, folder };
        node.until("it answers", |node| match Client::connect(&node.socket) {
            Ok(mut client) => Ok(client.get("/livez").is_ok_and(|(status, _)| status == 200)),
            Err(_) => Ok(false),
        })?;
        Ok(node)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.remove();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn ip(arguments: &[&str]) -> Fallible<()> {
    let done = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err(format!("ip {arguments:?}: {done}").into()) }
}

/// A running node.
pub(crate) struct Node {
    process: Child,
    pub(crate) socket: PathBuf,
    address: IpAddr,
    port: u16,
    folder: PathBuf,
}

impl Node {
    pub(crate) fn client(&self) -> Fallible<Client> {
        Client::connect(&self.socket)
    }
    /// Looks until something is so, or the node has ended, or too much time has passed.
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut(&mut Node) -> Fallible<bool>) -> Fallible<()> {
        let started = Instant::now();
        while !so(self)? {
            if let Some(ended) = self.process.try_wait()? {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!("the node ended before {what}: {ended}\n{log}").into());
            }
            if started.elapsed() > PATIENCE {
                return Err(format!("waited too long until {what}").into());
            }
            sleep(STEP);
        }
        Ok(())
    }
    /// Bytes that it has had written to disk so far, once it has come to rest.
    pub(crate) fn written_at_rest(&mut self) -> Fallible<u64> {
        let (mut last, mut since) = (0, Instant::now());
        self.until("its disk is at rest", |node| {
            let now = node.written()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            Ok(since.elapsed() > Duration::from_millis(800))
        })?;
        Ok(last)
    }
    fn written(&self) -> Fallible<u64> {
        written(&format!("/proc/{}/io", self.process.id()))
    }
    /// Bytes in and out of its interfaces.
    pub(crate) fn wire(&self) -> Fallible<u64> {
        let table = fs::read_to_string(format!("/proc/{}/net/dev", self.process.id()))?;
        let loopback = self.address.is_loopback();
        let mut sum = 0;
        for line in table.lines().skip(2) {
            let Some((name, numbers)) = line.split_once(':') else { continue };
            if (name.trim() == "lo") == loopback {
                let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
                sum += numbers.first().unwrap_or(&0);
                // Loopback counts each byte in both directions.
                sum += if loopback { &0 } else { numbers.get(8).unwrap_or(&0) };
            }
        }
        Ok(sum)
    }
    /// Resident kibibytes: now, and the most there were.
    pub(crate) fn resident(&self) -> Fallible<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        };
        Ok((field("VmRSS:").ok_or("no VmRSS")?, field("VmHWM:").ok_or("no VmHWM")?))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What it holds is thrown away with its folder.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// `write_bytes` of a process: what it has caused to be sent to the disk.
pub(crate) fn written(path: impl AsRef<Path>) -> Fallible<u64> {
    let io = fs::read_to_string(path)?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).ok_or("no write_bytes")?;
    Ok(line.trim().parse()?)
}
