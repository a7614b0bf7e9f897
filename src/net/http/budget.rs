//! The bytes of bodies that may be in memory at once: a share is taken before the bytes are, and given back on drop.
//!
//! Who asks for more than is free waits in line; nobody overtakes, so a large share is not starved by small ones.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// How many bytes somebody waits for, and where to send them.
type Waiter = (usize, async_channel::Sender<Share>);

/// All shares together.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    free: Cell<usize>,
    line: RefCell<VecDeque<Waiter>>,
}

/// So many bytes of a [`Budget`].
#[derive(Debug)]
pub(super) struct Share {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(total: usize) -> Rc<Budget> {
        Rc::new(Budget { total, free: Cell::new(total), line: RefCell::default() })
    }

    /// Waits until `bytes` are free and takes them; more than the whole budget counts as the whole.
    pub(super) async fn take(self: &Rc<Budget>, bytes: usize) -> Share {
        let bytes = bytes.min(self.total);
        let turn = {
            let mut line = self.line.borrow_mut();
            if line.is_empty() && self.free.get() >= bytes {
                return self.cut(bytes);
            }
            let (sender, turn) = async_channel::bounded(1);
            line.push_back((bytes, sender));
            turn
        };
        match turn.recv().await {
            Ok(share) => share,
            // The line holds the sender until it has sent, and the budget holds the line.
            Err(async_channel::RecvError) => Share { budget: self.clone(), bytes: 0 },
        }
    }

    fn cut(self: &Rc<Budget>, bytes: usize) -> Share {
        self.free.set(self.free.get() - bytes);
        Share { budget: self.clone(), bytes }
    }

    fn give_back(self: &Rc<Budget>, bytes: usize) {
        self.free.set(self.free.get() + bytes);
        while let Some((turn, share)) = self.next_in_line() {
            // A share that nobody takes any more comes back with the error and gives itself back here.
            drop(turn.try_send(share));
        }
    }

    fn next_in_line(self: &Rc<Budget>) -> Option<(async_channel::Sender<Share>, Share)> {
        let mut line = self.line.borrow_mut();
        line.retain(|(_, turn)| !turn.is_closed());
        let bytes = line.front().map(|(bytes, _)| *bytes).filter(|bytes| *bytes <= self.free.get())?;
        let (_, turn) = line.pop_front()?;
        Some((turn, self.cut(bytes)))
    }
}

impl Share {
    /// Gives back all beyond `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let beyond = self.bytes.saturating_sub(bytes);
        self.bytes -= beyond;
        self.budget.give_back(beyond);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{block_on, poll_once};
    use std::pin::pin;

    #[test]
    fn who_asks_for_more_than_is_free_waits_and_nobody_overtakes() {
        block_on(async {
            let budget = Budget::new(100);
            let mut first = budget.take(60).await;
            let mut large = pin!(budget.take(80));
            assert!(poll_once(large.as_mut()).await.is_none());
            let mut small = pin!(budget.take(10));
            assert!(poll_once(small.as_mut()).await.is_none(), "behind the large one");
            first.shrink_to(10);
            let large = poll_once(large).await.unwrap();
            let small = poll_once(small).await.unwrap();
            assert_eq!(budget.free.get(), 0);
            drop((first, large, small));
            assert_eq!(budget.free.get(), 100);
        });
    }

    #[test]
    fn who_stops_waiting_leaves_the_line_and_loses_nothing() {
        block_on(async {
            let budget = Budget::new(100);
            let first = budget.take(100).await;
            {
                let mut impatient = pin!(budget.take(50));
                assert!(poll_once(impatient.as_mut()).await.is_none());
            }
            let mut patient = pin!(budget.take(100));
            assert!(poll_once(patient.as_mut()).await.is_none());
            {
                let mut served_then_gone = pin!(budget.take(1));
                assert!(poll_once(served_then_gone.as_mut()).await.is_none());
                drop(first);
            }
            drop(poll_once(patient).await.unwrap());
            assert_eq!(budget.free.get(), 100);
        });
    }

    #[test]
    fn more_than_the_whole_counts_as_the_whole() {
        block_on(async {
            let budget = Budget::new(10);
            drop(budget.take(1_000_000).await);
            assert_eq!(budget.free.get(), 10);
        });
    }
}
