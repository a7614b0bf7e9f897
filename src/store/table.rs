//! The rules' view of the database within one transaction: [`Table`] over SQLite.
//!
//! Knows nothing of threads, commits or who asks. What the node knows of itself is kept decoded between transactions
//! and encoded once for each commit, however many requests share it.

use super::codec::{self, bits, moment, position};
use super::failure::{Failure, damaged, index_astray};
use super::scrub::{self, Damage, Finding};
use super::sql::{self, ROW, Statements};
use super::state::State;
use crate::id::{DeviceId, Dot, LocalSeq, ReplicaId};
use crate::limits::{DAMAGED_MAX, RECOVERED_BYTES_TARGET};
use crate::replica::{Area, Aside, Damaged, Knowledge, MemberState, Members, Table, Waiting, Want};
use crate::row::{Head, Row, RowKey, Scope};
use crate::time::{Millis, Stamp};
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use std::vec::Vec;

/// One transaction's [`Table`].
pub(super) struct SqlTable<'a> {
    connection: &'a Connection,
    state: &'a mut State,
    /// The head that was last looked up: a write asks twice, for its condition and for what it replaces.
    last: Option<(Area, RowKey, Option<Head>)>,
    /// The two statements that every row of a batch needs, for each table of rows, kept out of the cache meanwhile.
    head: [Option<CachedStatement<'a>>; 2],
    insert: [Option<CachedStatement<'a>>; 2],
}

/// The statement of a slot, prepared when first asked for.
fn prepared<'s, 'a>(
    slot: &'s mut Option<CachedStatement<'a>>,
    connection: &'a Connection,
    statement: &str,
) -> Result<&'s mut CachedStatement<'a>, Failure> {
    Ok(match slot {
        Some(statement) => statement,
        None => slot.insert(connection.prepare_cached(statement)?),
    })
}

impl<'a> SqlTable<'a> {
    pub(super) fn new(connection: &'a Connection, state: &'a mut State) -> SqlTable<'a> {
        SqlTable { connection, state, last: None, head: [None, None], insert: [None, None] }
    }
    /// Which of the two tables of rows.
    fn place(&self, area: Area) -> usize {
        match area {
            Area::Rows => self.state.area,
            Area::Stage => 1 - self.state.area,
        }
    }
    fn statements(&self, area: Area) -> &'static Statements {
        &ROW[self.place(area)]
    }
    /// Rows in force of a statement whose columns are a head, then collection, key and value; those that are whole.
    fn rows<P: rusqlite::Params>(
        &mut self,
        statement: &str,
        params: P,
        limit: usize,
    ) -> Result<Vec<(LocalSeq, Row)>, Failure> {
        let connection = self.connection;
        let mut statement = connection.prepare_cached(statement)?;
        let mut found = statement.query(params)?;
        let mut rows = Vec::new();
        while let Some(columns) = found.next()? {
            let local_seq = columns.get::<_, i64>(0)?.cast_unsigned();
            match codec::whole_row(columns) {
                Some(row) => rows.push((local_seq, row)),
                None => drop(self.damaged(Area::Rows, local_seq)?),
            }
            if rows.len() == limit {
                break;
            }
        }
        Ok(rows)
    }
    /// Names a damaged row, for whoever met it and for the node. Its own name may be what is damaged: the index has it
    /// too.
    fn damaged(&mut self, area: Area, seq: LocalSeq) -> Result<Damaged, Failure> {
        let key = scrub::name_of(self.connection, self.statements(area), seq)?;
        self.state.found.push(Finding { seq, key: key.clone(), damage: Damage::Row });
        Ok(Damaged { local_seq: seq, key })
    }
    /// A row of the stream whose own name does not go with its checksum: under the name that the index has for it, it may
    /// be whole.
    fn by_index(&mut self, area: Area, head: &Head, value: ValueRef<'_>) -> Result<Result<Row, Damaged>, Failure> {
        let damaged = self.damaged(area, head.local_seq)?;
        let Some(key) = damaged.key.clone() else { return Ok(Err(damaged)) };
        match codec::row(head, key, value) {
            Ok(row) => {
                self.state.found.iter_mut().for_each(|finding| {
                    if finding.seq == head.local_seq {
                        finding.damage = Damage::Index;
                    }
                });
                Ok(Ok(row))
            }
            Err(_) => Ok(Err(damaged)),
        }
    }
}

