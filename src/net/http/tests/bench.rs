//! The bench: a server on a free port, and a client that says exactly the bytes that it is told.

use super::super::{Counters, HttpOptions, Listener, serve};
use super::memory::Memory;
use crate::net::PortSetting;
use async_net::TcpStream;
use serde_json::Value;
use smol::LocalExecutor;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::collections::HashMap;
use std::format;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// A server that runs, and what it counts.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) address: SocketAddr,
    pub(crate) service: Rc<Memory>,
    pub(crate) counters: Rc<Counters>,
}

/// Longest a test may take: a hang is a failure.
const TEST_TIME_MAX: Duration = Duration::from_secs(60);

/// Runs a server while `test` runs.
pub(crate) fn with_server<F: Future<Output = ()>>(options: HttpOptions, test: impl FnOnce(Bench) -> F) {
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), PortSetting::Http).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Rc::new(Memory::default());
        let bench = Bench { address, service: service.clone(), counters: options.counters.clone() };
        let server = executor.spawn(serve(listener, service, options, smol::future::pending()));
        let late = async {
            smol::Timer::after(TEST_TIME_MAX).await;
            panic!("the test hangs");
        };
        smol::future::or(test(bench), late).await;
        drop(server);
    }));
}

impl Bench {
    pub(crate) async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), read: Vec::new() }
    }
    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.client().await.ask(method, path, headers, body).await
    }
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], b"").await
    }
    pub(crate) async fn put(&self, path: &str, body: &str) -> Reply {
        self.ask("PUT", path, &[], body.as_bytes()).await
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
    /// Status, code and kind of an error, checked for its shape.
    pub(crate) fn problem(&self) -> (u16, String, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let json = self.json();
        for field in ["type", "title", "detail"] {
            assert!(json[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {json}");
        }
        assert_eq!(json["status"], self.status);
        (self.status, json["code"].as_str().unwrap().to_string(), json["kind"].as_str().unwrap_or("").to_string())
    }
    /// Asserts that it is this error.
    #[track_caller]
    pub(crate) fn is(&self, status: u16, code: &str, kind: &str) {
        assert_eq!(self.problem(), (status, code.to_string(), kind.to_string()), "{}", self.text());
    }
}

impl Client {
    /// Over a connection that was made, and perhaps written to, while the server could not run.
    pub(crate) fn over(stream: std::net::TcpStream) -> Client {
        Client { stream: TcpStream::try_from(stream).unwrap(), read: Vec::new() }
    }
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }
    pub(crate) async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("Host: 127.0.0.1\r\n");
        }
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        let chunked = headers.iter().any(|(name, _)| *name == "Transfer-Encoding");
        if chunked || (method != "PUT" && method != "POST") {
            head.push_str("\r\n");
        } else {
            head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        }
        self.send(head).await;
        // A server that has answered already may have closed: the answer says why.
        let _ = self.stream.write_all(body).await;
        self.reply(method == "HEAD").await.unwrap()
    }
    /// The next answer; `None` at the end of the connection.
    pub(crate) async fn reply(&mut self, head_only: bool) -> Option<Reply> {
        let end = loop {
            match self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if !self.more().await => return None,
                None => {}
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pair = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_lowercase(), value.trim().to_string())
        };
        let headers: HashMap<String, String> = lines.map(pair).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse::<usize>().unwrap());
        let length = if head_only || status == 304 { 0 } else { length };
        while self.read.len() < length {
            assert!(self.more().await, "the answer is cut");
        }
        Some(Reply { status, headers, body: self.read.drain(..length).collect() })
    }
    async fn more(&mut self) -> bool {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.read.extend_from_slice(&piece[..read]);
                true
            }
        }
    }
}
