//! Kinds of values: what a key takes, how a wrong one is said, and how the text of an environment variable is read.
//!
//! Knows no key by name and resolves nothing: no file, no host name.

use crate::Error;
use crate::board::Board;
use crate::id::NodeId;
use crate::limits::NODE_ID_BYTES_MAX;
use serde_json::Value;
use std::format;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::string::{String, ToString};
use std::vec::Vec;

/// What a key takes.
#[derive(Debug)]
pub(crate) enum Kind {
    /// `true` or `false`.
    Flag,
    /// A TCP or UDP port; 0 is any free one.
    Port,
    /// A whole number within bounds.
    Whole { min: u64, max: u64, unit: &'static str },
    /// A node's name.
    Name,
    /// The name of a board that is built in.
    BoardName,
    /// A path.
    File,
    /// An IP address.
    Ip,
    /// An IP address with a port; `localhost` is 127.0.0.1.
    Socket,
    /// A list of `host:port`.
    Endpoints { max: usize },
    /// A list of `ip` or `ip:port`.
    Broadcasts { max: usize },
    /// A list of host names, without ports.
    HostNames { max: usize },
    /// One of these words, in any case.
    OneOf(&'static [&'static str]),
}

/// Longest path and host that are accepted, in bytes: PATH_MAX, and the 253 of a host name, alone and with its port.
const PATH_BYTES_MAX: usize = 4096;
const HOST_NAME_BYTES_MAX: usize = 253;
const ENDPOINT_BYTES_MAX: usize = 260;

impl Kind {
    /// The checked value, in one spelling; or what is wrong with it and what is allowed.
    pub(crate) fn check(&self, value: &Value, or_null: bool) -> Result<Value, String> {
        if or_null && value.is_null() {
            return Ok(Value::Null);
        }
        let or_null = if or_null { ", or null" } else { "" };
        self.checked(value).ok_or_else(|| {
            // The commonest slip: a number or a flag in quotes.
            let unquoted = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let quotes = unquoted.is_some_and(|bare| !bare.is_string() && self.checked(&bare).is_some());
            let hint = if quotes { "; write it without quotes" } else { "" };
            format!("{} is not {}{or_null}{hint}", shown(value), self.allowed(value))
        })
    }

    fn checked(&self, value: &Value) -> Option<Value> {
        let text = value.as_str();
        let fits = match self {
            Kind::Flag => value.is_boolean(),
            Kind::Port => value.as_u64().is_some_and(|port| port <= u64::from(u16::MAX)),
            Kind::Whole { min, max, .. } => value.as_u64().is_some_and(|number| (*min..=*max).contains(&number)),
            Kind::Name => NodeId::new(text?).is_some(),
            Kind::BoardName => {
                return Board::names().find(|name| name.eq_ignore_ascii_case(text.unwrap_or(""))).map(Value::from);
            }
            Kind::File => {
                let path = text?;
                !path.trim().is_empty() && path.len() <= PATH_BYTES_MAX && !path.contains('\0')
            }
            Kind::Ip => text?.parse::<IpAddr>().is_ok(),
            Kind::Socket => return socket(text?).map(|address| Value::from(address.to_string())),
            Kind::Endpoints { max } => list(value, *max, is_endpoint),
            Kind::Broadcasts { max } => list(value, *max, |text| broadcast(text).is_some()),
            Kind::HostNames { max } => list(value, *max, is_host_name),
            Kind::OneOf(words) => {
                return words
                    .iter()
                    .find(|word| word.eq_ignore_ascii_case(text.unwrap_or("")))
                    .map(|w| Value::from(*w));
            }
        };
        fits.then(|| value.clone())
    }

