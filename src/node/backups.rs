//! Backups by schedule and on demand, and the check of the whole database: what is asked of the store, and what is said of it.
//!
//! The interval is counted on the monotonic clock and remembered over restarts: a node that is switched off every night
//! still comes to its backup, and one whose clock jumps makes no more than one.

use super::shell::Shell;
use crate::clock;
use crate::error::{Error, PersistenceKind, RequestKind};
use crate::log::{error, info, warn};
use crate::report::{BackupReport, HealthEntry, HealthStatus, IntegrityReport, Metrics, Timestamp};
use crate::store::{BackupLedger, BackupOrder, LastBackup};
use crate::time::Millis;
use serde_json::json;
use smol::Timer;
use std::cell::{Cell, RefCell};
use std::format;
use std::rc::Rc;
use std::string::{String, ToString};
use std::time::Duration;

/// The time since the last backup is written down so often.
const NOTE_EVERY_MS: Millis = 10 * 60_000;
/// After a failure, unless the interval is shorter.
const RETRY_MS: Millis = 60 * 60_000;
/// So many intervals without a backup are a fault.
const LATE_INTERVALS: u64 = 2;

/// What is known of backups since the start.
#[derive(Debug)]
pub(super) struct Backups {
    /// By the ledger, at `since` of the monotonic clock.
    ran: Cell<Millis>,
    since: Cell<Millis>,
    last: RefCell<Option<LastBackup>>,
    /// Why the last attempt failed.
    failed: RefCell<Option<String>>,
    made: Cell<u64>,
    unchanged: Cell<u64>,
    failures: Cell<u64>,
    no_space: Cell<u64>,
    duration_ms: Cell<Millis>,
}

impl Backups {
    pub(super) fn new(ledger: BackupLedger, mono: Millis) -> Backups {
        Backups {
            ran: Cell::new(ledger.elapsed_ms),
            since: Cell::new(mono),
            last: RefCell::new(ledger.last),
            failed: RefCell::default(),
            made: Cell::default(),
            unchanged: Cell::default(),
            failures: Cell::default(),
            no_space: Cell::default(),
            duration_ms: Cell::default(),
        }
    }
    /// How long the node has run since the last backup.
    fn ran(&self, mono: Millis) -> Millis {
        self.ran.get().saturating_add(mono.saturating_sub(self.since.get()))
    }
    fn begin_anew(&self, mono: Millis) {
        self.ran.set(0);
        self.since.set(mono);
    }
    fn count(counter: &Cell<u64>) {
        counter.set(counter.get() + 1);
    }
}

impl Shell {
    /// Makes a backup, and remembers what became of it whether or not the caller still waits.
    pub(crate) async fn backup(self: &Rc<Self>) -> Result<BackupReport, Error> {
        let (answer, answered) = async_channel::bounded(1);
        let shell = self.clone();
        self.spawn(async move {
            // A caller that has gone away does not want to know.
            let _ = answer.try_send(shell.back_up().await);
        });
        let stopping = |_| Err(Error::Timeout { operation: "backup, the node stops".to_string(), after_ms: 0 });
        answered.recv().await.unwrap_or_else(stopping)
    }

    async fn back_up(&self) -> Result<BackupReport, Error> {
        let began = clock::monotonic_ms();
        let now = self.engine.borrow().reading(self.now()).millis;
        let persistence = &self.config.persistence;
        let order = BackupOrder { folder: persistence.backup_path.clone(), keep: persistence.backup_keep, now };
        let made = self.store.backup(order).await;
        let duration_ms = clock::monotonic_ms().saturating_sub(began);
        let backups = &self.backups;
        match made {
            Ok(made) => {
                let name = made.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                backups.begin_anew(clock::monotonic_ms());
                backups.failed.replace(None);
                if made.unchanged {
                    Backups::count(&backups.unchanged);
                    info!("event=BackupSkipped reason=\"nothing has changed\" path={}", made.path.display());
                } else {
                    Backups::count(&backups.made);
                    backups.duration_ms.set(duration_ms);
                    let last = LastBackup { name, bytes: made.bytes, at: now, ..LastBackup::default() };
                    backups.last.replace(Some(last));
                    info!(
                        "event=BackupMade path={} bytes={} durationMs={} removed={}",
                        made.path.display(),
                        made.bytes,
                        duration_ms,
                        made.removed
                    );
                }
                let path = made.path.display().to_string();
                Ok(BackupReport { path, bytes: made.bytes, duration_ms, unchanged: made.unchanged })
            }
            // One that is under way is no failure, and a node that stops makes none.
            Err(busy @ Error::Request { kind: RequestKind::TooManyRequests, .. }) => Err(busy),
            Err(cause) if !self.stopping.is_closed() => {
                if matches!(cause, Error::Persistence { kind: PersistenceKind::DiskFull, .. }) {
                    Backups::count(&backups.no_space);
                    warn!("event=BackupSkipped reason=\"space is short\" cause=\"{}\"", cause.to_string());
                } else {
                    Backups::count(&backups.failures);
                    error!("event=BackupFailed cause=\"{}\"", cause.to_string());
                }
                backups.failed.replace(Some(cause.to_string()));
                Err(cause)
            }
            Err(cause) => Err(cause),
        }
    }

