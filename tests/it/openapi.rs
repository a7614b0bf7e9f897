//! `docs/openapi.json` against the code and a running node: every route of the code is in it with exactly its methods, every
//! status that it names is answered, and what is answered has the shape that it says. Where this fails after a change of
//! the API, the description is what is to be changed.

use crate::client::{Answer, document};
use crate::process::{Node, wait};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const METHODS: [&str; 5] = ["get", "head", "put", "post", "delete"];

struct Description {
    root: Value,
    /// Method, path and status of what was answered so far.
    seen: BTreeSet<(String, String, String)>,
}

fn described() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).expect("docs/openapi.json is JSON")
}

impl Description {
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(name) => {
                let found = self.root.pointer(name.trim_start_matches('#'));
                self.resolve(found.unwrap_or_else(|| panic!("{name} is nowhere")))
            }
            None => value,
        }
    }
    /// What is wrong with a value, by the part of JSON Schema that the description uses.
    fn fault(&self, schema: &Value, value: &Value, at: &str) -> Option<String> {
        let schema = self.resolve(schema);
        let said = |what: &str| Some(format!("{at}: {what}: {value}"));
        if schema.get("const").is_some_and(|only| only != value) {
            return said("another value");
        }
        if schema["enum"].as_array().is_some_and(|all| !all.contains(value)) {
            return said("none of those that are named");
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is = |kind: &&str| match *kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("{at}: the type {other} is unknown to this test"),
        };
        if !kinds.is_empty() && !kinds.iter().any(is) {
            return said(&format!("not of type {kinds:?}"));
        }
        if schema["minimum"].as_i64().zip(value.as_i64()).is_some_and(|(least, is)| is < least) {
            return said("below its minimum");
        }
        if let Some(all) = schema["allOf"].as_array() {
            return all.iter().find_map(|one| self.fault(one, value, at));
        }
        if let Some(one) = schema["oneOf"].as_array()
            && one.iter().filter(|one| self.fault(one, value, at).is_none()).count() != 1
        {
            return said("not exactly one of its shapes");
        }
        if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
            return list.iter().find_map(|one| self.fault(items, one, &format!("{at}[]")));
        }
        let members = value.as_object()?;
        let mut required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(missing) = required.find(|name| !members.contains_key(*name)) {
            return said(&format!("{missing} is missing"));
        }
        members.iter().find_map(|(name, member)| {
            let at = format!("{at}.{name}");
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(schema), _) => self.fault(schema, member, &at),
                (None, Value::Bool(false)) => Some(format!("{at} is not described")),
                (None, schema @ Value::Object(_)) => self.fault(schema, member, &at),
                (None, _) => None,
            }
        })
    }
    /// An answer is one that is described, in its shape.
    #[track_caller]
    fn holds(&mut self, method: &str, path: &str, answer: &Answer) {
        let operation = &self.root["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not described");
        let status = answer.status.to_string();
        let shown = format!("{method} {path} {status}");
        let response = operation["responses"].get(&status);
        let response = self.resolve(response.unwrap_or_else(|| panic!("{shown} is not described: {}", answer.text())));
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            assert!(header["required"] != true || answer.header(name).is_some(), "{shown}: no {name}");
        }
        match response["content"].as_object() {
            None => assert!(answer.body.is_empty(), "{shown}: a body that is not described: {}", answer.text()),
            Some(content) => {
                let media = answer.header("content-type").unwrap_or_default().split(';').next().unwrap().to_string();
                let schema = content.get(&media).unwrap_or_else(|| panic!("{shown}: {media} is not described"));
                if media.ends_with("json") {
                    let fault = self.fault(&schema["schema"], &answer.json(), "answer");
                    assert_eq!(fault, None, "{shown}, in docs/openapi.json");
                }
            }
        }
        self.seen.insert((method.into(), path.into(), status));
    }
    /// Every operation, as method and path.
    fn operations(&self) -> Vec<(String, String)> {
        let paths = self.root["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &Value)| -> Vec<(String, String)> {
            let named = METHODS.iter().filter(|method| item.get(**method).is_some());
            named.map(|method| (method.to_uppercase(), path.clone())).collect()
        };
        paths.iter().flat_map(of).collect()
    }
}

/// The paths that `Route::parse` knows, out of its text.
fn routes_of_the_code() -> BTreeSet<String> {
    let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/net/http/route.rs")).unwrap();
    let body = source.split("fn parse(path: &str)").nth(1).unwrap().split("\n    }\n").next().unwrap();
    let arms = body.lines().filter_map(|line| line.trim().strip_prefix('[')?.split_once("] =>"));
    let path = |segments: &str| -> String {
        let segment = |segment: &str| match segment.trim() {
            "node_id" => "/{nodeId}".to_string(),
            literal if literal.starts_with('"') => format!("/{}", literal.trim_matches('"')),
            name => format!("/{{{name}}}"),
        };
        segments.split(',').map(segment).collect()
    };
    arms.filter(|(segments, _)| !segments.contains("..")).map(|(segments, _)| path(segments)).collect()
}

