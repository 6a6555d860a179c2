//! The wire format of frames, each of which carries a part of an encoded block or of a control message.
//!
//! A frame costs few bytes, because a layer may have hundreds of them that carry a few values each. Fixed-size numbers are
//! little-endian, the others varints. Layout of version 3:
//!
//! | bytes    | field |
//! |----------|-------|
//! | 1        | magic `F` |
//! | 1        | version, 3 |
//! | 1        | kind: 0 data, 1 gather, 2 abort |
//! | 8        | XXH3-64 of the run's id and the digest of the exchange plan |
//! | 2        | layer; for data, the layer that produced the rows |
//! | 2        | micro-batch |
//! | 2        | part, from 0 |
//! | 2        | number of parts |
//! | varint   | attempt |
//! | varint   | source rank |
//! | varint   | edge: number of the edge among the source's edges after the layer |
//! | varint   | number of targets |
//! | varints  | target ranks |
//! |          | payload |
//! | 8        | checksum: XXH3-64 of all bytes before |

use std::cmp::Ordering;

use std::mem::MaybeUninit;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::varint;

const MAGIC: &[u8; 2] = b"F\x03";
/// Bytes of the fields of fixed size before the varints.
const FIXED: usize = 19;
const CHECKSUM: usize = 8;
/// Maximum numbers of layers and of micro-batches that frames can tell apart.
pub const MOST: usize = u16::MAX as usize;

/// The content of a frame; the values are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Data = 0,
    Gather = 1,
    Abort = 2,
    Repeat = 3,
}

impl Kind {
    /// Returns the kind with a wire value, if there is one.
    pub fn from_number(number: u32) -> Option<Kind> {
        [Kind::Data, Kind::Gather, Kind::Abort, Kind::Repeat].into_iter().find(|&kind| kind as u32 == number)
    }
}

/// The identity of an attempt: its run with its exchange plan, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// XXH3-64 of the run's id and the plan's digest, which are random: two runs share it by a chance of 2^-64.
    run: u64,
    number: u32,
}

/// The relation of an attempt to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Same,
    /// An older attempt of the same run.
    Older,
    /// Of another run or plan, or a newer attempt.
    Foreign,
}

impl Attempt {
    /// Returns the identity of attempt `number` of a run with an exchange plan.
    pub fn new(run: [u8; 16], number: u32, plan: [u8; 16]) -> Self {
        let mut both = [0; 32];
        both[..16].copy_from_slice(&run);
        both[16..].copy_from_slice(&plan);
        Self { run: xxh3_64(&both), number }
    }

    /// Returns what this attempt is to `other`.
    pub fn relation(&self, other: &Attempt) -> Relation {
        match self.number.cmp(&other.number) {
            _ if self.run != other.run => Relation::Foreign,
            Ordering::Equal => Relation::Same,
            Ordering::Less => Relation::Older,
            Ordering::Greater => Relation::Foreign,
        }
    }
}

/// The fields of a header without the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub attempt: Attempt,
    pub layer: u16,
    pub micro_batch: u16,
    pub source: u16,
    pub edge: u32,
    pub part: u16,
    pub parts: u16,
}

/// A frame with a valid checksum and layout, borrowed from its bytes.
#[derive(Debug)]
pub struct Frame<'a> {
    pub header: Header,
    /// Varints.
    targets: &'a [u8],
    /// The number of targets.
    count: u32,
    start: usize,
    pub payload: &'a [u8],
}

/// The bytes are not a frame of this version, or were damaged in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an undamaged frame of this version")]
pub struct Corrupt;

/// Returns the header of a frame.
fn head(header: &Header, targets: &[u16]) -> Vec<u8> {
    let mut head = Vec::with_capacity(FIXED + 20 + 3 * targets.len());
    head.extend_from_slice(MAGIC);
    head.push(header.kind as u8);
    head.extend_from_slice(&header.attempt.run.to_le_bytes());
    for number in [header.layer, header.micro_batch, header.part, header.parts] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    let numbers = [header.attempt.number, u32::from(header.source), header.edge, targets.len() as u32];
    numbers.into_iter().chain(targets.iter().map(|target| u32::from(*target))).for_each(|n| varint::put(&mut head, n));
    head
}

