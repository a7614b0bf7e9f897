//! What was typed: commands, arguments and options, as clap reads them.
//!
//! Means nothing by itself: no file is opened, no value is looked up here.

use clap::{Args, Parser, Subcommand};
use std::format;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;

/// Keeps a small JSON document database on every device of a LAN and keeps those databases the same.
#[derive(Debug, Parser)]
#[command(name = "cbddc", version)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Options {
    /// The configuration [default: CBDDC_CONFIG, ./appsettings.json, /etc/cbddc/appsettings.json, built-in]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// The node to talk to, host:port or unix:PATH [default: CBDDC_API, else as configured]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub(super) api: Option<String>,
    /// The file of the bearer token [default: the token in CBDDC_TOKEN, else as configured]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Print JSON where a table would be printed
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a node in the foreground until SIGINT or SIGTERM
    Run,
    #[command(flatten)]
    Client(ClientCommand),
    /// Have the running node make a backup; with FILE, copy it there
    Backup {
        /// A file or a folder on this machine; another backup is replaced, nothing else is
        file: Option<PathBuf>,
    },
    /// Put a backup in the place of the database; the node must be stopped
    Restore {
        /// The backup
        file: PathBuf,
    },
    /// Look at all of the database, through the running node or on the file
    Check,
    /// The cluster key
    #[command(subcommand)]
    Key(KeyCommand),
    /// What the configuration means
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Try the deployment checklist on the spot; exit 1 where a point fails
    Doctor,
}

/// Commands that talk to a running node.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Store one document
    Put(Put),
    /// Print one document
    Get(Document),
    /// Delete one document
    Delete(Delete),
    /// List documents, keys in byte order
    List(List),
    /// Print the change feed as NDJSON
    Changes(Changes),
    /// Store many documents from NDJSON or CSV
    Import(Import),
    /// Print a whole collection as NDJSON, keys in byte order
    Export(Export),
    /// Print the sync tracker, or every member of the site
    Status(Status),
    /// Print peers, and addresses heard but not linked; or decide about one
    Peers {
        #[command(subcommand)]
        decision: Option<PeersCommand>,
    },
    /// Rows kept aside when this node had to take the state of a peer
    #[command(subcommand)]
    Recovered(RecoveredCommand),
    /// Print the health report; exit 0 Healthy, 1 Degraded, 2 Unhealthy, 3 no answer
    Health,
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Ask every member of the site
    #[arg(long)]
    pub(super) site: bool,
    /// Wait at most so long for their answers, as 500ms, 30s or 2m [default: 2s]
    #[arg(long, value_name = "TIME", requires = "site", value_parser = humantime::parse_duration)]
    pub(super) timeout: Option<std::time::Duration>,
}

/// What can be done with rows that were kept aside.
#[derive(Debug, Subcommand)]
pub(super) enum RecoveredCommand {
    /// Print them
    List,
    /// Write them again as new, above what stands at their keys now
    Apply(Selected),
    /// Forget them
    Drop(Selected),
    /// Say that you know what a recovery of the database may have lost: health says no more of it
    Acknowledge,
}

#[derive(Debug, Args)]
pub(super) struct Selected {
    /// Only these keys [default: all]
    #[arg(value_name = "KEY")]
    pub(super) keys: Vec<String>,
    /// Only those of this collection
    #[arg(long, value_name = "COLLECTION")]
    pub(super) collection: Option<String>,
}

