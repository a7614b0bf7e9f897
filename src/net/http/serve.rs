//! The accept loop: a connection for whoever gets a place, a word for who gets none, and how everything ends.

use super::changes::Feeds;
use super::connection::{Activity, Watched};
use super::crowd::Crowd;
use super::handle::{ALL_BUSY, Shared, handle, too_many};
use super::listen::Stream;
use super::problem::{self, PROBLEM_JSON};
use super::{HttpOptions, Listener, Service};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::{LocalExecutor, Timer};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::cell::Cell;
use std::convert::Infallible;
use std::format;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::string::String;
use std::time::Duration;

/// What happened on a listener since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections accepted.
    pub connections: Cell<u64>,
    /// Connections that were answered 429 or dropped at the bound.
    pub refused: Cell<u64>,
    /// Idle connections that were closed to make room.
    pub evicted: Cell<u64>,
    /// Slow connections that were cut off while others waited.
    pub slow: Cell<u64>,
    /// Connections that ended in an error: not HTTP, too slow, cut.
    pub broken: Cell<u64>,
    /// Times that accepting failed.
    pub accept_errors: Cell<u64>,
    /// Requests answered.
    pub requests: Cell<u64>,
    /// Of these with a 4xx status.
    pub client_errors: Cell<u64>,
    /// Of these with a 5xx status.
    pub server_errors: Cell<u64>,
}

pub(super) fn count(counter: &Cell<u64>) {
    counter.set(counter.get().saturating_add(1));
}

/// Refusals that are being told at once; beyond it connections are dropped without a word.
const REFUSALS_MAX: usize = 16;
/// For telling one.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// After accepting failed, for want of file descriptors say, before it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is ready, then lets the requests under way end within their bound. Dropping it ends all
/// connections at once.
pub(crate) async fn serve<S: Service>(
    listener: Listener,
    service: Rc<S>,
    options: HttpOptions,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = async_channel::bounded::<Infallible>(1);
    let crowd = Crowd::new(options.connections_max, options.bodies.clone(), options.counters.clone());
    let (crowd, grace) = (Rc::new(crowd), options.grace);
    let door = Rc::new(Door {
        executor: LocalExecutor::new(),
        stopped: stopped.clone(),
        crowd: crowd.clone(),
        refusals: Cell::new(0),
        next_id: Cell::new(0),
        turns: Rc::default(),
        shared: Rc::new(Shared {
            service,
            feeds: Feeds::new(options.feeds_max),
            awaiting: Rc::default(),
            stopped,
            options,
        }),
    });
    // A task of its own: polled with every turn of the executor, it would ask the socket each time.
    let accepting = door.executor.spawn(accept_forever(Rc::downgrade(&door), door.shared.clone(), listener));
    let sweeping = door.executor.spawn(async move { crowd.sweep_forever(grace).await });
    let life = async {
        shutdown.await;
        // Closes the listener too.
        accepting.cancel().await;
        sweeping.cancel().await;
        drop(stop);
        let bound = Timer::after(door.shared.options.shutdown_timeout);
        smol::future::or(door.all_closed(), async {
            bound.await;
        })
        .await;
    };
    door.executor.run(life).await;
}

struct Door<S> {
    executor: LocalExecutor<'static>,
    stopped: async_channel::Receiver<Infallible>,
    crowd: Rc<Crowd>,
    refusals: Cell<usize>,
    next_id: Cell<u64>,
    turns: Rc<Cell<u64>>,
    shared: Rc<Shared<S>>,
}

async fn accept_forever<S: Service>(door: Weak<Door<S>>, shared: Rc<Shared<S>>, mut listener: Listener) {
    let counters = &shared.options.counters;
    loop {
        match listener.accept().await {
            Ok(stream) => {
                count(&counters.connections);
                let Some(door) = door.upgrade() else { return };
                let is_roomy = door.admit(stream);
                drop(door);
                if !is_roomy {
                    // Whoever comes next may push this one out, so it is heard first: what it asked for may be here already.
                    smol::future::yield_now().await;
                }
            }
            Err(error) if is_of_one_connection(&error) => count(&counters.accept_errors),
            Err(_) => {
                count(&counters.accept_errors);
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl<S: Service> Door<S> {
    /// Gives it a place, or tells it that there is none. False where all places are in use.
    fn admit(self: &Rc<Self>, stream: Stream) -> bool {
        let Some(crowded) = self.crowd.place() else {
            self.refuse(stream);
            return false;
        };
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let activity = Activity::new(self.turns.clone(), crowded);
        let (door, shared, stopped) = (Rc::downgrade(self), self.shared.clone(), self.stopped.clone());
        let connection = connection(stream, activity.clone(), shared, stopped);
        let task = self.executor.spawn(async move {
            connection.await;
            if let Some(door) = door.upgrade()
                && let Some(task) = door.crowd.leave(id)
            {
                task.detach();
            }
        });
        self.crowd.enter(id, activity, task);
        !self.crowd.is_full()
    }

    /// Says 429 and closes, without reading a request.
    fn refuse(self: &Rc<Self>, mut stream: Stream) {
        count(&self.shared.options.counters.refused);
        if self.refusals.get() >= REFUSALS_MAX {
            return;
        }
        self.refusals.set(self.refusals.get() + 1);
        let door = Rc::downgrade(self);
        let told = async move {
            stream.write_all(refusal().as_bytes()).await?;
            stream.close().await?;
            // What the client sends meanwhile is read, or the reset that answers it would overtake the refusal.
            let mut unread = [0; 512];
            while stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        let refusal = async move {
            let late = async {
                Timer::after(REFUSAL_TIME).await;
                Ok(())
            };
            // Whether it was heard is the client's affair.
            let _ = smol::future::or(told, late).await;
            if let Some(door) = door.upgrade() {
                door.refusals.set(door.refusals.get() - 1);
            }
        };
        self.executor.spawn(refusal).detach();
    }

    async fn all_closed(&self) {
        for task in self.crowd.all_leave() {
            task.await;
        }
    }
}

/// One connection from its first byte to its last.
async fn connection<S: Service>(
    stream: Stream,
    activity: Rc<Activity>,
    shared: Rc<Shared<S>>,
    stopped: async_channel::Receiver<Infallible>,
) {
    let options = &shared.options;
    let watched = Watched::new(stream, activity.clone(), options.transfer_timeout);
    let service = service_fn(|request| {
        let (shared, activity) = (shared.clone(), activity.clone());
        async move {
            activity.begin();
            let mut response = handle(&shared, request, &activity).await;
            response.body_mut().goes_out(&activity);
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_header_size(options.header_bytes_max)
        .max_buf_size(BUFFER_BYTES.max(options.header_bytes_max))
        .half_close(true)
        .serve_connection(FuturesIo::new(watched), service);
    let mut serving = pin!(serving);
    let grace = async {
        Timer::after(options.grace).await;
        activity.grace_ended();
        smol::future::pending().await
    };
    let told_to_stop = async {
        // Nothing is ever sent: it ends when the sender is dropped.
        let _ = stopped.recv().await;
        None
    };
    let ended = smol::future::or(async { Some(serving.as_mut().await) }, smol::future::or(told_to_stop, grace)).await;
    let result = match ended {
        Some(result) => result,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if result.is_err() {
        count(&options.counters.broken);
    }
}

/// hyper's buffer for each direction of a connection; a larger answer is written from where it is.
const BUFFER_BYTES: usize = 32 * 1024;

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn refusal() -> String {
    let body = serde_json::to_string(&problem::Problem::of(&too_many(ALL_BUSY))).unwrap_or_default();
    format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: {PROBLEM_JSON}\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}
