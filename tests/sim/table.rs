//! The store of a simulated node: rows, members and knowledge in memory, cheap to copy.
//!
//! A copy is a disk at one instant: a crash keeps the last committed one, a rolled back card an older one, a clone is
//! given to a second node. It never fails; what fails in a simulation is the node around it.

use cbddc::id::{DeviceId, Dot, LocalSeq, ReplicaId};
use cbddc::replica::{Area, Knowledge, MemberState, Table, Want};
use cbddc::row::{Head, Row, RowKey, Scope};
use cbddc::time::{Millis, Stamp};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::rc::Rc;

/// Rows by position and by key.
#[derive(Clone, Default)]
pub struct Shelf {
    pub rows: BTreeMap<LocalSeq, (Rc<Row>, Head)>,
    pub keys: BTreeMap<RowKey, LocalSeq>,
}

impl Shelf {
    pub fn of(&self, key: &RowKey) -> Option<&(Rc<Row>, Head)> {
        self.rows.get(self.keys.get(key)?)
    }
}

/// One node's disk.
#[derive(Clone)]
pub struct MemTable {
    pub rows: Shelf,
    pub stage: Shelf,
    pub recovered: BTreeMap<(RowKey, Dot), Rc<Row>>,
    pub members: BTreeMap<DeviceId, MemberState>,
    pub knowledge: Knowledge,
    /// Rows in force that were taken away, for the ledger; not part of the disk.
    pub removed: Vec<Rc<Row>>,
}

impl MemTable {
    pub fn new(random: u64) -> MemTable {
        MemTable {
            rows: Shelf::default(),
            stage: Shelf::default(),
            recovered: BTreeMap::new(),
            members: BTreeMap::new(),
            knowledge: Knowledge::new(random),
            removed: Vec::new(),
        }
    }
    fn shelf(&mut self, area: Area) -> &mut Shelf {
        match area {
            Area::Rows => &mut self.rows,
            Area::Stage => &mut self.stage,
        }
    }
    /// The digest, from the rows.
    pub fn digest(&self) -> u128 {
        self.rows.rows.values().fold(0, |sum, (_, head)| sum.wrapping_add(head.digest_term()))
    }
}

impl Table for MemTable {
    type Error = Infallible;

    fn knowledge(&mut self) -> Result<Knowledge, Infallible> {
        Ok(self.knowledge.clone())
    }
    fn set_knowledge(&mut self, knowledge: &Knowledge) -> Result<(), Infallible> {
        self.knowledge = knowledge.clone();
        Ok(())
    }
    fn head(&mut self, area: Area, key: &RowKey) -> Result<Option<Head>, Infallible> {
        Ok(self.shelf(area).of(key).map(|(_, head)| *head))
    }
    fn put(&mut self, area: Area, row: &Row, head: &Head, replaces: Option<LocalSeq>) -> Result<(), Infallible> {
        let shelf = self.shelf(area);
        let before = shelf.keys.insert(row.key.clone(), head.local_seq);
        assert_eq!(before, replaces, "a row replaces exactly the one that stood at its key");
        if let Some(before) = before {
            shelf.rows.remove(&before);
        }
        let taken = shelf.rows.insert(head.local_seq, (Rc::new(row.clone()), *head));
        assert!(taken.is_none(), "a position is used once");
        Ok(())
    }
    fn remove(&mut self, area: Area, local_seq: LocalSeq) -> Result<(), Infallible> {
        let shelf = self.shelf(area);
        if let Some((row, _)) = shelf.rows.remove(&local_seq) {
            shelf.keys.remove(&row.key);
            if area == Area::Rows {
                self.removed.push(row);
            }
        }
        Ok(())
    }
    fn stream(
        &mut self,
        area: Area,
        after: LocalSeq,
        want: &mut dyn FnMut(&Head) -> Want,
        take: &mut dyn FnMut(LocalSeq, Row),
    ) -> Result<(), Infallible> {
        for (at, (row, head)) in self.shelf(area).rows.range((Bound::Excluded(after), Bound::Unbounded)) {
            match want(head) {
                Want::Skip => {}
                Want::Take => take(*at, Row::clone(row)),
                Want::Stop => break,
            }
        }
        Ok(())
    }
    fn tombstones(&mut self, after: LocalSeq, limit: usize) -> Result<Vec<Head>, Infallible> {
        let behind = self.rows.rows.range((Bound::Excluded(after), Bound::Unbounded));
        Ok(behind.map(|(_, (_, head))| *head).filter(|head| head.tombstone).take(limit).collect())
    }
    fn expired(&mut self, now: Millis, limit: usize) -> Result<Vec<(LocalSeq, Row)>, Infallible> {
        let over = self.rows.rows.iter().filter(|(_, (row, _))| row.is_expired(now));
        Ok(over.take(limit).map(|(at, (row, _))| (*at, Row::clone(row))).collect())
    }
    fn system_rows(&mut self) -> Result<Vec<Row>, Infallible> {
        let all = self.rows.rows.values().filter(|(row, _)| row.key.scope == Scope::System);
        Ok(all.map(|(row, _)| Row::clone(row)).collect())
    }
    fn stage_tail(&mut self) -> Result<LocalSeq, Infallible> {
        Ok(self.stage.rows.last_key_value().map_or(0, |(at, _)| *at))
    }
    fn clear_stage(&mut self) -> Result<(), Infallible> {
        self.stage = Shelf::default();
        Ok(())
    }
    fn promote_stage(&mut self) -> Result<(), Infallible> {
        self.rows = std::mem::take(&mut self.stage);
        Ok(())
    }
    fn keep_recovered(&mut self, row: &Row) -> Result<bool, Infallible> {
        Ok(self.recovered.insert((row.key.clone(), row.dot), Rc::new(row.clone())).is_none())
    }
    fn drop_recovered(&mut self, key: &RowKey, dot: Dot) -> Result<bool, Infallible> {
        Ok(self.recovered.remove(&(key.clone(), dot)).is_some())
    }
    fn highest_recovered(&mut self, key: &RowKey) -> Result<Option<(Stamp, ReplicaId)>, Infallible> {
        let of_key = self.recovered.values().filter(|row| row.key == *key);
        Ok(of_key.map(|row| (row.stamp, row.dot.origin)).max())
    }
    fn members(&mut self) -> Result<Vec<(DeviceId, MemberState)>, Infallible> {
        Ok(self.members.iter().map(|(device, member)| (*device, member.clone())).collect())
    }
    fn member(&mut self, device: &DeviceId) -> Result<Option<MemberState>, Infallible> {
        Ok(self.members.get(device).cloned())
    }
    fn set_member(&mut self, device: &DeviceId, member: &MemberState) -> Result<(), Infallible> {
        self.members.insert(*device, member.clone());
        Ok(())
    }
}
