//! Configuration: what was written (a file, the environment, a board, a program) and the [`Config`] that it means.
//!
//! Reads no file and no environment; [`Config::load`] (`load`) does that and hands the text over. Every key, its kind
//! and its built-in default stand in one table (`keys`). Precedence: program over environment over file over board
//! over built-in.

mod builder;
mod keys;
mod load;
mod meaning;
mod reload;
mod value;
mod written;

pub use builder::Builder;
pub(crate) use load::default_node_id;
pub use reload::Reloaded;

use crate::Error;
use crate::board::Board;
use crate::id::NodeId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;

/// The meaning of a configuration: checked, merged, within the board's budget.
///
/// Made by [`Config::load`] or [`Config::builder`]. A field that a program changes afterwards is used as it is; the
/// list of [`Config::settings`] keeps saying what was written.
#[derive(Debug, Clone)]
pub struct Config {
    /// The board whose budget and defaults are in force.
    pub board: Board,
    /// Section `Cluster`.
    pub cluster: ClusterConfig,
    /// Section `Network`.
    pub network: NetworkConfig,
    /// Section `Persistence`.
    pub persistence: PersistenceConfig,
    /// Section `Sync`.
    pub sync: SyncConfig,
    /// Section `Collections`, by collection.
    pub collections: BTreeMap<String, CollectionConfig>,
    /// Section `Api`.
    pub api: ApiConfig,
    /// Section `Logging`.
    pub logging: LoggingConfig,
    /// What was adapted, one sentence each; to be logged at start.
    pub warnings: Vec<String>,
    /// The file that was read, absolute.
    pub file: Option<PathBuf>,
    settings: Vec<Setting>,
}

/// Section `Cluster`: who this node is and whom it belongs to.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The name that people use. `None`: `<hostname>-<6 hexadecimal digits of the device key>`.
    pub node_id: Option<NodeId>,
    /// The file of the cluster key. Default `data/cluster.key`.
    pub key_file: PathBuf,
    /// A key handed over by the service manager, with which `key_file` is made where it does not exist. Found by
    /// [`Config::load`] as `cluster.key` in `CREDENTIALS_DIRECTORY`. Default none.
    pub key_credential: Option<PathBuf>,
    /// Fixed peers, `host:port`; names are to be resolved at each dial. Default none.
    pub peers: Vec<String>,
    /// A peer lags from here on, in milliseconds. Default 30 000.
    pub lag_threshold_ms: u64,
    /// A peer lags critically from here on, in milliseconds; at least `lag_threshold_ms`. Default 120 000.
    pub critical_lag_threshold_ms: u64,
    /// How often the node itself looks at its health and logs what is not well, in milliseconds. Default five minutes.
    pub health_check_interval_ms: u64,
    /// Whether peers shall not track this node. Default false.
    pub visitor: bool,
}

/// Section `Network`: ports, links, discovery.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Port of the links; `Cluster.TcpPort` wins over `Network.TcpPort`. 0 is any free port. Default 5000.
    pub tcp_port: u16,
    /// Port of the beacons. 0 is any free port. Default 6000.
    pub udp_port: u16,
    /// Attempts of one burst, 1 to 100. Default 3.
    pub retry_attempts: u32,
    /// Delay before the second attempt of a burst, in milliseconds, 1 to 60 000. Default 1000.
    pub retry_delay_ms: u64,
    /// The address that links and beacons are received on. Default 0.0.0.0.
    pub listen_address: IpAddr,
    /// Whether beacons are sent and heard. Default true.
    pub discovery: bool,
    /// Shortest time between two beacons, in milliseconds. Default 5000.
    pub beacon_interval_ms: u64,
    /// Where beacons go. `None`: to the broadcast address of every usable interface.
    pub broadcast_addresses: Option<Vec<SocketAddr>>,
}

/// Section `Persistence`: the database and its backups.
#[derive(Debug, Clone)]
pub struct PersistenceConfig {
    /// The database. Default `data/cbddc.db`.
    pub database_path: PathBuf,
    /// Write-ahead log, else a rollback journal that keeps the same promises. Default true.
    pub wal: bool,
    /// The document cache, in MiB; 0 is none. Default 50, at most the board's.
    pub cache_mib: u32,
    /// How long a commit waits for company, in milliseconds. Default 0.
    pub commit_delay_ms: u64,
    /// Whether backups are made by themselves. Default true.
    pub auto_backup: bool,
    /// Their folder. Default `backups/`.
    pub backup_path: PathBuf,
    /// Time between them, in milliseconds. Default one day.
    pub backup_interval_ms: u64,
    /// How many are kept. Default 7.
    pub backup_keep: u32,
    /// Whether a damaged database is set aside and rebuilt. Default true.
    pub auto_recover: bool,
    /// Writes are refused above this size of the database, in MiB. Default none.
    pub max_database_mib: Option<u64>,
    /// Writes are refused below this free space, in MiB. Default 64.
    pub min_free_mib: u64,
}

