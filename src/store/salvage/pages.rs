//! The pages of a database file that SQLite may refuse: read as they lie, with those of its write-ahead log over them.
//!
//! Knows SQLite's file format (<https://www.sqlite.org/fileformat2.html>), and trusts nothing that it reads: every number
//! is checked against what there is. Writes nothing.

use super::super::disk::Disk;
use super::super::open::beside;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::vec::Vec;

/// The page size of our databases; their pointer map says what each page is for.
pub(super) const PAGE: usize = 4096;
/// Entries of one page of the pointer map, five bytes each.
const MAP_ENTRIES: u32 = (PAGE / 5) as u32;
const LOG_HEADER: u64 = 32;
const FRAME_HEADER: usize = 24;
/// The page that SQLite's locks stand on; nothing is ever in it (section 1.4).
pub(super) const LOCK_PAGE: u32 = 0x4000_0000 / PAGE as u32 + 1;
/// How often a page is asked for: what is not carried over is lost, and a disk that has failed once may give it the next time.
const READ_TRIES: usize = 3;
/// A chain of overflow pages, or of parents, that is longer goes in circles.
const CHAIN_MAX: usize = 128;

/// What the pointer map says a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Root,
    Free,
    Overflow,
    /// Below this page.
    Tree(u32),
    /// The map does not say.
    Unknown,
}

/// A file with its log, at rest.
pub(super) struct Pages<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    log: PathBuf,
    count: u32,
    /// Pages that its header says it has, where the header can be believed.
    said: Option<u32>,
    /// Where the last committed copy of a page stands in the log.
    logged: BTreeMap<u32, u64>,
}

