//! Reads declarations out of the source, so that a document can be held against them. Knows rustfmt's layout, no more.

use std::fs;
use std::path::Path;

/// A field of a struct.
#[derive(Debug, PartialEq)]
pub(crate) struct Field {
    /// Its name.
    pub(crate) name: String,
    /// Its Rust type, followed by `fixint` where the encoding is fixed.
    pub(crate) kind: String,
}

/// The text of a file of the repository.
pub(crate) fn read(path: &str) -> String {
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn block<'a>(source: &'a str, opening: &str) -> Vec<&'a str> {
    let start = source.find(opening).unwrap_or_else(|| panic!("no `{opening}` in the source"));
    let lines = source[start..].lines().skip(1);
    lines.take_while(|line| *line != "}").map(str::trim).collect()
}

/// The fields of `pub struct NAME { .. }`, in order.
pub(crate) fn fields(source: &str, name: &str) -> Vec<Field> {
    let (mut fields, mut fixed) = (Vec::new(), false);
    for line in block(source, &format!("pub struct {name} {{")) {
        if line.contains("postcard::fixint::le") {
            fixed = true;
        } else if let Some((name, kind)) = line.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
            let kind = format!("{}{}", kind.trim_end_matches(','), if fixed { " fixint" } else { "" });
            fields.push(Field { name: name.to_string(), kind });
            fixed = false;
        }
    }
    fields
}

/// The variants of `pub enum NAME { .. }`, in order.
pub(crate) fn variants(source: &str, name: &str) -> Vec<String> {
    let mut depth = 0;
    let mut variants = Vec::new();
    for line in block(source, &format!("pub enum {name} {{")) {
        if depth == 0 && line.starts_with(|first: char| first.is_ascii_uppercase()) {
            let end = line.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(line.len());
            variants.push(line[..end].to_string());
        }
        if !line.starts_with("//") {
            depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
        }
    }
    variants
}

/// Names of the `pub const` whose comment says "Protocol constant".
pub(crate) fn protocol_constants(limits: &str) -> Vec<String> {
    let (mut names, mut comment) = (Vec::new(), String::new());
    for line in limits.lines() {
        if let Some(text) = line.strip_prefix("///") {
            comment.push_str(text);
        } else {
            let name = line.strip_prefix("pub const ").and_then(|rest| rest.split(':').next());
            names.extend(name.filter(|_| is_protocol(&comment)).map(str::to_string));
            comment.clear();
        }
    }
    names
}

fn is_protocol(comment: &str) -> bool {
    let words: Vec<&str> = comment.split_whitespace().collect();
    words.windows(2).any(|pair| pair[0] == "Protocol" && pair[1].starts_with("constant"))
}
