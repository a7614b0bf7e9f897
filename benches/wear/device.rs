//! A block device of its own, so that what is counted is what the store has written and nothing else: a file in memory as a
//! loop device with ext4 on it. Without root there is none, and the process's own account is all that is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The image is in memory: no other disk's speed or noise is measured.
const IMAGE: &str = "/dev/shm";
const MIB: u64 = 1024;

pub(crate) struct Device {
    image: PathBuf,
    /// `loop3`, say.
    name: String,
    mount: PathBuf,
}

impl Device {
    pub(crate) fn new(folder: &Path) -> Option<Device> {
        let image = Path::new(IMAGE).join(format!("cbddc-wear-{}.img", std::process::id()));
        fs::File::create(&image).ok()?.set_len(MIB * 1024 * 1024).ok()?;
        let mount = folder.join("device");
        fs::create_dir_all(&mount).ok()?;
        // Nothing of the file system's own is put off until later.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        let made = run("mkfs.ext4", &["-q", "-F", "-E", now, image.to_str()?]).is_some();
        let found = made.then(|| run("losetup", &["--find", "--show", image.to_str()?])).flatten();
        let Some(found) = found else {
            fs::remove_file(&image).ok();
            return None;
        };
        let name = found.trim().trim_start_matches("/dev/").to_string();
        let device = Device { image, name, mount };
        run("mount", &["-o", "noatime", found.trim(), device.mount.to_str()?])?;
        Some(device)
    }
    pub(crate) fn folder(&self) -> &Path {
        &self.mount
    }
    /// Bytes written to the device so far, with all that was on its way.
    pub(crate) fn written(&self) -> u64 {
        run("sync", &["--file-system", self.mount.to_str().unwrap()]).unwrap();
        let stat = fs::read_to_string(format!("/sys/block/{}/stat", self.name)).unwrap();
        // The seventh figure: sectors written, of 512 bytes (Documentation/block/stat.rst).
        stat.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = run("umount", &[self.mount.to_str().unwrap_or_default()]);
        let _ = run("losetup", &["--detach", &format!("/dev/{}", self.name)]);
        let _ = fs::remove_file(&self.image);
    }
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Bytes that this process has caused to be sent to a disk.
pub(crate) fn own_account() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
}
