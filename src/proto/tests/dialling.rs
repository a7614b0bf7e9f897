//! Who is heard, who is dialled, and when again.

use super::*;
use crate::proto::discovery::{Discovery, Learnt};
use crate::proto::io::DialFailure;
use crate::proto::links::{BACKOFF_CAP_MS, Dialler, PATIENCE_MS};
use crate::wire::BeaconError;

fn discovering() -> Desk {
    Desk::with(|settings| settings.discovery = true)
}
const fn at(mono: Millis) -> Now {
    Now { mono, wall: WALL, synchronised: true }
}

#[test]
fn the_time_between_two_dials_grows_and_is_capped() {
    let (mut dialler, mut rng) = (Dialler::default(), fastrand::Rng::with_seed(1));
    let (target, mut now) = (Target::Fixed(0), at(0));
    // The longest of many draws: each is jittered from nothing to its ceiling.
    let mut ceilings = [0; 24];
    for _ in 0..400 {
        dialler.succeeded(target);
        for ceiling in &mut ceilings {
            dialler.started(target);
            assert!(!dialler.may_dial(now, target), "it is being dialled");
            dialler.failed(now, target, &RetryPolicy::new(3, 1_000), &mut rng);
            let again = dialler.deadline(now).expect("it rests");
            *ceiling = (*ceiling).max(again - now.mono);
            now.mono = again;
        }
    }
    assert!(ceilings[0] < ceilings[2] && ceilings[2] < ceilings[4], "{ceilings:?}");
    assert!(ceilings[10] > BACKOFF_CAP_MS / 2 && ceilings.iter().all(|time| *time <= BACKOFF_CAP_MS + 250));
}

#[test]
fn a_link_in_session_forgets_the_failures_before_it() {
    let (mut dialler, mut rng) = (Dialler::default(), fastrand::Rng::with_seed(1));
    for _ in 0..10 {
        dialler.failed(at(0), Target::Fixed(0), &RetryPolicy::new(3, 1_000), &mut rng);
    }
    dialler.succeeded(Target::Fixed(0));
    assert!(dialler.may_dial(at(0), Target::Fixed(0)));
}

#[test]
fn who_dials_when_both_could_is_the_lower_replica_and_the_other_is_patient() {
    let mut lower = discovering();
    assert_eq!(dials(&lower.hear(2, &beacon(2, 0))), [(Target::Heard(2), alloc::vec![address(2)])]);

    let mut higher = Desk::with(|settings| {
        (settings.node_id, settings.device, settings.instance) = (name(3), device(3), 3);
        settings.discovery = true;
    });
    assert!(dials(&higher.hear(2, &beacon(2, 0))).is_empty());
    assert!(dials(&higher.wait(PATIENCE_MS - 1)).is_empty());
    assert_eq!(dials(&higher.wait(1)).len(), 1, "the other may be behind a firewall");
}

#[test]
fn a_newcomer_is_answered_with_a_beacon_within_half_a_second_and_who_is_known_is_not() {
    let mut desk = discovering();
    for _ in 0..4 {
        desk.wait(5_500);
    }
    let beacons = |outputs: &[Output]| outputs.iter().filter(|o| matches!(o, Output::Announce { .. })).count();
    let soon = |desk: &mut Desk, uptime| {
        let heard = desk.hear(2, &beacon(2, uptime));
        beacons(&heard) + (0..5).map(|_| beacons(&desk.wait(100))).sum::<usize>()
    };
    assert_eq!(soon(&mut desk, 0), 1);
    assert_eq!(soon(&mut desk, 500), 0);
}

#[test]
fn who_is_linked_is_not_dialled() {
    let mut desk = discovering();
    desk.meet(1, hello(2));
    assert!(dials(&desk.hear(2, &beacon(2, 0))).is_empty());
}

#[test]
fn a_dial_that_fails_is_tried_again_later() {
    let mut desk = discovering();
    desk.hear(2, &beacon(2, 0));
    let failed = Input::DialFailed { target: Target::Heard(2), failure: DialFailure::Refused };
    assert!(dials(&desk.drive(failed)).is_empty());
    let mut again = 0;
    for second in 1..=4 {
        let heard = desk.hear(2, &beacon(2, second * 1_000));
        again += dials(&heard).len() + dials(&desk.wait(1_000)).len();
    }
    assert_eq!(again, 1);
}

#[test]
fn a_node_that_is_silent_for_six_intervals_is_forgotten() {
    let mut discovery = Discovery::new(at(0));
    let bytes = cluster_key().seal(&beacon(2, 0));
    assert_eq!(discovery.learn(at(0), &[cluster_key()], 1, address(2), &bytes), Ok(Learnt::New(2)));
    discovery.forget(at(30_000), 5_000);
    assert_eq!(discovery.heard.len(), 1);
    discovery.forget(at(30_001), 5_000);
    assert!(discovery.heard.is_empty());
}

