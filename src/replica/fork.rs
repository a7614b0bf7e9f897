//! Two histories of one replica: a card that was rolled back, or cloned. Noticed by peers, mended by a new identity.

use super::knowledge::{Knowledge, MemberState};
use super::request::Said;
use super::table::{Area, Sweep, Table};
use crate::id::{Seq, VersionVector};
use crate::limits::START_TOKENS_MAX;
use crate::mutants::{Mutant, planted};
use crate::row::Row;
use crate::time::Reading;

/// Whether what a peer said of itself continues the history that is remembered of it.
///
/// `Err` holds the last start that both histories share, if any is known. `ours` is our own vector: nobody can know
/// more of a replica's writes than the replica itself.
///
/// # Errors
/// The replica has two histories.
pub fn history_verdict(seen: Option<&MemberState>, ours: &VersionVector, said: &Said) -> Result<(), Option<u64>> {
    if planted(Mutant::ForkNotNoticed) || said.same_process {
        return Ok(());
    }
    let own = said.vector.of(said.replica);
    let seen = seen.filter(|seen| seen.replica == said.replica);
    let place = |token: u64| said.starts.iter().position(|start| start.token == token);
    let common = seen.and_then(|seen| seen.tokens.iter().rev().copied().find(|token| place(*token).is_some()));
    if ours.of(said.replica) > own {
        return Err(common);
    }
    let Some((seen, last)) = seen.and_then(|seen| Some((seen, *seen.tokens.last()?))) else { return Ok(()) };
    let (seq, tail) = match place(last).map(|at| said.starts.get(at + 1)) {
        // It is still in the start that we know.
        Some(None) => (own, said.tail),
        // The start that followed must not stand behind what we have heard in the one before.
        Some(Some(next)) => (next.seq, next.tail),
        // The one that we know has fallen off the end of a full list.
        None if said.starts.len() == START_TOKENS_MAX => (said.starts[0].seq, said.starts[0].tail),
        None => return Err(common),
    };
    if seq < seen.heard || tail < seen.cursor { Err(common) } else { Ok(()) }
}

/// The highest own sequence that is proved to be the same in both histories.
pub fn shared_until(knowledge: &Knowledge, common: Option<u64>) -> Seq {
    let start = knowledge.tokens.iter().find(|start| Some(start.token) == common);
    start.map_or(0, |start| start.seq)
}

impl Knowledge {
    /// Takes a new identity: the old one has two histories that part somewhere after `shared`.
    ///
    /// Own rows beyond `shared` get new dots and keep their stamps: somebody may have seen them and deleted them since,
    /// and a new stamp would beat that delete. They count as sent for the same reason. The vector claims no more of
    /// the old identity than is shared.
    ///
    /// # Errors
    /// The store's.
    pub fn fork<T: Table>(&mut self, table: &mut T, now: Reading, shared: Seq, random: u64) -> Result<(), T::Error> {
        let old = self.replica;
        let mut parted = Sweep::new(Area::Rows, self.tail);
        self.new_life(&[], random);
        if planted(Mutant::ForkClaimsFloor) {
            self.vector.set(old, shared.max(self.floor.of(old)));
        } else {
            self.vector.set(old, shared);
            if self.floor.of(old) > shared {
                // A delete was forgotten here whose number names another row in the other history: claimed, that row would
                // count as known. The delete gets a new number like every row, which nobody covers yet.
                self.floor.set(old, shared);
                let dot = self.next_dot();
                self.floor.raise(dot);
            }
        }
        while parted.next(table, |head| head.dot.origin == old && head.dot.seq > shared && !head.local)? {
            for row in parted.rows.drain(..) {
                if planted(Mutant::ForkGetsNewStamp) {
                    self.write_as_new(table, now, Area::Rows, row.stamp, row.key, row.body, row.expires_at)?;
                    continue;
                }
                let before = table.head(Area::Rows, &row.key)?;
                let dot = self.next_dot();
                self.put(table, Area::Rows, &Row { dot, ..row }, before)?;
            }
        }
        // Beyond what is shared a number of the old identity names another row in the other history: that it was replaced
        // here says nothing about that row, which nobody here has ever deleted.
        self.loose.retain(|dot| dot.origin != old || dot.seq <= shared);
        self.sent = self.seq;
        // These numbers name other writes in the other history, which nobody has deleted.
        self.loose.retain(|dot| dot.origin != old || dot.seq <= shared);
        self.gone.set(old, self.gone.of(old).min(shared));
        // The vector claims less than before: streams have passed over rows of the other history that it covered then.
        for (device, mut member) in table.members()? {
            if member.cursor != 0 {
                member.cursor = 0;
                table.set_member(&device, &member)?;
            }
        }
        if let Some(start) = self.tokens.last_mut() {
            (start.seq, start.tail) = (self.seq, self.tail);
        }
        Ok(())
    }
}
