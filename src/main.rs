//! The program `cbddc`: does what was typed and ends with its exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    cbddc::cli::main(std::env::args_os())
}
