//! The wire format of frames, each of which carries a part of an encoded block or of a control message.
//!
//! All numbers are little-endian. Layout of version 2, with `t` targets:
//!
//! | offset   | bytes | field |
//! |----------|-------|-------|
//! | 0        | 3     | magic `FSD` |
//! | 3        | 1     | version, 2 |
//! | 4        | 1     | kind: 0 data, 1 gather, 2 abort |
//! | 5        | 16    | run |
//! | 21       | 4     | attempt |
//! | 25       | 16    | digest of the exchange plan |
//! | 41       | 4     | layer; for data, the layer that produced the rows |
//! | 45       | 4     | micro-batch |
//! | 49       | 2     | source rank |
//! | 51       | 4     | edge: number of the edge among the source's edges after the layer |
//! | 55       | 2     | part, from 0 |
//! | 57       | 2     | number of parts |
//! | 59       | 4     | size of the payload in bytes |
//! | 63       | 2     | number of targets |
//! | 65       | 2 t   | target ranks |
//! | 65 + 2 t |       | payload |
//! | end - 8  | 8     | checksum: XXH3-64 of all bytes before |

use std::mem::MaybeUninit;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 4] = b"FSD\x02";
const FIXED: usize = 65;
const CHECKSUM: usize = 8;

/// The content of a frame; the values are those on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Data = 0,
    Gather = 1,
    Abort = 2,
}

impl Kind {
    /// Returns the kind with a wire value, if there is one.
    pub fn from_number(number: u32) -> Option<Kind> {
        [Kind::Data, Kind::Gather, Kind::Abort].into_iter().find(|&kind| kind as u32 == number)
    }
}

/// The identity of an attempt: its run, its number and its exchange plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub run: [u8; 16],
    pub attempt: u32,
    pub plan: [u8; 16],
}

/// The fields of a header without the targets and the size of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub attempt: Attempt,
    pub layer: u32,
    pub micro_batch: u32,
    pub source: u16,
    pub edge: u32,
    pub part: u16,
    pub parts: u16,
}

/// A frame with a valid checksum and layout, borrowed from its bytes.
#[derive(Debug)]
pub struct Frame<'a> {
    pub header: Header,
    targets: &'a [u8],
    pub payload: &'a [u8],
}

/// The bytes are not a frame of this version, or were damaged in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an undamaged frame of this version")]
pub struct Corrupt;

/// Returns the bytes of a frame with this number of targets without its payload.
pub fn overhead(targets: usize) -> usize {
    FIXED + 2 * targets + CHECKSUM
}

/// Builds a frame. `targets` and `payload` must fit their length fields (u16, u32), which the callers' limits ensure.
pub fn seal(header: &Header, targets: &[u16], payload: &[u8]) -> Vec<u8> {
    let length = overhead(targets.len()) + payload.len();
    let mut body = Vec::with_capacity(length);
    write(header, targets, &[payload], &mut body.spare_capacity_mut()[..length]);
    // SAFETY: all these bytes were written.
    unsafe { body.set_len(length) };
    body
}

/// Writes a frame, whose payload comes in parts, to all bytes of `to`.
///
/// # Panics
/// If the frame has another length, or lengths do not fit their fields.
pub fn write(header: &Header, targets: &[u16], payload: &[&[u8]], to: &mut [MaybeUninit<u8>]) {
    let length = payload.iter().map(|part| part.len()).sum();
    assert_eq!(to.len(), overhead(targets.len()) + length, "the place is as long as the frame");
    let end = to.len() - CHECKSUM;
    let mut done = put(to, 0, &head(header, targets, length));
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

/// Returns the bytes of a frame before its payload.
fn head(header: &Header, targets: &[u16], length: usize) -> Vec<u8> {
    let count = u16::try_from(targets.len()).expect("a frame has at most 65,535 targets");
    let length = u32::try_from(length).expect("a frame's payload is below 4 GiB");
    let mut body = Vec::with_capacity(FIXED + 2 * targets.len());
    body.extend_from_slice(MAGIC);
    body.push(header.kind as u8);
    body.extend_from_slice(&header.attempt.run);
    body.extend_from_slice(&header.attempt.attempt.to_le_bytes());
    body.extend_from_slice(&header.attempt.plan);
    body.extend_from_slice(&header.layer.to_le_bytes());
    body.extend_from_slice(&header.micro_batch.to_le_bytes());
    body.extend_from_slice(&header.source.to_le_bytes());
    body.extend_from_slice(&header.edge.to_le_bytes());
    body.extend_from_slice(&header.part.to_le_bytes());
    body.extend_from_slice(&header.parts.to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&count.to_le_bytes());
    for target in targets {
        body.extend_from_slice(&target.to_le_bytes());
    }
    body
}

/// Validates and parses a frame. Allocates nothing, whatever sizes the bytes claim.
pub fn open(body: &[u8]) -> Result<Frame<'_>, Corrupt> {
    let (covered, checksum) = body.split_last_chunk::<CHECKSUM>().ok_or(Corrupt)?;
    if !covered.starts_with(MAGIC) || xxh3_64(covered) != u64::from_le_bytes(*checksum) {
        return Err(Corrupt);
    }
    let mut reader = Reader(&covered[MAGIC.len()..]);
    let kind = Kind::from_number(u32::from(reader.take::<1>()?[0])).ok_or(Corrupt)?;
    let attempt = Attempt { run: reader.take()?, attempt: reader.u32()?, plan: reader.take()? };
    let header = Header {
        kind,
        attempt,
        layer: reader.u32()?,
        micro_batch: reader.u32()?,
        source: reader.u16()?,
        edge: reader.u32()?,
        part: reader.u16()?,
        parts: reader.u16()?,
    };
    let length = reader.u32()? as usize;
    let count = usize::from(reader.u16()?);
    let (targets, payload) = reader.0.split_at_checked(2 * count).ok_or(Corrupt)?;
    if payload.len() != length || header.part >= header.parts {
        return Err(Corrupt);
    }
    Ok(Frame { header, targets, payload })
}

impl Frame<'_> {
    /// Returns the position of the payload in the frame's bytes.
    pub fn range(&self) -> Range<usize> {
        let start = FIXED + self.targets.len();
        start..start + self.payload.len()
    }

    /// Returns whether `rank` is among the targets.
    pub fn is_for(&self, rank: u16) -> bool {
        self.targets.chunks_exact(2).any(|target| target == rank.to_le_bytes())
    }
}

/// A reader of consecutive fixed-size fields of a slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Corrupt)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u16(&mut self) -> Result<u16, Corrupt> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Corrupt> {
        self.take().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        let attempt = (any::<[u8; 16]>(), any::<u32>(), any::<[u8; 16]>()).prop_map(|(run, attempt, plan)| Attempt {
            run,
            attempt,
            plan,
        });
        (0u32..3, attempt, any::<(u32, u32, u16, u32)>(), any::<(u16, u16)>()).prop_map(
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

    proptest! {
        #[test]
        fn what_is_sealed_opens(
            header in header(),
            targets in prop::collection::vec(any::<u16>(), 0..5),
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let body = seal(&header, &targets, &payload);
            prop_assert_eq!(body.len(), overhead(targets.len()) + payload.len());
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
