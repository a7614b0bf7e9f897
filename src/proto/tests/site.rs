//! What members say of themselves: asked for, passed on, remembered with its age.

use super::*;
use crate::wire::{Ask, MemberNote, MemberReport, Report};

fn report_of(number: u8) -> MemberReport {
    MemberReport {
        device: device(number),
        node_id: name(number),
        release: "1.0.0".into(),
        replica: replica(number),
        health: 0,
        clock: ClockSample { millis: WALL + 5_000, synchronised: true },
        uptime_ms: 1,
        free_bytes: u64::from(number),
        database_bytes: 1,
        tracked: 1,
        linked: 1,
        lagging: 0,
        lag_ms: 0,
        queued: 0,
        recovered: 0,
    }
}
fn said(nonce: u64, age_ms: Millis, number: u8) -> Message {
    Message::Report(Report { nonce, age_ms, member: report_of(number) })
}
fn asks(outputs: &[Output]) -> Vec<(u64, Ask)> {
    let ask =
        |(link, message): (u64, &Message)| if let Message::Ask(ask) = message { Some((link, *ask)) } else { None };
    sends(outputs).into_iter().filter_map(ask).collect()
}
fn reports(outputs: &[Output]) -> Vec<(u64, Report)> {
    let report = |(link, message): (u64, &Message)| match message {
        Message::Report(report) => Some((link, report.clone())),
        _ => None,
    };
    sends(outputs).into_iter().filter_map(report).collect()
}
fn wanted(outputs: &[Output]) -> Vec<(u64, u64)> {
    let wants = |output: &Output| if let Output::Report { to, nonce } = output { Some((to.0, *nonce)) } else { None };
    outputs.iter().filter_map(wants).collect()
}
/// Node 1 with peers 2 and 3, and 4 behind 3.
fn site() -> Desk {
    let mut desk = Desk::new();
    let told = desk.meet(2, hello(2));
    assert_eq!(wanted(&told), [(2, 0)], "a peer is told at the start of a session");
    let mut third = hello(3);
    third.members = alloc::vec![MemberNote { device: device(4), node_id: name(4) }];
    desk.meet(3, third);
    desk
}

#[test]
fn a_question_of_this_node_goes_to_every_peer_and_the_answers_are_kept_with_their_age() {
    let mut desk = site();
    let asked = asks(&desk.drive(Input::AskSite));
    assert_eq!(asked.iter().map(|(link, _)| *link).collect::<Vec<_>>(), [2, 3]);
    let nonce = asked[0].1.nonce;
    let revision = desk.engine.site_revision();
    desk.say(3, said(nonce, 0, 3));
    desk.say(3, said(nonce, 90_000, 4));
    assert!(desk.engine.site_revision() > revision, "whoever waits is woken");
    desk.wait(1_000);
    let site = desk.engine.site(desk.now);
    assert_eq!((site[&device(3)].age_ms, site[&device(4)].age_ms), (1_000, 91_000));
    assert_eq!(site[&device(3)].clock_offset_ms, 5_000);
    assert!(!site.contains_key(&device(2)));
    // What is older does not replace what is newer.
    let mut older = report_of(3);
    older.free_bytes = 99;
    desk.say(2, Message::Report(Report { nonce: 0, age_ms: 500_000, member: older }));
    assert_eq!(desk.engine.site(desk.now)[&device(3)].report.free_bytes, 3);
}

