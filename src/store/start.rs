//! The start: from a path to a database that can be used, and the two threads that use it.
//!
//! Damage that is met here is mended, or the database is recovered, before anybody has it. How a file becomes a connection
//! is `open`; what a recovery does is `recover`.

use super::counters::Tally;
use super::inbox::Inbox;
use super::keeper::Keeper;
use super::reader::{self, Gate};
use super::{
    Held, Opened, Options, Shared, Store, Threads, aside, commit, failure, header, ledger, mend, open, recover, schema,
    state, table, writer,
};
use crate::error::Error;
use crate::replica::{Members, Table};
use crate::time::Reading;
use std::format;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Findings that wait to be taken note of.
const FINDINGS: usize = 256;

impl Store {
    /// Opens or creates the database and starts its threads. Blocks: the disk is synced, and checked after an unclean
    /// stop. `random` gives fresh numbers for the identity and the start token.
    ///
    /// # Errors
    /// Another process holds it; it cannot be read or written; it is damaged, of a later release, or not a database.
    pub fn open(options: Options, random: &mut dyn FnMut() -> u64) -> Result<(Store, Opened), Error> {
        let path = options.path.clone();
        let place = open::place(&*options.disk, &path)?;
        let told = |failure: failure::Failure| failure.into_error("opening", &path);
        recover::put_note_right(&options)?;
        let mut recovering = recover::is_under_way(&*options.disk, &path);
        if !recovering && (place.lost || (place.missing && recover::has_backup(&options))) {
            recover::begin(&options, "the file is not there or holds nothing, and backups of it have been made")?;
            recovering = true;
        }
        if place.new && !recovering {
            // That of a database that is recovered goes with it.
            aside::orphans(&*options.disk, &path)?;
        }
        let mut refused = None;
        let ready = loop {
            if recovering {
                recover::make_way(&options)?;
            }
            match ready(&options, place.new, recovering, random) {
                Ok(ready) => break ready,
                Err(failure) if failure.is_corruption() && !recovering => {
                    match recover::begin(&options, &failure::fault(&failure, &path)) {
                        Ok(()) => recovering = true,
                        Err(error @ Error::DatabaseCorruption { .. }) => {
                            // Nothing to take its place from, or a person is to decide: what can be read is read, and nothing is
                            // written.
                            refused = Some(format!("{error}"));
                            break readable(&options).map_err(|_| error)?;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Err(failure) => return Err(told(failure)),
            }
        };
        let Ready { connection, state, members, created, clean, restored } = ready;
        if refused.is_none() {
            // SQLite syncs the folder of a new log too, and does not look at what becomes of it.
            open::sync_folder(&*options.disk, open::folder_of(&path))?;
        }
        let gate = Arc::new(Gate::new(open::reader(&options).map_err(told)?));
        if refused.is_some() {
            gate.lie_still(refused.as_deref().unwrap_or_default());
        }
        let opened = Opened {
            knowledge: state.knowledge.clone(),
            members,
            created,
            unclean: !clean,
            read_only: refused.clone(),
            restored,
            backups: ledger::read(&*options.disk, &path),
            path: path.clone(),
        };

        let options = Arc::new(options);
        let (writes, reads) = (Arc::new(Inbox::new()), Arc::new(Inbox::new()));
        // Closed once both threads have ended: each drops its side.
        let (stopping, stopped) = async_channel::bounded::<()>(1);
        let tally = Arc::<Tally>::default();
        let (finder, found) = async_channel::bounded(FINDINGS);
        let keeper = Arc::<Keeper>::default();
        let writer = {
            let (options, writes, gate) = (Arc::clone(&options), Arc::clone(&writes), Arc::clone(&gate));
            let (keeper, tally, finder) = (Arc::clone(&keeper), Arc::clone(&tally), finder.clone());
            let (lock, stopping, seed) = (place.lock, stopping.clone(), random());
            thread("cbddc-write", move || {
                let _stopping = stopping;
                // Lets the next process in when it goes, and that is when nothing more is written.
                let _lock: Held = lock;
                let writer = writer::Writer::new(options, writes, gate, keeper, tally, finder, state);
                writer.run(connection, refused, seed)
            })?
        };
        let reader = {
            let (reads, writes, options) = (Arc::clone(&reads), Arc::clone(&writes), Arc::clone(&options));
            let gate = Arc::clone(&gate);
            thread("cbddc-read", move || {
                let _stopping = stopping;
                reader::run(&options, &reads, &gate, &finder, || writes.nudge());
            })
        };
        let reader = reader.inspect_err(|_| writes.close())?;
        let threads = Mutex::new(Some(Threads { writer, reader }));
        Ok((Store(Arc::new(Shared { writes, reads, options, keeper, gate, tally, found, stopped, threads })), opened))
    }
}

/// A database that can be used.
struct Ready {
    connection: Option<rusqlite::Connection>,
    state: state::State,
    members: Members,
    created: bool,
    clean: bool,
    restored: bool,
}

/// From the file to a database that can be used, in one go; with `recovering`, what is whole in the one that was set aside
/// is carried over.
fn ready(
    options: &Options,
    new: bool,
    recovering: bool,
    random: &mut dyn FnMut() -> u64,
) -> Result<Ready, failure::Failure> {
    let path = &options.path;
    if header::mend_versions(&*options.disk, path)? {
        log::error!("event=DatabaseMended cause=\"the version of the file's format was none that there is\"");
    }
    open::settle_log(&*options.disk, path)?;
    let connection = open::writer(options)?;
    let (created, clean) = open::schema(&connection, path, new, random)?;
    if !clean && let Err(failure) = open::quick_check(&connection, path) {
        mend_in_place(&connection, failure)?;
    }
    let (mut state, mut members, restored) = start(&connection, random)?;
    if recovering {
        recover::carry_over(&connection, options, &mut state, 0, random)?;
        members = table::SqlTable::new(&connection, &mut state).members()?;
    }
    Ok(Ready { connection: Some(connection), state, members, created, clean, restored })
}

/// Mends in place what can be; the failure where that is not enough.
pub(super) fn mend_in_place(
    connection: &rusqlite::Connection,
    failure: failure::Failure,
) -> Result<(), failure::Failure> {
    match mend::examine(connection)? {
        mend::Examined::Sound => Ok(()),
        mend::Examined::Mended(faults) => {
            log::error!("event=DatabaseMended cause=\"{faults}\"");
            Ok(())
        }
        mend::Examined::Broken(_) => Err(failure),
    }
}

/// A damaged database of which nothing is written: its own record must be whole, the rest is read as far as it goes.
fn readable(options: &Options) -> Result<Ready, failure::Failure> {
    let connection = open::reader(options)?;
    let mut state = state::State::load(&connection)?;
    let members = table::SqlTable::new(&connection, &mut state).members().unwrap_or_default();
    Ok(Ready { connection: None, state, members, created: false, clean: false, restored: false })
}

/// Notes the start, durably, and that the node runs from here on. A backup takes a new identity in the same transaction:
/// whatever its own writes were, they may be known to somebody, and so may others that it does not know.
pub(super) fn start(
    connection: &rusqlite::Connection,
    random: &mut dyn FnMut() -> u64,
) -> Result<(state::State, Members, bool), failure::Failure> {
    let open = commit::Open::begin(connection)?;
    let mut state = state::State::load(connection)?;
    let mut knowledge = state.knowledge.clone();
    let id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let restored = id == schema::RESTORED_ID;
    if restored {
        let now = Reading { millis: 0, believed: false };
        let shared = knowledge.seq;
        knowledge.fork(&mut table::SqlTable::new(connection, &mut state), now, shared, random())?;
    } else {
        knowledge.start(random());
    }
    // Restored, or a byte of it rotted.
    if id != schema::APPLICATION_ID {
        connection.pragma_update(None, "application_id", schema::APPLICATION_ID)?;
    }
    knowledge.version += 1;
    state.set_knowledge(knowledge);
    state.store(connection)?;
    schema::set_clean(connection, false)?;
    let members = table::SqlTable::new(connection, &mut state).members()?;
    open.commit()?;
    Ok((state, members, restored))
}

pub(super) fn thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    let started =
        std::thread::Builder::new().name(name.into()).stack_size(512 * 1024).spawn(crate::mutants::inherited(run));
    started.map_err(|error| Error::persistence("a storage thread could not be started", Some(error.into())))
}
