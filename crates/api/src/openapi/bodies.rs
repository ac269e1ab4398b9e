//! Holds: the schemas of bodies that are passed through or read field by field, as far as this server judges them.
//!
//! What a model server may judge otherwise is described in words: a schema that is stricter than the server would have
//! clients refuse what works, and a looser one would have them send what does not.

use batchin_domain::{
    AspectRatio, CallKind,
    film::{MAX_FILM_PROMPT, MAX_FILM_SECONDS},
};
use batchin_openai::{MAX_PICTURES, MAX_SPEECH_CHARACTERS, PictureFormat, SoundFormat, TranscriptFormat};
use serde_json::{Value, json};

/// Something on both sides of one `@`, blanks around it aside.
const EMAIL: &str = r"^[ \u00a0]*[^@\s\u0000-\u001f\u007f-\u009f]+@[^@\s\u0000-\u001f\u007f-\u009f]+[ \u00a0]*$";
/// Anything but control characters.
const PLAIN: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// The same with something to see.
const NAME: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
/// Whole hours or days from `1h` to `7d`.
const WINDOW: &str = r"^(0*([1-9]|[1-9][0-9]|1[0-5][0-9]|16[0-8])h|0*[1-7]d)$";
/// A public receiver.
pub(super) const WEBHOOK: &str =
    r"^https://([a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?\.){1,3}[a-z]{2,10}(/[a-zA-Z0-9/_.-]*)?$";
/// The last amount that fits the ledger, in cents.
const MAX_CENTS: u64 = 922_337_203_685;

/// What is said of a kind of inference call.
pub(super) struct Inference {
    /// What it does.
    pub summary: &'static str,
    /// The component that is its body.
    pub schema: &'static str,
    /// A model that serves it.
    model: &'static str,
    /// Its body, but for the model.
    body: fn() -> Value,
}

/// A line for each kind.
pub(super) const fn inference(call: CallKind) -> Inference {
    let (summary, schema, model, body): (_, _, _, fn() -> Value) = match call {
        CallKind::Chat => ("Continue a conversation", "ChatRequest", "smollm2-135m-instruct", chat),
        CallKind::Completions => ("Continue a text", "CompletionRequest", "smollm2-135m-instruct", completion),
        CallKind::Embeddings => ("Embed texts", "EmbeddingsRequest", "all-minilm-l6-v2", embeddings),
        CallKind::Rerank => ("Rank documents by a query", "RerankRequest", "bge-reranker-v2-m3", rerank),
        CallKind::Responses => {
            ("Continue a conversation, as items", "ResponsesRequest", "smollm2-135m-instruct", response)
        }
        CallKind::Messages => {
            ("Continue a conversation, as Anthropic's API does", "MessagesRequest", "smollm2-135m-instruct", messages)
        }
        CallKind::Speech => ("Speak a text", "SpeechRequest", "espeak-ng", speech),
        CallKind::Transcriptions => ("Write down what is said", "TranscriptionRequest", "whisper-tiny.en", transcript),
        CallKind::Translations => {
            ("Translate what is said into English", "TranslationRequest", "whisper-1", transcript)
        }
        CallKind::Images => ("Make pictures", "ImageRequest", "qwen-image", picture),
        CallKind::ImageEdits => ("Change pictures", "ImageEditRequest", "qwen-image-edit", edited),
        CallKind::Video => ("Have a film made", "VideoRequest", "wan2.2-t2v", video),
        CallKind::Fim => ("Fill in the middle, as Mistral's API does", "FimRequest", "smollm2-135m-instruct", fim),
    };
    Inference { summary, schema, model, body }
}

