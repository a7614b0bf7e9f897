//! The stream as a peer gets it: rows in order of position, cut anywhere, closed at the tail.

use super::knowledge::Knowledge;
use super::repair::Damaged;
use super::table::{Area, Table, Want};
use crate::id::{LocalSeq, Seq, VersionVector};
use crate::limits::{BATCH_BYTES_TARGET, BATCH_ROWS_MAX, BATCH_SCAN_MAX};
use crate::mutants::{Mutant, planted};
use crate::row::Row;
use crate::wire::{Closure, Mode};
use alloc::vec::Vec;

/// Where a peer stands in our stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Which rows it wants.
    pub mode: Mode,
    /// After this position.
    pub after: LocalSeq,
    /// What it covers: in [`Mode::Increment`] those rows are left out.
    pub covers: VersionVector,
    /// Damaged rows up to this position are passed over; the stream stops before the first one beyond.
    pub passes_upto: LocalSeq,
}

/// The next rows of a stream, read in one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub enum Batch {
    /// Rows.
    Rows {
        /// Oldest position first.
        rows: Vec<Row>,
        /// The position after them.
        upto: LocalSeq,
        /// Whether nothing stands beyond.
        closure: Option<Closure>,
        /// These own dots are in it: they must be durably marked as sent before the bytes leave.
        own: Seq,
        /// What the replica knew in that snapshot; `sent` in it is the mark as it stands.
        knowledge: Knowledge,
        /// The row that it stopped before: it cannot be read, and a closure beyond it would claim it.
        damaged: Option<Damaged>,
    },
    /// The peer does not cover our floor: it is a newcomer and gets no increments.
    BelowFloor {
        /// What the replica knew in that snapshot.
        knowledge: Knowledge,
    },
}

impl Stream {
    /// Reads the next batch. [`BATCH_BYTES_TARGET`] and [`BATCH_SCAN_MAX`] bound one call.
    ///
    /// # Errors
    /// The store's.
    pub fn next<T: Table>(&self, table: &mut T) -> Result<Batch, T::Error> {
        let mut knowledge = table.knowledge()?;
        let newcomer = !self.covers.includes(&knowledge.floor) && !planted(Mutant::NoFloorCheckAtHello);
        if newcomer && self.mode != Mode::Bootstrap {
            return Ok(Batch::BelowFloor { knowledge });
        }
        let (mut rows, mut bytes, mut seen, mut upto, mut cut) = (Vec::new(), 0, 0, self.after, false);
        let (own_replica, own_seq) = (knowledge.replica, knowledge.seq);
        let mut own = 0;
        let taken = core::cell::Cell::new(0usize);
        let passes = |at: LocalSeq| at <= self.passes_upto || planted(Mutant::StreamPassesDamage);
        let damaged = core::cell::RefCell::new(None::<Damaged>);
        table.stream(
            Area::Rows,
            self.after,
            &mut |head| {
                if taken.get() >= BATCH_BYTES_TARGET || seen == BATCH_SCAN_MAX || damaged.borrow().is_some() {
                    cut = true;
                    return Want::Stop;
                }
                seen += 1;
                upto = head.local_seq;
                let stays = head.local && !planted(Mutant::LocalLeaves);
                if stays || (self.mode == Mode::Increment && self.covers.covers(head.dot)) {
                    return Want::Skip;
                }
                if head.dot.origin == own_replica {
                    // A damaged head may name any number.
                    own = own.max(head.dot.seq.min(own_seq));
                }
                Want::Take
            },
            &mut |at, row| match row {
                Ok(row) => {
                    bytes += row.encoded_bytes();
                    rows.push(row);
                    taken.set(if rows.len() == BATCH_ROWS_MAX { BATCH_BYTES_TARGET } else { bytes });
                }
                Err(_) if passes(at) => {}
                Err(found) => *damaged.borrow_mut() = Some(found),
            },
        )?;
        let damaged = damaged.into_inner();
        if let Some(found) = &damaged {
            (upto, cut) = (found.local_seq - 1, true);
        }
        let closure = if cut {
            None
        } else {
            upto = knowledge.tail.max(upto);
            Some(Closure {
                clean: knowledge.is_clean(table)?,
                vector: knowledge.vector.clone(),
                floor: knowledge.floor.clone(),
                digest: knowledge.digest,
                hlc: knowledge.hlc.last(),
            })
        };
        Ok(Batch::Rows { rows, upto, closure, own, knowledge, damaged })
    }
}
