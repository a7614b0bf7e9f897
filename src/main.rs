//! The program `cbddc`: does what was typed and ends with its exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "mutants")]
    plant();
    cbddc::cli::main(std::env::args_os())
}

/// `boards/test weak` cuts the power of a node that syncs too little, and must see it lose documents.
#[cfg(feature = "mutants")]
fn plant() {
    use cbddc::mutants::{Mutant, plant};
    match std::env::var("CBDDC_MUTANT").as_deref() {
        Ok("SynchronousNormal") => plant(Some(Mutant::SynchronousNormal)),
        Ok("SynchronousOff") => plant(Some(Mutant::SynchronousOff)),
        _ => {}
    }
}
