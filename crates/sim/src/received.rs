//! Holds: a request as it arrived.

use bytes::Bytes;
use http::HeaderMap;

use crate::form::ReceivedForm;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// Path of the call.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Bytes,
}

impl ReceivedRequest {
    /// The body as a form, where it is one.
    pub async fn form(&self) -> Option<ReceivedForm> {
        ReceivedForm::of(&self.headers, self.body.clone()).await
    }
}
