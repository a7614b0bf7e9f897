//! The judge: carries requests out on a simulated disk and checks after each what must always hold.
//!
//! Both searches use it, that of the rules alone and that of whole sites.

use crate::ledger::{Ledger, show};
use crate::table::MemTable;
use cbddc::id::{Dot, VersionVector};
use cbddc::limits::STAMP_AHEAD_MILLIS;
use cbddc::replica::{Incoming, Knowledge, Precondition, Reply, Request, Retention, Write, Written, execute};
use cbddc::row::{Rank, Row, RowKey};
use cbddc::time::{Millis, Reading, Stamp};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A row with its rank, which takes a hash to find.
type Stood = (Rc<Row>, Rank);

/// What a node's clock has shown.
#[derive(Clone, Default)]
struct Mark {
    hlc: Stamp,
    /// The highest stamp that it made, leaving out those above a row in a believed far future.
    made: Stamp,
}

#[derive(Default)]
pub struct Judge {
    pub ledger: Ledger,
    marks: BTreeMap<usize, Mark>,
    /// The last local rows of each node.
    local: BTreeMap<(usize, RowKey), Row>,
}

impl Judge {
    /// A node got another disk: what its clock and its local documents were is judged from there.
    pub fn new_disk(&mut self, node: usize, disk: &MemTable) {
        let hlc = disk.knowledge.hlc.last();
        self.marks.insert(node, Mark { hlc, made: Stamp::ZERO });
        self.local.retain(|(of, _), _| *of != node);
        for (row, _) in disk.rows.rows.values().filter(|(row, _)| row.is_local()) {
            self.local.insert((node, row.key.clone()), Row::clone(row));
        }
    }

    /// Carries out a request, then judges; `thorough` looks at every row and every write.
    pub fn execute(
        &mut self,
        node: usize,
        table: &mut MemTable,
        now: Reading,
        request: Request,
        thorough: bool,
    ) -> Result<(Reply, Knowledge), String> {
        let new_life = matches!(request, Request::Bootstrap { .. } | Request::Fork { .. });
        let copy = new_life.then(|| table.clone());
        let before = table.knowledge.clone();
        let writes = match &request {
            Request::Write { writes, .. } => writes.clone(),
            _ => Vec::new(),
        };
        let stood: Vec<Option<Stood>> =
            writes.iter().map(|write| table.readable(&write.key).map(|row| (row.clone(), row.rank()))).collect();
        let moves = !matches!(request, Request::Meet(_) | Request::Confirmed { .. } | Request::MarkSent { .. });
        let applies = matches!(request, Request::Apply(_));
        let mended = match &request {
            Request::Apply(incoming) => mended_by(incoming, table),
            _ => Vec::new(),
        };
        let watched = !self.ledger.any_fork();
        let arriving = match &request {
            Request::Apply(incoming) if watched => incoming.rows.clone(),
            _ => Vec::new(),
        };
        let retention = if let Request::Maintain(retention) = &request { Some(retention.clone()) } else { None };
        let shared = if let Request::Fork { shared, .. } = &request { Some(*shared) } else { None };
        let Ok((reply, after)) = execute(table, now, request);
        if shared.is_some_and(|shared| after.vector.of(before.replica) > shared) {
            return Err(format!("fork: n{node}: its vector claims more of its old identity than is shared"));
        }
        for key in mended {
            let stands = table.rows.of(&key).filter(|(_, head)| head.tombstone && before.vector.covers(head.dot));
            if let Some((row, _)) = stands {
                return Err(format!("mended: n{node}: {} is new here, and nobody will take it from here", show(row)));
            }
        }
        if let Reply::Written(written) = &reply {
            self.note_writes(node, table, now, &before, writes, stood, written)?;
        }
        if applies && now.believed {
            let bound = before.hlc.last().millis().max(now.millis + STAMP_AHEAD_MILLIS);
            // A delete that is written again may stand above a row from the far future without moving the clock.
            if after.hlc.last().millis() > bound {
                return Err(format!("clock: n{node}: a stamp from the far future has moved it"));
            }
        }
        for row in std::mem::take(&mut table.removed) {
            let too_early = |retention: &Retention| {
                // Documents that expire in the same request count too, so the bound is not looked at closely.
                let count = before.tombstones + table.rows.rows.len() as u64;
                let forced = retention.keep < Millis::MAX || count > retention.tombstones_max;
                let everybody = retention.confirmed_by_all.as_ref();
                !forced && !row.is_local() && everybody.is_none_or(|vector| !vector.covers(row.dot))
            };
            if row.is_tombstone() && retention.as_ref().is_some_and(too_early) {
                return Err(format!("drop: n{node}: {} is not on every member", show(&row)));
            }
            if row.is_tombstone() || row.is_expired(now.millis) {
                self.ledger.note_dropped(node, &row, table);
            }
            self.local.remove(&(node, row.key.clone()));
        }
        if let Some(copy) = copy {
            self.ledger.note_rewritten(&copy, table).map_err(|why| format!("dot: n{node}: {why}"))?;
        }
        if applies || after.seq > before.seq {
            self.note_again(node, table, &before, &arriving)?;
        }
        if moves {
            self.check(node, table, thorough || new_life)?;
        }
        Ok((reply, after))
    }

