//! The proof that the simulation would notice: each planted bug is found within a thousand seeds.
//!
//! The rules are searched first, since that is quick, then whole sites. That the told stories notice them too is shown
//! in `stories`.

use crate::{rules, site};
use cbddc::mutants::{Mutant, plant};

const ALL: [Mutant; 37] = [
    Mutant::JoinAtEveryBatch,
    Mutant::DropBeforeMembersCover,
    Mutant::DropWithoutMembers,
    Mutant::DropAtOnceWithoutOwnCover,
    Mutant::FloorNotRaised,
    Mutant::NoFloorCheckAtHello,
    Mutant::NoFloorCheckAtClosure,
    Mutant::NoFloorCheckOnApply,
    Mutant::BootstrapKeepsReplica,
    Mutant::BootstrapKeepsCursors,
    Mutant::BootstrapInForceEarly,
    Mutant::BootstrapDropsUncovered,
    Mutant::SentNotMarked,
    Mutant::ForkNotNoticed,
    Mutant::ForkGetsNewStamp,
    Mutant::ForkClaimsFloor,
    Mutant::ConfirmBeforeSync,
    Mutant::AnswerBeforeSync,
    Mutant::CursorWithoutRows,
    Mutant::StampNotAboveRow,
    Mutant::HlcNotPersisted,
    Mutant::TieKeepsOwn,
    Mutant::ExpiryForgets,
    Mutant::EveryClockVotes,
    Mutant::FutureMovesClock,
    Mutant::NoRotation,
    Mutant::RelayAtOnce,
    Mutant::BatchOvertakes,
    Mutant::BatchOfAnotherLife,
    Mutant::VisitorTracked,
    Mutant::NoReconcile,
    Mutant::ReconcileKeepsDot,
    Mutant::LocalLeaves,
    Mutant::RepairTakesOlder,
    Mutant::StreamPassesDamage,
    Mutant::QueuedIsBlind,
    Mutant::QueuedKeepsStamp,
];
/// Those whose nature it is that a site never becomes quiet. With any other, a run that stalls shows no more than that
/// luck ran another way: a stall that has its own reason can be met in any course of events.
const STALLING: [Mutant; 4] =
    [Mutant::NoFloorCheckAtHello, Mutant::TieKeepsOwn, Mutant::NoRotation, Mutant::NoReconcile];
const SEEDS: u64 = 1000;

/// How a mutant was caught.
struct Caught {
    by: &'static str,
    seed: u64,
    why: String,
}

/// Where a mutant is caught first. What fails without it too does not count.
fn catch(mutant: Mutant) -> Option<Caught> {
    let by_rules = || {
        search("rules", mutant, |seed| {
            rules::run(seed, &rules::steps(seed), false).map(drop).map_err(|failure| failure.why)
        })
    };
    let by_sites =
        || search("site", mutant, |seed| site::run(seed, None, false).map(drop).map_err(|failure| failure.why));
    by_rules().or_else(by_sites)
}
fn search(by: &'static str, mutant: Mutant, run: impl Fn(u64) -> Result<(), String>) -> Option<Caught> {
    (0..SEEDS).find_map(|seed| {
        let why = guilty(mutant, || run(seed))?;
        Some(Caught { by, seed, why })
    })
}

/// What goes wrong with the mutant and does not without.
fn guilty(mutant: Mutant, run: impl Fn() -> Result<(), String>) -> Option<String> {
    plant(Some(mutant));
    let with = run();
    plant(None);
    let why = with.err().filter(|why| STALLING.contains(&mutant) || !why.starts_with("convergence"))?;
    run().is_ok().then_some(why)
}

#[test]
fn mutants() {
    let only = std::env::var("CBDDC_SIM_MUTANT").ok();
    let wanted = |mutant: &&Mutant| only.as_ref().is_none_or(|only| format!("{mutant:?}") == *only);
    let all: Vec<&Mutant> = ALL.iter().filter(wanted).collect();
    assert!(!all.is_empty(), "CBDDC_SIM_MUTANT names none");
    let next = std::sync::atomic::AtomicUsize::new(0);
    let lines = std::sync::Mutex::new(Vec::new());
    let worker = || {
        while let Some(&mutant) = all.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let caught = catch(*mutant);
            lines.lock().expect("no worker panics").push((*mutant, caught));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| crate::quietly(worker));
        scope.spawn(|| crate::quietly(worker));
    });
    let mut lines = lines.into_inner().expect("no worker panics");
    lines.sort_by_key(|(mutant, _)| *mutant as usize);
    let mut survivors = Vec::new();
    println!("{:<26} {:<6} {:<5} check", "mutant", "by", "seed");
    for (mutant, caught) in lines {
        match caught {
            Some(Caught { by, seed, why }) => {
                let check: String = why.chars().take(80).collect();
                println!("{:<26} {by:<6} {seed:<5} {check}", format!("{mutant:?}"));
            }
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
