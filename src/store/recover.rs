//! A database that is damaged in its structure gives way to a new one: it is set aside, the newest good backup is brought
//! back or an empty one begun, and every whole row of the damaged one is carried over. Peers fill in the rest.
//!
//! Nothing is deleted and nothing is overwritten. A note beside the database says what is under way, so that a start after a
//! power cut at any instant takes it up where it stood; carrying a row twice changes nothing.

mod note;

use super::commit::Open;
use super::disk::Disk;
use super::failure::{self, Failure};
use super::open::{beside, folder_of, sync_folder};
use super::salvage::{self, Remains};
use super::space::file_bytes;
use super::state::State;
use super::table::SqlTable;
use super::{Options, aside, restore, shelf};
use crate::error::Error;
use crate::id::{ReplicaId, VersionVector};
use crate::replica::Table;
use crate::row::Row;
use crate::time::{Reading, Stamp};
pub use note::Incident;
use note::{INCIDENT, UNDER_WAY, UnderWay, note, under_way, with_those_before};
pub(super) use note::{acknowledge, incident, is_under_way, put_note_right};
use rusqlite::wal::CheckpointMode;
use std::format;
use std::io;
use std::path::{Path, PathBuf};
use std::string::ToString;
use std::vec::Vec;

/// Rows that are carried over in one transaction.
const CARRIED_AT_ONCE: usize = 512;
const CARRIED_BYTES: usize = 1024 * 1024;

/// Whether and from what a damaged database may be recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Where backups are.
    pub backups: PathBuf,
    /// Peers are configured, so that somebody may fill in what is missing.
    pub peers: bool,
}

/// Whether something stands at a path. That the disk does not answer is no answer.
fn is_there(disk: &dyn Disk, at: &Path) -> Result<bool, Error> {
    disk.entry(at).map(|there| there.is_some()).map_err(|error| failure::file("looking for", at, error))
}

/// Sets the damaged database aside, if there is anything to take its place from. SQLite has it closed.
///
/// # Errors
/// There is neither a backup nor a peer, or recovery is not wanted: nothing was touched. The disk's.
pub(super) fn begin(options: &Options, found: &str) -> Result<(), Error> {
    let (disk, path) = (&*options.disk, &options.path);
    if is_under_way(disk, path) {
        return Ok(());
    }
    let at = path.display();
    let by_hand = "restore a backup with 'cbddc restore FILE', or move the file away with its logs to begin empty and rejoin the peers";
    let Some(recovery) = &options.recovery else {
        let message = format!(
            "{at} is damaged: {found}; Persistence.AutoRecover is off, so it is left as it is. What is whole can be taken out with \
             'cbddc export COLLECTION --file {at}' while the node is stopped; then {by_hand}"
        );
        return Err(Error::DatabaseCorruption { message, source: None });
    };
    log::error!("event=DatabaseDamaged path={at} cause=\"{found}\"");
    let remains = salvage::survey(disk, path).map_err(|error| failure::file("reading", path, error))?;
    let peers = recovery.peers || remains.members_unread || remains.members.values().any(|member| member.tracked);
    if !peers && shelf::newest_good(disk, &recovery.backups).is_none() {
        let message = format!(
            "{at} is damaged: {found}; {}; there is neither a backup nor a peer, so it is left as it is and only read. What is whole can be \
             taken out with 'cbddc export COLLECTION --file {at}' while the node is stopped; then {by_hand}",
            remains.said()
        );
        return Err(Error::DatabaseCorruption { message, source: None });
    }
    let (needed, free) = (room_needed(options), free_bytes(options)?);
    if free < needed {
        let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
        let message = format!(
            "{at} is damaged: {found}; a recovery needs {} MiB beside it and {} MiB are free, so it is left as it is: free some \
             space and start the node again",
            mib(needed),
            mib(free)
        );
        return Err(Error::DatabaseCorruption { message, source: None });
    }
    let set_aside = aside::free_name(disk, path)?;
    let under_way = UnderWay { found: found.to_string(), set_aside, backup: None };
    note(disk, path, UNDER_WAY, &under_way)
}

