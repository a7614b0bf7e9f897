//! The simplest table that could be right: maps in memory. What SQLite does is compared with it.

use cbddc::id::{DeviceId, Dot, LocalSeq};
use cbddc::replica::{Area, Aside, Damaged, Knowledge, MemberState, Members, Table, Waiting, Want};
use cbddc::row::{Head, Row, RowKey, Scope};
use cbddc::time::Millis;
use std::collections::BTreeMap;
use std::convert::Infallible;

type Rows = BTreeMap<LocalSeq, (Head, Row)>;

pub(crate) struct Model {
    pub(crate) knowledge: Knowledge,
    rows: Rows,
    stage: Rows,
    recovered: Vec<Row>,
    members: BTreeMap<DeviceId, MemberState>,
}

impl Model {
    pub(crate) fn new(knowledge: Knowledge) -> Model {
        let (rows, stage, recovered, members) = Default::default();
        Model { knowledge, rows, stage, recovered, members }
    }
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.rows.values().map(|(_, row)| row.clone()).collect()
    }
    fn area(&mut self, area: Area) -> &mut Rows {
        match area {
            Area::Rows => &mut self.rows,
            Area::Stage => &mut self.stage,
        }
    }
}

impl Table for Model {
    type Error = Infallible;

    fn knowledge(&mut self) -> Result<Knowledge, Infallible> {
        Ok(self.knowledge.clone())
    }
    fn set_knowledge(&mut self, knowledge: &Knowledge) -> Result<(), Infallible> {
        self.knowledge = knowledge.clone();
        Ok(())
    }
    fn head(&mut self, area: Area, key: &RowKey) -> Result<Option<Head>, Infallible> {
        Ok(self.area(area).values().find(|(_, row)| row.key == *key).map(|(head, _)| *head))
    }
    fn confirm_absent(&mut self, _: &RowKey) -> Result<(), Infallible> {
        Ok(())
    }
    fn row(&mut self, key: &RowKey) -> Result<Option<Row>, Infallible> {
        Ok(self.rows.values().find(|(_, row)| row.key == *key).map(|(_, row)| row.clone()))
    }
    fn put(&mut self, area: Area, row: &Row, head: &Head, replaces: Option<LocalSeq>) -> Result<(), Infallible> {
        if let Some(replaced) = replaces {
            self.remove(area, replaced)?;
        }
        assert!(self.area(area).insert(head.local_seq, (*head, row.clone())).is_none(), "a position is used once");
        Ok(())
    }
    fn remove(&mut self, area: Area, local_seq: LocalSeq) -> Result<(), Infallible> {
        self.area(area).remove(&local_seq);
        Ok(())
    }
    fn stream(
        &mut self,
        area: Area,
        after: LocalSeq,
        want: &mut dyn FnMut(&Head) -> Want,
        take: &mut dyn FnMut(LocalSeq, Result<Row, Damaged>),
    ) -> Result<(), Infallible> {
        for (local_seq, (head, row)) in self.area(area).range(after.saturating_add(1)..) {
            match want(head) {
                Want::Skip => {}
                Want::Take => take(*local_seq, Ok(row.clone())),
                Want::Stop => break,
            }
        }
        Ok(())
    }
    fn tombstones(&mut self, after: LocalSeq, limit: usize) -> Result<Vec<(Head, u64)>, Infallible> {
        let bytes = |row: &Row| (row.key.collection.len() + row.key.key.len()) as u64;
        let all = self.rows.range(after + 1..).map(|(_, (head, row))| (*head, bytes(row)));
        let dead = all.filter(|(head, _)| head.tombstone);
        Ok(dead.take(limit).collect())
    }
    fn expired(&mut self, now: Millis, limit: usize) -> Result<Vec<(LocalSeq, Row)>, Infallible> {
        let mut past: Vec<_> = self.rows.iter().filter(|(_, (_, row))| row.is_expired(now)).collect();
        past.sort_by_key(|(local_seq, (head, _))| (head.expires_at, **local_seq));
        Ok(past.into_iter().take(limit).map(|(local_seq, (_, row))| (*local_seq, row.clone())).collect())
    }
    fn system_rows(&mut self) -> Result<Vec<Row>, Infallible> {
        let mut rows: Vec<Row> = self.rows().into_iter().filter(|row| row.key.scope == Scope::System).collect();
        rows.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(rows)
    }
    fn stage_tail(&mut self) -> Result<LocalSeq, Infallible> {
        Ok(self.stage.keys().next_back().copied().unwrap_or(0))
    }
    fn clear_stage(&mut self) -> Result<(), Infallible> {
        self.stage.clear();
        Ok(())
    }
    fn promote_stage(&mut self) -> Result<(), Infallible> {
        self.rows = std::mem::take(&mut self.stage);
        Ok(())
    }
    fn keep_recovered(&mut self, row: &Row) -> Result<bool, Infallible> {
        let news = self.recovered.iter().all(|kept| (&kept.key, kept.dot) != (&row.key, row.dot));
        if news {
            self.recovered.push(row.clone());
        }
        Ok(news)
    }
    fn drop_recovered(&mut self, key: &RowKey, dot: Dot) -> Result<bool, Infallible> {
        let before = self.recovered.len();
        self.recovered.retain(|row| row.key != *key || row.dot != dot);
        Ok(self.recovered.len() < before)
    }
    fn recovered_of(&mut self, key: &RowKey) -> Result<Vec<Aside>, Infallible> {
        let of_key = self.recovered.iter().filter(|row| row.key == *key);
        Ok(of_key.map(|row| Aside { rank: (row.stamp, row.dot.origin), waits: true }).collect())
    }
    fn recovered(&mut self, _: u64, _: usize) -> Result<Vec<Waiting>, Infallible> {
        unreachable!("nobody decides about rows in the model")
    }
    fn note_unread(&mut self, _: &RowKey) -> Result<(), Infallible> {
        unreachable!("no row of the model is damaged")
    }
    fn forget_unread(&mut self, _: &RowKey) -> Result<(), Infallible> {
        Ok(())
    }
    fn settle_recovered(&mut self, _: u64, _: bool) -> Result<(), Infallible> {
        unreachable!("nobody decides about rows in the model")
    }
    fn members(&mut self) -> Result<Members, Infallible> {
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
