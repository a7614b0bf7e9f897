//! A database that is damaged in its structure gives way to a new one: it is set aside, the newest good backup is brought
//! back or an empty one begun, and every whole row of the damaged one is carried over. Peers fill in the rest.
//!
//! Nothing is deleted and nothing is overwritten. A note beside the database says what is under way, so that a start after a
//! power cut at any instant takes it up where it stood; carrying a row twice changes nothing.

use super::commit::Open;
use super::disk::{Disk, Entry};
use super::failure::{self, Failure};
use super::open::{beside, folder_of, sync_folder};
use super::salvage::{self, Remains};
use super::space::file_bytes;
use super::state::State;
use super::table::SqlTable;
use super::{Options, aside, backup, restore};
use crate::error::Error;
use crate::id::{ReplicaId, VersionVector};
use crate::replica::Table;
use crate::row::Row;
use crate::time::{Reading, Stamp};
use rusqlite::wal::CheckpointMode;
use serde::{Deserialize, Serialize};
use std::format;
use std::io;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// The note of a recovery that is under way, beside the database.
const UNDER_WAY: &str = ".recovering";
/// The note of one that is over, until a person has acknowledged it.
const INCIDENT: &str = ".incident";
/// Incidents that nobody acknowledged are remembered as far as this.
const EARLIER_MAX: usize = 8;
/// Rows that are carried over in one transaction.
const CARRIED_AT_ONCE: usize = 512;
const CARRIED_BYTES: usize = 1024 * 1024;

/// What happened to the database, for a person who has not acknowledged it yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    /// What was found.
    pub found: String,
    /// Where the damaged database is.
    pub set_aside: PathBuf,
    /// The backup that was brought back; none where the database began empty.
    pub backup: Option<PathBuf>,
    /// Rows that were carried over from the damaged database.
    pub carried: u64,
    /// Rows in it that could not be read.
    pub damaged: u64,
    /// Pages in it that could not be read.
    pub unreadable_pages: u64,
    /// Rows that are missing of it, whole or in part: at least so many.
    #[serde(default)]
    pub missing_at_least: u64,
    /// And at most so many; none where that cannot be told.
    #[serde(default)]
    pub missing_at_most: Option<u64>,
    /// Where databases are that were set aside before it, in incidents that nobody had acknowledged.
    #[serde(default)]
    pub earlier: Vec<PathBuf>,
}

