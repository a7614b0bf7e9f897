//! Hazards that need the state machines: engines on a bench, where links, timers and slow disks matter.
//!
//! Each story is as short as it can be and tells itself in the comment above it.

use super::bench::{Bench, Sent};
use super::replica::{NOON, Replica, exchange};
use cbddc::id::DeviceId;
use cbddc::proto::Event;
use cbddc::replica::Knowledge;
use cbddc::row::{Body, Head, RowKey};
use cbddc::wire::{Bye, Message, Mode};
use std::rc::Rc;

/// R missed the delete of its x, which C has forgotten; C has three documents more, too many for one batch.
fn a_newcomer() -> [Replica; 2] {
    let [mut r, mut c, mut a] = [1, 2, 3].map(Replica::new);
    r.put("x", "here");
    a.take(&mut r);
    a.delete("x");
    c.take(&mut a);
    assert_eq!(c.months_later().dropped, 1);
    for key in ["k1", "k2", "k3"] {
        c.put(key, &key.repeat(20_000));
    }
    r.clock = c.clock;
    [r, c]
}

// A newcomer meets a node whose floor it does not cover. Nothing goes to and fro but the bootstrap: an increment either
// way would be refused, the link cut, and the next one too.
pub fn below_the_floor_nothing_flows_but_the_bootstrap() {
    let mut bench = Bench::of(a_newcomer());
    bench.link(0, 1);
    assert!(bench.run_until(5_000, Bench::agrees), "they do not come together");
    assert_eq!(bench.get(0, "x"), None);
    let ended = |event: &Event| matches!(event, Event::Unlinked { .. });
    assert_eq!((bench.count(0, ended), bench.count(1, ended)), (0, 0), "the link was given up");
    let first = bench.sent.iter().find_map(|sent| match &sent.message {
        Message::Pull(pull) => Some((sent.from, pull.mode)),
        _ => None,
    });
    assert_eq!(first, Some((0, Mode::Bootstrap)));
}

// The link of a bootstrap is cut between two batches. The newcomer serves its old state until all of the new one is there,
// and starts again.
pub fn a_bootstrap_that_is_cut_leaves_the_old_state_in_force() {
    let mut bench = Bench::default();
    for replica in a_newcomer() {
        bench.add(replica, |settings| settings.window_bytes = 64);
    }
    let before = bench.nodes[0].table.knowledge.replica;
    bench.link(0, 1);
    let staged = |bench: &Bench| !bench.nodes[0].table.stage.rows.is_empty() || bench.get(0, "k1").is_some();
    assert!(bench.run_until(5_000, staged));
    bench.cut_all(0);
    bench.run(10);
    assert_eq!(bench.nodes[0].table.knowledge.replica, before, "half of a state is in force");
    assert_eq!(bench.get(0, "x").as_deref(), Some("here"));
    bench.link(0, 1);
    assert!(bench.run_until(5_000, Bench::agrees));
    assert_eq!(bench.get(0, "k3").map(|value| value.len()), Some(40_000));
}

// Both have dropped a delete that the other has not seen. One of the two gives way, once.
pub fn of_two_newcomers_exactly_one_gives_way() {
    let [mut a, mut b, mut witness] = [1, 2, 3].map(Replica::new);
    for node in [&mut a, &mut b] {
        node.put("draft", "mine");
        node.put("kept", "of this one");
        node.delete("draft");
        node.months_later();
    }
    exchange(&mut witness, &mut b);
    let mut bench = Bench::of([a, b]);
    bench.link(0, 1);
    assert!(bench.run_until(5_000, Bench::agrees), "they do not come together");
    bench.run(2_000);
    let done = |event: &Event| matches!(event, Event::BootstrapDone { .. });
    assert_eq!(bench.count(0, done) + bench.count(1, done), 1);
}

// A node writes while nobody is there, then a peer comes. Before the first byte of that row leaves, the disk must say that
// it was sent: after a power cut the node would take it for never sent.
pub fn sent_is_on_disk_before_the_bytes_leave() {
    let mut bench = Bench::of([1, 2].map(Replica::new));
    bench.put(0, "x", "unseen");
    bench.run(50);
    assert_eq!(bench.nodes[0].table.knowledge.sent, 0, "nobody was there");
    bench.link(0, 1);
    assert!(bench.run_until(1_000, |bench| bench.get(1, "x").is_some()));
    bench.put(0, "y", "while linked");
    assert!(bench.run_until(1_000, |bench| bench.get(1, "y").is_some()));
    let own = bench.nodes[0].table.knowledge.replica;
    let early = |sent: &&Sent| match &sent.message {
        Message::Changes(changes) => changes.rows.iter().any(|row| row.dot.origin == own && row.dot.seq > sent.marked),
        _ => false,
    };
    assert_eq!(bench.sent.iter().filter(early).count(), 0, "bytes left before the mark was on disk");
}

