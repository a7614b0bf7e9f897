//! A disk that the store runs on: every call is counted, may fail as planned, and at a planned one the power goes.
//!
//! The SQLite side of it is `vfs`, the store's own side is the `Disk` implemented here. Calls of the reading thread are
//! served and not counted: they change nothing, and their order among the others is luck.

use crate::media::{self, Cut, Inode, Media};
use cbddc::store::{Disk, Entry, Held};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What the store, or SQLite below it, asks of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Call {
    Open,
    Read,
    Write,
    Sync,
    Truncate,
    Delete,
    Access,
    Size,
    Lock,
    Shm,
    SyncFolder,
    Entry,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The medium; of a write some bytes may have been taken, after a sync pages are clean that are not on the disk.
    Io,
    /// No space left; some bytes of a write were taken.
    Full,
    /// The power is gone.
    Dead,
}

/// Calls that fail: from the `from`th on, `count` of them, of one kind or of any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failing {
    pub(crate) from: u64,
    pub(crate) count: u64,
    pub(crate) only: Option<Call>,
    pub(crate) fault: Fault,
}

/// What is to happen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    /// The power goes at this call.
    pub(crate) cut_at: Option<u64>,
    /// The calls for that are counted of this kind alone.
    pub(crate) cut_on: Option<Call>,
    /// It is not the power that goes, but the process: the page cache stays.
    pub(crate) kill: bool,
    pub(crate) failing: Option<Failing>,
    /// Bytes that all files together may take.
    pub(crate) capacity: Option<u64>,
}

/// A disk with a machine that runs on it, until the power goes. Afterwards there is a new one.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) number: u64,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) media: Media,
    pub(crate) plan: Plan,
    /// Calls so far.
    pub(crate) calls: u64,
    /// Those of the kind that a cut counts.
    of_kind: u64,
    /// Calls that failed as planned.
    pub(crate) failed: u64,
    /// What the cut has left, once it has come.
    pub(crate) after: Option<Media>,
    /// The calls by kind since this was set.
    pub(crate) trace: Option<Vec<(Call, String)>>,
    random: fastrand::Rng,
    /// The writing thread waits at its next call.
    hold: bool,
    /// It does.
    held: bool,
    pub(crate) locks: BTreeMap<Inode, crate::locks::Locks>,
    pub(crate) shared: BTreeMap<Inode, crate::locks::Shared>,
    pub(crate) next_handle: u64,
}

static BEDS: Mutex<(u64, BTreeMap<u64, Arc<Bed>>)> = Mutex::new((0, BTreeMap::new()));

