//! What goes wrong in a search of the rules: crashes, deaths, older disks, clones, clocks, cuts.

use super::world::{Outcome, World, device};
use cbddc::replica::{Meeting, Request};

impl World {
    pub(super) fn fault(&mut self) -> Outcome {
        let Some(at) = self.alive() else { return Ok(()) };
        match self.rng.u8(..9) {
            0 => {
                let disk = self.nodes[at].table.clone();
                let disks = &mut self.nodes[at].disks;
                disks.push(disk);
                if disks.len() > 3 {
                    disks.remove(0);
                }
            }
            1 => self.restart(at, "crash"),
            2 if self.plan.deaths && self.nodes.iter().filter(|node| node.alive).count() > 1 && self.rng.bool() => {
                self.say(|| format!("n{at} dies"));
                self.tally.count("death");
                self.cut_all(at);
                self.nodes[at].alive = false;
                self.excuse(at);
            }
            3 if self.plan.rollbacks && !self.nodes[at].disks.is_empty() => {
                let older = self.rng.usize(..self.nodes[at].disks.len());
                let disk = self.nodes[at].disks[older].clone();
                self.judge.ledger.note_second_life(&disk);
                self.say(|| format!("n{at} is rolled back to {:?}", disk.knowledge.vector));
                self.judge.new_disk(at, &disk);
                self.nodes[at].table = disk;
                self.restart(at, "rollback");
                self.excuse(at);
            }
            4 if self.plan.clones && self.nodes.len() < 8 => {
                let disk = self.nodes[at].table.clone();
                self.judge.ledger.note_second_life(&disk);
                let fresh = self.nodes.len();
                let same_key = self.rng.bool();
                self.say(|| format!("n{at} is cloned as n{fresh}{}", if same_key { ", with its key" } else { "" }));
                let key = if same_key { self.nodes[at].device } else { device(fresh) };
                self.judge.new_disk(fresh, &disk);
                self.add(fresh, key, disk, false);
                self.restart(fresh, "clone");
            }
            5 if self.plan.untracks => {
                let members: Vec<_> = self.nodes[at].table.members.clone().into_iter().collect();
                if let Some((device, member)) = self.rng.choice(members) {
                    self.tally.count("untrack");
                    self.say(|| format!("n{at} untracks {}", member.node_id));
                    let meeting = Meeting { device, node_id: member.node_id, tracked: Some(false), said: None };
                    self.run(at, Request::Meet(meeting))?;
                }
            }
            6 | 7 if self.plan.clock_jumps => {
                self.tally.count("clock jump");
                let far = 40 * 365 * 86_400_000;
                let offset = match self.rng.u8(..6) {
                    0 => far,
                    1 => -2_000_000,
                    2 => 1 << 46,
                    3 => 0,
                    _ => self.rng.i64(-500..500),
                };
                let node = &mut self.nodes[at];
                (node.offset, node.believed) = (offset, self.rng.bool());
                self.say(|| format!("n{at}: clock {offset:+}"));
            }
            _ => {
                if !self.sessions.is_empty() {
                    let session = self.rng.usize(..self.sessions.len());
                    self.cut(session, "cut");
                }
            }
        }
        Ok(())
    }
    pub(super) fn excuse(&mut self, lost: usize) {
        let alive = self.nodes.iter().filter(|node| node.alive).map(|node| &node.table);
        self.judge.ledger.excuse(lost, alive);
    }
    pub(super) fn restart(&mut self, at: usize, why: &'static str) {
        self.tally.count(why);
        self.cut_all(at);
        let token = self.rng.u64(..);
        let node = &mut self.nodes[at];
        node.bootstrapping = false;
        node.slice_after = 0;
        node.table.knowledge.start(token);
        self.say(|| format!("n{at} starts ({why})"));
    }
}
