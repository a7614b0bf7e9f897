//! The hazards that are known, each as the shortest story that shows it. Nothing here is drawn by chance except the
//! milliseconds of the network.

mod boards;
mod documents;
mod scene;

use boards::{cloned, failing_card, far_future, few_links, mesh, power_cut, rolled_back, visitor, votes, windows};
use documents::{expiry, hole, islands, late_member, lost_row, returns, sent, two_filled, unknown_member};

macro_rules! stories {
    ($($name:ident => $story:ident),* $(,)?) => {
        $(#[test] fn $name() { if let Err(why) = $story() { panic!("{why}") } })*
    };
}
stories! {
    a_cut_between_batches_leaves_no_hole_when_the_sender_dies => hole,
    a_deleted_document_stays_deleted_for_a_member_that_comes_late => late_member,
    a_member_that_somebody_did_not_know_is_a_newcomer => unknown_member,
    two_filled_nodes_that_were_alone_become_one => two_filled,
    two_islands_with_a_node_between_them_become_one => islands,
    a_write_that_was_sent_and_not_confirmed_does_not_beat_its_delete => sent,
    a_card_that_was_rolled_back_takes_a_new_identity => rolled_back,
    two_cards_cloned_from_one_part => cloned,
    what_is_answered_survives_the_power_cut_at_that_instant => power_cut,
    four_boxes_at_their_build_date_follow_the_one_that_knows_the_time => votes,
    a_stamp_from_the_far_future_freezes_no_key => far_future,
    more_members_than_links_never_split => few_links,
    a_visitor_is_not_tracked => visitor,
    one_write_does_not_cross_a_mesh_many_times => mesh,
    an_expired_document_does_not_uncover_an_older_one => expiry,
    small_windows_in_both_directions_do_not_stall => windows,
    a_failing_card_confirms_nothing_that_is_not_on_it => failing_card,
    an_untracked_node_that_returns_is_a_member_again => returns,
    a_row_that_a_card_lost_in_silence_comes_back_from_a_peer => lost_row,
}
