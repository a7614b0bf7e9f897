//! Faults stop; the site must become quiet, the same everywhere, and must have kept its promises.

use super::faults::Fault;
use super::{Event, Outcome, START, Site};
use crate::ledger::show;
use cbddc::proto::Client;
use cbddc::row::{Row, RowKey, Scope};
use cbddc::time::Millis;
use std::rc::Rc;

/// A site whose faults have stopped is quiet after this at the latest.
const QUIET_AFTER: Millis = 180_000;

impl Site {
    pub fn settle(&mut self) -> Outcome {
        self.settling = true;
        self.say(|| "faults stop".into());
        self.air.blocked.clear();
        (self.air.loss, self.air.doubled, self.air.delay) = (0, 0, 0);
        // Somebody knows the time.
        let first = self.hosts.iter().position(|host| !host.dead);
        for at in 0..self.hosts.len() {
            let host = &mut self.hosts[at];
            (host.slow_until, host.faulty_until) = (0, 0);
            let keeps_none = self.plan.no_rtc && Some(at) != first;
            if !(keeps_none && !host.synchronised && host.wall_offset < -86_400_000) {
                (host.wall_offset, host.synchronised) = (0, true);
            }
            if host.engine.is_none() {
                let epoch = host.epoch;
                self.after(10, Event::Start { host: at, epoch });
            }
        }
        let until = self.time + QUIET_AFTER;
        let (mut quiet, mut step) = (0, 200);
        while self.time < until {
            let next = self.time + step;
            self.run_until(next)?;
            self.mend_by_hand()?;
            // A prime: nobody's timers may keep step with the moments at which they are looked at.
            step = (step + step / 4).min(1_997);
            quiet = if self.is_quiet() && self.unnoticed().is_none() { quiet + 1 } else { 0 };
            if quiet == 2 {
                return self.final_verdict();
            }
        }
        // A row that no vector will ever cover keeps the digests from being compared: two histories that nothing but the
        // digests can tell apart then stay apart.
        let mut tables = self.hosts.iter().filter(|host| !host.dead).map(|host| host.table.clone());
        if self.judge.ledger.any_fork() && tables.any(|mut t| t.knowledge.clone().is_clean(&mut t) != Ok(true)) {
            self.tally.count("split behind an orphan");
            return Ok(());
        }
        let mut state = Vec::new();
        for (at, host) in self.hosts.iter().enumerate().filter(|(_, host)| !host.dead) {
            let damaged = host.engine.as_ref().map(|engine| engine.damaged());
            state.push(format!("n{at}: up {} idle {} damaged {damaged:?}", host.engine.is_some(), host.is_idle()));
        }
        for (at, host) in self.hosts.iter().enumerate().filter(|(_, host)| !host.dead) {
            let rows: Vec<String> = host.table.rows.rows.values().map(|(row, _)| show(row)).collect();
            let known = &host.table.knowledge;
            let links = self.links.values().filter(|link| link.ends.contains(&at)).count();
            state.push(format!(
                "n{at}: {} {:?} floor {:?} links {links}: {rows:?}",
                known.replica, known.vector, known.floor
            ));
        }
        state.into_iter().for_each(|text| self.say(|| text));
        match self.unnoticed() {
            Some(at) if self.is_quiet() => Err(format!("fork: n{at} was rolled back and is still the same replica")),
            _ => Err("convergence: not quiet in three minutes".into()),
        }
    }
    /// A host that was rolled back behind what others know, and has not been told. Whoever never gets to meet who knows,
    /// for want of links, is made the same by the digests instead.
    fn unnoticed(&self) -> Option<usize> {
        // A twin may have been taken for it, and a new device key hides what its old one had said.
        let cloned = self.plan.faults.contains(&Fault::Clone);
        let alive = self.hosts.iter().filter(|host| !host.dead).count();
        if cloned || alive < 2 || self.plan.links_max < self.hosts.len() {
            return None;
        }
        let still = |(at, replica, witnesses): &&(usize, cbddc::id::ReplicaId, Vec<usize>)| {
            let told = witnesses.iter().any(|witness| !self.hosts[*witness].dead);
            told && !self.hosts[*at].dead && self.hosts[*at].table.knowledge.replica == *replica
        };
        self.must_change.iter().find(still).map(|(at, ..)| *at)
    }
    /// Whatever is damaged is met by somebody; what nobody has any more is written anew by whoever needs it. Who is dead, or
    /// goes by another key now, is not waited for.
    fn mend_by_hand(&mut self) -> Outcome {
        let hurt = |host: &super::Host| !host.dead && host.engine.is_some() && !host.table.damaged.is_empty();
        if let Some(at) = self.hosts.iter().position(hurt) {
            let alive = |device| self.hosts.iter().any(|host| !host.dead && host.device == device);
            let now = self.hosts[at].now(self.time);
            let peers = self.hosts[at].engine.iter().flat_map(|engine| engine.peers(now));
            let gone = peers.filter(|peer| peer.tracked && !alive(peer.device)).map(|peer| peer.device);
            for device in gone.collect::<Vec<_>>() {
                self.ask(at, Client::Untrack(device))?;
            }
        }
        for at in 0..self.hosts.len() {
            if self.hosts[at].dead || self.hosts[at].table.damaged.is_empty() {
                continue;
            }
            self.meet_damage(at)?;
            let table = &self.hosts[at].table;
            let somewhere = |row: &Row| {
                let others = self.hosts.iter().filter(|host| !host.dead);
                let mut there = others.filter_map(|host| host.table.readable(&row.key));
                there.any(|there| there.rank() >= row.rank())
            };
            let rows = table.damaged.keys().filter_map(|at| table.rows.rows.get(at));
            let lost: Vec<RowKey> = rows.filter(|(row, _)| !somewhere(row)).map(|(row, _)| row.key.clone()).collect();
            let up = self.hosts[at].engine.is_some();
            for key in lost.into_iter().filter(|_| up) {
                self.tally.count("damage written anew by hand");
                self.say(|| format!("n{at}: {} is lost, and written anew", key.key));
                self.put_at(at, key)?;
            }
        }
        Ok(())
    }
    fn is_quiet(&self) -> bool {
        let mut alive = self.hosts.iter().filter(|host| !host.dead);
        let Some(first) = alive.next() else { return true };
        let now = START + self.time;
        let docs = |host: &super::Host| -> Vec<Rc<Row>> {
            let shared = host.table.rows.keys.iter().filter(|(key, _)| key.scope != Scope::Local);
            let rows = shared.map(|(_, at)| host.table.rows.rows[at].0.clone());
            // Who has no clock, and no link to anybody who has one, does not know what is over.
            let lost = host.engine.as_ref().is_none_or(|engine| !engine.reading(host.now(self.time)).believed);
            let shown = rows.filter(|row| !row.is_tombstone());
            shown.filter(|row| !lost || !row.is_expired(now)).collect()
        };
        let settled = |host: &super::Host| host.engine.is_some() && host.is_idle();
        let mut expected = None;
        let same = |host: &super::Host| {
            let (known, of_first) = (&host.table.knowledge, &first.table.knowledge);
            settled(host)
                && host.table.damaged.is_empty()
                && known.vector == of_first.vector
                && known.digest == of_first.digest
        };
        settled(first)
            && first.table.damaged.is_empty()
            && alive.all(|host| same(host) && docs(host) == *expected.get_or_insert_with(|| docs(first)))
            && !docs(first).iter().any(|row| row.is_expired(now))
    }
    fn final_verdict(&mut self) -> Outcome {
        let alive: Vec<usize> = (0..self.hosts.len()).filter(|at| !self.hosts[*at].dead).collect();
        for at in &alive {
            let host = &self.hosts[*at];
            self.judge.check_disk(*at, &host.table)?;
            self.judge.ledger.sentence(&host.table).map_err(|why| format!("sentence: n{at}: {why}"))?;
            if host.table.knowledge.digest != host.table.digest() {
                return Err(format!("digest: n{at}: the kept sum is not the sum of its rows"));
            }
            let tracked = |visitor: &super::Host| {
                let seen = host.table.members.get(&visitor.device);
                // A cloned card's key changes hands: the same device may be met as both.
                let cloned = self.plan.faults.contains(&Fault::Clone);
                visitor.visitor && !cloned && seen.is_some_and(|member| member.tracked)
            };
            if self.hosts.iter().any(tracked) {
                return Err(format!("visitor: n{at} tracks one"));
            }
            if let Some(engine) = &host.engine {
                let reading = engine.reading(host.now(self.time));
                let wrong = reading.millis.abs_diff(START + self.time);
                if reading.believed && wrong > 10_000 && !self.liars {
                    return Err(format!("clock: n{at} believes a clock that is {wrong} ms wrong"));
                }
            }
        }
        self.relays()?;
        let tables = alive.iter().map(|at| &self.hosts[*at].table);
        self.judge.ledger.verdict(&self.hosts[alive[0]].table, tables)
    }

    /// What is written comes to each node once, and on average not once again: relays wait for the origin's own push. On
    /// slow paths the wait is too short, and that is no fault.
    fn relays(&self) -> Outcome {
        let once = self.operations * (self.hosts.len() as u64 - 1);
        if self.plan.delay == 0 && self.plan.operations > 0 && self.relayed_again > once {
            let again = self.relayed_again;
            return Err(format!("relays: {again} rows came to who had them, {once} would be once for all"));
        }
        Ok(())
    }
}
