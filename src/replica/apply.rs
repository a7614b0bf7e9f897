//! A batch from a peer: rows by last-write-wins, the cursor, and at a closure the vector; all in one transaction.

use super::knowledge::{Knowledge, MemberState};
use super::repair::Damaged;
use super::table::{Area, Table, Want};
use crate::id::{DeviceId, LocalSeq, ReplicaId, VersionVector};
use crate::limits::REPLICAS_MAX;
use crate::mutants::{Mutant, planted};
use crate::row::{Body, Head, Row, RowKey, Scope};
use crate::time::Reading;
use crate::wire::{Closure, Mode};
use alloc::vec::Vec;

/// A batch with what is known of who sent it.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// The sender.
    pub device: DeviceId,
    /// Its replica; its cursor is kept for this one.
    pub replica: ReplicaId,
    /// What it has last announced to cover.
    pub announced: VersionVector,
    /// [`Mode::Increment`] or [`Mode::Reconcile`].
    pub mode: Mode,
    /// This node's replica when it asked: another life covers other things, and rows were left out for this one's sake.
    pub asked_as: ReplicaId,
    /// Where the batch before it in the same stream ended; `None` for a stream's first.
    pub follows: Option<LocalSeq>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Its stream's position after them.
    pub upto: LocalSeq,
    /// Nothing stands beyond.
    pub closure: Option<Closure>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It is in the rows.
    Applied {
        /// Keys whose row changed.
        changed: Vec<RowKey>,
        /// Whether a record about members is among them.
        system: bool,
        /// Both cover the same and every row is covered, and the documents differ.
        alarm: bool,
        /// Both cover the same and the documents are the same.
        equal: bool,
    },
    /// A damaged row stands where one of the batch belongs, and its stamp says nothing about which is the later. The others
    /// are in the rows; neither the cursor nor the vector has moved, so the batch comes again.
    Held {
        /// Keys whose row changed.
        changed: Vec<RowKey>,
        /// Whether a record about members is among them.
        system: bool,
        /// The first such row.
        damaged: Damaged,
    },
    /// The sender does not cover our floor: nothing was taken.
    SenderBelowFloor,
    /// We do not cover the sender's floor: the vector was not joined, we are a newcomer there.
    ReceiverBelowFloor,
    /// The sender knows later writes of this replica than this replica does: our disk was rolled back.
    RolledBack,
    /// It was asked for in another life of this node, or the batch before it was not taken, so this one was not either: its closure would cover what is missing.
    Gap,
    /// Joining would exceed the bound on replicas: nothing was taken.
    TooManyReplicas,
}

/// What became of one row of a batch.
enum Merged {
    /// It stands.
    Wins,
    /// What stood there stays.
    Loses,
    /// What stands there, at this position, is damaged: which is the later is not known.
    Held(LocalSeq),
}

impl Knowledge {
    /// Applies a batch.
    ///
    /// # Errors
    /// The store's.
    pub fn apply<T: Table>(&mut self, table: &mut T, now: Reading, incoming: Incoming) -> Result<Applied, T::Error> {
        if !incoming.announced.includes(&self.floor) && !planted(Mutant::NoFloorCheckOnApply) {
            return Ok(Applied::SenderBelowFloor);
        }
        if let Some(closure) = &incoming.closure {
            if !self.vector.includes(&closure.floor) && !planted(Mutant::NoFloorCheckAtClosure) {
                return Ok(Applied::ReceiverBelowFloor);
            }
            if closure.vector.of(self.replica) > self.seq {
                return Ok(Applied::RolledBack);
            }
            let new = closure.vector.iter().filter(|dot| self.vector.of(dot.origin) == 0).count();
            if self.vector.len() + new > REPLICAS_MAX {
                return Ok(Applied::TooManyReplicas);
            }
        }
        if incoming.rows.iter().any(|row| row.dot.origin == self.replica && row.dot.seq > self.seq) {
            return Ok(Applied::RolledBack);
        }

        let member = table.member(&incoming.device)?;
        let cursor = member.as_ref().filter(|member| member.replica == incoming.replica).map(|member| member.cursor);
        if incoming.asked_as != self.replica || incoming.follows > cursor {
            return Ok(Applied::Gap);
        }

        let (mut changed, mut held) = (Vec::new(), None);
        if !planted(Mutant::CursorWithoutRows) || incoming.closure.is_some() {
            for row in incoming.rows {
                match self.merge(table, now, incoming.mode, &row)? {
                    Merged::Wins => {
                        if planted(Mutant::JoinAtEveryBatch) {
                            self.vector.raise(row.dot);
                        }
                        changed.push(row.key);
                    }
                    Merged::Loses => {}
                    Merged::Held(local_seq) => {
                        held.get_or_insert(Damaged { local_seq, key: Some(row.key) });
                    }
                }
            }
        }
        let system = changed.iter().any(|key| key.scope == Scope::System);
        if let Some(damaged) = held {
            return Ok(Applied::Held { changed, system, damaged });
        }
        if let Some(mut member) = member.filter(|member| member.replica == incoming.replica) {
            member.cursor = member.cursor.max(incoming.upto);
            if let Some(closure) = &incoming.closure {
                note_vector(&mut member, &closure.vector);
            }
            table.set_member(&incoming.device, &member)?;
        }
        let (mut alarm, mut equal) = (false, false);
        if let Some(closure) = &incoming.closure {
            self.vector.join(&closure.vector);
            self.prune_known();
            let clean = self.is_clean(table)?;
            if closure.clean && clean && self.vector == closure.vector {
                equal = self.digest == closure.digest;
                alarm = !equal;
            }
        } else if planted(Mutant::JoinAtEveryBatch) {
            self.vector.join(&incoming.announced);
        }
        Ok(Applied::Applied { changed, system, alarm, equal })
    }