#[test]
fn a_question_of_a_peer_is_answered_passed_on_and_answered_for_those_behind() {
    let mut desk = site();
    let outputs = desk.say(2, Message::Ask(Ask { nonce: 7, hops: 5 }));
    assert_eq!(wanted(&outputs), [(2, 7)]);
    assert_eq!(asks(&outputs), [(3, Ask { nonce: 7, hops: 4 })]);
    assert_eq!(wanted(&desk.say(3, Message::Ask(Ask { nonce: 7, hops: 3 }))), [], "it went round: once is enough");
    let own = desk.drive(Input::Report { to: LinkId(2), nonce: 7, report: report_of(1) });
    assert_eq!(reports(&own)[0].0, 2);
    let back = reports(&desk.say(3, said(7, 10, 4)));
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].0, back[0].1.age_ms, back[0].1.member.node_id.clone()), (2, 10, name(4)));
    assert_eq!(desk.engine.site(desk.now)[&device(4)].report.free_bytes, 4, "whoever passes it on keeps it, too");
    assert_eq!(asks(&desk.say(2, Message::Ask(Ask { nonce: 8, hops: 0 }))), [], "it has come far enough");
    // Long after, nobody waits for it any more.
    desk.wait(10_001);
    assert_eq!(reports(&desk.say(3, said(7, 0, 4))), []);
}

#[test]
fn whoever_asks_first_hand_is_told_of_those_who_have_gone() {
    let mut desk = site();
    desk.say(3, said(0, 0, 3));
    desk.drive(Input::Unlinked { link: LinkId(3) });
    desk.wait(60_000);
    desk.meet(5, hello(2));
    let told = reports(&desk.say(5, Message::Ask(Ask { nonce: 9, hops: 16 })));
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].1.member.node_id.clone(), told[0].1.age_ms), (name(3), 60_000));
    assert_eq!(reports(&desk.say(5, Message::Ask(Ask { nonce: 10, hops: 15 }))), [], "others would say it all again");
}

#[test]
fn strangers_own_reports_and_floods_change_nothing() {
    let mut desk = site();
    desk.say(2, said(0, 0, 1));
    assert!(desk.engine.site(desk.now).is_empty(), "nobody is believed about this node itself");
    let answered = |desk: &mut Desk, nonce| wanted(&desk.say(2, Message::Ask(Ask { nonce, hops: 1 }))).len();
    let count: usize = (100..300).map(|nonce| answered(&mut desk, nonce)).sum();
    assert_eq!(count, crate::limits::ASKS_MAX, "a peer that asks without end is not answered without end");
    let passed: usize = (0..3_000).map(|_| reports(&desk.say(3, said(100, 0, 4))).len()).sum();
    assert!(passed <= 4 * crate::limits::MEMBERS_MAX, "{passed}");
}

#[test]
fn a_member_that_comes_later_is_made_known_to_those_without_a_link_to_it() {
    let mut desk = site();
    let outputs = desk.say(2, said(0, 0, 9));
    assert_eq!(reports(&outputs).iter().map(|(link, _)| *link).collect::<Vec<_>>(), [3], "once, and not back");
    let known = |desk: &Desk| desk.engine.peers(desk.now).iter().any(|peer| peer.node_id == name(9) && peer.tracked);
    assert!(known(&desk));
    assert_eq!(reports(&desk.say(3, said(0, 5, 9))), [], "it is known by now");
    // A peer of its own is passed on when it says something for the first time, a visitor is not.
    let passed = reports(&desk.say(3, said(0, 0, 3)));
    assert_eq!(passed.iter().map(|(link, _)| *link).collect::<Vec<_>>(), [2]);
    let mut laptop = hello(5);
    laptop.visitor = true;
    desk.meet(5, laptop);
    assert_eq!(reports(&desk.say(5, said(0, 0, 5))), []);
}

#[test]
fn a_peer_is_told_again_after_a_while() {
    let mut desk = site();
    let later = desk.wait(1_000);
    assert_eq!(wanted(&later), []);
    let told: Vec<u64> = (0..70)
        .flat_map(|_| {
            desk.say(2, Message::Ping(crate::wire::Ping { nonce: 1, clock: hello(2).clock }));
            wanted(&desk.wait(10_000))
        })
        .map(|(link, _)| link)
        .collect();
    assert_eq!(told.iter().filter(|link| **link == 2).count(), 1, "{told:?}");
}
