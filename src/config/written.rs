//! What was written: a file, the environment, a board, a program, each read into one layer of checked values.
//!
//! Layers know nothing of each other; which one wins is for `meaning`.

use super::Origin;
use super::keys::{COLLECTION_KEYS, COLLECTIONS, KEYS, Key, near_miss, sections};
use super::value::wrong;
use crate::Error;
use crate::board::Board;
use crate::limits::COLLECTION_BYTES_MAX;
use json_comments::StripComments;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

/// A checked value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// All that one source says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    /// By the path of the key.
    pub(crate) settings: BTreeMap<&'static str, Written>,
    /// By collection, then by the name of the key.
    pub(crate) collections: BTreeMap<String, BTreeMap<&'static str, Written>>,
}

/// Collections that a configuration may name.
const COLLECTIONS_MAX: usize = 1024;
/// Every variable that overrides a key begins so.
const VARIABLE_START: &str = "CBDDC__";

impl Layer {
    /// Reads the text of `appsettings.json`: `//` comments allowed, sections beside `CBDDC` ignored.
    pub(crate) fn from_file(text: &str, origin: &Origin) -> Result<Layer, Error> {
        // Editors on Windows begin files with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let root: Value = serde_json::from_reader(StripComments::new(text.as_bytes())).map_err(|error| {
            Error::configuration(format!("{origin}: not JSON: {error}; correct it there and try 'cbddc config check'"))
        })?;
        let Value::Object(root) = root else {
            return Err(Error::configuration(format!("{origin}: not a JSON object; write {{ \"CBDDC\": {{ … }} }}")));
        };
        let mut layer = Layer::default();
        let mut seen = false;
        for (name, section) in root.iter().filter(|(name, _)| name.eq_ignore_ascii_case("CBDDC")) {
            if std::mem::replace(&mut seen, true) {
                return Err(Error::configuration(format!(
                    "{origin}: CBDDC is written twice, the second time as {name}"
                )));
            }
            let Value::Object(keys) = section else {
                return Err(Error::configuration(format!(
                    "CBDDC: {} is not a JSON object",
                    super::value::shown(section)
                )));
            };
            layer.read_sections(keys, origin)?;
        }
        Ok(layer)
    }

    fn read_sections(&mut self, keys: &Map<String, Value>, origin: &Origin) -> Result<(), Error> {
        for (name, value) in keys {
            if let Some(key) = find("", name) {
                self.insert(key, value, origin)?;
                continue;
            }
            let section = section_named(name)?;
            let Value::Object(members) = value else {
                return Err(wrong(section, &format!("{} is not a JSON object", super::value::shown(value))));
            };
            for (member, value) in members {
                if section == COLLECTIONS {
                    self.read_collection(member, value, origin)?;
                } else {
                    self.insert(key_named(section, member)?, value, origin)?;
                }
            }
        }
        Ok(())
    }

    fn read_collection(&mut self, collection: &str, value: &Value, origin: &Origin) -> Result<(), Error> {
        let Value::Object(members) = value else {
            let what = format!("{} is not a JSON object like {{ \"TtlSeconds\": 60 }}", super::value::shown(value));
            return Err(wrong(&format!("{COLLECTIONS}.{collection}"), &what));
        };
        for (name, value) in members {
            self.insert_in_collection(collection, name, value, origin)?;
        }
        Ok(())
    }

    fn insert_in_collection(
        &mut self,
        collection: &str,
        name: &str,
        value: &Value,
        origin: &Origin,
    ) -> Result<(), Error> {
        let path = format!("{COLLECTIONS}.{collection}");
        if collection.is_empty() || collection.len() > COLLECTION_BYTES_MAX {
            return Err(wrong(&path, &format!("not a collection name (1 to {COLLECTION_BYTES_MAX} bytes)")));
        }
        let key = COLLECTION_KEYS.iter().find(|key| key.path.eq_ignore_ascii_case(name)).ok_or_else(|| {
            unknown(
                &format!("{path}.{name}"),
                "key",
                near_miss(name, COLLECTION_KEYS.iter().map(|key| key.path)),
                &path,
            )
        })?;
        let path = format!("{path}.{}", key.path);
        let value = checked(key, &path, value, origin)?;
        if !self.collections.contains_key(collection) && self.collections.len() >= COLLECTIONS_MAX {
            return Err(wrong(COLLECTIONS, &format!("more than {COLLECTIONS_MAX} collections")));
        }
        let keys = self.collections.entry(collection.to_string()).or_default();
        match keys.insert(key.path, Written { value, origin: origin.clone() }) {
            Some(before) => Err(twice(&path, &before.origin)),
            None => Ok(()),
        }
    }

    fn insert(&mut self, key: &'static Key, value: &Value, origin: &Origin) -> Result<(), Error> {
        let value = checked(key, key.path, value, origin)?;
        match self.settings.insert(key.path, Written { value, origin: origin.clone() }) {
            Some(before) => Err(twice(key.path, &before.origin)),
            None => Ok(()),
        }
    }

    /// Reads `CBDDC__Section__Key` pairs; everything else is not ours. A list is one value (`a,b` or JSON) or one
    /// variable for each item (`…__0`, `…__1`).
    pub(crate) fn from_environment(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Layer, Error> {
        let mut layer = Layer::default();
        let mut items: BTreeMap<&'static str, (BTreeMap<usize, Value>, Origin)> = BTreeMap::new();
        for (variable, text) in pairs {
            let ours =
                variable.get(..VARIABLE_START.len()).is_some_and(|start| start.eq_ignore_ascii_case(VARIABLE_START));
            if !ours {
                continue;
            }
            let parts: Vec<&str> = variable[VARIABLE_START.len()..].split("__").collect();
            let origin = Origin::Environment(variable.clone());
            match parts.as_slice() {
                [name] => {
                    let key = find("", name).ok_or_else(|| unknown_variable(&variable, name))?;
                    layer.insert(key, &key.kind.read_text(&text, key.or_null), &origin)?;
                }
                [section, rest @ .., name] if section.eq_ignore_ascii_case(COLLECTIONS) && !rest.is_empty() => {
                    let key = COLLECTION_KEYS.iter().find(|key| key.path.eq_ignore_ascii_case(name));
                    let value = key.map_or(Value::Null, |key| key.kind.read_text(&text, key.or_null));
                    layer.insert_in_collection(&rest.join("__"), name, &value, &origin)?;
                }
                [section, name] => {
                    let key = key_named(section_named(section)?, name)?;
                    layer.insert(key, &key.kind.read_text(&text, key.or_null), &origin)?;
                }
                [section, name, index] => {
                    let key = key_named(section_named(section)?, name)?;
                    let index = index.parse::<usize>().ok().filter(|_| key.kind.is_list());
                    let index = index.ok_or_else(|| unknown_variable(&variable, name))?;
                    let list = items.entry(key.path).or_insert_with(|| (BTreeMap::new(), origin.clone()));
                    list.0.insert(index, Value::from(text));
                }
                _ => return Err(unknown_variable(&variable, parts[0])),
            }
        }
        for (path, (list, origin)) in items {
            let value: Value = list.into_values().collect();
            let key = KEYS.iter().find(|key| key.path == path).ok_or_else(|| wrong(path, "unknown key"))?;
            layer.insert(key, &value, &origin)?;
        }
        Ok(layer)
    }

    /// The defaults of a board.
    pub(crate) fn from_board(board: &Board) -> Result<Layer, Error> {
        let mut layer = Layer::default();
        for (path, value) in &board.defaults {
            let value = serde_json::to_value(value)
                .map_err(|error| Error::configuration(format!("board {}: {path}: {error}", board.name)))?;
            layer.set(path, &value, &Origin::Board(board.name.clone()))?;
        }
        Ok(layer)
    }

    /// Sets one key by its path: `Network.TcpPort`, `Collections.telemetry.TtlSeconds`. Replaces what was set before.
    pub(crate) fn set(&mut self, path: &str, value: &Value, origin: &Origin) -> Result<(), Error> {
        let path = path.strip_prefix("CBDDC.").unwrap_or(path);
        let (section, name) = path.split_once('.').unwrap_or(("", path));
        if section.eq_ignore_ascii_case(COLLECTIONS) {
            let (collection, name) = name.rsplit_once('.').unwrap_or((name, ""));
            if let Some(keys) = self.collections.get_mut(collection) {
                keys.retain(|known, _| !known.eq_ignore_ascii_case(name));
            }
            return self.insert_in_collection(collection, name, value, origin);
        }
        let key = match section {
            "" => find("", name).ok_or_else(|| unknown_at_top(name))?,
            section => key_named(section_named(section)?, name)?,
        };
        self.settings.remove(key.path);
        self.insert(key, value, origin)
    }
}

