//! The worked examples in other languages, run as they are against a node. Where an interpreter is missing its test is
//! skipped.

use crate::process::Node;
use std::path::Path;
use std::process::Command;

const SAID: &str = "on disk\n24 stored, 0 not\nat 10:20 it was 21.5 degrees\nthe warmest was 2026/01/15 10:20\n\
                    not again: Concurrency\n25 changes seen\n";

/// Whether the interpreter is there and new enough; `probe` is a program for it that ends well only then.
fn has(test: &str, interpreter: &str, probe: &[&str]) -> bool {
    let there = Command::new(interpreter).args(probe).output().is_ok_and(|ran| ran.status.success());
    if !there {
        assert!(std::env::var_os("CBDDC_REQUIRE_ALL").is_none(), "{test} may not be skipped here: no {interpreter}");
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "skipped: {test}: {interpreter} is missing or too old");
    }
    there
}

fn runs(interpreter: &str, program: &str) {
    let node = Node::new("languages").set("Api__TokenFile", "token");
    std::fs::write(node.path("token"), "s3cret-token-42").unwrap();
    let node = node.started();
    // A second time: the counter goes on, what is there is read back.
    for round in 1..=2 {
        // An example that waits for what never comes is ended, and has failed.
        let ran = Command::new("timeout")
            .args(["120", interpreter])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(program))
            .arg(format!("http://{}", node.http()))
            .env("CBDDC_TOKEN", "s3cret-token-42")
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}: {}", ran.status, String::from_utf8_lossy(&ran.stderr));
        assert_eq!(String::from_utf8_lossy(&ran.stdout), SAID);
        let count = String::from_utf8(node.says(&["get", "counters", "readings"])).unwrap();
        assert_eq!(count.trim(), (25 * round).to_string());
    }
}

#[test]
fn the_example_in_python_runs_as_it_is() {
    if has("the_example_in_python_runs_as_it_is", "python3", &["-c", "import sys; sys.exit(sys.version_info < (3, 7))"])
    {
        runs("python3", "python/readings.py");
    }
}

#[test]
fn the_example_in_javascript_runs_as_it_is() {
    if has(
        "the_example_in_javascript_runs_as_it_is",
        "node",
        &["-e", "process.exit(typeof fetch === 'function' ? 0 : 1)"],
    ) {
        runs("node", "javascript/readings.mjs");
    }
}
