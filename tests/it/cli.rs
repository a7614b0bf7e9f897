//! The command line against a running node, and the doors that a node can have.

use crate::process::{Node, data};
use crate::program;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
/// The exit code and the line on stderr.
fn failure(output: &Output) -> (Option<i32>, String) {
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    (output.status.code(), said.trim_end().to_string())
}

#[test]
fn documents_are_stored_read_listed_and_deleted() {
    let node = Node::new("commands").started();
    node.says(&["put", "users", "alice", "{\"name\": \"Alice\"}"]);
    assert_eq!(text(&node.says(&["get", "users", "alice"])), "{\"name\": \"Alice\"}\n");
    node.says(&["put", "users", "bob", "-7"]);
    assert_eq!(
        text(&node.says(&["export", "users"])),
        "{\"key\":\"alice\",\"value\":{\"name\": \"Alice\"}}\n{\"key\":\"bob\",\"value\":-7}\n"
    );
    let listed = text(&node.says(&["list", "users", "--prefix", "b"]));
    assert!(listed.contains("bob") && !listed.contains("alice"), "{listed}");
    node.says(&["delete", "users", "alice"]);
    node.says(&["delete", "users", "alice"]);
    let (code, said) = failure(&node.cli(&["get", "users", "alice"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("error[PERSISTENCE_ERROR]: ") && said.contains("alice"), "{said}");
    let (code, said) = failure(&node.cli(&["put", "users", "carl", "no json"]));
    assert!(code == Some(1) && said.starts_with("error[REQUEST_ERROR]: "), "{said}");
    for command in ["status", "peers", "health"] {
        assert!(!node.says(&[command]).is_empty());
        let json = node.says(&[command, "--json"]);
        serde_json::from_slice::<serde_json::Value>(&json).unwrap();
    }
    let nobody = program::node().args(["health", "--api", "127.0.0.1:9"]).output().unwrap();
    assert_eq!(failure(&nobody).0, Some(3));
    let nobody = program::node().args(["get", "a", "b", "--api", "127.0.0.1:9"]).output().unwrap();
    assert!(matches!(failure(&nobody), (Some(1), said) if said.starts_with("error[NETWORK_ERROR]: ")));
}

#[test]
fn an_import_says_how_many_lines_were_stored_and_which_were_not() {
    let node = Node::new("imports").started();
    let airports = data("airports.csv");
    let said = text(&node.says(&["import", "airports", airports.to_str().unwrap(), "--key", "iata"]));
    assert!(said.contains("3376"), "{said}");
    let exported = node.says(&["export", "airports"]);
    // What was exported can be imported, and is the same again.
    fs::write(node.path("airports.ndjson"), &exported).unwrap();
    node.says(&["import", "copy", "airports.ndjson"]);
    assert_eq!(node.says(&["export", "copy"]), exported);
    let too_large = "x".repeat(300_000);
    let lines = format!(
        "{{\"key\":\"a\",\"value\":1}}\nnonsense\n{{\"key\":\"b\",\"value\":\"{too_large}\"}}\n\n{{\"key\":\"c\",\"value\":2}}\n"
    );
    fs::write(node.path("partly.ndjson"), lines).unwrap();
    let output = node.cli(&["import", "partly", "partly.ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    let (told, failed) = (text(&output.stdout), text(&output.stderr));
    assert!(told.contains("2 stored") && told.contains("2 failed"), "{told}");
    assert!(failed.contains("line 2") && failed.contains("line 3") && failed.contains("at most 262144"), "{failed}");
    assert_eq!(node.everything("partly").len(), 2);
    let (code, said) = failure(&node.cli(&["import", "none", "nowhere.csv", "--key", "k"]));
    assert!(code == Some(1) && said.contains("nowhere.csv"), "{said}");
}

#[test]
fn a_key_is_shown_and_carried_to_another_device() {
    let (first, second) = (Node::bare("first", None), Node::bare("second", None));
    let run = |node: &Node, arguments: &[&str], input: &[u8]| {
        let mut command = program::node();
        command.args(arguments).current_dir(node.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    assert!(run(&first, &["key", "new"], b"").status.success());
    let shown = run(&first, &["key", "show"], b"");
    assert!(shown.status.success() && shown.stdout.len() == 65, "{}", text(&shown.stdout));
    assert!(run(&second, &["key", "set", "-"], &shown.stdout).status.success());
    let file = second.path("data/cluster.key");
    assert_eq!(fs::read(&file).unwrap(), shown.stdout);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let refused = run(&second, &["key", "set", "-"], b"short");
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused.stderr));
    assert_eq!(fs::read(&file).unwrap(), shown.stdout, "the key that was there stays");
}

#[test]
fn beyond_the_token_nobody_reads_or_writes_and_strangers_see_counts_only() {
    let node = Node::new("doors")
        .set("Api__TokenFile", "token")
        .set("Api__HealthAddress", "127.0.0.1:0")
        .set("Api__UnixSocket", "cbddc.sock");
    fs::write(node.path("token"), "secret-token\n").unwrap();
    let node = node.started();
    assert_eq!(node.put("c", "k", "1").expect(401).problem(), "REQUEST_ERROR/Unauthorized");
    assert_eq!(node.get("c", "k").status, 401);
    let path = crate::client::document("c", "k");
    node.ask("PUT", &path, &[("Authorization", "Bearer wrong")], b"1").expect(401);
    node.ask("PUT", &path, &[("Authorization", "Bearer secret-token")], b"1").expect(201);
    assert_eq!(text(&node.says(&["get", "c", "k", "--token-file", "token"])), "1\n");
    // From elsewhere, where no configuration says where the token is.
    let api = node.http().to_string();
    let without = program::node().args(["get", "c", "k", "--api", &api]).current_dir("/").output().unwrap();
    let (code, said) = failure(&without);
    assert!(code == Some(1) && said.contains("token"), "{said}");
    let mut command = program::node();
    command.args(["get", "c", "k", "--token-file", "token", "--api", "unix:cbddc.sock"]).current_dir(node.path(""));
    assert_eq!(text(&command.output().unwrap().stdout), "1\n");
    // The health address answers these and nothing else, without a name.
    let log = node.log();
    let line = log.lines().find(|line| line.contains("surface=HealthOnly")).unwrap();
    let address = crate::process::field(line, "address").parse().unwrap();
    let ask = |path: &str| {
        let mut connection = crate::client::Connection::new(node.dial(address), address);
        connection.ask("GET", path, &[], b"").unwrap()
    };
    let health = ask("/health").expect(200).text();
    assert!(!health.contains("doors"), "{health}");
    ask("/livez").expect(200);
    ask("/readyz").expect(200);
    assert!(matches!(ask("/v1/status").status, 401 | 404));
    assert!(matches!(ask(&path).status, 401 | 404));
}

#[test]
fn the_log_goes_to_a_file_as_json_where_that_is_wanted() {
    let node = Node::new("logs").set("Logging__Format", "json").set("Logging__Path", "log/node.json");
    // The fixture reads the log for its ports: this one is run by hand.
    let mut command = program::node();
    command.arg("run").current_dir(node.path("")).envs(node.environment()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = crate::process::wait("it writes its log", || {
        let text = fs::read_to_string(node.path("log/node.json")).ok()?;
        text.contains("node started").then_some(text)
    });
    child.kill().unwrap();
    assert!(child.wait_with_output().unwrap().stderr.is_empty());
    for line in lines.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["time"].is_string() && value["level"].is_string() && value["message"].is_string(), "{line}");
    }
    assert!(lines.contains("\"node\":\"logs\""), "{lines}");
}
