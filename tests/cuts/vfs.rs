//! The bed as SQLite sees it: a VFS whose files lie on a [`Bed`]. It does what SQLite's own file layer for Unix does, and
//! where that one asks the kernel, it asks the bed.
//!
//! The one module of the project with `unsafe`: SQLite calls it through C.
#![allow(unsafe_code, reason = "SQLite's file layer is a table of C functions; tests alone have one")]

use crate::bed::{Bed, Call, Fault, State, folder};
use crate::locks::{Handle, Level, SLOTS};
use crate::media::Inode;
use rusqlite::ffi::{self, sqlite3_file, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, MutexGuard, Once};

/// The name that connections open it by.
pub(crate) const NAME: &str = "cbddc-bed";

/// Makes the VFS known to SQLite, once for the process.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let vfs = Box::leak(Box::new(sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<BedFile>() as c_int,
            mxPathname: 512,
            pNext: null_mut(),
            zName: c"cbddc-bed".as_ptr(),
            pAppData: null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: Some(last_error),
            xCurrentTimeInt64: Some(current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the table lives for ever and every function in it has the signature that SQLite expects.
        let done = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(done, ffi::SQLITE_OK);
    });
}

/// What SQLite allocates for each open file: its table of functions, then ours.
#[repr(C)]
struct BedFile {
    base: sqlite3_file,
    opened: *mut Opened,
}

/// An open file.
struct Opened {
    bed: Arc<Bed>,
    name: String,
    inode: Inode,
    handle: Handle,
    delete_on_close: bool,
    /// The first sync of a log or journal that may be new makes its name durable too.
    sync_folder: bool,
    /// It uses the index of the log.
    shares: bool,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

impl Opened {
    /// The open file behind SQLite's pointer.
    ///
    /// # Safety
    /// `file` was opened by [`open`] and not closed yet; SQLite uses a file from one thread at a time.
    unsafe fn of<'a>(file: *mut sqlite3_file) -> &'a mut Opened {
        // SAFETY: as the caller says; `opened` came from `Box::into_raw`.
        unsafe { &mut *(*file.cast::<BedFile>()).opened }
    }
    fn begin(&self, call: Call) -> Result<MutexGuard<'_, State>, (Fault, MutexGuard<'_, State>)> {
        self.bed.begin(call, |_| {})
    }
}

/// SQLite's code for a planned fault.
fn code(fault: Fault, io: c_int) -> c_int {
    match fault {
        Fault::Io | Fault::Dead => io,
        Fault::Full => ffi::SQLITE_FULL,
    }
}

fn level(level: c_int) -> Level {
    [Level::None, Level::Shared, Level::Reserved, Level::Pending, Level::Exclusive][level.clamp(0, 4) as usize]
}

