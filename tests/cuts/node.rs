//! One node's store on a bed, with what it has promised to callers and to its peer.
//!
//! Lock-step: each request is answered before the next step, so a seed is the same run again. A group of requests that
//! share a commit is made by holding the writing thread until all of them wait.

use crate::backups::{self, Promised};
use crate::bed::{Bed, Plan};
use crate::media::{Cut, Media};
use crate::own::Own;
use cbddc::Error;
use cbddc::id::{DeviceId, NodeId};
use cbddc::replica::{Knowledge, Members, Reply, Request};
use cbddc::row::{Rank, Row, RowKey};
use cbddc::store::{Backup, BackupOrder, Options, Recovery, Restored, Store};
use cbddc::time::Reading;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How a run keeps its databases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) wal: bool,
    pub(crate) log_bytes: u64,
    pub(crate) idle: Duration,
    pub(crate) min_free_bytes: u64,
    /// A damaged database is recovered; peers are said to be there.
    pub(crate) recovers: bool,
}

impl Kept {
    pub(crate) fn new(wal: bool) -> Kept {
        Kept { wal, log_bytes: 64 * 1024, idle: Duration::from_secs(3600), min_free_bytes: 0, recovers: false }
    }
}

/// What a caller was told.
#[derive(Debug)]
pub(crate) enum Answer {
    Done(Box<(Reply, Knowledge)>),
    /// It may have happened.
    Unknown(String),
    /// It has not.
    Not(String),
}

pub(crate) struct Node {
    pub(crate) device: DeviceId,
    pub(crate) name: NodeId,
    pub(crate) bed: Arc<Bed>,
    pub(crate) store: Option<Store>,
    pub(crate) kept: Kept,
    /// What was answered last: no later start may know less.
    pub(crate) known: Option<Knowledge>,
    pub(crate) members: Members,
    /// For each key the highest version that a caller or the peer was promised.
    pub(crate) promised: Promised,
    /// Requests that nobody was promised anything about: they may have happened.
    pub(crate) open_requests: BTreeSet<u64>,
    /// Requests whose callers were told that they did not happen.
    pub(crate) denied: BTreeSet<u64>,
    /// A bootstrap was asked for and not answered.
    pub(crate) bootstrapping: bool,
    /// A restore was begun: what stands there next may be the backup.
    pub(crate) restoring: bool,
    /// The newest backup that was answered: its name, and what was promised before it began.
    pub(crate) backup: Option<(String, Promised)>,
    /// What was promised before each backup that was begun since: the newest there may be one of these.
    pub(crate) backups_begun: Vec<Promised>,
    /// Tombstones may have been dropped since the last look.
    pub(crate) dropping: bool,
    /// A planned error has struck: requests before others may be missing.
    pub(crate) hurt: bool,
    pub(crate) random: fastrand::Rng,
}

pub(crate) const DATABASE: &str = "data/cbddc.db";

