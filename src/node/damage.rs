//! Damage on disk: the scrub that looks for it at about one percent an hour, and what is known of it.
//!
//! Mends nothing: [`Shell::damaged`] is told of each finding.

use super::shell::Shell;
use crate::error::Error;
use crate::id::LocalSeq;
use crate::log::{critical, error, info};
use crate::proto::Input;
use crate::replica::Damaged;
use crate::row::{RowKey, Scope};
use crate::store::{Damage, Finding};
use smol::Timer;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;
use std::vec::Vec;

/// Between two turns of the scrub.
const TURN: Duration = Duration::from_secs(60);
/// Before the first one.
const FIRST_TURN: Duration = Duration::from_secs(2);
/// Turns in which the whole database is looked at: a hundred hours of sixty.
const TURNS: u64 = 100 * 60;
/// A turn looks at least at so much: a small database is looked at more often, which costs nothing.
const TURN_BYTES_MIN: u64 = 64 * 1024;
/// What is read in one go: other reads wait that long.
const SLICE_BYTES: u64 = 64 * 1024;
/// After structural damage stopped it.
const PAUSE: Duration = Duration::from_secs(3600);
/// Findings that are remembered.
const KNOWN_MAX: usize = 1024;

/// What is known of the damage.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By position; the number is that of the pass that saw it last.
    rows: RefCell<BTreeMap<LocalSeq, (Finding, u64)>>,
    /// Damage that is not of one row.
    structure: RefCell<Option<String>>,
    pass: Cell<u64>,
    /// Findings since the start.
    found: Cell<u64>,
    /// Rows that the scrub has looked at since the start.
    scrubbed: Cell<u64>,
    /// Times that indexes were built anew, as far as is known here.
    mended: Cell<u64>,
}

impl Known {
    /// Rows that are damaged, as far as is known.
    pub(super) fn rows(&self) -> usize {
        self.rows.borrow().len()
    }
    pub(super) fn found(&self) -> u64 {
        self.found.get()
    }
    pub(super) fn scrubbed(&self) -> u64 {
        self.scrubbed.get()
    }
    /// One sentence about it; none where nothing is damaged. It goes to the log, too, so it names no key.
    pub(super) fn said(&self) -> Option<String> {
        if let Some(structure) = &*self.structure.borrow() {
            return Some(structure.clone());
        }
        let rows = self.rows.borrow();
        let (finding, _) = rows.values().next()?;
        let at = match &finding.key {
            Some(key) => format!("in collection {}", key.collection),
            None => format!("at position {}", finding.seq),
        };
        let next = "write it again, let a peer that has it connect, or restore a backup";
        Some(match rows.len() {
            1 => format!("1 row is damaged on disk, {at}: {next}"),
            n => format!("{n} rows are damaged on disk, the first {at}: {next}"),
        })
    }
    /// The first of the documents that are damaged, for whoever may know names.
    pub(super) fn documents(&self) -> Vec<(String, String)> {
        const SHOWN_MAX: usize = 10;
        let rows = self.rows.borrow();
        let keys = rows.values().filter_map(|(finding, _)| finding.key.as_ref());
        keys.take(SHOWN_MAX).map(|key| (key.collection.clone(), key.key.clone())).collect()
    }
    /// Rows of these keys are whole again.
    pub(super) fn mended_keys(&self, keys: &[RowKey]) {
        self.rows.borrow_mut().retain(|_, (finding, _)| finding.key.as_ref().is_none_or(|key| !keys.contains(key)));
    }
    /// A document was written or deleted: another row stands at its key.
    pub(super) fn overwritten(&self, collection: &str, key: &str) {
        let mut rows = self.rows.borrow_mut();
        if rows.is_empty() {
            return;
        }
        let is = |name: &RowKey| name.scope != Scope::System && name.collection == collection && name.key == key;
        rows.retain(|_, (finding, _)| !(finding.damage == Damage::Row && finding.key.as_ref().is_some_and(is)));
    }
    /// All rows were looked at and none is damaged.
    pub(super) fn rows_are_whole(&self) {
        self.rows.borrow_mut().clear();
    }
    /// Indexes were built anew since this was last asked: what was said of them was said of the old ones.
    pub(super) fn indexes_mended(&self, times: u64) {
        if self.mended.replace(times) != times {
            self.rows.borrow_mut().retain(|_, (finding, _)| finding.damage != Damage::Index);
        }
    }
    /// The row at a position is gone: replaced by a whole one, or dropped.
    pub(super) fn mended(&self, seq: LocalSeq) {
        self.rows.borrow_mut().remove(&seq);
    }
    /// Takes note; says whether it is news.
    fn note(&self, finding: &Finding) -> bool {
        let mut rows = self.rows.borrow_mut();
        if rows.len() == KNOWN_MAX && !rows.contains_key(&finding.seq) {
            return false;
        }
        let news = rows.insert(finding.seq, (finding.clone(), self.pass.get())).is_none();
        self.found.set(self.found.get() + u64::from(news));
        news
    }
    /// A whole pass is over: what it has not seen any more is whole again.
    fn passed(&self) {
        let pass = self.pass.get();
        let gone: Vec<LocalSeq> =
            self.rows.borrow().iter().filter(|(_, (_, seen))| *seen < pass).map(|(seq, _)| *seq).collect();
        for seq in gone {
            self.mended(seq);
            info!("event=RowMended seq={}", seq);
        }
        self.pass.set(pass + 1);
    }
}

