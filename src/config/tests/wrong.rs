//! Each configuration key, wrong in each way, wherever it is written: the table of the table of keys.

use super::super::keys::{COLLECTION_KEYS, KEYS, Key};
use super::super::value::Kind;
use super::*;
use crate::limits::NODE_ID_BYTES_MAX;

/// Values of which none fits a kind, and what the error says is allowed.
fn wrong_values(kind: &Kind) -> (Vec<Value>, String) {
    let long = "x".repeat(5_000);
    match kind {
        Kind::Flag => (vec![json!(0), json!(1), json!("true"), json!("yes")], "true or false".into()),
        Kind::Port => (
            vec![json!(-1), json!(65_536), json!(1.5), json!("5000"), json!(1e300), json!(u64::MAX)],
            "a port (1 to 65535)".into(),
        ),
        Kind::Whole { min, max, unit } => {
            let mut values = vec![json!(-1), json!(max + 1), json!(1.5), json!("3"), json!(1e300), json!(u64::MAX)];
            if *min > 0 {
                values.push(json!(min - 1));
            }
            (values, format!("a whole number of {unit} ({min} to {max})"))
        }
        Kind::Name => {
            let values = vec![json!("two words"), json!("a\nb"), json!("x".repeat(NODE_ID_BYTES_MAX + 1)), json!(7)];
            (values, "a node name".into())
        }
        Kind::BoardName => (vec![json!("toaster"), json!(7)], "a known board".into()),
        Kind::File => (vec![json!("  "), json!("a\0b"), json!(long), json!(7)], "a path".into()),
        Kind::Ip => (vec![json!("300.1.1.1"), json!("gateway"), json!("1.2.3.4:5"), json!(7)], "an IP address".into()),
        Kind::Socket => (
            vec![json!("127.0.0.1"), json!("127.0.0.1:70000"), json!("gateway:80"), json!(":80"), json!(5080)],
            "an IP address with a port".into(),
        ),
        Kind::Endpoints { max } => {
            let one = |text: &str| json!([text]);
            let values = vec![
                one("gateway"),
                one(":5000"),
                one("a:0"),
                one("a:70000"),
                one("a b:1"),
                one(&format!("{long}:1")),
                json!([5]),
                json!(["a:1", null]),
                json!(vec!["a:1"; max + 1]),
            ];
            (values, "a list of at most".into())
        }
        Kind::Broadcasts { max } => {
            let values =
                vec![json!(["gateway"]), json!(["10.0.0.255:0"]), json!([5]), json!(vec!["10.0.0.255"; max + 1])];
            (values, "a list of at most".into())
        }
        Kind::HostNames { max } => {
            let values = vec![
                json!(["gateway.lan:8080"]),
                json!(["*.lan"]),
                json!([""]),
                json!(["http://gateway"]),
                json!(["x".repeat(254)]),
                json!([5]),
                json!(vec!["gateway"; max + 1]),
            ];
            (values, "a list of at most".into())
        }
        Kind::OneOf(words) => (vec![json!("Chatty"), json!(7), json!(" ")], format!("one of {}", words.join(", "))),
    }
}

/// What no kind takes; `""` and lists are added where the kind does not.
fn wrong_for_all(key: &Key) -> Vec<Value> {
    let mut values = vec![json!({}), json!([[]]), json!({ "a": 1 })];
    if !key.kind.is_list() {
        values.extend([json!([]), json!("")]);
    }
    if !key.or_null {
        values.push(Value::Null);
    }
    values
}

/// The file that says one key.
fn file_with(path: &str, value: &Value) -> Result<Config, Error> {
    let value = path.rsplit('.').fold(value.clone(), |inner, name| json!({ name: inner }));
    file(&json!({ "CBDDC": value }).to_string())
}

#[track_caller]
fn is_said(said: &str, path: &str, allowed: &str, value: &Value) {
    assert!(said.starts_with(&format!("CBDDC.{path}: ")), "{path} = {value}: {said}");
    assert!(said.contains(allowed), "{path} = {value} does not say what is allowed: {said}");
    assert!(!said.chars().any(char::is_control) && said.chars().count() < 400, "{path} = {value}: {said}");
}

fn every_key() -> impl Iterator<Item = (String, &'static Key)> {
    let fixed = KEYS.iter().map(|key| (key.path.to_string(), key));
    fixed.chain(COLLECTION_KEYS.iter().map(|key| (format!("Collections.c.{}", key.path), key)))
}

#[test]
fn each_key_of_a_file_wrong_in_each_way_is_refused_with_what_is_allowed() {
    for (path, key) in every_key() {
        let (values, allowed) = wrong_values(&key.kind);
        for value in values.iter().chain(&wrong_for_all(key)) {
            let error = file_with(&path, value).err().unwrap_or_else(|| panic!("{path} = {value} is taken"));
            assert_eq!(error.code(), "CONFIG_ERROR");
            is_said(&error.to_string(), &path, &allowed, value);
        }
    }
}

