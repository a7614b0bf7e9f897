//! A client that does its worst against the smallest board: the node neither dies nor starves those who ask like people.
//!
//! Twenty seconds here; `CBDDC_ABUSE_SECONDS=60` is the minute of the promise.

use crate::client::{Connection, document};
use crate::group::Group;
use crate::process::Node;
use crate::program::{self, seconds};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What the smallest board may use, in all.
const MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// Longest time without one answer to those who ask like people. Far beyond what is seen, since the machine that tests
/// is shared; a node that is starved says nothing for as long as it is.
fn starved() -> Duration {
    seconds(15)
}

/// A connection that does not block, as a hostile client keeps hundreds.
fn dial(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}
/// Says as much as goes; `false` once the connection is gone.
fn say(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    !matches!(stream.write(bytes), Err(error) if error.kind() != std::io::ErrorKind::WouldBlock)
}
/// Whether the other side has ended it. What it said is thrown away.
fn is_over(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// Keeps `count` connections that begin with `head` and then say `more` piece by piece, for ever; and reads what comes
/// where `reads` says so.
fn keep(address: SocketAddr, stop: &AtomicBool, count: usize, head: &str, more: &str, reads: bool) {
    let mut held: Vec<TcpStream> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        while held.len() < count {
            let Some(mut stream) = dial(address) else { break };
            say(&mut stream, head.as_bytes());
            held.push(stream);
        }
        held.retain_mut(|stream| (more.is_empty() || say(stream, more.as_bytes())) && !(reads && is_over(stream)));
        thread::sleep(Duration::from_millis(50));
    }
}

