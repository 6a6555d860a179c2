//! The inbox of one rank in one attempt: classifies received bodies, and stores new frames, still encoded, until their
//! step takes them.

use std::collections::{BTreeMap, HashMap};
use std::io;

use crate::buffer::Buffer;
use crate::codec;
use crate::errors::NoMemory;
use crate::frame::{self, Attempt, Frame, Header, Kind, Relation};
use crate::memory::{copied, with_room};
use crate::spill::{Budget, Kept};

/// The inbox's classification of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// New: stored, or returned as part of a control message.
    New,
    /// Already received.
    Duplicate,
    /// From an older attempt of this run.
    Stale,
    /// For another run, plan or rank, from a newer attempt, or of an unknown edge.
    Foreign,
    /// Damaged, or impossible under the plan.
    Corrupt,
}

/// Why a body is not kept.
enum Refused {
    For(Status),
    Memory(NoMemory),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::For(status)
    }
}

impl From<NoMemory> for Refused {
    fn from(error: NoMemory) -> Self {
        Self::Memory(error)
    }
}

/// The result for one body; `header` is `None` if the body could not be parsed.
#[derive(Debug)]
pub struct Accepted {
    pub status: Status,
    pub header: Option<Header>,
    /// Whether this body was the last missing part of its edge in the step, or of its control message.
    pub is_complete: bool,
    /// The payload of a control message that is now complete, with its parts joined.
    pub payload: Option<Vec<u8>>,
}

/// An edge of the plan that ends at this rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    pub source: u16,
    pub edge: u32,
    pub rows: usize,
}

/// The identity of the rank, and the parts received for each edge of each step.
pub struct Inbox {
    attempt: Attempt,
    rank: u16,
    workers: usize,
    /// Position of each (layer that produces the rows, source, edge) among the edges of the step that needs them.
    places: HashMap<(u16, u16, u32), usize>,
    steps: Vec<Vec<Step>>,
    /// Control messages by (kind, source, layer, micro-batch).
    control: HashMap<(Kind, u16, u16, u16), Message>,
    budget: Budget,
}

/// The edges of one step.
enum Step {
    Waiting { arrivals: Vec<Arrival>, missing: usize },
    Taken,
}

/// The parts of one control message.
enum Message {
    Waiting { parts: u16, kept: BTreeMap<u16, Vec<u8>> },
    Told,
}

/// The parts of one edge.
struct Arrival {
    /// Maximum total bytes of all parts.
    most: u64,
    /// Number of parts; 0 until the first part arrives.
    parts: u16,
    bytes: u64,
    kept: BTreeMap<u16, Kept>,
}

impl Inbox {
    /// Creates an inbox. `incoming[k]` are the edges that layer k needs; layer 0 must have none.
    pub fn new(
        attempt: Attempt,
        rank: u16,
        workers: usize,
        samples: &[usize],
        incoming: &[Vec<Incoming>],
        budget: Budget,
    ) -> Self {
        let mut places = HashMap::new();
        for (layer, edges) in (0u16..).zip(incoming).skip(1) {
            places.extend(edges.iter().enumerate().map(|(place, from)| ((layer - 1, from.source, from.edge), place)));
        }
        let step = |edges: &[Incoming], samples| Step::Waiting {
            arrivals: edges.iter().map(|edge| Arrival::new(codec::most_bytes(edge.rows, samples))).collect(),
            missing: edges.len(),
        };
        let steps =
            incoming.iter().map(|edges| samples.iter().map(|&samples| step(edges, samples)).collect()).collect();
        Self { attempt, rank, workers, places, steps, control: HashMap::new(), budget }
    }

    /// Classifies a body; stores a new data frame, which stays where it is, and returns a control message once it is
    /// complete.
    pub fn accept(&mut self, body: &Buffer<u8>) -> Result<Accepted, NoMemory> {
        let Ok(frame) = frame::open(body) else {
            return Ok(Accepted { status: Status::Corrupt, header: None, is_complete: false, payload: None });
        };
        let header = Some(frame.header);
        match self.judge(&frame, body) {
            Ok((is_complete, payload)) => Ok(Accepted { status: Status::New, header, is_complete, payload }),
            Err(Refused::For(status)) => Ok(Accepted { status, header, is_complete: false, payload: None }),
            Err(Refused::Memory(error)) => Err(error),
        }
    }

