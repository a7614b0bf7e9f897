//! Backups after a cut: whatever has the name of a backup is whole, the newest that was answered is there, and holds what
//! was promised before it began.

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

/// Looks at every backup of a node.
pub(crate) fn check(node: &Node) -> Outcome {
    let names = node.bed.lock().media.list(FOLDER);
    for name in names.iter().filter(|name| name.ends_with(".db")) {
        let held = read(node, name).map_err(|why| format!("backup: {name}: {why}"))?;
        let Some((newest, promised)) = &node.backup else { continue };
        if name != newest && name != "latest.db" {
            continue;
        }
        for (key, promised) in promised {
            match held.get(key) {
                Some(rank) if rank >= promised => {}
                None if promised.2 => {}
                found => return Err(format!("backup: {name}: {} was {promised:?}, it has {found:?}", key.key)),
            }
        }
    }
    let missing = |name: &&str| !names.iter().any(|there| there == name);
    match &node.backup {
        Some((newest, _)) => match ["latest.db", newest].iter().find(|name| missing(name)) {
            None => Ok(()),
            Some(name) => Err(format!("backup: {name} is missing, it was answered; there are {names:?}")),
        },
        None => Ok(()),
    }
}

/// SQLite's own check of a backup, its mark, and the versions that it holds.
fn read(node: &Node, name: &str) -> Result<BTreeMap<RowKey, Rank>, String> {
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
