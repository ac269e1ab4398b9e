//! Holds: reading an inline batch and checking every task of it before anything is stored.

use std::{collections::HashMap, str::FromStr};

use batchin_domain::{Class, Priority, webhook::TargetPolicy};
use batchin_gateway::{Gateway, Inbound, RequestError};
use batchin_openai::{Endpoint, Rewrite, rewrite};
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Tasks in one inline batch: more than fit into its bytes, so that the bytes are the limit people meet.
pub const MAX_TASKS: usize = 100_000;
/// Faults reported at once; whoever has more has made the same one over and over.
pub const MAX_FAULTS: usize = 100;
/// Longest `custom_id`, in bytes.
const MAX_CUSTOM_ID: usize = 512;

/// Something wrong with a batch, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFault {
    /// The field's path: `tasks[3].request_body.messages`.
    pub param: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A batch whose every task has been checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// How urgent it is.
    pub priority: Priority,
    /// Whom to tell when it has ended.
    pub webhook_url: Option<String>,
    /// Every task's body, one after the other.
    pub bodies: Bytes,
    /// The tasks, in the order given.
    pub tasks: Vec<OrderTask>,
}

/// One checked task.
#[derive(Clone, Debug)]
pub struct OrderTask {
    /// The owner's name for it; unique in the batch.
    pub custom_id: String,
    /// The model's id.
    pub model: String,
    /// The kind of call.
    pub endpoint: Endpoint,
    /// Where its body begins in [`Order::bodies`].
    pub offset: u64,
    /// How long its body is.
    pub len: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrder<'a> {
    #[serde(borrow)]
    tasks: Vec<&'a RawValue>,
    priority: Option<String>,
    webhook_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTask<'a> {
    custom_id: String,
    model: String,
    #[serde(borrow)]
    request_body: &'a RawValue,
    url: Option<String>,
}

impl Order {
    /// Reads and checks a batch. All faults come back at once, up to [`MAX_FAULTS`].
    /// `targets` says where webhooks may go.
    pub fn read(gateway: &Gateway, targets: &TargetPolicy, body: &[u8]) -> Result<Self, Vec<TaskFault>> {
        let raw: RawOrder<'_> = serde_json::from_slice(body).map_err(|cause| vec![json_fault("", &cause)])?;
        let mut faults = Vec::new();
        let priority = read_priority(raw.priority.as_deref(), &mut faults);
        let webhook_url = raw.webhook_url.filter(|url| check_webhook(targets, url, &mut faults));
        match raw.tasks.len() {
            0 => faults.push(fault("tasks", "must have at least one task")),
            n if n > MAX_TASKS => faults.push(fault("tasks", format!("must have at most {MAX_TASKS} tasks"))),
            _ => {}
        }
        let mut reader = TaskReader { gateway, class: priority.class(), seen: HashMap::new(), bodies: BytesMut::new() };
        let mut tasks = Vec::with_capacity(raw.tasks.len());
        for (index, task) in raw.tasks.iter().take(MAX_TASKS).enumerate() {
            match reader.read(index, task.get()) {
                Ok(task) => tasks.push(task),
                Err(fault) => faults.push(fault),
            }
            if faults.len() >= MAX_FAULTS {
                break;
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self { priority, webhook_url, bodies: reader.bodies.freeze(), tasks })
    }
}

struct TaskReader<'a> {
    gateway: &'a Gateway,
    class: Class,
    seen: HashMap<String, usize>,
    bodies: BytesMut,
}

