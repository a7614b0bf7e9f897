//! The store of a simulated node: rows, members and knowledge in memory, cheap to copy.
//!
//! A copy is a disk at one instant: a crash keeps the last committed one, a rolled back card an older one, a clone is
//! given to a second node. It never fails; what fails in a simulation is the node around it.

use cbddc::id::{DeviceId, Dot, LocalSeq};
use cbddc::replica::{Area, Aside, Knowledge, MemberState, Table, Waiting, Want};
use cbddc::row::{Head, Row, RowKey, Scope};
use cbddc::time::Millis;
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
    /// Rows that a person has decided about, and the number that each ever had.
    settled: BTreeMap<(RowKey, Dot), Rc<Row>>,
    numbers: BTreeMap<u64, (RowKey, Dot)>,
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
            settled: BTreeMap::new(),
            numbers: BTreeMap::new(),
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
        let name = (row.key.clone(), row.dot);
        if self.settled.contains_key(&name) || self.recovered.insert(name.clone(), Rc::new(row.clone())).is_some() {
            return Ok(false);
        }
        let number = self.numbers.last_key_value().map_or(1, |(number, _)| number + 1);
        self.numbers.insert(number, name);
        Ok(true)
    }
    fn drop_recovered(&mut self, key: &RowKey, dot: Dot) -> Result<bool, Infallible> {
        let name = (key.clone(), dot);
        self.settled.remove(&name);
        Ok(self.recovered.remove(&name).is_some())
    }
    fn recovered_of(&mut self, key: &RowKey) -> Result<Vec<Aside>, Infallible> {
        let of = |rows: &BTreeMap<(RowKey, Dot), Rc<Row>>, waits| -> Vec<Aside> {
            let of_key = rows.values().filter(|row| row.key == *key);
            of_key.map(|row| Aside { rank: (row.stamp, row.dot.origin), waits }).collect()
        };
        Ok([of(&self.recovered, true), of(&self.settled, false)].concat())
    }
    fn recovered(&mut self, after: u64, limit: usize) -> Result<Vec<Waiting>, Infallible> {
        let behind = self.numbers.range((Bound::Excluded(after), Bound::Unbounded));
        let waiting = behind.filter_map(|(number, name)| Some((*number, Some(Row::clone(self.recovered.get(name)?)))));
        Ok(waiting.take(limit).collect())
    }
    fn settle_recovered(&mut self, number: u64, trace: bool) -> Result<(), Infallible> {
        let Some(name) = self.numbers.remove(&number) else { return Ok(()) };
        let row = self.recovered.remove(&name);
        if let Some(row) = row.filter(|_| trace) {
            self.settled.insert(name, row);
        }
        Ok(())
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
