//! `GET /v1/peers`: the members that this node tracks, and who was heard without becoming a link.

use super::Timestamp;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::string::String;
use std::vec::Vec;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// The name that people use.
    pub node_id: String,
    /// What the link to it is doing, one word: `open`, `connecting`, `backoff`, `closed`, `untracked`.
    pub state: String,
    /// Where it was last reached or heard; `null` when never.
    pub address: Option<String>,
    /// Whether it has everything that we have on its disk, as far as it has said.
    pub confirmed: bool,
    /// How long our oldest change that it has not confirmed has been waiting, in milliseconds; 0 when none waits.
    pub lag_ms: Millis,
    /// Our changes that it has not confirmed.
    pub unconfirmed_changes: u64,
    /// When it last confirmed something, by our clock.
    pub last_confirmation: Option<Timestamp>,
    /// Its clock minus ours, in milliseconds; `null` until measured.
    pub clock_offset_ms: Option<i64>,
    /// How long its last answer to a ping took, in milliseconds; `null` until a quiet link was pinged.
    #[serde(default)]
    pub round_trip_ms: Option<Millis>,
    /// Why the last attempt to link failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// An address that was heard and is not linked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeardAddress {
    /// IP address and port.
    pub address: String,
    /// Why not: another cluster key, another version, no free slot.
    pub reason: String,
}

/// Members and strangers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeersReport {
    /// Members, by name.
    pub peers: Vec<PeerReport>,
    /// Addresses heard but not linked.
    pub heard: Vec<HeardAddress>,
}

/// A device that was admitted under a known name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// The name.
    pub node_id: String,
    /// The key of the device that has it now, shortened.
    pub device: String,
    /// Where it was heard.
    pub address: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;
    use std::vec;

    #[test]
    fn a_peer_that_never_confirmed_says_null_rather_than_nothing() {
        let peer = PeerReport {
            node_id: "gateway-02".to_string(),
            state: "open".to_string(),
            address: None,
            confirmed: false,
            lag_ms: 12,
            unconfirmed_changes: 3,
            last_confirmation: None,
            clock_offset_ms: Some(-4),
            round_trip_ms: None,
            last_error: None,
        };
        let json = serde_json::to_string(&PeersReport { peers: vec![peer], heard: vec![] }).unwrap();
        assert_eq!(
            json,
            r#"{"peers":[{"nodeId":"gateway-02","state":"open","address":null,"confirmed":false,"lagMs":12,"unconfirmedChanges":3,"lastConfirmation":null,"clockOffsetMs":-4,"roundTripMs":null}],"heard":[]}"#
        );
    }
}
