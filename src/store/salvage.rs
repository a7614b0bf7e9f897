//! What can still be read of a damaged database: every row whose own checksum says that it is whole, and the records.
//!
//! Goes over the pages as they lie, without SQLite, so that no damage to a tree, a header or a schema keeps a whole row
//! from being found. Pages that are free hold rows of the past and are left alone. Decides nothing about what it finds.

mod pages;
mod record;

use super::disk::Disk;
use crate::id::{DeviceId, ReplicaId};
use crate::replica::{Knowledge, MemberState};
use crate::row::Row;
use pages::{Pages, Use};
use record::Content;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
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
    /// Rows that are not.
    pub(super) damaged: u64,
    /// Pages that could not be read.
    pub(super) unreadable: u64,
    /// The root of the tree of the table that is not in force; its rows are none.
    other: Option<u32>,
}

/// Rows kept aside that are remembered of a damaged database; a bootstrap leaves few.
const ASIDE_MAX: usize = 4096;

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
    remains.other = match area {
        Some(0) => roots.get("row_1").copied(),
        Some(_) => roots.get("row_0").copied(),
        None => None,
    };
    let empty = |page: Vec<u8>| matches!(page[..], [10, _, _, 0, 0, ..]);
    remains.members_unread =
        remains.members.is_empty() && !roots.get("member").and_then(|root| pages.page(*root)).is_some_and(empty);
    let (mut whole, mut damaged, mut highest) = (0, 0, None);
    let unreadable = rows(&pages, remains.other, |content| match content {
        Content::Row(row) => {
            whole += 1;
            highest = highest.max(Some(row.dot.origin));
        }
        Content::Damaged => damaged += 1,
        _ => {}
    });
    (remains.whole, remains.damaged, remains.highest, remains.unreadable) = (whole, damaged, highest, unreadable);
    Ok(remains)
}

/// Gives every whole row of the table in force, in no order.
pub(super) fn each_row(disk: &dyn Disk, path: &Path, remains: &Remains, mut each: impl FnMut(Row)) -> io::Result<()> {
    let pages = Pages::open(disk, path)?;
    rows(&pages, remains.other, |content| {
        if let Content::Row(row) = content {
            each(row);
        }
    });
    Ok(())
}

fn rows(pages: &Pages<'_>, other: Option<u32>, mut each: impl FnMut(Content)) -> u64 {
    each_leaf(pages, |at, page, root| {
        if root.is_none() || root != other {
            record::cells(pages, at, page, &mut each);
        }
    })
}

/// Shows every leaf of a tree that is not free, with the root of its tree where that is known. Says how many pages could
/// not be read.
fn each_leaf(pages: &Pages<'_>, mut each: impl FnMut(u32, &[u8], Option<u32>)) -> u64 {
    let (mut unreadable, mut map) = (0, None);
    for at in 1..=pages.count() {
        if Pages::is_map(at) || matches!(pages.use_of(at, &mut map), Use::Free | Use::Overflow) {
            continue;
        }
        match pages.page(at) {
            Some(page) if matches!(page.get(if at == 1 { 100 } else { 0 }), Some(10 | 13)) => {
                let root = pages.root_of(at, &mut map);
                each(at, &page, root);
            }
            Some(_) => {}
            None => unreadable += 1,
        }
    }
    unreadable
}
