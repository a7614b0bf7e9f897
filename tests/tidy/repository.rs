//! The text of the repository: its files, and of Rust files the code without comments, strings and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are not part of the repository: what building and running leaves.
const LEFT_OUT: &[&str] = &["target", ".git", "data", "backups"];

/// One file, by its path from the top, with `/`.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The top of the repository. Read when run, so that a built test can look at another working copy.
pub(crate) fn root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The text of one file.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// All text files, in order of path.
pub(crate) fn files() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root(), &root(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "the repository was not found at {}", root().display());
    found
}

/// All Rust files.
pub(crate) fn rust() -> Vec<Source> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn walk(top: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("folders of the repository can be listed") {
        let path = entry.expect("its entries too").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if folder == top && LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            if !path.is_symlink() {
                walk(top, &path, found);
            }
        } else if let Ok(text) = fs::read_to_string(&path) {
            let path = path.strip_prefix(top).expect("found below it").to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

/// Modules of `src` that are built for tests only, as path beginnings without `.rs`.
fn test_modules(sources: &[Source]) -> Vec<String> {
    let mut modules = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("src/")) {
        let stem = source.path.trim_end_matches(".rs");
        let inside = match stem.rsplit_once('/') {
            Some((folder, "lib" | "main" | "mod")) => folder,
            _ => stem,
        };
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let name = pair[1].rsplit("mod ").next().and_then(|rest| rest.strip_suffix(';'));
            modules.extend(name.map(|name| format!("{inside}/{name}")));
        }
    }
    modules
}

/// The lines of shipped code: `src` without its tests, comments emptied, strings too. Numbered from 1.
pub(crate) fn shipped() -> Vec<(String, Vec<(usize, String)>)> {
    let sources = rust();
    let tests = test_modules(&sources);
    let is_test = |path: &str| {
        let stem = path.trim_end_matches(".rs");
        tests.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/")))
    };
    sources
        .iter()
        .filter(|source| source.path.starts_with("src/") && !is_test(&source.path))
        .map(|source| (source.path.clone(), outside_tests(&code(&source.text))))
        .collect()
}

/// The same text with comments and the insides of strings left out; line by line at the same place.
pub(crate) fn code(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(length) = raw_string(rest).filter(|_| !out.ends_with(is_word)) {
            length
        } else if first == '"' {
            string(rest)
        } else if let Some(length) = character(rest) {
            length
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        if !rest.starts_with('/') {
            out.push_str("\"\"");
        }
        out.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        rest = &rest[skipped..];
    }
    out
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let start = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    start[hashes..].starts_with('"').then_some(())?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opening = text.len() - start.len() + hashes + 1;
    Some(text[opening..].find(&end).map_or(text.len(), |at| opening + at + end.len()))
}

/// The length of a character literal; lifetimes are none.
fn character(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    if first == '\\' {
        let at = inner[2..].find('\'')?;
        return Some(1 + 2 + at + 1);
    }
    inner[first.len_utf8()..].starts_with('\'').then(|| 1 + first.len_utf8() + 1)
}

/// Lines that do not belong to an item below `#[cfg(test)]`.
fn outside_tests(code: &str) -> Vec<(usize, String)> {
    let (mut kept, mut skipping, mut depth) = (Vec::new(), false, 0i32);
    for (at, line) in code.lines().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            (skipping, depth) = (true, 0);
            continue;
        }
        if !skipping {
            kept.push((at + 1, line.to_string()));
            continue;
        }
        depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
        let attribute = line.trim_start().starts_with("#[");
        if depth == 0 && !attribute && (line.contains('}') || line.trim_end().ends_with([';', ','])) {
            skipping = false;
        }
    }
    kept
}

#[test]
fn comments_strings_and_tests_are_not_code() {
    let text = r##"
use a::b; // std::fs
/* std::fs */ let x = "std::fs \" still"; let c = '"'; let l: &'static str = r#"std::fs " "#;
fn f<'a>(x: &'a str) {}
#[cfg(test)]
mod tests {
    use std::fs;
    fn g() { }
}
#[cfg(test)]
mod bench;
fn last() {}
"##;
    let code = code(text);
    assert_eq!(code.lines().count(), text.lines().count());
    let kept: Vec<String> = outside_tests(&code).into_iter().map(|(_, line)| line).collect();
    assert!(!kept.concat().contains("fs"), "{kept:?}");
    assert!(kept.iter().any(|line| line == "fn last() {}") && kept.iter().any(|line| line.contains("&'a str")));
}
