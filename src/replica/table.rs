//! What the rules need of a store: rows by key and by position, within one transaction.

use super::knowledge::{Knowledge, MemberState};
use super::recovered::Waiting;
use super::repair::Damaged;
use crate::id::{DeviceId, Dot, LocalSeq, ReplicaId};
use crate::row::{Head, Row, RowKey};
use crate::time::{Millis, Stamp};
use alloc::vec::Vec;

/// Which set of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// The rows in force.
    Rows,
    /// A bootstrap on its way.
    Stage,
}

/// What a reader of the stream wants of the row whose head it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Not this one.
    Skip,
    /// The whole row.
    Take,
    /// This one and those behind it: later.
    Stop,
}

/// A row that was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aside {
    /// Its place in the order of versions of its key.
    pub rank: (Stamp, ReplicaId),
    /// Nobody has decided about it yet.
    pub waits: bool,
}

impl Aside {
    /// Of no row: above every one that could be.
    pub const UNREAD: (Stamp, ReplicaId) = (Stamp::LAST, ReplicaId::NONE);
}

/// A store within one transaction: everything that is done to it happens, or nothing.
///
/// A row whose stored checksum does not match is never given out.
pub trait Table {
    /// A failure of the disk. The transaction is rolled back.
    type Error;

    /// The durable state beside the rows, as of this transaction.
    fn knowledge(&mut self) -> Result<Knowledge, Self::Error>;
    /// Replaces it.
    fn set_knowledge(&mut self, knowledge: &Knowledge) -> Result<(), Self::Error>;

    /// The head of a row; local rows, tombstones and expired rows too. Of the rows in force the checksum is looked at:
    /// a damaged one is said to be.
    fn head(&mut self, area: Area, key: &RowKey) -> Result<Option<Head>, Self::Error>;
    /// Where [`Table::head`] has found nothing in force and the answer depends on it: fails where a search could have gone astray.
    ///
    /// # Errors
    /// What leads there is damaged.
    fn confirm_absent(&mut self, key: &RowKey) -> Result<(), Self::Error>;
    /// The row in force at a key, if it is whole.
    fn row(&mut self, key: &RowKey) -> Result<Option<Row>, Self::Error>;
    /// Inserts a row at position `head.local_seq`, in place of the row at `replaces`, which has the same key.
    fn put(&mut self, area: Area, row: &Row, head: &Head, replaces: Option<LocalSeq>) -> Result<(), Self::Error>;
    /// Removes the row at a position.
    fn remove(&mut self, area: Area, local_seq: LocalSeq) -> Result<(), Self::Error>;
    /// Shows the heads behind a position in order, as they stand there, and gives the rows that are wanted, at once after
    /// their head; one that is damaged is only named.
    fn stream(
        &mut self,
        area: Area,
        after: LocalSeq,
        want: &mut dyn FnMut(&Head) -> Want,
        take: &mut dyn FnMut(LocalSeq, Result<Row, Damaged>),
    ) -> Result<(), Self::Error>;
    /// Heads of tombstones behind a position in order, at most `limit`; damaged ones are left out.
    /// With each the bytes of its name.
    fn tombstones(&mut self, after: LocalSeq, limit: usize) -> Result<Vec<(Head, u64)>, Self::Error>;
    /// Live rows in force whose time was over at `now`, at most `limit`; damaged ones are left out.
    fn expired(&mut self, now: Millis, limit: usize) -> Result<Vec<(LocalSeq, Row)>, Self::Error>;

    /// Every record of [`Scope::System`](crate::row::Scope), tombstones too; damaged ones are left out.
    fn system_rows(&mut self) -> Result<Vec<Row>, Self::Error>;

    /// The highest position in the stage; 0 when it is empty.
    fn stage_tail(&mut self) -> Result<LocalSeq, Self::Error>;
    /// Empties the stage.
    fn clear_stage(&mut self) -> Result<(), Self::Error>;
    /// The stage takes the place of the rows in force; the stage is empty afterwards.
    fn promote_stage(&mut self) -> Result<(), Self::Error>;

    /// Keeps a row aside for a person to decide on. Says whether it was not there yet (same key, same dot).
    fn keep_recovered(&mut self, row: &Row) -> Result<bool, Self::Error>;
    /// Forgets it: it has arrived after all. Says whether it was waiting.
    fn drop_recovered(&mut self, key: &RowKey, dot: Dot) -> Result<bool, Self::Error>;
    /// Every row of this key that was put aside and has not arrived since. What a person has dealt with is among them:
    /// it was not deleted here.
    fn recovered_of(&mut self, key: &RowKey) -> Result<Vec<Aside>, Self::Error>;
    /// Remembers that somebody could not read the row of this key and was passed over: that a row is missing here, or an older
    /// one stands, does not mean that anybody deleted it. A trace like that of a row that a person has dealt with, of the rank
    /// [`Aside::UNREAD`].
    fn note_unread(&mut self, key: &RowKey) -> Result<(), Self::Error>;
    /// A row stands at this key again: what is missing there after that was deleted.
    fn forget_unread(&mut self, key: &RowKey) -> Result<(), Self::Error>;
    /// The rows that wait for a decision behind a number, in order, at most `limit` and about 1 MiB.
    fn recovered(&mut self, after: u64, limit: usize) -> Result<Vec<Waiting>, Self::Error>;
    /// A person has decided about it: it waits no longer. With `trace`, that it was here stays known.
    fn settle_recovered(&mut self, number: u64, trace: bool) -> Result<(), Self::Error>;

    /// Every member.
    fn members(&mut self) -> Result<Vec<(DeviceId, MemberState)>, Self::Error>;
    /// What is remembered of one member.
    fn member(&mut self, device: &DeviceId) -> Result<Option<MemberState>, Self::Error>;
    /// Remembers it.
    fn set_member(&mut self, device: &DeviceId, member: &MemberState) -> Result<(), Self::Error>;
}

/// Goes over a stream that is changed on the way, some rows at a time, so that memory stays bounded.
pub(super) struct Sweep {
    area: Area,
    after: LocalSeq,
    end: LocalSeq,
    /// The rows of this step; the caller takes them out.
    pub(super) rows: Vec<Row>,
    /// Names of wanted ones that are damaged: what they held is lost to whoever goes over the rows.
    pub(super) damaged: Vec<RowKey>,
}

impl Sweep {
    /// Rows of one step.
    const STEP: usize = 64;

    /// Over all positions up to `end`.
    pub(super) fn new(area: Area, end: LocalSeq) -> Sweep {
        Sweep { area, after: 0, end, rows: Vec::new(), damaged: Vec::new() }
    }
    /// Fills [`Sweep::rows`] with the next wanted rows; false when there are none.
    pub(super) fn next<T: Table>(
        &mut self,
        table: &mut T,
        mut wanted: impl FnMut(&Head) -> bool,
    ) -> Result<bool, T::Error> {
        let (mut taken, mut after, end) = (0, self.after, self.end);
        table.stream(
            self.area,
            self.after,
            &mut |head| {
                if head.local_seq > end || taken == Self::STEP {
                    return Want::Stop;
                }
                after = head.local_seq;
                if !wanted(head) {
                    return Want::Skip;
                }
                taken += 1;
                Want::Take
            },
            &mut |_, row| match row {
                Ok(row) => self.rows.push(row),
                Err(damaged) => self.damaged.extend(damaged.key),
            },
        )?;
        self.after = after;
        Ok(taken > 0)
    }
}