impl TaskReader<'_> {
    fn read(&mut self, index: usize, text: &str) -> Result<OrderTask, TaskFault> {
        let at = format!("tasks[{index}]");
        let raw: RawTask<'_> = serde_json::from_str(text).map_err(|cause| json_fault(&at, &cause))?;
        self.check_custom_id(index, &raw.custom_id)?;
        let body_text = raw.request_body.get();
        if !body_text.starts_with('{') {
            return Err(fault(format!("{at}.request_body"), "must be an object: the body of the call"));
        }
        let endpoint = endpoint_of(&at, raw.url.as_deref(), body_text)?;
        // The task's model is the one that counts, whatever the body says.
        let body = Bytes::copy_from_slice(body_text.as_bytes());
        let body = rewrite(&body, &Rewrite { model: Some(&raw.model), ..Rewrite::default() });
        let request = batchin_domain::RequestId::new(self.gateway.ids().uuid());
        let inbound =
            Inbound { endpoint, body: body.clone(), request, class: self.class, task: None, idempotency: None };
        let checked = self.gateway.check(&inbound).map_err(|cause| request_fault(&at, &raw.model, cause))?;
        if streams(&body) {
            return Err(fault(
                format!("{at}.request_body.stream"),
                "must not be true: a task's answer is stored whole",
            ));
        }
        let (offset, len) = (self.bodies.len() as u64, body.len() as u64);
        self.bodies.extend_from_slice(&body);
        self.bodies.extend_from_slice(b"\n");
        Ok(OrderTask { custom_id: raw.custom_id, model: checked.model.id.clone(), endpoint, offset, len })
    }

    fn check_custom_id(&mut self, index: usize, custom_id: &str) -> Result<(), TaskFault> {
        let param = || format!("tasks[{index}].custom_id");
        if custom_id.is_empty() || custom_id.len() > MAX_CUSTOM_ID {
            return Err(fault(param(), format!("must have 1 to {MAX_CUSTOM_ID} bytes")));
        }
        match self.seen.insert(custom_id.to_owned(), index) {
            None => Ok(()),
            Some(first) => Err(fault(param(), format!("must be unique in the batch; tasks[{first}] has the same"))),
        }
    }
}

fn streams(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Stream {
        stream: Option<bool>,
    }
    serde_json::from_slice::<Stream>(body).is_ok_and(|body| body.stream == Some(true))
}

fn endpoint_of(at: &str, url: Option<&str>, body: &str) -> Result<Endpoint, TaskFault> {
    let served = || Endpoint::ALL.map(Endpoint::path).join(", ");
    match url {
        Some(url) => {
            Endpoint::from_url(url).ok_or_else(|| fault(format!("{at}.url"), format!("must be one of {}", served())))
        }
        None => Endpoint::infer(body.as_bytes()).ok_or_else(|| {
            let message =
                "must have `messages` (chat), `prompt` (completions) or `input` (embeddings), or the task a `url`";
            fault(format!("{at}.request_body"), message)
        }),
    }
}

fn read_priority(text: Option<&str>, faults: &mut Vec<TaskFault>) -> Priority {
    let parsed = text.map_or(Ok(Priority::High), Priority::from_str);
    parsed.unwrap_or_else(|()| {
        faults.push(fault("priority", "must be high, low or fill"));
        Priority::High
    })
}

fn check_webhook(targets: &TargetPolicy, url: &str, faults: &mut Vec<TaskFault>) -> bool {
    let checked = targets.check(url);
    if let Err(wrong) = &checked {
        faults.push(fault("webhook_url", wrong.to_string()));
    }
    checked.is_ok()
}

fn request_fault(at: &str, model: &str, cause: RequestError) -> TaskFault {
    match cause {
        RequestError::Invalid(invalid) => {
            let param = invalid.param.map_or_else(String::new, |param| format!(".{param}"));
            fault(format!("{at}.request_body{param}"), invalid.message)
        }
        RequestError::ModelNotFound { .. } => {
            fault(format!("{at}.model"), format!("no model `{model}` is served here; GET /v1/models lists them"))
        }
        RequestError::NotCapable { needs, .. } => {
            fault(format!("{at}.model"), format!("the model `{model}` does not serve {}", needs.name()))
        }
        RequestError::OverModelLimit { param, asked, limit } => {
            fault(format!("{at}.request_body.{param}"), format!("is {asked}; the model has at most {limit}"))
        }
        // Checking runs nothing, so the rest cannot happen; said plainly if it ever does.
        other => fault(at, other.to_string()),
    }
}

fn json_fault(at: &str, cause: &serde_json::Error) -> TaskFault {
    let text = cause.to_string();
    // serde says `… at line 1 column 2`; inside a task that is a place in the task.
    let (what, _) = text.rsplit_once(" at line ").unwrap_or((&text, ""));
    let message = match cause.classify() {
        serde_json::error::Category::Data => what.to_owned(),
        _ => format!("is not valid JSON at line {}, column {}: {what}", cause.line(), cause.column()),
    };
    fault(at, message)
}

fn fault(param: impl Into<String>, message: impl Into<String>) -> TaskFault {
    TaskFault { param: param.into(), message: message.into() }
}
