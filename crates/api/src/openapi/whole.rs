//! Holds: what the description says beyond what stands at the handlers: inference calls, bodies that are read by hand,
//! bounds of parameters, every base URL, and the refusals that any call may meet.

use batchin_domain::{CallKind, Makes};
use batchin_openai::SoundFormat;
use serde_json::{Map, Value, json};
use utoipa::IntoResponses as _;

use super::{bodies, money};
use crate::inference::Refusals;

/// Methods of a path.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// Calls of the process itself, which have no base URL.
const OWN: [&str; 5] = ["/healthz", "/health", "/readyz", "/metrics", "/openapi.json"];

const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// The description as it is given out, of what was generated from the handlers.
pub(crate) fn complete(mut whole: Value) -> Value {
    for (name, schema) in bodies::schemas().into_iter().chain(money::schemas()) {
        whole["components"]["schemas"][name] = schema;
    }
    let mut described = whole["paths"].take();
    for call in CallKind::answered() {
        described[call.path()] = json!({ "post": inference(call) });
    }
    for (path, call) in CallKind::BESIDE {
        described[path] = json!({ "post": inference(call) });
    }
    let mut paths = Map::new();
    for (path, mut item) in described.as_object().cloned().unwrap_or_default() {
        // The router's wildcard is an ordinary parameter to everybody else.
        let path = path.replace("{*", "{");
        for (method, call) in calls(&mut item) {
            complete_call(&path, &method, call);
        }
        for path in [Some(path.clone())].into_iter().chain(other_bases(&path)).flatten() {
            let mut item = item.clone();
            for (method, call) in calls(&mut item) {
                call["operationId"] = operation_id(&method, &path).into();
            }
            paths.insert(path, item);
        }
    }
    whole["paths"] = paths.into();
    whole
}

/// An inference call, which has no handler in the router: `front` answers it.
fn inference(call: CallKind) -> Value {
    let bodies::Inference { summary, schema, .. } = bodies::inference(call);
    // The protocol's owner, and how its streams are told.
    let (whose, stream) = match call {
        CallKind::Messages => ("Anthropic", "named events, the last of which is `message_stop`"),
        CallKind::Responses => ("OpenAI", "named events, the last of which has the whole response"),
        CallKind::Fim => ("Mistral", "events that close with `data: [DONE]`"),
        // Of these there are no streams.
        CallKind::Rerank => ("Cohere", ""),
        CallKind::Embeddings | CallKind::Images | CallKind::ImageEdits => ("OpenAI", ""),
        CallKind::Speech => ("OpenAI", "events `speech.audio.delta`, the last of which is `speech.audio.done`"),
        CallKind::Transcriptions | CallKind::Translations => {
            ("OpenAI", "events `transcript.text.delta`, the last of which is `transcript.text.done`")
        }
        CallKind::Video => ("", ""),
        CallKind::Chat | CallKind::Completions => ("OpenAI", "events that close with `data: [DONE]`"),
    };
    let passed = format!(
        "Every other field of {whose}'s API for this call is passed through, or refused where no server here can do it"
    );
    let mut content = json!({ "application/json": { "schema": { "type": "object" } } });
    let mut description = format!("{passed}.");
    if call.tells_events() {
        description = format!("{passed}; with `stream: true` the answer is server-sent\n{stream}.");
        content["text/event-stream"] = json!({ "schema": {
            "type": "object", "required": ["data"], "properties": { "data": { "type": "string" } },
            "description": format!("Each event, with `stream: true`: {stream}.") } });
    }
    if call.makes() == Makes::Sound {
        let sound = json!({ "schema": { "type": "string", "format": "binary" } });
        content =
            SoundFormat::ALL.map(|format| (format.content_type().to_owned(), sound.clone())).into_iter().collect();
        content["text/event-stream"] = json!({ "schema": { "type": "string" } });
        description = format!("{passed}; with `stream_format: sse` the answer is server-sent\n{stream}.");
    }
    let mut bodies = json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{schema}") } } });
    if call.hears() || call.shows() {
        bodies["multipart/form-data"] = json!({ "schema": bodies::as_form(call) });
    }
    if call.hears() {
        content["text/plain"] = json!({ "schema": { "type": "string" } });
        content["text/vtt"] = json!({ "schema": { "type": "string" } });
    }
    let mut responses = json!(Refusals::responses());
    if call == CallKind::Messages {
        for refusal in responses.as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
            refusal["content"]["application/json"]["schema"] = json!({ "$ref": "#/components/schemas/MessagesError" });
        }
    }
    if call.hears() || call.makes() == Makes::Pictures {
        responses["507"] = responses["503"].clone();
        responses["507"]["description"] = "The server's disk is nearly full".into();
    }
    responses["200"] = json!({ "description": format!("{whose}'s answer for this call"), "content": content });
    json!({
        "tags": ["Inference"], "summary": summary, "description": description,
        "parameters": [{ "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "Same key, same body: the first answer again", "schema": { "type": "string" } }],
        "requestBody": { "required": true, "content": bodies },
        "responses": responses,
    })
}

fn calls(item: &mut Value) -> Vec<(String, &mut Value)> {
    let members = item.as_object_mut().into_iter().flatten();
    members.filter(|(name, _)| METHODS.contains(&name.as_str())).map(|(name, call)| (name.clone(), call)).collect()
}

/// The paths under which a call answers too.
fn other_bases(path: &str) -> Vec<Option<String>> {
    let bare = |path: &str| path.strip_prefix("/v1").map(str::to_owned);
    match path.strip_prefix("/openai") {
        // Files and films have one shape.
        Some(below) if below.starts_with("/v1/files") || below.starts_with("/v1/videos") => {
            vec![Some(below.to_owned()), bare(below)]
        }
        Some(_) => Vec::new(),
        None => {
            let is_inference = CallKind::from_url(path).is_some() || path.starts_with("/v1/video");
            vec![bare(path), is_inference.then(|| format!("/openai{path}"))]
        }
    }
}

/// `get_v1_batches_id`: unique, as generated clients need it.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(method.to_owned(), |id, word| format!("{id}_{word}"))
}

