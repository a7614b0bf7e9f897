//! The bytes of a queue on disk: a head that says what follows, then each operation with its own checksums.
//!
//! Reads and writes no file. Written to survive an orderly stop; read so that every operation that is whole comes back,
//! whatever happened to the others. `docs/storage.md` draws the format.

use super::{OperationKind, PendingOperation};
use crate::limits::{COLLECTION_BYTES_MAX, DOCUMENT_BYTES_MAX, KEY_BYTES_MAX, QUEUE_SLOTS, QUEUED_EXTRA_BYTES};
use alloc::string::String;
use alloc::vec::Vec;
use blake2::digest::{Update, VariableOutput};

/// Bytes of the head of a file.
pub const HEAD_BYTES: usize = 40;
/// Bytes before each operation.
pub const FRAME_BYTES: usize = 28;
const MAGIC: [u8; 8] = *b"CBDDCQ1\n";
const MARK: [u8; 4] = *b"op\x01\n";
/// Kind and the lengths of the two names.
const NAMES_BYTES: usize = 5;
/// Longest encoded operation.
const OPERATION_BYTES_MAX: usize =
    NAMES_BYTES + COLLECTION_BYTES_MAX + KEY_BYTES_MAX + DOCUMENT_BYTES_MAX + QUEUED_EXTRA_BYTES;

/// What the head of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Rises with each writing: what an earlier one has left behind is not taken for this one's.
    pub generation: u32,
    /// Operations that follow; none where the file is empty.
    pub operations: u32,
    /// Bytes of the file that they take, the head counted.
    pub bytes: u64,
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The operations that are whole, in their order.
    pub operations: Vec<PendingOperation>,
    /// How many are not here any more, as far as that is known.
    pub lost: u64,
    /// The head is damaged: how many there were is not known.
    pub headless: bool,
    /// The generation of what was found.
    pub generation: u32,
}

fn checksum<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut hasher = blake2::Blake2sVar::new(N).expect("4 and 8 are valid output sizes of BLAKE2s");
    parts.iter().for_each(|part| hasher.update(part));
    let mut sum = [0; N];
    hasher.finalize_variable(&mut sum).expect("the buffer has the size that was asked for");
    sum
}

impl Head {
    /// The bytes of the head.
    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.generation.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.operations.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.bytes.to_le_bytes());
        let sum: [u8; 8] = checksum(&[&bytes[..24]]);
        bytes[24..32].copy_from_slice(&sum);
        bytes
    }
    /// Reads a head. `None` where it is damaged; a file that was never written reads as empty.
    pub fn decode(bytes: &[u8]) -> Option<Head> {
        let bytes = bytes.get(..HEAD_BYTES).unwrap_or(bytes);
        if bytes.iter().all(|byte| *byte == 0) {
            return Some(Head::default());
        }
        let sum: [u8; 8] = checksum(&[bytes.get(..24)?]);
        let valid = bytes.len() == HEAD_BYTES && bytes[..8] == MAGIC && bytes[24..32] == sum;
        let number =
            |at: usize| bytes[at..at + 4].iter().rev().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        valid.then(|| Head {
            generation: number(8),
            operations: number(12),
            bytes: u64::from(number(16)) | u64::from(number(20)) << 32,
        })
    }
}

/// Bytes that an operation takes in a file; never more than it counts for in the queue.
pub fn encoded_bytes(operation: &PendingOperation) -> usize {
    FRAME_BYTES + NAMES_BYTES + operation.collection.len() + operation.key.len() + operation.data.len()
}

