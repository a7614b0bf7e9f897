//! What may be said on a link, in which order, and what ends it. Whose rows go where is in `streams`.

use super::*;
use crate::proto::Undrained;
use crate::wire::{Ping, Pong};

#[test]
fn an_input_before_the_outputs_are_drained_is_an_error_and_changes_nothing() {
    let mut desk = Desk::new();
    let linked = |link| {
        let (device, address) = (device(2), address(2));
        Input::Linked { link: LinkId(link), device, address, dialled: None }
    };
    desk.engine.handle(desk.now, linked(1)).expect("nothing waits");
    assert_eq!(desk.engine.handle(desk.now, linked(2)), Err(Undrained));
    desk.drain();
    assert!(desk.say(2, Message::Hello(hello(2))).is_empty(), "the second link is not known");
    assert!(has_event(&desk.say(1, Message::Hello(hello(2))), |event| matches!(event, Event::Linked { .. })));
}

#[test]
fn the_first_message_on_a_link_is_hello() {
    let mut desk = Desk::new();
    let outputs = desk.link(1, 2, None);
    let [(1, Message::Hello(said))] = sends(&outputs)[..] else { panic!("{outputs:?}") };
    assert_eq!((&said.node_id, said.replica), (&name(1), desk.knowledge.replica));
}

#[test]
fn a_message_before_hello_costs_that_link_and_no_other() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    desk.link(2, 3, None);
    let outputs = desk.say(2, Message::Ping(Ping { nonce: 1, clock: hello(3).clock }));
    assert!(matches!(byes(&outputs)[..], [(2, Bye::Protocol(_))]) && is_closed(&outputs, 2));
    let outputs = desk.say(1, Message::Ping(Ping { nonce: 2, clock: hello(2).clock }));
    assert!(matches!(sends(&outputs)[..], [(1, Message::Pong(_))]));
}

#[test]
fn who_is_not_let_in_learns_the_reason_without_a_hello() {
    let mut desk = Desk::with(|settings| settings.fixed_peers = 1);
    desk.link(1, 2, Some(Target::Fixed(0)));
    let outputs = desk.say(1, Message::Bye(Bye::NotAMember));
    let reason = Some(Bye::NotAMember);
    assert!(has_event(&outputs, |event| *event == Event::Unlinked { node_id: None, reason: reason.clone() }));
    assert!(byes(&outputs).is_empty() && dials(&desk.wait(59_000)).is_empty());
}

/// The link that is kept by node `own` of two, when Hello comes on `first` before `second`.
fn kept(own: u8, other: u8, dialled: u64, first: u64, second: u64) -> u64 {
    let mut desk = Desk::with(|settings| {
        (settings.node_id, settings.device, settings.instance) = (name(own), device(own), u64::from(own));
    });
    for link in [first, second] {
        desk.link(link, other, (link == dialled).then_some(Target::Heard(u64::from(other))));
    }
    desk.say(first, Message::Hello(hello(other)));
    let outputs = desk.say(second, Message::Hello(hello(other)));
    let [(gone, Bye::Duplicate)] = byes(&outputs)[..] else { panic!("{outputs:?}") };
    assert!(is_closed(&outputs, gone));
    if gone == first { second } else { first }
}

#[test]
fn of_two_links_that_cross_both_sides_keep_the_same_one() {
    // Link 12 was dialled by node 1, link 21 by node 2; Hellos come in any order on either side.
    for (first, second) in [(12, 21), (21, 12)] {
        assert_eq!(kept(1, 2, 12, first, second), 12);
        assert_eq!(kept(2, 1, 21, first, second), 12);
    }
}

#[test]
fn of_two_links_that_one_side_dialled_the_later_stays() {
    assert_eq!(kept(1, 2, 0, 5, 6), 6);
}

#[test]
fn the_link_of_a_peer_that_has_started_anew_takes_the_place_of_its_old_one() {
    let mut desk = Desk::new();
    desk.link(1, 2, Some(Target::Heard(2)));
    desk.say(1, Message::Hello(hello(2)));
    desk.link(2, 2, None);
    let mut again = hello(2);
    again.instance = 99;
    again.tokens.push(StartToken { token: 99, seq: 0, tail: 0 });
    assert_eq!(byes(&desk.say(2, Message::Hello(again))), [(1, Bye::Duplicate)]);
}