/// Schemas by the names of their components.
pub(super) fn schemas() -> Vec<(&'static str, Value)> {
    let calls = CallKind::ALL.map(inference).map(|call| (call.schema, of_model((call.body)(), call.model)));
    let mut schemas = vec![
        ("CreateUser", create_user()),
        ("Login", login()),
        ("UpdateUser", update_user()),
        ("CreateKey", closed(&[], key_fields(false))),
        ("UpdateKey", closed(&[], key_fields(true))),
        ("Message", message()),
        ("ContentPart", content_part()),
        ("Texts", texts()),
        ("CreateTask", create_task()),
        ("CreateBatch", create_batch()),
        ("CreateBatchOfFile", create_batch_of_file()),
        ("EstimateOfFile", closed(&["input_file_id"], json!({ "input_file_id": file_id(), "priority": priority() }))),
        ("UploadFile", upload()),
        ("CreateVoice", create_voice()),
        ("CreateAudit", create_audit()),
        ("CreateVideo", of_model(openai_video(), inference(CallKind::Video).model)),
        ("CountTokensRequest", of_model(counted(), inference(CallKind::Messages).model)),
    ];
    schemas.extend(calls);
    schemas
}

/// An email as a parameter or member.
pub(super) fn email() -> Value {
    json!({ "type": "string", "minLength": 3, "maxLength": 254, "pattern": EMAIL, "examples": ["ada@example.com"] })
}

