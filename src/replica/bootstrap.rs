//! A newcomer takes the whole state of a peer whose floor it does not cover.
//!
//! The peer's rows are staged as they come; when its tail is reached one transaction puts them in force and decides
//! what becomes of what this node held.

use super::knowledge::Knowledge;
use super::table::{Area, Sweep, Table};
use crate::id::{DeviceId, LocalSeq, ReplicaId, Seq, VersionVector};
use crate::mutants::{Mutant, planted};
use crate::row::{Body, Head, Row};
use crate::time::Reading;
use crate::wire::Closure;

/// Which of two nodes that meet must take the state of the other, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Newcomer {
    /// Neither: both cover the other's floor.
    Neither,
    /// This node.
    Us,
    /// The other.
    Peer,
}

/// Decides who is a newcomer, from what each covers and its floor: on both nodes alike.
///
/// Where each is below the other's floor, the lower floor gives way. The order of floors is one that a newcomer
/// inherits, and each bootstrap raises the newcomer's floor in it, so two islands that meet through many nodes become
/// one after finitely many bootstraps. By replica it would not end: who has just taken a new identity outranks
/// the rest of the other island, and each side keeps winning nodes from the other.
pub fn newcomer(ours: (&VersionVector, &VersionVector), peers: (&VersionVector, &VersionVector)) -> Newcomer {
    let ((vector, floor), (peer_vector, peer_floor)) = (ours, peers);
    match (vector.includes(peer_floor), peer_vector.includes(floor)) {
        (true, true) => Newcomer::Neither,
        (false, true) => Newcomer::Us,
        (true, false) => Newcomer::Peer,
        (false, false) if floor.outranks(peer_floor) => Newcomer::Peer,
        (false, false) => Newcomer::Us,
    }
}

/// Whose state it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The peer.
    pub device: DeviceId,
    /// Its replica.
    pub replica: ReplicaId,
    /// The end of its stream.
    pub upto: LocalSeq,
    /// What it covers there.
    pub closure: Closure,
}

/// What became of what this node held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Bootstrapped {
    /// Documents deleted here that the peer still had: deleted again.
    pub deleted_again: u64,
    /// Own writes never sent to anybody: written again.
    pub written_again: u64,
    /// Rows that the peer does not have: kept aside.
    pub recovered: u64,
}

impl Knowledge {
    /// Stages rows of the peer's stream; the later of two rows of one key stays.
    ///
    /// # Errors
    /// The store's.
    pub fn stage<T: Table>(table: &mut T, rows: &[Row]) -> Result<(), T::Error> {
        let mut staged = table.stage_tail()?;
        for row in rows {
            let before = table.head(Area::Stage, &row.key)?;
            if before.is_none_or(|head| row.rank() > head.rank()) {
                staged += 1;
                table.put(Area::Stage, row, &Head::of(row, staged), before.map(|head| head.local_seq))?;
            }
        }
        Ok(())
    }

    /// Puts the staged state in force.
    ///
    /// # Errors
    /// The store's.
    pub fn bootstrap<T: Table>(
        &mut self,
        table: &mut T,
        now: Reading,
        origin: &Origin,
        random: u64,
    ) -> Result<Bootstrapped, T::Error> {
        let mut done = Bootstrapped::default();
        let staged = table.stage_tail()?;
        let (old_replica, old_sent) = (self.replica, self.sent);
        let mut known = self.vector.clone();
        known.join(&self.gone);
        self.gone = known;
        let theirs = &origin.closure.vector;

        if planted(Mutant::BootstrapKeepsReplica) {
            self.covered_upto = 0;
        } else {
            self.vector.join(theirs);
            self.new_life(&[origin.replica], random);
        }
        let seq_before: Seq = self.seq;
        self.vector = theirs.clone();
        if seq_before > 0 {
            self.vector.set(self.replica, seq_before);
        }
        // What was forgotten here and is covered there stays forgotten: a floor only rises.
        let own_floor = core::mem::replace(&mut self.floor, origin.closure.floor.clone());
        self.floor.join(&own_floor.lowered_to(theirs));
        self.hlc.raise_to(origin.closure.hlc);
        self.tail = staged;
        self.dropped_upto = 0;

        // What the peer has and this node had deleted: the delete may be news to everybody.
        self.recount(table, Area::Stage)?;
        let mut shared = Sweep::new(Area::Stage, staged);
        while shared.next(table, |head| !head.tombstone && self.was_known(head.dot))? {
            for row in shared.rows.drain(..) {
                let held = table.head(Area::Rows, &row.key)?;
                let deleted = match held {
                    // Whether it was deleted here is not known any more.
                    Some(head) if head.damaged => false,
                    Some(head) if head.tombstone => true,
                    Some(head) if head.rank() >= row.rank() => false,
                    _ => self.left_no_trace(table, &row)?,
                };
                if deleted {
                    let above = held.map_or(row.stamp, |head| head.stamp);
                    self.write_as_new(table, now, Area::Stage, above, row.key, Body::Tombstone, None)?;
                    done.deleted_again += 1;
                }
            }
        }

        // What this node had and the peer does not cover. Nor has it what outranks its own row under a number that it covers:
        // that number names two writes, of a card that was cloned or rolled back, and it knows the other one.
        let mut held = Sweep::new(Area::Rows, LocalSeq::MAX);
        while held.next(table, |_| true)? {
            for key in held.damaged.drain(..) {
                // Its peers have it, or nobody: nobody deleted it here.
                table.note_unread(&key)?;
            }
            for row in held.rows.drain(..) {
                if row.is_local() {
                    self.put(table, Area::Stage, &row, None)?;
                    continue;
                }
                let staged = table.head(Area::Stage, &row.key)?;
                let outranks = staged.is_some_and(|head| head.rank() < row.rank());
                if theirs.covers(row.dot) && !outranks {
                    continue;
                }
                let outranked = staged.is_some_and(|head| head.rank() > row.rank());
                if row.dot.origin == old_replica && row.dot.seq > old_sent && !outranked {
                    // A delete too, although the peer has nothing there: a third node may bring what it deletes.
                    // Above its own old stamp: what it had beaten here must not beat it elsewhere.
                    self.write_as_new(table, now, Area::Stage, row.stamp, row.key, row.body, row.expires_at)?;
                    done.written_again += 1;
                } else if !planted(Mutant::BootstrapDropsUncovered)
                    && staged.is_none_or(|head| (head.stamp, head.dot) != (row.stamp, row.dot))
                    && table.keep_recovered(&row)?
                {
                    self.recovered += 1;
                    done.recovered += 1;
                }
            }
        }
        if self.recovered > 0 {
            let mut arrived = Sweep::new(Area::Stage, staged);
            while arrived.next(table, |_| true)? {
                for row in arrived.rows.drain(..) {
                    self.arrived(table, &row)?;
                }
            }
        }
        table.promote_stage()?;
        self.prune_known();
        if let Some(start) = self.tokens.last_mut() {
            (start.seq, start.tail) = (0, 0);
        }

        // Rows that were taken from others and are not covered any more must be asked for again.
        for (device, mut member) in table.members()? {
            let cursor = match device == origin.device && member.replica == origin.replica {
                true => origin.upto,
                false if planted(Mutant::BootstrapKeepsCursors) => member.cursor,
                false => 0,
            };
            if member.cursor != cursor {
                member.cursor = cursor;
                table.set_member(&device, &member)?;
            }
        }
        Ok(done)
    }
}
