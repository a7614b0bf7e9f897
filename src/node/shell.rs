//! The loop: inputs to the engine, its outputs to storage, links, callers and the log.

use super::backups::Backups;
use super::confirmations::Confirmations;
use super::damage::Known;
use super::documents::{Reads, Waiting};
use super::links::LinkTable;
use super::offline::Offline;
use super::reload::FixedPeers;
use super::store_health::{StoreHealth, grows};
use super::tracker::SyncTracker;
use super::waiters::Waiters;
use crate::cache::DocumentCache;
use crate::clock;
use crate::config::{Config, Scope as ConfiguredScope};
use crate::document::CachedVersion;
use crate::error::Error;
use crate::id::{DeviceId, NodeId};
use crate::log::{error, trace, warn};
use crate::net::{Beacons, http};
use crate::proto::{Engine, Input, Now, Output, StoreFault};
use crate::report::HealthCheck;
use crate::row::Scope;
use crate::secure::{ClusterKey, DeviceKey};
use crate::store::{BackupLedger, Incident, Store};
use crate::time::Millis;
use crate::wire::Message;
use async_channel::{Receiver, Sender};
use smol::{LocalExecutor, Timer};
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// Whether the clock is synchronised is asked this often, since asking is a system call.
const SYNCHRONISED_FRESH_MS: Millis = 1_000;

/// Who this node is.
pub(super) struct Identity {
    pub(super) node_id: RefCell<NodeId>,
    pub(super) device: Cell<DeviceId>,
    pub(super) device_key: RefCell<DeviceKey>,
    pub(super) cluster_keys: RefCell<Vec<ClusterKey>>,
}

/// Where it can be reached.
pub(super) struct Addresses {
    pub(super) links: SocketAddr,
    pub(super) http: Cell<Option<SocketAddr>>,
}

/// A stop takes at most this, whatever disk and peers do, and some for the process itself...
const STOP_MS: Millis = 6_000;
/// ...of which carrying out what is queued gets this, where the store takes it,
const STOP_DRAIN: Duration = Duration::from_millis(500);
/// keeping what is queued this,
const STOP_SPILL: Duration = Duration::from_secs(2);
/// and closing the database what is left, at least this. Requests under way have their own bound (`HttpOptions`), before.
const STOP_CLOSE: Duration = Duration::from_millis(1_000);

/// Everything of one node, on one thread.
pub(crate) struct Shell {
    pub(super) executor: Rc<LocalExecutor<'static>>,
    /// As it was started. What may change while it runs is read from `in_force`.
    pub(super) config: Config,
    pub(super) in_force: RefCell<Config>,
    pub(super) fixed: RefCell<FixedPeers>,
    /// Those who wait for time to pass, as the configuration says it.
    pub(super) reloads: Waiters,
    pub(super) identity: Identity,
    pub(super) addresses: Addresses,
    pub(super) store: Store,
    pub(super) database_path: PathBuf,
    pub(super) engine: RefCell<Engine>,
    pub(super) links: LinkTable,
    pub(super) waiting: Waiting,
    pub(super) reads: Reads,
    pub(super) offline: Offline,
    /// Readers of the change feed that wait for a change.
    pub(super) readers: Waiters,
    pub(super) confirmations: Confirmations,
    /// Those who wait for what members say of themselves.
    pub(super) site_news: Waiters,
    site_seen: Cell<u64>,
    pub(super) tracker: RefCell<SyncTracker>,
    pub(super) beacons: Option<Beacons>,
    pub(super) started_at: Millis,
    /// Closed when the node stops: everything that runs for ever listens to it.
    pub(super) stopped: Receiver<()>,
    stop: Sender<()>,
    /// Closed when no more requests are taken.
    pub(super) stopping: Receiver<()>,
    stop_taking: Sender<()>,
    pub(super) http_ended: RefCell<Vec<Receiver<()>>>,
    /// What each listener counts.
    pub(super) http_counters: RefCell<Vec<Rc<http::Counters>>>,
    inputs: RefCell<VecDeque<Input>>,
    handling: Cell<bool>,
    /// The error behind the fault that the engine is being told.
    pub(super) fault: RefCell<Option<Error>>,
    /// The peer and the error behind the failed dial that the engine is being told.
    pub(super) dial_error: RefCell<Option<(String, String)>>,
    pub(super) store_health: StoreHealth,
    /// The database is damaged and only read: nothing of it is given to anybody, and nothing taken.
    pub(super) alone: Cell<bool>,
    pub(super) damage: Known,
    /// What happened to the database, until a person has acknowledged it.
    pub(super) incident: RefCell<Option<Incident>>,
    pub(super) backups: Backups,
    /// The thresholds in force.
    pub(super) health_check: Cell<HealthCheck>,
    store_order: Sender<InOrder>,
    /// Requests that storage was given, and those it has answered.
    pub(super) store_asked: Cell<u64>,
    pub(super) store_answered: Cell<u64>,
    wake: Sender<()>,
    scheduled: Cell<Millis>,
    synchronised: Cell<(Millis, bool)>,
}