#[test]
fn a_known_name_with_another_key_is_refused() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    desk.link(2, 3, None);
    let mut impostor = hello(3);
    impostor.node_id = name(2);
    let outputs = desk.say(2, Message::Hello(impostor));
    assert_eq!(byes(&outputs), [(2, Bye::NameTaken)]);
    let named = |event: &Event| matches!(event, Event::Refused(refusal) if refusal.node_id == Some(name(2)) && refusal.device == device(3));
    assert!(has_event(&outputs, named));
    // It comes again: refused as before, and said once.
    desk.link(3, 3, None);
    let mut impostor = hello(3);
    impostor.node_id = name(2);
    let outputs = desk.say(3, Message::Hello(impostor));
    assert_eq!(byes(&outputs), [(3, Bye::NameTaken)]);
    assert!(!has_event(&outputs, named));
    desk.now.mono += 60_000;
    let refused = desk.engine.refused(desk.now);
    assert_eq!((refused.len(), refused[0].device, refused[0].age_ms), (1, device(3), 60_000));
    desk.now.mono += 300_000;
    assert!(desk.engine.refused(desk.now).is_empty(), "whoever does not come again is forgotten");
}

#[test]
fn a_refused_device_that_comes_under_a_free_name_is_no_longer_named() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let mut impostor = hello(3);
    impostor.node_id = name(2);
    desk.meet(2, impostor);
    assert_eq!(desk.engine.refused(desk.now).len(), 1);
    desk.meet(3, hello(3));
    assert!(desk.engine.refused(desk.now).is_empty());
}

#[test]
fn whoever_refuses_this_node_is_named_until_it_takes_it_in() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let outputs = desk.say(1, Message::Bye(Bye::NameTaken));
    let named = |event: &Event| matches!(event, Event::RefusedBy(refusal) if refusal.node_id == Some(name(2)));
    assert!(has_event(&outputs, named));
    desk.meet(2, hello(2));
    assert!(!has_event(&desk.say(2, Message::Bye(Bye::NameTaken)), named), "said once");
    assert_eq!(desk.engine.refused_by(desk.now)[0].reason, Bye::NameTaken);
    // A Hello is said to everybody; a Pull to members alone.
    desk.meet(3, hello(2));
    assert_eq!(desk.engine.refused_by(desk.now).len(), 1);
    let pull = Pull {
        stream: 1,
        of: desk.knowledge.replica,
        mode: crate::wire::Mode::Increment,
        after: 0,
        vector: covering(&[]),
    };
    desk.say(3, Message::Pull(pull));
    assert!(desk.engine.refused_by(desk.now).is_empty());
}

#[test]
fn a_device_that_a_record_admits_is_dialled_without_waiting() {
    let mut desk = Desk::with(|settings| settings.discovery = true);
    desk.meet(1, hello(2));
    desk.hear(3, &beacon(3, 1));
    desk.wait(4_000);
    let mut impostor = hello(3);
    impostor.node_id = name(2);
    let target = Target::Heard(3);
    desk.link(2, 3, Some(target));
    desk.say(2, Message::Hello(impostor));
    assert!(dials(&desk.wait(1)).is_empty(), "it was refused: later");
    let record = |number, standing| members::record(number, standing);
    desk.records = alloc::vec![record(2, crate::proto::Standing::Replaced), record(3, crate::proto::Standing::Tracked)];
    let mut outputs = members::decided(&mut desk, record(9, crate::proto::Standing::Untracked));
    outputs.extend(desk.wait(1));
    assert_eq!(dials(&outputs).iter().map(|(target, _)| *target).collect::<Vec<_>>(), [target]);
}

#[test]
fn this_nodes_own_name_with_another_key_is_refused() {
    let mut desk = Desk::new();
    let mut impostor = hello(2);
    impostor.node_id = name(1);
    assert_eq!(byes(&desk.meet(1, impostor)), [(1, Bye::NameTaken)]);
}

