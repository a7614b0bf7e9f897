//! Two nodes of a run together: they meet, one sends its stream and the other confirms, one takes the whole state of the
//! other. As links do it, in lock-step.

use super::Run;
use crate::ledger::Outcome;
use crate::node::Answer;
use cbddc::replica::{Applied, Batch, Incoming, Knowledge, Meeting, Origin, Reply, Request, Said, Stream};
use cbddc::wire::Mode;
use std::collections::BTreeMap;

impl Run {
    /// A request whose answer is all that is wanted; `None` where the disk has refused.
    pub(super) fn ask(&mut self, at: usize, request: Request) -> Result<Option<Reply>, String> {
        let now = self.now();
        match self.nodes[at].ask(now, request) {
            Answer::Done(done) => Ok(Some(done.0)),
            Answer::Unknown(_) => Ok(None),
            Answer::Not(_) if self.nodes[at].hurt => Ok(None),
            Answer::Not(why) => Err(format!("refused without a fault: {why}")),
        }
    }
    pub(super) fn known(&self, at: usize) -> Knowledge {
        self.nodes[at].known.clone().expect("it has started")
    }
    /// Each hears of the other.
    fn meet(&mut self, at: usize) -> Result<bool, String> {
        let other = &self.nodes[1 - at];
        let known = self.known(1 - at);
        let said = Said {
            replica: known.replica,
            starts: known.tokens.clone(),
            tail: known.tail,
            vector: known.vector.clone(),
            same_process: false,
        };
        let meeting =
            Meeting { device: other.device, node_id: other.name.clone(), tracked: Some(true), said: Some(said) };
        match self.ask(at, Request::Meet(meeting))? {
            Some(Reply::Met(_, member)) => {
                self.set_member(at, member);
                Ok(true)
            }
            Some(Reply::TwoHistories(..)) => Err("rolled back: the peer knows a start that is gone".into()),
            Some(other) => Err(format!("reply: {other:?}")),
            None => Ok(false),
        }
    }
    fn set_member(&mut self, at: usize, member: cbddc::replica::MemberState) {
        let other = self.nodes[1 - at].device;
        self.nodes[at].members.retain(|(device, _)| *device != other);
        self.nodes[at].members.push((other, member));
    }
    fn stream(&mut self, from: usize, mode: Mode, after: u64) -> Result<Option<Batch>, String> {
        let covers = self.known(1 - from).vector;
        let Some(store) = self.nodes[from].store.clone() else { return Ok(None) };
        match smol::block_on(store.read(Stream { mode, after, covers, passes_upto: 0 })) {
            Ok(batch) => Ok(Some(batch)),
            Err(_) if self.nodes[from].is_dead() || self.nodes[from].bed.lock().failed > 0 => Ok(None),
            Err(error) => Err(format!("reading a stream: {error}")),
        }
    }
    /// `from` sends what the other does not cover; the other confirms; that is noted. Says whether it came to the end.
    pub(super) fn exchange(&mut self, from: usize) -> Result<bool, String> {
        let to = 1 - from;
        if !self.meet(to)? || !self.meet(from)? {
            return Ok(false);
        }
        let member = |run: &Run| {
            let device = run.nodes[from].device;
            run.nodes[to].members.iter().find(|(of, _)| *of == device).map(|(_, member)| member.clone())
        };
        let mut follows = None;
        loop {
            let Some(mut sender) = member(self) else { return Err("members: it has just been met".into()) };
            let Some(batch) = self.stream(from, Mode::Increment, sender.cursor)? else { return Ok(false) };
            let Batch::Rows { rows, upto, closure, own, knowledge, .. } = batch else {
                self.tally.count("below the floor");
                self.bootstrap(to)?;
                return Ok(false);
            };
            // As a link does it: what is durable at the sender, and only that, leaves it.
            if own > knowledge.sent && self.ask(from, Request::MarkSent { upto: own })?.is_none() {
                return Ok(false);
            }
            rows.iter().try_for_each(|row| self.ledger.see(row))?;
            let closed = closure.is_some();
            let asked_as = self.known(to).replica;
            let ranks: Vec<_> = rows.iter().map(|row| (row.key.clone(), row.rank(), row.dot)).collect();
            let incoming = Incoming {
                device: self.nodes[from].device,
                replica: knowledge.replica,
                announced: knowledge.vector.clone(),
                mode: Mode::Increment,
                asked_as,
                follows,
                rows,
                upto,
                closure,
            };
            follows = Some(upto);
            let before = self.known(to);
            let Some(reply) = self.ask(to, Request::Apply(incoming))? else { return Ok(false) };
            match reply {
                Reply::Applied(Applied::Applied { alarm, .. }) => {
                    if alarm {
                        return Err("digest: equal vectors, different documents".into());
                    }
                    self.say(|| format!("{from} sends {} rows, confirmed", ranks.len()));
                    for (key, rank, dot) in ranks {
                        if !before.vector.covers(dot) {
                            self.nodes[to].promise(&key, rank);
                        }
                    }
                    sender.cursor = sender.cursor.max(upto);
                    self.set_member(to, sender);
                    self.tally.count("confirmed");
                }
                Reply::Applied(Applied::SenderBelowFloor | Applied::ReceiverBelowFloor) => {
                    self.tally.count("below the floor");
                    return Ok(false);
                }
                other => return Err(format!("reply: {other:?}")),
            }
            let confirmed = self.known(to);
            let vectors = vec![(self.nodes[to].device, confirmed.replica, confirmed.vector.clone())];
            if self.ask(from, Request::Confirmed { vectors })?.is_none() {
                return Ok(false);
            }
            self.noted[from] = (confirmed.replica, confirmed.vector);
            if closed {
                return Ok(true);
            }
        }
    }
    /// It takes the whole state of the other.
    pub(super) fn bootstrap(&mut self, to: usize) -> Outcome {
        let from = 1 - to;
        if !self.meet(to)? || !self.meet(from)? {
            return Ok(());
        }
        let (mut after, mut first, mut taken) = (0, true, BTreeMap::new());
        loop {
            let Some(batch) = self.stream(from, Mode::Bootstrap, after)? else { return Ok(()) };
            let Batch::Rows { rows, upto, closure, own, knowledge, .. } = batch else {
                return Err("a bootstrap has no floor".into());
            };
            if own > knowledge.sent && self.ask(from, Request::MarkSent { upto: own })?.is_none() {
                return Ok(());
            }
            rows.iter().try_for_each(|row| self.ledger.see(row))?;
            taken.extend(rows.iter().map(|row| (row.key.clone(), row.rank())));
            if self.ask(to, Request::Stage { first, rows })?.is_none() {
                return Ok(());
            }
            (after, first) = (upto, false);
            if let Some(closure) = closure {
                let (device, replica) = (self.nodes[from].device, knowledge.replica);
                let origin = Origin { device, replica, upto, closure };
                self.nodes[to].bootstrapping = true;
                let random = self.random.u64(..);
                self.say(|| format!("{from} is put in force at {to}"));
                if self.ask(to, Request::Bootstrap { origin, random })?.is_none() {
                    return Ok(());
                }
                self.tally.count("bootstrap");
                self.nodes[to].promised = taken;
                if let Some((_, member)) = self.nodes[to].members.iter_mut().find(|(of, _)| *of == device) {
                    member.cursor = upto;
                }
                return self.rebase(to);
            }
        }
    }
}
