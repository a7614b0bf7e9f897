//! Hazards that the rules alone show: two to five disks, led by hand.
//!
//! Each story is as short as it can be and tells itself in the comment above it. Time passes by ten milliseconds with
//! each write of a replica; no clock is wrong unless the story says so.

use super::replica::{NOON, Replica, exchange};
use cbddc::replica::{Applied, Newcomer, Request};
use cbddc::row::{Body, RowKey, Scope};
use cbddc::time::Reading;
use cbddc::wire::Mode;

fn replicas<const N: usize>() -> [Replica; N] {
    core::array::from_fn(|at| Replica::new(at as u8 + 1))
}

// S writes k1, which C takes; S writes k2, then k1 again, which moves to the tail. R takes k2 and the link is cut before
// the tail; S dies. If R's vector had advanced over what it passed, C would never give it k1: a hole for ever.
pub fn a_vector_does_not_advance_over_rows_that_moved_to_the_tail() {
    let [mut s, mut c, mut r] = replicas();
    s.put("k1", "old");
    c.take(&mut s);
    s.put("k2", "two");
    s.put("k1", "new");
    r.take_cut(&mut s, 1);
    exchange(&mut r, &mut c);
    assert_eq!(r.get("k1").as_deref(), Some("old"));
    assert_eq!(r.documents(), c.documents());
}

// S has two rows, R takes one, the link is cut, and both meet again: the cursor may only stand where rows are.
pub fn a_stream_that_is_cut_between_batches_goes_on_where_the_rows_are() {
    let [mut s, mut r] = replicas();
    s.put("k1", "one");
    s.put("k2", "two");
    r.take_cut(&mut s, 1);
    r.take(&mut s);
    assert_eq!(r.documents(), s.documents());
}

// A, B and C share x. A deletes it, B hears of it, C is away for a day. A may not drop the tombstone: C would come home
// as a newcomer.
pub fn a_tombstone_stays_until_every_member_has_it() {
    let [mut a, mut b, mut c] = replicas();
    a.put("x", "here");
    b.take(&mut a);
    c.take(&mut a);
    a.delete("x");
    b.take(&mut a);
    a.hear_confirmed(&b);
    assert_eq!(a.a_day_later().dropped, 0);
    assert_eq!(c.newcomer_at(&a), Newcomer::Neither, "it was away for a day, not for months");
    exchange(&mut a, &mut c);
    assert_eq!(c.get("x"), None);
}

// B deletes R's x. A takes the tombstone in a batch that is cut, so that it does not cover it, and B dies. Months later A
// drops the tombstone only if it covers it: with a floor that its own vector does not reach, whoever bootstraps from A is
// a newcomer at A again, for ever.
pub fn a_tombstone_that_is_not_covered_stays() {
    let [mut r, mut b, mut a, mut n] = replicas();
    r.put("x", "here");
    b.take(&mut r);
    b.delete("x");
    b.put("y", "beyond the cut");
    a.take_cut(&mut b, 1);
    a.months_later();
    n.bootstrap(&mut a);
    assert_eq!(n.newcomer_at(&a), Newcomer::Neither);
}

// A board alone on a bench writes, deletes, and is quiet for days; another likewise. They meet for the first time: had
// they dropped their tombstones, since nobody could lack them, each would be below the other's floor.
pub fn a_node_alone_keeps_its_tombstones() {
    let [mut a, mut b] = replicas();
    for node in [&mut a, &mut b] {
        node.put("draft", "mine");
        node.delete("draft");
        node.a_day_later();
    }
    a.put("a", "1");
    b.put("b", "2");
    assert_eq!(exchange(&mut a, &mut b), 0, "two filled nodes join without a bootstrap");
    assert_eq!(a.documents(), b.documents());
}

// R writes x. A takes it and deletes it. C hears of the delete and, months later, drops the tombstone. R, which was off
// all the time, connects to C with x.
pub fn a_node_that_missed_a_dropped_delete_is_a_newcomer() {
    let [mut r, mut a, mut c] = replicas();
    r.put("x", "here");
    a.take(&mut r);
    a.delete("x");
    c.take(&mut a);
    assert_eq!(c.months_later().dropped, 1);
    assert_eq!(r.newcomer_at(&c), Newcomer::Us);
    exchange(&mut r, &mut c);
    exchange(&mut r, &mut a);
    assert_eq!((r.get("x"), c.get("x"), a.get("x")), (None, None, None));
}

