//! The proof that the search would notice: each planted bug of the store is found, those that the promises stand on
//! within a hundred cuts.

use crate::errors::every;
use crate::run::{Journal, run};
use cbddc::mutants::{Mutant, plant};

/// Found by cuts, with either journal, within [`CUTS_MAX`].
const BY_CUTS: [Mutant; 4] =
    [Mutant::SynchronousNormal, Mutant::SynchronousOff, Mutant::ConfirmBeforeSync, Mutant::AnswerBeforeSync];
const CUTS_MAX: u64 = 100;
/// Found by errors at every call; with a write-ahead log or without.
const BY_ERRORS: [(Mutant, bool); 3] =
    [(Mutant::LogNotSettled, true), (Mutant::BrokenConnectionKept, true), (Mutant::BrokenConnectionKept, false)];

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
    let wanted = |mutant: Mutant| only.as_ref().is_none_or(|only| format!("{mutant:?}") == *only);
    let short = |why: String| why.lines().next().unwrap_or("").chars().take(110).collect::<String>();
    let mut survivors = Vec::new();
    println!("{:<22} {:<9} what was found", "mutant", "journal");
    for mutant in BY_CUTS.into_iter().filter(|mutant| wanted(*mutant)) {
        for journal in [Journal::Wal, Journal::Rollback] {
            match catch(mutant, journal, CUTS_MAX) {
                Ok(Caught { cuts, seed, why }) => {
                    let (name, journal, why) = (format!("{mutant:?}"), format!("{journal:?}"), short(why));
                    println!("{name:<22} {journal:<9} after {cuts} cuts, seed {seed}: {why}");
                }
                Err(cuts) => survivors.push(format!("{mutant:?}, {journal:?}, {cuts} cuts")),
            }
        }
    }
    for (mutant, wal) in BY_ERRORS.into_iter().filter(|(mutant, _)| wanted(*mutant)) {
        plant(Some(mutant));
        let (struck, harm) = every(wal, 1);
        plant(None);
        match harm {
            Some(why) => println!("{:<22} wal {wal:<5} after {struck} errors: {}", format!("{mutant:?}"), short(why)),
            None => survivors.push(format!("{mutant:?}, wal {wal}, {struck} errors")),
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