/// A path with something in the place of its parameters.
fn filled(path: &str) -> String {
    path.replace("{collection}", "c").replace("{key}", "k").replace("{nodeId}", "nobody")
}

#[test]
fn every_route_and_method_of_the_code_is_described_and_no_other() {
    let description = Description { root: described(), seen: BTreeSet::new() };
    let mut methods = BTreeMap::<String, BTreeSet<String>>::new();
    for (method, path) in description.operations() {
        methods.entry(path).or_default().insert(method);
    }
    let named: BTreeSet<String> = methods.keys().cloned().collect();
    let code = routes_of_the_code();
    assert!(code.len() > 10 && code.contains("/v1/peers/{nodeId}"), "{code:?}");
    assert_eq!(named, code, "docs/openapi.json on the left, src/net/http/route.rs on the right");
    let node = Node::new("methods").started();
    for (path, methods) in methods {
        let answer = node.ask("PATCH", &filled(&path), &[], b"").expect(405);
        assert_eq!(answer.problem(), "REQUEST_ERROR/MethodNotAllowed");
        let allowed = answer.header("allow").unwrap().split(", ").map(str::to_string).collect();
        assert_eq!(methods, allowed, "{path}: docs/openapi.json on the left, the node on the right");
    }
}

#[test]
fn every_example_has_the_shape_that_it_is_an_example_of() {
    fn walk(description: &Description, value: &Value, at: &str, found: &mut usize) {
        if let (Some(schema), Some(example)) = (value.get("schema"), value.get("example")) {
            assert_eq!(description.fault(schema, example, at), None);
            *found += 1;
        }
        match value {
            Value::Object(members) => {
                members.iter().for_each(|(name, member)| walk(description, member, &format!("{at}/{name}"), found));
            }
            Value::Array(list) => list.iter().for_each(|one| walk(description, one, at, found)),
            _ => {}
        }
    }
    let description = Description { root: described(), seen: BTreeSet::new() };
    let mut found = 0;
    walk(&description, &description.root, "", &mut found);
    assert!(found > 12, "{found} examples");
}

