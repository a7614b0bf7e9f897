//! The start of a node: keys, database, sockets, in the order in which each can fail with the clearest message.

use super::offline::Offline;
use super::parts::Parts;
use super::shell::{Addresses, Identity, Made, Shell};
use crate::cache::DocumentCache;
use crate::config::{ClusterConfig, Config, default_node_id};
use crate::error::Error;
use crate::log::{critical, info, warn};
use crate::net::Beacons;
use crate::net::http::{self, Bodies, HttpOptions, Surface};
use crate::net::{PortSetting, listen};
use crate::proto::{Engine, Input, Now, Settings};
use crate::queue::OfflineQueue;
use crate::retry::RetryPolicy;
use crate::secure::{ClusterKey, DeviceKey};
use crate::store::{Options, Recovery, Store, lend_reserve};
use crate::time::Millis;
use crate::wire::BeaconKey;
use crate::{clock, key, limits};
use smol::LocalExecutor;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;

/// When this release was made, milliseconds since 1970: no clock is believed to stand before it.
const RELEASE_MILLIS: Millis = 1_795_392_000_000;
/// Youngest tombstone that is dropped once all members have it.
const TOMBSTONE_MIN_AGE: Millis = 86_400_000;
/// Between two slices of expiry and of dropping tombstones.
const MAINTAIN_INTERVAL: Millis = 1_000;

