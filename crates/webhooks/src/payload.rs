//! Holds: what is sent: the body, in OpenAI's shape, and the headers that sign it.

use batchin_domain::{
    Timestamp,
    webhook::{EventId, EventKind},
};
use serde_json::json;
use uuid::Uuid;

use crate::secret::{WebhookSecret, signature};

/// One try's request.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where to, as the customer gave it.
    pub url: String,
    /// `webhook-id`: the same on every try.
    pub id: String,
    /// `webhook-timestamp`: of this try, in seconds since the Unix epoch.
    pub timestamp: i64,
    /// `webhook-signature`.
    pub signature: String,
    /// JSON, the same on every try.
    pub body: String,
}

impl Message {
    /// Signs a body for sending now.
    pub fn new(url: &str, id: EventId, body: String, secrets: &[WebhookSecret], now: Timestamp) -> Self {
        let (id, timestamp) = (id.to_string(), now.seconds());
        let signature = signature(secrets, &id, timestamp, body.as_bytes());
        Self { url: url.to_owned(), id, timestamp, signature, body }
    }
}

/// An event as JSON. It carries ids alone: what there is to know is asked for with a key.
pub fn body(id: EventId, kind: EventKind, subject: Uuid, created_at: Timestamp) -> String {
    json!({
        "object": "event",
        "id": id.to_string(),
        "type": kind.name(),
        "created_at": created_at.seconds(),
        "data": { "id": subject },
    })
    .to_string()
}
