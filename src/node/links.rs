//! Links of the node: accepting, dialling, and two tasks for each, so that reading never waits for writing.

use super::shell::Shell;
use crate::limits::HANDSHAKES_MAX;
use crate::log::{debug, info};
use crate::net::Listener;
use crate::net::{Established, LinkError};
use crate::net::{Patience, accept, dial, resolve};
use crate::proto::{DialFailure, Input, LinkId, Target};
use crate::secure::{ClusterKey, HandshakeError};
use crate::wire::Message;
use async_channel::{Receiver, Sender, TrySendError};
use smol::Timer;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::string::ToString;
use std::time::Duration;
use std::vec::Vec;

/// Messages that wait to be written to one link. The engine's window bounds their bytes; a peer that lets so many small
/// ones gather reads nothing.
const OUTGOING_MAX: usize = 1024;
/// Batches of one link that storage has not answered yet: beyond it the link is not read. An honest peer stops at the
/// window, well before.
const UNANSWERED_MAX: usize = 64;
/// How often a link that is not read looks whether it may be.
const RETRY_READING: Duration = Duration::from_millis(5);
/// A goodbye that the peer does not take is given up after this.
const GOODBYE: Duration = Duration::from_secs(1);

/// The open links.
#[derive(Default)]
pub(super) struct LinkTable {
    open: RefCell<HashMap<LinkId, OpenLink>>,
    running: Cell<usize>,
    next: Cell<u64>,
    /// Connections in their handshake, the oldest first; dropping a sender ends that one.
    handshakes: RefCell<VecDeque<(u64, Sender<()>)>>,
    next_handshake: Cell<u64>,
    /// Connections that were accepted, whoever made them.
    pub(super) accepted: Cell<u64>,
    /// Where the node's last connection to itself came from.
    pub(super) probe: Cell<Option<SocketAddr>>,
    pub(super) refused: Cell<u64>,
    pub(super) dials_failed: Cell<u64>,
    pub(super) bytes_in: Cell<u64>,
    pub(super) bytes_out: Cell<u64>,
}

/// One open link.
struct OpenLink {
    messages: Sender<Message>,
    /// The key that both sides proved.
    key: ClusterKey,
}

impl LinkTable {
    fn open(&self, key: ClusterKey) -> (LinkId, Receiver<Message>) {
        self.next.set(self.next.get() + 1);
        let link = LinkId(self.next.get());
        let (sender, messages) = async_channel::bounded(OUTGOING_MAX);
        self.open.borrow_mut().insert(link, OpenLink { messages: sender, key });
        self.running.set(self.running.get() + 1);
        (link, messages)
    }
    /// A place for one more handshake. Where all are taken the oldest gives way: a member needs its place for a few
    /// milliseconds, so whoever has been there longest is most likely one who says nothing.
    fn begin_handshake(&self) -> (u64, Receiver<()>) {
        let number = self.next_handshake.get() + 1;
        self.next_handshake.set(number);
        let (place, lost) = async_channel::bounded(1);
        let mut handshakes = self.handshakes.borrow_mut();
        if handshakes.len() == HANDSHAKES_MAX {
            handshakes.pop_front();
        }
        handshakes.push_back((number, place));
        (number, lost)
    }
    fn end_handshake(&self, number: u64) {
        self.handshakes.borrow_mut().retain(|(known, _)| *known != number);
    }
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.open.borrow().len()
    }
    /// No more messages; those that wait are still written.
    pub(super) fn close(&self, link: LinkId) {
        self.open.borrow_mut().remove(&link);
    }
    /// Ends the links that were made with another key than these.
    pub(super) fn close_all_but(&self, keys: &[ClusterKey]) {
        self.open.borrow_mut().retain(|_, link| keys.contains(&link.key));
    }
    /// Waits until what was said to the peers is out, for a bounded time.
    pub(super) async fn drained(&self) {
        let all = async {
            while self.running.get() > 0 {
                Timer::after(RETRY_READING).await;
            }
        };
        let enough = async {
            Timer::after(GOODBYE).await;
        };
        smol::future::or(all, enough).await;
    }
}

fn entropy(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system's generator worked when this node made its instance number");
}

impl Shell {
    pub(super) fn send(self: &Rc<Self>, link: LinkId, message: Message) {
        let full = |open: &OpenLink| matches!(open.messages.try_send(message), Err(TrySendError::Full(_)));
        if self.links.open.borrow().get(&link).is_some_and(full) {
            info!("link closed, the peer reads nothing link={}", link.0);
            self.links.close(link);
        }
    }

