//! A write of this node: stamped above what it replaces, with this replica's next dot.

use super::knowledge::Knowledge;
use super::table::{Area, Table};
use crate::id::{Dot, ReplicaId, Seq};
use crate::mutants::{Mutant, planted};
use crate::row::{Body, Head, Row, RowKey, Scope};
use crate::time::{Millis, Reading, Stamp};

/// What is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub key: RowKey,
    /// The document, or a tombstone to delete.
    pub body: Body,
    /// When it expires.
    pub expires_at: Option<Millis>,
    /// What must hold before.
    pub precondition: Precondition,
}

/// What must hold of this node's row, checked inside the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// No document.
    Absent,
    /// A document.
    Present,
    /// A document at this version.
    At(Stamp, ReplicaId),
    /// Nothing, but it was accepted earlier, with this stamp as this replica: it competes by them like a row from a peer. A
    /// row that ranks at or above stays, which is no refusal.
    Accepted(Stamp, ReplicaId),
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The stamp of the row now; of a delete that found nothing, zero.
    pub stamp: Stamp,
    /// Its origin.
    pub origin: ReplicaId,
    /// Its number there; zero where no peer will ever say that it has it: of a local row, and of a delete that found nothing.
    pub seq: Seq,
    /// Whether there was a document.
    pub existed: bool,
    /// Whether a row was written: a delete that finds nothing writes nothing.
    pub changed: bool,
}

/// The precondition did not hold; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

impl Knowledge {
    /// Writes one row. With `sending`, a link is open: the write counts as sent in the same transaction.
    ///
    /// # Errors
    /// The store's; [`Refused`] inside is not one.
    pub fn write<T: Table>(
        &mut self,
        table: &mut T,
        now: Reading,
        write: Write,
        sending: bool,
    ) -> Result<Result<Written, Refused>, T::Error> {
        let before = table.head(Area::Rows, &write.key)?;
        let conditional = !matches!(write.precondition, Precondition::None | Precondition::Accepted(..));
        if before.is_none() && (conditional || write.body == Body::Tombstone) {
            table.confirm_absent(&write.key)?;
        }
        let visible = before.filter(|head| head.is_visible(now.millis));
        let holds = match write.precondition {
            Precondition::None | Precondition::Accepted(..) => true,
            Precondition::Absent => visible.is_none(),
            Precondition::Present => visible.is_some(),
            Precondition::At(stamp, origin) => {
                visible.is_some_and(|head| (head.stamp, head.dot.origin) == (stamp, origin))
            }
        };
        if !holds {
            return Ok(Err(Refused));
        }
        let existed = visible.is_some();
        if let (Precondition::Accepted(stamp, replica), Some(head)) = (write.precondition, before)
            && !head.damaged
            && (head.stamp, head.dot.origin) >= (stamp, replica)
            && !planted(Mutant::QueuedIsBlind)
        {
            return Ok(Ok(Written {
                stamp: head.stamp,
                origin: head.dot.origin,
                seq: head.dot.seq,
                existed,
                changed: false,
            }));
        }
        // Whether a damaged row is a tombstone is not known.
        if write.body == Body::Tombstone && before.is_none_or(|head| head.tombstone && !head.damaged) {
            let nothing = Dot { origin: ReplicaId::NONE, seq: 0 };
            let (stamp, dot) = before.map_or((Stamp::ZERO, nothing), |head| (head.stamp, head.dot));
            return Ok(Ok(Written { stamp, origin: dot.origin, seq: dot.seq, existed, changed: false }));
        }
        let Write { key, body, expires_at, precondition } = write;
        let row = match precondition {
            Precondition::Accepted(stamp, replica) if self.keeps_stamp(stamp, replica) => {
                self.hlc.witness(now, stamp);
                self.write_stamped(table, Area::Rows, stamp, before, key, body, expires_at)?
            }
            _ => self.write_as_new(table, now, Area::Rows, Stamp::ZERO, key, body, expires_at)?,
        };
        if sending && !planted(Mutant::SentNotMarked) {
            self.sent = self.seq;
        }
        Ok(Ok(Written { stamp: row.stamp, origin: row.dot.origin, seq: row.dot.seq, existed, changed: true }))
    }

