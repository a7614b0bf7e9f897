//! The messages of a session and what each may hold. Postcard inside, one frame kind each.
//!
//! A message that is decoded is within every limit: nothing behind this file checks a length again.
//! Postcard does not describe itself, so a message never changes: what is new gets a new kind, which older builds skip,
//! and a later `Hello`, `Bye` or `Report` may only grow at its end.

use super::frame::encode_frame;
use super::site::{Ask, Report};
use crate::id::{DeviceId, LocalSeq, NodeId, ReplicaId, Seq, VersionVector};
use crate::limits::{BATCH_ROWS_MAX, FETCH_KEYS_MAX, MEMBERS_MAX, RELAYED_CONFIRMATIONS_MAX, START_TOKENS_MAX};
use crate::row::{Row, RowKey, Scope};
use crate::time::{Millis, Stamp};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// One message of a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Who I am and what I know; first on every link, and again when my floor rises.
    Hello(Hello),
    /// Send me your stream from here.
    Pull(Pull),
    /// A batch of rows.
    Changes(Changes),
    /// What is on my disk.
    Confirm(Confirm),
    /// Are you there?
    Ping(Ping),
    /// Yes.
    Pong(Pong),
    /// The last message, and why.
    Bye(Bye),
    /// How are you, and how are those behind you?
    Ask(Ask),
    /// What one member said of itself.
    Report(Report),
    /// What do you have at these keys? My rows there are damaged.
    Fetch(Fetch),
    /// This.
    Fetched(Fetched),
}

/// A random number written at each start of a replica, with where the replica stood then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct StartToken {
    /// Random.
    #[serde(with = "postcard::fixint::le")]
    pub token: u64,
    /// The replica's own sequence when it started.
    pub seq: Seq,
    /// The end of its stream when it started.
    pub tail: LocalSeq,
}

/// What a node thinks of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ClockSample {
    /// Milliseconds since 1970.
    pub millis: Millis,
    /// Whether its own kernel calls its clock synchronised.
    pub synchronised: bool,
}

/// A member that the sender tracks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberNote {
    /// Its key.
    pub device: DeviceId,
    /// Its name.
    pub node_id: NodeId,
}

/// First message of a link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version that the sender understands.
    pub version_min: u16,
    /// Newest.
    pub version_max: u16,
    /// The sender's name; its device key is proved by the handshake.
    pub node_id: NodeId,
    /// Its replica.
    pub replica: ReplicaId,
    /// Random for each start of the process.
    #[serde(with = "postcard::fixint::le")]
    pub instance: u64,
    /// Its last starts, oldest first, this one last.
    pub tokens: Vec<StartToken>,
    /// Its clock.
    pub clock: ClockSample,
    /// Its hybrid clock: a newcomer takes one not behind it.
    pub hlc: Stamp,
    /// Not to be tracked.
    pub visitor: bool,
    /// It has rows but nobody may take them yet: it is bootstrapping.
    pub bootstrapping: bool,
    /// The end of its stream.
    pub tail: LocalSeq,
    /// What it covers.
    pub vector: VersionVector,
    /// What it has forgotten the deletes of.
    pub floor: VersionVector,
    /// Digest of its documents.
    pub digest: u128,
    /// Whether every row of it is covered by its vector, so that the digest can be compared.
    pub clean: bool,
    /// Members that it tracks.
    pub members: Vec<MemberNote>,
}

/// Which rows a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Mode {
    /// What the receiver's vector does not cover.
    Increment,
    /// Everything, to be staged and put in force whole.
    Bootstrap,
    /// Everything, merged row by row: two nodes cover the same and hold different documents.
    Reconcile,
}

/// Asks for the sender's stream. A new one on the same link replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Chosen by the receiver, rising on a link; batches of another number are late and ignored.
    pub stream: u32,
    /// Whose stream: a sender that has taken a new identity since ignores it.
    pub of: ReplicaId,
    /// Which rows.
    pub mode: Mode,
    /// After this position.
    pub after: LocalSeq,
    /// What the receiver covers.
    pub vector: VersionVector,
}

/// What a sender covers at the tail of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closure {
    /// Everything in it is in the stream up to here, or was superseded by what is.
    pub vector: VersionVector,
    /// The sender's floor at the same instant.
    pub floor: VersionVector,
    /// Its digest at the same instant.
    pub digest: u128,
    /// Whether the digest can be compared.
    pub clean: bool,
    /// Its hybrid clock.
    pub hlc: Stamp,
}

/// A batch of rows in the order of the sender's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// Of the [`Pull`] that it answers.
    pub stream: u32,
    /// Rows, oldest position first.
    pub rows: Vec<Row>,
    /// The position after this batch.
    pub upto: LocalSeq,
    /// Nothing stands beyond `upto` at this instant.
    pub closure: Option<Closure>,
}

/// What another member is known to have on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedConfirmation {
    /// Whose.
    pub device: DeviceId,
    /// Its replica.
    pub replica: ReplicaId,
    /// What it covers.
    pub vector: VersionVector,
}

