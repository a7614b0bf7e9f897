//! The client commands against the real HTTP server over loopback, with a store in memory.

use crate::Error;
use crate::cli::api::Api;
use crate::cli::target::{Address, Target};
use crate::cli::{args, documents, export, import};
use crate::net::http::HttpOptions;
use crate::net::http::tests::bench::{Bench, with_server};
use smol::LocalExecutor;
use std::format;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::string::String;
use std::time::Duration;

async fn with_api<T>(address: String, token: Option<&str>, work: impl AsyncFnOnce(Api) -> T) -> T {
    let executor = Rc::new(LocalExecutor::new());
    let target = Target { address: Address::Tcp(address), token: token.map(String::from) };
    let api = Api::new(target, Duration::from_secs(30), executor.clone());
    executor.run(work(api)).await
}

fn commands<F: Future<Output = ()>>(test: impl FnOnce(Bench) -> F) {
    with_server(HttpOptions::default(), test);
}

fn import_of(file: &Path, key: Option<&str>) -> args::Import {
    args::Import { collection: "c/1".into(), file: file.into(), key: key.map(String::from) }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("cbddc-client-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Scratch(path)
    }
}
impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_whole_of_both_files_is_imported() {
    commands(|bench| async move {
        let address = format!("{}", bench.address);
        with_api(address, None, async |api| {
            let wanted = import_of(&data("sf-temps.csv"), Some("date"));
            assert_eq!(import::run(&api, &wanted, false).await.unwrap(), 0);
            assert_eq!(bench.service.documents.borrow().len(), 8759);
            let wanted = import_of(&data("airports.csv"), Some("iata"));
            assert_eq!(import::run(&api, &wanted, true).await.unwrap(), 0);
            assert_eq!(bench.service.documents.borrow().len(), 8759 + 3376);
        })
        .await;
        let at = (String::from("c/1"), String::from("2010/01/01 00:00:00"));
        assert_eq!(bench.service.documents.borrow()[&at].value, br#"{"temp":47.8,"date":"2010/01/01 00:00:00"}"#);
    });
}

#[test]
fn of_two_lines_for_one_key_the_later_wins() {
    let mut text = String::new();
    for nth in 0..20_000 {
        text.push_str(&format!("{{\"key\":\"{}\",\"value\":{nth}}}\n", nth % 1500));
    }
    let file = Scratch::new("order.ndjson", &text);
    commands(|bench| async move {
        with_api(format!("{}", bench.address), None, async |api| {
            assert_eq!(import::run(&api, &import_of(&file.0, None), false).await.unwrap(), 0);
        })
        .await;
        let documents = bench.service.documents.borrow();
        assert_eq!(documents.len(), 1500);
        for ((_, key), held) in documents.iter() {
            let value: u32 = std::str::from_utf8(&held.value).unwrap().parse().unwrap();
            assert!(value >= 18_500 && value % 1500 == key.parse::<u32>().unwrap(), "{key}: {value}");
        }
    });
}

#[test]
fn wrong_lines_make_the_import_fail_in_part() {
    let file =
        Scratch::new("wrong.ndjson", "{\"key\":\"a\",\"value\":1}\nx\n{\"key\":\"b\"}\n{\"key\":\"c\",\"value\":1}\n");
    commands(|bench| async move {
        with_api(format!("{}", bench.address), None, async |api| {
            assert_eq!(import::run(&api, &import_of(&file.0, None), false).await.unwrap(), 1);
            let missing = import_of(Path::new("/nonexistent/x.csv"), Some("k"));
            assert!(import::run(&api, &missing, false).await.is_err());
        })
        .await;
        assert_eq!(bench.service.documents.borrow().len(), 2);
    });
}

#[test]
fn a_store_that_gives_up_ends_the_import_with_what_was_stored() {
    commands(|bench| async move {
        bench.service.group_error.set(Some((2, || Error::persistence("the disk is gone", None))));
        let error = with_api(format!("{}", bench.address), None, async |api| {
            import::run(&api, &import_of(&data("sf-temps.csv"), Some("date")), false).await.unwrap_err()
        })
        .await;
        let stored: usize = bench.service.groups.borrow().iter().sum();
        let said = format!("{error}");
        assert!(said.starts_with("the disk is gone") && said.contains(&format!("{stored} lines are stored")), "{said}");
    });
}

#[test]
fn single_documents_go_there_and_back() {
    commands(|bench| async move {
        with_api(format!("{}", bench.address), None, async |api| {
            let put = |key: &str, document: &str| args::Put {
                collection: "c".into(),
                key: key.into(),
                document: document.into(),
                confirmation: args::Confirmation::default(),
            };
            assert_eq!(documents::put(&api, &put("../a b", " {\"x\":1} "), false).await.unwrap(), 0);
            let said = documents::put(&api, &put("k", "text"), false).await.unwrap_err();
            assert!(format!("{said}").contains("quotes"), "{said}");
            let document = |key: &str| args::Document { collection: "c".into(), key: key.into() };
            assert_eq!(documents::get(&api, &document("../a b")).await.unwrap(), 0);
            let missing = documents::get(&api, &document("none")).await.unwrap_err();
            assert_eq!(missing.code(), "PERSISTENCE_ERROR");
            assert_eq!(format!("{missing}"), "no document none in c");
            assert_eq!(
                export::run(&api, &args::Export { collection: "c".into(), file: None }, false).await.unwrap(),
                0
            );
            let confirmation = args::Confirmation::default();
            let delete = args::Delete { document: document("../a b"), confirmation };
            assert_eq!(documents::delete(&api, &delete, true).await.unwrap(), 0);
        })
        .await;
        assert!(bench.service.documents.borrow().is_empty());
    });
}

#[test]
fn nobody_there_is_said_with_the_next_step() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = smol::block_on(with_api(format!("{free}"), None, async |api| api.get("/health").await.unwrap_err()));
    assert_eq!(error.code(), "NETWORK_ERROR");
    assert!(format!("{error}").contains("cbddc run"), "{error}");
}

#[test]
fn the_token_is_sent() {
    let options = HttpOptions { token: Some("s3cret".into()), ..HttpOptions::default() };
    with_server(options, |bench| async move {
        let address = format!("{}", bench.address);
        assert!(with_api(address.clone(), Some("s3cret"), async |api| api.get("/v1/status").await.is_ok()).await);
        let error = with_api(address, None, async |api| api.get("/v1/status").await.unwrap_err()).await;
        assert_eq!(error.kind(), Some("Unauthorized"));
    });
}
