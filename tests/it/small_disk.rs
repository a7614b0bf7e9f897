//! A disk that a test can fill: a tmpfs of its own, or with `CBDDC_LOOP_DISK` set an ext4 on a loop device.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own; `None` where this machine cannot have one.
pub struct Disk(PathBuf);

impl Disk {
    pub fn new(test: &str, at: &Path, mib: u32) -> Option<Disk> {
        fs::create_dir_all(at).unwrap();
        let ran = match std::env::var_os("CBDDC_LOOP_DISK") {
            None => {
                Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(at).output()
            }
            Some(_) => {
                let image = at.with_extension("image");
                fs::File::create(&image).unwrap().set_len(u64::from(mib) << 20).unwrap();
                let made = Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image).output().unwrap();
                assert!(made.status.success(), "{made:?}");
                Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at).output()
            }
        };
        match ran {
            Ok(ran) if ran.status.success() => Some(Disk(at.into())),
            ran => {
                assert!(std::env::var_os("CBDDC_REQUIRE_ALL").is_none(), "{test} may not be skipped here: {ran:?}");
                let _ = writeln!(std::io::stderr(), "skipped: {test} a small file system cannot be mounted");
                None
            }
        }
    }
    /// Takes some of the room, to give it back later.
    pub fn take(&self, mib: usize) {
        fs::write(self.0.join("filler"), vec![1; mib << 20]).unwrap();
    }
    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        // Only then is it known to be taken.
        let _ = file.sync_all();
    }
    pub fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy"]).arg(&self.0).output();
    }
}
