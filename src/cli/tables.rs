//! `status`, `peers` and `health`, as tables for people or as the node's own JSON.

use super::api::{Api, Reply};
use super::{DONE, FAILED, USAGE, one_line, say, say_on_stderr, without_control_characters};
use crate::Error;
use crate::report::{HealthReport, HealthStatus, PeersReport, Status, Timestamp};
use hyper::Method;
use hyper::body::Bytes;
use std::fmt::Display;
use std::format;
use std::io::Write;
use std::string::{String, ToString};
use std::vec::Vec;

/// `health` got no answer.
const NO_ANSWER: u8 = 3;

/// Prints the sync tracker.
pub(super) async fn status(api: &Api, json: bool) -> Result<u8, Error> {
    let reply = api.get("/v1/status").await?;
    let text = if json { as_sent(&reply) } else { status_table(&reply.json()?)? };
    say(&text)?;
    Ok(DONE)
}

/// Prints members and strangers.
pub(super) async fn peers(api: &Api, json: bool) -> Result<u8, Error> {
    let reply = api.get("/v1/peers").await?;
    let text = if json { as_sent(&reply) } else { peers_table(&reply.json()?)? };
    say(&text)?;
    Ok(DONE)
}

/// Prints the health report; its status is the exit code.
pub(super) async fn health(api: &Api, json: bool) -> Result<u8, Error> {
    match health_report(api).await {
        Ok((reply, report)) => {
            say(&if json { as_sent(&reply) } else { health_table(&report)? })?;
            Ok(match report.status {
                HealthStatus::Healthy => DONE,
                HealthStatus::Degraded => FAILED,
                HealthStatus::Unhealthy => UNHEALTHY,
            })
        }
        Err(error) => {
            say_on_stderr(&one_line(&error));
            Ok(NO_ANSWER)
        }
    }
}

/// The number that wrong usage has, too; `health` says on stdout which it is.
const UNHEALTHY: u8 = USAGE;

async fn health_report(api: &Api) -> Result<(Reply, HealthReport), Error> {
    let reply = api.send(Method::GET, "/health", None, Bytes::new()).await?;
    // An unhealthy node answers 503 with its report; other errors have none.
    match reply.json::<HealthReport>() {
        Ok(report) => Ok((reply, report)),
        Err(_) if !reply.status.is_success() => Err(reply.error()),
        Err(error) => Err(error),
    }
}

pub(super) fn as_sent(reply: &Reply) -> String {
    format!("{}\n", String::from_utf8_lossy(&reply.body))
}

/// Lines of cells, aligned.
pub(super) fn table(lines: &[Vec<String>]) -> Result<String, Error> {
    let failed = |_| Error::persistence("the table cannot be written", None);
    let mut writer = tabwriter::TabWriter::new(Vec::new()).minwidth(0).padding(2);
    for cells in lines {
        let cells: Vec<String> = cells.iter().map(|cell| without_control_characters(cell)).collect();
        writeln!(writer, "{}", cells.join("\t").trim_end()).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|_| Error::persistence("the table cannot be written", None))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn pair(name: &str, value: impl Display) -> Vec<String> {
    let value = value.to_string();
    [name.to_string(), if value.is_empty() { "-".to_string() } else { value }].into()
}

pub(super) fn or_never(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_string(), |at| at.to_string())
}

fn status_table(status: &Status) -> Result<String, Error> {
    let Status { queue, cache, store, clock, .. } = status;
    let mut lines = Vec::from([
        pair("node", &status.node_id),
        pair("replica", &status.replica_id),
        pair("version", &status.version),
        pair("online", if status.online { "yes" } else { "no" }),
        pair("active peers", status.active_peers),
        pair("last sync", or_never(status.last_sync_time)),
        pair("documents", store.documents),
        pair("database", format!("{} ({}, log {})", store.path, size(store.database_bytes), size(store.wal_bytes))),
        pair("free", size(store.free_bytes)),
        pair(
            "queue",
            if queue.enabled { format!("{} of {}", queue.length, queue.capacity) } else { "off".to_string() },
        ),
        pair(
            "cache",
            format!("{} of {}, hit rate {:.2}", size(cache.bytes), size(cache.capacity_bytes), cache.hit_rate),
        ),
        pair("clock", format!("{}{}", or_never(clock.now), if clock.believed { "" } else { " (not synchronised)" })),
        pair("up", format!("{} s", clock.uptime_ms / 1000)),
    ]);
    if !status.recent_errors.is_empty() {
        lines.push(pair("recent errors", status.recent_errors.len()));
    }
    let mut text = table(&lines)?;
    let errors: Vec<Vec<String>> = status
        .recent_errors
        .iter()
        .map(|error| {
            let peer = error.peer.clone().unwrap_or_else(|| "-".to_string());
            [error.time.to_string(), error.code.clone(), peer, error.message.clone()].into()
        })
        .collect();
    text.push_str(&table(&errors)?);
    Ok(text)
}

