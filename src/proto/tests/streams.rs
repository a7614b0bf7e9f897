//! Whose rows go where: windows, turns, and what storage has to say before anybody else hears of it.

use super::*;
use crate::replica::{Applied, Batch};
use crate::wire::{Confirm, Mode};

/// Asks the node for its stream.
fn pull(desk: &mut Desk, link: u64) -> Vec<Output> {
    let (of, vector) = (desk.knowledge.replica, VersionVector::new());
    desk.say(link, Message::Pull(Pull { stream: 1, of, mode: Mode::Increment, after: 0, vector }))
}
/// Storage has read one own row of so many bytes.
fn batch(desk: &Desk, seq: Seq, bytes: usize, own: Seq) -> Batch {
    let rows = alloc::vec![row_of(1, seq, bytes)];
    Batch::Rows { rows, upto: seq, closure: None, own, knowledge: desk.knowledge.clone(), damaged: None }
}
fn confirm(upto: Seq) -> Message {
    Message::Confirm(Confirm { stream: 1, upto, vector: VersionVector::new(), relayed: Vec::new() })
}
fn applied() -> Reply {
    Reply::Applied(Applied::Applied { changed: Vec::new(), system: false, alarm: false, equal: false })
}
fn changes(stream: u32, number: u8, seq: Seq, closes: bool) -> Message {
    let (rows, closure) = (alloc::vec![row_of(number, seq, 10)], closes.then(|| closure_of(number, seq)));
    Message::Changes(Changes { stream, rows, upto: seq, closure })
}
fn applies(outputs: &[Output]) -> Vec<Ticket> {
    let applies = |(ticket, request)| matches!(request, Request::Apply(_)).then_some(ticket);
    stores(outputs).into_iter().filter_map(applies).collect()
}

#[test]
fn the_window_limits_what_is_in_flight() {
    let mut desk = Desk::new();
    (desk.knowledge.sent, desk.knowledge.tail) = (9, 9);
    desk.meet(1, hello(2));
    let mut next = reads(&pull(&mut desk, 1));
    let mut sent = 0;
    while let [(ticket, _)] = next[..] {
        sent += 1;
        let result = Ok(batch(&desk, sent, 4_000, 0));
        let outputs = desk.drive(Input::Streamed { ticket, result });
        assert_eq!(batches(&outputs).len(), 1);
        next = reads(&outputs);
    }
    assert_eq!(sent, 3, "the third batch fills the window of 10 000 bytes");
    assert!(reads(&desk.say(1, confirm(0))).is_empty());
    let outputs = desk.say(1, confirm(2));
    assert!(matches!(&reads(&outputs)[..], [(_, stream)] if stream.after == 3), "there is room again");
}

#[test]
fn rows_wait_until_they_are_durably_marked_as_sent() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let (ticket, _) = reads(&pull(&mut desk, 1)).remove(0);
    let result = Ok(batch(&desk, 1, 10, 1));
    let outputs = desk.drive(Input::Streamed { ticket, result });
    assert!(batches(&outputs).is_empty());
    let asked = stores(&outputs);
    let [(mark, Request::MarkSent { upto: 1 })] = asked[..] else { panic!("{asked:?}") };
    let outputs = desk.store_fails(mark);
    assert!(batches(&outputs).is_empty(), "it is not on disk");
    assert!(is_closed(&outputs, 1), "held for ever, nothing would follow");
}

#[test]
fn marked_rows_leave_as_soon_as_the_mark_is_on_disk() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let (ticket, _) = reads(&pull(&mut desk, 1)).remove(0);
    let result = Ok(batch(&desk, 1, 10, 1));
    let outputs = desk.drive(Input::Streamed { ticket, result });
    let (mark, _) = stores(&outputs).remove(0);
    desk.knowledge.sent = 1;
    desk.knowledge.version += 1;
    assert_eq!(batches(&desk.stored(mark, Reply::Marked)).len(), 1);
}

#[test]
fn a_pull_for_a_replica_that_this_node_no_longer_is_is_ignored() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let late = Pull { stream: 1, of: replica(77), mode: Mode::Increment, after: 0, vector: VersionVector::new() };
    assert!(desk.say(1, Message::Pull(late)).is_empty());
}