fn complete_call(path: &str, method: &str, call: &mut Value) {
    if matches!((path, method), ("/v1/keys" | "/v1/topup/x402", "post")) {
        // Everything has a default, so a client may well send nothing.
        call["requestBody"]["required"] = false.into();
    }
    if let Some(body) = body_of(path, method) {
        call["requestBody"]["content"]["application/json"]["schema"] = body;
    }
    if (path, method) == ("/v1/batches", "post") {
        call["responses"]["200"]["content"]["application/json"]["schema"] = json!({ "anyOf": [
            { "$ref": "#/components/schemas/Batch" }, { "$ref": "#/components/schemas/OpenAiBatch" }] });
    }
    for parameter in call.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        complete_parameter(path, parameter);
    }
    // There a budget is what is used up, and money would not help.
    if call["responses"].get("402").is_some() && path != "/v1/usage/summary" {
        let told = "Where payments over x402 are set up and would help: what to sign, as x402 version 2 says it";
        call["responses"]["402"]["headers"]["PAYMENT-REQUIRED"] =
            json!({ "description": told, "required": false, "schema": { "type": "string" } });
    }
    refusals(path, call);
}

/// Bodies that have more than one shape.
fn body_of(path: &str, method: &str) -> Option<Value> {
    let either = |names: [&str; 2]| {
        let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
        json!({ "anyOf": names.map(schema) })
    };
    match (path, method) {
        ("/v1/batches", "post") => Some(either(["CreateBatch", "CreateBatchOfFile"])),
        ("/v1/batches/estimate", "post") => Some(either(["CreateBatch", "EstimateOfFile"])),
        ("/v1/messages/count_tokens", "post") => Some(json!({ "$ref": "#/components/schemas/CountTokensRequest" })),
        _ => None,
    }
}

fn complete_parameter(path: &str, parameter: &mut Value) {
    let name = parameter["name"].as_str().unwrap_or_default().to_owned();
    // What may be left out is left out, and not sent as null.
    if let Some(kinds) = parameter["schema"]["type"].as_array() {
        let kind = kinds.iter().find(|kind| *kind != "null").cloned().unwrap_or_default();
        parameter["schema"]["type"] = kind;
    }
    if parameter["in"] == "query" && parameter["required"] != true {
        // An empty one counts as absent.
        parameter["allowEmptyValue"] = true.into();
    }
    let bounds = match (path, name.as_str()) {
        (_, "offset") => json!({ "minimum": 0, "maximum": 1_000_000 }),
        ("/v1/batches/{id}" | "/v1/batches/{id}/results", "after") => json!({ "minimum": 0, "maximum": u32::MAX }),
        ("/v1/video" | "/openai/v1/videos", "after") => json!({ "pattern": "^video_[0-9a-f]{32}$" }),
        ("/openai/v1/videos/{id}/content", "variant") => json!({ "enum": ["video"] }),
        ("/openai/v1/files", "after") => json!({ "pattern": "^file-[0-9a-f]{32}$" }),
        ("/openai/v1/batches", "after") => json!({ "pattern": format!("^(batch_[0-9a-f]{{32}}|{UUID})$") }),
        ("/v1/webhooks/deliveries", "after") => json!({ "pattern": "^evt_[0-9a-f]{32}$" }),
        ("/v1/webhooks/deliveries", "status") => json!({ "enum": ["pending", "delivered", "failed", "off"] }),
        (_, "purpose") => json!({ "enum": batchin_domain::FilePurpose::ALL.map(batchin_domain::FilePurpose::name) }),
        (_, "order") => json!({ "enum": ["asc", "desc"] }),
        ("/v1/statements/{month}", "month") => {
            json!({ "pattern": r"^20[0-9]{2}-(0[1-9]|1[0-2])(\.(json|csv|pdf))?$" })
        }
        (_, "interval") => json!({ "enum": ["minute", "hour", "day"] }),
        (_, "model") => json!({ "minLength": 1, "pattern": r"^[^\u0000]+$" }),
        (_, "email") => bodies::email(),
        (_, "Idempotency-Key") => json!({ "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" }),
        _ => return,
    };
    for (bound, value) in bounds.as_object().into_iter().flatten() {
        parameter["schema"][bound] = value.clone();
    }
}

/// How any call of its kind can be refused, where its handler says nothing else.
fn refusals(path: &str, call: &mut Value) {
    if OWN.contains(&path) {
        return;
    }
    let has_body = call.get("requestBody").is_some();
    let is_public = call["security"].as_array().is_some_and(|all| all.iter().all(|one| one == &json!({})));
    let has_members = call["parameters"].as_array().is_some_and(|all| all.iter().any(|one| one["in"] != "path"));
    let mut refuse = |status: &str, description: &str| {
        if call["responses"].get(status).is_none() {
            call["responses"][status] = json!({ "description": description,
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } });
        }
    };
    if has_body || has_members {
        refuse("400", "The request is at fault");
    }
    if has_body {
        refuse("408", "The body did not arrive in time");
        refuse("413", "The body is over its limit");
        refuse("415", "The body is in an encoding that is not known");
    }
    if !is_public {
        refuse("401", "The key or session is missing or does not work");
    }
    refuse("503", "It cannot be answered now; `retry-after` says when to try again");
}
