//! The boundary rows of a step, as the frames that carry them to other ranks.

use super::{Lists, Rank, RankError, State, lock};
use crate::codec::{self, Framed, Packed, PanelRows};
use crate::errors::Invalid;
use crate::frame::{self, Header, Kind};
use crate::outbox::Outbox;

/// The live samples of the edges that were sent after the last two layers. A receiver that unpacks a step has unpacked
/// the step before, so a block may refer to what the same targets got then.
#[derive(Default)]
pub(super) struct Sent {
    layer: usize,
    now: Lists,
    before: Lists,
}

impl Sent {
    /// Moves on to a layer.
    fn advance(&mut self, layer: usize) {
        if layer != self.layer {
            let last = std::mem::take(&mut self.now);
            self.before = if layer == self.layer + 1 { last } else { Lists::new() };
            self.layer = layer;
        }
    }
}

impl Rank {
    /// Returns the header of the only frame of the first edge after a layer.
    pub(super) fn header(&self, layer: usize, micro_batch: usize) -> Header {
        Header {
            kind: Kind::Data,
            attempt: self.attempt,
            layer: layer as u16,
            micro_batch: micro_batch as u16,
            source: self.shard.rank(),
            edge: 0,
            part: 0,
            parts: 1,
        }
    }

    /// Packs the computed boundary rows into frames of at most `limit` bytes each. `fast` as of `Framed`.
    pub fn frames(&self, layer: usize, micro_batch: usize, limit: usize, fast: bool) -> Result<Outbox<'_>, RankError> {
        let (part, batch) = self.check(layer, micro_batch)?;
        let state = lock(&batch.state);
        let output = match &*state {
            State::Step(step) if step.layer == layer && step.boundary => &step.output,
            State::Output(done, output, _) if *done == layer => output,
            _ => return Err(RankError::Order { layer, micro_batch, why: "the rows to send are not there" }),
        };
        let samples = self.samples[micro_batch];
        let mut sent = lock(&batch.sent);
        sent.advance(layer);
        let pack = |index: usize| -> Result<Packed, RankError> {
            let send = &part.sends()[index];
            let source = PanelRows::selected(output, &send.rows).rounded(self.wire, self.compute.path());
            if let Some(row) = source.too_large() {
                return Err(RankError::TooLarge { layer, row });
            }
            let known = self.known(layer, &send.targets, &sent.before);
            let framed = Framed { known: &known, fast };
            Ok(codec::encode(send.rows.len(), samples, output.samples(), &source, Some(framed), &self.compute))
        };
        let packed = self.compute.map(part.sends().len(), pack).into_iter().collect::<Result<Vec<_>, _>>()?;
        let (mut edges, mut frames) = (Vec::with_capacity(packed.len()), Vec::with_capacity(packed.len()));
        for ((edge, send), mut packed) in (0u32..).zip(part.sends()).zip(packed) {
            let live = std::mem::take(&mut packed.live);
            if live.len() < samples {
                sent.now.insert((self.shard.rank(), edge), live);
            }
            let whole = Header { edge, ..self.header(layer, micro_batch) };
            let (bytes, room) = (packed.bytes(), limit.saturating_sub(frame::overhead(&whole, &send.targets)));
            let parts = u16::try_from(bytes.checked_div(room).map_or(usize::MAX, |_| bytes.div_ceil(room)));
            let parts = parts.map_err(|_| {
                Invalid(format!("{bytes} bytes for {:?} do not fit frames of {limit} bytes", send.targets))
            })?;
            for part in 0..parts {
                let header = Header { part, parts, ..whole };
                let start = usize::from(part) * room;
                frames.push((header, start..bytes.min(start + room)));
            }
            edges.push((&send.targets[..], packed));
        }
        Ok(Outbox::new(edges, frames))
    }

    /// Returns the live samples of the edges after the layer before, by number, that all of `targets` received.
    fn known<'a>(&self, layer: usize, targets: &[u16], before: &'a Lists) -> Vec<(u32, &'a [u32])> {
        let Some(before_layer) = layer.checked_sub(1).and_then(|before| self.shard.layer(before)) else {
            return Vec::new();
        };
        let edges = (0..).zip(before_layer.sends());
        let shared = edges.filter(|(_, edge)| targets.iter().all(|target| edge.targets.binary_search(target).is_ok()));
        shared.filter_map(|(edge, _)| Some((edge, &before.get(&(self.shard.rank(), edge))?[..]))).collect()
    }
}
