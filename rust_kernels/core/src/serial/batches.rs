//! The activations after a pass: panels as they left the pipeline, in any order.

use super::source::Source;
use crate::activations::{Panels, copy_lanes};
use crate::aligned::Aligned;
use crate::compute::Compute;
use crate::errors::NoMemory;
use crate::memory::{collected, with_room};

/// One panel and the ids of its samples; its padding is zero unless it is being filled.
pub struct Batch {
    pub ids: Vec<u32>,
    pub stride: usize,
    pub data: Aligned,
}

/// Where a sample is.
#[derive(Clone, Copy)]
struct Place {
    id: u32,
    batch: u32,
    lane: u32,
}

/// The activations of the samples that may be live; all others are zero.
pub struct Batches {
    rows: usize,
    list: Vec<Batch>,
    /// In the order of ids.
    places: Vec<Place>,
}

impl Batches {
    /// Wraps panels of `rows` rows, in which each sample occurs at most once.
    pub fn new(rows: usize, list: Vec<Batch>) -> Result<Self, NoMemory> {
        let mut places = with_room(list.iter().map(|batch| batch.ids.len()).sum())?;
        for (batch, Batch { ids, .. }) in list.iter().enumerate() {
            places.extend((0..).zip(ids).map(|(lane, id)| Place { id: *id, batch: batch as u32, lane }));
        }
        places.sort_unstable_by_key(|place| place.id);
        Ok(Self { rows, list, places })
    }

    /// Copies panels.
    pub fn of(panels: &Panels, compute: &Compute) -> Result<Self, NoMemory> {
        Self::new(panels.rows(), copies(panels, 0, compute)?)
    }

    /// Returns the panels.
    pub fn list(&self) -> &[Batch] {
        &self.list
    }

    /// Returns the rows of a panel.
    pub fn panel<'a>(&self, batch: &'a Batch) -> &'a [f32] {
        &batch.data[..self.rows * batch.stride]
    }

    /// Hands the parts of all samples to the panels that hold them, and returns those of samples that no panel holds.
    pub fn distributed<T>(&self, parts: impl ExactSizeIterator<Item = T>) -> Result<(Vec<Vec<T>>, Vec<T>), NoMemory> {
        let mut others = with_room(parts.len() - self.places.len())?;
        let mut parts = collected(parts.map(Some))?;
        let mut taken = |id: &u32| parts[*id as usize].take().expect("each sample occurs once");
        let held = self.list.iter().map(|batch| collected(batch.ids.iter().map(&mut taken)));
        let held = held.collect::<Result<_, _>>()?;
        others.extend(parts.into_iter().flatten());
        Ok((held, others))
    }
}

/// Copies panels, with `first` added to the ids of their samples.
pub fn copies(panels: &Panels, first: usize, compute: &Compute) -> Result<Vec<Batch>, NoMemory> {
    let copy = |index: usize| {
        let span = panels.spans()[index];
        let ids = collected(panels.samples()[span.slots()].iter().map(|id| id + first as u32))?;
        Ok(Batch { ids, stride: span.stride, data: Aligned::copied(panels.panel(index))? })
    };
    compute.map(panels.spans().len(), copy).into_iter().collect()
}

impl Source for Batches {
    fn rows(&self) -> usize {
        self.rows
    }

    fn live(&self) -> Result<Vec<u32>, NoMemory> {
        collected(self.places.iter().map(|place| place.id))
    }

    fn load(&self, ids: &[u32], stride: usize, panel: &mut [f32]) {
        let panel = &mut panel[..self.rows * stride];
        panel.fill(0.0);
        let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return };
        let start = self.places.partition_point(|place| place.id < *first);
        let end = self.places.partition_point(|place| place.id <= *last);
        let target = |place: &Place| Some((ids.binary_search(&place.id).ok()? as u32, *place));
        let mut copied: Vec<(u32, Place)> = self.places[start..end].iter().filter_map(target).collect();
        copied.sort_by_key(|(_, place)| place.batch);
        for group in copied.chunk_by(|(_, one), (_, other)| one.batch == other.batch) {
            let batch = &self.list[group[0].1.batch as usize];
            let lanes: Vec<(u32, u32)> = group.iter().map(|(to, place)| (*to, place.lane)).collect();
            copy_lanes(self.panel(batch), batch.stride, panel, stride, &lanes);
        }
    }
}
