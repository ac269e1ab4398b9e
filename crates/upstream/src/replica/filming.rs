//! Holds: having a film made by one server: begun like any call, then asked for until it is there.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use super::{Replica, X_REQUEST_ID, errands::PATIENCE};
use crate::{
    adapters::{FilmJobs, FilmManner},
    body::check_prompt,
    failure::{CallError, CallErrorKind},
    film::{FilmAsk, FilmState},
    inlaid::Inlaid,
    lease::Lease,
    transport::{AnswerBody, BodyError, collect},
};

/// Most bytes of what a server says of a job; some repeat the request, whose prompt may have 32,000 characters of six bytes
/// each.
const MAX_STATE_BYTES: usize = 512 * 1024;
/// Most bytes that may lie inlaid in it: a film of two gigabytes in base64 has less.
const MAX_INLAID_BYTES: u64 = 3 * 1024 * 1024 * 1024;

/// A film as it comes.
pub struct FilmBytes {
    body: AnswerBody,
    idle: Duration,
    /// Where it lies in JSON.
    inlaid: Option<Inlaid>,
    is_whole: bool,
}

impl FilmBytes {
    pub(super) fn plain(body: AnswerBody, idle: Duration) -> Self {
        Self { body, idle, inlaid: None, is_whole: false }
    }

    /// The next piece; `None` behind the last one.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        while !self.is_whole {
            let Some(piece) = piece(&mut self.body, self.idle).await? else { break };
            let Some(inlaid) = &mut self.inlaid else { return Ok(Some(piece)) };
            let mut film = Vec::with_capacity(piece.len());
            self.is_whole = inlaid.take(&piece, &mut film, &mut Vec::new()).map_err(|_| bad_answer())?;
            if !film.is_empty() {
                return Ok(Some(film.into()));
            }
        }
        // What has no end is none; what never began is told by its lack of bytes.
        Ok(None)
    }
}

/// What comes next of a body. Trailers are passed over.
async fn piece(body: &mut AnswerBody, idle: Duration) -> Result<Option<Bytes>, CallError> {
    loop {
        let frame = timeout(idle, body.frame()).await;
        let frame = frame.map_err(|_| CallError::other_replica(CallErrorKind::Timeout))?;
        let Some(frame) = frame else { return Ok(None) };
        let frame = frame.map_err(|error| match error {
            BodyError::Broken(_) => CallError::other_replica(CallErrorKind::Reset),
            BodyError::Encoding => CallError::other_replica(CallErrorKind::Encoding),
        })?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
}

impl Replica {
    /// Begins a job; returns what the server calls it. Nothing was begun, as far as is known, where this fails.
    pub async fn submit_film(&self, ask: &FilmAsk<'_>) -> Result<String, CallError> {
        let manner = self.manner()?;
        if self.kind().reads_files_by_prompt {
            check_prompt(ask.prompt)?;
        }
        let started = Instant::now();
        let mut lease = Lease::take(&self.record, ask.asker, started)?;
        let begun = match manner {
            FilmManner::Jobs(jobs) => self.begin_film(jobs, ask, started).await,
            FilmManner::Workflow => Box::pin(self.order_film(ask, started)).await,
        };
        let begun = begun.map_err(|mut error| {
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

    async fn begin_film(&self, jobs: FilmJobs, ask: &FilmAsk<'_>, now: Instant) -> Result<String, CallError> {
        let body = jobs.body(ask);
        let mut request = self.errands().request((Method::POST, jobs.begins(), ""), body.bytes)?;
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
        FilmJobs::begun(&said).ok_or_else(bad_answer)
    }

    /// How a job stands. That it cannot be asked says nothing of the job.
    pub async fn film_state(&self, remote: &str) -> Result<FilmState, CallError> {
        let jobs = match self.manner()? {
            FilmManner::Jobs(jobs) => jobs,
            FilmManner::Workflow => return Box::pin(self.ordered_film(remote)).await,
        };
        let (head, body) = self.asked(Method::GET, jobs, (remote, "")).await?.into_parts();
        let said = match jobs.inlays() {
            true => without_inlaid(body).await?,
            false => collect(body, MAX_STATE_BYTES, PATIENCE).await?,
        };
        FilmJobs::state(head.status.as_u16(), &said).ok_or_else(|| {
            if head.status.is_success() { bad_answer() } else { CallError::refused(head.status, &head.headers, &said) }
        })
    }

    /// Fetches a film that is done; `None` where the server does not have it.
    pub async fn film_content(&self, remote: &str) -> Result<Option<FilmBytes>, CallError> {
        let jobs = match self.manner()? {
            FilmManner::Jobs(jobs) => jobs,
            FilmManner::Workflow => return Box::pin(self.fetch_film(remote)).await,
        };
        let response = self.asked(Method::GET, jobs, (remote, jobs.content())).await?;
        match response.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status if status.is_success() => {
                let film = FilmBytes::plain(response.into_body(), self.config.idle_timeout);
                Ok(Some(FilmBytes { inlaid: jobs.inlays().then(Inlaid::default), ..film }))
            }
            _ => Err(Box::pin(self.refusal(response)).await),
        }
    }

    /// Tells a server that nobody waits for the job any more. What it says to that changes nothing.
    pub async fn leave_film(&self, remote: &str) -> Result<(), CallError> {
        match self.manner()? {
            FilmManner::Jobs(jobs) => {
                let (method, behind) = jobs.leaves();
                self.errands().tell((method, jobs.jobs(), &format!("/{remote}{behind}")), Bytes::new()).await
            }
            FilmManner::Workflow => Box::pin(self.forget_film(remote)).await,
        }
    }

    fn manner(&self) -> Result<FilmManner, CallError> {
        self.kind().film.ok_or_else(|| CallError::other_replica(CallErrorKind::Unfit))
    }

    async fn asked(
        &self,
        method: Method,
        jobs: FilmJobs,
        (remote, behind): (&str, &str),
    ) -> Result<Response<AnswerBody>, CallError> {
        let errands = self.errands();
        errands.sent(errands.request((method, jobs.jobs(), &format!("/{remote}{behind}")), Bytes::new())?).await
    }
}

/// What is said around a film that lies in it.
async fn without_inlaid(mut body: AnswerBody) -> Result<Bytes, CallError> {
    let too_large = || CallError::other_replica(CallErrorKind::TooLarge);
    let (mut inlaid, mut said, mut passed) = (Inlaid::default(), Vec::new(), 0_u64);
    while let Some(piece) = piece(&mut body, PATIENCE).await? {
        let mut film = Vec::new();
        passed = passed.saturating_add(piece.len() as u64);
        inlaid.take(&piece, &mut film, &mut said).map_err(|_| bad_answer())?;
        if said.len() > MAX_STATE_BYTES || passed > MAX_INLAID_BYTES {
            return Err(too_large());
        }
    }
    Ok(said.into())
}

fn bad_answer() -> CallError {
    CallError::other_replica(CallErrorKind::BadAnswer)
}
