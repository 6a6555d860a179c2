//! Answers and frames of fixed networks, as digests: the same bits on every architecture.
//!
//! Other tests compare what a processor computes with a naive loop on the same processor. These digests were computed on
//! x86-64, so elsewhere they compare the two. Those of frames also depend on the version of zstd.

use fsd_core::activation::Activation;
use fsd_core::activations::Panels;
use fsd_core::codec::{Framed, PanelRows, encode};
use fsd_core::compute::Compute;
use fsd_core::csr::{Csr, Indices};
use fsd_core::frame::{Attempt, Header, Kind, seal};
use fsd_core::isa::Path;
use fsd_core::layer::{Group, Layer, Reduce};
use fsd_core::spmm::{Rows, spmm};
use xxhash_rust::xxh3::xxh3_64;

const SAMPLES: usize = 100;

/// Pseudo-random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// Returns a multiple of 2^-23 from -1 to 1, so that sums are rounded.
    fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Returns a layer whose rows have from one connection to `2 * average`.
fn layer(random: &mut Random, columns: usize, average: usize, groups: Vec<Group>, one_value: bool) -> Layer {
    let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
    let kinds: Vec<Reduce> = groups.iter().flat_map(|group| vec![group.reduce; group.rows]).collect();
    for kind in &kinds {
        let count = 1 + random.next() as usize % (2 * average);
        let mut row: Vec<u16> = (0..count).map(|_| (random.next() % columns as u64) as u16).collect();
        row.sort_unstable();
        row.dedup();
        values.extend(row.iter().map(|_| if *kind == Reduce::Max { 1.0 } else { random.value() }));
        indices.extend(row);
        indptr.push(indices.len() as i64);
    }
    if one_value {
        values.truncate(1);
    }
    let bias: Vec<f32> = kinds.iter().map(|_| random.value() / 4.0).collect();
    let slopes: Vec<f32> = kinds.iter().map(|_| random.value()).collect();
    let weights = Csr::new(indptr.into(), Indices::U16(indices.into()), values.into(), columns).unwrap();
    Layer::new(weights, bias.into(), slopes.into(), groups, false).unwrap()
}

fn group(rows: usize, activation: Activation) -> Group {
    Group { rows, reduce: Reduce::Sum, activation }
}

/// Returns layers whose activations are clamps, every other one of one value.
fn clamps() -> Vec<Layer> {
    let mut random = Random(1);
    let kinds = [
        Activation::Relu,
        Activation::Clip { lower: 0.0, upper: 1.5 },
        Activation::Identity,
        Activation::Clip { lower: -0.5, upper: 0.75 },
    ];
    let neurons = [300, 600, 200, 513, 257];
    let shapes = kinds.into_iter().zip(neurons.windows(2)).enumerate();
    shapes.map(|(at, (kind, size))| layer(&mut random, size[0], 24, vec![group(size[1], kind)], at % 2 == 1)).collect()
}

/// Returns a layer with every other activation and maxima, and one that reads it.
fn functions() -> Vec<Layer> {
    let mut random = Random(2);
    let kinds = [
        Activation::LeakyRelu { slope: 0.01 },
        Activation::Prelu,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::HardSwish,
        Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Activation::Elu { alpha: 1.0 },
        Activation::Softplus,
    ];
    let mut groups: Vec<Group> = kinds.into_iter().map(|kind| group(37, kind)).collect();
    groups.push(Group { rows: 37, reduce: Reduce::Max, activation: Activation::Tanh });
    vec![
        layer(&mut random, 300, 40, groups, false),
        layer(&mut random, 12 * 37, 100, vec![group(130, Activation::Gelu)], false),
    ]
}

/// Returns samples of 300 values, a third of which are zero; some samples have nothing else.
fn inputs() -> Vec<Vec<f32>> {
    let mut random = Random(3);
    let mut value =
        |sample: usize| if sample % 9 == 4 || random.next().is_multiple_of(3) { 0.0 } else { random.value() };
    (0..SAMPLES).map(|sample| (0..300).map(|_| value(sample)).collect()).collect()
}

/// Returns the last layer's activations for some samples, in panels of this width.
fn infer(layers: &[Layer], samples: &[Vec<f32>], width: usize, compute: &Compute) -> Panels {
    let mut panels = Panels::zeroed(samples[0].len(), (0..samples.len() as u32).collect(), width).unwrap();
    for column in 0..panels.rows() {
        panels.write_row(column, &samples.iter().map(|sample| sample[column]).collect::<Vec<_>>());
    }
    for layer in layers {
        let mut output = panels.like(layer.rows()).unwrap();
        spmm(layer, Rows::All, &panels, &mut output, compute).unwrap();
        panels = output;
    }
    panels
}

/// Returns the digest of the values, sample by sample.
fn digest(parts: &[Panels]) -> u64 {
    let mut bytes = Vec::new();
    for panels in parts {
        let mut rows = vec![vec![0.0_f32; panels.samples().len()]; panels.rows()];
        rows.iter_mut().enumerate().for_each(|(row, values)| panels.read_row(row, values));
        for sample in 0..panels.samples().len() {
            bytes.extend(rows.iter().flat_map(|row| row[sample].to_bits().to_le_bytes()));
        }
    }
    xxh3_64(&bytes)
}

fn frame(panels: &Panels, compute: &Compute) -> Vec<u8> {
    let rows = PanelRows::all(panels);
    let packed =
        encode(panels.rows(), panels.samples().len(), panels.samples(), &rows, Some(Framed::default()), compute);
    let attempt = Attempt::new([5; 16], 1, [6; 16]);
    let header = Header { kind: Kind::Data, attempt, layer: 2, micro_batch: 3, source: 4, edge: 5, part: 0, parts: 1 };
    seal(&header, &[1, 2], &packed.block())
}

fn check(network: fn() -> Vec<Layer>, answer: u64, sent: u64) {
    let inputs = inputs();
    for path in Path::available() {
        let compute = Compute::with_path(path, 1).unwrap();
        for width in [8, 16, 32, 64, 128] {
            let found = infer(&network(), &inputs, width, &compute);
            assert_eq!(digest(&[found]), answer, "{path}, panels of {width}");
        }
        let blocks = network();
        assert!(blocks.iter().filter(|layer| layer.make_blocks(64, &compute)).count() > 0);
        let found = infer(&blocks, &inputs, 64, &compute);
        assert_eq!(xxh3_64(&frame(&found, &compute)), sent, "{path}, frame");
        assert_eq!(digest(&[found]), answer, "{path}, column blocks");
        let slices = network();
        slices.iter().for_each(|layer| layer.make_slices(path));
        let pairs: Vec<Panels> = inputs.chunks(2).map(|pair| infer(&slices, pair, 1, &compute)).collect();
        assert_eq!(digest(&pairs), answer, "{path}, slices");
    }
}

#[test]
fn clamps_have_the_bits_that_they_have_on_x86() {
    check(clamps, 9_564_498_082_760_349_149, 3_874_841_463_857_910_709);
}

#[test]
fn other_functions_have_the_bits_that_they_have_on_x86() {
    check(functions, 16_044_636_593_956_080_555, 14_478_649_141_579_386_884);
}
