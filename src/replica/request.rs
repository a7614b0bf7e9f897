//! What the state machines ask of storage, and what it answers: one request, one step of one transaction.

use super::apply::{Applied, Incoming};
use super::bootstrap::{Bootstrapped, Origin};
use super::fork::history_verdict;
use super::knowledge::{Knowledge, MemberState};
use super::maintain::{Maintained, Retention};
use super::read::{Batch, Stream};
use super::recovered::{Decided, Decision};
use super::repair::{Offer, Repaired};
use super::table::Table;
use super::write::{Refused, Write, Written};
use crate::id::{DeviceId, LocalSeq, NodeId, ReplicaId, Seq, VersionVector};
use crate::mutants::{Mutant, planted};
use crate::row::Row;
use crate::time::Reading;
use crate::wire::{Hello, StartToken};
use alloc::vec::Vec;

/// A request that writes. Requests are carried out in the order in which they are given; several may share one commit.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Writes of this node, each with its own precondition.
    Write {
        /// In order.
        writes: Vec<Write>,
        /// A link is open: they count as sent.
        sending: bool,
    },
    /// A batch from a peer.
    Apply(Incoming),
    /// Rows of a bootstrap on its way.
    Stage {
        /// Empty the stage first.
        first: bool,
        /// In the order of the peer's stream.
        rows: Vec<Row>,
    },
    /// Puts the stage in force.
    Bootstrap {
        /// Whose state it is.
        origin: Origin,
        /// Fresh, for the new identity.
        random: u64,
    },
    /// Own dots up to here are about to leave.
    MarkSent {
        /// The last of them.
        upto: Seq,
    },
    /// A member said Hello, or was heard of.
    Meet(Meeting),
    /// What members have on disk, for the next start.
    Confirmed {
        /// Device, replica, vector.
        vectors: Vec<(DeviceId, ReplicaId, VersionVector)>,
    },
    /// A slice of expiry and of dropping tombstones.
    Maintain(Retention),
    /// Takes a new identity.
    Fork {
        /// Own writes up to here are the same in both histories.
        shared: Seq,
        /// Fresh, for the new identity.
        random: u64,
    },
    /// The records about members.
    Records,
    /// What a peer has at keys whose rows are damaged here.
    Repair(Offer),
    /// What a person decided about rows that were kept aside.
    Decide {
        /// The decision.
        decision: Decision,
        /// A link is open: what is written again counts as sent.
        sending: bool,
    },
}

/// A member as a Hello, or the Hello of another, describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meeting {
    /// Its key.
    pub device: DeviceId,
    /// Its name.
    pub node_id: NodeId,
    /// Whether to track it; `None` leaves that as it is.
    pub tracked: Option<bool>,
    /// What it said of itself; `None` when it was only heard of.
    pub said: Option<Said>,
}

/// What a member said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its replica.
    pub replica: ReplicaId,
    /// Its last starts, oldest first.
    pub starts: Vec<StartToken>,
    /// The end of its stream.
    pub tail: LocalSeq,
    /// What it covers.
    pub vector: VersionVector,
    /// It is the process that was met before: one process has one history, and Hellos of two links may overtake each
    /// other.
    pub same_process: bool,
}

impl Said {
    /// What a Hello says.
    pub fn of(hello: &Hello, same_process: bool) -> Said {
        let (replica, starts, tail) = (hello.replica, hello.tokens.clone(), hello.tail);
        Said { replica, starts, tail, vector: hello.vector.clone(), same_process }
    }
}

/// The answer to a [`Request`], durable when it is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// One for each write.
    Written(Vec<Result<Written, Refused>>),
    /// What became of a batch.
    Applied(Applied),
    /// The rows are staged.
    Staged,
    /// The stage is in force.
    Bootstrapped(Bootstrapped),
    /// It is marked.
    Marked,
    /// The member as it is remembered now.
    Met(DeviceId, MemberState),
    /// What it said does not continue what is remembered of it, which stays; with the last start that both share.
    TwoHistories(DeviceId, Option<u64>),
    /// They are remembered.
    Noted,
    /// What the slice did.
    Maintained(Maintained),
    /// The new identity is in force.
    Forked,
    /// Rows of scope `System`.
    Records(Vec<Row>),
    /// What became of an offer.
    Repaired(Repaired),
    /// What a slice of a decision did.
    Decided(Decided),
}

