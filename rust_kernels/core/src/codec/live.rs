//! The lists of live samples of blocks: as they are, or as changes of a list that the reader has.

use super::{BadBlock, LIVE_ALL, LIVE_BITMAP, LIVE_CHANGES, LIVE_GAPS, with_room};
use crate::varint;

/// Returns the list of live samples with a number, if the reader has it.
pub type Known<'a> = &'a (dyn Fn(u32) -> Option<&'a [u32]> + Sync);

/// Appends the list in its smallest form and returns the flag that says which; `known` are numbered lists that all
/// readers of the block have.
pub(super) fn put(body: &mut Vec<u8>, samples: usize, live: &[u32], known: &[(u32, &[u32])]) -> u8 {
    if live.len() == samples {
        return LIVE_ALL;
    }
    let mut best = (LIVE_GAPS, with_count(live.len(), |out| gaps(out, live)));
    let as_bitmap = with_count(live.len(), |out| bitmap(out, samples, live));
    if as_bitmap.len() < best.1.len() {
        best = (LIVE_BITMAP, as_bitmap);
    }
    for (number, before) in known {
        let changes = changes(*number, before, live);
        if changes.len() < best.1.len() {
            best = (LIVE_CHANGES, changes);
        }
    }
    body.extend_from_slice(&best.1);
    best.0
}

fn with_count(count: usize, put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(&mut out, count as u32);
    put(&mut out);
    out
}

fn gaps(out: &mut Vec<u8>, ids: &[u32]) {
    let mut next = 0;
    for id in ids {
        varint::put(out, id - next);
        next = id + 1;
    }
}

fn bitmap(out: &mut Vec<u8>, samples: usize, ids: &[u32]) {
    let start = out.len();
    out.resize(start + samples.div_ceil(8), 0);
    for id in ids {
        out[start + *id as usize / 8] |= 1 << (id % 8);
    }
}

/// Returns the number of the list `before`, the positions of its ids that `live` lacks, and the new ids.
fn changes(number: u32, before: &[u32], live: &[u32]) -> Vec<u8> {
    let gone: Vec<u32> =
        (0..).zip(before).filter(|(_, id)| live.binary_search(id).is_err()).map(|(slot, _)| slot).collect();
    let new: Vec<u32> = live.iter().copied().filter(|id| before.binary_search(id).is_err()).collect();
    let mut out = Vec::new();
    varint::put(&mut out, number);
    let as_gaps = with_count(2 * gone.len(), |out| gaps(out, &gone));
    if as_gaps.len() <= before.len().div_ceil(8) {
        out.extend_from_slice(&as_gaps);
    } else {
        out.extend(with_count(2 * gone.len() + 1, |out| bitmap(out, before.len(), &gone)));
    }
    out.extend(with_count(new.len(), |out| gaps(out, &new)));
    out
}

const INVALID: BadBlock = BadBlock("its live samples are not valid");

/// Takes the ids of the live samples; `room` is the number of bytes that are left in the body.
pub(super) fn take(
    rest: &mut &[u8],
    how: u8,
    samples: usize,
    room: usize,
    known: Option<Known<'_>>,
) -> Result<Vec<u32>, BadBlock> {
    let live = match how {
        // In frames the number of samples is known; elsewhere a block has at least a bit for each.
        LIVE_ALL if known.is_some() || samples <= 8 * room => {
            let mut all = with_room(samples)?;
            all.extend(0..samples as u32);
            return Ok(all);
        }
        LIVE_ALL => return Err(INVALID),
        LIVE_BITMAP => {
            let count = number(rest)? as usize;
            let live = take_bitmap(rest, samples)?;
            if live.len() != count {
                return Err(INVALID);
            }
            live
        }
        LIVE_GAPS => {
            let count = number(rest)? as usize;
            take_gaps(rest, count)?
        }
        _ => {
            let before = known.ok_or(INVALID)?(number(rest)?).ok_or(INVALID)?;
            let head = number(rest)?;
            let count = (head >> 1) as usize;
            let gone = if head & 1 == 0 { take_gaps(rest, count)? } else { take_bitmap(rest, before.len())? };
            if gone.len() != count || gone.last().is_some_and(|last| *last as usize >= before.len()) {
                return Err(INVALID);
            }
            let count = number(rest)? as usize;
            let new = take_gaps(rest, count)?;
            let mut gone = gone.into_iter().peekable();
            let kept = (0..).zip(before).filter(|(slot, _)| gone.next_if_eq(slot).is_none()).map(|(_, id)| *id);
            let mut live: Vec<u32> = with_room(before.len() + new.len())?;
            live.extend(kept.chain(new));
            live.sort_unstable();
            live
        }
    };
    let ascends = live.is_sorted_by(|a, b| a < b);
    if ascends && live.last().is_none_or(|&id| (id as usize) < samples) { Ok(live) } else { Err(INVALID) }
}

fn number(rest: &mut &[u8]) -> Result<u32, BadBlock> {
    varint::take(rest).ok_or(INVALID)
}

fn take_bitmap(rest: &mut &[u8], samples: usize) -> Result<Vec<u32>, BadBlock> {
    let (bitmap, after) = rest.split_at_checked(samples.div_ceil(8)).ok_or(INVALID)?;
    *rest = after;
    let mut ids = with_room(bitmap.iter().map(|bits| bits.count_ones() as usize).sum())?;
    for (byte, &bits) in (0u32..).zip(bitmap) {
        ids.extend((0..8).filter(|bit| bits >> bit & 1 == 1).map(|bit| 8 * byte + bit));
    }
    Ok(ids)
}

fn take_gaps(rest: &mut &[u8], count: usize) -> Result<Vec<u32>, BadBlock> {
    if count > rest.len() {
        return Err(INVALID);
    }
    let (mut ids, mut next) = (with_room(count)?, 0u32);
    for _ in 0..count {
        let id = next.checked_add(number(rest)?).ok_or(INVALID)?;
        ids.push(id);
        next = id.checked_add(1).ok_or(INVALID)?;
    }
    Ok(ids)
}
