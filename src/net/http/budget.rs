//! The bytes of bodies that may be in memory at once: a share is taken before the bytes are, and given back on drop.
//!
//! Who asks for more than is free waits in line; nobody overtakes, so a large share is not starved by small ones. The line
//! is bounded, and while somebody stands in it, connections that hold a share and do nothing with it are cut off
//! ([`super::crowd`]).

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::vec::Vec;

/// How many bytes somebody waits for, and where to send them.
type Waiter = (usize, async_channel::Sender<Share>);

/// The memory for bodies of all listeners of a node.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    /// Bodies of requests: half of it all, so that no upload keeps readers waiting.
    pub(super) uploads: Rc<Budget>,
    /// What of that bulk requests may have, which have no end by themselves.
    pub(super) bulk: Rc<Budget>,
    /// Bodies of answers: the other half, so that no reader keeps writers waiting.
    pub(super) answers: Rc<Budget>,
    /// What of that pages may have, which are the largest answers.
    pub(super) pages: Rc<Budget>,
}

impl Bodies {
    /// So many bytes at once.
    pub(crate) fn new(total: usize) -> Bodies {
        Bodies {
            uploads: Budget::new(total / 2),
            bulk: Budget::new(total / 4),
            answers: Budget::new(total / 2),
            pages: Budget::new(total / 4),
        }
    }
    fn each(&self) -> [&Rc<Budget>; 4] {
        [&self.uploads, &self.bulk, &self.answers, &self.pages]
    }
    /// Whether somebody waits in line for its share.
    pub(super) fn are_waited_for(&self) -> bool {
        self.each().iter().any(|budget| budget.is_pressed())
    }
    /// Told each time that somebody has to wait in line.
    pub(super) fn tell(&self, pressed: &async_channel::Sender<()>) {
        for budget in self.each() {
            budget.pressed.borrow_mut().push(pressed.clone());
        }
    }
}

/// Who may wait for a share at once; more are refused, so that not all connections stand in line.
const LINE_MAX: usize = 16;

/// All shares together.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    pressed: RefCell<Vec<async_channel::Sender<()>>>,
    free: Cell<usize>,
    line: RefCell<VecDeque<Waiter>>,
}

/// So many bytes of a [`Budget`].
#[derive(Debug)]
pub(super) struct Share {
    budget: Rc<Budget>,
    bytes: usize,
    /// Shrinks with it and ends with it.
    beside: Option<Box<Share>>,
}

impl Budget {
    /// More than the whole of it is nobody's.
    pub(super) fn total(&self) -> usize {
        self.total
    }
    pub(super) fn new(total: usize) -> Rc<Budget> {
        let (pressed, line) = (RefCell::default(), RefCell::default());
        Rc::new(Budget { total, pressed, free: Cell::new(total), line })
    }

    /// Waits until `bytes` are free and takes them; more than the whole budget counts as the whole. `None` where too many
    /// wait already.
    pub(super) async fn take(self: &Rc<Budget>, bytes: usize) -> Option<Share> {
        let bytes = bytes.min(self.total);
        let turn = {
            let mut line = self.line.borrow_mut();
            if line.is_empty() && self.free.get() >= bytes {
                return Some(self.cut(bytes));
            }
            line.retain(|(_, turn)| !turn.is_closed());
            if line.len() >= LINE_MAX {
                return None;
            }
            let (sender, turn) = async_channel::bounded(1);
            line.push_back((bytes, sender));
            turn
        };
        self.press();
        match turn.recv().await {
            Ok(share) => Some(share),
            // The line holds the sender until it has sent, and the budget holds the line.
            Err(async_channel::RecvError) => Some(Share { budget: self.clone(), bytes: 0, beside: None }),
        }
    }

    fn press(&self) {
        // Full means that it is known already; a closed one is of a listener that has ended.
        self.pressed.borrow_mut().retain(|pressed| !pressed.is_closed());
        for pressed in self.pressed.borrow().iter() {
            let _ = pressed.try_send(());
        }
    }

    /// Whether somebody stands in line.
    fn is_pressed(&self) -> bool {
        self.line.borrow().iter().any(|(_, turn)| !turn.is_closed())
    }

    fn cut(self: &Rc<Budget>, bytes: usize) -> Share {
        self.free.set(self.free.get() - bytes);
        Share { budget: self.clone(), bytes, beside: None }
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
    /// The two as one.
    pub(super) fn together_with(mut self, beside: Share) -> Share {
        self.beside = Some(Box::new(beside));
        self
    }
    /// Gives back all beyond `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if let Some(beside) = &mut self.beside {
            beside.shrink_to(bytes);
        }
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
    use std::vec::Vec;

    #[test]
    fn who_asks_for_more_than_is_free_waits_and_nobody_overtakes() {
        block_on(async {
            let budget = Budget::new(100);
            let mut first = budget.take(60).await.unwrap();
            let mut large = pin!(budget.take(80));
            assert!(poll_once(large.as_mut()).await.is_none());
            let mut small = pin!(budget.take(10));
            assert!(poll_once(small.as_mut()).await.is_none(), "behind the large one");
            first.shrink_to(10);
            let large = poll_once(large).await.unwrap();
            let small = poll_once(small).await.unwrap();
            assert!(large.is_some() && small.is_some());
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
    fn the_line_has_an_end() {
        block_on(async {
            let budget = Budget::new(100);
            let all = budget.take(100).await;
            let mut line: Vec<_> = (0..LINE_MAX).map(|_| Box::pin(budget.take(1))).collect();
            for waits in &mut line {
                assert!(poll_once(waits).await.is_none());
            }
            assert!(budget.take(1).await.is_none(), "refused at once");
            line.pop();
            let mut last = pin!(budget.take(1));
            assert!(poll_once(last.as_mut()).await.is_none(), "in the place of who has left");
            drop(all);
            assert!(poll_once(last).await.unwrap().is_some());
        });
    }

    #[test]
    fn more_than_the_whole_counts_as_the_whole() {
        block_on(async {
            let budget = Budget::new(10);
            drop(budget.take(1_000_000).await.unwrap());
            assert_eq!(budget.free.get(), 10);
        });
    }
}
