//! Every call of a commit, a checkpoint, a start, a stop, a backup and a restore fails once, in every way: what was
//! answered is true, the store goes on by itself, and after a power cut nothing is missing.

use crate::backups;
use crate::bed::{Call, Failing, Fault, Plan};
use crate::ledger::{Ledger, Outcome, value};
use crate::media::Cut;
use crate::node::{Answer, Kept, Node};
use cbddc::replica::{Precondition, Reply, Request, Write};
use cbddc::row::{Body, RowKey};
use cbddc::time::Reading;

/// Calls that are failed, from the first on; most scenarios have fewer.
const CALLS: u64 = 200;

/// What the error strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// One request.
    Commit,
    /// Six that share a commit.
    GroupCommit,
    /// Writes until the log is copied back.
    Checkpoint,
    /// The first start of all.
    Creation,
    /// After an orderly stop.
    Start,
    /// After an orderly stop of an earlier release, with an earlier schema.
    Migration,
    /// After `kill -9`, with a log or a hot journal.
    StartAfterKill,
    Stop,
    Backup,
    /// A backup takes the place of a database that has gone on since.
    Restore,
    /// The first start of what was restored.
    StartRestored,
}

const SCENES: [Scene; 11] = [
    Scene::Commit,
    Scene::GroupCommit,
    Scene::Checkpoint,
    Scene::Creation,
    Scene::Start,
    Scene::Migration,
    Scene::StartAfterKill,
    Scene::Stop,
    Scene::Backup,
    Scene::Restore,
    Scene::StartRestored,
];

/// How it fails: what, how many calls in a row, which calls.
const WAYS: [(Fault, u64, Option<Call>); 6] = [
    (Fault::Io, 1, None),
    (Fault::Io, 3, None),
    (Fault::Io, 1_000_000, None),
    (Fault::Io, 1_000_000, Some(Call::Sync)),
    (Fault::Full, 1, None),
    (Fault::Full, 1_000_000, Some(Call::Write)),
];

pub(crate) struct Stage {
    pub(crate) node: Node,
    pub(crate) ledger: Ledger,
    requests: u64,
    now: u64,
}