/// What can be decided about a peer, for the whole site.
#[derive(Debug, Subcommand)]
pub(super) enum PeersCommand {
    /// Retire a member that is gone for good
    Untrack {
        /// Its name
        node: String,
    },
    /// Admit the new device that was refused under a known name, in place of the one that had it
    Replace {
        /// The name
        node: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Put {
    pub(super) collection: String,
    pub(super) key: String,
    /// The document; - reads it from stdin
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub(super) document: String,
    #[command(flatten)]
    pub(super) confirmation: Confirmation,
}

/// Whether to wait until peers have the write too.
#[derive(Debug, Default, Args)]
pub(super) struct Confirmation {
    /// Wait until so many peers have it on disk too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) confirmed_by: Option<u64>,
    /// Wait at most so long, as 500ms, 30s or 2m [default: 5s]
    #[arg(long, value_name = "TIME", requires = "confirmed_by", value_parser = humantime::parse_duration)]
    pub(super) timeout: Option<std::time::Duration>,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    #[command(flatten)]
    pub(super) document: Document,
    #[command(flatten)]
    pub(super) confirmation: Confirmation,
}

/// One document.
#[derive(Debug, Args)]
pub(super) struct Document {
    pub(super) collection: String,
    pub(super) key: String,
}

#[derive(Debug, Args)]
pub(super) struct List {
    pub(super) collection: String,
    /// Only keys that begin so
    #[arg(long)]
    pub(super) prefix: Option<String>,
    /// Only keys after this one
    #[arg(long, value_name = "KEY")]
    pub(super) after: Option<String>,
    /// At most so many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Changes {
    /// Only changes of this collection [default: all]
    pub(super) collection: Option<String>,
    /// Go on behind this token, or from `now` on [default: everything that is there]
    #[arg(long, value_name = "TOKEN")]
    pub(super) since: Option<String>,
    /// Wait for more when all is printed
    #[arg(long)]
    pub(super) follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    pub(super) collection: String,
    /// NDJSON, or CSV where it ends in .csv; - reads NDJSON from stdin
    pub(super) file: PathBuf,
    /// The field that becomes the key
    #[arg(long, value_name = "FIELD")]
    pub(super) key: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    pub(super) collection: String,
    /// Take out of this database file, of no running node, whatever is whole in it, however broken it is
    #[arg(long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a new random cluster key; the one before is kept beside it
    New,
    /// Print the cluster key
    Show,
    /// Take the cluster key from a file; the one before is kept beside it
    Set {
        /// One line of 64 hexadecimal digits; - reads it from stdin
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the configuration is right
    Check,
    /// Print every key with its value and where the value comes from
    Show,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(typed: &[&str]) -> Arguments {
        Arguments::try_parse_from(typed).unwrap()
    }

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_stand_before_or_after_the_command() {
        let after = parse(&["cbddc", "run", "--config", "a.json"]).options;
        let before = parse(&["cbddc", "--config", "a.json", "run"]).options;
        assert_eq!((after.config.as_deref(), after.json), (before.config.as_deref(), false));
        assert!(parse(&["cbddc", "config", "show", "--json"]).options.json);
    }

    #[test]
    fn a_document_may_be_a_negative_number_or_come_from_stdin() {
        for json in ["-5", "-", "{\"a\":1}", "-1.5e3"] {
            let Command::Client(ClientCommand::Put(put)) = parse(&["cbddc", "put", "c", "k", json]).command else {
                panic!("put is not put");
            };
            assert_eq!(put.document, json);
        }
    }

    #[test]
    fn every_command_of_the_surface_is_there() {
        for typed in [
            "run",
            "get c k",
            "delete c k",
            "put c k 1 --confirmed-by 2 --timeout 30s",
            "delete c k --confirmed-by 1",
            "list c --prefix p --after k --limit 5",
            "changes",
            "changes c --since 1.2.3.4 --follow",
            "import c f.csv --key id",
            "export c",
            "status",
            "status --site --timeout 5s",
            "peers",
            "peers untrack gateway-07",
            "peers replace gateway-07",
            "recovered list",
            "recovered apply",
            "recovered apply k1 k2 --collection c",
            "recovered drop",
            "recovered acknowledge",
            "health --api 127.0.0.1:1 --token-file t",
            "backup",
            "backup f.db",
            "restore f.db",
            "check",
            "key new",
            "key show",
            "key set -",
            "config check",
            "config show",
            "doctor",
            "doctor --json",
        ] {
            let typed = std::iter::once("cbddc").chain(typed.split(' '));
            assert!(Arguments::try_parse_from(typed.clone()).is_ok(), "{:?}", typed.collect::<std::vec::Vec<_>>());
        }
    }
}
