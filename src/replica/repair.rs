//! A row whose checksum does not match is given what a peer has at its key.
//!
//! Nothing in such a row can be believed, its stamp and dot included. So a peer's row is taken only where it is certain
//! to be that write or a later winner; who gives way to an older one loses a write that was acknowledged. Which peer is
//! asked, and when, is decided in `proto`.

use super::knowledge::Knowledge;
use super::table::{Area, Table, Want};
use crate::id::{LocalSeq, VersionVector};
use crate::limits::{BATCH_BYTES_TARGET, FETCH_KEYS_MAX};
use crate::mutants::{Mutant, planted};
use crate::row::{Head, Row, RowKey};
use alloc::vec::Vec;

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// Where it stands.
    pub local_seq: LocalSeq,
    /// Its name, where one of the places that have it is whole.
    pub key: Option<RowKey>,
}

/// What a node has at some keys, read in one snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its rows, tombstones too; none for keys at which it has none, or a damaged one.
    pub rows: Vec<Row>,
    /// How many of the keys were looked up, from the first on.
    pub looked: usize,
    /// What it covers.
    pub vector: VersionVector,
}

/// What a peer has at keys whose rows are damaged here.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The keys that it has looked up.
    pub keys: Vec<RowKey>,
    /// Its rows at these keys.
    pub rows: Vec<Row>,
    /// What it covers.
    pub vector: VersionVector,
    /// What was covered here when the damage was found.
    pub known: VersionVector,
    /// The damaged rows of these keys are among that.
    pub covered: Vec<RowKey>,
    /// At these keys every member has said what it has, and this peer's row is the highest: if anybody has the damaged
    /// write or a later one, it is that.
    pub highest: Vec<RowKey>,
}

/// What became of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Repaired {
    /// Keys whose rows are whole again.
    pub mended: Vec<RowKey>,
    /// Keys whose rows are damaged still: the peer has none, or one that may be older.
    pub left: Vec<RowKey>,
    /// Keys at which nothing stands any more.
    pub gone: Vec<RowKey>,
}

/// Looks up what this node has at some keys, up to the first one with a row of its own that counts as never sent: that is on
/// its way in the stream.
///
/// # Errors
/// The store's.
pub fn look<T: Table>(table: &mut T, keys: &[RowKey]) -> Result<Found, T::Error> {
    let knowledge = table.knowledge()?;
    let mut found = Found { rows: Vec::new(), looked: 0, vector: knowledge.vector.clone() };
    let mut bytes = 0;
    let unsent = |row: &Row| row.dot.origin == knowledge.replica && row.dot.seq > knowledge.sent;
    for key in keys.iter().take(FETCH_KEYS_MAX) {
        if bytes >= BATCH_BYTES_TARGET {
            break;
        }
        let row = table.row(key)?.filter(|row| !row.is_local());
        if row.as_ref().is_some_and(unsent) {
            break;
        }
        found.looked += 1;
        bytes += row.as_ref().map_or(0, Row::encoded_bytes);
        found.rows.extend(row);
    }
    Ok(found)
}

impl Knowledge {
    /// Takes from an offer what is certain.
    ///
    /// # Errors
    /// The store's.
    pub fn repair<T: Table>(&mut self, table: &mut T, offer: Offer) -> Result<Repaired, T::Error> {
        let mut done = Repaired::default();
        let Offer { keys, rows, vector, known, covered, highest } = offer;
        let knows_all = vector.includes(&known);
        let mut uncounted = false;
        for key in keys {
            let offered = rows.iter().find(|row| row.key == key);
            let Some(head) = table.head(Area::Rows, &key)? else {
                done.gone.push(key);
                continue;
            };
            // Who covers all that was covered here has that write or a later winner, if the damaged row is of what was covered.
            let knows = knows_all && covered.contains(&key);
            let replaced =
                head.damaged && self.replace_damaged(table, &head, offered, knows, highest.contains(&key))?;
            uncounted |= replaced;
            if replaced || !head.damaged { done.mended.push(key) } else { done.left.push(key) }
        }
        if uncounted {
            // What a damaged row had added to the sums is not known. Once for all of them: it goes over every head.
            self.recount(table, Area::Rows)?;
        }
        Ok(done)
    }

    /// Says whether it was replaced; then the sums are to be counted anew.
    fn replace_damaged<T: Table>(
        &mut self,
        table: &mut T,
        head: &Head,
        offered: Option<&Row>,
        knows: bool,
        highest: bool,
    ) -> Result<bool, T::Error> {
        let same = offered.is_some_and(|row| (row.stamp, row.dot) == (head.stamp, head.dot));
        let certain = same || knows || highest;
        if !certain && !planted(Mutant::RepairTakesOlder) {
            return Ok(false);
        }
        match offered {
            Some(row) => {
                self.put_uncounted(table, Area::Rows, row, Some(*head))?;
                Ok(true)
            }
            // Whoever knows it and has nothing there has dropped its tombstone: that is what was damaged here.
            None if knows && head.tombstone && self.vector.covers(head.dot) => {
                table.remove(Area::Rows, head.local_seq)?;
                self.dropped_upto = self.dropped_upto.max(head.local_seq);
                self.floor.raise(head.dot);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Counts digest and tombstones of the rows anew: of those of a new state, or where what a damaged row had added to them is not
    /// known any more.
    ///
    /// # Errors
    /// The store's.
    pub fn recount<T: Table>(&mut self, table: &mut T, area: Area) -> Result<(), T::Error> {
        let (mut digest, mut tombstones) = (0u128, 0);
        let mut add = |head: &Head| {
            digest = digest.wrapping_add(head.digest_term());
            tombstones += u64::from(head.tombstone);
            Want::Skip
        };
        table.stream(area, 0, &mut add, &mut |_, _| {})?;
        (self.digest, self.tombstones) = (digest, tombstones);
        Ok(())
    }
}