impl Shell {
    /// A damaged row was found, by the scrub or a check. It may be told of the same one again.
    pub(super) fn damaged(self: &Rc<Self>, finding: &Finding) {
        if finding.damage == Damage::Row {
            self.feed(Input::Damaged(Damaged { local_seq: finding.seq, key: finding.key.clone() }));
        }
        if !self.damage.note(finding) {
            return;
        }
        let what = match finding.damage {
            Damage::Row => "checksum",
            Damage::Index => "index",
        };
        let collection = finding.key.as_ref().map_or("", |key| key.collection.as_str());
        error!("event=RowDamaged seq={} collection=\"{}\" what={}", finding.seq, collection, what);
    }

    /// The structure of the database is damaged.
    pub(super) fn damaged_structure(&self, cause: &Error) {
        let said = cause.to_string();
        if self.damage.structure.borrow().as_ref() != Some(&said) {
            error!("event=DatabaseDamaged cause=\"{}\"", said);
            self.damage.found.set(self.damage.found.get() + 1);
            self.damage.structure.replace(Some(said));
        }
    }

    /// Takes note of damaged rows that somebody met, in whatever was asked of the store.
    pub(super) async fn hear_of_damage(self: Rc<Self>) {
        while let Some(finding) = self.store.met_damage().await {
            self.damaged(&finding);
        }
    }

    /// Once the store finds that the database is damaged and nothing can take its place: as if that had been found at the start.
    /// Nothing is given to peers and nothing taken from them until a person has done something.
    pub(super) async fn leave_all_alone(self: Rc<Self>) {
        let Some(why) = self.store.lies_still().await else { return };
        if self.alone.replace(true) {
            return;
        }
        critical!("the database is damaged and only read cause=\"{}\"", why);
        self.store_health.read_only(Some(why));
        self.feed(Input::FixedPeers { numbers: Vec::new() });
        self.links.close_all_but(&[]);
    }

    /// The structure was looked at and is whole.
    pub(super) fn structure_is_whole(&self) {
        self.damage.structure.replace(None);
    }

