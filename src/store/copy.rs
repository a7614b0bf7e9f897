//! How a copy of the database is made without stalling anybody: the writing thread copies a few pages between two commits,
//! the thread that ordered the copy brings them to the disk, and the next pages wait for that.
//!
//! So neither a commit nor a read ever waits for more than a few pages, and the copy's own syncs are small.

use super::failure::{self, Failure};
use rusqlite::Connection;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pages that are copied before they are synced: 512 KiB.
const CHUNK_PAGES: u64 = 128;
/// The disk is left to others for so long after each sync.
const PAUSE: Duration = Duration::from_millis(5);
/// How often the thread that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Where the two threads meet.
#[derive(Debug, Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Waits for the writing thread.
    order: Option<Connection>,
    copied: u64,
    allowed: u64,
    given_up: bool,
    ended: Option<(Result<(), Failure>, Connection)>,
}

/// What the writing thread may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    Copy,
    Wait,
    GiveUp,
}

impl Desk {
    /// Has the database copied to `destination`. `nudge` wakes the writing thread, `sync` brings to the disk what was
    /// copied.
    pub(super) fn copy(
        &self,
        destination: Connection,
        nudge: impl Fn(),
        sync: impl Fn() -> Result<(), Failure>,
        stopping: impl Fn() -> bool,
    ) -> Result<Connection, Failure> {
        *self.lock() = State { order: Some(destination), allowed: CHUNK_PAGES, ..State::default() };
        nudge();
        let mut failed = None;
        loop {
            let mut state = self.lock();
            let waits = |state: &mut State| state.ended.is_none() && (state.given_up || state.copied < state.allowed);
            state = self.changed.wait_timeout_while(state, LOOK, waits).unwrap_or_else(PoisonError::into_inner).0;
            if let Some((copied, destination)) = state.ended.take() {
                return match failed {
                    None => copied.map(|()| destination),
                    Some(failure) => Err(failure),
                };
            }
            if stopping() || failed.is_some() {
                if state.order.take().is_some() {
                    return Err(failed.unwrap_or_else(|| failure::closed().into()));
                }
                state.given_up = true;
                drop(state);
                nudge();
            } else if state.copied >= state.allowed {
                drop(state);
                failed = sync().err();
                std::thread::sleep(PAUSE);
                let mut state = self.lock();
                state.allowed = state.copied + CHUNK_PAGES;
                drop(state);
                nudge();
            }
        }
    }

    /// The writing thread takes the order, if there is one.
    pub(super) fn take_order(&self) -> Option<Connection> {
        self.lock().order.take()
    }
    pub(super) fn may_copy(&self) -> May {
        let state = self.lock();
        match state.given_up {
            true => May::GiveUp,
            false if state.copied < state.allowed => May::Copy,
            false => May::Wait,
        }
    }
    /// So many pages are in the copy.
    pub(super) fn copied(&self, pages: u64) {
        let mut state = self.lock();
        // After a transaction that was rolled back SQLite begins anew.
        if pages < state.copied {
            state.allowed = pages + CHUNK_PAGES;
        }
        state.copied = pages;
        let wake = state.copied >= state.allowed;
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }
    /// The copy is whole, or why it is not.
    pub(super) fn end(&self, copied: Result<(), Failure>, destination: Connection) {
        self.lock().ended = Some((copied, destination));
        self.changed.notify_one();
    }

    /// Nothing panics with the lock held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
