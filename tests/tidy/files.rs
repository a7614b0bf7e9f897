//! How files look: openings, lengths, reasons of dependencies, words that have no place here, links that lead somewhere.

use crate::repository::{Source, exists, files, read, rust};

/// Lines of the longest Rust file.
const LINES_MAX: usize = 700;
/// Files that may be longer: up to how many lines, and why.
const LONG: &[(&str, usize, &str)] = &[];

/// Words that belong to one machine or one network and to no file of a public project. Split, so that this file passes.
const MACHINE_WORDS: &[&[&str]] = &[
    &["/tm", "p/"],
    &["/hom", "e/"],
    &["/roo", "t/"],
    &["/wor", "k/"],
    &["/User", "s/"],
    &["C:\\User", "s"],
    &["index.crat", "es.io"],
    &["static.crat", "es.io"],
    &["artif", "actory"],
    &["nexus.rep", "ository"],
    &["FIX", "ME"],
    &["XX", "X:"],
];
/// Where one of them may stand all the same: file, word, reason.
const MACHINE_WORDS_ALLOWED: &[(&str, &str, &str)] = &[];

/// Files whose text is not the project's own.
fn is_foreign(path: &str) -> bool {
    path.starts_with("tests/data/") || path.starts_with("LICENSE") || path == "Cargo.lock"
}

#[test]
fn every_rust_file_opens_by_saying_what_it_is() {
    for Source { path, text } in rust() {
        let first = text.lines().next().unwrap_or("");
        assert!(
            first.starts_with("//! ") && first.len() > 12,
            "{path}: opens with `{first}`; the first line is `//!` and says what the file is, then what it does not do"
        );
    }
}

#[test]
fn no_rust_file_is_long() {
    for Source { path, text } in rust() {
        let (lines, allowed) = (text.lines().count(), LONG.iter().find(|(file, _, _)| *file == path));
        let most = allowed.map_or(LINES_MAX, |(_, lines, _)| *lines);
        assert!(lines <= most, "{path}: {lines} lines, at most {most}: divide it by nouns of the domain");
        if let Some((_, _, reason)) = allowed {
            assert!(lines > LINES_MAX, "{path} ({reason}) is short again: take it off the list in tests/tidy/files.rs");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read("Cargo.toml");
    let (mut in_dependencies, mut before) = (false, "");
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
        } else if in_dependencies && line.contains('=') && line.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            let reason = before.strip_prefix("# ").filter(|text| !text.starts_with('-') && text.len() > 10);
            assert!(reason.is_some(), "Cargo.toml: say in a comment above it why this is needed: {line}");
        }
        before = line;
    }
}

#[test]
fn every_locked_package_comes_from_the_public_registry() {
    for line in read("Cargo.lock").lines() {
        if let Some(source) = line.strip_prefix("source = ") {
            let public = "\"registry+https://github.com/rust-lang/crates.io-index\"";
            assert_eq!(source, public, "Cargo.lock names another registry: it would not build elsewhere");
        }
    }
}

#[test]
fn no_file_speaks_of_a_machine_or_a_registry() {
    let mut complaints = Vec::new();
    for Source { path, text } in files().iter().filter(|file| !is_foreign(&file.path)) {
        for word in MACHINE_WORDS.iter().map(|pieces| pieces.concat()) {
            let allowed = MACHINE_WORDS_ALLOWED.iter().any(|(file, allowed, _)| file == path && *allowed == word);
            for (at, line) in text.lines().enumerate().filter(|(_, line)| !allowed && line.contains(&word)) {
                complaints.push(format!("{path}:{}: `{word}`: {}", at + 1, line.trim()));
            }
        }
    }
    assert!(complaints.is_empty(), "these belong to one machine, not to the project:\n{}", complaints.join("\n"));
}

/// Documents that are linked to and written with the part that they describe.
const WRITTEN_WITH_THEIR_PART: &[&str] = &["examples/embed.rs"];

#[test]
fn every_link_leads_to_a_file() {
    for Source { path, text } in files().iter().filter(|file| file.path.ends_with(".md")) {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or("");
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let mut whole: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
            for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
                if part == ".." {
                    whole.pop();
                } else {
                    whole.push(part);
                }
            }
            let whole = whole.join("/");
            let coming = WRITTEN_WITH_THEIR_PART.contains(&whole.as_str());
            assert!(exists(&whole) || coming, "{path} links to {target}, which is not there");
        }
    }
}

#[test]
fn a_well_kept_repository_has_these_files() {
    let needed = [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "Cargo.lock",
        "rustfmt.toml",
        "clippy.toml",
        ".cargo/config.toml",
        ".ci/run",
        ".ci/full",
        "cross/README.md",
        "docs/architecture.md",
        "docs/replication.md",
        "docs/wire-format.md",
        "docs/ci.md",
        "tests/data/README.md",
    ];
    for path in needed {
        assert!(exists(path), "{path} is missing");
    }
}
