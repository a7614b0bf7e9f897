//! The simulation: many nodes, virtual time, cruel luck. Only the pure half of the crate is used.
//!
//! `rules` searches the rules of `replica` alone, `site` whole sites; the judge looks at each step, and its ledger knows
//! every write. CONTRIBUTING.md has the commands.
#![allow(clippy::disallowed_methods, reason = "the harness measures its own speed; nodes get virtual time")]
#![allow(unreachable_pub, reason = "modules of a test binary")]

mod hazards;
mod judge;
mod ledger;
#[cfg(feature = "mutants")]
mod mutants;
mod rules;
mod site;
mod stories;
mod table;

/// Among all other tests, unoptimised and with the shell beside it, a share of the runs is enough: `cargo sim` does more.
const SHARE: u64 = if cfg!(feature = "std") { 3 } else { 1 };

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The rules alone: quick, and first to show a broken one.
#[test]
fn search_rules() {
    let first = setting("CBDDC_SIM_SEED").unwrap_or(0);
    let count = setting("CBDDC_SIM_RUNS").unwrap_or(2000 / SHARE);
    let began = std::time::Instant::now();
    match quietly(|| rules::search(first..first + count)) {
        Ok(tally) => {
            println!("{count} runs of the rules in {:?}\n{}", began.elapsed(), tally.lines());
        }
        Err(text) => panic!("{text}"),
    }
}

/// Whole sites: from `CBDDC_SIM_SEED` on, as many as fit in `CBDDC_SIM_SECONDS`, or `CBDDC_SIM_RUNS`.
#[test]
fn search() {
    let first = setting("CBDDC_SIM_SEED").unwrap_or(0);
    let seconds = setting("CBDDC_SIM_SECONDS");
    let count = setting("CBDDC_SIM_RUNS").unwrap_or(300 / SHARE);
    let began = std::time::Instant::now();
    match quietly(|| search_sites(first, count, seconds)) {
        Ok((runs, tally)) => {
            let rate = runs as f64 / began.elapsed().as_secs_f64();
            println!("{runs} runs of sites from seed {first} on, {rate:.0} a second\n{}", tally.lines());
        }
        Err(text) => panic!("{text}"),
    }
}

/// One site again, with all that happens: `CBDDC_SIM_SEED=12345 cargo sim-replay`. `CBDDC_SIM_WRITES` makes it shorter.
#[test]
fn replay() {
    let Some(seed) = setting("CBDDC_SIM_SEED") else {
        println!("nothing to replay: CBDDC_SIM_SEED names no seed");
        return;
    };
    let writes = setting("CBDDC_SIM_WRITES").map(|writes| writes as usize);
    match quietly(|| site::run(seed, writes, true)) {
        Ok(site) => println!("{}seed {seed} passes\n{}", site.story, site.tally.lines()),
        Err(failure) => panic!("{}=> seed {seed}: {}", failure.story, failure.why),
    }
}

/// What panics in a run is caught and told with its seed: the panic itself says nothing.
fn quietly<T>(search: impl FnOnce() -> T) -> T {
    use std::sync::Once;
    std::thread_local! {
        static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let outcome = search();
    QUIET.set(false);
    outcome
}

/// A search goes on after a run that fails, each is told with its seed, and ends with so many.
const FAILURES_MAX: usize = 10;

/// Runs sites; gives their counts, or the lowest seed that failed with its story.
fn search_sites(first: u64, count: u64, seconds: Option<u64>) -> Result<(u64, rules::Tally), String> {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    let began = std::time::Instant::now();
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let (tally, failed) = (Mutex::new(rules::Tally::default()), Mutex::new(Vec::<(u64, String)>::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = match seconds {
                Some(seconds) => began.elapsed().as_secs() >= seconds,
                None => seed >= first + count,
            };
            if over || failed.lock().expect("no worker panics").len() >= FAILURES_MAX {
                break;
            }
            let why = match site::run(seed, None, false) {
                Ok(site) => {
                    done.fetch_add(1, Ordering::Relaxed);
                    let mut tally = tally.lock().expect("no worker panics");
                    tally.add(&site.tally);
                    *tally.0.entry("operations").or_default() += site.operations;
                    *tally.0.entry("nodes").or_default() += site.hosts.len() as u64;
                    // Once in thousands of runs there is nothing to strike: no link to cut, say.
                    let idle = site.plan.faults.iter().filter(|fault| !site.tally.0.contains_key(fault.name())).count();
                    *tally.0.entry("faults that found nothing to strike").or_default() += idle as u64;
                    None
                }
                Err(failure) => Some(failure.why),
            };
            if let Some(why) = why {
                println!("failed: seed {seed}: {why}");
                failed.lock().expect("no worker panics").push((seed, why));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| quietly(work));
        scope.spawn(|| quietly(work));
    });
    let (runs, mut failed) = (done.into_inner(), failed.into_inner().expect("no worker panics"));
    failed.sort();
    match failed.first() {
        Some((seed, why)) => {
            let short = site::shortest(*seed);
            let again = format!("CBDDC_SIM_SEED={seed} cargo sim-replay");
            Err(format!(
                "{} of {} runs failed; seed {seed}: {why}\nshortest story:\n{}=> {}\nthe whole story: {again}",
                failed.len(),
                runs + failed.len() as u64,
                short.story,
                short.why
            ))
        }
        None => Ok((runs, tally.into_inner().expect("no worker panics"))),
    }
}
