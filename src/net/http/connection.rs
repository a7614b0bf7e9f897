//! One connection from the outside: what it is doing, how much it moves, and a least speed for taking answers.

use super::body::TRANSFER_STEP_BYTES;
use super::budget::Share;
use smol::Timer;
use smol::io::{AsyncRead, AsyncWrite};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Accepted a moment ago.
    Fresh,
    /// Waiting for a request; the number says since when, compared with other connections.
    Idle(u64),
    /// A request is being served.
    Working,
    /// Its answer is on the way out.
    Answered,
}

/// The phase of one connection, shared by its socket, its requests and the accept loop.
#[derive(Debug)]
pub(super) struct Activity {
    phase: Cell<Phase>,
    turns: Rc<Cell<u64>>,
    share: RefCell<Option<Share>>,
    crowded: bool,
    /// Bytes that have passed, in either direction.
    moved: Cell<u64>,
    upload_waits: Cell<bool>,
    answer_waits: Cell<bool>,
}

impl Activity {
    /// `turns` counts the changes to idle over all connections of a listener. `crowded` ones came when all places were
    /// taken.
    pub(super) fn new(turns: Rc<Cell<u64>>, crowded: bool) -> Rc<Activity> {
        Rc::new(Activity {
            phase: Cell::new(Phase::Fresh),
            turns,
            share: RefCell::default(),
            crowded,
            moved: Cell::new(0),
            upload_waits: Cell::new(false),
            answer_waits: Cell::new(false),
        })
    }
    /// Whether it has a place of those that are kept for monitoring.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded
    }
    pub(super) fn moved(&self) -> u64 {
        self.moved.get()
    }
    fn moves(&self, bytes: usize) {
        self.moved.set(self.moved.get().saturating_add(bytes as u64));
    }
    /// Whether it is the client that is waited for: for the next bytes of a body, or until it takes an answer.
    pub(super) fn waits_for_client(&self) -> bool {
        self.upload_waits.get() || self.answer_waits.get()
    }
    pub(super) fn upload_waits(&self, waits: bool) {
        self.upload_waits.set(waits);
    }
    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }
    pub(super) fn begin(&self) {
        self.phase.set(Phase::Working);
    }
    /// The answer is made; its bytes count until they have left.
    pub(super) fn answered(&self, share: Option<Share>) {
        self.phase.set(Phase::Answered);
        *self.share.borrow_mut() = share;
    }
    /// Its request is refused or done, and what is left of its body is read out of politeness: anybody else comes first.
    pub(super) fn gives_way(&self) {
        self.idle();
    }
    /// The time in which a new connection is left alone is over.
    pub(super) fn grace_ended(&self) {
        if self.phase.get() == Phase::Fresh {
            self.idle();
        }
    }
    fn flushed(&self) {
        if self.phase.get() == Phase::Answered {
            self.idle();
            self.share.borrow_mut().take();
        }
    }
    fn idle(&self) {
        self.turns.set(self.turns.get() + 1);
        self.phase.set(Phase::Idle(self.turns.get()));
    }
}

/// A stream whose writes fail when the other side takes less than 32 KiB in the time allowed.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Rc<Activity>,
    timeout: Duration,
    stall: Option<Timer>,
    since_timer: usize,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Rc<Activity>, timeout: Duration) -> Watched<S> {
        Watched { stream, activity, timeout, stall: None, since_timer: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(bytes)) = read {
            self.activity.moves(bytes);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_write(cx, buf) {
            let bytes = *result.as_ref().unwrap_or(&0);
            this.activity.moves(bytes);
            this.activity.answer_waits.set(false);
            this.since_timer += bytes;
            if this.since_timer >= TRANSFER_STEP_BYTES {
                this.stall = None;
                this.since_timer = 0;
            }
            return Poll::Ready(result);
        }
        this.activity.answer_waits.set(true);
        let timeout = this.timeout;
        let stall = this.stall.get_or_insert_with(|| Timer::after(timeout));
        Pin::new(stall)
            .poll(cx)
            .map(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the answer was not taken in time")))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            // hyper flushes the stream once all its own bytes are written.
            self.stall = None;
            self.since_timer = 0;
            self.activity.flushed();
        }
        flushed
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
