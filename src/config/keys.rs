//! The table of configuration keys: name, kind, built-in default. Everything that a file can say stands here once.
//!
//! Checks nothing by itself: `value` knows the kinds, `written` looks keys up, `meaning` reads the merged values.

use super::value::Kind::{self, *};
use crate::limits::{HEARD_MAX, HOST_NAMES_MAX, MEMBERS_MAX};

/// One key: `Section.Name`, or `Name` alone for those directly under `CBDDC`.
#[derive(Debug)]
pub(crate) struct Key {
    /// As it is printed, without `CBDDC.`.
    pub(crate) path: &'static str,
    /// What its value may be.
    pub(crate) kind: Kind,
    /// Whether `null` is a value too.
    pub(crate) or_null: bool,
    /// The built-in default, as JSON.
    pub(crate) default: &'static str,
    /// Whether a running node takes a new value over (SIGHUP).
    pub(crate) reloads: bool,
}

impl Key {
    /// The section, empty for a key directly under `CBDDC`.
    pub(crate) fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }
    /// The name within the section.
    pub(crate) fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }
}

const fn key(path: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { path, kind, or_null: false, default, reloads: false }
}
const fn or_null(path: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { path, kind, or_null: true, default, reloads: false }
}
const fn while_running(key: Key) -> Key {
    Key { reloads: true, ..key }
}
const fn whole(min: u64, max: u64, unit: &'static str) -> Kind {
    Whole { min, max, unit }
}

/// Days that any duration may take: more is a slip of the keyboard.
const DAYS_MAX: u64 = 36_500;
/// Megabytes that any size on disk may take: 64 TiB.
const DISK_MB_MAX: u64 = 64 * 1024 * 1024;
const THRESHOLD: Kind = whole(1, DAYS_MAX * 86_400_000, "milliseconds");

/// The section whose keys are the names of collections.
pub(crate) const COLLECTIONS: &str = "Collections";

/// Every key with a fixed name, in the order in which `config show` prints them.
pub(crate) static KEYS: &[Key] = &[
    or_null("Board", BoardName, "null"),
    or_null("Cluster.NodeId", Name, "null"),
    key("Cluster.KeyFile", File, r#""data/cluster.key""#),
    while_running(key("Cluster.Peers", Endpoints { max: MEMBERS_MAX }, "[]")),
    while_running(key("Cluster.PeerConfirmationLagThresholdMs", THRESHOLD, "30000")),
    while_running(key("Cluster.PeerConfirmationCriticalLagThresholdMs", THRESHOLD, "120000")),
    while_running(key("Cluster.HealthCheckIntervalMs", whole(1_000, DAYS_MAX * 86_400_000, "milliseconds"), "300000")),
    or_null("Cluster.TcpPort", Port, "null"),
    key("Cluster.Visitor", Flag, "false"),
    key("Network.TcpPort", Port, "5000"),
    key("Network.UdpPort", Port, "6000"),
    key("Network.RetryAttempts", whole(1, 100, "attempts"), "3"),
    key("Network.RetryDelayMs", whole(1, 60_000, "milliseconds"), "1000"),
    key("Network.ListenAddress", Ip, r#""0.0.0.0""#),
    key("Network.EnableDiscovery", Flag, "true"),
    key("Network.BeaconIntervalMs", whole(10, 3_600_000, "milliseconds"), "5000"),
    or_null("Network.BroadcastAddresses", Broadcasts { max: HEARD_MAX }, "null"),
    key("Persistence.DatabasePath", File, r#""data/cbddc.db""#),
    key("Persistence.EnableWalMode", Flag, "true"),
    while_running(key("Persistence.CacheSizeMb", whole(0, 1_048_576, "megabytes"), "50")),
    key("Persistence.CommitDelayMs", whole(0, 10_000, "milliseconds"), "0"),
    key("Persistence.EnableAutoBackup", Flag, "true"),
    key("Persistence.BackupPath", File, r#""backups/""#),
    key("Persistence.BackupIntervalMinutes", whole(1, DAYS_MAX * 1440, "minutes"), "1440"),
    key("Persistence.BackupKeep", whole(1, 10_000, "backups"), "7"),
    key("Persistence.AutoRecover", Flag, "true"),
    or_null("Persistence.MaxDatabaseMb", whole(1, DISK_MB_MAX, "megabytes"), "null"),
    key("Persistence.MinFreeMb", whole(0, DISK_MB_MAX, "megabytes"), "64"),
    key("Sync.EnableOfflineQueue", Flag, "true"),
    key("Sync.MaxQueueSize", whole(1, 1_000_000, "operations"), "1000"),
    key("Sync.TombstoneKeepDays", whole(1, DAYS_MAX, "days"), "90"),
    or_null("Api.HttpAddress", Socket, r#""127.0.0.1:5080""#),
    or_null("Api.UnixSocket", File, "null"),
    or_null("Api.TokenFile", File, "null"),
    or_null("Api.HealthAddress", Socket, "null"),
    key("Api.HostNames", HostNames { max: HOST_NAMES_MAX }, "[]"),
    while_running(key(
        "Logging.Level",
        OneOf(&["Trace", "Debug", "Information", "Warning", "Error", "Critical"]),
        r#""Information""#,
    )),
    while_running(key("Logging.Format", OneOf(&["text", "json"]), r#""text""#)),
    while_running(or_null("Logging.Path", File, "null")),
];

/// The keys of one collection.
pub(crate) static COLLECTION_KEYS: &[Key] = &[
    or_null("TtlSeconds", whole(1, DAYS_MAX * 86_400, "seconds"), "null"),
    key("Scope", OneOf(&["site", "local"]), r#""site""#),
];

/// The names of all sections.
pub(crate) fn sections() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    let named = KEYS.iter().map(Key::section).filter(move |section| {
        let new = !section.is_empty() && *section != last;
        last = section;
        new
    });
    named.chain([COLLECTIONS])
}

/// The nearest of `known` to what was written, where it is near enough to be meant.
pub(crate) fn near_miss<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    // Comparing is quadratic, and nobody means a key by a text that is far longer than any.
    if written.len() > 128 {
        return None;
    }
    let near = |name: &str| strsim::damerau_levenshtein(&written, &name.to_lowercase());
    let (distance, name) = known.map(|name| (near(name), name)).min_by_key(|(distance, _)| *distance)?;
    (distance <= (name.chars().count() / 3).max(2)).then_some(name)
}
