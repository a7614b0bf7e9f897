//! Faults stop; everybody exchanges until all are the same, and the judge has the last word.

use super::world::{Outcome, World, device};
use crate::ledger::show;
use crate::table::MemTable;
use cbddc::row::{Row, Scope};
use cbddc::time::Millis;
use std::rc::Rc;

impl World {
    /// Faults stop; everybody alive exchanges until quiet.
    pub fn settle(&mut self) -> Outcome {
        self.rng = fastrand::Rng::with_seed(7);
        // Whatever can expire has.
        self.time =
            self.judge.ledger.made.iter().filter_map(|made| made.row.expires_at).fold(self.time, u64::max) + 10_000;
        self.settling = true;
        self.say(|| "faults stop".into());
        self.sessions.clear();
        for at in 0..self.nodes.len() {
            let twin = self.nodes[..at].iter().any(|node| node.device == self.nodes[at].device);
            let node = &mut self.nodes[at];
            node.bootstrapping = false;
            (node.offset, node.believed) = (0, true);
            if twin {
                node.device = device(at);
            }
        }
        let alive: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].alive).collect();
        for at in &alive {
            while !self.nodes[*at].queued.is_empty() {
                self.take_queued(*at)?;
            }
        }
        let rounds = 3 * alive.len() + 10;
        let mut quiet = 0;
        for round in 0..rounds {
            for at in &alive {
                // Expiry goes on for ever; dropping goes on for a while.
                let (min_age, keep) = match round < 4 && self.plan.early_drops {
                    true => (0, if self.plan.forced_drops { self.plan.keep } else { Millis::MAX }),
                    false => (Millis::MAX, Millis::MAX),
                };
                self.maintain_node(*at, min_age, keep)?;
            }
            let mut pairs: Vec<(usize, usize)> =
                alive.iter().flat_map(|a| alive.iter().filter(move |b| *b > a).map(|b| (*a, *b))).collect();
            self.rng.shuffle(&mut pairs);
            for (a, b) in pairs {
                self.exchange(a, b)?;
            }
            self.time += 5;
            quiet = if self.is_quiet(&alive) { quiet + 1 } else { 0 };
            if quiet == 2 {
                return self.final_verdict(&alive);
            }
        }
        // A row that no vector will ever cover keeps the digests from being compared: two histories that nothing but the
        // digests can tell apart then stay apart.
        let mut tables = alive.iter().map(|at| self.nodes[*at].table.clone());
        let orphans = tables.any(|mut table| table.knowledge.clone().is_clean(&mut table) != Ok(true));
        if self.judge.ledger.any_fork() && orphans {
            self.tally.count("split behind an orphan");
            return Ok(());
        }
        for at in &alive {
            let node = &self.nodes[*at].table;
            let rows: Vec<String> = node.rows.rows.values().map(|(row, _)| show(row)).collect();
            let text = format!("n{at}: {:?} floor {:?}: {rows:?}", node.knowledge.vector, node.knowledge.floor);
            self.say(|| text);
        }
        Err(format!("convergence: not quiet after {rounds} rounds"))
    }
    fn is_quiet(&self, alive: &[usize]) -> bool {
        let first = &self.nodes[alive[0]].table;
        let docs = |table: &MemTable| -> Vec<Rc<Row>> {
            let shared = table.rows.keys.iter().filter(|(key, _)| key.scope != Scope::Local);
            shared.map(|(_, at)| table.rows.rows[at].0.clone()).filter(|row| !row.is_tombstone()).collect()
        };
        let expected = docs(first);
        alive.iter().all(|at| {
            let table = &self.nodes[*at].table;
            table.knowledge.vector == first.knowledge.vector
                && table.knowledge.digest == first.knowledge.digest
                && docs(table) == expected
        })
    }
    fn final_verdict(&mut self, alive: &[usize]) -> Outcome {
        for at in alive {
            self.judge.check_disk(*at, &self.nodes[*at].table)?;
        }
        let tables = self.nodes.iter().filter(|node| node.alive).map(|node| &node.table);
        self.judge.ledger.verdict(&self.nodes[alive[0]].table, tables)
    }
}
