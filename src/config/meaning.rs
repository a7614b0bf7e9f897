//! What the layers mean together: precedence, relations between keys, the board's bounds, resolved paths.
//!
//! Values were checked when they were read; here they only meet each other.

use super::keys::{COLLECTION_KEYS, COLLECTIONS, KEYS};
use super::value::{broadcast, shown, wrong};
use super::written::{Layer, Written};
use super::*;
use std::format;
use std::path::Path;
use std::str::FromStr;
use std::string::ToString;

/// Merges layers, later over earlier, into a configuration. Relative paths become relative to `base`.
pub(super) fn mean(board: Board, layers: &[Layer], base: &Path, file: Option<PathBuf>) -> Result<Config, Error> {
    let mut values = Values::merge(layers, base)?;
    let mut warnings = Vec::new();
    values.put("Board", Value::from(board.name.as_str()), None);
    let board_origin = Origin::Board(board.name.clone());
    for (key, bound) in
        [("Persistence.CacheSizeMb", board.budget.cache_mib), ("Sync.MaxQueueSize", board.budget.queue_operations)]
    {
        let Written { value, origin } = values.written(key)?.clone();
        if value.as_u64().is_some_and(|value| value > u64::from(bound)) {
            if !matches!(origin, Origin::BuiltIn | Origin::Board(_)) {
                let board = &board.name;
                warnings.push(format!("CBDDC.{key}: {value} is above what board {board} can spare, {bound} is used"));
            }
            values.put(key, Value::from(bound), Some(board_origin.clone()));
        }
    }

    let (lag, critical) = ("Cluster.PeerConfirmationLagThresholdMs", "Cluster.PeerConfirmationCriticalLagThresholdMs");
    let (lag_threshold_ms, critical_ms) = (values.whole::<u64>(lag)?, values.whole::<u64>(critical)?);
    if critical_ms < lag_threshold_ms {
        warnings.push(format!(
            "CBDDC.{critical}: {critical_ms} is below PeerConfirmationLagThresholdMs, {lag_threshold_ms} is used"
        ));
        let origin = values.written(lag)?.origin.clone();
        values.put(critical, Value::from(lag_threshold_ms), Some(origin));
    }

    let own_port = values.written("Cluster.TcpPort")?.clone();
    if !own_port.value.is_null() {
        values.put("Network.TcpPort", own_port.value, Some(own_port.origin));
    }

    let http_address = values.parsed_or_none::<SocketAddr>("Api.HttpAddress")?;
    let token_file = values.path_or_none("Api.TokenFile")?;
    if let Some(address) = http_address.filter(|address| !address.ip().is_loopback() && token_file.is_none()) {
        let what = "can be reached from other machines; set CBDDC.Api.TokenFile, or use 127.0.0.1";
        return Err(wrong("Api.HttpAddress", &format!("{address} {what}")));
    }

    let udp_port = values.whole::<u16>("Network.UdpPort")?;
    Ok(Config {
        cluster: ClusterConfig {
            node_id: values.text_or_none("Cluster.NodeId")?.and_then(NodeId::new),
            key_file: values.path("Cluster.KeyFile")?,
            key_credential: None,
            peers: values.list("Cluster.Peers")?,
            lag_threshold_ms,
            critical_lag_threshold_ms: values.whole(critical)?,
            health_check_interval_ms: values.whole("Cluster.HealthCheckIntervalMs")?,
            visitor: values.flag("Cluster.Visitor")?,
        },
        network: NetworkConfig {
            tcp_port: values.whole("Network.TcpPort")?,
            udp_port,
            retry_attempts: values.whole("Network.RetryAttempts")?,
            retry_delay_ms: values.whole("Network.RetryDelayMs")?,
            listen_address: values.parsed("Network.ListenAddress")?,
            discovery: values.flag("Network.EnableDiscovery")?,
            beacon_interval_ms: values.whole("Network.BeaconIntervalMs")?,
            broadcast_addresses: values.broadcasts("Network.BroadcastAddresses", udp_port)?,
        },
        persistence: PersistenceConfig {
            database_path: values.path("Persistence.DatabasePath")?,
            wal: values.flag("Persistence.EnableWalMode")?,
            cache_mib: values.whole("Persistence.CacheSizeMb")?,
            commit_delay_ms: values.whole("Persistence.CommitDelayMs")?,
            auto_backup: values.flag("Persistence.EnableAutoBackup")?,
            backup_path: values.path("Persistence.BackupPath")?,
            backup_interval_ms: values.whole::<u64>("Persistence.BackupIntervalMinutes")? * 60_000,
            backup_keep: values.whole("Persistence.BackupKeep")?,
            auto_recover: values.flag("Persistence.AutoRecover")?,
            max_database_mib: values.whole_or_none("Persistence.MaxDatabaseMb")?,
            min_free_mib: values.whole("Persistence.MinFreeMb")?,
        },
        sync: SyncConfig {
            offline_queue: values.flag("Sync.EnableOfflineQueue")?,
            max_queue_size: values.whole("Sync.MaxQueueSize")?,
            tombstone_keep_ms: values.whole::<u64>("Sync.TombstoneKeepDays")? * 86_400_000,
        },
        collections: values.collections()?,
        api: ApiConfig {
            http_address,
            unix_socket: values.path_or_none("Api.UnixSocket")?,
            token_file,
            health_address: values.parsed_or_none("Api.HealthAddress")?,
            host_names: values.list("Api.HostNames")?,
        },
        logging: LoggingConfig {
            level: values.one_of("Logging.Level", LogLevel::ALL.map(|level| (level.name(), level)))?,
            format: values.one_of("Logging.Format", [("text", LogFormat::Text), ("json", LogFormat::Json)])?,
            path: values.path_or_none("Logging.Path")?,
        },
        settings: values.settings(),
        board,
        warnings,
        file,
    })
}

