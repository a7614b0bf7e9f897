//! The file of the API's bearer token: one word of printable ASCII, as an HTTP header can carry it.
//!
//! Never prints a token, not even in an error.

use crate::Error;
use std::format;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::string::{String, ToString};

/// Longest token file; also what a token that was not meant as one is cut at.
const TOKEN_FILE_BYTES_MAX: u64 = 4096;

/// A token, and what is to be said of its file.
#[derive(Debug)]
pub(crate) struct Token {
    /// The word itself.
    pub(crate) word: String,
    /// Its file can be read by every user of the machine.
    pub(crate) is_open_to_all: bool,
}

/// The token in the file; `setting` names what leads to it.
///
/// # Errors
/// [`Error::Configuration`] where it cannot be read or is not one word.
pub(crate) fn load_token(setting: &str, path: &Path) -> Result<Token, Error> {
    let wrong = |why: &str| Error::configuration(format!("{setting}: {} {why}", path.display()).replace('\n', "\\n"));
    let unreadable = |error: std::io::Error| wrong(&format!("cannot be read ({error})"));
    // The kind is asked first: opening a pipe would wait for a writer.
    let meta = fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(wrong("is not a regular file"));
    }
    let mut bytes = std::vec::Vec::new();
    File::open(path)
        .and_then(|file| file.take(TOKEN_FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > TOKEN_FILE_BYTES_MAX {
        return Err(wrong(&format!("is longer than {TOKEN_FILE_BYTES_MAX} bytes: a token is one word")));
    }
    let word = bytes.trim_ascii();
    if word.is_empty() {
        return Err(wrong("is empty: a token is one word of printable ASCII characters"));
    }
    let word = str::from_utf8(word).ok().filter(|word| word.bytes().all(|byte| byte.is_ascii_graphic()));
    let word = word.ok_or_else(|| wrong("holds more than one word, or not ASCII: a token is one word"))?;
    Ok(Token { word: word.to_string(), is_open_to_all: meta.mode() & 0o004 != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_one_word_and_anything_else_is_said_without_showing_it() {
        let folder = std::env::temp_dir().join(format!("cbddc-token-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("token");
        let load = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            load_token("CBDDC.Api.TokenFile", &path)
        };
        let token = load(b" s3cret-42\n").unwrap();
        assert!(token.word == "s3cret-42" && !token.is_open_to_all);
        let long = "s3cret".repeat(1000);
        for (wrong, why) in [
            (&b""[..], "is empty"),
            (b" \n ", "is empty"),
            (b"s3cret two", "one word"),
            (b"s3cret\nsecond", "one word"),
            ("s3cret\u{e9}".as_bytes(), "one word"),
            (b"s3cret\0", "one word"),
            (b"s3cret\xff", "one word"),
            (long.as_bytes(), "longer than"),
        ] {
            let said = load(wrong).unwrap_err().to_string();
            assert!(said.starts_with("CBDDC.Api.TokenFile: ") && said.contains(why), "{said}");
            assert!(!said.contains("s3cret"), "{said}");
        }
        let said = load_token("CBDDC.Api.TokenFile", &folder).unwrap_err().to_string();
        assert!(said.contains("not a regular file"), "{said}");
        load(b"x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load_token("x", &path).unwrap().is_open_to_all);
        fs::remove_dir_all(&folder).unwrap();
    }
}
