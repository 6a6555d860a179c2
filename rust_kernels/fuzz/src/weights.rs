//! Layers of a shard as their files have them: they are refused, or their product is that of a plain loop. Kernels do not
//! check what was validated here.

use std::sync::Arc;

use fsd_core::activation::Activation;
use fsd_core::compute::Compute;
use fsd_core::csr::{Csr, Indices};
use fsd_core::inbox::Incoming;
use fsd_core::isa::Path;
use fsd_core::layer::{Group, Layer, Reduce};
use fsd_core::serial::{Samples, Serial};
use fsd_core::shard::{Outgoing, Shard, ShardLayer};

use crate::input::Input;

/// Validates a layer, applies it on each kernel path, and makes it a rank's.
pub fn run(data: &[u8]) -> bool {
    let mut input = Input(data);
    let flags = input.byte();
    let (rows, columns, samples) =
        (usize::from(input.byte()), usize::from(input.short() % 600), usize::from(input.byte() % 5));
    let mut indptr = vec![0_i64];
    for _ in 0..rows {
        // Mostly an ascending list.
        let step = i64::from(input.byte() as i8);
        indptr.push(indptr.last().map_or(0, |last| last + step));
    }
    let connections = if flags & 1 == 0 { indptr[rows].clamp(0, 4096) as usize } else { input.short().into() };
    let steps: Vec<u16> =
        (0..connections).map(|_| if flags & 2 == 0 { input.byte().into() } else { input.short() }).collect();
    let indices = if flags & 4 == 0 {
        Indices::U16(steps.clone().into())
    } else {
        Indices::U32(steps.iter().map(|step| u32::from(*step)).collect::<Vec<_>>().into())
    };
    let values = input.floats(if flags & 8 == 0 { 1 } else { connections });
    let bias = input.floats(if flags & 16 == 0 { 1 } else { rows });
    let Ok(weights) = Csr::new(indptr.clone().into(), indices, values.clone().into(), columns) else { return false };
    let first = usize::from(input.byte());
    let group =
        |rows, activation, is_max| Group { rows, reduce: if is_max { Reduce::Max } else { Reduce::Sum }, activation };
    let is_max = flags & 32 != 0;
    let groups =
        vec![group(first, Activation::Relu, is_max), group(rows.saturating_sub(first), Activation::Identity, false)];
    let zero_preserving = flags & 64 != 0;
    let Ok(layer) = Layer::new(weights, bias.clone().into(), Vec::new().into(), groups, zero_preserving) else {
        return false;
    };
    let dense: Vec<Vec<f32>> =
        (0..samples).map(|_| (0..columns).map(|_| f32::from(input.byte() as i8)).collect()).collect();
    let expected = product(&indptr, &steps, &values, &bias, first, is_max, &dense);
    for path in Path::available() {
        let compute = Compute::with_path(path, 1).expect("the path is there");
        if flags & 128 != 0 {
            layer.make_slices(path);
            layer.make_blocks(columns.clamp(1, 64), &compute);
        }
        let mut serial = Serial::csr(sparse(&dense, columns), compute);
        let applied = serial.apply(&[&layer]);
        assert_eq!(applied.is_ok(), expected.is_some(), "path {path}: {applied:?}");
        if let Some(expected) = &expected {
            let mut out = vec![f32::NAN; samples * rows];
            serial.write(&mut out).expect("there is memory");
            assert!(out == *expected, "path {path}");
        }
    }
    place(&mut input, layer, rows, columns);
    true
}

/// Returns the activations by a plain loop, samples x rows; `None` if one is not finite.
fn product(
    indptr: &[i64],
    indices: &[u16],
    values: &[f32],
    bias: &[f32],
    first: usize,
    is_max: bool,
    dense: &[Vec<f32>],
) -> Option<Vec<f32>> {
    let mut out = Vec::new();
    for sample in dense {
        for row in 0..indptr.len() - 1 {
            let (mut sum, is_first) = (if is_max && row < first { f32::NEG_INFINITY } else { 0.0 }, row < first);
            for at in indptr[row] as usize..indptr[row + 1] as usize {
                let (weight, x) = (values[if values.len() == 1 { 0 } else { at }], sample[usize::from(indices[at])]);
                sum = if is_max && is_first { sum.max(x) } else { weight.mul_add(x, sum) };
            }
            let value = sum + bias[if bias.len() == 1 { 0 } else { row }];
            let value = if is_first { value.max(0.0) } else { value };
            if !value.is_finite() || !sum.is_finite() {
                return None;
            }
            out.push(value);
        }
    }
    Some(out)
}

fn sparse(dense: &[Vec<f32>], columns: usize) -> Samples {
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for sample in dense {
        for (column, value) in sample.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            indices.push(column as i32);
            data.push(*value);
        }
        indptr.push(data.len() as i64);
    }
    Samples::new(indptr.into(), indices.into(), data.into(), columns).expect("the samples are valid")
}

/// Makes the layer one of a rank with any suppliers and edges.
fn place(input: &mut Input<'_>, layer: Layer, rows: usize, columns: usize) {
    let numbers =
        |input: &mut Input<'_>, count: usize| -> Vec<u32> { (0..count).map(|_| input.byte().into()).collect() };
    let neurons = if input.byte() & 1 == 0 { (0..rows as u32).collect() } else { numbers(input, rows) };
    let sources = (0..columns).map(|_| u32::from(input.byte() & 3)).collect::<Vec<_>>();
    let places = numbers(input, columns);
    let edge = |input: &mut Input<'_>| Incoming {
        source: input.byte().into(),
        edge: input.byte().into(),
        rows: input.byte().into(),
    };
    let receives: Vec<Incoming> = (0..input.byte() & 3).map(|_| edge(input)).collect();
    let send = |input: &mut Input<'_>| {
        let (targets, rows) = (input.byte() & 7, input.byte() & 7);
        Outgoing { targets: (0..targets).map(|_| input.byte().into()).collect(), rows: numbers(input, rows.into()) }
    };
    let sends: Vec<Outgoing> = (0..input.byte() & 3).map(|_| send(input)).collect();
    let part = ShardLayer::new(Arc::new(layer), neurons, &sources, &places, receives.clone(), sends);
    let shard = Shard::new(input.byte().into(), input.byte().into(), vec![Vec::new(), receives.clone(), receives]);
    if let (Ok(part), Ok(shard)) = (part, shard) {
        assert_eq!(part.boundary().len() + part.interior().len(), rows);
        let part = Arc::new(part);
        for index in 0..3 {
            if shard.add(index, part.clone()).is_err() {
                return;
            }
        }
    }
}
