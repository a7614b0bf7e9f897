//! What the same machine can do without a node: a sync, a round trip, and plain SQLite that writes two tables.

use super::documents::COLLECTION;
use super::site::Site;
use super::{Fallible, seconds};
use rusqlite::{Connection, params};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

/// Documents in one transaction of the batched floor.
pub(crate) const BATCH: usize = 1_000;

/// A file that is appended to and synced.
pub(crate) struct Disk(File);

impl Disk {
    pub(crate) fn new(folder: &Path) -> Fallible<Disk> {
        Ok(Disk(OpenOptions::new().create(true).append(true).open(folder.join("appended"))?))
    }
    /// Seconds of one append of 4 KiB and its sync.
    pub(crate) fn sync(&mut self) -> Fallible<f64> {
        seconds(|| {
            self.0.write_all(&[b'x'; 4096])?;
            Ok(self.0.sync_all()?)
        })
    }
}

/// Document table and change table, in SQLite as the node keeps it: write-ahead log, `synchronous=FULL`.
pub(crate) struct Plain {
    connection: Connection,
}

impl Plain {
    pub(crate) fn create(path: &Path) -> Fallible<Plain> {
        let _ = fs::remove_file(path);
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA mmap_size = 0;
             PRAGMA cache_size = -2048; PRAGMA wal_autocheckpoint = 1024; PRAGMA journal_size_limit = 4194304;
             CREATE TABLE document (collection TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
                                    PRIMARY KEY (collection, key));
             CREATE TABLE change (seq INTEGER PRIMARY KEY, collection TEXT NOT NULL, key TEXT NOT NULL);",
        )?;
        Ok(Plain { connection })
    }
    /// Writes documents, `batch` in one transaction.
    pub(crate) fn write(&mut self, documents: &[(String, String)], batch: usize) -> Fallible<()> {
        documents.chunks(batch).try_for_each(|documents| self.transaction(documents))
    }
    fn transaction(&mut self, documents: &[(String, String)]) -> Fallible<()> {
        let transaction = self.connection.transaction()?;
        for (key, value) in documents {
            transaction
                .prepare_cached(
                    "INSERT INTO document VALUES (?1, ?2, ?3)
                     ON CONFLICT DO UPDATE SET value = excluded.value",
                )?
                .execute(params![COLLECTION, key, value.as_bytes()])?;
            transaction
                .prepare_cached("INSERT INTO change (collection, key) VALUES (?1, ?2)")?
                .execute(params![COLLECTION, key])?;
        }
        Ok(transaction.commit()?)
    }
}

/// One byte to the other side of the wire and back, between two processes that do nothing else.
pub(crate) struct RoundTrip {
    server: Child,
    client: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
}

/// The arguments with which this program is an end of the round trip.
pub(crate) const ECHO_SERVER: &str = "--echo-server";
pub(crate) const ECHO_CLIENT: &str = "--echo-client";

impl RoundTrip {
    pub(crate) fn start(site: &Site) -> Fallible<RoundTrip> {
        let this = std::env::current_exe()?;
        let address = SocketAddr::new(site.addresses[0], 0).to_string();
        let mut server = site.command(0, &this).args([ECHO_SERVER, &address]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(server.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let mut client = site
            .command(1, &this)
            .args([ECHO_CLIENT, line.trim()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (ask, told) = (client.stdin.take().ok_or("no input")?, client.stdout.take().ok_or("no output")?);
        Ok(RoundTrip { server, client, ask, told: BufReader::new(told) })
    }
    /// Seconds of one.
    pub(crate) fn once(&mut self) -> Fallible<f64> {
        self.ask.write_all(b"\n")?;
        self.ask.flush()?;
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        Ok(line.trim().parse()?)
    }
}

impl Drop for RoundTrip {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Says its address on standard output, then answers one peer.
pub(crate) fn echo_server(address: &str) -> Fallible<()> {
    let listener = TcpListener::bind(address)?;
    println!("{}", listener.local_addr()?);
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// One round trip for each line of standard input, its seconds on standard output.
pub(crate) fn echo_client(address: &str) -> Fallible<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        line?;
        let took = seconds(|| {
            stream.write_all(b"x")?;
            Ok(stream.read_exact(&mut [0])?)
        })?;
        writeln!(output, "{took:.9}")?;
        output.flush()?;
    }
    Ok(())
}