#[test]
fn a_batch_is_confirmed_when_storage_has_it_and_not_before() {
    let mut desk = Desk::new();
    let outputs = desk.meet(1, hello_with_rows(2, 1));
    let stream = pulls(&outputs)[0].1.stream;
    let outputs = desk.say(1, changes(stream, 2, 1, true));
    assert!(sends(&outputs).is_empty(), "nothing is on disk");
    let ticket = applies(&outputs)[0];
    desk.knowledge.vector = covering(&[(2, 1)]);
    desk.knowledge.version += 1;
    let outputs = desk.stored(ticket, applied());
    let confirms = sends(&outputs);
    assert!(
        matches!(confirms[..], [(1, Message::Confirm(confirm))] if confirm.upto == 1
            && confirm.vector == covering(&[(2, 1)])),
        "{confirms:?}"
    );
    assert!(has_event(&outputs, |event| matches!(event, Event::CaughtUp { .. })));
}

#[test]
fn a_batch_of_another_stream_number_is_ignored() {
    let mut desk = Desk::new();
    let stream = pulls(&desk.meet(1, hello_with_rows(2, 1)))[0].1.stream;
    assert!(desk.say(1, changes(stream + 1, 2, 1, true)).is_empty());
    assert_eq!(applies(&desk.say(1, changes(stream, 2, 1, true))).len(), 1);
}

#[test]
fn a_batch_that_storage_refuses_is_asked_for_again_and_the_link_stays() {
    let mut desk = Desk::new();
    let first = pulls(&desk.meet(1, hello_with_rows(2, 3))).remove(0).1;
    let ticket = applies(&desk.say(1, changes(first.stream, 2, 1, false)))[0];
    let outputs = desk.store_fails(ticket);
    assert!(!is_closed(&outputs, 1) && byes(&outputs).is_empty());
    assert!(has_event(&outputs, |event| matches!(event, Event::ApplyFailed { .. })));
    assert!(!sends(&outputs).iter().any(|(_, message)| matches!(message, Message::Confirm(_))));
    assert!(pulls(&desk.wait(400)).is_empty(), "not at once: there may be no room yet");
    let again = pulls(&desk.wait(200)).remove(0).1;
    assert_eq!((again.after, again.vector), (first.after, first.vector), "from where the rows are");
}

#[test]
fn a_node_far_behind_pulls_from_one_peer_at_a_time() {
    let mut desk = Desk::new();
    let stream = pulls(&desk.meet(1, hello_with_rows(2, 2)))[0].1.stream;
    assert!(pulls(&desk.meet(2, hello_with_rows(3, 2))).is_empty(), "it is the other one's turn");
    assert_eq!(desk.engine.catching_up_with(), [name(2), name(3)]);
    let ticket = applies(&desk.say(1, changes(stream, 2, 1, false)))[0];
    assert!(pulls(&desk.stored(ticket, applied())).is_empty(), "it is not at the tail");
    let ticket = applies(&desk.say(1, changes(stream, 2, 2, true)))[0];
    let outputs = desk.stored(ticket, applied());
    assert!(matches!(pulls(&outputs)[..], [(2, _)]), "the turn is over");
}

#[test]
fn who_has_nothing_new_needs_no_turn() {
    let mut desk = Desk::new();
    desk.meet(1, hello_with_rows(2, 2));
    assert_eq!(pulls(&desk.meet(2, hello(3))).len(), 1);
}

#[test]
fn a_turn_is_over_when_its_peer_stalls_or_leaves() {
    let mut desk = Desk::new();
    desk.meet(1, hello_with_rows(2, 2));
    desk.meet(2, hello_with_rows(3, 2));
    assert!(pulls(&desk.wait(9_000)).is_empty());
    let outputs = desk.wait(1_000);
    assert!(matches!(pulls(&outputs)[..], [(2, _)]));
    let outputs = desk.drive(Input::Unlinked { link: LinkId(2) });
    assert!(matches!(pulls(&outputs)[..], [(1, _)]), "and back");
}

#[test]
fn equal_vectors_and_digests_at_first_contact_need_no_scan() {
    let mut desk = Desk::new();
    desk.has_written(3);
    desk.knowledge.digest = 5;
    desk.write(4);
    let mut same = hello(2);
    (same.vector, same.digest, same.tail) = (desk.knowledge.vector.clone(), 5, 70);
    let outputs = desk.meet(1, same);
    assert!(matches!(&pulls(&outputs)[..], [(1, pull)] if pull.after == 70), "{outputs:?}");
}

