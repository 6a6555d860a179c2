//! Tests of serial inference against a naive loop, bit for bit, with dead samples dropped where that is allowed.

mod common;

use common::{Plain, bits, plain, relu, value};
use fsd_core::compute::Compute;
use fsd_core::isa::Path;
use fsd_core::layer::Layer;
use fsd_core::serial::{ApplyError, Overflow, Part, Samples, Serial};
use proptest::prelude::*;

/// Generates layers of any width, a batch with many all-zero samples, and the number of layers in the first `apply`.
fn cases(huge: bool) -> impl Strategy<Value = (Vec<Plain>, Vec<Vec<f32>>, usize)> {
    (prop::collection::vec(0..12_usize, 2..12), 0..200_usize).prop_flat_map(move |(widths, samples)| {
        let layers: Vec<_> = widths.windows(2).map(|pair| plain(pair[0], pair[1], huge)).collect();
        let features = widths[0];
        let sample = prop_oneof![
            prop::collection::vec(value(huge), features),
            Just(vec![0.0; features]),
            prop::collection::vec(prop_oneof![9 => Just(0.0), 1 => value(huge)], features),
        ];
        (layers, prop::collection::vec(sample, samples), 0..widths.len())
    })
}

fn serial(features: usize, samples: &[Vec<f32>], compute: Compute) -> Serial {
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for sample in samples {
        // Stored zeros are allowed, so every other zero is stored.
        let kept = sample.iter().enumerate().filter(|(feature, value)| **value != 0.0 || feature % 2 == 0);
        kept.for_each(|(feature, value)| {
            indices.push(feature as i32);
            data.push(*value);
        });
        indptr.push(indices.len() as i64);
    }
    Serial::csr(Samples::new(indptr.into(), indices.into(), data.into(), features).unwrap(), compute)
}

fn dense(serial: &Serial, neurons: usize) -> Vec<Vec<f32>> {
    let (indptr, indices, data) = serial.result().unwrap();
    assert!(data.iter().all(|value| *value != 0.0), "zeros are not stored");
    let sample = |ends: &[i64]| {
        let mut row = vec![0.0; neurons];
        (ends[0] as usize..ends[1] as usize).for_each(|at| row[indices[at] as usize] = data[at]);
        row
    };
    indptr.windows(2).map(sample).collect()
}

/// Returns the outputs of all samples, or the first layer and its lowest row that is not finite.
fn expected(layers: &[Plain], samples: &[Vec<f32>]) -> Result<Vec<Vec<f32>>, Overflow> {
    let mut samples = samples.to_vec();
    for (layer, plain) in layers.iter().enumerate() {
        let results: Vec<_> = samples.iter().map(|sample| plain.apply(sample)).collect();
        if let Some(row) = results.iter().filter_map(|result| result.as_ref().err()).min() {
            return Err(Overflow { layer, row: *row });
        }
        samples = results.into_iter().map(Result::unwrap).collect();
    }
    Ok(samples)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn networks_give_the_same_bits((plains, samples, cut) in cases(false), threads in 1..4_usize) {
        let layers: Vec<Layer> = plains.iter().map(Plain::layer).collect();
        let layers: Vec<&Layer> = layers.iter().collect();
        let Ok(expected) = expected(&plains, &samples) else { return Err(TestCaseError::reject("overflow")) };
        let neurons = plains.last().unwrap().rows.len();
        for path in Path::available() {
            let mut serial = serial(plains[0].columns, &samples, Compute::with_path(path, threads).unwrap());
            serial.apply(&layers[..cut]).unwrap();
            serial.apply(&layers[cut..]).unwrap();
            for (found, expected) in dense(&serial, neurons).iter().zip(&expected) {
                prop_assert_eq!(bits(found), bits(expected), "{}", path);
            }
            let (best, neuron) = serial.reduce().unwrap();
            for (sample, values) in expected.iter().enumerate() {
                let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let first = values.iter().position(|value| *value == largest).map_or(-1, |row| row as i32);
                prop_assert_eq!((best[sample], neuron[sample]), (largest, first));
            }
        }
    }

    #[test]
    fn overflow_names_the_first_layer_and_its_lowest_row((plains, samples, _) in cases(true), threads in 1..4_usize) {
        let layers: Vec<Layer> = plains.iter().map(Plain::layer).collect();
        let layers: Vec<&Layer> = layers.iter().collect();
        let compute = Compute::with_path(*Path::available().last().unwrap(), threads).unwrap();
        let mut serial = serial(plains[0].columns, &samples, compute);
        let before = serial.result().unwrap();
        match (serial.apply(&layers), expected(&plains, &samples)) {
            (Ok(()), Ok(_)) => {}
            (Err(ApplyError::Overflow(found)), Err(expected)) => {
                prop_assert_eq!(found, expected);
                prop_assert_eq!(serial.result().unwrap(), before);
            }
            (found, expected) => prop_assert!(false, "{found:?} {expected:?}"),
        }
    }
}

