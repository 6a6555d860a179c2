//! The inbox of a rank, and frames that are sealed by a sender who knows its attempt.

use std::collections::HashMap;

use fsd_core::buffer::Buffer;
use fsd_core::codec::most_bytes;
use fsd_core::frame::{Attempt, Header, Kind, seal};
use fsd_core::inbox::{Inbox, Incoming, Status};
use fsd_core::spill::Budget;

use crate::input::Input;
use crate::memory::bounded;

const RANK: u16 = 1;
const WORKERS: usize = 4;
const SAMPLES: [usize; 2] = [5, 300];

/// The edges that each layer needs.
fn incoming() -> [Vec<Incoming>; 3] {
    let edge = |source, edge, rows| Incoming { source, edge, rows };
    [Vec::new(), vec![edge(0, 0, 3), edge(2, 1, 200)], vec![edge(3, 300, 4)]]
}

/// Makes a frame of the next bytes: mostly one that the rank could expect.
pub(crate) fn frame(input: &mut Input<'_>, attempt: impl Fn(u32) -> Attempt) -> (Header, Vec<u16>, Vec<u8>) {
    let flags = input.byte();
    let header = Header {
        kind: Kind::from_number(u32::from(flags & 3)).expect("there are four kinds"),
        attempt: attempt(if flags & 4 == 0 { 2 } else { input.byte().into() }),
        layer: if flags & 8 == 0 { input.byte().into() } else { input.short() },
        micro_batch: if flags & 16 == 0 { input.byte().into() } else { input.short() },
        source: if flags & 32 == 0 { input.byte().into() } else { input.short() },
        edge: if flags & 64 == 0 { input.byte().into() } else { input.short().into() },
        part: if flags & 128 == 0 { 0 } else { input.short() },
        parts: if flags & 128 == 0 { 1 } else { input.short() },
    };
    let count = input.byte();
    let targets = if count == 0 { vec![RANK] } else { (1..count).map(|_| input.short()).collect() };
    (header, targets, input.chunk().to_vec())
}

/// Passes a sequence of frames to an inbox, and takes the steps that are ready.
pub fn run(data: &[u8]) -> bool {
    let attempt = |number| Attempt::new([1; 16], number, [2; 16]);
    let edges = incoming();
    let most = |edge: &Incoming, samples| most_bytes(edge.rows, samples);
    let mut inbox = Inbox::new(attempt(2), RANK, WORKERS, &SAMPLES, &edges, Budget::new(None, u64::MAX));
    let mut input = Input(data);
    let mut arrived: HashMap<(usize, usize), Vec<u8>> = HashMap::new();
    let mut is_complete = false;
    let bytes = 64 * data.len() + (64 << 10);
    bounded(bytes, || {
        while !input.is_empty() {
            let (header, targets, payload) = frame(&mut input, attempt);
            let body = Buffer::from(seal(&header, &targets, &payload));
            let accepted = inbox.accept(&body).expect("there is memory");
            let is_valid = header.part < header.parts;
            assert_eq!(accepted.header, is_valid.then_some(header));
            assert!(is_valid || accepted.status == Status::Corrupt);
            assert!(accepted.status == Status::New || !accepted.is_complete && accepted.payload.is_none());
            if accepted.status != Status::New || header.kind != Kind::Data {
                continue;
            }
            let step = (usize::from(header.layer) + 1, usize::from(header.micro_batch));
            let edge = edges[step.0].iter().find(|edge| (edge.source, edge.edge) == (header.source, header.edge));
            assert!(payload.len() as u64 <= most(edge.expect("only edges of the plan are new"), SAMPLES[step.1]));
            arrived.entry(step).or_default().extend(&payload);
            if inbox.is_ready(step.0, step.1) {
                assert!(accepted.is_complete);
                is_complete = true;
                let taken = inbox.take(step.0, step.1).expect("it is ready").expect("all is in memory");
                assert_eq!(taken.len(), edges[step.0].len());
                let length: usize = taken.iter().map(|payload| payload.len()).sum();
                assert_eq!(Some(length), arrived.remove(&step).map(|payloads| payloads.len()));
                assert!(inbox.take(step.0, step.1).is_none());
            }
        }
    });
    let limit: u64 = edges.iter().flatten().flat_map(|edge| SAMPLES.map(|samples| most(edge, samples))).sum();
    assert!(inbox.held() <= limit);
    is_complete
}
