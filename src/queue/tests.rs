//! Order, bounds, and that nothing is lost, however a flush ends.

use super::*;
use core::cell::RefCell;
use core::future::{pending, ready};
use core::pin::pin;
use core::task::{Context, Poll, Waker};

fn put(key: &str, value: &str) -> PendingOperation {
    PendingOperation::put("users", key, value)
}
fn filled(keys: &[&str]) -> OfflineQueue {
    let mut queue = OfflineQueue::new(QUEUE_SLOTS, 1 << 20);
    keys.iter().for_each(|key| queue.enqueue(put(key, "v")).expect("room"));
    queue
}
fn waiting(queue: &OfflineQueue) -> Vec<&str> {
    queue.iter().map(|operation| operation.key.as_str()).collect()
}
/// Polls a future that is ready at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn operations_are_delivered_in_the_order_in_which_they_were_accepted() {
    let (mut queue, seen) = (filled(&["a", "b", "a"]), RefCell::new(Vec::new()));
    queue.enqueue(PendingOperation::delete("users", "b")).expect("room");
    let seen = &seen;
    let result = now(queue.flush(|operation| async move {
        seen.borrow_mut().push((operation.key.clone(), operation.kind));
        Ok::<(), ()>(())
    }));
    assert_eq!((result, queue.is_empty(), queue.statistics().bytes), ((4, 0), true, 0));
    let kinds: Vec<_> = seen.borrow().iter().map(|(key, kind)| (key.clone(), *kind)).collect();
    let expected = [("a", OperationKind::Put), ("b", OperationKind::Put), ("a", OperationKind::Put)];
    assert!(kinds.iter().zip(expected).all(|(seen, (key, kind))| seen.0 == key && seen.1 == kind));
    assert_eq!(kinds[3].1, OperationKind::Delete);
}

#[test]
fn a_full_queue_gives_the_operation_back_and_keeps_what_it_holds() {
    let mut queue = OfflineQueue::new(2, 1 << 20);
    assert!(queue.enqueue(put("a", "1")).is_ok() && queue.enqueue(put("b", "2")).is_ok());
    assert_eq!(queue.enqueue(put("c", "3")), Err(Full(put("c", "3"))));
    assert_eq!((waiting(&queue), queue.statistics().refused), (alloc::vec!["a", "b"], 1));
    let mut compiled = OfflineQueue::new(usize::MAX, usize::MAX);
    (0..QUEUE_SLOTS).for_each(|_| compiled.enqueue(put("k", "v")).expect("a slot"));
    assert!(compiled.enqueue(put("k", "v")).is_err());
}

#[test]
fn the_byte_bound_holds_whatever_is_offered() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut queue = OfflineQueue::new(64, 20_000);
        if random.bool() {
            queue = queue.replacing_older();
        }
        for _ in 0..500 {
            let data = alloc::vec![7; random.usize(0..4000)];
            let key = alloc::format!("k{}", random.u8(0..9));
            drop(queue.enqueue(PendingOperation::put("c", key, data)));
            if random.u8(0..4) == 0 {
                let succeeds = random.bool();
                now(queue.flush(|_| ready(if succeeds { Ok(()) } else { Err(()) })));
            }
            let counted: usize = queue.iter().map(PendingOperation::bytes).sum();
            assert_eq!(counted, queue.statistics().bytes, "seed {seed}");
            assert!(counted <= 20_000 && queue.len() <= 64, "seed {seed}");
        }
    }
}

#[test]
fn a_flush_stops_at_what_fails_and_loses_nothing() {
    let mut queue = filled(&["a", "b", "c"]);
    let result = now(queue.flush(|operation| ready(if operation.key == "b" { Err(()) } else { Ok(()) })));
    assert_eq!((result, waiting(&queue)), ((1, 1), alloc::vec!["b", "c"]));
}

#[test]
fn a_flush_that_goes_on_never_lets_a_key_overtake_itself() {
    let mut queue = filled(&["a", "b", "c", "b", "d"]).on_failure(OnFailure::GoOn);
    let result = now(queue.flush(|operation| ready(if operation.key == "b" { Err(()) } else { Ok(()) })));
    assert_eq!((result, waiting(&queue)), ((3, 1), alloc::vec!["b", "b"]));
    assert_eq!(now(queue.flush(|_| ready(Ok::<(), ()>(())))), (2, 0));
}

#[test]
fn a_flush_that_is_dropped_midway_loses_nothing() {
    let mut queue = filled(&["a", "b", "c"]);
    {
        let mut flush = pin!(queue.flush(|operation| async move {
            if operation.key == "b" {
                pending::<()>().await;
            }
            Ok::<(), ()>(())
        }));
        assert!(flush.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    assert_eq!(waiting(&queue), ["b", "c"]);
    assert_eq!(queue.statistics().delivered, 1);
}

#[test]
fn replacing_is_a_choice_and_frees_what_it_replaces() {
    let mut queue = OfflineQueue::new(2, 1 << 20).replacing_older();
    queue.enqueue(put("a", "1")).expect("room");
    queue.enqueue(put("b", "2")).expect("room");
    queue.enqueue(put("a", "3")).expect("takes the place of the first");
    assert_eq!((waiting(&queue), queue.statistics().replaced), (alloc::vec!["b", "a"], 1));
    assert_eq!(queue.latest("users", "a").map(|operation| operation.data.as_slice()), Some(&b"3"[..]));
    assert_eq!(filled(&["a", "a"]).len(), 2);
}

#[test]
fn an_operation_can_be_delivered_without_holding_the_queue() {
    let mut queue = filled(&["a"]);
    let first = queue.first().expect("one waits");
    queue.enqueue(put("b", "2")).expect("room");
    assert!(queue.delivered(&first) && !queue.delivered(&first));
    assert_eq!(waiting(&queue), ["b"]);
    assert_eq!(queue.latest("users", "a"), None);
}

#[test]
fn several_can_be_delivered_at_once_within_bounds() {
    let queue = filled(&["a", "b", "c", "d"]);
    let keys = |operations, bytes| {
        let oldest = queue.oldest(operations, bytes);
        oldest.iter().map(|operation| operation.key.clone()).collect::<Vec<_>>()
    };
    let one = put("a", "v").bytes();
    assert_eq!(keys(3, usize::MAX), ["a", "b", "c"]);
    assert_eq!(keys(9, 2 * one), ["a", "b"]);
    assert_eq!(keys(9, 0), ["a"], "the first always comes");
    assert!(queue.oldest(0, usize::MAX).is_empty());
}

#[test]
fn what_another_queue_held_comes_back_over_the_own_bounds_and_nothing_else_does() {
    let mut queue = OfflineQueue::new(2, 1 << 20);
    assert!(queue.resume(alloc::vec![put("a", "1"), put("b", "2"), put("c", "3")]).is_empty());
    assert_eq!(waiting(&queue), ["a", "b", "c"]);
    assert_eq!(queue.statistics().bytes, queue.iter().map(PendingOperation::bytes).sum::<usize>());
    assert!(queue.enqueue(put("d", "4")).is_err());
    now(queue.flush(|_| ready(Ok::<(), ()>(()))));
    assert!(queue.enqueue(put("d", "4")).is_ok());
    let many: Vec<_> = (0..QUEUE_SLOTS).map(|_| put("k", "v")).collect();
    assert_eq!(queue.resume(many).len(), 1, "one slot is taken");
}
