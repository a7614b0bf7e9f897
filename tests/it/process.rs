//! A node as its user has it: the real binary in a folder of its own, told by environment variables, seen through its
//! log and its API. Whatever a test started has ended when the test ends.

use crate::client::{Answer, Connection, document, documents};
use crate::lan::Host;
use crate::program::{self, seconds};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The key of every node that is not given another one.
pub const KEY: &str = "7d5f0b1c9a3e4d2f8b6a1c0e9f7d5b3a2c4e6f8091a3b5c7d9e1f30415263748";
/// How long a test waits for anything before it fails.
pub fn patience() -> Duration {
    seconds(30)
}

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// Polls until something holds; fails the test when it does not come.
#[track_caller]
pub fn wait<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    wait_for(patience(), what, poll)
}

#[track_caller]
pub fn wait_for<T>(patience: Duration, what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A folder for one test, gone after it unless it failed.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("it-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A node, running or not: its folder and what it is told.
pub struct Node {
    folder: Folder,
    host: Option<Host>,
    pub name: String,
    environment: BTreeMap<String, String>,
    group: Option<PathBuf>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    log_from: u64,
    http: SocketAddr,
    links: SocketAddr,
    beacons: u16,
}

impl Node {
    /// A node with the common key, no discovery, and ports that are free.
    pub fn new(name: &str) -> Node {
        let node = Node::bare(name, None);
        node.write_key(KEY);
        // An address of its own: the port that it got is free when it comes back, whatever other tests do meanwhile.
        let (process, number) = (std::process::id(), FOLDERS.fetch_add(1, Ordering::Relaxed));
        let own = Ipv4Addr::new(127, 64 | (process >> 8) as u8 & 63, process as u8, 1 + (number % 250) as u8);
        node.set("Cluster__NodeId", name)
            .set("Network__ListenAddress", &own.to_string())
            .set("Network__TcpPort", "0")
            .set("Network__EnableDiscovery", "false")
            .set("Network__RetryDelayMs", "50")
            .set("Api__HttpAddress", "127.0.0.1:0")
            .set("Persistence__MinFreeMb", "1")
    }
    /// A node on a LAN, that is told its name and nothing else.
    pub fn on(host: &Host, name: &str, key: &str) -> Node {
        let node = Node::bare(name, Some(host.clone()));
        node.write_key(key);
        node.set("Cluster__NodeId", name)
    }
    /// Nothing but an empty folder.
    pub fn bare(name: &str, host: Option<Host>) -> Node {
        Node {
            folder: Folder::new(),
            host,
            name: name.into(),
            environment: BTreeMap::new(),
            group: None,
            running: None,
        }
    }
    /// From its next start on its memory is counted, and bounded, by this control group.
    pub fn in_group(mut self, group: &Path) -> Node {
        self.group = Some(group.join("cgroup.procs"));
        self
    }
    pub fn set(mut self, key: &str, value: &str) -> Node {
        self.change(key, value);
        self
    }
    pub fn change(&mut self, key: &str, value: &str) {
        let whole = ["CBDDC", "LD_", "QEMU_", "NOTIFY_", "WATCHDOG_", "CREDENTIALS_"]
            .iter()
            .any(|start| key.starts_with(start));
        let key = if whole { key.into() } else { format!("CBDDC__{key}") };
        self.environment.insert(key, value.into());
    }
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }
    /// Lets it dial others, which run.
    pub fn peers(self, others: &[&Node]) -> Node {
        let list: Vec<String> = others.iter().map(|other| other.links().to_string()).collect();
        self.set("Cluster__Peers", &list.join(","))
    }
    pub fn write_key(&self, key: &str) {
        let path = self.path("data/cluster.key");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{key}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    /// A path within its folder.
    pub fn path(&self, within: &str) -> PathBuf {
        self.folder.path().join(within)
    }

    // ---- its life ----

    pub fn started(mut self) -> Node {
        self.start();
        self
    }
    /// Starts it and waits until it serves.
    pub fn start(&mut self) {
        let log_from = self.log_bytes();
        let child = self.spawn("run");
        // The process is ours from here on, whatever fails below.
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        self.running = Some(Running { child, log_from, http: nowhere, links: nowhere, beacons: 0 });
        let started = wait(&format!("{} starts", self.name), || {
            let log = self.log();
            if log.lines().any(|line| line.contains("node started")) {
                return Some(log);
            }
            let ended = self.running.as_mut().unwrap().child.try_wait().unwrap();
            assert!(ended.is_none(), "{} did not start: {ended:?}\n{log}", self.name);
            None
        });
        let running = self.running.as_mut().unwrap();
        let line = started.lines().find(|line| line.contains("node started")).unwrap();
        running.links = field(line, "links").parse().unwrap();
        running.beacons = field(line, "beacons").parse().unwrap();
        if let Some(line) = started.lines().find(|line| line.contains("http listening") && line.contains("Full")) {
            running.http = field(line, "address").parse().unwrap();
        }
    }
    /// Runs it until it ends by itself, for starts that must fail.
    pub fn run_to_end(&self) -> (ExitStatus, String) {
        let output = self.command("run").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = output.unwrap();
        let deadline = Instant::now() + patience();
        while child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                child.kill().unwrap();
                let output = child.wait_with_output().unwrap();
                panic!("{} runs although it cannot\n{}", self.name, String::from_utf8_lossy(&output.stderr));
            }
            thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }
    /// A command line on this node's machine, which talks to it.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments[0]);
        command.args(&arguments[1..]).args(["--api", &self.http().to_string()]);
        match &self.host {
            Some(host) => host.inside(|| command.output()).unwrap(),
            None => command.output().unwrap(),
        }
    }
    /// A command line on this node's machine that finds everything by itself.
    pub fn alone(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments[0]);
        command.args(&arguments[1..]);
        match &self.host {
            Some(host) => host.inside(|| command.output()).unwrap(),
            None => command.output().unwrap(),
        }
    }
    /// A command line that works on this node's files.
    pub fn offline(&self, arguments: &[&str]) -> Output {
        self.command(arguments[0]).args(&arguments[1..]).output().unwrap()
    }
    /// A command line that goes on, its stdout held open; to be ended by the test.
    pub fn spawned(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments[0]);
        command.args(&arguments[1..]).args(["--api", &self.http().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }
    /// The command line succeeds, and says this on stdout.
    #[track_caller]
    pub fn says(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
    fn command(&self, first: &str) -> Command {
        let mut command = self.environed(program::node());
        command.arg(first);
        command
    }
    fn environed(&self, mut command: Command) -> Command {
        command.current_dir(self.folder.path()).env_clear().envs(&self.environment);
        for kept in ["PATH", "HOME", "TMPDIR"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
    }
    fn spawn(&self, first: &str) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(self.path("node.log")).unwrap();
        let mut command = match &self.group {
            // Entered before the program is there, so that all of it counts; `exec` keeps the process.
            Some(group) => {
                let (mut command, node) = (self.environed(Command::new("sh")), program::node());
                command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(group);
                command.arg(node.get_program()).args(node.get_args()).arg(first);
                command
            }
            None => self.command(first),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        match &self.host {
            Some(host) => host.inside(|| command.spawn()).unwrap(),
            None => command.spawn().unwrap(),
        }
    }
    fn signal(&self, signal: Signal) {
        let child = &self.running.as_ref().expect("it runs").child;
        kill_process(Pid::from_child(child), signal).unwrap();
    }
    pub fn process(&self) -> Pid {
        Pid::from_child(&self.running.as_ref().expect("it runs").child)
    }
    /// No warning, no clean-up: `kill -9`.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.running.take().unwrap().child.wait().unwrap();
    }
    /// Whether the process is there, for whoever got no answer from it.
    fn life(&self) -> String {
        let looking = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.process()), looking) {
            Ok(None) => "the process runs".to_string(),
            Ok(Some(ended)) => format!(
                "the process has ended, exit code {:?}, signal {:?}",
                ended.exit_status(),
                ended.terminating_signal()
            ),
            Err(error) => format!("nothing is known of the process: {error}"),
        }
    }
    /// SIGTERM; the exit code and how long it took.
    pub fn stop(&mut self) -> (Option<i32>, Duration) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        self.end(began)
    }
    /// Waits for its end; the exit code and how long it took.
    pub fn end(&mut self, began: Instant) -> (Option<i32>, Duration) {
        let mut running = self.running.take().unwrap();
        let ended = loop {
            if let Some(ended) = running.child.try_wait().unwrap() {
                break ended;
            }
            if began.elapsed() > patience() {
                running.child.kill().unwrap();
                running.child.wait().unwrap();
                panic!("{} does not stop\n{}", self.name, self.tail());
            }
            thread::sleep(Duration::from_millis(5));
        };
        (ended.code(), began.elapsed())
    }
    /// Stops it and expects that to go well.
    pub fn stop_cleanly(&mut self) {
        let (code, took) = self.stop();
        assert_eq!(code, Some(0), "{}", self.tail());
        assert!(took < seconds(8), "took {took:?} to stop");
    }
    /// SIGHUP: it reads its configuration again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }
    /// Writes the configuration file that it finds, with these sections.
    pub fn configure(&self, sections: &Value) {
        fs::write(self.path("appsettings.json"), serde_json::json!({ "CBDDC": sections }).to_string()).unwrap();
    }
    /// It stands still, its connections stay open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    // ---- what it says ----

    fn log_bytes(&self) -> u64 {
        fs::metadata(self.path("node.log")).map_or(0, |log| log.len())
    }
    /// Its log since its last start.
    pub fn log(&self) -> String {
        let from = self.running.as_ref().map_or(0, |running| running.log_from);
        let Ok(mut file) = File::open(self.path("node.log")) else { return String::new() };
        file.seek(SeekFrom::Start(from)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(self.path("node.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
    pub fn links(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs").links
    }
    pub fn beacons(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.running.as_ref().expect("it runs").beacons))
    }
    pub fn http(&self) -> SocketAddr {
        self.running.as_ref().expect("it runs").http
    }
    /// The port that it got is the one it will have.
    pub fn keep_port(&mut self) {
        let port = self.links().port().to_string();
        self.change("Network__TcpPort", &port);
    }
    pub fn dial(&self, address: SocketAddr) -> TcpStream {
        match &self.host {
            Some(host) => host.inside(|| TcpStream::connect(address)).unwrap(),
            None => TcpStream::connect(address).unwrap(),
        }
    }
    pub fn connect(&self) -> Connection {
        Connection::new(self.dial(self.http()), self.http())
    }
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = self.connect().ask(method, path, headers, body);
        answer.unwrap_or_else(|error| panic!("{}: {method} {path}: {error}; {}", self.name, self.life()))
    }
    pub fn put(&self, collection: &str, key: &str, value: &str) -> Answer {
        self.ask("PUT", &document(collection, key), &[], value.as_bytes())
    }
    pub fn get(&self, collection: &str, key: &str) -> Answer {
        self.ask("GET", &document(collection, key), &[], b"")
    }
    pub fn delete(&self, collection: &str, key: &str) -> Answer {
        self.ask("DELETE", &document(collection, key), &[], b"")
    }
    pub fn page(&self, path: &str) -> Value {
        self.ask("GET", path, &[], b"").json()
    }
    /// The value if it is there.
    pub fn value(&self, collection: &str, key: &str) -> Option<String> {
        let answer = self.get(collection, key);
        (answer.status == 200).then(|| answer.text())
    }
    /// Key, version and value of all documents, in the order of their keys.
    pub fn everything(&self, collection: &str) -> Vec<(String, String, String)> {
        let mut connection = self.connect();
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("{}?limit=1000{after}", documents(collection));
            let page = connection.ask("GET", &path, &[], b"").unwrap().expect(200).json();
            for document in page["documents"].as_array().unwrap() {
                let text = |name: &str| document[name].as_str().unwrap().to_string();
                all.push((text("key"), text("version"), document["value"].to_string()));
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", next.replace(' ', "%20").replace('/', "%2F")),
                None => return all,
            }
        }
    }
    pub fn status(&self) -> Value {
        self.page("/v1/status")
    }
    /// One peer's entry.
    pub fn peer(&self, name: &str) -> Option<Value> {
        let peers = self.page("/v1/peers");
        peers["peers"].as_array().unwrap().iter().find(|peer| peer["nodeId"] == name).cloned()
    }
    pub fn is_linked_to(&self, name: &str) -> bool {
        self.peer(name).is_some_and(|peer| peer["state"] == "open")
    }
    #[track_caller]
    pub fn wait_linked(&self, other: &Node) {
        wait(&format!("{} is linked to {}", self.name, other.name), || self.is_linked_to(&other.name).then_some(()));
    }
    /// Everybody else is still served: health answers, a write is stored and read.
    #[track_caller]
    pub fn still_serves(&self) {
        let health = self.ask("GET", "/health", &[], b"");
        assert!(health.status == 200, "{}", health.text());
        let key = format!("probe-{}", FOLDERS.fetch_add(1, Ordering::Relaxed));
        assert_eq!(self.put("still", &key, "1").status, 201);
        assert_eq!(self.value("still", &key).as_deref(), Some("1"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        if thread::panicking() {
            eprintln!("---- log of {} in {}\n{}", self.name, self.folder.path().display(), self.tail());
        }
    }
}

/// The value of `name=` in a log line.
pub fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let value = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name}= in {line}")).1;
    value.split(' ').next().unwrap_or(value)
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &target),
            // Modes go with it, as key files need.
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// What of the tests' data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}