#[test]
fn layers_must_follow_each_other() {
    let layer = |columns, rows| Plain {
        columns,
        rows: vec![vec![]; rows],
        bias: vec![0.0],
        slopes: vec![],
        groups: relu(rows),
        zero_preserving: true,
        one_value: false,
        wide: false,
    };
    let mut serial = serial(3, &[vec![1.0, 0.0, 2.0]], Compute::with_path(Path::Portable, 1).unwrap());
    let (first, wrong) = (layer(3, 5).layer(), layer(4, 2).layer());
    let error = serial.apply(&[&first, &wrong]).unwrap_err();
    assert_eq!(error.to_string(), "layer 1 has 4 columns for 5 inputs");
}

proptest! {
    #[test]
    fn a_batch_that_is_packed_in_parts_comes_back(
        (features, samples) in (1..40_usize, 1..150_usize),
        live in prop::collection::vec(prop::bool::weighted(0.7), 150),
        cut in any::<prop::sample::Index>(),
        every in 1..5_usize,
        threads in 1..3_usize,
        seed in any::<u32>(),
    ) {
        let at = |sample: usize, feature: usize| {
            let mixed = ((sample * 40 + feature) as u32).wrapping_mul(2_654_435_761) ^ seed;
            if live[sample] && mixed & 0x3000 != 0 { mixed as f32 } else { 0.0 }
        };
        let batch: Vec<Vec<f32>> = (0..samples).map(|sample| (0..features).map(|feature| at(sample, feature)).collect()).collect();
        let compute = || Compute::new(threads).unwrap();
        let cut = cut.index(samples);
        // Each rank has the features with the same remainder; the second half of the samples is given first.
        let ranks: Vec<Vec<u32>> = (0..every).map(|rank| (rank as u32..features as u32).step_by(every).collect()).collect();
        let mut packed = Vec::new();
        for range in [cut..samples, 0..cut] {
            for rows in &ranks {
                let own: Vec<Vec<f32>> = batch.iter().map(|sample| rows.iter().map(|row| sample[*row as usize]).collect()).collect();
                let blocks = serial(rows.len(), &own, compute()).blocks(range.clone(), rows.len().max(1)).unwrap();
                prop_assert_eq!(blocks.len(), usize::from(!rows.is_empty()));
                packed.extend(blocks.into_iter().map(|block| (block, range.clone(), rows)));
            }
        }
        let parts = |packed: &[(Vec<u8>, std::ops::Range<usize>, &Vec<u32>)]| -> Result<Vec<Vec<f32>>, String> {
            let parts: Vec<_> = packed.iter().map(|(block, samples, neurons)| Part { block, samples: samples.clone(), neurons }).collect();
            let found = Serial::unpacked(samples, features, &parts, compute()).map_err(|error| error.to_string())?;
            Ok(dense(&found, features))
        };
        prop_assert_eq!(&parts(&packed).unwrap(), &batch);
        let whole = serial(features, &batch, compute()).blocks(0..samples, features).unwrap();
        prop_assert_eq!(whole.len(), 1);
        let all: Vec<u32> = (0..features as u32).collect();
        prop_assert_eq!(&parts(&[(whole[0].clone(), 0..samples, &all)]).unwrap(), &batch);
        let shifted: Vec<u32> = all.iter().map(|id| id + 1).collect();
        prop_assert!(parts(&[(whole[0].clone(), 0..samples, &shifted)]).unwrap_err().contains("are not, in ascending order"));
        prop_assert!(parts(&[(whole[0].clone(), 1..samples + 1, &all)]).is_err());
        prop_assert!(parts(&[(whole[0].clone(), 0..samples - 1, &all)]).unwrap_err().contains("instead of"));
        let cut = whole[0][..whole[0].len() - 1].to_vec();
        prop_assert!(parts(&[(cut, 0..samples, &all)]).unwrap_err().contains("not a valid block"));
        if samples > 1 {
            let overlapping = [(whole[0].clone(), 0..samples, &all), (whole[0].clone(), 1..samples, &all)];
            prop_assert!(parts(&overlapping).is_err());
        }
    }
}
