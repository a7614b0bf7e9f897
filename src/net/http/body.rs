//! Request bodies: read in pieces, with a least speed, and never more than asked for.

use super::HttpOptions;
use super::connection::Activity;
use crate::error::Error;
use hyper::body::{Body, Bytes, Incoming};
use smol::Timer;
use std::format;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Bytes that must arrive within each `transfer_timeout`; a client slower than that loses its connection.
pub(super) const TRANSFER_STEP_BYTES: usize = 32 * 1024;

/// A body on its way in.
#[derive(Debug)]
pub(super) struct BodyReader {
    incoming: Incoming,
    activity: Rc<Activity>,
    timeout: Duration,
    timer: Timer,
    since_timer: usize,
    touched: bool,
    broken: bool,
}

impl BodyReader {
    pub(super) fn new(incoming: Incoming, activity: Rc<Activity>, options: &HttpOptions) -> BodyReader {
        let timeout = options.transfer_timeout;
        BodyReader { incoming, activity, timeout, timer: Timer::never(), since_timer: 0, touched: false, broken: false }
    }

    /// The length that the client announced.
    pub(super) fn announced(&self) -> Option<usize> {
        self.incoming.size_hint().exact().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// The client's time starts now: called after we made it wait.
    pub(super) fn restart_timer(&mut self) {
        self.timer.set_after(self.timeout);
        self.since_timer = 0;
    }

    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.touched {
            self.touched = true;
            self.restart_timer();
        }
        loop {
            let frame = poll_fn(|cx| {
                let frame = Pin::new(&mut self.incoming).poll_frame(cx);
                self.activity.upload_waits(frame.is_pending());
                if let Poll::Ready(frame) = frame {
                    return Poll::Ready(Ok(frame));
                }
                Pin::new(&mut self.timer).poll(cx).map(Err)
            });
            let piece = match frame.await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame.into_data(),
                Ok(Some(Err(error))) => {
                    self.broken = true;
                    return Err(Error::bad_request(format!("the body broke off: {error}")));
                }
                Err(_) => {
                    self.broken = true;
                    let ms = self.timeout.as_millis();
                    return Err(Error::bad_request(format!(
                        "the body came too slowly: each {TRANSFER_STEP_BYTES} bytes, or the rest, must arrive within {ms} ms"
                    )));
                }
            };
            // Trailers are of no use here.
            if let Ok(bytes) = piece {
                self.since_timer += bytes.len();
                if self.since_timer >= TRANSFER_STEP_BYTES {
                    self.restart_timer();
                }
                return Ok(Some(bytes));
            }
        }
    }

    /// Reads on for a while after a request was refused, so that the client reads the answer instead of failing to
    /// send. Bounded in bytes and time; whoever goes on beyond that loses the connection.
    pub(super) async fn drain(&mut self, waits_for_continue: bool) {
        const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
        const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
        if self.broken || self.incoming.is_end_stream() || (waits_for_continue && !self.touched) {
            return;
        }
        let read = async {
            let mut drained = 0;
            while drained < DRAIN_BYTES_MAX
                && let Ok(Some(bytes)) = self.next().await
            {
                drained += bytes.len();
            }
        };
        smol::future::or(read, async {
            Timer::after(DRAIN_TIME_MAX).await;
        })
        .await;
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        // Whoever gave up waiting does not wait any more.
        self.activity.upload_waits(false);
    }
}
