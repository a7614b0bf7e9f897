//! Whether the node does its work: what a watchdog asks before it is fed.
//!
//! A node that lives and does nothing is worth less than one that starts anew. A network that is away or a disk that
//! refuses is none of this: a restart mends neither, and health tells of both.

use super::shell::Shell;
use crate::error::Error;
use crate::net::{ProbeError, probe};
use smol::Timer;
use std::future::Future;
use std::rc::Rc;
use std::string::ToString;
use std::time::Duration;

/// How often it is looked whether something has moved.
const LOOK: Duration = Duration::from_millis(100);

impl Shell {
    /// All three at once: the writing thread, the reading thread, and the way in.
    pub(crate) async fn check_progress(self: &Rc<Self>, patience: Duration) -> Result<(), Error> {
        let writing = within(patience, "the writing storage thread's next answer", self.writer_moves());
        let reading = within(patience, "the reading storage thread's next answer", async {
            // An error is an answer too.
            let _ = self.store.sizes().await;
        });
        let accepting = within(patience, "accepting a connection", self.connections_arrive());
        let (storage, network) = smol::future::zip(smol::future::zip(writing, reading), accepting).await;
        storage.0.and(storage.1).and(network)
    }

    /// It owes no answer, gives one, or is seen at work on a long one.
    async fn writer_moves(&self) {
        let before = (self.store_answered.get(), self.store.pulse());
        while self.store_asked.get() > self.store_answered.get()
            && before == (self.store_answered.get(), self.store.pulse())
        {
            Timer::after(LOOK).await;
        }
    }

    /// A connection of the node to itself, or of anybody else, is accepted.
    async fn connections_arrive(&self) {
        let before = self.links.accepted.get();
        let arrived = async {
            while self.links.accepted.get() == before {
                Timer::after(LOOK).await;
            }
            // Where it was the node's own, `own` is still to say so: else it would be listed as a stranger that was refused.
            Timer::after(LOOK).await;
        };
        let own = async {
            match probe(self.addresses.links).await {
                Ok(connection) => {
                    self.links.probe.set(Some(connection.address()));
                    // Held open until it, or another, has been accepted.
                    smol::future::pending().await
                }
                // The address is gone for now, with its interface: not what a restart brings back.
                Err(ProbeError::NoWay) => {}
                // Out of descriptors, or a queue that nobody empties: another's connection may still prove the contrary.
                Err(ProbeError::Failed) => smol::future::pending().await,
            }
        };
        // Its own is asked first: where both are true at once, its address is known before it is closed, and nobody takes it
        // for a stranger's.
        smol::future::or(own, arrived).await;
    }
}

async fn within(patience: Duration, operation: &str, work: impl Future<Output = ()>) -> Result<(), Error> {
    let done = async {
        work.await;
        Ok(())
    };
    let late = async {
        Timer::after(patience).await;
        Err(Error::Timeout { operation: operation.to_string(), after_ms: patience.as_millis() as u64 })
    };
    smol::future::or(done, late).await
}