pub(super) async fn start(
    executor: Rc<LocalExecutor<'static>>,
    mut config: Config,
    parts: Parts,
) -> Result<Rc<Shell>, Error> {
    parts.prevail(&mut config);
    let cluster_key = cluster_key(&config.cluster)?;
    let device_key = DeviceKey::from_private(key::load_or_create_device_key(&config.device_key_file())?);
    let device = device_key.device_id();
    let node_id = match config.cluster.node_id.clone().or_else(|| default_node_id(&device)) {
        Some(node_id) => node_id,
        None => return Err(Error::configuration("CBDDC.Cluster.NodeId: the host's name gives none, set one")),
    };
    let token = api_token(&config)?;
    let mut random = random_numbers()?;

    let persistence = &config.persistence;
    let budget = &config.board.budget;
    let options = Options {
        wal: persistence.wal,
        commit_delay_ms: persistence.commit_delay_ms,
        page_cache_bytes: budget.sqlite_page_cache_kib as usize * 1024,
        heap_limit_bytes: Some(budget.sqlite_heap_kib as usize * 1024),
        max_database_bytes: persistence.max_database_mib.map(|mib| mib * 1024 * 1024),
        min_free_bytes: persistence.min_free_mib * 1024 * 1024,
        recovery: persistence
            .auto_recover
            .then(|| Recovery { backups: persistence.backup_path.clone(), peers: !config.cluster.peers.is_empty() }),
        ..Options::new(persistence.database_path.clone())
    };
    lend_reserve(&options.path);
    let opening = Store::open(options, &mut random);
    if let Err(error @ Error::DatabaseCorruption { .. }) = &opening {
        critical!("the database cannot be used cause=\"{}\"", error.to_string());
    }
    let (store, opened) = opening?;
    // Nothing of it is given to anybody, and nothing taken: it is left as it is for a person.
    let alone = opened.read_only.is_some();
    if let Some(why) = &opened.read_only {
        critical!("the database is damaged and only read cause=\"{}\"", why);
    }
    if opened.restored {
        warn!(
            "the database is a restored backup, it has a new identity replica={}",
            opened.knowledge.replica.to_string()
        );
    }
    info!(
        "database opened path={} replica={} created={}",
        opened.path.display(),
        opened.knowledge.replica.to_string(),
        opened.created
    );

    let links = listen(config.network.listen_address, config.network.tcp_port, PortSetting::Tcp).await?;
    let beacons = match config.network.discovery {
        true => Some(Beacons::bind(config.network.udp_port, config.network.broadcast_addresses.clone()).await?),
        false => None,
    };
    let settings = Settings {
        node_id: node_id.clone(),
        device,
        instance: random(),
        visitor: config.cluster.visitor,
        tcp_port: links.address().port(),
        keys: Vec::from([BeaconKey::derive(&cluster_key)]),
        discovery: config.network.discovery && !alone,
        beacon_interval: config.network.beacon_interval_ms,
        fixed_peers: if alone { 0 } else { config.cluster.peers.len() },
        retry: RetryPolicy::new(config.network.retry_attempts, config.network.retry_delay_ms),
        links_max: (budget.links as usize).min(limits::LINKS_MAX),
        window_bytes: limits::WINDOW_BYTES,
        tombstone_min_age: TOMBSTONE_MIN_AGE,
        tombstone_keep: config.sync.tombstone_keep_ms,
        maintain_interval: MAINTAIN_INTERVAL,
        build_millis: RELEASE_MILLIS,
        seed: random(),
    };
    let now = Now { mono: clock::monotonic_ms(), wall: clock::wall_ms(), synchronised: clock::synchronised() };
    let database_path = opened.path.clone();
    let (queue_size, queue_bytes) = (config.sync.max_queue_size as usize, budget.queue_kib as usize * 1024);
    let mut queue = parts.queue.unwrap_or_else(|| OfflineQueue::new(queue_size, queue_bytes));
    let handed_over = queue.take();
    let offline = Offline::open(&database_path, config.sync.offline_queue, queue);
    let cache_bytes = config.persistence.cache_mib as usize * 1024 * 1024;
    let cache = parts.cache.unwrap_or_else(|| DocumentCache::new(cache_bytes));
    let engine = Engine::new(now, settings, opened.knowledge, opened.members);

    let http = http_listeners(&config).await?;
    let addresses = Addresses { links: links.address(), http: Cell::new(None) };
    let identity = Identity {
        node_id: RefCell::new(node_id),
        device: Cell::new(device),
        device_key: RefCell::new(device_key),
        cluster_keys: RefCell::new(Vec::from([ClusterKey::new(cluster_key)])),
    };
    let backups = opened.backups;
    let shell = Shell::new(Made {
        executor,
        config,
        identity,
        addresses,
        store,
        database_path,
        engine,
        beacons,
        offline,
        cache,
        tracker: parts.tracker,
        backups,
    });
    shell.take_over(handed_over);
    let options = http_options(&shell, token);
    for (listener, surface) in http {
        serve_http(&shell, listener, HttpOptions { surface, counters: Rc::default(), ..options.clone() });
    }
    info!(
        "node started node={} device={} links={} beacons={}",
        shell.node_id().as_str(),
        device.to_string(),
        shell.addresses.links,
        shell.beacons.as_ref().map_or(0, Beacons::port)
    );
    if !now.synchronised {
        info!(
            "the wall clock is not synchronised and not believed, time goes on from the last stamp until a peer knows better"
        );
    }
    if !alone {
        shell.spawn(shell.clone().accept_forever(links));
    }
    shell.alone.set(alone);
    shell.store_health.read_only(opened.read_only);
    *shell.incident.borrow_mut() = shell.store.incident().await;
    shell.spawn(shell.clone().hear_forever());
    shell.spawn(shell.clone().watch_key_file());
    shell.spawn(shell.clone().watch_health());
    shell.spawn(shell.clone().hear_of_damage());
    shell.spawn(shell.clone().leave_all_alone());
    shell.spawn(shell.clone().sweep_log());
    shell.spawn(shell.clone().scrub_forever(random()));
    shell.spawn(shell.clone().back_up_forever());
    // Everything that the engine wants at its start is done before its first input.
    shell.feed(Input::Tick);
    Ok(shell)
}

/// The key of the key file. Where there is none yet, it is made of what the service manager handed over, else a new one.
fn cluster_key(cluster: &ClusterConfig) -> Result<key::KeyBytes, Error> {
    let file = &cluster.key_file;
    let Some(credential) = &cluster.key_credential else { return key::load_or_create_cluster_key(file) };
    let given = key::load_cluster_key(credential)?;
    let taken = key::load_or_adopt_cluster_key(file, &given)?;
    if taken != given {
        // As after `cbddc key set`: what was changed here last must not be undone by a start.
        warn!(
            "the key that the service manager hands over is not the one of the key file, which is in force file={}",
            file.display()
        );
    }
    Ok(taken)
}