/// An answer of storage that becomes an input, in the order in which it was asked for.
type InOrder = Pin<Box<dyn Future<Output = (Input, Option<Error>)>>>;

/// What the start has made.
pub(super) struct Made {
    pub(super) executor: Rc<LocalExecutor<'static>>,
    pub(super) config: Config,
    pub(super) identity: Identity,
    pub(super) addresses: Addresses,
    pub(super) store: Store,
    pub(super) database_path: PathBuf,
    pub(super) engine: Engine,
    pub(super) beacons: Option<Beacons>,
    pub(super) offline: Offline,
    pub(super) cache: DocumentCache<CachedVersion>,
    pub(super) tracker: SyncTracker,
    pub(super) backups: BackupLedger,
}

impl Shell {
    pub(super) fn new(made: Made) -> Rc<Shell> {
        let Made { executor, config, identity, addresses, store, database_path, engine, beacons, .. } = made;
        let Made { offline, cache, tracker, backups, .. } = made;
        let (stop, stopped) = async_channel::bounded(1);
        let (stop_taking, stopping) = async_channel::bounded(1);
        let (wake, woken) = async_channel::bounded(1);
        // Bounded by what the engine has asked for, which is bounded by windows and callers.
        let (store_order, answers) = async_channel::unbounded();
        let reads = Reads::new(cache);
        let cluster = &config.cluster;
        let health_check = HealthCheck::new(cluster.lag_threshold_ms, cluster.critical_lag_threshold_ms);
        let shell = Rc::new(Shell {
            links: LinkTable::default(),
            waiting: Waiting::default(),
            reads,
            offline,
            readers: Waiters::default(),
            confirmations: Confirmations::default(),
            site_news: Waiters::default(),
            site_seen: Cell::new(0),
            tracker: RefCell::new(tracker),
            started_at: clock::monotonic_ms(),
            stopped,
            stop,
            stopping,
            stop_taking,
            http_ended: RefCell::default(),
            http_counters: RefCell::default(),
            inputs: RefCell::default(),
            handling: Cell::new(false),
            fault: RefCell::default(),
            dial_error: RefCell::default(),
            store_health: StoreHealth::default(),
            alone: Cell::new(false),
            damage: Known::default(),
            incident: RefCell::default(),
            backups: Backups::new(backups, clock::monotonic_ms()),
            health_check: Cell::new(health_check),
            store_order,
            store_asked: Cell::new(0),
            store_answered: Cell::new(0),
            wake,
            scheduled: Cell::new(0),
            synchronised: Cell::new((clock::monotonic_ms(), clock::synchronised())),
            engine: RefCell::new(engine),
            executor,
            in_force: RefCell::new(config.clone()),
            fixed: RefCell::new(FixedPeers::new(&config.cluster.peers)),
            reloads: Waiters::default(),
            config,
            identity,
            addresses,
            store,
            database_path,
            beacons,
        });
        shell.spawn(shell.clone().pass_time(woken));
        shell.spawn(shell.clone().take_answers(answers));
        shell.spawn(shell.clone().drain_forever());
        shell
    }