// A knows B and has never heard of C; B has confirmed the delete, so A drops it. C was there once, through B, and has x.
// It is saved by the floor alone. Then B, which took A's state anew, gives nothing away either: the floor is inherited.
pub fn a_member_that_somebody_did_not_know_is_saved_by_the_floor() {
    let [mut a, mut b, mut c, mut d] = replicas();
    a.put("x", "here");
    b.take(&mut a);
    c.take(&mut b);
    a.delete("x");
    b.take(&mut a);
    a.hear_confirmed(&b);
    assert_eq!(a.a_day_later().dropped, 1);
    d.bootstrap(&mut a);
    assert_eq!(c.newcomer_at(&d), Newcomer::Us, "who bootstraps inherits the floor");
    exchange(&mut c, &mut d);
    assert_eq!((c.get("x"), d.get("x")), (None, None));
}

// R and C are linked. R writes x again under a clock that lags, while A deletes it; C takes the delete from A and, months
// later, drops it. Only then the batch of R arrives, which was on its way: nothing at C stands against it any more.
pub fn a_batch_of_a_node_that_fell_below_the_floor_is_refused() {
    let [mut r, mut a, mut c] = replicas();
    r.put("x", "first");
    a.take(&mut r);
    c.take(&mut r);
    a.clock.millis += 1_000;
    a.delete("x");
    r.put("x", "second");
    let late = r.parcel(&mut c, Mode::Increment, usize::MAX).expect("nothing was dropped yet");
    c.take(&mut a);
    assert_eq!(c.months_later().dropped, 1);
    let applied = c.apply(&r, late);
    exchange(&mut r, &mut c);
    exchange(&mut a, &mut c);
    exchange(&mut a, &mut r);
    assert_eq!((r.get("x"), c.get("x"), a.get("x")), (None, None, None));
    assert_eq!(applied, Applied::SenderBelowFloor);
}

// S deletes R's x and, months later, drops the tombstone while a batch for R is on its way, read as for somebody who had
// covered it. The second line of defence: R itself tests the floor before it joins the vector. Else it would claim a
// delete that it was never told, and keep x for ever.
pub fn a_closure_above_a_floor_that_is_not_covered_joins_nothing() {
    let [mut r, mut s, mut p] = replicas();
    r.put("x", "here");
    s.take(&mut r);
    s.delete("x");
    p.take(&mut s);
    s.months_later();
    s.put("y", "news");
    let parcel = s.parcel(&mut p, Mode::Increment, usize::MAX).expect("P covers the floor");
    r.meet(&s);
    assert_eq!(r.apply(&s, parcel), Applied::ReceiverBelowFloor);
    exchange(&mut r, &mut s);
    assert_eq!((r.get("x"), s.get("x")), (None, None));
}

/// M and its friend share d with A, which deletes it; the friend hears of it and M does not. Months later M is a newcomer
/// at A and the friend is not.
fn a_newcomer_and_its_friend() -> [Replica; 3] {
    let [mut m, mut friend, mut a] = replicas();
    a.put("d", "gone soon");
    m.take(&mut a);
    friend.take(&mut a);
    a.delete("d");
    friend.take(&mut a);
    [m, friend, a]
}

// M writes w, which its friend takes and A does not. M bootstraps from A: w is not in force at M any more. Under its old
// name its vector would still claim it, and the friend would not give it back.
pub fn a_newcomer_becomes_a_new_replica() {
    let [mut m, mut friend, mut a] = a_newcomer_and_its_friend();
    m.put("w", "mine");
    friend.take(&mut m);
    a.months_later();
    m.bootstrap(&mut a);
    exchange(&mut m, &mut friend);
    assert_eq!(m.get("w").as_deref(), Some("mine"));
    assert!(m.table.recovered.is_empty(), "it has arrived after all");
}

// M has taken z from its friend's stream, A has not. After M's bootstrap from A the cursor into the friend's stream stands
// beyond a row that M no longer has.
pub fn a_newcomer_asks_everybody_for_everything_again() {
    let [mut m, mut friend, mut a] = a_newcomer_and_its_friend();
    friend.put("z", "of a friend");
    m.take(&mut friend);
    a.months_later();
    m.bootstrap(&mut a);
    exchange(&mut m, &mut friend);
    assert_eq!(m.get("z").as_deref(), Some("of a friend"));
}

// M has z from a friend that is dead now; A does not know it. After M's bootstrap nobody would have it.
pub fn what_a_newcomer_held_waits_in_the_recovered_store() {
    let [mut m, mut friend, mut a] = a_newcomer_and_its_friend();
    friend.put("z", "of a friend");
    m.take(&mut friend);
    a.months_later();
    let done = m.bootstrap(&mut a);
    assert_eq!((done.recovered, m.table.knowledge.recovered), (1, 1));
    assert!(m.table.recovered.values().any(|row| row.value() == Some(b"of a friend")));
}

