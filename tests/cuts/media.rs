//! Files as a disk holds them: what reads see and what a power cut would leave are two things, until a sync makes them
//! one. Names in folders too. Knows nothing of SQLite.

use std::collections::{BTreeMap, BTreeSet};

/// A file, whatever its name is.
pub(crate) type Inode = usize;

/// How a cut treats what was not synced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Of 100 unsynced pieces, about so many reach the disk.
    pub(crate) kept: u8,
    /// Where writes are torn.
    pub(crate) sector: usize,
    /// What was never written between the end of a file and a piece beyond it: zeros, or what lay on the disk before.
    pub(crate) garbage: bool,
}

impl Cut {
    pub(crate) fn drawn(random: &mut fastrand::Rng) -> Cut {
        let kept = match random.u8(..4) {
            0 => 0,
            1 => 100,
            2 => 50,
            _ => random.u8(1..100),
        };
        Cut { kept, sector: if random.bool() { 512 } else { 4096 }, garbage: random.u8(..4) == 0 }
    }
}

/// The disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Media {
    inodes: Vec<File>,
    /// Names as programs see them.
    names: BTreeMap<String, Inode>,
    /// Names as they are on the disk.
    durable_names: BTreeMap<String, Inode>,
    /// What leads from the one to the other, oldest first.
    unsynced_names: Vec<Renaming>,
}

#[derive(Debug, Clone, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Debug, Clone)]
enum Renaming {
    Made(String, Inode),
    Gone(String),
    Moved(String, String, Inode),
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => put(file, *at, bytes),
            Change::Length(length) => file.resize(*length, 0),
        }
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Renaming::Made(name, inode) => drop(names.insert(name.clone(), *inode)),
            Renaming::Gone(name) => drop(names.remove(name)),
            Renaming::Moved(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
    fn is_in(&self, folder: &str) -> bool {
        let (Renaming::Made(name, _) | Renaming::Gone(name) | Renaming::Moved(_, name, _)) = self;
        self::folder(name) == folder
    }
}

/// The folder of a name.
pub(crate) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Media {
    // ---- names ----

    pub(crate) fn find(&self, name: &str) -> Option<Inode> {
        self.names.get(name).copied()
    }
    /// The names in a folder.
    pub(crate) fn list(&self, folder: &str) -> Vec<String> {
        let inside = self.names.keys().filter(|name| self::folder(name) == folder);
        inside.map(|name| name[folder.len()..].trim_start_matches('/').to_string()).collect()
    }
    pub(crate) fn make(&mut self, name: &str) -> Inode {
        self.inodes.push(File::default());
        let inode = self.inodes.len() - 1;
        self.rename(Renaming::Made(name.into(), inode));
        inode
    }
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let known = self.names.contains_key(name);
        if known {
            self.rename(Renaming::Gone(name.into()));
        }
        known
    }
    /// A second name of the same file.
    pub(crate) fn link(&mut self, inode: Inode, name: &str) {
        self.rename(Renaming::Made(name.into(), inode));
    }
    /// Within one folder.
    pub(crate) fn move_to(&mut self, from: &str, inode: Inode, to: &str) {
        self.rename(Renaming::Moved(from.into(), to.into(), inode));
    }
    fn rename(&mut self, renaming: Renaming) {
        renaming.apply(&mut self.names);
        self.unsynced_names.push(renaming);
    }
    /// The names in a folder reach the disk.
    pub(crate) fn sync_names(&mut self, folder: &str) {
        let (synced, rest) = std::mem::take(&mut self.unsynced_names).into_iter().partition(|one| one.is_in(folder));
        self.unsynced_names = rest;
        let synced: Vec<Renaming> = synced;
        synced.iter().for_each(|one| one.apply(&mut self.durable_names));
    }

    // ---- bytes ----

    pub(crate) fn bytes(&self, inode: Inode) -> &[u8] {
        &self.inodes[inode].now
    }
    /// How many names a file has.
    pub(crate) fn links(&self, inode: Inode) -> usize {
        self.names.values().filter(|named| **named == inode).count()
    }
    /// Bytes of all files that have a name.
    pub(crate) fn used(&self) -> u64 {
        let files: BTreeSet<&Inode> = self.names.values().collect();
        files.into_iter().map(|inode| self.inodes[*inode].now.len() as u64).sum()
    }
    pub(crate) fn write(&mut self, inode: Inode, at: usize, bytes: &[u8]) {
        self.change(inode, Change::Write { at, bytes: bytes.into() });
    }
    /// Bytes of the medium itself go bad.
    pub(crate) fn spoil(&mut self, name: &str, at: usize, bytes: &[u8]) {
        let file = &mut self.inodes[self.names[name]];
        put(&mut file.now, at, bytes);
        put(&mut file.durable, at, bytes);
    }
    pub(crate) fn set_length(&mut self, inode: Inode, length: usize) {
        self.change(inode, Change::Length(length));
    }
    fn change(&mut self, inode: Inode, change: Change) {
        let file = &mut self.inodes[inode];
        change.apply(&mut file.now);
        file.unsynced.push(change);
    }
    /// What is not synced yet reaches the disk. What an earlier sync has lost does not.
    pub(crate) fn sync(&mut self, inode: Inode) {
        let file = &mut self.inodes[inode];
        for change in std::mem::take(&mut file.unsynced) {
            change.apply(&mut file.durable);
        }
    }
    /// A sync that fails as Linux does it: of what was not synced, some reached the disk; the rest is called clean, so
    /// reads see it, later syncs do not write it, and a cut forgets it.
    pub(crate) fn fail_sync(&mut self, inode: Inode, random: &mut fastrand::Rng) {
        let cut = Cut { garbage: false, ..Cut::drawn(random) };
        self.inodes[inode].lose_unsynced(cut, random);
    }
    /// What is there after the power came back.
    pub(crate) fn after_cut(&self, cut: Cut, random: &mut fastrand::Rng) -> Media {
        let mut names = self.durable_names.clone();
        for one in &self.unsynced_names {
            if random.u8(..100) < cut.kept {
                one.apply(&mut names);
            }
        }
        let mut after = Media::default();
        let mut known = BTreeMap::new();
        for (name, inode) in names {
            let inode = *known.entry(inode).or_insert_with(|| {
                let mut file = self.inodes[inode].clone();
                file.lose_unsynced(cut, random);
                file.now.clone_from(&file.durable);
                after.inodes.push(file);
                after.inodes.len() - 1
            });
            after.names.insert(name, inode);
        }
        after.durable_names.clone_from(&after.names);
        after
    }
}

