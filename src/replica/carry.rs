//! What becomes of the rows of a damaged database in the one that takes its place.
//!
//! The new database is a new replica and claims nothing of the old one: rows are missing, nobody knows which. Peers fill
//! in what they have. Which rows are whole is not decided here.

use super::knowledge::Knowledge;
use super::table::{Area, Table};
use crate::id::{Dot, ReplicaId, VersionVector};
use crate::row::Row;
use crate::time::{Reading, Stamp};

impl Knowledge {
    /// Takes the place of a damaged database: a new replica above all that were heard of, with a clock and a version that are
    /// not behind.
    pub fn succeed(&mut self, above: &[ReplicaId], hlc: Stamp, version: u64, random: u64) {
        self.new_life(above, random);
        self.hlc.raise_to(hlc);
        self.version = self.version.max(version);
    }

    /// Takes in one whole row of the damaged database, where nothing at its key ranks as high. Says whether it did.
    ///
    /// A row that a member is known to have keeps its dot: that member's stream covers it again one day. Any other gets a
    /// dot of this replica, or no vector would ever cover it, and its old stamp: somebody may have seen it and deleted it
    /// since.
    ///
    /// # Errors
    /// The store's.
    pub fn carry<T: Table>(
        &mut self,
        table: &mut T,
        now: Reading,
        row: Row,
        confirmed: &[VersionVector],
    ) -> Result<bool, T::Error> {
        let before = table.head(Area::Rows, &row.key)?;
        if before.is_some_and(|head| !head.damaged && !row.outranks(&head)) {
            return Ok(false);
        }
        self.hlc.witness(now, row.stamp);
        let dot = match row.is_local() {
            true => Dot { origin: self.replica, seq: 0 },
            false if self.vector.covers(row.dot) || confirmed.iter().any(|vector| vector.covers(row.dot)) => row.dot,
            false => self.next_dot(),
        };
        self.put(table, Area::Rows, &Row { dot, ..row }, before)?;
        Ok(true)
    }

    /// What was carried so far may be known to somebody: it is never written again as new.
    pub fn count_all_as_sent(&mut self) {
        self.sent = self.seq;
    }
}