impl Pages<'_> {
    pub(super) fn open<'a>(disk: &'a dyn Disk, path: &Path) -> io::Result<Pages<'a>> {
        let bytes = match disk.entry(path)? {
            Some(super::super::disk::Entry::File(bytes)) => bytes,
            _ => 0,
        };
        let count = u32::try_from(bytes / PAGE as u64).unwrap_or(u32::MAX);
        let log = beside(path, "-wal");
        let mut pages = Pages { disk, path: path.to_path_buf(), log, count, said: None, logged: BTreeMap::new() };
        pages.read_log()?;
        pages.said = pages.page(1).and_then(|first| said_by(&first));
        Ok(pages)
    }
    /// The frames of the log up to its last commit. Their checksums are not looked at: those of rows and records are.
    fn read_log(&mut self) -> io::Result<()> {
        let Some(header) = self.piece(&self.log.clone(), 0, LOG_HEADER as usize)? else { return Ok(()) };
        let salts = header[16..24].to_vec();
        let mut waiting = Vec::new();
        for at in (LOG_HEADER..).step_by(FRAME_HEADER + PAGE) {
            let Some(frame) = self.piece(&self.log.clone(), at, FRAME_HEADER)? else { break };
            // Beyond the last frame of this turn stand those of an earlier one, with other salts.
            if frame[8..16] != salts[..] {
                break;
            }
            waiting.push((number(&frame, 0), at + FRAME_HEADER as u64));
            let pages = number(&frame, 4);
            if pages > 0 {
                self.count = self.count.max(pages);
                self.logged.extend(waiting.drain(..));
            }
        }
        Ok(())
    }
    fn piece(&self, path: &Path, at: u64, bytes: usize) -> io::Result<Option<Vec<u8>>> {
        match self.disk.read_at(path, at, bytes) {
            Ok(piece) if piece.len() == bytes => Ok(Some(piece)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
    /// Pages, the last one's number.
    pub(super) fn count(&self) -> u32 {
        self.count
    }
    /// Pages that are not there and should be; `None` where nothing says how many there were.
    pub(super) fn cut_off(&self) -> Option<u32> {
        self.said.map(|said| said.saturating_sub(self.count))
    }
    /// Whether each entry of a page of the pointer map is one that there can be.
    pub(super) fn is_sane_map(&self, at: u32) -> bool {
        let last = self.count.saturating_sub(at).min(MAP_ENTRIES) as usize;
        // The page that SQLite locks by is of no use to anybody.
        let is_one = |nth: usize, kind: u8| matches!(kind, 1..=5) || at + 1 + nth as u32 == LOCK_PAGE;
        self.page(at).is_some_and(|map| (0..last).all(|nth| map.get(nth * 5).is_some_and(|kind| is_one(nth, *kind))))
    }
    /// A page, numbered from 1; `None` where it cannot be read.
    pub(super) fn page(&self, number: u32) -> Option<Vec<u8>> {
        if number == 0 || number > self.count {
            return None;
        }
        let (path, at) = match self.logged.get(&number) {
            Some(at) => (&self.log, *at),
            None => (&self.path, u64::from(number - 1) * PAGE as u64),
        };
        (0..READ_TRIES).find_map(|_| self.piece(path, at, PAGE).ok()).flatten()
    }
    /// What the pointer map says of a page. `map` keeps the page of it that was last read.
    pub(super) fn use_of(&self, page: u32, map: &mut Option<(u32, Vec<u8>)>) -> Use {
        if page < 3 {
            return if page == 1 { Use::Root } else { Use::Unknown };
        }
        let group = (page - 2) / (MAP_ENTRIES + 1);
        let at = group * (MAP_ENTRIES + 1) + 2;
        if at == page {
            return Use::Unknown;
        }
        if map.as_ref().is_none_or(|(of, _)| *of != at) {
            *map = self.page(at).map(|bytes| (at, bytes));
        }
        let Some((_, bytes)) = map else { return Use::Unknown };
        let entry = ((page - at - 1) * 5) as usize;
        let Some(entry) = bytes.get(entry..entry + 5) else { return Use::Unknown };
        match entry[0] {
            1 => Use::Root,
            2 => Use::Free,
            3 | 4 => Use::Overflow,
            5 => Use::Tree(number(entry, 1)),
            _ => Use::Unknown,
        }
    }
    /// Whether a page is one of the pointer map.
    pub(super) fn is_map(page: u32) -> bool {
        page >= 2 && (page - 2).is_multiple_of(MAP_ENTRIES + 1)
    }
    /// The root of the tree that a page belongs to, as far as the map leads.
    pub(super) fn root_of(&self, page: u32, map: &mut Option<(u32, Vec<u8>)>) -> Option<u32> {
        let mut at = page;
        for _ in 0..CHAIN_MAX {
            match self.use_of(at, map) {
                Use::Root => return Some(at),
                Use::Tree(parent) => at = parent,
                _ => return None,
            }
        }
        None
    }
    /// A payload of `bytes` whose first part lies in a page and whose rest lies in a chain of overflow pages.
    pub(super) fn payload(&self, local: &[u8], bytes: usize, mut next: u32) -> Option<Vec<u8>> {
        let mut payload = local.to_vec();
        for _ in 0..CHAIN_MAX {
            if payload.len() >= bytes {
                break;
            }
            let page = self.page(next)?;
            next = number(&page, 0);
            let take = (bytes - payload.len()).min(PAGE - 4);
            payload.extend_from_slice(&page[4..4 + take]);
        }
        (payload.len() == bytes).then_some(payload)
    }
}

/// The number of pages in a header of ours (section 1.3.7): believed where magic and page size are right, and where it was written
/// with the last change.
fn said_by(first: &[u8]) -> Option<u32> {
    let pages = number(first, 28);
    let ours = first.starts_with(b"SQLite format 3\0") && first.get(16..18) == Some(&[0x10, 0][..]);
    (ours && pages > 0 && number(first, 24) == number(first, 92)).then_some(pages)
}

/// Four bytes, the highest first.
pub(super) fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok());
    u32::from_be_bytes(four.unwrap_or_default())
}
