//! Locks of files and of the write-ahead log's index, as SQLite's own file layer keeps them; of one process.

use std::collections::BTreeMap;

/// Whoever has a file open.
pub(crate) type Handle = u64;

/// SQLite's five states of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    None,
    Shared,
    Reserved,
    Pending,
    Exclusive,
}

/// Who holds what of one file.
#[derive(Debug, Default)]
pub(crate) struct Locks(BTreeMap<Handle, Level>);

impl Locks {
    fn others(&self, me: Handle) -> Level {
        self.0.iter().filter(|(handle, _)| **handle != me).map(|(_, level)| *level).max().unwrap_or(Level::None)
    }
    pub(crate) fn level(&self, me: Handle) -> Level {
        self.0.get(&me).copied().unwrap_or(Level::None)
    }
    /// Says whether it was given.
    pub(crate) fn take(&mut self, me: Handle, wanted: Level) -> bool {
        let (mine, others) = (self.level(me), self.others(me));
        if mine >= wanted {
            return true;
        }
        let (given, level) = match wanted {
            Level::None => (true, mine),
            Level::Shared => (others < Level::Pending, Level::Shared),
            Level::Reserved | Level::Pending => (others < Level::Reserved, wanted),
            // The readers that are there may finish, no new one comes.
            Level::Exclusive if others >= Level::Reserved => (false, mine),
            Level::Exclusive if others == Level::Shared => (false, Level::Pending),
            Level::Exclusive => (true, Level::Exclusive),
        };
        if level > mine && (given || level == Level::Pending) {
            self.0.insert(me, level);
        }
        given
    }
    pub(crate) fn give_back(&mut self, me: Handle, to: Level) {
        match to {
            Level::None => drop(self.0.remove(&me)),
            _ if self.level(me) > to => drop(self.0.insert(me, to)),
            _ => {}
        }
    }
    pub(crate) fn is_reserved(&self) -> bool {
        self.0.values().any(|level| *level >= Level::Reserved)
    }
}

/// Slots of the index's lock.
pub(crate) const SLOTS: usize = 8;

/// The index of a write-ahead log: memory that the connections of a process share, and its locks.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Each region is given to SQLite by its address and never moves.
    pub(crate) regions: Vec<Box<[u64]>>,
    pub(crate) users: usize,
    slots: [(usize, Option<Handle>); SLOTS],
}

impl Shared {
    /// Shares slots, or takes them alone. Says whether they were given: all or none.
    pub(crate) fn take(&mut self, me: Handle, slots: std::ops::Range<usize>, alone: bool) -> bool {
        let slots = &mut self.slots[slots];
        let free = |(shared, owner): &(usize, Option<Handle>)| owner.is_none() && (!alone || *shared == 0);
        if !slots.iter().all(free) {
            return false;
        }
        for (shared, owner) in slots {
            match alone {
                true => *owner = Some(me),
                false => *shared += 1,
            }
        }
        true
    }
    pub(crate) fn give_back(&mut self, me: Handle, slots: std::ops::Range<usize>, alone: bool) {
        for (shared, owner) in &mut self.slots[slots] {
            match alone {
                true if *owner == Some(me) => *owner = None,
                false => *shared = shared.saturating_sub(1),
                true => {}
            }
        }
    }
}
