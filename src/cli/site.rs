//! `cbddc status --site`: every member of the site in one table.

use super::api::Api;
use super::args;
use super::tables::{as_sent, or_never, size, table};
use super::{DONE, say};
use crate::Error;
use crate::report::{MemberStatus, SiteReport};
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// Asks the node, which asks the others.
pub(super) async fn run(api: &Api, wanted: &args::Status, json: bool) -> Result<u8, Error> {
    let query = wanted.timeout.map(|time| format!("?timeout={}ms", time.as_millis())).unwrap_or_default();
    wanted.timeout.into_iter().for_each(|time| api.be_patient(time));
    let reply = api.get(&format!("/v1/site{query}")).await?;
    say(&if json { as_sent(&reply) } else { site_table(&reply.json()?)? })?;
    Ok(DONE)
}

fn site_table(site: &SiteReport) -> Result<String, Error> {
    let head = ["MEMBER", "STATE", "HEALTH", "VERSION", "CLOCK", "OFFSET", "FREE", "LAG", "ITS PEERS", "SAID"];
    let mut lines = Vec::from([head.map(String::from).to_vec()]);
    for MemberStatus { node_id, state, lag_ms, said, .. } in &site.members {
        let lag = if state == "self" { "-".to_string() } else { format!("{lag_ms} ms") };
        let nothing = || ["-"; 5].map(String::from);
        let [health, version, clock, offset, free] = said.as_ref().map_or_else(nothing, |said| {
            let unsynchronised = if said.clock_synchronised { "" } else { " (not synchronised)" };
            let clock = format!("{}{unsynchronised}", or_never(said.clock));
            let offset = format!("{:+} ms", said.clock_offset_ms);
            [said.health.to_string(), said.version.clone(), clock, offset, size(said.free_bytes)]
        });
        let (peers, age) = said.as_ref().map_or(("-".to_string(), "never".to_string()), |said| {
            let lagging = if said.lagging_peers > 0 { format!(", {} lag", said.lagging_peers) } else { String::new() };
            (format!("{} of {} linked{lagging}", said.linked_peers, said.tracked_peers), ago(said.age_ms))
        });
        lines.push([node_id.clone(), state.clone(), health, version, clock, offset, free, lag, peers, age].into());
    }
    table(&lines)
}

/// A time that has passed, roughly.
fn ago(ms: u64) -> String {
    match ms / 1000 {
        0..=9 => "now".to_string(),
        s @ 10..=119 => format!("{s} s ago"),
        s @ 120..=7_199 => format!("{} min ago", s / 60),
        s @ 7_200..=172_799 => format!("{} h ago", s / 3_600),
        s => format!("{} days ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{HealthStatus, Said, Timestamp};

    #[test]
    fn each_member_is_a_line_whether_it_has_said_something_or_not() {
        let said = Said {
            age_ms: 240_000,
            health: HealthStatus::Degraded,
            version: "1.2.3".to_string(),
            clock: Some(Timestamp(0)),
            clock_offset_ms: -250,
            free_bytes: 5 << 20,
            tracked_peers: 3,
            linked_peers: 2,
            lagging_peers: 1,
            ..Said::default()
        };
        let member = |name: &str, state: &str, said| MemberStatus {
            node_id: name.to_string(),
            state: state.to_string(),
            lag_ms: 7,
            said,
            ..MemberStatus::default()
        };
        let site = SiteReport { members: Vec::from([member("a", "relayed", Some(said)), member("b", "silent", None)]) };
        let text = site_table(&site).unwrap();
        let squeezed: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let first = "a relayed Degraded 1.2.3 1970-01-01T00:00:00.000Z (not synchronised) -250 ms 5 MiB 7 ms 2 of 3 linked, 1 lag 4 min ago";
        assert_eq!(squeezed[1], first);
        assert_eq!(squeezed[2], "b silent - - - - - 7 ms - never");
    }
}