/// An object that takes these members alone.
pub(super) fn closed(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

fn password() -> Value {
    json!({ "type": "string", "minLength": 8, "maxLength": 1024, "examples": ["correct horse battery"] })
}

fn create_user() -> Value {
    let mut email = email();
    email["description"] = "Unique; kept in lower case.".into();
    let name = json!({ "type": "string", "minLength": 1, "maxLength": 200, "pattern": NAME, "examples": ["Ada"] });
    closed(&["email", "name", "password"], json!({ "email": email, "name": name, "password": password() }))
}

fn login() -> Value {
    closed(&["email", "password"], json!({ "email": email(), "password": { "type": "string" } }))
}

fn update_user() -> Value {
    let mut new = password();
    new["description"] = "A new one; ends every session. It needs the old one beside it.".into();
    let properties = |password: Value, old: Value| {
        let name = json!({ "type": ["string", "null"], "minLength": 1, "maxLength": 200, "pattern": NAME });
        json!({ "name": name, "password": password, "old_password": old })
    };
    let old = json!({ "type": ["string", "null"] });
    json!({ "description": "What to change; what is left out stays.", "anyOf": [
        closed(&[], properties(json!({ "type": "null" }), old)),
        closed(&["password", "old_password"], properties(new, json!({ "type": "string" }))),
    ] })
}

/// What an amount may be that a client sends.
pub(super) fn cents(description: &str) -> Value {
    json!({ "type": ["number", "null"], "minimum": 0, "maximum": MAX_CENTS, "multipleOf": 1e-7,
        "description": description, "examples": [500] })
}

fn key_fields(is_change: bool) -> Value {
    let (no_limit, default) = ("null: no limit.", "null: what the operator has configured.");
    let budget = "US cents that may be spent in a calendar month; 0: nothing. ";
    let mut fields = json!({
        "name": { "type": ["string", "null"], "maxLength": 200, "pattern": PLAIN },
        "rate_limit_rpm": { "type": ["integer", "null"], "minimum": 1, "maximum": 10_000_000,
            "description": format!("Requests in a calendar minute. {default}"), "examples": [600] },
        "monthly_budget_cents": cents(&format!("{budget}{no_limit}")),
    });
    if is_change {
        fields["is_active"] = json!({ "type": ["boolean", "null"] });
    }
    fields
}

fn create_audit() -> Value {
    let name = |kind: Value| json!({ "type": kind, "minLength": 1, "maxLength": 256, "pattern": PLAIN });
    let text = json!({ "type": "string", "description": "Up to 1 MiB as UTF-8. Hashed and not kept." });
    let mut gpu = name(json!(["string", "null"]));
    gpu["description"] = "As you say; nobody checks it.".into();
    closed(
        &["input_text", "output_text", "model_id"],
        json!({ "input_text": text, "output_text": text, "model_id": name("string".into()), "gpu_id": gpu }),
    )
}

fn create_voice() -> Value {
    let text = |most: usize| json!({ "type": "string", "minLength": 1, "maxLength": most, "pattern": NAME });
    let mut name = text(128);
    name["pattern"] =
        r"^[^/\u0000-\u001f\u007f-\u009f]*[^\s/\u0000-\u001f\u007f-\u009f][^/\u0000-\u001f\u007f-\u009f]*$".into();
    let (mut words, mut consent, mut sample) = (text(4_096), text(1_024), json!({ "type": "string" }));
    words["description"] = "What is said in the recording.".into();
    consent["description"] = "That the speaker agrees, or the form in which they do.".into();
    sample["description"] = "A recording of 1 to 60 s: a file in a form, a data URI in JSON.".into();
    closed(
        &["name", "ref_text", "consent", "audio_sample"],
        json!({ "name": name, "ref_text": words, "consent": consent, "audio_sample": sample }),
    )
}

fn speech() -> Value {
    let voice = json!({ "anyOf": [
        { "type": "string", "minLength": 1, "maxLength": 128, "pattern": PLAIN },
        closed(&["id"], json!({ "id": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": PLAIN } })),
        { "type": "null" },
    ], "description": "A voice of the model, one that the account has made, or OpenAI's name of one.", "examples": ["alloy"] });
    let formats = SoundFormat::ALL.map(SoundFormat::name);
    passed_through(
        &["input"],
        json!({
            "input": { "type": "string", "minLength": 1, "maxLength": MAX_SPEECH_CHARACTERS, "pattern": r"\S",
                "examples": ["Hello."] },
            "voice": voice,
            "response_format": { "type": ["string", "null"], "enum": formats.iter().map(|name| json!(name)).chain([Value::Null]).collect::<Vec<_>>() },
            "speed": { "type": ["number", "null"], "minimum": 0.25, "maximum": 4.0 },
            "stream_format": { "type": ["string", "null"], "enum": ["audio", "sse", null],
                "description": "`sse`: server-sent events with the sound in base64." },
        }),
        false,
    )
}

fn transcript() -> Value {
    let formats = TranscriptFormat::ALL.map(TranscriptFormat::name);
    let described = "The sound as a data URI; in a form, the file.";
    json!({ "type": "object", "required": ["file"], "properties": {
        "file": { "type": "string", "pattern": "^data:[a-z0-9/.+-]*;base64,", "description": described },
        "language": { "type": ["string", "null"], "description": "What is spoken, as `en`.", "examples": ["en"] },
        "prompt": { "type": ["string", "null"], "description": "What was said before, or names that are said." },
        "response_format": { "enum": formats.iter().map(|name| json!(name)).chain([Value::Null]).collect::<Vec<_>>(),
            "description": "`json` without it. A stream has `json`, `text` or `diarized_json`." },
        "temperature": { "type": ["number", "null"], "minimum": 0, "maximum": 2 },
        "stream": { "type": ["boolean", "null"], "description": "Whether the answer comes as server-sent events." },
    }, "description": "Every other member of OpenAI's API for this call is passed through." })
}

/// A body that comes as a form, whose file is one.
pub(super) fn as_form(call: CallKind) -> Value {
    let Inference { body, model, .. } = inference(call);
    if call.shows() {
        return of_model(edited_as_form(), model);
    }
    let mut form = of_model(body(), model);
    form["properties"]["file"] = json!({ "type": "string", "format": "binary", "minLength": 1,
        "description": "Wav, mp3, aac, ogg (opus or vorbis), flac, mp4, m4a or webm." });
    for (name, kind) in [("language", "string"), ("prompt", "string"), ("temperature", "number"), ("stream", "boolean")]
    {
        form["properties"][name]["type"] = kind.into();
    }
    form["properties"]["response_format"]["enum"] = TranscriptFormat::ALL.map(TranscriptFormat::name).as_slice().into();
    let times = json!({ "type": "array", "items": { "enum": ["word", "segment"] },
        "description": "What `verbose_json` has the times of." });
    form["properties"]["timestamp_granularities[]"] = times;
    form
}

fn picture() -> Value {
    let formats = PictureFormat::ALL.map(PictureFormat::name);
    passed_through(
        &["prompt"],
        json!({
            "prompt": film_prompt(),
            "n": { "type": ["integer", "null"], "minimum": 1, "maximum": MAX_PICTURES },
            "size": { "type": ["string", "null"], "pattern": r"^(auto|([1-9][0-9]{2}|[1-3][0-9]{3})x([1-9][0-9]{2}|[1-3][0-9]{3}))$",
                "examples": ["1024x1024"],
                "description": "Width and height in pixels, each from 64 to 4096; `1024x1024` without it." },
            "response_format": { "enum": ["url", "b64_json", null],
                "description": "An address that works for a day without a key, or the picture itself." },
            "output_format": { "enum": formats.iter().map(|name| json!(name)).chain([Value::Null]).collect::<Vec<_>>(),
                "description": "Made here where the model server cannot; its own without it." },
            "output_compression": { "type": ["integer", "null"], "minimum": 0, "maximum": 100 },
        }),
        false,
    )
}

fn edited() -> Value {
    let uri = |description: &str| json!({ "type": "string", "pattern": "^data:[a-z0-9/.+-]*;base64,", "description": description });
    let mut body = picture();
    body["required"] = json!(["prompt", "image"]);
    body["properties"]["image"] = json!({ "anyOf": [
        uri("The picture as a data URI; in a form, the file."),
        { "type": "array", "minItems": 1, "maxItems": 16, "items": uri("Each of several.") } ] });
    body["properties"]["mask"] = uri("Where it is to be changed: a data URI; in a form, a file.");
    body["properties"]["mask"]["type"] = json!(["string", "null"]);
    body["properties"]["size"]["description"] =
        "Width and height in pixels; what the model server makes of the picture without it.".into();
    body
}

/// The same as a form.
fn edited_as_form() -> Value {
    let mut form = edited();
    let file = json!({ "type": "string", "format": "binary", "minLength": 1, "description": "PNG, JPEG or WebP." });
    for name in ["image", "mask"] {
        form["properties"][name] = file.clone();
    }
    form["properties"]["image[]"] = json!({ "type": "array", "maxItems": 16, "items": file });
    for (name, kind) in [("n", "integer"), ("size", "string"), ("output_compression", "integer")] {
        form["properties"][name]["type"] = kind.into();
    }
    form["properties"]["response_format"]["enum"] = json!(["url", "b64_json"]);
    form["properties"]["output_format"]["enum"] = PictureFormat::ALL.map(PictureFormat::name).as_slice().into();
    form
}

fn video() -> Value {
    let ratios = AspectRatio::ALL.map(AspectRatio::name);
    closed(
        &["prompt"],
        json!({
            "prompt": film_prompt(),
            "duration_seconds": { "type": ["integer", "null"], "minimum": 1, "maximum": MAX_FILM_SECONDS,
                "description": "4 without it. A server may be set up for less." },
            "aspect_ratio": { "enum": ratios.iter().map(|name| json!(name)).chain([Value::Null]).collect::<Vec<_>>(),
                "description": "`16:9` without it." },
        }),
    )
}

fn film_prompt() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": MAX_FILM_PROMPT, "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
        "examples": ["A red kite over the sea."] })
}

/// A film in OpenAI's shape.
fn openai_video() -> Value {
    let seconds = (1..=MAX_FILM_SECONDS).map(|seconds| json!(seconds.to_string())).chain([Value::Null]);
    closed(
        &["prompt"],
        json!({
            "prompt": film_prompt(),
            "seconds": { "enum": seconds.collect::<Vec<_>>(), "description": "`4` without it." },
            "size": { "type": ["string", "null"], "pattern": "^[0-9]{2,4}x[0-9]{2,4}$", "examples": ["848x480"],
                "description": "Width and height in steps of 16 pixels, no larger than the model's films." },
        }),
    )
}

/// Text that can be stored.
const STORABLE: &str = r"^[^\u0000]*$";

/// A call's body: what this server judges, and whatever else OpenAI's API has.
fn passed_through(required: &[&str], mut properties: Value, stream: bool) -> Value {
    // Completions may ask for no tokens at all: the prompt's own logprobs. A limit above the model's counts as the model's.
    let least = u32::from(!required.contains(&"prompt"));
    let counts = [
        ("max_tokens", least, None),
        ("max_completion_tokens", least, None),
        ("n", 1, Some(128)),
        ("best_of", 0, Some(128)),
    ];
    for (name, least, most) in counts.into_iter().filter(|_| stream) {
        properties[name] = json!({ "type": ["integer", "null"], "minimum": least });
        if let Some(most) = most {
            properties[name]["maximum"] = most.into();
        }
    }
    if stream {
        properties["temperature"] = json!({ "type": ["number", "null"], "minimum": 0, "maximum": 2 });
        properties["service_tier"] = service_tier();
        let described = "Whether the answer comes as server-sent events.";
        properties["stream"] = json!({ "type": ["boolean", "null"], "description": described });
        properties["stream_options"] = json!({ "type": ["object", "null"],
            "properties": { "include_usage": { "type": ["boolean", "null"] } } });
    }
    json!({ "type": "object", "required": required, "properties": properties,
        "description": "Every other member of OpenAI's API for this call is passed through." })
}

fn service_tier() -> Value {
    json!({ "enum": ["auto", "default", "flex", "priority", "scale", "fast", null],
        "description": "flex: for less, when the model servers have room; any other: at once." })
}

fn chat() -> Value {
    let messages = json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/components/schemas/Message" } });
    passed_through(&["messages"], json!({ "messages": messages }), true)
}

fn message() -> Value {
    json!({
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": { "type": "string", "minLength": 1, "examples": ["user"], "anyOf": [
                { "enum": ["system", "developer", "user", "assistant", "tool", "function"] },
                { "description": "What else the model's template knows." } ] },
            "content": { "anyOf": [
                { "type": ["string", "null"] },
                { "type": "array", "items": { "$ref": "#/components/schemas/ContentPart" } } ] },
        },
        "description": "A message of a conversation; other members, such as `tool_calls`, are passed through.",
    })
}