/// Whether there is a backup that a recovery would bring back.
pub(super) fn has_backup(options: &Options) -> bool {
    let good = |recovery: &Recovery| shelf::newest_good(&*options.disk, &recovery.backups).is_some();
    options.recovery.as_ref().is_some_and(good)
}

/// What is carried over may become as large as what is set aside, and its log and the bound on free space come on top.
fn room_needed(options: &Options) -> u64 {
    let (disk, path) = (&*options.disk, &options.path);
    file_bytes(disk, path) + file_bytes(disk, &beside(path, "-wal")) + 2 * options.log_bytes + options.min_free_bytes
}
fn free_bytes(options: &Options) -> Result<u64, Error> {
    let free = options.disk.free_bytes(&options.path);
    free.map_err(|error| failure::file("asking for free space", &options.path, error))
}

/// Moves the damaged database out of the way and puts a backup, or nothing, in its place; unless that is done already.
pub(super) fn make_way(options: &Options) -> Result<(), Error> {
    let (disk, path) = (&*options.disk, &options.path);
    let under_way = under_way(disk, path)?;
    let old = &under_way.set_aside;
    if !is_there(disk, old)? && is_there(disk, path)? {
        disk.rename(path, old).map_err(|error| failure::file("setting aside", path, error))?;
        sync_folder(disk, folder_of(path))?;
    }
    if !is_there(disk, path)? {
        // Logs that are still there are those of the damaged one.
        aside::logs(disk, path, old)?;
        log::error!("event=DatabaseSetAside path={} as={}", path.display(), old.display());
        match options.recovery.as_ref().and_then(|recovery| shelf::newest_good(disk, &recovery.backups)) {
            Some(backup) => {
                let under_way = UnderWay { backup: Some(backup.clone()), ..under_way };
                note(disk, path, UNDER_WAY, &under_way)?;
                restore::copy_in_place(disk, &backup, path)?;
                log::warn!("event=BackupRestored path={}", backup.display());
            }
            None => disk.create(path).map_err(|error| failure::file("creating the database", path, error))?,
        }
    }
    // A backup is marked as one: from here on it is the database, and takes a new identity.
    restore::notice(disk, path).map(drop)
}

/// Carries over what is whole in the database that was set aside; the new one is open, and nobody uses it yet.
pub(super) fn carry_over(
    connection: &rusqlite::Connection,
    options: &Options,
    state: &mut State,
    version: u64,
    random: &mut dyn FnMut() -> u64,
) -> Result<Incident, Failure> {
    let (disk, path) = (&*options.disk, &options.path);
    let under_way = under_way(disk, path)?;
    let old = &under_way.set_aside;
    let failed = |error: io::Error| Failure::from(failure::file("reading", old, error));
    let remains = salvage::survey(disk, old).map_err(failed)?;
    succeed(connection, state, &remains, version, random)?;
    let mut carrying = Carrying {
        connection,
        state,
        confirmed: remains.members.values().map(|member| member.confirmed.clone()).collect(),
        waiting: Vec::new(),
        bytes: 0,
        carried: 0,
        logged: 0,
        log_bytes: if options.wal { options.log_bytes } else { u64::MAX },
        failed: None,
    };
    let known = remains.knowledge.as_ref();
    let unsent = |row: &Row| known.is_some_and(|k| row.dot.origin == k.replica && row.dot.seq > k.sent);
    salvage::each_row(disk, old, &remains, |_, row| {
        if !unsent(&row) {
            carrying.take(row);
        }
    })
    .map_err(failed)?;
    carrying.flush(true)?;
    // Proved never to have been sent: written again as new where this node has to bootstrap.
    salvage::each_row(disk, old, &remains, |_, row| {
        if unsent(&row) {
            carrying.take(row);
        }
    })
    .map_err(failed)?;
    carrying.flush(false)?;
    let carried = carrying.carried;
    let incident = Incident {
        found: under_way.found.clone(),
        set_aside: old.clone(),
        backup: under_way.backup.clone(),
        carried,
        damaged: remains.damaged,
        unreadable_pages: remains.unreadable,
        missing_at_least: remains.missing_at_least,
        missing_at_most: remains.missing_at_most,
        earlier: Vec::new(),
    };
    let incident = with_those_before(disk, path, incident);
    note(disk, path, INCIDENT, &incident)?;
    let done = beside(path, UNDER_WAY);
    disk.remove(&done).map_err(|error| Failure::from(failure::file("removing", &done, error)))?;
    sync_folder(disk, folder_of(path))?;
    log::warn!(
        "event=DatabaseRecovered path={} carried={} damaged={} unreadablePages={} missingAtLeast={} missingAtMost={}",
        path.display(),
        carried,
        remains.damaged,
        remains.unreadable,
        remains.missing_at_least,
        remains.missing_at_most.map_or_else(|| "unknown".to_string(), |most| most.to_string())
    );
    Ok(incident)
}

