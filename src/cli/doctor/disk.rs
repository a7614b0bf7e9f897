//! The disk: where the database, the backups and the log are to be, what kind of file system that is, and how long a sync takes.

use super::Point;
use crate::clock;
use crate::config::Config;
use std::format;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// Writes and syncs of the probe.
const PROBES: usize = 8;
/// A sync beyond this makes every write wait; cards that are worn out or fake do that.
const SLOW_MS: u64 = 500;

pub(super) fn points(config: &Config) -> Vec<Point> {
    let database = &config.persistence.database_path;
    let folder = folder_of(database);
    let mut points = Vec::from([database_point(database, &folder)]);
    let there = existing(&folder);
    points.push(file_system(&there));
    points.push(free_space(&there, config.persistence.min_free_mib));
    points.extend(set_aside(database));
    if let Ok(point) = sync_probe(&there) {
        points.push(point);
    }
    if config.persistence.auto_backup {
        points.push(backups(&config.persistence.backup_path, &there));
    }
    if let Some(log) = &config.logging.path {
        let log_folder = folder_of(log);
        points.push(match try_folder(&existing(&log_folder)) {
            Ok(()) => Point::ok("log", format!("{}", log.display())),
            Err(error) => cannot_write("log", &log_folder, &error, "CBDDC.Logging.Path"),
        });
    }
    points
}

fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    super::absolute(folder)
}

