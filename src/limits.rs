//! Every bound of the node, with its unit and its reason, and the relations between them, asserted at compile time.
//!
//! Limits that a peer can notice (document, key, frame) are protocol constants: the same on every board, for ever.
//! Limits of one board (cache, links, queue bytes) come from its budget and are at or below what stands here.

/// Largest document, in bytes as sent. Protocol constant.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Longest document key, in bytes of UTF-8. Protocol constant.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest collection name, in bytes of UTF-8. Protocol constant.
pub const COLLECTION_BYTES_MAX: usize = 128;
/// Longest node name, in bytes of UTF-8. Protocol constant.
pub const NODE_ID_BYTES_MAX: usize = 64;

/// Most a row's fields besides collection, key and value can take once encoded: tags, lengths, stamp, dot, expiry.
pub const ROW_OVERHEAD_BYTES: usize = 64;
/// Largest encoded row.
pub const ROW_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + KEY_BYTES_MAX + COLLECTION_BYTES_MAX + ROW_OVERHEAD_BYTES;

/// Entries of a version vector: replicas that ever wrote in this cluster. A device adds one with each restore,
/// bootstrap or fork, so this is many years of a large site. Protocol constant.
pub const REPLICAS_MAX: usize = 1024;
/// Encoded bytes of one vector entry: 8 of replica, up to 10 of sequence.
pub const VECTOR_ENTRY_BYTES_MAX: usize = 18;
/// Encoded bytes of a full vector.
pub const VECTOR_BYTES_MAX: usize = REPLICAS_MAX * VECTOR_ENTRY_BYTES_MAX + 4;

/// Tombstones that a node keeps: some 8 MiB of disk with usual keys, 80 MiB with the longest.
pub const TOMBSTONES_MAX: u64 = 65_536;

/// Bytes of disk that they take, about: with the longest keys fewer are kept.
pub const TOMBSTONE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// What a tombstone takes beside its name: columns, indexes, page headers.
pub const TOMBSTONE_OVERHEAD_BYTES: u64 = 160;

/// Members of one cluster that a node tracks.
pub const MEMBERS_MAX: usize = 256;
/// Rows kept aside that one transaction decides about.
pub const RECOVERED_SLICE: usize = 64;
/// Rows kept aside are read until they reach this many bytes; one row may exceed it.
pub const RECOVERED_BYTES_TARGET: usize = 1024 * 1024;
/// Start tokens that a replica remembers and says in Hello.
pub const START_TOKENS_MAX: usize = 16;
/// Rows that were replaced before they were covered, and are remembered until they are. While the list is full no
/// tombstone is dropped.
pub const LOOSE_MAX: usize = 256;
/// Confirmations of other members that one Confirm relays.
pub const RELAYED_CONFIRMATIONS_MAX: usize = 4;

/// Largest frame payload. Everything that a message may hold fits; a longer one costs the sender its link. Protocol
/// constant.
pub const FRAME_BYTES_MAX: usize = 384 * 1024;
/// Bytes before a frame's payload: length (4, little endian) and kind (1).
pub const FRAME_HEADER_BYTES: usize = 5;
/// Rows are gathered into a batch until they reach this many bytes; one row may exceed it.
pub const BATCH_BYTES_TARGET: usize = 64 * 1024;
/// Rows in one batch.
pub const BATCH_ROWS_MAX: usize = 1024;
/// Stream positions that one read looks at: a long run of rows that the peer has must not hold the reading thread.
pub const BATCH_SCAN_MAX: usize = 4096;
/// Rows of the change feed are gathered into an answer until they reach this many bytes; one row may exceed it. Small,
/// since each reader may hold one answer.
pub const FEED_BYTES_TARGET: usize = 64 * 1024;
/// Bytes that one read of the change feed looks at, in search of the rows of one collection.
pub const FEED_SCAN_BYTES_MAX: usize = 1024 * 1024;
/// Keys whose rows are asked for at once, since they are damaged here. Protocol constant.
pub const FETCH_KEYS_MAX: usize = 32;
/// Damaged rows that are remembered and asked for; more are found again once there is room.
pub const DAMAGED_MAX: usize = 256;
/// Row bytes in flight to one peer without its Confirm.
pub const WINDOW_BYTES: usize = 1024 * 1024;

