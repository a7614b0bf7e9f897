//! Whether a page of a tree adds up: cells, free blocks and fragments fill what its header says is content (SQLite's file format,
//! section 1.6). One that was garbled, or whose count of cells rotted, does not.
//!
//! Says nothing about what stands in the cells.

use super::pages::{PAGE, number};
use super::record::{local_bytes, varint};

/// The cells of a page of a tree; `None` where it is none, or does not add up.
pub(super) fn cells_of(at: u32, page: &[u8]) -> Option<u64> {
    let header = if at == 1 { 100 } else { 0 };
    let short = |at: usize| page.get(at..at + 2).map(|two| usize::from(u16::from_be_bytes([two[0], two[1]])));
    let kind = *page.get(header)?;
    let interior = match kind {
        2 | 5 => 4,
        10 | 13 => 0,
        _ => return None,
    };
    let (count, content) = (short(header + 3)?, short(header + 5)?);
    let pointers = header + 8 + interior;
    if content < pointers + 2 * count || content > PAGE {
        return None;
    }
    let mut used = usize::from(*page.get(header + 7)?);
    for nth in 0..count {
        let start = short(pointers + 2 * nth)?;
        let mut rest = page.get(start.max(content) + interior..)?;
        let before = rest.len();
        if kind == 5 {
            varint(&mut rest)?;
            used += (interior + before - rest.len()).max(4);
            continue;
        }
        let bytes = usize::try_from(varint(&mut rest)?).ok().filter(|bytes| *bytes <= u32::MAX as usize)?;
        if kind == 13 {
            varint(&mut rest)?;
        }
        let local = local_bytes(bytes, kind);
        let chain = if local < bytes { 4 } else { 0 };
        used += (interior + before - rest.len() + local + chain).max(4);
    }
    let mut block = short(header + 1)?;
    // Free blocks stand in rising order, so there is an end.
    while block != 0 {
        let (next, size) = (short(block)?, short(block + 2)?);
        if block < content || (next != 0 && next <= block) {
            return None;
        }
        used += size;
        block = next;
    }
    // A page that ends a tree's interior names its last child.
    let whole = interior == 0 || number(page, header + 8) > 0;
    (whole && used == PAGE - content).then_some(count as u64)
}
