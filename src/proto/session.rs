//! The state of one link: what was said, what is on its way, what is waited for.

use super::io::{LinkId, Target, Ticket};
use super::repair::Fetching;
use crate::id::{DeviceId, LocalSeq, Seq, VersionVector};
use crate::time::Millis;
use crate::wire::{Changes, Hello, Mode};
use alloc::collections::VecDeque;
use core::net::SocketAddr;

/// One link in session.
pub(super) struct Session {
    pub(super) link: LinkId,
    pub(super) device: DeviceId,
    pub(super) address: SocketAddr,
    pub(super) dialled: Option<Target>,
    pub(super) heard_at: Millis,
    pub(super) pinged_at: Millis,
    pub(super) opened_at: Millis,
    pub(super) peer: Option<Peer>,
    /// The floor in our last Hello.
    pub(super) said_floor: VersionVector,
    /// Our own writes as our last Hello here counted them.
    pub(super) said_seq: Option<Seq>,
    /// Our stream to it.
    pub(super) outgoing: Option<Outgoing>,
    /// Its stream to us.
    pub(super) incoming: Incoming,
    pub(super) next_stream: u32,
    /// A Confirm is due to it although it sent nothing: our vector has risen.
    pub(super) announce_at: Option<Millis>,
    /// It is told then what others have confirmed, if that is news to it.
    pub(super) news_at: Option<Millis>,
    /// Rows of others are passed on to it then, if it lacks them still.
    pub(super) relay_at: Option<Millis>,
    /// No reconciliation before this.
    pub(super) reconcile_after: Millis,
    /// Digests differed too soon after one: they are compared again then.
    pub(super) compare_at: Option<Millis>,
    /// What both covered when one of them last compared the digests, and when it was looked at whether they cover more by now.
    pub(super) compared: VersionVector,
    pub(super) compared_at: Millis,
    /// Storage has refused a batch of it so many times in a row, and is offered none before this.
    pub(super) refusals: u32,
    pub(super) retry_at: Option<Millis>,
    /// It is told again then how this node is; `None` before the first time.
    pub(super) report_at: Option<Millis>,
    /// What has been relayed of others' confirmations.
    pub(super) relayed_upto: u64,
    pub(super) round_trip_ms: Option<Millis>,
    pub(super) goodbye: Option<crate::wire::Bye>,
    /// It was asked for rows that are damaged here.
    pub(super) fetching: Option<Fetching>,
    /// The instance of the same device whose link this one took over, since it looked like the time before a restart.
    pub(super) superseded: Option<u64>,
}

/// What the other side said.
pub(super) struct Peer {
    pub(super) hello: Hello,
    /// What it covers, by its last announcement.
    pub(super) announced: VersionVector,
    /// What its batches are known to be later than: its Hello and the closures of its stream. A Confirm may overtake a
    /// batch that was read before it, so it does not count here.
    pub(super) streamed: VersionVector,
    /// Its place in the member table is on disk; its cursor is known.
    pub(super) met: bool,
    pub(super) cursor: LocalSeq,
    /// Both streams were closed since then.
    pub(super) live_since: Option<Millis>,
}

/// Our stream to a peer.
pub(super) struct Outgoing {
    pub(super) stream: u32,
    pub(super) mode: Mode,
    pub(super) position: LocalSeq,
    pub(super) reading: Option<Ticket>,
    /// A batch that waits for its own dots to be marked as sent.
    pub(super) held: Option<(Changes, Seq)>,
    pub(super) in_flight: VecDeque<(LocalSeq, usize)>,
    pub(super) in_flight_bytes: usize,
    /// The version of our knowledge at its last closure: nothing to send while it stands.
    pub(super) closed_at: Option<u64>,
    pub(super) closures: u32,
    /// The next closure is said although it tells the peer nothing new: its digest differs from the peer's.
    pub(super) say_closure: bool,
    /// It stands before the damaged row at this position, which the peer is asked for first. Up to another such rows are
    /// passed over, since it was.
    pub(super) stopped: Option<LocalSeq>,
    pub(super) passes_upto: LocalSeq,
    /// Something was passed over behind this position: no closure and no position beyond is said until it was given up; then all
    /// that stands beyond is sent again.
    pub(super) hole: Option<LocalSeq>,
    /// Vector and digest at the last of them.
    pub(super) closed_with: Option<(VersionVector, u128)>,
}

/// Its stream to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Not asked for.
    Idle,
    /// It is another peer's turn first.
    Waiting,
    /// Asked for.
    Open {
        stream: u32,
        mode: Mode,
        /// Whether it has reached the sender's tail once.
        closed: bool,
        /// When something last came.
        progress_at: Millis,
        /// Where its last batch ended, once there was one.
        upto: Option<LocalSeq>,
    },
}

impl Outgoing {
    /// What was sent beyond a hole moved nobody's position: that one of those batches was not taken could not be told from the
    /// next. So they are sent again. Says whether there was a hole.
    pub(super) fn begin_again_at_hole(&mut self) -> bool {
        let Some(hole) = self.hole.take() else { return false };
        (self.position, self.reading, self.closed_at) = (hole, None, None);
        true
    }
}

impl Session {
    pub(super) fn new(
        link: LinkId,
        device: DeviceId,
        address: SocketAddr,
        dialled: Option<Target>,
        mono: Millis,
    ) -> Session {
        Session {
            link,
            device,
            address,
            dialled,
            heard_at: mono,
            pinged_at: mono,
            opened_at: mono,
            peer: None,
            said_floor: VersionVector::new(),
            said_seq: None,
            outgoing: None,
            incoming: Incoming::Idle,
            next_stream: 1,
            announce_at: None,
            news_at: None,
            relay_at: None,
            reconcile_after: 0,
            compare_at: None,
            compared: VersionVector::new(),
            compared_at: mono,
            refusals: 0,
            retry_at: None,
            report_at: None,
            relayed_upto: 0,
            round_trip_ms: None,
            goodbye: None,
            superseded: None,
            fetching: None,
        }
    }
    pub(super) fn met(&self) -> Option<&Peer> {
        self.peer.as_ref().filter(|peer| peer.met)
    }
    /// Both streams start over: one side has said Hello again.
    pub(super) fn reset_streams(&mut self) {
        self.outgoing = None;
        self.incoming = Incoming::Idle;
        if let Some(peer) = &mut self.peer {
            peer.live_since = None;
        }
    }
    /// It is being caught up with: asked for, and not yet at the tail.
    pub(super) fn is_catching_up(&self) -> bool {
        matches!(self.incoming, Incoming::Open { closed: false, .. })
    }
    /// Rows of a bootstrap that it takes from us have been sent up to here.
    pub(super) fn serving_bootstrap(&self) -> Option<LocalSeq> {
        self.outgoing.as_ref().filter(|out| out.mode == Mode::Bootstrap && out.closures == 0).map(|out| out.position)
    }
    pub(super) fn next_stream(&mut self) -> u32 {
        self.next_stream += 1;
        self.next_stream
    }
}
