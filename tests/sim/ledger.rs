//! The ledger: every write that was ever made, known to nobody in the simulation but the judge.
//!
//! What is judged, and what each word means:
//!
//! - *The vector's sentence.* For each dot that a node's vector covers, its row of that key ranks at or above that
//!   write, or is absent and a tombstone at or above it was once dropped by the rules.
//! - *No acknowledged write is lost.* In the end the row of each key ranks at or above each write of it, or a tombstone
//!   at or above it was once dropped, or a row at or above it waits in somebody's recovered store.
//! - *No delete is undone*, nor any other write: in the end no document shows a value that some write had replaced,
//!   whatever the stamps say. A write has replaced what stood there on its author's node, directly or through others,
//!   and whatever its author's vector covered. A row at or above what is shown that waits in a recovered store excuses it:
//!   the predecessor of a value that waits may come back. So is a value that nobody who deleted it had seen: a write
//!   made far away while a tombstone above it came and went is a new document there.
//!
//! A write is *excused* when nobody could save it: each node that had it, or a later one of the key, has died or was
//! rolled back. Dots of a replica with two histories are excused beyond what both histories share.

use crate::table::MemTable;
use cbddc::id::{Dot, ReplicaId, Seq, VersionVector};
use cbddc::row::{Body, Rank, Row, RowKey, Scope};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// One write.
pub struct Made {
    pub row: Rc<Row>,
    pub rank: Rank,
    pub key: usize,
    /// The writes that its author's node saw it replace.
    pub past: Vec<usize>,
    /// What its author covered.
    pub seen: VersionVector,
    pub excused: bool,
}

struct Dropper {
    node: usize,
    key: usize,
    rank: Rank,
    knew: VersionVector,
    loose: Vec<Dot>,
}

#[derive(Default)]
pub struct Ledger {
    pub made: Vec<Made>,
    pub keys: Vec<RowKey>,
    by_dot: BTreeMap<Dot, usize>,
    by_row: BTreeMap<Rank, usize>,
    /// The highest tombstone that was dropped, by key.
    dropped: Vec<Option<Rank>>,
    /// Who dropped it and lives with that disk still, and what it knew then.
    droppers: Vec<Dropper>,
    /// How far the histories of a replica that has two are the same.
    forked: BTreeMap<ReplicaId, Seq>,
    /// Values that an older disk calls never sent, though they may have been: nobody can know.
    doubtful: BTreeSet<Vec<u8>>,
    /// Values that got another dot with the same stamp from a fork.
    redotted: BTreeSet<Vec<u8>>,
}

impl Ledger {
    pub fn key(&mut self, key: &RowKey) -> usize {
        if let Some(at) = self.keys.iter().position(|known| known == key) {
            return at;
        }
        self.keys.push(key.clone());
        self.dropped.push(None);
        self.keys.len() - 1
    }
    /// Whether any replica has two histories.
    pub fn any_fork(&self) -> bool {
        !self.forked.is_empty()
    }
    fn note_fork(&mut self, replica: ReplicaId, shared: Seq) {
        let known = self.forked.entry(replica).or_insert(shared);
        *known = shared.min(*known);
        for made in &mut self.made {
            made.excused |= made.row.dot.origin == replica && made.row.dot.seq > shared;
        }
    }
    /// Notes that a disk was given a second life.
    pub fn note_second_life(&mut self, disk: &MemTable) {
        let known = &disk.knowledge;
        self.note_fork(known.replica, known.seq);
        for (row, _) in disk.rows.rows.values() {
            if row.dot.origin == known.replica && row.dot.seq > known.sent {
                self.doubtful.extend(row.value().map(<[u8]>::to_vec));
            }
        }
    }
    fn is_forked(&self, dot: Dot) -> bool {
        self.forked.get(&dot.origin).is_some_and(|shared| dot.seq > *shared)
    }
    pub fn knows(&self, dot: Dot) -> bool {
        self.by_dot.contains_key(&dot) && !self.is_forked(dot)
    }
    /// The write that made this row.
    pub fn of_row(&self, row: &Row) -> Option<usize> {
        self.of_rank(row.rank(), row.dot)
    }
    pub fn of_rank(&self, rank: Rank, dot: Dot) -> Option<usize> {
        self.by_row.get(&rank).or_else(|| self.by_dot.get(&dot)).copied()
    }
    /// Notes a write. An error when its dot was used before.
    pub fn note(&mut self, row: Rc<Row>, rank: Rank, past: Vec<usize>, seen: VersionVector) -> Result<usize, String> {
        let key = self.key(&row.key);
        let forked = self.is_forked(row.dot);
        let at = self.made.len();
        if self.by_dot.insert(row.dot, at).is_some() && !forked {
            return Err(format!("dot {:?} was used twice", row.dot));
        }
        self.by_row.insert(rank, at);
        self.made.push(Made { row, rank, key, past, seen, excused: forked });
        Ok(at)
    }
    /// Notes rows of a new life that took the place of others: what a bootstrap or a fork wrote again.
    pub fn note_rewritten(&mut self, before: &MemTable, after: &MemTable) -> Result<(), String> {
        let replica = after.knowledge.replica;
        for (row, _) in after.rows.rows.values().filter(|(row, _)| row.dot.origin == replica && !row.is_local()) {
            if self.by_dot.contains_key(&row.dot) && !self.is_forked(row.dot) {
                continue;
            }
            let held = before.rows.of(&row.key).map(|(row, _)| row);
            let staged = before.stage.of(&row.key).map(|(row, _)| row);
            // The same content as what was held: the same past. Else it deletes what was staged.
            let same = held.filter(|held| held.body == row.body).and_then(|held| self.of_row(held));
            let (past, seen) = match same {
                Some(same) => (self.made[same].past.clone(), self.made[same].seen.clone()),
                None => {
                    let deleted = staged.filter(|s| !s.is_tombstone() && row.is_tombstone() && !self.any_fork());
                    if let Some(staged) = deleted.filter(|staged| !self.was_deleted(staged)) {
                        return Err(format!("spurious: bootstrap deletes {}", show(staged)));
                    }
                    let deleted = staged.and_then(|staged| self.of_row(staged));
                    (deleted.into_iter().collect(), before.knowledge.vector.clone())
                }
            };
            if held.is_some_and(|held| held.stamp == row.stamp) {
                self.redotted.extend(row.value().map(<[u8]>::to_vec));
            }
            let at = self.note(row.clone(), row.rank(), past, seen)?;
            self.made[at].excused |= same.is_some_and(|same| self.made[same].excused);
        }
        Ok(())
    }
    pub fn note_dropped(&mut self, node: usize, row: &Row, table: &MemTable) {
        let key = self.key(&row.key);
        let mut knew = table.knowledge.vector.clone();
        knew.join(&table.knowledge.gone);
        self.droppers.push(Dropper { node, key, rank: row.rank(), knew, loose: table.knowledge.loose.clone() });
        self.dropped[key] = self.dropped[key].max(Some(row.rank()));
    }

