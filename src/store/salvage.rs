//! What can still be read of a damaged database: every row whose own checksum says that it is whole, and the records.
//!
//! Goes over the pages as they lie, without SQLite, so that no damage to a tree, a header or a schema keeps a whole row
//! from being found. Pages that are free hold rows of the past and are left alone. Decides nothing about what it finds.

mod pages;
mod record;
mod sums;

use super::disk::Disk;
use crate::id::{DeviceId, LocalSeq, ReplicaId};
use crate::replica::{Knowledge, MemberState};
use crate::row::Row;
use pages::{LOCK_PAGE, Pages, Use};
use record::Content;
use std::collections::BTreeMap;
use std::format;
use std::io;
use std::path::Path;
use std::string::String;
use std::vec::Vec;

/// What a damaged database says of itself.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// The node's own record, if it is whole.
    pub(super) knowledge: Option<Knowledge>,
    /// Members whose records are whole.
    pub(super) members: BTreeMap<DeviceId, MemberState>,
    /// Whether there were members cannot be told: their table cannot be found, or what stands in it cannot be read.
    pub(super) members_unread: bool,
    /// Rows that waited for a person's decision.
    pub(super) aside: Vec<Row>,
    /// The highest replica that wrote any whole row.
    pub(super) highest: Option<ReplicaId>,
    /// Whole rows of the table in force.
    pub(super) whole: u64,
    /// Rows that are there and are not whole.
    pub(super) damaged: u64,
    /// Pages that could not be read: missing, or not what they should be.
    pub(super) unreadable: u64,
    /// Rows that are missing, whole or in part: at least so many.
    pub(super) missing_at_least: u64,
    /// And at most so many; `None` where that cannot be told.
    pub(super) missing_at_most: Option<u64>,
    /// The root of the tree of the table that is not in force; its rows are none.
    other: Option<u32>,
}

impl Remains {
    /// How much is missing, in words.
    pub(super) fn said(&self) -> String {
        said(self.damaged, self.unreadable, self.missing_at_least, self.missing_at_most)
    }
}

/// How much is missing, in words that are never less than the truth.
pub(super) fn said(damaged: u64, pages: u64, at_least: u64, at_most: Option<u64>) -> String {
    let rows = match at_most {
        Some(most) if most == at_least => format!("{most} in all"),
        Some(most) => format!("at least {at_least} and up to {most} in all"),
        None => format!("at least {at_least} in all, how many more is unknown"),
    };
    format!("{damaged} rows and {pages} pages could not be read: rows that are missing, {rows}")
}

/// Rows kept aside that are remembered of a damaged database; a bootstrap leaves few.
const ASIDE_MAX: usize = 4096;
/// Rows in one page at most: the shortest takes 54 bytes with its pointer.
const ROWS_A_PAGE: u64 = 76;

/// Looks at all of it.
pub(super) fn survey(disk: &dyn Disk, path: &Path) -> io::Result<Remains> {
    let pages = Pages::open(disk, path)?;
    let mut remains = Remains::default();
    let mut area = None;
    let mut roots = BTreeMap::new();
    each_leaf(&pages, |at, page, _| {
        record::cells(&pages, at, page, |content| match content {
            Content::Knowledge(knowledge, of)
                if remains.knowledge.as_ref().is_none_or(|k| k.version < knowledge.version) =>
            {
                area = Some(of);
                remains.knowledge = Some(knowledge);
            }
            Content::Member(device, member) => drop(remains.members.insert(device, member)),
            Content::Aside(row, false) if remains.aside.len() < ASIDE_MAX => remains.aside.push(row),
            Content::Schema(name, root) => drop(roots.insert(name, root)),
            _ => {}
        });
    });
    let root_of = |table: usize, suffix: &str| roots.get(&format!("row_{table}{suffix}")).copied();
    remains.other = area.and_then(|area| root_of(1 - area, ""));
    let empty = |page: Vec<u8>| matches!(page[..], [10, _, _, 0, 0, ..]);
    remains.members_unread =
        remains.members.is_empty() && !roots.get("member").and_then(|root| pages.page(*root)).is_some_and(empty);
    let in_force = area.and_then(|area| root_of(area, ""));
    let mut leaves = Vec::new();
    each_leaf(&pages, |at, page, root| {
        if root.is_some() && root == remains.other {
            return;
        }
        let mut leaf: Option<Leaf> = None;
        record::cells(&pages, at, page, |content| match content {
            Content::Row(seq, row) => {
                remains.whole += 1;
                remains.highest = remains.highest.max(Some(row.dot.origin));
                let before = leaf.unwrap_or(Leaf { first: seq, last: seq, rows: 0 });
                leaf = Some(Leaf { first: before.first.min(seq), last: before.last.max(seq), rows: before.rows + 1 });
            }
            Content::Damaged => remains.damaged += 1,
            // A row so garbled that it does not even look like one.
            Content::Nothing if root.is_some() && root == in_force => remains.damaged += 1,
            _ => {}
        });
        leaves.extend(leaf);
    });
    let seen = look(&pages, in_force, area.and_then(|area| root_of(area, "_key")));
    let cut_off = pages.cut_off();
    remains.unreadable = seen.unreadable + u64::from(cut_off.unwrap_or(0));
    // Each row has an entry in the key index, and a position of its own. A leaf that was written over another is there twice, and
    // the other is gone: rows of which there may be two are counted once where it is said how many are missing at most.
    let twice = twice(leaves);
    let by_index = seen.entries.map(|entries| entries.saturating_sub(remains.whole));
    let all_twice = |missing: u64| missing + twice;
    let by_pages = remains.damaged + (seen.of_rows + u64::from(cut_off.unwrap_or(0))) * ROWS_A_PAGE + twice;
    let known = remains.knowledge.as_ref();
    let tail = known.map(|known| known.tail.saturating_sub(remains.whole.saturating_sub(twice)));
    (remains.missing_at_least, remains.missing_at_most) = match (by_index, cut_off, tail) {
        // Nothing says which table is in force, nor how many rows it had.
        (_, _, None) => (0, None),
        (Some(missing), Some(0), _) => (missing, Some(all_twice(missing))),
        (_, Some(_), Some(tail)) if seen.map_is_sane => (0, Some(by_pages.min(tail))),
        (_, _, tail) => (0, tail),
    };
    Ok(remains)
}

