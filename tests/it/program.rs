//! How tests start programs of this build: the node's binary, and this test binary again. Directly, or through the runner
//! that cargo was told, where they were built for another machine; the kernel need not know an emulator.
//!
//! No test names a binary itself: one that did would fail on the other machines only.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// As cargo spells it: how programs of the target that this was built for are run. Where it is a machine's own, there is none.
const RUNNER: Option<&str> = if cfg!(all(target_arch = "aarch64", target_env = "gnu")) {
    Some("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER")
} else if cfg!(all(target_arch = "arm", target_env = "gnu")) {
    Some("CARGO_TARGET_ARMV7_UNKNOWN_LINUX_GNUEABIHF_RUNNER")
} else {
    None
};

/// How many times longer all may take under an emulator: it is five to twenty times slower, and the machine has other tests, too.
const EMULATOR_TAKES: u32 = 10;

/// The C compiler of that target, for what is preloaded into its programs.
pub const C_COMPILER: &str = match RUNNER {
    Some(_) if cfg!(target_arch = "aarch64") => "aarch64-linux-gnu-gcc",
    Some(_) => "arm-linux-gnueabihf-gcc",
    None => "cc",
};

/// The node's binary. `CBDDC_TEST_BINARY` names another one, a static one for a small board say, and `CBDDC_TEST_RUNNER`
/// how that one is run.
pub fn node() -> Command {
    match std::env::var("CBDDC_TEST_BINARY") {
        Ok(binary) => through(std::env::var("CBDDC_TEST_RUNNER").ok(), binary.as_ref()),
        Err(_) => through(own_runner(), env!("CARGO_BIN_EXE_cbddc").as_ref()),
    }
}

/// This test binary again.
pub fn again() -> Command {
    through(own_runner(), &std::env::current_exe().unwrap())
}

/// The variable that preloads a library into programs of this build, and into nothing that runs them.
pub fn preload(library: &Path) -> (&'static str, String) {
    match own_runner() {
        Some(_) => ("QEMU_SET_ENV", format!("LD_PRELOAD={}", library.display())),
        None => ("LD_PRELOAD", library.display().to_string()),
    }
}

/// Whether the node runs under an emulator. What it uses of memory cannot be seen from outside then: the emulator's is seen.
pub fn emulated() -> bool {
    match std::env::var_os("CBDDC_TEST_BINARY") {
        Some(_) => std::env::var_os("CBDDC_TEST_RUNNER").is_some(),
        None => own_runner().is_some(),
    }
}

/// So many seconds of a node that this machine's own processor runs; more of one that is emulated. For all that a test waits
/// for, and all that may not take longer.
pub fn seconds(own: u64) -> Duration {
    Duration::from_secs(own) * if emulated() { EMULATOR_TAKES } else { 1 }
}

fn own_runner() -> Option<String> {
    RUNNER.and_then(|variable| std::env::var(variable).ok())
}

fn through(runner: Option<String>, program: &Path) -> Command {
    let runner = runner.unwrap_or_default();
    let mut words = runner.split_whitespace();
    let Some(first) = words.next() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(words).arg(program);
    command
}
