//! Key files: the cluster key and this device's private key, one line of 64 hexadecimal digits, mode 0600; and the
//! token of the API.
//!
//! Knows nothing of what keys are used for. Never prints a key, not even in an error.

mod token;

pub(crate) use token::load_token;

use crate::Error;
use crate::error::PersistenceKind;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::format;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};

/// Bytes of either key.
pub(crate) const KEY_BYTES: usize = 32;
/// A key as bytes.
pub(crate) type KeyBytes = [u8; KEY_BYTES];

/// What a key file is, so that an error can name the setting that leads to it.
const CLUSTER: &str = "CBDDC.Cluster.KeyFile";
const DEVICE: &str = "device key";

/// The cluster key that is in the file.
///
/// # Errors
/// [`Error::Configuration`] where the file is missing, readable by everybody, or not a key.
pub(crate) fn load_cluster_key(path: &Path) -> Result<KeyBytes, Error> {
    let missing =
        || wrong(CLUSTER, path, "does not exist; make one with 'cbddc key new', or copy it from another device");
    load(CLUSTER, path)?.ok_or_else(missing)
}

/// The cluster key that is in the file, or a new random one that is now in it.
///
/// # Errors
/// As [`load_cluster_key`]; also where the file cannot be created. A file that exists is never replaced.
pub(crate) fn load_or_create_cluster_key(path: &Path) -> Result<KeyBytes, Error> {
    load_or_create(CLUSTER, path, random_key)
}

/// The cluster key that is in the file, or the one that is given, which is then in it.
///
/// # Errors
/// As [`load_or_create_cluster_key`].
pub(crate) fn load_or_adopt_cluster_key(path: &Path, given: &KeyBytes) -> Result<KeyBytes, Error> {
    load_or_create(CLUSTER, path, || Ok(*given))
}

/// This device's private key (X25519) that is in the file.
///
/// # Errors
/// As [`load_cluster_key`].
pub(crate) fn load_device_key(path: &Path) -> Result<KeyBytes, Error> {
    load(DEVICE, path)?.ok_or_else(|| wrong(DEVICE, path, "does not exist; the first start makes one"))
}

/// This device's private key (X25519), or a new random one that is now in the file.
///
/// # Errors
/// As [`load_or_create_cluster_key`].
pub(crate) fn load_or_create_device_key(path: &Path) -> Result<KeyBytes, Error> {
    load_or_create(DEVICE, path, random_key)
}

/// Gives this device another private key, over the one that is there: a cloned card becomes a device of its own.
///
/// # Errors
/// [`Error::Configuration`] where the folder cannot be written. The old key is then still in place.
pub(crate) fn replace_device_key(path: &Path) -> Result<KeyBytes, Error> {
    let key = random_key()?;
    let written = write_new(path, hex_line(&key).as_bytes(), Replace::Yes);
    written.map_err(|error| wrong(DEVICE, path, &format!("cannot be written ({error})")))?;
    Ok(key)
}

/// Puts a cluster key into the file, over the one that is there; that one is kept beside it, as `….previous`.
/// Answers whether there was one.
///
/// # Errors
/// [`Error::Configuration`] where the folder cannot be written. The old key is then still in place.
pub(crate) fn replace_cluster_key(path: &Path, key: &KeyBytes) -> Result<bool, Error> {
    let cannot = |error: std::io::Error| wrong(CLUSTER, path, &format!("cannot be written ({error})"));
    let replaced = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => return Err(wrong(CLUSTER, path, "is a directory, not a key file")),
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(cannot(error)),
    };
    if replaced {
        // A damaged key is kept too: it may hold what its owner still needs.
        let old = fs::read(path).map_err(cannot)?;
        write_new(&previous(path), &old, Replace::Yes).map_err(cannot)?;
    }
    write_new(path, hex_line(key).as_bytes(), Replace::Yes).map_err(cannot)?;
    Ok(replaced)
}

/// What tells one content of a key file from another without reading it; `None` where there is no file.
pub(crate) fn stamp(path: &Path) -> Option<(i64, i64, u64, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.ino(), meta.size()))
}

/// Where [`replace_cluster_key`] keeps the key that was in force before.
pub(crate) fn previous(path: &Path) -> PathBuf {
    with_suffix(path, ".previous")
}

/// A new random key from the operating system.
pub(crate) fn random_key() -> Result<KeyBytes, Error> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| {
        Error::configuration(format!("the system has no random numbers ({error}); try again later"))
    })?;
    Ok(key)
}

/// Reads a key from the text of a key file: one line of 64 hexadecimal digits. The error says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<KeyBytes, String> {
    let line = text.trim();
    let mut key = [0; KEY_BYTES];
    if let Some(stranger) = line.chars().find(|c| !c.is_ascii_hexdigit()) {
        let what =
            if stranger.is_whitespace() { "more than one line or word".to_string() } else { "other text".to_string() };
        return Err(format!("is not a key: it holds {what}, a key is one line of 64 hexadecimal digits"));
    }
    if line.len() != KEY_BYTES * 2 {
        return Err(format!("is not a key: it holds {} hexadecimal digits, a key has 64", line.len()));
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&line[at * 2..at * 2 + 2], 16).map_err(|error| format!("is not a key: {error}"))?;
    }
    Ok(key)
}