/// Links open at once; a board may lower it. A ninth member is served by the rotating slot.
pub const LINKS_MAX: usize = 8;
/// Names that `Api.HostNames` may list: a device has few, and each request is held against all of them.
pub const HOST_NAMES_MAX: usize = 32;
/// Connections of strangers in their handshake at once.
pub const HANDSHAKES_MAX: usize = 8;
/// Addresses that discovery remembers, members and strangers together.
pub const HEARD_MAX: usize = 512;
/// Devices that were refused lately and are remembered for a person to decide on: more at once is no mistake but an attack
/// by somebody who has the key.
pub const REFUSALS_MAX: usize = 32;
/// Questions to the whole site that are under way at once: a person asks seldom, and each is answered within seconds.
pub const ASKS_MAX: usize = 32;
/// Longest text of a release in a report, in bytes. Protocol constant.
pub const RELEASE_BYTES_MAX: usize = 32;
/// Cluster keys tried against a first message or a beacon while one is being rotated.
pub const CLUSTER_KEYS_MAX: usize = 3;
/// Datagram bytes: one beacon, never fragmented.
pub const BEACON_BYTES_MAX: usize = 256;

/// Transport bytes of one Noise message (Noise specification, section 3: 65535 with the tag).
pub const NOISE_MESSAGE_BYTES_MAX: usize = 65_535;
/// Plain bytes of one Noise message. Small, so that both directions make progress in little memory.
pub const NOISE_PLAIN_BYTES_MAX: usize = 16 * 1024;

/// Slots of the offline queue, fixed when compiled.
pub const QUEUE_SLOTS: usize = 1024;
/// Bytes that the node keeps with each queued document: stamp and replica (8 each), when it expires (8), whether (1).
pub const QUEUED_EXTRA_BYTES: usize = 25;
/// Bytes kept behind the spill file, so that a node starts on a full disk: the write-ahead log's first transactions (some
/// 20 pages) and its index (32 KiB).
pub const START_RESERVE_BYTES: u64 = 512 * 1024;
/// Errors that the sync tracker remembers.
pub const RECENT_ERRORS_MAX: usize = 32;

/// Physical milliseconds of a stamp that are accepted at all (year 6429): beyond it a row is malformed, on every node
/// alike.
pub const STAMP_MILLIS_MAX: u64 = 1 << 47;
/// The local clock is held below this (about a century less), so that every accepted stamp can still be written above.
pub const CLOCK_MILLIS_MAX: u64 = STAMP_MILLIS_MAX - 100 * 365 * 86_400_000;
/// A stamp further ahead of a believed clock than this does not move our clock.
pub const STAMP_AHEAD_MILLIS: u64 = 60_000;

const _: () =
    assert!(ROW_BYTES_MAX + VECTOR_BYTES_MAX * 2 + 256 <= FRAME_BYTES_MAX, "a row and a closure fit one frame");
const _: () = assert!(BATCH_BYTES_TARGET + ROW_BYTES_MAX + VECTOR_BYTES_MAX * 2 + 256 <= FRAME_BYTES_MAX);
const _: () = assert!(VECTOR_BYTES_MAX * (2 + RELAYED_CONFIRMATIONS_MAX) + 1024 <= FRAME_BYTES_MAX, "Confirm fits");
const _: () = assert!(
    VECTOR_BYTES_MAX * 2 + MEMBERS_MAX * (NODE_ID_BYTES_MAX + 64) + START_TOKENS_MAX * 30 + 1024 <= FRAME_BYTES_MAX,
    "Hello fits"
);
const _: () = assert!(WINDOW_BYTES >= FRAME_BYTES_MAX, "the window takes at least one whole frame");
const _: () = assert!(NOISE_PLAIN_BYTES_MAX + 16 <= NOISE_MESSAGE_BYTES_MAX);
const _: () = assert!(CLOCK_MILLIS_MAX < STAMP_MILLIS_MAX);
const _: () = assert!(HANDSHAKES_MAX >= 1 && LINKS_MAX >= 2, "one slot can rotate while another stays");
