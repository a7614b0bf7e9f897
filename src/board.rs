//! Boards: what a kind of machine can spare, as data that is built into the binary.
//!
//! Reads no file and asks no hardware: the caller passes in a name or the device-tree model. The meaning of the
//! configuration keys that a board sets is checked by `config`, like those of a file.

use crate::Error;
use crate::limits::{LINKS_MAX, QUEUE_SLOTS};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// A board: its name, its memory budget and the defaults that suit it.
#[derive(Debug, Clone, PartialEq)]
pub struct Board {
    /// What `CBDDC.Board` says.
    pub name: String,
    /// For people.
    pub description: String,
    /// Rust targets whose binary serves it. Empty: all.
    pub targets: Vec<String>,
    /// The QEMU machine that tests boot for it.
    pub qemu_machine: Option<String>,
    /// Beginnings of the device-tree model that choose it.
    pub models: Vec<String>,
    /// How memory is shared out.
    pub budget: Budget,
    /// Configuration keys (`Section.Key`) that it sets below the file.
    pub(crate) defaults: BTreeMap<String, toml::Value>,
}

/// Resident memory of the process and its parts. The parts add up to at most `ram_mib`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The whole, in MiB.
    pub ram_mib: u32,
    /// The document cache, in MiB: the bound of `Persistence.CacheSizeMb`.
    pub cache_mib: u32,
    /// All that SQLite may allocate, in KiB, both connections together.
    pub sqlite_heap_kib: u32,
    /// The page cache of each of the two connections, in KiB. Lies within the heap.
    pub sqlite_page_cache_kib: u32,
    /// Links open at once, at most [`LINKS_MAX`].
    pub links: u32,
    /// What one link takes, in KiB.
    pub link_kib: u32,
    /// Frames and batches in the making, in KiB.
    pub frames_kib: u32,
    /// Operations in the offline queue, at most [`QUEUE_SLOTS`]: the bound of `Sync.MaxQueueSize`.
    pub queue_operations: u32,
    /// Bytes of the offline queue, in KiB.
    pub queue_kib: u32,
    /// Code, stacks, allocator, executor, in KiB.
    pub program_kib: u32,
}

impl Budget {
    /// The parts together, in KiB.
    pub fn parts_kib(&self) -> u64 {
        let kib = |value: u32| u64::from(value);
        kib(self.cache_mib) * 1024
            + kib(self.sqlite_heap_kib)
            + kib(self.links) * kib(self.link_kib)
            + kib(self.frames_kib)
            + kib(self.queue_kib)
            + kib(self.program_kib)
    }
    /// Which relation does not hold, if any.
    fn contradiction(&self) -> Option<String> {
        let whole_kib = u64::from(self.ram_mib) * 1024;
        if self.parts_kib() > whole_kib {
            return Some(format!("the parts add up to {} KiB, ram_mib is {whole_kib} KiB", self.parts_kib()));
        }
        if u64::from(self.sqlite_page_cache_kib) * 2 > u64::from(self.sqlite_heap_kib) {
            return Some("two page caches do not fit into sqlite_heap_kib".to_string());
        }
        if !(2..=LINKS_MAX as u32).contains(&self.links) {
            return Some(format!("links is {}, allowed are 2 to {LINKS_MAX}", self.links));
        }
        if !(1..=QUEUE_SLOTS as u32).contains(&self.queue_operations) {
            return Some(format!("queue_operations is {}, allowed are 1 to {QUEUE_SLOTS}", self.queue_operations));
        }
        None
    }
}

/// The fallback, last in order of choice.
pub const GENERIC: &str = "generic";

/// Every board file, by its name.
const FILES: &[(&str, &str)] = &[(GENERIC, include_str!("../boards/generic.toml"))];

/// A board file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    board: Head,
    budget: Budget,
    #[serde(default)]
    defaults: BTreeMap<String, toml::Value>,
}
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    name: String,
    description: String,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    qemu_machine: Option<String>,
    #[serde(default, rename = "match")]
    models: Vec<String>,
}

impl Board {
    /// Reads the text of a board file.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it is not a board file, or its parts exceed its whole.
    pub fn parse(text: &str) -> Result<Board, Error> {
        let File { board, budget, defaults } = toml::from_str(text)
            .map_err(|error| Error::configuration(format!("board file: {}", error.message().replace('\n', " "))))?;
        if let Some(contradiction) = budget.contradiction() {
            return Err(Error::configuration(format!("board {}: {contradiction}", board.name)));
        }
        Ok(Board {
            name: board.name,
            description: board.description,
            targets: board.targets,
            qemu_machine: board.qemu_machine,
            models: board.models,
            budget,
            defaults,
        })
    }
    /// The board of this name, in any case. `None` where there is none.
    ///
    /// # Errors
    /// As [`Board::parse`]; does not happen with the files that are built in.
    pub fn named(name: &str) -> Result<Option<Board>, Error> {
        let file = FILES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        file.map(|(_, text)| Board::parse(text)).transpose()
    }
    /// The board whose `match` fits this device-tree model, else `generic`. The longest match wins.
    ///
    /// # Errors
    /// As [`Board::parse`]; does not happen with the files that are built in.
    pub fn for_model(model: Option<&str>) -> Result<Board, Error> {
        let mut chosen: Option<(usize, Board)> = None;
        for (name, text) in FILES {
            let board = Board::parse(text)?;
            let fits = |start: &String| model.is_some_and(|model| model.starts_with(start.as_str()));
            let length = board.models.iter().filter(|start| fits(start)).map(String::len).max();
            // The fallback fits everything, and less well than any match.
            let rank = length.map(|length| length + 1).or((*name == GENERIC).then_some(0));
            if let Some(rank) = rank
                && chosen.as_ref().is_none_or(|(best, _)| rank > *best)
            {
                chosen = Some((rank, board));
            }
        }
        chosen.map(|(_, board)| board).ok_or_else(|| Error::configuration("no board file is built in"))
    }
    /// The names of all boards.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_every_budget_add_up_to_at_most_the_whole() {
        for (name, text) in FILES {
            let board = Board::parse(text).unwrap();
            assert_eq!(&board.name, name);
            assert!(board.budget.parts_kib() <= u64::from(board.budget.ram_mib) * 1024, "{name}");
        }
    }

    #[test]
    fn a_budget_whose_parts_exceed_its_whole_is_refused() {
        let text = FILES[0].1.replace("ram_mib = 128", "ram_mib = 64");
        let error = Board::parse(&text).unwrap_err().to_string();
        assert!(error.contains("add up to"), "{error}");
    }

    #[test]
    fn more_links_or_slots_than_the_program_has_are_refused() {
        let links = FILES[0].1.replace("links = 8", "links = 9");
        assert!(Board::parse(&links).is_err());
        let slots = FILES[0].1.replace("queue_operations = 1024", "queue_operations = 1025");
        assert!(Board::parse(&slots).is_err());
    }

    #[test]
    fn a_board_file_with_an_unknown_key_is_refused_in_one_line() {
        let error = Board::parse("[board]\nname = \"x\"\ncolour = 1\n").unwrap_err().to_string();
        assert!(error.starts_with("board file: ") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_machine_that_no_board_names_is_generic() {
        assert_eq!(Board::for_model(Some("Some Gateway Rev 2")).unwrap().name, GENERIC);
        assert_eq!(Board::for_model(None).unwrap().name, GENERIC);
    }

    #[test]
    fn a_board_is_found_by_name_in_any_case() {
        assert_eq!(Board::named("Generic").unwrap().unwrap().name, GENERIC);
        assert!(Board::named("toaster").unwrap().is_none());
    }
}
