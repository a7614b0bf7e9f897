//! Those who wait until something happens on this thread: a change, a confirmation. Knows nothing of what it is.

use async_channel::{Receiver, Sender};
use std::cell::RefCell;
use std::convert::Infallible;
use std::vec::Vec;

/// Who waits. As many as there are callers, who are bounded.
#[derive(Debug, Default)]
pub(super) struct Waiters(RefCell<Vec<Sender<Infallible>>>);

impl Waiters {
    /// It has happened.
    pub(super) fn wake(&self) {
        // Nothing is ever sent: a channel that closes wakes whoever waits on it.
        self.0.borrow_mut().clear();
    }
    /// A channel that closes when it next happens.
    pub(super) fn next(&self) -> Receiver<Infallible> {
        let (wake, woken) = async_channel::bounded(1);
        let mut waiters = self.0.borrow_mut();
        // Who has gone away is forgotten here: there are never more than wait, and this one.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(wake);
        woken
    }
}
