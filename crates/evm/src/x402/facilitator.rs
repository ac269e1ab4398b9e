//! Holds: asking a facilitator, who carries out what payers sign and pays the chain for it. What it says is passed on as a word.

use std::time::Duration;

use reqwest::{RequestBuilder, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::{SCHEME, VERSION, offer::Requirement, payment::Payment};
use crate::{
    hash::Hash,
    http::{self, Unread},
};

/// What a look at a payment may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);
/// What carrying one out may take: facilitators answer once it is in a block.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of an answer: the list of what it supports has a few thousand.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Longest word that is passed on.
const MAX_REASON_BYTES: usize = 96;
/// What it says of a payment that is on its way.
const PENDING: &str = "settlement_pending";

/// How a facilitator is reached.
#[derive(Clone, Debug)]
pub struct FacilitatorOptions {
    /// Where it is; `/verify`, `/settle` and `/supported` lie below.
    pub url: String,
    /// What it knows us by, as a bearer token; many take none.
    pub api_key: Option<SecretString>,
}

/// Why a facilitator said nothing that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FacilitatorError {
    /// Its URL is none, or no client could be set up.
    #[error("the facilitator's URL must begin with https:// or http:// and name a host")]
    Url,
    /// No connection; it was told nothing.
    #[error("the facilitator cannot be reached")]
    Unreachable,
    /// It was told and did not answer in time, or broke off.
    #[error("the facilitator did not answer")]
    Unanswered,
    /// It does not take our key, or wants one.
    #[error("the facilitator does not accept its key (HTTP {status})")]
    Unauthorised {
        /// HTTP's status.
        status: u16,
    },
    /// It fails, or says something else than a facilitator does.
    #[error("the facilitator does not answer as one of x402 version 2 does (HTTP {status})")]
    Unreadable {
        /// HTTP's status.
        status: u16,
    },
}

/// What it says of a payment before it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would carry it out.
    Valid,
    /// It was carried out before.
    Used,
    /// It would not, for this reason in a word.
    Invalid(String),
}

/// What it says of having carried one out. Only the chain knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// It is in a block, by this transaction.
    Done(Hash),
    /// It was sent, by this transaction.
    Pending(Hash),
    /// It was carried out before.
    Used,
    /// It was not, for this reason in a word.
    Failed(String),
}

/// Who carries payments out.
#[derive(Debug)]
pub struct Facilitator {
    http: reqwest::Client,
    base: Url,
    api_key: Option<SecretString>,
}

