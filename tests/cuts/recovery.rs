//! The power goes, or a call fails, at any call of a recovery: a later start goes on with it, and what is carried over at
//! the end is what it would have been without.

use crate::bed::{Call, Failing, Fault, Plan};
use crate::errors::Stage;
use crate::ledger::{Outcome, request_of, rows};
use crate::media::Cut;
use crate::node::DATABASE;
use std::collections::BTreeMap;

const PAGE: usize = 4096;

/// What is broken, and what is there to mend it with.
#[derive(Debug, Clone, Copy)]
struct Scene {
    wal: bool,
    /// The last process was killed: rows stand in the log alone.
    log: bool,
    backup: bool,
}

const SCENES: [Scene; 4] = [
    Scene { wal: true, log: true, backup: false },
    Scene { wal: true, log: true, backup: true },
    Scene { wal: true, log: false, backup: true },
    Scene { wal: false, log: false, backup: false },
];

/// What strikes the recovery.
#[derive(Debug, Clone, Copy)]
enum Strike {
    /// The power goes at a call of this kind.
    Cut(Call),
    Fails(Fault, u64, Option<Call>),
}

/// With the calls between two of them: all that change names; of the many writes and reads, and of all calls that fail, some.
const STRIKES: [(Strike, usize); 9] = [
    (Strike::Cut(Call::Rename), 1),
    (Strike::Cut(Call::SyncFolder), 1),
    (Strike::Cut(Call::Delete), 1),
    (Strike::Cut(Call::Open), 1),
    (Strike::Cut(Call::Sync), 3),
    (Strike::Cut(Call::Write), 17),
    (Strike::Fails(Fault::Io, 1, None), 211),
    (Strike::Fails(Fault::Full, 1_000_000, Some(Call::Write)), 211),
    (Strike::Fails(Fault::Io, 1_000_000, Some(Call::Sync)), 307),
];

/// The request that each key was written by.
type Content = BTreeMap<String, Option<u64>>;

/// A node with documents, whose database cannot be opened any more, or has a broken page.
fn broken(scene: Scene) -> Result<Stage, String> {
    let mut stage = Stage::new(scene.wal, 7);
    stage.node.kept.recovers = true;
    stage.node.start()?;
    for part in 0..6 {
        let request = stage.request(part * 8..part * 8 + 9, 700);
        stage.ask(vec![request])?;
    }
    if scene.backup {
        stage.node.backup(1_700_000_000_000)?.map_err(|error| format!("backup: {error}"))?;
    }
    stage.node.stop()?;
    stage.node.start()?;
    let request = stage.request(20..24, 300);
    stage.ask(vec![request])?;
    if scene.log {
        stage.node.kill()
    } else {
        stage.node.stop()?
    }
    // A recovered database has another identity, rightly.
    stage.node.bootstrapping = true;
    let bed = std::sync::Arc::clone(&stage.node.bed);
    let media = &mut bed.lock().media;
    if scene.log {
        // The header stands in the log, too. A leaf of the rows does not; what was on it is gone.
        let bytes = media.bytes(media.find(DATABASE).ok_or("no database")?);
        let holds_rows = |page: &usize| {
            let page = &bytes[page * PAGE..(page + 1) * PAGE];
            page[0] == 13 && page.windows(4).filter(|four| four == b"key-").count() > 2
        };
        let leaves: Vec<usize> = (2..bytes.len() / PAGE).filter(holds_rows).collect();
        let leaf = *leaves.first().ok_or("no leaf")?;
        media.spoil(DATABASE, leaf * PAGE, &[0xa5; 64]);
    } else {
        // A log that a cut brings back would hide the damage, and rightly so: its removal is on the disk.
        media.sync_names(crate::media::folder(DATABASE));
        media.spoil(DATABASE, 16, &[0xff; 24]);
    }
    Ok(stage)
}

/// Everything that is there, by whom it was written; the structure, the sums and the marks of the recovery are looked at.
fn content(stage: &mut Stage) -> Result<Content, String> {
    stage.ledger.check(&mut stage.node)?;
    let (rows, _) = rows(&stage.node)?;
    let media = &stage.node.bed.lock().media;
    let stands = |suffix: &str| media.find(&format!("{DATABASE}{suffix}")).is_some();
    if stands(".recovering") || !stands(".incident") {
        return Err("the recovery has not come to its end, or nobody is told".into());
    }
    Ok(rows.iter().map(|row| (row.key.key.clone(), request_of(row))).collect())
}

/// A start that is struck at a call, and one that is not. Says whether the strike came before the end.
fn struck(scene: Scene, strike: Strike, at: u64, expected: &Content) -> Result<bool, String> {
    let mut stage = broken(scene)?;
    let plan = match strike {
        Strike::Cut(call) => Plan { cut_at: Some(at), cut_on: Some(call), ..Plan::default() },
        Strike::Fails(fault, count, only) => {
            Plan { failing: Some(Failing { from: at, count, only, fault }), ..Plan::default() }
        }
    };
    stage.node.bed.plan(plan);
    let started = stage.node.start();
    let came = match strike {
        Strike::Cut(_) => stage.node.is_dead(),
        Strike::Fails(..) => stage.node.bed.lock().calls > at,
    };
    if !at.is_multiple_of(2) && started.is_ok() {
        // The strike may come in the stop alone.
        let _ = stage.node.stop();
    }
    if at.is_multiple_of(2) || stage.node.is_dead() {
        let mut random = fastrand::Rng::with_seed(at);
        stage.node.cut(Cut::drawn(&mut random));
    }
    stage.node.bed.plan(Plan::default());
    let left = stage.node.bed.lock().media.list("data");
    stage.node.start().map_err(|why| format!("the start behind it: {why}; {left:?} was left"))?;
    let found = content(&mut stage)?;
    if found != *expected {
        let missing: Vec<_> = expected.iter().filter(|(key, by)| found.get(*key) != Some(by)).collect();
        return Err(format!("{} rows are there, {} were expected; other: {missing:?}", found.len(), expected.len()));
    }
    Ok(came)
}

fn every(scene: Scene, thorough: bool) -> Outcome {
    let mut stage = broken(scene)?;
    stage.node.start()?;
    let expected = content(&mut stage)?;
    let least = if scene.log && !scene.backup { 35 } else { 49 };
    if expected.len() < least || expected.values().filter(|by| **by == Some(7)).count() != 4 {
        return Err(format!("not all is carried over even undisturbed: {expected:?}"));
    }
    drop(stage);
    let mut times = 0;
    for (number, (strike, stride)) in STRIKES.into_iter().enumerate() {
        let stride = if thorough { stride.div_ceil(17) } else { stride };
        for at in (number as u64 * 3 % stride as u64..).step_by(stride) {
            match struck(scene, strike, at, &expected) {
                Ok(true) => times += 1,
                Ok(false) => break,
                Err(why) => return Err(format!("{scene:?}, {strike:?} at call {at}: {why}")),
            }
        }
    }
    println!("recovery: {scene:?}: {times} struck");
    Ok(())
}

#[test]
fn a_recovery_that_is_cut_off_or_meets_an_error_anywhere_is_finished_by_a_later_start_and_loses_nothing() {
    for scene in SCENES {
        assert_eq!(every(scene, crate::errors::is_thorough()), Ok(()));
    }
}