/// The new identity, and what was known of members.
fn succeed(
    connection: &rusqlite::Connection,
    state: &mut State,
    remains: &Remains,
    version: u64,
    random: &mut dyn FnMut() -> u64,
) -> Result<(), Failure> {
    let open = Open::begin(connection)?;
    let mut knowledge = state.knowledge.clone();
    let old = remains.knowledge.as_ref();
    let mut above: Vec<ReplicaId> = remains.highest.into_iter().chain(old.map(|old| old.replica)).collect();
    above.extend(remains.members.values().map(|member| member.replica));
    let hlc = old.map_or(Stamp::ZERO, |old| old.hlc.last());
    knowledge.succeed(&above, hlc, version.max(old.map_or(0, |old| old.version)) + 1, random());
    for (device, member) in &remains.members {
        // The new database claims less than the old one: every stream is asked for from its start.
        let member = crate::replica::MemberState { cursor: 0, ..member.clone() };
        SqlTable::new(connection, state).set_member(device, &member)?;
    }
    for row in &remains.aside {
        if SqlTable::new(connection, state).keep_recovered(row)? {
            knowledge.recovered += 1;
        }
    }
    state.set_knowledge(knowledge);
    state.store(connection)?;
    Ok(open.commit()?)
}

/// Rows on their way, some at a time.
struct Carrying<'a> {
    connection: &'a rusqlite::Connection,
    state: &'a mut State,
    confirmed: Vec<VersionVector>,
    waiting: Vec<Row>,
    bytes: usize,
    carried: u64,
    /// Bytes that were written since the log was copied back, and how many may be.
    logged: u64,
    log_bytes: u64,
    failed: Option<Failure>,
}

impl Carrying<'_> {
    fn take(&mut self, row: Row) {
        self.bytes += row.encoded_bytes();
        self.waiting.push(row);
        if (self.waiting.len() >= CARRIED_AT_ONCE || self.bytes >= CARRIED_BYTES) && self.failed.is_none() {
            self.failed = self.write(false).err();
        }
    }
    /// Writes what waits; with `sent`, all that was carried so far may be known to somebody.
    fn flush(&mut self, sent: bool) -> Result<(), Failure> {
        match self.failed.take() {
            Some(failure) => Err(failure),
            None => self.write(sent),
        }
    }
    fn write(&mut self, sent: bool) -> Result<(), Failure> {
        let open = Open::begin(self.connection)?;
        let mut knowledge = self.state.knowledge.clone();
        // Stamps are as they were: no clock is asked.
        let now = Reading { millis: 0, believed: false };
        for row in std::mem::take(&mut self.waiting) {
            let mut table = SqlTable::new(self.connection, self.state);
            self.carried += u64::from(knowledge.carry(&mut table, now, row, &self.confirmed)?);
        }
        if sent {
            knowledge.count_all_as_sent();
        }
        knowledge.version += 1;
        self.logged += std::mem::take(&mut self.bytes) as u64;
        self.state.set_knowledge(knowledge);
        self.state.store(self.connection)?;
        open.commit()?;
        if self.logged >= self.log_bytes {
            self.connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::TRUNCATE)?;
            self.logged = 0;
        }
        Ok(())
    }
}
