//! The state of one rank in one attempt of a run: its inbox, and its activations from step to step.

mod restoring;
mod sending;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use crate::activations::Panels;
use crate::buffer::Buffer;
use crate::codec::{self, BadBlock, Block, PanelRows, Wire};
use crate::compute::Compute;
use crate::digest;
use crate::errors::{Invalid, LoadError, NoMemory};
use crate::frame::{self, Attempt};
use crate::inbox::{Accepted, Inbox};
use crate::memory::{copied, filled};
use crate::shard::{Shard, ShardLayer};
use crate::spill::Budget;
use crate::spmm::{Rows, spmm};
use crate::unpack::{Supply, unpack};
use sending::Sent;

/// An error that ends a rank's work.
#[derive(Debug, Error)]
pub enum RankError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("layer {layer}, local row {row} is not finite")]
    NonFinite { layer: usize, row: usize },
    /// A value that is to be sent becomes infinite in the number format of the run.
    #[error("layer {layer}, local row {row} does not fit the number format in which it is sent")]
    TooLarge { layer: usize, row: usize },
    /// A step was requested out of order.
    #[error("layer {layer}, micro-batch {micro_batch}: {why}")]
    Order { layer: usize, micro_batch: usize, why: &'static str },
    #[error("a spilled frame could not be read back: {0}")]
    Spill(io::Error),
    #[error(transparent)]
    Memory(#[from] NoMemory),
}

impl From<LoadError> for RankError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Invalid(error) => error.into(),
            LoadError::Memory(error) => error.into(),
        }
    }
}

impl From<io::Error> for RankError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::OutOfMemory { NoMemory.into() } else { Self::Spill(error) }
    }
}

/// The rows of a step to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The rows that other ranks need.
    Boundary,
    /// All other rows.
    Interior,
    All,
}

/// One rank's inbox and activations. The steps of one micro-batch must follow in order; other calls are independent.
pub struct Rank {
    shard: Arc<Shard>,
    attempt: Attempt,
    samples: Vec<usize>,
    wire: Wire,
    compute: Compute,
    inbox: Mutex<Inbox>,
    batches: Vec<Batch>,
    /// The inputs of the last step, whose memory the next one uses.
    spare: Mutex<Option<Panels>>,
}

/// One micro-batch, and the bytes that it holds (readable while a step computes).
struct Batch {
    state: Mutex<State>,
    bytes: AtomicUsize,
    sent: Mutex<Sent>,
}

/// The live samples of blocks, by source and edge. Lists of all samples are left out: nothing refers to them.
type Lists = HashMap<(u16, u32), Vec<u32>>;

/// The progress of a micro-batch.
enum State {
    /// Before layer 0: encoded blocks of input rows, each with its first feature.
    Input(Vec<(usize, Vec<u8>)>),
    /// In a step whose inputs have been unpacked.
    Step(Step),
    /// After a step: all rows of the layer's output are computed. With the live samples that its step received.
    Output(usize, Panels, Lists),
    /// The last layer's output was returned, or a step failed.
    Ended,
}

struct Step {
    layer: usize,
    received: Lists,
    input: Panels,
    output: Panels,
    boundary: bool,
    interior: bool,
}

impl State {
    fn bytes(&self) -> usize {
        match self {
            State::Input(blocks) => blocks.iter().map(|(_, block)| block.len()).sum(),
            State::Step(step) => step.input.bytes() + step.output.bytes(),
            State::Output(_, panels, _) => panels.bytes(),
            State::Ended => 0,
        }
    }

