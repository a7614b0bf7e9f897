//! A disk with room for so many bytes and not one more: during writes, the checkpoint, the first start, a later one and a
//! migration.
//! What was answered is true, deletes make room again, and after a power cut nothing is missing.

use crate::bed::Plan;
use crate::errors::Stage;
use crate::ledger::Outcome;
use crate::media::Cut;

/// Steps of the sweep, each half a page.
const STEP: u64 = 2048;

/// What there is before the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Documents,
    /// The same, of an earlier release: the start migrates when there is no room.
    EarlierSchema,
}

/// Writes until it is full and beyond, with `room` bytes left; then there is room again.
fn filled(wal: bool, room: u64, before: Before) -> Outcome {
    let mut stage = Stage::new(wal, room);
    if before != Before::Nothing {
        stage.node.start()?;
        for part in 0..4 {
            let request = stage.request(part * 5..part * 5 + 7, 700);
            stage.ask(vec![request])?;
        }
        if before == Before::EarlierSchema {
            stage.stop_and_age()?;
        } else if room.is_multiple_of(3) {
            // The start, with its own writes, comes when there is no room.
            stage.node.kill();
        }
    }
    let capacity = stage.node.bed.lock().media.used() + room;
    stage.node.bed.plan(Plan { capacity: Some(capacity), ..Plan::default() });
    stage.node.hurt = true;
    if stage.node.store.is_none() {
        // With too little room it says so; it may not make anything worse.
        let _ = stage.node.start();
    }
    if stage.node.store.is_some() {
        let (mut stored, mut refused) = (0, 0);
        for part in 0..12 {
            let requests = (0..3).map(|n| stage.request(part * 4 + n..part * 4 + n + 3, 1500)).collect();
            let done = stage.ask(requests)?;
            stored += done;
            refused += 3 - done;
        }
        let used = stage.node.bed.lock().media.used();
        if used > capacity {
            return Err(format!("{used} bytes are used, {capacity} there are: the bed is wrong"));
        }
        if room < 24 * STEP && stored > 0 && refused == 0 {
            return Err(format!("it never became full: {stored} stored"));
        }
    }
    if room.is_multiple_of(2) {
        // The power goes while it is full.
        let mut random = fastrand::Rng::with_seed(room);
        stage.node.cut(Cut::drawn(&mut random));
    } else {
        let _ = stage.node.stop();
    }
    // There is room again.
    stage.node.bed.plan(Plan::default());
    stage.node.start().map_err(|why| format!("start with room again: {why}"))?;
    stage.ledger.check(&mut stage.node)?;
    let request = stage.request(30..31, 100);
    if stage.ask(vec![request])? == 0 {
        return Err("a write is refused although there is room again".into());
    }
    stage.node.cut(Cut { kept: 0, sector: 512, garbage: false });
    stage.node.start().map_err(|why| format!("start after the cut: {why}"))?;
    stage.ledger.check(&mut stage.node)
}

fn sweep(wal: bool) {
    // Pages, and one byte less: a sweep that only meets whole pages would miss writes that are torn by the end.
    let steps = if std::env::var_os("CBDDC_CUTS_THOROUGH").is_some() { 1 } else { 5 };
    for before in [Before::Documents, Before::EarlierSchema, Before::Nothing] {
        for room in (0..90 * STEP).step_by(STEP as usize / 2 * steps).flat_map(|room| [room, room + 1]) {
            if let Err(why) = filled(wal, room, before) {
                panic!("wal {wal}, room for {room} bytes, before: {before:?}: {why}");
            }
        }
    }
}

#[test]
fn a_full_disk_makes_no_answer_false_and_loses_nothing_with_a_write_ahead_log() {
    sweep(true);
}

#[test]
fn a_full_disk_makes_no_answer_false_and_loses_nothing_with_a_rollback_journal() {
    sweep(false);
}