/// The folder, or the nearest above it that exists: what is missing is made at the start.
fn existing(folder: &Path) -> PathBuf {
    folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

/// Whether a file can be made, written and removed there.
fn try_folder(folder: &Path) -> io::Result<()> {
    let probe = Probe::make(folder)?;
    drop(probe);
    Ok(())
}

/// A file that goes away with its value.
struct Probe {
    path: PathBuf,
    file: File,
}

impl Probe {
    fn make(folder: &Path) -> io::Result<Probe> {
        let path = folder.join(format!(".cbddc-doctor-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Probe { path, file })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It was made by this process a moment ago; whoever took it away has done what this would.
        let _ = fs::remove_file(&self.path);
    }
}

fn cannot_write(point: &'static str, folder: &Path, error: &io::Error, key: &str) -> Point {
    let todo = format!("make it writable for the user that runs the node (chown), or name another place in {key}");
    Point::fail(point, format!("{} cannot be written: {error}", folder.display()), todo)
}

fn database_point(database: &Path, folder: &Path) -> Point {
    let shown = super::absolute(database);
    if database.is_dir() {
        let todo = "name a file in CBDDC.Persistence.DatabasePath";
        return Point::fail("database", format!("{} is a folder", shown.display()), todo);
    }
    if let Err(error) = try_folder(&existing(folder)) {
        return cannot_write("database", &existing(folder), &error, "CBDDC.Persistence.DatabasePath");
    }
    if let Err(error) = OpenOptions::new().append(true).open(database)
        && error.kind() != io::ErrorKind::NotFound
    {
        return cannot_write("database", database, &error, "CBDDC.Persistence.DatabasePath");
    }
    let state = match fs::metadata(database) {
        Ok(meta) => format!("{} KiB", meta.len() / 1024),
        Err(_) => "made at the first start".to_string(),
    };
    Point::ok("database", format!("{}, {state}", shown.display()))
}

fn backups(folder: &Path, database: &Path) -> Point {
    let shown = super::absolute(folder);
    let there = existing(&shown);
    if let Err(error) = try_folder(&there) {
        return cannot_write("backup folder", &there, &error, "CBDDC.Persistence.BackupPath");
    }
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    if device(&there) == device(database) {
        let todo = "a backup on the same card helps against mistakes, not against the card: another disk in \
             CBDDC.Persistence.BackupPath is better; the other nodes hold all documents, too";
        return Point::warn("backup folder", format!("{} is on the database's own disk", shown.display()), todo);
    }
    Point::ok("backup folder", shown.display().to_string())
}

/// Kinds of file systems by their number (`man 2 statfs`), and what is to be known of them.
const FILE_SYSTEMS: &[(u64, &str, Option<&str>)] = &[
    (0xEF53, "ext4", None),
    (0xF2F5_2010, "f2fs", None),
    (0x9123_683E, "btrfs", None),
    (0x5846_5342, "xfs", None),
    (0x2FC1_2FC1, "zfs", None),
    (0x2405_1905, "ubifs", None),
    (0x0102_1994, "tmpfs", Some("it is in memory: everything is gone after a power cut")),
    (0x8584_58F6, "ramfs", Some("it is in memory: everything is gone after a power cut")),
    (0x794C_7630, "overlayfs", Some("in a container or on a read-only root it is often thrown away at the next start")),
    (
        0x4D44,
        "vfat",
        Some("it has no journal and no file modes: a power cut can damage it, and keys are open to everybody"),
    ),
    (
        0x2011_BAB0,
        "exfat",
        Some("it has no journal and no file modes: a power cut can damage it, and keys are open to everybody"),
    ),
    (0x6969, "nfs", Some("locks and syncs over a network are not to be trusted with a database")),
    (0xFF53_4D42, "cifs", Some("locks and syncs over a network are not to be trusted with a database")),
    (0xFE53_4D42, "smb2", Some("locks and syncs over a network are not to be trusted with a database")),
];

fn file_system(folder: &Path) -> Point {
    let stat = match rustix::fs::statfs(folder) {
        Ok(stat) => stat,
        Err(error) => return Point::warn("file system", format!("cannot be asked: {error}"), "look with 'df -T'"),
    };
    // The field's type differs from machine to machine; the numbers have 32 bits.
    let number = (stat.f_type as u64) & 0xFFFF_FFFF;
    let place = folder.display();
    match FILE_SYSTEMS.iter().find(|(known, _, _)| *known == number) {
        Some((_, name, None)) => Point::ok("file system", format!("{name} at {place}")),
        Some((_, name, Some(why))) => {
            let todo = format!("{why}: put CBDDC.Persistence.DatabasePath on a local ext4 or f2fs");
            Point::warn("file system", format!("{name} at {place}"), todo)
        }
        None => Point::ok("file system", format!("kind {number:#x} at {place}")),
    }
}

fn free_space(folder: &Path, min_free_mib: u64) -> Point {
    let stat = match rustix::fs::statvfs(folder) {
        Ok(stat) => stat,
        Err(error) => return Point::warn("free space", format!("cannot be asked: {error}"), "look with 'df'"),
    };
    let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    let found = format!("{free_mib} MiB free, documents are refused below {min_free_mib}");
    if free_mib < min_free_mib {
        return Point::fail("free space", found, "make room, or lower CBDDC.Persistence.MinFreeMb");
    }
    if free_mib < min_free_mib.saturating_mul(2) {
        return Point::warn("free space", found, "make room soon");
    }
    Point::ok("free space", found)
}

/// Databases that were set aside: nothing deletes them, since they may be the only copy of something.
fn set_aside(database: &Path) -> Option<Point> {
    let (count, bytes) = crate::store::Store::set_aside(database);
    let mib = bytes.div_ceil(1024 * 1024);
    let found = format!("{count} that were set aside take {mib} MiB beside {}", database.display());
    let next = "look at what is missing, then remove the files .old-N that you are sure of";
    (count > 0).then(|| Point::warn("old databases", found, next))
}

/// Writes a page and syncs it, some times over, as a commit does.
fn sync_probe(folder: &Path) -> io::Result<Point> {
    let mut probe = Probe::make(folder)?;
    let mut times_us = Vec::new();
    for _ in 0..PROBES {
        let began = clock::monotonic_us();
        probe.file.write_all(&[0; 4096])?;
        probe.file.sync_data()?;
        times_us.push(clock::monotonic_us().saturating_sub(began));
    }
    times_us.sort_unstable();
    Ok(synced(times_us[PROBES / 2], times_us[PROBES - 1]))
}

fn synced(median_us: u64, longest_us: u64) -> Point {
    let shown = |us: u64| -> String {
        if us < 10_000 { format!("{}.{} ms", us / 1000, us / 100 % 10) } else { format!("{} ms", us / 1000) }
    };
    let found = format!("a sync takes {}, at most {}", shown(median_us), shown(longest_us));
    if longest_us / 1000 > SLOW_MS {
        let todo = "every answer waits for a sync: a better card (A1 or A2), or CBDDC.Persistence.CommitDelayMs, so that writes share one";
        return Point::warn("sync", found, todo);
    }
    Point::ok("sync", found)
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_slow_sync_is_said_with_its_time() {
        assert_eq!(synced(1_234, 2_000), Point::ok("sync", "a sync takes 1.2 ms, at most 2.0 ms"));
        assert_eq!(synced(20_000, 900_000).state, State::Warn);
    }

    #[test]
    fn too_little_room_fails_and_a_folder_that_does_not_exist_yet_is_judged_by_the_one_above() {
        let here = std::env::temp_dir();
        assert_eq!(free_space(&here, u64::MAX >> 21).state, State::Fail);
        assert_eq!(free_space(&here, 0).state, State::Ok);
        assert_eq!(existing(&here.join("none/of/these")), here);
        assert_eq!(existing(Path::new("/nonexistent/x")), Path::new("/"));
    }

    #[test]
    fn nothing_is_left_where_it_was_tried() {
        let folder = std::env::temp_dir().join(format!("cbddc-doctor-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        try_folder(&folder).unwrap();
        sync_probe(&folder).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::remove_dir_all(&folder).unwrap();
        assert!(try_folder(&folder).is_err());
    }
}
