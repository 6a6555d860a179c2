//! The clients of SNS topics and SQS queues: `TopicClient` and `QueueClient`.

use std::time::Duration;

use fsd_services::{Endpoint, FailedEntry, Failure, Keys, Message, Options, Queues, Receipt, Topics};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

create_exception!(
    fsd_inference._kernels,
    RefusedError,
    PyException,
    "A service answered with an error; the args are (text, HTTP status, error code)."
);
create_exception!(
    fsd_inference._kernels,
    NoAnswerError,
    PyException,
    "A request got no complete answer, so that it may be sent again; the args are (text,)."
);

pub fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("RefusedError", m.py().get_type::<RefusedError>())?;
    m.add("NoAnswerError", m.py().get_type::<NoAnswerError>())?;
    m.add_class::<ServiceEndpoint>()?;
    m.add_class::<TopicClient>()?;
    m.add_class::<QueueClient>()
}

fn error(failure: Failure) -> PyErr {
    let text = failure.to_string();
    match failure {
        Failure::Refused { status, code, .. } => RefusedError::new_err((text, status, code)),
        Failure::NoAnswer(_) => NoAnswerError::new_err((text,)),
        Failure::NotSent(_) => PyValueError::new_err(text),
    }
}

/// Where a service is, how to reach it, and the access keys that sign requests to it.
#[pyclass(frozen, module = "fsd_inference._kernels")]
struct ServiceEndpoint {
    endpoint: Endpoint,
    keys: Py<PyAny>,
}

#[pymethods]
impl ServiceEndpoint {
    #[new]
    #[pyo3(signature = (url, region, keys, *, proxy, certificates, connections, connect_timeout_s, answer_timeout_s))]
    #[expect(clippy::too_many_arguments, reason = "one parameter for each option")]
    fn new(
        url: String,
        region: String,
        keys: Py<PyAny>,
        proxy: Option<String>,
        certificates: Vec<u8>,
        connections: usize,
        connect_timeout_s: f64,
        answer_timeout_s: f64,
    ) -> PyResult<Self> {
        let seconds = |value: f64| {
            Duration::try_from_secs_f64(value).map_err(|_| PyValueError::new_err(format!("{value} is not a timeout")))
        };
        let options = Options {
            url,
            region,
            proxy,
            certificates,
            connections,
            connect_timeout: seconds(connect_timeout_s)?,
            answer_timeout: seconds(answer_timeout_s)?,
        };
        Ok(ServiceEndpoint { endpoint: Endpoint::new(&options).map_err(error)?, keys })
    }
}

/// Asks Python for the access keys of the next request.
fn keys(py: Python<'_>, source: &Py<PyAny>) -> PyResult<Keys> {
    let (access_key_id, secret_access_key, session_token) = source.bind(py).call0()?.extract()?;
    Ok(Keys { access_key_id, secret_access_key, session_token })
}

type Failed = Vec<(String, String, String, bool)>;

fn failed(entries: Vec<FailedEntry>) -> Failed {
    entries.into_iter().map(|entry| (entry.id, entry.code, entry.message, entry.sender_fault)).collect()
}

/// A client of SNS topics.
#[pyclass(frozen, module = "fsd_inference._kernels")]
struct TopicClient {
    topics: Topics,
    keys: Py<PyAny>,
}

#[pymethods]
impl TopicClient {
    #[new]
    fn new(py: Python<'_>, endpoint: &ServiceEndpoint) -> Self {
        TopicClient { topics: Topics::new(&endpoint.endpoint), keys: endpoint.keys.clone_ref(py) }
    }

    /// Publish a batch, and return the entries that failed.
    fn publish(&self, py: Python<'_>, topic: &str, messages: Vec<(String, PyBackedBytes, String)>) -> PyResult<Failed> {
        let keys = keys(py, &self.keys)?;
        let messages: Vec<_> = messages.iter().map(|(id, body, to)| Message { id, body, to }).collect();
        py.detach(|| self.topics.publish(&keys, topic, &messages)).map(failed).map_err(error)
    }
}

/// A client of SQS queues.
#[pyclass(frozen, module = "fsd_inference._kernels")]
struct QueueClient {
    queues: Queues,
    keys: Py<PyAny>,
}

type Received<'py> = (Vec<Bound<'py, PyBytes>>, usize, Vec<String>);

#[pymethods]
impl QueueClient {
    #[new]
    fn new(py: Python<'_>, endpoint: &ServiceEndpoint) -> Self {
        QueueClient { queues: Queues::new(&endpoint.endpoint), keys: endpoint.keys.clone_ref(py) }
    }

    /// Receive messages, and return their bodies, the bytes that these were on the wire, and their receipts.
    fn receive<'py>(&self, py: Python<'py>, queue_url: &str, count: u32, wait_s: u32) -> PyResult<Received<'py>> {
        let keys = keys(py, &self.keys)?;
        let received = py.detach(|| self.queues.receive(&keys, queue_url, count, wait_s)).map_err(error)?;
        let bodies = received.bodies.iter().map(|body| PyBytes::new(py, body)).collect();
        Ok((bodies, received.text_bytes, received.receipts))
    }

    /// Delete messages by their receipts, and return the entries that failed.
    fn delete(&self, py: Python<'_>, queue_url: &str, receipts: Vec<(String, String)>) -> PyResult<Failed> {
        let keys = keys(py, &self.keys)?;
        let entries: Vec<_> = receipts.iter().map(|(id, receipt_handle)| Receipt { id, receipt_handle }).collect();
        py.detach(|| self.queues.delete(&keys, queue_url, &entries)).map(failed).map_err(error)
    }
}
