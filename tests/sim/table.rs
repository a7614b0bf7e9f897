//! The store of a simulated node: rows, members and knowledge in memory, cheap to copy.
//!
//! A copy is a disk at one instant: a crash keeps the last committed one, a rolled back card an older one, a clone is
//! given to a second node. It never fails; what fails in a simulation is the node around it.

use cbddc::id::{DeviceId, Dot, LocalSeq};
use cbddc::replica::{Area, Aside, Damaged, Knowledge, MemberState, Table, Waiting, Want};
use cbddc::row::{Body, Head, Row, RowKey, Scope};
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
    /// Rows in force that cannot be read any more, with what stands in the place of their heads; what they were is still in
    /// `rows`, for the judge alone.
    pub damaged: BTreeMap<LocalSeq, Head>,
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
            damaged: BTreeMap::new(),
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
    /// A row as whoever reads it has it.
    pub fn readable(&self, key: &RowKey) -> Option<&Rc<Row>> {
        let (row, head) = self.rows.of(key)?;
        (!self.damaged.contains_key(&head.local_seq)).then_some(row)
    }
    /// The bits of a row rot; its head says something else from now on.
    pub fn rot(&mut self, key: &RowKey, garble: impl FnOnce(&mut Head)) -> Option<Damaged> {
        let (_, head) = self.rows.of(key)?;
        let mut head = Head { damaged: true, ..*head };
        garble(&mut head);
        self.damaged.insert(head.local_seq, head);
        Some(Damaged { local_seq: head.local_seq, key: Some(key.clone()) })
    }
    /// The head as it stands on the disk.
    fn stands(&self, area: Area, head: &Head) -> Head {
        let damaged = if area == Area::Rows { self.damaged.get(&head.local_seq) } else { None };
        damaged.copied().unwrap_or(*head)
    }
    fn is_whole(&self, at: &LocalSeq) -> bool {
        !self.damaged.contains_key(at)
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
    fn confirm_absent(&mut self, _: &RowKey) -> Result<(), Infallible> {
        Ok(())
    }
    fn head(&mut self, area: Area, key: &RowKey) -> Result<Option<Head>, Infallible> {
        let head = self.shelf(area).of(key).map(|(_, head)| *head);
        Ok(head.map(|head| self.stands(area, &head)))
    }
    fn row(&mut self, key: &RowKey) -> Result<Option<Row>, Infallible> {
        Ok(self.readable(key).map(|row| Row::clone(row)))
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
        if let (Some(before), Area::Rows) = (before, area) {
            self.damaged.remove(&before);
        }
        Ok(())
    }
    fn remove(&mut self, area: Area, local_seq: LocalSeq) -> Result<(), Infallible> {
        let shelf = self.shelf(area);
        if let Some((row, _)) = shelf.rows.remove(&local_seq) {
            shelf.keys.remove(&row.key);
            if area == Area::Rows {
                self.damaged.remove(&local_seq);
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
        take: &mut dyn FnMut(LocalSeq, Result<Row, Damaged>),
    ) -> Result<(), Infallible> {
        let shelf = if area == Area::Rows { &self.rows } else { &self.stage };
        for (at, (row, head)) in shelf.rows.range((Bound::Excluded(after), Bound::Unbounded)) {
            match want(&Head { damaged: false, ..self.stands(area, head) }) {
                Want::Skip => {}
                Want::Take if area == Area::Rows && !self.is_whole(at) => {
                    take(*at, Err(Damaged { local_seq: *at, key: Some(row.key.clone()) }));
                }
                Want::Take => take(*at, Ok(Row::clone(row))),
                Want::Stop => break,
            }
        }
        Ok(())
    }
    fn tombstones(&mut self, after: LocalSeq, limit: usize) -> Result<Vec<(Head, u64)>, Infallible> {
        let behind = self.rows.rows.range((Bound::Excluded(after), Bound::Unbounded));
        let whole = behind.filter(|(at, _)| self.is_whole(at));
        let dead = whole.map(|(_, (row, head))| (*head, row.key.key.len() as u64)).filter(|(head, _)| head.tombstone);
        Ok(dead.take(limit).collect())
    }
    fn expired(&mut self, now: Millis, limit: usize) -> Result<Vec<(LocalSeq, Row)>, Infallible> {
        let over = self.rows.rows.iter().filter(|(at, (row, _))| row.is_expired(now) && self.is_whole(at));
        Ok(over.take(limit).map(|(at, (row, _))| (*at, Row::clone(row))).collect())
    }
    fn system_rows(&mut self) -> Result<Vec<Row>, Infallible> {
        let all = self.rows.rows.iter().filter(|(at, (row, _))| row.key.scope == Scope::System && self.is_whole(at));
        Ok(all.map(|(_, (row, _))| Row::clone(row)).collect())
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
        self.damaged.clear();
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
    fn note_unread(&mut self, key: &RowKey) -> Result<(), Infallible> {
        let (stamp, origin) = Aside::UNREAD;
        let dot = Dot { origin, seq: 0 };
        let none = Row { key: key.clone(), stamp, dot, body: Body::Tombstone, expires_at: None };
        self.settled.insert((key.clone(), dot), Rc::new(none));
        Ok(())
    }
    fn forget_unread(&mut self, key: &RowKey) -> Result<(), Infallible> {
        self.settled.remove(&(key.clone(), Dot { origin: Aside::UNREAD.1, seq: 0 }));
        Ok(())
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
