//! The product of a tile of column blocks and a panel, generic over vectors of floats.

use super::body::{Finish, Lanes, Work, all_finite};
use crate::blocks::{Run, Tile};

/// One tile, and one panel of the input and of the output.
pub(super) struct TileJob<'a> {
    pub tile: &'a Tile,
    /// The weight of all connections, if they have one.
    pub one: Option<f32>,
    pub finish: Finish<'a>,
    pub input: *const f32,
    pub output: *mut f32,
}

/// A position in the streams of a tile.
struct Streams {
    order: *const u32,
    indices: *const u16,
    values: *const f32,
}

impl Work for TileJob<'_> {
    fn one_value(&self) -> bool {
        self.one.is_some()
    }

    #[inline(always)]
    unsafe fn product<S: Lanes, const ONE: bool, const STRIDE: usize, const V: usize, const R: usize>(&self) -> bool {
        const { assert!(STRIDE.is_multiple_of(V * S::LANES)) };
        let tile = self.tile;
        // SAFETY: the caller upholds the same conditions; passes cover each row's stride, and the streams have an entry
        // for each row and connection of the runs.
        unsafe {
            let mut errors = S::splat(0.0);
            for pass in (0..STRIDE).step_by(V * S::LANES) {
                let mut streams = Streams {
                    order: tile.order.as_ptr(),
                    indices: tile.indices.as_ptr(),
                    values: tile.values.as_ptr(),
                };
                for (index, block) in tile.blocks.iter().enumerate() {
                    let place = Place {
                        input: self.input.add(block.first_column * STRIDE + pass),
                        output: self.output.add(pass),
                        first: index == 0,
                        last: index + 1 == tile.blocks.len(),
                    };
                    for run in &tile.runs[block.runs.clone()] {
                        let mut left = run.rows as usize;
                        while left >= R {
                            errors = rows::<S, ONE, STRIDE, V, R>(self, &place, *run, &mut streams, errors);
                            left -= R;
                        }
                        while left > 0 {
                            errors = rows::<S, ONE, STRIDE, V, 1>(self, &place, *run, &mut streams, errors);
                            left -= 1;
                        }
                    }
                }
            }
            all_finite(errors)
        }
    }
}

/// Where a block's vectors are read and written.
struct Place {
    input: *const f32,
    output: *mut f32,
    first: bool,
    last: bool,
}

/// Adds a block's connections to the sums of the next `R` rows; finishes the rows in the last block.
///
/// # Safety
/// As `Work::product`; the run has `R` more rows.
#[inline(always)]
unsafe fn rows<S: Lanes, const ONE: bool, const STRIDE: usize, const V: usize, const R: usize>(
    job: &TileJob<'_>,
    place: &Place,
    run: Run,
    streams: &mut Streams,
    mut errors: S,
) -> S {
    let connections = run.connections as usize;
    // SAFETY: the caller upholds the same conditions.
    unsafe {
        let one = S::splat(if ONE { job.one.unwrap_unchecked() } else { 0.0 });
        let row: [usize; R] = std::array::from_fn(|r| *streams.order.add(r) as usize);
        let mut acc = [[S::splat(0.0); V]; R];
        if !place.first {
            for (acc, row) in acc.iter_mut().zip(row) {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = S::load(place.output.add(row * STRIDE + v * S::LANES));
                }
            }
        }
        for at in 0..connections {
            for (r, acc) in acc.iter_mut().enumerate() {
                let at = r * connections + at;
                let weight = if ONE { one } else { S::splat(*streams.values.add(at)) };
                let from = place.input.add(usize::from(*streams.indices.add(at)) * STRIDE);
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = weight.fma(S::load(from.add(v * S::LANES)), *acc);
                }
            }
        }
        for (acc, row) in acc.into_iter().zip(row) {
            let to = place.output.add(row * STRIDE);
            if place.last {
                errors = job.finish.store(row, acc, to, errors);
            } else {
                for (v, acc) in acc.iter().enumerate() {
                    acc.store(to.add(v * S::LANES));
                }
            }
        }
        streams.order = streams.order.add(R);
        streams.indices = streams.indices.add(R * connections);
        if !ONE {
            streams.values = streams.values.add(R * connections);
        }
        errors
    }
}