    pub(super) async fn accept_forever(self: Rc<Self>, mut listener: Listener) {
        loop {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!("accepting failed error={}", error);
                    continue;
                }
            };
            self.links.accepted.set(self.links.accepted.get() + 1);
            if self.alone.get() {
                continue;
            }
            let (number, lost) = self.links.begin_handshake();
            let shell = self.clone();
            self.spawn(async move {
                let keys = shell.identity.cluster_keys.borrow().clone();
                let device_key = shell.identity.device_key.borrow().clone();
                let gave_way = async {
                    // Nothing is ever sent: an error says that the place was given to another.
                    let _ = lost.recv().await;
                    None
                };
                let joining =
                    async { Some(accept(stream, &keys, &device_key, Patience::default(), &mut entropy).await) };
                let joined = smol::future::or(joining, gave_way).await;
                shell.links.end_handshake(number);
                match joined {
                    Some(Ok(established)) => shell.run_link(established, &keys, None).await,
                    // The node itself, seeing whether it lets anybody in.
                    Some(Err(_)) if shell.links.probe.get() == Some(address) => {}
                    Some(Err(error)) => shell.stranger_refused(address, &error),
                    // Closed without a word: whoever is a member tries again.
                    None => shell.links.refused.set(shell.links.refused.get() + 1),
                }
            });
        }
    }

    pub(super) fn dial(self: &Rc<Self>, target: Target, addresses: Vec<SocketAddr>) {
        let shell = self.clone();
        self.spawn(async move {
            let patience = Patience::default();
            if shell.alone.get() {
                return shell.feed(Input::DialFailed { target, failure: DialFailure::Handshake });
            }
            let peer = shell.target(target, &addresses);
            let resolved = match target {
                Target::Heard(_) => Ok(addresses),
                // It was looked up before: it may be none of them any more, and is not dialled again.
                Target::Fixed(_) => resolve(&peer, patience).await,
            };
            let keys = shell.identity.cluster_keys.borrow().clone();
            let device_key = shell.identity.device_key.borrow().clone();
            let joined = match resolved {
                Ok(addresses) => dial(&addresses, &keys, &device_key, patience, &mut entropy).await,
                Err(error) => Err(error),
            };
            match joined {
                Ok(established) => {
                    shell.tracker.borrow_mut().succeeded(&peer);
                    shell.run_link(established, &keys, Some(target)).await;
                }
                Err(error) => {
                    shell.links.dials_failed.set(shell.links.dials_failed.get() + 1);
                    let failure = failure(&error);
                    shell.dial_went_wrong(peer, &error);
                    shell.feed(Input::DialFailed { target, failure });
                }
            }
        });
    }

    async fn run_link(self: &Rc<Self>, established: Established, tried: &[ClusterKey], dialled: Option<Target>) {
        let Established { device, peer_addr: address, key_index, mut reader, mut writer, .. } = established;
        let in_force = self.identity.cluster_keys.borrow().clone();
        if self.alone.get() {
            writer.close();
            let failure = DialFailure::Handshake;
            return dialled.into_iter().for_each(|target| self.feed(Input::DialFailed { target, failure }));
        }
        // A key may have been retired while the handshake was under way.
        let Some(key) = tried.get(key_index).filter(|key| in_force.contains(key)) else {
            writer.close();
            let failure = DialFailure::Handshake;
            return dialled.into_iter().for_each(|target| self.feed(Input::DialFailed { target, failure }));
        };
        let (link, messages) = self.links.open(key.clone());
        // It has the key now, whatever was held against its address before.
        self.tracker.borrow_mut().succeeded(&address.ip().to_string());
        self.feed(Input::Linked { link, device, address, dialled });
        let (mut counted_in, mut counted_out) = (0, 0);
        let reading = async {
            loop {
                match reader.next().await {
                    Ok(message) => {
                        self.links.bytes_in.set(self.links.bytes_in.get() + reader.bytes_in() - counted_in);
                        counted_in = reader.bytes_in();
                        self.feed(Input::Received { link, message });
                        while self.engine.borrow().unanswered(link) > UNANSWERED_MAX {
                            Timer::after(RETRY_READING).await;
                        }
                    }
                    Err(error) => return Some(error),
                }
            }
        };
        let writing = async {
            while let Ok(message) = messages.recv().await {
                let sent = writer.send(&message).await;
                self.links.bytes_out.set(self.links.bytes_out.get() + writer.bytes_out() - counted_out);
                counted_out = writer.bytes_out();
                if let Err(error) = sent {
                    return Some(error);
                }
            }
            None
        };
        let ended = smol::future::or(writing, reading).await;
        writer.close();
        self.links.close(link);
        self.links.running.set(self.links.running.get() - 1);
        if let Some(error) = ended {
            self.link_failed(link, address, &error);
        }
        self.feed(Input::Unlinked { link });
    }
}

fn failure(error: &LinkError) -> DialFailure {
    match error {
        LinkError::Unresolved { .. } | LinkError::NoAddress => DialFailure::NoSuchName,
        LinkError::Timeout { .. } => DialFailure::TimedOut,
        LinkError::Unreachable { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
            DialFailure::Refused
        }
        LinkError::Unreachable { .. } => DialFailure::TimedOut,
        LinkError::Handshake(HandshakeError::Keys) => DialFailure::Handshake,
        _ => DialFailure::Handshake,
    }
}
