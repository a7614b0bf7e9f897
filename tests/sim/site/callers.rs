//! Who writes at a site: callers drawn by chance, and those of a told story.

use super::host::LARGE_KEYS;
use super::{Event, Outcome, START, Site};
use cbddc::proto::{Client, Input, Output};
use cbddc::replica::{Precondition, Request, Write};
use cbddc::row::{Body, RowKey, Scope};

impl Site {
    /// Somebody writes some documents somewhere.
    pub fn work(&mut self) -> Outcome {
        if self.work == 0 {
            return Ok(());
        }
        let pause = self.rng.u64(1..2 * self.plan.pause);
        self.after(pause, Event::Work);
        let up: Vec<usize> = (0..self.hosts.len()).filter(|at| self.hosts[*at].engine.is_some()).collect();
        let Some(at) = self.rng.choice(up) else { return Ok(()) };
        let count = self.rng.usize(1..=self.plan.bulk).min(self.work);
        self.work -= count;
        self.operations += count as u64;
        let writes = (0..count).map(|_| self.draw_write()).collect();
        self.ask(at, Client::Write(writes))
    }
    fn draw_write(&mut self) -> Write {
        let number = self.rng.usize(..self.plan.keys);
        let key = format!("k{number}");
        let scope = match self.rng.u8(..30) {
            0 => Scope::Local,
            1 => Scope::System,
            _ => Scope::Replicated,
        };
        let body = match self.rng.u8(..3) == 0 {
            true => Body::Tombstone,
            false => self.value(if number < LARGE_KEYS { self.plan.large } else { 0 }),
        };
        let expires = self.plan.expiry && body != Body::Tombstone && self.rng.u8(..4) == 0;
        let expires_at = expires.then(|| START + self.time + self.rng.u64(1..3000));
        let key = RowKey { scope, collection: "x".into(), key };
        Write { key, body, expires_at, precondition: Precondition::None }
    }
    fn value(&mut self, bytes: usize) -> Body {
        self.values += 1;
        let mut value = format!("v{}", self.values).into_bytes();
        value.resize(bytes.max(value.len()), b' ');
        Body::Live(value)
    }
    /// A caller asks a node.
    pub fn ask(&mut self, at: usize, request: Client) -> Outcome {
        self.next_client += 1;
        let client = self.next_client;
        let host = &mut self.hosts[at];
        let now = host.now(self.time);
        let Some(engine) = &mut host.engine else { return Ok(()) };
        engine.handle(now, Input::Client { client, request }).map_err(|why| format!("undrained: n{at}: {why}"))?;
        // The first write request that it leads to is the caller's.
        let outputs: Vec<Output> = std::iter::from_fn(|| engine.poll()).collect();
        for output in &outputs {
            if let Output::Store { ticket, request: Request::Write { .. }, .. } = output {
                host.callers.entry(client).or_insert(*ticket);
            }
        }
        for output in outputs {
            self.carry_out(at, output)?;
        }
        self.set_timer(at);
        Ok(())
    }
    /// Writes one document, for a told story.
    pub fn put(&mut self, at: usize, key: &str) -> Outcome {
        self.put_at(at, RowKey::replicated("x", key))
    }
    pub fn put_at(&mut self, at: usize, key: RowKey) -> Outcome {
        let body = self.value(0);
        self.ask(at, Client::Write(vec![Write { key, body, expires_at: None, precondition: Precondition::None }]))
    }
    /// Deletes one.
    pub fn delete(&mut self, at: usize, key: &str) -> Outcome {
        let (key, body) = (RowKey::replicated("x", key), Body::Tombstone);
        self.ask(at, Client::Write(vec![Write { key, body, expires_at: None, precondition: Precondition::None }]))
    }
    /// What a reader on a node sees.
    pub fn get(&self, at: usize, key: &str) -> Option<String> {
        let (row, _) = self.hosts[at].table.rows.of(&RowKey::replicated("x", key))?;
        row.value().map(|value| String::from_utf8_lossy(value).into_owned())
    }
}
