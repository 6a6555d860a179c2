//! Rows that are taken out of ranks after a layer, and put into ranks of a later attempt: these go on with the same bits.

use std::sync::Arc;

use fsd_core::activation::Activation;
use fsd_core::buffer::Buffer;
use fsd_core::codec::{Wire, encode_csr};
use fsd_core::compute::Compute;
use fsd_core::csr::{Csr, Indices};
use fsd_core::frame::{self, Attempt, Header, Kind, seal};
use fsd_core::inbox::{Incoming, Status};
use fsd_core::layer::{Group, Layer, Reduce};
use fsd_core::outbox::Outbox;
use fsd_core::rank::{Phase, Rank, RankError};
use fsd_core::shard::{Outgoing, Shard, ShardLayer};
use fsd_core::spill::Budget;
use proptest::prelude::*;

const LAYERS: usize = 4;
/// Neurons of each layer, of which each of the two ranks has half; the inputs have as many features.
const NEURONS: usize = 10;
const OWN: usize = NEURONS / 2;
const WIRES: [Wire; 3] = [Wire::Float32, Wire::Bfloat16, Wire::Float16];

/// Returns a rank's half of a layer: each neuron has all neurons before it as inputs, the rank's own first.
fn layer(weights: &[f32], bias: f32) -> Arc<Layer> {
    let indices: Vec<u16> = (0..OWN).flat_map(|_| 0..NEURONS as u16).collect();
    let indptr: Vec<i64> = (0..=OWN).map(|row| (row * NEURONS) as i64).collect();
    let weights = Csr::new(indptr.into(), Indices::U16(indices.into()), weights.to_vec().into(), NEURONS).unwrap();
    let groups = vec![Group { rows: OWN, reduce: Reduce::Sum, activation: Activation::Relu }];
    Arc::new(Layer::new(weights, vec![bias].into(), Vec::new().into(), groups, bias <= 0.0).unwrap())
}

/// Returns the shard of a rank: the other one needs all its rows but one, which goes to nobody and is multiplied by zero.
fn shard(rank: u16, weights: &[f32], bias: f32) -> Arc<Shard> {
    let edge = Incoming { source: 1 - rank, edge: 0, rows: OWN - 1 };
    let receives = (0..LAYERS).map(|index| if index == 0 { Vec::new() } else { vec![edge] }).collect();
    let shard = Shard::new(rank.into(), 2, receives).unwrap();
    let neurons: Vec<u32> = (0..OWN as u32).map(|row| 2 * row + u32::from(rank)).collect();
    for index in 0..LAYERS {
        let sends = vec![Outgoing { targets: vec![1 - rank], rows: (1..OWN as u32).collect() }];
        let sends = if index + 1 == LAYERS { Vec::new() } else { sends };
        let (sources, rows): (Vec<u32>, Vec<u32>) = (0..NEURONS as u32)
            .map(|column| match column.checked_sub(OWN as u32) {
                Some(row) if index > 0 => (1, row.min(OWN as u32 - 2)),
                _ => (0, column),
            })
            .unzip();
        let mut weights = weights[index * OWN * NEURONS..][..OWN * NEURONS].to_vec();
        weights.chunks_exact_mut(NEURONS).for_each(|row| row[NEURONS - 1] = 0.0);
        let receives = if index == 0 { Vec::new() } else { vec![edge] };
        let layer = ShardLayer::new(layer(&weights, bias), neurons.clone(), &sources, &rows, receives, sends);
        shard.add(index, Arc::new(layer.unwrap())).unwrap();
    }
    Arc::new(shard)
}

fn attempt(number: u32) -> Attempt {
    Attempt::new([1; 16], number, [2; 16])
}

fn ranks(shards: &[Arc<Shard>; 2], number: u32, samples: usize, wire: Wire) -> [Rank; 2] {
    [0, 1].map(|rank| {
        let budget = Budget::new(None, u64::MAX);
        let compute = Compute::new(1 + rank).unwrap();
        Rank::new(shards[rank].clone(), attempt(number), vec![samples], wire, compute, budget).unwrap()
    })
}

fn bodies(outbox: &Outbox<'_>) -> Vec<Vec<u8>> {
    let body = |index| {
        let mut body = vec![std::mem::MaybeUninit::new(0); outbox.bytes(index)];
        outbox.write(index, &mut body);
        // SAFETY: all bytes are initialized.
        body.into_iter().map(|byte| unsafe { byte.assume_init() }).collect()
    };
    (0..outbox.len()).map(body).collect()
}

fn rows(rank: &Rank, layer: usize, fast: bool) -> Vec<u8> {
    bodies(&rank.rows(layer, 0, fast).unwrap()).remove(0)
}

/// What is kept of a layer: the digest of each rank, and its rows.
type Kept = [(u64, Vec<u8>); 2];

/// Sends what the ranks have computed of a layer.
fn exchange(ranks: &[Rank; 2], layer: usize) {
    for (rank, other) in ranks.iter().zip(ranks.iter().rev()) {
        for body in bodies(&rank.frames(layer, 0, 60, false).unwrap()) {
            assert_eq!(other.accept(&Buffer::from(body)).unwrap().status, Status::New);
        }
    }
}

