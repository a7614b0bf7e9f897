//! The simulation: many nodes, virtual time, cruel luck. Only the pure half of the crate is used.
//!
//! `rules` searches the rules of `replica` alone; the ledger judges.
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

/// A number from the environment.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn search_rules() {
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

/// Runs sites; gives their counts, or the failing seed with its story.
fn search_sites(first: u64, count: u64, seconds: Option<u64>) -> Result<(u64, rules::Tally), String> {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    let began = std::time::Instant::now();
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    let (tally, failed) = (Mutex::new(rules::Tally::default()), Mutex::new(None::<(u64, String)>));
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let over = match seconds {
                Some(seconds) => began.elapsed().as_secs() >= seconds,
                None => seed >= first + count,
            };
            if over || failed.lock().expect("no worker panics").is_some() {
                break;
            }
            match site::run(seed, None, false) {
                Ok(site) => {
                    done.fetch_add(1, Ordering::Relaxed);
                    let mut tally = tally.lock().expect("no worker panics");
                    tally.add(&site.tally);
                    *tally.0.entry("operations").or_default() += site.operations;
                    *tally.0.entry("nodes").or_default() += site.hosts.len() as u64;
                    for fault in &site.plan.faults {
                        if !site.tally.0.contains_key(fault.name()) {
                            // Nothing was there to strike: no link to cut, say.
                            *tally.0.entry("planned and found nothing to strike").or_default() += 1;
                        }
                    }
                }
                Err(failure) => *failed.lock().expect("no worker panics") = Some((seed, failure.why)),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(worker);
        scope.spawn(worker);
    });
    match failed.into_inner().expect("no worker panics") {
        Some((seed, why)) => {
            let short = site::shortest(seed);
            Err(format!("seed {seed}: {why}\nshortest story:\n{}=> {}", short.story, short.why))
        }
        None => Ok((done.into_inner(), tally.into_inner().expect("no worker panics"))),
    }
}

/// Whole sites. `CBDDC_SIM_SEED` replays one seed; with `CBDDC_SIM_SECONDS` it is the first of as many as fit.
#[test]
fn search() {
    std::panic::set_hook(Box::new(|_| {}));
    let began = std::time::Instant::now();
    let (seed, seconds) = (setting("CBDDC_SIM_SEED"), setting("CBDDC_SIM_SECONDS"));
    let count = match (seed, seconds) {
        (Some(_), None) => setting("CBDDC_SIM_RUNS").unwrap_or(1),
        _ => setting("CBDDC_SIM_RUNS").unwrap_or(300),
    };
    let outcome = search_sites(seed.unwrap_or(0), count, seconds);
    drop(std::panic::take_hook());
    match outcome {
        Ok((runs, tally)) => {
            let rate = runs as f64 / began.elapsed().as_secs_f64();
            println!("{runs} runs of sites, {rate:.0} a second\n{}", tally.lines());
        }
        Err(text) => panic!("{text}"),
    }
}