    /// The schedule.
    pub(super) async fn back_up_forever(self: Rc<Self>) {
        if !self.config.persistence.auto_backup {
            return;
        }
        let interval = self.config.persistence.backup_interval_ms;
        let mut not_before = 0;
        loop {
            let mono = clock::monotonic_ms();
            let due_in = interval.saturating_sub(self.backups.ran(mono)).max(u64::saturating_sub(not_before, mono));
            if due_in == 0 {
                if self.back_up().await.is_err() {
                    not_before = clock::monotonic_ms() + RETRY_MS.min(interval);
                }
                continue;
            }
            Timer::after(Duration::from_millis(due_in.min(NOTE_EVERY_MS))).await;
            self.note_backup_clock().await;
        }
    }

    /// Writes down how long the node has run since its last backup.
    pub(super) async fn note_backup_clock(&self) {
        let ran = self.backups.ran(clock::monotonic_ms());
        if !self.config.persistence.auto_backup || ran >= self.config.persistence.backup_interval_ms {
            return;
        }
        match self.store.note_backup_clock(ran).await {
            Ok(()) | Err(Error::Request { .. }) => {}
            Err(cause) => warn!("event=BackupClockNotWritten cause=\"{}\"", cause.to_string()),
        }
    }

    /// The entry `backup`.
    pub(super) async fn backup_entry(&self) -> HealthEntry {
        let (persistence, backups) = (&self.config.persistence, &self.backups);
        let enabled = persistence.auto_backup;
        let ran = backups.ran(clock::monotonic_ms());
        let last = backups.last.borrow();
        let data = json!({
            "enabled": enabled,
            "folder": persistence.backup_path.display().to_string(),
            "last": last.as_ref().map(|last| last.name.clone()),
            "lastBytes": last.as_ref().map(|last| last.bytes),
            "lastAt": last.as_ref().map(|last| Timestamp(last.at)),
            "elapsedMs": ran,
            "intervalMs": persistence.backup_interval_ms,
            "made": backups.made.get(),
            "unchanged": backups.unchanged.get(),
            "noSpace": backups.no_space.get(),
            "failures": backups.failures.get(),
        });
        let minutes = ran / 60_000;
        if let Some(cause) = &*backups.failed.borrow() {
            return HealthEntry::new(HealthStatus::Degraded, format!("the last backup failed: {cause}"), data);
        }
        if enabled && ran > persistence.backup_interval_ms.saturating_mul(LATE_INTERVALS) {
            let text = format!("no backup for {minutes} minutes of running: look at the log");
            return HealthEntry::new(HealthStatus::Degraded, text, data);
        }
        let text = match (enabled, &*last) {
            (false, _) => "automatic backup is switched off".to_string(),
            (true, Some(last)) => format!("{} is the last backup, {minutes} minutes of running ago", last.name),
            (true, None) => {
                let due = persistence.backup_interval_ms.saturating_sub(ran).div_ceil(60_000);
                format!("no backup yet, the first is due in {due} minutes")
            }
        };
        HealthEntry::new(HealthStatus::Healthy, text, data)
    }

    pub(super) fn backup_metrics(&self, metrics: &mut Metrics) {
        let backups = &self.backups;
        let results = [
            ("made".to_string(), backups.made.get()),
            ("unchanged".to_string(), backups.unchanged.get()),
            ("no_space".to_string(), backups.no_space.get()),
            ("failed".to_string(), backups.failures.get()),
        ];
        metrics.counters("cbddc_backups_total", "Backups, by what became of them.", "result", results);
        let seconds = |ms: Millis| ms as f64 / 1000.0;
        let help = "How long the node has run since its last backup.";
        metrics.gauge("cbddc_backup_elapsed_seconds", help, seconds(backups.ran(clock::monotonic_ms())));
        let last = backups.last.borrow();
        let help = "When the last backup was made, by the node's clock; no sample before the first.";
        metrics.known_gauge("cbddc_backup_last_timestamp_seconds", help, last.as_ref().map(|last| seconds(last.at)));
        metrics.known_gauge("cbddc_backup_last_bytes", "Its size.", last.as_ref().map(|last| last.bytes));
        let help = "How long the last backup since the start took.";
        metrics.gauge("cbddc_backup_duration_seconds", help, seconds(backups.duration_ms.get()));
    }

    /// Looks at all of the database.
    pub(crate) async fn check_integrity(self: &Rc<Self>) -> Result<IntegrityReport, Error> {
        let began = clock::monotonic_ms();
        let checked = self.store.check().await;
        if let Err(cause @ Error::DatabaseCorruption { .. }) = &checked {
            self.damaged_structure(cause);
        }
        let checked = checked?;
        checked.damaged.iter().for_each(|finding| self.damaged(finding));
        let error = checked.error(&self.database_path);
        match &error {
            Some(cause) if !checked.structure.is_empty() => self.damaged_structure(cause),
            _ if checked.complete => self.structure_is_whole(),
            _ => {}
        }
        if checked.damaged.is_empty() {
            self.damage.rows_are_whole();
        }
        let duration_ms = clock::monotonic_ms().saturating_sub(began);
        info!(
            "event=IntegrityChecked rows={} damagedRows={} faults={} complete={} durationMs={}",
            checked.rows,
            checked.damaged.len(),
            checked.structure.len(),
            checked.complete,
            duration_ms
        );
        match error {
            Some(error) => Err(error),
            None => Ok(IntegrityReport { ok: true, rows: checked.rows, complete: checked.complete, duration_ms }),
        }
    }
}
