//! Who counts as a member, what each is known to have, and lag.

use super::*;
use crate::proto::members::{MemberRecord, Members, Standing};
use crate::proto::{Client, PeerView};
use crate::row::Scope;
use crate::wire::{Confirm, RelayedConfirmation};

const fn at(mono: Millis) -> Now {
    Now { mono, wall: WALL, synchronised: true }
}
/// Members 2 and up, as storage remembers them, with what each has confirmed.
fn remembered(confirmed: &[VersionVector]) -> Members {
    let member = |(index, vector): (usize, &VersionVector)| {
        let number = index as u8 + 2;
        let mut member = MemberState::new(name(number), replica(number));
        (member.tracked, member.has_confirmed, member.confirmed) = (true, true, vector.clone());
        (device(number), member)
    };
    Members::new(confirmed.iter().enumerate().map(member).collect())
}
fn lag(members: &Members, mono: Millis, number: u8) -> Millis {
    members.lag_ms(at(mono), &members.by_device[&device(number)])
}
pub(super) fn record(number: u8, standing: Standing) -> Row {
    let body = Body::Live(MemberRecord { node_id: name(number), standing }.encode());
    Row { key: MemberRecord::key(&device(number)), body, ..row_of(1, 1, 0) }
}
fn meetings(outputs: &[Output]) -> Vec<Meeting> {
    let meeting = |(_, request)| if let Request::Meet(meeting) = request { Some(meeting) } else { None };
    stores(outputs).into_iter().filter_map(meeting).collect()
}
/// A record that storage has now, as it comes with a batch.
pub(super) fn decided(desk: &mut Desk, row: Row) -> Vec<Output> {
    desk.records.push(row);
    let write = Client::Write(alloc::vec![crate::replica::Write {
        key: RowKey { scope: Scope::System, collection: "other".into(), key: "k".into() },
        body: Body::Tombstone,
        expires_at: None,
        precondition: crate::replica::Precondition::None,
    }]);
    let outputs = desk.drive(Input::Client { client: 1, request: write });
    let ticket = stores(&outputs)[0].0;
    desk.stored(ticket, Reply::Written(Vec::new()))
}

#[test]
fn a_member_is_tracked_from_its_first_session_and_a_visitor_is_not() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let mut laptop = hello(3);
    laptop.visitor = true;
    assert_eq!(meetings(&desk.meet(2, laptop))[0].tracked, Some(false));
    let tracked: Vec<bool> = desk.engine.peers(desk.now).iter().map(|peer| peer.tracked).collect();
    assert_eq!(tracked, [true, false]);
}

#[test]
fn a_visitor_is_not_passed_on_and_a_member_is() {
    let mut desk = Desk::new();
    let mut laptop = hello(2);
    laptop.visitor = true;
    desk.meet(1, laptop);
    desk.meet(2, hello(3));
    let outputs = desk.link(3, 4, None);
    let [(3, Message::Hello(said))] = sends(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!(said.members.iter().map(|note| note.device).collect::<Vec<_>>(), [device(3)]);
}

#[test]
fn members_that_a_peer_tracks_are_tracked_here() {
    let mut desk = Desk::new();
    let mut said = hello(2);
    said.members.push(crate::wire::MemberNote { device: device(9), node_id: name(9) });
    let outputs = desk.meet(1, said);
    assert!(meetings(&outputs).iter().any(|meeting| meeting.device == device(9) && meeting.said.is_none()));
    let heard_of = |peer: &PeerView| peer.tracked && !peer.has_confirmed && peer.node_id == name(9);
    assert_eq!(desk.engine.peers(desk.now).iter().filter(|peer| heard_of(peer)).count(), 1);
}

#[test]
fn a_member_that_was_retired_and_comes_back_is_a_member_again() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    desk.drive(Input::Unlinked { link: LinkId(1) });
    decided(&mut desk, record(2, Standing::Untracked));
    assert!(!desk.engine.peers(desk.now)[0].tracked);
    let outputs = desk.meet(2, hello(2));
    assert!(byes(&outputs).is_empty(), "it is welcome");
    let written = stores(&outputs).into_iter().find_map(|(_, request)| match request {
        Request::Write { writes, sending: true } => Some(writes),
        _ => None,
    });
    let written = written.expect("a record for the whole site");
    assert_eq!(written[0].key, MemberRecord::key(&device(2)));
    let expected = MemberRecord { node_id: name(2), standing: Standing::Tracked };
    assert_eq!(written[0].body, Body::Live(expected.encode()));
}

