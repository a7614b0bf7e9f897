//! The node that client commands talk to: its address and the token that it asks for.
//!
//! Opens no connection.

use super::args::Options;
use crate::Error;
use crate::config::Config;
use crate::key::load_token;
use std::env;
use std::ffi::OsString;
use std::format;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};

/// An address and a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Where the API is.
    pub(super) address: Address,
    /// The bearer token, without white space around it.
    pub(super) token: Option<String>,
}

/// Where an API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// `host:port`.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Target {
    /// From the options, else the environment (`CBDDC_API`, and `CBDDC_TOKEN` with the token itself), else the
    /// configuration that is found.
    ///
    /// # Errors
    /// [`Error::Configuration`] where none of them says, or what is needed of the configuration is wrong.
    pub(super) fn of(options: &Options) -> Result<Target, Error> {
        Target::from(options, env::var_os("CBDDC_API"), env::var_os("CBDDC_TOKEN"))
    }

    fn from(options: &Options, api: Option<OsString>, token: Option<OsString>) -> Result<Target, Error> {
        let text = |variable: Option<OsString>, name: &str| {
            let variable = variable.filter(|value| !value.is_empty());
            let text = variable.map(OsString::into_string).transpose();
            text.map_err(|_| Error::configuration(format!("{name}: the value is not UTF-8")))
        };
        let named = match &options.api {
            Some(api) => Some(("--api", api.clone())),
            None => text(api, "CBDDC_API")?.map(|api| ("CBDDC_API", api)),
        };
        let token = match &options.token_file {
            Some(file) => Some(read_token(file)?),
            None => text(token, "CBDDC_TOKEN")?,
        };
        // Whoever says where the node is needs no configuration that can be read; a token may still stand there.
        let config = match (Config::load(options.config.as_deref()), &named) {
            (Ok(config), _) => Some(config),
            (Err(_), Some(_)) if options.config.is_none() => None,
            (Err(error), _) => return Err(error),
        };
        let address = match (named, &config) {
            (Some((who, api)), _) => parse(who, &api)?,
            (None, Some(config)) => configured(config)?,
            (None, None) => return Err(Error::configuration("no node is configured; name one with --api")),
        };
        let token = match (token, config.and_then(|config| config.api.token_file)) {
            (Some(token), _) => Some(token.trim().to_string()),
            // The configured token is for the configured node's own users: others may be unable to read it and are
            // told so by the node.
            (None, Some(file)) => read_token(&file).ok(),
            (None, None) => None,
        };
        Ok(Target { address, token })
    }
}

fn parse(who: &str, api: &str) -> Result<Address, Error> {
    if let Some(path) = api.strip_prefix("unix:").filter(|path| !path.is_empty()) {
        return Ok(Address::Unix(path.into()));
    }
    let bare = api.strip_prefix("http://").unwrap_or(api).trim_end_matches('/');
    let port =
        bare.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(port) if port > 0 => Ok(Address::Tcp(bare.to_string())),
        _ => Err(Error::configuration(format!(
            "{who}: {} is not an address like 127.0.0.1:5080 or unix:/run/cbddc.sock",
            api.escape_debug()
        ))),
    }
}

fn configured(config: &Config) -> Result<Address, Error> {
    match (config.api.http_address, &config.api.unix_socket) {
        (Some(address), _) if address.port() > 0 => {
            // A node that listens everywhere is reached at home.
            let ip = match address.ip() {
                ip if !ip.is_unspecified() => ip,
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            };
            Ok(Address::Tcp(SocketAddr::new(ip, address.port()).to_string()))
        }
        (_, Some(path)) => Ok(Address::Unix(path.clone())),
        (Some(_), None) => {
            Err(Error::configuration("CBDDC.Api.HttpAddress: port 0 is any free port; name the node with --api"))
        }
        (None, None) => Err(Error::configuration("CBDDC.Api: this node serves no API; name another with --api")),
    }
}

fn read_token(file: &Path) -> Result<String, Error> {
    load_token("token file", &super::absolute(file)).map(|token| token.word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(api: Option<&str>) -> Options {
        Options { api: api.map(String::from), ..Options::default() }
    }

    #[test]
    fn the_option_is_over_the_environment() {
        let target = Target::from(&options(Some("10.0.0.1:80")), Some("10.0.0.2:80".into()), Some("secret".into()));
        assert_eq!(
            target.unwrap(),
            Target { address: Address::Tcp("10.0.0.1:80".to_string()), token: Some("secret".to_string()) }
        );
        let target = Target::from(&options(None), Some("unix:/run/x".into()), None).unwrap();
        assert_eq!(target.address, Address::Unix("/run/x".into()));
    }

    #[test]
    fn what_is_not_an_address_is_said() {
        for wrong in ["", "host", "host:0", ":80", "host:port", "unix:"] {
            let said = parse("--api", wrong).unwrap_err().to_string();
            assert!(said.starts_with("--api: "), "{said}");
        }
        assert_eq!(parse("--api", "http://gw7:5080/").unwrap(), Address::Tcp("gw7:5080".to_string()));
    }

    #[test]
    fn the_configured_node_is_reached_at_home() {
        let of = |config: Config| configured(&config);
        let everywhere = Config::builder()
            .set("Api.TokenFile", "t")
            .http_address(Some("0.0.0.0:5081".parse().unwrap()))
            .build()
            .unwrap();
        assert_eq!(of(everywhere).unwrap(), Address::Tcp("127.0.0.1:5081".to_string()));
        let none = Config::builder().http_address(None);
        assert!(of(none.build().unwrap()).is_err());
        let socket = Config::builder().http_address(None).set("Api.UnixSocket", "/s").build().unwrap();
        assert_eq!(of(socket).unwrap(), Address::Unix("/s".into()));
        let any = Config::builder().http_address(Some("127.0.0.1:0".parse().unwrap())).build().unwrap();
        assert!(of(any).is_err());
    }
}
