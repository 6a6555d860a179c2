//! The answers of SNS and SQS: XML and JSON that a service, or whatever answers in its place, may have written.

use fsd_services::answers::{ErrorAnswer, not_deleted, not_published, queue_error, received, topic_error};

use crate::input::Input;
use crate::memory::bounded;

/// Bytes that are taken for each byte of an answer: an empty XML element or JSON array has few of them.
const EACH: usize = 64;

/// Reads an answer in one of the ways in which the client does; the first byte says which.
pub fn run(data: &[u8]) -> bool {
    let mut input = Input(data);
    let how = input.byte() % 5;
    let header = if how > 2 { input.chunk() } else { &[] };
    let body = input.0;
    let query_error = std::str::from_utf8(header).ok();
    let answer = ErrorAnswer { status: 500, query_error, body };
    bounded(EACH * data.len() + (64 << 10), || match how {
        0 => received(body).is_ok_and(|received| {
            assert_eq!(received.bodies.len(), received.receipts.len());
            received.text_bytes <= body.len()
        }),
        1 => not_deleted(body).is_ok(),
        2 => not_published(body).is_ok(),
        3 => queue_error(&answer).is_some(),
        _ => topic_error(&answer).is_some(),
    })
}