impl Bed {
    /// A machine on this disk. Gone when [`Bed::forget`] is called.
    pub(crate) fn new(media: Media, plan: Plan, seed: u64) -> Arc<Bed> {
        let state = State {
            media,
            plan,
            calls: 0,
            of_kind: 0,
            failed: 0,
            after: None,
            trace: None,
            random: fastrand::Rng::with_seed(seed),
            hold: false,
            held: false,
            locks: BTreeMap::new(),
            shared: BTreeMap::new(),
            next_handle: 0,
        };
        let mut beds = BEDS.lock().unwrap_or_else(PoisonError::into_inner);
        beds.0 += 1;
        let bed = Arc::new(Bed { number: beds.0, state: Mutex::new(state), moved: Condvar::new() });
        beds.1.insert(bed.number, Arc::clone(&bed));
        bed
    }
    /// The bed that a path lies on, and its name there.
    pub(crate) fn of(path: &str) -> Option<(Arc<Bed>, String)> {
        let (number, name) = path.strip_prefix("/bed/")?.split_once('/')?;
        let beds = BEDS.lock().unwrap_or_else(PoisonError::into_inner);
        Some((Arc::clone(beds.1.get(&number.parse().ok()?)?), name.into()))
    }
    /// The path of a name on it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        format!("/bed/{}/{name}", self.number).into()
    }
    /// Nothing opens it by path any more.
    pub(crate) fn forget(&self) {
        BEDS.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn name(&self, path: &Path) -> io::Result<String> {
        let prefix = format!("/bed/{}/", self.number);
        let path = path.to_str().unwrap_or("");
        // The bed's own folder.
        let path = if path.len() + 1 == prefix.len() { prefix.as_str() } else { path };
        path.strip_prefix(&prefix)
            .map(String::from)
            .ok_or_else(|| io::Error::other(format!("{path} is not on the bed")))
    }

    // ---- what happens to it ----

    /// The power goes now, unless it has gone already. What is left.
    pub(crate) fn cut(&self, how: Cut) -> Media {
        let mut state = self.lock();
        state.go_dark(how);
        self.moved.notify_all();
        state.after.clone().expect("it has just been set")
    }
    /// The process ends without a word; the machine goes on. What is there then, page cache and all.
    pub(crate) fn kill(&self) -> Media {
        let mut state = self.lock();
        if state.after.is_none() {
            state.after = Some(state.media.clone());
        }
        self.moved.notify_all();
        state.after.clone().expect("it has just been set")
    }
    pub(crate) fn is_dead(&self) -> bool {
        self.lock().after.is_some()
    }
    /// Counting starts over with another plan.
    pub(crate) fn plan(&self, plan: Plan) {
        let mut state = self.lock();
        (state.plan, state.calls, state.of_kind, state.failed) = (plan, 0, 0, 0);
    }
    /// The writing thread is to wait at its next call.
    pub(crate) fn hold(&self) {
        self.lock().hold = true;
    }
    /// Waits until it does, or the power is gone.
    pub(crate) fn wait_held(&self) {
        let state = self.lock();
        let waiting = |state: &mut State| !state.held && state.after.is_none();
        drop(self.moved.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner));
    }
    pub(crate) fn release(&self) {
        self.lock().hold = false;
        self.moved.notify_all();
    }

    /// Every call starts here: it is counted, held, cut or failed. `before_cut` is what of the call itself the disk has
    /// already been told when the power goes.
    pub(crate) fn begin(
        &self,
        call: Call,
        name: &str,
        before_cut: impl FnOnce(&mut Media),
    ) -> Result<MutexGuard<'_, State>, (Fault, MutexGuard<'_, State>)> {
        let thread = std::thread::current();
        let mut state = self.lock();
        if state.hold && thread.name() == Some("cbddc-write") {
            state.held = true;
            self.moved.notify_all();
            let waiting = |state: &mut State| state.hold && state.after.is_none();
            state = self.moved.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
            state.held = false;
        }
        if state.after.is_some() {
            return Err((Fault::Dead, state));
        }
        if thread.name() == Some("cbddc-read") {
            return Ok(state);
        }
        let at = state.calls;
        state.calls += 1;
        if let Some(trace) = &mut state.trace {
            trace.push((call, name.into()));
        }
        let counts = state.plan.cut_on.is_none_or(|kind| kind == call);
        let place = if state.plan.cut_on.is_some() { state.of_kind } else { at };
        state.of_kind += u64::from(counts);
        if counts && state.plan.cut_at.is_some_and(|cut_at| place >= cut_at) {
            before_cut(&mut state.media);
            let how = Cut::drawn(&mut state.random);
            match state.plan.kill {
                true => state.after = Some(state.media.clone()),
                false => state.go_dark(how),
            }
            self.moved.notify_all();
            return Err((Fault::Dead, state));
        }
        if let Some(failing) = state.plan.failing
            && (failing.from..failing.from + failing.count).contains(&at)
            && failing.only.is_none_or(|only| only == call)
        {
            state.failed += 1;
            return Err((failing.fault, state));
        }
        Ok(state)
    }
}

