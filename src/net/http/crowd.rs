//! The open connections of a listener, and who gives way when all places are taken.
//!
//! First whoever is idle: a client that keeps a connection must expect that. Then whoever has said nothing yet: a client
//! that wants something says it at once. Who is being served is left alone, but for those that have us wait: while others
//! need their place or their memory, a body or an answer moves at least 32 KiB a second or its connection ends. A few
//! places beyond the bound are for monitoring alone, so that a node whose places are all in use still says how it is.
//!
//! Decides nothing about requests.

use super::body::TRANSFER_STEP_BYTES;
use super::budget::Bodies;
use super::connection::{Activity, Phase};
use super::serve::{Counters, count};
use async_channel::{Receiver, Sender};
use smol::{Task, Timer};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use std::vec::Vec;

/// Places beyond the bound, for `/health`, `/livez`, `/readyz` and `/metrics`.
const MONITORING_PLACES: usize = 8;

/// What a connection is doing, and the task that serves it: dropping that ends it.
type Connection = (Rc<Activity>, Task<()>);

/// The connections of one listener.
pub(super) struct Crowd {
    max: usize,
    open: RefCell<HashMap<u64, Connection>>,
    counters: Rc<Counters>,
    bodies: Bodies,
    press: Sender<()>,
    pressed: Receiver<()>,
    /// Somebody found no place since the last look.
    turned_away: Cell<bool>,
}

impl Crowd {
    pub(super) fn new(max: usize, bodies: Bodies, counters: Rc<Counters>) -> Crowd {
        // One word is enough: there is something to look at.
        let (press, pressed) = async_channel::bounded(1);
        bodies.tell(&press);
        Crowd { max, open: RefCell::default(), counters, bodies, press, pressed, turned_away: Cell::new(false) }
    }

    pub(super) fn enter(&self, id: u64, activity: Rc<Activity>, task: Task<()>) {
        self.open.borrow_mut().insert(id, (activity, task));
    }
    pub(super) fn leave(&self, id: u64) -> Option<Task<()>> {
        self.open.borrow_mut().remove(&id).map(|(_, task)| task)
    }
    pub(super) fn all_leave(&self) -> Vec<Task<()>> {
        self.open.borrow_mut().drain().map(|(_, (_, task))| task).collect()
    }

    /// Whether the next one finds no place but somebody else's.
    pub(super) fn is_full(&self) -> bool {
        self.open.borrow().len() >= self.max
    }

    /// Makes room for a newcomer. `Some(true)`: at a place for monitoring. `None`: there is none.
    pub(super) fn place(&self) -> Option<bool> {
        let taken = |crowded| self.open.borrow().values().filter(|(one, _)| one.is_crowded() == crowded).count();
        if taken(false) < self.max || self.evict_one(false) {
            return Some(false);
        }
        self.turned_away.set(true);
        // Full means that it is known already.
        let _ = self.press.try_send(());
        (taken(true) < MONITORING_PLACES || self.evict_one(true)).then_some(true)
    }

    /// Closes the connection that has been idle longest, else the oldest that has said nothing yet.
    fn evict_one(&self, crowded: bool) -> bool {
        let mut open = self.open.borrow_mut();
        let among = open.iter().filter(|(_, (one, _))| one.is_crowded() == crowded);
        let gives_way = among.filter_map(|(id, (one, _))| match one.phase() {
            Phase::Idle(since) => Some((false, since, *id)),
            Phase::Fresh => Some((true, *id, *id)),
            Phase::Working | Phase::Answered => None,
        });
        let Some((_, _, id)) = gives_way.min() else { return false };
        open.remove(&id);
        count(&self.counters.evicted);
        true
    }

    /// Cuts off whoever has us wait, for as long as others wait for it.
    pub(super) async fn sweep_forever(&self, every: Duration) {
        while self.pressed.recv().await.is_ok() {
            loop {
                self.turned_away.set(false);
                let before: HashMap<u64, u64> = self.waits_for_client().collect();
                Timer::after(every).await;
                let unmoved = |(id, moved): &(u64, u64)| {
                    before.get(id).is_some_and(|before| moved - before < TRANSFER_STEP_BYTES as u64)
                };
                let slow: Vec<(u64, u64)> = self.waits_for_client().filter(unmoved).collect();
                for (id, _) in slow {
                    self.leave(id);
                    count(&self.counters.slow);
                }
                if !self.turned_away.get() && !self.bodies.are_waited_for() {
                    break;
                }
            }
        }
    }

    /// Connections whose client is waited for, and what they have moved so far.
    fn waits_for_client(&self) -> impl Iterator<Item = (u64, u64)> {
        let open = self.open.borrow();
        let waits = open.iter().filter(|(_, (one, _))| one.waits_for_client());
        waits.map(|(id, (one, _))| (*id, one.moved())).collect::<Vec<_>>().into_iter()
    }
}
