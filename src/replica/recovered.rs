//! What a person decides about rows that were kept aside: written again as new, or forgotten.
//!
//! A slice at a time, so that one transaction stays small. Nothing here decides which rows are kept aside: a bootstrap
//! and the salvage of a damaged database do.

use super::knowledge::Knowledge;
use super::table::{Area, Table};
use crate::limits::RECOVERED_SLICE;
use crate::row::{Body, Row, RowKey};
use crate::time::{Reading, Stamp};
use alloc::string::String;
use alloc::vec::Vec;

/// A row that waits, with its number there; `None` where its checksum says that it is damaged.
pub type Waiting = (u64, Option<Row>);

/// What is to become of rows that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Each is written again as new, above whatever stands at its key now.
    Apply,
    /// They are forgotten.
    Drop,
}

/// A person's decision about the rows behind a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub choice: Choice,
    /// Rows of this collection alone.
    pub collection: Option<String>,
    /// Rows of these keys alone; all where there are none.
    pub keys: Vec<String>,
    /// Rows behind this number.
    pub after: u64,
}

/// What one slice did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decided {
    /// Keys that were written again.
    pub written: Vec<RowKey>,
    /// Rows that wait no longer, those that were written again among them.
    pub settled: u64,
    /// Rows that could not be written again, since they are damaged; they still wait.
    pub damaged: u64,
    /// Where the next slice goes on; none when nothing stood beyond.
    pub next: Option<u64>,
}

impl Decision {
    /// Whether it is about this row. A damaged one cannot say whose it is: only a decision about all takes it.
    fn is_about(&self, row: Option<&Row>) -> bool {
        let Some(row) = row else { return self.collection.is_none() && self.keys.is_empty() };
        let collection = self.collection.as_ref().is_none_or(|wanted| *wanted == row.key.collection);
        collection && (self.keys.is_empty() || self.keys.contains(&row.key.key))
    }
}

impl Knowledge {
    /// Carries out one slice of a decision. With `sending`, a link is open: what is written counts as sent.
    ///
    /// # Errors
    /// The store's.
    pub fn decide<T: Table>(
        &mut self,
        table: &mut T,
        now: Reading,
        decision: &Decision,
        sending: bool,
    ) -> Result<Decided, T::Error> {
        let waiting = table.recovered(decision.after, RECOVERED_SLICE)?;
        let mut done = Decided { next: waiting.last().map(|(number, _)| *number), ..Decided::default() };
        for (number, row) in waiting.into_iter().filter(|(_, row)| decision.is_about(row.as_ref())) {
            match (row, decision.choice) {
                (None, Choice::Apply) => {
                    done.damaged += 1;
                    continue;
                }
                (None, Choice::Drop) => table.settle_recovered(number, false)?,
                (Some(row), choice) => {
                    // Of several versions of one key the highest is meant; the others give way to it.
                    let highest =
                        table.recovered_of(&row.key)?.into_iter().filter(|of| of.waits).map(|of| of.rank).max();
                    let outranked = highest > Some((row.stamp, row.dot.origin));
                    // What was known here and leaves no trace would count as deleted here when it arrives after all.
                    table.settle_recovered(number, self.was_known(row.dot))?;
                    let over = row.is_expired(now.millis);
                    if choice == Choice::Apply && !outranked && !over {
                        self.write_again(table, now, row, &mut done.written)?;
                    }
                }
            }
            done.settled += 1;
            self.recovered = self.recovered.saturating_sub(1);
        }
        if sending {
            self.sent = self.seq;
        }
        Ok(done)
    }

    fn write_again<T: Table>(
        &mut self,
        table: &mut T,
        now: Reading,
        row: Row,
        written: &mut Vec<RowKey>,
    ) -> Result<(), T::Error> {
        let before = table.head(Area::Rows, &row.key)?;
        // Deleting what is deleted writes nothing; where nothing stands, a third node may still bring it.
        if row.body == Body::Tombstone && before.is_some_and(|head| head.tombstone) {
            return Ok(());
        }
        let above = if row.is_local() { Stamp::ZERO } else { row.stamp };
        written.push(row.key.clone());
        self.write_as_new(table, now, Area::Rows, above, row.key, row.body, row.expires_at).map(drop)
    }
}