fn content_part() -> Value {
    json!({
        "anyOf": [
            { "type": "string" },
            { "type": "object", "properties": {
                "type": { "type": "string", "examples": ["text"], "anyOf": [
                    { "enum": ["text", "image_url", "input_audio", "file", "refusal"] },
                    { "description": "What else the model server knows." } ] } } } ],
        "description": "A part of a message, as in OpenAI's API.",
    })
}

fn texts() -> Value {
    let token = json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX });
    json!({
        "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "array", "minItems": 1, "maxItems": 2048, "items": { "type": "string", "minLength": 1 } },
            { "type": "array", "minItems": 1, "items": token },
            { "type": "array", "minItems": 1, "maxItems": 2048,
                "items": { "type": "array", "minItems": 1, "items": token } } ],
        "description": "A text, texts, token ids, or lists of token ids; none of them empty. Embeddings of token ids are refused \
                        unless the model is configured to take them.",
    })
}

fn completion() -> Value {
    let properties = json!({
        "prompt": { "$ref": "#/components/schemas/Texts" },
        "suffix": { "type": ["string", "null"], "description": "What comes after the answer: fill in the middle. `prompt` is then one string." },
    });
    passed_through(&["prompt"], properties, true)
}

fn embeddings() -> Value {
    let properties = json!({
        "input": { "$ref": "#/components/schemas/Texts" },
        "encoding_format": { "enum": ["float", "base64", null], "examples": ["float"],
            "description": "Whatever the model server knows, vectors come as is asked here: `float` without it." },
    });
    passed_through(&["input"], properties, false)
}

