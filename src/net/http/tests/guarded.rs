//! Tokens, foreign sites, and the surface for monitoring.

use super::super::{HttpOptions, Listener, Surface};
use super::bench::with_server;
use crate::net::PortSetting;
use std::string::ToString;

const A: &str = "/v1/collections/c/documents/a";

#[test]
fn requests_from_foreign_sites_are_refused() {
    with_server(HttpOptions::default(), |bench| async move {
        for headers in [
            &[("Host", "evil.example")][..],
            &[("Origin", "http://evil.example")],
            &[("Origin", "null")],
            &[("Host", "127.0.0.1:5080"), ("Origin", "http://127.0.0.1:8080")],
        ] {
            bench.ask("PUT", A, headers, b"1").await.is(400, "REQUEST_ERROR", "BadRequest");
            bench.ask("GET", "/health", headers, b"").await.is(400, "REQUEST_ERROR", "BadRequest");
        }
        let same = [("Host", "localhost:5080"), ("Origin", "http://localhost:5080")];
        assert_eq!(bench.ask("PUT", A, &same, b"1").await.status, 201);
        let mut old = bench.client().await;
        old.send("GET /livez HTTP/1.0\r\n\r\n").await;
        assert_eq!(old.reply(false).await.unwrap().status, 200, "a probe that speaks HTTP/1.0");
        let mut nobody = bench.client().await;
        nobody.send("GET /livez HTTP/1.1\r\n\r\n").await;
        nobody.reply(false).await.unwrap().is(400, "REQUEST_ERROR", "BadRequest");
        let mut absolute = bench.client().await;
        absolute.send("GET http://evil.example/livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").await;
        absolute.reply(false).await.unwrap().is(400, "REQUEST_ERROR", "BadRequest");
    });
}

#[test]
fn without_the_token_only_health_is_said_and_without_names() {
    let options = HttpOptions { token: Some("s3cret".to_string()), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        for path in [A, "/v1/status", "/v1/nothing", "/nothing"] {
            let reply = bench.get(path).await;
            reply.is(401, "REQUEST_ERROR", "Unauthorized");
            assert_eq!(reply.headers["www-authenticate"], "Bearer");
        }
        bench.ask("GET", A, &[("Authorization", "Bearer wrong")], b"").await.is(401, "REQUEST_ERROR", "Unauthorized");
        let token = [("Authorization", "Bearer s3cret")];
        assert_eq!(bench.ask("PUT", A, &token, b"1").await.status, 201);
        assert_eq!(bench.get("/livez").await.status, 200);
        assert!(!bench.get("/health").await.text().contains("gateway"));
        assert!(bench.ask("GET", "/health", &token, b"").await.text().contains("gateway-07"));
        bench.service.not_ready.set(true);
        assert!(!bench.get("/readyz").await.text().contains("opening"));
    });
}

#[test]
fn a_monitoring_address_answers_health_alone() {
    let options = HttpOptions { surface: Surface::HealthOnly, ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let reply = bench.get("/health").await;
        assert!(reply.status == 200 && !reply.text().contains("gateway"), "{}", reply.text());
        assert_eq!(bench.get("/readyz").await.status, 200);
        assert!(bench.get("/metrics").await.text().ends_with("cbddc_names 0\n"));
        for path in [A, "/v1/status", "/v1/collections", "/v1/changes"] {
            bench.get(path).await.is(404, "REQUEST_ERROR", "NoSuchRoute");
        }
    });
}

#[test]
fn an_address_in_use_names_the_setting() {
    smol::block_on(async {
        let first = Listener::tcp("127.0.0.1:0".parse().unwrap(), PortSetting::Http).await.unwrap();
        let again = Listener::tcp(first.local_addr().unwrap(), PortSetting::Http).await.unwrap_err().to_string();
        assert!(again.contains("CBDDC.Api.HttpAddress") && again.contains("in use"), "{again}");
    });
}

#[test]
fn a_unix_socket_is_replaced_only_where_nobody_answers() {
    smol::block_on(async {
        let name = std::format!("cbddc-http-{}-{:?}", std::process::id(), std::thread::current().id());
        let folder = std::env::temp_dir().join(name.replace(['(', ')'], ""));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("api.sock");
        let first = Listener::unix(&path, "CBDDC.Api.UnixSocket").await.unwrap();
        let said = Listener::unix(&path, "CBDDC.Api.UnixSocket").await.unwrap_err().to_string();
        assert!(said.contains("another program answers"), "{said}");
        drop(first);
        assert!(!path.exists());
        // A node that was killed leaves its socket behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::unix(&path, "CBDDC.Api.UnixSocket").await.unwrap());
        std::fs::write(&path, "mine").unwrap();
        assert!(Listener::unix(&path, "CBDDC.Api.UnixSocket").await.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_dir_all(&folder).unwrap();
    });
}