    /// Returns, for a new frame, whether it completes its edge or message, and that message; otherwise its status.
    fn judge(&mut self, frame: &Frame<'_>, body: &Buffer<u8>) -> Result<(bool, Option<Vec<u8>>), Refused> {
        let header = &frame.header;
        self.belongs(header, frame.is_for(self.rank))?;
        // Frames are kept whole: what else they hold must be small, as it does not count as part of the edge.
        if frame.targets() > self.workers || header.kind == Kind::Data && frame.payload.is_empty() {
            return Err(Status::Corrupt.into());
        }
        if header.kind == Kind::Data {
            return Ok((self.keep(header, body.part(frame.range()))?, None));
        }
        let whole = self.hear(header, frame.payload)?;
        Ok((whole.is_some(), whole))
    }

    /// Returns an error with the status of a frame that is not for this rank and attempt.
    fn belongs(&self, header: &Header, is_target: bool) -> Result<(), Status> {
        match header.attempt.relation(&self.attempt) {
            Relation::Same => {}
            Relation::Older => return Err(Status::Stale),
            Relation::Foreign => return Err(Status::Foreign),
        }
        // An abort is for all ranks, whatever its source.
        if header.kind == Kind::Abort || is_target && usize::from(header.source) < self.workers {
            return Ok(());
        }
        Err(Status::Foreign)
    }

    /// Stores a new part of an edge and returns whether the edge is now complete; otherwise returns the part's status.
    fn keep(&mut self, header: &Header, payload: Buffer<u8>) -> Result<bool, Status> {
        let place = self.places.get(&(header.layer, header.source, header.edge)).ok_or(Status::Foreign)?;
        let step = self.steps[header.layer as usize + 1].get_mut(header.micro_batch as usize).ok_or(Status::Foreign)?;
        let Step::Waiting { arrivals, missing } = step else {
            return Err(Status::Duplicate);
        };
        let arrival = &mut arrivals[*place];
        let bytes = arrival.bytes + payload.len() as u64;
        if arrival.parts != 0 && arrival.parts != header.parts {
            return Err(Status::Corrupt);
        }
        if arrival.kept.contains_key(&header.part) {
            return Err(Status::Duplicate);
        }
        if bytes > arrival.most {
            return Err(Status::Corrupt);
        }
        arrival.parts = header.parts;
        arrival.bytes = bytes;
        arrival.kept.insert(header.part, self.budget.keep(payload));
        *missing -= usize::from(arrival.is_complete());
        Ok(arrival.is_complete())
    }

    /// Stores a new part of a control message and after the last one returns the message; otherwise the part's status.
    fn hear(&mut self, header: &Header, payload: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        let key = (header.kind, header.source, header.layer, header.micro_batch);
        let none = || Message::Waiting { parts: header.parts, kept: BTreeMap::new() };
        let message = self.control.entry(key).or_insert_with(none);
        let Message::Waiting { parts, kept } = message else {
            return Err(Status::Duplicate.into());
        };
        if *parts != header.parts {
            return Err(Status::Corrupt.into());
        }
        if kept.contains_key(&header.part) {
            return Err(Status::Duplicate.into());
        }
        kept.insert(header.part, copied(payload)?);
        if kept.len() < usize::from(*parts) {
            return Ok(None);
        }
        let mut whole = with_room(kept.values().map(Vec::len).sum())?;
        std::mem::take(kept).into_values().for_each(|part| whole.extend(part));
        *message = Message::Told;
        Ok(Some(whole))
    }

    /// Returns whether all parts of all edges of the step have arrived, even if they were taken since.
    pub fn is_ready(&self, layer: usize, micro_batch: usize) -> bool {
        match &self.steps[layer][micro_batch] {
            Step::Waiting { missing, .. } => *missing == 0,
            Step::Taken => true,
        }
    }