/// The positions of the whole rows of one leaf.
#[derive(Debug, Clone, Copy)]
struct Leaf {
    first: LocalSeq,
    last: LocalSeq,
    rows: u64,
}

/// Rows whose leaf stands among the positions of another, so that they may be there twice.
fn twice(mut leaves: Vec<Leaf>) -> u64 {
    leaves.sort_unstable_by_key(|leaf| leaf.first);
    let (mut twice, mut end) = (0, None);
    for leaf in leaves {
        if end.is_some_and(|end| leaf.first <= end) {
            twice += leaf.rows;
        }
        end = end.max(Some(leaf.last));
    }
    twice
}

/// What can be told of the pages without looking into their cells.
struct Seen {
    /// Pages of trees that are none.
    unreadable: u64,
    /// Those of them that may have held rows.
    of_rows: u64,
    /// Entries of the key index; `None` where one of its pages may be lost.
    entries: Option<u64>,
    /// The pointer map says what each page is for.
    map_is_sane: bool,
}

fn look(pages: &Pages<'_>, rows: Option<u32>, keys: Option<u32>) -> Seen {
    let mut seen = Seen { unreadable: 0, of_rows: 0, entries: keys.map(|_| 0), map_is_sane: true };
    let mut map = None;
    for at in 1..=pages.count() {
        if Pages::is_map(at) {
            let sane = pages.is_sane_map(at);
            seen.map_is_sane &= sane;
            seen.unreadable += u64::from(!sane);
            continue;
        }
        if at == LOCK_PAGE || matches!(pages.use_of(at, &mut map), Use::Free | Use::Overflow) {
            continue;
        }
        let cells = pages.page(at).and_then(|page| sums::cells_of(at, &page));
        let root = pages.root_of(at, &mut map);
        match cells {
            Some(cells) if root.is_some() && root == keys => {
                seen.entries = seen.entries.map(|entries| entries + cells);
            }
            Some(_) => {}
            None => {
                seen.unreadable += 1;
                seen.of_rows += u64::from(root.is_none() || root == rows);
                if root.is_none() || root == keys {
                    seen.entries = None;
                }
            }
        }
    }
    if !seen.map_is_sane {
        seen.entries = None;
    }
    seen
}

/// Gives every whole row of the table in force with its position, in no order.
pub(super) fn each_row(
    disk: &dyn Disk,
    path: &Path,
    remains: &Remains,
    mut each: impl FnMut(LocalSeq, Row),
) -> io::Result<()> {
    let pages = Pages::open(disk, path)?;
    each_leaf(&pages, |at, page, root| {
        if root.is_none() || root != remains.other {
            record::cells(&pages, at, page, |content| {
                if let Content::Row(seq, row) = content {
                    each(seq, row);
                }
            });
        }
    });
    Ok(())
}

/// Shows every leaf of a tree that is not free, with the root of its tree where that is known.
fn each_leaf(pages: &Pages<'_>, mut each: impl FnMut(u32, &[u8], Option<u32>)) {
    let mut map = None;
    for at in 1..=pages.count() {
        if Pages::is_map(at) || matches!(pages.use_of(at, &mut map), Use::Free | Use::Overflow) {
            continue;
        }
        match pages.page(at) {
            Some(page) if matches!(page.get(if at == 1 { 100 } else { 0 }), Some(10 | 13)) => {
                let root = pages.root_of(at, &mut map);
                each(at, &page, root);
            }
            _ => {}
        }
    }
}
