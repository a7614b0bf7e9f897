//! What must hold of a database that was opened after a cut, against what was promised before.

use crate::backups;
use crate::node::{DATABASE, Node};
use cbddc::id::{Dot, VersionVector};
use cbddc::replica::{Batch, Knowledge, Stream};
use cbddc::row::{Row, RowHash, RowKey};
use cbddc::wire::Mode;
use std::collections::BTreeMap;

pub(crate) type Outcome = Result<(), String>;

/// Everything that anybody has ever seen of anybody, in one run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// A number is used once: what stood under it.
    dots: BTreeMap<Dot, (RowKey, RowHash)>,
    /// The keys of each request, by its number.
    pub(crate) requests: BTreeMap<u64, Vec<RowKey>>,
}

/// The value of a write: who can tell later which request it came from.
pub(crate) fn value(request: u64, key: &RowKey, bytes: usize) -> Vec<u8> {
    let mut value = format!("{request} {} ", key.key).into_bytes();
    let length = value.len().max(bytes);
    let mut filler = request;
    while value.len() < length {
        filler = filler.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.push(b'a' + (filler >> 59) as u8 % 26);
    }
    value
}
/// The request that a row was written by; none of a tombstone.
pub(crate) fn request_of(row: &Row) -> Option<u64> {
    let text = std::str::from_utf8(row.value()?).ok()?;
    let (request, rest) = text.split_once(' ')?;
    rest.starts_with(&row.key.key).then(|| request.parse().ok())?
}

/// A later start knows everything that was answered before.
pub(crate) fn no_less(before: &Knowledge, after: &Knowledge, bootstrapping: bool) -> Outcome {
    if bootstrapping && before.replica != after.replica {
        return Ok(());
    }
    let checks = [
        ("replica", before.replica == after.replica),
        ("version", before.version <= after.version),
        ("own sequence", before.seq <= after.seq),
        ("mark of what was sent", before.sent <= after.sent),
        ("tail of the stream", before.tail <= after.tail),
        ("clock", before.hlc.last() <= after.hlc.last()),
        ("vector", after.vector.includes(&before.vector)),
        ("floor", after.floor.includes(&before.floor)),
        ("starts", before.tokens.iter().rev().take(8).all(|token| after.tokens.contains(token))),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((what, _)) => Err(format!("lost: the {what} that was answered: {before:?}\nafter: {after:?}")),
    }
}

/// All rows that can leave a node, in order of position, with what it knows.
pub(crate) fn rows(node: &Node) -> Result<(Vec<Row>, Knowledge), String> {
    let store = node.store.as_ref().ok_or("it does not run")?;
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let stream = Stream { mode: Mode::Bootstrap, after, covers: VersionVector::new(), passes_upto: 0 };
        match smol::block_on(store.read(stream)).map_err(|error| format!("reading everything: {error}"))? {
            Batch::Rows { rows, upto, closure, knowledge, .. } => {
                all.extend(rows);
                after = upto;
                if closure.is_some() {
                    return Ok((all, knowledge));
                }
            }
            Batch::BelowFloor { .. } => return Err("a bootstrap has no floor".into()),
        }
    }
}

impl Ledger {
    /// A row that was seen by somebody: its number stands for nothing else.
    pub(crate) fn see(&mut self, row: &Row) -> Outcome {
        let hash = row.hash();
        let (key, known) = self.dots.entry(row.dot).or_insert_with(|| (row.key.clone(), hash));
        // It expires into a tombstone of the same number.
        let expired = row.expires_at.is_some() && *key == row.key;
        if (key as &RowKey, *known) == (&row.key, hash) || expired {
            return Ok(());
        }
        Err(format!("used twice: {:?} is {:?} and was {key:?}", row.dot, row.key))
    }