/// Connects without an end, a hundred at once, and says a little or nothing.
fn flood(address: SocketAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut held: Vec<TcpStream> = (0..100).filter_map(|_| dial(address)).collect();
        for (nth, stream) in held.iter_mut().enumerate() {
            say(
                stream,
                [&b""[..], b"GET /", b"\xff\xfe\xfd\r\n\r\n", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"][nth % 4],
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Stores the largest documents and asks for pages of them, as fast as they go.
fn large(address: SocketAddr, stop: &AtomicBool) {
    let value = format!("\"{}\"", "x".repeat(250_000));
    let mut nth = 0;
    while !stop.load(Ordering::Relaxed) {
        nth += 1;
        let Ok(stream) = TcpStream::connect(address) else { continue };
        let mut connection = Connection::new(stream, address);
        let path = document("large", &(nth % 12).to_string());
        for _ in 0..3 {
            let _ = connection.ask("PUT", &path, &[], value.as_bytes());
            let _ = connection.ask("GET", "/v1/collections/large/documents?limit=1000", &[], b"");
        }
    }
}

/// What somebody saw who asked like a person.
#[derive(Default)]
struct Seen {
    /// Sorted in the end.
    answered_ms: Vec<u64>,
    refused: usize,
    longest_gap: Duration,
}

impl Seen {
    fn percentile(&self, of_hundred: usize) -> u64 {
        let at = (self.answered_ms.len() * of_hundred / 100).min(self.answered_ms.len().saturating_sub(1));
        self.answered_ms.get(at).copied().unwrap_or(u64::MAX)
    }
}

/// Asks again and again, each time on a connection of its own, and takes the time of what is answered.
fn ask_like_people(
    address: SocketAddr,
    stop: &AtomicBool,
    mut ask: impl FnMut(&mut Connection) -> Option<bool>,
) -> Seen {
    let mut seen = Seen::default();
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let answered = TcpStream::connect(address).ok().and_then(|stream| ask(&mut Connection::new(stream, address)));
        seen.longest_gap = seen.longest_gap.max(last.elapsed());
        if answered == Some(true) {
            seen.answered_ms.push(began.elapsed().as_millis() as u64);
            last = Instant::now();
        } else {
            seen.refused += 1;
        }
        thread::sleep(Duration::from_millis(50));
    }
    seen.answered_ms.sort_unstable();
    seen
}

fn resident_peak_bytes(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.process().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Processor time that the process has had, in its own code and in the kernel.
fn processor_seconds(node: &Node) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.process().as_raw_nonzero())).unwrap();
    let behind_name = stat.rsplit_once(") ").unwrap().1;
    let ticks: u64 = behind_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    ticks / 100
}

#[test]
fn a_client_that_does_its_worst_neither_kills_nor_starves_the_smallest_board() {
    let seconds = std::env::var("CBDDC_ABUSE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let group = Group::with_memory(MEMORY_BYTES);
    let mut node = Node::new("smallest").set("Board", "pi-zero-w").set("Persistence__MaxDatabaseMb", "64");
    match &group {
        Ok(group) => node = node.in_group(group.folder()),
        // Measured all the same, below.
        Err(reason) => eprintln!("no control group, memory is measured and not bounded: {reason}"),
    }
    node.start();
    assert!(node.log().contains("board=pi-zero-w"));
    let address = node.http();
    let host = "Host: 127.0.0.1\r\n";
    let put = |length: &str| format!("PUT {} HTTP/1.1\r\n{host}{length}\r\n\r\n[", document("c", "slow"));
    let (sized, chunked) = (put("Content-Length: 262144"), put("Transfer-Encoding: chunked"));
    let headers = format!("GET /health HTTP/1.1\r\n{host}{}", format!("X-Large: {}\r\n", "x".repeat(4000)).repeat(7));
    let bulk = format!(
        "POST /v1/collections/bulk/documents HTTP/1.1\r\n{host}Content-Type: application/x-ndjson\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    let line = format!("{{\"key\":\"k\",\"value\":\"{}\"}}\n", "y".repeat(8000));
    let lines = format!("{:x}\r\n{line}\r\n", line.len());
    let pages = format!("GET /v1/collections/large/documents HTTP/1.1\r\n{host}\r\n").repeat(100);
    let feed = format!("GET /v1/changes?since=now HTTP/1.1\r\n{host}Accept: text/event-stream\r\n\r\n");

    let stop = AtomicBool::new(false);
    let (health, writes) = thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(|| keep(address, stop, 10, &feed, "", true));
        scope.spawn(|| keep(address, stop, 30, &sized, " ", true));
        scope.spawn(|| keep(address, stop, 30, &chunked, "1\r\n \r\n", true));
        scope.spawn(|| keep(address, stop, 30, &headers, "X: 1\r\n", true));
        scope.spawn(|| keep(address, stop, 10, &bulk, &lines, true));
        scope.spawn(|| keep(address, stop, 10, &pages, "", false));
        scope.spawn(|| flood(address, stop));
        scope.spawn(|| large(address, stop));
        scope.spawn(|| large(address, stop));
        let health = scope.spawn(|| {
            ask_like_people(address, stop, |connection| {
                connection.ask("GET", "/health", &[], b"").ok().map(|answer| answer.status == 200)
            })
        });
        let mut nth = 0;
        let writes = scope.spawn(move || {
            ask_like_people(address, stop, |connection| {
                nth += 1;
                let path = document("people", &nth.to_string());
                let stored = connection.ask("PUT", &path, &[], b"1").ok()?.status == 201;
                Some(stored && connection.ask("GET", &path, &[], b"").ok()?.status == 200)
            })
        });
        thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        (health.join().unwrap(), writes.join().unwrap())
    });
    let peak = resident_peak_bytes(&node);
    eprintln!(
        "{seconds} s of abuse: {} s of processor, resident peak {} KiB, group peak {} KiB; /health {} answered, {} not, p50 {} ms, p99 {} ms, \
         longest without {:?}; write and read {} answered, {} not, p99 {} ms, longest without {:?}",
        processor_seconds(&node),
        peak / 1024,
        group.as_ref().ok().and_then(Group::peak_bytes).unwrap_or(0) / 1024,
        health.answered_ms.len(),
        health.refused,
        health.percentile(50),
        health.percentile(99),
        health.longest_gap,
        writes.answered_ms.len(),
        writes.refused,
        writes.percentile(99),
        writes.longest_gap,
    );
    if let Ok(group) = &group {
        assert_eq!(group.killed(), 0, "the kernel killed it");
    }
    assert!(program::emulated() || peak <= MEMORY_BYTES, "{peak} bytes");
    assert!(health.longest_gap < starved() && !health.answered_ms.is_empty(), "health is starved");
    // However slow the machine is: who asks is not sent away for the sake of who only holds places.
    let (answered, not) = (health.answered_ms.len(), health.refused);
    assert!(answered > 2 * not, "health was answered {answered} times and {not} times not");
    assert!(writes.longest_gap < starved() && !writes.answered_ms.is_empty(), "writers are starved");
    // And what was answered is there, once it is quiet again.
    node.still_serves();
    node.stop_cleanly();
}
