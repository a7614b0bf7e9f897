//! What a told story at a site is made of: a plan without luck, time that passes, paths that are closed, a death.

use crate::site::faults::Plan;
use crate::site::{Outcome, Site};
use cbddc::time::Millis;

pub(super) fn plan(nodes: usize) -> Plan {
    Plan {
        nodes,
        operations: 0,
        keys: 4,
        bulk: 1,
        pause: 50,
        length: 0,
        faults: Vec::new(),
        links_max: 8,
        window_bytes: 64 * 1024,
        min_age: 0,
        keep: Millis::MAX,
        expiry: false,
        visitors: false,
        no_rtc: false,
        loss: 0,
        doubled: 0,
        delay: 0,
        card: 3,
        large: 0,
        thorough: true,
    }
}
pub(super) fn site(plan: Plan) -> Site {
    Site::new(1, plan, true)
}
pub(super) fn wait(site: &mut Site, millis: Millis) -> Outcome {
    let until = site.time + millis;
    site.run_until(until)
}
/// Nothing gets from one to the other, either way.
pub(super) fn apart(site: &mut Site, a: usize, b: usize) {
    site.air.blocked.extend([(a, b), (b, a)]);
    let between: Vec<u64> = site
        .links
        .iter()
        .filter(|(_, link)| link.ends.contains(&a) && link.ends.contains(&b))
        .map(|(id, _)| *id)
        .collect();
    between.into_iter().for_each(|id| site.break_link(id));
}
pub(super) fn together(site: &mut Site) {
    site.air.blocked.clear();
}
pub(super) fn die(site: &mut Site, at: usize) {
    site.stop(at);
    site.hosts[at].dead = true;
    let alive: Vec<_> = site.hosts.iter().filter(|host| !host.dead).map(|host| host.table.clone()).collect();
    site.judge.ledger.excuse(at, alive.iter());
}
pub(super) fn expect(holds: bool, what: &str) -> Outcome {
    if holds { Ok(()) } else { Err(format!("story: {what}")) }
}
