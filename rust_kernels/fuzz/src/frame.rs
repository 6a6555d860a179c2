//! Frames: any bytes, and any bytes with a valid checksum, as a sender makes them who knows the format.

use fsd_core::frame;
use xxhash_rust::xxh3::xxh3_64;

use crate::memory::bounded;

/// Opens a frame. The first byte says whether its checksum is made valid.
pub fn run(data: &[u8]) -> bool {
    let Some((sealed, rest)) = data.split_first() else { return false };
    let mut body = rest.to_vec();
    if sealed & 1 == 1 {
        body.extend(xxh3_64(rest).to_le_bytes());
    }
    let Ok(frame) = bounded(0, || frame::open(&body)) else { return false };
    assert_eq!(frame.payload, &body[frame.range()]);
    assert!(frame.header.part < frame.header.parts);
    let found = [0, 1, 257, u16::MAX].into_iter().filter(|rank| frame.is_for(*rank)).count();
    assert!(found <= frame.targets() && frame.targets() <= body.len());
    true
}
