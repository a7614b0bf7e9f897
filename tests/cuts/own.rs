//! The bed as the store's own file work sees it: the `Disk` below a path that lies on it. What SQLite does is in `vfs`.

use crate::bed::{Bed, Call, Fault, State};
use crate::media::Inode;
use cbddc::store::{Disk, Entry, Held};
use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

/// Bytes that are copied with one call.
const PIECE: usize = 256 * 1024;

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::other("planned: input/output error"),
        Fault::Full => io::Error::new(io::ErrorKind::StorageFull, "planned: no space left on device"),
        Fault::Dead => io::Error::other("planned: the power is gone"),
    }
}

/// The store's own side, for a path on this bed.
#[derive(Debug)]
pub(crate) struct Own(pub(crate) Arc<Bed>);

impl Own {
    fn name(&self, path: &Path) -> io::Result<String> {
        let prefix = format!("/bed/{}/", self.0.number);
        let path = path.to_str().unwrap_or("");
        // The bed's own folder.
        let path = if path.len() + 1 == prefix.len() { prefix.as_str() } else { path };
        path.strip_prefix(&prefix)
            .map(String::from)
            .ok_or_else(|| io::Error::other(format!("{path} is not on the bed")))
    }
    fn begin(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        self.0.begin(call, |_| {}).map_err(|(fault, _)| error(fault))
    }
    /// A file of that name without a byte in it.
    fn emptied(&self, name: &str) -> io::Result<Inode> {
        let mut state = self.begin(Call::Open)?;
        let inode = state.media.find(name).unwrap_or_else(|| state.media.make(name));
        state.media.set_length(inode, 0);
        Ok(inode)
    }
    fn file(&self, state: &State, name: &str) -> io::Result<Inode> {
        state.media.find(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn write_out(&self, inode: Inode, at: usize, piece: &[u8]) -> io::Result<()> {
        let begun = self.0.begin(Call::Write, |media| media.write(inode, at, piece));
        let written = match begun {
            Ok(mut state) => state.write(inode, at, piece),
            Err((Fault::Dead, _)) => Err(Fault::Dead),
            Err((fault, mut state)) => {
                state.write_short(inode, at, piece);
                Err(fault)
            }
        };
        written.map_err(error)
    }
    fn sync_file(&self, inode: Inode) -> io::Result<()> {
        match self.0.begin(Call::Sync, |_| {}) {
            Ok(mut state) => {
                state.media.sync(inode);
                Ok(())
            }
            Err((Fault::Dead, _)) => Err(error(Fault::Dead)),
            Err((fault, mut state)) => {
                state.fail_sync(inode);
                Err(error(fault))
            }
        }
    }
}

impl Disk for Own {
    fn vfs(&self) -> Option<&str> {
        Some(crate::vfs::NAME)
    }
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let name = self.name(path)?;
        let state = self.begin(Call::Entry)?;
        Ok(match state.media.find(&name) {
            Some(inode) => Some(Entry::File(state.media.bytes(inode).len() as u64)),
            // Folders are there when they are asked for: making them is not what is looked at here.
            None if !name.contains('.') => Some(Entry::Folder),
            None => None,
        })
    }
    fn read_start(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
        let name = self.name(path)?;
        let state = self.begin(Call::Read)?;
        let all = state.media.bytes(self.file(&state, &name)?);
        Ok(all[..all.len().min(bytes)].to_vec())
    }
    fn read_at(&self, path: &Path, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let name = self.name(path)?;
        let state = self.begin(Call::Read)?;
        let all = state.media.bytes(self.file(&state, &name)?);
        let from = (at as usize).min(all.len());
        Ok(all[from..(from + bytes).min(all.len())].to_vec())
    }
    fn rewrite(&self, path: &Path) -> io::Result<Option<u64>> {
        let name = self.name(path)?;
        let state = self.begin(Call::Open)?;
        let Some(inode) = state.media.find(&name) else { return Ok(None) };
        drop(state);
        let bytes = self.begin(Call::Read)?.media.bytes(inode).to_vec();
        for (piece, at) in bytes.chunks(PIECE).zip((0..).step_by(PIECE)) {
            self.write_out(inode, at, piece)?;
        }
        self.sync_file(inode)?;
        Ok(Some(bytes.len() as u64))
    }
    fn create_folders(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let name = self.name(path)?;
        self.begin(Call::SyncFolder)?.media.sync_names(&name);
        Ok(())
    }
    fn lock(&self, _: &Path) -> io::Result<Held> {
        Ok(Held::alone())
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.name(path)?;
        let state = self.begin(Call::Entry)?;
        Ok(state.plan.capacity.map_or(1 << 40, |capacity| capacity.saturating_sub(state.media.used())))
    }
    fn create(&self, path: &Path) -> io::Result<()> {
        let name = self.name(path)?;
        let mut state = self.begin(Call::Open)?;
        if state.media.find(&name).is_none() {
            state.media.make(&name);
        }
        Ok(())
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        let name = self.name(path)?;
        let inode = self.file(&self.0.lock(), &name)?;
        self.sync_file(inode)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let name = self.name(path)?;
        let inode = self.emptied(&name)?;
        self.write_out(inode, 0, bytes)?;
        self.sync_file(inode)
    }
    fn write_at(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let name = self.name(path)?;
        let inode = self.file(&self.0.lock(), &name)?;
        self.write_out(inode, at as usize, bytes)?;
        self.sync_file(inode)
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.name(from)?, self.name(to)?);
        let bytes = {
            let state = self.begin(Call::Read)?;
            state.media.bytes(self.file(&state, &from)?).to_vec()
        };
        let inode = self.emptied(&to)?;
        for (piece, at) in bytes.chunks(PIECE).zip((0..).step_by(PIECE)) {
            self.write_out(inode, at, piece)?;
        }
        self.sync_file(inode)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.name(from)?, self.name(to)?);
        let mut state = self.begin(Call::Rename)?;
        let inode = self.file(&state, &from)?;
        if state.media.find(&to).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.media.link(inode, &to);
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (self.name(from)?, self.name(to)?);
        let mut state = self.begin(Call::Rename)?;
        let inode = self.file(&state, &from)?;
        state.media.move_to(&from, inode, &to);
        Ok(())
    }
    fn cut_off(&self, path: &Path, bytes: u64) -> io::Result<bool> {
        let name = self.name(path)?;
        let inode = self.file(&self.0.lock(), &name)?;
        if self.0.lock().media.links(inode) > 1 {
            return Ok(false);
        }
        self.begin(Call::Truncate)?.media.set_length(inode, bytes as usize);
        self.sync_file(inode)?;
        Ok(true)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = self.name(path)?;
        let mut state = self.begin(Call::Delete)?;
        if state.media.remove(&name) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let name = self.name(folder)?;
        Ok(self.begin(Call::Entry)?.media.list(&name))
    }
}
