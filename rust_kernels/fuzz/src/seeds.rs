//! Valid inputs of the targets, from which a fuzzer starts: made by the encoders, so that they follow the formats.

use fsd_core::codec::{Framed, encode_csr};
use fsd_core::compute::Compute;

/// Which nonzeros a matrix has.
#[derive(Clone, Copy)]
enum Values {
    One,
    Few,
    Many,
    Any,
}

const KINDS: [Values; 4] = [Values::One, Values::Few, Values::Many, Values::Any];

/// Returns the inputs of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "answers" => answers(),
        "block" => blocks(),
        "frame" => frames(),
        "inbox" => vec![inbox()],
        "packed" => packed(),
        "rank" => KINDS.map(rank).to_vec(),
        "restore" => KINDS.map(restore).to_vec(),
        "weights" => weights(),
        _ => Vec::new(),
    }
}

/// Encodes rows x samples of which every `gap`-th value is zero; every third row is the same.
fn block(rows: usize, samples: usize, gap: usize, values: Values, framed: Option<Framed<'_>>) -> Vec<u8> {
    let (mut indptr, mut indices, mut data) = (vec![0], Vec::new(), Vec::new());
    for row in 0..rows {
        let row = if row % 3 == 2 { 2 } else { row };
        for sample in (0..samples).filter(|sample| !(row + sample).is_multiple_of(gap)) {
            indices.push(sample as i32);
            let number = (row * samples + sample) as u32;
            data.push(match values {
                Values::One => 32.0,
                Values::Few => (number % 7 + 1) as f32,
                Values::Many => number as f32 + 0.5,
                Values::Any => f32::from_bits(0x3f00_0000 + number.wrapping_mul(0x9E37_79B1) % 0x100_0000),
            });
        }
        indptr.push(data.len() as i64);
    }
    let compute = Compute::new(1).expect("a thread is there");
    encode_csr(&indptr, &indices, &data, samples, framed, &compute).expect("the matrix is valid")
}

fn blocks() -> Vec<Vec<u8>> {
    let thirds: Vec<u32> = (0..300).step_by(3).collect();
    let known = [(1, &thirds[..])];
    let mut seeds = Vec::new();
    for values in KINDS {
        for (rows, samples, gap) in [(1, 1, 99), (4, 30, 2), (7, 300, 5), (7, 300, 999)] {
            let head = |framed: u8| [framed, rows as u8, samples as u8, (samples >> 8) as u8];
            let framed = |fast| Some(Framed { known: &known, fast });
            seeds.push([&head(0)[..], &block(rows, samples, gap, values, None)].concat());
            seeds.push([&head(1)[..], &block(rows, samples, gap, values, framed(false))].concat());
            seeds.push([&head(1)[..], &block(rows, samples, gap, values, framed(true))].concat());
        }
    }
    // Live samples that are nearly the list that the reader knows.
    let (ids, ones) = (thirds[3..].iter().map(|id| *id as i32).collect::<Vec<_>>(), [1.5; 97]);
    let framed = Some(Framed { known: &known, fast: false });
    let compute = Compute::new(1).expect("a thread is there");
    let changes = encode_csr(&[0, 97], &ids, &ones, 300, framed, &compute).expect("the matrix is valid");
    seeds.push([&[1, 1, 44, 1][..], &changes].concat());
    seeds
}

fn frames() -> Vec<Vec<u8>> {
    use fsd_core::frame::{Attempt, Header, Kind, seal};
    let header = Header {
        kind: Kind::Data,
        attempt: Attempt::new([1; 16], 2, [2; 16]),
        layer: 3,
        micro_batch: 4,
        source: 500,
        edge: 70_000,
        part: 1,
        parts: 3,
    };
    let frame = seal(&header, &[1, 257, 40_000], b"payload");
    let open = &frame[..frame.len() - 8];
    vec![[&[0], &frame[..]].concat(), [&[1], open].concat()]
}

/// Returns bytes with their number in front.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_le_bytes()[..], bytes].concat()
}

/// A frame of data for rank 1: flags, layer, micro-batch, source, edge, part and parts, no list of targets, payload.
fn data(layer: u8, micro_batch: u8, source: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, layer, micro_batch, source, 0, 0], &chunk(payload)[..]].concat()
}

