//! What is written against what it means, each class of wrong value once.

mod wrong;

use super::keys::KEYS;
use super::*;
use serde_json::json;
use std::format;
use std::net::Ipv4Addr;
use std::string::ToString;
use std::vec;

fn file(text: &str) -> Result<Config, Error> {
    Config::builder().file(text, "/etc/cbddc/appsettings.json").build()
}
fn wrong(text: &str) -> String {
    file(text).unwrap_err().to_string()
}
fn environment(pairs: &[(&str, &str)]) -> Result<Config, Error> {
    let pairs = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    Config::builder().environment(pairs).build()
}
fn origin(config: &Config, key: &str) -> String {
    config.settings().iter().find(|setting| setting.key == key).unwrap().origin.to_string()
}

/// The guide's own file, with every section.
const GUIDE: &str = r#"{
  // sections beside ours are somebody else's
  "Logging": { "LogLevel": { "Default": "Debug" } },
  "CBDDC": {
    "Board": "generic",
    "Cluster":     { "NodeId": "gateway-01", "KeyFile": "data/cluster.key", "Peers": ["10.0.7.2:5000", "gw7.example:5000"],
                     "PeerConfirmationLagThresholdMs": 30000, "PeerConfirmationCriticalLagThresholdMs": 120000 },
    "Network":     { "TcpPort": 5000, "UdpPort": 6000, "RetryAttempts": 3, "RetryDelayMs": 1000,
                     "ListenAddress": "0.0.0.0", "EnableDiscovery": true, "BeaconIntervalMs": 5000 },
    "Persistence": { "DatabasePath": "data/cbddc.db", "EnableWalMode": true, "CacheSizeMb": 50, "CommitDelayMs": 0,
                     "EnableAutoBackup": true, "BackupPath": "backups/", "BackupIntervalMinutes": 1440, "BackupKeep": 7,
                     "AutoRecover": true, "MaxDatabaseMb": null, "MinFreeMb": 64 },
    "Sync":        { "EnableOfflineQueue": true, "MaxQueueSize": 1000, "TombstoneKeepDays": 90 },
    "Collections": { "telemetry": { "TtlSeconds": 2592000 }, "scratch": { "Scope": "local" } },
    "Api":         { "HttpAddress": "127.0.0.1:5080", "UnixSocket": null, "TokenFile": null, "HealthAddress": null },
    "Logging":     { "Level": "Information", "Format": "text", "Path": null }
  }
} // the end"#;

#[test]
fn the_guides_own_file_means_what_it_says_without_a_warning() {
    let config = file(GUIDE).unwrap();
    assert_eq!(config.cluster.node_id.as_ref().map(NodeId::as_str), Some("gateway-01"));
    assert_eq!(config.cluster.peers, ["10.0.7.2:5000", "gw7.example:5000"]);
    assert_eq!(config.collections["telemetry"].ttl_ms, Some(2_592_000_000));
    assert_eq!(config.collections["scratch"].scope, Scope::Local);
    assert_eq!(config.warnings, Vec::<String>::new());
    assert_eq!(origin(&config, "CBDDC.Network.TcpPort"), "file /etc/cbddc/appsettings.json");
}