#[test]
fn each_key_of_a_program_wrong_in_each_way_is_refused_alike() {
    for (path, key) in every_key() {
        let (values, allowed) = wrong_values(&key.kind);
        for value in &values {
            let error = Config::builder().set(&path, value.clone()).build().unwrap_err();
            is_said(&error.to_string(), &path, &allowed, value);
        }
    }
}

#[test]
fn each_key_of_the_environment_wrong_in_each_way_is_refused_and_the_variable_named() {
    for (path, key) in every_key() {
        let variable = format!("CBDDC__{}", path.replace('.', "__"));
        let (values, allowed) = wrong_values(&key.kind);
        for value in &values {
            // In the environment a number and a flag have no quotes, and a list may be written as JSON.
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if key.kind.check(&key.kind.read_text(&text, key.or_null), key.or_null).is_ok() {
                continue;
            }
            let said = environment(&[(&variable, &text)]).unwrap_err().to_string();
            is_said(&said, &path, &allowed, value);
            assert!(said.ends_with(&format!("(environment {variable})")), "{said}");
        }
    }
}

#[test]
fn each_key_misspelt_is_suggested_and_each_in_another_section_is_found() {
    for (path, key) in every_key().filter(|(_, key)| key.name().len() > 3) {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", &path));
        let joined = |name: &str| if section.is_empty() { name.to_string() } else { format!("{section}.{name}") };
        // A letter doubled, one left out, two in the wrong order.
        let (first, last) = name.split_at(name.len() - 1);
        let swapped: String =
            name.chars().skip(1).take(1).chain(name.chars().take(1)).chain(name.chars().skip(2)).collect();
        // Keys are taken in any case: "tT" for "Tt" is no slip.
        let slips = [format!("{name}{last}"), first.to_string(), swapped];
        for slip in slips.iter().filter(|slip| !slip.eq_ignore_ascii_case(name)) {
            let said = file_with(&joined(slip), &json!(1)).unwrap_err().to_string();
            assert!(said.contains("unknown") && said.ends_with("?"), "{slip}: {said}");
            assert!(said.contains(&format!("did you mean {name}?")), "{slip}: {said}");
        }
        if !section.is_empty() && !section.starts_with("Collections") {
            let elsewhere = if section == "Sync" { "Logging" } else { "Sync" };
            if !KEYS.iter().any(|other| other.section() == elsewhere && other.name() == key.name()) {
                let said = file_with(&format!("{elsewhere}.{name}"), &json!(1)).unwrap_err().to_string();
                assert!(said.contains("unknown key; did you mean "), "{said}");
            }
        }
    }
}

#[test]
fn the_guides_own_file_starts_on_every_board() {
    for board in crate::board::Board::names() {
        let text = GUIDE.replace("\"Board\": \"generic\"", &format!("\"Board\": \"{board}\""));
        let config = file(&text).unwrap_or_else(|error| panic!("{board}: {error}"));
        assert_eq!(config.board.name, board);
        for warning in &config.warnings {
            assert!(warning.contains("above what board") && warning.contains("is used"), "{warning}");
        }
        let budget = &config.board.budget;
        assert!(
            config.persistence.cache_mib <= budget.cache_mib && config.sync.max_queue_size <= budget.queue_operations
        );
    }
}

#[test]
fn thresholds_that_are_reversed_are_one_threshold_whoever_wrote_which() {
    let text = r#"{"CBDDC":{"Cluster":{"PeerConfirmationLagThresholdMs":90000}}}"#;
    let variable = ("CBDDC__Cluster__PeerConfirmationCriticalLagThresholdMs".to_string(), "60000".to_string());
    let config = Config::builder().file(text, "/f").environment([variable]).build().unwrap();
    assert_eq!((config.cluster.lag_threshold_ms, config.cluster.critical_lag_threshold_ms), (90_000, 90_000));
    assert_eq!(
        config.warnings,
        [
            "CBDDC.Cluster.PeerConfirmationCriticalLagThresholdMs: 60000 is below PeerConfirmationLagThresholdMs, 90000 is used"
        ]
    );
    let key = "CBDDC.Cluster.PeerConfirmationCriticalLagThresholdMs";
    let shown = config.settings().iter().find(|setting| setting.key == key).unwrap();
    assert_eq!((shown.value.clone(), shown.origin.to_string()), (json!(90_000), "file /f".to_string()));
    // Above the default of the critical one, without a word about that.
    let config = file(r#"{"CBDDC":{"Cluster":{"PeerConfirmationLagThresholdMs":500000}}}"#).unwrap();
    assert_eq!(config.cluster.critical_lag_threshold_ms, 500_000);
    assert_eq!(config.warnings.len(), 1);
    let equal = Config::builder().lag_thresholds_ms(5_000, 5_000).build().unwrap();
    assert!(equal.warnings.is_empty());
}