/// What is fsynced at the sender of this message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// Of the [`Pull`] whose batches are counted.
    pub stream: u32,
    /// Everything up to here is on disk.
    pub upto: LocalSeq,
    /// What it covers.
    pub vector: VersionVector,
    /// What it knows of others, newest first.
    pub relayed: Vec<RelayedConfirmation>,
}

/// Are you there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back in the answer.
    pub nonce: u32,
    /// The sender's clock.
    pub clock: ClockSample,
}

/// Yes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// Of the [`Ping`].
    pub nonce: u32,
    /// The answerer's clock.
    pub clock: ClockSample,
}

/// What do you have at these keys? The sender's own rows there cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Comes back in the answer.
    pub nonce: u32,
    /// The keys.
    pub keys: Vec<RowKey>,
}

/// The answer to a [`Fetch`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fetched {
    /// Of the [`Fetch`].
    pub nonce: u32,
    /// How many of its keys were looked up, from the first on; the rest is to be asked for again.
    pub looked: u32,
    /// What the sender has at these, tombstones too; none where it has none.
    pub rows: Vec<Row>,
    /// What the sender covers at the same instant.
    pub vector: VersionVector,
}

/// Why a link ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bye {
    /// The node stops.
    Stopping,
    /// The slot is wanted for another member.
    Rotated,
    /// Another link to the same peer is kept.
    Duplicate,
    /// No protocol version in common.
    Version,
    /// The peer broke the protocol; the text says how, for its log.
    Protocol(heapless::String<64>),
    /// This name belongs to another device key; `peers replace` on any node admits the new one.
    NameTaken,
    /// Revoked or replaced.
    NotAMember,
    /// The peer's replica has two histories: its disk was rolled back or cloned. It must take a new identity.
    Forked {
        /// The last start that both histories share.
        common: Option<u64>,
    },
    /// The peer's device key is this node's own: one of two cloned cards.
    Myself,
    /// Nothing was heard for too long.
    Silent,
    /// What the peer covers is behind this node's floor.
    BelowFloor,
    /// The peer was retired on this site while the link was open; with a new link it is a member again.
    Untracked,
}

/// Why a frame is not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum MessageError {
    /// The payload does not decode.
    Malformed {
        /// Which message.
        kind: u8,
    },
    /// It decodes and breaks a limit.
    OutOfBounds {
        /// Which message.
        kind: u8,
        /// What is out of bounds.
        what: &'static str,
    },
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::Malformed { kind } => {
                write!(f, "a message of kind {kind} does not decode")
            }
            MessageError::OutOfBounds { kind, what } => {
                write!(f, "a message of kind {kind} is out of bounds: {what}")
            }
        }
    }
}
impl core::error::Error for MessageError {}

