//! Beacons: the datagrams by which members find each other, and by which a stranger learns nothing.
//!
//! Layout, 72 bytes, integers little endian: magic `CBD1` (4), version (2), TCP port (2), cluster tag (8), replica (8),
//! instance (8), state tag (8), sender's milliseconds since start (8), reserved (8), MAC (16).
//! Tags and MAC are BLAKE2s (RFC 7693) keyed with a key derived from the cluster key.

use crate::id::{ReplicaId, VersionVector};
use blake2::digest::{FixedOutput, KeyInit, Update};
use core::fmt;

type Mac = blake2::Blake2sMac<blake2::digest::consts::U16>;

/// Bytes of one beacon.
const BYTES: usize = 72;
const SIGNED: usize = BYTES - 16;
const MAGIC: [u8; 4] = *b"CBD1";

/// What identifies a cluster to its members and is noise to everybody else.
pub type ClusterTag = u64;
/// What a node covers and holds, in 64 bits that only members can compute: equal tags need no link traffic.
pub type StateTag = u64;

/// The beacon keys of one cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct BeaconKey {
    key: [u8; 32],
}

/// An announcement of one node on one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Beacon {
    /// Newest protocol version of the sender.
    pub version: u16,
    /// Where it accepts links.
    pub tcp_port: u16,
    /// Its replica.
    pub replica: ReplicaId,
    /// Random for each start of the process.
    pub instance: u64,
    /// What it covers and holds.
    pub state: StateTag,
    /// Milliseconds since it started: an older one is a replay.
    pub uptime_ms: u64,
}

/// Why a datagram is not a beacon of this cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum BeaconError {
    /// Not a beacon at all.
    Foreign,
    /// A beacon of another cluster, or of this one under a key that this node does not have.
    OtherCluster,
    /// The cluster's tag, but not its MAC: changed on the way, or forged.
    Forged,
}

impl fmt::Display for BeaconError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BeaconError::Foreign => "not a beacon",
            BeaconError::OtherCluster => "another cluster key",
            BeaconError::Forged => "its MAC does not verify",
        })
    }
}
impl core::error::Error for BeaconError {}

impl fmt::Debug for BeaconKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BeaconKey(..)")
    }
}

impl BeaconKey {
    /// Derives the beacon keys from the cluster key.
    pub fn derive(cluster_key: &[u8; 32]) -> BeaconKey {
        let mut key = [0; 32];
        key[..16].copy_from_slice(&mac(cluster_key, b"cbddc beacon 1 a", &[]));
        key[16..].copy_from_slice(&mac(cluster_key, b"cbddc beacon 1 b", &[]));
        BeaconKey { key }
    }
    /// The tag that all members of this cluster send.
    pub fn cluster_tag(&self) -> ClusterTag {
        tag(&self.key, b"cluster", &[])
    }
    /// The tag of what a node covers and holds.
    pub fn state_tag(&self, vector: &VersionVector, digest: u128) -> StateTag {
        let mut hasher = Mac::new_from_slice(&self.key).expect("BLAKE2s takes keys of 32 bytes");
        hasher.update(b"state");
        for dot in vector.iter() {
            hasher.update(&dot.origin.to_bits().to_le_bytes());
            hasher.update(&dot.seq.to_le_bytes());
        }
        hasher.update(&digest.to_le_bytes());
        let out: [u8; 16] = hasher.finalize_fixed().into();
        first_eight(out)
    }
    /// The datagram.
    pub fn seal(&self, beacon: &Beacon) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&beacon.version.to_le_bytes());
        out[6..8].copy_from_slice(&beacon.tcp_port.to_le_bytes());
        out[8..16].copy_from_slice(&self.cluster_tag().to_le_bytes());
        out[16..24].copy_from_slice(&beacon.replica.to_bits().to_le_bytes());
        out[24..32].copy_from_slice(&beacon.instance.to_le_bytes());
        out[32..40].copy_from_slice(&beacon.state.to_le_bytes());
        out[40..48].copy_from_slice(&beacon.uptime_ms.to_le_bytes());
        let sum = mac(&self.key, b"beacon", &out[..SIGNED]);
        out[SIGNED..].copy_from_slice(&sum);
        out
    }
    /// Checks and takes a datagram.
    ///
    /// # Errors
    /// [`BeaconError`], by whose fault it is.
    pub fn open(&self, datagram: &[u8]) -> Result<Beacon, BeaconError> {
        if datagram.len() != BYTES || datagram[..4] != MAGIC {
            return Err(BeaconError::Foreign);
        }
        let word = |at: usize| datagram[at..at + 8].iter().rev().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        if word(8) != self.cluster_tag() {
            return Err(BeaconError::OtherCluster);
        }
        let sum = mac(&self.key, b"beacon", &datagram[..SIGNED]);
        let differs = sum.iter().zip(&datagram[SIGNED..]).fold(0, |differs, (a, b)| differs | (a ^ b));
        if differs != 0 {
            return Err(BeaconError::Forged);
        }
        Ok(Beacon {
            version: u16::from_le_bytes([datagram[4], datagram[5]]),
            tcp_port: u16::from_le_bytes([datagram[6], datagram[7]]),
            replica: ReplicaId::from_bits(word(16)),
            instance: word(24),
            state: word(32),
            uptime_ms: word(40),
        })
    }
}

fn mac(key: &[u8], label: &[u8], data: &[u8]) -> [u8; 16] {
    let mut hasher = Mac::new_from_slice(key).expect("BLAKE2s takes keys of 32 bytes");
    hasher.update(label);
    hasher.update(data);
    hasher.finalize_fixed().into()
}

fn tag(key: &[u8], label: &[u8], data: &[u8]) -> u64 {
    first_eight(mac(key, label, data))
}

fn first_eight(bytes: [u8; 16]) -> u64 {
    bytes[..8].iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beacon() -> Beacon {
        Beacon { version: 1, tcp_port: 5000, replica: ReplicaId::mint(&[], 7), instance: 8, state: 9, uptime_ms: 10 }
    }

    #[test]
    fn a_beacon_comes_back_as_it_was_sent() {
        let key = BeaconKey::derive(&[7; 32]);
        assert_eq!(key.open(&key.seal(&beacon())), Ok(beacon()));
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let key = BeaconKey::derive(&[7; 32]);
        let sealed = key.seal(&beacon());
        for bit in 0..sealed.len() * 8 {
            let mut changed = sealed;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_cluster_is_told_from_noise_and_from_forgery() {
        let (ours, theirs) = (BeaconKey::derive(&[7; 32]), BeaconKey::derive(&[8; 32]));
        assert_eq!(ours.open(&theirs.seal(&beacon())), Err(BeaconError::OtherCluster));
        assert_eq!(ours.open(b"hello"), Err(BeaconError::Foreign));
        let mut forged = ours.seal(&beacon());
        forged[6] ^= 1;
        assert_eq!(ours.open(&forged), Err(BeaconError::Forged));
    }
}
