//! SQS: the AWS JSON 1.0 protocol.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::FailedEntry;
use crate::encoding::decode;
use crate::error::Failure;
use crate::service::{Endpoint, ErrorAnswer, Keys, Service};

/// More than the largest answer: 10 messages of 1 MiB (SQS quotas), and JSON around them.
const MESSAGES_BYTES: u64 = 64 << 20;

/// The messages of one answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    pub bodies: Vec<Vec<u8>>,
    /// Total size of the bodies as they travelled, as text.
    pub text_bytes: usize,
    /// What deletes each message.
    pub receipts: Vec<String>,
}

/// A received message to delete.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Receipt<'a> {
    /// Identifies the entry within its batch.
    pub id: &'a str,
    pub receipt_handle: &'a str,
}

/// A client of the queues of a region.
pub struct Queues {
    service: Service,
}

impl Queues {
    pub fn new(endpoint: &Endpoint) -> Self {
        Queues { service: Service::new("sqs", MESSAGES_BYTES, endpoint) }
    }

    /// Receives up to `count` messages, waiting up to `wait_s` seconds for the first.
    pub fn receive(&self, keys: &Keys, queue_url: &str, count: u32, wait_s: u32) -> Result<Received, Failure> {
        let request = ReceiveMessage { queue_url, max_number_of_messages: count, wait_time_seconds: wait_s };
        received(&self.post(keys, "ReceiveMessage", &request)?)
    }

    /// Deletes up to 10 messages and returns the entries that failed.
    pub fn delete(&self, keys: &Keys, queue_url: &str, entries: &[Receipt<'_>]) -> Result<Vec<FailedEntry>, Failure> {
        not_deleted(&self.post(keys, "DeleteMessageBatch", &DeleteMessageBatch { queue_url, entries })?)
    }

    fn post(&self, keys: &Keys, operation: &str, request: &impl Serialize) -> Result<Vec<u8>, Failure> {
        let target = format!("AmazonSQS.{operation}");
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", &target),
            ("x-amzn-query-mode", "true"), // errors are named as they were before SQS spoke JSON
        ];
        let body = serde_json::to_vec(request).expect("strings and numbers can be written as JSON");
        self.service.post(keys, &headers, &body, describe)
    }
}

/// Reads an answer to ReceiveMessage.
pub fn received(body: &[u8]) -> Result<Received, Failure> {
    let answer: ReceiveMessageAnswer<'_> = parse("ReceiveMessage", body)?;
    let mut received = Received::default();
    for message in answer.messages {
        received.text_bytes += message.body.len();
        received.bodies.push(decode(&message.body));
        received.receipts.push(message.receipt_handle);
    }
    Ok(received)
}

/// Reads an answer to DeleteMessageBatch: the entries that failed.
pub fn not_deleted(body: &[u8]) -> Result<Vec<FailedEntry>, Failure> {
    parse("DeleteMessageBatch", body).map(|answer: DeleteMessageBatchAnswer| answer.failed)
}

fn parse<'a, T: Deserialize<'a>>(operation: &str, body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::NoAnswer(format!("the response to {operation} is not the expected JSON ({error})")))
}

/// Reads an error as the SDKs do: its old name from the header, or else its type without the namespace.
pub fn describe(answer: &ErrorAnswer<'_>) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(answer.body);
    let error: Value = serde_json::from_str(&text).unwrap_or_default();
    let field = |name: &str| error.get(name).and_then(Value::as_str);
    let old_name = answer.query_error.and_then(|header| match header.split(';').collect::<Vec<_>>()[..] {
        [code, _] if !code.is_empty() => Some(code.to_owned()),
        _ => None,
    });
    let typed = || {
        field("__type")
            .map(|name| name.split(':').next().unwrap_or_default().rsplit('#').next().unwrap_or_default().to_owned())
    };
    let code = old_name.or_else(typed).unwrap_or_else(|| answer.status.to_string());
    let message = if error.is_object() { field("message").or(field("Message")).unwrap_or_default() } else { &text };
    Some((code, message.to_owned()))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveMessage<'a> {
    queue_url: &'a str,
    max_number_of_messages: u32,
    wait_time_seconds: u32,
}

#[derive(Deserialize)]
struct ReceiveMessageAnswer<'a> {
    #[serde(borrow, default, rename = "Messages")]
    messages: Vec<ReceivedMessage<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceivedMessage<'a> {
    #[serde(borrow)]
    body: Cow<'a, str>,
    receipt_handle: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteMessageBatch<'a> {
    queue_url: &'a str,
    entries: &'a [Receipt<'a>],
}

#[derive(Deserialize)]
struct DeleteMessageBatchAnswer {
    #[serde(default, rename = "Failed")]
    failed: Vec<FailedEntry>,
}