impl Message {
    /// The frame kind.
    pub const fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => 1,
            Message::Pull(_) => 2,
            Message::Changes(_) => 3,
            Message::Confirm(_) => 4,
            Message::Ping(_) => 5,
            Message::Pong(_) => 6,
            Message::Bye(_) => 7,
            Message::Ask(_) => 8,
            Message::Report(_) => 9,
            Message::Fetch(_) => 10,
            Message::Fetched(_) => 11,
        }
    }
    /// The message's name, for logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Message::Hello(_) => "Hello",
            Message::Pull(_) => "Pull",
            Message::Changes(_) => "Changes",
            Message::Confirm(_) => "Confirm",
            Message::Ping(_) => "Ping",
            Message::Pong(_) => "Pong",
            Message::Bye(_) => "Bye",
            Message::Ask(_) => "Ask",
            Message::Report(_) => "Report",
            Message::Fetch(_) => "Fetch",
            Message::Fetched(_) => "Fetched",
        }
    }
    /// Appends the message as one frame; gives back its length.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        encode_frame(out, self.kind(), |out| match self {
            Message::Hello(body) => append(out, body),
            Message::Pull(body) => append(out, body),
            Message::Changes(body) => append(out, body),
            Message::Confirm(body) => append(out, body),
            Message::Ping(body) => append(out, body),
            Message::Pong(body) => append(out, body),
            Message::Bye(body) => append(out, body),
            Message::Ask(body) => append(out, body),
            Message::Report(body) => append(out, body),
            Message::Fetch(body) => append(out, body),
            Message::Fetched(body) => append(out, body),
        })
    }
    /// Decodes and checks a frame's payload; `None` for a kind that this build does not know.
    ///
    /// # Errors
    /// [`MessageError`] for bytes that no honest member sends.
    pub fn decode(kind: u8, payload: &[u8]) -> Result<Option<Message>, MessageError> {
        let message = match kind {
            1 => Message::Hello(take(kind, payload, Trailing::Ignored)?),
            2 => Message::Pull(take(kind, payload, Trailing::Refused)?),
            3 => Message::Changes(take(kind, payload, Trailing::Refused)?),
            4 => Message::Confirm(take(kind, payload, Trailing::Refused)?),
            5 => Message::Ping(take(kind, payload, Trailing::Refused)?),
            6 => Message::Pong(take(kind, payload, Trailing::Refused)?),
            7 => Message::Bye(take(kind, payload, Trailing::Ignored)?),
            8 => Message::Ask(take(kind, payload, Trailing::Refused)?),
            9 => Message::Report(take(kind, payload, Trailing::Ignored)?),
            10 => Message::Fetch(take(kind, payload, Trailing::Refused)?),
            11 => Message::Fetched(take(kind, payload, Trailing::Refused)?),
            _ => return Ok(None),
        };
        match message.out_of_bounds() {
            Some(what) => Err(MessageError::OutOfBounds { kind, what }),
            None => Ok(Some(message)),
        }
    }
    fn out_of_bounds(&self) -> Option<&'static str> {
        let checks: &[(bool, &'static str)] = &match self {
            Message::Hello(hello) => [
                (hello.node_id.is_well_formed(), "node name"),
                (hello.vector.is_well_formed() && hello.floor.is_well_formed(), "vector"),
                ((1..=START_TOKENS_MAX).contains(&hello.tokens.len()), "start tokens"),
                (hello.members.len() <= MEMBERS_MAX, "members"),
                (hello.members.iter().all(|member| member.node_id.is_well_formed()), "member name"),
                (hello.replica != ReplicaId::NONE && hello.hlc.is_well_formed(), "replica or clock"),
            ],
            Message::Pull(pull) => {
                [(pull.vector.is_well_formed(), "vector"), (true, ""), (true, ""), (true, ""), (true, ""), (true, "")]
            }
            Message::Changes(changes) => [
                (changes.rows.len() <= BATCH_ROWS_MAX, "rows"),
                (changes.rows.iter().all(Row::is_well_formed), "row"),
                (changes.closure.as_ref().is_none_or(|closure| closure.vector.is_well_formed()), "vector"),
                (changes.closure.as_ref().is_none_or(|closure| closure.floor.is_well_formed()), "floor"),
                (changes.closure.as_ref().is_none_or(|closure| closure.hlc.is_well_formed()), "clock"),
                (true, ""),
            ],
            Message::Confirm(confirm) => [
                (confirm.vector.is_well_formed(), "vector"),
                (confirm.relayed.len() <= RELAYED_CONFIRMATIONS_MAX, "relayed confirmations"),
                (confirm.relayed.iter().all(|relayed| relayed.vector.is_well_formed()), "relayed vector"),
                (true, ""),
                (true, ""),
                (true, ""),
            ],
            Message::Fetch(fetch) => [
                ((1..=FETCH_KEYS_MAX).contains(&fetch.keys.len()), "keys"),
                (fetch.keys.iter().all(|key| key.is_well_formed() && key.scope != Scope::Local), "key"),
                (true, ""),
                (true, ""),
                (true, ""),
                (true, ""),
            ],
            Message::Fetched(fetched) => [
                (fetched.rows.len() <= FETCH_KEYS_MAX, "rows"),
                (fetched.rows.iter().all(Row::is_well_formed), "row"),
                (fetched.vector.is_well_formed(), "vector"),
                (true, ""),
                (true, ""),
                (true, ""),
            ],
            Message::Report(report) if !report.member.is_well_formed() => return Some("report"),
            Message::Ping(_) | Message::Pong(_) | Message::Bye(_) | Message::Ask(_) | Message::Report(_) => {
                return None;
            }
        };
        checks.iter().find(|(holds, _)| !holds).map(|(_, what)| *what)
    }
}

impl Bye {
    /// A protocol error, told to the peer in at most 64 bytes.
    pub fn protocol(reason: &str) -> Bye {
        let mut text = heapless::String::new();
        reason.chars().take_while(|c| text.push(*c).is_ok()).for_each(drop);
        Bye::Protocol(text)
    }
    /// One line for a log.
    pub fn reason(&self) -> String {
        match self {
            Bye::Stopping => "it stops".into(),
            Bye::Rotated => "the slot was given to another member".into(),
            Bye::Duplicate => "another link is kept".into(),
            Bye::Version => "no protocol version in common".into(),
            Bye::Protocol(text) => alloc::format!("protocol error: {text}"),
            Bye::NameTaken => "the node name belongs to another device key; see `cbddc peers replace`".into(),
            Bye::NotAMember => "the device was revoked or replaced".into(),
            Bye::Forked { .. } => "the replica has two histories: a disk was rolled back or cloned".into(),
            Bye::Myself => "both have the same device key: one is a clone of the other".into(),
            Bye::Silent => "nothing was heard for too long".into(),
            Bye::BelowFloor => "the sender was below the floor".into(),
            Bye::Untracked => "it was untracked; with a new link it is a member again".into(),
        }
    }
}

fn append<T: Serialize>(out: &mut Vec<u8>, body: &T) {
    let taken = core::mem::take(out);
    *out = postcard::to_extend(body, taken).expect("encoding these plain values into memory cannot fail");
}

enum Trailing {
    Ignored,
    Refused,
}

fn take<'a, T: Deserialize<'a>>(kind: u8, payload: &'a [u8], trailing: Trailing) -> Result<T, MessageError> {
    match postcard::take_from_bytes(payload) {
        Ok((body, rest)) if rest.is_empty() || matches!(trailing, Trailing::Ignored) => Ok(body),
        _ => Err(MessageError::Malformed { kind }),
    }
}
