//! Holds: reading an inline batch and checking every task of it before anything is stored.

use std::{collections::HashMap, str::FromStr};

use batchin_domain::{
    Amount, CallKind, Class, Counts, Priority, Window,
    text::{NOT_STORABLE, is_storable},
    webhook::TargetPolicy,
};
use batchin_gateway::{Checked, Gateway};
use batchin_openai::{Rewrite, meant_for, rewrite};
use batchin_store::BatchTerms;
use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    json::{Fault, is_array},
    lines::{LineFault, check_body, check_custom_id},
};

/// Tasks in one inline batch: more than fit into its bytes, so that the bytes are the limit people meet.
pub const MAX_TASKS: usize = 100_000;
/// Faults reported at once; whoever has more has made the same one over and over.
pub const MAX_FAULTS: usize = 100;

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
    /// What its owner asks of it.
    pub terms: BatchTerms,
    /// Its tasks as the lines of a file.
    pub lines: Bytes,
    /// The tasks, in the order given.
    pub tasks: Vec<OrderTask>,
}

/// One checked task.
#[derive(Clone, Debug)]
pub struct OrderTask {
    /// The owner's name for it; unique in the batch.
    pub custom_id: String,
    /// The kind of call.
    pub call: CallKind,
    /// Where its body begins in [`Order::lines`].
    pub offset: u64,
    /// How long its body is.
    pub len: u64,
    /// What checking it has shown.
    pub checked: CheckedTask,
}

/// What is known of a task before it runs.
#[derive(Clone, Debug)]
pub struct CheckedTask {
    /// The model's id.
    pub model: String,
    /// What it will consume, roughly.
    pub expected: Counts,
    /// What that costs.
    pub expected_cost: Amount,
    /// The most it can cost.
    pub max_cost: Amount,
}

impl From<Checked> for CheckedTask {
    fn from(checked: Checked) -> Self {
        Self {
            model: checked.model.id.clone(),
            expected: checked.expected,
            expected_cost: checked.expected_cost,
            max_cost: checked.cost,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct RawOrder<'a> {
    #[serde(borrow)]
    tasks: Vec<&'a RawValue>,
    priority: Option<String>,
    webhook_url: Option<String>,
    completion_window: Option<String>,
    #[serde(borrow)]
    max_cost_cents: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct RawTask<'a> {
    custom_id: String,
    model: String,
    #[serde(borrow)]
    request_body: &'a RawValue,
    url: Option<String>,
}

/// What every way of making a batch may ask of it, as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawTerms<'a> {
    /// `high`, `low` or `fill`.
    pub priority: Option<&'a str>,
    /// Whom to tell.
    pub webhook_url: Option<&'a str>,
    /// `24h`, `7d`.
    pub completion_window: Option<&'a str>,
    /// US cents, as they stand in the JSON.
    pub max_cost_cents: Option<&'a str>,
    /// A JSON object of texts.
    pub metadata: Option<&'a str>,
}

impl RawTerms<'_> {
    /// Checks all of them; every fault is added to `faults`. `targets` says where webhooks may go.
    pub fn check(&self, targets: &TargetPolicy, default: Priority, faults: &mut Vec<TaskFault>) -> BatchTerms {
        let webhook_url = self.webhook_url.filter(|url| check_webhook(targets, url, faults));
        BatchTerms {
            priority: read_priority(self.priority, default, faults),
            webhook_url: webhook_url.map(str::to_owned),
            window: self.completion_window.and_then(|text| read_window(text, faults)),
            max_cost: self.max_cost_cents.and_then(|text| read_max_cost(text, faults)),
            call: None,
            metadata: self.metadata.and_then(|text| read_metadata(text, faults)),
            output_seconds: None,
        }
    }
}