fn fim() -> Value {
    json!({ "type": "object", "required": ["prompt"], "properties": {
        "prompt": { "type": "string", "minLength": 1, "description": "What comes before the answer." },
        "suffix": { "type": "null", "description": "A text: what comes after it, on models that fill in the middle." },
        "max_tokens": { "type": ["integer", "null"], "minimum": 0, "maximum": u32::MAX },
        "temperature": { "type": ["number", "null"], "minimum": 0, "maximum": 2 },
        "stream": { "type": ["boolean", "null"], "description": "Whether the answer comes as server-sent events." },
    }, "description": "Mistral's API for the middle of a text." })
}

fn rerank() -> Value {
    let text = json!({ "type": "object", "required": ["text"], "properties": { "text": { "type": "string" } } });
    let count = |most: Option<u32>, description: &str| {
        let mut count = json!({ "type": ["integer", "null"], "minimum": 1, "description": description });
        if let Some(most) = most {
            count["maximum"] = most.into();
        }
        count
    };
    json!({ "type": "object", "required": ["query", "documents"], "properties": {
        "query": { "type": "string", "minLength": 1 },
        "documents": { "type": "array", "minItems": 1, "maxItems": 2048, "items": { "anyOf": [{ "type": "string" }, text] } },
        "top_n": count(None, "How many of the best are told; without it, all."),
        "return_documents": { "type": ["boolean", "null"], "description": "Whether their texts are told too." },
        "max_chunks_per_doc": count(Some(1_000), "In how many pieces a long document is read, where the model server can."),
    }, "description": "Cohere's and Jina's API for this call; every other member is passed through." })
}

