//! A peer made by hand, on the crate's own link: it says exactly what a test wants said, and nothing else.

use cbddc::id::{NodeId, ReplicaId, VersionVector};
use cbddc::net::{Established, LinkError, LinkReader, LinkWriter, Patience, dial};
use cbddc::secure::{ClusterKey, DeviceKey};
use cbddc::time::Stamp;
use cbddc::wire::{ClockSample, Hello, Message, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, StartToken};
use smol::block_on;
use std::net::SocketAddr;

pub struct Speaker {
    pub name: String,
    replica: ReplicaId,
    token: u64,
    pub reader: LinkReader,
    pub writer: LinkWriter,
}

fn entropy(bytes: &mut [u8]) {
    getrandom::fill(bytes).unwrap();
}

impl Speaker {
    /// Dials a node with a key and a new device; the handshake has succeeded then, and nothing was said.
    pub fn dial(name: &str, address: SocketAddr, key: &str) -> Result<Speaker, LinkError> {
        let (key, device) = (ClusterKey::from_hex(key).unwrap(), DeviceKey::generate(&mut entropy));
        let joined = block_on(dial(&[address], &[key], &device, Patience::default(), &mut entropy))?;
        let Established { reader, writer, .. } = joined;
        let (replica, token) = (getrandom::u64().unwrap() >> 16, getrandom::u64().unwrap());
        let replica = ReplicaId::mint(&[], replica);
        Ok(Speaker { name: name.into(), replica, token, reader, writer })
    }
    pub fn say(&mut self, message: &Message) -> Result<(), LinkError> {
        block_on(self.writer.send(message)).map(drop)
    }
    pub fn hear(&mut self) -> Result<Message, LinkError> {
        block_on(self.reader.next())
    }
    /// What an empty node that nobody tracks says first.
    pub fn hello(&self) -> Hello {
        Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION,
            node_id: NodeId::new(&self.name).unwrap(),
            replica: self.replica,
            instance: self.token,
            tokens: vec![StartToken { token: self.token, seq: 0, tail: 0 }],
            clock: ClockSample { millis: 1_800_000_000_000, synchronised: false },
            hlc: Stamp::ZERO,
            visitor: true,
            bootstrapping: false,
            tail: 0,
            vector: VersionVector::new(),
            floor: VersionVector::new(),
            digest: 0,
            clean: true,
            members: Vec::new(),
        }
    }
}
