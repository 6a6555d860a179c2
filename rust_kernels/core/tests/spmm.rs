//! Tests of products over panels against a naive loop, bit for bit, on every kernel path of this processor.

mod common;

use common::{Plain, bits, plain, relu, value};
use fsd_core::activations::{Panels, WIDTHS};
use fsd_core::compute::Compute;
use fsd_core::errors::NonFinite;
use fsd_core::isa::Path;
use fsd_core::layer::Reduce;
use fsd_core::spmm::{Rows, spmm};
use proptest::prelude::*;

/// Generates a layer and samples for it, each with one value per column.
fn cases(huge: bool) -> impl Strategy<Value = (Plain, Vec<Vec<f32>>)> {
    (0..40_usize, 0..30_usize, 0..150_usize).prop_flat_map(move |(columns, rows, samples)| {
        let sample = prop::collection::vec(value(huge), columns);
        (plain(columns, rows, huge), prop::collection::vec(sample, samples))
    })
}

fn panels(columns: usize, samples: &[Vec<f32>], width: usize) -> Panels {
    let mut panels = Panels::zeroed(columns, (0..samples.len() as u32).collect(), width).unwrap();
    for column in 0..columns {
        let row: Vec<f32> = samples.iter().map(|sample| sample[column]).collect();
        panels.write_row(column, &row);
    }
    panels
}

fn product(plain: &Plain, samples: &[Vec<f32>], width: usize, compute: &Compute) -> Result<Panels, NonFinite> {
    let input = panels(plain.columns, samples, width);
    let mut output = input.like(plain.rows.len()).unwrap();
    spmm(&plain.layer(), Rows::All, &input, &mut output, compute)?;
    Ok(output)
}

