//! What the search has found, each with its shortest course of events.

use crate::bed::{Call, Failing, Fault, Plan};
use crate::errors::Stage;
use crate::media::Cut;

/// In rollback-journal mode a commit meets a full disk, and so does the rollback behind it: SQLite cannot read the
/// database until the journal has been played back. What the writing thread knew of the undone transaction could not be
/// read again and stayed; with room again the next write went on from numbers, digest and tail of rows that were never
/// stored.
#[test]
fn what_a_full_disk_has_undone_is_not_built_upon_when_even_the_rollback_finds_no_room() {
    for from in 0..120 {
        let mut stage = Stage::new(false, from);
        stage.node.start().unwrap();
        let request = stage.request(0..20, 700);
        stage.ask(vec![request]).unwrap();
        let failing = Failing { from, count: u64::MAX / 2, only: Some(Call::Write), fault: Fault::Full };
        stage.node.bed.plan(Plan { failing: Some(failing), ..Plan::default() });
        let request = stage.request(3..9, 900);
        stage.ask(vec![request]).unwrap();
        stage.node.bed.plan(Plan::default());
        let request = stage.request(30..31, 100);
        assert_eq!(stage.ask(vec![request]), Ok(1), "from call {from}");
        stage.node.hurt = true;
        let checked = stage.ledger.check(&mut stage.node);
        assert_eq!(checked, Ok(()), "from call {from}");
    }
}

/// The power goes while the very first start writes the first page, and of that page the disk keeps all but its beginning.
/// SQLite would have undone it by the journal beside it; but the store looked at the file first, found no database, and
/// refused every start from then on: a new device was lost to a cut in its first second.
#[test]
fn a_cut_at_any_call_of_the_first_start_leaves_a_device_that_starts() {
    for wal in [true, false] {
        for cut_at in 0..400 {
            let mut over = false;
            for seed in 0..4 {
                let mut stage = Stage::new(wal, seed);
                stage.node.bed.plan(Plan { cut_at: Some(cut_at), ..Plan::default() });
                // The cut is drawn by the bed: with the number of the call, so that each has others.
                let started = stage.node.start();
                over = !stage.node.is_dead() && started.is_ok();
                stage.node.cut(Cut { kept: 50, sector: 512, garbage: false });
                let again = stage.node.start();
                assert_eq!(again, Ok(()), "wal {wal}, cut at call {cut_at}, seed {seed}");
                assert_eq!(stage.ledger.check(&mut stage.node), Ok(()), "wal {wal}, cut at call {cut_at}, seed {seed}");
            }
            if over {
                break;
            }
        }
    }
}