    /// Removes and returns the joined payloads of a step, in edge order; `None` if it is not ready or was taken before.
    pub fn take(&mut self, layer: usize, micro_batch: usize) -> Option<io::Result<Vec<Buffer<u8>>>> {
        let step = &mut self.steps[layer][micro_batch];
        if !matches!(step, Step::Waiting { missing: 0, .. }) {
            return None;
        }
        let Step::Waiting { arrivals, .. } = std::mem::replace(step, Step::Taken) else {
            return None;
        };
        Some(arrivals.into_iter().map(|arrival| arrival.join(&mut self.budget)).collect())
    }

    /// Returns the bytes of encoded frames held in memory.
    pub fn held(&self) -> u64 {
        self.budget.held()
    }
}

impl Arrival {
    fn new(most: u64) -> Self {
        Self { most, parts: 0, bytes: 0, kept: BTreeMap::new() }
    }

    fn is_complete(&self) -> bool {
        self.kept.len() == usize::from(self.parts)
    }

    fn join(self, budget: &mut Budget) -> io::Result<Buffer<u8>> {
        budget.join(self.kept.into_values(), self.bytes as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANK: u16 = 1;

    fn inbox(budget: Budget) -> Inbox {
        let edge = |source, edge| Incoming { source, edge, rows: 4 };
        let incoming = [vec![], vec![edge(0, 0), edge(2, 1)], vec![edge(0, 0)]];
        Inbox::new(attempt(), RANK, 3, &[10, 20], &incoming, budget)
    }

    fn attempt() -> Attempt {
        Attempt::new([7; 16], 3, [9; 16])
    }

    fn unlimited() -> Budget {
        Budget::new(None, 0)
    }

    fn data(layer: u16, micro_batch: u16, source: u16, edge: u32, part: u16, parts: u16) -> Header {
        Header { kind: Kind::Data, attempt: attempt(), layer, micro_batch, source, edge, part, parts }
    }

    fn accept(inbox: &mut Inbox, body: &[u8]) -> Accepted {
        inbox.accept(&body.to_vec().into()).unwrap()
    }

    fn taken(inbox: &mut Inbox, layer: usize, micro_batch: usize) -> Vec<Vec<u8>> {
        inbox.take(layer, micro_batch).unwrap().unwrap().iter().map(|payload| payload.to_vec()).collect()
    }

    fn judge(inbox: &mut Inbox, header: &Header, targets: &[u16]) -> Status {
        accept(inbox, &frame::seal(header, targets, b"some")).status
    }

    #[test]
    fn a_step_is_ready_when_all_parts_are_there() {
        let mut inbox = inbox(unlimited());
        assert!(inbox.is_ready(0, 0) && inbox.is_ready(0, 1));
        for (source, edge, part, parts, text) in [(2, 1, 1, 2, "cd"), (0, 0, 0, 1, "x"), (2, 1, 0, 2, "ab")] {
            assert!(!inbox.is_ready(1, 1));
            assert!(inbox.take(1, 1).is_none());
            let body = frame::seal(&data(0, 1, source, edge, part, parts), &[0, RANK], text.as_bytes());
            let first = accept(&mut inbox, &body);
            assert_eq!((first.status, first.is_complete), (Status::New, part == 0));
            let again = accept(&mut inbox, &body);
            assert_eq!((again.status, again.is_complete), (Status::Duplicate, false));
        }
        assert!(inbox.is_ready(1, 1) && !inbox.is_ready(1, 0));
        assert_eq!(inbox.held(), 5);
        assert_eq!(taken(&mut inbox, 1, 1), [b"x".to_vec(), b"abcd".to_vec()]);
        assert_eq!(inbox.held(), 0);
        assert!(inbox.is_ready(1, 1) && inbox.take(1, 1).is_none());
        assert_eq!(judge(&mut inbox, &data(0, 1, 2, 1, 0, 2), &[RANK]), Status::Duplicate);
    }

    #[test]
    fn strays_are_told_apart() {
        let mut inbox = inbox(unlimited());
        let good = data(0, 0, 0, 0, 0, 2);
        let with = |attempt| Header { attempt, ..good };
        let cases = [
            (with(Attempt::new([8; 16], 3, [9; 16])), Status::Foreign),
            (with(Attempt::new([7; 16], 3, [8; 16])), Status::Foreign),
            (with(Attempt::new([8; 16], 2, [9; 16])), Status::Foreign),
            (with(Attempt::new([7; 16], 2, [9; 16])), Status::Stale),
            (with(Attempt::new([7; 16], 4, [9; 16])), Status::Foreign),
            (data(0, 2, 0, 0, 0, 1), Status::Foreign),
            (data(2, 0, 0, 0, 0, 1), Status::Foreign),
            (data(u16::MAX, u16::MAX, 0, 0, 0, 1), Status::Foreign),
            (data(0, 0, 0, 1, 0, 1), Status::Foreign),
            (data(0, 0, 3, 0, 0, 1), Status::Foreign),
            (data(0, 0, 1, 0, 0, 1), Status::Foreign),
        ];
        for (header, status) in cases {
            assert_eq!(judge(&mut inbox, &header, &[RANK]), status, "{header:?}");
        }
        assert_eq!(judge(&mut inbox, &good, &[0, 2]), Status::Foreign);
        assert_eq!(judge(&mut inbox, &good, &[]), Status::Foreign);
        assert_eq!(judge(&mut inbox, &good, &[RANK]), Status::New);
        assert_eq!(judge(&mut inbox, &data(0, 0, 0, 0, 1, 3), &[RANK]), Status::Corrupt);
        let large = frame::seal(&data(0, 0, 0, 0, 1, 2), &[RANK], &[0; 1000]);
        assert_eq!(accept(&mut inbox, &large).status, Status::Corrupt);
        assert_eq!(accept(&mut inbox, b"").status, Status::Corrupt);
        assert_eq!(inbox.held(), 4);
    }

    #[test]
    fn frames_of_which_little_counts_are_not_kept() {
        let mut inbox = inbox(unlimited());
        let header = data(0, 0, 0, 0, 0, 2);
        assert_eq!(judge(&mut inbox, &header, &[RANK; 4]), Status::Corrupt);
        assert_eq!(accept(&mut inbox, &frame::seal(&header, &[RANK], b"")).status, Status::Corrupt);
        assert_eq!(judge(&mut inbox, &Header { kind: Kind::Gather, ..header }, &[RANK; 4]), Status::Corrupt);
        assert_eq!(judge(&mut inbox, &header, &[0, RANK, 2]), Status::New);
    }

    #[test]
    fn control_messages_come_once_and_aborts_from_anyone() {
        let mut inbox = inbox(unlimited());
        for kind in [Kind::Gather, Kind::Abort, Kind::Repeat] {
            let header = Header { kind, ..data(0, 0, 2, 0, 0, 1) };
            let body = frame::seal(&header, &[RANK], b"text");
            let first = accept(&mut inbox, &body);
            assert_eq!((first.status, first.is_complete), (Status::New, true));
            assert_eq!(first.payload.as_deref(), Some(&b"text"[..]));
            let again = accept(&mut inbox, &body);
            assert_eq!((again.status, again.is_complete, again.payload), (Status::Duplicate, false, None));
            assert_eq!(judge(&mut inbox, &Header { part: 1, parts: 2, ..header }, &[RANK]), Status::Duplicate);
            assert_eq!(judge(&mut inbox, &Header { micro_batch: 1, ..header }, &[RANK]), Status::New);
            let stranger = Header { source: 99, ..header };
            let status = judge(&mut inbox, &stranger, &[5]);
            assert_eq!(status, if kind == Kind::Abort { Status::New } else { Status::Foreign });
        }
    }

    #[test]
    fn parts_of_a_control_message_are_put_together_in_any_order() {
        let mut inbox = inbox(unlimited());
        let header = Header { kind: Kind::Gather, ..data(2, 0, 2, 0, 0, 3) };
        for (part, text, whole) in [(2, "ef", None), (0, "ab", None), (1, "cd", Some(b"abcdef".to_vec()))] {
            let body = frame::seal(&Header { part, ..header }, &[RANK], text.as_bytes());
            let accepted = accept(&mut inbox, &body);
            assert_eq!((accepted.status, accepted.is_complete), (Status::New, whole.is_some()));
            assert_eq!(accepted.payload, whole);
            assert_eq!(accept(&mut inbox, &body).status, Status::Duplicate);
            let other = judge(&mut inbox, &Header { part: 3, parts: 4, ..header }, &[RANK]);
            assert_eq!(other, if whole.is_none() { Status::Corrupt } else { Status::Duplicate });
        }
    }

    #[test]
    fn parts_of_two_attempts_make_no_edge() {
        let mut inbox = inbox(unlimited());
        let header = data(0, 0, 0, 0, 0, 2);
        let older = Header { attempt: Attempt::new([7; 16], 2, [9; 16]), part: 1, ..header };
        assert!(!accept(&mut inbox, &frame::seal(&header, &[RANK], b"ab")).is_complete);
        let stale = accept(&mut inbox, &frame::seal(&older, &[RANK], b"xy"));
        assert_eq!((stale.status, stale.is_complete), (Status::Stale, false));
        assert!(accept(&mut inbox, &frame::seal(&Header { part: 1, ..header }, &[RANK], b"cd")).is_complete);
    }

    #[test]
    fn past_the_budget_frames_go_to_files_that_do_not_stay() {
        let directory = std::env::temp_dir().join(format!("fsd-inbox-test-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let files = || std::fs::read_dir(&directory).unwrap().count();
        let mut inbox = inbox(Budget::new(Some(directory.clone()), 5));
        for part in 0..4 {
            assert_eq!(judge(&mut inbox, &data(0, 0, 0, 0, part, 4), &[RANK]), Status::New);
            assert_eq!(judge(&mut inbox, &data(0, 0, 2, 1, part, 4), &[RANK]), Status::New);
        }
        assert_eq!((inbox.held(), files()), (4, 7));
        assert_eq!(taken(&mut inbox, 1, 0), [b"somesomesomesome".to_vec(), b"somesomesomesome".to_vec()]);
        assert_eq!((inbox.held(), files()), (0, 0));
        for part in 0..3 {
            judge(&mut inbox, &data(1, 1, 0, 0, part, 4), &[RANK]);
        }
        assert_eq!(files(), 2);
        drop(inbox);
        assert_eq!(files(), 0);
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn without_a_disk_all_frames_stay_in_memory() {
        let nowhere = std::env::temp_dir().join(format!("fsd-no-folder-{}", std::process::id()));
        let mut inbox = inbox(Budget::new(Some(nowhere), 5));
        for part in 0..4 {
            assert_eq!(judge(&mut inbox, &data(0, 0, 0, 0, part, 4), &[RANK]), Status::New);
            assert_eq!(judge(&mut inbox, &data(0, 0, 2, 1, part, 4), &[RANK]), Status::New);
        }
        assert_eq!(inbox.held(), 8 * 4);
        assert_eq!(taken(&mut inbox, 1, 0), [b"somesomesomesome".to_vec(), b"somesomesomesome".to_vec()]);
        assert_eq!(inbox.held(), 0);
    }

    proptest! {
        #[test]
        fn in_any_order_with_doubles_and_damage_the_payloads_are_those_sent(
            order in Just((0..12usize).collect::<Vec<_>>()).prop_shuffle(),
            damage in prop::collection::vec((0..12usize, any::<prop::sample::Index>(), 1u8..), 0..10),
        ) {
            let mut bodies = Vec::new();
            for (source, edge) in [(0, 0), (2, 1)] {
                for part in 0..6u16 {
                    bodies.push(frame::seal(&data(0, 0, source, edge, part, 6), &[RANK], &[source as u8, part as u8]));
                }
            }
            let mut inbox = inbox(unlimited());
            for (which, at, flip) in damage {
                let mut body = bodies[which].clone();
                let at = at.index(body.len());
                body[at] ^= flip;
                prop_assert_eq!(accept(&mut inbox, &body).status, Status::Corrupt);
            }
            let mut left = [6, 6];
            for which in order {
                prop_assert!(!inbox.is_ready(1, 0));
                left[which / 6] -= 1;
                let first = accept(&mut inbox, &bodies[which]);
                prop_assert_eq!((first.status, first.is_complete), (Status::New, left[which / 6] == 0));
                let again = accept(&mut inbox, &bodies[which]);
                prop_assert_eq!((again.status, again.is_complete), (Status::Duplicate, false));
            }
            let expected = [0u8, 2].map(|source| (0..6u8).flat_map(|part| [source, part]).collect::<Vec<_>>());
            prop_assert_eq!(taken(&mut inbox, 1, 0), expected);
        }
    }
}
