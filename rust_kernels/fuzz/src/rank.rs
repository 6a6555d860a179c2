//! A rank whose input and received rows are any bytes: it computes its layers or says what is wrong with them.

use std::sync::{Arc, LazyLock};

use fsd_core::buffer::Buffer;
use fsd_core::codec::{Block, Wire};
use fsd_core::compute::Compute;
use fsd_core::csr::{Csr, Indices};
use fsd_core::frame::{Attempt, seal};
use fsd_core::inbox::Incoming;
use fsd_core::layer::{Group, Layer, Reduce};
use fsd_core::rank::{Phase, Rank};
use fsd_core::shard::{Outgoing, Shard, ShardLayer};
use fsd_core::spill::Budget;

use fsd_core::activation::Activation;

use crate::inbox::frame;
use crate::input::Input;
use crate::memory::bounded;

pub(crate) const RANK: u16 = 1;
const SAMPLES: usize = 70;
const ROWS: usize = 6;

/// A layer that adds up all its inputs, two for each of its rows.
fn layer(zero_preserving: bool) -> Arc<Layer> {
    let columns = 2 * ROWS;
    let indices = Indices::U16((0..ROWS).flat_map(|_| 0..columns as u16).collect::<Vec<_>>().into());
    let indptr: Vec<i64> = (0..=ROWS).map(|row| (row * columns) as i64).collect();
    let weights = Csr::new(indptr.into(), indices, vec![0.5].into(), columns).expect("the weights are valid");
    let bias = if zero_preserving { 0.0 } else { 1.0 };
    let groups = vec![Group { rows: ROWS, reduce: Reduce::Sum, activation: Activation::Relu }];
    let layer = Layer::new(weights, vec![bias].into(), Vec::new().into(), groups, zero_preserving);
    Arc::new(layer.expect("the layer is valid"))
}

/// The shard of rank 1 of 2: two layers, of which the second needs as many rows of rank 0 as of its own.
static SHARD: LazyLock<Arc<Shard>> = LazyLock::new(|| {
    let edge = Incoming { source: 0, edge: 0, rows: ROWS };
    let shard = Shard::new(RANK.into(), 2, vec![Vec::new(), vec![edge], vec![edge]]).expect("the edges are valid");
    let rows: Vec<u32> = (0..ROWS as u32).collect();
    let send = || vec![Outgoing { targets: vec![0], rows: vec![0, 3] }];
    let pairs: Vec<u32> = rows.iter().chain(&rows).copied().collect();
    let sources: Vec<u32> = (0..2 * ROWS).map(|column| u32::from(column >= ROWS)).collect();
    let features: Vec<u32> = (0..2 * ROWS as u32).collect();
    let first = ShardLayer::new(layer(true), rows.clone(), &[0; 2 * ROWS], &features, Vec::new(), send());
    let second = ShardLayer::new(layer(true), rows.clone(), &sources, &pairs, vec![edge], send());
    let third = ShardLayer::new(layer(false), rows.clone(), &sources, &pairs, vec![edge], Vec::new());
    for (index, layer) in [first, second, third].into_iter().enumerate() {
        shard.add(index, Arc::new(layer.expect("the layer is valid"))).expect("it is the next layer");
    }
    Arc::new(shard)
});

/// Returns rank 1 in its third attempt, to which nothing was given.
pub(crate) fn new_rank() -> Rank {
    let (attempt, compute) = (Attempt::new([1; 16], 2, [2; 16]), Compute::new(1).expect("a thread is there"));
    let budget = Budget::new(None, u64::MAX);
    Rank::new(SHARD.clone(), attempt, vec![SAMPLES], Wire::Float32, compute, budget).expect("it is valid")
}

/// Gives a rank its input and frames, and lets it compute.
pub fn run(data: &[u8]) -> bool {
    let mut input = Input(data);
    let attempt = |number| Attempt::new([1; 16], number, [2; 16]);
    let rank = new_rank();
    bounded(64 * data.len() + (256 << 10), || {
        let (first, second) = (input.byte(), input.byte());
        for feature in [first, second] {
            let block = input.chunk();
            // Readers of the input object know how many features each block has.
            if Block::claimed_shape(block).is_ok_and(|(rows, _)| rows <= 2 * ROWS) {
                rank.put_input(0, feature.into(), block).expect("nothing was read yet");
            }
        }
        while !input.is_empty() {
            let (header, targets, payload) = frame(&mut input, attempt);
            rank.accept(&Buffer::from(seal(&header, &targets, &payload))).expect("there is memory");
        }
        let layers = SHARD.receives().len();
        for layer in 0..layers {
            if rank.assemble(layer, 0).and_then(|()| rank.compute(layer, 0, Phase::All)).is_err() {
                return false;
            }
            let frames = rank.frames(layer, 0, 100, false).expect("the rows are there");
            assert_eq!(frames.is_empty(), layer + 1 == layers);
        }
        let (largest, neuron) = rank.reduce(0).expect("it is done");
        assert_eq!([largest.len(), neuron.len()], [SAMPLES; 2]);
        rank.output(0).expect("it is done");
        true
    })
}