    /// What is allowed, to follow "is not".
    fn allowed(&self, value: &Value) -> String {
        match self {
            Kind::Flag => "true or false".to_string(),
            Kind::Port => "a port (1 to 65535)".to_string(),
            Kind::Whole { min, max, unit } => format!("a whole number of {unit} ({min} to {max})"),
            Kind::Name => format!("a node name (1 to {NODE_ID_BYTES_MAX} bytes without white space)"),
            Kind::BoardName => {
                let names: Vec<&str> = Board::names().collect();
                format!("a known board ({})", names.join(", "))
            }
            Kind::File => "a path".to_string(),
            Kind::Ip => "an IP address".to_string(),
            Kind::Socket => "an IP address with a port, like \"127.0.0.1:5080\"".to_string(),
            Kind::Endpoints { max } => format!("a list of at most {max} addresses like \"10.0.7.2:5000\""),
            Kind::Broadcasts { max } => format!("a list of at most {max} IP addresses, with or without a port"),
            Kind::HostNames { max } => {
                format!("a list of at most {max} host names like \"gateway.example\", without ports")
            }
            Kind::OneOf(words) => {
                let near = value.as_str().and_then(|text| super::keys::near_miss(text, words.iter().copied()));
                let near = near.map(|word| format!("; did you mean {word}?")).unwrap_or_default();
                format!("one of {}{near}", words.join(", "))
            }
        }
    }

    /// The text of an environment variable as the value that it means for this kind. Never fails: what it cannot read
    /// stays text, and the check then says what is allowed.
    pub(crate) fn read_text(&self, text: &str, or_null: bool) -> Value {
        if or_null && (text.is_empty() || text.eq_ignore_ascii_case("null")) {
            return Value::Null;
        }
        let trimmed = text.trim();
        let read = match self {
            Kind::Flag if trimmed.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
            Kind::Flag if trimmed.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
            Kind::Port | Kind::Whole { .. } => {
                trimmed.parse::<u64>().map(Value::from).or_else(|_| trimmed.parse::<i64>().map(Value::from)).ok()
            }
            _ if self.is_list() && trimmed.starts_with('[') && trimmed.ends_with(']') => {
                // A list in JSON, or one address of IPv6, which has brackets too.
                serde_json::from_str(trimmed).ok().or_else(|| Some(Value::from([trimmed].as_slice())))
            }
            _ if self.is_list() => {
                let items = trimmed.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.map(Value::from).collect())
            }
            _ => None,
        };
        read.unwrap_or_else(|| Value::from(text))
    }

    /// Whether `…__0`, `…__1` name the items of a list of this kind.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self, Kind::Endpoints { .. } | Kind::Broadcasts { .. } | Kind::HostNames { .. })
    }
}

fn list(value: &Value, max: usize, item: impl Fn(&str) -> bool) -> bool {
    value.as_array().is_some_and(|items| items.len() <= max && items.iter().all(|i| i.as_str().is_some_and(&item)))
}

/// `ip:port`, with `localhost` for people.
fn socket(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// `host:port`, where host is a name, an IPv4 address, or an IPv6 address in brackets. Names are resolved at each dial.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(bracketed) => bracketed.parse::<Ipv6Addr>().is_ok(),
        None => is_of_name_characters(host),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    host_fits && digits && port.parse::<u16>().is_ok_and(|port| port > 0) && text.len() <= ENDPOINT_BYTES_MAX
}

/// A name as it stands in front of the port in a URL: neither port nor wildcard.
fn is_host_name(text: &str) -> bool {
    is_of_name_characters(text) && !text.starts_with('.') && text.len() <= HOST_NAME_BYTES_MAX
}

fn is_of_name_characters(host: &str) -> bool {
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// `ip` or `ip:port` with a port above 0.
pub(crate) fn broadcast(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() > 0).then(|| (address.ip(), Some(address.port())));
    }
    text.parse::<IpAddr>().ok().map(|ip| (ip, None))
}

/// A value as an error shows it: JSON on one line, cut where it is long.
pub(crate) fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = value.to_string();
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    let mut cut: String = text.chars().take(CHARS_MAX).collect();
    cut.push('…');
    cut
}

