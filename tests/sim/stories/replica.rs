//! Replicas without engines, led by hand: what a session would ask of two disks, one step at a time. It has no links, no
//! timers and no luck.

use crate::table::MemTable;
use cbddc::id::{DeviceId, LocalSeq, NodeId, ReplicaId, VersionVector};
use cbddc::replica::{
    Applied, Batch, Bootstrapped, Incoming, Maintained, Meeting, Newcomer, Origin, Precondition, Reply, Request,
    Retention, Said, Stream, Write, Written, execute, newcomer, read,
};
use cbddc::row::{Body, Row, RowKey, Scope};
use cbddc::time::{Millis, Reading};
use cbddc::wire::{Closure, Mode};

/// A day in a year in which every clock is right.
pub const NOON: Millis = 1_700_000_000_000;

/// Rows that are on their way between two replicas.
pub struct Parcel {
    pub mode: Mode,
    pub rows: Vec<Row>,
    pub upto: LocalSeq,
    pub closure: Option<Closure>,
    pub announced: VersionVector,
    /// Who asked for it.
    pub asked_as: ReplicaId,
}

pub struct Replica {
    pub table: MemTable,
    pub device: DeviceId,
    pub name: NodeId,
    pub clock: Reading,
    randoms: u64,
}

impl Replica {
    pub fn new(number: u8) -> Replica {
        let mut table = MemTable::new(u64::from(number));
        table.knowledge.start(u64::from(number) << 8);
        Replica {
            table,
            device: DeviceId([number; 32]),
            name: NodeId::new(&format!("n{number}")).expect("a short name"),
            clock: Reading { millis: NOON, believed: true },
            randoms: u64::from(number) << 32,
        }
    }
    /// The process stops and starts again on what is on its disk.
    pub fn restart(&mut self) {
        let token = self.random();
        self.table.knowledge.start(token);
        self.table.knowledge.version += 1;
    }
    pub fn random(&mut self) -> u64 {
        self.randoms += 1;
        self.randoms
    }
    pub fn run(&mut self, request: Request) -> Reply {
        let Ok((reply, _)) = execute(&mut self.table, self.clock, request);
        reply
    }

    pub fn write(&mut self, key: RowKey, body: Body, expires_at: Option<Millis>, sending: bool) -> Written {
        self.clock.millis += 10;
        let write = Write { key, body, expires_at, precondition: Precondition::None };
        match self.run(Request::Write { writes: vec![write], sending }) {
            Reply::Written(written) => written[0].expect("there is no precondition"),
            other => panic!("{other:?}"),
        }
    }
    pub fn put(&mut self, key: &str, value: &str) -> Written {
        self.write(RowKey::replicated("x", key), Body::Live(value.into()), None, false)
    }
    /// While a link is open.
    pub fn put_sending(&mut self, key: &str, value: &str) -> Written {
        self.write(RowKey::replicated("x", key), Body::Live(value.into()), None, true)
    }
    pub fn delete(&mut self, key: &str) -> Written {
        self.write(RowKey::replicated("x", key), Body::Tombstone, None, false)
    }
    pub fn get(&self, key: &str) -> Option<String> {
        get(&self.table, key)
    }
    pub fn documents(&self) -> Vec<(String, String)> {
        documents(&self.table)
    }

    /// What a Hello of `peer` does here.
    pub fn meet(&mut self, peer: &Replica) {
        let known = &peer.table.knowledge;
        let said = Said {
            replica: known.replica,
            starts: known.tokens.clone(),
            tail: known.tail,
            vector: known.vector.clone(),
            same_process: false,
        };
        let meeting =
            Meeting { device: peer.device, node_id: peer.name.clone(), tracked: Some(true), said: Some(said) };
        self.run(Request::Meet(meeting));
    }
    /// Who of the two is a newcomer at the other.
    pub fn newcomer_at(&self, peer: &Replica) -> Newcomer {
        let (ours, theirs) = (&self.table.knowledge, &peer.table.knowledge);
        newcomer((&ours.vector, &ours.floor), (&theirs.vector, &theirs.floor))
    }

