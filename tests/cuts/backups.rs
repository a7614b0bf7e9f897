//! Backups after a cut: whatever has the name of a backup is whole, the newest that was answered is there and holds what
//! was promised before it began, and `latest.db` is that one or a later one.

use crate::ledger::Outcome;
use crate::node::Node;
use cbddc::id::ReplicaId;
use cbddc::row::{Rank, RowKey};
use cbddc::time::Stamp;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;

/// Where a node puts them.
pub(crate) const FOLDER: &str = "backups";
pub(crate) const LATEST: &str = "backups/latest.db";
const NAME_OF_LATEST: &str = "latest.db";
/// How many are kept.
pub(crate) const KEEP: u32 = 2;

/// What was promised for each key when a backup began.
pub(crate) type Promised = BTreeMap<RowKey, Rank>;

/// Looks at every backup of a node.
pub(crate) fn check(node: &Node) -> Outcome {
    let names = node.bed.lock().media.list(FOLDER);
    let mut answered = None;
    for name in names.iter().filter(|name| name.ends_with(".db") && *name != NAME_OF_LATEST) {
        let held = read(node, name).map_err(|why| format!("backup: {name}: {why}"))?;
        if let Some((newest, promised)) = &node.backup
            && name == newest
        {
            holds(&held, promised).map_err(|why| format!("backup: {name}: {why}"))?;
            answered = Some(held);
        }
    }
    if !names.iter().any(|name| name == NAME_OF_LATEST) {
        return match &node.backup {
            Some(_) => Err(format!("backup: {NAME_OF_LATEST} is missing, one was answered; there are {names:?}")),
            None => Ok(()),
        };
    }
    let latest = read(node, NAME_OF_LATEST).map_err(|why| format!("backup: {NAME_OF_LATEST}: {why}"))?;
    let Some((newest, _)) = &node.backup else { return Ok(()) };
    // Those that a cut left without an answer are kept like others, and the oldest goes.
    let newer = names.iter().filter(|name| name.starts_with("backup-") && *name > newest).count();
    if answered.is_none() && newer < KEEP as usize {
        return Err(format!("backup: {newest} is missing, it was answered; there are {names:?}"));
    }
    // The same holds of the newest: a delete, or a bootstrap, may have come before it.
    let begun = || node.backups_begun.iter().any(|promised| holds(&latest, promised).is_ok());
    if answered.is_some_and(|answered| answered == latest) || begun() {
        return Ok(());
    }
    Err(format!(
        "backup: {NAME_OF_LATEST} is neither {newest}, which was answered, nor one of {} that were begun since",
        node.backups_begun.len()
    ))
}

/// What was promised by the backup that a database came from: the newest, be it one that was not answered.
pub(crate) fn promised_by(node: &Node, held: &Promised) -> Option<Promised> {
    let (_, answered) = node.backup.as_ref()?;
    let begun = || node.backups_begun.iter().find(|begun| holds(held, begun).is_ok());
    Some(if holds(held, answered).is_ok() { answered } else { begun().unwrap_or(answered) }.clone())
}

/// Whether a backup has all of it, or what is later.
fn holds(held: &Promised, promised: &Promised) -> Outcome {
    for (key, promised) in promised {
        match held.get(key) {
            Some(rank) if rank >= promised => {}
            None if promised.2 => {}
            found => return Err(format!("{} was {promised:?}, it has {found:?}", key.key)),
        }
    }
    Ok(())
}

/// SQLite's own check of a backup, its mark, and the versions that it holds.
fn read(node: &Node, name: &str) -> Result<Promised, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path = node.bed.path(&format!("{FOLDER}/{name}"));
    let read = || -> Result<_, rusqlite::Error> {
        let backup = Connection::open_with_flags_and_vfs(&path, flags, crate::vfs::NAME)?;
        let whole: String = backup.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        let mark: i32 = backup.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let area: i64 = backup.query_row("SELECT area FROM knowledge", [], |row| row.get(0))?;
        let mut rows = backup
            .prepare(&format!("SELECT collection, key, stamp, origin, flags, hash FROM row_{area} WHERE scope = 0"))?;
        let rows = rows.query_map([], |row| {
            let (collection, key): (String, String) = (row.get(0)?, row.get(1)?);
            let stamp = Stamp::from_bits(row.get::<_, i64>(2)?.cast_unsigned());
            let origin = ReplicaId::from_bits(row.get::<_, i64>(3)?.cast_unsigned());
            let dead = row.get::<_, i64>(4)? & 1 != 0;
            Ok((RowKey::replicated(&collection, &key), (stamp, origin, dead, u128::from_le_bytes(row.get(5)?))))
        })?;
        Ok((whole, mark, rows.collect::<Result<_, _>>()?))
    };
    match read() {
        Ok((whole, 0x4342_4442, rows)) if whole == "ok" => Ok(rows),
        Ok((whole, mark, _)) => Err(format!("{whole}, marked {mark:x}")),
        Err(error) => Err(error.to_string()),
    }
}
