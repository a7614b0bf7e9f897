//! A slow disk where there is none: every sync, the node's and the floor's, takes some milliseconds longer.
//!
//! The library that the tests use to look at syncs is preloaded into this program, started again, and into all that it
//! starts. Needs a C compiler.

use super::Fallible;
use std::path::Path;
use std::process::Command;

/// What the preloaded library reads.
const DELAY: &str = "CBDDC_PROBE_DELAY_MS";

/// Milliseconds that every sync of this process takes longer.
pub(crate) fn delay_ms() -> Option<u64> {
    std::env::var(DELAY).ok()?.parse().ok()
}

/// This program again, on the slow disk.
pub(crate) fn again(delay_ms: u64, arguments: &[String]) -> Fallible<()> {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pair-probe-{}.so", std::process::id()));
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-pthread", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/sync_probe.c"))
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        return Err("the slow disk needs a C compiler, `cc`".into());
    }
    let done = Command::new(std::env::current_exe()?)
        .args(arguments)
        .env("LD_PRELOAD", &library)
        .env(DELAY, delay_ms.to_string())
        .status();
    std::fs::remove_file(&library)?;
    if done?.success() { Ok(()) } else { Err("the run on the slow disk failed".into()) }
}
