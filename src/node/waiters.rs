//! Those who wait until something happens on this thread: a change, a confirmation; and how long they do. Knows nothing of
//! what it is.

use async_channel::{Receiver, Sender};
use smol::Timer;
use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;
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

/// How long one of them waits: so long, and not beyond the moment at which the node stops.
#[derive(Debug)]
pub(super) struct Patience {
    over: Timer,
    stopping: Receiver<()>,
}

impl Patience {
    /// From now on. `stopping` closes when the node stops.
    pub(super) fn new(wait: Duration, stopping: Receiver<()>) -> Patience {
        Patience { over: Timer::after(wait), stopping }
    }
    /// Waits for something; false where that did not come in time, or will not.
    pub(super) async fn lasts_until<T>(&mut self, something: impl Future<Output = T>) -> bool {
        let comes = async {
            something.await;
            true
        };
        let ends = async {
            (&mut self.over).await;
            false
        };
        let stops = async {
            // An error says that the channel is closed, which is the only thing that is ever said.
            let _ = self.stopping.recv().await;
            false
        };
        // Last, so that what comes again and again at once does not go on for ever.
        smol::future::or(stops, smol::future::or(ends, comes)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_with_what_comes_with_its_time_and_with_the_node() {
        smol::block_on(async {
            let (stop, stopping) = async_channel::bounded::<()>(1);
            let long = || Patience::new(Duration::from_secs(600), stopping.clone());
            let never = std::future::pending::<()>;
            assert!(long().lasts_until(async {}).await);
            assert!(!Patience::new(Duration::ZERO, stopping.clone()).lasts_until(never()).await);
            let waiters = Waiters::default();
            let news = waiters.next();
            waiters.wake();
            assert!(long().lasts_until(news.recv()).await);
            stop.close();
            assert!(!long().lasts_until(never()).await && !long().lasts_until(async {}).await);
        });
    }
}
