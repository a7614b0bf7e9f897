//! What the search has found, each with its shortest course of events.

use crate::bed::{Call, Failing, Fault, Plan};
use crate::errors::Stage;

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
