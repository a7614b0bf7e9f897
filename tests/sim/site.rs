//! A whole site: engines with disks, clocks and a network between them, under faults drawn from a seed.
//!
//! One event at a time, in virtual milliseconds. What is simulated is the pure half as it is; the shell's part (group
//! commit, sockets, dialling) is played here.

mod callers;
mod disk;
pub mod faults;
pub mod host;
pub mod network;
pub mod settle;

use crate::judge::Judge;
use crate::rules::Tally;
use crate::table::MemTable;
use cbddc::id::{DeviceId, NodeId};
use cbddc::proto::{DialFailure, LinkId, Target, Ticket};
use cbddc::replica::Stream;
use cbddc::row::RowKey;
use cbddc::time::Millis;
use cbddc::wire::BeaconKey;
use faults::{Fault, Plan};
use host::Host;
use network::{Air, Link};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The true time when a run starts, milliseconds since 1970.
pub const START: Millis = 1_700_000_000_000;

pub type Outcome = Result<(), String>;

/// Something that will happen.
pub enum Event {
    Tick { host: usize },
    Datagram { host: usize, from: usize, bytes: Vec<u8> },
    Flow { link: u64, way: usize },
    Up { ends: [usize; 2], epochs: [u64; 2], target: Target },
    DialFailed { host: usize, epoch: u64, target: Target, failure: DialFailure },
    Unlinked { host: usize, epoch: u64, link: LinkId },
    Commit { host: usize, epoch: u64 },
    Answers { host: usize, epoch: u64 },
    Read { host: usize, epoch: u64, ticket: Ticket, stream: Stream },
    Look { host: usize, epoch: u64, ticket: Ticket, keys: Vec<RowKey> },
    Met { host: usize },
    Start { host: usize, epoch: u64 },
    Fault(Fault),
    Heal(Fault, usize, usize),
    Work,
}

pub struct Site {
    pub hosts: Vec<Host>,
    pub links: BTreeMap<u64, Link>,
    pub air: Air,
    pub plan: Plan,
    pub judge: Judge,
    pub rng: fastrand::Rng,
    pub time: Millis,
    pub tally: Tally,
    pub story: String,
    pub tell: bool,
    pub settling: bool,
    pub key: BeaconKey,
    events: BTreeMap<(Millis, u64), Event>,
    order: u64,
    next_link: u64,
    next_client: u64,
    values: u64,
    /// Documents still to be written.
    work: usize,
    /// A synchronised clock was wrong in this run.
    pub liars: bool,
    /// Who must take a new identity before the end: it was rolled back behind what these know.
    pub must_change: Vec<(usize, cbddc::id::ReplicaId, Vec<usize>)>,
    pub operations: u64,
    /// Rows of others that came to who had them already.
    pub relayed_again: u64,
}

