//! The bounded queue in front of a storage thread: the order of calls is the order of execution.
//!
//! A full queue gives the job back; nobody ever waits for room here. The lock is held for a push or a take, never while
//! a disk works.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::vec::Vec;

/// What may wait, and what is taken at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) jobs: usize,
    pub(super) bytes: usize,
}

/// The queue. Many push, one thread takes.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    waiting: Mutex<Waiting<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Waiting<T> {
    jobs: VecDeque<(usize, T)>,
    bytes: usize,
    /// The thread sleeps until this many wait.
    wanted: usize,
    /// The thread is to look up although nothing came.
    nudged: bool,
    closed: bool,
}

/// What a thread finds when it looks.
#[derive(Debug)]
pub(super) enum Taken<T> {
    /// In order of arrival.
    Jobs(Vec<T>),
    /// Nothing came within the time.
    Idle,
    /// Closed, and everything before is done.
    Closed,
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    Full,
    Closed,
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Inbox<T> {
        let waiting = Waiting { jobs: VecDeque::new(), bytes: 0, wanted: 1, nudged: false, closed: false };
        Inbox { waiting: Mutex::new(waiting), arrived: Condvar::new() }
    }
    /// Puts a job at the end, unless more than `bounds` would wait. One job alone may be larger than `bounds.bytes`.
    pub(super) fn push(&self, job: T, bytes: usize, bounds: Bounds) -> Result<(), Rejected> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Rejected::Closed);
        }
        let over = waiting.bytes.saturating_add(bytes) > bounds.bytes;
        if waiting.jobs.len() >= bounds.jobs || (over && !waiting.jobs.is_empty()) {
            return Err(Rejected::Full);
        }
        waiting.bytes = waiting.bytes.saturating_add(bytes);
        waiting.jobs.push_back((bytes, job));
        let wake = waiting.jobs.len() == waiting.wanted;
        drop(waiting);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }
    /// Waits for a first job, at most `idle`; then up to `gather` until `wanted` wait; then takes up to `bounds`.
    pub(super) fn take(&self, idle: Option<Duration>, gather: Duration, wanted: usize, bounds: Bounds) -> Taken<T> {
        let mut waiting = self.lock();
        waiting.wanted = 1;
        waiting = match idle {
            None => {
                self.arrived.wait_while(waiting, |waiting| waiting.is_idle()).unwrap_or_else(PoisonError::into_inner)
            }
            Some(idle) => {
                let waited = self.arrived.wait_timeout_while(waiting, idle, |waiting| waiting.is_idle());
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if !waiting.closed && !gather.is_zero() && (1..wanted).contains(&waiting.jobs.len()) {
            waiting.wanted = wanted;
            let more = |waiting: &mut Waiting<T>| !waiting.closed && waiting.jobs.len() < wanted;
            let waited = self.arrived.wait_timeout_while(waiting, gather, more);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
            waiting.wanted = 1;
        }
        waiting.nudged = false;
        if waiting.jobs.is_empty() {
            return if waiting.closed { Taken::Closed } else { Taken::Idle };
        }
        let (mut taken, mut bytes) = (Vec::new(), 0usize);
        while let Some((next, _)) = waiting.jobs.front() {
            if taken.len() == bounds.jobs || (!taken.is_empty() && bytes.saturating_add(*next) > bounds.bytes) {
                break;
            }
            bytes = bytes.saturating_add(*next);
            taken.extend(waiting.jobs.pop_front().map(|(_, job)| job));
        }
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        Taken::Jobs(taken)
    }
    /// Wakes the thread: it finds [`Taken::Idle`] where nothing else waits.
    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.arrived.notify_one();
    }
    /// Whether a job waits.
    pub(super) fn has_jobs(&self) -> bool {
        !self.lock().jobs.is_empty()
    }
    /// Nothing is taken in any more; what waits is still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }
    /// A job never panics with the lock held, so what it guards is whole even if a thread died.
    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Waiting<T> {
    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && !self.nudged && !self.closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const BOUNDS: Bounds = Bounds { jobs: 3, bytes: 10 };

    fn take(inbox: &Inbox<u8>) -> Vec<u8> {
        match inbox.take(Some(Duration::ZERO), Duration::ZERO, 1, BOUNDS) {
            Taken::Jobs(jobs) => jobs,
            Taken::Idle | Taken::Closed => Vec::new(),
        }
    }

    #[test]
    fn jobs_come_out_in_order_and_a_full_queue_refuses() {
        let inbox = Inbox::new();
        for job in 1..=3 {
            assert_eq!(inbox.push(job, 1, BOUNDS), Ok(()));
        }
        assert_eq!(inbox.push(4, 1, BOUNDS), Err(Rejected::Full));
        assert_eq!(take(&inbox), [1, 2, 3]);
        assert!(take(&inbox).is_empty());
    }

    #[test]
    fn bytes_are_bounded_but_one_large_job_passes_alone() {
        let inbox = Inbox::new();
        assert_eq!(inbox.push(1, 100, BOUNDS), Ok(()));
        assert_eq!(inbox.push(2, 1, BOUNDS), Err(Rejected::Full));
        assert_eq!(take(&inbox), [1]);
        assert_eq!(inbox.push(2, 6, BOUNDS), Ok(()));
        assert_eq!(inbox.push(3, 5, BOUNDS), Err(Rejected::Full));
    }

    #[test]
    fn a_nudge_wakes_once() {
        let inbox = Inbox::<u8>::new();
        inbox.nudge();
        assert!(matches!(inbox.take(None, Duration::ZERO, 1, BOUNDS), Taken::Idle));
        inbox.nudge();
        assert_eq!(inbox.push(1, 1, BOUNDS), Ok(()));
        assert_eq!(take(&inbox), [1]);
        assert!(take(&inbox).is_empty() && !inbox.has_jobs());
    }

    #[test]
    fn what_waits_when_it_closes_is_still_taken() {
        let inbox = Inbox::new();
        assert_eq!(inbox.push(1, 1, BOUNDS), Ok(()));
        inbox.close();
        assert_eq!(inbox.push(2, 1, BOUNDS), Err(Rejected::Closed));
        assert_eq!(take(&inbox), [1]);
        assert!(matches!(inbox.take(None, Duration::ZERO, 1, BOUNDS), Taken::Closed));
    }
}