impl State {
    fn go_dark(&mut self, how: Cut) {
        if self.after.is_none() {
            self.after = Some(self.media.after_cut(how, &mut self.random));
        }
    }
    /// Writes, as far as there is room and no fault.
    pub(crate) fn write(&mut self, inode: Inode, at: usize, bytes: &[u8]) -> Result<(), Fault> {
        let length = self.media.bytes(inode).len();
        let more = (at + bytes.len()).saturating_sub(length) as u64;
        let full = self.plan.capacity.is_some_and(|capacity| more > 0 && self.media.used() + more > capacity);
        if full {
            return Err(Fault::Full);
        }
        self.media.write(inode, at, bytes);
        Ok(())
    }
    /// A write that failed: some of its first bytes were taken all the same.
    pub(crate) fn write_short(&mut self, inode: Inode, at: usize, bytes: &[u8]) {
        if self.random.bool() {
            let taken = self.random.usize(..bytes.len().max(1));
            // On a full disk only what needs no room.
            let room = self.media.bytes(inode).len().saturating_sub(at);
            let taken = if self.plan.capacity.is_some() { taken.min(room) } else { taken };
            self.media.write(inode, at, &bytes[..taken]);
        }
    }
    pub(crate) fn fail_sync(&mut self, inode: Inode) {
        self.media.fail_sync(inode, &mut self.random);
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::other("planned: input/output error"),
        Fault::Full => io::Error::new(io::ErrorKind::StorageFull, "planned: no space left on device"),
        Fault::Dead => io::Error::other("planned: the power is gone"),
    }
}

/// The store's own side, for a path on this bed.
#[derive(Debug)]
pub(crate) struct Own(pub(crate) Arc<Bed>);

impl Own {
    fn begin(&self, call: Call, name: &str) -> io::Result<MutexGuard<'_, State>> {
        self.0.begin(call, name, |_| {}).map_err(|(fault, _)| error(fault))
    }
    fn file(&self, state: &State, name: &str) -> io::Result<Inode> {
        state.media.find(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn write_out(&self, name: &str, inode: Inode, at: usize, piece: &[u8]) -> io::Result<()> {
        let begun = self.0.begin(Call::Write, name, |media| media.write(inode, at, piece));
        let written = match begun {
            Ok(mut state) => state.write(inode, at, piece),
            Err((Fault::Dead, _)) => Err(Fault::Dead),
            Err((fault, mut state)) => {
                state.write_short(inode, at, piece);
                Err(fault)
            }
        };
        written.map_err(error)
    }
    fn sync_file(&self, name: &str, inode: Inode) -> io::Result<()> {
        match self.0.begin(Call::Sync, name, |_| {}) {
            Ok(mut state) => {
                state.media.sync(inode);
                Ok(())
            }
            Err((Fault::Dead, _)) => Err(error(Fault::Dead)),
            Err((fault, mut state)) => {
                state.fail_sync(inode);
                Err(error(fault))
            }
        }
    }
}

impl Disk for Own {
    fn vfs(&self) -> Option<&str> {
        Some(crate::vfs::NAME)
    }
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let name = self.0.name(path)?;
        let state = self.begin(Call::Entry, &name)?;
        Ok(match state.media.find(&name) {
            Some(inode) => Some(Entry::File(state.media.bytes(inode).len() as u64)),
            // Folders are there when they are asked for: making them is not what is looked at here.
            None if !name.contains('.') => Some(Entry::Folder),
            None => None,
        })
    }
    fn read_start(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
        let name = self.0.name(path)?;
        let state = self.begin(Call::Read, &name)?;
        let all = state.media.bytes(self.file(&state, &name)?);
        Ok(all[..all.len().min(bytes)].to_vec())
    }
    fn rewrite(&self, path: &Path) -> io::Result<Option<u64>> {
        let name = self.0.name(path)?;
        let state = self.begin(Call::Open, &name)?;
        let Some(inode) = state.media.find(&name) else { return Ok(None) };
        drop(state);
        let bytes = self.begin(Call::Read, &name)?.media.bytes(inode).to_vec();
        for (piece, at) in bytes.chunks(256 * 1024).zip((0..).step_by(256 * 1024)) {
            self.write_out(&name, inode, at, piece)?;
        }
        self.sync_file(&name, inode)?;
        Ok(Some(bytes.len() as u64))
    }
    fn create_folders(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let name = self.0.name(path)?;
        self.begin(Call::SyncFolder, &name)?.media.sync_names(&name);
        Ok(())
    }
    fn lock(&self, _: &Path) -> io::Result<Held> {
        Ok(Held::alone())
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let name = self.0.name(path)?;
        let state = self.begin(Call::Entry, &name)?;
        Ok(state.plan.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(state.media.used())))
    }
}

/// The folder of a name, for the calls that sync it.
pub(crate) fn folder(name: &str) -> &str {
    media::folder(name)
}