impl Site {
    pub fn new(seed: u64, plan: Plan, tell: bool) -> Site {
        let mut site = Site {
            hosts: Vec::new(),
            links: BTreeMap::new(),
            air: Air { loss: plan.loss, doubled: plan.doubled, delay: plan.delay, ..Air::default() },
            judge: Judge::default(),
            rng: fastrand::Rng::with_seed(seed ^ 0xc1f7e5),
            time: 0,
            tally: Tally::default(),
            story: String::new(),
            tell,
            settling: false,
            key: BeaconKey::derive(&[7; 32]),
            events: BTreeMap::new(),
            order: 0,
            next_link: 0,
            next_client: 0,
            values: 0,
            work: plan.operations,
            liars: false,
            must_change: Vec::new(),
            operations: 0,
            relayed_again: 0,
            plan,
        };
        for _ in 0..site.plan.nodes {
            let table = MemTable::new(site.rng.u64(..));
            site.add(table, None);
        }
        site
    }
    /// Adds a host and starts it soon.
    pub fn add(&mut self, table: MemTable, twin: Option<usize>) -> usize {
        let at = self.hosts.len();
        let drawn = self.plan.visitors && at > 1 && self.rng.u8(..4) == 0;
        let visitor = twin.map_or(drawn, |of| self.hosts[of].visitor);
        let (device, name) = match twin {
            Some(of) => (self.hosts[of].device, self.hosts[of].name.clone()),
            None => (device(at), name(at)),
        };
        let mut host = Host::new(device, name, table, visitor);
        if self.plan.no_rtc && at > 0 && self.rng.bool() {
            (host.wall_offset, host.synchronised) = (-(START as i64) + 86_400_000, false);
        }
        self.hosts.push(host);
        let delay = self.rng.u64(0..200);
        self.after(delay, Event::Start { host: at, epoch: 0 });
        at
    }
    pub fn after(&mut self, delay: Millis, event: Event) {
        self.order += 1;
        self.events.insert((self.time + delay, self.order), event);
    }
    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.tell {
            let time = self.time;
            self.story.push_str(&format!("{time:>7} {}\n", text()));
        }
    }
    /// Carries out everything until a time.
    pub fn run_until(&mut self, until: Millis) -> Outcome {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.time = at;
            self.happen(event)?;
        }
        self.time = until;
        Ok(())
    }
    fn happen(&mut self, event: Event) -> Outcome {
        match event {
            Event::Tick { host } => self.tick(host),
            Event::Datagram { host, from, bytes } => self.datagram(host, from, bytes),
            Event::Flow { link, way } => self.flow(link, way),
            Event::Up { ends, epochs, target } => self.up(ends, epochs, target),
            Event::DialFailed { host, epoch, target, failure } => self.dial_failed(host, epoch, target, failure),
            Event::Unlinked { host, epoch, link } => self.unlinked(host, epoch, link),
            Event::Commit { host, epoch } => self.commit(host, epoch),
            Event::Answers { host, epoch } => self.answers(host, epoch),
            Event::Read { host, epoch, ticket, stream } => self.read(host, epoch, ticket, stream),
            Event::Look { host, epoch, ticket, keys } => self.look(host, epoch, ticket, &keys),
            Event::Met { host } => self.meet_damage(host),
            Event::Start { host, epoch } => self.start(host, epoch),
            Event::Fault(fault) => self.fault(fault),
            Event::Heal(fault, a, b) => {
                self.heal(fault, a, b);
                Ok(())
            }
            Event::Work => self.work(),
        }
    }
    /// Faults, work, then quiet.
    fn play(&mut self) -> Outcome {
        let until = self.plan.length;
        for fault in self.plan.faults.clone() {
            let times = if fault == Fault::Rollback { 2 } else { self.rng.u64(1..3) };
            for _ in 0..times {
                let at = self.rng.u64(until / 10..until * 2 / 3);
                self.after(at, Event::Fault(fault));
            }
        }
        self.after(300, Event::Work);
        self.run_until(until)?;
        self.settle()
    }
}

/// Why a run failed, and its story.
pub struct Failure {
    pub why: String,
    pub story: String,
}

/// One run. With `operations`, shorter than the seed says.
pub fn run(seed: u64, operations: Option<usize>, tell: bool) -> Result<Site, Failure> {
    let mut plan = Plan::of(seed);
    // A replay looks at everything after each commit, and finds the first step that went wrong.
    plan.thorough |= tell || crate::setting("CBDDC_SIM_THOROUGH").is_some();
    plan.operations = operations.unwrap_or(plan.operations);
    run_plan(seed, plan, tell)
}

/// One run of a plan.
pub fn run_plan(seed: u64, plan: Plan, tell: bool) -> Result<Site, Failure> {
    let mut site = Site::new(seed, plan, tell);
    let why = match catch_unwind(AssertUnwindSafe(|| site.play())) {
        Ok(Ok(())) => return Ok(site),
        Ok(Err(why)) => why,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            format!("panic: {}", text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into())).unwrap_or_default())
        }
    };
    Err(Failure { why, story: site.story })
}

/// The story of a failing seed with as few writes as a simple search finds.
pub fn shortest(seed: u64) -> Failure {
    let mut operations = 1;
    while operations < 1000 {
        if let Err(failure) = run(seed, Some(operations), true) {
            return failure;
        }
        operations = operations * 3 / 2 + 1;
    }
    run(seed, None, true).err().unwrap_or(Failure { why: "it passes".into(), story: String::new() })
}

pub fn device(at: usize) -> DeviceId {
    DeviceId([at as u8 + 1; 32])
}
pub fn name(at: usize) -> NodeId {
    NodeId::new(&format!("n{at}")).expect("a short name")
}
