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
            for seed in 0..2 {
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

/// The sync of the folder in which SQLite has made a new log fails. SQLite does not look at that; the commit was answered,
/// and with the next cut the log had no name and was gone, with everything in it.
#[test]
fn a_log_whose_name_did_not_reach_the_disk_is_not_written_to() {
    for wal in [true, false] {
        for part in 1..=8 {
            let mut stage = Stage::new(wal, part);
            let only = Some(Call::SyncFolder);
            let failing = Failing { from: 0, count: 20 * part, only, fault: Fault::Io };
            stage.node.bed.plan(Plan { failing: Some(failing), ..Plan::default() });
            stage.node.hurt = true;
            if stage.node.start().is_err() {
                stage.node.bed.plan(Plan::default());
                assert_eq!(stage.node.start(), Ok(()), "wal {wal}, the first {} calls", 20 * part);
            }
            let request = stage.request(0..3, 100);
            assert_eq!(stage.ask(vec![request]), Ok(1));
            stage.node.cut(Cut { kept: 0, sector: 512, garbage: false });
            assert_eq!(stage.node.start(), Ok(()), "wal {wal}, the first {} calls", 20 * part);
            let checked = stage.ledger.check(&mut stage.node);
            assert_eq!(checked, Ok(()), "wal {wal}, the first {} calls", 20 * part);
        }
    }
}

/// An error struck the first start of a backup that had just been restored. The bed looked whether one had struck before
/// the start alone, and called a refusal that was right a fault of the store.
#[test]
fn an_error_that_strikes_a_start_is_known_to_have_struck() {
    for only in [Call::Open, Call::Read, Call::Sync] {
        let mut stage = Stage::new(true, 1);
        stage.node.start().unwrap();
        let request = stage.request(0..20, 700);
        stage.ask(vec![request]).unwrap();
        stage.node.backup(1).unwrap().unwrap();
        stage.node.restore().unwrap();
        let failing = Failing { from: 0, count: u64::MAX, only: Some(only), fault: Fault::Io };
        stage.node.bed.plan(Plan { failing: Some(failing), ..Plan::default() });
        assert!(!stage.node.hurt, "nothing has struck yet");
        assert!(stage.node.start().is_err(), "{only:?}");
        assert!(stage.node.hurt, "{only:?}");
        stage.node.bed.plan(Plan::default());
        assert_eq!(stage.node.start(), Ok(()), "{only:?}");
        assert_eq!(stage.ledger.check(&mut stage.node), Ok(()), "{only:?}");
    }
}

/// The switch to the write-ahead log writes the first page, in a transaction of its own that ends behind the answer "wal". Its
/// sync failed, and nobody heard of it: the node ran on with a rollback journal that was synced as a log is, so that a cut
/// brought the journal back and undid what was acknowledged.
#[test]
fn a_switch_to_the_log_that_the_disk_has_undone_is_no_switch() {
    for from in 0..140 {
        let mut stage = Stage::new(true, from);
        let failing = Failing { from, count: 1, only: None, fault: Fault::Io };
        stage.node.bed.plan(Plan { failing: Some(failing), ..Plan::default() });
        let started = stage.node.start();
        stage.node.bed.plan(Plan::default());
        if started.is_err() {
            assert_eq!(stage.node.start(), Ok(()), "from call {from}");
        }
        let request = stage.request(0..3, 100);
        assert_eq!(stage.ask(vec![request]), Ok(1), "from call {from}");
        let logged = stage.node.bed.lock().media.find("data/cbddc.db-wal").is_some();
        assert!(logged, "from call {from}: what is acknowledged stands in a log");
        stage.node.cut(Cut { kept: 0, sector: 512, garbage: false });
        assert_eq!(stage.node.start(), Ok(()), "from call {from}");
        let checked = stage.ledger.check(&mut stage.node);
        assert_eq!(checked, Ok(()), "from call {from}");
    }
}
