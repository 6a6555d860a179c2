//! Benchmark of one layer applied to one panel, for every kernel path and width: `cargo bench -p fsd-core`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fsd_core::activation::Activation;
use fsd_core::activations::{Panels, WIDTHS};
use fsd_core::compute::Compute;
use fsd_core::csr::{Csr, Indices};
use fsd_core::isa::Path;
use fsd_core::layer::{Group, Layer, Reduce};
use fsd_core::spmm::{Rows, spmm};

const NEURONS: usize = 1024;
const CONNECTIONS: usize = 32;

/// Returns a layer whose rows have one random column in each of several equally wide ranges, so that columns ascend.
fn layer() -> Layer {
    let mut state = 1_u32;
    let mut random = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    let range = NEURONS / CONNECTIONS;
    let indices: Vec<u16> =
        (0..NEURONS * CONNECTIONS).map(|at| (at % CONNECTIONS * range + random(range)) as u16).collect();
    let indptr: Vec<i64> = (0..=NEURONS).map(|row| (row * CONNECTIONS) as i64).collect();
    let values = vec![1.0 / 16.0; NEURONS * CONNECTIONS];
    let weights = Csr::new(indptr.into(), Indices::U16(indices.into()), values.into(), NEURONS).unwrap();
    let activation = Activation::Clip { lower: 0.0, upper: 32.0 };
    let groups = vec![Group { rows: NEURONS, reduce: Reduce::Sum, activation }];
    Layer::new(weights, vec![-0.3].into(), Vec::new().into(), groups, true).unwrap()
}

fn products(criterion: &mut Criterion) {
    let layer = layer();
    let mut group = criterion.benchmark_group("spmm");
    group.sample_size(20).measurement_time(std::time::Duration::from_secs(1));
    for path in Path::available() {
        let compute = Compute::with_path(path, 1).unwrap();
        for width in WIDTHS {
            let mut input = Panels::zeroed(NEURONS, (0..width as u32).collect(), width).unwrap();
            for row in 0..NEURONS {
                input.write_row(row, &vec![(row % 3) as f32; width]);
            }
            let mut output = input.like(NEURONS).unwrap();
            group.throughput(Throughput::Elements((NEURONS * CONNECTIONS * width) as u64));
            group.bench_function(BenchmarkId::new(path.name(), width), |bencher| {
                bencher.iter(|| spmm(&layer, Rows::All, &input, &mut output, &compute).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
