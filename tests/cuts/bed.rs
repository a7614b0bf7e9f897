//! A disk that the store runs on: every call is counted, may fail as planned, and at a planned one the power goes.
//!
//! The SQLite side of it is `vfs`, the store's own side is `own`. Calls of the reading thread are
//! served and not counted: they change nothing, and their order among the others is luck.

use crate::media::{self, Cut, Inode, Media};
use std::collections::BTreeMap;
use std::path::PathBuf;
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
    Rename,
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

/// The folder of a name, for the calls that sync it.
pub(crate) fn folder(name: &str) -> &str {
    media::folder(name)
}