/// The one form of every configuration error: `CBDDC.Section.Key: what is wrong and what is allowed`.
pub(crate) fn wrong(path: &str, what: &str) -> Error {
    Error::configuration(format!("CBDDC.{}: {what}", path.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(kind: &Kind, value: Value) -> String {
        kind.check(&value, false).unwrap_err()
    }

    #[test]
    fn a_wrong_port_is_said_with_what_is_allowed() {
        assert_eq!(refused(&Kind::Port, json!(70000)), "70000 is not a port (1 to 65535)");
        assert_eq!(refused(&Kind::Port, json!(-1)), "-1 is not a port (1 to 65535)");
        assert_eq!(refused(&Kind::Port, json!(80.5)), "80.5 is not a port (1 to 65535)");
        assert_eq!(refused(&Kind::Port, json!("80")), "\"80\" is not a port (1 to 65535); write it without quotes");
        assert_eq!(Kind::Port.check(&json!(0), false), Ok(json!(0)));
    }

    #[test]
    fn a_number_out_of_bounds_is_said_with_its_bounds_and_unit() {
        let kind = Kind::Whole { min: 1, max: 100, unit: "attempts" };
        assert_eq!(refused(&kind, json!(0)), "0 is not a whole number of attempts (1 to 100)");
        assert!(refused(&kind, json!(101)).contains("(1 to 100)"));
        assert!(refused(&kind, Value::Null).starts_with("null is not"));
        assert_eq!(kind.check(&Value::Null, true), Ok(Value::Null));
    }

    #[test]
    fn wrong_types_are_refused_by_every_kind() {
        let kinds = [
            Kind::Flag,
            Kind::Port,
            Kind::Whole { min: 0, max: 9, unit: "x" },
            Kind::Name,
            Kind::BoardName,
            Kind::File,
            Kind::Ip,
            Kind::Socket,
            Kind::Endpoints { max: 1 },
            Kind::Broadcasts { max: 1 },
            Kind::HostNames { max: 1 },
            Kind::OneOf(&["text"]),
        ];
        for kind in &kinds {
            for value in [json!({}), json!(null), json!([[]]), json!(1.5), json!("")] {
                assert!(kind.check(&value, false).is_err(), "{kind:?} takes {value}");
            }
        }
    }

    #[test]
    fn addresses_of_peers_have_a_host_and_a_port() {
        let kind = Kind::Endpoints { max: 2 };
        assert!(kind.check(&json!(["10.0.7.2:5000", "gw7.example:5000"]), false).is_ok());
        assert!(kind.check(&json!(["[fe80::1]:5000"]), false).is_ok());
        for wrong in ["10.0.7.2", "gw7:0", "gw7:+5", ":5000", "fe80::1:5000", "a b:1", "gw7:70000"] {
            assert!(kind.check(&json!([wrong]), false).is_err(), "{wrong}");
        }
        assert!(kind.check(&json!(["a:1", "b:1", "c:1"]), false).is_err());
    }

    #[test]
    fn a_word_is_taken_in_any_case_and_a_near_miss_is_suggested() {
        let kind = Kind::OneOf(&["Information", "Warning"]);
        assert_eq!(kind.check(&json!("information"), false), Ok(json!("Information")));
        assert!(refused(&kind, json!("Warnin")).ends_with("did you mean Warning?"));
    }

    #[test]
    fn localhost_is_a_socket_address_and_any_other_name_is_not() {
        assert_eq!(Kind::Socket.check(&json!("localhost:80"), false), Ok(json!("127.0.0.1:80")));
        assert!(Kind::Socket.check(&json!("example:80"), false).is_err());
        assert!(Kind::Socket.check(&json!("127.0.0.1"), false).is_err());
    }

    #[test]
    fn text_of_the_environment_becomes_what_the_kind_means() {
        assert_eq!(Kind::Port.read_text("5001", false), json!(5001));
        assert_eq!(Kind::Flag.read_text("False", false), json!(false));
        assert_eq!(Kind::Socket.read_text("null", true), Value::Null);
        let peers = Kind::Endpoints { max: 9 };
        assert_eq!(peers.read_text("a:1, b:2", false), json!(["a:1", "b:2"]));
        assert_eq!(peers.read_text("[\"a:1\"]", false), json!(["a:1"]));
        assert_eq!(peers.read_text("", false), json!([]));
        assert_eq!(Kind::Port.read_text("many", false), json!("many"));
    }

    #[test]
    fn a_long_value_is_cut_in_the_message() {
        assert!(refused(&Kind::Port, json!("x".repeat(10_000))).chars().count() < 200);
    }
}
