//! The two secrets of a node: the cluster's and its own. Neither is ever printed.

use super::Entropy;
use crate::id::DeviceId;
use blake2::digest::{FixedOutput, KeyInit, Update};
use core::fmt;
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};

/// The secret that all members of a cluster share. There is no default.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

impl ClusterKey {
    /// From its bytes.
    pub const fn new(bytes: [u8; 32]) -> ClusterKey {
        ClusterKey(bytes)
    }
    /// A new one.
    pub fn generate(random: Entropy<'_>) -> ClusterKey {
        ClusterKey(super::draw(random))
    }
    /// From 64 hexadecimal digits, as the key file holds them.
    pub fn from_hex(text: &str) -> Option<ClusterKey> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(nibble(pair[0])? * 16 + nibble(pair[1])?).ok()?;
        }
        Some(ClusterKey(bytes))
    }
    /// The secret itself: for the key file, and for the keys that are derived from it.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
    pub(super) fn psk(&self) -> [u8; 32] {
        type Mac = blake2::Blake2sMac<blake2::digest::consts::U32>;
        let mut hasher = Mac::new_from_slice(&self.0).expect("BLAKE2s takes keys of 32 bytes");
        hasher.update(b"cbddc link 1 psk");
        hasher.finalize_fixed().into()
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

/// A device's own Noise key pair (X25519).
#[derive(Clone)]
pub struct DeviceKey {
    pub(super) private: [u8; 32],
    public: [u8; 32],
}

impl DeviceKey {
    /// A new one.
    pub fn generate(random: Entropy<'_>) -> DeviceKey {
        DeviceKey::from_private(super::draw(random))
    }
    /// From its stored private half; every 32 bytes are one.
    pub fn from_private(private: [u8; 32]) -> DeviceKey {
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("Curve25519 is compiled in");
        dh.set(&private);
        let mut public = [0; 32];
        public.copy_from_slice(dh.pubkey());
        DeviceKey { private, public }
    }
    /// The private half, to be stored.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.private
    }
    /// Who this device is to others.
    pub const fn device_id(&self) -> DeviceId {
        DeviceId(self.public)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({})", self.device_id())
    }
}