/// A minute in which the peer says every second what it covers; the streams that it is asked for.
fn a_minute_of(desk: &mut Desk, vector: &VersionVector) -> Vec<Pull> {
    let mut asked = Vec::new();
    for _ in 0..60 {
        let said = Message::Confirm(Confirm { stream: 0, upto: 0, vector: vector.clone(), relayed: Vec::new() });
        let outputs = [desk.say(1, said), desk.wait(1_000)].concat();
        asked.extend(pulls(&outputs).into_iter().map(|(_, pull)| pull));
    }
    asked
}

#[test]
fn a_peer_that_came_to_cover_the_same_by_way_of_others_is_asked_for_its_digest() {
    let mut desk = Desk::new();
    let stream = pulls(&desk.meet(1, hello(2)))[0].1.stream;
    let ticket = applies(&desk.say(1, changes(stream, 2, 1, true)))[0];
    desk.knowledge.vector.join(&covering(&[(2, 1)]));
    desk.stored(ticket, applied());
    desk.write(4);
    let vector = desk.knowledge.vector.clone();
    assert!(matches!(&a_minute_of(&mut desk, &covering(&[(2, 1)]))[..], []), "it does not cover the same");
    let asked = a_minute_of(&mut desk, &vector);
    assert!(matches!(&asked[0], pull if pull.mode == Mode::Increment), "{asked:?}");
    let closure = crate::wire::Closure { vector: vector.clone(), ..closure_of(2, 1) };
    let said = Changes { stream: asked.last().unwrap().stream, rows: Vec::new(), upto: 1, closure: Some(closure) };
    let ticket = applies(&desk.say(1, Message::Changes(said)))[0];
    let equal = Applied::Applied { changed: Vec::new(), system: false, alarm: false, equal: true };
    desk.stored(ticket, Reply::Applied(equal));
    assert!(a_minute_of(&mut desk, &vector).is_empty(), "they have compared");
}

#[test]
fn a_difference_under_equal_vectors_is_an_alarm_and_a_reconciliation() {
    let mut desk = Desk::new();
    desk.write(4);
    let mut other = hello(2);
    (other.vector, other.digest, other.tail) = (desk.knowledge.vector.clone(), 999, 4);
    let outputs = desk.meet(1, other);
    assert!(has_event(&outputs, |event| matches!(event, Event::DigestsDiffer { .. })));
    let last = pulls(&outputs).pop().expect("it asks").1;
    assert_eq!((last.mode, last.after), (Mode::Reconcile, 0));
    assert_eq!(desk.engine.counters().alarms, 1);
}

#[test]
fn below_the_floor_of_a_peer_it_asks_for_a_bootstrap_and_for_nothing_else() {
    let mut desk = Desk::new();
    let mut far = hello_with_rows(2, 9);
    far.floor = covering(&[(2, 5)]);
    let outputs = desk.meet(1, far);
    assert!(has_event(&outputs, |event| matches!(event, Event::BootstrapStarted { .. })));
    assert!(matches!(&pulls(&outputs)[..], [(1, pull)] if pull.mode == Mode::Bootstrap && pull.after == 0));
    assert!(desk.engine.is_bootstrapping());
    assert!(pulls(&desk.meet(2, hello_with_rows(3, 2))).is_empty());
    let outputs = desk.drive(Input::Unlinked { link: LinkId(1) });
    assert!(!desk.engine.is_bootstrapping(), "a cut starts it again");
    assert!(matches!(pulls(&outputs)[..], [(2, _)]));
}

#[test]
fn a_bootstrap_that_storage_fails_leaves_no_other_peer_waiting() {
    let mut desk = Desk::new();
    desk.meet(1, hello_with_rows(3, 2));
    let mut far = hello_with_rows(2, 1);
    far.floor = covering(&[(2, 1)]);
    let stream = pulls(&desk.meet(2, far))[0].1.stream;
    let asked = stores(&desk.say(2, changes(stream, 2, 1, true)));
    let [(stage, Request::Stage { first: true, .. })] = asked[..] else { panic!("{asked:?}") };
    let asked = stores(&desk.stored(stage, Reply::Staged));
    let [(bootstrap, Request::Bootstrap { .. })] = asked[..] else { panic!("{asked:?}") };
    let outputs = desk.store_fails(bootstrap);
    assert!(is_closed(&outputs, 2) && !desk.engine.is_bootstrapping());
    assert!(matches!(pulls(&outputs)[..], [(1, _)]), "its stream was laid aside for the bootstrap");
}

