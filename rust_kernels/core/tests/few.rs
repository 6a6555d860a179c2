//! Tests of products with a few samples by slices of rows, against a naive loop, bit for bit.

mod common;

use common::{Plain, bits, plain, relu, value};
use fsd_core::activations::Panels;
use fsd_core::compute::Compute;
use fsd_core::errors::NonFinite;
use fsd_core::isa::Path;
use fsd_core::serial::{Samples, Serial};
use fsd_core::spmm::{Rows, spmm};
use proptest::prelude::*;

/// Generates a layer, wide enough for windows of columns in most cases, and a few samples.
fn cases(huge: bool) -> impl Strategy<Value = (Plain, Vec<Vec<f32>>)> {
    (prop_oneof![0..64_usize, 64..130_usize], 0..70_usize, 1..6_usize).prop_flat_map(move |(columns, rows, samples)| {
        let sample = prop::collection::vec(value(huge), columns);
        (plain(columns, rows, huge), prop::collection::vec(sample, samples))
    })
}

/// Returns each sample's outputs by slices.
fn product(plain: &Plain, samples: &[Vec<f32>], compute: &Compute) -> Result<Vec<Vec<f32>>, NonFinite> {
    let layer = plain.layer();
    layer.make_slices(compute.path());
    let mut input = Panels::zeroed(plain.columns, (0..samples.len() as u32).collect(), 1).unwrap();
    for column in 0..plain.columns {
        let row: Vec<f32> = samples.iter().map(|sample| sample[column]).collect();
        input.write_row(column, &row);
    }
    let mut output = input.like(plain.rows.len()).unwrap();
    spmm(&layer, Rows::All, &input, &mut output, compute)?;
    Ok((0..samples.len()).map(|index| output.panel(index)[..plain.rows.len()].to_vec()).collect())
}

/// Returns a layer whose rows have the columns that `connected` names, with weights of both signs.
fn layer(columns: u32, rows: u32, connected: impl Fn(u32, u32) -> bool) -> Plain {
    let weight = |row: u32, column: u32| ((row * 31 + column * 17) % 23) as f32 / 16.0 - 0.7;
    let row = |row| (0..columns).filter(|c| connected(row, *c)).map(|c| (c, weight(row, c))).collect();
    Plain {
        columns: columns as usize,
        rows: (0..rows).map(row).collect(),
        bias: (0..rows).map(|row| 0.25 - (row % 5) as f32 / 8.0).collect(),
        slopes: vec![],
        groups: relu(rows as usize),
        zero_preserving: false,
        one_value: false,
        wide: false,
    }
}

fn samples(count: usize, columns: usize) -> Vec<Vec<f32>> {
    (0..count).map(|s| (0..columns).map(|c| ((s * 7 + c * 13) % 29) as f32 / 8.0 - 1.0).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn slices_give_the_same_bits((plain, samples) in cases(false), threads in 1..4_usize) {
        let expected: Vec<Vec<f32>> = samples.iter().map(|sample| plain.apply(sample).unwrap()).collect();
        for path in Path::available() {
            let found = product(&plain, &samples, &Compute::with_path(path, threads).unwrap()).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!(bits(found), bits(expected), "{}", path);
            }
        }
    }

    #[test]
    fn overflow_names_the_lowest_row((plain, samples) in cases(true)) {
        let expected = samples.iter().filter_map(|sample| plain.apply(sample).err()).min();
        for path in Path::available() {
            let found = product(&plain, &samples, &Compute::with_path(path, 2).unwrap());
            prop_assert_eq!(found.err().map(|error| error.row), expected, "{}", path);
        }
    }
}

/// A product of several samples by their pointers, small enough for Miri.
#[test]
fn small_samples_are_reached_by_pointers() {
    let (plain, samples) = (layer(5, 4, |row, column| column >= row), samples(3, 5));
    let found = product(&plain, &samples, &Compute::with_path(Path::Portable, 1).unwrap()).unwrap();
    for (found, sample) in found.iter().zip(&samples) {
        assert_eq!(bits(found), bits(&plain.apply(sample).unwrap()));
    }
}

#[test]
fn rows_of_very_different_density_share_slices() {
    // From one connection to all, in runs and scattered, and rows that begin at the last columns.
    let connected = |row: u32, column: u32| match row % 4 {
        0 => column * 7 % 11 < row % 11,
        1 => column / 50 == row % 6,
        2 => column >= 290 - row,
        _ => (column + row).is_multiple_of(97),
    };
    for (columns, rows) in [(300, 130), (64, 33), (65, 16), (63, 40)] {
        let plain = layer(columns, rows, connected);
        for count in 1..=4 {
            let samples = samples(count, columns as usize);
            let expected: Vec<Vec<f32>> = samples.iter().map(|sample| plain.apply(sample).unwrap()).collect();
            for path in Path::available() {
                let found = product(&plain, &samples, &Compute::with_path(path, 1).unwrap()).unwrap();
                assert_eq!(found, expected, "{path} {columns} columns, {count} samples");
            }
        }
    }
}

#[test]
fn large_layers_are_shared_by_threads() {
    let plain = layer(1000, 700, |row, column| (row * 13 + column * 7).is_multiple_of(10));
    let samples = samples(2, 1000);
    let expected: Vec<Vec<f32>> = samples.iter().map(|sample| plain.apply(sample).unwrap()).collect();
    for path in Path::available() {
        let found = product(&plain, &samples, &Compute::with_path(path, 3).unwrap()).unwrap();
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn batches_before_and_after_the_slices_are_made_give_the_same_bits() {
    let plains = [
        layer(200, 150, |row, column| (row * 3 + column * 7).is_multiple_of(5)),
        layer(150, 90, |row, column| (row + column).is_multiple_of(30)),
    ];
    for path in Path::available() {
        for count in 1..=5 {
            let layers = plains.each_ref().map(Plain::layer);
            let samples = samples(count, 200);
            let expected = samples.iter().map(|sample| plains[1].apply(&plains[0].apply(sample).unwrap()).unwrap());
            let expected: Vec<f32> = expected.flatten().filter(|value| *value != 0.0).collect();
            for _ in 0..12 {
                let indptr: Vec<i64> = (0..=count as i64).map(|sample| sample * 200).collect();
                let indices: Vec<i32> = (0..count).flat_map(|_| 0..200).collect();
                let input = Samples::new(indptr.into(), indices.into(), samples.concat().into(), 200).unwrap();
                let mut serial = Serial::csr(input, Compute::with_path(path, 1).unwrap());
                serial.apply(&layers.each_ref()).unwrap();
                assert_eq!(bits(&serial.result().unwrap().2), bits(&expected), "{path}, {count} samples");
            }
        }
    }
}
