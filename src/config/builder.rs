//! Configuration by a program: everything that a file can say, as chained setters.
//!
//! Reads no file and no environment; a program that wants the user's file starts from [`Config::load`] or hands the
//! text over with [`Builder::file`].

use super::meaning::mean;
use super::written::Layer;
use super::{Config, LogLevel, Origin};
use crate::Error;
use crate::board::{Board, Machine};
use serde_json::Value;
use std::format;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// Gathers values; [`Builder::build`] says what they mean. A setter never fails: the first wrong value comes out of
/// `build`.
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    program: Layer,
    file: Option<(Layer, PathBuf)>,
    environment: Layer,
    board: Option<Board>,
    device_model: Option<String>,
    memory_mib: Option<u64>,
    base: PathBuf,
    wrong: Option<Error>,
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder::default()
    }

    /// Sets any key: `set("Network.TcpPort", 5001)`, `set("Collections.scratch.Scope", "local")`. Over everything else.
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Builder {
        let set = self.program.set(key, &value.into(), &Origin::Program);
        self.note(set);
        self
    }
    /// The text of an `appsettings.json`; `path` is what errors and [`Config::settings`] call it.
    pub fn file(mut self, text: &str, path: impl Into<PathBuf>) -> Builder {
        let path = path.into();
        let layer = Layer::from_file(text, &Origin::File(path.clone()));
        if let Some(layer) = self.note(layer) {
            self.file = Some((layer, path));
        }
        self
    }
    /// Variables `CBDDC__Section__Key`; all others are ignored.
    pub fn environment(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Builder {
        let layer = Layer::from_environment(pairs);
        if let Some(layer) = self.note(layer) {
            self.environment = layer;
        }
        self
    }
    /// The text of a board file, in place of the boards that are built in.
    pub fn board_file(mut self, text: &str) -> Builder {
        let board = Board::parse(text);
        self.board = self.note(board);
        self
    }
    /// The device-tree model, which chooses the board where `Board` is not set.
    pub fn device_model(mut self, model: impl Into<String>) -> Builder {
        self.device_model = Some(model.into());
        self
    }
    /// The memory of the machine in MiB, which chooses the board where no model does.
    pub fn memory_mib(mut self, memory_mib: u64) -> Builder {
        self.memory_mib = Some(memory_mib);
        self
    }
    /// What relative paths are relative to. Default: the working directory.
    pub fn base_directory(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.base = directory.into();
        self
    }
    /// One folder for everything: the database, both keys, and `backups` in it.
    pub fn data_directory(self, directory: impl AsRef<Path>) -> Builder {
        let directory = directory.as_ref();
        self.path("Persistence.DatabasePath", &directory.join("cbddc.db"))
            .path("Cluster.KeyFile", &directory.join("cluster.key"))
            .path("Persistence.BackupPath", &directory.join("backups"))
    }

    /// `Cluster.NodeId`.
    pub fn node_id(self, name: &str) -> Builder {
        self.set("Cluster.NodeId", name)
    }
    /// `Cluster.KeyFile`.
    pub fn key_file(self, path: impl AsRef<Path>) -> Builder {
        self.path("Cluster.KeyFile", path.as_ref())
    }
    /// `Cluster.Peers`, `host:port` each.
    pub fn peers<T: Into<String>>(self, peers: impl IntoIterator<Item = T>) -> Builder {
        let peers: Vec<Value> = peers.into_iter().map(|peer| Value::from(peer.into())).collect();
        self.set("Cluster.Peers", peers)
    }
    /// `Cluster.PeerConfirmationLagThresholdMs` and `Cluster.PeerConfirmationCriticalLagThresholdMs`.
    pub fn lag_thresholds_ms(self, lag: u64, critical: u64) -> Builder {
        self.set("Cluster.PeerConfirmationLagThresholdMs", lag)
            .set("Cluster.PeerConfirmationCriticalLagThresholdMs", critical)
    }
    /// `Network.TcpPort`; 0 is any free port.
    pub fn tcp_port(self, port: u16) -> Builder {
        self.set("Network.TcpPort", port)
    }
    /// `Network.UdpPort`; 0 is any free port.
    pub fn udp_port(self, port: u16) -> Builder {
        self.set("Network.UdpPort", port)
    }
    /// `Network.ListenAddress`.
    pub fn listen_address(self, address: IpAddr) -> Builder {
        self.set("Network.ListenAddress", address.to_string())
    }
    /// `Network.EnableDiscovery`.
    pub fn discovery(self, enabled: bool) -> Builder {
        self.set("Network.EnableDiscovery", enabled)
    }
    /// `Api.HttpAddress`; `None` is no HTTP.
    pub fn http_address(self, address: Option<SocketAddr>) -> Builder {
        self.set("Api.HttpAddress", address.map(|address| address.to_string()))
    }
    /// `Persistence.DatabasePath`.
    pub fn database_path(self, path: impl AsRef<Path>) -> Builder {
        self.path("Persistence.DatabasePath", path.as_ref())
    }
    /// `Logging.Level`.
    pub fn log_level(self, level: LogLevel) -> Builder {
        self.set("Logging.Level", level.name())
    }

    /// What it all means.
    ///
    /// # Errors
    /// [`Error::Configuration`] with the first wrong key and what is allowed.
    pub fn build(self) -> Result<Config, Error> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let (file, path) = self.file.unzip();
        let upper = [file.unwrap_or_default(), self.environment, self.program];
        let named =
            upper.iter().rev().find_map(|layer| layer.settings.get("Board")).and_then(|name| name.value.as_str());
        let board = match (self.board, named) {
            (Some(board), _) => board,
            (None, Some(name)) => {
                Board::named(name)?.ok_or_else(|| Error::configuration(format!("CBDDC.Board: no board {name}")))?
            }
            (None, None) => Board::for_machine(&Machine {
                model: self.device_model.as_deref(),
                memory_mib: self.memory_mib,
                architecture: std::env::consts::ARCH,
            })?,
        };
        let [file, environment, program] = upper;
        let layers = [Layer::from_board(&board)?, file, environment, program];
        mean(board, &layers, &self.base, path)
    }

    fn path(self, key: &str, path: &Path) -> Builder {
        match path.to_str() {
            Some(text) => self.set(key, text),
            None => {
                let mut this = self;
                let shown = path.display();
                this.note::<()>(Err(Error::configuration(format!("CBDDC.{key}: {shown} is not UTF-8; rename it"))));
                this
            }
        }
    }

    /// Keeps the first error.
    fn note<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong.get_or_insert(error);
                None
            }
        }
    }
}