impl Incident {
    /// What may be missing, in a sentence.
    pub fn said(&self) -> String {
        let from = match &self.backup {
            Some(backup) => format!("the backup {} was brought back", backup.display()),
            None => "no good backup was found, so it began empty".to_string(),
        };
        let earlier: Vec<String> = self.earlier.iter().map(|at| at.display().to_string()).collect();
        let earlier = match earlier.is_empty() {
            true => String::new(),
            false => format!("; so were {} before it", earlier.join(", ")),
        };
        format!(
            "the database was damaged and is set aside as {}: {from}, and {} whole rows were carried over; {}. What only they held, and \
             no peer and no backup has, is missing{earlier}",
            self.set_aside.display(),
            self.carried,
            salvage::said(self.damaged, self.unreadable_pages, self.missing_at_least, self.missing_at_most)
        )
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct UnderWay {
    found: String,
    set_aside: PathBuf,
    #[serde(default)]
    backup: Option<PathBuf>,
}

/// Whether and from what a damaged database may be recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Where backups are.
    pub backups: PathBuf,
    /// Peers are configured, so that somebody may fill in what is missing.
    pub peers: bool,
}

/// What the note says. The damaged database stands beside the one that takes its place, wherever that folder is now.
fn under_way(disk: &dyn Disk, path: &Path) -> Result<UnderWay, Error> {
    let noted: UnderWay = read(disk, path, UNDER_WAY)?;
    let set_aside =
        noted.set_aside.file_name().map_or_else(|| noted.set_aside.clone(), |name| folder_of(path).join(name));
    Ok(UnderWay { set_aside, ..noted })
}

/// Whether something stands at a path. That the disk does not answer is no answer.
fn is_there(disk: &dyn Disk, at: &Path) -> Result<bool, Error> {
    disk.entry(at).map(|there| there.is_some()).map_err(|error| failure::file("looking for", at, error))
}

/// Takes up a recovery that a power cut has interrupted. Before SQLite sees the database.
pub(super) fn is_under_way(disk: &dyn Disk, path: &Path) -> bool {
    matches!(disk.entry(&beside(path, UNDER_WAY)), Ok(Some(Entry::File(_))))
}

/// A note that cannot be read says that a recovery was cut off and not how far it was. With no database in place it goes on from the
/// one that was set aside last; else what is in place is what counts, and a person is told where the rest may be.
pub(super) fn put_note_right(options: &Options) -> Result<(), Error> {
    let (disk, path) = (&*options.disk, &options.path);
    let at = beside(path, UNDER_WAY);
    if !is_under_way(disk, path) {
        return Ok(());
    }
    let bytes = disk.read_start(&at, NOTE_BYTES_MAX).map_err(|error| failure::file("reading", &at, error))?;
    if serde_json::from_slice::<UnderWay>(&bytes).is_ok() {
        return Ok(());
    }
    let found = "the note of a recovery that was cut off cannot be read".to_string();
    let newest = aside::kept(disk, path).0.pop();
    log::error!("event=RecoveryNoteDamaged path={} bytes={}", at.display(), bytes.len());
    match newest {
        Some(set_aside) if file_bytes(disk, path) == 0 => {
            return note(disk, path, UNDER_WAY, &UnderWay { found, set_aside, backup: None });
        }
        Some(set_aside) => note(disk, path, INCIDENT, &with_those_before(disk, path, Incident { found, set_aside, ..Incident::default() }))?,
        None => {}
    }
    disk.remove(&at).map_err(|error| failure::file("removing", &at, error))?;
    sync_folder(disk, folder_of(path))
}

/// Names the incidents that nobody has acknowledged, too.
fn with_those_before(disk: &dyn Disk, path: &Path, incident: Incident) -> Incident {
    let before = self::incident(disk, path).filter(|before| before.set_aside != incident.set_aside);
    let mut earlier: Vec<PathBuf> =
        before.into_iter().flat_map(|before| before.earlier.into_iter().chain([before.set_aside])).collect();
    earlier.drain(..earlier.len().saturating_sub(EARLIER_MAX));
    Incident { earlier, ..incident }
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
    let by_hand =
        "restore a backup with 'cbddc restore FILE', or move the file away to begin empty and rejoin the peers";
    let Some(recovery) = &options.recovery else {
        let message = format!(
            "{at} is damaged: {found}; Persistence.AutoRecover is off, so it is left as it is. What is whole can be taken out with \
             'cbddc export COLLECTION' while the node runs; then {by_hand}"
        );
        return Err(Error::DatabaseCorruption { message, source: None });
    };
    log::error!("event=DatabaseDamaged path={at} cause=\"{found}\"");
    let remains = salvage::survey(disk, path).map_err(|error| failure::file("reading", path, error))?;
    let peers = recovery.peers || remains.members_unread || remains.members.values().any(|member| member.tracked);
    if !peers && backup::newest_good(disk, &recovery.backups).is_none() {
        let message = format!(
            "{at} is damaged: {found}; {}; there is neither a backup nor a peer, so it is left as it is and only read. What is whole can be \
             taken out with 'cbddc export COLLECTION'; then {by_hand}",
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
    let set_aside = aside::free_name(disk, path);
    let under_way = UnderWay { found: found.to_string(), set_aside, backup: None };
    note(disk, path, UNDER_WAY, &under_way)
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
        match options.recovery.as_ref().and_then(|recovery| backup::newest_good(disk, &recovery.backups)) {
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

/// The incident that nobody has acknowledged yet.
pub(super) fn incident(disk: &dyn Disk, path: &Path) -> Option<Incident> {
    read(disk, path, INCIDENT).ok()
}

/// A person knows of it.
pub(super) fn acknowledge(disk: &dyn Disk, path: &Path) -> Result<(), Error> {
    let at = beside(path, INCIDENT);
    match disk.remove(&at) {
        Ok(()) => sync_folder(disk, folder_of(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failure::file("removing", &at, error)),
    }
}

fn note<T: Serialize>(disk: &dyn Disk, path: &Path, suffix: &str, what: &T) -> Result<(), Error> {
    let (at, partial) = (beside(path, suffix), beside(path, &format!("{suffix}.partial")));
    let bytes = serde_json::to_vec(what)
        .map_err(|error| Error::persistence("a note could not be written; report this", Some(error.into())))?;
    let written = disk.write(&partial, &bytes).and_then(|()| disk.rename(&partial, &at));
    written.map_err(|error| failure::file("writing", &at, error))?;
    sync_folder(disk, folder_of(path))
}

/// Longest note that is read.
const NOTE_BYTES_MAX: usize = 64 * 1024;

fn read<T: for<'de> Deserialize<'de>>(disk: &dyn Disk, path: &Path, suffix: &str) -> Result<T, Error> {
    let at = beside(path, suffix);
    let bytes = disk.read_start(&at, NOTE_BYTES_MAX).map_err(|error| failure::file("reading", &at, error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::persistence(format!("{} is not a note of this node; move it away", at.display()), Some(error.into()))
    })
}
