//! Holds: the client: a server's address, a key, and the calls.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method, RequestBuilder, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::value::RawValue;
use url::Url;

use super::reach::Contact;
use super::retry::{Failure, accepted, answer, persist, unreachable};
use super::{ClientError, Created, Detail, Patience};
use crate::progress::Progress;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two reads of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    http: reqwest::Client,
    /// Without a bound on an answer: sending a gigabyte takes its time.
    pub(super) uploads: reqwest::Client,
    base: String,
    key: SecretString,
    pub(super) contact: Rc<Contact>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address is none.
    #[error("the server's address (--base-url or BATCHIN_BASE_URL) must begin with http:// or https://")]
    BadBaseUrl,
    /// The key cannot be sent.
    #[error("the API key has characters that no key has")]
    BadKey,
    /// TLS cannot be set up.
    #[error("no certificate can be trusted; --cacert FILE or SSL_CERT_FILE names some")]
    Trust(#[source] reqwest::Error),
}

/// Which call makes a batch, and its JSON.
pub(crate) struct Submission {
    pub path: &'static str,
    pub body: Bytes,
}

/// Result lines as they arrive.
pub(crate) struct ResultStream {
    response: Response,
    contact: Rc<Contact>,
}

impl Client {
    /// `base_url` may end in `/v1`; `trusted` are certificates beside the system's.
    pub(crate) fn new(base_url: &str, key: SecretString, trusted: Vec<Certificate>) -> Result<Self, SetupError> {
        let url = Url::parse(base_url).map_err(|_| SetupError::BadBaseUrl)?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(SetupError::BadBaseUrl);
        }
        if !key.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SetupError::BadKey);
        }
        let base = base_url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/openai").to_owned();
        let builder = || {
            let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).redirect(Policy::none());
            builder.tls_certs_merge(trusted.clone())
        };
        let http = builder().read_timeout(READ_TIMEOUT).build().map_err(SetupError::Trust)?;
        let uploads = builder().build().map_err(SetupError::Trust)?;
        Ok(Self { http, uploads, base, key, contact: Rc::new(Contact::at(&url)) })
    }

    /// Finds out whether the server is there and takes the key, before much is sent to it.
    pub(crate) async fn greet(&self, progress: &Progress) -> Result<(), ClientError> {
        let attempt = async || accepted(self.request(Method::GET, "/v1/batches?limit=1")).await.map(|_| ());
        match persist(attempt, &self.contact, Patience::Short, progress).await {
            // What else it says to this call is not what was asked for.
            Err(ClientError::Refused { status, .. }) if !matches!(status, 300..=399 | 401 | 403) => Ok(()),
            other => other,
        }
    }

    /// Makes a batch once: a try whose answer was lost is repeated under the same `key`.
    pub(crate) async fn create(
        &self,
        submission: Submission,
        key: &str,
        progress: &Progress,
    ) -> Result<Created, ClientError> {
        let is_repeated = std::cell::Cell::new(false);
        let attempt = async || {
            let request = self.post(submission.path, submission.body.clone()).header("idempotency-key", key);
            // The first try may still be under way on the server; then the second gets 409 until it is done.
            match answer(request).await {
                Err(Failure::Final(error @ ClientError::Refused { status: 409, .. })) if is_repeated.get() => {
                    Err(Failure::Temporary { error, wait: None })
                }
                other => {
                    is_repeated.set(true);
                    other
                }
            }
        };
        persist(attempt, &self.contact, Patience::Short, progress).await
    }

    pub(crate) async fn estimate(&self, body: Bytes, progress: &Progress) -> Result<Box<RawValue>, ClientError> {
        let attempt = async || answer(self.post("/v1/batches/estimate", body.clone())).await;
        persist(attempt, &self.contact, Patience::Short, progress).await
    }

    /// The counts alone.
    pub(crate) async fn detail(&self, id: &str, progress: &Progress) -> Result<Detail, ClientError> {
        let path = format!("/v1/batches/{id}?limit=0");
        persist(async || answer(self.request(Method::GET, &path)).await, &self.contact, Patience::Long, progress).await
    }

    /// `start` is where the list begins, as in a query.
    pub(crate) async fn list(
        &self,
        limit: u32,
        start: &str,
        progress: &Progress,
    ) -> Result<Box<RawValue>, ClientError> {
        let path = format!("/v1/batches?limit={limit}&{start}");
        persist(async || answer(self.request(Method::GET, &path)).await, &self.contact, Patience::Short, progress).await
    }

    pub(crate) async fn cancel(&self, id: &str, progress: &Progress) -> Result<Box<RawValue>, ClientError> {
        let path = format!("/v1/batches/{id}/cancel");
        persist(async || answer(self.request(Method::POST, &path)).await, &self.contact, Patience::Short, progress)
            .await
    }

    /// Result lines after a cursor, from the first try that the server answers.
    pub(crate) async fn results(
        &self,
        id: &str,
        after: Option<u64>,
        progress: &Progress,
    ) -> Result<ResultStream, ClientError> {
        let after = after.map_or_else(String::new, |after| format!("?after={after}"));
        let path = format!("/v1/batches/{id}/results{after}");
        let attempt = async || accepted(self.request(Method::GET, &path)).await;
        let response = persist(attempt, &self.contact, Patience::Long, progress).await?;
        Ok(ResultStream { response, contact: Rc::clone(&self.contact) })
    }

    pub(crate) async fn delete_file(&self, id: &str, progress: &Progress) -> Result<(), ClientError> {
        let path = format!("/openai/v1/files/{id}");
        let attempt = async || accepted(self.request(Method::DELETE, &path)).await.map(|_| ());
        persist(attempt, &self.contact, Patience::Short, progress).await
    }

    pub(super) fn authorized(&self, http: &reqwest::Client, method: Method, path: &str) -> RequestBuilder {
        http.request(method, format!("{}{path}", self.base)).bearer_auth(self.key.expose_secret())
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorized(&self.http, method, path)
    }

    fn post(&self, path: &str, body: Bytes) -> RequestBuilder {
        self.request(Method::POST, path).header("content-type", "application/json").body(body)
    }
}

impl ResultStream {
    /// None at the proper end; an error where the connection broke.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        self.response.chunk().await.map_err(|error| unreachable(&self.contact, &error))
    }
}
