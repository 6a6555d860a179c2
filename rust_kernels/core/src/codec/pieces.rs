//! The pieces of a block's body: bytes that are stored as they are, or compressed with Zstandard.

use std::borrow::Cow;
use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CParameter, ParamSwitch, Strategy};

use super::{BadBlock, LARGEST_PIECE};
use crate::compute::Compute;
use crate::varint;

const LEVEL: i32 = 1;
/// Minimum bytes of a piece that is compressed separately.
const SMALL: usize = 200;
/// Bytes above which a sample decides whether a part is compressed, and how: this many samples of so many bytes.
const SAMPLED: usize = 64 << 10;
const SAMPLES: usize = 4;
const SAMPLE: usize = 2 << 10;
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

/// Appends the parts of a body as pieces; each part has its own statistics.
pub(super) fn put(block: &mut Vec<u8>, parts: Vec<Vec<u8>>, compute: &Compute) {
    let parts = merged(parts);
    let methods = compute.map(parts.len(), |part| choose(&parts[part]));
    let mut pieces: Vec<(&[u8], Method)> = Vec::new();
    for (part, method) in parts.iter().zip(methods) {
        let most = if method == Method::Store { LARGEST_PIECE } else { CUT };
        pieces.extend(part.chunks(most).map(|piece| (piece, method)));
    }
    let packed = compute.map(pieces.len(), |index| compress(pieces[index].0, pieces[index].1));
    let bytes: usize =
        pieces.iter().zip(&packed).map(|((piece, _), packed)| packed.as_deref().unwrap_or(piece).len() + 10).sum();
    block.reserve_exact(bytes);
    for ((piece, _), packed) in pieces.into_iter().zip(packed) {
        let length = piece.len() as u32;
        match packed {
            Some(packed) => {
                varint::put(block, length << 1 | 1);
                varint::put(block, packed.len() as u32);
                block.extend_from_slice(&packed);
            }
            None => {
                varint::put(block, length << 1);
                block.extend_from_slice(piece);
            }
        }
    }
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
            return Some(Cow::Borrowed(piece));
        }
        let unpacked = DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress(piece, length)).ok()?;
        (unpacked.len() == length).then_some(Cow::Owned(unpacked))
    };
    let unpacked = compute.map(pieces.len(), unpack).into_iter().collect::<Option<Vec<_>>>();
    let mut runs: Vec<Cow<'a, [u8]>> = Vec::new();
    let apart = |run: &Cow<'a, [u8]>| matches!(run, Cow::Borrowed(bytes) if bytes.len() >= LARGE);
    for run in unpacked.ok_or(BadBlock("a compressed piece is damaged"))? {
        match runs.last_mut() {
            Some(last) if !apart(last) && !apart(&run) => last.to_mut().extend_from_slice(&run),
            _ => runs.push(run),
        }
    }
    Ok(runs)
}
