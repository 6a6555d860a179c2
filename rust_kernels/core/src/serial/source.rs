//! What a pass takes its samples from, and the input of a run as CSR.

use crate::activations::Panels;
use crate::buffer::Buffer;
use crate::csr::{check_finite, check_indptr};
use crate::errors::{Invalid, NoMemory};
use crate::memory::with_room;

/// The samples with which a pass starts.
pub trait Source: Sync {
    /// Returns the number of values of a sample.
    fn rows(&self) -> usize;

    /// Returns, in ascending order, the ids of all samples that may be live; those that are cheaply known to be all
    /// zero are left out.
    fn live(&self) -> Result<Vec<u32>, NoMemory>;

    /// Writes samples (ids ascending) into the first lanes of a panel, rows x `stride`, and zeros into the others.
    fn load(&self, ids: &[u32], stride: usize, panel: &mut [f32]);

    /// Returns these samples as panels.
    fn panels(&self, ids: Vec<u32>, width: usize) -> Result<Panels, NoMemory> {
        let mut panels = Panels::zeroed(self.rows(), ids, width)?;
        for (index, span) in panels.spans().to_vec().into_iter().enumerate() {
            let ids = panels.samples()[span.slots()].to_vec();
            self.load(&ids, span.stride, panels.panel_mut(index));
        }
        Ok(panels)
    }
}

/// The input of a run as CSR, samples x features: values are finite, and features ascend strictly within a sample.
pub struct Samples {
    features: usize,
    indptr: Buffer<i64>,
    indices: Buffer<i32>,
    data: Buffer<f32>,
}

impl Samples {
    pub fn new(indptr: Buffer<i64>, indices: Buffer<i32>, data: Buffer<f32>, features: usize) -> Result<Self, Invalid> {
        check_indptr(&indptr, indices.len())?;
        if data.len() != indices.len() {
            return Err(Invalid(format!("{} values for {} indices; give one each", data.len(), indices.len())));
        }
        if u32::try_from(indptr.len()).is_err() {
            return Err(Invalid(format!("{} samples are more than 32-bit ids can name", indptr.len() - 1)));
        }
        for (sample, ends) in indptr.windows(2).enumerate() {
            let row = &indices[ends[0] as usize..ends[1] as usize];
            if !row.is_sorted_by(|a, b| a < b) {
                return Err(Invalid(format!("the feature indices of sample {sample} must ascend strictly")));
            }
            let outside = |index: &&&i32| usize::try_from(***index).map_or(true, |index| index >= features);
            if let Some(index) = [row.first(), row.last()].iter().flatten().find(outside) {
                return Err(Invalid(format!("sample {sample} has feature {index}; there are {features} features")));
            }
        }
        check_finite("input value", &data)?;
        Ok(Self { features, indptr, indices, data })
    }

    pub fn len(&self) -> usize {
        self.indptr.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn features(&self) -> usize {
        self.features
    }

    fn sample(&self, id: usize) -> (&[i32], &[f32]) {
        let range = self.indptr[id] as usize..self.indptr[id + 1] as usize;
        (&self.indices[range.clone()], &self.data[range])
    }
}

impl Source for Samples {
    fn rows(&self) -> usize {
        self.features
    }

    fn live(&self) -> Result<Vec<u32>, NoMemory> {
        let is_live = |id: &u32| self.sample(*id as usize).1.iter().any(|value| *value != 0.0);
        let ids = || (0..self.len() as u32).filter(is_live);
        let mut live = with_room(ids().count())?;
        live.extend(ids());
        Ok(live)
    }

    fn load(&self, ids: &[u32], stride: usize, panel: &mut [f32]) {
        panel[..self.features * stride].fill(0.0);
        for (lane, id) in ids.iter().enumerate() {
            let (features, values) = self.sample(*id as usize);
            for (feature, value) in features.iter().zip(values) {
                panel[*feature as usize * stride + lane] = *value;
            }
        }
    }
}