#[test]
fn nothing_written_means_the_built_in_values() {
    let config = Config::builder().build().unwrap();
    assert_eq!((config.network.tcp_port, config.network.udp_port), (5000, 6000));
    assert_eq!(config.network.listen_address, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    assert_eq!(config.network.broadcast_addresses, None);
    assert_eq!(config.persistence.database_path, PathBuf::from("data/cbddc.db"));
    assert_eq!(config.device_key_file(), PathBuf::from("data/device.key"));
    assert_eq!(config.persistence.cache_mib, 50);
    assert_eq!(config.persistence.backup_interval_ms, 86_400_000);
    assert_eq!(config.sync.tombstone_keep_ms, 90 * 86_400_000);
    assert_eq!(config.api.http_address, Some("127.0.0.1:5080".parse().unwrap()));
    assert_eq!((config.logging.level, config.logging.format), (LogLevel::Information, LogFormat::Text));
    assert!(config.cluster.node_id.is_none() && !config.cluster.visitor && config.network.discovery);
    assert!(config.warnings.is_empty());
    assert_eq!(origin(&config, "CBDDC.Network.TcpPort"), "built-in");
    assert_eq!(origin(&config, "CBDDC.Persistence.BackupKeep"), "board generic");
}

#[test]
fn every_key_of_the_table_is_a_setting_and_is_described() {
    let config = Config::builder().build().unwrap();
    let described = include_str!("../../docs/configuration.md");
    for key in KEYS {
        let full = format!("CBDDC.{}", key.path);
        assert!(config.settings().iter().any(|setting| setting.key == full), "{full} is not a setting");
        assert!(described.contains(&format!("`{}`", key.path)), "{} is not in docs/configuration.md", key.path);
    }
}

#[test]
fn keys_are_taken_in_any_case() {
    let config = file(r#"{"cbddc": {"NETWORK": {"tcpport": 5001}, "logging": {"level": "debug"}}}"#).unwrap();
    assert_eq!((config.network.tcp_port, config.logging.level), (5001, LogLevel::Debug));
}

#[test]
fn the_environment_is_over_the_file_and_the_program_over_both() {
    let text = r#"{"CBDDC": {"Network": {"TcpPort": 1001, "UdpPort": 1002, "RetryAttempts": 5}}}"#;
    let pairs = [("CBDDC__Network__TcpPort", "2001"), ("cbddc__network__udpport", "2002"), ("PATH", "/bin")];
    let pairs = pairs.map(|(name, value)| (name.to_string(), value.to_string()));
    let config = Config::builder().udp_port(3002).environment(pairs).file(text, "/f").build().unwrap();
    let network = &config.network;
    assert_eq!((network.retry_attempts, network.tcp_port, network.udp_port), (5, 2001, 3002));
    assert_eq!(origin(&config, "CBDDC.Network.RetryAttempts"), "file /f");
    assert_eq!(origin(&config, "CBDDC.Network.TcpPort"), "environment CBDDC__Network__TcpPort");
    assert_eq!(origin(&config, "CBDDC.Network.UdpPort"), "program");
}

#[test]
fn the_environment_says_lists_nulls_and_collections() {
    let config = environment(&[
        ("CBDDC__Cluster__Peers__1", "b:2"),
        ("CBDDC__Cluster__Peers__0", "a:1"),
        ("CBDDC__Api__HttpAddress", ""),
        ("CBDDC__Collections__my__data__TtlSeconds", "60"),
        ("CBDDC__Board", "generic"),
    ])
    .unwrap();
    assert_eq!(config.cluster.peers, ["a:1", "b:2"]);
    assert_eq!(config.api.http_address, None);
    assert_eq!(config.collections["my__data"].ttl_ms, Some(60_000));
}

#[test]
fn a_wrong_variable_is_named() {
    let said = environment(&[("CBDDC__Network__TcpPort", "70000")]).unwrap_err().to_string();
    assert_eq!(said, "CBDDC.Network.TcpPort: 70000 is not a port (1 to 65535) (environment CBDDC__Network__TcpPort)");
    let said = environment(&[("CBDDC__Network__TcpPort__0", "1")]).unwrap_err().to_string();
    assert!(said.starts_with("CBDDC__Network__TcpPort__0: names no key"), "{said}");
    let said = environment(&[("CBDDC__Netwrk__TcpPort", "1")]).unwrap_err().to_string();
    assert!(said.contains("did you mean Network?"), "{said}");
    assert!(environment(&[("CBDDC__", "1")]).is_err());
    assert!(environment(&[("CBDDC__Collections__TtlSeconds", "1")]).is_err());
}

#[test]
fn wrong_values_of_a_file_are_said_in_one_form() {
    for (text, said) in [
        (r#"{"CBDDC":{"Network":{"TcpPort":70000}}}"#, "CBDDC.Network.TcpPort: 70000 is not a port (1 to 65535)"),
        (r#"{"CBDDC":{"Network":{"tcpport":null}}}"#, "CBDDC.Network.TcpPort: null is not a port (1 to 65535)"),
        (r#"{"CBDDC":{"Network":7}}"#, "CBDDC.Network: 7 is not a JSON object"),
        (r#"{"CBDDC":[]}"#, "CBDDC: [] is not a JSON object"),
        (r#"{"CBDDC":{"Netwerk":{}}}"#, "CBDDC.Netwerk: unknown section; did you mean Network?"),
        (r#"{"CBDDC":{"Network":{"TcpProt":1}}}"#, "CBDDC.Network.TcpProt: unknown key; did you mean TcpPort?"),
        (
            r#"{"CBDDC":{"Sync":{"DatabasePath":"x"}}}"#,
            "CBDDC.Sync.DatabasePath: unknown key; did you mean Persistence.DatabasePath?",
        ),
        (
            r#"{"CBDDC":{"Sync":{"Quantum":1}}}"#,
            "CBDDC.Sync.Quantum: unknown key; known are EnableOfflineQueue, MaxQueueSize, TombstoneKeepDays",
        ),
        (
            r#"{"CBDDC":{"Board":"toaster"}}"#,
            &std::format!(
                "CBDDC.Board: \"toaster\" is not a known board ({}), or null",
                crate::board::Board::names().collect::<Vec<_>>().join(", ")
            ),
        ),
        (
            r#"{"CBDDC":{"Collections":{"a":{"Ttl":1}}}}"#,
            "CBDDC.Collections.a.Ttl: unknown key; known are TtlSeconds, Scope",
        ),
        (
            r#"{"CBDDC":{"Collections":{"a":{"Scope":"locl"}}}}"#,
            "CBDDC.Collections.a.Scope: \"locl\" is not one of site, local; did you mean local?",
        ),
        (
            r#"{"CBDDC":{"Api":{"HttpAddress":"0.0.0.0:5080"}}}"#,
            "CBDDC.Api.HttpAddress: 0.0.0.0:5080 can be reached from other machines; set CBDDC.Api.TokenFile, or use 127.0.0.1",
        ),
        (
            r#"{"CBDDC":{"Network":{"UdpPort":0,"BroadcastAddresses":["10.0.0.255"]}}}"#,
            "CBDDC.Network.BroadcastAddresses: 10.0.0.255 needs a port where Network.UdpPort is 0",
        ),
        (
            r#"{"CBDDC":{"Persistence":{"EnableWalMode":"true"}}}"#,
            "CBDDC.Persistence.EnableWalMode: \"true\" is not true or false; write it without quotes",
        ),
    ] {
        assert_eq!(wrong(text), said);
    }
}

#[test]
fn a_file_that_is_not_json_is_said_with_its_place() {
    let said = wrong("{\n  \"CBDDC\": {,}\n}");
    assert!(said.starts_with("file /etc/cbddc/appsettings.json: not JSON: ") && said.contains("line 2"), "{said}");
    assert!(wrong("").contains("not JSON"));
    assert!(wrong("[]").contains("not a JSON object"));
    assert!(wrong("{ /* never closed").contains("not JSON"));
    assert!(wrong(&"[".repeat(100_000)).contains("not JSON"));
}

#[test]
fn a_key_in_two_spellings_is_refused() {
    assert!(wrong(r#"{"CBDDC":{"Network":{"TcpPort":1,"tcpport":2}}}"#).contains("written twice"));
    assert!(wrong(r#"{"CBDDC":{},"cbddc":{}}"#).contains("written twice"));
}

#[test]
fn a_key_with_a_line_feed_stays_on_one_line() {
    assert!(!wrong("{\"CBDDC\":{\"a\\nb\":1}}").contains('\n'));
}

#[test]
fn what_the_board_cannot_spare_is_lowered_with_a_warning() {
    let text = r#"{"CBDDC":{"Persistence":{"CacheSizeMb":4000},"Sync":{"MaxQueueSize":100000}}}"#;
    let config = file(text).unwrap();
    assert_eq!((config.persistence.cache_mib, config.sync.max_queue_size), (50, 1024));
    assert_eq!(
        config.warnings[0],
        "CBDDC.Persistence.CacheSizeMb: 4000 is above what board generic can spare, 50 is used"
    );
    assert_eq!(config.warnings.len(), 2);
    assert_eq!(origin(&config, "CBDDC.Persistence.CacheSizeMb"), "board generic");
}

#[test]
fn a_smaller_board_lowers_the_built_in_values_without_a_word() {
    let small = include_str!("../../boards/generic.toml")
        .replace("ram_mib = 128", "ram_mib = 96")
        .replace("cache_mib = 50", "cache_mib = 8")
        .replace("BackupKeep\" = 7", "BackupKeep\" = 2")
        .replace("generic", "small");
    let config = Config::builder().board_file(&small).build().unwrap();
    assert_eq!((config.persistence.cache_mib, config.persistence.backup_keep), (8, 2));
    assert!(config.warnings.is_empty());
    let over = Config::builder().board_file(&small).set("Persistence.BackupKeep", 5).build().unwrap();
    assert_eq!(over.persistence.backup_keep, 5);
    let wrong = small.replace("BackupKeep\" = 2", "BackupKeep\" = 0");
    assert!(Config::builder().board_file(&wrong).build().is_err());
}

#[test]
fn a_critical_threshold_below_the_lag_threshold_is_raised_with_a_warning() {
    let config = Config::builder().lag_thresholds_ms(5000, 100).build().unwrap();
    assert_eq!(config.cluster.critical_lag_threshold_ms, 5000);
    assert_eq!(config.warnings.len(), 1);
}

#[test]
fn the_port_of_the_cluster_section_wins() {
    let config = file(r#"{"CBDDC":{"Cluster":{"TcpPort":7000},"Network":{"TcpPort":5001}}}"#).unwrap();
    assert_eq!(config.network.tcp_port, 7000);
    assert_eq!(file(r#"{"CBDDC":{"Network":{"TcpPort":0}}}"#).unwrap().network.tcp_port, 0);
}

#[test]
fn a_token_opens_the_api_beyond_loopback() {
    let text = r#"{"CBDDC":{"Api":{"HttpAddress":"0.0.0.0:5080","TokenFile":"token"}}}"#;
    assert_eq!(file(text).unwrap().api.token_file, Some("token".into()));
    assert!(Config::builder().http_address(Some("[::1]:0".parse().unwrap())).build().is_ok());
}

#[test]
fn relative_paths_are_relative_to_the_base_and_absolute_ones_stay() {
    let builder = Config::builder().base_directory("/var/lib/cbddc").key_file("/etc/cbddc/cluster.key");
    let config = builder.set("Logging.Path", "log/cbddc.log").build().unwrap();
    assert_eq!(config.persistence.database_path, PathBuf::from("/var/lib/cbddc/data/cbddc.db"));
    assert_eq!(config.cluster.key_file, PathBuf::from("/etc/cbddc/cluster.key"));
    assert_eq!(config.logging.path, Some("/var/lib/cbddc/log/cbddc.log".into()));
}

#[test]
fn beacons_go_where_they_are_told_to() {
    let builder =
        Config::builder().udp_port(6001).set("Network.BroadcastAddresses", json!(["10.0.0.255", "127.0.0.1:9"]));
    let addresses = builder.build().unwrap().network.broadcast_addresses.unwrap();
    assert_eq!(addresses, vec!["10.0.0.255:6001".parse().unwrap(), "127.0.0.1:9".parse().unwrap()]);
}

#[test]
fn a_builder_says_the_first_wrong_value_and_takes_the_last_right_one() {
    let config = Config::builder().tcp_port(1).tcp_port(2).set("CBDDC.Collections.a.b.TtlSeconds", 5).build().unwrap();
    assert_eq!((config.network.tcp_port, config.collections["a.b"].ttl_ms), (2, Some(5000)));
    let said = Config::builder().node_id("two words").set("Nothing", 1).build().unwrap_err().to_string();
    assert!(said.starts_with("CBDDC.Cluster.NodeId: \"two words\" is not a node name"), "{said}");
    assert!(Config::builder().set("Collections.a", 1).build().is_err());
    assert!(Config::builder().set("", 1).build().is_err());
}

#[test]
fn a_data_directory_holds_everything() {
    let config = Config::builder().data_directory("/data").peers(["a:1"]).discovery(false).build().unwrap();
    assert_eq!(config.persistence.database_path, PathBuf::from("/data/cbddc.db"));
    assert_eq!(config.cluster.key_file, PathBuf::from("/data/cluster.key"));
    assert_eq!(config.persistence.backup_path, PathBuf::from("/data/backups"));
}
