//! The preloaded library of `sync_probe.c`: compiled once for each run, given to a child process by its environment.

use crate::program;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What a child is to be preloaded with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probe {
    delay_ms: Option<u64>,
    stall: Option<PathBuf>,
    fail: Option<PathBuf>,
    hold: Option<PathBuf>,
    log: Option<PathBuf>,
}

impl Probe {
    /// Every sync of the child takes this much longer.
    pub(crate) fn delay_ms(mut self, delay_ms: u64) -> Probe {
        self.delay_ms = Some(delay_ms);
        self
    }
    /// While this file exists, every sync of the child takes up to half a minute longer.
    pub(crate) fn stall(mut self, path: impl Into<PathBuf>) -> Probe {
        self.stall = Some(path.into());
        self
    }
    /// While this file exists, every sync of the child fails.
    pub(crate) fn fail(mut self, path: impl Into<PathBuf>) -> Probe {
        self.fail = Some(path.into());
        self
    }
    /// While this file exists, no sync of the child comes to its end.
    pub(crate) fn hold(mut self, path: impl Into<PathBuf>) -> Probe {
        self.hold = Some(path.into());
        self
    }
    /// Events of the child are appended to this file.
    pub(crate) fn log(mut self, path: impl Into<PathBuf>) -> Probe {
        self.log = Some(path.into());
        self
    }
    /// The pairs to hand to [`Command::envs`].
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![program::preload(library())];
        pairs.extend(self.delay_ms.map(|delay| ("CBDDC_PROBE_DELAY_MS", delay.to_string())));
        pairs.extend(self.stall.as_ref().map(|stall| ("CBDDC_PROBE_STALL", stall.display().to_string())));
        pairs.extend(self.fail.as_ref().map(|fail| ("CBDDC_PROBE_FAIL", fail.display().to_string())));
        pairs.extend(self.hold.as_ref().map(|hold| ("CBDDC_PROBE_HOLD", hold.display().to_string())));
        pairs.extend(self.log.as_ref().map(|log| ("CBDDC_PROBE_LOG", log.display().to_string())));
        pairs
    }
}

/// The events of a log, oldest first: the word, and the rest of the line.
pub(crate) fn events(log: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = |line: &str| line.split_once(' ').map(|(event, rest)| (event.to_string(), rest.to_string()));
    text.lines().filter_map(line).collect()
}

/// Compiles the library with the system's C compiler. Renamed into place, so that two test processes can do it at once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sync_probe.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (made, library) = (folder.join(format!("probe-{}.so", std::process::id())), folder.join("sync_probe.so"));
        let compiled = Command::new(program::C_COMPILER)
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-pthread", "-o"])
            .args([&made, &source])
            .output()
            .unwrap_or_else(|error| panic!("the tests need a C compiler, `{}`: {error}", program::C_COMPILER));
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        std::fs::rename(&made, &library).unwrap();
        library
    })
}