    /// Excuses what only the lost disk could have saved.
    pub fn excuse<'a>(&mut self, lost: usize, alive: impl Iterator<Item = &'a MemTable> + Clone) {
        self.droppers.retain(|dropper| dropper.node != lost);
        let held: Vec<Vec<Option<Rank>>> = alive.clone().map(|table| self.ranks(table)).collect();
        for made in self.made.iter_mut().filter(|made| !made.excused) {
            let saved = alive.clone().zip(&held).any(|(table, ranks)| {
                // What cannot be read there saves nothing.
                let reads = table.rows.of(&made.row.key).is_none() || table.readable(&made.row.key).is_some();
                let known = table.knowledge.vector.covers(made.row.dot)
                    || ranks[made.key].is_some_and(|rank| rank >= made.rank);
                (reads && known) || waits(table, &made.row.key, &made.rank)
            });
            made.excused = !saved;
        }
    }
    fn ranks(&self, table: &MemTable) -> Vec<Option<Rank>> {
        self.keys.iter().map(|key| table.rows.of(key).map(|(_, head)| head.rank())).collect()
    }

    /// Keys with a dot that names two writes. Who has one skips the other: the digests tell, and a reconciliation mends
    /// it. Until then the sentence does not hold for them, and which of two tombstones stands is not told apart.
    fn split(&self) -> BTreeSet<usize> {
        self.made.iter().filter(|made| self.is_forked(made.row.dot)).map(|made| made.key).collect()
    }

    /// The vector's sentence at one node.
    pub fn sentence(&self, table: &MemTable) -> Result<(), String> {
        let ranks = self.ranks(table);
        let vector = &table.knowledge.vector;
        let split = self.split();
        let broken = self.made.iter().find(|made| {
            !split.contains(&made.key)
                && vector.covers(made.row.dot)
                && match ranks[made.key] {
                    Some(rank) => rank < made.rank,
                    None => self.dropped[made.key].is_none_or(|dropped| dropped < made.rank),
                }
        });
        broken.map_or(Ok(()), |made| {
            let has = table.rows.of(&made.row.key).map(|(row, _)| row.clone());
            Err(format!("the vector covers {} but the row there is {}", show(&made.row), show_option(has.as_deref())))
        })
    }

    /// Nothing lost and nothing undone, in the state that all `alive` have agreed on.
    pub fn verdict<'a>(
        &self,
        agreed: &MemTable,
        alive: impl Iterator<Item = &'a MemTable> + Clone,
    ) -> Result<(), String> {
        let excuses = |made: &Made| {
            made.excused
                || self.is_forked(made.row.dot)
                || alive.clone().any(|table| waits(table, &made.row.key, &made.rank))
        };
        let ranks = self.ranks(agreed);
        let split = self.split();
        for made in &self.made {
            let shown = agreed.rows.of(&made.row.key).is_some_and(|(row, _)| !row.is_tombstone());
            let somewhere = |rank: &Rank| {
                let mut heads = alive.clone().filter_map(|table| table.rows.of(&made.row.key));
                heads.any(|(_, head)| head.rank() >= *rank)
            };
            if split.contains(&made.key) && !shown && somewhere(&made.rank) {
                continue;
            }
            // A delete that a reconciliation has spread is the same delete.
            let stands = ranks[made.key]
                .max(self.dropped[made.key])
                .is_some_and(|rank| rank >= made.rank || (rank.2 && made.rank.2 && rank.0 == made.rank.0));
            // What a write of a fork has replaced, knowing it, shares that write's fate.
            let by_fork = |other: &Made| {
                other.row.key == made.row.key && other.rank > made.rank && other.seen.covers(made.row.dot)
            };
            let replaced = || self.made.iter().any(|other| self.is_forked(other.row.dot) && by_fork(other));
            if !stands && !excuses(made) && !replaced() {
                let has = agreed.rows.of(&made.row.key).map(|(row, _)| row.clone());
                return Err(format!("lost: {}; in the end there is {}", show(&made.row), show_option(has.as_deref())));
            }
        }
        // The records about members say the same thing twice; every document is its own.
        for (row, _) in agreed.rows.rows.values().filter(|(row, _)| row.key.collection != "members") {
            let Some(value) = row.value().filter(|value| !self.doubtful.contains(*value)) else { continue };
            if alive.clone().any(|table| waits(table, &row.key, &row.rank())) {
                continue;
            }
            let of_key = || self.made.iter().filter(|made| made.row.key == row.key);
            let dots: Vec<Dot> = of_key()
                .filter(|made| made.row.value() == Some(value) && !self.is_forked(made.row.dot))
                .map(|made| made.row.dot)
                .collect();
            for made in of_key().filter(|made| made.row.value() != Some(value)) {
                let covered = dots.iter().any(|dot| made.seen.covers(*dot));
                // Only the stamp tells that the copy of a fork was deleted, and it went with the tombstone.
                // And of a dropped delete only who had known both can tell.
                let dropped = self.dropped[made.key] >= Some(made.rank);
                let mut tellers = self.droppers.iter().filter(|dropper| {
                    dropper.key == made.key
                        && dropper.rank >= made.rank
                        && dots.iter().any(|dot| dropper.knew.covers(*dot) || dropper.loose.contains(dot))
                });
                let forgotten =
                    dropped && (self.redotted.contains(value) || split.contains(&made.key) || tellers.next().is_none());
                if !forgotten && (covered || self.replaced(made, value)) && !excuses(made) {
                    let (made, row) = (show(&made.row), show(row));
                    return Err(format!("undone: {made} had replaced what is there in the end, {row}"));
                }
            }
        }
        Ok(())
    }
    pub fn was_deleted(&self, row: &Row) -> bool {
        let Some(value) = row.value() else { return true };
        self.made.iter().any(|m| {
            m.row.key == row.key
                && (m.row.is_tombstone() || m.row.expires_at.is_some())
                && m.row.value() != Some(value)
                && (m.rank >= row.rank() || m.seen.covers(row.dot) || self.replaced(m, value))
        }) || row.expires_at.is_some()
    }
    fn replaced(&self, made: &Made, value: &[u8]) -> bool {
        let (mut todo, mut seen) = (made.past.clone(), vec![false; self.made.len()]);
        while let Some(at) = todo.pop() {
            if !std::mem::replace(&mut seen[at], true) {
                if self.made[at].row.value() == Some(value) {
                    return true;
                }
                todo.extend(&self.made[at].past);
            }
        }
        false
    }
}

/// Whether a row of the key at or above this rank waits in the recovered store.
fn waits(table: &MemTable, key: &RowKey, rank: &Rank) -> bool {
    table.recovered.values().any(|row| row.key == *key && row.rank() >= *rank)
}

pub fn show(row: &Row) -> String {
    let body = match &row.body {
        Body::Live(value) => String::from_utf8_lossy(value).trim_end().replace(char::is_control, "."),
        Body::Tombstone => "deleted".into(),
    };
    let origin = row.dot.origin.to_bits();
    let scope = match row.key.scope {
        Scope::Replicated => "",
        Scope::System => "system ",
        Scope::Local => "local ",
    };
    format!(
        "{scope}{}={body} dot {:x}.{:02x}#{} stamp {}.{}{}",
        row.key.key,
        origin >> 40,
        origin & 0xff,
        row.dot.seq,
        row.stamp.millis(),
        row.stamp.counter(),
        row.expires_at.map_or(String::new(), |at| format!(" expires {at}"))
    )
}

fn show_option(row: Option<&Row>) -> String {
    row.map_or("nothing".into(), show)
}
