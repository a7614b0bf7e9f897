//! Hazards of writes that waited in an offline queue: accepted at one time, carried out at another.

use super::replica::{Replica, exchange};
use cbddc::replica::{Precondition, Reply, Request, Write};
use cbddc::row::{Body, RowKey};
use cbddc::time::Stamp;

/// A write that the disk refuses now, with the stamp that it gets for that.
fn accepted(at: &mut Replica, key: &str, value: &str) -> Write {
    at.clock.millis += 10;
    let known = &at.table.knowledge;
    let stamp = known.hlc.last().next().max(Stamp::new(at.clock.millis, 0));
    let precondition = Precondition::Accepted(stamp, known.replica);
    Write { key: RowKey::replicated("x", key), body: Body::Live(value.into()), expires_at: None, precondition }
}
/// The disk takes it; says whether that wrote a row.
fn carried_out(at: &mut Replica, write: &Write) -> bool {
    match at.run(Request::Write { writes: vec![write.clone()], sending: false }) {
        Reply::Written(written) => written[0].expect("there is no precondition").changed,
        other => panic!("{other:?}"),
    }
}

// A's disk is full when x is written there. B writes x later, and A hears of that before its disk takes the waiting write:
// it has lost, as it would have had it been stored at once.
pub fn a_write_that_waited_does_not_replace_a_newer_one() {
    let [mut a, mut b] = [Replica::new(1), Replica::new(2)];
    let waiting = accepted(&mut a, "x", "waited");
    let other = accepted(&mut a, "y", "waited too");
    b.clock.millis += 1_000;
    b.put("x", "newer");
    a.take(&mut b);
    assert!(!carried_out(&mut a, &waiting) && carried_out(&mut a, &other));
    assert!(!carried_out(&mut a, &other), "twice is once");
    exchange(&mut a, &mut b);
    assert_eq!((a.get("x").as_deref(), a.get("y").as_deref()), (Some("newer"), Some("waited too")));
    assert_eq!(a.documents(), b.documents());
}

// A accepts x while its disk refuses it. B deletes x later; A takes the delete, and after a day drops the tombstone. Now
// the disk takes the waiting write. With its old stamp B, who holds the tombstone still, would not take it: A would show x
// for ever and B would not. Nobody who deleted x had seen it, so it is a new document.
pub fn a_write_that_waited_longer_than_a_tombstone_is_new() {
    let [mut a, mut b] = [Replica::new(1), Replica::new(2)];
    a.put("x", "first");
    exchange(&mut a, &mut b);
    let waiting = accepted(&mut a, "x", "waited");
    b.clock.millis += 1_000;
    b.delete("x");
    a.take(&mut b);
    a.hear_confirmed(&b);
    assert_eq!(a.a_day_later().dropped, 1);
    assert!(carried_out(&mut a, &waiting));
    exchange(&mut a, &mut b);
    assert_eq!(a.get("x").as_deref(), Some("waited"));
    assert_eq!(a.documents(), b.documents());
}
