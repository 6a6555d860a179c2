//! Batches of which parts are packed: the results of ranks, and the inputs that they get.

use fsd_core::compute::Compute;
use fsd_core::serial::{Part, Serial};

use crate::block::most;
use crate::input::Input;
use crate::memory::bounded;

/// Unpacks a batch and reads it in each of the forms in which results are returned.
pub fn run(data: &[u8]) -> bool {
    let mut input = Input(data);
    let (samples, neurons) = (usize::from(input.byte()), usize::from(input.byte()));
    let count = usize::from(input.byte() % 5);
    let mut places = Vec::new();
    for _ in 0..count {
        let (first, end, rows) = (input.byte(), input.byte(), input.byte());
        let neurons: Vec<u32> = match rows {
            0 => (0..neurons as u32).collect(),
            rows => (1..rows).map(|_| u32::from(input.byte())).collect(),
        };
        places.push((usize::from(first)..usize::from(end), neurons, input.chunk()));
    }
    let parts: Vec<Part<'_>> =
        places.iter().map(|(samples, neurons, block)| Part { block, samples: samples.clone(), neurons }).collect();
    let compute = Compute::new(1).expect("a thread is there");
    let whole = most(data.len(), neurons, samples);
    let allowed = 2 * whole + parts.iter().map(|part| most(0, part.neurons.len(), part.samples.len())).sum::<usize>();
    let Ok(serial) = bounded(allowed, || Serial::unpacked(samples, neurons, &parts, compute)) else { return false };
    let (indptr, indices, values) = serial.result().expect("there is memory");
    assert_eq!(
        [indptr[samples] as usize, indices.len(), values.len()],
        [serial.non_zeros().expect("there is memory"); 3]
    );
    let mut dense = vec![f32::NAN; samples * neurons];
    serial.write(&mut dense).expect("there is memory");
    let (largest, neuron) = serial.reduce().expect("there is memory");
    for sample in 0..samples {
        let row = &dense[sample * neurons..][..neurons];
        let range = indptr[sample] as usize..indptr[sample + 1] as usize;
        let kept = row.iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(at, value)| (at, value.to_bits()));
        let found =
            indices[range.clone()].iter().zip(&values[range]).map(|(at, value)| (*at as usize, value.to_bits()));
        assert!(kept.eq(found), "sample {sample} differs");
        // Not a number is never the largest.
        if row.iter().all(|value| value.is_finite()) && neurons > 0 {
            assert_eq!(largest[sample], row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(row[neuron[sample] as usize], largest[sample]);
        }
    }
    true
}