// M writes x while linked to its friend, which takes it; the link is cut before the friend confirms. The friend deletes x.
// M bootstraps from A, which knows nothing of it: written again as new, x would beat the delete of somebody who saw it.
pub fn a_write_that_was_sent_and_not_confirmed_is_not_written_again() {
    let [mut m, mut friend, mut a] = a_newcomer_and_its_friend();
    let written = m.put_sending("x", "seen");
    assert!(m.table.knowledge.sent >= 1, "{written:?} may be on its way");
    friend.take(&mut m);
    friend.clock.millis += 1_000;
    friend.delete("x");
    a.months_later();
    let done = m.bootstrap(&mut a);
    exchange(&mut m, &mut friend);
    exchange(&mut a, &mut friend);
    exchange(&mut m, &mut a);
    assert_eq!((m.get("x"), friend.get("x"), a.get("x")), (None, None, None));
    assert_eq!(done.written_again, 0);
}

// The same, told by the result alone: the write counts as sent in the transaction that makes it, since a link is open.
pub fn a_write_on_an_open_link_counts_as_sent_at_once() {
    let [mut m, mut friend, mut a] = a_newcomer_and_its_friend();
    m.put_sending("x", "seen");
    let parcel = m.parcel(&mut friend, Mode::Increment, 0);
    assert!(parcel.is_some_and(|parcel| parcel.rows.is_empty()), "its bytes have left, and nobody has said so");
    a.months_later();
    assert_eq!(m.bootstrap(&mut a).written_again, 0);
}

// A backup of M holds x, which M then gave to P; P deleted it. The backup is restored: it does not know what was sent
// since. With a new stamp x would come back above the delete.
pub fn a_restored_backup_does_not_bring_back_what_was_deleted_since() {
    let [mut m, mut p] = replicas();
    m.put("x", "in the backup");
    let backup = m.table.clone();
    p.take(&mut m);
    p.delete("x");
    m.table = backup;
    m.clock.millis += 60_000;
    m.restart();
    let random = m.random();
    m.run(Request::Fork { shared: 0, random });
    assert_eq!(m.table.knowledge.sent, m.table.knowledge.seq, "a restored backup counts as all sent");
    exchange(&mut m, &mut p);
    assert_eq!((m.get("x"), p.get("x")), (None, None));
}

// Two islands, each with a dropped delete that the other missed, and a node that commutes between them. It may not be won
// by one island and by the other in turn, for ever.
pub fn a_node_between_two_islands_makes_them_one() {
    let [mut a1, mut a2, mut b1, mut b2, mut m] = replicas();
    for (one, two) in [(&mut a1, &mut a2), (&mut b1, &mut b2)] {
        one.put("old", "draft");
        two.take(one);
        one.delete("old");
        two.take(one);
        one.put("kept", "island");
        two.take(one);
        assert_eq!(one.months_later().dropped, 1);
    }
    let mut last = usize::MAX;
    for _ in 0..6 {
        last = 0;
        for node in [&mut a1, &mut b1, &mut a2, &mut b2] {
            last += exchange(&mut m, node);
        }
        if last == 0 {
            break;
        }
    }
    assert_eq!(last, 0, "they bootstrap each other still");
    for node in [&a1, &a2, &b1, &b2] {
        assert_eq!(node.documents(), m.documents());
    }
}

// P's clock is an hour ahead and P writes x. M, which is right, takes it and writes x again: 200, and everybody must see
// M's value.
pub fn a_write_stands_above_the_row_that_it_replaces() {
    let [mut p, mut m] = replicas();
    p.clock.millis += 3_600_000;
    p.put("x", "ahead");
    m.take(&mut p);
    m.put("x", "later");
    exchange(&mut m, &mut p);
    assert_eq!((m.get("x").as_deref(), p.get("x").as_deref()), (Some("later"), Some("later")));
}

// M deletes x, P has the delete, M drops the tombstone. M has no clock; it starts again at its build date and writes x.
// Its clock must go on above the delete that only P remembers.
pub fn a_clock_never_goes_back_over_a_restart() {
    let [mut m, mut p] = replicas();
    m.put("x", "old");
    m.delete("x");
    p.take(&mut m);
    m.hear_confirmed(&p);
    assert_eq!(m.a_day_later().dropped, 1);
    m.clock = Reading { millis: NOON - 86_400_000, believed: false };
    m.restart();
    m.put("x", "new");
    exchange(&mut m, &mut p);
    assert_eq!((m.get("x").as_deref(), p.get("x").as_deref()), (Some("new"), Some("new")));
}

// Two nodes write x in the same millisecond.
pub fn equal_stamps_are_decided_alike_everywhere() {
    let [mut a, mut b] = replicas();
    assert_eq!(a.put("x", "of a").stamp, b.put("x", "of b").stamp);
    exchange(&mut a, &mut b);
    assert_eq!(a.documents(), b.documents());
}

