//! What an operator decides about members: to retire one, to admit a new device under a known name. Each decision is a record
//! that replicates, so it is made once for the whole site.

use super::shell::Shell;
use crate::error::{Error, RequestKind};
use crate::id::{DeviceId, NodeId};
use crate::log::info;
use crate::proto::{Client, PeerView, Standing};
use crate::report::Replacement;
use crate::wire::Bye;
use std::format;
use std::rc::Rc;
use std::string::ToString;
use std::vec::Vec;

impl Shell {
    /// Retires every device of that name, on the whole site.
    pub(crate) async fn untrack(self: &Rc<Self>, name: &str) -> Result<(), Error> {
        let named = self.peers_named(name)?;
        for peer in named.iter().filter(|peer| peer.tracked) {
            self.decide(Client::Untrack(peer.device)).await?;
            info!("peer untracked node={} device={}", name, peer.device.to_string());
        }
        Ok(())
    }

    /// Admits the device that was refused under that name, in place of the one that had it.
    pub(crate) async fn replace(self: &Rc<Self>, name: &str) -> Result<Replacement, Error> {
        let holders: Vec<DeviceId> =
            self.peers_named(name)?.iter().filter(|peer| peer.tracked).map(|peer| peer.device).collect();
        let refused = self.engine.borrow().refused(self.now());
        let named = |node_id: &Option<NodeId>| node_id.as_ref().is_some_and(|node_id| node_id.as_str() == name);
        let latest = refused.iter().find(|refusal| refusal.reason == Bye::NameTaken && named(&refusal.node_id));
        let Some(new) = latest else {
            return Err(no_such_peer(format!(
                "no device was refused under the name {name} in the last minutes: switch the new one on, wait until \
                 'cbddc peers' shows it, and repeat this"
            )));
        };
        for old in &holders {
            self.decide(Client::Replace { old: *old, new: new.device }).await?;
            info!("peer replaced node={} device={} old_device={}", name, new.device.to_string(), old.to_string());
        }
        let address = new.address.to_string();
        Ok(Replacement { node_id: name.to_string(), device: new.device.to_string(), address })
    }

    async fn decide(self: &Rc<Self>, decision: Client) -> Result<(), Error> {
        Ok(self.ask(decision, Vec::new()).await.map(drop)?)
    }

    /// The peers that stand under a name; those that lost it to another device do not.
    fn peers_named(&self, name: &str) -> Result<Vec<PeerView>, Error> {
        if self.node_id().as_str() == name {
            return Err(Error::bad_request(format!("{name} is this node itself: ask another node of the site")));
        }
        let stands = |peer: &PeerView| !matches!(peer.standing, Some(Standing::Replaced | Standing::Revoked));
        let peers = self.engine.borrow().peers(self.now());
        let named: Vec<PeerView> =
            peers.into_iter().filter(|peer| peer.node_id.as_str() == name && stands(peer)).collect();
        match named.is_empty() {
            true => Err(no_such_peer(format!("no peer is called {name}: 'cbddc peers' lists them"))),
            false => Ok(named),
        }
    }
}

fn no_such_peer(message: std::string::String) -> Error {
    Error::Request { kind: RequestKind::NoSuchPeer, message }
}
