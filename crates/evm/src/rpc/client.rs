//! Holds: one request: calls go in one body, and their answers are told apart again. What is read of them is bounded.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    error::RpcError,
    refusal::{of_error, of_status},
};
use crate::http::{self, Unread};

/// Most bytes of an answer: all of a busy token's transfers in a range of blocks.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// How an endpoint is reached.
#[derive(Debug)]
pub struct Endpoint {
    /// What it is called in texts: its place in the configuration, and never its URL.
    pub name: String,
    /// Where it is. Often carries a key.
    pub url: SecretString,
    /// What one request may take in all.
    pub timeout: Duration,
    /// Calls that go in one request: 1 for endpoints that take no batches; 20 is taken by nearly all that do.
    pub max_batch: usize,
}

/// An endpoint cannot be asked at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Its URL is none.
    #[error("the endpoint's URL must begin with https:// or http:// and name a host")]
    Url,
    /// The HTTP client could not be set up.
    #[error("the HTTP client for endpoints cannot be set up")]
    Client,
}

/// A call before it has a number.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) params: serde_json::Value,
}

#[derive(Serialize)]
struct Numbered<'a> {
    jsonrpc: &'static str,
    id: usize,
    method: &'static str,
    params: &'a serde_json::Value,
}

#[derive(Deserialize)]
struct Reply<'a> {
    id: Option<usize>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    #[serde(default)]
    message: String,
}

/// A call's answer as JSON.
type Answer = Result<String, RpcError>;

/// The connections to an endpoint.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    name: String,
    url: SecretString,
    max_batch: usize,
    calls: AtomicU64,
    requests: AtomicU64,
}

impl Client {
    pub(super) fn new(endpoint: Endpoint) -> Result<Self, EndpointError> {
        let url = reqwest::Url::parse(endpoint.url.expose_secret()).map_err(|_| EndpointError::Url)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(EndpointError::Url);
        }
        let http = http::client(endpoint.timeout).ok_or(EndpointError::Client)?;
        let Endpoint { name, url, max_batch, .. } = endpoint;
        let max_batch = max_batch.max(1);
        Ok(Self { http, name, url, max_batch, calls: AtomicU64::new(0), requests: AtomicU64::new(0) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// One call. What the endpoint says of it stands inside.
    pub(super) async fn one(&self, call: Call) -> Result<Answer, RpcError> {
        self.all(&[call]).await?.pop().ok_or(RpcError::Unreadable)
    }

    /// All of these calls, in as few requests as the endpoint takes. What it says of one of them stands in its place.
    pub(super) async fn all(&self, calls: &[Call]) -> Result<Vec<Answer>, RpcError> {
        let mut answers = Vec::with_capacity(calls.len());
        for calls in calls.chunks(self.max_batch) {
            answers.extend(self.request(calls).await?);
        }
        Ok(answers)
    }

    async fn request(&self, calls: &[Call]) -> Result<Vec<Answer>, RpcError> {
        self.calls.fetch_add(calls.len() as u64, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let numbered: Vec<_> = calls
            .iter()
            .enumerate()
            .map(|(id, call)| Numbered { jsonrpc: "2.0", id, method: call.method, params: &call.params })
            .collect();
        // Alone without brackets: some endpoints take no batches.
        let body = match numbered.as_slice() {
            [one] => serde_json::to_vec(one),
            all => serde_json::to_vec(all),
        };
        let body = body.map_err(|_| RpcError::Unreadable)?;
        let request =
            self.http.post(self.url.expose_secret()).header(CONTENT_TYPE, "application/json").body(body).send();
        let response = request.await.map_err(|error| of_failure(&error))?;
        let status = response.status().as_u16();
        let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if matches!(status, 401 | 403 | 408 | 413 | 429) || (300..400).contains(&status) {
            return Err(of_status(status, pause.as_deref()));
        }
        let body = http::whole(response, MAX_ANSWER_BYTES).await.map_err(of_unread)?;
        // Many say what is wrong in JSON-RPC under a status that is none of success.
        told_apart(calls, &body, status).map_err(|error| match error {
            RpcError::Unreadable => of_status(status, pause.as_deref()),
            error => error,
        })
    }
}

fn of_failure(error: &reqwest::Error) -> RpcError {
    if error.is_timeout() { RpcError::TimedOut } else { RpcError::Unreachable }
}

fn of_unread(unread: Unread) -> RpcError {
    match unread {
        Unread::TooLarge => RpcError::TooMany,
        Unread::TimedOut => RpcError::TimedOut,
        Unread::CutOff => RpcError::Unreadable,
    }
}

/// Each call's answer: batches may be answered in any order.
fn told_apart(calls: &[Call], body: &[u8], status: u16) -> Result<Vec<Answer>, RpcError> {
    let is_list = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let replies: Vec<Reply<'_>> = if is_list {
        serde_json::from_slice(body).map_err(|_| RpcError::Unreadable)?
    } else {
        let reply: Reply<'_> = serde_json::from_slice(body).map_err(|_| RpcError::Unreadable)?;
        // One refusal of all of them.
        if let (Some(refusal), [first, _, ..]) = (&reply.error, calls) {
            return Err(of_error(first.method, refusal.code, &refusal.message, status));
        }
        vec![reply]
    };
    let mut answers: Vec<Option<Answer>> = calls.iter().map(|_| None).collect();
    for reply in replies {
        // Some leave the id of a refused call out.
        let id = reply.id.or((calls.len() == 1).then_some(0)).ok_or(RpcError::Unreadable)?;
        let (Some(place), Some(call)) = (answers.get_mut(id), calls.get(id)) else { return Err(RpcError::Unreadable) };
        let answer = match (reply.error, reply.result) {
            (Some(refusal), _) => Err(of_error(call.method, refusal.code, &refusal.message, status)),
            (None, result) => Ok(result.map_or("null", RawValue::get).to_owned()),
        };
        if place.replace(answer).is_some() {
            return Err(RpcError::Unreadable);
        }
    }
    answers.into_iter().map(|answer| answer.ok_or(RpcError::Unreadable)).collect()
}