    /// Whether a write that was accepted earlier can have its stamp still. Not in another life of the database, and not
    /// where a tombstone above it was dropped meanwhile: it may be this key's, nobody here can tell, and whoever holds it
    /// still would not take the row. Then it is new, like a write that was never sent when its author bootstraps.
    fn keeps_stamp(&self, stamp: Stamp, replica: ReplicaId) -> bool {
        replica == self.replica && (stamp > self.dropped_stamp || planted(Mutant::QueuedKeepsStamp))
    }

    /// Writes a row with a new dot and a stamp above the row that it replaces and above `above`, whatever they are.
    #[allow(clippy::too_many_arguments, reason = "where, when and what: a struct would be filled at each call")]
    pub(super) fn write_as_new<T: Table>(
        &mut self,
        table: &mut T,
        now: Reading,
        area: Area,
        above: Stamp,
        key: RowKey,
        body: Body,
        expires_at: Option<Millis>,
    ) -> Result<Row, T::Error> {
        let before = table.head(area, &key)?;
        // The stamp of a damaged row may be anything: above all that was ever seen is above what it was, unless that came from
        // the far future, which moves no clock. So above what stands there, too, if a row could have it.
        let stamp = before.map(|head| head.stamp).filter(|stamp| stamp.is_well_formed());
        let replaced = stamp.unwrap_or(Stamp::ZERO).max(above);
        let stamp = match planted(Mutant::StampNotAboveRow) {
            true => Stamp::new(now.millis, 0),
            false => self.hlc.tick_above(now, replaced),
        };
        self.write_stamped(table, area, stamp, before, key, body, expires_at)
    }

    /// Writes a row with a new dot and this stamp in place of `before`, which ranks below it.
    #[allow(clippy::too_many_arguments, reason = "where, when and what: a struct would be filled at each call")]
    fn write_stamped<T: Table>(
        &mut self,
        table: &mut T,
        area: Area,
        stamp: Stamp,
        before: Option<Head>,
        key: RowKey,
        body: Body,
        expires_at: Option<Millis>,
    ) -> Result<Row, T::Error> {
        // What never leaves the node takes no number that others would wait for.
        let dot = match key.scope {
            Scope::Local => Dot { origin: self.replica, seq: 0 },
            Scope::Replicated | Scope::System => self.next_dot(),
        };
        let row = Row { key, stamp, dot, body, expires_at };
        self.put(table, area, &row, before)?;
        Ok(row)
    }

    /// Puts a row at the tail of the stream in place of `before`, and keeps the digest.
    pub(super) fn put<T: Table>(
        &mut self,
        table: &mut T,
        area: Area,
        row: &Row,
        before: Option<Head>,
    ) -> Result<(), T::Error> {
        self.put_uncounted(table, area, row, before)?;
        let damaged = before.is_some_and(|head| head.damaged);
        if damaged { self.recount(table, Area::Rows) } else { Ok(()) }
    }

    /// The same; in place of a damaged row the caller has to count digest and tombstones anew.
    pub(super) fn put_uncounted<T: Table>(
        &mut self,
        table: &mut T,
        area: Area,
        row: &Row,
        before: Option<Head>,
    ) -> Result<(), T::Error> {
        let head = Head::of(row, self.next_position());
        if self.covered_upto + 1 == self.tail && (head.local || self.vector.covers(head.dot)) {
            self.covered_upto = self.tail;
        }
        let damaged = before.is_some_and(|head| head.damaged);
        if let (Some(before), Area::Rows, false) = (&before, area, damaged) {
            self.note_replaced(before, row.dot);
        }
        table.put(area, row, &head, before.map(|head| head.local_seq))?;
        if area == Area::Rows {
            table.forget_unread(&row.key)?;
        }
        self.tombstones -= u64::from(before.is_some_and(|head| head.tombstone)).min(self.tombstones);
        self.tombstones += u64::from(head.tombstone);
        let gone = before.map_or(0, |head| head.digest_term());
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(head.digest_term());
        Ok(())
    }
}