    #[allow(clippy::too_many_arguments, reason = "the two sides of one request")]
    fn note_writes(
        &mut self,
        node: usize,
        table: &MemTable,
        now: Reading,
        before: &Knowledge,
        writes: Vec<Write>,
        stood: Vec<Option<Stood>>,
        written: &[Result<Written, cbddc::replica::Refused>],
    ) -> Result<(), String> {
        let mut dot = Dot { origin: before.replica, seq: before.seq };
        let mut within: BTreeMap<RowKey, Stood> = BTreeMap::new();
        let mut seen: VersionVector = before.vector.clone();
        for ((write, stood), written) in writes.into_iter().zip(stood).zip(written) {
            let Ok(Written { stamp, origin, changed: true, .. }) = *written else { continue };
            let local = write.key.scope == cbddc::row::Scope::Local;
            // It has an earlier stamp, and competes by it: it is above what it replaces, and no more.
            let waited = matches!(write.precondition, Precondition::Accepted(..));
            dot.seq += u64::from(!local);
            let own = if local { Dot { seq: 0, ..dot } } else { dot };
            let row = Rc::new(Row { key: write.key, stamp, dot: own, body: write.body, expires_at: write.expires_at });
            let rank = row.rank();
            let stood = within.insert(row.key.clone(), (row.clone(), rank)).or(stood);
            if origin != before.replica {
                return Err(format!("dense: n{node}: {} is said to be of {origin}", show(&row)));
            }
            let above = |(stood, of): &&Stood| stood.stamp >= row.stamp && !(waited && *of < rank);
            if let Some((stood, _)) = stood.as_ref().filter(above) {
                return Err(format!("read own write: n{node}: {} is not above {}", show(&row), show(stood)));
            }
            let mark = self.marks.entry(node).or_default();
            if row.stamp <= mark.made && !waited {
                return Err(format!("clock: n{node}: {} is not above its stamps before", show(&row)));
            }
            if !(now.believed && row.stamp.millis() > now.millis.saturating_add(STAMP_AHEAD_MILLIS))
                && row.stamp.millis() < cbddc::limits::CLOCK_MILLIS_MAX
            {
                mark.made = mark.made.max(row.stamp);
            }
            if local {
                self.local.insert((node, row.key.clone()), Row::clone(&row));
                continue;
            }
            let past = stood.and_then(|(stood, rank)| self.ledger.of_rank(rank, stood.dot)).into_iter().collect();
            self.ledger.note(row, rank, past, seen.clone()).map_err(|why| format!("dot: n{node}: {why}"))?;
            seen.raise(dot);
        }
        for (key, (row, rank)) in within {
            if table.rows.of(&key).map(|(_, head)| head.rank()) != Some(rank) {
                return Err(format!("read own write: n{node}: {} does not stand", show(&row)));
            }
        }
        Ok(())
    }
    /// Deletes that the rules wrote by themselves.
    fn note_again(
        &mut self,
        node: usize,
        table: &MemTable,
        before: &Knowledge,
        arriving: &[Row],
    ) -> Result<(), String> {
        let own = table.knowledge.replica;
        if own != before.replica {
            return Ok(());
        }
        for seq in before.seq + 1..=table.knowledge.seq {
            let dot = Dot { origin: own, seq };
            if self.ledger.knows(dot) {
                continue;
            }
            if let Some((row, head)) = table.rows.rows.values().find(|(row, _)| row.dot == dot) {
                let deletes = |new: &&Row| row.is_tombstone() && new.key == row.key && !new.is_tombstone();
                let new = arriving.iter().filter(deletes).max_by_key(|new| new.rank());
                if let Some(new) = new.filter(|new| !self.ledger.any_fork() && !self.ledger.was_deleted(new)) {
                    return Err(format!("spurious: n{node} deletes {} that nobody deleted", show(new)));
                }
                let note = self.ledger.note(row.clone(), head.rank(), Vec::new(), before.vector.clone());
                note.map_err(|why| format!("dot: n{node}: {why}"))?;
            }
        }
        Ok(())
    }

