//! `/metrics` as a monitoring system reads it: every line is of the text exposition format 0.0.4, and what is promised is
//! there and moves.

use crate::process::{Node, wait};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// What the documentation promises, and alert rules are written against.
const PROMISED: &[&str] = &[
    "cbddc_build_info",
    "cbddc_uptime_seconds",
    "cbddc_health_status",
    "cbddc_health_entry_status",
    "cbddc_peers_tracked",
    "cbddc_peers_linked",
    "cbddc_peers_unconfirmed",
    "cbddc_peers_lagging",
    "cbddc_unconfirmed_changes",
    "cbddc_unconfirmed_oldest_age_seconds",
    "cbddc_peer_linked",
    "cbddc_peer_lag_seconds",
    "cbddc_peer_unconfirmed_changes",
    "cbddc_digest_alarms_total",
    "cbddc_rows_sent_total",
    "cbddc_rows_received_total",
    "cbddc_links_open",
    "cbddc_links_opened_total",
    "cbddc_strangers_refused_total",
    "cbddc_beacons_total",
    "cbddc_retries_total",
    "cbddc_link_received_bytes_total",
    "cbddc_link_sent_bytes_total",
    "cbddc_queue_operations",
    "cbddc_queue_capacity_operations",
    "cbddc_queue_bytes",
    "cbddc_cache_hits_total",
    "cbddc_cache_misses_total",
    "cbddc_cache_evictions_total",
    "cbddc_cache_bytes",
    "cbddc_cache_capacity_bytes",
    "cbddc_store_database_bytes",
    "cbddc_store_wal_bytes",
    "cbddc_store_free_bytes",
    "cbddc_store_tombstones",
    "cbddc_recovered_rows",
    "cbddc_store_commits_total",
    "cbddc_store_checkpoints_total",
    "cbddc_store_last_checkpoint_timestamp_seconds",
    "cbddc_http_requests_total",
    "cbddc_http_errors_total",
    "cbddc_http_connections_total",
    "cbddc_clock_seconds",
    "cbddc_clock_believed",
    "cbddc_clock_synchronised",
    "cbddc_clock_wall_offset_seconds",
];

/// What a scrape holds: the kind of each family, and each sample under its name with its labels.
#[derive(Debug, Default)]
struct Scrape {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        let mut family = String::new();
        let mut helped = BTreeSet::new();
        assert!(text.ends_with('\n'), "the last line ends, too");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(helped.insert(name.to_string()), "{name} comes twice");
                assert!(help.ends_with('.') && !help.replace("\\\\", "").replace("\\n", "").contains('\\'), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert!(matches!(kind, "gauge" | "counter"), "{line}");
                assert!(helped.contains(name), "the help comes first: {line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && name.starts_with("cbddc_");
                assert!(plain && !name.contains("_ms"), "{name}");
                assert!(scrape.kinds.insert(name.to_string(), kind.to_string()).is_none());
                family = name.to_string();
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
                let name = series.split('{').next().unwrap();
                assert_eq!(name, family, "a sample stands under its family");
                if let Some(labels) = series.strip_prefix(&format!("{name}{{")) {
                    let (label, quoted) = labels.strip_suffix('}').unwrap().split_once("=\"").unwrap();
                    assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
                    let inner = quoted.strip_suffix('"').unwrap();
                    let bare = inner.replace("\\\\", "").replace("\\\"", "").replace("\\n", "");
                    assert!(!bare.contains(['"', '\\']), "{line}");
                }
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                assert!(scrape.samples.insert(series.to_string(), value).is_none(), "{series} comes twice");
            }
        }
        scrape
    }
    #[track_caller]
    fn get(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }
}