/// Appends one operation, number `index` of its generation.
pub fn encode(out: &mut Vec<u8>, generation: u32, index: u32, operation: &PendingOperation) {
    let (collection, key) = (operation.collection.as_bytes(), operation.key.as_bytes());
    let kind = match operation.kind {
        OperationKind::Put => 0,
        OperationKind::Delete => 1,
    };
    // Names are bounded far below this by whoever accepts an operation; a longer one does not come back.
    let length = |name: &[u8]| u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes();
    let (c, k) = (length(collection), length(key));
    let names = [kind, c[0], c[1], k[0], k[1]];
    let bytes = u32::try_from(encoded_bytes(operation) - FRAME_BYTES).unwrap_or(u32::MAX);
    let mut frame = [0; FRAME_BYTES];
    frame[..4].copy_from_slice(&MARK);
    frame[4..8].copy_from_slice(&generation.to_le_bytes());
    frame[8..12].copy_from_slice(&index.to_le_bytes());
    frame[12..16].copy_from_slice(&bytes.to_le_bytes());
    let content: [u8; 8] = checksum(&[&names, collection, key, &operation.data]);
    frame[16..24].copy_from_slice(&content);
    let own: [u8; 4] = checksum(&[&frame[..24]]);
    frame[24..].copy_from_slice(&own);
    for part in [&frame[..], &names, collection, key, &operation.data] {
        out.extend_from_slice(part);
    }
}

/// Reads what follows the head in a file, given whole.
pub fn decode(head: Option<Head>, bytes: &[u8]) -> Found {
    let mut found: Vec<(u32, u32, PendingOperation)> = Vec::new();
    let mut rest = bytes.get(HEAD_BYTES..).unwrap_or_default();
    while rest.len() >= FRAME_BYTES && found.len() < 2 * QUEUE_SLOTS {
        let Some((generation, index, length)) = frame(rest) else {
            // Damaged here: the next one begins wherever its mark is.
            let next = rest[1..].windows(MARK.len()).position(|at| at == MARK);
            rest = next.map_or(&[], |at| &rest[1 + at..]);
            continue;
        };
        let sum = &rest[16..24];
        let content = &rest[FRAME_BYTES..];
        let content = &content[..length.min(content.len())];
        let whole: [u8; 8] = checksum(&[content]);
        if content.len() == length
            && whole == sum
            && let Some(operation) = operation(content)
        {
            found.push((generation, index, operation));
        }
        rest = &rest[FRAME_BYTES + content.len()..];
    }
    let newest = || found.iter().map(|(generation, _, _)| *generation).max().unwrap_or(0);
    let generation = head.map_or_else(newest, |head| head.generation);
    let expected = head.map_or(0, |head| head.operations);
    let mut ours: Vec<(u32, PendingOperation)> = (found.into_iter())
        .filter(|(of, index, _)| *of == generation && head.is_none_or(|_| *index < expected))
        .map(|(_, index, operation)| (index, operation))
        .collect();
    // They lie in their order already; a number that comes twice could only be a forgery.
    ours.sort_by_key(|(index, _)| *index);
    ours.dedup_by_key(|(index, _)| *index);
    let expected = if head.is_some() { expected } else { ours.last().map_or(0, |(index, _)| index.saturating_add(1)) };
    let lost = u64::from(expected).saturating_sub(ours.len() as u64);
    let operations = ours.into_iter().map(|(_, operation)| operation).collect();
    Found { operations, lost, headless: head.is_none(), generation }
}

/// Generation, number and length of the operation that begins here, if one does.
fn frame(bytes: &[u8]) -> Option<(u32, u32, usize)> {
    let frame = bytes.get(..FRAME_BYTES).filter(|frame| frame[..4] == MARK)?;
    let own: [u8; 4] = checksum(&[&frame[..24]]);
    let number = |at: usize| frame[at..at + 4].iter().rev().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    let length = number(12) as usize;
    (frame[24..] == own && length <= OPERATION_BYTES_MAX).then(|| (number(4), number(8), length))
}