impl Order {
    /// Reads and checks a batch. All faults come back at once, up to [`MAX_FAULTS`].
    /// `targets` says where webhooks may go.
    pub fn read(gateway: &Gateway, targets: &TargetPolicy, body: &[u8]) -> Result<Self, Vec<TaskFault>> {
        refuse_array("", body).map_err(|fault| vec![fault])?;
        let raw: RawOrder<'_> = serde_json::from_slice(body).map_err(|cause| vec![json_fault("", &cause)])?;
        let mut faults = Vec::new();
        let terms = RawTerms {
            priority: raw.priority.as_deref(),
            webhook_url: raw.webhook_url.as_deref(),
            completion_window: raw.completion_window.as_deref(),
            max_cost_cents: raw.max_cost_cents.map(RawValue::get),
            metadata: raw.metadata.map(RawValue::get),
        };
        let terms = terms.check(targets, Priority::High, &mut faults);
        match raw.tasks.len() {
            0 => faults.push(fault("tasks", "must have at least one task")),
            n if n > MAX_TASKS => faults.push(fault("tasks", format!("must have at most {MAX_TASKS} tasks"))),
            _ => {}
        }
        let class = terms.priority.class();
        let mut reader = TaskReader { gateway, class, seen: HashMap::new(), lines: BytesMut::new() };
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
        Ok(Self { terms, lines: reader.lines.freeze(), tasks })
    }
}

struct TaskReader<'a> {
    gateway: &'a Gateway,
    class: Class,
    seen: HashMap<String, usize>,
    lines: BytesMut,
}

impl TaskReader<'_> {
    fn read(&mut self, index: usize, text: &str) -> Result<OrderTask, TaskFault> {
        let at = format!("tasks[{index}]");
        refuse_array(&at, text.as_bytes())?;
        let raw: RawTask<'_> = serde_json::from_str(text).map_err(|cause| json_fault(&at, &cause))?;
        check_custom_id(&raw.custom_id).map_err(|cause| of_task(&at, cause))?;
        if let Some(first) = self.seen.insert(raw.custom_id.clone(), index) {
            let message = format!("must be unique in the batch; tasks[{first}] has the same");
            return Err(fault(format!("{at}.custom_id"), message));
        }
        let body_text = raw.request_body.get();
        if !body_text.starts_with('{') {
            return Err(fault(format!("{at}.request_body"), "must be an object: the body of the call"));
        }
        let call = call_of(&at, raw.url.as_deref(), body_text)?;
        // The task's model is the one that counts, whatever the body says.
        let body = Bytes::copy_from_slice(body_text.as_bytes());
        let body = rewrite(&body, &Rewrite { model: Some(&raw.model), ..Rewrite::default() });
        let checked = check_body(self.gateway, (call, self.class), body.clone());
        let checked = checked.map_err(|cause| of_task(&at, cause))?.into();
        let (offset, len) = self.write_line(&raw.custom_id, call, &body);
        Ok(OrderTask { custom_id: raw.custom_id, call, offset, len, checked })
    }

    /// Adds the line; returns where its body lies.
    fn write_line(&mut self, custom_id: &str, call: CallKind, body: &[u8]) -> (u64, u64) {
        let custom_id = serde_json::Value::from(custom_id);
        let head = format!(r#"{{"custom_id":{custom_id},"method":"POST","url":"{}","body":"#, call.path());
        self.lines.extend_from_slice(head.as_bytes());
        let offset = self.lines.len();
        put_on_one_line(&mut self.lines, body);
        let len = self.lines.len() - offset;
        self.lines.extend_from_slice(b"}\n");
        (offset as u64, len as u64)
    }
}

/// Adds valid JSON without its line breaks, which are white space: inside a text they would have to be escaped.
pub(crate) fn put_on_one_line(line: &mut BytesMut, json: &[u8]) {
    for piece in json.split(|byte| matches!(byte, b'\n' | b'\r')) {
        line.put_slice(piece);
    }
}

/// A fault of a line, where it stands in the request.
fn of_task(at: &str, cause: LineFault) -> TaskFault {
    let param = match cause.param.as_deref() {
        Some("body.model") => ".model".to_owned(),
        Some(param) => match param.strip_prefix("body") {
            Some(rest) => format!(".request_body{rest}"),
            None => format!(".{param}"),
        },
        None => String::new(),
    };
    fault(format!("{at}{param}"), cause.message)
}

