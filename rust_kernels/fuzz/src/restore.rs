//! A rank that starts with the rows of a checkpoint, which are any bytes: it takes them as they are or says what is wrong.

use std::mem::MaybeUninit;

use fsd_core::frame::{Attempt, open, seal};
use fsd_core::rank::{Rank, RankError};

use crate::inbox::frame;
use crate::input::Input;
use crate::memory::bounded;
use crate::rank::{RANK, new_rank};

/// Returns the frame with the rows of a rank.
fn rows(rank: &Rank, layer: usize, fast: bool) -> Vec<u8> {
    let outbox = rank.rows(layer, 0, fast).expect("the rows are there");
    let mut body = vec![MaybeUninit::new(0); outbox.bytes(0)];
    outbox.write(0, &mut body);
    // SAFETY: all bytes are initialized.
    body.into_iter().map(|byte| unsafe { byte.assume_init() }).collect()
}

/// Puts rows into a rank, takes them out and puts them into another one.
pub fn run(data: &[u8]) -> bool {
    let mut input = Input(data);
    let (layer, fast) = (usize::from(input.byte()), input.byte() & 1 == 1);
    let (header, targets, payload) = frame(&mut input, |number| Attempt::new([1; 16], number, [2; 16]));
    let body = seal(&header, &targets, &payload);
    bounded(64 * data.len() + (256 << 10), || {
        let (rank, other) = (new_rank(), new_rank());
        match rank.restore(layer, 0, &body) {
            Err(RankError::Invalid(_)) => return false,
            restored => restored.expect("there is memory, and nothing was put back before"),
        }
        assert_eq!((usize::from(header.layer), header.micro_batch, header.source), (layer, 0, RANK));
        let again = rows(&rank, layer, fast);
        other.restore(layer, 0, &again).expect("they are those of a rank");
        assert_eq!(rank.digest(layer, 0, 0).expect("it is there"), other.digest(layer, 0, 0).expect("it is there"));
        let [one, two] = [again, rows(&other, layer, fast)].map(|body| open(&body).expect("valid").payload.to_vec());
        assert_eq!(one, two);
        rank.frames(layer, 0, 100, fast).expect("the rows are there");
        true
    })
}