fn operation(content: &[u8]) -> Option<PendingOperation> {
    let ([kind, c0, c1, k0, k1], names) = content.split_first_chunk::<NAMES_BYTES>()?;
    let kind = match kind {
        0 => OperationKind::Put,
        1 => OperationKind::Delete,
        _ => return None,
    };
    let (collection, rest) = names.split_at_checked(usize::from(u16::from_le_bytes([*c0, *c1])))?;
    let (key, data) = rest.split_at_checked(usize::from(u16::from_le_bytes([*k0, *k1])))?;
    let text = |bytes: &[u8]| core::str::from_utf8(bytes).ok().map(String::from);
    Some(PendingOperation { kind, collection: text(collection)?, key: text(key)?, data: data.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn operations(count: usize) -> Vec<PendingOperation> {
        let one = |n: usize| match n % 3 {
            0 => PendingOperation::delete("users", alloc::format!("k{n}")),
            _ => PendingOperation::put("users", alloc::format!("k{n}"), vec![n as u8; n * 7]),
        };
        (0..count).map(one).collect()
    }
    fn written(generation: u32, operations: &[PendingOperation]) -> (Head, Vec<u8>) {
        let mut bytes = vec![0; HEAD_BYTES];
        for (index, operation) in operations.iter().enumerate() {
            encode(&mut bytes, generation, index as u32, operation);
        }
        let head = Head { generation, operations: operations.len() as u32, bytes: bytes.len() as u64 };
        bytes[..HEAD_BYTES].copy_from_slice(&head.encode());
        (head, bytes)
    }
    fn read(bytes: &[u8]) -> Found {
        decode(Head::decode(bytes), bytes)
    }

    #[test]
    fn what_was_written_comes_back_in_its_order() {
        let operations = operations(20);
        let (head, bytes) = written(7, &operations);
        assert_eq!(Head::decode(&bytes), Some(head));
        assert_eq!(read(&bytes), Found { operations, lost: 0, headless: false, generation: 7 });
        assert_eq!(Head::decode(&[0; 4096]), Some(Head::default()));
        assert_eq!(read(&[0; 4096]), Found::default());
        assert_eq!(read(&[]), Found::default());
    }

    #[test]
    fn a_file_that_is_cut_anywhere_gives_every_whole_operation_back_and_says_how_many_are_lost() {
        let operations = operations(12);
        let (_, bytes) = written(3, &operations);
        for cut in HEAD_BYTES..bytes.len() {
            let found = read(&bytes[..cut]);
            let whole = found.operations.len();
            assert_eq!(found.operations, operations[..whole], "cut at {cut}");
            assert_eq!(found.lost, (12 - whole) as u64, "cut at {cut}");
            let next = HEAD_BYTES + operations[..=whole].iter().map(encoded_bytes).sum::<usize>();
            assert!(cut < next, "cut at {cut}: number {whole} is whole");
        }
    }

    #[test]
    fn a_flipped_byte_costs_at_most_the_operation_that_it_is_in() {
        let operations = operations(9);
        let (_, bytes) = written(3, &operations);
        for at in HEAD_BYTES..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            let found = read(&damaged);
            assert_eq!((found.operations.len(), found.lost), (8, 1), "flipped at {at}");
            assert!(found.operations.iter().all(|operation| operations.contains(operation)), "flipped at {at}");
        }
    }

    #[test]
    fn a_damaged_head_is_said_and_costs_no_operation() {
        let operations = operations(5);
        let (_, mut bytes) = written(9, &operations);
        bytes[9] ^= 1;
        assert_eq!(read(&bytes), Found { operations, lost: 0, headless: true, generation: 9 });
    }

    #[test]
    fn what_an_earlier_and_longer_writing_left_behind_is_not_taken() {
        let (_, long) = written(1, &operations(9));
        let (_, short) = written(2, &operations(2));
        let mut bytes = long;
        bytes[..short.len()].copy_from_slice(&short);
        assert_eq!(read(&bytes).operations, operations(2));
    }

    #[test]
    fn any_bytes_are_read_without_harm() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (_, mut bytes) = written(3, &operations(6));
            for _ in 0..random.usize(1..20) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            let found = read(&bytes);
            assert!(found.operations.iter().all(|one| operations(6).contains(one)), "seed {seed}");
        }
    }

    #[test]
    fn an_operation_takes_no_more_in_a_file_than_it_counts_for() {
        assert!(operations(30).iter().all(|operation| encoded_bytes(operation) <= operation.bytes()));
    }
}