fn response() -> Value {
    let text = |text: &str| json!({ "type": ["string", "null"], "description": text });
    let limit = json!({ "type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX });
    let item = json!({ "type": "object", "required": ["role", "content"], "properties": {
        "role": { "enum": ["user", "assistant", "system", "developer"] },
        "content": { "type": "string", "description": "A text, or a list of parts as in OpenAI's API." } } });
    json!({ "type": "object", "required": ["input"], "properties": {
        "input": { "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "minItems": 1, "items": item }],
            "description": "A text, or the whole conversation as a list of items: messages, and as in OpenAI's API function \
                            calls, their outputs and reasoning." },
        "instructions": text("What the model is to do, before the conversation."),
        "max_output_tokens": limit,
        "service_tier": service_tier(),
        "temperature": { "type": ["number", "null"], "minimum": 0, "maximum": 2 },
        "stream": { "type": ["boolean", "null"], "description": "Whether the answer comes as server-sent events." },
        "store": { "enum": [false, null], "description": "Nothing is kept here: send the whole conversation each time." },
    }, "description": "OpenAI's Responses API, but for what is kept between calls and for tools that the server would run." })
}

fn messages() -> Value {
    let block = json!({ "type": "object", "required": ["type", "text"], "properties": {
        "type": { "const": "text" }, "text": { "type": "string" } },
        "description": "A text; also images, documents, tool calls, their results and thoughts, as in Anthropic's API." });
    let message = json!({ "type": "object", "required": ["role", "content"], "properties": {
        "role": { "enum": ["user", "assistant"] },
        "content": { "anyOf": [{ "type": "string" }, { "type": "array", "minItems": 1, "items": block }] } } });
    json!({ "type": "object", "required": ["messages", "max_tokens"], "properties": {
        "messages": { "type": "array", "minItems": 1, "items": message },
        "max_tokens": { "type": "integer", "minimum": 1, "maximum": u32::MAX },
        "system": { "type": ["string", "null"] },
        "temperature": { "type": ["number", "null"], "minimum": 0, "maximum": 1 },
        "stream": { "type": ["boolean", "null"], "description": "Whether the answer comes as server-sent events." },
    }, "description": "Anthropic's Messages API, but for tools that the server would run." })
}

/// A message's body whose limit may be left out.
fn counted() -> Value {
    let mut body = messages();
    body["required"] = json!(["messages"]);
    body
}

/// A body that names its model.
fn of_model(mut body: Value, example: &str) -> Value {
    body["properties"]["model"] = json!({ "type": "string", "minLength": 1, "maxLength": 256, "examples": [example],
        "description": "Its id or an alias; GET /v1/models lists them." });
    if let Some(required) = body["required"].as_array_mut() {
        required.insert(0, "model".into());
    }
    body
}

fn create_task() -> Value {
    let kind = |call: CallKind| {
        let mut body = (inference(call).body)();
        if call.generates() {
            // The answer is stored whole.
            body["properties"]["stream"] = json!({ "enum": [false, null] });
        }
        let properties = json!({
            "custom_id": { "type": "string", "minLength": 1, "maxLength": 512, "pattern": STORABLE, "examples": ["task-1"],
                "description": "Unique in the batch." },
            "model": { "type": "string", "minLength": 1, "maxLength": 256, "examples": ["smollm2-135m-instruct"] },
            "request_body": body,
            "url": { "enum": [call.path(), call.path_below_v1(), null],
                "description": "The call; without it, it follows from the body." },
        });
        closed(&["custom_id", "model", "request_body"], properties)
    };
    json!({ "description": "A request to be made later: the body of the call, without `model`.",
        "anyOf": CallKind::by_meaning().map(kind).collect::<Vec<_>>() })
}

/// What every batch may be asked.
fn terms() -> Value {
    json!({
        "priority": priority(),
        "webhook_url": { "type": ["string", "null"], "pattern": WEBHOOK, "examples": ["https://example.com/hook"],
            "description": "Where to tell of its end; see POST /v1/webhooks/secret." },
        "completion_window": { "type": ["string", "null"], "pattern": WINDOW, "examples": ["24h"],
            "description": "How long it may take: whole hours or days, from `1h` to `7d`. Without it, as long as it takes." },
        "max_cost_cents": cents("It stops before it costs more."),
        "metadata": { "type": ["object", "null"], "maxProperties": 16, "propertyNames": { "maxLength": 64, "pattern": STORABLE },
            "additionalProperties": { "type": "string", "maxLength": 512, "pattern": STORABLE },
            "description": "At most 16 pairs of texts." },
    })
}

fn priority() -> Value {
    json!({ "enum": ["high", "low", "fill", null], "description": "The price follows from it.", "examples": ["low"] })
}

fn file_id() -> Value {
    json!({ "type": "string", "examples": ["file-0197f3a000007000800000000000000a"] })
}

fn create_batch() -> Value {
    let mut properties = terms();
    properties["tasks"] = json!({ "type": "array", "minItems": 1, "maxItems": 100_000,
        "items": { "$ref": "#/components/schemas/CreateTask" } });
    let mut body = closed(&["tasks"], properties);
    body["description"] = "Tasks to be run later. Without a priority, `high`.".into();
    body
}

fn create_batch_of_file() -> Value {
    let mut properties = terms();
    properties["input_file_id"] = file_id();
    properties["completion_window"]["type"] = "string".into();
    let paths = CallKind::answered().map(CallKind::path).chain(CallKind::answered().map(CallKind::path_below_v1));
    properties["endpoint"] = json!({
        "enum": paths.map(Value::from).chain([Value::Null]).collect::<Vec<_>>(),
        "description": "The kind of call of every line. Ours: without it, lines may differ." });
    let mut expiry = closed(
        &["anchor", "seconds"],
        json!({ "anchor": { "const": "created_at" },
            "seconds": { "type": "integer", "minimum": 3_600, "maximum": 2_592_000 } }),
    );
    expiry["description"] = "When a batch's output and error files go by themselves.".into();
    properties["output_expires_after"] = json!({ "anyOf": [expiry, { "type": "null" }] });
    let mut body = closed(&["input_file_id", "completion_window"], properties);
    body["description"] =
        "A file to be run. Without a priority, `low`, which is half price. Priority, webhook and highest cost are ours."
            .into();
    body
}

fn upload() -> Value {
    let (anchor, seconds) = ("expires_after[anchor]", "expires_after[seconds]");
    json!({
        "type": "object",
        "required": ["file", "purpose"],
        "properties": {
            "file": { "type": "string", "format": "binary", "minLength": 1, "description": "The file, with its name." },
            "purpose": { "enum": ["batch", "user_data", "assistants", "vision", "fine-tune", "evals"] },
            anchor: { "const": "created_at" },
            seconds: { "type": "integer", "minimum": 3_600, "maximum": 2_592_000,
                "description": "When it goes by itself, in seconds after it was made. A file for a batch goes after 30 \
                                days without it, others stay." },
        },
        "dependentRequired": { anchor: [seconds], seconds: [anchor] },
        "description": "A file and what it is for, in any order. Other parts are passed over.",
    })
}