    /// Reads what `to` has not seen of this stream, at most `most` rows; what is beyond waits for the next parcel.
    pub fn parcel(&mut self, to: &mut Replica, mode: Mode, most: usize) -> Option<Parcel> {
        to.meet(self);
        self.meet(to);
        let after = if mode == Mode::Increment { to.table.members[&self.device].cursor } else { 0 };
        let announced = self.table.knowledge.vector.clone();
        let Ok(batch) =
            read(&mut self.table, &Stream { mode, after, covers: to.table.knowledge.vector.clone(), passes_upto: 0 });
        let Batch::Rows { mut rows, mut upto, mut closure, own, .. } = batch else { return None };
        if rows.len() > most {
            rows.truncate(most);
            upto = rows.last().map_or(after, |row| self.table.rows.keys[&row.key]);
            closure = None;
        }
        if own > self.table.knowledge.sent && !rows.is_empty() {
            self.run(Request::MarkSent { upto: own });
        }
        let asked_as = to.table.knowledge.replica;
        Some(Parcel { mode, rows, upto, closure, announced, asked_as })
    }
    pub fn apply(&mut self, from: &Replica, parcel: Parcel) -> Applied {
        let Parcel { mode, rows, upto, closure, announced, asked_as } = parcel;
        let replica = from.table.knowledge.replica;
        let (device, follows) = (from.device, None);
        let incoming = Incoming { device, replica, announced, mode, asked_as, follows, rows, upto, closure };
        match self.run(Request::Apply(incoming)) {
            Reply::Applied(applied) => applied,
            other => panic!("{other:?}"),
        }
    }
    /// Takes everything that `from` has for this node.
    pub fn take(&mut self, from: &mut Replica) {
        let parcel = from.parcel(self, Mode::Increment, usize::MAX).expect("it covers the floor there");
        let applied = self.apply(from, parcel);
        assert!(matches!(applied, Applied::Applied { alarm: false, .. }), "{applied:?}");
    }
    /// Takes so many rows, then the link is cut.
    pub fn take_cut(&mut self, from: &mut Replica, most: usize) {
        let parcel = from.parcel(self, Mode::Increment, most).expect("it covers the floor there");
        assert!(parcel.closure.is_none(), "there is more than that");
        self.apply(from, parcel);
    }
    pub fn bootstrap(&mut self, from: &mut Replica) -> Bootstrapped {
        let parcel = from.parcel(self, Mode::Bootstrap, usize::MAX).expect("a bootstrap is for newcomers");
        self.run(Request::Stage { first: true, rows: parcel.rows });
        let closure = parcel.closure.expect("a story is shorter than a batch");
        let origin = Origin { device: from.device, replica: from.table.knowledge.replica, upto: parcel.upto, closure };
        let random = self.random();
        match self.run(Request::Bootstrap { origin, random }) {
            Reply::Bootstrapped(done) => done,
            other => panic!("{other:?}"),
        }
    }
    /// `of` has on its disk what it covers; this node hears of it.
    pub fn hear_confirmed(&mut self, of: &Replica) {
        let vectors = vec![(of.device, of.table.knowledge.replica, of.table.knowledge.vector.clone())];
        self.run(Request::Confirmed { vectors });
    }
    /// A day passes, and tombstones are dropped by what the members have confirmed.
    pub fn a_day_later(&mut self) -> Maintained {
        self.maintain(Millis::MAX)
    }
    /// `TombstoneKeepDays` pass: tombstones are dropped whoever lacks them.
    pub fn months_later(&mut self) -> Maintained {
        self.maintain(90 * 86_400_000)
    }
    fn maintain(&mut self, keep: Millis) -> Maintained {
        let mut everybody = self.table.members.values().filter(|member| member.tracked).map(|m| m.confirmed.clone());
        let first = everybody.next();
        let confirmed_by_all = first.map(|first| everybody.fold(first, |all, one| all.lowered_to(&one)));
        // A little longer, since the clocks of a story are not the same.
        self.clock.millis += 60_000 + if keep == Millis::MAX { 86_400_000 } else { keep };
        let min_age = 86_400_000;
        let retention = Retention {
            confirmed_by_all,
            min_age,
            keep,
            tombstones_max: u64::MAX,
            bytes_over: 0,
            upto: LocalSeq::MAX,
            after: 0,
            slice: 64,
        };
        match self.run(Request::Maintain(retention)) {
            Reply::Maintained(done) => done,
            other => panic!("{other:?}"),
        }
    }
}

/// A whole session between two: whoever is a newcomer bootstraps first, then both take what they lack. Says how many
/// bootstraps that took.
pub fn exchange(a: &mut Replica, b: &mut Replica) -> usize {
    for bootstraps in 0..4 {
        match a.newcomer_at(b) {
            Newcomer::Us => drop(a.bootstrap(b)),
            Newcomer::Peer => drop(b.bootstrap(a)),
            Newcomer::Neither => {
                a.take(b);
                b.take(a);
                a.take(b);
                return bootstraps;
            }
        }
    }
    panic!("they are newcomers at each other for ever");
}

pub fn get(table: &MemTable, key: &str) -> Option<String> {
    let (row, _) = table.rows.of(&RowKey::replicated("x", key))?;
    row.value().map(|value| String::from_utf8_lossy(value).into_owned())
}
/// What a reader sees of the cluster's documents.
pub fn documents(table: &MemTable) -> Vec<(String, String)> {
    let keys = table.rows.keys.keys().filter(|key| key.scope == Scope::Replicated);
    keys.filter_map(|key| Some((key.key.clone(), get(table, &key.key)?))).collect()
}
