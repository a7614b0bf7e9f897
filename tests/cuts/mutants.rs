//! The proof that the search would notice: each planted bug of the store is found, those that the promises stand on
//! within a hundred cuts.

use crate::run::{Journal, run};
use cbddc::mutants::{Mutant, plant};

/// The bug, the journals that it can be seen with, and the cuts within which it must be found.
const ALL: [(Mutant, &[Journal], u64); 6] = [
    (Mutant::SynchronousNormal, &[Journal::Wal, Journal::Rollback], 100),
    (Mutant::SynchronousOff, &[Journal::Wal, Journal::Rollback], 100),
    (Mutant::ConfirmBeforeSync, &[Journal::Wal, Journal::Rollback], 100),
    (Mutant::AnswerBeforeSync, &[Journal::Wal, Journal::Rollback], 100),
    (Mutant::LogNotSettled, &[Journal::Wal], 20_000),
    (Mutant::BrokenConnectionKept, &[Journal::Wal, Journal::Rollback], 20_000),
];

struct Caught {
    cuts: u64,
    seed: u64,
    why: String,
}

/// Seeds from 0 on until one fails with the bug and passes without, or so many cuts were made.
fn catch(mutant: Mutant, journal: Journal, cuts_max: u64) -> Result<Caught, u64> {
    let mut cuts = 0;
    for seed in 0.. {
        plant(Some(mutant));
        let with = run(seed, journal, false);
        plant(None);
        cuts += with.tally.of("cut");
        if let Some(why) = with.why
            && run(seed, journal, false).why.is_none()
        {
            return Ok(Caught { cuts, seed, why });
        }
        if cuts >= cuts_max {
            break;
        }
    }
    Err(cuts)
}

#[test]
fn mutants_of_the_store_are_found_within_their_cuts() {
    let only = std::env::var("CBDDC_CUTS_MUTANT").ok();
    let mut survivors = Vec::new();
    println!("{:<22} {:<9} {:>5} {:>5} what was found", "mutant", "journal", "cuts", "seed");
    for (mutant, journals, cuts_max) in ALL {
        if only.as_ref().is_some_and(|only| format!("{mutant:?}") != *only) {
            continue;
        }
        for journal in journals {
            match catch(mutant, *journal, cuts_max) {
                Ok(Caught { cuts, seed, why }) => {
                    let why: String = why.lines().next().unwrap_or("").chars().take(90).collect();
                    println!("{:<22} {:<9} {cuts:>5} {seed:>5} {why}", format!("{mutant:?}"), format!("{journal:?}"));
                }
                Err(cuts) => survivors.push((mutant, *journal, cuts)),
            }
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