/// Carries out one request within the caller's transaction. The knowledge after it comes with the answer.
///
/// # Errors
/// The store's: the transaction is to be rolled back.
pub fn execute<T: Table>(table: &mut T, now: Reading, request: Request) -> Result<(Reply, Knowledge), T::Error> {
    let before = table.knowledge()?;
    let mut knowledge = before.clone();
    let reply = match request {
        Request::Write { writes, sending } => {
            let mut done = Vec::with_capacity(writes.len());
            for write in writes {
                done.push(knowledge.write(table, now, write, sending)?);
            }
            Reply::Written(done)
        }
        Request::Apply(incoming) => Reply::Applied(knowledge.apply(table, now, incoming)?),
        Request::Stage { first, rows } => {
            if first {
                table.clear_stage()?;
            }
            Knowledge::stage(table, &rows)?;
            Reply::Staged
        }
        Request::Bootstrap { origin, random } => Reply::Bootstrapped(knowledge.bootstrap(table, now, &origin, random)?),
        Request::MarkSent { upto } => {
            knowledge.sent = knowledge.sent.max(upto);
            Reply::Marked
        }
        Request::Meet(meeting) => {
            let device = meeting.device;
            meet(table, meeting)?.map_or_else(|common| Reply::TwoHistories(device, common), |m| Reply::Met(device, m))
        }
        Request::Confirmed { vectors } => {
            for (device, replica, vector) in vectors {
                if let Some(mut member) = table.member(&device)?.filter(|member| member.replica == replica) {
                    member.confirmed.join(&vector);
                    member.has_confirmed = true;
                    member.confirmed_at = Some(now.millis);
                    table.set_member(&device, &member)?;
                }
            }
            Reply::Noted
        }
        Request::Maintain(retention) => Reply::Maintained(knowledge.maintain(table, now, &retention)?),
        Request::Fork { shared, random } => {
            knowledge.fork(table, now, shared, random)?;
            Reply::Forked
        }
        Request::Records => Reply::Records(table.system_rows()?),
        Request::Repair(offer) => Reply::Repaired(knowledge.repair(table, offer)?),
        Request::Decide { decision, sending } => Reply::Decided(knowledge.decide(table, now, &decision, sending)?),
    };
    if knowledge != before {
        knowledge.version += 1;
        if planted(Mutant::HlcNotPersisted) {
            knowledge.hlc = before.hlc;
        }
        table.set_knowledge(&knowledge)?;
    }
    Ok((reply, knowledge))
}

/// A request that only reads, served beside the writer.
///
/// # Errors
/// The store's.
pub fn read<T: Table>(table: &mut T, stream: &Stream) -> Result<Batch, T::Error> {
    stream.next(table)
}

/// Judges here and not only at the Hello: batches of an earlier link may have been on their way to a slow disk then.
fn meet<T: Table>(table: &mut T, meeting: Meeting) -> Result<Result<MemberState, Option<u64>>, T::Error> {
    let known = table.member(&meeting.device)?;
    let mut member = known.clone().unwrap_or_else(|| MemberState::new(meeting.node_id.clone(), ReplicaId::NONE));
    if let Some(tracked) = meeting.tracked {
        member.tracked = tracked;
    }
    if let Some(said) = meeting.said {
        // Our own vector may know more by now than the peer had written when it said Hello; it is judged there.
        if let Err(common) = history_verdict(known.as_ref(), &VersionVector::new(), &said) {
            return Ok(Err(common));
        }
        member.node_id = meeting.node_id;
        member.become_replica(said.replica);
        super::apply::note_vector(&mut member, &said.vector);
        member.tokens = said.starts.iter().map(|start| start.token).collect();
    }
    if known.as_ref() != Some(&member) {
        table.set_member(&meeting.device, &member)?;
    }
    Ok(Ok(member))
}
