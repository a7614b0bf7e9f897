//! The spill file of the offline queue: made at the start with all the room that it may need, so that a full disk does
//! not matter, written at an orderly stop, read at the next start.
//!
//! Knows bytes and files; what operations mean, and when they are spilled, is decided elsewhere. Writes on a thread of its
//! own: a disk that takes its time must not hold the loop.

use super::start::thread;
use super::{failure, open};
use crate::error::Error;
use crate::limits::START_RESERVE_BYTES;
use crate::queue::PendingOperation;
use crate::queue::spill::{self, Found, HEAD_BYTES, Head};
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::vec::Vec;
use std::{format, vec};

/// The file takes at most this part of its file system: a small disk is for documents.
const SHARE_OF_DISK: u64 = 16;
/// Bytes that are gathered before they are written.
const PIECE_BYTES: usize = 256 * 1024;

/// The open file.
#[derive(Debug)]
pub struct Spill {
    file: Arc<File>,
    path: PathBuf,
    /// Bytes of operations that fit.
    room: u64,
    generation: u32,
    /// The thread of the writing before: the next one lets it end first.
    before: Option<JoinHandle<()>>,
}

/// Where the file of a database is.
fn path_beside(database: &Path) -> PathBuf {
    open::beside(database, ".queue")
}

/// Gives the disk back what is kept behind the file, where it has too little left to open the database. For the time
/// before that is opened; [`Spill::open`] takes it again once there is room.
pub fn lend_reserve(database: &Path) {
    let path = path_beside(database);
    let lend = || -> std::io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let disk = rustix::fs::fstatvfs(&file)?;
        if disk.f_bavail * disk.f_frsize >= START_RESERVE_BYTES {
            return Ok(());
        }
        let length = file.metadata()?.len();
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let used = Head::decode(&head).map_or(length, |head| head.bytes.max(HEAD_BYTES as u64));
        let shorter = length.saturating_sub(START_RESERVE_BYTES).max(used.min(length));
        file.set_len(shorter)
    };
    // Mostly there is no such file yet. Without it the database may open all the same; if not, its own error says what is missing.
    let _ = lend();
}

