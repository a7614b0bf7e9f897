//! The search: seed after seed, as many as fit in the time, on two threads; and one of them again.

use crate::run::{Journal, Tally, run};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Cuts of a search among all other tests, each journal: `cargo cuts` does more.
const CUTS: u64 = 150;

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// When a search has seen enough.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Enough {
    Cuts(u64),
    Time(Duration),
}

/// What was found.
pub(crate) struct Found {
    pub(crate) seed: u64,
    pub(crate) why: String,
}

/// Runs seeds from `first` on. The counts of all, and the failure of the lowest seed that failed.
pub(crate) fn search(first: u64, journal: Journal, enough: Enough) -> (Tally, Option<Found>) {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let (tally, found) = (Mutex::new(Tally::default()), Mutex::new(None::<Found>));
    let work = || {
        loop {
            let over = match enough {
                Enough::Time(time) => began.elapsed() >= time,
                Enough::Cuts(cuts) => tally.lock().unwrap().of("cut") >= cuts,
            };
            if over || found.lock().unwrap().is_some() {
                return;
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let ended = run(seed, journal, false);
            tally.lock().unwrap().add(&ended.tally);
            if let Some(why) = ended.why {
                let mut found = found.lock().unwrap();
                if found.as_ref().is_none_or(|found| seed < found.seed) {
                    *found = Some(Found { seed, why });
                }
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    (tally.into_inner().unwrap(), found.into_inner().unwrap())
}

/// Searches, tells what was done, and fails with the seed and how to see it again.
fn searched(journal: Journal) {
    let first = setting("CBDDC_CUTS_SEED").unwrap_or(0);
    // Three journals share the time.
    let enough = match (setting("CBDDC_CUTS_SECONDS"), setting("CBDDC_CUTS")) {
        (Some(seconds), _) => Enough::Time(Duration::from_millis(seconds * 1000 / 3)),
        (None, cuts) => Enough::Cuts(cuts.unwrap_or(CUTS)),
    };
    let began = Instant::now();
    let (tally, found) = search(first, journal, enough);
    let rate = tally.of("cut") as f64 / began.elapsed().as_secs_f64();
    println!("{journal:?}, from seed {first} on, {rate:.0} cuts a second: {}", tally.line());
    if let Some(Found { seed, why }) = found {
        panic!("seed {seed}, {journal:?}: {why}\nagain: CBDDC_CUTS_SEED={seed} cargo cuts-replay");
    }
    assert!(tally.of("cut") > 0, "no power cut was made");
}

#[test]
fn cuts_with_a_write_ahead_log_lose_nothing_that_was_promised() {
    searched(Journal::Wal);
}

#[test]
fn cuts_with_a_rollback_journal_lose_nothing_that_was_promised() {
    searched(Journal::Rollback);
}

#[test]
fn cuts_between_the_two_journals_lose_nothing_that_was_promised() {
    searched(Journal::Either);
}

/// One seed again with all that happens, for each journal: `CBDDC_CUTS_SEED=7 cargo cuts-replay`.
#[test]
fn replay() {
    let Some(seed) = setting("CBDDC_CUTS_SEED") else {
        println!("nothing to replay: CBDDC_CUTS_SEED names no seed");
        return;
    };
    let mut failed = Vec::new();
    for journal in [Journal::Wal, Journal::Rollback, Journal::Either] {
        let ended = run(seed, journal, true);
        match ended.why {
            None => println!("{journal:?} passes: {}", ended.tally.line()),
            Some(why) => {
                println!("{}\n=> {journal:?}: {why}", ended.story.join("\n"));
                failed.push(journal);
            }
        }
    }
    assert!(failed.is_empty(), "seed {seed} fails: {failed:?}");
}
