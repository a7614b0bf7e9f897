//! What goes into the engine and what comes out.

use super::refusals::Refusal;
use crate::id::{DeviceId, NodeId, ReplicaId};
use crate::replica::{Batch, Bootstrapped, Damaged, Decision, Found, Knowledge, Reply, Request, Stream, Write};
use crate::retry::RetryPolicy;
use crate::row::RowKey;
use crate::time::{Millis, Reading};
use crate::wire::{BeaconKey, Bye, MemberReport, Message};
use alloc::vec::Vec;
use core::net::SocketAddr;

/// The readings of this machine's clocks that come with every input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic milliseconds; never goes back.
    pub mono: Millis,
    /// The wall clock, milliseconds since 1970; may be anything.
    pub wall: Millis,
    /// Whether the kernel calls the wall clock synchronised.
    pub synchronised: bool,
}

/// One link, numbered by the shell, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct LinkId(pub u64);

/// One request to storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ticket(pub u64);

/// Whom to dial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// One of `Cluster.Peers`, by the number that the shell knows it by; its name is resolved at each dial.
    Fixed(usize),
    /// A node that was heard, by its instance.
    Heard(u64),
}

/// Why a dial did not end in a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DialFailure {
    /// Nobody listens, or a firewall refuses.
    Refused,
    /// No answer in time: filtered, or gone.
    TimedOut,
    /// The name does not resolve.
    NoSuchName,
    /// The handshake failed: another cluster key, or not a node.
    Handshake,
}

/// Why storage did not do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum StoreFault {
    /// It did not happen.
    Failed,
    /// It may or may not have happened.
    Unknown,
}

/// What a caller asks of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// Writes, each with its own precondition.
    Write(Vec<Write>),
    /// What a person decided about rows that were kept aside.
    Decide(Decision),
    /// Retires a member on the whole site.
    Untrack(DeviceId),
    /// Admits `new` under the name of `old` on the whole site.
    Replace {
        /// The device that is gone.
        old: DeviceId,
        /// The device that has its name now.
        new: DeviceId,
    },
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Time has passed: at least [`Engine::deadline`](super::Engine::deadline).
    Tick,
    /// A datagram on the beacon port.
    Datagram {
        /// From where.
        from: SocketAddr,
        /// Any bytes.
        bytes: Vec<u8>,
    },
    /// A handshake succeeded.
    Linked {
        /// Number of the new link.
        link: LinkId,
        /// The key that the peer proved.
        device: DeviceId,
        /// Its address.
        address: SocketAddr,
        /// Set where this node dialled.
        dialled: Option<Target>,
    },
    /// A dial did not end in a link.
    DialFailed {
        /// Whom.
        target: Target,
        /// Why.
        failure: DialFailure,
    },
    /// A message came.
    Received {
        /// On which link.
        link: LinkId,
        /// Within all limits.
        message: Message,
    },
    /// A link is gone.
    Unlinked {
        /// Which.
        link: LinkId,
    },
    /// Storage has carried out a request; it is durable.
    Stored {
        /// Which.
        ticket: Ticket,
        /// The answer and the knowledge after it.
        result: Result<(Reply, Knowledge), StoreFault>,
    },
    /// Storage has read a batch.
    Streamed {
        /// Which.
        ticket: Ticket,
        /// The batch.
        result: Result<Batch, StoreFault>,
    },
    /// A row was found damaged on disk; it may be said again.
    Damaged(Damaged),
    /// Storage has looked up rows for a peer.
    Looked {
        /// Which.
        ticket: Ticket,
        /// What it has.
        result: Result<Found, StoreFault>,
    },
    /// A caller asks for something.
    Client {
        /// Comes back in the answer.
        client: u64,
        /// What.
        request: Client,
    },
    /// The device has a new key, since it was a clone.
    NewDevice {
        /// Its public half.
        device: DeviceId,
        /// Its name, which is another one where it is made of the key.
        node_id: NodeId,
    },
    /// The cluster keys changed.
    NewKeys {
        /// First the one to send with.
        keys: Vec<BeaconKey>,
    },
    /// The fixed peers are others now. One that stays keeps its number, and no number is used again; a link to one that is
    /// gone stays until it ends.
    FixedPeers {
        /// All of them.
        numbers: Vec<usize>,
    },
    /// Ask every member how it is.
    AskSite,
    /// What this node says of itself.
    Report {
        /// To whom, as it was asked for.
        to: LinkId,
        /// Of the question.
        nonce: u64,
        /// What.
        report: MemberReport,
    },
    /// Say goodbye to everybody.
    Stop,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a message.
    Send {
        /// On which link.
        link: LinkId,
        /// Within all limits.
        message: Message,
    },
    /// Close a link once what was sent is out.
    Close {
        /// Which.
        link: LinkId,
    },
    /// Try these addresses at once; none for a fixed peer, whose name the shell resolves.
    Dial {
        /// Whom; comes back in the answer.
        target: Target,
        /// Where.
        addresses: Vec<SocketAddr>,
    },
    /// Send a beacon on every interface.
    Announce {
        /// The datagram.
        datagram: Vec<u8>,
    },
    /// Carry out a request, after all that were given before.
    Store {
        /// Comes back in the answer.
        ticket: Ticket,
        /// The clock for its stamps.
        now: Reading,
        /// What.
        request: Request,
    },
    /// Read a batch.
    Stream {
        /// Comes back in the answer.
        ticket: Ticket,
        /// Which.
        stream: Stream,
    },
    /// Look up rows for a peer.
    Look {
        /// Comes back in the answer.
        ticket: Ticket,
        /// Which.
        keys: Vec<RowKey>,
    },
    /// Answer a caller.
    Answer {
        /// Which.
        client: u64,
        /// What became of it.
        result: Result<Reply, StoreFault>,
    },
    /// Rows changed by replication or time: caches and feeds want to know.
    Changed {
        /// Their keys.
        keys: Vec<RowKey>,
    },
    /// Gather what this node says of itself; comes back as [`Input::Report`].
    Report {
        /// For whom.
        to: LinkId,
        /// Of the question.
        nonce: u64,
    },
    /// For the log, the sync tracker and the counters.
    Event(Event),
}