fn scrape(node: &Node) -> Scrape {
    let answer = node.ask("GET", "/metrics", &[], b"").expect(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Scrape::of(&answer.text())
}

#[test]
fn the_metrics_are_well_formed_and_what_is_promised_is_there_and_moves() {
    let mut one = Node::new("metrics-one").started();
    let two = Node::new("metrics \"two\\").set("Cluster__NodeId", "metrics-\"two\\").peers(&[&one]).started();
    one.put("c", "1", "1").expect(201);
    wait("the document is on both", || (two.value("c", "1").as_deref() == Some("1")).then_some(()));
    one.get("c", "2").expect(404);
    one.get("c", "1").expect(200);
    one.delete("c", "1").expect(204);
    // Whoever has no key is refused, and counted.
    let mut stranger = std::net::TcpStream::connect(one.links()).unwrap();
    stranger.write_all(&[7; 200]).unwrap();
    let first = wait("the stranger is counted and all is confirmed", || {
        let scrape = scrape(&one);
        let refused = scrape.get("cbddc_strangers_refused_total") >= 1.0;
        (refused && scrape.get("cbddc_unconfirmed_changes") == 0.0).then_some(scrape)
    });
    let missing: Vec<_> = PROMISED.iter().filter(|name| !first.kinds.contains_key(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (series, least) in [
        ("cbddc_build_info{version=\"0.1.0\"}", 1.0),
        ("cbddc_peers_tracked", 1.0),
        ("cbddc_peers_linked", 1.0),
        ("cbddc_peer_linked{peer=\"metrics-\\\"two\\\\\"}", 1.0),
        ("cbddc_links_open", 1.0),
        ("cbddc_links_opened_total", 1.0),
        ("cbddc_link_sent_bytes_total", 100.0),
        ("cbddc_link_received_bytes_total", 100.0),
        ("cbddc_rows_sent_total", 1.0),
        ("cbddc_cache_hits_total", 1.0),
        ("cbddc_cache_misses_total", 1.0),
        ("cbddc_store_database_bytes", 4096.0),
        ("cbddc_store_free_bytes", 1.0),
        ("cbddc_store_tombstones", 1.0),
        ("cbddc_store_commits_total", 2.0),
        ("cbddc_http_errors_total{class=\"4xx\"}", 1.0),
        ("cbddc_clock_seconds", 1.7e9),
    ] {
        assert!(first.get(series) >= least, "{series} is {}, not {least} at least", first.get(series));
    }
    assert_eq!(first.get("cbddc_health_entry_status{entry=\"storage\"}"), 0.0);
    // The peer goes away: it counts, and a change that it lacks grows old.
    drop(two);
    one.put("c", "3", "3").expect(201);
    wait("the change grows old", || {
        let later = scrape(&one);
        for (series, value) in &first.samples {
            let kind = &later.kinds[series.split('{').next().unwrap()];
            assert!(kind != "counter" || later.samples.get(series).is_some_and(|now| now >= value), "{series} fell");
        }
        let old = later.get("cbddc_unconfirmed_oldest_age_seconds") > 0.0;
        (old && later.get("cbddc_unconfirmed_changes") == 1.0 && later.get("cbddc_peers_linked") == 0.0).then_some(())
    });
    one.stop_cleanly();
}

#[test]
fn whoever_has_no_token_sees_figures_and_no_names() {
    let mut one = Node::new("metrics-guarded").set("Api__TokenFile", "token").set("Api__HealthAddress", "127.0.0.1:0");
    std::fs::write(one.path("token"), "s3cret\n").unwrap();
    one.start();
    let two = Node::new("metrics-secret-name").peers(&[&one]).started();
    let token = [("Authorization", "Bearer s3cret")];
    let known = wait("the peer is there", || {
        let text = one.ask("GET", "/metrics", &token, b"").expect(200).text();
        text.contains("peer=\"metrics-secret-name\"").then_some(text)
    });
    Scrape::of(&known);
    let unknown = one.ask("GET", "/metrics", &[], b"").expect(200).text();
    assert!(!unknown.contains("secret-name"), "{unknown}");
    assert_eq!(Scrape::of(&unknown).get("cbddc_peers_tracked"), 1.0);
    drop(two);
}
