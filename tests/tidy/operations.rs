//! The table of docs/operations.md, "What proves it": each test is there, and each change can be applied, once. Whether the
//! test then fails is what `tests/red` shows.

use crate::repository::{exists, read, rust};

/// Test, file, old text and new text of each row.
fn table() -> Vec<[String; 4]> {
    let text = read("docs/operations.md");
    let section = text.split("\n## What proves it\n").nth(1).expect("docs/operations.md says what proves it");
    let section = section.split("\n## ").next().unwrap_or("");
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(|row| {
        let code: Vec<&str> = row.split(" | ").skip(1).flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let [test, file, old, new] = code.as_slice() else { panic!("docs/operations.md: not a row of four: {row}") };
        [test, file, old, new].map(|part| part.to_string())
    })
    .collect()
}

#[test]
fn every_feature_has_a_test_and_a_change_that_can_be_applied() {
    let tests: String = rust().into_iter().map(|source| source.text).collect();
    let table = table();
    assert!(table.len() > 30, "{} rows", table.len());
    for [test, file, old, new] in table {
        let (kind, name) = test.split_once(' ').unwrap_or((&test, ""));
        assert!(["lib", "it", "example", "tidy", "store"].contains(&kind), "{test}: no kind of test");
        let function = name.rsplit("::").next().unwrap_or(name);
        assert!(tests.contains(&format!("fn {function}(")), "docs/operations.md: there is no test {test}");
        assert!(exists(&file), "docs/operations.md: there is no {file}");
        let found = read(&file).matches(&old).count();
        assert_eq!(
            found, 1,
            "docs/operations.md, {test}: `{old}` must be in {file} once; change the row with the code"
        );
        assert_ne!(old, new, "{test}");
    }
}