fn peers_table(report: &PeersReport) -> Result<String, Error> {
    let head = ["PEER", "STATE", "ADDRESS", "LAG", "UNCONFIRMED", "LAST CONFIRMATION", "CLOCK"];
    let mut lines = Vec::from([head.map(String::from).to_vec()]);
    for peer in &report.peers {
        let offset = peer.clock_offset_ms.map_or_else(|| "-".to_string(), |offset| format!("{offset:+} ms"));
        lines.push(Vec::from([
            peer.node_id.clone(),
            peer.state.clone(),
            peer.address.clone().unwrap_or_else(|| "-".to_string()),
            format!("{} ms", peer.lag_ms),
            peer.unconfirmed_changes.to_string(),
            or_never(peer.last_confirmation),
            offset,
        ]));
    }
    let mut text = if report.peers.is_empty() { "no peers yet\n".to_string() } else { table(&lines)? };
    if !report.heard.is_empty() {
        text.push_str("\nheard, not linked:\n");
        let heard: Vec<Vec<String>> =
            report.heard.iter().map(|heard| [heard.address.clone(), heard.reason.clone()].into()).collect();
        text.push_str(&table(&heard)?);
    }
    Ok(text)
}

fn health_table(report: &HealthReport) -> Result<String, Error> {
    let mut lines = Vec::from([pair("status", report.status)]);
    for (name, entry) in &report.entries {
        let description = entry.description.clone().unwrap_or_default();
        lines.push([name.clone(), entry.status.to_string(), description].into());
    }
    table(&lines)
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..=1_048_575 => format!("{} KiB", bytes / KIB),
        _ => format!("{} MiB", bytes / KIB / KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{HealthEntry, HeardAddress, PeerReport, RecentError};
    use std::vec;

    #[test]
    fn a_status_is_a_table_with_its_errors_below() {
        let mut status = Status { node_id: "gateway-01".to_string(), ..Status::default() };
        status.recent_errors.push(RecentError {
            time: Timestamp(0),
            code: "NETWORK_ERROR".to_string(),
            peer: None,
            message: "refused\u{1b}[2J".to_string(),
        });
        let text = status_table(&status).unwrap();
        assert!(text.starts_with("node           gateway-01\n"), "{text}");
        assert!(text.contains("last sync      never\n"), "{text}");
        assert!(text.ends_with("1970-01-01T00:00:00.000Z  NETWORK_ERROR  -  refused\\u{1b}[2J\n"), "{text}");
    }

    #[test]
    fn strangers_stand_below_the_peers_with_the_reason() {
        let peer = PeerReport {
            node_id: "gateway-02".to_string(),
            state: "open".to_string(),
            address: Some("10.0.0.2:5000".to_string()),
            confirmed: true,
            lag_ms: 0,
            unconfirmed_changes: 0,
            last_confirmation: None,
            clock_offset_ms: Some(3),
            round_trip_ms: Some(1),
            last_error: None,
        };
        let heard = HeardAddress { address: "10.0.0.9:5000".to_string(), reason: "another cluster key".to_string() };
        let text = peers_table(&PeersReport { peers: vec![peer], heard: vec![heard] }).unwrap();
        assert!(text.contains("gateway-02  open   10.0.0.2:5000  0 ms  0"), "{text}");
        assert!(text.ends_with("heard, not linked:\n10.0.0.9:5000  another cluster key\n"), "{text}");
    }

    #[test]
    fn health_names_each_entry() {
        let entries = [("storage".to_string(), HealthEntry::of(HealthStatus::Unhealthy))].into();
        let text = health_table(&HealthReport::new(entries, 1.0)).unwrap();
        assert_eq!(text, "status   Unhealthy\nstorage  Unhealthy\n");
    }
}