#[test]
fn every_status_that_is_described_is_answered_in_its_shape() {
    let mut description = Description { root: described(), seen: BTreeSet::new() };
    let operations = description.operations();
    let token = "s3cret-token-42";
    let guarded = Node::new("described-guarded").set("Api__TokenFile", "token");
    fs::write(guarded.path("token"), token).unwrap();
    let guarded = guarded.started();
    let mut node = Node::new("described").started();
    node.keep_port();
    for (method, path) in &operations {
        let origin = [("Origin", "http://evil.example")];
        description.holds(method, path, &node.ask(method, &filled(path), &origin, b"").expect(400));
        if path.starts_with("/v1") {
            description.holds(method, path, &guarded.ask(method, &filled(path), &[], b"").expect(401));
        }
    }
    let (one, many) = ("/v1/collections/{collection}/documents/{key}", "/v1/collections/{collection}/documents");
    let ask = |description: &mut Description,
               method: &str,
               path: &str,
               target: &str,
               headers: &[(&str, &str)],
               body: &[u8],
               status: u16| {
        let answer = node.ask(method, target, headers, body).expect(status);
        description.holds(method, path, &answer);
        // What a reader is answered, HEAD is too.
        if method == "GET" && description.root["paths"][path].get("head").is_some() && status != 429 {
            description.holds("HEAD", path, &node.ask("HEAD", target, headers, b"").expect(status));
        }
        answer
    };
    let at = document("c", "k");
    let d = &mut description;
    ask(d, "GET", one, &at, &[], b"", 404);
    let version = ask(d, "PUT", one, &at, &[], b"{\"n\":1}", 201).version().to_string();
    ask(d, "PUT", one, &at, &[], b"{\"n\":2}", 200);
    ask(d, "PUT", one, &at, &[("If-Match", version.as_str())], b"1", 412);
    ask(d, "PUT", one, &at, &[], &[b'1'; 300_000], 413);
    ask(d, "PUT", one, &at, &[("Content-Encoding", "gzip")], b"1", 415);
    let version = ask(d, "GET", one, &at, &[], b"", 200).version().to_string();
    ask(d, "GET", one, &at, &[("If-None-Match", version.as_str())], b"", 304);
    ask(d, "GET", one, &at, &[("If-Match", "\"0-0\"")], b"", 412);
    ask(d, "DELETE", one, &at, &[("If-Match", "\"0-0\"")], b"", 412);
    ask(d, "DELETE", one, &document("c", "gone"), &[], b"", 204);
    let unconfirmed = format!("{}?confirmedBy=1&timeout=10ms", document("c", "alone"));
    ask(d, "PUT", one, &unconfirmed, &[], b"1", 504);
    ask(d, "DELETE", one, &unconfirmed, &[], b"", 504);
    ask(d, "PUT", one, &document("c", "alone"), &[], b"1", 201);
    ask(d, "GET", many, "/v1/collections/c/documents?limit=1", &[], b"", 200);
    let lines = [("Content-Type", "application/x-ndjson")];
    let posted = b"{\"key\":\"a\",\"value\":1}\nno line\n";
    ask(d, "POST", many, "/v1/collections/c/documents", &lines, posted, 200);
    ask(d, "POST", many, "/v1/collections/c/documents", &[], posted, 415);
    ask(d, "GET", "/v1/collections", "/v1/collections", &[], b"", 200);
    ask(d, "GET", "/v1/changes", "/v1/changes", &[], b"", 200);
    let foreign =
        guarded.ask("GET", "/v1/changes?timeout=0s", &[("Authorization", "Bearer s3cret-token-42")], b"").json();
    let foreign = format!("/v1/changes?since={}", foreign["next"].as_str().unwrap());
    ask(d, "GET", "/v1/changes", &foreign, &[], b"", 410);
    ask(d, "POST", "/v1/backups", "/v1/backups", &[], b"", 201);
    ask(d, "POST", "/v1/integrity-check", "/v1/integrity-check", &[], b"", 200);
    ask(d, "GET", "/v1/recovered", "/v1/recovered", &[], b"", 200);
    ask(d, "POST", "/v1/recovered/acknowledge", "/v1/recovered/acknowledge", &[], b"", 204);
    ask(d, "POST", "/v1/recovered/apply", "/v1/recovered/apply", &[], b"", 200);
    ask(d, "POST", "/v1/recovered/drop", "/v1/recovered/drop?collection=c&key=k", &[], b"", 200);
    let streams: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = node.connect();
            stream.send("GET", "/v1/changes?since=now", &[("Accept", "text/event-stream")], b"").unwrap();
            stream
        })
        .collect();
    let busy = wait("all places for readers are taken", || {
        Some(node.ask("GET", "/v1/changes?timeout=0s", &[], b"")).filter(|answer| answer.status == 429)
    });
    d.holds("GET", "/v1/changes", &busy);
    drop(streams);

    // Members: one that is linked, and another device under its name.
    let mut peer = Node::new("described-peer").peers(&[&node]).started();
    node.wait_linked(&peer);
    let confirmed = format!("{}?confirmedBy=1&timeout=60s", document("c", "alone"));
    ask(d, "DELETE", one, &confirmed, &[], b"", 200);
    for path in ["/v1/status", "/v1/site", "/v1/peers", "/health", "/livez", "/readyz", "/metrics"] {
        wait("it is well", || (node.ask("GET", path, &[], b"").status == 200).then_some(()));
        ask(d, "GET", path, path, &[], b"", 200);
    }
    ask(d, "DELETE", "/v1/peers/{nodeId}", "/v1/peers/nobody", &[], b"", 404);
    ask(d, "POST", "/v1/peers/{nodeId}/replace", "/v1/peers/described-peer/replace", &[], b"", 404);
    peer.stop_cleanly();
    let second = Node::new("described-peer").peers(&[&node]).started();
    let replaced = wait("another device was refused under its name", || {
        let answer = node.ask("POST", "/v1/peers/described-peer/replace", &[], b"");
        (answer.status == 200).then_some(answer)
    });
    d.holds("POST", "/v1/peers/{nodeId}/replace", &replaced);
    node.wait_linked(&second);
    ask(d, "DELETE", "/v1/peers/{nodeId}", "/v1/peers/described-peer", &[], b"", 204);

    // A disk without room: not ready, not healthy. Without the queue that is an error, with it a write waits.
    let without_room = |name: &str, queue: &str| {
        let node = Node::new(name).set("Persistence__MinFreeMb", "67108864");
        node.set("Sync__EnableOfflineQueue", queue).started()
    };
    let full = without_room("described-full", "false");
    description.holds("PUT", one, &full.put("c", "k", "1").expect(507));
    for path in ["/health", "/readyz"] {
        for method in ["GET", "HEAD"] {
            description.holds(method, path, &full.ask(method, path, &[], b"").expect(503));
        }
    }

    let queues = without_room("described-queues", "true");
    description.holds("PUT", one, &queues.put("c", "k", "1").expect(202));
    for method in ["GET", "HEAD"] {
        let answer = queues.ask(method, &at, &[], b"").expect(200);
        assert_eq!(answer.header("cbddc-queued"), Some("true"), "{method}");
        description.holds(method, one, &answer);
    }
    for method in ["PUT", "DELETE"] {
        description.holds(method, one, &queues.ask(method, &at, &[("If-Match", "*")], b"1").expect(503));
    }
    description.holds("DELETE", one, &queues.delete("c", "k").expect(202));

    let described: BTreeSet<(String, String, String)> = (operations.into_iter())
        .flat_map(|(method, path)| {
            let responses = description.root["paths"][&path][method.to_lowercase()]["responses"].as_object().unwrap();
            let named = responses.keys().filter(|status| *status != "default").cloned().collect::<Vec<_>>();
            named.into_iter().map(move |status| (method.clone(), path.clone(), status))
        })
        .collect();
    let unseen: Vec<_> = described.difference(&description.seen).collect();
    assert!(unseen.is_empty(), "described and never answered: {unseen:?}");
}
