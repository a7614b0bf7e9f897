//! What a collection may be told: how long its documents live, and whether they leave the node.

use crate::client::{document, documents};
use crate::process::{Node, wait};
use serde_json::{Value, json};

fn bulk(node: &Node, collection: &str, lines: &str) -> Value {
    let ndjson = [("Content-Type", "application/x-ndjson")];
    node.ask("POST", &documents(collection), &ndjson, lines.as_bytes()).expect(200).json()
}
fn keys(node: &Node, collection: &str) -> Vec<String> {
    node.everything(collection).into_iter().map(|(key, _, _)| key).collect()
}
/// How many documents a collection is said to have.
fn counted(node: &Node, collection: &str) -> u64 {
    let listed = node.page("/v1/collections");
    let listed = listed["collections"].as_array().unwrap().clone();
    let found = listed.iter().find(|one| one["name"] == collection);
    found.map_or(0, |one| one["documents"].as_u64().unwrap())
}

#[test]
fn documents_of_a_collection_expire_as_it_says_or_as_they_say_themselves_on_every_node() {
    let left = Node::new("ttl-a").set("Collections__short__TtlSeconds", "3").started();
    // This one knows nothing of that: the time travels with the document.
    let right = Node::new("ttl-b").peers(&[&left]).started();
    left.wait_linked(&right);
    let now = left.page("/v1/changes?since=now&timeout=0s")["next"].as_str().unwrap().to_string();
    left.put("short", "alone", "1").expect(201);
    bulk(&left, "short", "{\"key\":\"bulk-1\",\"value\":1}\n{\"key\":\"bulk-2\",\"value\":1}\n");
    left.ask("PUT", &format!("{}?ttl=3600", document("short", "longer")), &[], b"1").expect(201);
    left.ask("PUT", &format!("{}?ttl=1", document("other", "shorter")), &[], b"1").expect(201);
    left.put("other", "for-ever", "1").expect(201);
    right.put("short", "of-the-other", "1").expect(201);
    wait("they arrive", || {
        (right.value("short", "longer").is_some() && right.value("other", "for-ever").is_some()).then_some(())
    });
    wait("it arrives", || left.value("short", "of-the-other"));
    for node in [&left, &right] {
        wait(&format!("they expire on {}", node.name), || {
            (keys(node, "short") == ["longer", "of-the-other"] && keys(node, "other") == ["for-ever"]).then_some(())
        });
        assert_eq!((counted(node, "short"), counted(node, "other")), (2, 1));
        node.get("short", "alone").expect(404);
    }
    // Programs that follow the feed are told.
    let deleted = wait("the feed tells that it is gone", || {
        let changes = left.page(&format!("/v1/changes?since={now}&limit=1000&timeout=0s"));
        let changes = changes["changes"].as_array().unwrap().clone();
        changes.iter().find(|change| change["key"] == "alone" && change["deleted"] == true).cloned()
    });
    assert_eq!(deleted["collection"], "short");
    // The key can be used again, and condition and version are those of a new document.
    let again = [("If-None-Match", "*")];
    left.ask("PUT", &format!("{}?ttl=3600", document("short", "alone")), &again, b"2").expect(201);
    wait("it arrives", || right.value("short", "alone").filter(|value| value == "2"));
    let alarms = |node: &Node| node.page("/health")["entries"]["storage"]["data"]["digestAlarms"].clone();
    assert_eq!((alarms(&left), alarms(&right)), (json!(0), json!(0)));
}

#[test]
fn a_local_collection_works_like_any_other_and_never_leaves_the_node() {
    let mut left = Node::new("scope-a").set("Collections__scratch__Scope", "local").started();
    left.keep_port();
    // Here the collection of the same name is an ordinary one.
    let right = Node::new("scope-b").peers(&[&left]).started();
    left.wait_linked(&right);
    left.put("scratch", "a", "1").expect(201);
    left.put("scratch", "a", "2").expect(200);
    bulk(&left, "scratch", "{\"key\":\"b\",\"value\":1}\n{\"key\":\"c\",\"value\":1}\n{\"key\":\"a\",\"value\":3}\n");
    left.ask("PUT", &format!("{}?ttl=1", document("scratch", "brief")), &[], b"1").expect(201);
    left.delete("scratch", "c").expect(204);
    let version = left.get("scratch", "b");
    left.ask("PUT", &document("scratch", "b"), &[("If-Match", version.version())], b"9").expect(200);
    left.ask("PUT", &document("scratch", "b"), &[("If-Match", version.version())], b"0").expect(412);
    wait("it expires", || (keys(&left, "scratch") == ["a", "b"]).then_some(()));
    assert_eq!(counted(&left, "scratch"), 2);
    let exported = String::from_utf8(left.says(&["export", "scratch"])).unwrap();
    assert_eq!(exported.lines().count(), 2, "{exported}");
    let feed = left.page("/v1/changes?collection=scratch&timeout=0s");
    assert!(feed["changes"].as_array().unwrap().iter().any(|change| change["key"] == "a"), "{feed}");

    // What is shared passes, what is local does not, in neither direction.
    right.put("scratch", "of-the-other", "1").expect(201);
    left.put("shared", "k", "1").expect(201);
    wait("what is shared arrives", || right.value("shared", "k"));
    wait("it is confirmed", || left.peer("scope-b").filter(|peer| peer["unconfirmedChanges"] == 0));
    wait("the other is confirmed", || right.peer("scope-a").filter(|peer| peer["unconfirmedChanges"] == 0));
    assert_eq!(keys(&right, "scratch"), ["of-the-other"]);
    assert_eq!(keys(&left, "scratch"), ["a", "b"], "one name, two scopes");

    // It is as durable as anything else.
    left.kill();
    left.start();
    assert_eq!(left.value("scratch", "a").as_deref(), Some("3"));
    assert_eq!(keys(&left, "scratch"), ["a", "b"]);
    right.wait_linked(&left);
    let alarms = |node: &Node| node.page("/health")["entries"]["storage"]["data"]["digestAlarms"].clone();
    assert_eq!((alarms(&left), alarms(&right)), (json!(0), json!(0)));
}
