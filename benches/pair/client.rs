//! Callers of a node: HTTP/1.1 over its Unix socket, as thin as it can be, so that the node is measured and not this.

use super::Fallible;
use super::documents::{COLLECTION, Pattern, document};
use async_net::unix::UnixStream as AsyncStream;
use smol::LocalExecutor;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// One kept-open connection that waits for each answer.
pub(crate) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Fallible<Client> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Client { stream, buffer: Vec::new() })
    }
    /// Status and body of the answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Fallible<(u16, &[u8])> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        loop {
            let held = self.buffer.len();
            self.buffer.resize(held + 16 * 1024, 0);
            let read = self.stream.read(&mut self.buffer[held..])?;
            self.buffer.truncate(held + read);
            if read == 0 {
                return Err("the node closed the connection".into());
            }
            if let Some(answer) = Answer::whole(&self.buffer)? {
                return Ok((answer.status, &self.buffer[answer.body]));
            }
        }
    }
    pub(crate) fn get(&mut self, path: &str) -> Fallible<(u16, &[u8])> {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
    }
    pub(crate) fn put(&mut self, key: &str, value: &str) -> Fallible<()> {
        let (status, body) = self.ask(&put(key, value))?;
        stored(status, body)
    }
    /// Lines of `{"key":…,"value":…}`, as `cbddc import` sends them.
    pub(crate) fn post_lines(&mut self, lines: &[u8]) -> Fallible<()> {
        let head = format!(
            "POST /v1/collections/{COLLECTION}/documents HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            lines.len()
        );
        self.stream.write_all(head.as_bytes())?;
        let (status, body) = self.ask(lines)?;
        let body = String::from_utf8_lossy(body);
        if status == 200 && body.contains("\"failed\":0") {
            return Ok(());
        }
        Err(format!("import answered {status}: {body}").into())
    }
}

pub(crate) fn path(key: &str) -> String {
    format!("/v1/collections/{COLLECTION}/documents/{}", key.replace(':', "%3A"))
}

fn put(key: &str, value: &str) -> Vec<u8> {
    let path = path(key);
    format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{value}", value.len()).into_bytes()
}

fn stored(status: u16, body: &[u8]) -> Fallible<()> {
    match status {
        200 | 201 => Ok(()),
        _ => Err(format!("put answered {status}: {}", String::from_utf8_lossy(body)).into()),
    }
}

/// Many writers at once on connections of their own, each waiting for its answers; one thread carries them all.
pub(crate) fn writers(socket: &Path, writers: u64, pattern: Pattern, range: Range<u64>) -> Fallible<()> {
    let executor = LocalExecutor::new();
    let share = (range.end - range.start) / writers;
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let from = range.start + writer * share;
            executor.spawn(async move {
                let mut stream = AsyncStream::connect(socket).await?;
                let mut buffer = vec![0; 4096];
                for n in from..from + share {
                    stream.write_all(&put(&pattern.key(n), &document(n))).await?;
                    let mut held = 0;
                    loop {
                        let read = stream.read(&mut buffer[held..]).await?;
                        held += read;
                        if read == 0 {
                            return Err("the node closed a writer's connection".into());
                        }
                        if let Some(answer) = Answer::whole(&buffer[..held])? {
                            stored(answer.status, &buffer[answer.body])?;
                            break;
                        }
                    }
                }
                Fallible::Ok(())
            })
        })
        .collect();
    smol::block_on(executor.run(async {
        for task in tasks {
            task.await?;
        }
        Ok(())
    }))
}

struct Answer {
    status: u16,
    body: Range<usize>,
}

impl Answer {
    /// The answer, once all of it is here.
    fn whole(bytes: &[u8]) -> Fallible<Option<Answer>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let head = std::str::from_utf8(&bytes[..end])?;
        let status = head.get(9..12).ok_or("an answer without a status")?.parse()?;
        let mut length = 0;
        for line in head.lines().skip(1) {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let body = end + 4..end + 4 + length;
        Ok((bytes.len() >= body.end).then_some(Answer { status, body }))
    }
}
