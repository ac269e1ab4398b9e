//! Holds: the HTTP client: one request to Stripe, what its answer means, and lists of several pages.

use std::{fmt, time::Duration};

use reqwest::{
    Client, RequestBuilder, Response,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::{
    failure::{Refusal, StripeError},
    form::Form,
    members::Members,
};

/// Where Stripe is.
pub const API_BASE: &str = "https://api.stripe.com";
/// The version of Stripe's API that is asked for, whatever the account's own is.
pub const STRIPE_VERSION: &str = "2026-10-28.endive";
/// Stripe answers most calls within a second or two, a charge within ten.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);

/// Most bytes of an answer: a page of a hundred sessions is half a mebibyte, and a dispute's evidence, of which events have all,
/// comes to as much.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Objects in a page, the most that Stripe has.
const PAGE: i64 = 100;
/// Longest id; Stripe promises 255.
const MAX_ID_BYTES: usize = 255;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const VERSION: HeaderName = HeaderName::from_static("stripe-version");

/// How Stripe is asked.
#[derive(Clone)]
pub struct Options {
    /// Scheme, host and port, with or without a slash at the end: [`API_BASE`].
    pub api_base: String,
    /// `sk_…` or, better, a restricted `rk_…`.
    pub secret_key: SecretString,
    /// How long a call may take, with its answer's last byte: [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The base is no URL of http or https.
    #[error("Stripe's address must begin with https:// (or http:// on this machine)")]
    Address,
    /// The key is empty, or has characters that no key has.
    #[error("Stripe's secret key must be the text that begins with sk_ or rk_, without blanks")]
    Key,
    /// The HTTP client could not be set up.
    #[error("the client for Stripe cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Stripe, asked with one key. Cheap to clone.
///
/// It never asks twice by itself. Stripe keeps the answer to each Idempotency-Key for 24 hours at least, also a failure of
/// its own (500): the same call with the same key then says the same again, and only reading tells what happened.
#[derive(Clone)]
pub struct Stripe {
    http: Client,
    base: String,
}

impl fmt::Debug for Stripe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stripe").finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("api_base", &self.api_base)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Stripe {
    /// Asks nothing yet. The process has installed a provider for rustls by now: without one this panics.
    pub fn new(options: Options) -> Result<Self, BuildError> {
        let base = options.api_base.trim_end_matches('/');
        let is_address =
            reqwest::Url::parse(base).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_address {
            return Err(BuildError::Address);
        }
        let http = Client::builder()
            .user_agent(concat!("batchin-stripe/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(&options.secret_key)?)
            .timeout(options.timeout)
            // The key goes where the configuration says and nowhere else.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            // Whatever other crates switch on: an answer's bound is one of the bytes that are kept.
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .build()
            .map_err(BuildError::Client)?;
        Ok(Self { http, base: base.to_owned() })
    }

    pub(crate) async fn post(&self, path: &str, form: Form, idempotency_key: &str) -> Result<Value, StripeError> {
        let key = HeaderValue::from_str(idempotency_key).map_err(|_| StripeError::NoId)?;
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").header(IDEMPOTENCY_KEY, key);
        answer(request.body(form.text())).await
    }

    pub(crate) async fn get(&self, path: &str, query: Form) -> Result<Value, StripeError> {
        answer(self.http.get(format!("{}{path}?{}", self.base, query.text()))).await
    }

    /// Goes through a list, newest first, until `pick` has what it looks for or there is no more. `query` makes the
    /// parameters of each page; more than `most` objects are an error.
    pub(crate) async fn walk<T>(
        &self,
        path: &str,
        query: impl Fn() -> Form,
        most: usize,
        mut pick: impl FnMut(Members<'_>) -> Result<Option<T>, StripeError>,
    ) -> Result<Option<T>, StripeError> {
        let (mut after, mut seen, mut found) = (None::<String>, 0, None);
        loop {
            let each = |object: Members<'_>| {
                if found.is_some() {
                    return Ok(());
                }
                seen += 1;
                if seen > most {
                    return Err(StripeError::TooMany { most });
                }
                found = pick(object)?;
                Ok(())
            };
            after = self.page(path, (query(), PAGE), after.as_deref(), each).await?;
            if found.is_some() || after.is_none() {
                return Ok(found);
            }
        }
    }

    /// One page of a list, of at most so many objects, newest first: what the next page begins after, if there is one.
    pub(crate) async fn page(
        &self,
        path: &str,
        (query, size): (Form, i64),
        after: Option<&str>,
        mut each: impl FnMut(Members<'_>) -> Result<(), StripeError>,
    ) -> Result<Option<String>, StripeError> {
        let query = query.with_number("limit", size).with_some("starting_after", after);
        let answered = self.get(path, query).await?;
        let list = Members::of(&answered);
        let has_more = list.needed_flag("has_more")?;
        let mut last = None;
        for object in list.list("data") {
            each(object)?;
            last = Some(object.needed_text("id")?);
        }
        match last {
            _ if !has_more => Ok(None),
            Some(last) if Some(&*last) != after => Ok(Some(last)),
            _ => Err(StripeError::Unreadable { what: "a page without objects says that there are more" }),
        }
    }
}

/// The path of one object, whose id has come from elsewhere.
pub(crate) fn path_of(kind: &str, id: &str) -> Result<String, StripeError> {
    is_id(id).then(|| format!("/v1/{kind}/{id}")).ok_or(StripeError::NoId)
}

/// Whether it can be an id of Stripe's: letters, digits and `_`, up to 255.
pub(crate) fn is_id(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && text.len() <= MAX_ID_BYTES && text.bytes().all(is_letter)
}

fn headers(secret_key: &SecretString) -> Result<HeaderMap, BuildError> {
    let key = secret_key.expose_secret();
    let is_key = |byte: u8| byte.is_ascii_graphic();
    if key.is_empty() || !key.bytes().all(is_key) {
        return Err(BuildError::Key);
    }
    let mut bearer = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| BuildError::Key)?;
    bearer.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, bearer), (VERSION, HeaderValue::from_static(STRIPE_VERSION))]))
}

async fn answer(request: RequestBuilder) -> Result<Value, StripeError> {
    let response = request.send().await.map_err(StripeError::of_transport)?;
    let status = response.status().as_u16();
    let header = |name: &HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after = header(&RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let request_id = header(&REQUEST_ID).map(|id| id.chars().take(MAX_ID_BYTES).collect());
    match status {
        200..300 => {
            let body = read(response).await?;
            let value: Value =
                serde_json::from_slice(&body).map_err(|_| StripeError::Unreadable { what: "no JSON" })?;
            value.is_object().then_some(value).ok_or(StripeError::Unreadable { what: "no object" })
        }
        409 | 429 | 500.. => Err(StripeError::Busy { status, retry_after }),
        400..500 => {
            // The status has decided; a body that cannot be read leaves its words out.
            let body = read(response).await.unwrap_or_default();
            let value = serde_json::from_slice(&body).unwrap_or_default();
            Err(StripeError::Refused(Box::new(Refusal::of(status, &value, request_id))))
        }
        _ => Err(StripeError::Unreadable { what: "a redirect or another status that Stripe does not have" }),
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, StripeError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(StripeError::of_transport)? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(StripeError::Unreadable { what: "longer than any answer of Stripe's" });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