/// Computes what is left from a layer on; returns what is kept of each layer, and the outputs.
fn go_on(ranks: &[Rank; 2], first: usize, fast: bool) -> (Vec<Kept>, [Vec<u8>; 2]) {
    let mut kept = Vec::new();
    for layer in first..LAYERS {
        for rank in ranks {
            rank.assemble(layer, 0).unwrap();
            rank.compute(layer, 0, Phase::Boundary).unwrap();
            assert!(matches!(rank.rows(layer, 0, fast), Err(RankError::Order { .. })), "half of the rows are there");
        }
        exchange(ranks, layer);
        ranks.iter().for_each(|rank| rank.compute(layer, 0, Phase::Interior).unwrap());
        kept.push([0, 1].map(|rank| (ranks[rank].digest(layer, 0, 7).unwrap(), rows(&ranks[rank], layer, fast))));
    }
    (kept, [0, 1].map(|rank| ranks[rank].output(0).unwrap()))
}

/// Gives a batch to the ranks, of which each feature of some samples is not zero.
fn put_input(ranks: &[Rank; 2], samples: usize, live: usize) {
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for feature in 0..NEURONS {
        for sample in (0..samples).filter(|sample| sample % live == 0) {
            indices.push(sample as i32);
            data.push(1.0 + (feature * samples + sample) as f32 / 7.0);
        }
        indptr.push(data.len() as i64);
    }
    let block = encode_csr(&indptr, &indices, &data, samples, None, &Compute::new(1).unwrap()).unwrap();
    ranks.iter().for_each(|rank| rank.put_input(0, 0, &block).unwrap());
}

fn weights() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(prop_oneof![2 => Just(0.0), 3 => -0.5..0.5_f32], LAYERS * OWN * NEURONS)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn ranks_go_on_after_any_layer_with_the_same_bits(
        weights in weights(), bias in -0.1..0.1_f32, samples in 1..90_usize, live in 1..4_usize, fast: bool, wire in 0..3_usize,
    ) {
        let (wire, shards) = (WIRES[wire], [shard(0, &weights, bias), shard(1, &weights, bias)]);
        let first = ranks(&shards, 0, samples, wire);
        put_input(&first, samples, live);
        let (kept, outputs) = go_on(&first, 0, fast);
        for layer in 0..LAYERS {
            let resumed = ranks(&shards, 3, samples, wire);
            for (rank, (digest, rows)) in resumed.iter().zip(&kept[layer]) {
                rank.restore(layer, 0, rows).unwrap();
                prop_assert_eq!(rank.digest(layer, 0, 7).unwrap(), *digest);
            }
            exchange(&resumed, layer);
            let (later, same) = go_on(&resumed, layer + 1, fast);
            prop_assert_eq!(&same, &outputs);
            for (found, expected) in later.iter().zip(&kept[layer + 1..]) {
                for ((digest, rows), (same_digest, same_rows)) in found.iter().zip(expected) {
                    prop_assert_eq!(digest, same_digest);
                    let [found, expected] = [rows, same_rows].map(|rows| frame::open(rows).unwrap());
                    prop_assert_eq!(found.payload, expected.payload);
                }
            }
        }
    }
}

#[test]
fn only_undamaged_rows_of_the_same_run_rank_layer_and_micro_batch_are_put_back() {
    let weights = vec![0.25; LAYERS * OWN * NEURONS];
    let shards = [shard(0, &weights, 0.0), shard(1, &weights, 0.0)];
    let made = ranks(&shards, 5, 8, Wire::Float32);
    put_input(&made, 8, 1);
    let (kept, _) = go_on(&made, 0, false);
    let right = &kept[1][0].1;
    let [rank, other] = ranks(&shards, 5, 8, Wire::Float32);
    let refuses = |rank: &Rank, layer, body: &[u8], why: &str| {
        let error = rank.restore(layer, 0, body).unwrap_err();
        assert!(matches!(&error, RankError::Invalid(error) if error.to_string().contains(why)), "{error}");
    };
    for at in 0..right.len() {
        let mut damaged = right.clone();
        damaged[at] ^= 1;
        refuses(&rank, 1, &damaged, "not an undamaged frame");
        refuses(&rank, 1, &right[..at], "not an undamaged frame");
    }
    let foreign = "of another run, rank, layer or micro-batch";
    refuses(&other, 1, right, foreign);
    refuses(&rank, 2, right, foreign);
    let payload = frame::open(right).unwrap().payload;
    let header = Header {
        kind: Kind::Data,
        attempt: attempt(5),
        layer: 1,
        micro_batch: 0,
        source: 0,
        edge: 0,
        part: 0,
        parts: 1,
    };
    assert_eq!(&seal(&header, &[0], payload), right);
    for header in [
        Header { attempt: attempt(6), ..header },
        Header { attempt: Attempt::new([3; 16], 5, [2; 16]), ..header },
        Header { kind: Kind::Gather, ..header },
        Header { micro_batch: 1, ..header },
        Header { edge: 1, ..header },
        Header { part: 1, parts: 2, ..header },
    ] {
        refuses(&rank, 1, &seal(&header, &[0], payload), foreign);
    }
    refuses(&rank, 1, &seal(&header, &[1], payload), foreign);
    refuses(&rank, 1, &seal(&header, &[0], &payload[..payload.len() - 1]), "not a valid block");
    // As a message they are not for this rank: nobody sends them.
    assert_eq!(rank.accept(&Buffer::from(right.clone())).unwrap().status, Status::Foreign);
    rank.restore(1, 0, right).unwrap();
    assert!(matches!(rank.restore(1, 0, right), Err(RankError::Order { .. })));
}
