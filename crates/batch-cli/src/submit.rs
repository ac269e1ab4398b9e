//! Holds: how a prepared input becomes a batch or an estimate: inline when it is small, as a file when it is not.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::arguments::Terms;
use super::prepare::{Fault, Prepared};
use super::progress::Progress;
use super::talk::{Client, ClientError, Submission};

/// What OpenAI's call takes when nobody says otherwise.
const DEFAULT_WINDOW: &str = "24h";

/// Terms as both calls take them.
#[derive(Serialize)]
struct WireTerms {
    #[serde(skip_serializing_if = "Option::is_none")]
    input_file_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost_cents: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_window: Option<String>,
}

/// Bytes that an inline body has beside its tasks.
pub(super) fn inline_overhead(terms: &Terms) -> usize {
    inline_body(b"", terms).len()
}

/// The id of the new batch.
pub(super) async fn submit(
    client: &Client,
    input: &Prepared,
    terms: &Terms,
    (key, progress): (&str, &Progress),
) -> Result<String, ClientError> {
    let submission = match &input.inline {
        Some(tasks) => Submission { path: "/v1/batches", body: inline_body(tasks, terms) },
        None => {
            let file = client.upload(input, progress).await?;
            let wire = WireTerms {
                completion_window: terms.window.clone().or_else(|| Some(DEFAULT_WINDOW.to_owned())),
                ..wire(terms, Some(file.id))
            };
            Submission { path: "/openai/v1/batches", body: json(&wire) }
        }
    };
    Ok(client.create(submission, key, progress).await?.id)
}

/// The server's estimate as it came. A file that was sent for it is taken away again.
pub(super) async fn estimate(
    client: &Client,
    input: &Prepared,
    terms: &Terms,
    progress: &Progress,
) -> Result<Box<RawValue>, ClientError> {
    if let Some(tasks) = &input.inline {
        return client.estimate(inline_body(tasks, terms), progress).await;
    }
    let file = client.upload(input, progress).await?;
    let only = Terms { priority: terms.priority, ..Terms::default() };
    let estimate = client.estimate(json(&wire(&only, Some(file.id.clone()))), progress).await;
    client.delete_file(&file.id, progress).await?;
    estimate
}

/// `tasks[3].model: …; tasks[5]: …`, as the server says it, with the lines of the input.
pub(super) fn faults_of(message: &str, input: &Prepared) -> Vec<Fault> {
    let mut faults = Vec::new();
    for part in message.split("; ") {
        match at_task(part) {
            Some((task, what)) => faults.push(Fault { line: input.lines.line(task), what: what.to_owned() }),
            // The words of a fault may have a semicolon themselves.
            None => match faults.last_mut() {
                Some(last) => last.what = format!("{}; {part}", last.what),
                None => return Vec::new(),
            },
        }
    }
    faults
}

fn at_task(part: &str) -> Option<(u64, &str)> {
    let (index, what) = part.strip_prefix("tasks[")?.split_once(']')?;
    Some((index.parse().ok()?, what.trim_start_matches(['.', ':', ' '])))
}

fn inline_body(tasks: &[u8], terms: &Terms) -> Bytes {
    let terms = json(&wire(terms, None));
    let rest = terms.strip_prefix(b"{").filter(|rest| *rest != b"}");
    let mut body = Vec::with_capacity(tasks.len() + terms.len() + 16);
    body.extend_from_slice(b"{\"tasks\":[");
    body.extend_from_slice(tasks);
    body.extend_from_slice(if rest.is_some() { b"]," } else { b"]}" });
    body.extend_from_slice(rest.unwrap_or_default());
    body.into()
}

fn wire(terms: &Terms, input_file_id: Option<String>) -> WireTerms {
    let Terms { priority, max_cost_cents, window, webhook_url } = terms;
    WireTerms {
        input_file_id,
        priority: priority.map(|priority| priority.to_string()),
        webhook_url: webhook_url.clone(),
        max_cost_cents: max_cost_cents.and_then(|cents| RawValue::from_string(cents.to_cents_text()).ok()),
        completion_window: window.clone(),
    }
}

#[expect(clippy::expect_used, reason = "texts and raw JSON always serialize")]
fn json(terms: &WireTerms) -> Bytes {
    serde_json::to_vec(terms).expect("terms have only texts and raw JSON").into()
}
