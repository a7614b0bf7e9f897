//! Two replicas meet: Hello, verdicts on histories, who is a newcomer; then a session is open, or not.

use super::session::{Session, Way};
use super::world::{Outcome, World};
use cbddc::replica::{Meeting, Newcomer, Request, Said, Stream, history_verdict, newcomer, shared_until};
use cbddc::wire::{ClockSample, Hello, MemberNote, Mode};
use std::collections::VecDeque;

impl World {
    fn hello(&mut self, at: usize) -> Hello {
        let node = &mut self.nodes[at];
        let mut known = node.table.knowledge.clone();
        let Ok(clean) = known.is_clean(&mut node.table);
        let tracked = node.table.members.iter().filter(|(_, member)| member.tracked);
        Hello {
            version_min: 1,
            version_max: 1,
            node_id: node.name.clone(),
            replica: known.replica,
            instance: 0,
            members: tracked
                .map(|(device, member)| MemberNote { device: *device, node_id: member.node_id.clone() })
                .collect(),
            tokens: known.tokens,
            clock: ClockSample { millis: 0, synchronised: true },
            hlc: known.hlc.last(),
            visitor: node.visitor,
            bootstrapping: node.bootstrapping,
            tail: known.tail,
            vector: known.vector,
            floor: known.floor,
            digest: known.digest,
            clean,
        }
    }
    /// Two nodes meet: verdicts, records, floors; then a session is open, or not.
    pub fn meet(&mut self, a: usize, b: usize) -> Outcome {
        if self.nodes[a].device == self.nodes[b].device {
            return Ok(());
        }
        let hellos = [self.hello(a), self.hello(b)];
        let ends = [a, b];
        for (me, peer) in [(0, 1), (1, 0)] {
            let seen = self.nodes[ends[me]].table.members.get(&self.nodes[ends[peer]].device);
            let ours = &self.nodes[ends[me]].table.knowledge.vector;
            if let Err(common) = history_verdict(seen, ours, &Said::of(&hellos[peer], false)) {
                let (me, peer) = (ends[me], ends[peer]);
                if !self.judge.ledger.any_fork() {
                    return Err(format!("false fork: n{me} takes n{peer} for a fork"));
                }
                // The word may be lost.
                if self.rng.u8(..5) > 0 {
                    let shared = shared_until(&self.nodes[peer].table.knowledge, common);
                    self.fork(peer, shared)?;
                }
                return Ok(());
            }
        }
        for (me, peer) in [(0, 1), (1, 0)] {
            let hello = &hellos[peer];
            let meeting = Meeting {
                device: self.nodes[ends[peer]].device,
                node_id: hello.node_id.clone(),
                tracked: (!hello.visitor).then_some(true),
                said: Some(Said::of(hello, false)),
            };
            self.run(ends[me], Request::Meet(meeting))?;
            for note in &hello.members {
                let node = &self.nodes[ends[me]];
                let known = node.table.members.contains_key(&note.device) || node.device == note.device;
                let unheard = !known && self.plan.partial_members && self.rng.bool();
                if !known && !unheard {
                    let MemberNote { device, node_id } = note.clone();
                    let meeting = Meeting { device, node_id, tracked: Some(true), said: None };
                    self.run(ends[me], Request::Meet(meeting))?;
                }
            }
        }
        let side = |at: usize| (&hellos[at].vector, &hellos[at].floor);
        let newcomer = match newcomer(side(0), side(1)) {
            Newcomer::Us => Some(0),
            Newcomer::Peer => Some(1),
            Newcomer::Neither => None,
        };
        let no_way = |at: usize| Way {
            stream: None,
            closed_at: None,
            queue: VecDeque::new(),
            announced: hellos[at].vector.clone(),
            first: true,
            reconciled: false,
        };
        let mut ways = [no_way(0), no_way(1)];
        if newcomer.is_some() || !self.settling {
            self.say(|| format!("n{a} and n{b} meet; newcomer {:?}", newcomer.map(|at| ends[at])));
        }
        self.tally.count("session");
        match newcomer {
            Some(at) if hellos[at].bootstrapping || hellos[1 - at].bootstrapping => return Ok(()),
            Some(at) => {
                self.tally.count("bootstrap begun");
                self.nodes[ends[at]].bootstrapping = true;
                ways[1 - at].stream =
                    Some(Stream { mode: Mode::Bootstrap, after: 0, covers: hellos[at].vector.clone(), passes_upto: 0 });
            }
            None => {
                let same = hellos[0].vector == hellos[1].vector && hellos[0].clean && hellos[1].clean;
                let skip = same && hellos[0].digest == hellos[1].digest && self.rng.bool();
                for from in [0, 1] {
                    if hellos[from].bootstrapping && !self.plan.lax_bootstrap {
                        continue;
                    }
                    let member = &self.nodes[ends[1 - from]].table.members[&self.nodes[ends[from]].device];
                    let after = if skip { hellos[from].tail } else { member.cursor };
                    ways[from].stream = Some(Stream {
                        mode: Mode::Increment,
                        after,
                        covers: hellos[1 - from].vector.clone(),
                        passes_upto: 0,
                    });
                }
            }
        }
        self.sessions.push(Session { ends, lives: [hellos[0].replica, hellos[1].replica], ways });
        Ok(())
    }
    pub(super) fn fork(&mut self, at: usize, shared: u64) -> Outcome {
        self.tally.count("fork mended");
        self.say(|| format!("n{at} is told that it has two histories, shared until {shared}"));
        self.cut_all(at);
        self.nodes[at].bootstrapping = false;
        let random = self.rng.u64(..);
        self.run(at, Request::Fork { shared, random }).map(drop)
    }
}