/// Returns the bytes of a frame without its payload, which are the same for all parts.
pub fn overhead(header: &Header, targets: &[u16]) -> usize {
    head(header, targets).len() + CHECKSUM
}

/// Builds a frame.
pub fn seal(header: &Header, targets: &[u16], payload: &[u8]) -> Vec<u8> {
    let length = overhead(header, targets) + payload.len();
    let mut body = Vec::with_capacity(length);
    write(header, targets, &[payload], &mut body.spare_capacity_mut()[..length]);
    // SAFETY: all these bytes were written.
    unsafe { body.set_len(length) };
    body
}

/// Writes a frame, whose payload comes in parts, to all bytes of `to`.
///
/// # Panics
/// If the frame has another length.
pub fn write(header: &Header, targets: &[u16], payload: &[&[u8]], to: &mut [MaybeUninit<u8>]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    assert_eq!(to.len(), overhead(header, targets) + length, "the place is as long as the frame");
    let end = to.len() - CHECKSUM;
    let mut done = put(to, 0, &head(header, targets));
    for part in payload {
        done = put(to, done, part);
    }
    assert_eq!(done, end, "all of the frame but its checksum");
    // SAFETY: these bytes were written.
    let covered = unsafe { std::slice::from_raw_parts(to.as_ptr().cast::<u8>(), end) };
    let checksum = xxh3_64(covered);
    put(to, end, &checksum.to_le_bytes());
}

/// Writes bytes from a position on, and returns the position behind them.
fn put(to: &mut [MaybeUninit<u8>], at: usize, bytes: &[u8]) -> usize {
    let place = &mut to[at..at + bytes.len()];
    // SAFETY: the place is as long as the bytes, and nothing else has it.
    unsafe { place.as_mut_ptr().copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len()) };
    at + bytes.len()
}

/// Validates and parses a frame. Allocates nothing, whatever sizes the bytes claim.
pub fn open(body: &[u8]) -> Result<Frame<'_>, Corrupt> {
    let (covered, checksum) = body.split_last_chunk::<CHECKSUM>().ok_or(Corrupt)?;
    if !covered.starts_with(MAGIC) || xxh3_64(covered) != u64::from_le_bytes(*checksum) {
        return Err(Corrupt);
    }
    let mut rest = &covered[MAGIC.len()..];
    let [kind] = take(&mut rest)?;
    let run = take(&mut rest).map(u64::from_le_bytes)?;
    let mut short = || take(&mut rest).map(u16::from_le_bytes);
    let (layer, micro_batch, part, parts) = (short()?, short()?, short()?, short()?);
    let mut number = || varint::take(&mut rest).ok_or(Corrupt);
    let attempt = Attempt { run, number: number()? };
    let (source, edge, count) = (number()?, number()?, number()?);
    let before = rest;
    for _ in 0..count {
        varint::take(&mut rest).ok_or(Corrupt)?;
    }
    let targets = &before[..before.len() - rest.len()];
    let kind = Kind::from_number(u32::from(kind)).ok_or(Corrupt)?;
    let source = u16::try_from(source).map_err(|_| Corrupt)?;
    if part >= parts {
        return Err(Corrupt);
    }
    let header = Header { kind, attempt, layer, micro_batch, source, edge, part, parts };
    Ok(Frame { header, targets, count, start: covered.len() - rest.len(), payload: rest })
}

/// Removes so many bytes from the front of `rest`.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Corrupt> {
    let (field, after) = rest.split_first_chunk::<N>().ok_or(Corrupt)?;
    *rest = after;
    Ok(*field)
}

