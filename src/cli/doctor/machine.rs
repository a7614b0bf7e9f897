//! The machine: its memory, its clock, the key files.

use super::Point;
use crate::clock;
use crate::config::Config;
use crate::key;
use crate::report::Timestamp;
use std::format;
use std::path::Path;
use std::string::ToString;
use std::vec::Vec;

/// 2026-01-01: this program is younger than that.
const SURELY_WRONG_BEFORE_MS: u64 = 1_767_225_600_000;

pub(super) fn board(config: &Config) -> Point {
    let budget = &config.board.budget;
    let found = format!("{}: {} MiB for the node", config.board.name, budget.ram_mib);
    let machine = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "`c_ulong` is as wide as the machine")]
    let total_mib = u64::from(machine.totalram).saturating_mul(u64::from(machine.mem_unit)) >> 20;
    if u64::from(budget.ram_mib) > total_mib {
        let todo = "choose a smaller board in CBDDC.Board; leave it out, and it is chosen by the machine";
        return Point::fail("board", format!("{found}, the machine has {total_mib}"), todo);
    }
    Point::ok("board", format!("{found}, the machine has {total_mib}"))
}

pub(super) fn clock() -> Point {
    judged(clock::wall_ms(), clock::synchronised())
}

fn judged(wall_ms: u64, synchronised: bool) -> Point {
    let now = Timestamp(wall_ms);
    if synchronised {
        return Point::ok("clock", format!("{now}, synchronised"));
    }
    if wall_ms < SURELY_WRONG_BEFORE_MS {
        let found = format!("{now} cannot be: this machine has no clock that runs while it is off");
        let todo = "start a time service (systemctl enable --now systemd-timesyncd), or 'date -s' by hand; until then the node \
             goes on from its last stamp or takes the time from its peers, nothing is lost, and dates in logs are wrong";
        return Point::fail("clock", found, todo);
    }
    let todo = "with a network: systemctl enable --now systemd-timesyncd; on an island without NTP this is no fault, the nodes \
         agree on an order all the same";
    Point::warn("clock", format!("{now}, not synchronised as far as systemd-timesyncd says"), todo)
}

/// The cluster key and the device key.
pub(super) fn keys(config: &Config) -> Vec<Point> {
    let (cluster, device) = (&config.cluster.key_file, config.device_key_file());
    Vec::from([
        key_file(
            "cluster key",
            cluster,
            &key::load_cluster_key(cluster).map(drop),
            "the first start makes one; a device that is to \
             join a site needs that site's key before: 'cbddc key set FILE'",
        ),
        key_file("device key", &device, &key::load_device_key(&device).map(drop), "the first start makes one"),
    ])
}

fn key_file(point: &'static str, path: &Path, loaded: &Result<(), crate::Error>, missing: &str) -> Point {
    let shown = path.display();
    match loaded {
        Ok(()) => Point::ok(point, format!("{shown}, for its owner alone")),
        Err(_) if !path.exists() => Point::warn(point, format!("{shown} is not there yet"), missing),
        Err(error) => Point::fail(
            point,
            error.to_string(),
            "the node does not start with it: mend the file, or put the right key there with 'cbddc key set FILE'",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_clock_is_synchronised_plausible_or_wrong() {
        assert_eq!(judged(1_800_000_000_000, true).state, State::Ok);
        assert_eq!(judged(1_800_000_000_000, false).state, State::Warn);
        let at_boot = judged(60_000, false);
        assert_eq!(at_boot.state, State::Fail);
        assert!(at_boot.found.starts_with("1970-01-01T00:01"), "{}", at_boot.found);
    }
}