#[test]
fn a_node_with_a_new_address_is_dialled_there_first() {
    let mut discovery = Discovery::new(at(0));
    for (time, from) in [(0, 2), (1_000, 9)] {
        let bytes = cluster_key().seal(&beacon(2, time));
        discovery.learn(at(time), &[cluster_key()], 1, address(from), &bytes).expect("it is a member's");
    }
    assert_eq!(discovery.heard[&2].addresses(), [address(9), address(2)]);
    let bytes = cluster_key().seal(&beacon(2, 40_000));
    discovery.learn(at(40_000), &[cluster_key()], 1, address(9), &bytes).expect("it is a member's");
    discovery.forget(at(40_000), 5_000);
    assert_eq!(discovery.heard[&2].addresses(), [address(9)], "it does not speak from the old one any more");
}

#[test]
fn a_beacon_that_is_sent_again_by_somebody_else_is_ignored() {
    let mut discovery = Discovery::new(at(0));
    let (old, new) = (cluster_key().seal(&beacon(2, 1_000)), cluster_key().seal(&beacon(2, 6_000)));
    let mut learn = |time, from, bytes: &[u8]| discovery.learn(at(time), &[cluster_key()], 1, address(from), bytes);
    assert_eq!(learn(0, 2, &old), Ok(Learnt::New(2)));
    assert_eq!(learn(5_000, 2, &new), Ok(Learnt::Known(2)));
    assert_eq!(learn(6_000, 66, &old), Ok(Learnt::Replay));
    assert_eq!((discovery.heard[&2].addresses(), discovery.heard[&2].last), (alloc::vec![address(2)], 5_000));
}

#[test]
fn its_own_beacon_is_nobody() {
    let mut desk = discovering();
    assert!(dials(&desk.hear(1, &beacon(1, 0))).is_empty() && desk.engine.heard().is_empty());
}

#[test]
fn a_stranger_is_counted_each_time_and_said_once() {
    let mut desk = discovering();
    let stranger = BeaconKey::derive(&[8; 32]).seal(&beacon(2, 0)).to_vec();
    let said = |outputs: &[Output]| has_event(outputs, |event| matches!(event, Event::Stranger { .. }));
    let mut hear = |bytes: &[u8]| desk.drive(Input::Datagram { from: address(2), bytes: bytes.to_vec() });
    assert!(said(&hear(&stranger)));
    assert!(!said(&hear(&stranger)) && !said(&hear(&stranger)));
    assert!(said(&hear(b"something else")), "for another reason it is news");
    assert_eq!(desk.engine.strangers(), [(address(2).ip(), BeaconError::Foreign, 4)]);
    assert_eq!((desk.engine.counters().other_cluster, desk.engine.counters().foreign), (3, 1));
}

#[test]
fn a_beacon_under_an_older_key_of_the_cluster_is_a_members() {
    let mut desk = Desk::with(|settings| {
        settings.discovery = true;
        settings.keys = alloc::vec![BeaconKey::derive(&[9; 32]), cluster_key()];
    });
    assert_eq!(dials(&desk.hear(2, &beacon(2, 0))).len(), 1);
}

#[test]
fn beacons_are_spaced_out_as_the_site_grows() {
    assert_eq!(Discovery::interval(5_000, 3), 5_000);
    assert_eq!(Discovery::interval(5_000, 50), 25_000);
}

#[test]
fn nobody_is_dialled_beyond_the_bound_on_links() {
    let mut desk = Desk::with(|settings| (settings.discovery, settings.links_max) = (true, 2));
    desk.meet(1, hello(2));
    assert_eq!(dials(&desk.hear(3, &beacon(3, 0))).len(), 1);
    assert!(dials(&desk.hear(4, &beacon(4, 0))).is_empty());
}

#[test]
fn a_link_beyond_the_bound_is_told_that_there_is_no_slot() {
    let mut desk = Desk::with(|settings| settings.links_max = 2);
    for number in 2..4 {
        desk.meet(u64::from(number), hello(number));
    }
    assert_eq!(byes(&desk.meet(4, hello(4))), [(4, Bye::Rotated)]);
}

#[test]
fn fixed_peers_may_change_while_the_node_runs() {
    let mut desk = Desk::with(|settings| settings.fixed_peers = 2);
    let fixed = |outputs: &[Output]| dials(outputs).into_iter().map(|(target, _)| target).collect::<Vec<_>>();
    desk.wait(1);
    // The first goes, the second stays and is being dialled already, another comes.
    let outputs = desk.drive(Input::FixedPeers { numbers: alloc::vec![1, 2] });
    assert_eq!(fixed(&outputs), [Target::Fixed(2)]);
    for number in 0..3 {
        desk.drive(Input::DialFailed { target: Target::Fixed(number), failure: DialFailure::Refused });
    }
    let mut again: Vec<Target> = (0..200).flat_map(|_| fixed(&desk.wait(100))).collect();
    again.sort();
    again.dedup();
    assert_eq!(again, [Target::Fixed(1), Target::Fixed(2)], "whoever is gone is not dialled again");
}

#[test]
fn fixed_peers_are_dialled_by_number_and_again_after_a_failure() {
    let mut desk = Desk::with(|settings| settings.fixed_peers = 2);
    assert_eq!(dials(&desk.first), [(Target::Fixed(0), Vec::new()), (Target::Fixed(1), Vec::new())]);
    assert!(dials(&desk.wait(60_000)).is_empty(), "they are being dialled");
    desk.drive(Input::DialFailed { target: Target::Fixed(1), failure: DialFailure::NoSuchName });
    assert_eq!(dials(&desk.wait(3_000)), [(Target::Fixed(1), Vec::new())]);
}
