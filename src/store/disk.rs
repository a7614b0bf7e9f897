//! The file system as the store sees it beside SQLite: the few things that it does to files itself, behind a trait.
//!
//! There is one file system, [`FileSystem`]; the trait is there so that the tests can put a disk in its place that loses
//! what was not synced. Whatever the store does to a file goes through here or through SQLite, and nothing else may; the spill
//! file of the offline queue (`spill`) is no part of the database.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A file with so many bytes.
    File(u64),
    /// A folder.
    Folder,
    /// A FIFO, a device or a socket: opening it may wait for ever.
    Other,
}

/// The disk below a store.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The name of the SQLite VFS that opens databases on it; `None` is SQLite's own.
    fn vfs(&self) -> Option<&str> {
        None
    }
    /// What is at a path, nothing being `None`. Opens nothing: a descriptor of the database that is closed beside SQLite
    /// would drop SQLite's locks.
    ///
    /// # Errors
    /// The file system's.
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>>;
    /// The first bytes of a file, at most so many.
    ///
    /// # Errors
    /// The file system's.
    fn read_start(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>>;
    /// Writes a file's own bytes again in place and syncs them, and says how many; `None` where there is no such file.
    ///
    /// # Errors
    /// The file system's.
    fn rewrite(&self, path: &Path) -> io::Result<Option<u64>>;
    /// So many bytes of a file from an offset on, fewer at its end. Of a file that SQLite has not open.
    ///
    /// # Errors
    /// The file system's.
    fn read_at(&self, _path: &Path, _at: u64, _bytes: usize) -> io::Result<Vec<u8>> {
        unsupported()
    }
    /// Makes a folder with those above it.
    ///
    /// # Errors
    /// The file system's.
    fn create_folders(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// The file system's.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Takes the file at `path` as a lock of this process, made where it is missing, until the value is dropped.
    ///
    /// # Errors
    /// `WouldBlock` while another holds it; the message then names the holder, where it is known. The file system's.
    fn lock(&self, path: &Path) -> io::Result<Held>;
    /// Bytes that this user may still take on the file system of a path.
    ///
    /// # Errors
    /// The file system's.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    // What backups and restores need besides; a disk without them has none.

    /// Makes an empty file that its owner alone may read and write, where there is none. A disk without owners has nothing
    /// to do: SQLite makes the file.
    ///
    /// # Errors
    /// The file system's.
    fn create(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    /// Brings the bytes of a file to the disk.
    ///
    /// # Errors
    /// The file system's.
    fn sync(&self, _path: &Path) -> io::Result<()> {
        unsupported()
    }
    /// Brings the bytes of a file to the disk, and has the next reader read them from there.
    ///
    /// # Errors
    /// The file system's.
    fn forget(&self, path: &Path) -> io::Result<()> {
        self.sync(path)
    }
    /// Writes a small file of the owner's own and syncs it.
    ///
    /// # Errors
    /// The file system's.
    fn write(&self, _path: &Path, _bytes: &[u8]) -> io::Result<()> {
        unsupported()
    }
    /// Writes over a few bytes of a file and syncs it.
    ///
    /// # Errors
    /// The file system's.
    fn write_at(&self, _path: &Path, _at: u64, _bytes: &[u8]) -> io::Result<()> {
        unsupported()
    }
    /// Makes of one file another, of the owner's own, and syncs it.
    ///
    /// # Errors
    /// The file system's.
    fn copy(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        unsupported()
    }
    /// Gives a file a second name.
    ///
    /// # Errors
    /// The file system's; not every one can.
    fn link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        unsupported()
    }
    /// Gives a file another name, in place of the file that has it.
    ///
    /// # Errors
    /// The file system's.
    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        unsupported()
    }
    /// Cuts a file off behind so many bytes and syncs it; says no, and does nothing, where it has a second name.
    ///
    /// # Errors
    /// The file system's.
    fn cut_off(&self, _path: &Path, _bytes: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Takes a file's name away.
    ///
    /// # Errors
    /// The file system's.
    fn remove(&self, _path: &Path) -> io::Result<()> {
        unsupported()
    }
    /// The names in a folder; those that are not UTF-8 are none of ours and left out.
    ///
    /// # Errors
    /// The file system's.
    fn names(&self, _folder: &Path) -> io::Result<Vec<String>> {
        unsupported()
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The database, its lock and its backups are nobody else's: documents stand in them in the clear.
const MODE: u32 = 0o600;

fn own(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(true).write(true).mode(MODE).open(path)
}

/// A file to read. A FIFO would be opened when somebody else opens it, if ever.
fn not_waited_for(path: &Path) -> io::Result<File> {
    let found = fs::metadata(path)?;
    if !found.is_file() && !found.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    File::open(path)
}

/// A lock that goes when it is dropped.
#[derive(Debug)]
pub struct Held(#[allow(dead_code, reason = "what it holds is let go by being dropped")] Option<File>);

impl Held {
    /// The lock of a disk that only this process can see.
    pub fn alone() -> Held {
        Held(None)
    }
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileSystem;

impl FileSystem {
    /// To be put in a store's options.
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(FileSystem)
    }
}

impl Disk for FileSystem {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(Some(Entry::Folder)),
            Ok(found) if found.is_file() => Ok(Some(Entry::File(found.len()))),
            Ok(_) => Ok(Some(Entry::Other)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
    fn read_start(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
        let mut start = Vec::with_capacity(bytes);
        not_waited_for(path)?.take(bytes as u64).read_to_end(&mut start)?;
        Ok(start)
    }
    fn rewrite(&self, path: &Path) -> io::Result<Option<u64>> {
        use std::os::unix::fs::FileExt;
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut piece = std::vec![0; 256 * 1024];
        let mut offset = 0;
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            file.write_all_at(&piece[..read], offset)?;
            offset += read as u64;
        }
        file.sync_all()?;
        Ok(Some(offset))
    }
    fn read_at(&self, path: &Path, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut file = not_waited_for(path)?;
        file.seek(io::SeekFrom::Start(at))?;
        let mut piece = Vec::with_capacity(bytes);
        file.take(bytes as u64).read_to_end(&mut piece)?;
        Ok(piece)
    }
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path).and_then(|folder| folder.sync_all())
    }
    fn lock(&self, path: &Path) -> io::Result<Held> {
        let mut file = OpenOptions::new().create(true).read(true).write(true).truncate(false).mode(MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Held(Some(file)))
            }
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is for the message only.
                let _ = file.take(32).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".into(),
                    id => std::format!("process {id}"),
                };
                Err(io::Error::new(io::ErrorKind::WouldBlock, holder))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let free = rustix::fs::statvfs(path)?;
        Ok(free.f_bavail * free.f_frsize)
    }
    fn create(&self, path: &Path) -> io::Result<()> {
        OpenOptions::new().create_new(true).write(true).mode(MODE).open(path).map(drop)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
    fn forget(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        file.sync_all()?;
        Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = own(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    }
    fn write_at(&self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at)?;
        file.sync_all()
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (mut from, mut to) = (File::open(from)?, own(to)?);
        io::copy(&mut from, &mut to)?;
        to.sync_all()
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn cut_off(&self, path: &Path, bytes: u64) -> io::Result<bool> {
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.nlink() > 1 {
            return Ok(false);
        }
        file.set_len(bytes)?;
        file.sync_all()?;
        Ok(true)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}

/// Whether a process holds the lock at `path`; asks without taking it for longer than that.
pub(super) fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}