impl Facilitator {
    /// A facilitator. The process has installed a provider for rustls by now: without one this panics.
    pub fn new(options: FacilitatorOptions) -> Result<Self, FacilitatorError> {
        let base = Url::parse(&options.url).map_err(|_| FacilitatorError::Url)?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(FacilitatorError::Url);
        }
        let http = http::client(SETTLE_TIMEOUT).ok_or(FacilitatorError::Url)?;
        Ok(Self { http, base, api_key: options.api_key })
    }

    /// Whether it would carry a payment out. Costs nobody anything.
    pub async fn verify(&self, payment: &Payment, requirement: &Requirement) -> Result<Verdict, FacilitatorError> {
        let request = self.http.post(self.at("verify")?).json(&payment.order(requirement)).timeout(LOOK_TIMEOUT);
        let (status, body) = self.ask(request).await?;
        let answer: Verified = serde_json::from_slice(&body).map_err(|_| unreadable(status))?;
        Ok(match answer {
            Verified { is_valid: true, .. } => Verdict::Valid,
            Verified { invalid_reason, invalid_message, .. } if is_used(&[&invalid_reason, &invalid_message]) => {
                Verdict::Used
            }
            Verified { invalid_reason, .. } => Verdict::Invalid(word(invalid_reason)),
        })
    }

    /// Has a payment carried out. After an error it may have been.
    pub async fn settle(&self, payment: &Payment, requirement: &Requirement) -> Result<Settlement, FacilitatorError> {
        let request = self.http.post(self.at("settle")?).json(&payment.order(requirement));
        let (status, body) = self.ask(request).await?;
        let answer: Settled = serde_json::from_slice(&body).map_err(|_| unreadable(status))?;
        let transaction = answer.transaction.as_deref().and_then(|text| text.parse::<Hash>().ok());
        Ok(match (answer, transaction) {
            (Settled { success: true, .. }, Some(transaction)) => Settlement::Done(transaction),
            (Settled { success: true, .. }, None) => return Err(unreadable(status)),
            (Settled { error_reason: Some(reason), .. }, Some(transaction)) if reason == PENDING => {
                Settlement::Pending(transaction)
            }
            (Settled { error_reason, error_message, .. }, _) if is_used(&[&error_reason, &error_message]) => {
                Settlement::Used
            }
            (Settled { error_reason, .. }, _) => Settlement::Failed(word(error_reason)),
        })
    }

    /// The chains on which it carries out what this version offers, as x402 names them.
    pub async fn networks(&self) -> Result<Vec<String>, FacilitatorError> {
        let (status, body) = self.ask(self.http.get(self.at("supported")?).timeout(LOOK_TIMEOUT)).await?;
        let answer: Supported = serde_json::from_slice(&body).map_err(|_| unreadable(status))?;
        // A kind that cannot be read is of another time.
        let kinds = answer.kinds.into_iter().filter_map(|kind| serde_json::from_value::<SupportedKind>(kind).ok());
        let ours = kinds.filter(|kind| kind.x402_version == VERSION && kind.scheme == SCHEME);
        Ok(ours.map(|kind| kind.network).collect())
    }

    fn at(&self, call: &str) -> Result<Url, FacilitatorError> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| FacilitatorError::Url)?.pop_if_empty().push(call);
        Ok(url)
    }

    /// An answer with its status, which may be one of failure: facilitators say no under several.
    async fn ask(&self, request: RequestBuilder) -> Result<(u16, Vec<u8>), FacilitatorError> {
        let request = match &self.api_key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        };
        let response = request.send().await.map_err(|error| {
            if error.is_connect() { FacilitatorError::Unreachable } else { FacilitatorError::Unanswered }
        })?;
        let status = response.status().as_u16();
        if matches!(status, 401 | 403) {
            return Err(FacilitatorError::Unauthorised { status });
        }
        let body = http::whole(response, MAX_ANSWER_BYTES).await.map_err(|unread| match unread {
            Unread::TooLarge => unreadable(status),
            Unread::TimedOut | Unread::CutOff => FacilitatorError::Unanswered,
        })?;
        Ok((status, body))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    is_valid: bool,
    invalid_reason: Option<String>,
    invalid_message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settled {
    success: bool,
    error_reason: Option<String>,
    error_message: Option<String>,
    transaction: Option<String>,
}

#[derive(Deserialize)]
struct Supported {
    kinds: Vec<Value>,
}

#[derive(Deserialize)]
struct SupportedKind {
    #[serde(rename = "x402Version")]
    x402_version: u64,
    scheme: String,
    network: String,
}

const fn unreadable(status: u16) -> FacilitatorError {
    FacilitatorError::Unreadable { status }
}

/// Whether it means that the nonce was used. The official one says so in a word only where the chain has Multicall3; else the
/// token's own words are in its message.
fn is_used(said: &[&Option<String>]) -> bool {
    let mut said = said.iter().filter_map(|text| text.as_deref());
    said.any(|text| text.contains("nonce_already_used") || text.contains("authorization is used"))
}

/// Its reason, where that is a word: a sentence may have an address in it.
fn word(reason: Option<String>) -> String {
    let is_word = |text: &str| {
        (1..=MAX_REASON_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    reason.filter(|text| is_word(text)).unwrap_or_else(|| "refused".to_owned())
}
