//! A control group with a bound on memory, of either version; where none can be made, the node is only measured.

use crate::program;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

/// A group that is removed with this value, once its processes have ended.
pub struct Group {
    folder: PathBuf,
    peak: &'static str,
    events: &'static str,
}

impl Group {
    /// A group whose processes together have at most so much memory. The reason where there can be none.
    pub fn with_memory(bytes: u64) -> Result<Group, String> {
        if program::emulated() {
            return Err("the emulator's memory would be in it".into());
        }
        let name = format!("cbddc-{}", process::id());
        let unified = Path::new("/sys/fs/cgroup");
        let first = Path::new("/sys/fs/cgroup/memory");
        let made = |folder: PathBuf, limit: &str, peak, events| {
            fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            let group = Group { folder, peak, events };
            let limited = fs::write(group.folder.join(limit), bytes.to_string());
            limited.map_err(|error| format!("{limit}: {error}"))?;
            Ok(group)
        };
        if fs::read_to_string(unified.join("cgroup.controllers")).is_ok_and(|named| named.contains("memory")) {
            // Where it is refused, because this folder has processes of its own, so is the limit below.
            let _ = fs::write(unified.join("cgroup.subtree_control"), "+memory");
            let group = made(unified.join(name), "memory.max", "memory.peak", "memory.events")?;
            let _ = fs::write(group.folder.join("memory.swap.max"), "0");
            return Ok(group);
        }
        if first.join("memory.limit_in_bytes").exists() {
            return made(first.join(name), "memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control");
        }
        Err("no memory controller is mounted".into())
    }
    pub fn folder(&self) -> &Path {
        &self.folder
    }
    /// Most that was in use at once, the kernel's cache of files included; `None` where the kernel does not say.
    pub fn peak_bytes(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join(self.peak)).ok()?.trim().parse().ok()
    }
    /// Processes that were killed for want of memory.
    pub fn killed(&self) -> u64 {
        let events = fs::read_to_string(self.folder.join(self.events)).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that has just ended is in its group for another moment.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
