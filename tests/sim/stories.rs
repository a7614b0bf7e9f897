//! The hazards that are known, played by hand: each as a named test with its shortest story, on two to five disks where the rules suffice
//! (`disks`), with engines on a bench where links, timers and slow disks matter (`engines`).
//!
//! Nothing is drawn by chance here, and no judge watches: a story says itself what must hold. `hazards` tells some of the
//! same at whole sites, under the judge.
//!
//! With `--features mutants` each story is told once more for every planted bug that it is about, and must fail: a story
//! that passes then proves nothing. Some rules have no planted bug (`-` in the table that is printed).
//!
//! Not here, since they belong to the disk, to SQLite or to the encoding:
//!
//! | hazard | where |
//! |---|---|
//! | group commit and errors | `tests/store/damage.rs`, `tests/store/serving.rs` |
//! | a crash between counting and writing | one transaction does both: `tests/store/rules.rs` |
//! | `quick_check` misses a flipped value | `tests/store/damage.rs`: every read checks the row's checksum |
//! | a failed fsync, a backup over a live WAL, an interrupted `VACUUM INTO`, a long read transaction | `tests/store`, with the work on data that outlives the card |
//! | a bounded channel between threads | `tests/store/serving.rs` |
//! | Postcard is not self-describing | `tests/vectors/golden.rs` |

mod bench;
mod disks;
mod engines;
mod queue;
mod replica;

/// Makes each story a test, and a list of them with the planted bugs that each must notice.
macro_rules! hazards {
    ($($hazard:literal: $module:ident::$story:ident [$($mutant:ident),*];)*) => {
        $(#[test]
        fn $story() {
            $module::$story();
        })*

        #[cfg(feature = "mutants")]
        const HAZARDS: &[(&str, &str, fn(), &[cbddc::mutants::Mutant])] = &[
            $(($hazard, stringify!($story), $module::$story, &[$(cbddc::mutants::Mutant::$mutant),*]),)*
        ];
    };
}

hazards! {
    "weakening the vector's sentence": disks::a_vector_does_not_advance_over_rows_that_moved_to_the_tail [JoinAtEveryBatch];
    "cut between batches": disks::a_stream_that_is_cut_between_batches_goes_on_where_the_rows_are [CursorWithoutRows];
    "cut between batches": engines::a_link_that_is_cut_after_every_batch_makes_progress [CursorWithoutRows];
    "cut between batches": engines::a_bootstrap_that_is_cut_leaves_the_old_state_in_force [BootstrapInForceEarly];
    "a tombstone dropped too early": disks::a_tombstone_stays_until_every_member_has_it [DropBeforeMembersCover];
    "a tombstone dropped too early": disks::a_tombstone_that_is_not_covered_stays [DropAtOnceWithoutOwnCover];
    "a tombstone dropped too early": disks::a_node_that_missed_a_dropped_delete_is_a_newcomer [FloorNotRaised];
    "a tombstone dropped too early": disks::a_batch_of_a_node_that_fell_below_the_floor_is_refused [NoFloorCheckOnApply];
    "a tombstone dropped too early": disks::a_closure_above_a_floor_that_is_not_covered_joins_nothing [NoFloorCheckAtClosure];
    "a tombstone dropped too early": engines::below_the_floor_nothing_flows_but_the_bootstrap [NoFloorCheckAtHello];
    "a tombstone dropped too early": disks::an_expired_document_does_not_give_way_to_its_predecessor [ExpiryForgets];
    "known members differ": disks::a_member_that_somebody_did_not_know_is_saved_by_the_floor [FloorNotRaised];
    "a node alone": disks::a_node_alone_keeps_its_tombstones [DropWithoutMembers];
    "both newcomers": engines::of_two_newcomers_exactly_one_gives_way [];
    "a newcomer": disks::a_newcomer_becomes_a_new_replica [BootstrapKeepsReplica];
    "a newcomer": disks::a_newcomer_asks_everybody_for_everything_again [BootstrapKeepsCursors];
    "a newcomer": disks::what_a_newcomer_held_waits_in_the_recovered_store [BootstrapDropsUncovered];
    "two islands with a node between": disks::a_node_between_two_islands_makes_them_one [];
    "a restored backup": disks::a_restored_backup_does_not_bring_back_what_was_deleted_since [ForkGetsNewStamp];
    "sent, not confirmed": disks::a_write_that_was_sent_and_not_confirmed_is_not_written_again [SentNotMarked];
    "sent, not confirmed": disks::a_write_on_an_open_link_counts_as_sent_at_once [SentNotMarked];
    "sent, not confirmed": engines::sent_is_on_disk_before_the_bytes_leave [SentNotMarked];
    "a number used twice": disks::a_fork_does_not_claim_what_its_floor_names [ForkClaimsFloor];
    "a number used twice": disks::what_a_number_that_is_used_twice_hides_waits_in_the_recovered_store [];
    "a number used twice": engines::a_card_that_was_rolled_back_is_told_by_its_peer [ForkNotNoticed];
    "a number used twice": engines::two_boards_with_one_card_part [];
    "a number used twice": engines::a_difference_under_equal_vectors_is_mended [NoReconcile];
    "a number used twice": disks::a_delete_that_a_reconciliation_brought_reaches_everybody [ReconcileKeepsDot];
    "weakening the vector's sentence": engines::a_batch_that_waits_for_its_mark_keeps_its_place [BatchOvertakes];
    "weakening the vector's sentence": engines::a_batch_of_another_life_is_not_sent [BatchOfAnotherLife];
    "a number used twice": engines::who_finds_a_difference_tells_the_peer [NoReconcile];
    "confirm after fsync": engines::a_batch_is_confirmed_after_fsync [ConfirmBeforeSync];
    "confirm after fsync": engines::a_caller_is_answered_after_fsync [AnswerBeforeSync];
    "clocks that vote": engines::four_boxes_at_their_build_date_do_not_outvote_the_one_that_has_ntp [EveryClockVotes];
    "a wrong clock": disks::a_stamp_from_the_far_future_does_not_move_the_clock [FutureMovesClock];
    "a wrong clock": disks::a_write_stands_above_the_row_that_it_replaces [StampNotAboveRow];
    "a wrong clock": disks::a_clock_never_goes_back_over_a_restart [HlcNotPersisted];
    "a wrong clock": disks::equal_stamps_are_decided_alike_everywhere [TieKeepsOwn];
    "links at their bound": engines::groups_that_fill_each_others_slots_are_not_split [NoRotation];
    "automatic tracking": engines::a_visitor_that_left_is_no_concern_of_health [VisitorTracked];
    "every relay pushes at once": engines::a_write_crosses_a_full_mesh_once_for_each_node [RelayAtOnce];
    "full duplex, small windows": engines::full_duplex_with_windows_smaller_than_a_document_does_not_stall [];
    "a row that rots": engines::a_damaged_row_does_not_give_way_to_an_older_one [RepairTakesOlder];
    "a row that rots": engines::a_stream_does_not_close_over_a_damaged_row_before_every_member_was_asked [StreamPassesDamage];
    "a row that rots": engines::what_nobody_has_holds_nobody_up [];
    "a row that rots": engines::a_row_that_comes_where_a_damaged_one_stands_waits_for_the_answers [];
    "what has waited": queue::a_write_that_waited_does_not_replace_a_newer_one [QueuedIsBlind];
    "what has waited": queue::a_write_that_waited_longer_than_a_tombstone_is_new [QueuedKeepsStamp];
    "what is local": disks::a_local_row_never_leaves_the_node [LocalLeaves];
}

