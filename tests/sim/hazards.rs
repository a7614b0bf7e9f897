//! The hazards that are known, each as the shortest story that shows it. Nothing here is drawn by chance except the
//! milliseconds of the network.

use crate::site::faults::{Fault, Plan};
use crate::site::{Outcome, Site};
use cbddc::proto::Client;
use cbddc::time::Millis;

#[cfg(feature = "mutants")]
type Story = fn() -> Outcome;

/// Every story by its name; the mutants are tried on them too.
#[cfg(feature = "mutants")]
pub const STORIES: &[(&str, Story)] = &[
    ("a_cut_between_batches_leaves_no_hole_when_the_sender_dies", hole),
    ("a_deleted_document_stays_deleted_for_a_member_that_comes_late", late_member),
    ("a_member_that_somebody_did_not_know_is_a_newcomer", unknown_member),
    ("two_filled_nodes_that_were_alone_become_one", two_filled),
    ("two_islands_with_a_node_between_them_become_one", islands),
    ("a_write_that_was_sent_and_not_confirmed_does_not_beat_its_delete", sent),
    ("a_card_that_was_rolled_back_takes_a_new_identity", rolled_back),
    ("two_cards_cloned_from_one_part", cloned),
    ("what_is_answered_survives_the_power_cut_at_that_instant", power_cut),
    ("four_boxes_at_their_build_date_follow_the_one_that_knows_the_time", votes),
    ("a_stamp_from_the_far_future_freezes_no_key", far_future),
    ("more_members_than_links_never_split", few_links),
    ("a_visitor_is_not_tracked", visitor),
    ("one_write_does_not_cross_a_mesh_many_times", mesh),
    ("an_expired_document_does_not_uncover_an_older_one", expiry),
    ("small_windows_in_both_directions_do_not_stall", windows),
    ("a_failing_card_confirms_nothing_that_is_not_on_it", failing_card),
    ("an_untracked_node_that_returns_is_a_member_again", returns),
    ("a_row_that_a_card_lost_in_silence_comes_back_from_a_peer", lost_row),
];

fn plan(nodes: usize) -> Plan {
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
        large: 0,
        thorough: true,
    }
}
fn site(plan: Plan) -> Site {
    Site::new(1, plan, true)
}
fn wait(site: &mut Site, millis: Millis) -> Outcome {
    let until = site.time + millis;
    site.run_until(until)
}
/// Nothing gets from one to the other, either way.
fn apart(site: &mut Site, a: usize, b: usize) {
    site.air.blocked.extend([(a, b), (b, a)]);
    let between: Vec<u64> = site
        .links
        .iter()
        .filter(|(_, link)| link.ends.contains(&a) && link.ends.contains(&b))
        .map(|(id, _)| *id)
        .collect();
    between.into_iter().for_each(|id| site.break_link(id));
}
fn together(site: &mut Site) {
    site.air.blocked.clear();
}
fn die(site: &mut Site, at: usize) {
    site.stop(at);
    site.hosts[at].dead = true;
    let alive: Vec<_> = site.hosts.iter().filter(|host| !host.dead).map(|host| host.table.clone()).collect();
    site.judge.ledger.excuse(at, alive.iter());
}
fn expect(holds: bool, what: &str) -> Outcome {
    if holds { Ok(()) } else { Err(format!("story: {what}")) }
}

/// n0 sends a long stream to n1 in small batches; the link is cut between two of them and n0 dies. n2 had everything.
fn hole() -> Outcome {
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
fn late_member() -> Outcome {
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
fn unknown_member() -> Outcome {
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
fn two_filled() -> Outcome {
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
fn islands() -> Outcome {
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
fn sent() -> Outcome {
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

/// The card of n0 is put back to an hour ago; it writes before it meets anybody.
fn rolled_back() -> Outcome {
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
fn cloned() -> Outcome {
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
fn power_cut() -> Outcome {
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
fn votes() -> Outcome {
    let mut site = site(Plan { no_rtc: true, ..plan(5) });
    for at in 1..5 {
        (site.hosts[at].wall_offset, site.hosts[at].synchronised) = (-90_000_000_000, false);
    }
    wait(&mut site, 3_000)?;
    site.put(3, "x")?;
    site.settle()
}

/// A node with a clock forty years ahead writes; others overwrite that and go on.
fn far_future() -> Outcome {
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
fn few_links() -> Outcome {
    let mut site = site(Plan { links_max: 2, ..plan(9) });
    wait(&mut site, 4_000)?;
    for at in 0..9 {
        site.put(at, &format!("k{at}"))?;
    }
    wait(&mut site, 2_000)?;
    site.settle()
}

/// A laptop comes by once.
fn visitor() -> Outcome {
    let mut site = site(plan(3));
    site.hosts[2].visitor = true;
    wait(&mut site, 1_500)?;
    site.put(2, "x")?;
    wait(&mut site, 1_000)?;
    site.settle()
}

/// Eight nodes, all linked; one writes once.
fn mesh() -> Outcome {
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

/// n1 has an older version; the newer one, which expires, never reached it.
fn expiry() -> Outcome {
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

/// Two nodes write a lot at once with windows of one row.
fn windows() -> Outcome {
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
fn failing_card() -> Outcome {
    let mut site = site(plan(3));
    wait(&mut site, 1_500)?;
    site.hosts[1].faulty_until = site.time + 3_000;
    for key in 0..30 {
        wait(&mut site, 60)?;
        site.put(key % 3, &format!("k{}", key % 7))?;
    }
    site.settle()
}

/// n2 is retired while it is away, and comes back.
fn returns() -> Outcome {
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
fn lost_row() -> Outcome {
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

macro_rules! stories {
    ($($name:ident => $story:ident),* $(,)?) => {
        $(#[test] fn $name() { if let Err(why) = $story() { panic!("{why}") } })*
    };
}
stories! {
    a_cut_between_batches_leaves_no_hole_when_the_sender_dies => hole,
    a_deleted_document_stays_deleted_for_a_member_that_comes_late => late_member,
    a_member_that_somebody_did_not_know_is_a_newcomer => unknown_member,
    two_filled_nodes_that_were_alone_become_one => two_filled,
    two_islands_with_a_node_between_them_become_one => islands,
    a_write_that_was_sent_and_not_confirmed_does_not_beat_its_delete => sent,
    a_card_that_was_rolled_back_takes_a_new_identity => rolled_back,
    two_cards_cloned_from_one_part => cloned,
    what_is_answered_survives_the_power_cut_at_that_instant => power_cut,
    four_boxes_at_their_build_date_follow_the_one_that_knows_the_time => votes,
    a_stamp_from_the_far_future_freezes_no_key => far_future,
    more_members_than_links_never_split => few_links,
    a_visitor_is_not_tracked => visitor,
    one_write_does_not_cross_a_mesh_many_times => mesh,
    an_expired_document_does_not_uncover_an_older_one => expiry,
    small_windows_in_both_directions_do_not_stall => windows,
    a_failing_card_confirms_nothing_that_is_not_on_it => failing_card,
    an_untracked_node_that_returns_is_a_member_again => returns,
    a_row_that_a_card_lost_in_silence_comes_back_from_a_peer => lost_row,
}
