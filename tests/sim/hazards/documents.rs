//! Hazards of documents: what is lost, or comes back, when rows take another way or a longer time than was thought.

use super::scene::{apart, die, expect, plan, site, together, wait};
use crate::site::Outcome;
use crate::site::faults::Plan;
use cbddc::proto::Client;

/// n0 sends a long stream to n1 in small batches; the link is cut between two of them and n0 dies. n2 had everything.
pub(super) fn hole() -> Outcome {
    let mut site = site(Plan { window_bytes: 64, delay: 5, ..plan(3) });
    for key in 0..30 {
        site.air.blocked.extend([(0, 1), (1, 0), (2, 1), (1, 2)]);
        wait(&mut site, 100)?;
        site.put(0, &format!("k{}", key % 10))?;
    }
    wait(&mut site, 2_000)?;
    site.air.blocked.remove(&(0, 1));
    site.air.blocked.remove(&(1, 0));
    wait(&mut site, 400)?;
    die(&mut site, 0);
    together(&mut site);
    site.settle()
}

/// n2 is away while a document is deleted by n1 and the tombstone is dropped after its time.
pub(super) fn late_member() -> Outcome {
    let mut site = site(Plan { keep: 1_500, ..plan(3) });
    wait(&mut site, 1_500)?;
    site.put(2, "x")?;
    wait(&mut site, 1_000)?;
    expect(site.get(0, "x").is_some() && site.get(1, "x").is_some(), "all have x")?;
    apart(&mut site, 2, 0);
    apart(&mut site, 2, 1);
    site.delete(1, "x")?;
    wait(&mut site, 5_000)?;
    site.put(0, "y")?;
    wait(&mut site, 1_000)?;
    together(&mut site);
    site.settle()?;
    expect(site.get(0, "x").is_none() && site.get(2, "x").is_none(), "x stays deleted")
}

/// R (n2) gave x to n0 only; n0 deletes it; n1, who never met R, drops the tombstone. Then n0 dies and R meets n1.
pub(super) fn unknown_member() -> Outcome {
    let mut site = site(plan(3));
    apart(&mut site, 2, 1);
    wait(&mut site, 1_500)?;
    site.put(2, "x")?;
    wait(&mut site, 1_000)?;
    apart(&mut site, 2, 0);
    site.hosts[1].table.members.remove(&crate::site::device(2));
    site.stop(1);
    let epoch = site.hosts[1].epoch;
    site.delete(0, "x")?;
    wait(&mut site, 50)?;
    site.after(10, crate::site::Event::Start { host: 1, epoch });
    wait(&mut site, 4_000)?;
    die(&mut site, 0);
    together(&mut site);
    site.settle()?;
    expect(site.get(1, "x").is_none() && site.get(2, "x").is_none(), "x stays deleted")
}

/// Both wrote and deleted while alone: nobody had a reason to drop anything, so nobody loses anything.
pub(super) fn two_filled() -> Outcome {
    let mut site = site(plan(2));
    apart(&mut site, 0, 1);
    for at in [0, 1] {
        wait(&mut site, 500)?;
        site.put(at, &format!("kept{at}"))?;
        site.put(at, &format!("gone{at}"))?;
        wait(&mut site, 200)?;
        site.delete(at, &format!("gone{at}"))?;
    }
    wait(&mut site, 3_000)?;
    together(&mut site);
    site.settle()?;
    let bootstraps = site.tally.0.get("bootstrap").copied().unwrap_or(0);
    expect(bootstraps == 0, "nobody has to bootstrap")?;
    expect(site.get(0, "kept1").is_some() && site.get(1, "kept0").is_some(), "both have both")
}

