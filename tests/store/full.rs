//! Backups where there is no room, or no folder.

use crate::place::*;
use cbddc::Error;
use cbddc::store::{BackupOrder, Disk, Entry, FileSystem, Held, Options};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

#[test]
fn a_folder_that_cannot_be_written_or_is_a_file_costs_the_backup_and_nothing_else() {
    let path = database("bad-folder");
    let (store, _) = open(&path);
    fill(&store, 0, 10);
    let to = |folder: PathBuf| smol::block_on(store.backup(BackupOrder { folder, ..order(&path, 3) })).unwrap_err();
    let file = path.with_file_name("file");
    fs::write(&file, "x").unwrap();
    let said = to(file.join("backups")).to_string();
    assert!(said.contains("Persistence.BackupPath"), "{said}");
    assert!(matches!(to(file), Error::Persistence { .. }));
    assert!(matches!(to("/proc/nowhere".into()), Error::Persistence { .. }));
    // A whole tebibyte must stay free: space is short.
    close(store);
    let short = Options { min_free_bytes: 1 << 50, ..Options::new(&path) };
    let (store, _) = open_with(short).unwrap();
    let error = smol::block_on(store.backup(order(&path, 3))).unwrap_err();
    assert_eq!(error.kind(), Some("DiskFull"), "{error}");
    assert!(names(&path).is_empty());
    assert!(get(&store, "key-00009").is_some());
    close(store);
}

/// A file system that believes to have room, so that a backup begins which does not fit.
#[derive(Debug)]
struct Roomy(FileSystem);

impl Disk for Roomy {
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX / 2)
    }
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.0.entry(path)
    }
    fn read_start(&self, path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
        self.0.read_start(path, bytes)
    }
    fn rewrite(&self, path: &Path) -> io::Result<Option<u64>> {
        self.0.rewrite(path)
    }
    fn create_folders(&self, path: &Path) -> io::Result<()> {
        self.0.create_folders(path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.0.sync_folder(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Held> {
        self.0.lock(path)
    }
    fn create(&self, path: &Path) -> io::Result<()> {
        self.0.create(path)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.0.sync(path)
    }
    fn forget(&self, path: &Path) -> io::Result<()> {
        self.0.forget(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.0.write(path, bytes)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    /// Cards that other machines read know no second name.
    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.copy(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.0.names(folder)
    }
}

#[test]
fn a_disk_that_is_full_before_the_backup_is_whole_costs_the_backup_and_nothing_else() {
    let test = "a_disk_that_is_full_before_the_backup_is_whole_costs_the_backup_and_nothing_else";
    let path = database("full-backup");
    let small = path.with_file_name("backups");
    fs::create_dir_all(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&small).output();
    if !mounted.as_ref().is_ok_and(|mounted| mounted.status.success()) {
        assert!(std::env::var_os("CBDDC_REQUIRE_ALL").is_none(), "{test} may not be skipped here: {mounted:?}");
        eprintln!("skipped: {test}: a tmpfs cannot be mounted");
        return;
    }
    let options = Options { min_free_bytes: 0, disk: Arc::new(Roomy(FileSystem)), ..Options::new(&path) };
    let (store, _) = open_with(options).unwrap();
    for n in 0..20 {
        fill(&store, n * 250, (n + 1) * 250);
    }
    let refused = smol::block_on(store.backup(order(&path, 3)));
    let left = names(&path);
    let elsewhere =
        smol::block_on(store.backup(BackupOrder { folder: path.with_file_name("other"), ..order(&path, 3) }));
    let unmounted = Command::new("umount").arg("--lazy").arg(&small).status();
    assert_eq!(refused.unwrap_err().kind(), Some("DiskFull"));
    assert!(left.is_empty(), "{left:?}");
    let made = elsewhere.unwrap();
    let latest = made.path.with_file_name("latest.db");
    assert_eq!(fs::read(&latest).unwrap(), fs::read(&made.path).unwrap(), "a copy where no second name can be given");
    assert!(unmounted.unwrap().success());
    assert!(get(&store, "key-04999").is_some());
    fill(&store, 5000, 5001);
    assert!(smol::block_on(store.check()).unwrap().is_ok());
    close(store);
}