// B's card takes for ever to fsync. A's write has reached B, and B loses its power. Until B's disk has it, B may not say
// so, and A may not count it.
pub fn a_batch_is_confirmed_after_fsync() {
    let mut bench = Bench::of([1, 2].map(Replica::new));
    bench.link(0, 1);
    bench.run(500);
    bench.nodes[1].stalled = true;
    bench.put(0, "x", "on its way");
    bench.run(500);
    assert!(bench.peer(0, 1).is_some_and(|peer| !peer.confirmed), "B has confirmed what its disk does not hold");
    bench.stop(1);
    bench.start(1);
    assert_eq!(bench.get(1, "x"), None);
    bench.link(0, 1);
    assert!(bench.run_until(1_000, |bench| bench.peer(0, 1).is_some_and(|peer| peer.confirmed)));
    assert_eq!(bench.get(1, "x").as_deref(), Some("on its way"));
}

// A caller writes, the card does not fsync, the power goes. The caller must not have been told that it is stored.
pub fn a_caller_is_answered_after_fsync() {
    let mut bench = Bench::of([Replica::new(1)]);
    bench.run(50);
    bench.nodes[0].stalled = true;
    let client = bench.put(0, "x", "not on disk");
    bench.run(500);
    assert!(!bench.nodes[0].answers.contains(&client));
    bench.nodes[0].stalled = false;
    bench.run(50);
    assert!(bench.nodes[0].answers.contains(&client) && bench.get(0, "x").is_some());
}

// M writes a and b, which P takes; M's card is rolled back to before b, and M writes c: the number of b, used twice, and
// d. P tells it at once, in a Bye; M takes a new identity, and nothing has to be found out by digests.
pub fn a_card_that_was_rolled_back_is_told_by_its_peer() {
    let [mut m, mut p] = [1, 2].map(Replica::new);
    m.put("a", "shared");
    p.take(&mut m);
    let card = m.table.clone();
    m.restart();
    m.put("b", "lost on the card");
    p.take(&mut m);
    m.table = card;
    let before = m.table.knowledge.replica;
    m.restart();
    m.put("c", "new");
    m.put("d", "newer");
    let mut bench = Bench::of([m, p]);
    bench.link(0, 1);
    bench.run(1_000);
    bench.link(0, 1);
    assert!(bench.run_until(2_000, Bench::agrees), "they do not come together");
    assert_eq!((bench.get(0, "b").is_some(), bench.get(1, "c").is_some()), (true, true));
    assert_ne!(bench.nodes[0].table.knowledge.replica, before);
    let told = |sent: &Sent| matches!(sent.message, Message::Bye(Bye::Forked { .. }));
    assert_eq!(bench.sent.iter().filter(|sent| told(sent)).count(), 1);
    let alarms = bench.engine(0).counters().alarms + bench.engine(1).counters().alarms;
    assert_eq!(alarms, 0, "only the digests have noticed it");
}

// One card is copied into a second board, and both run. They meet: both part from the shared history, exactly one is told
// to take a new key, and no number is used by both.
pub fn two_boards_with_one_card_part() {
    let mut m = Replica::new(1);
    m.put("a", "shared");
    let mut twin = Replica::new(1);
    twin.table = m.table.clone();
    let before = m.table.knowledge.replica;
    let mut bench = Bench::of([m, twin]);
    bench.link(0, 1);
    bench.run(500);
    let cloned = |event: &Event| matches!(event, Event::DeviceCloned);
    assert_eq!(bench.count(0, cloned) + bench.count(1, cloned), 1);
    let replica = |at: usize| bench.nodes[at].table.knowledge.replica;
    assert!(replica(0) != before && replica(1) != before && replica(0) != replica(1));
}

// Five boxes; four are at their build date, which is months ago, one has NTP. The median of all would be months ago.
pub fn four_boxes_at_their_build_date_do_not_outvote_the_one_that_has_ntp() {
    let mut bench = Bench::of([1, 2, 3, 4, 5].map(Replica::new));
    for at in 0..4 {
        (bench.nodes[at].wall, bench.nodes[at].synchronised) = (NOON - 90 * 86_400_000, false);
    }
    for peer in 1..5 {
        bench.link(0, peer);
    }
    bench.run(500);
    let reading = bench.engine(0).reading(bench.now(0));
    assert!(reading.believed && reading.millis.abs_diff(NOON + bench.time) < 1_000, "{reading:?}");
}