    /// Its name: a configured one stays, one that is made of the device key changes with it.
    pub(super) fn node_id(&self) -> NodeId {
        self.identity.node_id.borrow().clone()
    }

    /// The readings of this machine's clocks.
    pub(super) fn now(&self) -> Now {
        let mono = clock::monotonic_ms();
        let (mut asked_at, mut synchronised) = self.synchronised.get();
        if mono >= asked_at + SYNCHRONISED_FRESH_MS {
            (asked_at, synchronised) = (mono, clock::synchronised());
            self.synchronised.set((asked_at, synchronised));
        }
        Now { mono, wall: clock::wall_ms(), synchronised }
    }

    /// Runs a task until it ends or the node stops.
    pub(super) fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let stopped = self.stopped.clone();
        let until_stopped = async move {
            // An error says that the channel is closed, which is the only thing that is ever said.
            let _ = stopped.recv().await;
        };
        self.executor.spawn(smol::future::or(until_stopped, task)).detach();
    }

    /// Gives the engine one input and does all that comes of it.
    pub(super) fn feed(self: &Rc<Self>, input: Input) {
        self.inputs.borrow_mut().push_back(input);
        if self.handling.replace(true) {
            return;
        }
        self.drain();
        loop {
            let Some(input) = self.inputs.borrow_mut().pop_front() else { break };
            let handled = self.engine.borrow_mut().handle(self.now(), input);
            if let Err(undrained) = handled {
                // Cannot happen: the loop above has drained.
                warn!("{}", undrained.to_string());
            }
            self.drain();
        }
        self.handling.set(false);
        self.tell_news();
        self.schedule();
    }

    /// Wakes those who wait for what the engine knows.
    fn tell_news(&self) {
        let (confirmations, site) = {
            let engine = self.engine.borrow();
            (engine.confirmations(), engine.site_revision())
        };
        self.confirmations.are_at(confirmations);
        if self.site_seen.replace(site) != site {
            self.site_news.wake();
        }
    }

    fn drain(self: &Rc<Self>) {
        loop {
            let Some(output) = self.engine.borrow_mut().poll() else { break };
            self.perform(output);
        }
    }

    fn perform(self: &Rc<Self>, output: Output) {
        match output {
            Output::Send { link, message } => {
                if let Message::Confirm(confirm) = &message {
                    trace!("confirm sent link={} upto={}", link.0, confirm.upto);
                }
                self.send(link, message);
            }
            Output::Close { link } => self.links.close(link),
            Output::Dial { target, addresses } => self.dial(target, addresses),
            Output::Announce { datagram } => self.announce(datagram),
            Output::Store { ticket, now, request } => {
                let grows = grows(&request);
                let answer = self.store.submit(now, request);
                let shell = self.clone();
                self.in_order(async move {
                    let (result, error) = split(answer.await);
                    if shell.store_health.answered(error.as_ref(), grows) {
                        shell.offline.try_again();
                    }
                    (Input::Stored { ticket, result }, error)
                });
            }
            Output::Stream { ticket, stream } => {
                let answer = self.store.read(stream);
                let shell = self.clone();
                // Reads are answered by another thread than writes and need not wait for them.
                self.spawn(async move {
                    let (result, error) = split(answer.await);
                    shell.fault.replace(error);
                    shell.feed(Input::Streamed { ticket, result });
                });
            }
            Output::Look { ticket, keys } => {
                let answer = self.store.look(keys);
                let shell = self.clone();
                self.spawn(async move {
                    let (result, error) = split(answer.await);
                    shell.fault.replace(error);
                    shell.feed(Input::Looked { ticket, result });
                });
            }
            Output::Answer { client, result } => self.answer(client, result),
            Output::Changed { keys } => {
                self.reads.changed(&keys);
                self.readers.wake();
            }
            Output::Report { to, nonce } => self.report_to(to, nonce),
            Output::Event(event) => self.happened(event),
        }
    }

    fn in_order(&self, answer: impl Future<Output = (Input, Option<Error>)> + 'static) {
        self.store_asked.set(self.store_asked.get() + 1);
        // The receiver lives as long as the node; when it is gone nobody waits for the answer.
        let _ = self.store_order.try_send(Box::pin(answer));
    }

    async fn take_answers(self: Rc<Self>, answers: Receiver<InOrder>) {
        while let Ok(answer) = answers.recv().await {
            let (input, error) = answer.await;
            self.store_answered.set(self.store_answered.get() + 1);
            self.fault.replace(error);
            self.feed(input);
        }
    }

    async fn pass_time(self: Rc<Self>, woken: Receiver<()>) {
        loop {
            let now = self.now();
            let deadline = self.engine.borrow().deadline(now);
            self.scheduled.set(deadline);
            let wait = Duration::from_millis(deadline.saturating_sub(now.mono));
            let due = async {
                Timer::after(wait).await;
                true
            };
            let earlier = async {
                // The sender lives in the same shell as this task.
                let _ = woken.recv().await;
                false
            };
            if smol::future::or(due, earlier).await {
                self.feed(Input::Tick);
            }
        }
    }

    /// Wakes the timer where the engine wants to be asked earlier than it is set for.
    fn schedule(&self) {
        if self.engine.borrow().deadline(self.now()) < self.scheduled.get() {
            // Full means that it is woken already.
            let _ = self.wake.try_send(());
        }
    }

    fn announce(self: &Rc<Self>, datagram: Vec<u8>) {
        let Some(beacons) = &self.beacons else { return };
        let sender = beacons.sender();
        self.spawn(async move {
            match sender.send(&datagram).await {
                Ok(sent) => {
                    for failed in sent.iter().filter(|sent| sent.result.is_err()) {
                        trace!("beacon not sent target={}", failed.target);
                    }
                }
                Err(error) => trace!("beacon not sent, interfaces cannot be listed error={}", error),
            }
        });
    }

    /// The scope of a collection on this node.
    pub(super) fn scope(&self, collection: &str) -> Scope {
        match self.config.collections.get(collection).map(|configured| configured.scope) {
            Some(ConfiguredScope::Local) => Scope::Local,
            _ => Scope::Replicated,
        }
    }

    /// Ends everything in order, in bounded time whatever disk and peers do.
    ///
    /// # Errors
    /// Queued operations could be neither carried out nor kept.
    pub(super) async fn shutdown(self: &Rc<Self>) -> Result<(), Error> {
        let began = self.now().mono;
        // No new requests; those under way are answered, by storage too, before it is closed.
        self.stop_taking.close();
        let ending: Vec<_> = self.http_ended.borrow_mut().drain(..).collect();
        for ended in ending {
            let _ = ended.recv().await;
        }
        self.feed(Input::Stop);
        let (emptied, ()) = smol::future::zip(self.empty_queue(STOP_DRAIN, STOP_SPILL), self.links.drained()).await;
        let left = Duration::from_millis((began + STOP_MS).saturating_sub(self.now().mono)).max(STOP_CLOSE);
        let late = async {
            Timer::after(left).await;
            None
        };
        let closing = async {
            self.note_backup_clock().await;
            Some(self.store.close().await)
        };
        match smol::future::or(closing, late).await {
            Some(Ok(())) => {}
            // What was answered is in the log, which the next start copies back.
            Some(Err(error)) => error!("the database was not closed cleanly cause=\"{}\"", error.to_string()),
            None => {
                warn!("the disk does not answer, the database is not closed; all that was answered is on it");
                self.store.abandon();
            }
        }
        self.stop.close();
        emptied
    }

    /// Ends without waiting for anything. What was answered is durable; what is queued is lost.
    pub(super) fn abandon(&self) {
        self.store.abandon();
        self.stop.close();
    }
}

/// An error of the store as the engine needs it, and the error itself for whoever is told.
fn split<T>(result: Result<T, Error>) -> (Result<T, StoreFault>, Option<Error>) {
    match result {
        Ok(value) => (Ok(value), None),
        Err(error @ Error::Timeout { .. }) => (Err(StoreFault::Unknown), Some(error)),
        Err(error) => (Err(StoreFault::Failed), Some(error)),
    }
}
