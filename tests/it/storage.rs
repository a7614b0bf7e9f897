//! A store in a process of its own, under a disk that is watched or slow.

use crate::probe::{Probe, events};
use crate::program::{self, seconds};
use cbddc::replica::{Precondition, Request, Write};
use cbddc::row::{Body, RowKey, Scope};
use cbddc::store::{Options, Store};
use cbddc::time::Reading;
use std::path::{Path, PathBuf};

/// Set in the child: the folder of its database.
const CHILD: &str = "CBDDC_TEST_CHILD_FOLDER";
const NOW: Reading = Reading { millis: 1_700_000_000_000, believed: true };

/// Runs one test of this binary again, in a child with the probe.
fn child(test: &str, name: &str, probe: &Probe) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("it").join(name);
    std::fs::remove_dir_all(&folder).ok();
    std::fs::create_dir_all(&folder).unwrap();
    let probe = probe.clone().log(folder.join("events"));
    let ran = program::again()
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, &folder)
        .envs(probe.environment())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    folder
}

fn open(folder: &Path, wal: bool) -> Store {
    let mut random = fastrand::Rng::with_seed(1);
    let options = Options { wal, min_free_bytes: 0, ..Options::new(folder.join("cbddc.db")) };
    Store::open(options, &mut || random.u64(..)).unwrap().0
}
fn put(key: &str) -> Request {
    let body = Body::Live(b"{}".to_vec());
    let write = Write { key: RowKey::replicated("c", key), body, expires_at: None, precondition: Precondition::None };
    Request::Write { writes: vec![write], sending: false }
}

#[test]
fn every_answer_comes_after_a_sync_of_the_log() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else {
        for wal in [true, false] {
            let name = if wal { "answers" } else { "answers-journal" };
            let folder = child("storage::every_answer_comes_after_a_sync_of_the_log", name, &Probe::default());
            assert!(folder.join("cbddc.db").exists());
        }
        return;
    };
    let wal = !folder.ends_with("answers-journal");
    let store = open(&folder, wal);
    let log = folder.join("events");
    let syncs =
        |suffix: &str| events(&log).iter().filter(|(event, path)| event == "sync" && path.ends_with(suffix)).count();
    let file = if wal { "cbddc.db-wal" } else { "cbddc.db" };
    for n in 0..20 {
        let before = syncs(file);
        smol::block_on(store.submit(NOW, put(&n.to_string()))).unwrap();
        assert!(syncs(file) > before, "answer {n} came without a sync of {file}");
    }
    smol::block_on(store.close()).unwrap();
}

#[test]
fn after_a_failed_sync_nothing_is_answered_until_the_database_was_opened_anew() {
    let fail = Path::new(env!("CARGO_TARGET_TMPDIR")).join("it-failing-disk");
    std::fs::remove_file(&fail).ok();
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let test = "storage::after_a_failed_sync_nothing_is_answered_until_the_database_was_opened_anew";
        child(test, "failing", &Probe::default().fail(&fail));
        return;
    };
    let store = open(&folder, true);
    let submit = |key: &str| smol::block_on(store.submit(NOW, put(key)));
    let get = |key: &str| smol::block_on(store.get(Scope::Replicated, "c", key, NOW.millis));
    let (_, before) = submit("before").unwrap();

    std::fs::write(&fail, "").unwrap();
    let several: Vec<_> = ["a", "b", "c"].map(|key| (key, store.submit(NOW, put(key)))).into_iter().collect();
    for (key, answer) in several {
        let error = smol::block_on(answer).unwrap_err().to_string();
        // The first that meets the failure cannot know; those behind it find the disk still failing.
        assert!(error.contains("the outcome is unknown") || error.contains("nothing was changed"), "{key}: {error}");
    }
    assert!(submit("still").unwrap_err().to_string().contains("nothing was changed"));

    std::fs::remove_file(&fail).unwrap();
    let (_, after) = submit("after").unwrap();
    assert!(after.seq > before.seq);
    assert!(get("before").unwrap().is_some() && get("after").unwrap().is_some());
    assert!(get("still").unwrap().is_none(), "it was told that nothing was changed");
    smol::block_on(store.close()).unwrap();
    let store = open(&folder, true);
    assert!(smol::block_on(store.get(Scope::Replicated, "c", "after", NOW.millis)).unwrap().is_some());
    smol::block_on(store.close()).unwrap();
}

#[test]
fn reads_are_answered_while_a_commit_waits_for_the_disk() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let probe = Probe::default().delay_ms(seconds(1).as_millis() as u64 / 2);
        child("storage::reads_are_answered_while_a_commit_waits_for_the_disk", "slow", &probe);
        return;
    };
    let store = open(&folder, true);
    smol::block_on(async {
        store.submit(NOW, put("first")).await.unwrap();
        let mut second = Box::pin(store.submit(NOW, put("second")));
        assert!(smol::future::poll_once(&mut second).await.is_none());
        for _ in 0..200 {
            assert!(store.get(Scope::Replicated, "c", "first", NOW.millis).await.unwrap().is_some());
        }
        assert!(smol::future::poll_once(&mut second).await.is_none(), "two hundred reads took longer than one sync");
        second.await.unwrap();
        assert!(store.get(Scope::Replicated, "c", "second", NOW.millis).await.unwrap().is_some());
        store.close().await.unwrap();
    });
}
