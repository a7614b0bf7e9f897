//! The API at the edge: tokens, the Unix socket, the health address, and clients that are slow, endless, many, or do not
//! speak HTTP.

use crate::client::{Connection, document};
use crate::process::{KEY, Node, field, patience, wait, wait_for};
use crate::program::{self, seconds};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

const TOKEN: &str = "s3cret-token-42";

/// Everything that comes until the other side ends it. Fails where it does not within the patience of a test.
fn until_closed(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(seconds(60))).unwrap();
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is held open for more than a minute"),
        // A reset ends it as well.
        _ => String::from_utf8_lossy(&all).into_owned(),
    }
}

/// The address of the listener that is for monitoring alone.
fn health_address(node: &Node) -> SocketAddr {
    let log = node.log();
    let line = log.lines().find(|line| line.contains("http listening") && line.contains("HealthOnly"));
    field(line.expect("it says where"), "address").parse().unwrap()
}

fn with_token(node: Node) -> Node {
    let path = node.path("token");
    fs::write(&path, format!("{TOKEN}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    node.set("Api__TokenFile", "token")
}

#[test]
fn with_a_token_only_who_has_it_reads_and_writes_and_health_says_no_names() {
    let mut node = with_token(Node::new("guarded")).set("Cluster__PeerConfirmationLagThresholdMs", "200");
    node.start();
    node.keep_port();
    let mut peer = Node::new("secret-peer").peers(&[&node]).started();
    let bearer = format!("Bearer {TOKEN}");
    let known = [("Authorization", bearer.as_str())];
    let path = document("c", "k");
    for (method, path) in [("PUT", &*path), ("GET", &path), ("DELETE", &path), ("GET", "/v1/status"), ("GET", "/x")] {
        let answer = node.ask(method, path, &[], b"1").expect(401);
        assert_eq!(answer.problem(), "REQUEST_ERROR/Unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let wrong = [("Authorization", "Bearer s3cret-token-43")];
        node.ask(method, path, &wrong, b"1").expect(401);
    }
    node.ask("PUT", &path, &known, b"1").expect(201);
    wait("the peer is tracked and has it", || peer.value("c", "k"));
    // Once the peer lags, the report has a name to say.
    peer.stop_cleanly();
    node.ask("PUT", &path, &known, b"2").expect(200);
    let report = wait("the peer lags", || {
        let report = node.ask("GET", "/health", &known, b"").text();
        report.contains("secret-peer").then_some(report)
    });
    assert!(report.contains("laggingPeers"), "{report}");
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let answer = node.ask("GET", path, &[], b"");
        assert!(answer.status == 200 || answer.status == 503, "{path}: {}", answer.text());
        assert!(!answer.text().contains("secret-peer"), "{path}: {}", answer.text());
    }
    assert_eq!(node.page("/health")["entries"]["cbddc"]["data"]["trackedPeerCount"], 1, "counts are said");
    assert!(node.ask("GET", "/metrics", &known, b"").text().contains("secret-peer"));

    // The command line has it from the configuration, a file or the environment.
    assert_eq!(node.says(&["get", "c", "k"]), b"2\n");
    fs::write(node.path("other"), "not-the-token").unwrap();
    let refused = node.cli(&["get", "c", "k", "--token-file", "other"]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.starts_with("error[REQUEST_ERROR]: ") && said.contains("--token-file"), "{said}");
    assert!(!node.log().contains(TOKEN));
}

#[test]
fn a_token_file_that_holds_no_token_stops_the_start() {
    let node = Node::new("no-token").set("Api__TokenFile", "token");
    let refused = |why: &str| {
        let (ended, said) = node.run_to_end();
        assert_eq!(ended.code(), Some(78), "{said}");
        let line = said.lines().last().unwrap();
        assert!(line.starts_with("error[CONFIG_ERROR]: CBDDC.Api.TokenFile: ") && line.contains(why), "{said}");
        assert!(!said.contains("two words"), "{said}");
    };
    refused("cannot be read");
    fs::create_dir(node.path("token")).unwrap();
    refused("not a regular file");
    fs::remove_dir(node.path("token")).unwrap();
    fs::write(node.path("token"), "two words").unwrap();
    refused("one word");
    fs::write(node.path("token"), "\n").unwrap();
    refused("is empty");
    let endless = Node::new("endless-token").set("Api__TokenFile", "/dev/zero");
    assert_eq!(endless.run_to_end().0.code(), Some(78));
    // One that everybody may read is used, and said.
    fs::write(node.path("token"), TOKEN).unwrap();
    fs::set_permissions(node.path("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let node = node.started();
    assert!(node.log().lines().any(|line| line.contains("WARN") && line.contains("chmod 600")), "{}", node.log());
}

#[test]
fn the_unix_socket_is_for_owner_and_group_is_replaced_after_a_kill_and_gone_after_a_stop() {
    // A path of its own: a socket's is bounded by the kernel at 107 bytes.
    let socket = std::env::temp_dir().join(format!("cbddc-edge-{}.sock", std::process::id()));
    let shown = socket.to_str().unwrap();
    let mut node = Node::new("socket").set("Api__UnixSocket", shown).started();
    let meta = fs::symlink_metadata(&socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o660);
    let asks = |request: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let put = format!(
        "PUT {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\n1",
        document("c", "k")
    );
    assert!(asks(&put).starts_with("HTTP/1.1 201 "));
    assert_eq!(node.value("c", "k").as_deref(), Some("1"), "one node behind both");
    let foreign = "GET /livez HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(asks(foreign).starts_with("HTTP/1.1 400 "));
    let address = format!("unix:{shown}");
    let output =
        program::node().args(["get", "c", "k", "--api", &address]).current_dir(node.path("")).output().unwrap();
    assert!(output.status.success() && output.stdout == b"1\n", "{output:?}");

    // Another node does not take it away, whether this one answers or stands still.
    for still in [false, true] {
        if still {
            node.freeze();
        }
        let (ended, said) = Node::new("second").set("Api__UnixSocket", shown).run_to_end();
        assert_eq!(ended.code(), Some(1), "{said}");
        assert!(said.contains("CBDDC.Api.UnixSocket") && said.contains("another program answers"), "{said}");
        node.thaw();
    }
    assert!(asks(&put).starts_with("HTTP/1.1 200 "));
    node.kill();
    assert!(socket.exists(), "left behind");
    node.start();
    assert!(asks(&put).starts_with("HTTP/1.1 200 "));
    node.stop_cleanly();
    assert!(!socket.exists());
    fs::write(&socket, "mine").unwrap();
    let (ended, said) = node.run_to_end();
    assert_eq!(ended.code(), Some(1), "{said}");
    assert_eq!(fs::read(&socket).unwrap(), b"mine");
    fs::remove_file(&socket).unwrap();
}

#[test]
fn the_health_address_answers_monitoring_alone_and_names_nobody() {
    let mut node = with_token(Node::new("monitored")).set("Api__HealthAddress", "127.0.0.1:0");
    node.start();
    let address = health_address(&node);
    let ask = |path: &str, headers: &[(&str, &str)]| {
        Connection::new(TcpStream::connect(address).unwrap(), address).ask("GET", path, headers, b"").unwrap()
    };
    let bearer = format!("Bearer {TOKEN}");
    let known = [("Authorization", bearer.as_str())];
    let peer = Node::new("unnamed-peer").peers(&[&node]).started();
    wait("the peer is linked", || ask("/metrics", &known).text().contains("unnamed-peer").then_some(()));
    // A session that has just begun is caught up with first, and the node says that it is not ready.
    wait("it has caught up", || (ask("/readyz", &[]).status == 200).then_some(()));
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let answer = ask(path, &[]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(!answer.text().contains("unnamed-peer") && !answer.text().contains("monitored"), "{}", answer.text());
    }
    assert!(ask("/metrics", &[]).text().contains("\ncbddc_peers_tracked 1\n"));
    for path in ["/v1/status", "/v1/peers", "/v1/collections", "/v1/changes", "/v1/collections/c/documents/k", "/"] {
        // With the token neither: it is another address that serves them.
        assert_eq!(ask(path, &known).expect(404).problem(), "REQUEST_ERROR/NoSuchRoute", "{path}");
    }
    ask("/health", &[("Origin", "http://evil.example")]).expect(400);
    drop(peer);
    node.stop_cleanly();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_page_of_another_site_reaches_nothing_on_any_route() {
    let node = Node::new("rebound").started();
    let own = format!("http://{}", node.http());
    let name = format!("{}:{}", "rebound", node.http().port());
    for (method, path) in [
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/v1/status"),
        ("PUT", "/v1/collections/c/documents/k"),
        ("DELETE", "/v1/peers/x"),
        ("POST", "/v1/collections/c/documents"),
        ("OPTIONS", "/v1/collections/c/documents/k"),
    ] {
        for foreign in [("Origin", "http://evil.example"), ("Origin", "null")] {
            let answer = node.ask(method, path, &[foreign], b"1").expect(400);
            assert_eq!(answer.problem(), "REQUEST_ERROR/BadRequest", "{method} {path}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
        let mut stream = node.dial(node.http());
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
        assert!(until_closed(&mut stream).starts_with("HTTP/1.1 400 "), "{method} {path}");
    }
    assert!(node.value("c", "k").is_none());
    node.ask("GET", "/health", &[("Origin", own.as_str())], b"").expect(200);
    let mut stream = node.dial(node.http());
    write!(stream, "GET /livez HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").unwrap();
    assert!(until_closed(&mut stream).starts_with("HTTP/1.1 200 "), "by its own name");
}

#[test]
fn a_node_answers_under_the_names_that_it_has_on_its_network_and_under_those_that_it_is_told() {
    let node = Node::new("gateway-77").set("Api__HostNames", "box.example, Plant.Example.").started();
    let status = |host: &str| {
        let mut stream = node.dial(node.http());
        write!(stream, "GET /v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        until_closed(&mut stream).split(' ').nth(1).map(String::from)
    };
    for ours in ["gateway-77", "GATEWAY-77.lan:8080", "gateway-77.local", "gateway-77.home.arpa.", "box.example:5080"] {
        assert_eq!(status(ours).as_deref(), Some("200"), "{ours}");
    }
    assert_eq!(status("plant.example").as_deref(), Some("200"));
    for foreign in ["gateway-77.example", "gateway-77.lan.example", "x.box.example", "gateway-78.lan", "box.example:x"]
    {
        assert_eq!(status(foreign).as_deref(), Some("400"), "{foreign}");
    }
}

#[test]
fn whoever_is_slow_at_any_step_loses_the_connection_and_disturbs_nobody() {
    let node = Node::new("slow").started();
    let large = format!("\"{}\"", "x".repeat(200_000));
    for nth in 0..5 {
        node.put("large", &nth.to_string(), &large).expect(201);
    }
    let dial = |bytes: &str| {
        let mut stream = node.dial(node.http());
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    };
    let body = |length: &str| format!("PUT {} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n\r\n", document("c", "k"));
    let page = "GET /v1/collections/large/documents HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let slow = [
        ("says nothing", dial(""), ""),
        ("stops in the request line", dial("GET /heal"), ""),
        ("stops in the headers", dial("GET /livez HTTP/1.1\r\nHost: 127.0"), ""),
        ("stops in a body", dial(&format!("{}[1,", body("Content-Length: 100"))), "HTTP/1.1 400 "),
        ("stops in a chunk", dial(&format!("{}10\r\n[1,", body("Transfer-Encoding: chunked"))), "HTTP/1.1 400 "),
        ("is idle after an answer", dial("GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"), "HTTP/1.1 200 "),
        ("takes no answers", dial(&page.repeat(40)), ""),
    ];
    std::thread::scope(|scope| {
        for (who, mut stream, said) in slow {
            scope.spawn(move || {
                if who == "takes no answers" {
                    // Nothing is read until the node has given it up; then what it had sent is all that comes.
                    let given_up = || stream.write_all(b"\r\n").is_err().then_some(());
                    wait_for(seconds(120), "an answer that nobody takes is given up", given_up);
                }
                let answer = until_closed(&mut stream);
                // HTTP's own word for a request that did not come.
                assert!(answer.starts_with(said) || answer.starts_with("HTTP/1.1 408 "), "{who}: {answer:.200}");
                assert!(answer.matches("HTTP/1.1 ").count() < 40, "{who}");
            });
        }
        for _ in 0..20 {
            node.still_serves();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert!(node.value("c", "k").is_none(), "half a document is none");
    node.still_serves();
}

#[test]
fn what_is_not_http_or_breaks_its_rules_costs_its_connection_alone() {
    let node = Node::new("garbage").started();
    let target = document("c", "k");
    let put = |rest: &str| format!("PUT {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n{rest}").into_bytes();
    let mut random = fastrand::Rng::with_seed(7);
    let mut cases: Vec<Vec<u8>> =
        (0..100).map(|_| (0..random.usize(1..4000)).map(|_| random.u8(..)).collect()).collect();
    cases.extend([
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /health\r\n\r\n".to_vec(),
        b"\r\n\r\n\r\n\r\n".to_vec(),
        put("Content-Length: -1\r\n\r\n"),
        put("Content-Length: 99999999999999999999\r\n\r\n"),
        put("Content-Length: 1\r\nContent-Length: 2\r\n\r\n11"),
        put("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        put("Transfer-Encoding: gzip\r\n\r\n1"),
        put("Transfer-Encoding: chunked\r\n\r\nnothex\r\n1\r\n0\r\n\r\n"),
        put("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n1"),
        put("Transfer-Encoding: chunked\r\n\r\n1\r\n1XX0\r\n\r\n"),
        put(&format!("Cookie: {}\r\n\r\n", "x".repeat(1_000_000))),
        put(&"X: 1\r\n".repeat(100_000)),
        format!("GET /{} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "x".repeat(1_000_000)).into_bytes(),
    ]);
    for case in &cases {
        let mut stream = node.dial(node.http());
        // It may be hung up on before everything was said.
        let _ = stream.write_all(case);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let said = until_closed(&mut stream);
        let shown = String::from_utf8_lossy(&case[..case.len().min(80)]).into_owned();
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4") || said.starts_with("HTTP/1.0 4"), "{shown}: {said}");
    }
    assert!(node.value("c", "k").is_none(), "none of them was stored");
    node.still_serves();
    assert!(node.log().lines().count() < 60, "they do not fill the log: {}", node.log());
}

#[test]
fn a_body_without_an_end_is_refused_where_one_document_is_due_and_read_on_in_bounded_memory_where_many_are() {
    let node = Node::new("endless").started();
    let chunk = format!("{:x}\r\n{}\r\n", 64 * 1024, " ".repeat(64 * 1024));
    let mut stream = node.dial(node.http());
    let head = "Host: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n";
    write!(stream, "PUT {} HTTP/1.1\r\n{head}\r\n", document("c", "k")).unwrap();
    // White space for ever: no document, however long one waits.
    while stream.write_all(chunk.as_bytes()).is_ok() {}
    let said = until_closed(&mut stream);
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 413 "), "{said}");

    // Many lines, among them one of forty megabytes: it fails, and the lines around it are stored.
    let mut stream = node.dial(node.http());
    let kind = "Content-Type: application/x-ndjson\r\nConnection: close\r\n";
    write!(stream, "POST /v1/collections/c/documents HTTP/1.1\r\n{head}{kind}\r\n").unwrap();
    let mut send = |text: &str| write!(stream, "{:x}\r\n{text}\r\n", text.len()).unwrap();
    send("{\"key\":\"before\",\"value\":1}\n{\"key\":\"");
    (0..640).for_each(|_| send(&"x".repeat(64 * 1024)));
    send("\",\"value\":1}\n{\"key\":\"after\",\"value\":2}\n");
    send("");
    let said = until_closed(&mut stream);
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("\"successful\":2,\"failed\":1"), "{said}");
    assert!(said.contains("DocumentTooLarge"), "{said}");
    assert!(node.value("c", "before").is_some() && node.value("c", "after").is_some());
    let peak = resident_kib(&node, "VmHWM:");
    assert!(program::emulated() || peak < 90_000, "{peak} KiB");
}

/// What the kernel says of the process's memory.
fn resident_kib(node: &Node, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process().as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ten_thousand_connections_leave_a_node_that_serves() {
    let node = Node::new("many").started();
    let files = || fs::read_dir(format!("/proc/{}/fd", node.process().as_raw_nonzero())).unwrap().count();
    let before = (files(), resident_kib(&node, "VmRSS:"));
    let half = format!("PUT {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n[", document("c", "half"));
    let mut served = 0;
    for round in 0..50 {
        // Two hundred at once, which say nothing, half a request, half a body, garbage, or all of it.
        let mut open: Vec<TcpStream> = (0..200).map(|_| node.dial(node.http())).collect();
        for (nth, stream) in open.iter_mut().enumerate() {
            let bytes: &[u8] = match nth % 5 {
                0 => b"",
                1 => b"GET /health HTTP/1.1\r\nHo",
                2 => half.as_bytes(),
                3 => b"\x00\x01\x02\x03 not HTTP \r\n\r\n",
                _ => b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            };
            // One that was put out already cannot be written to.
            let _ = stream.write_all(bytes);
        }
        // While they are there: health at once, a write within the time that slow ones are left.
        let health = wait_for(patience(), "health answers", || {
            node.connect().ask("GET", "/health", &[], b"").ok().filter(|answer| answer.status == 200)
        });
        assert!(health.text().contains("\"status\""));
        if round % 10 == 0 {
            let path = document("c", &round.to_string());
            wait_for(patience(), "a write gets through", || {
                node.connect().ask("PUT", &path, &[], b"1").ok().filter(|answer| matches!(answer.status, 200 | 201))
            });
            served += 1;
        }
    }
    wait("all are closed again", || (files() <= before.0 + 2).then_some(()));
    assert_eq!(node.everything("c").len(), served);
    let after = resident_kib(&node, "VmRSS:");
    assert!(program::emulated() || after < before.1 + 40_000, "from {} to {after} KiB", before.1);
    node.still_serves();
}

#[test]
fn a_key_file_that_is_a_directory_stops_the_start() {
    let node = Node::new("key-folder");
    fs::remove_file(node.path("data/cluster.key")).unwrap();
    fs::create_dir(node.path("data/cluster.key")).unwrap();
    let (ended, said) = node.run_to_end();
    assert_eq!(ended.code(), Some(78), "{said}");
    let line = said.lines().last().unwrap();
    assert!(
        line.starts_with("error[CONFIG_ERROR]: CBDDC.Cluster.KeyFile: ") && line.contains("is a directory"),
        "{said}"
    );
    fs::write(node.path("key.txt"), KEY).unwrap();
    let set = program::node().args(["key", "set", "key.txt"]).current_dir(node.path("")).output().unwrap();
    assert_eq!(set.status.code(), Some(78), "{set:?}");
    assert!(node.path("data/cluster.key").is_dir());
}

#[test]
fn a_name_that_is_taken_twice_is_refused_and_said_on_both_sides() {
    let mut first = Node::new("same-name").started();
    first.keep_port();
    let member = Node::new("member").peers(&[&first]).started();
    member.wait_linked(&first);
    // Another device under the same name: it may not take part, whoever it dials.
    let second = Node::new("same-name").peers(&[&first, &member]).started();
    second.put("c", "from-second", "1").expect(201);
    let entry = |node: &Node| node.page("/health")["entries"]["members"].clone();
    let said = wait("the member names it", || {
        Some(entry(&member)).filter(|entry| entry["data"]["refused"] == serde_json::json!(["same-name"]))
    });
    assert!(said["description"].as_str().unwrap().contains("same-name"), "{said}");
    wait("it says itself that it is refused", || (entry(&second)["status"] == "Unhealthy").then_some(()));
    first.put("c", "k", "1").expect(201);
    wait("the others go on", || member.value("c", "k"));
    assert!(member.value("c", "from-second").is_none() && second.value("c", "k").is_none());
}
