//! Who holds a port, as Linux tells it in `/proc`. A help for the error message, never a reason to fail.

use std::fmt;
use std::format;
use std::fs;
use std::path::Path;
use std::string::String;

/// The two protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
    /// Tables of its sockets, and the state of one that holds its port.
    const fn tables(self) -> ([&'static str; 2], &'static str) {
        match self {
            Protocol::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], "0A"),
            Protocol::Udp => (["/proc/net/udp", "/proc/net/udp6"], "07"),
        }
    }
}

/// A process, or only its user where the process belongs to somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortHolder {
    Process { id: u32, name: String },
    User(u32),
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortHolder::Process { id, name } => write!(f, "{name} (process {id})"),
            PortHolder::User(user) => write!(f, "a process of user {user}"),
        }
    }
}

/// Who holds a port in this network namespace, if that can be found out.
pub(crate) fn port_holder(protocol: Protocol, port: u16) -> Option<PortHolder> {
    let (tables, state) = protocol.tables();
    let (inode, user) =
        tables.iter().filter_map(|path| fs::read_to_string(path).ok()).find_map(|text| holding(&text, port, state))?;
    Some(process_with(inode).unwrap_or(PortHolder::User(user)))
}

/// Inode and user of the socket that holds a port, from the text of a table (`man 5 proc_pid_net`).
fn holding(table: &str, port: u16, state: &str) -> Option<(u64, u32)> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next()?;
        let (_, hex) = local.rsplit_once(':')?;
        let its_state = fields.nth(1)?;
        let user = fields.nth(3)?.parse().ok()?;
        let inode = fields.nth(1)?.parse().ok()?;
        (u16::from_str_radix(hex, 16) == Ok(port) && its_state == state).then_some((inode, user))
    })
}

fn process_with(inode: u64) -> Option<PortHolder> {
    let socket = format!("socket:[{inode}]");
    let holds = |process: &Path| {
        let files = fs::read_dir(process.join("fd")).ok()?;
        files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == &*socket)).then_some(())
    };
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        holds(&entry.path())?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(PortHolder::Process { id, name: name.trim_end().into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1388 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 111 1 0 100 0 0 10 0
   1: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 222 1 0 100 0 0 10 0
   2: 00000000000000000000000001000000:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 333 1 0";

    #[test]
    fn the_listening_socket_is_found_and_not_a_connection_on_the_same_port() {
        assert_eq!(holding(TABLE, 5000, "0A"), Some((222, 1000)));
        assert_eq!(holding(TABLE, 5001, "0A"), Some((333, 0)));
        assert_eq!(holding(TABLE, 5002, "0A"), None);
    }

    #[test]
    fn a_table_of_any_text_is_no_reason_to_fail() {
        for text in ["", "\n\n", "head\n 0:", "head\n 0: x y z", "head\n 0: :zz a 0A 1 1 1 1 1"] {
            assert_eq!(holding(text, 5000, "0A"), None);
        }
    }
}
