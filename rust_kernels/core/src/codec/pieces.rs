//! The pieces of a block's body: bytes that are stored as they are, or compressed with Zstandard.

use std::borrow::Cow;
use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, ParamSwitch, Strategy};

use super::rows::bytes_of;
use super::{BadBlock, LARGEST_PIECE, with_room};
use crate::compute::Compute;
use crate::varint;

const LEVEL: i32 = 1;
/// Minimum bytes of a piece that is compressed separately.
const SMALL: usize = 200;
/// Pieces that a body may have whatever its size; beyond them it has `SMALL` bytes for each, as noting a piece takes memory.
const FEW: usize = 16;
/// Bytes above which a sample decides whether a part is compressed, and how: this many samples of so many bytes.
pub(super) const SAMPLED: usize = 64 << 10;
pub(super) const SAMPLES: usize = 4;
pub(super) const SAMPLE: usize = 2 << 10;
/// Bytes of a compressed piece, so that threads can share the work: about as far as this level looks back.
const CUT: usize = 512 << 10;
/// Bytes of a stored piece that are worth reading where they are, instead of with their neighbours.
const LARGE: usize = 64 << 10;
/// Sizes of a Zstandard block: at least 4 bytes compressed, at most 128 KiB decompressed.
const ZSTD_BLOCK: (usize, usize) = (4, 128 << 10);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Store,
    /// Only the frequencies of bytes, without a search for repetitions: several times as fast.
    Entropy,
    Search,
}

struct Compressors {
    entropy: Compressor<'static>,
    search: Compressor<'static>,
}

impl Compressors {
    fn new() -> std::io::Result<Self> {
        let mut entropy = Compressor::new(LEVEL)?;
        // The target length is the number of bytes that this strategy skips after each search without success.
        entropy.set_parameter(CParameter::Strategy(Strategy::ZSTD_fast))?;
        entropy.set_parameter(CParameter::TargetLength(ZSTD_BLOCK.1 as u32))?;
        entropy.set_parameter(CParameter::LiteralCompressionMode(ParamSwitch::Enable))?;
        Ok(Self { entropy, search: Compressor::new(LEVEL)? })
    }
}

thread_local! {
    static COMPRESSORS: RefCell<Compressors> = RefCell::new(Compressors::new().expect("Zstandard has these settings"));
    static DECOMPRESSOR: RefCell<Decompressor<'static>> =
        RefCell::new(Decompressor::new().expect("Zstandard needs no dictionary"));
}

/// Returns the bytes compressed, or `None` if that does not make them smaller.
fn compress(bytes: &[u8], method: Method) -> Option<Vec<u8>> {
    let packed = COMPRESSORS.with_borrow_mut(|with| match method {
        Method::Store => None,
        Method::Entropy => with.entropy.compress(bytes).ok(),
        Method::Search => with.search.compress(bytes).ok(),
    });
    packed.filter(|packed| packed.len() + 5 < bytes.len())
}

/// Returns how to compress a part, by what compressing some samples of it saves.
fn choose(part: &[u8]) -> Method {
    if part.len() <= SAMPLED {
        return Method::Search;
    }
    let step = (part.len() - SAMPLE) / (SAMPLES - 1);
    let sample: Vec<u8> = (0..SAMPLES).flat_map(|index| &part[index * step..][..SAMPLE]).copied().collect();
    let size = |method| compress(&sample, method).map_or(sample.len(), |packed| packed.len());
    let (entropy, search) = (size(Method::Entropy), size(Method::Search));
    if entropy.min(search) * 32 > sample.len() * 31 {
        Method::Store
    } else if entropy * 15 <= search * 16 {
        Method::Entropy
    } else {
        Method::Search
    }
}

/// Consecutive bytes of a block.
pub enum Chunk {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Chunk {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Floats(values) => bytes_of(values),
        }
    }
}