    /// Looks at all rows, over and over. It begins somewhere: a node that restarts every day sees all of them in time.
    pub(super) async fn scrub_forever(self: Rc<Self>, random: u64) {
        let mut after = random % self.engine.borrow().knowledge().tail.max(1);
        let mut began_at_start = false;
        Timer::after(FIRST_TURN).await;
        loop {
            let database = self.store.sizes().await.map_or(0, |sizes| sizes.database_bytes);
            let mut left = (database / TURNS).max(TURN_BYTES_MIN);
            let mut wrapped = false;
            while left > 0 {
                let seen = match self.store.scrub(after, left.min(SLICE_BYTES)).await {
                    Ok(seen) => seen,
                    Err(cause) => {
                        if matches!(cause, Error::DatabaseCorruption { .. }) {
                            self.damaged_structure(&cause);
                        }
                        Timer::after(PAUSE).await;
                        break;
                    }
                };
                seen.found.iter().for_each(|finding| self.damaged(finding));
                self.damage.scrubbed.set(self.damage.scrubbed.get() + seen.rows);
                left = left.saturating_sub(seen.bytes.max(1));
                match seen.next {
                    Some(next) => after = next,
                    None => {
                        if began_at_start {
                            self.damage.passed();
                        }
                        (after, began_at_start) = (0, true);
                        // A small database is looked at once in a turn.
                        if std::mem::replace(&mut wrapped, true) {
                            break;
                        }
                    }
                }
            }
            Timer::after(TURN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(seq: LocalSeq) -> Finding {
        Finding { seq, key: Some(RowKey::replicated("c", "k")), damage: Damage::Row }
    }

    #[test]
    fn a_finding_is_news_once_and_gone_after_a_pass_that_does_not_see_it() {
        let known = Known::default();
        assert!(known.note(&finding(3)) && !known.note(&finding(3)));
        assert!(known.said().is_some_and(|said| said.contains("in collection c:")));
        assert_eq!(known.documents(), [("c".to_string(), "k".to_string())]);
        known.passed();
        assert_eq!((known.rows(), known.found()), (1, 1), "this pass has seen it");
        known.passed();
        assert_eq!((known.rows(), known.said()), (0, None));
    }

    #[test]
    fn a_finding_is_gone_once_its_document_is_written_or_a_check_or_a_mend_says_so() {
        let known = Known::default();
        known.note(&finding(3));
        known.overwritten("c", "another");
        assert_eq!(known.rows(), 1);
        known.overwritten("c", "k");
        assert_eq!(known.rows(), 0);
        known.note(&Finding { damage: Damage::Index, ..finding(4) });
        known.overwritten("c", "k");
        known.indexes_mended(0);
        assert_eq!(known.rows(), 1, "nothing was built anew");
        known.indexes_mended(1);
        assert_eq!(known.rows(), 0);
        known.note(&finding(5));
        known.rows_are_whole();
        assert_eq!(known.rows(), 0);
    }

    #[test]
    fn damage_is_counted_whatever_read_meets_it_first() {
        use crate::{Config, Node};
        for read in ["one key", "a list", "several keys"] {
            let folder = std::env::temp_dir().join(format!("cbddc-met-{}-{}", std::process::id(), read.len()));
            let config = Config::builder().data_directory(&folder).tcp_port(0).discovery(false).http_address(None);
            let config = config.build().expect("a configuration");
            let executor = Rc::new(smol::LocalExecutor::new());
            smol::block_on(executor.run(async {
                let start = || Node::start(executor.clone(), config.clone());
                let node = start().await.expect("it starts");
                node.collection("c").put("k", "precious-cargo").await.expect("it is stored");
                node.shutdown().await.expect("nothing waits");
                let file = folder.join("cbddc.db");
                let mut bytes = std::fs::read(&file).expect("the database is there");
                let at = bytes.windows(14).position(|window| window == b"precious-cargo").expect("it is in it");
                bytes[at] ^= 2;
                std::fs::write(&file, bytes).expect("it can be written");

                // Where this machine stood still for two seconds the scrub was first, which says nothing: again.
                let mut met = false;
                for _ in 0..5 {
                    let node = start().await.expect("it starts");
                    match read {
                        "one key" => drop(node.collection("c").get_bytes("k").await.expect_err("it is damaged")),
                        "a list" => {
                            let page = node.collection("c").list(&Default::default()).await.expect("a page");
                            assert_eq!(page.damaged, ["k"]);
                        }
                        _ => {
                            let page = node.shell.get_many("c", &["k".to_string()]).await.expect("a page");
                            assert_eq!(page.damaged, ["k"]);
                        }
                    }
                    let damage = &node.shell.damage;
                    while damage.found() == 0 {
                        Timer::after(Duration::from_millis(5)).await;
                    }
                    assert_eq!(damage.documents(), [("c".to_string(), "k".to_string())]);
                    met = damage.scrubbed() == 0;
                    node.shutdown().await.expect("nothing waits");
                    if met {
                        break;
                    }
                }
                assert!(met, "{read} met damage that is not counted");
            }));
            std::fs::remove_dir_all(&folder).expect("the folder is there");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Known::default();
        assert!((0..2 * KNOWN_MAX as u64).filter(|seq| known.note(&finding(*seq))).count() == KNOWN_MAX);
    }
}
