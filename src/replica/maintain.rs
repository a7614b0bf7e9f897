//! What time does to rows: documents expire into tombstones, tombstones are dropped once nobody can need them.

use super::knowledge::Knowledge;
use super::table::{Area, Table};
use crate::id::{LocalSeq, VersionVector};
use crate::limits::{LOOSE_MAX, TOMBSTONE_OVERHEAD_BYTES};
use crate::mutants::{Mutant, planted};
use crate::row::RowKey;
use crate::time::{Millis, Reading};
use alloc::vec::Vec;

/// How long tombstones are kept, and what may be dropped now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// What every tracked member has on disk; `None` while there is no member.
    pub confirmed_by_all: Option<VersionVector>,
    /// Youngest age of a tombstone that is dropped because all members have it, in milliseconds.
    pub min_age: Millis,
    /// Age past which one is dropped although a member lacks it, in milliseconds.
    pub keep: Millis,
    /// Past so many the first in the stream are dropped although a member lacks them and whatever their age: a dead
    /// member must not fill every card.
    pub tombstones_max: u64,
    /// So many bytes of tombstones are kept beyond their bound, as the last round over all of them has counted: the first in
    /// the stream are dropped until they are not, in the same way.
    pub bytes_over: u64,
    /// A bootstrap that is being served has been sent rows up to here: tombstones beyond must stay, or the newcomer
    /// would keep what they delete.
    pub upto: LocalSeq,
    /// Look at tombstones behind this position.
    pub after: LocalSeq,
    /// Rows looked at in one slice.
    pub slice: usize,
}

/// What one slice did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Maintained {
    /// Keys of documents that expired.
    pub expired: Vec<RowKey>,
    /// Tombstones dropped.
    pub dropped: u64,
    /// Bytes that those which were looked at and kept take, about.
    pub bytes: u64,
    /// Where the next slice goes on; 0 when it starts over.
    pub next: LocalSeq,
    /// Whether more documents have expired than this slice took.
    pub more: bool,
}

impl Knowledge {
    /// Expires documents and drops tombstones, a slice at a time.
    ///
    /// # Errors
    /// The store's.
    pub fn maintain<T: Table>(
        &mut self,
        table: &mut T,
        now: Reading,
        retention: &Retention,
    ) -> Result<Maintained, T::Error> {
        let mut done = Maintained::default();
        // What expires in this slice is dropped in a later one: who waits at the tail of the change feed sees it.
        let seen_upto = self.tail;
        let expired = table.expired(now.millis, retention.slice)?;
        done.more = expired.len() == retention.slice;
        for (local_seq, row) in expired {
            let before = table.head(Area::Rows, &row.key)?;
            done.expired.push(row.key.clone());
            if planted(Mutant::ExpiryForgets) {
                table.remove(Area::Rows, local_seq)?;
            } else {
                self.put(table, Area::Rows, &row.expired(), before)?;
            }
        }
        let tombstones = table.tombstones(retention.after, retention.slice)?;
        done.next = if tombstones.len() < retention.slice { 0 } else { tombstones[tombstones.len() - 1].0.local_seq };
        let mut over = retention.bytes_over;
        for (head, name) in tombstones {
            let bytes = name + TOMBSTONE_OVERHEAD_BYTES;
            let since = head.expires_at.unwrap_or(0).max(head.stamp.millis());
            let age = now.millis.saturating_sub(since);
            let everybody = match &retention.confirmed_by_all {
                Some(vector) => vector.covers(head.dot) || planted(Mutant::DropBeforeMembersCover),
                None => planted(Mutant::DropWithoutMembers),
            };
            let too_many = self.tombstones > retention.tombstones_max || over > 0;
            let old_enough = (everybody && age >= retention.min_age) || age >= retention.keep || too_many;
            let covered = self.vector.covers(head.dot) || planted(Mutant::DropAtOnceWithoutOwnCover);
            let passed = self.hlc.last() > head.stamp || now.millis > head.stamp.millis();
            let remembered = self.loose.len() < LOOSE_MAX;
            let droppable = head.local_seq <= seen_upto
                && match head.local {
                    // Only the change feed has use for it, and it must not push out what peers still need.
                    true => age >= retention.min_age || self.tombstones > retention.tombstones_max / 2,
                    false => remembered && covered && passed && old_enough && head.local_seq <= retention.upto,
                };
            if droppable {
                self.dropped_upto = self.dropped_upto.max(head.local_seq);
                self.dropped_stamp = self.dropped_stamp.max(head.stamp);
                table.remove(Area::Rows, head.local_seq)?;
                self.tombstones -= self.tombstones.min(1);
                // A later write of this key must rank above what was dropped.
                self.hlc.raise_to(head.stamp);
                if !head.local && !planted(Mutant::FloorNotRaised) {
                    self.floor.raise(head.dot);
                }
                done.dropped += 1;
                over = over.saturating_sub(bytes);
            } else {
                done.bytes += bytes;
            }
        }
        Ok(done)
    }
}
