//! The input of a run as a dense array.

use super::source::Source;
use super::transpose::{copy, gather};
use crate::buffer::Buffer;
use crate::compute::Compute;
use crate::errors::{Invalid, LoadError, NoMemory};
use crate::isa::Path;
use crate::memory::copied;

/// What is consecutive in the memory of a dense array, samples x features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The features of a sample.
    C,
    /// The values of a feature.
    Fortran,
}

/// The input of a run as a dense array, samples x features, of finite values.
pub struct Dense {
    values: Buffer<f32>,
    samples: usize,
    features: usize,
    order: Order,
    /// Ids of the samples that are not all zero, ascending.
    live: Vec<u32>,
    path: Path,
}

/// What a scan of samples found.
enum Scanned {
    Live(Vec<u32>),
    NotFinite,
}

/// The bits of an infinity; those of finite numbers, without the sign, are less.
const INFINITE: u32 = 0x7F80_0000;

/// Number of samples that a thread scans at a time.
const SCANNED: usize = 1024;

impl Dense {
    /// Wraps an array of `samples` x `features` values, and scans it for values that are not finite.
    pub fn new(
        values: Buffer<f32>,
        (samples, features): (usize, usize),
        order: Order,
        compute: &Compute,
    ) -> Result<Self, LoadError> {
        if samples.checked_mul(features) != Some(values.len()) {
            return Err(Invalid(format!("{} values are not {samples} x {features}", values.len())).into());
        }
        if u32::try_from(samples).is_err() {
            return Err(Invalid(format!("{samples} samples are more than 32-bit ids can name")).into());
        }
        let mut dense = Self { values, samples, features, order, live: Vec::new(), path: compute.path() };
        let scanned = compute.map(samples.div_ceil(SCANNED), |task| dense.scan(task * SCANNED));
        for part in scanned {
            match part {
                Scanned::Live(ids) => {
                    dense.live.try_reserve(ids.len()).map_err(|_| NoMemory)?;
                    dense.live.extend(ids);
                }
                Scanned::NotFinite => return Err(Invalid("an input value is not finite".into()).into()),
            }
        }
        Ok(dense)
    }

    pub fn len(&self) -> usize {
        self.samples
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at each value of up to `SCANNED` samples once.
    fn scan(&self, first: usize) -> Scanned {
        let count = SCANNED.min(self.samples - first);
        let mut largest = vec![0; count];
        match self.order {
            Order::C => {
                for (sample, largest) in largest.iter_mut().enumerate() {
                    *largest = self.sample(first + sample).iter().fold(0, |found, value| found.max(size(*value)));
                }
            }
            Order::Fortran => {
                for feature in 0..self.features {
                    let values = &self.values[feature * self.samples + first..][..count];
                    largest.iter_mut().zip(values).for_each(|(found, value)| *found = size(*value).max(*found));
                }
            }
        }
        if largest.iter().any(|largest| *largest >= INFINITE) {
            return Scanned::NotFinite;
        }
        Scanned::Live((first as u32..).zip(largest).filter_map(|(id, largest)| (largest > 0).then_some(id)).collect())
    }

    /// Returns a sample of an array in C order.
    fn sample(&self, id: usize) -> &[f32] {
        &self.values[id * self.features..][..self.features]
    }
}

/// Returns bits that order numbers by their absolute value.
fn size(value: f32) -> u32 {
    value.to_bits() & !(1 << 31)
}

impl Source for Dense {
    fn rows(&self) -> usize {
        self.features
    }

    fn live(&self) -> Result<Vec<u32>, NoMemory> {
        copied(&self.live)
    }

    fn load(&self, ids: &[u32], stride: usize, panel: &mut [f32]) {
        let panel = &mut panel[..self.features * stride];
        if ids.len() < stride {
            panel.fill(0.0);
        }
        match self.order {
            Order::C => {
                let samples: Vec<&[f32]> = ids.iter().map(|id| self.sample(*id as usize)).collect();
                gather(&samples, panel, stride, self.path);
            }
            Order::Fortran => {
                let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return };
                let (first, run) = (*first as usize, (*last - *first) as usize + 1);
                for (feature, row) in panel.chunks_exact_mut(stride).enumerate() {
                    let values = &self.values[feature * self.samples + first..][..run];
                    if run == ids.len() {
                        copy(values, &mut row[..run]);
                    } else {
                        for (lane, id) in row.iter_mut().zip(ids) {
                            copy(&values[*id as usize - first..][..1], std::slice::from_mut(lane));
                        }
                    }
                }
            }
        }
    }
}
