//! Documents against the code: the mutants of `docs/replication.md` and `docs/storage.md`, the budget of `docs/ci.md`, the
//! commands and the table of documents of the README.

use crate::repository::read;

/// The budget of one run, minutes.
const MINUTES_MAX: u64 = 75;

/// The rows of the tables in a section, without back quotes, the head left out.
fn rows(path: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(path);
    let section = text.split(&format!("\n## {heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("{path} has no section \"{heading}\""));
    let section = section.split("\n## ").next().unwrap_or("");
    let (mut rows, mut in_body) = (Vec::new(), false);
    for line in section.lines() {
        match line.strip_prefix('|') {
            Some(rule) if rule.starts_with("---") => in_body = true,
            Some(cells) if in_body => {
                let cells = cells.trim_end_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
                rows.push(cells.collect());
            }
            Some(_) => {}
            None => in_body = false,
        }
    }
    rows
}

/// The variants of `enum Mutant`, in order.
fn mutants() -> Vec<String> {
    let source = read("src/mutants.rs");
    let body = source.split("pub enum Mutant {").nth(1).and_then(|rest| rest.split('}').next()).expect("enum Mutant");
    body.lines()
        .map(|line| line.trim().trim_end_matches(','))
        .filter(|line| !line.is_empty())
        .map(str::to_string)
        .collect()
}

#[test]
fn every_planted_bug_has_its_story() {
    let told =
        ["docs/replication.md", "docs/storage.md"].map(|path| rows(path, "What each planted bug undoes")).concat();
    let (code, names) = (mutants(), told.iter().map(|cells| cells[0].clone()).collect::<Vec<_>>());
    for name in &code {
        assert!(names.contains(name), "{name} of src/mutants.rs has no row in docs/replication.md or docs/storage.md");
    }
    for name in &names {
        assert!(code.contains(name), "a document tells of {name}, which src/mutants.rs does not have");
    }
    assert_eq!(names.len(), code.len(), "a row of the documents stands twice");
    for cells in told {
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "{}: a cell is empty", cells[0]);
    }
}

#[test]
fn every_planted_bug_is_planted_somewhere() {
    let shipped = crate::repository::shipped();
    for name in mutants() {
        let word = format!("Mutant::{name}");
        let planted = shipped
            .iter()
            .any(|(path, lines)| path != "src/mutants.rs" && lines.iter().any(|(_, line)| line.contains(&word)));
        assert!(planted, "{name} of src/mutants.rs is asked for nowhere: it can break nothing");
    }
}

#[test]
fn the_steps_of_ci_fit_their_budget_and_are_the_ones_that_run() {
    let budget = rows("docs/ci.md", "Budget");
    let minutes: u64 = budget.iter().map(|cells| cells[1].parse::<u64>().expect("whole minutes")).sum();
    assert!(minutes <= MINUTES_MAX, "docs/ci.md sums to {minutes} minutes, at most {MINUTES_MAX}");
    let script = read(".ci/run");
    let steps: Vec<&str> = script.lines().filter_map(|line| line.strip_prefix("step \"")?.split('"').next()).collect();
    let named: Vec<&str> = budget.iter().map(|cells| cells[0].as_str()).collect();
    assert_eq!(named, steps, "left the table of docs/ci.md, right the steps of .ci/run");
}

#[test]
fn the_parts_of_the_long_run_are_the_ones_that_are_written_down() {
    let script = read(".ci/full");
    let listed = script.lines().find_map(|line| line.strip_prefix("parts=(")?.strip_suffix(')')).unwrap_or("");
    let parts: Vec<&str> = listed.split(' ').collect();
    let table = rows("docs/ci.md", "The long run");
    let named: Vec<&str> = table.iter().map(|cells| cells[0].as_str()).collect();
    assert_eq!(named, parts, "left the table of docs/ci.md, right the parts of .ci/full");
    for part in parts {
        assert!(script.contains(&format!("\n{part}() {{")), ".ci/full has no function for its part {part}");
    }
}

#[test]
fn the_two_commands_of_the_readme_are_the_ones_that_ci_runs() {
    let (readme, script) = (read("README.md"), read(".ci/run"));
    for command in ["cargo run --release -- run", "cargo test"] {
        assert!(readme.lines().any(|line| line.trim() == command), "README.md: `{command}` on a line of its own");
    }
    assert!(script.contains("cargo test -- "), ".ci/run must call the README's test command");
}

/// The commands of one enum of `src/cli/args.rs`, as they are typed.
fn commands(name: &str) -> Vec<String> {
    let source = read("src/cli/args.rs");
    let body = source.split(&format!("enum {name} {{\n")).nth(1).unwrap_or_else(|| panic!("enum {name}"));
    let body = body.split("\n}").next().unwrap_or("");
    let variant = |line: &str| -> Option<String> {
        let word = line.strip_prefix("    ")?;
        let word: String = word.chars().take_while(char::is_ascii_alphanumeric).collect();
        word.starts_with(|first: char| first.is_ascii_uppercase()).then(|| word.to_lowercase())
    };
    body.lines().filter_map(variant).filter(|word| word != "client").collect()
}

#[test]
fn the_readme_names_every_command_and_every_document() {
    let readme = read("README.md");
    let commands = [commands("Command"), commands("ClientCommand")].concat();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        assert!(readme.contains(&format!("`{command}`")), "README.md does not name the command `{command}`");
    }
    for file in crate::repository::files() {
        let is_document = file.path.starts_with("docs/") && file.path.ends_with(".md");
        let row = format!("| [{0}]({0}) |", file.path);
        assert!(!is_document || readme.contains(&row), "README.md has no row for {}", file.path);
    }
}

#[test]
fn aliases_that_are_written_down_exist() {
    let aliases = read(".cargo/config.toml");
    for path in [".ci/run", ".ci/full", "CONTRIBUTING.md", "README.md", "docs/ci.md"] {
        for word in [
            "pure-defmt",
            "pure-log",
            "pure",
            "sim-replay",
            "sim-mutants",
            "sim",
            "cuts-replay",
            "cuts-mutants",
            "cuts",
        ] {
            let used = read(path).contains(&format!("cargo {word}"));
            assert!(!used || aliases.contains(&format!("\n{word} = ")), "{path}: `cargo {word}` is no alias");
        }
    }
}
