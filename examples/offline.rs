//! A program that sends readings to a remote node and keeps them while that cannot be reached.
//!
//! `cargo run --example offline -- ADDRESS COLLECTION` reads lines of `KEY JSON` and puts each to the node whose HTTP API
//! is at ADDRESS. The queue is the crate's [`OfflineQueue`]: what delivering means is the closure's affair, here a request
//! to another machine. It holds what could not be delivered, in order, until `flush` has delivered it; the oldest is tried
//! first, and nothing overtakes. It is in memory: a program that must not lose what waits when it ends spills it
//! (`cbddc::queue::spill` has the bytes), as the node does with its own.

use cbddc::queue::{Full, OfflineQueue, OperationKind, PendingOperation};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Operations and bytes that may wait: a bound that the program chooses for its machine.
const WAITING: (usize, usize) = (1000, 4 * 1024 * 1024);
/// While something waits it is tried this often.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// A node that says nothing for so long is not there.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(collection)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: offline ADDRESS COLLECTION < lines of KEY JSON"));
    };
    let (said, lines) = mpsc::sync_channel(16);
    // Reading waits, and what waits for the node must be tried again meanwhile.
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|line| said.send(line)));
    let mut outbox = Outbox::new(&address, &collection);
    outbox.serve(&lines, TRY_AGAIN);
    Ok(())
}

/// What is to be sent, and where to.
struct Outbox {
    address: String,
    collection: String,
    queue: OfflineQueue,
}

impl Outbox {
    fn new(address: &str, collection: &str) -> Outbox {
        let queue = OfflineQueue::new(WAITING.0, WAITING.1);
        Outbox { address: address.to_string(), collection: collection.to_string(), queue }
    }

    /// Sends each line, until there are no more and nothing waits.
    fn serve(&mut self, lines: &Receiver<String>, try_again: Duration) {
        loop {
            let line = match self.queue.is_empty() {
                true => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => lines.recv_timeout(try_again),
            };
            match line {
                Ok(line) => self.accept(&line, try_again),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.queue.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => thread::sleep(try_again),
            }
            self.flush();
        }
    }

    /// Takes a line in. A full queue gives the operation back: then this waits, and so does whoever writes the lines.
    fn accept(&mut self, line: &str, try_again: Duration) {
        let Some((key, json)) = line.split_once(' ') else {
            return eprintln!("not KEY JSON: {line}");
        };
        let mut operation = PendingOperation::put(self.collection.as_str(), key, json);
        while let Err(Full(back)) = self.queue.enqueue(operation) {
            operation = back;
            if self.flush().0 == 0 {
                thread::sleep(try_again);
            }
        }
    }

    /// Delivers what waits, oldest first, up to the first that cannot be delivered now; says how many were and were not.
    fn flush(&mut self) -> (usize, usize) {
        let address = self.address.as_str();
        let flush = self.queue.flush(|operation| async move { deliver(address, &operation) });
        let (delivered, failed) = smol::block_on(flush);
        if failed > 0 {
            eprintln!("{address} does not take it; {} wait", self.queue.len());
        } else if delivered > 1 {
            eprintln!("{delivered} that waited are delivered");
        }
        (delivered, failed)
    }
}

/// One operation to the node. An error means that it must be tried again; it may have arrived all the same, and putting
/// the same document twice changes nothing.
fn deliver(address: &str, operation: &PendingOperation) -> io::Result<()> {
    let method = match operation.kind {
        OperationKind::Put => "PUT",
        OperationKind::Delete => "DELETE",
    };
    let path = format!("/v1/collections/{}/documents/{}", encoded(&operation.collection), encoded(&operation.key));
    match ask(address, method, &path, &operation.data)? {
        // 202 is good too: the node has it in its own queue.
        200..=299 => Ok(()),
        // The document is at fault, not the way: it would never be taken, and must not hold up the others.
        status @ (400 | 413) => {
            eprintln!("{} is refused for good: {status}", operation.key);
            Ok(())
        }
        status => Err(io::Error::other(format!("the node answers {status}"))),
    }
}

/// A request of a few lines; a program with an HTTP library uses that.
fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> io::Result<u16> {
    let target = address.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = BufReader::new(stream.take(64 * 1024));
    let mut first = String::new();
    answer.read_line(&mut first)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other("the answer is not HTTP"))
}