impl Spill {
    /// Opens or makes the file beside a database and gives what is in it. `bytes` is what the queue may hold; less fits
    /// where the disk is small or full, [`Spill::room`] says how much. Blocks.
    ///
    /// # Errors
    /// The file can be neither opened nor made.
    pub fn open(database: &Path, bytes: u64) -> Result<(Spill, Found), Error> {
        let path = path_beside(database);
        let failed = |error| failure::file("opening the spill file of the offline queue", &path, error);
        let file = OpenOptions::new()
            // It holds documents in the clear, as the database does.
            .mode(0o600)
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let (head, found) = read(&file, length).map_err(failed)?;
        let spill =
            Spill { file: Arc::new(file), path: path.clone(), room: 0, generation: found.generation, before: None };
        let disk = rustix::fs::fstatvfs(&spill.file).map_err(|error| failed(error.into()))?;
        let (whole, free) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
        let wanted = bytes.min(whole / SHARE_OF_DISK) + HEAD_BYTES as u64 + START_RESERVE_BYTES;
        // What holds operations is not cut.
        let wanted =
            if found.operations.is_empty() { wanted } else { wanted.max(head.map_or(length, |head| head.bytes)) };
        // Never the last of a disk that is nearly full.
        let longer = wanted.min(length + free / 2);
        if length < wanted {
            // Where even that does not fit, the queue holds what the file has room for already.
            let _ = allocate(&spill.file, length, longer);
        } else if length > wanted {
            spill.file.set_len(wanted).map_err(failed)?;
        }
        let length = spill.file.metadata().map_err(failed)?.len();
        if length > 0 {
            spill.file.sync_all().map_err(failed)?;
            let folder = path.parent().filter(|at| *at != Path::new("")).unwrap_or(Path::new("."));
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        // The reserve may be on loan; operations then have what is there.
        let room = length.min(wanted - START_RESERVE_BYTES).saturating_sub(HEAD_BYTES as u64);
        Ok((Spill { room, ..spill }, found))
    }
    /// Bytes of operations that fit for certain.
    pub fn room(&self) -> u64 {
        self.room
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// Writes these operations in place of what the file holds, and syncs. None: it is empty then. On a thread of its own,
    /// begun at the call; dropping the future does not end it.
    ///
    /// # Errors
    /// The disk's: then the file holds what could be written, and says so when it is read.
    pub fn write(&mut self, operations: Vec<Arc<PendingOperation>>) -> impl Future<Output = Result<(), Error>> + use<> {
        self.generation = self.generation.wrapping_add(1);
        let (file, path, generation) = (Arc::clone(&self.file), self.path.clone(), self.generation);
        let (done, written) = async_channel::bounded(1);
        let before = self.before.take();
        let started = thread("cbddc-spill", move || {
            // One that died has told its own caller.
            let _ = before.map(JoinHandle::join);
            let result = write(&file, generation, &operations);
            let failed = |error| failure::file("writing the spill file of the offline queue", &path, error);
            let _ = done.try_send(result.map_err(failed));
        });
        let started = started.map(|thread| self.before = Some(thread));
        async move {
            started?;
            let died = |_| Err(Error::persistence("the thread that writes the spill file died", None));
            written.recv().await.unwrap_or_else(died)
        }
    }
}

/// Makes the file longer, with room on the disk for every byte.
fn allocate(file: &File, from: u64, to: u64) -> std::io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), from, to - from) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {
            let zeros = vec![0; PIECE_BYTES];
            let mut at = from;
            while at < to {
                let piece = usize::try_from(to - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                file.write_all_at(&zeros[..piece], at)?;
                at += piece as u64;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn read(file: &File, length: u64) -> std::io::Result<(Option<Head>, Found)> {
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(length).unwrap_or(HEAD_BYTES))];
    file.read_exact_at(&mut head, 0)?;
    let decoded = Head::decode(&head);
    let used = decoded.map_or(length, |head| if head.operations == 0 { 0 } else { head.bytes.min(length) });
    if used == 0 {
        let found = Found { generation: decoded.map_or(0, |head| head.generation), ..Found::default() };
        return Ok((decoded, found));
    }
    // As large as the queue at most, and only at a start that has something to bring back.
    let mut bytes = vec![0; usize::try_from(used).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok((decoded, spill::decode(decoded, &bytes)))
}

fn write(file: &File, generation: u32, operations: &[Arc<PendingOperation>]) -> std::io::Result<()> {
    let (mut at, mut piece) = (HEAD_BYTES as u64, Vec::with_capacity(PIECE_BYTES));
    for (index, operation) in operations.iter().enumerate() {
        spill::encode(&mut piece, generation, u32::try_from(index).unwrap_or(u32::MAX), operation);
        if piece.len() >= PIECE_BYTES || index + 1 == operations.len() {
            file.write_all_at(&piece, at)?;
            at += piece.len() as u64;
            piece.clear();
        }
    }
    let head = Head { generation, operations: u32::try_from(operations.len()).unwrap_or(u32::MAX), bytes: at };
    file.write_all_at(&head.encode(), 0)?;
    file.sync_all()
}

/// What was lost, in words for the log.
pub fn said_of_loss(found: &Found) -> Option<String> {
    match (found.lost, found.headless) {
        (0, false) => None,
        (0, true) => Some("its head is damaged, how many there were is not known".into()),
        (lost, _) => Some(format!("{lost} operations in it are damaged and lost")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::block_on;

    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("cbddc-spill-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder");
            Folder(path)
        }
        fn database(&self) -> PathBuf {
            self.0.join("x.db")
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    fn operations(count: usize) -> Vec<Arc<PendingOperation>> {
        let one = |n: usize| Arc::new(PendingOperation::put("c", format!("k{n}"), vec![n as u8; 100 * n]));
        (0..count).map(one).collect()
    }
    fn plain(operations: &[Arc<PendingOperation>]) -> Vec<PendingOperation> {
        operations.iter().map(|operation| (**operation).clone()).collect()
    }

    #[test]
    fn what_is_written_is_read_at_the_next_opening_and_the_file_never_grows() {
        let folder = Folder::new("round");
        let (mut spill, found) = Spill::open(&folder.database(), 1 << 20).expect("a file");
        assert_eq!((found, spill.room()), (Found::default(), 1 << 20));
        let length = || std::fs::metadata(path_beside(&folder.database())).expect("a file").len();
        let made = length();
        block_on(spill.write(operations(50))).expect("written");
        drop(spill);
        let (mut spill, found) = Spill::open(&folder.database(), 1 << 20).expect("a file");
        assert_eq!((found.operations, found.lost), (plain(&operations(50)), 0));
        block_on(spill.write(Vec::new())).expect("written");
        let (_, found) = Spill::open(&folder.database(), 1 << 20).expect("a file");
        assert!(found.operations.is_empty() && found.lost == 0);
        assert_eq!(length(), made);
    }

    #[test]
    fn a_smaller_bound_does_not_cut_what_is_held() {
        let folder = Folder::new("smaller");
        let (mut spill, _) = Spill::open(&folder.database(), 1 << 20).expect("a file");
        block_on(spill.write(operations(50))).expect("written");
        let (_, found) = Spill::open(&folder.database(), 1000).expect("a file");
        assert_eq!(found.operations.len(), 50);
        let (spill, found) = Spill::open(&folder.database(), 1000).expect("a file");
        assert_eq!((found.operations, spill.room() >= 1000), (plain(&operations(50)), true));
    }

    #[test]
    fn a_file_that_was_cut_gives_back_what_is_whole_and_says_the_rest() {
        let folder = Folder::new("cut");
        let (mut spill, _) = Spill::open(&folder.database(), 1 << 20).expect("a file");
        block_on(spill.write(operations(20))).expect("written");
        let whole: usize = HEAD_BYTES + operations(20)[..13].iter().map(|one| spill::encoded_bytes(one)).sum::<usize>();
        spill.file.set_len(whole as u64 + 9).expect("cut");
        let (_, found) = Spill::open(&folder.database(), 1 << 20).expect("a file");
        assert_eq!((&found.operations, found.lost), (&plain(&operations(13)), 7));
        assert!(said_of_loss(&found).is_some_and(|said| said.starts_with("7 ")));
    }
}