// Three nodes fill their two slots with each other, three others likewise: each group is in sync. Then somebody in the one
// writes; the other must hear of it.
pub fn groups_that_fill_each_others_slots_are_not_split() {
    let mut bench = Bench::that_finds_itself(6, 2);
    bench.deaf = (0..3).flat_map(|a| (3..6).map(move |b| (a, b))).collect();
    bench.run(8_000);
    let full = |at: usize| bench.engine(at).peers(bench.now(at)).iter().filter(|peer| peer.is_linked()).count();
    assert_eq!((0..6).map(full).collect::<Vec<_>>(), [2; 6], "each group is full of itself");
    bench.deaf.clear();
    bench.put(0, "x", "of the first group");
    let everywhere = |bench: &Bench| (0..6).all(|at| bench.get(at, "x").is_some());
    assert!(bench.run_until(60_000, everywhere), "the LAN is split");
}

// Nine nodes, each linked with all others, and one write. Its origin pushes it to eight; the relays wait, and find that
// everybody has it.
pub fn a_write_crosses_a_full_mesh_once_for_each_node() {
    let mut bench = Bench::of([1, 2, 3, 4, 5, 6, 7, 8, 9].map(Replica::new));
    for a in 0..9 {
        for b in a + 1..9 {
            bench.link(a, b);
        }
    }
    bench.run(1_000);
    let before = bench.rows_sent();
    bench.put(0, "x", "once");
    bench.run(2_000);
    assert!(bench.agrees());
    assert_eq!(bench.rows_sent() - before, 8);
}

// A laptop came by once, with `--visitor`. The site goes on without it, and is healthy; its tombstones wait for nobody.
pub fn a_visitor_that_left_is_no_concern_of_health() {
    let mut bench = Bench::of([1, 2].map(Replica::new));
    let laptop = bench.add(Replica::new(3), |settings| settings.visitor = true);
    bench.link(0, 1);
    bench.link(0, laptop);
    bench.put(0, "x", "1");
    assert!(bench.run_until(1_000, |bench| bench.get(laptop, "x").is_some()));
    bench.stop(laptop);
    bench.put(0, "y", "2");
    // The other member stays linked; an hour passes.
    bench.run(130_000);
    for at in [0, 1] {
        let tracked: Vec<_> = bench.engine(at).peers(bench.now(at)).into_iter().filter(|peer| peer.tracked).collect();
        assert_eq!(tracked.iter().map(|peer| peer.lag_ms).collect::<Vec<_>>(), [0], "{tracked:?}");
    }
}

// Two nodes cover the same and hold different documents, whatever caused it: a difference is an alarm, and it is mended.
pub fn a_difference_under_equal_vectors_is_mended() {
    let [mut a, mut b] = [1, 2].map(Replica::new);
    a.put("x", "true");
    exchange(&mut a, &mut b);
    let key = RowKey::replicated("x", "x");
    let at = b.table.rows.keys[&key];
    let (row, head) = b.table.rows.rows.get_mut(&at).expect("the key leads there");
    let mut other = row.as_ref().clone();
    other.body = Body::Live(b"flipped".to_vec());
    (*row, *head) = (Rc::new(other.clone()), Head::of(&other, at));
    b.table.knowledge.digest = b.table.digest();
    let mut bench = Bench::of([a, b]);
    bench.link(0, 1);
    assert!(bench.run_until(5_000, Bench::agrees), "the difference stays");
    assert!(bench.engine(0).counters().alarms + bench.engine(1).counters().alarms > 0, "a difference in silence");
}

// Both are full of documents and the window holds less than one: reading must not wait for writing, or both wait for ever.
pub fn full_duplex_with_windows_smaller_than_a_document_does_not_stall() {
    let [mut a, mut b] = [1, 2].map(Replica::new);
    for number in 0..12 {
        a.put(&format!("a{number}"), &"a".repeat(30_000));
        b.put(&format!("b{number}"), &"b".repeat(30_000));
    }
    let mut bench = Bench::default();
    for replica in [a, b] {
        bench.add(replica, |settings| settings.window_bytes = 64);
    }
    bench.link(0, 1);
    assert!(bench.run_until(5_000, Bench::agrees), "they wait for each other");
    assert_eq!(bench.get(1, "a11").map(|value| value.len()), Some(30_000));
}