/// The line that a key file holds.
pub(crate) fn hex_line(key: &KeyBytes) -> String {
    let mut line: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    line.push('\n');
    line
}

fn load_or_create(what: &str, path: &Path, new: impl FnOnce() -> Result<KeyBytes, Error>) -> Result<KeyBytes, Error> {
    if let Some(key) = load(what, path)? {
        return Ok(key);
    }
    let key = new()?;
    match write_new(path, hex_line(&key).as_bytes(), Replace::No) {
        Ok(()) => Ok(key),
        // Another process was faster: its key is the one.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            load(what, path)?.ok_or_else(|| wrong(what, path, "vanished while it was read; try again"))
        }
        Err(error) => Err(not_created(what, path, &error)),
    }
}

fn not_created(what: &str, path: &Path, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Persistence {
            kind: PersistenceKind::DiskFull,
            message: format!("{what}: {} cannot be created ({error}); free some space", path.display()),
            source: None,
        },
        _ if is_of_the_disk(error) => of_the_disk(what, path, "created", error),
        _ => wrong(what, path, &format!("cannot be created ({error}); make its folder writable or name another")),
    }
}

/// Whether the disk is at fault: the next start may meet a better one, without anybody changing the configuration.
fn is_of_the_disk(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::ROFS | Errno::NXIO | Errno::NODEV | Errno::STALE))
}

fn of_the_disk(what: &str, path: &Path, done: &str, error: &std::io::Error) -> Error {
    let next = "look at the kernel log, the card and how it is mounted";
    Error::persistence(format!("{what}: {} cannot be {done} ({error}); {next}", path.display()), None)
}

/// `None` where there is no such file.
fn load(what: &str, path: &Path) -> Result<Option<KeyBytes>, Error> {
    let unreadable = |error: std::io::Error| match is_of_the_disk(&error) {
        true => of_the_disk(what, path, "read", &error),
        false => {
            wrong(what, path, &format!("cannot be read ({error}); check the path, and run this as the file's owner"))
        }
    };
    // The kind is asked first: opening a pipe would wait for a writer.
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    if meta.is_dir() {
        return Err(wrong(what, path, "is a directory, not a key file"));
    }
    if !meta.is_file() {
        return Err(wrong(what, path, "is not a regular file"));
    }
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(1024).read_to_string(&mut text));
    match read {
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(wrong(what, path, "is not a key: it is not text")),
        Err(error) => Err(unreadable(error)),
        Ok(_) => {
            let key = parse(&text).map_err(|why| wrong(what, path, &why))?;
            // Of a key alone: nobody is told to close a file that is another program's.
            if meta.mode() & 0o007 != 0 {
                let (mode, shown) = (meta.mode() & 0o777, path.display());
                let open = format!("is open to every user (mode {mode:04o}); run 'chmod 600 {shown}'");
                return Err(wrong(what, path, &open));
            }
            Ok(Some(key))
        }
    }
}

fn wrong(what: &str, path: &Path, why: &str) -> Error {
    Error::configuration(format!("{what}: {} {why}", path.display()).replace('\n', "\\n"))
}

#[derive(PartialEq)]
enum Replace {
    Yes,
    No,
}

