//! Boards: what a kind of machine can spare, as data that is built into the binary.
//!
//! Reads no file and asks no hardware: the caller passes in a name, or what it knows of its machine. The meaning of the
//! configuration keys that a board sets is checked by `config`, like those of a file.

use crate::Error;
use crate::limits::{LINKS_MAX, QUEUE_SLOTS};
use serde::Deserialize;
use std::cmp::Reverse;
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
    /// The QEMU machine that is nearest to it.
    pub qemu_machine: Option<String>,
    /// The CPU that QEMU emulates for it.
    pub qemu_cpu: Option<String>,
    /// Beginnings of the device-tree model that choose it.
    pub models: Vec<String>,
    /// Memory in MiB of a machine that no model names and that is this board, at most.
    pub memory_mib: Option<u32>,
    /// How it is tested.
    pub tier: Tier,
    /// How memory is shared out.
    pub budget: Budget,
    /// Configuration keys (`Section.Key`) that it sets below the file.
    pub(crate) defaults: BTreeMap<String, toml::Value>,
}

/// How a board is tested on each change, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Booted whole under QEMU: kernel, file system, network, power cuts.
    System,
    /// The machine that builds: the whole test suite.
    Native,
    /// Its binary on its emulated CPU, on the kernel of the machine that builds.
    User,
    /// Built, and not run.
    Built,
}

/// What is known of a machine that is to be some board.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine<'a> {
    /// The device-tree model, where the kernel was given a device tree.
    pub model: Option<&'a str>,
    /// Its memory in MiB, where that is known.
    pub memory_mib: Option<u64>,
    /// What the program was built for, as [`std::env::consts::ARCH`] says it. Empty: not known, so every board serves.
    pub architecture: &'a str,
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
const FILES: &[(&str, &str)] = &[
    (GENERIC, include_str!("../boards/generic.toml")),
    ("gateway-arm64-512", include_str!("../boards/gateway-arm64-512.toml")),
    ("gateway-armv7-128", include_str!("../boards/gateway-armv7-128.toml")),
    ("generic-small", include_str!("../boards/generic-small.toml")),
    ("pi-3b", include_str!("../boards/pi-3b.toml")),
    ("pi-4b", include_str!("../boards/pi-4b.toml")),
    ("pi-5", include_str!("../boards/pi-5.toml")),
    ("pi-zero-2-w", include_str!("../boards/pi-zero-2-w.toml")),
    ("pi-zero-w", include_str!("../boards/pi-zero-w.toml")),
    ("qemu-virt-arm64", include_str!("../boards/qemu-virt-arm64.toml")),
    ("qemu-virt-armv7", include_str!("../boards/qemu-virt-armv7.toml")),
];

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
    #[serde(default)]
    qemu_cpu: Option<String>,
    #[serde(default, rename = "match")]
    models: Vec<String>,
    #[serde(default)]
    memory_mib: Option<u32>,
    tier: Tier,
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
            qemu_cpu: board.qemu_cpu,
            models: board.models,
            memory_mib: board.memory_mib,
            tier: board.tier,
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
    /// The board of this machine: the one whose `match` fits its model best, else the smallest one that it has not more
    /// memory than, else `generic`.
    ///
    /// # Errors
    /// As [`Board::parse`]; does not happen with the files that are built in.
    pub fn for_machine(machine: &Machine) -> Result<Board, Error> {
        let mut chosen: Option<(Fit, Board)> = None;
        for (name, text) in FILES {
            let board = Board::parse(text)?;
            let fit = match *name {
                GENERIC => Some(Fit::Fallback),
                _ => board.fit(machine),
            };
            if let Some(fit) = fit
                && chosen.as_ref().is_none_or(|(best, _)| fit > *best)
            {
                chosen = Some((fit, board));
            }
        }
        chosen.map(|(_, board)| board).ok_or_else(|| Error::configuration("no board file is built in"))
    }
    fn fit(&self, machine: &Machine) -> Option<Fit> {
        // A 32-bit and a 64-bit machine may bear the same model, and a 32-bit system may run on a 64-bit board.
        let serves = |target: &String| target.starts_with(machine.architecture);
        if !self.targets.is_empty() && !self.targets.iter().any(serves) {
            return None;
        }
        let start =
            |model: &str| self.models.iter().filter(|start| model.starts_with(start.as_str())).map(String::len).max();
        if let Some(length) = machine.model.and_then(start) {
            return Some(Fit::Model(length));
        }
        let (most, has) = (self.memory_mib?, machine.memory_mib?);
        (has <= u64::from(most)).then_some(Fit::Memory(Reverse(most)))
    }
    /// The names of all boards.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, _)| *name)
    }
}