    fn check(&mut self, node: usize, table: &MemTable, thorough: bool) -> Result<(), String> {
        let known = &table.knowledge;
        let mark = self.marks.entry(node).or_default();
        if known.hlc.last() < mark.hlc {
            return Err(format!("clock: n{node}: the hybrid clock went back"));
        }
        mark.hlc = known.hlc.last();
        if known.vector.of(known.replica) != known.seq {
            return Err(format!("own entry: n{node}: {:?}", known.vector));
        }
        if !thorough {
            return Ok(());
        }
        let tombstones = table.rows.rows.values().filter(|(_, head)| head.tombstone).count() as u64;
        if known.tombstones != tombstones {
            return Err(format!("tombstones: n{node}: {} are counted and {tombstones} are there", known.tombstones));
        }
        if known.digest != table.digest() {
            return Err(format!("digest: n{node}: the kept sum is not the sum of its rows"));
        }
        if !known.vector.includes(&known.floor) {
            return Err(format!("floor: n{node}: its vector does not cover its floor"));
        }
        let uncovered =
            table.rows.rows.values().find(|(_, head)| {
                head.local_seq <= known.covered_upto && !head.local && !known.vector.covers(head.dot)
            });
        if let Some((row, _)) = uncovered {
            return Err(format!("covered_upto: n{node}: {} is not covered", show(row)));
        }
        self.ledger.sentence(table).map_err(|why| format!("sentence: n{node}: {why}"))
    }

    /// In the end: what waits is counted, what is local is still there.
    pub fn check_disk(&self, node: usize, table: &MemTable) -> Result<(), String> {
        let (said, waiting) = (table.knowledge.recovered, table.recovered.len() as u64);
        if said != waiting {
            return Err(format!("recovered: n{node}: says {said}, {waiting} wait"));
        }
        for ((_, key), row) in self.local.iter().filter(|((of, _), _)| *of == node) {
            let has = table.rows.of(key).map(|(row, _)| row.rank());
            let gone = row.is_tombstone() || row.expires_at.is_some();
            // Dropped, or the tombstone that it became.
            let expired = gone && has.is_none_or(|(stamp, _, dead, _)| dead && stamp == row.stamp);
            if has != Some(row.rank()) && !expired {
                return Err(format!("local: n{node}: {} was lost", show(row)));
            }
        }
        Ok(())
    }
}

/// Keys of documents here that a batch deletes although the delete is covered.
fn mended_by(incoming: &Incoming, table: &MemTable) -> Vec<RowKey> {
    let covered = |row: &&Row| row.is_tombstone() && table.knowledge.vector.covers(row.dot);
    let deletes = incoming.rows.iter().filter(covered);
    let shown = |row: &&Row| table.rows.of(&row.key).is_some_and(|(_, head)| !head.tombstone);
    deletes.filter(shown).map(|row| row.key.clone()).collect()
}