#[cfg(feature = "mutants")]
mod mutants {
    use super::HAZARDS;
    use cbddc::mutants::plant;
    use std::cell::Cell;
    use std::panic::{catch_unwind, set_hook, take_hook};
    use std::sync::Once;

    std::thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();

    /// Panics of this thread say nothing while a bug is planted; those of others are heard.
    fn hush(quiet: bool) {
        HOOK.call_once(|| {
            let before = take_hook();
            set_hook(Box::new(move |info| {
                if !QUIET.get() {
                    before(info);
                }
            }));
        });
        QUIET.set(quiet);
    }

    #[test]
    fn every_story_of_a_hazard_notices_when_its_rule_is_undone() {
        let mut toothless = Vec::new();
        println!("{:<32} {:<26} {:<7} story", "hazard", "mutant", "bites");
        for (hazard, name, story, mutants) in HAZARDS {
            for mutant in *mutants {
                hush(true);
                plant(Some(*mutant));
                let bites = catch_unwind(story).is_err();
                plant(None);
                hush(false);
                let word = if bites { "yes" } else { "NO" };
                println!("{hazard:<32} {:<26} {word:<7} {name}", format!("{mutant:?}"));
                if !bites {
                    toothless.push(format!("{mutant:?}: {name}"));
                }
            }
            if mutants.is_empty() {
                println!("{hazard:<32} {:<26} {:<7} {name}", "-", "-");
            }
        }
        assert!(toothless.is_empty(), "planted, and not noticed: {toothless:#?}");
    }

    #[test]
    fn every_mutant_has_a_hazard_with_a_story() {
        let (source, cuts) = (include_str!("../../src/mutants.rs"), include_str!("../cuts/mutants.rs"));
        let list = source.split_once("pub enum Mutant {").expect("the list of mutants").1;
        let names = list.split_once('}').expect("its end").0.split(',').map(str::trim).filter(|name| !name.is_empty());
        for name in names {
            let told = HAZARDS.iter().any(|(.., mutants)| mutants.iter().any(|mutant| format!("{mutant:?}") == name));
            // Those of the store are found with the real one, on a disk that forgets.
            let elsewhere = cuts.contains(&format!("Mutant::{name},"));
            assert!(told || elsewhere, "{name} is planted nowhere in the stories of the hazards");
        }
    }
}