#[test]
fn a_member_that_is_retired_with_its_link_open_is_cut_once_and_may_come_back() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    assert_eq!(byes(&decided(&mut desk, record(2, Standing::Untracked))), [(1, Bye::Untracked)]);
    let outputs = desk.meet(2, hello(2));
    assert!(byes(&outputs).is_empty());
    assert!(stores(&outputs).iter().any(|(_, request)| matches!(request, Request::Write { .. })), "a member again");
    // The record of its return is on its way to the disk; the one before is read once more.
    assert!(byes(&decided(&mut desk, record(9, Standing::Untracked))).is_empty());
}

#[test]
fn a_retired_visitor_that_comes_by_is_no_member() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    desk.drive(Input::Unlinked { link: LinkId(1) });
    decided(&mut desk, record(2, Standing::Untracked));
    let mut laptop = hello(2);
    laptop.visitor = true;
    let outputs = desk.meet(2, laptop);
    assert!(!stores(&outputs).iter().any(|(_, request)| matches!(request, Request::Write { .. })));
}

#[test]
fn a_device_that_was_replaced_or_revoked_is_refused_also_on_an_open_link() {
    for standing in [Standing::Replaced, Standing::Revoked] {
        let mut desk = Desk::new();
        desk.meet(1, hello(2));
        assert_eq!(byes(&decided(&mut desk, record(2, standing))), [(1, Bye::NotAMember)]);
        assert_eq!(byes(&desk.link(2, 2, None)), [(2, Bye::NotAMember)], "before it has said a word");
    }
}

#[test]
fn the_name_of_a_replaced_device_is_free_for_the_new_one() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    decided(&mut desk, record(2, Standing::Replaced));
    let mut successor = hello(3);
    successor.node_id = name(2);
    assert!(byes(&desk.meet(2, successor)).is_empty());
}

#[test]
fn replacing_a_device_is_two_records_for_the_whole_site() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let replace = Client::Replace { old: device(2), new: device(3) };
    let outputs = desk.drive(Input::Client { client: 5, request: replace });
    let asked = stores(&outputs);
    let [(_, Request::Write { writes, .. })] = &asked[..] else { panic!("{asked:?}") };
    let keys: Vec<&RowKey> = writes.iter().map(|write| &write.key).collect();
    assert_eq!(keys, [&MemberRecord::key(&device(2)), &MemberRecord::key(&device(3))]);
}

#[test]
fn a_new_replica_replaces_what_its_device_had_confirmed_also_downwards() {
    let mut members = remembered(&[covering(&[(1, 9)])]);
    let next = ReplicaId::mint(&[replica(2)], 0);
    members.confirm(&device(2), next, &covering(&[(1, 4)]), WALL);
    assert_eq!(members.by_device[&device(2)].state.confirmed, covering(&[(1, 4)]));
    members.confirm(&device(2), replica(2), &covering(&[(1, 9)]), WALL);
    assert_eq!(members.by_device[&device(2)].state.confirmed, covering(&[(1, 4)]), "of a life that is over");
}

#[test]
fn tombstones_wait_for_every_tracked_member_and_for_one_at_least() {
    let mut members = remembered(&[covering(&[(1, 9), (2, 1)]), covering(&[(1, 4)])]);
    assert_eq!(members.confirmed_by_all(), Some(covering(&[(1, 4)])));
    members.apply_records(&[record(3, Standing::Untracked)], &device(1));
    assert_eq!(members.confirmed_by_all(), Some(covering(&[(1, 9), (2, 1)])));
    assert_eq!(remembered(&[]).confirmed_by_all(), None);
}

#[test]
fn confirmations_of_others_are_passed_on_a_few_at_a_time() {
    let mut desk = Desk::new();
    for number in 2..10 {
        desk.meet(u64::from(number), hello(number));
    }
    desk.wait(1_000);
    for number in 3..10 {
        let vector = covering(&[(number, 1)]);
        let said = Confirm { stream: 0, upto: 0, vector, relayed: Vec::new() };
        desk.say(u64::from(number), Message::Confirm(said));
    }
    desk.write(1);
    let outputs = desk.wait(100);
    let to_two = sends(&outputs).into_iter().find_map(|(link, message)| match message {
        Message::Confirm(confirm) if link == 2 => Some(confirm.clone()),
        _ => None,
    });
    let relayed = to_two.expect("its vector has risen").relayed;
    assert_eq!(relayed.len(), crate::limits::RELAYED_CONFIRMATIONS_MAX);
    assert!(relayed.iter().all(|relayed| relayed.device != device(2) && relayed.device != device(1)));
}

