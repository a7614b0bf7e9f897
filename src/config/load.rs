//! Where configuration is looked for: the files, the environment and the machine that [`Config::load`] asks.
//!
//! The one file of `config` that touches the world; what the texts mean is not decided here.

use super::{Builder, Config};
use crate::Error;
use crate::id::{DeviceId, NodeId};
use crate::limits::NODE_ID_BYTES_MAX;
use std::env;
use std::ffi::{OsStr, OsString};
use std::format;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

/// Largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The machine's model, ended by a NUL byte, where the kernel was given a device tree.
const DEVICE_TREE_MODEL: &str = "/proc/device-tree/model";

pub(super) fn load(path: Option<&Path>) -> Result<Config, Error> {
    let mut builder = Builder::new().base_directory(base_directory()?).environment(variables(env::vars_os())?);
    if let Some((file, text)) = find(path, env::var_os("CBDDC_CONFIG"))? {
        builder = builder.file(&text, file);
    }
    if let Some(model) = device_model() {
        builder = builder.device_model(model);
    }
    let mut config = builder.memory_mib(memory_mib()).build()?;
    config.cluster.key_credential = credential(env::var_os("CREDENTIALS_DIRECTORY"));
    Ok(config)
}

/// The cluster key that the service manager hands over (`LoadCredential=cluster.key:…`). An empty line is none: that is
/// what its unit says where nobody has put a key in place. What cannot be read is told by whoever wants the key.
fn credential(folder: Option<OsString>) -> Option<PathBuf> {
    let path = Path::new(&folder?).join("cluster.key");
    let none = match read(&path) {
        Ok(text) => text.is_none_or(|text| text.trim().is_empty()),
        Err(_) => false,
    };
    (path.is_absolute() && !none).then_some(path)
}

/// The file in force and its text: one that is named must be there, the usual places may be empty.
fn find(named: Option<&Path>, variable: Option<OsString>) -> Result<Option<(PathBuf, String)>, Error> {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_path_buf).or(variable) {
        let text = read(&path)?;
        let text = text.ok_or_else(|| {
            Error::configuration(format!("{}: no such file; name another with --config", absolute(&path).display()))
        })?;
        return Ok(Some((absolute(&path), text)));
    }
    for place in ["appsettings.json", "/etc/cbddc/appsettings.json"] {
        let path = Path::new(place);
        if let Some(text) = read(path)? {
            return Ok(Some((absolute(path), text)));
        }
    }
    Ok(None)
}

/// `None` where there is no such file.
fn read(path: &Path) -> Result<Option<String>, Error> {
    let cannot = |what: &str| Error::configuration(format!("{}: {what}", absolute(path).display()));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(&format!("cannot be read ({error}); check its permissions"))),
    };
    let mut bytes = Vec::new();
    match file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::IsADirectory => return Err(cannot("is a directory, not a file")),
        Err(error) => return Err(cannot(&format!("cannot be read ({error})"))),
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => return Err(cannot("is larger than 1 MiB")),
        Ok(_) => {}
    }
    String::from_utf8(bytes).map(Some).map_err(|_| cannot("is not UTF-8; save it as UTF-8"))
}

/// Relative paths are relative to where systemd keeps the service's state, else to the working directory.
fn base_directory() -> Result<PathBuf, Error> {
    let state = env::var_os("STATE_DIRECTORY").and_then(|value| env::split_paths(&value).next());
    match state.filter(|path| path.is_absolute()) {
        Some(state) => Ok(state),
        None => env::current_dir()
            .map_err(|error| Error::configuration(format!("the working directory cannot be used ({error})"))),
    }
}

/// The variables that are text. One of ours that is not is wrong; others are not our business.
fn variables(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, Error> {
    let mut pairs = Vec::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => pairs.push((name, value)),
            Err(_) if name.to_ascii_uppercase().starts_with("CBDDC__") => {
                return Err(Error::configuration(format!("{}: the value is not UTF-8", name.escape_debug())));
            }
            Err(_) => {}
        }
    }
    Ok(pairs)
}

fn device_model() -> Option<String> {
    let mut text = String::new();
    File::open(DEVICE_TREE_MODEL).ok()?.take(256).read_to_string(&mut text).ok()?;
    Some(text.trim_end_matches('\0').to_string())
}

fn memory_mib() -> u64 {
    let machine = rustix::system::sysinfo();
    // The kernel counts in units of its own, one byte on 64-bit machines, and `c_ulong` is as wide as the machine.
    #[allow(clippy::useless_conversion)]
    let total = u64::from(machine.totalram).saturating_mul(u64::from(machine.mem_unit));
    total >> 20
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The name of a node that nobody named: `<hostname>-<6 hexadecimal digits of the device key>`.
pub(crate) fn default_node_id(device: &DeviceId) -> Option<NodeId> {
    name_from(&gethostname::gethostname(), device)
}

fn name_from(hostname: &OsStr, device: &DeviceId) -> Option<NodeId> {
    let [first, second, third, ..] = device.0;
    let suffix = format!("-{first:02x}{second:02x}{third:02x}");
    // The host's own name, without the domain, and without what a node name may not hold.
    let hostname = hostname.to_string_lossy();
    let mut name: String = hostname.split('.').next().unwrap_or("").to_string();
    name.retain(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    name.truncate(NODE_ID_BYTES_MAX - suffix.len());
    if name.is_empty() {
        name.push_str("node");
    }
    NodeId::new(&(name + &suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let error = find(Some(Path::new("/nonexistent/appsettings.json")), None).unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/appsettings.json: no such file"), "{error}");
        let error = find(None, Some("/nonexistent/of-variable.json".into())).unwrap_err().to_string();
        assert!(error.contains("of-variable.json"), "{error}");
    }

    #[test]
    fn a_directory_in_place_of_the_file_is_said() {
        let error = find(Some(Path::new("/")), None).unwrap_err().to_string();
        assert!(error.contains("is a directory"), "{error}");
    }

    #[test]
    fn a_node_without_a_name_is_called_after_host_and_device() {
        let device = DeviceId([0xab; 32]);
        let named = |host: &str| name_from(OsStr::new(host), &device).unwrap().to_string();
        assert_eq!(named("gw-7.example.org"), "gw-7-ababab");
        assert_eq!(named(""), "node-ababab");
        assert_eq!(named(&"x".repeat(200)).len(), NODE_ID_BYTES_MAX);
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_text_is_refused_only_where_it_is_ours() {
        use std::os::unix::ffi::OsStringExt;
        let bad = || OsString::from_vec(std::vec![0xff]);
        assert!(variables([("OTHER".into(), bad())].into_iter()).unwrap().is_empty());
        assert!(variables([("CBDDC__Board".into(), bad())].into_iter()).is_err());
    }
}
