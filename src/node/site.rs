//! The whole site as one node sees it: what this node says of itself, and what the others have said.

use super::shell::Shell;
use super::waiters::Patience;
use crate::clock;
use crate::id::DeviceId;
use crate::proto::{Input, LinkId, PeerView, SiteView, Standing};
use crate::report::{HealthStatus, MemberStatus, Said, SiteReport, Timestamp};
use crate::wire::{ClockSample, MemberReport};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::string::ToString;
use std::time::Duration;
use std::vec::Vec;

impl Shell {
    /// What this node says of itself to others.
    async fn own_report(&self) -> MemberReport {
        let health = self.health().await.status;
        let sizes = self.store.sizes().await.unwrap_or_default();
        let now = self.now();
        let engine = self.engine.borrow();
        let (knowledge, reading) = (engine.knowledge(), engine.reading(now));
        let peers: Vec<PeerView> = engine.peers(now).into_iter().filter(|peer| peer.tracked).collect();
        let threshold = self.in_force.borrow().cluster.lag_threshold_ms;
        let count = |which: &dyn Fn(&PeerView) -> bool| peers.iter().filter(|peer| which(peer)).count() as u32;
        MemberReport {
            device: self.identity.device.get(),
            node_id: self.node_id(),
            release: env!("CARGO_PKG_VERSION").to_string(),
            replica: knowledge.replica,
            health: match health {
                HealthStatus::Healthy => 0,
                HealthStatus::Degraded => 1,
                HealthStatus::Unhealthy => 2,
            },
            clock: ClockSample { millis: reading.millis, synchronised: now.synchronised },
            uptime_ms: now.mono.saturating_sub(self.started_at),
            free_bytes: sizes.free_bytes,
            database_bytes: sizes.database_bytes,
            tracked: peers.len() as u32,
            linked: count(&PeerView::is_linked),
            lagging: count(&|peer| peer.lag_ms > threshold),
            lag_ms: peers.iter().map(|peer| peer.lag_ms).max().unwrap_or(0),
            queued: self.queue_status().length,
            recovered: knowledge.recovered,
        }
    }

    /// A peer wants to know, or is told unasked.
    pub(super) fn report_to(self: &Rc<Self>, link: LinkId, nonce: u64) {
        let shell = self.clone();
        self.spawn(async move {
            let report = shell.own_report().await;
            shell.feed(Input::Report { to: link, nonce, report });
        });
    }

    /// Asks every member, and waits until all have answered, at most so long.
    pub(crate) async fn site(self: &Rc<Self>, wait: Duration) -> SiteReport {
        let asked_at = self.now().mono;
        self.feed(Input::AskSite);
        let mut patience = Patience::new(wait, self.stopping.clone());
        loop {
            let news = self.site_news.next();
            if self.all_have_answered(asked_at) || !patience.lasts_until(news.recv()).await {
                break;
            }
        }
        self.site_report(asked_at).await
    }

    fn members_of_site(&self) -> Vec<PeerView> {
        let gone = |peer: &PeerView| matches!(peer.standing, Some(Standing::Replaced | Standing::Revoked));
        let peers = self.engine.borrow().peers(self.now());
        peers.into_iter().filter(|peer| peer.tracked && !gone(peer)).collect()
    }

    fn all_have_answered(&self, asked_at: u64) -> bool {
        let said = self.engine.borrow().site(self.now());
        let age = self.now().mono.saturating_sub(asked_at);
        self.members_of_site().iter().all(|peer| said.get(&peer.device).is_some_and(|view| view.age_ms <= age))
    }

    async fn site_report(&self, asked_at: u64) -> SiteReport {
        let own = self.own_report().await;
        let said = self.engine.borrow().site(self.now());
        let age = clock::monotonic_ms().saturating_sub(asked_at);
        let mut others: Vec<MemberStatus> =
            self.members_of_site().iter().map(|peer| member(peer, &said, age)).collect();
        others.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        let myself = MemberStatus {
            node_id: own.node_id.to_string(),
            state: "self".to_string(),
            said: Some(shown(&SiteView { report: own, age_ms: 0, clock_offset_ms: 0 })),
            ..MemberStatus::default()
        };
        SiteReport { members: core::iter::once(myself).chain(others).collect() }
    }
}

fn member(peer: &PeerView, said: &BTreeMap<DeviceId, SiteView>, since_asked: u64) -> MemberStatus {
    let view = said.get(&peer.device);
    let state = match view {
        _ if peer.is_linked() => "linked",
        Some(view) if view.age_ms <= since_asked => "relayed",
        _ => "silent",
    };
    MemberStatus {
        node_id: peer.node_id.to_string(),
        state: state.to_string(),
        lag_ms: peer.lag_ms,
        unconfirmed_changes: peer.unconfirmed_changes,
        said: view.map(shown),
    }
}

fn shown(view: &SiteView) -> Said {
    let report = &view.report;
    Said {
        age_ms: view.age_ms,
        health: match report.health {
            0 => HealthStatus::Healthy,
            1 => HealthStatus::Degraded,
            _ => HealthStatus::Unhealthy,
        },
        version: report.release.clone(),
        replica_id: report.replica.to_string(),
        clock: Some(Timestamp(report.clock.millis)),
        clock_offset_ms: view.clock_offset_ms,
        clock_synchronised: report.clock.synchronised,
        uptime_ms: report.uptime_ms,
        free_bytes: report.free_bytes,
        database_bytes: report.database_bytes,
        tracked_peers: u64::from(report.tracked),
        linked_peers: u64::from(report.linked),
        lagging_peers: u64::from(report.lagging),
        max_lag_ms: report.lag_ms,
        queued: report.queued,
        recovered: report.recovered,
    }
}
