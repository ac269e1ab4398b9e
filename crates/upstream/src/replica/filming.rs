//! Holds: having a film made by one server: begun like any call, then asked for until it is there.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use super::{PLAIN, Replica, X_REQUEST_ID, unsent};
use crate::{
    adapters::FilmManner,
    failure::{CallError, CallErrorKind},
    film::{FilmAsk, FilmState},
    lease::Lease,
    transport::{AnswerBody, BodyError, MAX_REFUSAL_BYTES, collect},
    upload::SentBody,
};

/// How long a server may take to say how a job stands: it computes nothing for that.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of what it says; some repeat the request, whose prompt may have 32,000 characters of six bytes each.
const MAX_STATE_BYTES: usize = 512 * 1024;

/// A film as it comes.
pub struct FilmBytes {
    body: AnswerBody,
    idle: Duration,
}

impl FilmBytes {
    /// The next piece; `None` behind the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        loop {
            let frame = timeout(self.idle, self.body.frame()).await;
            let frame = frame.map_err(|_| CallError::other_replica(CallErrorKind::Timeout))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| match error {
                BodyError::Broken(_) => CallError::other_replica(CallErrorKind::Reset),
                BodyError::Encoding => CallError::other_replica(CallErrorKind::Encoding),
            })?;
            // Trailers are passed over.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }
}

impl Replica {
    /// Begins a job; returns what the server calls it. Nothing was begun, as far as is known, where this fails.
    pub async fn submit_film(&self, ask: &FilmAsk<'_>) -> Result<String, CallError> {
        let manner = self.manner()?;
        let started = Instant::now();
        let mut lease = Lease::take(&self.record, ask.asker, started)?;
        let begun = self.begin_film(manner, ask, started).await.map_err(|mut error| {
            if let Some(said) = &mut error.client_error {
                said.rename_model(ask.upstream_model, ask.public_model);
            }
            error
        });
        match &begun {
            Ok(_) => lease.succeeded(),
            Err(error) => lease.failed(error),
        }
        begun
    }

    async fn begin_film(&self, manner: FilmManner, ask: &FilmAsk<'_>, now: Instant) -> Result<String, CallError> {
        let body = manner.body(ask);
        let mut request = self.film_request(Method::POST, self.targets.at(manner.jobs(), "")?, body.bytes);
        let headers = request.headers_mut();
        if let Ok(kind) = HeaderValue::try_from(body.content_type) {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        if let Ok(id) = HeaderValue::try_from(ask.request_id) {
            headers.insert(X_REQUEST_ID, id);
        }
        let response = self.sent(request, now).await?;
        if !response.status().is_success() {
            return Err(Box::pin(self.refusal(response)).await);
        }
        let said = collect(response.into_body(), MAX_STATE_BYTES, self.config.idle_timeout).await?;
        FilmManner::begun(&said).ok_or_else(|| CallError::other_replica(CallErrorKind::BadAnswer))
    }

    /// How a job stands. That it cannot be asked says nothing of the job.
    pub async fn film_state(&self, remote: &str) -> Result<FilmState, CallError> {
        let at = self.targets.at(self.manner()?.jobs(), &format!("/{remote}"))?;
        let response = self.asked(Method::GET, at).await?;
        let (head, body) = response.into_parts();
        let said = collect(body, MAX_STATE_BYTES, PATIENCE).await?;
        FilmManner::state(head.status.as_u16(), &said).ok_or_else(|| {
            if head.status.is_success() {
                CallError::other_replica(CallErrorKind::BadAnswer)
            } else {
                CallError::refused(head.status, &head.headers, &said)
            }
        })
    }

    /// Fetches a film that is done; `None` where the server does not have it.
    pub async fn film_content(&self, remote: &str) -> Result<Option<FilmBytes>, CallError> {
        let at = self.targets.at(self.manner()?.jobs(), &format!("/{remote}/content"))?;
        let response = self.asked(Method::GET, at).await?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status if status.is_success() => {
                Ok(Some(FilmBytes { body: response.into_body(), idle: self.config.idle_timeout }))
            }
            _ => Err(Box::pin(self.refusal(response)).await),
        }
    }

    /// Tells a server that nobody waits for the job any more. What it says to that changes nothing.
    pub async fn leave_film(&self, remote: &str) -> Result<(), CallError> {
        let at = self.targets.at(self.manner()?.jobs(), &format!("/{remote}"))?;
        let response = self.asked(Method::DELETE, at).await?;
        // Read to its end, so that its connection can be used again.
        let _ = collect(response.into_body(), MAX_REFUSAL_BYTES, PATIENCE).await;
        Ok(())
    }

    fn manner(&self) -> Result<FilmManner, CallError> {
        self.kind().film.ok_or_else(|| CallError::other_replica(CallErrorKind::Unfit))
    }

    async fn asked(&self, method: Method, at: Uri) -> Result<Response<AnswerBody>, CallError> {
        let sent = self.transport.send(self.film_request(method, at, Bytes::new()), Instant::now());
        let timed_out = |_| CallError::other_replica(CallErrorKind::Timeout);
        timeout(PATIENCE, sent).await.map_err(timed_out)?.map_err(unsent)
    }

    fn film_request(&self, method: Method, at: Uri, body: Bytes) -> Request<SentBody> {
        let mut request = Request::new(SentBody::of(body));
        *request.method_mut() = method;
        *request.uri_mut() = at;
        request.headers_mut().insert(header::ACCEPT_ENCODING, PLAIN);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        request
    }
}
