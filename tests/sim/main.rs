//! The simulation: many nodes, virtual time, cruel luck. Only the pure half of the crate is used.
//!
//! `rules` searches the rules of `replica` alone; the ledger judges.
#![allow(clippy::disallowed_methods, reason = "the harness measures its own speed; nodes get virtual time")]
#![allow(unreachable_pub, reason = "modules of a test binary")]

mod judge;
mod ledger;
mod rules;
mod table;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn rules_search() {
    std::panic::set_hook(Box::new(|_| {}));
    let first = setting("CBDDC_SIM_SEED").unwrap_or(0);
    let count = setting("CBDDC_SIM_RUNS").unwrap_or(2000);
    let began = std::time::Instant::now();
    let outcome = rules::search(first..first + count);
    drop(std::panic::take_hook());
    match outcome {
        Ok(tally) => {
            println!("{count} runs of the rules in {:?}\n{}", began.elapsed(), tally.lines());
        }
        Err(text) => panic!("{text}"),
    }
}