/// How well a board fits a machine, worst first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Fallback,
    /// The board with less memory wins.
    Memory(Reverse<u32>),
    /// The longer beginning wins.
    Model(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

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

    fn chosen(model: &str, memory_mib: u64, architecture: &str) -> String {
        let model = Some(model).filter(|model| !model.is_empty());
        Board::for_machine(&Machine { model, memory_mib: Some(memory_mib), architecture }).unwrap().name
    }

    #[test]
    fn a_machine_that_no_board_names_is_generic() {
        assert_eq!(chosen("Some Gateway Rev 2", 2048, "aarch64"), GENERIC);
        assert_eq!(chosen("", 256, "x86_64"), GENERIC);
        assert_eq!(Board::for_machine(&Machine::default()).unwrap().name, GENERIC);
    }

    #[test]
    fn the_model_chooses_the_board_whatever_its_memory() {
        assert_eq!(chosen("Raspberry Pi Zero W Rev 1.1", 426, "arm"), "pi-zero-w");
        assert_eq!(chosen("Raspberry Pi Zero 2 W Rev 1.0", 416, "aarch64"), "pi-zero-2-w");
        assert_eq!(chosen("Raspberry Pi 3 Model B Plus Rev 1.3", 905, "arm"), "pi-3b");
        assert_eq!(chosen("Raspberry Pi 400 Rev 1.0", 3794, "aarch64"), "pi-4b");
        assert_eq!(chosen("Raspberry Pi 5 Model B Rev 1.0", 8062, "aarch64"), "pi-5");
    }

    #[test]
    fn a_model_that_two_boards_bear_is_the_one_that_the_program_was_built_for() {
        assert_eq!(chosen("linux,dummy-virt", 256, "aarch64"), "qemu-virt-arm64");
        assert_eq!(chosen("linux,dummy-virt", 256, "arm"), "qemu-virt-armv7");
    }

    #[test]
    fn a_small_machine_that_no_model_names_is_a_small_board() {
        assert_eq!(chosen("Some Gateway Rev 2", 118, "arm"), "gateway-armv7-128");
        assert_eq!(chosen("Some Gateway Rev 2", 129, "arm"), "generic-small");
        assert_eq!(chosen("", 118, "aarch64"), "generic-small");
        assert_eq!(chosen("", 240, "x86_64"), "generic-small");
        assert_eq!(chosen("", 487, "aarch64"), "gateway-arm64-512");
    }

    #[test]
    fn small_boards_keep_a_small_cache_and_two_weekly_backups() {
        for (name, text) in FILES {
            let board = Board::parse(text).unwrap();
            let default = |key: &str| board.defaults.get(key).and_then(toml::Value::as_integer);
            if board.budget.ram_mib <= 32 {
                assert!((2..=4).contains(&board.budget.cache_mib), "{name}: a cache of 2 to 4 MiB");
            }
            if board.budget.ram_mib <= 64 {
                assert!(default("Persistence.BackupIntervalMinutes") >= Some(7 * 1440), "{name}: weekly at most");
                assert_eq!(default("Persistence.BackupKeep"), Some(2), "{name}");
            }
        }
    }

    #[test]
    fn every_board_file_is_built_in_and_stands_in_the_table() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("boards");
        let mut files: Vec<String> = fs::read_dir(&folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".toml").map(String::from))
            .collect();
        files.sort();
        let mut names: Vec<&str> = Board::names().collect();
        names.sort();
        assert_eq!(files, names, "left the files of boards/, right the list in src/board.rs");

        let mut rows: Vec<String> = Vec::new();
        for name in names {
            let board = Board::named(name).unwrap().unwrap();
            let tier = format!("{:?}", board.tier).to_lowercase();
            let first = board.targets.first().map_or("all", String::as_str);
            let machine = board.qemu_machine.as_deref().unwrap_or("-");
            let (cpu, ram) = (board.qemu_cpu.as_deref().unwrap_or("-"), board.budget.ram_mib);
            rows.push(format!("| {tier} | `{name}` | {} | `{first}` | {machine} | {cpu} | {ram} |", board.description));
        }
        rows.sort_by_key(|row| {
            ["| system", "| native", "| user", "| built"].iter().position(|tier| row.starts_with(tier))
        });
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(readme.contains(&rows.join("\n")), "boards/README.md must hold these rows:\n{}", rows.join("\n"));
    }

    #[test]
    fn a_board_is_found_by_name_in_any_case() {
        assert_eq!(Board::named("Generic").unwrap().unwrap().name, GENERIC);
        assert!(Board::named("toaster").unwrap().is_none());
    }
}
