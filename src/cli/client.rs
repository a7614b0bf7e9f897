//! Commands that talk to a running node over its HTTP API.

use super::api::Api;
use super::args::{self, ClientCommand, Options, PeersCommand};
use super::target::Target;
use super::{changes, documents, export, import, members, recovered, site, tables};
use crate::Error;
use smol::LocalExecutor;
use std::rc::Rc;
use std::time::Duration;

/// Longest wait for one answer: above the node's own bound for a request, so that its error comes first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Does one command; answers the exit code.
pub(super) fn run(command: ClientCommand, options: &Options) -> Result<u8, Error> {
    if let ClientCommand::Export(args::Export { collection, file: Some(file) }) = &command {
        return export::of_file(file, collection, options.json);
    }
    let executor = Rc::new(LocalExecutor::new());
    let api = Api::new(Target::of(options)?, ANSWER_TIMEOUT, executor.clone());
    smol::block_on(executor.run(dispatch(command, &api, options.json)))
}

async fn dispatch(command: ClientCommand, api: &Api, json: bool) -> Result<u8, Error> {
    match command {
        ClientCommand::Put(put) => documents::put(api, &put, json).await,
        ClientCommand::Get(document) => documents::get(api, &document).await,
        ClientCommand::Delete(delete) => documents::delete(api, &delete, json).await,
        ClientCommand::List(list) => documents::list(api, &list, json).await,
        ClientCommand::Changes(wanted) => changes::run(api, &wanted, json).await,
        ClientCommand::Import(wanted) => import::run(api, &wanted, json).await,
        ClientCommand::Export(wanted) => export::run(api, &wanted, json).await,
        ClientCommand::Status(wanted) if wanted.site => site::run(api, &wanted, json).await,
        ClientCommand::Status(_) => tables::status(api, json).await,
        ClientCommand::Peers { decision: None } => tables::peers(api, json).await,
        ClientCommand::Peers { decision: Some(PeersCommand::Untrack { node }) } => {
            members::untrack(api, &node, json).await
        }
        ClientCommand::Peers { decision: Some(PeersCommand::Replace { node }) } => {
            members::replace(api, &node, json).await
        }
        ClientCommand::Recovered(command) => recovered::run(api, &command, json).await,
        ClientCommand::Health => tables::health(api, json).await,
    }
}

#[cfg(test)]
mod tests;