/// Writes a file that is there whole or not at all, over a power cut too: temporary file, fsync, rename, fsync of the
/// folder.
fn write_new(path: &Path, bytes: &[u8], replace: Replace) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = with_suffix(path, &format!(".{}.new", std::process::id()));
    // Left by a process of this number that was killed.
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        // A command that the administrator runs must leave a file that the service, which is another user, can read.
        if rustix::process::geteuid().is_root() {
            let owner = fs::metadata(folder)?;
            fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()?;
        put_in_place(&temporary, path, replace)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn put_in_place(temporary: &Path, path: &Path, replace: Replace) -> std::io::Result<()> {
    if replace == Replace::Yes {
        return fs::rename(temporary, path);
    }
    match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // File systems without that flag (FAT, some network ones): the test and the rename are two steps there.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if !path.exists() => fs::rename(temporary, path),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(ErrorKind::AlreadyExists.into()),
        Err(error) => Err(error.into()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::vec::Vec;

    /// A folder of its own for each test, removed with it.
    struct Folder(PathBuf);
    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("cbddc-key-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
        fn file(&self, text: &str, mode: u32) -> PathBuf {
            let path = self.0.join("cluster.key");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }
    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
    fn refused(path: &Path) -> String {
        let error = load_or_create_cluster_key(path).unwrap_err();
        assert_eq!(error.code(), "CONFIG_ERROR");
        error.to_string()
    }

    #[test]
    fn what_the_disk_is_to_blame_for_is_no_wrong_configuration() {
        let code = |errno: Errno| not_created(CLUSTER, Path::new("cluster.key"), &errno.into()).code();
        assert_eq!([Errno::NOSPC, Errno::ROFS, Errno::IO].map(code), ["PERSISTENCE_ERROR"; 3]);
        assert_eq!([Errno::ACCESS, Errno::NOTDIR].map(code), ["CONFIG_ERROR"; 2]);
    }

    #[test]
    fn a_key_is_made_once_and_read_after_that() {
        let folder = Folder::new("once");
        let path = folder.0.join("data/cluster.key");
        assert!(load_cluster_key(&path).unwrap_err().to_string().contains("does not exist"));
        let key = load_or_create_cluster_key(&path).unwrap();
        assert_eq!(load_or_create_cluster_key(&path).unwrap(), key);
        assert_eq!(load_cluster_key(&path).unwrap(), key);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() == 65 && text.ends_with('\n'));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "no temporary file stays");
    }

    #[test]
    fn a_full_disk_is_no_wrong_configuration() {
        let full = not_created(CLUSTER, Path::new("/data/cluster.key"), &ErrorKind::StorageFull.into());
        assert_eq!((full.code(), full.kind()), ("PERSISTENCE_ERROR", Some("DiskFull")));
        let forbidden = not_created(CLUSTER, Path::new("/data/cluster.key"), &ErrorKind::PermissionDenied.into());
        assert_eq!(forbidden.code(), "CONFIG_ERROR");
    }

    #[test]
    fn a_key_that_is_handed_over_is_taken_once_and_undoes_no_later_change() {
        let folder = Folder::new("adopt");
        let path = folder.0.join("data/cluster.key");
        assert_eq!(load_or_adopt_cluster_key(&path, &[5; 32]).unwrap(), [5; 32]);
        assert_eq!(load_cluster_key(&path).unwrap(), [5; 32]);
        replace_cluster_key(&path, &[6; 32]).unwrap();
        assert_eq!(load_or_adopt_cluster_key(&path, &[5; 32]).unwrap(), [6; 32]);
    }

    #[test]
    fn what_the_administrator_writes_belongs_to_the_owner_of_the_folder() {
        if !rustix::process::geteuid().is_root() {
            std::eprintln!("skipped: what_the_administrator_writes_belongs_to_the_owner_of_the_folder: needs root");
            assert!(std::env::var_os("CBDDC_REQUIRE_ALL").is_none(), "nothing may be skipped");
            return;
        }
        let folder = Folder::new("owner");
        std::os::unix::fs::chown(&folder.0, Some(12), Some(34)).unwrap();
        let path = folder.0.join("cluster.key");
        load_or_create_cluster_key(&path).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (12, 34, 0o600));
    }

    #[test]
    fn two_keys_are_never_the_same() {
        assert_ne!(random_key().unwrap(), random_key().unwrap());
    }

    #[test]
    fn a_key_that_everybody_can_read_is_refused_with_the_remedy() {
        let folder = Folder::new("open");
        let path = folder.file(&"ab".repeat(32), 0o644);
        let said = refused(&path);
        assert!(said.contains("mode 0644") && said.contains("chmod 600"), "{said}");
    }

    #[test]
    fn what_is_not_a_key_is_refused_and_stays_as_it_is() {
        let folder = Folder::new("wrong");
        for (text, why) in [
            ("abcd", "4 hexadecimal digits"),
            ("", "0 hexadecimal digits"),
            (&"zz".repeat(32), "other text"),
            (&format!("{}\n{}", "ab".repeat(32), "cd".repeat(32)), "more than one line"),
            (&"ab".repeat(33), "66 hexadecimal digits"),
            (&"é".repeat(32), "other text"),
        ] {
            let path = folder.file(text, 0o600);
            let said = refused(&path);
            assert!(said.starts_with("CBDDC.Cluster.KeyFile: ") && said.contains(why), "{said}");
            assert!(text.len() < 5 || !said.contains(text), "the key is not shown");
            assert_eq!(fs::read_to_string(&path).unwrap(), *text);
        }
        assert!(refused(&folder.0).contains("is a directory"));
    }

    #[test]
    fn a_replaced_key_is_kept_beside_the_new_one() {
        let folder = Folder::new("replace");
        let path = folder.0.join("cluster.key");
        let old = load_or_create_cluster_key(&path).unwrap();
        assert!(replace_cluster_key(&path, &[7; 32]).unwrap());
        assert_eq!(load_cluster_key(&path).unwrap(), [7; 32]);
        assert_eq!(load_cluster_key(&previous(&path)).unwrap(), old);
        assert!(replace_cluster_key(&folder.0, &[7; 32]).is_err());
    }

    #[test]
    fn a_file_that_came_in_between_is_not_replaced() {
        let folder = Folder::new("race");
        let path = folder.file("first", 0o600);
        let error = write_new(&path, b"second", Replace::No).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_said() {
        let folder = Folder::new("blocked");
        let path = folder.file("a file, not a folder", 0o600).join("cluster.key");
        let said = refused(&path);
        assert!(said.contains("cannot be"), "{said}");
    }
}
