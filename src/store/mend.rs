//! Mends in place what needs nobody else: an index that does not lead to its rows, a name that rotted in a row while the
//! index still has it, or sums that are not those of the rows. The table is the truth, index and sums come from it; of a
//! name that stands twice one is whole.
//!
//! Loses no row. What is damaged within a row stays damaged, under its right name, until a peer gives it or somebody
//! writes it anew.

use super::commit::Open;
use super::failure::Failure;
use super::schema;
use super::scrub;
use super::sql::ROW;
use super::state::State;
use super::table::SqlTable;
use super::{codec, verify};
use rusqlite::{Connection, params};
use std::format;
use std::string::String;
use std::vec::Vec;

/// What an examination came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Examined {
    /// Nothing is wrong with the structure.
    Sound,
    /// Indexes or sums were wrong, and are made anew.
    Mended(String),
    /// A tree is broken: the database must be set aside.
    Broken(String),
}

/// Rows whose name is put right at once.
const NAMES_MAX: usize = 4096;

/// Looks at the whole structure after SQLite has called it damaged, and mends what can be mended here.
pub(super) fn examine(connection: &Connection) -> Result<Examined, Failure> {
    let faults = match verify::structure(connection) {
        Ok(faults) => faults,
        Err(failure) if failure.is_corruption() => return Ok(Examined::Broken(said(failure))),
        Err(failure) => return Err(failure),
    };
    let faults: Vec<String> = faults.into_iter().filter(|fault| !is_of_no_page_in_use(fault)).collect();
    let text = faults.join("; ");
    if faults.is_empty() {
        return match records(connection)? {
            Examined::Sound => sums(connection),
            broken => Ok(broken),
        };
    }
    if !faults.iter().all(|fault| is_of_index(fault)) {
        return Ok(Examined::Broken(text));
    }
    match rebuild_indexes(connection) {
        Ok(()) => Ok(Examined::Mended(text)),
        // A row so garbled that the table itself refuses it.
        Err(failure) if failure.is_corruption() || failure.is_refusal() => Ok(Examined::Broken(said(failure))),
        Err(failure) => Err(failure),
    }
}

/// Records have no second copy: one that is damaged is as bad as a tree.
fn records(connection: &Connection) -> Result<Examined, Failure> {
    let looked = || -> Result<Vec<String>, Failure> {
        let mut state = State::load(connection)?;
        let mut damage = verify::Findings::default();
        verify::records(connection, &mut state, &mut damage)?;
        Ok(damage.structure)
    };
    match looked() {
        // A row that waits for a person is no reason to set all aside.
        Ok(faults) => match faults.into_iter().find(|fault| fault.contains("member")) {
            Some(fault) => Ok(Examined::Broken(fault)),
            None => Ok(Examined::Sound),
        },
        Err(failure) if failure.is_corruption() => Ok(Examined::Broken(said(failure))),
        Err(failure) => Err(failure),
    }
}

/// The digest and the number of tombstones, which are kept beside the rows, are counted again. Rows that the node should have and
/// has not are found by its peers then: their digests differ.
fn sums(connection: &Connection) -> Result<Examined, Failure> {
    let open = Open::begin(connection)?;
    let counted = match recount(connection) {
        Err(failure) if failure.is_corruption() => return Ok(Examined::Broken(said(failure))),
        counted => counted?,
    };
    if !counted {
        return Ok(Examined::Sound);
    }
    open.commit()?;
    Ok(Examined::Mended("the digest or the tombstones were not those of the rows".into()))
}

/// Says whether they were others than those that were kept.
fn recount(connection: &Connection) -> Result<bool, Failure> {
    let mut state = State::load(connection)?;
    let mut knowledge = state.knowledge.clone();
    knowledge.recount(&mut SqlTable::new(connection, &mut state), crate::replica::Area::Rows)?;
    if knowledge == state.knowledge {
        return Ok(false);
    }
    knowledge.version += 1;
    state.set_knowledge(knowledge);
    state.store(connection)?;
    Ok(true)
}

