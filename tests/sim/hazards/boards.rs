//! Hazards of boards and links: cards that are rolled back, cloned or failing, clocks, more members than slots.

use super::scene::{apart, expect, plan, site, together, wait};
use crate::site::Outcome;
use crate::site::faults::{Fault, Plan};

/// The card of n0 is put back to an hour ago; it writes before it meets anybody.
pub(super) fn rolled_back() -> Outcome {
    let mut site = site(plan(3));
    wait(&mut site, 1_500)?;
    site.put(0, "a")?;
    wait(&mut site, 500)?;
    site.hosts[0].disk_before = Some(site.hosts[0].table.clone());
    site.put(0, "b")?;
    site.put(0, "c")?;
    wait(&mut site, 500)?;
    site.roll_back(0)?;
    apart(&mut site, 0, 1);
    apart(&mut site, 0, 2);
    wait(&mut site, 500)?;
    for key in ["d", "e", "f"] {
        site.put(0, key)?;
        wait(&mut site, 50)?;
    }
    together(&mut site);
    site.settle()?;
    let all = ["a", "b", "c", "d", "e", "f"].iter().all(|key| site.get(0, key).is_some() && site.get(1, key).is_some());
    let missing: Vec<_> = ["a", "b", "c", "d", "e", "f"]
        .into_iter()
        .filter(|key| site.get(0, key).is_none() || site.get(1, key).is_none())
        .collect();
    expect(all, &format!("everything is there, also what the older card had lost; {missing:?} is not"))
}

/// A card is copied and both run, with one device key.
pub(super) fn cloned() -> Outcome {
    let mut site = site(plan(3));
    wait(&mut site, 1_500)?;
    site.put(0, "a")?;
    wait(&mut site, 500)?;
    site.fault(Fault::Clone)?;
    wait(&mut site, 300)?;
    let twin = site.hosts.len() - 1;
    site.put(0, "b")?;
    site.put(twin, "c")?;
    wait(&mut site, 2_000)?;
    site.settle()?;
    expect(site.get(1, "b").is_some() && site.get(1, "c").is_some(), "both histories are kept")
}

/// Power fails while commits run; whatever was answered is there.
pub(super) fn power_cut() -> Outcome {
    let mut site = site(plan(3));
    wait(&mut site, 1_500)?;
    for round in 0..12 {
        site.put(0, &format!("k{round}"))?;
        wait(&mut site, round)?;
        site.crash(0)?;
        wait(&mut site, 1_200)?;
    }
    site.settle()
}

/// Four nodes without a clock, one with.
pub(super) fn votes() -> Outcome {
    let mut site = site(Plan { no_rtc: true, ..plan(5) });
    for at in 1..5 {
        (site.hosts[at].wall_offset, site.hosts[at].synchronised) = (-90_000_000_000, false);
    }
    wait(&mut site, 3_000)?;
    site.put(3, "x")?;
    site.settle()
}

/// A node with a clock forty years ahead writes; others overwrite that and go on.
pub(super) fn far_future() -> Outcome {
    let mut site = site(plan(3));
    wait(&mut site, 1_500)?;
    site.hosts[0].wall_offset = 40 * 365 * 86_400_000;
    site.liars = true;
    site.put(0, "x")?;
    wait(&mut site, 500)?;
    site.put(1, "x")?;
    site.put(1, "y")?;
    wait(&mut site, 500)?;
    let (x0, x1) = (site.get(0, "x"), site.get(1, "x"));
    expect(x0 == x1 && x1.is_some(), "the later write stands")?;
    site.settle()
}

/// Nine nodes with two links each.
pub(super) fn few_links() -> Outcome {
    let mut site = site(Plan { links_max: 2, ..plan(9) });
    wait(&mut site, 4_000)?;
    for at in 0..9 {
        site.put(at, &format!("k{at}"))?;
    }
    wait(&mut site, 2_000)?;
    site.settle()
}

/// A laptop comes by once.
pub(super) fn visitor() -> Outcome {
    let mut site = site(plan(3));
    site.hosts[2].visitor = true;
    wait(&mut site, 1_500)?;
    site.put(2, "x")?;
    wait(&mut site, 1_000)?;
    site.settle()
}

/// Eight nodes, all linked; one writes once.
pub(super) fn mesh() -> Outcome {
    let mut site = site(plan(8));
    wait(&mut site, 12_000)?;
    site.tally.0.insert("rows sent", 0);
    site.put(0, "x")?;
    wait(&mut site, 2_000)?;
    let sent = site.tally.0["rows sent"];
    expect(sent >= 7, "it reaches everybody")?;
    expect(sent <= 14, &format!("one write crossed the mesh {sent} times"))?;
    site.settle()
}

/// Two nodes write a lot at once with windows of one row.
pub(super) fn windows() -> Outcome {
    let mut site = site(Plan { window_bytes: 1, delay: 3, ..plan(2) });
    apart(&mut site, 0, 1);
    for key in 0..40 {
        wait(&mut site, 20)?;
        site.put(key % 2, &format!("k{key}"))?;
    }
    together(&mut site);
    site.settle()
}

/// Commits fail, some of them after they happened.
pub(super) fn failing_card() -> Outcome {
    let mut site = site(plan(3));
    wait(&mut site, 1_500)?;
    site.hosts[1].faulty_until = site.time + 3_000;
    for key in 0..30 {
        wait(&mut site, 60)?;
        site.put(key % 3, &format!("k{}", key % 7))?;
    }
    site.settle()
}
