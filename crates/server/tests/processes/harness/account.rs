//! Holds: a customer: a user with a key, and the calls that they make.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

use super::Address;

/// A request without an answer for this long has failed.
const REQUEST_PATIENCE: Duration = Duration::from_secs(60);
/// Most rows that one call for usage returns.
const PAGE: usize = 500;
/// Nano-dollars in a cent.
const CENT: f64 = 10_000_000.0;

/// A chat of one message.
pub fn chat(model: &str, max_tokens: i64) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens})
}

/// The text of a delta's data, if it has any.
pub fn text_of(data: &str) -> Option<String> {
    let chunk: Value = serde_json::from_str(data).ok()?;
    chunk["choices"][0]["delta"]["content"].as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned)
}

/// A user with one key.
#[derive(Clone)]
pub struct Account {
    pub email: String,
    pub key: String,
    /// What it was given at first, in nano-dollars.
    pub funded: i64,
    http: reqwest::Client,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// `error.code`.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Account {
    pub fn new(email: &str, key: &str, funded: i64) -> Self {
        // Whoever installed one before installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).timeout(REQUEST_PATIENCE).build().unwrap();
        Self { email: email.to_owned(), key: key.to_owned(), funded, http }
    }

    /// The same user, who was given so many nano-dollars.
    pub fn funded(self, funded: i64) -> Self {
        Self { funded, ..self }
    }