#[test]
fn without_a_protocol_version_in_common_the_link_ends_and_is_left_alone_for_a_minute() {
    let mut desk = Desk::with(|settings| settings.fixed_peers = 1);
    desk.link(1, 2, Some(Target::Fixed(0)));
    let mut later = hello(2);
    (later.version_min, later.version_max) = (7, 9);
    assert_eq!(byes(&desk.say(1, Message::Hello(later))), [(1, Bye::Version)]);

    let mut desk = Desk::with(|settings| settings.fixed_peers = 1);
    desk.link(1, 2, Some(Target::Fixed(0)));
    desk.say(1, Message::Bye(Bye::Version));
    assert!(dials(&desk.wait(59_000)).is_empty());
    assert_eq!(dials(&desk.wait(2_000)).len(), 1);
}

#[test]
fn a_quiet_link_is_pinged_and_then_given_up() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    assert!(sends(&desk.wait(4_000)).iter().all(|(_, message)| !matches!(message, Message::Ping(_))));
    let outputs = desk.wait(1_000);
    assert!(sends(&outputs).iter().any(|(_, message)| matches!(message, Message::Ping(_))));
    assert!(byes(&desk.wait(14_000)).is_empty());
    let outputs = desk.wait(1_000);
    assert_eq!(byes(&outputs), [(1, Bye::Silent)]);
    assert!(is_closed(&outputs, 1) && !desk.engine.peers(desk.now)[0].linked);
}

#[test]
fn a_link_that_is_answered_stays() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    for _ in 0..10 {
        let outputs = desk.wait(5_000);
        let nonce = sends(&outputs).iter().find_map(|(_, message)| match message {
            Message::Ping(ping) => Some(ping.nonce),
            _ => None,
        });
        desk.now.mono += 7;
        desk.say(1, Message::Pong(Pong { nonce: nonce.expect("it is due"), clock: hello(2).clock }));
    }
    assert_eq!(desk.engine.peers(desk.now)[0].round_trip_ms, Some(7));
}

#[test]
fn a_ping_is_answered_with_its_number() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let outputs = desk.say(1, Message::Ping(Ping { nonce: 77, clock: hello(2).clock }));
    assert!(matches!(sends(&outputs)[..], [(1, Message::Pong(Pong { nonce: 77, .. }))]));
}

#[test]
fn a_link_whose_peer_never_says_hello_is_given_up() {
    let mut desk = Desk::new();
    desk.link(1, 2, None);
    assert!(byes(&desk.wait(9_000)).is_empty());
    assert_eq!(byes(&desk.wait(1_000)), [(1, Bye::Silent)]);
}

#[test]
fn a_peer_that_claims_less_of_itself_than_is_known_is_told_so() {
    let mut desk = Desk::new();
    desk.knowledge.vector = covering(&[(2, 5)]);
    desk.knowledge.version += 1;
    desk.write(1);
    let outputs = desk.meet(1, hello_with_rows(2, 3));
    assert_eq!(byes(&outputs), [(1, Bye::Forked { common: None })]);
    assert!(has_event(&outputs, |event| matches!(event, Event::PeerForked { .. })));
}

#[test]
fn who_is_told_that_it_has_forked_takes_a_new_identity_before_anything_else() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let outputs = desk.say(1, Message::Bye(Bye::Forked { common: Some(1) }));
    let asked = stores(&outputs);
    assert!(asked.iter().any(|(_, request)| matches!(request, Request::Fork { shared: 0, .. })));
    // A peer that cries wolf does not make it change its identity all the time.
    desk.meet(2, hello(3));
    let outputs = desk.say(2, Message::Bye(Bye::Forked { common: None }));
    assert!(!stores(&outputs).iter().any(|(_, request)| matches!(request, Request::Fork { .. })));
}

#[test]
fn a_link_to_itself_ends() {
    let mut desk = Desk::new();
    desk.link(1, 1, None);
    let outputs = desk.say(1, Message::Hello(hello(1)));
    assert_eq!(byes(&outputs), [(1, Bye::Myself)]);
    assert!(!has_event(&outputs, |event| matches!(event, Event::DeviceCloned)));
}

#[test]
fn everybody_is_told_when_it_stops_and_nothing_follows() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    desk.meet(2, hello(3));
    assert_eq!(byes(&desk.drive(Input::Stop)), [(1, Bye::Stopping), (2, Bye::Stopping)]);
    assert!(desk.wait(60_000).is_empty());
    assert_eq!(byes(&desk.link(3, 4, None)), [(3, Bye::Stopping)]);
}