impl Table for SqlTable<'_> {
    type Error = Failure;

    fn knowledge(&mut self) -> Result<Knowledge, Failure> {
        Ok(self.state.knowledge.clone())
    }
    fn set_knowledge(&mut self, knowledge: &Knowledge) -> Result<(), Failure> {
        self.state.set_knowledge(knowledge.clone());
        Ok(())
    }

    fn head(&mut self, area: Area, key: &RowKey) -> Result<Option<Head>, Failure> {
        if let Some((last, last_key, head)) = &self.last
            && (*last, last_key) == (area, key)
        {
            return Ok(*head);
        }
        let place = self.place(area);
        let statement = prepared(&mut self.head[place], self.connection, ROW[place].get)?;
        let name = params![codec::scope(key.scope), key.collection, key.key];
        let head = statement.query_row(name, |columns| {
            let head = codec::any_head(columns)?;
            Ok(Head { damaged: !codec::is_whole(&head, key, columns.get_ref(8)?), ..head })
        });
        let head = head.optional()?;
        if let Some(head) = head.filter(|head| head.damaged) {
            if area == Area::Stage {
                return Err(damaged("a row of a bootstrap").into());
            }
            let finding = Finding { seq: head.local_seq, key: Some(key.clone()), damage: Damage::Row };
            self.state.found.push(finding);
        }
        self.last = Some((area, key.clone(), head));
        Ok(head)
    }
    fn confirm_absent(&mut self, key: &RowKey) -> Result<(), Failure> {
        match scrub::leads_astray(self.connection, self.statements(Area::Rows), key)? {
            None => Ok(()),
            Some(seq) => {
                self.state.found.push(Finding { seq, key: None, damage: Damage::Index });
                Err(index_astray().into())
            }
        }
    }
    fn row(&mut self, key: &RowKey) -> Result<Option<Row>, Failure> {
        let mut statement = self.connection.prepare_cached(self.statements(Area::Rows).get)?;
        let name = params![codec::scope(key.scope), key.collection, key.key];
        let row = statement.query_row(name, |columns| {
            let head = codec::any_head(columns)?;
            Ok(if head.damaged { None } else { codec::row(&head, key.clone(), columns.get_ref(8)?).ok() })
        });
        Ok(row.optional()?.flatten())
    }
    fn put(&mut self, area: Area, row: &Row, head: &Head, replaces: Option<LocalSeq>) -> Result<(), Failure> {
        self.last = None;
        if let Some(replaced) = replaces {
            self.remove(area, replaced)?;
        }
        let place = self.place(area);
        let statement = prepared(&mut self.insert[place], self.connection, ROW[place].insert)?;
        statement.execute(params![
            position(head.local_seq),
            bits(head.stamp.to_bits()),
            bits(head.dot.origin.to_bits()),
            bits(head.dot.seq),
            if head.tombstone { codec::TOMBSTONE } else { 0 },
            head.expires_at.map(bits),
            head.hash.to_le_bytes(),
            codec::scope(row.key.scope),
            row.key.collection,
            row.key.key,
            row.value(),
        ])?;
        Ok(())
    }
    fn remove(&mut self, area: Area, local_seq: LocalSeq) -> Result<(), Failure> {
        self.last = None;
        self.connection.prepare_cached(self.statements(area).remove)?.execute([position(local_seq)])?;
        Ok(())
    }
    fn stream(
        &mut self,
        area: Area,
        after: LocalSeq,
        want: &mut dyn FnMut(&Head) -> Want,
        take: &mut dyn FnMut(LocalSeq, Result<Row, Damaged>),
    ) -> Result<(), Failure> {
        let (statements, connection) = (self.statements(area), self.connection);
        let mut heads = connection.prepare_cached(statements.heads_after)?;
        let mut content = connection.prepare_cached(statements.content)?;
        let mut heads = heads.query([position(after)])?;
        while let Some(columns) = heads.next()? {
            let head = codec::any_head(columns)?;
            match want(&head) {
                Want::Skip => {}
                Want::Stop => break,
                Want::Take => {
                    let mut found = content.query([position(head.local_seq)])?;
                    let columns = found.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                    let row = match codec::named(columns) {
                        Some(key) if codec::is_whole(&head, &key, columns.get_ref(3)?) => {
                            Ok(codec::row(&head, key, columns.get_ref(3)?)?)
                        }
                        _ => self.by_index(area, &head, columns.get_ref(3)?)?,
                    };
                    if area == Area::Stage && row.is_err() {
                        return Err(damaged("a row of a bootstrap").into());
                    }
                    take(head.local_seq, row);
                }
            }
        }
        Ok(())
    }
    fn tombstones(&mut self, after: LocalSeq, limit: usize) -> Result<Vec<(Head, u64)>, Failure> {
        let some = params![position(after), count(limit.saturating_add(DAMAGED_MAX))];
        let rows = self.rows(self.statements(Area::Rows).tombstones, some, limit)?;
        let named = rows.iter().filter(|(_, row)| row.is_tombstone());
        let bytes = |row: &Row| (row.key.collection.len() + row.key.key.len()) as u64;
        Ok(named.map(|(local_seq, row)| (Head::of(row, *local_seq), bytes(row))).collect())
    }
    fn expired(&mut self, now: Millis, limit: usize) -> Result<Vec<(LocalSeq, Row)>, Failure> {
        let some = params![moment(now), count(limit.saturating_add(DAMAGED_MAX))];
        self.rows(self.statements(Area::Rows).expired, some, limit)
    }

    fn system_rows(&mut self) -> Result<Vec<Row>, Failure> {
        let rows = self.rows(self.statements(Area::Rows).of_scope, [codec::scope(Scope::System)], usize::MAX)?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    fn stage_tail(&mut self) -> Result<LocalSeq, Failure> {
        let mut statement = self.connection.prepare_cached(self.statements(Area::Stage).tail)?;
        Ok(statement.query_row([], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }
    fn clear_stage(&mut self) -> Result<(), Failure> {
        self.last = None;
        self.connection.prepare_cached(self.statements(Area::Stage).clear)?.execute([])?;
        Ok(())
    }
    fn promote_stage(&mut self) -> Result<(), Failure> {
        self.state.area = 1 - self.state.area;
        self.state.changed = true;
        self.clear_stage()
    }

    fn keep_recovered(&mut self, row: &Row) -> Result<bool, Failure> {
        let mut statement = self.connection.prepare_cached(sql::KEEP_RECOVERED)?;
        let kept = statement.execute(params![
            bits(row.stamp.to_bits()),
            bits(row.dot.origin.to_bits()),
            bits(row.dot.seq),
            if row.is_tombstone() { codec::TOMBSTONE } else { 0 },
            row.expires_at.map(bits),
            row.hash().to_le_bytes(),
            codec::scope(row.key.scope),
            row.key.collection,
            row.key.key,
            row.value(),
        ])?;
        Ok(kept > 0)
    }
    fn drop_recovered(&mut self, key: &RowKey, dot: Dot) -> Result<bool, Failure> {
        let mut statement = self.connection.prepare_cached(sql::DROP_RECOVERED)?;
        let RowKey { scope, collection, key } = key;
        let name = params![codec::scope(*scope), collection, key, bits(dot.origin.to_bits()), bits(dot.seq)];
        let settled: Option<bool> = statement.query_row(name, |row| row.get(0)).optional()?;
        Ok(settled == Some(false))
    }
    fn recovered_of(&mut self, key: &RowKey) -> Result<Vec<Aside>, Failure> {
        let mut statement = self.connection.prepare_cached(sql::RECOVERED_OF)?;
        let aside = statement.query_map(params![codec::scope(key.scope), key.collection, key.key], |columns| {
            let stamp = Stamp::from_bits(columns.get::<_, i64>(0)?.cast_unsigned());
            let origin = ReplicaId::from_bits(columns.get::<_, i64>(1)?.cast_unsigned());
            Ok(Aside { rank: (stamp, origin), waits: !columns.get::<_, bool>(2)? })
        })?;
        Ok(aside.collect::<Result<_, _>>()?)
    }
    fn note_unread(&mut self, key: &RowKey) -> Result<(), Failure> {
        let (stamp, origin) = Aside::UNREAD;
        let RowKey { scope, collection, key } = key;
        let noted = self.connection.prepare_cached(sql::NOTE_UNREAD)?.execute(params![
            bits(stamp.to_bits()),
            bits(origin.to_bits()),
            codec::scope(*scope),
            collection,
            key
        ])?;
        self.state.unread = Some(true);
        if noted > 0 {
            let number = self.connection.last_insert_rowid();
            self.connection.prepare_cached(sql::TRIM_SETTLED)?.execute([number])?;
        }
        Ok(())
    }
    fn forget_unread(&mut self, key: &RowKey) -> Result<(), Failure> {
        let origin = bits(Aside::UNREAD.1.to_bits());
        let any = match self.state.unread {
            Some(any) => any,
            None => self.connection.prepare_cached(sql::ANY_UNREAD)?.query_row([origin], |row| row.get(0))?,
        };
        self.state.unread = Some(any);
        if any {
            let name = params![codec::scope(key.scope), key.collection, key.key, origin];
            self.connection.prepare_cached(sql::FORGET_UNREAD)?.execute(name)?;
        }
        Ok(())
    }
    fn recovered(&mut self, after: u64, limit: usize) -> Result<Vec<Waiting>, Failure> {
        let mut statement = self.connection.prepare_cached(sql::RECOVERED)?;
        let mut found = statement.query(params![position(after), count(limit)])?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(columns) = found.next()? {
            let number = columns.get::<_, i64>(0)?.cast_unsigned();
            let row = codec::whole_row(columns);
            bytes += row.as_ref().map_or(0, Row::encoded_bytes);
            rows.push((number, row));
            if bytes >= RECOVERED_BYTES_TARGET {
                break;
            }
        }
        Ok(rows)
    }
    fn settle_recovered(&mut self, number: u64, trace: bool) -> Result<(), Failure> {
        let statement = if trace { sql::SETTLE_RECOVERED } else { sql::FORGET_RECOVERED };
        self.connection.prepare_cached(statement)?.execute([position(number)])?;
        if trace {
            self.connection.prepare_cached(sql::TRIM_SETTLED)?.execute([position(number)])?;
        }
        Ok(())
    }

    fn members(&mut self) -> Result<Members, Failure> {
        let mut statement = self.connection.prepare_cached(sql::MEMBERS)?;
        let mut found = statement.query([])?;
        let mut members = Vec::new();
        while let Some(row) = found.next()? {
            let device = DeviceId(row.get(0)?);
            members.push((device, codec::decode("a member's record", row.get_ref(1)?.as_blob().map_err(blob)?)?));
        }
        Ok(members)
    }
    fn member(&mut self, device: &DeviceId) -> Result<Option<MemberState>, Failure> {
        let mut statement = self.connection.prepare_cached(sql::MEMBER)?;
        let mut found = statement.query([&device.0])?;
        match found.next()? {
            None => Ok(None),
            Some(row) => Ok(Some(codec::decode("a member's record", row.get_ref(0)?.as_blob().map_err(blob)?)?)),
        }
    }
    fn set_member(&mut self, device: &DeviceId, member: &MemberState) -> Result<(), Failure> {
        let state = codec::encode(member)?;
        self.connection.prepare_cached(sql::SET_MEMBER)?.execute(params![&device.0, state])?;
        Ok(())
    }
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
fn blob(error: rusqlite::types::FromSqlError) -> rusqlite::Error {
    error.into()
}
