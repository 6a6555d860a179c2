//! A blocking client of the three requests with which messages travel: SNS PublishBatch, SQS ReceiveMessage and
//! DeleteMessageBatch.
//!
//! Each request is sent once: retries, their pauses and their counts are the caller's. Objects may be shared between
//! threads; each has a pool of connections that are kept alive.

mod encoding;
mod error;
mod queues;
mod service;
mod topics;

use serde::Deserialize;

pub use encoding::encoded_len;
pub use error::Failure;
pub use queues::{Queues, Receipt, Received};
pub use service::{Endpoint, Keys, Options};
pub use topics::{Message, Topics};

/// The readers of answers without the connections, for the fuzzer.
pub mod answers {
    pub use crate::queues::{describe as queue_error, not_deleted, received};
    pub use crate::service::ErrorAnswer;
    pub use crate::topics::{describe as topic_error, not_published};
}

/// An entry of a batch that the service did not accept, although it accepted the request.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FailedEntry {
    pub id: String,
    pub code: String,
    #[serde(default)]
    pub message: String,
    pub sender_fault: bool,
}