// The link is cut after each batch that arrives. What arrived stays, and everything is there in the end.
pub fn a_link_that_is_cut_after_every_batch_makes_progress() {
    let [mut a, b] = [1, 2].map(Replica::new);
    for number in 0..6 {
        a.put(&format!("a{number}"), &"a".repeat(40_000));
    }
    let mut bench = Bench::of([a, b]);
    let rows = |known: &Knowledge| known.tail;
    for _ in 0..4 {
        let before = rows(&bench.nodes[1].table.knowledge);
        bench.link(0, 1);
        let progress = |bench: &Bench| rows(&bench.nodes[1].table.knowledge) > before || bench.agrees();
        assert!(bench.run_until(1_000, progress), "a cut between batches loses what had arrived");
        bench.cut_all(0);
        bench.run(5);
    }
    assert!(bench.agrees());
}

// A has documents for three batches, never sent, and one more that is on its disk while the answer is still on its way: the
// first batch that is read for B tells A more than it knew. The card is slow to mark them as sent. No batch may be
// read beside the one that waits for that mark: it would take its place, and B would close over the hole.
pub fn a_batch_that_waits_for_its_mark_keeps_its_place() {
    let [mut a, b] = [1, 2].map(Replica::new);
    let large = "x".repeat(40_000);
    for key in ["a", "b", "c", "d", "e", "f"] {
        a.put(key, &large);
    }
    let mut bench = Bench::of([a, b]);
    let met = DeviceId([2; 32]);
    bench.link(0, 1);
    assert!(bench.run_until(1_000, |bench| bench.nodes[0].table.members.contains_key(&met)));
    bench.nodes[0].stalled = true;
    let mut behind = Replica::new(1);
    behind.table = bench.nodes[0].table.clone();
    behind.put("g", "unanswered");
    bench.nodes[0].table = behind.table;
    bench.run(500);
    bench.nodes[0].stalled = false;
    assert!(bench.run_until(5_000, Bench::agrees));
    // A reconciliation would mend it, while nobody else asks for what B says it covers.
    assert_eq!(bench.engine(1).counters().alarms, 0, "rows were missing, and every vector said that they were there");
}

// B has all of A's rows. A has taken C's state, and its engine has not been told yet: the answer is on its way. B asks for
// what lies behind its cursor; in the new life nothing does, so it would be told that it has everything, C's x too.
pub fn a_batch_of_another_life_is_not_sent() {
    let [mut a, mut b, mut c] = [1, 2, 3].map(Replica::new);
    for key in ["a", "b", "c", "d"] {
        a.put(key, "old");
    }
    b.take(&mut a);
    c.put("x", "new");
    let mut bench = Bench::of([a, b]);
    bench.nodes[0].stalled = true;
    let mut behind = Replica::new(1);
    behind.table = bench.nodes[0].table.clone();
    behind.bootstrap(&mut c);
    bench.nodes[0].table = behind.table;
    bench.link(0, 1);
    bench.run(500);
    bench.nodes[0].stalled = false;
    assert!(bench.run_until(5_000, |bench| bench.get(1, "x").is_some()));
    assert_eq!(bench.engine(1).counters().alarms, 0, "x was missing, and every vector said that it was there");
}

// K had a delete of x under the number under which M has y; it has taken y in a reconciliation that was cut before M could
// compare. M writes z. When K has taken z both cover the same, and only K compares: of what it says then nothing is news
// to M. K lacks nothing any more; M lacks the delete.
pub fn who_finds_a_difference_tells_the_peer() {
    let [mut d, mut q, mut k, mut m] = [1, 2, 3, 4].map(Replica::new);
    d.put("x", "here");
    k.take(&mut d);
    m.take(&mut d);
    q.table = d.table.clone();
    d.delete("x");
    k.take(&mut d);
    q.put("y", "under the same number");
    m.take(&mut q);
    let parcel = m.parcel(&mut k, Mode::Reconcile, usize::MAX).expect("nothing was dropped");
    k.apply(&m, parcel);
    m.put("z", "new");
    let mut bench = Bench::of([k, m]);
    bench.link(0, 1);
    assert!(
        bench.run_until(5_000, |bench| bench.agrees() && bench.get(1, "x").is_none()),
        "nobody told M of the delete"
    );
    assert!(bench.get(0, "y").is_some());
}

