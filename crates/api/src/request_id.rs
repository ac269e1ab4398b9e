//! Holds: what is around every answer: it names its request, and a panic is an answer too.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::response::{IntoResponse, Response};
use batchin_domain::RequestId;
use http::{HeaderMap, HeaderName, HeaderValue};
use pin_project_lite::pin_project;
use tracing::error;

use crate::{cors, error::ApiError};

/// Longest name of a client's own that is given back.
const MAX_CLIENT_ID_BYTES: usize = 128;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Ours, where `x-request-id` is the client's own.
const X_BATCHIN_REQUEST_ID: HeaderName = HeaderName::from_static("x-batchin-request-id");

/// The name that a client gave its request, if it can be given back.
pub(crate) fn of_client(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(X_REQUEST_ID).filter(|value| is_sane(value)).cloned()
}

fn is_sane(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=MAX_CLIENT_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

pin_project! {
    /// An answer to come, which will name its request.
    pub struct Named<F> {
        #[pin]
        inner: F,
        id: RequestId,
        client: Option<HeaderValue>,
        origin: Option<HeaderValue>,
        varies: bool,
    }
}

impl<F> Named<F> {
    /// `client` is what [`of_client`] found.
    pub(crate) fn new(inner: F, id: RequestId, client: Option<HeaderValue>) -> Self {
        Self { inner, id, client, origin: None, varies: false }
    }

    /// The origin whose pages may read the answer, and whether another's would meet another answer.
    pub(crate) fn for_origin(mut self, origin: Option<HeaderValue>, varies: bool) -> Self {
        (self.origin, self.varies) = (origin, varies);
        self
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for Named<F> {
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let inner = this.inner;
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| inner.poll(cx)));
        let mut response = match polled {
            Ok(polled) => ready!(polled)?,
            Err(panic) => {
                error!(request = %this.id, "a handler panicked: {}", panic_text(&*panic));
                ApiError::internal().into_response()
            }
        };
        let mut buffer = uuid::Uuid::encode_buffer();
        let own = this.id.uuid().hyphenated().encode_lower(&mut buffer);
        let own = HeaderValue::from_str(own).ok();
        let headers = response.headers_mut();
        match (this.client.take(), own) {
            (Some(client), own) => {
                headers.insert(X_REQUEST_ID, client);
                own.and_then(|own| headers.insert(X_BATCHIN_REQUEST_ID, own));
            }
            (None, Some(own)) => {
                headers.insert(X_REQUEST_ID, own);
            }
            (None, None) => {}
        }
        cors::mark(this.origin.take(), *this.varies, headers);
        Poll::Ready(Ok(response))
    }
}

/// What a panic says where the code says it; values in it could be a client's.
fn panic_text(panic: &(dyn Any + Send)) -> &'static str {
    panic.downcast_ref::<&'static str>().copied().unwrap_or("with a computed message")
}