fn inbox() -> Vec<u8> {
    let in_parts = |part: u8, payload: &[u8]| [&[128, 0, 0, 2, 1, part, 0, 2, 0, 0], &chunk(payload)[..]].concat();
    let gather = [&[1, 0, 0, 3, 0, 0], &chunk(b"summary")[..]].concat();
    let abort = [&[2, 0, 0, 3, 0, 0], &chunk(b"{}")[..]].concat();
    let stale = [&[4, 1, 0, 0, 0, 0, 0], &chunk(b"old")[..]].concat();
    [data(0, 0, 0, b"rows"), in_parts(1, b"more"), in_parts(0, b"some"), gather, abort, stale].concat()
}

fn rank(values: Values) -> Vec<u8> {
    let own = |rows| block(rows, 70, 3, values, None);
    let received = || block(6, 70, 4, values, Some(Framed::default()));
    let input = [&[0, 6][..], &chunk(&own(6)), &chunk(&own(6))].concat();
    [input, data(0, 0, 0, &received()), data(1, 0, 0, &received())].concat()
}

/// The rows of rank 1 after layer 1, of an earlier attempt.
fn restore(values: Values) -> Vec<u8> {
    let rows = block(6, 70, 4, values, Some(Framed::default()));
    [&[1, 0, 4, 0, 1, 0, 1, 0, 0][..], &chunk(&rows)].concat()
}

fn packed() -> Vec<Vec<u8>> {
    let part = |first: u8, end: u8, neurons: &[u8], values| {
        let block = block(neurons.len(), usize::from(end - first), 3, values, None);
        [&[first, end, neurons.len() as u8 + 1], neurons, &chunk(&block)].concat()
    };
    let batch = |values| {
        [&[90, 5, 3][..], &part(0, 60, &[0, 2], values), &part(0, 60, &[1, 4], values), &part(60, 90, &[3], values)]
            .concat()
    };
    KINDS.map(batch).to_vec()
}

fn weights() -> Vec<Vec<u8>> {
    // Flags, rows, columns, samples, connections of each row, indices, weights, bias, rows of the first group.
    let layer = |flags: u8, values: &[u8], bias: &[u8]| {
        let indices = [0, 2, 5, 1, 3, 4].to_vec();
        let end = [3, 1, 0, 2, 0, 3, 0, 0, 4, 1];
        [&[flags, 3, 6, 0, 5, 3, 2, 1], &indices[..], values, bias, &[2], &[7; 30], &end].concat()
    };
    vec![
        layer(64, &[2], &[0]),
        layer(8 | 16, &[1, 2, 3, 4, 5, 6], &[1, 0, 3]),
        layer(128, &[2], &[1]),
        layer(32, &[1], &[0]),
    ]
}

fn answers() -> Vec<Vec<u8>> {
    let with = |how: u8, header: &[u8], body: &str| {
        [&[how], &(if how > 2 { chunk(header) } else { Vec::new() })[..], body.as_bytes()].concat()
    };
    let failed = "<Failed><member><Id>1</Id><Code>InternalError</Code><Message>a &lt; b</Message>\
                  <SenderFault>false</SenderFault></member></Failed>";
    vec![
        with(0, b"", r#"{"Messages":[{"MessageId":"1","Body":"AAEC_-8","ReceiptHandle":"r","MD5OfBody":"0"}]}"#),
        with(0, b"", r#"{"Messages":[{"Body":"not\u0020base64","ReceiptHandle":"r"}]}"#),
        with(1, b"", r#"{"Successful":[{"Id":"0"}],"Failed":[{"Id":"1","Code":"x","SenderFault":true}]}"#),
        with(
            2,
            b"",
            &format!(
                "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult>\
            {failed}<Successful/></PublishBatchResult></PublishBatchResponse>"
            ),
        ),
        with(
            3,
            b"AWS.SimpleQueueService.NonExistentQueue;Sender",
            r#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"m"}"#,
        ),
        with(3, b"", r#"{"__type":"a#b:c","Message":"m"}"#),
        with(
            4,
            b"",
            "<ErrorResponse><Error><Type>Sender</Type><Code>NotFound</Code><Message>m</Message></Error></ErrorResponse>",
        ),
    ]
}