fn find(section: &str, name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.section() == section && key.name().eq_ignore_ascii_case(name))
}

fn section_named(name: &str) -> Result<&'static str, Error> {
    sections().find(|section| section.eq_ignore_ascii_case(name)).ok_or_else(|| unknown_at_top(name))
}

fn key_named(section: &'static str, name: &str) -> Result<&'static Key, Error> {
    find(section, name).ok_or_else(|| {
        let here = || KEYS.iter().filter(|key| key.section() == section);
        // The right key in the wrong section is told by its full name.
        let elsewhere = KEYS.iter().find(|key| key.name().eq_ignore_ascii_case(name)).map(|key| key.path);
        let near = near_miss(name, here().map(Key::name));
        unknown(&format!("{section}.{name}"), "key", near.or(elsewhere), section)
    })
}

fn unknown_at_top(name: &str) -> Error {
    let known = sections().chain(KEYS.iter().filter(|key| key.section().is_empty()).map(|key| key.path));
    unknown(name, "section", near_miss(name, known), "")
}

fn unknown(path: &str, what: &str, near: Option<&str>, section: &str) -> Error {
    match near {
        Some(near) => wrong(path, &format!("unknown {what}; did you mean {near}?")),
        None => {
            let known: Vec<&str> = match section {
                "" => sections().collect(),
                s if s.starts_with(COLLECTIONS) => COLLECTION_KEYS.iter().map(|key| key.path).collect(),
                s => KEYS.iter().filter(|key| key.section() == s).map(Key::name).collect(),
            };
            wrong(path, &format!("unknown {what}; known are {}", known.join(", ")))
        }
    }
}

fn unknown_variable(variable: &str, name: &str) -> Error {
    let near = near_miss(name, KEYS.iter().map(Key::name).chain(sections()));
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    let variable = variable.escape_debug();
    Error::configuration(format!("{variable}: names no key; write CBDDC__Section__Key{near}"))
}

fn checked(key: &Key, path: &str, value: &Value, origin: &Origin) -> Result<Value, Error> {
    key.kind.check(value, key.or_null).map_err(|what| match origin {
        // A file is looked into anyway; a variable has to be found first.
        Origin::Environment(_) => wrong(path, &format!("{what} ({origin})")),
        _ => wrong(path, &what),
    })
}

fn twice(path: &str, origin: &Origin) -> Error {
    wrong(path, &format!("written twice in the same place, in different spelling ({origin}); keep one"))
}
