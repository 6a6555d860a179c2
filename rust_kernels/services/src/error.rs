//! The ways in which a request fails.

use thiserror::Error;

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The service answered with an error; `code` is its name of the error, or the status if the answer has none.
    #[error("the service answered {status} {code} ({message})")]
    Refused { status: u16, code: String, message: String },
    /// There is no complete answer: the connection failed, timed out or was cut, or the body is not what it should be.
    #[error("{0}")]
    NoAnswer(String),
    /// The request was not sent, because an argument is not valid.
    #[error("{0}")]
    NotSent(String),
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Http(_) | ureq::Error::BadUri(_) => Failure::NotSent(error.to_string()),
            _ => Failure::NoAnswer(error.to_string()),
        }
    }
}