impl Stage {
    pub(crate) fn new(wal: bool, seed: u64) -> Stage {
        let mut kept = Kept::new(wal);
        kept.log_bytes = 48 * 1024;
        Stage { node: Node::new(0, kept, seed), ledger: Ledger::default(), requests: 0, now: 1_700_000_000_000 }
    }
    pub(crate) fn request(&mut self, keys: std::ops::Range<u64>, bytes: usize) -> (u64, Request) {
        self.requests += 1;
        let number = self.requests;
        let keys: Vec<RowKey> = keys.map(|key| RowKey::replicated("c", &format!("key-{key:03}"))).collect();
        let writes = keys.iter().map(|key| Write {
            key: key.clone(),
            body: Body::Live(value(number, key, bytes)),
            expires_at: None,
            precondition: Precondition::None,
        });
        let writes = writes.collect();
        self.ledger.requests.insert(number, keys);
        self.node.open_requests.insert(number);
        (number, Request::Write { writes, sending: false })
    }
    /// Asks, and notes what was promised and what denied. Says how many were stored.
    pub(crate) fn ask(&mut self, requests: Vec<(u64, Request)>) -> Result<usize, String> {
        self.now += 10;
        let now = Reading { millis: self.now, believed: true };
        let (numbers, requests): (Vec<u64>, Vec<Request>) = requests.into_iter().unzip();
        let asked = requests.clone();
        let mut stored = 0;
        for ((answer, number), request) in self.node.ask_together(now, requests).into_iter().zip(numbers).zip(asked) {
            match answer {
                Answer::Done(done) => {
                    stored += 1;
                    let (Reply::Written(written), Request::Write { writes, .. }) = (&done.0, request) else {
                        return Err("reply: not Written".into());
                    };
                    for (write, written) in writes.iter().zip(written.iter().flatten()) {
                        self.node.promise(&write.key, (written.stamp, written.origin, false, 0));
                    }
                    self.node.open_requests.remove(&number);
                }
                Answer::Unknown(_) => {}
                Answer::Not(_) => {
                    self.node.open_requests.remove(&number);
                    self.node.denied.insert(number);
                }
            }
        }
        Ok(stored)
    }
    /// An orderly stop; what is there then is of the first schema.
    pub(crate) fn stop_and_age(&mut self) -> Outcome {
        self.node.stop()?;
        match self.node.age() {
            Ok(true) => Ok(()),
            other => Err(format!("to the first schema: {other:?}")),
        }
    }
    /// What is there before the error.
    fn prepare(&mut self, scene: Scene) -> Outcome {
        if scene == Scene::Creation {
            return Ok(());
        }
        self.node.start()?;
        for part in 0..4 {
            let request = self.request(part * 5..part * 5 + 7, 700);
            self.ask(vec![request])?;
        }
        match scene {
            Scene::Start => self.node.stop()?,
            Scene::Migration => self.stop_and_age()?,
            Scene::StartAfterKill => {
                // In the middle of a commit, so that there is something to roll back.
                let request = self.request(0..20, 3000);
                let calls = self.node.bed.lock().calls;
                let cut_at = Some(calls + if self.node.kept.wal { 20 } else { 30 });
                self.node.bed.lock().plan = Plan { cut_at, ..Plan::default() };
                self.ask(vec![request])?;
                self.node.cut(Cut { kept: 100, sector: 4096, garbage: false });
            }
            Scene::Restore | Scene::StartRestored => {
                self.node.backup(1_700_000_000_000)?.map_err(|error| format!("backup: {error}"))?;
                let request = self.request(3..9, 500);
                self.ask(vec![request])?;
                self.node.stop()?;
                if scene == Scene::StartRestored {
                    self.node.restore().map_err(|error| format!("restore: {error}"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
    /// What the error strikes. An error of a start or a stop is an answer, too.
    fn act(&mut self, scene: Scene) -> Outcome {
        match scene {
            Scene::Commit => {
                let request = self.request(3..9, 900);
                self.ask(vec![request]).map(drop)
            }
            Scene::GroupCommit => {
                let requests = (0..6).map(|n| self.request(n * 3..n * 3 + 4, 900)).collect();
                self.ask(requests).map(drop)
            }
            Scene::Checkpoint => {
                for _ in 0..3 {
                    let request = self.request(0..12, 1500);
                    self.ask(vec![request])?;
                }
                Ok(())
            }
            Scene::Backup => {
                let _ = self.node.backup(1_700_000_000_001)?;
                Ok(())
            }
            Scene::Restore => {
                let _ = self.node.restore();
                Ok(())
            }
            Scene::Creation | Scene::Start | Scene::Migration | Scene::StartAfterKill | Scene::StartRestored => {
                let _ = self.node.start();
                Ok(())
            }
            Scene::Stop => {
                let _ = self.node.stop();
                Ok(())
            }
        }
    }
}

/// One error.
#[derive(Debug, Clone, Copy)]
struct Strike {
    scene: Scene,
    at: u64,
    fault: Fault,
    count: u64,
    only: Option<Call>,
    /// So many calls later the process is killed: while the store mends itself, say.
    killed: Option<u64>,
}

/// One error at one call. Says whether it struck.
fn strike(wal: bool, strike: Strike) -> Result<bool, String> {
    let Strike { scene, at, fault, count, only, killed } = strike;
    let seed = at * 31 + count;
    let mut stage = Stage::new(wal, seed);
    stage.prepare(scene).map_err(|why| format!("before the error: {why}"))?;
    let failing = Some(Failing { from: at, count, only, fault });
    let cut_at = killed.map(|later| at + later);
    stage.node.bed.plan(Plan { failing, cut_at, kill: true, ..Plan::default() });
    stage.act(scene)?;
    let (failed, calls) = {
        let state = stage.node.bed.lock();
        (state.failed, state.calls)
    };
    stage.node.hurt = true;
    if stage.node.is_dead() {
        stage.node.kill();
    }
    // The disk is well again: the store goes on by itself, a start that failed is made again.
    stage.node.bed.plan(Plan::default());
    if stage.node.store.is_none() {
        stage.node.start().map_err(|why| format!("start when the disk is well again: {why}"))?;
    }
    if stage.node.restoring {
        // What is there now is what is promised: the backup, or all that was there before.
        stage.ledger.check(&mut stage.node).map_err(|why| format!("restored: {why}"))?;
    }
    let request = stage.request(30..31, 100);
    if stage.ask(vec![request])? == 0 {
        return Err("a write is refused when the disk is well again".into());
    }
    let mut node = stage.node;
    // `check` makes what is there the promise; what was denied must not come later either.
    let denied = node.denied.clone();
    stage.ledger.check(&mut node).map_err(|why| format!("going on: {why}"))?;
    node.denied = denied;
    let mut random = fastrand::Rng::with_seed(seed);
    match at % 4 {
        0 if killed.is_none() => node.kill(),
        2 | 3 if killed.is_none() => node.cut(Cut::drawn(&mut random)),
        _ => node.cut(Cut { kept: 0, sector: 512, garbage: false }),
    }
    node.start().map_err(|why| format!("start after the cut: {why}"))?;
    stage.ledger.check(&mut node).map_err(|why| format!("after the cut: {why}"))?;
    backups::check(&node)?;
    Ok(failed > 0 || at < calls)
}

/// Every call of every scene in every way, or each `stride`th of them. How many errors struck, and the first that did
/// harm.
pub(crate) fn every(wal: bool, stride: usize) -> (u64, Option<String>) {
    let mut struck = 0;
    for scene in SCENES {
        for (number, (fault, count, only)) in WAYS.into_iter().enumerate() {
            let first = CALLS * number as u64 / WAYS.len() as u64 % stride as u64;
            for at in (first..CALLS).step_by(stride) {
                let mut beyond = true;
                for killed in [None, Some(1 + at * 7 % 40)] {
                    let one = Strike { scene, at, fault, count, only, killed };
                    match strike(wal, one) {
                        Ok(did) => {
                            struck += u64::from(did);
                            beyond &= !did;
                        }
                        Err(why) => return (struck, Some(format!("wal {wal}, {one:?}: {why}"))),
                    }
                }
                if beyond {
                    break;
                }
            }
        }
    }
    (struck, None)
}

fn no_harm(wal: bool) {
    let (struck, harm) = every(wal, stride());
    println!("errors: wal {wal}: {struck} struck");
    assert!(harm.is_none(), "{}", harm.unwrap_or_default());
    assert!(struck > 100, "{struck}");
}

/// Among all other tests a share of them; with `CBDDC_CUTS_THOROUGH=1` all.
fn stride() -> usize {
    if is_thorough() { 1 } else { 23 }
}
pub(crate) fn is_thorough() -> bool {
    std::env::var_os("CBDDC_CUTS_THOROUGH").is_some()
}

#[test]
fn an_error_of_the_disk_makes_no_answer_false_and_loses_nothing_with_a_write_ahead_log() {
    no_harm(true);
}

#[test]
fn an_error_of_the_disk_makes_no_answer_false_and_loses_nothing_with_a_rollback_journal() {
    no_harm(false);
}