impl Node {
    pub(crate) fn new(at: u8, kept: Kept, seed: u64) -> Node {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_mul(2).wrapping_add(u64::from(at)));
        let bed = Bed::new(Media::default(), Plan::default(), random.u64(..));
        Node {
            device: DeviceId([at + 1; 32]),
            name: NodeId::new(["a", "b", "c"][usize::from(at)]).unwrap(),
            bed,
            store: None,
            kept,
            known: None,
            members: Vec::new(),
            promised: BTreeMap::new(),
            open_requests: BTreeSet::new(),
            denied: BTreeSet::new(),
            bootstrapping: false,
            restoring: false,
            backup: None,
            backups_begun: Vec::new(),
            dropping: false,
            hurt: false,
            random,
        }
    }
    pub(crate) fn options(&self) -> Options {
        let recovery = Recovery { backups: self.bed.path(backups::FOLDER), peers: true };
        Options {
            recovery: self.kept.recovers.then_some(recovery),
            wal: self.kept.wal,
            log_bytes: self.kept.log_bytes,
            idle: self.kept.idle,
            min_free_bytes: self.kept.min_free_bytes,
            page_cache_bytes: 256 * 1024,
            disk: Arc::new(Own(Arc::clone(&self.bed))),
            ..Options::new(self.bed.path(DATABASE))
        }
    }
    /// Starts; the error is the store's.
    pub(crate) fn start(&mut self) -> Result<(), String> {
        crate::vfs::register();
        let (options, random) = (self.options(), &mut self.random);
        let opened = Store::open(options, &mut || random.u64(..));
        self.note_fault();
        let (store, opened) = opened.map_err(|error| error.to_string())?;
        self.store = Some(store);
        if let Some(known) = &self.known {
            crate::ledger::no_less(known, &opened.knowledge, self.bootstrapping)?;
        }
        // The start was written durably before this: it counts as answered.
        if self.known.as_ref().is_none_or(|known| known.replica == opened.knowledge.replica) {
            self.known = Some(opened.knowledge);
        }
        self.members = opened.members;
        Ok(())
    }
    /// A planned error may have struck: from here on the disk may refuse. Behind everything that the store does.
    pub(crate) fn note_fault(&mut self) {
        self.hurt |= self.bed.lock().failed > 0;
    }
    pub(crate) fn is_dead(&self) -> bool {
        self.bed.is_dead()
    }
    fn store(&self) -> &Store {
        self.store.as_ref().expect("the node has started")
    }

    /// One request, answered.
    pub(crate) fn ask(&mut self, now: Reading, request: Request) -> Answer {
        let mut answers = self.ask_together(now, vec![request]);
        answers.pop().expect("one answer for one request")
    }
    /// Requests that wait together: the first commits alone, the others share the next commit.
    pub(crate) fn ask_together(&mut self, now: Reading, requests: Vec<Request>) -> Vec<Answer> {
        let store = self.store().clone();
        let together = requests.len() > 1;
        if together {
            self.bed.hold();
        }
        let mut waiting = Vec::new();
        for request in requests {
            waiting.push(store.submit(now, request));
            if together && waiting.len() == 1 {
                self.bed.wait_held();
            }
        }
        self.bed.release();
        let answers: Vec<_> = waiting.into_iter().map(smol::block_on).collect();
        // What the writing thread does after it has answered is part of this step.
        let _ = smol::block_on(store.submit(now, Request::Records));
        self.note_fault();
        answers
            .into_iter()
            .map(|answer| match answer {
                Ok((reply, knowledge)) => {
                    if self.known.as_ref().is_none_or(|known| known.version <= knowledge.version) {
                        self.known = Some(knowledge.clone());
                    }
                    Answer::Done(Box::new((reply, knowledge)))
                }
                Err(error) if error.to_string().contains("outcome is unknown") => Answer::Unknown(error.to_string()),
                // What is said after the power has gone is heard by nobody.
                Err(error) if self.bed.is_dead() => Answer::Unknown(error.to_string()),
                Err(error) => Answer::Not(error.to_string()),
            })
            .collect()
    }
    pub(crate) fn promise(&mut self, key: &RowKey, rank: Rank) {
        let promised = self.promised.entry(key.clone()).or_insert(rank);
        *promised = rank.max(*promised);
    }

    /// From here on what was read is what is promised: everybody may have read it.
    pub(crate) fn rebase(&mut self, rows: &[Row], knowledge: Knowledge) {
        self.promised = rows.iter().map(|row| (row.key.clone(), row.rank())).collect();
        self.known = Some(knowledge);
        (self.bootstrapping, self.restoring, self.dropping) = (false, false, false);
        self.open_requests.clear();
    }

    /// A backup, and what it must hold from here on where it was answered. The error within is the store's.
    pub(crate) fn backup(&mut self, now: u64) -> Result<Result<Backup, Error>, String> {
        let store = self.store().clone();
        let promised = self.promised.clone();
        self.backups_begun.push(promised.clone());
        let order = BackupOrder { folder: self.bed.path(backups::FOLDER), keep: backups::KEEP, now };
        let made = smol::block_on(store.backup(order));
        self.note_fault();
        if let Ok(made) = &made
            && !made.unchanged
        {
            let name = made.path.file_name().and_then(|name| name.to_str()).ok_or("backup: no name")?;
            self.backup = Some((name.into(), promised));
            self.backups_begun.clear();
        }
        Ok(made)
    }
    /// The newest backup takes the place of the database: another identity and older rows are right from here on.
    pub(crate) fn restore(&mut self) -> Result<Restored, Error> {
        let _ = self.stop();
        (self.bootstrapping, self.restoring) = (true, true);
        let (database, file) = (self.bed.path(DATABASE), self.bed.path(backups::LATEST));
        let done = Store::restore_on(&Own(Arc::clone(&self.bed)), &database, &file);
        self.note_fault();
        done
    }

    /// An orderly stop.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let Some(store) = self.store.take() else { return Ok(()) };
        let closed = smol::block_on(store.close());
        self.note_fault();
        closed.map_err(|error| error.to_string())
    }
    /// The database, which is stopped, becomes one of the first schema, so that its next start migrates. Says whether it did: not
    /// while rows wait for a person, which that schema had no place for.
    pub(crate) fn age(&self) -> Result<bool, rusqlite::Error> {
        use rusqlite::{Connection, OpenFlags};
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sqlite = Connection::open_with_flags_and_vfs(self.bed.path(DATABASE), flags, crate::vfs::NAME)?;
        sqlite.pragma_update(None, "synchronous", "EXTRA")?;
        if sqlite.query_row("SELECT EXISTS (SELECT 1 FROM recovered)", [], |row| row.get(0))? {
            return Ok(false);
        }
        sqlite.execute_batch("BEGIN; DROP TABLE recovered; UPDATE schema SET version = 1; COMMIT")?;
        sqlite.close().map(|()| true).map_err(|(_, error)| error)
    }
    /// The power goes, if it has not gone yet; the machine stands on what is left, not started.
    pub(crate) fn cut(&mut self, how: Cut) {
        let left = self.bed.cut(how);
        self.stand_on(left);
    }
    /// `kill -9`: the page cache stays.
    pub(crate) fn kill(&mut self) {
        let left = self.bed.kill();
        self.stand_on(left);
    }
    fn stand_on(&mut self, left: Media) {
        // Its threads find a dead disk and end.
        let _ = self.stop();
        self.bed.forget();
        self.bed = Bed::new(left, Plan::default(), self.random.u64(..));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.bed.kill();
        let _ = self.stop();
        self.bed.forget();
    }
}