    /// Reads everything of a node that has just been opened, and compares.
    pub(crate) fn check(&mut self, node: &mut Node) -> Outcome {
        structure(node)?;
        let (rows, knowledge) = rows(node)?;
        let digest = rows.iter().fold(0u128, |sum, row| sum.wrapping_add(row.digest_term()));
        if digest != knowledge.digest {
            return Err(format!("digest: {:x} is written, {digest:x} is right", knowledge.digest));
        }
        let tombstones = rows.iter().filter(|row| row.is_tombstone()).count() as u64;
        if tombstones != knowledge.tombstones {
            return Err(format!("tombstones: {} are written, there are {tombstones}", knowledge.tombstones));
        }
        if let Some(row) = rows.iter().find(|row| row.dot.origin == knowledge.replica && row.dot.seq > knowledge.seq) {
            return Err(format!("own sequence: {} is written, {:?} is there", knowledge.seq, row.dot));
        }
        for row in &rows {
            self.see(row)?;
            let ours = request_of(row).and_then(|request| self.requests.get(&request));
            if !row.is_tombstone() && ours.is_none_or(|keys| !keys.contains(&row.key)) {
                return Err(format!("content: {:?} holds what nobody wrote there", row.key));
            }
        }
        let by_key: BTreeMap<&RowKey, &Row> = rows.iter().map(|row| (&row.key, row)).collect();
        if by_key.len() != rows.len() {
            return Err("a key stands in two rows".into());
        }
        let fresh = node.known.as_ref().is_some_and(|known| known.replica != knowledge.replica);
        if fresh && !node.bootstrapping {
            return Err("it has taken a new identity unasked".into());
        }
        if fresh && node.restoring {
            let held = rows.iter().map(|row| (row.key.clone(), row.rank())).collect();
            node.promised = backups::promised_by(node, &held).ok_or("it was restored without a backup")?;
            node.denied.clear();
        }
        if !fresh || node.restoring {
            for (key, promised) in &node.promised {
                match by_key.get(key) {
                    Some(row) if row.rank() >= *promised => {}
                    // Tombstones are dropped in time.
                    None if promised.2 || node.dropping => {}
                    found => {
                        let found = found.map(|row| (row.stamp, row.dot));
                        return Err(format!("lost: {} was promised at {promised:?}; there is {found:?}", key.key));
                    }
                }
            }
            if !fresh {
                self.whole_requests(node, &by_key)?;
            }
        }
        node.rebase(&rows, knowledge);
        Ok(())
    }

    /// Of what was not answered, whole requests or nothing, and none without those before it; of what was denied,
    /// nothing.
    fn whole_requests(&self, node: &Node, rows: &BTreeMap<&RowKey, &Row>) -> Outcome {
        let there = |key: &RowKey| rows.get(key).and_then(|row| request_of(row));
        for request in &node.denied {
            if let Some(key) = self.requests[request].iter().find(|key| there(key) == Some(*request)) {
                return Err(format!("denied: request {request} is in {}, its caller was told otherwise", key.key));
            }
        }
        let last =
            rows.values().filter_map(|row| request_of(row)).filter(|request| node.open_requests.contains(request));
        let Some(last) = last.max() else { return Ok(()) };
        for request in node.open_requests.range(..=last) {
            let keys = &self.requests[request];
            if node.hurt && keys.iter().all(|key| there(key) != Some(*request)) {
                // One whose commit the disk failed is missing as a whole, and later ones need not be.
                continue;
            }
            // Whatever stands there instead is later.
            if let Some(key) = keys.iter().find(|key| there(key).is_some_and(|there| there < *request)) {
                return Err(format!("torn: of request {request} {} is missing; {last} is there", key.key));
            }
        }
        Ok(())
    }
}

/// SQLite's own check of everything.
fn structure(node: &Node) -> Outcome {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let path = node.bed.path(DATABASE);
    let open = || rusqlite::Connection::open_with_flags_and_vfs(&path, flags, crate::vfs::NAME);
    let checked =
        open().and_then(|sqlite| sqlite.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0)));
    match checked {
        Ok(ok) if ok == "ok" => Ok(()),
        found => Err(format!("structure: {found:?}")),
    }
}