/// Appends the parts of a body as pieces; each part has its own statistics. Floats follow, in one piece and as they are.
pub(super) fn put(chunks: &mut Vec<Chunk>, parts: Vec<Vec<u8>>, floats: Vec<Vec<f32>>, compute: &Compute) {
    let mut parts = merged(parts);
    let methods = compute.map(parts.len(), |part| choose(&parts[part]));
    let mut pieces = Vec::new();
    for (part, method) in methods.into_iter().enumerate() {
        let (length, most) = (parts[part].len(), if method == Method::Store { LARGEST_PIECE } else { CUT });
        pieces.extend((0..length).step_by(most).map(|start| (part, start..length.min(start + most), method)));
    }
    let packed = compute.map(pieces.len(), |index| {
        let (part, range, method) = &pieces[index];
        compress(&parts[*part][range.clone()], *method)
    });
    for ((part, range, _), packed) in pieces.into_iter().zip(packed) {
        let mut head = Vec::new();
        match &packed {
            Some(packed) => {
                varint::put(&mut head, (range.len() as u32) << 1 | 1);
                varint::put(&mut head, packed.len() as u32);
            }
            None => varint::put(&mut head, (range.len() as u32) << 1),
        }
        let is_whole = range.len() == parts[part].len();
        let stored = || if is_whole { std::mem::take(&mut parts[part]) } else { parts[part][range].to_vec() };
        chunks.extend([Chunk::Bytes(head), Chunk::Bytes(packed.unwrap_or_else(stored))]);
    }
    let bytes: usize = floats.iter().map(|values| size_of_val(&values[..])).sum();
    if bytes > 0 {
        let mut head = Vec::new();
        varint::put(&mut head, (bytes as u32) << 1);
        chunks.push(Chunk::Bytes(head));
        chunks.extend(floats.into_iter().map(Chunk::Floats));
    }
}

/// Returns whether compressing the parts, samples of larger ones, saves a third of their bytes.
pub(super) fn saves_much(parts: &[Vec<u8>]) -> bool {
    let size = |part: &Vec<u8>| compress(part, Method::Entropy).map_or(part.len(), |packed| packed.len());
    3 * parts.iter().map(size).sum::<usize>() <= 2 * parts.iter().map(Vec::len).sum::<usize>()
}

/// Joins small parts to the next one, as each piece has some bytes of overhead.
fn merged(parts: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let last = parts.iter().rposition(|part| !part.is_empty()).unwrap_or(0);
    let mut merged: Vec<Vec<u8>> = Vec::with_capacity(parts.len());
    let mut pending = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        if pending.is_empty() {
            pending = part;
        } else {
            pending.extend_from_slice(&part);
        }
        if pending.len() >= SMALL || index == last {
            merged.push(std::mem::take(&mut pending));
        }
    }
    merged
}

/// Reads the pieces of a body of at most `most` bytes. Returns the body in runs of consecutive bytes: large pieces that
/// were stored are borrowed, each as a run of its own.
pub(super) fn take<'a>(mut block: &'a [u8], most: u64, compute: &Compute) -> Result<Vec<Cow<'a, [u8]>>, BadBlock> {
    const EARLY: BadBlock = BadBlock("it ends too early");
    const LARGER: BadBlock = BadBlock("it claims to be larger than it can be");
    let (mut pieces, mut total) = (Vec::new(), 0);
    while !block.is_empty() {
        let head = varint::take(&mut block).ok_or(EARLY)?;
        let (length, is_packed) = ((head >> 1) as usize, head & 1 == 1);
        total += length as u64;
        if total > most || length > LARGEST_PIECE {
            return Err(LARGER);
        }
        if pieces.len() >= FEW + total as usize / SMALL {
            return Err(BadBlock("it has too many pieces"));
        }
        let bytes = if is_packed { varint::take(&mut block).ok_or(EARLY)? as usize } else { length };
        let (piece, rest) = block.split_at_checked(bytes).ok_or(EARLY)?;
        if is_packed && length / ZSTD_BLOCK.1 > bytes / ZSTD_BLOCK.0 {
            return Err(LARGER);
        }
        block = rest;
        pieces.push((piece, length, is_packed));
    }
    let unpack = |index: usize| {
        let (piece, length, is_packed) = pieces[index];
        if !is_packed {
            return Ok(Cow::Borrowed(piece));
        }
        let mut unpacked = with_room(length)?;
        let done = DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress_to_buffer(piece, &mut unpacked));
        let is_whole = done.is_ok_and(|bytes| bytes == length);
        if is_whole { Ok(Cow::Owned(unpacked)) } else { Err(BadBlock("a compressed piece is damaged")) }
    };
    let unpacked = compute.map(pieces.len(), unpack).into_iter().collect::<Result<Vec<_>, _>>();
    let mut runs: Vec<Cow<'a, [u8]>> = Vec::new();
    let apart = |run: &Cow<'a, [u8]>| matches!(run, Cow::Borrowed(bytes) if bytes.len() >= LARGE);
    for run in unpacked? {
        match runs.last_mut() {
            Some(last) if !apart(last) && !apart(&run) => {
                let last = last.to_mut();
                last.try_reserve(run.len()).map_err(|_| BadBlock::MEMORY)?;
                last.extend_from_slice(&run);
            }
            _ => runs.push(run),
        }
    }
    Ok(runs)
}