    /// The same user with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self::new(&self.email, key, self.funded)
    }

    fn request(&self, method: Method, at: &Address, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", at.url())).bearer_auth(&self.key)
    }

    async fn sent(request: reqwest::RequestBuilder) -> Result<Reply, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Reply { status, headers, body: response.bytes().await? })
    }

    /// A POST that may find no server.
    pub async fn try_post(&self, at: &Address, path: &str, body: &Value) -> Result<Reply, reqwest::Error> {
        Self::sent(self.request(Method::POST, at, path).json(body)).await
    }

    pub async fn post(&self, at: &Address, path: &str, body: &Value) -> Reply {
        self.try_post(at, path, body).await.unwrap()
    }

    /// A chat that may find no server.
    pub async fn try_chat(&self, at: &Address, body: &Value) -> Result<Reply, reqwest::Error> {
        self.try_post(at, "/v1/chat/completions", body).await
    }

    pub async fn chat(&self, at: &Address, body: &Value) -> Reply {
        self.try_chat(at, body).await.unwrap()
    }

    /// A POST under an Idempotency-Key.
    pub async fn try_post_once(
        &self,
        at: &Address,
        path: &str,
        body: &Value,
        key: &str,
    ) -> Result<Reply, reqwest::Error> {
        Self::sent(self.request(Method::POST, at, path).header("idempotency-key", key).json(body)).await
    }

    /// A chat under an Idempotency-Key.
    pub async fn try_chat_once(&self, at: &Address, body: &Value, key: &str) -> Result<Reply, reqwest::Error> {
        self.try_post_once(at, "/v1/chat/completions", body, key).await
    }

    pub async fn chat_once(&self, at: &Address, body: &Value, key: &str) -> Reply {
        self.try_chat_once(at, body, key).await.unwrap()
    }

    /// A chat whose answer comes in pieces.
    pub async fn try_stream(&self, at: &Address, mut body: Value) -> Result<Events, reqwest::Error> {
        body["stream"] = true.into();
        let response = self.request(Method::POST, at, "/v1/chat/completions").json(&body).send().await?;
        Ok(Events { response, rest: Vec::new() })
    }

    pub async fn stream(&self, at: &Address, body: Value) -> Events {
        let events = self.try_stream(at, body).await.unwrap();
        assert_eq!(events.status(), 200);
        events
    }

    pub async fn get(&self, at: &Address, path: &str) -> Reply {
        Self::sent(self.request(Method::GET, at, path)).await.unwrap()
    }

    pub async fn delete(&self, at: &Address, path: &str) -> Reply {
        Self::sent(self.request(Method::DELETE, at, path)).await.unwrap()
    }

    pub async fn put(&self, at: &Address, path: &str, body: &Value) -> Reply {
        Self::sent(self.request(Method::PUT, at, path).json(body)).await.unwrap()
    }

    pub async fn patch(&self, at: &Address, path: &str, body: &Value) -> Reply {
        Self::sent(self.request(Method::PATCH, at, path).json(body)).await.unwrap()
    }

    /// What is left, in nano-dollars.
    pub async fn balance(&self, at: &Address) -> i64 {
        let me = self.get(at, "/v1/users/me").await;
        assert_eq!(me.status, 200, "{me:?}");
        nanos(&me.json()["credit_balance_cents"])
    }

    /// Requests and nano-dollars of the usage summary.
    pub async fn summary(&self, at: &Address) -> (u64, i64) {
        let summary = self.get(at, "/v1/usage/summary").await;
        assert_eq!(summary.status, 200, "{summary:?}");
        let summary = summary.json();
        (summary["total_requests"].as_u64().unwrap(), nanos(&summary["total_cost_cents"]))
    }

    /// Every row of the usage log.
    pub async fn usage(&self, at: &Address) -> Vec<Value> {
        let mut rows = Vec::new();
        loop {
            let page = self.get(at, &format!("/v1/usage/logs?limit={PAGE}&offset={}", rows.len())).await;
            assert_eq!(page.status, 200, "{page:?}");
            let page: Vec<Value> = serde_json::from_slice(&page.body).unwrap();
            let is_last = page.len() < PAGE;
            rows.extend(page);
            if is_last {
                return rows;
            }
        }
    }

    /// Submits tasks and returns the batch's id.
    pub async fn submit(&self, at: &Address, priority: &str, tasks: &[Value]) -> String {
        let batch = self.post(at, "/v1/batches", &json!({"priority": priority, "tasks": tasks})).await;
        assert_eq!(batch.status, 200, "{batch:?}");
        batch.json()["id"].as_str().unwrap().to_owned()
    }

    /// Uploads a batch's lines; returns the file's id.
    pub async fn upload(&self, at: &Address, lines: String) -> String {
        let part = reqwest::multipart::Part::text(lines).file_name("lines.jsonl");
        let form = reqwest::multipart::Form::new().text("purpose", "batch").part("file", part);
        let request = self.request(Method::POST, at, "/openai/v1/files").multipart(form);
        let uploaded = Self::sent(request).await.unwrap();
        assert_eq!(uploaded.status, 200, "{uploaded:?}");
        uploaded.json()["id"].as_str().unwrap().to_owned()
    }

    /// Its batches, newest first.
    pub async fn batches(&self, at: &Address) -> Vec<Value> {
        let batches = self.get(at, &format!("/v1/batches?limit={PAGE}")).await;
        assert_eq!(batches.status, 200, "{batches:?}");
        serde_json::from_slice(&batches.body).unwrap()
    }

    /// A batch as it stands.
    pub async fn batch(&self, at: &Address, id: &str) -> Value {
        let batch = self.get(at, &format!("/v1/batches/{id}")).await;
        assert_eq!(batch.status, 200, "{batch:?}");
        batch.json()
    }

    /// The lines of a batch's results.
    pub async fn results(&self, at: &Address, id: &str) -> Vec<Value> {
        let results = self.get(at, &format!("/v1/batches/{id}/results")).await;
        assert_eq!(results.status, 200, "{results:?}");
        let text = String::from_utf8(results.body.to_vec()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Cents with a fraction as nano-dollars. Exact for every amount that a test moves.
pub fn nanos(cents: &Value) -> i64 {
    let cents = cents.as_f64().unwrap_or_else(|| panic!("no amount: {cents}"));
    (cents * CENT).round() as i64
}

/// A stream of server-sent events.
pub struct Events {
    response: reqwest::Response,
    rest: Vec<u8>,
}

impl Events {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// The data of the next event; `None` at the end of the body.
    pub async fn next(&mut self) -> Result<Option<String>, reqwest::Error> {
        loop {
            if let Some(end) = self.rest.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.rest.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                // Comments keep the connection alive and say nothing.
                if let Some(data) = event.trim().strip_prefix("data: ") {
                    return Ok(Some(data.to_owned()));
                }
                continue;
            }
            match self.response.chunk().await? {
                Some(bytes) => self.rest.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }

    /// The data of every event that is still to come.
    pub async fn all(mut self) -> Result<Vec<String>, reqwest::Error> {
        let mut events = Vec::new();
        while let Some(data) = self.next().await? {
            events.push(data);
        }
        Ok(events)
    }
}