/// The operating system's generator. It is asked once here, so that a machine without one is told at the start.
fn random_numbers() -> Result<impl FnMut() -> u64, Error> {
    getrandom::u64().map_err(|cause| {
        Error::persistence(std::format!("the operating system gives no random numbers: {cause}"), None)
    })?;
    Ok(|| getrandom::u64().expect("the generator worked at the start of this node"))
}

async fn http_listeners(config: &Config) -> Result<Vec<(http::Listener, Surface)>, Error> {
    let mut listeners = Vec::new();
    if let Some(address) = config.api.http_address {
        listeners.push((http::Listener::tcp(address, PortSetting::Http).await?, Surface::Full));
    }
    if let Some(path) = &config.api.unix_socket {
        listeners.push((http::Listener::unix(path, "CBDDC.Api.UnixSocket").await?, Surface::Full));
    }
    if let Some(address) = config.api.health_address {
        listeners.push((http::Listener::tcp(address, PortSetting::Health).await?, Surface::HealthOnly));
    }
    Ok(listeners)
}

/// The token that the API asks for, where one is configured.
fn api_token(config: &Config) -> Result<Option<String>, Error> {
    let Some(path) = config.api.token_file.as_deref() else { return Ok(None) };
    let token = key::load_token("CBDDC.Api.TokenFile", path)?;
    if token.is_open_to_all {
        warn!(
            "every user of this machine can read the token of the API, 'chmod 600 {}' changes that path={}",
            path.display(),
            path.display()
        );
    }
    Ok(Some(token.word))
}

/// What all listeners have in common: bodies have a sixteenth of the board's memory, out of its share for frames, and places
/// are fewer where memory is little.
fn http_options(shell: &Shell, token: Option<String>) -> HttpOptions {
    let budget = &shell.config.board.budget;
    HttpOptions {
        token,
        host_names: host_names(&shell.node_id().to_string(), &shell.config.api.host_names),
        bodies: Bodies::new((budget.ram_mib as usize * 1024 * 1024 / 16).min(8 * 1024 * 1024)),
        connections_max: (budget.ram_mib as usize).clamp(16, 64),
        ..HttpOptions::default()
    }
}

/// Names under which requests may ask for this node: its own, alone and as the networks of houses and plants complete them,
/// and what was configured. The endings are of zones that nobody can register, so that no foreign page has such a name.
fn host_names(node_id: &str, configured: &[String]) -> Vec<String> {
    const ENDINGS: [&str; 5] = ["", ".local", ".lan", ".internal", ".home.arpa"];
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let own = [node_id, &host, host.split('.').next().unwrap_or(&host)];
    let own = own.iter().flat_map(|name| ENDINGS.map(|ending| std::format!("{name}{ending}")));
    let configured = configured.iter().map(|name| name.trim_end_matches('.').to_string());
    own.chain(configured).collect()
}

fn serve_http(shell: &Rc<Shell>, listener: http::Listener, options: HttpOptions) {
    let surface = options.surface;
    shell.http_counters.borrow_mut().push(options.counters.clone());
    if let Some(address) = listener.local_addr() {
        info!("http listening address={} surface={:?}", address, surface);
        if surface == Surface::Full {
            shell.addresses.http.set(Some(address));
        }
    }
    let stopped = shell.stopping.clone();
    let stopped = async move {
        // An error says that the channel is closed, which is the only thing that is ever said.
        let _ = stopped.recv().await;
    };
    let serving = http::serve(listener, Rc::new(super::Service(shell.clone())), options, stopped);
    let (done, ended) = async_channel::bounded(1);
    shell.http_ended.borrow_mut().push(ended);
    let task = async move {
        serving.await;
        drop::<async_channel::Sender<()>>(done);
    };
    shell.executor.spawn(task).detach();
}

impl Shell {
    async fn hear_forever(self: Rc<Self>) {
        let Some(beacons) = &self.beacons else { return };
        let mut ear = beacons.sender();
        loop {
            // An error is a value here; the next call waits a moment.
            if let Ok((bytes, from)) = ear.recv().await {
                let bytes = Vec::from(bytes);
                if self.alone.get() {
                    continue;
                }
                self.feed(Input::Datagram { from, bytes });
            }
        }
    }
}
