//! One service at one endpoint: connections, signatures, and the exchange of a request for an answer.

use std::process;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use ring::digest::{SHA256, digest};
use rustls::crypto::ring::default_provider;
use ureq::config::{AutoHeaderValue, Config};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

use crate::error::Failure;

/// More than the largest answer that names messages without their bodies, or an error. Reading XML takes some fifty times
/// its size.
pub(crate) const NAMES_BYTES: u64 = 1 << 20;

/// How to reach a service.
pub struct Options {
    /// `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub url: String,
    pub region: String,
    /// URL of the proxy of all connections.
    pub proxy: Option<String>,
    /// Certificates in PEM format to trust in addition to the system's.
    pub certificates: Vec<u8>,
    /// Idle connections to keep.
    pub connections: usize,
    pub connect_timeout: Duration,
    /// Longest wait for the next bytes of an answer; more than the longest poll.
    pub answer_timeout: Duration,
}

/// Access keys that sign a request.
pub struct Keys {
    pub access_key_id: String,
    pub secret_access_key: String,
    pub session_token: Option<String>,
}

/// An answer whose status says that the request failed.
pub struct ErrorAnswer<'a> {
    pub status: u16,
    /// Header `x-amzn-query-error`: CODE;Sender or CODE;Receiver.
    pub query_error: Option<&'a str>,
    pub body: &'a [u8],
}

/// A checked description of how to reach a service.
#[derive(Clone)]
pub struct Endpoint {
    url: String,
    region: String,
    config: Config,
}

impl Endpoint {
    pub fn new(options: &Options) -> Result<Self, Failure> {
        let invalid = |what: &str, error: ureq::Error| Failure::NotSent(format!("{what} is not valid: {error}"));
        let proxy = options.proxy.as_deref().map(Proxy::new).transpose();
        let proxy = proxy.map_err(|error| invalid("the proxy's URL", error))?;
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(default_provider()));
        if [Some(&options.url), options.proxy.as_ref()].into_iter().flatten().any(|url| url.starts_with("https:")) {
            let added = added_certificates(&options.certificates).map_err(|error| invalid("a certificate", error))?;
            tls = tls.root_certs(RootCerts::from(system_certificates().iter().cloned().chain(added)));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("fsd-inference/", env!("CARGO_PKG_VERSION")))
            .accept(AutoHeaderValue::None)
            .proxy(proxy)
            .tls_config(tls.build())
            .max_idle_connections(options.connections)
            .max_idle_connections_per_host(options.connections)
            .timeout_connect(Some(options.connect_timeout))
            .timeout_per_read(Some(options.answer_timeout))
            .timeout_per_write(Some(options.answer_timeout))
            .build();
        let url = format!("{}/", options.url.trim_end_matches('/'));
        Ok(Endpoint { url, region: options.region.clone(), config })
    }
}

/// A service by its name in signatures, and the connections to it.
pub(crate) struct Service {
    name: &'static str,
    /// The maximum size of an answer.
    answer_bytes: u64,
    endpoint: Endpoint,
    agent: Mutex<Owned>,
}

/// The connections of one process: a child that inherited them by a fork must not use them.
struct Owned {
    process: u32,
    agent: Agent,
}

impl Service {
    pub fn new(name: &'static str, answer_bytes: u64, endpoint: &Endpoint) -> Self {
        let agent = Mutex::new(Owned { process: process::id(), agent: endpoint.config.new_agent() });
        Service { name, answer_bytes, endpoint: endpoint.clone(), agent }
    }

    /// Sends one signed request and returns the body of its answer.
    ///
    /// `describe` reads the code and the message of an error from an answer whose status says that the request failed.
    pub fn post(
        &self,
        keys: &Keys,
        headers: &[(&str, &str)],
        body: &[u8],
        describe: impl FnOnce(&ErrorAnswer<'_>) -> Option<(String, String)>,
    ) -> Result<Vec<u8>, Failure> {
        let mut request = self.agent().post(&self.endpoint.url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in self.signature(keys, headers, body)? {
            request = request.header(name, value);
        }
        let mut answer = request.send(body)?;
        let status = answer.status().as_u16();
        let most = if status < 300 { self.answer_bytes } else { NAMES_BYTES };
        let body = answer.body_mut().with_config().limit(most).read_to_vec()?;
        if status < 300 {
            return Ok(body);
        }
        let query_error = answer.headers().get("x-amzn-query-error").and_then(|value| value.to_str().ok());
        let generic = status >= 500 && is_generic(&body);
        let described = if generic {
            let reason = answer.status().canonical_reason().unwrap_or_default();
            Some((status.to_string(), reason.to_owned()))
        } else {
            describe(&ErrorAnswer { status, query_error, body: &body })
        };
        Err(match described {
            Some((code, message)) => Failure::Refused { status, code, message },
            None => Failure::NoAnswer(format!("the body of the answer with status {status} cannot be read")),
        })
    }

    /// Returns the headers that sign a request.
    fn signature(&self, keys: &Keys, headers: &[(&str, &str)], body: &[u8]) -> Result<Vec<(String, String)>, Failure> {
        let not_sent =
            |error: &dyn std::error::Error| Failure::NotSent(format!("the request cannot be signed: {error}"));
        let keys = Credentials::new(
            &keys.access_key_id,
            &keys.secret_access_key,
            keys.session_token.clone(),
            None,
            "fsd-inference",
        );
        let identity = keys.into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(&self.endpoint.region)
            .name(self.name)
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| not_sent(&error))?
            .into();
        let request = SignableRequest::new(
            "POST",
            &self.endpoint.url,
            headers.iter().copied(),
            SignableBody::Precomputed(sha256(body)),
        )
        .map_err(|error| not_sent(&error))?;
        let (instructions, _) = sign(request, &parameters).map_err(|error| not_sent(&error))?.into_parts();
        Ok(instructions.headers().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn agent(&self) -> Agent {
        let mut owned = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if owned.process != process::id() {
            *owned = Owned { process: process::id(), agent: self.endpoint.config.new_agent() };
        }
        owned.agent.clone()
    }
}

/// Returns the SHA-256 digest of `body` in hexadecimal; ring uses the processor's instructions for it everywhere.
fn sha256(body: &[u8]) -> String {
    digest(&SHA256, body).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns whether the body of an error is not the service's own: none, or the page of a proxy or load balancer.
fn is_generic(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    body.is_empty() || body.starts_with(b"<html>")
}

/// Returns the certificates that this machine trusts; they are read once.
fn system_certificates() -> &'static [Certificate<'static>] {
    static FOUND: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs().certs;
        found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect()
    })
}

fn added_certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, ureq::Error> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None, // a private key beside its certificate
            Err(error) => Some(Err(error)),
        })
        .collect()
}