impl File {
    /// Some pieces of what is not synced reach the disk, the others are forgotten.
    fn lose_unsynced(&mut self, cut: Cut, random: &mut fastrand::Rng) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Length(_) => {
                    if random.u8(..100) < cut.kept {
                        change.apply(&mut self.durable);
                    }
                }
                Change::Write { mut at, bytes } => {
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let length = (cut.sector - at % cut.sector).min(rest.len());
                        let (piece, behind) = rest.split_at(length);
                        if random.u8(..100) < cut.kept {
                            let gap = self.durable.len()..at.max(self.durable.len());
                            put(&mut self.durable, at, piece);
                            if cut.garbage {
                                self.durable[gap].iter_mut().for_each(|byte| *byte = random.u8(..));
                            }
                        }
                        at += length;
                        rest = behind;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Cut = Cut { kept: 0, sector: 512, garbage: false };
    const ALL: Cut = Cut { kept: 100, sector: 512, garbage: false };

    fn after(media: &Media, cut: Cut, name: &str) -> Option<Vec<u8>> {
        let after = media.after_cut(cut, &mut fastrand::Rng::with_seed(1));
        after.find(name).map(|inode| after.bytes(inode).to_vec())
    }

    #[test]
    fn only_what_was_synced_survives_and_a_name_needs_its_folder() {
        let mut media = Media::default();
        let file = media.make("data/a");
        media.write(file, 0, b"one");
        media.sync(file);
        assert_eq!(after(&media, NONE, "data/a"), None, "the folder was not synced");
        media.sync_names("data");
        media.write(file, 3, b"two");
        assert_eq!(media.bytes(file), b"onetwo");
        assert_eq!(after(&media, NONE, "data/a").unwrap(), b"one");
        assert_eq!(after(&media, ALL, "data/a").unwrap(), b"onetwo");
        media.sync(file);
        assert_eq!(after(&media, NONE, "data/a").unwrap(), b"onetwo");
        media.remove("data/a");
        assert_eq!(media.find("data/a"), None);
        assert_eq!(after(&media, NONE, "data/a").unwrap(), b"onetwo", "it comes back");
        assert_eq!(after(&media, ALL, "data/a"), None);
    }

    #[test]
    fn what_a_failed_sync_has_lost_no_later_sync_brings_back_but_a_second_write_does() {
        let mut media = Media::default();
        let file = media.make("a");
        media.sync_names("");
        media.write(file, 0, b"lost");
        let mut random = fastrand::Rng::with_seed(0);
        while !matches!(after(&media, NONE, "a").as_deref(), Some(b"")) || !media.inodes[file].unsynced.is_empty() {
            media.inodes[file].lose_unsynced(NONE, &mut random);
        }
        media.sync(file);
        assert_eq!(media.bytes(file), b"lost", "reads see it");
        assert_eq!(after(&media, ALL, "a").unwrap(), b"");
        media.write(file, 0, b"lost");
        media.sync(file);
        assert_eq!(after(&media, NONE, "a").unwrap(), b"lost");
    }

    #[test]
    fn writes_are_torn_at_sectors_and_nowhere_else() {
        let mut media = Media::default();
        let file = media.make("a");
        media.sync_names("");
        media.write(file, 0, &[1; 4096]);
        media.sync(file);
        media.write(file, 100, &[2; 3000]);
        let half = Cut { kept: 50, sector: 512, garbage: false };
        let mut torn = 0;
        for seed in 0..20 {
            let after = media.after_cut(half, &mut fastrand::Rng::with_seed(seed));
            let bytes = after.bytes(after.find("a").unwrap()).to_vec();
            for (at, byte) in bytes.iter().enumerate() {
                let whole = bytes[at / 512 * 512 + if at < 512 { 100 } else { 0 }];
                assert!(!(100..3072).contains(&at) || *byte == whole, "a sector is one thing");
                assert!((100..3100).contains(&at) || *byte == 1, "what was not written does not change");
            }
            torn += usize::from(bytes[100..3072].contains(&1) && bytes.contains(&2));
        }
        assert!(torn > 10, "{torn}");
    }
}
