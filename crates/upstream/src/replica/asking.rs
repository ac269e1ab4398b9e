//! Holds: asking a server something beside its calls: whether it lives, whether it takes our key, what it has.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::{PLAIN, Replica};
use crate::{
    failure::CallErrorKind,
    health::{self, Health, Probed},
    transport::{MAX_REFUSAL_BYTES, collect},
    upload::SentBody,
};

/// Most bytes of a list of models: a hosted server with a thousand of them, each with its description.
const MAX_LIST_BYTES: usize = 8 * 1024 * 1024;

/// How long a check of the operator's waits: a hosted server's list takes a second.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

/// What a server says when it is asked what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// No answer.
    Silent,
    /// It does not take our key.
    KeyRefused,
    /// Our account there is used up.
    QuotaUsedUp,
    /// It refused with this status.
    Refuses(u16),
    /// It answers and has no list.
    NoList,
    /// The names of its models.
    Lists(Vec<String>),
}

impl Replica {
    /// Asks whether the server lives and remembers the answer. Returns the health when it changed, and what was found.
    pub(crate) async fn probe(&self) -> Option<(Health, Probed)> {
        let suspect = self.record.suspect_key.load(Ordering::Relaxed);
        let probed = health::within(async {
            let (status, read) = self.ask(&self.targets.health, MAX_REFUSAL_BYTES).await?;
            // Hosted servers without a list of models answer 404 and live.
            let refused = matches!(status.as_u16(), 401..=403);
            // 402: a hosted server that wants to be paid first.
            let alive = !status.is_server_error() && status.as_u16() != 402 && read != Err(CallErrorKind::Reset);
            let refused = refused || (alive && suspect && self.is_key_refused().await?);
            Some(if refused {
                Probed::KeyRefused
            } else if alive {
                Probed::Answered
            } else {
                Probed::Silent
            })
        });
        let probed = probed.await;
        if probed == Probed::Answered && suspect {
            self.record.suspect_key.store(false, Ordering::Relaxed);
        }
        let changed = self.record.pulse.note(probed);
        self.record.show();
        changed.map(|health| (health, probed))
    }

    /// Asks where a key is needed, with ours.
    async fn is_key_refused(&self) -> Option<bool> {
        let (status, _) = self.ask(&self.targets.guarded, MAX_LIST_BYTES).await?;
        Some(matches!(status.as_u16(), 401 | 403))
    }

    /// Asks the server what it has, with our key: the names of its models, where it lists them.
    pub async fn check(&self) -> Check {
        let asked = timeout(CHECK_PATIENCE, async {
            let (status, body) = self.ask(&self.targets.models, MAX_LIST_BYTES).await?;
            let known = matches!(status.as_u16(), 401 | 403) || self.targets.guarded == self.targets.models;
            let refused = if known { matches!(status.as_u16(), 401 | 403) } else { self.is_key_refused().await? };
            Some((status, body, refused))
        });
        let Ok(Some((status, body, refused))) = asked.await else { return Check::Silent };
        match (status.as_u16(), body) {
            _ if refused => Check::KeyRefused,
            (402, _) => Check::QuotaUsedUp,
            (200..=299, Ok(body)) => match listed(&body) {
                Some(models) => Check::Lists(models),
                None => Check::NoList,
            },
            // Not every server with OpenAI's calls has this one.
            (404 | 405 | 501, _) => Check::NoList,
            (status, _) => Check::Refuses(status),
        }
    }

    /// Asks with our key. `None` without an answer.
    async fn ask(&self, what: &Uri, most: usize) -> Option<(StatusCode, Result<Bytes, CallErrorKind>)> {
        let mut request = Request::new(SentBody::of(Bytes::new()));
        *request.uri_mut() = what.clone();
        request.headers_mut().insert(header::ACCEPT_ENCODING, PLAIN);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        let response = self.transport.send(request, Instant::now()).await.ok()?;
        let status = response.status();
        // Reading the body to its end keeps the connection for calls.
        let read = collect(response.into_body(), most, self.config.idle_timeout).await;
        Some((status, read.map_err(|error| error.kind)))
    }
}

/// The names in a list of models; `None` when it is none.
fn listed(body: &[u8]) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        // Together AI's list is an array without more.
        Wrapped { data: Vec<Named> },
        Bare(Vec<Named>),
    }
    match serde_json::from_slice(body).ok()? {
        List::Wrapped { data } | List::Bare(data) => Some(data.into_iter().map(|named| named.id).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_in_a_server_s_list() {
        let names = |body: &str| listed(body.as_bytes());
        let wrapped = r#"{"object":"list","data":[{"id":"llama3:latest","object":"model"},{"id":"b"}]}"#;
        let list = names(wrapped).unwrap();
        assert_eq!(list, ["llama3:latest", "b"]);
        assert_eq!(names(r#"[{"id":"llama3:latest"},{"id":"b"}]"#).as_ref(), Some(&list));
        assert_eq!((names("<html>"), names("{}"), names(r#"{"data":[]}"#)), (None, None, Some(Vec::new())));
    }
}
