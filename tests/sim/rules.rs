//! The rules alone, searched at random: replicas that exchange batches as correct sessions would, without the state
//! machines that normally decide when.
//!
//! What a run does is drawn from its seed, one small seed for each step, so that a failing run can be shrunk by leaving
//! steps out. `CBDDC_SIM_SEED` replays one.

mod faults;
mod meeting;
pub mod session;
mod settle;
pub mod world;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

/// Why a run failed, and its story.
pub struct Failure {
    pub why: String,
    pub story: String,
}

/// The steps of a run: one small seed for each.
pub fn steps(seed: u64) -> Vec<u64> {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let length = rng.usize(20..220);
    (0..length).map(|_| rng.u64(..)).collect()
}

/// Runs these steps, then lets everybody exchange until quiet.
pub fn run(seed: u64, steps: &[u64], tell: bool) -> Result<World, Failure> {
    let mut world = World::new(seed, tell);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for step in steps {
            world.step(*step)?;
        }
        world.settle()
    }));
    let why = match outcome {
        Ok(Ok(())) => return Ok(world),
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            format!("panic: {}", text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into())).unwrap_or_default())
        }
    };
    Err(Failure { why, story: world.story })
}

/// The first sentence of a failure: what kind it is, for shrinking without changing the subject.
fn kind(why: &str) -> &str {
    why.split(':').next().unwrap_or(why)
}

/// The shortest story that leaving out steps finds.
pub fn shrink(seed: u64, why: &str) -> (Vec<u64>, Failure) {
    let mut kept = steps(seed);
    let fails = |steps: &[u64]| run(seed, steps, false).err().filter(|failure| kind(&failure.why) == kind(why));
    let mut chunk = kept.len().div_ceil(2);
    loop {
        let (mut at, mut shorter) = (0, false);
        while at < kept.len() {
            let mut without = kept.clone();
            without.drain(at..(at + chunk).min(kept.len()));
            if fails(&without).is_some() {
                kept = without;
                shorter = true;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 && !shorter {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    let failure = run(seed, &kept, true).err().expect("the kept steps fail");
    (kept, failure)
}

/// Runs seeds until one fails; gives its text.
pub fn search(seeds: std::ops::Range<u64>) -> Result<Tally, String> {
    let mut tally = Tally::default();
    for seed in seeds {
        match run(seed, &steps(seed), false) {
            Ok(world) => tally.add(&world.tally),
            Err(failure) => {
                let (kept, short) = shrink(seed, &failure.why);
                return Err(format!(
                    "seed {seed}: {}\nshortest story ({} steps):\n{}=> {}",
                    failure.why,
                    kept.len(),
                    short.story,
                    short.why
                ));
            }
        }
    }
    Ok(tally)
}

/// How often each thing happened.
#[derive(Debug, Default, Clone)]
pub struct Tally(pub std::collections::BTreeMap<&'static str, u64>);

impl Tally {
    pub fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
    pub fn add(&mut self, other: &Tally) {
        other.0.iter().for_each(|(what, times)| *self.0.entry(what).or_default() += times);
    }
    pub fn lines(&self) -> String {
        self.0.iter().fold(String::new(), |mut text, (what, times)| {
            let _ = writeln!(text, "  {what:<24} {times}");
            text
        })
    }
}