fn said(failure: Failure) -> String {
    match failure {
        Failure::Sqlite(error) => format!("{error}"),
        Failure::Error(error) => format!("{error}"),
    }
}

/// What SQLite says of a page that nothing leads to: room is lost, and nothing is ever read from it or written to it.
fn is_of_no_page_in_use(fault: &str) -> bool {
    fault.starts_with("Page ") && fault.ends_with(": never used")
}

/// What SQLite says of an index whose tree is whole.
fn is_of_index(fault: &str) -> bool {
    let missing = fault.starts_with("row ") && fault.contains("missing from index");
    missing
        || fault.starts_with("wrong # of entries in index")
        || fault.starts_with("non-unique entry in index")
        || fault.contains("values differ from index")
        || fault.starts_with("NULL value in ")
}

/// Builds the indexes of both tables of rows anew from the tables.
pub(super) fn rebuild_indexes(connection: &Connection) -> Result<(), Failure> {
    let open = Open::begin(connection)?;
    for (nth, table) in ["row_0", "row_1"].into_iter().enumerate() {
        let names = names_by_index(connection, nth)?;
        for index in schema::INDEXES {
            connection.execute_batch(&format!("DROP INDEX IF EXISTS {table}_{index}"))?;
        }
        let rename = format!("UPDATE {table} SET scope = ?2, collection = ?3, key = ?4 WHERE seq = ?1");
        for (seq, key) in names {
            connection
                .execute(&rename, params![codec::position(seq), codec::scope(key.scope), key.collection, key.key])?;
        }
        // Written while the index did not lead to the row before: of two rows of one name the later write stays.
        connection.execute_batch(&format!(
            "DELETE FROM {table} WHERE EXISTS (SELECT 1 FROM {table} AS other WHERE other.scope = {table}.scope
             AND other.collection = {table}.collection AND other.key = {table}.key AND other.seq <> {table}.seq
             AND (other.stamp, other.origin, other.seq) > ({table}.stamp, {table}.origin, {table}.seq))
             AND (scope, collection, key) IN
             (SELECT scope, collection, key FROM {table} GROUP BY scope, collection, key HAVING count(*) > 1)"
        ))?;
        connection.execute_batch(&schema::indexes(table))?;
    }
    recount(connection)?;
    open.commit()?;
    Ok(())
}

/// Rows whose own name does not go with their checksum, with the name that the index has for them.
fn names_by_index(
    connection: &Connection,
    nth: usize,
) -> Result<Vec<(crate::id::LocalSeq, crate::row::RowKey)>, Failure> {
    let statements = &ROW[nth];
    let mut statement = connection.prepare_cached(statements.rows_after)?;
    let mut rows = statement.query([0])?;
    let mut names = Vec::new();
    while let Some(columns) = rows.next()? {
        if codec::whole_row(columns).is_some() {
            continue;
        }
        let seq = columns.get::<_, i64>(0)?.cast_unsigned();
        if let Ok(Some(key)) = scrub::name_of(connection, statements, seq)
            && names.len() < NAMES_MAX
        {
            names.push((seq, key));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::{is_of_index, is_of_no_page_in_use};

    #[test]
    fn damage_of_an_index_is_told_from_damage_of_a_tree() {
        for index in [
            "row 3 missing from index row_0_key",
            "wrong # of entries in index row_0_expiry",
            "non-unique entry in index row_0_key",
            "row 5 values differ from index row_0_key",
        ] {
            assert!(is_of_index(index), "{index}");
        }
        for tree in
            ["Tree 3 page 17: btreeInitPage() returns error code 11", "Page 5: never used", "Freelist: size is 3"]
        {
            assert!(!is_of_index(tree), "{tree}");
            assert_eq!(is_of_no_page_in_use(tree), tree.contains("never"), "{tree}");
        }
    }
}