fn encoded(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    name.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cbddc::{Config, Node};
    use smol::LocalExecutor;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::path::{Path, PathBuf};
    use std::rc::Rc;

    /// A node on a thread of its own, until it is told to stop.
    struct Remote {
        stop: smol::channel::Sender<()>,
        thread: thread::JoinHandle<()>,
    }
    impl Remote {
        fn start(folder: &Path, http: SocketAddr) -> (Remote, SocketAddr) {
            let (stop, stopped) = smol::channel::bounded::<()>(1);
            let (said, address) = mpsc::channel();
            let folder = folder.to_path_buf();
            let thread = thread::spawn(move || {
                let config = Config::builder().data_directory(&folder).node_id("remote").tcp_port(0).discovery(false);
                let config = config.http_address(Some(http)).build().unwrap();
                let executor = Rc::new(LocalExecutor::new());
                smol::block_on(executor.run(async {
                    let node = Node::start(executor.clone(), config).await.unwrap();
                    said.send(node.http_address().unwrap()).unwrap();
                    let _ = stopped.recv().await;
                    node.shutdown().await.unwrap();
                }));
            });
            let address = address.recv().unwrap();
            (Remote { stop, thread }, address)
        }
        fn stop(self) {
            drop(self.stop);
            self.thread.join().unwrap();
        }
    }

    fn documents(folder: &Path) -> Vec<(String, String)> {
        let config = Config::builder().data_directory(folder).node_id("remote").tcp_port(0).discovery(false);
        let config = config.http_address(None).build().unwrap();
        let executor = Rc::new(LocalExecutor::new());
        smol::block_on(executor.run(async {
            let node = Node::start(executor.clone(), config).await.unwrap();
            let query = cbddc::document::Query { limit: 1000, ..Default::default() };
            let page = node.collection("readings").list(&query).await.unwrap();
            node.shutdown().await.unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            page.documents.into_iter().map(|document| (document.key, text(document.value))).collect()
        }))
    }

    fn folder(of: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("cbddc-offline-{of}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_is_said_while_the_node_is_away_is_delivered_when_it_is_back_and_nothing_is_lost() {
        let folder = folder("away");
        // An address of its own, so that its port is free when the node comes back.
        let own = Ipv4Addr::new(127, 32 | (std::process::id() >> 8) as u8 & 31, std::process::id() as u8, 9);
        let (remote, address) = Remote::start(&folder, SocketAddr::from((own, 0)));
        let mut outbox = Outbox::new(&address.to_string(), "readings");
        let say = |outbox: &mut Outbox, line: &str| outbox.accept(line, Duration::from_millis(1));
        say(&mut outbox, "a 1");
        assert_eq!(outbox.flush(), (1, 0));
        remote.stop();
        for n in 0..50 {
            say(&mut outbox, &format!("k{n:02} {{\"n\":{n}}}"));
            assert_eq!(outbox.flush(), (0, 1), "nobody is there, and only the oldest is tried");
        }
        // The later of two wins, as it was said.
        say(&mut outbox, "a 2");
        assert_eq!(outbox.queue.len(), 51);
        let (remote, _) = Remote::start(&folder, address);
        // A document that is none is refused for good and holds nobody up.
        say(&mut outbox, "bad {");
        say(&mut outbox, "z 3");
        assert_eq!(outbox.flush(), (53, 0));
        assert!(outbox.queue.is_empty());
        remote.stop();
        let stored = documents(&folder);
        assert_eq!(stored.len(), 52);
        assert_eq!(stored[0], ("a".to_string(), "2".to_string()));
        for n in 0..50 {
            assert_eq!(stored[1 + n], (format!("k{n:02}"), format!("{{\"n\":{n}}}")));
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_full_queue_holds_up_who_says_more_until_the_node_is_back() {
        let folder = folder("full");
        let own = Ipv4Addr::new(127, 32 | (std::process::id() >> 8) as u8 & 31, std::process::id() as u8, 10);
        let (remote, address) = Remote::start(&folder, SocketAddr::from((own, 0)));
        remote.stop();
        let mut outbox = Outbox::new(&address.to_string(), "readings");
        outbox.queue = OfflineQueue::new(3, 1 << 20);
        let (said, lines) = mpsc::sync_channel(0);
        let serving = thread::spawn(move || outbox.serve(&lines, Duration::from_millis(20)));
        let saying = thread::spawn(move || (0..10).for_each(|n| said.send(format!("k{n} {n}")).unwrap()));
        let (remote, _) = Remote::start(&folder, address);
        saying.join().unwrap();
        serving.join().unwrap();
        remote.stop();
        assert_eq!(documents(&folder).len(), 10);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