/// The text of a name.
///
/// # Safety
/// `name` ends with a zero and outlives the answer.
unsafe fn text<'a>(name: *const c_char) -> Option<&'a str> {
    // SAFETY: as the caller says.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) }.to_str().ok()).flatten()
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory of `szOsFile` bytes; without methods it calls nothing on it.
    unsafe { (*file).pMethods = std::ptr::null() };
    // SAFETY: SQLite's names end with a zero. Temporary files have none: the store keeps those in memory.
    let Some((bed, name)) = unsafe { text(name) }.and_then(Bed::of) else { return ffi::SQLITE_CANTOPEN };
    let mut state = match bed.begin(Call::Open, |_| {}) {
        Ok(state) => state,
        Err((fault, _)) => return code(fault, ffi::SQLITE_CANTOPEN),
    };
    let has = |flag: c_int| flags & flag != 0;
    let inode = match state.media.find(&name) {
        Some(_) if has(ffi::SQLITE_OPEN_EXCLUSIVE) && has(ffi::SQLITE_OPEN_CREATE) => return ffi::SQLITE_CANTOPEN,
        Some(inode) => inode,
        None if has(ffi::SQLITE_OPEN_CREATE) => state.media.make(&name),
        None => return ffi::SQLITE_CANTOPEN,
    };
    state.next_handle += 1;
    let handle = state.next_handle;
    drop(state);
    let log = has(ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL);
    let opened = Opened {
        bed,
        name,
        inode,
        handle,
        delete_on_close: has(ffi::SQLITE_OPEN_DELETEONCLOSE),
        sync_folder: log && has(ffi::SQLITE_OPEN_CREATE),
        shares: false,
    };
    // SAFETY: `file` is ours to fill; `out_flags` is null or writable.
    unsafe {
        (*file.cast::<BedFile>()).opened = Box::into_raw(Box::new(opened));
        (*file).pMethods = &METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once; it was opened by `open`.
    let opened = unsafe { Box::from_raw((*file.cast::<BedFile>()).opened) };
    let mut state = opened.bed.lock();
    if let Some(locks) = state.locks.get_mut(&opened.inode) {
        locks.give_back(opened.handle, Level::None);
    }
    if opened.delete_on_close && state.after.is_none() {
        state.media.remove(&opened.name);
    }
    // SAFETY: the memory is SQLite's; after this it calls nothing on it.
    unsafe { (*file).pMethods = std::ptr::null() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut sqlite3_file, out: *mut c_void, bytes: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: an open file; `out` has room for `bytes`.
    let (opened, out) = unsafe { (Opened::of(file), std::slice::from_raw_parts_mut(out.cast::<u8>(), bytes as usize)) };
    let state = match opened.begin(Call::Read) {
        Ok(state) => state,
        Err((fault, _)) => return code(fault, ffi::SQLITE_IOERR_READ),
    };
    let all = state.media.bytes(opened.inode);
    let there = &all[(at as usize).min(all.len())..];
    let read = there.len().min(out.len());
    out[..read].copy_from_slice(&there[..read]);
    out[read..].fill(0);
    if read == out.len() { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, bytes: c_int, at: sqlite3_int64) -> c_int {
    // SAFETY: an open file; `from` holds `bytes`.
    let (opened, from) = unsafe { (Opened::of(file), std::slice::from_raw_parts(from.cast::<u8>(), bytes as usize)) };
    let (inode, at) = (opened.inode, at as usize);
    match opened.bed.begin(Call::Write, |media| media.write(inode, at, from)) {
        Ok(mut state) => match state.write(inode, at, from) {
            Ok(()) => ffi::SQLITE_OK,
            Err(fault) => code(fault, ffi::SQLITE_IOERR_WRITE),
        },
        Err((Fault::Dead, _)) => ffi::SQLITE_IOERR_WRITE,
        Err((fault, mut state)) => {
            state.write_short(inode, at, from);
            code(fault, ffi::SQLITE_IOERR_WRITE)
        }
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, bytes: sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    let (inode, bytes) = (opened.inode, bytes as usize);
    match opened.bed.begin(Call::Truncate, |media| media.set_length(inode, bytes)) {
        Ok(mut state) => {
            state.media.set_length(inode, bytes);
            ffi::SQLITE_OK
        }
        // A file can always be made shorter, full disk or not.
        Err((_, _)) => ffi::SQLITE_IOERR_TRUNCATE,
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    match opened.begin(Call::Sync) {
        Ok(mut state) => state.media.sync(opened.inode),
        Err((Fault::Dead, _)) => return ffi::SQLITE_IOERR_FSYNC,
        // The kernel may find at the sync alone that there was no room: one code for both.
        Err((_, mut state)) => {
            state.fail_sync(opened.inode);
            return ffi::SQLITE_IOERR_FSYNC;
        }
    }
    if std::mem::take(&mut opened.sync_folder) {
        // SQLite's own layer does not look at what becomes of it.
        if let Ok(mut state) = opened.begin(Call::SyncFolder) {
            state.media.sync_names(folder(&opened.name));
        }
    }
    if opened.bed.is_dead() { ffi::SQLITE_IOERR_FSYNC } else { ffi::SQLITE_OK }
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, out: *mut sqlite3_int64) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    let state = match opened.begin(Call::Size) {
        Ok(state) => state,
        Err((_, _)) => return ffi::SQLITE_IOERR_FSTAT,
    };
    // SAFETY: SQLite gives room for the answer.
    unsafe { *out = state.media.bytes(opened.inode).len() as sqlite3_int64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, wanted: c_int) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    let mut state = match opened.begin(Call::Lock) {
        Ok(state) => state,
        Err((_, _)) => return ffi::SQLITE_IOERR_LOCK,
    };
    let given = state.locks.entry(opened.inode).or_default().take(opened.handle, level(wanted));
    if given { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, to: c_int) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    if let Some(locks) = opened.bed.lock().locks.get_mut(&opened.inode) {
        locks.give_back(opened.handle, level(to));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    let state = match opened.begin(Call::Lock) {
        Ok(state) => state,
        Err((_, _)) => return ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
    };
    let reserved = state.locks.get(&opened.inode).is_some_and(|locks| locks.is_reserved());
    // SAFETY: SQLite gives room for the answer.
    unsafe { *out = c_int::from(reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut sqlite3_file, asked: c_int, out: *mut c_void) -> c_int {
    if asked != ffi::SQLITE_FCNTL_MMAP_SIZE {
        return ffi::SQLITE_NOTFOUND;
    }
    // SAFETY: of this question SQLite says that `out` is a number to be read and written. Nothing is ever mapped.
    unsafe { *out.cast::<sqlite3_int64>() = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn sector_size(_: *mut sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_: *mut sqlite3_file) -> c_int {
    // As on Unix: a cut tears what is written, never the bytes beside it.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

// ---- the index of the write-ahead log ----

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    let mut state = match opened.bed.begin(Call::Shm, |_| {}) {
        Ok(state) => state,
        Err((fault, _)) => return code(fault, ffi::SQLITE_IOERR_SHMMAP),
    };
    let shared = state.shared.entry(opened.inode).or_default();
    if !opened.shares {
        opened.shares = true;
        shared.users += 1;
    }
    let region = region as usize;
    while extend != 0 && shared.regions.len() <= region {
        shared.regions.push(vec![0; bytes as usize / 8].into_boxed_slice());
    }
    let address = shared.regions.get_mut(region).map_or(null_mut(), |region| region.as_mut_ptr());
    // SAFETY: SQLite gives room for the address. The region stays where it is until its last user has unmapped it.
    unsafe { *out = address.cast() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, first: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    let slots = first as usize..((first + count) as usize).min(SLOTS);
    let alone = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        if let Some(shared) = opened.bed.lock().shared.get_mut(&opened.inode) {
            shared.give_back(opened.handle, slots, alone);
        }
        return ffi::SQLITE_OK;
    }
    let mut state = match opened.bed.begin(Call::Shm, |_| {}) {
        Ok(state) => state,
        Err((_, _)) => return ffi::SQLITE_IOERR_SHMLOCK,
    };
    let given = state.shared.entry(opened.inode).or_default().take(opened.handle, slots, alone);
    if given { ffi::SQLITE_OK } else { ffi::SQLITE_BUSY }
}

unsafe extern "C" fn shm_barrier(_: *mut sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, _: c_int) -> c_int {
    // SAFETY: an open file.
    let opened = unsafe { Opened::of(file) };
    let mut state = opened.bed.lock();
    if std::mem::take(&mut opened.shares)
        && let Some(shared) = state.shared.get_mut(&opened.inode)
    {
        shared.users -= 1;
        if shared.users == 0 {
            state.shared.remove(&opened.inode);
        }
    }
    ffi::SQLITE_OK
}

// ---- names, and what is not a file ----

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, name: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: SQLite's names end with a zero.
    let Some((bed, name)) = unsafe { text(name) }.and_then(Bed::of) else { return ffi::SQLITE_IOERR_DELETE };
    match bed.begin(Call::Delete, |media| {
        media.remove(&name);
    }) {
        Ok(mut state) => {
            if !state.media.remove(&name) {
                return ffi::SQLITE_IOERR_DELETE_NOENT;
            }
        }
        Err((_, _)) => return ffi::SQLITE_IOERR_DELETE,
    }
    if sync_folder != 0 {
        match bed.begin(Call::SyncFolder, |_| {}) {
            Ok(mut state) => state.media.sync_names(folder(&name)),
            Err((_, _)) => return ffi::SQLITE_IOERR_DIR_FSYNC,
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn access(_: *mut sqlite3_vfs, name: *const c_char, _: c_int, out: *mut c_int) -> c_int {
    // SAFETY: SQLite's names end with a zero.
    let Some((bed, name)) = unsafe { text(name) }.and_then(Bed::of) else { return ffi::SQLITE_IOERR_ACCESS };
    let state = match bed.begin(Call::Access, |_| {}) {
        Ok(state) => state,
        Err((_, _)) => return ffi::SQLITE_IOERR_ACCESS,
    };
    // As on Unix, an empty log or journal is as good as none.
    let there = state.media.find(&name).is_some_and(|inode| !state.media.bytes(inode).is_empty());
    // SAFETY: SQLite gives room for the answer.
    unsafe { *out = c_int::from(there) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(_: *mut sqlite3_vfs, name: *const c_char, room: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite's names end with a zero.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if bytes.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has `room` bytes, which was just compared.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut sqlite3_vfs, bytes: c_int, out: *mut c_char) -> c_int {
    // SAFETY: `out` has room for `bytes`.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), bytes as usize) };
    let mut random = fastrand::Rng::with_seed(1);
    out.iter_mut().for_each(|byte| *byte = random.u8(..));
    bytes
}

unsafe extern "C" fn sleep(_: *mut sqlite3_vfs, microseconds: c_int) -> c_int {
    std::thread::sleep(std::time::Duration::from_micros(microseconds.max(0) as u64));
    microseconds
}

unsafe extern "C" fn current_time(_: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite gives room for the answer.
    unsafe { *out = 2_460_000.5 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_int64(_: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    // SAFETY: SQLite gives room for the answer.
    unsafe { *out = 2_460_000 * 86_400_000 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(_: *mut sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}
