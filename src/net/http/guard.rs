//! Who may ask: no foreign `Host` (DNS rebinding), no foreign `Origin` (pages of other sites), the token where one is
//! configured.

use super::{HttpOptions, Surface};
use crate::error::{Error, RequestKind};
use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use hyper::{HeaderMap, Request, Version};
use std::format;
use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};
use std::string::String;

/// Refuses a request that a web page of another site may have caused.
///
/// A browser that was lured to `http://evil.example` and then told that this name is `127.0.0.1` still sends the name
/// as `Host`. So a name that nobody configured is refused; an IP address cannot be rebound.
pub(super) fn check_site<B>(request: &Request<B>, options: &HttpOptions) -> Result<(), Error> {
    let host = host(request)?;
    if let Some(host) = host
        && !is_ours(host, options)
    {
        return Err(Error::bad_request(format!(
            "Host {host:?} is not an address or a name of this node: use its IP address, or name it in CBDDC.Api.HostNames"
        )));
    }
    if let Some(origin) = single(request.headers(), ORIGIN.as_str())? {
        let same =
            host.is_some_and(|host| origin.strip_prefix("http://").is_some_and(|site| site.eq_ignore_ascii_case(host)));
        if !same {
            return Err(Error::bad_request(format!(
                "Origin {origin:?} is another site: requests from its pages are refused"
            )));
        }
    }
    Ok(())
}

/// Whether the request carries the token. Without a configured one, a full surface trusts whoever reaches it.
pub(super) fn is_known<B>(request: &Request<B>, options: &HttpOptions) -> bool {
    let Some(token) = &options.token else { return options.surface == Surface::Full };
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let value = value.as_bytes();
    let Some((scheme, given)) = value.split_at_checked(7) else { return false };
    scheme.eq_ignore_ascii_case(b"bearer ") && same_bytes(given.trim_ascii(), token.as_bytes())
}

/// Refuses a request without the token.
pub(super) fn unauthorized() -> Error {
    Error::Request {
        kind: RequestKind::Unauthorized,
        message: String::from(
            "this node asks for its token: send Authorization: Bearer TOKEN (command line: --token-file FILE)",
        ),
    }
}

/// Compares in a time that depends on the lengths alone.
fn same_bytes(given: &[u8], expected: &[u8]) -> bool {
    let differences = given.iter().zip(expected).fold(0_u8, |seen, (a, b)| black_box(seen | (a ^ b)));
    given.len() == expected.len() && differences == 0
}

/// The host that was asked for. HTTP/1.1 demands one (RFC 9112, section 3.2); probes that speak HTTP/1.0 send none.
fn host<B>(request: &Request<B>) -> Result<Option<&str>, Error> {
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    let host = single(request.headers(), HOST.as_str())?;
    if host.is_none() && request.version() >= Version::HTTP_11 {
        return Err(Error::bad_request("the Host header is missing"));
    }
    Ok(host)
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Error> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Error::bad_request(format!("{name} is not text"))),
        _ => Err(Error::bad_request(format!("{name} is given twice"))),
    }
}

fn is_ours(host: &str, options: &HttpOptions) -> bool {
    let Some(name) = without_port(host) else { return false };
    if let Some(inner) = name.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())
        || name.eq_ignore_ascii_case("localhost")
        || options.host_names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// `name`, `name:port`, `[v6]` or `[v6]:port` without the port; `None` where it is none of these.
fn without_port(host: &str) -> Option<&str> {
    let end_of_address = host.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = host[end_of_address..].find(':') else { return Some(host) };
    let (name, port) = host.split_at(end_of_address + colon);
    let digits = &port[1..];
    (digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().uri("/v1/status");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn allowed(headers: &[(&str, &str)]) -> bool {
        let options = HttpOptions { host_names: std::vec!["Gateway-01.local".to_string()], ..HttpOptions::default() };
        check_site(&request(headers), &options).is_ok()
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_ours() {
        for host in ["127.0.0.1", "127.0.0.1:5080", "10.0.7.2:80", "[::1]", "[::1]:5080", "localhost", "LOCALHOST:1"] {
            assert!(allowed(&[("host", host)]), "{host}");
        }
        assert!(allowed(&[("host", "gateway-01.LOCAL:5080")]) && allowed(&[("host", "localhost.")]));
    }

    #[test]
    fn a_rebound_or_malformed_host_is_foreign() {
        for host in [
            "evil.example",
            "evil.example:5080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            ":5080",
            "[::1",
            "::1",
            "[evil]",
            "127.0.0.1:x",
            "127.0.0.1:1:2",
            "a@127.0.0.1",
            "[::1]x",
            "127.1",
        ] {
            assert!(!allowed(&[("host", host)]), "{host}");
        }
        assert!(!allowed(&[]), "HTTP/1.1 demands a Host");
        assert!(!allowed(&[("host", "127.0.0.1"), ("host", "localhost")]));
    }

    #[test]
    fn only_the_same_site_is_an_origin() {
        let at = |origin| allowed(&[("host", "127.0.0.1:5080"), ("origin", origin)]);
        assert!(at("http://127.0.0.1:5080"));
        for origin in
            ["null", "http://evil.example", "http://127.0.0.1:8080", "https://127.0.0.1:5080", "http://127.0.0.1"]
        {
            assert!(!at(origin), "{origin}");
        }
    }

    #[test]
    fn only_the_whole_token_opens() {
        let options = HttpOptions { token: Some("s3cret".to_string()), ..HttpOptions::default() };
        let known = |value: &str| is_known(&request(&[("authorization", value)]), &options);
        assert!(known("Bearer s3cret") && known("bearer  s3cret"));
        for value in ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret"] {
            assert!(!known(value), "{value}");
        }
        assert!(!is_known(&request(&[]), &options));
        assert!(is_known(&request(&[]), &HttpOptions::default()), "loopback without a token");
    }
}
