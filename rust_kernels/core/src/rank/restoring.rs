//! All rows of a rank after a layer, as one frame from the rank to itself: taken out, and put back into a later attempt,
//! which goes on from there. They are never rounded, and their block refers to no other.

use std::sync::atomic::Ordering;

use super::{Lists, Rank, RankError, State, lock};
use crate::activations::panel_width;
use crate::codec::{self, Block, Framed, PanelRows};
use crate::errors::Invalid;
use crate::frame::{self, Header, Relation};
use crate::memory::with_room;
use crate::outbox::Outbox;
use crate::unpack::{Supply, join};

impl Rank {
    /// Packs all rows of a layer, which are computed, into one frame. `fast` as of `Framed`.
    pub fn rows(&self, layer: usize, micro_batch: usize, fast: bool) -> Result<Outbox<'_>, RankError> {
        let (_, batch) = self.check(layer, micro_batch)?;
        let state = lock(&batch.state);
        let output = state.complete(layer, micro_batch)?;
        let (samples, framed) = (self.samples[micro_batch], Some(Framed { known: &[], fast }));
        let packed =
            codec::encode(output.rows(), samples, output.samples(), &PanelRows::all(output), framed, &self.compute);
        let frame = (self.header(layer, micro_batch), 0..packed.bytes());
        Ok(Outbox::new(vec![(self.shard.itself(), packed)], vec![frame]))
    }

    /// Puts rows back that `rows` returned in this attempt or an earlier one of the same run. The micro-batch, to which
    /// nothing was given yet, goes on after their layer.
    pub fn restore(&self, layer: usize, micro_batch: usize, body: &[u8]) -> Result<(), RankError> {
        let (part, batch) = self.check(layer, micro_batch)?;
        let frame = frame::open(body).map_err(|error| Invalid(format!("the rows are {error}")))?;
        let attempt = frame.header.attempt;
        let is_own =
            frame.header == (Header { attempt, ..self.header(layer, micro_batch) }) && frame.is_for(self.shard.rank());
        if !is_own || attempt.relation(&self.attempt) == Relation::Foreign {
            return Err(Invalid("the rows are of another run, rank, layer or micro-batch".into()).into());
        }
        let (rows, samples) = (part.rows().len(), self.samples[micro_batch]);
        let block = Block::decode(frame.payload, rows, samples, &|_| None, &self.compute)
            .map_err(|error| error.of("the rows are "))?;
        let mut pairs = with_room(rows)?;
        pairs.extend((0..rows as u32).map(|row| (row, row)));
        let width = panel_width([part.layer()].into_iter(), block.live().len(), self.compute.path());
        let panels = join(rows, samples, width, &[Supply::block(&block, &pairs)], &self.compute)?;
        let mut state = lock(&batch.state);
        if !matches!(&*state, State::Input(blocks) if blocks.is_empty()) {
            return Err(RankError::Order { layer, micro_batch, why: "it has started already" });
        }
        *state = State::Output(layer, panels, Lists::new());
        batch.bytes.store(state.bytes(), Ordering::Relaxed);
        Ok(())
    }
}