/// Something that a person may want to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A member's beacon was heard for the first time.
    Discovered {
        /// Its address.
        address: SocketAddr,
        /// Its replica.
        replica: ReplicaId,
    },
    /// A link is in session: both have said Hello.
    Linked {
        /// The peer.
        node_id: NodeId,
        /// Its key.
        device: DeviceId,
        /// Its address.
        address: SocketAddr,
    },
    /// A link has ended.
    Unlinked {
        /// The peer, where it had said its name.
        node_id: Option<NodeId>,
        /// Why, where one side said so.
        reason: Option<Bye>,
    },
    /// A dial failed.
    DialFailed {
        /// Whom.
        target: Target,
        /// Why.
        failure: DialFailure,
        /// How many have failed in a row.
        attempt: u32,
        /// After how long it is tried again, milliseconds.
        again_ms: Millis,
    },
    /// A datagram that is not of this cluster; said once for each address.
    Stranger {
        /// From where.
        address: SocketAddr,
        /// Why not.
        reason: crate::wire::BeaconError,
    },
    /// A stream has reached its sender's tail for the first time.
    CaughtUp {
        /// With whom.
        node_id: NodeId,
    },
    /// Both cover the same and hold the same.
    InSync {
        /// With whom.
        node_id: NodeId,
    },
    /// Both cover the same and hold different documents: an alarm, and the start of a reconciliation.
    DigestsDiffer {
        /// With whom.
        node_id: NodeId,
    },
    /// This node had been away too long and takes the peer's whole state.
    BootstrapStarted {
        /// From whom.
        node_id: NodeId,
    },
    /// It is in force.
    BootstrapDone {
        /// What became of what it held.
        done: Bootstrapped,
    },
    /// This node's disk was rolled back or cloned; it has a new replica identity.
    Forked {
        /// The new one.
        replica: ReplicaId,
    },
    /// A peer's disk was rolled back or cloned; it was told.
    PeerForked {
        /// Who.
        node_id: NodeId,
    },
    /// Another device has this device's key: this one must take a new key.
    DeviceCloned,
    /// A device was refused; said once for each reason, until it is let in.
    Refused(Refusal),
    /// A peer has refused this node; said once for each reason, until it lets this node in.
    RefusedBy(Refusal),
    /// Damaged rows are whole again, from a peer.
    Mended {
        /// Their keys.
        keys: Vec<RowKey>,
    },
    /// A batch could not be stored; the peer will send it again.
    ApplyFailed {
        /// From whom.
        node_id: NodeId,
    },
}

/// Numbers since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Counters {
    /// Beacons of this cluster.
    pub beacons: u64,
    /// Datagrams of other clusters.
    pub other_cluster: u64,
    /// Datagrams that were forged or are not beacons.
    pub foreign: u64,
    /// Rows sent.
    pub rows_sent: u64,
    /// Rows received.
    pub rows_received: u64,
    /// Closures whose digests agreed.
    pub equal_digests: u64,
    /// Closures whose digests differed.
    pub alarms: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Links that were given up for another member.
    pub rotations: u64,
    /// Tombstones dropped.
    pub tombstones_dropped: u64,
    /// Documents expired.
    pub expired: u64,
    /// Damaged rows that a peer has given back.
    pub rows_mended: u64,
}

/// What the engine is told once.
#[derive(Clone)]
pub struct Settings {
    /// This node's name.
    pub node_id: NodeId,
    /// This node's device key, public half.
    pub device: DeviceId,
    /// Random for each start.
    pub instance: u64,
    /// Not to be tracked by others.
    pub visitor: bool,
    /// Where it accepts links.
    pub tcp_port: u16,
    /// Beacon keys, first the one to send with; at most three.
    pub keys: Vec<BeaconKey>,
    /// Whether to announce and listen.
    pub discovery: bool,
    /// Shortest time between beacons, milliseconds; default 5000.
    pub beacon_interval: Millis,
    /// Number of fixed peers, which are numbered from 0.
    pub fixed_peers: usize,
    /// How a dial that failed is tried again: the attempts of one burst, and the first delay. Beyond the burst dialling goes on
    /// for ever, up to the policy's cap.
    pub retry: RetryPolicy,
    /// Links at once, 2 to [`LINKS_MAX`](crate::limits::LINKS_MAX).
    pub links_max: usize,
    /// Unconfirmed row bytes for each link.
    pub window_bytes: usize,
    /// Youngest tombstone that is dropped, milliseconds; default one day.
    pub tombstone_min_age: Millis,
    /// Age at which one is dropped although a member lacks it, milliseconds; default 90 days.
    pub tombstone_keep: Millis,
    /// Between two slices of maintenance, milliseconds; default 1000.
    pub maintain_interval: Millis,
    /// When this program was built, milliseconds since 1970: no clock is believed to be before it.
    pub build_millis: Millis,
    /// For jitter and identities.
    pub seed: u64,
}
