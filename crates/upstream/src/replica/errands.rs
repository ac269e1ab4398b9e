//! Holds: what a server is asked beside its calls: small requests with our key, of which none says anything of its health.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use tokio::time::{Instant, timeout};

use super::{PLAIN, Replica, unsent};
use crate::{
    adapters::Path,
    failure::{CallError, CallErrorKind},
    transport::{AnswerBody, MAX_REFUSAL_BYTES, Targets, Transport, collect},
    upload::SentBody,
};

/// How long a server may take to answer what it computes nothing for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A server as it is asked. Outlives the request that asks.
#[derive(Clone)]
pub(super) struct Errands {
    transport: Arc<Transport>,
    targets: Targets,
    authorization: Option<HeaderValue>,
}

impl Replica {
    pub(super) fn errands(&self) -> Errands {
        Errands {
            transport: Arc::clone(&self.transport),
            targets: self.targets.clone(),
            authorization: self.authorization.clone(),
        }
    }
}

impl Errands {
    /// A request to a path, with something behind it.
    pub(super) fn request(
        &self,
        (method, path, behind): (Method, Path, &str),
        body: Bytes,
    ) -> Result<Request<SentBody>, CallError> {
        let mut request = Request::new(SentBody::of(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.targets.at(path, behind)?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT_ENCODING, PLAIN);
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// Sends a request; returns with the head of its answer.
    pub(super) async fn sent(&self, request: Request<SentBody>) -> Result<Response<AnswerBody>, CallError> {
        let sent = self.transport.send(request, Instant::now());
        let timed_out = |_| CallError::other_replica(CallErrorKind::Timeout);
        timeout(PATIENCE, sent).await.map_err(timed_out)?.map_err(unsent)
    }

    /// The answer to a question, up to so many bytes of it.
    pub(super) async fn read(&self, (path, behind): (Path, &str), most: usize) -> Result<Bytes, CallError> {
        let response = self.sent(self.request((Method::GET, path, behind), Bytes::new())?).await?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return collect(body, most, PATIENCE).await;
        }
        let said = collect(body, MAX_REFUSAL_BYTES, PATIENCE).await.unwrap_or_default();
        Err(CallError::refused(head.status, &head.headers, &said))
    }

    /// Tells it something in JSON, or nothing more than the path says. What it says to that changes nothing.
    pub(super) async fn tell(&self, what: (Method, Path, &str), json: Bytes) -> Result<(), CallError> {
        let says_more = !json.is_empty();
        let mut request = self.request(what, json)?;
        if says_more {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let response = self.sent(request).await?;
        // Read to its end, so that its connection can be used again.
        let _ = collect(response.into_body(), MAX_REFUSAL_BYTES, PATIENCE).await;
        Ok(())
    }
}
