//! Holds: one HTTP call and its answer.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use serde_json::Value;

/// A body whose length is not stated.
pub fn streamed<S>(pieces: S) -> reqwest::Body
where
    S: futures::TryStream<Ok = Vec<u8>, Error = std::io::Error> + Send + 'static,
{
    reqwest::Body::wrap_stream(pieces)
}

/// A call to be sent; `await` sends it.
#[must_use = "a call is sent when it is awaited"]
pub struct Call {
    request: reqwest::RequestBuilder,
    json: Option<Value>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Call {
    pub(crate) fn new(request: reqwest::RequestBuilder) -> Self {
        Self { request, json: None }
    }

    /// Authenticates with this key or session, and no longer with the one before.
    pub fn key(mut self, secret: &str) -> Self {
        let bearer = format!("Bearer {secret}").parse().expect("secrets are made of visible ASCII");
        self.request = self.request.headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Sends this JSON.
    pub fn json(mut self, body: Value) -> Self {
        self.json = Some(body);
        self
    }

    /// Adds a member to the JSON body.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.json.get_or_insert_with(|| Value::Object(serde_json::Map::new()))[name] = value.into();
        self
    }

    /// Most tokens of the answer.
    pub fn max_tokens(self, tokens: u64) -> Self {
        self.with("max_tokens", tokens)
    }

    /// Asks for server-sent events.
    pub fn stream(self) -> Self {
        self.with("stream", true)
    }

    /// Sends these bytes.
    pub fn body(mut self, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.body(body);
        self
    }

    /// Sends the call and reads its head only; dropped, the connection closes.
    pub async fn open(self) -> reqwest::Response {
        let mut request = self.request;
        if let Some(json) = self.json {
            request = request.header("content-type", "application/json").body(json.to_string());
        }
        request.send().await.unwrap()
    }

    /// Sends the call and reads its answer whole.
    pub async fn send(self) -> Reply {
        let response = self.open().await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, body: response.bytes().await.unwrap() }
    }
}

impl IntoFuture for Call {
    type Output = Reply;
    type IntoFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl Reply {
    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's text; empty when it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The answer, which must have succeeded.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Checks that it is an error of this status and code in the one shape, and returns its `error` member.
    #[track_caller]
    pub fn error(&self, status: StatusCode, code: &str) -> Value {
        assert_eq!(self.status, status.as_u16(), "{}", self.text());
        let body = self.json();
        let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(members(&body), ["error"], "{body}");
        let error = &body["error"];
        let mut names = members(error);
        names.sort();
        assert_eq!(names, ["code", "message", "param", "type"], "{body}");
        assert_eq!(error["code"], code, "{body}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        assert!(error["type"].is_string(), "{body}");
        assert!(!self.header("x-request-id").is_empty(), "every answer names its request");
        error.clone()
    }
}