#[test]
fn what_comes_behind_the_closure_of_a_bootstrap_starts_no_second_one() {
    let mut desk = Desk::new();
    let mut far = hello_with_rows(2, 1);
    far.floor = covering(&[(2, 1)]);
    let stream = pulls(&desk.meet(1, far))[0].1.stream;
    let [(first, Request::Stage { first: true, .. })] = stores(&desk.say(1, changes(stream, 2, 1, true)))[..] else {
        panic!("it stages what comes")
    };
    assert!(stores(&desk.say(1, changes(stream, 2, 2, true))).is_empty(), "the whole state is on its way already");
    assert!(matches!(stores(&desk.stored(first, Reply::Staged))[..], [(_, Request::Bootstrap { .. })]));
    // The stage is empty once the state is in force: put in force again, it would be all that this node has.
    assert!(stores(&desk.say(1, changes(stream, 2, 2, true))).is_empty());
}

#[test]
fn a_fork_that_storage_fails_leaves_nobody_waiting() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let asked = stores(&desk.say(1, Message::Bye(Bye::Forked { common: None })));
    let fork = asked.iter().find(|(_, request)| matches!(request, Request::Fork { .. })).expect("it is told").0;
    assert!(pulls(&desk.meet(2, hello_with_rows(3, 2))).is_empty(), "it is not known who asks");
    assert!(matches!(pulls(&desk.store_fails(fork))[..], [(2, _)]));
}

#[test]
fn what_was_sent_beyond_a_damaged_row_is_sent_again_once_the_stream_may_close() {
    let mut desk = Desk::new();
    (desk.knowledge.sent, desk.knowledge.tail, desk.knowledge.covered_upto) = (9, 9, 9);
    desk.knowledge.version += 1;
    // A member that is away: it may have the damaged row, so the stream may not close.
    desk.meet(2, hello(3));
    desk.drive(Input::Unlinked { link: LinkId(2) });
    desk.meet(1, hello(2));
    let (ticket, _) = reads(&pull(&mut desk, 1)).remove(0);
    let key = row_of(1, 2, 10).key;
    let damaged = crate::replica::Damaged { local_seq: 2, key: Some(key.clone()) };
    let Batch::Rows { rows, upto, closure, own, knowledge, .. } = batch(&desk, 1, 10, 0) else { unreachable!() };
    let result = Ok(Batch::Rows { rows, upto, closure, own, knowledge, damaged: Some(damaged) });
    let outputs = desk.drive(Input::Streamed { ticket, result });
    let asked = sends(&outputs).into_iter().find_map(|(_, message)| match message {
        Message::Fetch(fetch) => Some(fetch.nonce),
        _ => None,
    });
    let nonce = asked.expect("the peer is asked first");
    let nothing = crate::wire::Fetched { nonce, looked: 1, rows: Vec::new(), vector: VersionVector::new() };
    let repair = stores(&desk.say(1, Message::Fetched(nothing))).remove(0).0;
    let left = crate::replica::Repaired { left: alloc::vec![key.clone()], ..Default::default() };
    let (ticket, stream) = reads(&desk.stored(repair, Reply::Repaired(left))).remove(0);
    assert_eq!((stream.after, stream.passes_upto), (1, 2));
    let (rows, knowledge) = (alloc::vec![row_of(1, 3, 10)], desk.knowledge.clone());
    let closure = Some(closure_of(1, 9));
    let result = Ok(Batch::Rows { rows, upto: 9, closure, own: 0, knowledge, damaged: None });
    let outputs = desk.drive(Input::Streamed { ticket, result });
    assert!(matches!(&batches(&outputs)[..], [(1, batch)] if batch.upto == 1 && batch.closure.is_none()));

    // Somebody writes the key anew. Had the peer refused that batch, nothing in the next would tell it.
    let body = Body::Live(b"1".to_vec());
    let write = crate::replica::Write { key, body, expires_at: None, precondition: crate::replica::Precondition::None };
    let request = crate::proto::Client::Write(alloc::vec![write]);
    let ticket = stores(&desk.drive(Input::Client { client: 1, request })).remove(0).0;
    desk.has_written(10);
    let (stamp, origin) = (Stamp::new(WALL, 0), desk.knowledge.replica);
    let written = crate::replica::Written { stamp, origin, seq: 10, existed: true, changed: true };
    let next = reads(&desk.stored(ticket, Reply::Written(alloc::vec![Ok(written)])));
    assert!(matches!(next.last(), Some((_, stream)) if stream.after == 1 && stream.passes_upto == 0), "{next:?}");
}