#[test]
fn nobody_is_believed_about_this_node_or_about_the_speaker() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let about = |number| RelayedConfirmation {
        device: device(number),
        replica: ReplicaId::mint(&[replica(9)], 1),
        vector: covering(&[(1, 99)]),
    };
    let relayed = alloc::vec![about(1), about(2)];
    desk.say(1, Message::Confirm(Confirm { stream: 0, upto: 0, vector: VersionVector::new(), relayed }));
    assert_eq!(desk.engine.peers(desk.now)[0].replica, replica(2));
}

#[test]
fn an_idle_site_never_lags() {
    let mut members = remembered(&[covering(&[(1, 5)])]);
    members.checkpoint(at(0), &covering(&[(1, 5)]));
    assert_eq!(lag(&members, 10 * 86_400_000, 2), 0);
}

#[test]
fn lag_is_counted_from_the_oldest_change_that_is_not_confirmed() {
    let mut members = remembered(&[covering(&[(1, 1)])]);
    for (mono, seq) in [(0, 1), (1_000, 2), (5_000, 3), (9_000, 4)] {
        members.checkpoint(at(mono), &covering(&[(1, seq)]));
    }
    assert_eq!(lag(&members, 10_000, 2), 9_000);
    members.confirm(&device(2), replica(2), &covering(&[(1, 2)]), WALL);
    assert_eq!(lag(&members, 10_000, 2), 5_000);
    members.confirm(&device(2), replica(2), &covering(&[(1, 4)]), WALL);
    assert_eq!(lag(&members, 10_000, 2), 0);
}

#[test]
fn a_clock_step_makes_nobody_late() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    desk.write(1);
    desk.now.wall += 56 * 365 * 86_400_000;
    desk.wait(2_000);
    assert_eq!(desk.engine.peers(desk.now)[0].lag_ms, 2_000);
    desk.now.wall = 0;
    assert_eq!(desk.engine.peers(desk.now)[0].lag_ms, 2_000);
}

#[test]
fn after_a_restart_lag_counts_from_the_start() {
    let mut before = Desk::new();
    before.meet(1, hello(2));
    before.write(7);
    before.wait(3_600_000);
    let settings = before.engine.settings.clone();
    let mut desk = Desk::start(settings, before.knowledge, before.members);
    assert_eq!(desk.engine.peers(desk.now)[0].lag_ms, 0);
    desk.wait(4_000);
    assert_eq!(desk.engine.peers(desk.now)[0].lag_ms, 4_000);
}

#[test]
fn thinning_out_checkpoints_never_measures_lag_too_short() {
    let mut members = remembered(&[covering(&[(1, 1)])]);
    let stored: Vec<(Millis, Seq)> = (0..2_000).map(|step| (step * 300, step + 2)).collect();
    members.checkpoint(at(0), &covering(&[(1, 1)]));
    for (mono, seq) in &stored {
        members.checkpoint(at(*mono), &covering(&[(1, *seq)]));
    }
    let end = 2_000 * 300;
    for confirmed in [1, 2, 3, 500, 1_000, 1_500, 1_990, 2_000] {
        members.confirm(&device(2), replica(2), &covering(&[(1, confirmed)]), WALL);
        let (oldest, _) = stored.iter().find(|(_, seq)| *seq > confirmed).expect("there is a later one");
        let (measured, truth) = (lag(&members, end, 2), end - oldest);
        assert!(measured >= truth, "confirmed {confirmed}: {measured} ms, and it is {truth} ms");
    }
    members.confirm(&device(2), replica(2), &covering(&[(1, 2_001)]), WALL);
    assert_eq!(lag(&members, end, 2), 0);
}

#[test]
fn changes_within_a_quarter_second_are_not_measured_too_short() {
    let mut members = remembered(&[covering(&[(1, 1)])]);
    members.checkpoint(at(0), &covering(&[(1, 1)]));
    for mono in 1_000..1_200 {
        members.checkpoint(at(mono), &covering(&[(1, mono)]));
    }
    members.confirm(&device(2), replica(2), &covering(&[(1, 1_100)]), WALL);
    assert!(lag(&members, 5_000, 2) >= 5_000 - 1_101);
}

#[test]
fn what_the_site_has_decided_about_this_node_makes_it_no_member_of_itself() {
    let mut desk = Desk::new();
    decided(&mut desk, record(1, Standing::Tracked));
    assert!(desk.engine.peers(desk.now).is_empty());
}
