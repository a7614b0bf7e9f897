//! The proof that the simulation would notice: each planted bug is found within a thousand seeds.
//!
//! Random search of the rules first, since it is quick, then of whole sites; then the told stories of `hazards`, for
//! what only shows in a scene that chance seldom sets.

use crate::hazards::STORIES;
use crate::{rules, site};
use cbddc::mutants::{Mutant, plant};

const ALL: [Mutant; 29] = [
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
    Mutant::VisitorTracked,
    Mutant::NoReconcile,
    Mutant::LocalLeaves,
];
const SEEDS: u64 = 1000;

/// Where a mutant was caught, and by which check.
fn catch(mutant: Mutant) -> Option<(String, String)> {
    plant(Some(mutant));
    let by_rules = || {
        (0..SEEDS).find_map(|seed| {
            let failure = rules::run(seed, &rules::steps(seed), false).err()?;
            innocent(&|| rules::run(seed, &rules::steps(seed), false).is_ok(), mutant)?;
            Some((format!("rules, seed {seed}"), failure.why))
        })
    };
    let by_story = || {
        STORIES.iter().find_map(|(name, story)| {
            let why = story().err()?;
            Some((format!("story, {name}"), why))
        })
    };
    let by_sites = || {
        (0..SEEDS).find_map(|seed| {
            let failure = site::run(seed, None, false).err()?;
            innocent(&|| site::run(seed, None, false).is_ok(), mutant)?;
            Some((format!("site, seed {seed}"), failure.why))
        })
    };
    let caught = by_rules().or_else(by_story).or_else(by_sites);
    plant(None);
    caught
}

/// A seed counts only if it passes without the mutant.
fn innocent(passes: &dyn Fn() -> bool, mutant: Mutant) -> Option<()> {
    plant(None);
    let innocent = passes();
    plant(Some(mutant));
    innocent.then_some(())
}

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let next = std::sync::atomic::AtomicUsize::new(0);
    let lines = std::sync::Mutex::new(Vec::new());
    let worker = || {
        while let Some(mutant) = ALL.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let caught = catch(*mutant);
            lines.lock().expect("no worker panics").push((*mutant, caught));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
    drop(std::panic::take_hook());
    let mut lines = lines.into_inner().expect("no worker panics");
    lines.sort_by_key(|(mutant, _)| *mutant as usize);
    let mut survivors = Vec::new();
    for (mutant, caught) in lines {
        match caught {
            Some((whence, why)) => {
                let check: String = why.chars().take(60).collect();
                println!("{:<26} {whence:<34} {check}", format!("{mutant:?}"));
            }
            None => survivors.push(mutant),
        }
    }
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
