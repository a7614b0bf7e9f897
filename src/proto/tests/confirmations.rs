//! Who is known to have a write on disk, and whom this node has yet to meet.

use super::*;
use crate::proto::Standing;
use crate::proto::tests::members::{decided, record};
use crate::wire::{Confirm, RelayedConfirmation};

fn confirm(vector: VersionVector, relayed: Vec<RelayedConfirmation>) -> Message {
    Message::Confirm(Confirm { stream: 0, upto: 0, vector, relayed })
}
fn names(desk: &Desk, seq: Seq) -> Vec<NodeId> {
    desk.engine.confirmed_by(Dot { origin: replica(1), seq })
}

#[test]
fn a_write_is_confirmed_by_whoever_says_so_and_by_whom_others_tell_of() {
    let mut desk = Desk::new();
    desk.meet(1, hello(2));
    let mut of_three = hello(3);
    of_three.members = alloc::vec![crate::wire::MemberNote { device: device(4), node_id: name(4) }];
    desk.meet(2, of_three);
    desk.write(2);
    assert_eq!(names(&desk, 1), []);
    let revision = desk.engine.confirmations();
    desk.say(1, confirm(covering(&[(1, 1)]), Vec::new()));
    assert_eq!((names(&desk, 1), names(&desk, 2)), (alloc::vec![name(2)], Vec::new()));
    assert!(desk.engine.confirmations() > revision, "whoever waits is woken");
    // Four has no link to this node.
    let relayed = RelayedConfirmation { device: device(4), replica: replica(4), vector: covering(&[(1, 2)]) };
    desk.say(2, confirm(VersionVector::new(), alloc::vec![relayed]));
    assert_eq!((names(&desk, 1), names(&desk, 2)), (alloc::vec![name(2), name(4)], alloc::vec![name(4)]));
}

#[test]
fn what_one_peer_confirms_the_others_hear_of_although_nothing_is_written_any_more() {
    let mut desk = Desk::new();
    for number in 2..10 {
        desk.meet(u64::from(number), hello(number));
    }
    desk.write(1);
    desk.wait(1_000);
    let told = |outputs: &[Output], to: u64| -> Vec<DeviceId> {
        let confirms = sends(outputs).into_iter().filter_map(|(link, message)| match message {
            Message::Confirm(confirm) if link == to => Some(confirm.relayed.clone()),
            _ => None,
        });
        confirms.flatten().map(|relayed| relayed.device).collect()
    };
    desk.say(2, confirm(covering(&[(1, 1)]), Vec::new()));
    let outputs = desk.wait(250);
    assert!(told(&outputs, 3).contains(&device(2)));
    let knows = told(&outputs, 2);
    assert!(!knows.contains(&device(2)), "it knows: {knows:?}");
    let heard: Vec<DeviceId> = (0..5).flat_map(|_| told(&desk.wait(250), 9)).collect();
    assert!(heard.len() <= 8, "each once, a few at a time: {heard:?}");
    assert_eq!(told(&desk.wait(10_000), 9), [], "a quiet site says nothing");
}

#[test]
fn visitors_and_retired_members_confirm_nothing() {
    let mut desk = Desk::new();
    let mut laptop = hello(2);
    laptop.visitor = true;
    desk.meet(1, laptop);
    desk.meet(2, hello(3));
    desk.write(1);
    desk.say(1, confirm(covering(&[(1, 1)]), Vec::new()));
    desk.say(2, confirm(covering(&[(1, 1)]), Vec::new()));
    assert_eq!(names(&desk, 1), [name(3)]);
    let revision = desk.engine.confirmations();
    decided(&mut desk, record(3, Standing::Untracked));
    assert_eq!(names(&desk, 1), []);
    assert!(desk.engine.confirmations() > revision);
}

#[test]
fn a_peer_that_is_heard_with_another_state_is_yet_to_be_met() {
    let mut desk = Desk::with(|settings| settings.discovery = true);
    assert!(desk.engine.is_looking_around(desk.now), "nobody was heard yet, and it is early");
    desk.hear(2, &beacon(2, 0));
    assert!(!desk.engine.is_looking_around(desk.now));
    assert_eq!(desk.engine.to_be_met(desk.now), [address(2)]);
    desk.meet(1, hello(2));
    assert_eq!(desk.engine.to_be_met(desk.now), []);
    let mut same = beacon(3, 0);
    same.state = cluster_key().state_tag(&desk.engine.knowledge().vector, desk.engine.knowledge().digest);
    desk.hear(3, &same);
    assert_eq!(desk.engine.to_be_met(desk.now), [], "it has nothing that this node lacks");
}

#[test]
fn a_node_that_hears_nobody_stops_looking_around_after_one_interval() {
    let mut desk = Desk::with(|settings| settings.discovery = true);
    desk.wait(4_999);
    assert!(desk.engine.is_looking_around(desk.now));
    desk.wait(1);
    assert!(!desk.engine.is_looking_around(desk.now));
}

#[test]
fn a_fixed_peer_is_looked_for_until_it_was_tried_once() {
    let mut desk = Desk::with(|settings| settings.fixed_peers = 1);
    desk.wait(1);
    assert!(desk.engine.is_looking_around(desk.now));
    desk.drive(Input::DialFailed { target: Target::Fixed(0), failure: crate::proto::DialFailure::Refused });
    assert!(!desk.engine.is_looking_around(desk.now));
}
