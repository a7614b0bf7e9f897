//! What is done beside the two threads: backups and checks, one at a time, each on a thread that ends with it.
//!
//! Whoever does such a job may open a connection of its own, and leaves it as soon as the writing thread wants to be alone
//! with the database.

use super::copy::Desk;
use super::failure::{self, Failure};
use super::{Options, open};
use crate::error::{Error, RequestKind};
use async_channel::Receiver;
use rusqlite::Connection;
use std::string::ToString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Instructions of SQLite between two looks at whether the job must leave.
const LOOK_AFTER: i32 = 10_000;

/// The jobs and what they share with the writing thread.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    /// Where a copy is ordered from the writing thread.
    pub(super) desk: Desk,
    /// Held while a job has a connection.
    door: Mutex<()>,
    /// The writing thread wants to be alone.
    give_way: AtomicBool,
    /// A job holds a snapshot for long: a checkpoint does not wait for it.
    reading: AtomicBool,
    stopping: AtomicBool,
    busy: AtomicBool,
    job: Mutex<Option<(JoinHandle<()>, Receiver<()>)>>,
}

impl Keeper {
    /// Runs a job.
    ///
    /// # Errors
    /// `TooManyRequests` while another one runs; no thread can be started.
    pub(super) fn start(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        if self.is_stopping() {
            return Err(failure::closed());
        }
        if self.busy.swap(true, Ordering::SeqCst) {
            return Err(Error::Request {
                kind: RequestKind::TooManyRequests,
                message: "a backup or a check is under way: try again when it has ended".to_string(),
            });
        }
        let (running, ended) = async_channel::bounded::<()>(1);
        let thread = super::start::thread("cbddc-keep", move || {
            job();
            drop(running);
        });
        let thread = thread.inspect_err(|_| self.done())?;
        // The one before has said that it is done and is ending.
        *self.job.lock().unwrap_or_else(PoisonError::into_inner) = Some((thread, ended));
        Ok(())
    }
    /// A job says this before it gives its answer: who has that can ask for the next one.
    pub(super) fn done(&self) {
        self.busy.store(false, Ordering::SeqCst);
    }
    /// Tells the job to end.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
    /// Waits until no job runs.
    pub(super) async fn ended(&self) {
        let job = self.job.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, ended)| ended.clone());
        if let Some(ended) = job {
            // Ends when the job drops its side; nothing is ever sent.
            let _ = ended.recv().await;
        }
    }
    pub(super) fn join(&self) -> std::thread::Result<()> {
        let job = self.job.lock().unwrap_or_else(PoisonError::into_inner).take();
        job.map_or(Ok(()), |(thread, _)| thread.join())
    }

    /// A reading connection for a job. `long` where one transaction on it may take seconds; `bound` says whether it is to
    /// end early.
    pub(super) fn with_connection<T>(
        self: &Arc<Self>,
        options: &Options,
        long: bool,
        bound: impl Fn() -> bool + Send + 'static,
        read: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let _door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        let mut connection = open::reader(options)?;
        let keeper = Arc::clone(self);
        connection.progress_handler(LOOK_AFTER, Some(move || keeper.must_leave() || bound()))?;
        self.reading.store(long, Ordering::SeqCst);
        let answer = read(&connection);
        drop(connection);
        self.reading.store(false, Ordering::SeqCst);
        answer
    }
    /// Whether a job is to give its connection back now.
    pub(super) fn must_leave(&self) -> bool {
        self.give_way.load(Ordering::SeqCst) || self.is_stopping()
    }
    /// Whether a job holds a snapshot for long.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.load(Ordering::SeqCst)
    }
    /// No job has a connection until the answer is dropped.
    pub(super) fn keep_out(&self) -> KeptOut<'_> {
        self.give_way.store(true, Ordering::SeqCst);
        KeptOut { keeper: self, _door: self.door.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

/// While it lives the writing thread is alone with the database, but for the reading connection.
pub(super) struct KeptOut<'k> {
    keeper: &'k Keeper,
    _door: MutexGuard<'k, ()>,
}

impl Drop for KeptOut<'_> {
    fn drop(&mut self) {
        self.keeper.give_way.store(false, Ordering::SeqCst);
    }
}