/// Section `Sync`: queue and tombstones.
#[derive(Debug, Clone)]
pub struct SyncConfig {
    /// Whether writes that the store refuses now are queued. Default true.
    pub offline_queue: bool,
    /// Operations that the queue takes. Default 1000, at most the board's.
    pub max_queue_size: u32,
    /// Tombstones are dropped after this time at the latest, in milliseconds. Default 90 days.
    pub tombstone_keep_ms: u64,
}

/// One entry of section `Collections`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectionConfig {
    /// Documents expire this long after they were written, in milliseconds. Default never.
    pub ttl_ms: Option<u64>,
    /// Whether documents leave the node. Default [`Scope::Site`].
    pub scope: Scope,
}

/// How far a collection goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// To every member.
    #[default]
    Site,
    /// Nowhere: it never leaves the node.
    Local,
}

/// Section `Api`: where local programs talk to the node.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The HTTP API; beyond loopback only with `token_file`. `None`: no HTTP. Default 127.0.0.1:5080.
    pub http_address: Option<SocketAddr>,
    /// The same API on a Unix socket. Default none.
    pub unix_socket: Option<PathBuf>,
    /// The file of the bearer token. Default none.
    pub token_file: Option<PathBuf>,
    /// Health and metrics alone, on another address. Default none.
    pub health_address: Option<SocketAddr>,
    /// Names, beside those that this machine calls its own, under which requests may ask for it. Default none.
    pub host_names: Vec<String>,
}

/// Section `Logging`.
#[derive(Debug, Clone)]
pub struct LoggingConfig {
    /// Records below it are not written. Default Information.
    pub level: LogLevel,
    /// The form of a record. Default text.
    pub format: LogFormat,
    /// The file, rotated by size. `None` is stderr.
    pub path: Option<PathBuf>,
}

/// How grave a record is, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What an operator wants to know of a good day.
    Information,
    /// Worked, but not as planned.
    Warning,
    /// Did not work.
    Error,
    /// A promise of the node is in danger.
    Critical,
}

impl LogLevel {
    /// All of them, in rising order.
    pub const ALL: [LogLevel; 6] = [
        LogLevel::Trace,
        LogLevel::Debug,
        LogLevel::Information,
        LogLevel::Warning,
        LogLevel::Error,
        LogLevel::Critical,
    ];
    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Trace => "Trace",
            LogLevel::Debug => "Debug",
            LogLevel::Information => "Information",
            LogLevel::Warning => "Warning",
            LogLevel::Error => "Error",
            LogLevel::Critical => "Critical",
        }
    }
}

/// The form of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody said anything.
    BuiltIn,
    /// The board of this name set or bounds it.
    Board(String),
    /// This file.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// The program that embeds the node, or the command line.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built-in"),
            Origin::Board(name) => write!(f, "board {name}"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(variable) => write!(f, "environment {}", variable.escape_debug()),
            Origin::Program => f.write_str("program"),
        }
    }
}

/// One key, the value in force, and where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// The full key, `CBDDC.Network.TcpPort`.
    pub key: String,
    /// The value in force: after clamping, paths resolved.
    pub value: Value,
    /// Where it comes from.
    pub origin: Origin,
}

impl Config {
    /// A configuration of built-in values, to set others on it. Reads nothing by itself.
    pub fn builder() -> Builder {
        Builder::new()
    }
    /// Reads the configuration as `cbddc run` does: `path`, else `CBDDC_CONFIG`, `./appsettings.json`,
    /// `/etc/cbddc/appsettings.json`, else built-in values; then the environment over it.
    ///
    /// # Errors
    /// [`Error::Configuration`] with the key and what is allowed. Nothing is created or changed.
    pub fn load(path: Option<&std::path::Path>) -> Result<Config, Error> {
        load::load(path)
    }
    /// Every key with its value and origin, in the order of the documentation.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }
    /// The file of this device's private key: `device.key` beside the database.
    pub fn device_key_file(&self) -> PathBuf {
        self.persistence.database_path.with_file_name("device.key")
    }
}

#[cfg(test)]
mod tests;
