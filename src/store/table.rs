//! The rules' view of the database within one transaction: [`Table`] over SQLite.
//!
//! Knows nothing of threads, commits or who asks. What the node knows of itself is kept decoded between transactions
//! and encoded once for each commit, however many requests share it.

use super::codec::{self, bits, moment, position};
use super::failure::{Failure, damaged};
use super::sql::{self, ROW, Statements};
use crate::id::{DeviceId, Dot, LocalSeq, ReplicaId};
use crate::limits::RECOVERED_BYTES_TARGET;
use crate::replica::{Area, Aside, Knowledge, MemberState, Members, Table, Waiting, Want};
use crate::row::{Head, Row, RowKey, Scope};
use crate::time::{Millis, Stamp};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use std::vec::Vec;

/// What stands beside the rows, decoded.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Which of the two tables of rows is in force.
    pub(super) area: usize,
    /// As of the last request.
    pub(super) knowledge: Knowledge,
    /// It differs from what the database holds.
    changed: bool,
}

impl State {
    /// Reads it; the connection is in a transaction, or this is all that is read.
    pub(super) fn load(connection: &Connection) -> Result<State, Failure> {
        let mut statement = connection.prepare_cached(sql::KNOWLEDGE)?;
        let found = statement
            .query_row([], |row| {
                Ok((area(row.get(0)?), codec::decode("the node's own record", row.get_ref(1)?.as_blob()?)))
            })
            .optional()?;
        match found {
            Some((Some(area), knowledge)) => Ok(State { area, knowledge: knowledge?, changed: false }),
            _ => Err(damaged("the node's own record").into()),
        }
    }
    /// Writes it where it has changed; the last thing before COMMIT.
    pub(super) fn store(&mut self, connection: &Connection) -> Result<(), Failure> {
        if self.changed {
            let state = codec::encode(&self.knowledge)?;
            let (area, version) = (i64::from(self.area == 1), bits(self.knowledge.version));
            connection.prepare_cached(sql::SET_KNOWLEDGE)?.execute(params![area, version, state])?;
            self.changed = false;
        }
        Ok(())
    }
    /// What a request may have changed before it failed: its knowledge is set last, so only these.
    pub(super) fn mark(&self) -> (usize, bool) {
        (self.area, self.changed)
    }
    /// Back to a mark.
    pub(super) fn reset(&mut self, (area, changed): (usize, bool)) {
        (self.area, self.changed) = (area, changed);
    }
    /// Replaces the knowledge; written by the next [`State::store`].
    pub(super) fn set_knowledge(&mut self, knowledge: Knowledge) {
        self.knowledge = knowledge;
        self.changed = true;
    }
}

/// Which table is in force, without decoding anything else.
pub(super) fn area_in_force(connection: &Connection) -> Result<usize, Failure> {
    let found = connection.prepare_cached(sql::AREA)?.query_row([], |row| row.get(0)).optional()?;
    found.and_then(area).ok_or_else(|| damaged("the node's own record").into())
}

fn area(column: i64) -> Option<usize> {
    match column {
        0 => Some(0),
        1 => Some(1),
        _ => None,
    }
}

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
    /// Rows of a statement whose columns are a head, then collection, key and value.
    fn rows<P: rusqlite::Params>(&self, statement: &str, params: P) -> Result<Vec<(LocalSeq, Row)>, Failure> {
        let mut statement = self.connection.prepare_cached(statement)?;
        let mut found = statement.query(params)?;
        let mut rows = Vec::new();
        while let Some(columns) = found.next()? {
            rows.push((codec::head(columns)?.local_seq, codec::whole_row(columns)?));
        }
        Ok(rows)
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
        let statement = prepared(&mut self.head[place], self.connection, ROW[place].head)?;
        let name = params![codec::scope(key.scope), key.collection, key.key];
        let head = statement.query_row(name, codec::head).optional()?;
        self.last = Some((area, key.clone(), head));
        Ok(head)
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
        take: &mut dyn FnMut(LocalSeq, Row),
    ) -> Result<(), Failure> {
        let statements = self.statements(area);
        let mut heads = self.connection.prepare_cached(statements.heads_after)?;
        let mut content = self.connection.prepare_cached(statements.content)?;
        let mut heads = heads.query([position(after)])?;
        while let Some(columns) = heads.next()? {
            let head = codec::head(columns)?;
            match want(&head) {
                Want::Skip => {}
                Want::Stop => break,
                Want::Take => {
                    let row = content.query_row([position(head.local_seq)], |columns| {
                        let scope = codec::scope_of(columns.get(0)?);
                        let (collection, key) = (columns.get(1)?, columns.get(2)?);
                        let value = columns.get_ref(3)?;
                        Ok(scope
                            .ok_or_else(|| damaged("a row"))
                            .and_then(|scope| codec::row(&head, RowKey { scope, collection, key }, value)))
                    })??;
                    take(head.local_seq, row);
                }
            }
        }
        Ok(())
    }
    fn tombstones(&mut self, after: LocalSeq, limit: usize) -> Result<Vec<Head>, Failure> {
        let mut statement = self.connection.prepare_cached(self.statements(Area::Rows).tombstones)?;
        let heads = statement.query_map(params![position(after), count(limit)], codec::head)?;
        Ok(heads.collect::<Result<_, _>>()?)
    }
    fn expired(&mut self, now: Millis, limit: usize) -> Result<Vec<(LocalSeq, Row)>, Failure> {
        self.rows(self.statements(Area::Rows).expired, params![moment(now), count(limit)])
    }

    fn system_rows(&mut self) -> Result<Vec<Row>, Failure> {
        let rows = self.rows(self.statements(Area::Rows).of_scope, [codec::scope(Scope::System)])?;
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
    fn recovered(&mut self, after: u64, limit: usize) -> Result<Vec<Waiting>, Failure> {
        let mut statement = self.connection.prepare_cached(sql::RECOVERED)?;
        let mut found = statement.query(params![position(after), count(limit)])?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(columns) = found.next()? {
            let number = columns.get::<_, i64>(0)?.cast_unsigned();
            let row = codec::whole_row(columns).ok();
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