    /// Whether every row is covered by the vector, so that the digest can be compared. Looks only at rows that were
    /// not known to be covered before.
    ///
    /// # Errors
    /// The store's.
    pub fn is_clean<T: Table>(&mut self, table: &mut T) -> Result<bool, T::Error> {
        let mut upto = self.tail;
        let vector = &self.vector;
        table.stream(
            Area::Rows,
            self.covered_upto,
            &mut |head| {
                if head.local || vector.covers(head.dot) {
                    return Want::Skip;
                }
                upto = head.local_seq - 1;
                Want::Stop
            },
            &mut |_, _| {},
        )?;
        self.covered_upto = upto;
        Ok(upto == self.tail)
    }

    /// Whether a row that was known here is not accounted for by anything that was put aside: it had been deleted.
    pub(super) fn left_no_trace<T: Table>(&self, table: &mut T, row: &Row) -> Result<bool, T::Error> {
        let aside = |table: &mut T| Ok(table.recovered_of(&row.key)?.into_iter().map(|aside| aside.rank).max());
        Ok(self.was_known(row.dot) && aside(table)?.is_none_or(|aside| aside < (row.stamp, row.dot.origin)))
    }

    /// A row that came from a peer does not wait in the recovered store any more.
    pub(super) fn arrived<T: Table>(&mut self, table: &mut T, row: &Row) -> Result<(), T::Error> {
        if self.recovered > 0 && table.drop_recovered(&row.key, row.dot)? {
            self.recovered -= 1;
        }
        Ok(())
    }

    /// Takes one row if it wins.
    fn merge<T: Table>(&mut self, table: &mut T, now: Reading, mode: Mode, row: &Row) -> Result<Merged, T::Error> {
        if mode == Mode::Increment && self.vector.covers(row.dot) {
            return Ok(Merged::Loses);
        }
        let before = table.head(Area::Rows, &row.key)?;
        let wins = match before {
            None => true,
            // The same write, whole: a reconciliation, or a stream that started over, has brought it.
            Some(head) if head.damaged && (row.stamp, row.dot) == (head.stamp, head.dot) => true,
            Some(head) if head.damaged => return Ok(Merged::Held(head.local_seq)),
            Some(head) if planted(Mutant::TieKeepsOwn) => row.stamp > head.stamp,
            Some(head) => row.outranks(&head),
        };
        // It was here before this node took another's state, and has left no trace: its tombstone was dropped. Asked
        // before it is taken out of what waits, which is a trace.
        let deleted_here = wins && !row.is_tombstone() && self.left_no_trace(table, row)?;
        self.arrived(table, row)?;
        if wins {
            if planted(Mutant::FutureMovesClock) {
                self.hlc.raise_to(row.stamp);
            }
            self.hlc.witness(now, row.stamp);
            let shown = before.is_some_and(|head| !head.tombstone);
            let damaged = before.is_some_and(|head| head.damaged);
            if row.is_tombstone()
                && shown
                && !damaged
                && self.vector.covers(row.dot)
                && !planted(Mutant::ReconcileKeepsDot)
            {
                self.spread_delete(table, now, row, before)?;
            } else {
                self.put(table, Area::Rows, row, before)?;
            }
            if deleted_here {
                self.write_as_new(table, now, Area::Rows, row.stamp, row.key.clone(), Body::Tombstone, None)?;
            }
        }
        Ok(if wins { Merged::Wins } else { Merged::Loses })
    }

    /// Takes a delete that a reconciliation has brought, with a dot of this node. Its own is one that this node covers
    /// without having had the delete, as others may: they will never take it, and whoever has it drops it as one that
    /// everybody has, while the document comes back from them. The stamp stays, since others may have written above it
    /// meanwhile; where it does not outrank what it deletes under this node's name, it is the next one. It counts as sent,
    /// since the delete itself was.
    fn spread_delete<T: Table>(
        &mut self,
        table: &mut T,
        now: Reading,
        row: &Row,
        before: Option<Head>,
    ) -> Result<(), T::Error> {
        let above = |head: Head| (row.stamp, self.replica) > (head.stamp, head.dot.origin);
        if before.is_none_or(above) {
            let dot = self.next_dot();
            self.put(table, Area::Rows, &Row { dot, ..row.clone() }, before)?;
        } else {
            self.write_as_new(table, now, Area::Rows, row.stamp, row.key.clone(), Body::Tombstone, None)?;
        }
        self.sent = self.seq;
        Ok(())
    }
}

/// Takes a member's own announcement of what it covers: never downwards for one replica.
pub(super) fn note_vector(member: &mut MemberState, vector: &VersionVector) {
    member.heard = member.heard.max(vector.of(member.replica));
    member.confirmed.join(vector);
    member.has_confirmed = true;
}