fn call_of(at: &str, url: Option<&str>, body: &str) -> Result<CallKind, TaskFault> {
    match url {
        Some(url) => CallKind::from_url(url)
            .ok_or_else(|| fault(format!("{at}.url"), format!("must be one of {}", CallKind::paths()))),
        None => meant_for(body.as_bytes()).ok_or_else(|| {
            let prompts: Vec<_> =
                CallKind::asked().map(|call| format!("`{}` ({})", call.prompt(), call.needs().name())).collect();
            let message = format!("must have {}, or the task a `url`", one_of(&prompts));
            fault(format!("{at}.request_body"), message)
        }),
    }
}

/// `a, b or c`.
fn one_of(all: &[String]) -> String {
    match all {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        few => few.concat(),
    }
}

fn read_priority(text: Option<&str>, default: Priority, faults: &mut Vec<TaskFault>) -> Priority {
    let parsed = text.map_or(Ok(default), Priority::from_str);
    parsed.unwrap_or_else(|()| {
        faults.push(fault("priority", "must be high, low or fill"));
        default
    })
}

fn read_window(text: &str, faults: &mut Vec<TaskFault>) -> Option<Window> {
    let window = text.parse().ok();
    if window.is_none() {
        faults.push(fault("completion_window", "must be whole hours or days from 1h to 7d, such as \"24h\""));
    }
    window
}

fn read_max_cost(text: &str, faults: &mut Vec<TaskFault>) -> Option<Amount> {
    match Amount::parse_cents(text) {
        Ok(amount) => Some(amount),
        Err(cause) => {
            faults.push(fault("max_cost_cents", cause.to_string()));
            None
        }
    }
}

/// OpenAI's bounds: 16 pairs, keys of 64 characters, values of 512.
fn read_metadata(text: &str, faults: &mut Vec<TaskFault>) -> Option<String> {
    const PAIRS: usize = 16;
    const KEY: usize = 64;
    const VALUE: usize = 512;
    let pairs: Option<std::collections::BTreeMap<String, String>> = serde_json::from_str(text).ok();
    let fits = |(key, value): (&String, &String)| key.chars().count() <= KEY && value.chars().count() <= VALUE;
    if pairs.iter().flatten().any(|(key, value)| !is_storable(key) || !is_storable(value)) {
        faults.push(fault("metadata", NOT_STORABLE));
        return None;
    }
    match pairs.filter(|pairs| pairs.len() <= PAIRS && pairs.iter().all(fits)) {
        Some(pairs) if pairs.is_empty() => None,
        Some(pairs) => serde_json::to_string(&pairs).ok(),
        None => {
            let message = format!(
                "must be an object of at most {PAIRS} texts, with keys of at most {KEY} and values of at most {VALUE} \
                 characters"
            );
            faults.push(fault("metadata", message));
            None
        }
    }
}

fn check_webhook(targets: &TargetPolicy, url: &str, faults: &mut Vec<TaskFault>) -> bool {
    if !is_storable(url) {
        faults.push(fault("webhook_url", NOT_STORABLE));
        return false;
    }
    let checked = targets.check(url);
    if let Err(wrong) = &checked {
        faults.push(fault("webhook_url", wrong.to_string()));
    }
    checked.is_ok()
}

fn refuse_array(at: &str, json: &[u8]) -> Result<(), TaskFault> {
    if is_array(json) { Err(fault(at, "must be an object, not an array")) } else { Ok(()) }
}

fn json_fault(at: &str, cause: &serde_json::Error) -> TaskFault {
    let Fault { what, is_syntax } = Fault::of(cause);
    let message = if is_syntax {
        format!("is not valid JSON at line {}, column {}: {what}", cause.line(), cause.column())
    } else {
        what
    };
    fault(at, message)
}

fn fault(param: impl Into<String>, message: impl Into<String>) -> TaskFault {
    TaskFault { param: param.into(), message: message.into() }
}