// C has x of yesterday. A writes x anew with an expiry, and it expires before C hears of it. If A simply forgot it, C's
// older version would live for ever.
pub fn an_expired_document_does_not_give_way_to_its_predecessor() {
    let [mut a, mut c] = replicas();
    a.put("x", "yesterday");
    c.take(&mut a);
    let soon = a.clock.millis + 1_000;
    a.write(RowKey::replicated("x", "x"), Body::Live(b"for a second".to_vec()), Some(soon), false);
    assert_eq!(a.a_day_later().expired.len(), 1);
    exchange(&mut a, &mut c);
    assert_eq!((a.get("x"), c.get("x")), (None, None));
}

// One box believes that it is 2099 and writes. Its row is applied like any other; the clock of a node that knows better
// stays where it is.
pub fn a_stamp_from_the_far_future_does_not_move_the_clock() {
    let [mut far, mut m] = replicas();
    far.clock.millis += 75 * 365 * 86_400_000;
    far.put("x", "of 2099");
    m.take(&mut far);
    assert_eq!(m.get("x").as_deref(), Some("of 2099"));
    let written = m.put("y", "of today");
    assert!(written.stamp.millis() < NOON + 60_000, "its clock went along to {}", written.stamp.millis());
}

// A collection of scope local has a row, and a peer asks for everything.
pub fn a_local_row_never_leaves_the_node() {
    let [mut a, mut b] = replicas();
    a.write(RowKey { scope: Scope::Local, collection: "x".into(), key: "k".into() }, Body::Live(vec![1]), None, false);
    a.put("shared", "1");
    for mode in [Mode::Increment, Mode::Bootstrap, Mode::Reconcile] {
        let parcel = a.parcel(&mut b, mode, usize::MAX).expect("there is no floor");
        assert!(parcel.rows.iter().all(|row| row.is_well_formed() && !row.is_local()), "{:?}", parcel.rows);
    }
}

// D's card is cloned as Q while both run. D deletes x and K hears of it; Q writes y under the same number, which M and N
// take. All vectors are equal: nobody ever takes the delete from a stream. M meets K, the digests differ, and M takes it in
// a reconciliation. N gets it from M like any other row, and everybody drops it only once all have it.
pub fn a_delete_that_a_reconciliation_brought_reaches_everybody() {
    let [mut d, mut q, mut k, mut m, mut n] = replicas();
    d.put("x", "here");
    for node in [&mut k, &mut m, &mut n] {
        node.take(&mut d);
    }
    q.table = d.table.clone();
    d.delete("x");
    k.take(&mut d);
    q.put("y", "under the same number");
    m.take(&mut q);
    n.take(&mut q);
    let parcel = k.parcel(&mut m, Mode::Reconcile, usize::MAX).expect("nothing was dropped");
    m.apply(&k, parcel);
    assert_eq!(m.get("x"), None);
    n.take(&mut m);
    assert_eq!(n.get("x"), None, "nobody else would ever tell it");
}

// D's card is cloned as Q. Q writes a and deletes it, and months later forgets the delete; under the same numbers D writes b
// and c, which N takes. Q is told that it has two histories. Its floor is above what both share, so N takes Q's state:
// b and c are nothing that Q ever had, and must wait for a person, not disappear.
pub fn a_fork_does_not_claim_what_its_floor_names() {
    let [mut d, mut q, mut n] = replicas();
    d.put("x", "shared");
    q.table = d.table.clone();
    q.put("a", "short-lived");
    q.delete("a");
    assert_eq!(q.months_later().dropped, 1);
    d.put("b", "under the same number");
    d.put("c", "under the same number");
    n.take(&mut d);
    let random = q.random();
    q.run(Request::Fork { shared: 1, random });
    assert_eq!(n.newcomer_at(&q), Newcomer::Us, "it may have missed a delete");
    n.bootstrap(&mut q);
    let waiting: Vec<_> = n.table.recovered.values().map(|row| row.key.key.clone()).collect();
    assert_eq!(waiting, ["b", "c"]);
}

// D's card is cloned; both write on, under the same numbers. M has D's value, and bootstraps from C, whose numbers cover it: C
// knows another row by that number, and still has what D's value replaced.
pub fn what_a_number_that_is_used_twice_hides_waits_in_the_recovered_store() {
    let [mut d, mut c, mut m] = replicas();
    d.put("k", "shared");
    c.table = d.table.clone();
    d.put("k", "of the card");
    m.take(&mut d);
    c.put("y", "under the same number");
    c.put("t", "short-lived");
    c.delete("t");
    assert_eq!(c.months_later().dropped, 1);
    assert_eq!(m.newcomer_at(&c), Newcomer::Us);
    assert_eq!(m.bootstrap(&mut c).recovered, 1);
    assert_eq!(m.get("k").as_deref(), Some("shared"));
    assert!(m.table.recovered.values().any(|row| row.value() == Some(b"of the card")), "it is in nobody's sight else");
}
