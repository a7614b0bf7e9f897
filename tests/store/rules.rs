//! The same requests to SQLite and to maps in memory: the same answers, the same rows, the same knowledge.

use crate::model::Model;
use crate::place::*;
use cbddc::id::{DeviceId, Dot, NodeId, ReplicaId, VersionVector};
use cbddc::replica::{
    Incoming, Knowledge, Meeting, Origin, Precondition, Request, Retention, Said, Stream, Write, execute, read,
};
use cbddc::row::{Body, Row, RowKey, Scope};
use cbddc::time::{Reading, Stamp};
use cbddc::wire::{Closure, Mode};

struct Script {
    random: fastrand::Rng,
    now: u64,
    peer: ReplicaId,
    peer_seq: u64,
    cursor: u64,
    vector: VersionVector,
}

impl Script {
    fn key(&mut self) -> RowKey {
        let scope = *self.random.choice(&[Scope::Replicated, Scope::Replicated, Scope::Local, Scope::System]).unwrap();
        let collection = self.random.choice(&["a", "b"]).unwrap().to_string();
        RowKey { scope, collection, key: format!("k{}", self.random.u8(..12)) }
    }
    fn body(&mut self) -> Body {
        if self.random.u8(..4) == 0 {
            return Body::Tombstone;
        }
        let bytes = self.random.usize(..6000);
        Body::Live((0..bytes).map(|_| self.random.u8(..)).collect())
    }
    fn expiry(&mut self) -> Option<u64> {
        (self.random.u8(..4) == 0).then(|| self.now + self.random.u64(..50))
    }
    fn row(&mut self) -> Row {
        self.peer_seq += 1;
        let mut key = self.key();
        if key.scope == Scope::Local {
            key.scope = Scope::Replicated;
        }
        let stamp = Stamp::new(self.now - 20 + self.random.u64(..40), self.random.u16(..3));
        let dot = Dot { origin: self.peer, seq: self.peer_seq };
        Row { key, stamp, dot, body: self.body(), expires_at: self.expiry() }
    }
    fn rows(&mut self) -> Vec<Row> {
        (0..self.random.usize(1..8)).map(|_| self.row()).collect()
    }
    fn closure(&mut self) -> Closure {
        self.vector.raise(Dot { origin: self.peer, seq: self.peer_seq });
        let hlc = Stamp::new(self.now, 0);
        Closure { vector: self.vector.clone(), floor: VersionVector::new(), digest: 1, clean: true, hlc }
    }
    fn next(&mut self, knowledge: &Knowledge) -> Request {
        self.now += self.random.u64(..20);
        let device = DeviceId([1; 32]);
        match self.random.u8(..40) {
            0..20 => {
                let writes = (0..self.random.usize(1..4)).map(|_| {
                    let precondition = *self
                        .random
                        .choice(&[Precondition::None, Precondition::Absent, Precondition::Present])
                        .unwrap();
                    Write { key: self.key(), body: self.body(), expires_at: self.expiry(), precondition }
                });
                Request::Write { writes: writes.collect(), sending: knowledge.version.is_multiple_of(3) }
            }
            20..29 => {
                let rows = self.rows();
                self.cursor += rows.len() as u64;
                let closure = self.random.bool().then(|| self.closure());
                let announced = self.vector.clone();
                let mode = if self.random.bool() { Mode::Increment } else { Mode::Reconcile };
                Request::Apply(Incoming {
                    device,
                    replica: self.peer,
                    announced,
                    mode,
                    asked_as: knowledge.replica,
                    follows: None,
                    rows,
                    upto: self.cursor,
                    closure,
                })
            }
            29 => Request::Stage { first: true, rows: self.rows() },
            30..32 => Request::Stage { first: false, rows: self.rows() },
            32 => {
                let origin = Origin { device, replica: self.peer, upto: self.cursor, closure: self.closure() };
                Request::Bootstrap { origin, random: self.random.u64(..) }
            }
            33 => Request::MarkSent { upto: self.random.u64(..=knowledge.seq) },
            34 => {
                let said = Said {
                    replica: self.peer,
                    starts: Vec::new(),
                    tail: 0,
                    vector: self.vector.clone(),
                    same_process: true,
                };
                let said = self.random.bool().then_some(said);
                Request::Meet(Meeting { device, node_id: NodeId::new("n").unwrap(), tracked: Some(true), said })
            }
            35 => Request::Confirmed { vectors: vec![(device, self.peer, knowledge.vector.clone())] },
            36..38 => Request::Maintain(Retention {
                confirmed_by_all: self.random.bool().then(|| knowledge.vector.clone()),
                min_age: self.random.u64(..40),
                keep: 1000,
                tombstones_max: self.random.u64(2..200),
                bytes_over: 0,
                upto: u64::MAX,
                after: 0,
                slice: self.random.usize(1..6),
            }),
            38 => Request::Fork { shared: self.random.u64(..=knowledge.seq), random: self.random.u64(..) },
            _ => Request::Records,
        }
    }
}

#[test]
fn sqlite_and_a_map_in_memory_agree_on_every_answer() {
    for seed in 0..6 {
        let path = database(&format!("rules-{seed}"));
        let (mut store, opened) = open(&path);
        let mut model = Model::new(opened.knowledge);
        let mut script = Script {
            random: fastrand::Rng::with_seed(seed),
            now: NOW.millis,
            peer: ReplicaId::mint(&[], 4242),
            peer_seq: 0,
            cursor: 0,
            vector: VersionVector::new(),
        };
        for round in 0..60 {
            // Some at once, so that they share a commit; the model takes them one after another.
            let mut waiting = Vec::new();
            for _ in 0..script.random.usize(1..6) {
                let request = script.next(&model.knowledge);
                let now = Reading { millis: script.now, believed: true };
                let story = format!("seed {seed} round {round}: {request:?}");
                waiting.push((story, store.submit(now, request.clone()), execute(&mut model, now, request).unwrap()));
            }
            for (story, answer, expected) in waiting {
                assert!(smol::block_on(answer).unwrap() == expected, "{story}");
            }
            let stream = |mode| Stream { mode, after: 3, covers: model.knowledge.floor.clone(), passes_upto: 0 };
            for stream in [stream(Mode::Bootstrap), stream(Mode::Increment)] {
                assert!(smol::block_on(store.read(stream.clone())).unwrap() == read(&mut model, &stream).unwrap());
            }
            if round % 20 == 19 {
                close(store);
                let again = open(&path);
                store = again.0;
                model.knowledge = again.1.knowledge;
            }
        }
        let expected: Vec<Row> = model.rows().into_iter().filter(|row| !row.is_local()).collect();
        let (rows, knowledge) = stream(&store);
        assert_eq!(rows, expected);
        // A snapshot comes with what its reader found covered; that is not written back.
        assert_eq!(Knowledge { covered_upto: model.knowledge.covered_upto, ..knowledge }, model.knowledge);
        close(store);
    }
}