/// The merged values, each readable as the type that its kind promises.
struct Values(Layer);

impl Values {
    fn merge(layers: &[Layer], base: &Path) -> Result<Values, Error> {
        let mut merged = Layer::default();
        for key in KEYS {
            let value = serde_json::from_str(key.default).map_err(|error| wrong(key.path, &error.to_string()))?;
            merged.settings.insert(key.path, Written { value, origin: Origin::BuiltIn });
        }
        for layer in layers.iter().cloned() {
            merged.settings.extend(layer.settings);
            for (name, keys) in layer.collections {
                merged.collections.entry(name).or_default().extend(keys);
            }
        }
        for key in KEYS.iter().filter(|key| matches!(key.kind, super::value::Kind::File)) {
            if let Some(written) = merged.settings.get_mut(key.path)
                && let Some(path) = written.value.as_str()
            {
                let path = base.join(path);
                let text = path.to_str();
                let text =
                    text.ok_or_else(|| wrong(key.path, &format!("{} is not UTF-8; rename it", path.display())))?;
                written.value = Value::from(text);
            }
        }
        Ok(Values(merged))
    }

    fn written(&self, key: &str) -> Result<&Written, Error> {
        self.0.settings.get(key).ok_or_else(|| wrong(key, "unknown key"))
    }
    /// Replaces a value, and its origin where one is given.
    fn put(&mut self, key: &str, value: Value, origin: Option<Origin>) {
        if let Some(written) = self.0.settings.get_mut(key) {
            written.value = value;
            written.origin = origin.unwrap_or_else(|| written.origin.clone());
        }
    }
    fn read<'a, T>(&'a self, key: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<T, Error> {
        let value = &self.written(key)?.value;
        read(value).ok_or_else(|| wrong(key, &format!("{} cannot be used here", shown(value))))
    }

    fn flag(&self, key: &str) -> Result<bool, Error> {
        self.read(key, Value::as_bool)
    }
    fn whole<T: TryFrom<u64>>(&self, key: &str) -> Result<T, Error> {
        self.read(key, |value| T::try_from(value.as_u64()?).ok())
    }
    fn whole_or_none(&self, key: &str) -> Result<Option<u64>, Error> {
        self.read(key, |value| if value.is_null() { Some(None) } else { value.as_u64().map(Some) })
    }
    fn text_or_none(&self, key: &str) -> Result<Option<&str>, Error> {
        self.read(key, |value| if value.is_null() { Some(None) } else { value.as_str().map(Some) })
    }
    fn parsed<T: FromStr>(&self, key: &str) -> Result<T, Error> {
        self.read(key, |value| value.as_str()?.parse().ok())
    }
    fn parsed_or_none<T: FromStr>(&self, key: &str) -> Result<Option<T>, Error> {
        self.text_or_none(key)?.map(|_| self.parsed(key)).transpose()
    }
    fn path(&self, key: &str) -> Result<PathBuf, Error> {
        self.read(key, |value| value.as_str().map(PathBuf::from))
    }
    fn path_or_none(&self, key: &str) -> Result<Option<PathBuf>, Error> {
        Ok(self.text_or_none(key)?.map(PathBuf::from))
    }
    fn list(&self, key: &str) -> Result<Vec<String>, Error> {
        self.read(key, |value| value.as_array()?.iter().map(|item| item.as_str().map(String::from)).collect())
    }
    fn one_of<T: Copy, const N: usize>(&self, key: &str, words: [(&str, T); N]) -> Result<T, Error> {
        self.read(key, |value| {
            words.iter().find(|(word, _)| Some(*word) == value.as_str()).map(|(_, meaning)| *meaning)
        })
    }
    fn broadcasts(&self, key: &str, udp_port: u16) -> Result<Option<Vec<SocketAddr>>, Error> {
        if self.written(key)?.value.is_null() {
            return Ok(None);
        }
        let mut addresses = Vec::new();
        for text in self.list(key)? {
            let (ip, port) = broadcast(&text).ok_or_else(|| wrong(key, &format!("{text} is not an IP address")))?;
            let port = port.or((udp_port > 0).then_some(udp_port));
            let port = port.ok_or_else(|| wrong(key, &format!("{text} needs a port where Network.UdpPort is 0")))?;
            addresses.push(SocketAddr::new(ip, port));
        }
        Ok(Some(addresses))
    }
    fn collections(&self) -> Result<BTreeMap<String, CollectionConfig>, Error> {
        let collection = |keys: &BTreeMap<&'static str, Written>| CollectionConfig {
            ttl_ms: keys.get("TtlSeconds").and_then(|ttl| ttl.value.as_u64()).map(|seconds| seconds * 1000),
            scope: match keys.get("Scope").and_then(|scope| scope.value.as_str()) {
                Some("local") => Scope::Local,
                _ => Scope::Site,
            },
        };
        Ok(self.0.collections.iter().map(|(name, keys)| (name.clone(), collection(keys))).collect())
    }
    fn settings(&self) -> Vec<Setting> {
        let setting = |key: String, written: &Written| Setting {
            key,
            value: written.value.clone(),
            origin: written.origin.clone(),
        };
        let fixed = KEYS.iter().filter_map(|key| {
            self.0.settings.get(key.path).map(|written| setting(format!("CBDDC.{}", key.path), written))
        });
        let collections = self.0.collections.iter().flat_map(|(name, keys)| {
            let present = COLLECTION_KEYS.iter().filter_map(|key| keys.get(key.path).map(|written| (key, written)));
            present.map(move |(key, written)| setting(format!("CBDDC.{COLLECTIONS}.{name}.{}", key.path), written))
        });
        fixed.chain(collections).collect()
    }
}