    /// Returns the output of a layer if all its rows are computed, otherwise an error.
    fn complete(&self, layer: usize, micro_batch: usize) -> Result<&Panels, RankError> {
        match self {
            State::Output(done, output, _) if *done == layer => Ok(output),
            _ => Err(RankError::Order { layer, micro_batch, why: "its rows are not all there" }),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held is a bug that was reported there; the guarded data is dropped with the run.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rank {
    /// Starts an attempt; `samples` is the number of samples in each micro-batch, and `wire` the number format to which
    /// the rows for other ranks are rounded.
    pub fn new(
        shard: Arc<Shard>,
        attempt: Attempt,
        samples: Vec<usize>,
        wire: Wire,
        compute: Compute,
        budget: Budget,
    ) -> Result<Self, Invalid> {
        if samples.len() > frame::MOST {
            return Err(Invalid(format!("{} micro-batches are more than frames can number", samples.len())));
        }
        if let Some(count) = samples.iter().find(|&&count| u32::try_from(count).is_err()) {
            return Err(Invalid(format!("a micro-batch of {count} samples is too large")));
        }
        let inbox = Inbox::new(attempt, shard.rank(), shard.workers(), &samples, shard.receives(), budget);
        let batch = |_| Batch {
            state: Mutex::new(State::Input(Vec::new())),
            bytes: AtomicUsize::new(0),
            sent: Mutex::default(),
        };
        let batches = samples.iter().map(batch).collect();
        Ok(Self { shard, attempt, samples, wire, compute, inbox: Mutex::new(inbox), batches, spare: Mutex::default() })
    }

    fn batch(&self, micro_batch: usize) -> Result<&Batch, Invalid> {
        self.batches.get(micro_batch).ok_or_else(|| Invalid(format!("there is no micro-batch {micro_batch}")))
    }

    /// Returns the batch of a step that exists.
    fn step(&self, layer: usize, micro_batch: usize) -> Result<&Batch, Invalid> {
        match self.batches.get(micro_batch) {
            Some(batch) if layer < self.shard.receives().len() => Ok(batch),
            _ => Err(Invalid(format!("there is no step of layer {layer} and micro-batch {micro_batch}"))),
        }
    }

    /// Returns layer and batch of a step whose layer is loaded.
    fn check(&self, layer: usize, micro_batch: usize) -> Result<(&ShardLayer, &Batch), RankError> {
        let batch = self.step(layer, micro_batch)?;
        let part = self.shard.layer(layer);
        let part = part.ok_or(RankError::Order { layer, micro_batch, why: "its layer is not loaded" })?;
        Ok((part, batch))
    }

    /// Adds a block of input rows, the first of which is `first_feature`.
    pub fn put_input(&self, micro_batch: usize, first_feature: usize, block: &[u8]) -> Result<(), RankError> {
        let batch = self.batch(micro_batch)?;
        let mut state = lock(&batch.state);
        let State::Input(blocks) = &mut *state else {
            return Err(RankError::Order { layer: 0, micro_batch, why: "its input was already read" });
        };
        blocks.push((first_feature, copied(block)?));
        batch.bytes.store(state.bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Classifies a body and keeps it if it is new.
    pub fn accept(&self, body: &Buffer<u8>) -> Result<Accepted, NoMemory> {
        lock(&self.inbox).accept(body)
    }

    /// Returns whether all rows that the step needs from other ranks have arrived.
    pub fn is_ready(&self, layer: usize, micro_batch: usize) -> Result<bool, Invalid> {
        self.step(layer, micro_batch)?;
        Ok(lock(&self.inbox).is_ready(layer, micro_batch))
    }

    /// Unpacks the inputs of a step into panels; releases the encoded ones and the output of the previous layer.
    pub fn assemble(&self, layer: usize, micro_batch: usize) -> Result<(), RankError> {
        let (part, batch) = self.check(layer, micro_batch)?;
        let order = |why| RankError::Order { layer, micro_batch, why };
        let mut state = lock(&batch.state);
        let expected = match &*state {
            State::Input(_) => layer == 0,
            State::Output(before, _, _) => layer == before + 1,
            State::Step(_) | State::Ended => false,
        };
        if !expected {
            return Err(order("it is not the next step of its micro-batch"));
        }
        let payloads = lock(&self.inbox).take(layer, micro_batch);
        let payloads = payloads.ok_or_else(|| order("frames are still missing"))??;
        let own = std::mem::replace(&mut *state, State::Ended);
        let none = Lists::new();
        let known = if let State::Output(_, _, received) = &own { received } else { &none };
        let blocks = self.decode(part, &payloads, self.samples[micro_batch], known)?;
        let input = match &own {
            State::Input(input) => self.read_input(part, input, self.samples[micro_batch])?,
            State::Output(_, own, _) => {
                let spare = lock(&self.spare).take();
                gather(part, own, &blocks, self.samples[micro_batch], spare, &self.compute)?
            }
            State::Step(_) | State::Ended => unreachable!("checked above"),
        };
        let lists = part.receives().iter().map(|edge| (edge.source, edge.edge)).zip(blocks);
        let received = lists.map(|(from, block)| (from, block.into_live()));
        let received = received.filter(|(_, live)| live.len() < self.samples[micro_batch]).collect();
        let own = if let State::Output(_, own, _) = own { Some(own) } else { None };
        let output = Panels::within(own, part.layer().rows(), copied(input.samples())?, input.width())?;
        *state = State::Step(Step { layer, received, input, output, boundary: false, interior: false });
        batch.bytes.store(state.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn decode<'a>(
        &self,
        part: &ShardLayer,
        payloads: &'a [Buffer<u8>],
        samples: usize,
        known: &Lists,
    ) -> Result<Vec<Block<'a>>, LoadError> {
        let decode = |index: usize| {
            let edge = part.receives()[index];
            let known = |number| known.get(&(edge.source, number)).map(Vec::as_slice);
            Block::decode(&payloads[index], edge.rows, samples, &known, &self.compute)
                .map_err(|error| error.of(format_args!("edge {} of rank {}: ", edge.edge, edge.source)))
        };
        self.compute.map(payloads.len(), decode).into_iter().collect()
    }

    /// Returns the input features that the rank needs, as panels; the encoded blocks may hold more features.
    fn read_input(&self, part: &ShardLayer, input: &[(usize, Vec<u8>)], samples: usize) -> Result<Panels, LoadError> {
        let decode = |index: usize| {
            let (first, bytes) = &input[index];
            let bad = |error: BadBlock| error.of(format_args!("input from feature {first}: "));
            let (_, claimed) = Block::claimed_shape(bytes).map_err(bad)?;
            if claimed != samples {
                return Err(LoadError::from(Invalid(format!(
                    "an input block has {claimed} samples instead of {samples}"
                ))));
            }
            Ok((*first, Block::decode_any(bytes, &self.compute).map_err(bad)?))
        };
        let blocks = self.compute.map(input.len(), decode).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut missing = copied(&part.supplies()[0])?;
        let mut taken = Vec::with_capacity(blocks.len());
        for (first, block) in &blocks {
            let has = |feature: u32| (*first..first.saturating_add(block.shape().0)).contains(&(feature as usize));
            let pairs = missing.extract_if(.., |(feature, _)| has(*feature));
            taken.push(pairs.map(|(feature, column)| (feature - *first as u32, column)).collect::<Vec<_>>());
        }
        if let Some((feature, _)) = missing.first() {
            return Err(Invalid(format!("input feature {feature} is needed and was not given")).into());
        }
        let supplies: Vec<_> =
            blocks.iter().zip(&taken).map(|((_, block), pairs)| Supply::block(block, pairs)).collect();
        Ok(unpack(part.layer(), samples, &supplies, None, &self.compute)?)
    }

    /// Computes rows of an assembled step; releases its inputs once all rows are computed.
    pub fn compute(&self, layer: usize, micro_batch: usize, phase: Phase) -> Result<(), RankError> {
        let (part, batch) = self.check(layer, micro_batch)?;
        let order = |why| RankError::Order { layer, micro_batch, why };
        let mut state = lock(&batch.state);
        let step = match &mut *state {
            State::Step(step) if step.layer == layer => step,
            _ => return Err(order("it is not assembled")),
        };
        let (boundary, interior) = (phase != Phase::Interior, phase != Phase::Boundary);
        if boundary && step.boundary || interior && step.interior {
            return Err(order("these rows were computed already"));
        }
        let rows = match phase {
            Phase::Boundary => Rows::Selected(part.boundary()),
            Phase::Interior => Rows::Selected(part.interior()),
            Phase::All => Rows::All,
        };
        if let Err(error) = spmm(part.layer(), rows, &step.input, &mut step.output, &self.compute) {
            *state = State::Ended;
            return Err(RankError::NonFinite { layer, row: error.row });
        }
        step.boundary |= boundary;
        step.interior |= interior;
        if step.boundary && step.interior {
            let State::Step(step) = std::mem::replace(&mut *state, State::Ended) else { unreachable!("matched above") };
            *lock(&self.spare) = Some(step.input).filter(|_| layer < self.last());
            *state = State::Output(layer, step.output, step.received);
        }
        batch.bytes.store(state.bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Returns the digest of the rank's rows of a layer, all of which are computed; `first_sample` is the number of the
    /// micro-batch's first sample in the batch.
    pub fn digest(&self, layer: usize, micro_batch: usize, first_sample: u64) -> Result<u64, RankError> {
        let (part, batch) = self.check(layer, micro_batch)?;
        let state = lock(&batch.state);
        let output = state.complete(layer, micro_batch)?;
        Ok(digest::of_panels(output, layer, part.rows(), first_sample, &self.compute))
    }

    /// Returns the number of the last layer.
    fn last(&self) -> usize {
        self.shard.receives().len() - 1
    }

    /// Returns the last layer's rows as an encoded block, and releases them.
    pub fn output(&self, micro_batch: usize) -> Result<Vec<u8>, RankError> {
        let batch = self.batch(micro_batch)?;
        let mut state = lock(&batch.state);
        let output = state.complete(self.last(), micro_batch)?;
        let source = PanelRows::all(output);
        let block =
            codec::encode(output.rows(), self.samples[micro_batch], output.samples(), &source, None, &self.compute)
                .block();
        *state = State::Ended;
        batch.bytes.store(0, Ordering::Relaxed);
        Ok(block)
    }

    /// Returns, for each sample, its largest output and the lowest global neuron that has it; -inf and -1 without rows.
    pub fn reduce(&self, micro_batch: usize) -> Result<(Vec<f32>, Vec<i32>), RankError> {
        let batch = self.batch(micro_batch)?;
        let state = lock(&batch.state);
        let output = state.complete(self.last(), micro_batch)?;
        let neurons = self.shard.layer(self.last()).map_or(&[][..], ShardLayer::rows);
        let samples = self.samples[micro_batch];
        let Some(&first) = neurons.first() else {
            return Ok((filled(samples, f32::NEG_INFINITY)?, filled(samples, -1)?));
        };
        // A sample that is not live is zero in all rows.
        let (mut largest, mut neuron) = (filled(samples, 0.0)?, filled(samples, first as i32)?);
        for &sample in output.samples() {
            largest[sample as usize] = f32::NEG_INFINITY;
        }
        let mut values = filled(output.samples().len(), 0.0)?;
        for (row, &global) in neurons.iter().enumerate() {
            output.read_row(row, &mut values);
            for (&sample, &value) in output.samples().iter().zip(&values) {
                if value > largest[sample as usize] {
                    largest[sample as usize] = value;
                    neuron[sample as usize] = global as i32;
                }
            }
        }
        Ok((largest, neuron))
    }

    /// Returns the bytes that panels and encoded frames currently hold.
    pub fn resident_bytes(&self) -> u64 {
        let panels: usize = self.batches.iter().map(|batch| batch.bytes.load(Ordering::Relaxed)).sum();
        let spare = lock(&self.spare).as_ref().map_or(0, Panels::bytes);
        (panels + spare) as u64 + lock(&self.inbox).held()
    }
}

/// Returns the inputs of a later layer: the rank's own rows of the previous layer, and the rows that others sent.
fn gather(
    part: &ShardLayer,
    own: &Panels,
    blocks: &[Block<'_>],
    samples: usize,
    spare: Option<Panels>,
    compute: &Compute,
) -> Result<Panels, NoMemory> {
    let (first, rest) = part.supplies().split_first().expect("a layer has at least the rank itself as a supplier");
    let mut supplies = vec![Supply::panels(own, first)];
    supplies.extend(blocks.iter().zip(rest).map(|(block, pairs)| Supply::block(block, pairs)));
    unpack(part.layer(), samples, &supplies, spare, compute)
}
