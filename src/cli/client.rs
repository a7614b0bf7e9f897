//! The commands that talk to a running node through its HTTP API.
//!
//! What was typed is parsed elsewhere; here is what it does. Results go to stdout, progress and failures to stderr.

use super::api::Api;
use super::{documents, export, import, tables};
use crate::error::Error;
use smol::LocalExecutor;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::string::String;
use std::time::Duration;

/// Where the node is and how to talk to it.
#[derive(Debug, Clone)]
pub(crate) struct ClientOptions {
    /// Its API.
    pub address: ApiAddress,
    /// Its token, where it asks for one.
    pub token: Option<String>,
    /// JSON instead of tables.
    pub json: bool,
    /// For one answer.
    pub timeout: Duration,
}

/// Longest wait for one answer: above the node's own bound for a request, so that its error comes first.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Where an API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApiAddress {
    /// `host:port`; names are resolved when connecting.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ApiAddress {
    /// Reads `host:port`, `http://host:port`, `host` (with the default port), `unix:PATH` or an absolute path.
    ///
    /// # Errors
    /// A configuration error that says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<ApiAddress, Error> {
        let wrong = || Error::configuration(std::format!("{text:?} is not an API address: HOST:PORT or unix:PATH"));
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
            return if path.is_empty() { Err(wrong()) } else { Ok(ApiAddress::Unix(path.into())) };
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Ok(address) = rest.parse::<SocketAddr>() {
            return Ok(ApiAddress::Tcp(std::format!("{}", reachable(address))));
        }
        let (host, port) = rest.split_once(':').unwrap_or((rest, "5080"));
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let port_is_one = port.parse::<u16>().is_ok_and(|port| port > 0);
        if host.is_empty() || !host.chars().all(legal) || !port_is_one {
            return Err(wrong());
        }
        Ok(ApiAddress::Tcp(std::format!("{host}:{port}")))
    }
}

/// An address to listen on is not always one to connect to: `0.0.0.0` means this machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        };
        address.set_ip(loopback);
    }
    address
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClientCommand {
    /// `put COLLECTION KEY JSON`
    Put {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
        /// The document; `-` reads it from stdin.
        json: String,
    },
    /// `get COLLECTION KEY`
    Get {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
    },
    /// `delete COLLECTION KEY`
    Delete {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
    },
    /// `list COLLECTION [--prefix P] [--after KEY] [--limit N]`
    List {
        /// The collection.
        collection: String,
        /// Only keys that start so.
        prefix: Option<String>,
        /// Only keys beyond this one.
        after: Option<String>,
        /// At most so many documents; all without.
        limit: Option<u64>,
    },
    /// `import COLLECTION FILE [--key FIELD]`
    Import {
        /// The collection.
        collection: String,
        /// NDJSON or CSV; `-` is stdin.
        file: PathBuf,
        /// The field that is the key.
        key: Option<String>,
    },
    /// `export COLLECTION`
    Export {
        /// The collection.
        collection: String,
    },
    /// `status`
    Status,
    /// `peers`
    Peers,
    /// `health`
    Health,
}

/// Runs one command to its end and says the exit code: 0 done, 1 failed in part; `health` has its own.
///
/// # Errors
/// What failed, with the next step. The caller prints it and exits with 1.
pub(crate) fn run(command: ClientCommand, options: &ClientOptions) -> Result<u8, Error> {
    let executor = Rc::new(LocalExecutor::new());
    let api = Api::new(options, executor.clone());
    let json = options.json;
    smol::block_on(executor.run(async {
        match command {
            ClientCommand::Put { collection, key, json } => documents::put(&api, &collection, &key, &json).await,
            ClientCommand::Get { collection, key } => documents::get(&api, &collection, &key).await,
            ClientCommand::Delete { collection, key } => documents::delete(&api, &collection, &key).await,
            ClientCommand::List { collection, prefix, after, limit } => {
                let wanted = documents::Wanted { collection, prefix, after, limit };
                documents::list(&api, &wanted, json).await
            }
            ClientCommand::Import { collection, file, key } => {
                import::run(&api, &collection, &file, key.as_deref(), json).await
            }
            ClientCommand::Export { collection } => export::run(&api, &collection).await,
            ClientCommand::Status => tables::status(&api, json).await,
            ClientCommand::Peers => tables::peers(&api, json).await,
            ClientCommand::Health => tables::health(&api, json).await,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_api_address_is_a_host_with_a_port_or_a_socket() {
        let tcp = |text: &str| ApiAddress::parse(text).unwrap();
        assert_eq!(tcp("127.0.0.1:5080"), ApiAddress::Tcp("127.0.0.1:5080".to_string()));
        assert_eq!(tcp("http://gw7.example:81/"), ApiAddress::Tcp("gw7.example:81".to_string()));
        assert_eq!(tcp("gw7"), ApiAddress::Tcp("gw7:5080".to_string()));
        assert_eq!(tcp("[::1]:5080"), ApiAddress::Tcp("[::1]:5080".to_string()));
        assert_eq!(tcp("0.0.0.0:5080"), ApiAddress::Tcp("127.0.0.1:5080".to_string()));
        assert_eq!(tcp("unix:run/api.sock"), ApiAddress::Unix("run/api.sock".into()));
        assert_eq!(tcp("/run/cbddc.sock"), ApiAddress::Unix("/run/cbddc.sock".into()));
        for wrong in ["", "host:", "host:0", "host:70000", ":5080", "https://host:1", "a b", "unix:"] {
            assert!(ApiAddress::parse(wrong).is_err(), "{wrong}");
        }
    }
}