/// Two pairs, each with a floor that the other lacks.
pub(super) fn islands() -> Outcome {
    let mut site = site(Plan { keep: 500, ..plan(6) });
    for a in 0..3 {
        for b in 3..6 {
            apart(&mut site, a, b);
        }
    }
    wait(&mut site, 2_000)?;
    for at in [0, 3] {
        site.put(at, &format!("gone{at}"))?;
        wait(&mut site, 500)?;
        site.delete(at, &format!("gone{at}"))?;
        site.put(at, &format!("kept{at}"))?;
        wait(&mut site, 3_000)?;
    }
    together(&mut site);
    site.settle()
}

/// n0 sends x to n1, who sees it and deletes it; n0 never hears of either and has to bootstrap.
pub(super) fn sent() -> Outcome {
    let mut site = site(Plan { keep: 300, ..plan(2) });
    wait(&mut site, 1_500)?;
    site.air.blocked.insert((1, 0));
    site.put(0, "x")?;
    wait(&mut site, 300)?;
    expect(site.get(1, "x").is_some(), "n1 has x")?;
    apart(&mut site, 0, 1);
    site.delete(1, "x")?;
    site.put(1, "y")?;
    wait(&mut site, 3_000)?;
    together(&mut site);
    site.settle()?;
    expect(site.get(0, "x").is_none() && site.get(1, "x").is_none(), "x stays deleted")
}

/// n1 has an older version; the newer one, which expires, never reached it.
pub(super) fn expiry() -> Outcome {
    use cbddc::replica::{Precondition, Write};
    use cbddc::row::{Body, RowKey};
    let mut site = site(plan(3));
    wait(&mut site, 1_500)?;
    site.put(0, "x")?;
    wait(&mut site, 500)?;
    apart(&mut site, 1, 0);
    apart(&mut site, 1, 2);
    let expires_at = Some(crate::site::START + site.time + 500);
    let (key, body) = (RowKey::replicated("x", "x"), Body::Live(b"short".to_vec()));
    site.ask(0, Client::Write(vec![Write { key, body, expires_at, precondition: Precondition::None }]))?;
    wait(&mut site, 3_000)?;
    together(&mut site);
    site.settle()?;
    expect((0..3).all(|at| site.get(at, "x").is_none()), "what expired does not show what it had replaced")
}

/// n2 is retired while it is away, and comes back.
pub(super) fn returns() -> Outcome {
    let mut site = site(plan(3));
    wait(&mut site, 1_500)?;
    apart(&mut site, 2, 0);
    apart(&mut site, 2, 1);
    site.ask(0, Client::Untrack(crate::site::device(2)))?;
    site.put(0, "x")?;
    wait(&mut site, 300)?;
    site.delete(0, "x")?;
    wait(&mut site, 3_000)?;
    site.put(2, "y")?;
    together(&mut site);
    site.settle()?;
    expect(site.get(0, "y").is_some() && site.get(2, "x").is_none(), "it is one of them again")
}

/// n1 loses a row that its vector goes on covering: equal vectors, and only the digests tell.
pub(super) fn lost_row() -> Outcome {
    let mut site = site(plan(2));
    wait(&mut site, 1_500)?;
    // The ledger takes all that n1 writes from here on for one of two histories: it expects an alarm.
    let disk = site.hosts[1].table.clone();
    site.judge.ledger.note_second_life(&disk);
    site.put(1, "x")?;
    wait(&mut site, 1_000)?;
    expect(site.get(0, "x").is_some(), "n0 has x")?;
    site.stop(1);
    let host = &mut site.hosts[1];
    let (table, epoch) = (&mut host.table, host.epoch);
    let at = table.rows.keys.remove(&cbddc::row::RowKey::replicated("x", "x")).ok_or("n1 has no x")?;
    table.rows.rows.remove(&at);
    table.knowledge.digest = table.digest();
    site.after(10, crate::site::Event::Start { host: 1, epoch });
    wait(&mut site, 1_000)?;
    site.settle()?;
    expect(site.tally.0.contains_key("alarm"), "the digests tell")?;
    expect(site.get(1, "x").is_some(), "n1 has x again")
}