// B holds an older version of x, since A's newer one has not reached it. A's row rots. What B has must not take its place:
// C has the newer one, and comes later.
pub fn a_damaged_row_does_not_give_way_to_an_older_one() {
    let [mut a, mut b, mut c] = [1, 2, 3].map(Replica::new);
    a.put("x", "old");
    b.take(&mut a);
    a.put("x", "new");
    c.take(&mut a);
    let mut bench = Bench::of([a, b, c]);
    // B's stream from A stands still: its card does not finish an fsync.
    bench.nodes[1].stalled = true;
    bench.link(0, 1);
    bench.run(200);
    bench.rot(0, "x", |head| head.stamp = cbddc::time::Stamp::ZERO);
    bench.run(1_000);
    assert_ne!(
        bench.nodes[0].table.readable(&RowKey::replicated("x", "x")).and_then(|row| row.value()),
        Some(&b"old"[..])
    );
    bench.link(0, 2);
    assert!(bench.run_until(20_000, |bench| bench.nodes[0].table.damaged.is_empty()), "it is not mended");
    assert_eq!(bench.get(0, "x").as_deref(), Some("new"));
    bench.nodes[1].stalled = false;
    assert!(bench.run_until(20_000, Bench::agrees), "they do not come together");
    assert_eq!(bench.get(1, "x").as_deref(), Some("new"));
}

// A's row rots before B has it; C has it, and is away. B gets what stands beyond, but no closure: it would claim what it does
// not have, and once it says so, nobody keeps it for B. C comes, and A has it again.
pub fn a_stream_does_not_close_over_a_damaged_row_before_every_member_was_asked() {
    let [mut a, b, mut c] = [1, 2, 3].map(Replica::new);
    a.put("x", "here");
    a.put("y", "too");
    c.take(&mut a);
    let mut bench = Bench::of([a, b, c]);
    let at = bench.nodes[0].table.rot(&RowKey::replicated("x", "x"), |_| {});
    assert!(at.is_some());
    bench.link(0, 1);
    bench.run(3_000);
    assert_eq!(bench.get(1, "y").as_deref(), Some("too"), "one damaged row must not hold up the others");
    let claims = |bench: &Bench| bench.engine(1).knowledge().vector.includes(&bench.engine(0).knowledge().vector);
    assert!(!claims(&bench), "B claims what it has not");
    assert!(!bench.engine(0).damaged().is_empty(), "it is named until somebody has it");
    bench.link(0, 2);
    assert!(bench.run_until(20_000, |bench| bench.nodes[0].table.damaged.is_empty()), "C has it");
    assert!(bench.run_until(20_000, |bench| bench.agrees() && claims(bench)), "they do not come together");
    assert_eq!(bench.get(1, "x").as_deref(), Some("here"));
    assert_eq!(bench.nodes[0].table.knowledge.replica, bench.engine(0).knowledge().replica);
}

// The only copy of x rots, and everybody is asked: nobody can lose it any more, so the site goes on.
pub fn what_nobody_has_holds_nobody_up() {
    let [mut a, b] = [1, 2].map(Replica::new);
    a.put("x", "here");
    a.put("y", "too");
    let mut bench = Bench::of([a, b]);
    assert!(bench.nodes[0].table.rot(&RowKey::replicated("x", "x"), |_| {}).is_some());
    bench.link(0, 1);
    let claims = |bench: &Bench| bench.engine(1).knowledge().vector.includes(&bench.engine(0).knowledge().vector);
    assert!(bench.run_until(5_000, claims), "B was asked, and there is nobody else");
    bench.put(0, "x", "anew");
    assert!(bench.run_until(5_000, |bench| bench.get(1, "x").as_deref() == Some("anew")));
    assert!(bench.engine(0).damaged().is_empty());
}

// A's row rots, its stamp upwards. B has written the key since: by its stamp the newer value would lose, and the closure behind
// it be joined all the same.
pub fn a_row_that_comes_where_a_damaged_one_stands_waits_for_the_answers() {
    let [mut a, mut b] = [1, 2].map(Replica::new);
    a.put("x", "old");
    b.take(&mut a);
    a.take(&mut b);
    b.put("x", "new");
    let mut bench = Bench::of([a, b]);
    let later = cbddc::time::Stamp::new(NOON + 3_600_000, 0);
    assert!(bench.nodes[0].table.rot(&RowKey::replicated("x", "x"), |head| head.stamp = later).is_some());
    bench.link(0, 1);
    assert!(bench.run_until(20_000, Bench::agrees), "they do not come together");
    assert_eq!((bench.get(0, "x"), bench.get(1, "x")), (Some("new".into()), Some("new".into())));
    assert_eq!(bench.count(0, |event| matches!(event, Event::DigestsDiffer { .. })), 0);
}