/// Checks the rows of panels against the outputs of each sample, bit for bit.
fn check(found: &Panels, expected: &[Vec<f32>], what: &str) -> Result<(), TestCaseError> {
    let mut row = vec![0.0; expected.len()];
    for r in 0..found.rows() {
        found.read_row(r, &mut row);
        let expected: Vec<f32> = expected.iter().map(|sample| sample[r]).collect();
        prop_assert_eq!(bits(&row), bits(&expected), "{} row {}", what, r);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_path_width_and_thread_count_gives_the_same_bits((plain, samples) in cases(false)) {
        let expected: Vec<Vec<f32>> = samples.iter().map(|sample| plain.apply(sample).unwrap()).collect();
        for path in Path::available() {
            for (threads, width) in WIDTHS.iter().map(|width| (1, width)).chain([(3, &4), (3, &64)]) {
                let compute = Compute::with_path(path, threads).unwrap();
                let output = product(&plain, &samples, *width, &compute).unwrap();
                check(&output, &expected, &format!("{path} width {width}"))?;
            }
        }
    }

    #[test]
    fn column_blocks_give_the_same_bits((plain, samples) in cases(false), columns in 1..40_usize) {
        prop_assume!(plain.groups.iter().all(|group| group.reduce == Reduce::Sum));
        let expected: Vec<Vec<f32>> = samples.iter().map(|sample| plain.apply(sample).unwrap()).collect();
        for path in Path::available() {
            for (threads, width) in [(1, 16), (1, 32), (1, 64), (1, 128), (3, 32)] {
                let compute = Compute::with_path(path, threads).unwrap();
                let layer = plain.layer();
                prop_assert!(layer.make_blocks(columns, &compute));
                let input = panels(plain.columns, &samples, width);
                let mut output = input.like(plain.rows.len()).unwrap();
                spmm(&layer, Rows::All, &input, &mut output, &compute).unwrap();
                check(&output, &expected, &format!("{path} width {width}"))?;
            }
        }
    }

    #[test]
    fn overflow_in_column_blocks_names_the_lowest_row((plain, samples) in cases(true), columns in 1..40_usize) {
        prop_assume!(plain.groups.iter().all(|group| group.reduce == Reduce::Sum));
        let expected = samples.iter().filter_map(|sample| plain.apply(sample).err()).min();
        let compute = Compute::with_path(*Path::available().last().unwrap(), 2).unwrap();
        let layer = plain.layer();
        layer.make_blocks(columns, &compute);
        let input = panels(plain.columns, &samples, 32);
        let found = spmm(&layer, Rows::All, &input, &mut input.like(plain.rows.len()).unwrap(), &compute).err();
        prop_assert_eq!(found.map(|error| error.row), expected);
    }

    #[test]
    fn selections_fill_the_same_output((plain, samples) in cases(false), seed in any::<u64>()) {
        let compute = Compute::with_path(Path::available()[0], 2).unwrap();
        let whole = product(&plain, &samples, 16, &compute).unwrap();
        let input = panels(plain.columns, &samples, 16);
        let mut output = input.like(plain.rows.len()).unwrap();
        let (first, second): (Vec<u32>, Vec<u32>) =
            (0..plain.rows.len() as u32).partition(|row| seed >> (row % 64) & 1 == 1);
        for rows in [first, second] {
            spmm(&plain.layer(), Rows::Selected(&rows), &input, &mut output, &compute).unwrap();
        }
        for panel in 0..whole.spans().len() {
            for row in 0..plain.rows.len() {
                prop_assert_eq!(bits(whole.panel_row(panel, row)), bits(output.panel_row(panel, row)));
            }
        }
    }

    #[test]
    fn overflow_names_the_lowest_row((plain, samples) in cases(true)) {
        let expected = samples.iter().filter_map(|sample| plain.apply(sample).err()).min();
        for path in Path::available() {
            let compute = Compute::with_path(path, 2).unwrap();
            let found = product(&plain, &samples, 32, &compute).err().map(|error| error.row);
            prop_assert_eq!(found, expected, "{}", path);
        }
    }
}

/// Products of several panels by their pointers, small enough for Miri.
#[test]
fn small_panels_are_reached_by_pointers() {
    let plain = Plain {
        columns: 5,
        rows: (0..4).map(|row| (row..5).map(|column| (column, 0.5 - (column % 3) as f32)).collect()).collect(),
        bias: vec![0.25],
        slopes: vec![],
        groups: relu(4),
        zero_preserving: false,
        one_value: false,
        wide: false,
    };
    let samples: Vec<Vec<f32>> =
        (0..40).map(|s| (0..5).map(|c| ((s * 3 + c * 5) % 7) as f32 - 2.0).collect()).collect();
    let expected: Vec<Vec<f32>> = samples.iter().map(|sample| plain.apply(sample).unwrap()).collect();
    let compute = Compute::with_path(Path::Portable, 1).unwrap();
    check(&product(&plain, &samples, 16, &compute).unwrap(), &expected, "rows").unwrap();
    let layer = plain.layer();
    assert!(layer.make_blocks(2, &compute));
    let input = panels(5, &samples, 16);
    let mut output = input.like(4).unwrap();
    spmm(&layer, Rows::All, &input, &mut output, &compute).unwrap();
    check(&output, &expected, "column blocks").unwrap();
}

#[test]
fn large_layers_are_cut_into_row_blocks() {
    let rows =
        (0..2000).map(|row| (0..30).map(|k| (k * 13 + row % 13, 0.5 - (row % 7) as f32 / 8.0)).collect()).collect();
    let plain = Plain {
        columns: 400,
        rows,
        bias: vec![0.125],
        slopes: vec![],
        groups: relu(2000),
        zero_preserving: false,
        one_value: false,
        wide: false,
    };
    let samples: Vec<Vec<f32>> =
        (0..9).map(|s| (0..400).map(|c| ((s * 400 + c) % 11) as f32 / 16.0).collect()).collect();
    for path in Path::available() {
        let output = product(&plain, &samples, 8, &Compute::with_path(path, 3).unwrap()).unwrap();
        for (s, sample) in samples.iter().enumerate() {
            let expected = plain.apply(sample).unwrap();
            let (panel, lane) = (s / 8, s % 8);
            let found: Vec<f32> = (0..2000).map(|row| output.panel_row(panel, row)[lane]).collect();
            assert_eq!(bits(&found), bits(&expected), "{path}");
        }
    }
}

#[test]
fn paths_that_cannot_run_here_say_so() {
    for path in [Path::Avx2, Path::Avx512, Path::Neon] {
        if !path.supported() {
            eprintln!("SKIPPED: this processor does not support {path}; its tests did not run");
            assert!(Compute::with_path(path, 1).err().unwrap().to_string().contains(path.name()));
        }
    }
}