impl Frame<'_> {
    /// Returns the position of the payload in the frame's bytes.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.payload.len()
    }

    /// Returns the number of targets.
    pub fn targets(&self) -> usize {
        self.count as usize
    }

    /// Returns whether `rank` is among the targets.
    pub fn is_for(&self, rank: u16) -> bool {
        let mut rest = self.targets;
        std::iter::from_fn(|| varint::take(&mut rest)).any(|target| target == u32::from(rank))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        let attempt = (any::<[u8; 16]>(), any::<u32>(), any::<[u8; 16]>())
            .prop_map(|(run, number, plan)| Attempt::new(run, number, plan));
        (0u32..3, attempt, any::<(u16, u16, u16, u32)>(), any::<(u16, u16)>()).prop_map(
            |(kind, attempt, (layer, micro_batch, source, edge), (a, b))| Header {
                kind: Kind::from_number(kind).unwrap(),
                attempt,
                layer,
                micro_batch,
                source,
                edge,
                part: a.min(b).min(u16::MAX - 1),
                parts: a.max(b).max(a.min(b).saturating_add(1)),
            },
        )
    }

    #[test]
    fn a_header_takes_few_bytes() {
        let attempt = Attempt::new([1; 16], 0, [2; 16]);
        let header =
            Header { kind: Kind::Data, attempt, layer: 119, micro_batch: 0, source: 7, edge: 12, part: 0, parts: 1 };
        assert_eq!(overhead(&header, &[3]), 32);
        assert_eq!(overhead(&Header { source: 128, ..header }, &[0, 1, 127, 128]), 28 + 2 + 1 + 1 + 5);
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(
            header in header(),
            targets in prop::collection::vec(any::<u16>(), 0..5),
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let body = seal(&header, &targets, &payload);
            prop_assert_eq!(body.len(), overhead(&header, &targets) + payload.len());
            let frame = open(&body).unwrap();
            prop_assert_eq!(frame.header, header);
            prop_assert_eq!(frame.payload, &payload[..]);
            prop_assert_eq!(&body[frame.range()], &payload[..]);
            let mut parts = vec![std::mem::MaybeUninit::new(0); body.len()];
            let (begin, end) = payload.split_at(payload.len() / 3);
            write(&header, &targets, &[begin, &[], end], &mut parts);
            // SAFETY: all bytes are initialized.
            let written: Vec<u8> = parts.iter().map(|byte| unsafe { byte.assume_init() }).collect();
            prop_assert_eq!(&written, &body);
            for rank in 0..=u16::MAX {
                prop_assert_eq!(frame.is_for(rank), targets.contains(&rank));
            }
        }

        #[test]
        fn runs_and_plans_and_attempts_are_told_apart(
            run in any::<[u8; 16]>(), plan in any::<[u8; 16]>(), number in 0u32..9, at in 0usize..16, flip in 1u8..,
        ) {
            let this = Attempt::new(run, number, plan);
            prop_assert_eq!(this.relation(&this), Relation::Same);
            let next = Attempt::new(run, number + 1, plan);
            prop_assert_eq!((this.relation(&next), next.relation(&this)), (Relation::Older, Relation::Foreign));
            let (mut other_run, mut other_plan) = (run, plan);
            other_run[at] ^= flip;
            other_plan[at] ^= flip;
            for other in [Attempt::new(other_run, number, plan), Attempt::new(run, number, other_plan)] {
                prop_assert_eq!((this.relation(&other), next.relation(&other)), (Relation::Foreign, Relation::Foreign));
                prop_assert_eq!(other.relation(&next), Relation::Foreign);
            }
        }

        #[test]
        fn damage_is_seen(
            header in header(),
            payload in prop::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
            cut in any::<prop::sample::Index>(),
            more in prop::collection::vec(any::<u8>(), 1..9),
        ) {
            let body = seal(&header, &[1, 2], &payload);
            let mut flipped = body.clone();
            flipped[at.index(body.len())] ^= flip;
            prop_assert!(open(&flipped).is_err());
            prop_assert!(open(&body[..cut.index(body.len())]).is_err());
            prop_assert!(open(&[&body[..], &more].concat()).is_err());
        }

        #[test]
        fn strange_bytes_with_a_right_checksum_do_not_panic(middle in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut body = [&MAGIC[..], &middle].concat();
            body.extend_from_slice(&xxh3_64(&body).to_le_bytes());
            let _ = open(&body);
        }
    }
}
