//! Holds: what routing and pricing need to know of a request's body.
//!
//! One pass over the top level and one over the prompt-bearing member. It refuses what would make a price or a route
//! uncertain; every other member is the model server's business and is never looked at.

mod chat;
mod completions;
mod content;
mod embeddings;
mod film;
mod picture;
mod rerank;
mod scalar;
mod speech;
mod transcript;

pub use completions::COMPLETIONS_DEFAULT_MAX_TOKENS;
pub(crate) use completions::one_text;
pub use picture::{MAX_PICTURE_PROMPT, MAX_PICTURES, USUAL_EDIT_PIXELS};
pub(crate) use scalar::whole_number;
pub use speech::MAX_SPEECH_CHARACTERS;

use std::ops::{ControlFlow, Range};

use batchin_domain::{CallKind, Counts};
use serde_json::value::RawValue;

use crate::{
    members::{InvalidJson, MAX_DEPTH, each_member, range_in, too_deep},
    steering::{folds_to, folds_to_steering},
    tier::Tier,
    wanted::{Vectors, Wanted},
};

/// What a template's argument may be named: never what the template is filled with, nor the template itself.
const KEPT_ARGUMENTS: [&str; 6] = ["chat_template", "messages", "conversation", "conversations", "tools", "tokenize"];

/// A word such as `"medium"`; what is longer counts as text that a template may put into every message.
const MAX_WORD_BYTES: usize = 18;

/// OpenAI's limit on inputs in one embeddings call; the same bound is used for prompts.
pub const MAX_INPUTS: u32 = 2048;

/// OpenAI's limit for `n` and `best_of`.
pub const MAX_CHOICES: u32 = 128;

/// What a body says, as far as routing and pricing need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The model as the client names it; never empty.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client wants the usage chunk.
    pub include_usage: bool,
    /// Whether the client wants counts in every chunk, as vLLM gives them.
    pub continuous_usage: bool,
    /// Most tokens one choice may have; 0 in completions alone. The default for completions; `None` for chat without a
    /// limit and for embeddings. Where a body sets both names, the smaller.
    pub max_output: Option<u32>,
    /// Whether `max_output` stands in the body. When it does not, servers differ in their default.
    pub max_output_stated: bool,
    /// The name under which `max_output` stands in the body, for what is said about it.
    pub max_output_name: &'static str,
    /// Answers that the server produces, 1 to 128: the larger of `n` and `best_of`.
    pub choices: u32,
    /// Answers that the client gets of each prompt: `n`.
    pub given: u32,
    /// The answer is asked to begin with the prompt: `echo`, in completions alone.
    pub echo: bool,
    /// `temperature` is 0.
    pub temperature_zero: bool,
    /// `seed` is present.
    pub seeded: bool,
    /// `suffix` is present and not empty: fill in the middle.
    pub has_suffix: bool,
    /// The body asks for something that a stream lacks, or has in another form than a whole answer.
    pub streams_less: bool,
    /// The voice that is to speak, where one is named.
    pub voice: Option<String>,
    /// The tier of service that is asked for: `service_tier`. `None` where none is, and for calls that have none.
    pub tier: Option<Tier>,
    /// Where the prompt lies in the body: the member that bears it, empty where there is none.
    pub prompt: Range<usize>,
    /// What the answer must have in it.
    pub wanted: Wanted,
    /// What bounds the number of tokens read.
    pub bound: InputBound,
}

/// What bounds the number of prompt tokens from above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputBound {
    /// Bytes of the prompt-bearing members as they lie in the body; token ids are counted apart.
    pub text_bytes: u64,
    /// Of these, bytes that stand for text which is perhaps read again: they bound, and are not counted.
    pub repeated_bytes: u64,
    /// Chat messages, each of which costs some tokens of template.
    pub messages: u32,
    /// Separate prompts or inputs; 1 for chat.
    pub items: u32,
    /// Prompt tokens sent as ids.
    pub token_ids: u64,
    /// Parts other than text, such as images and sounds, whose tokens bytes do not bound.
    pub media: u32,
    /// Tools or functions are offered.
    pub has_tools: bool,
    /// The most that is counted but tokens.
    pub made: Counts,
}

/// A body that cannot be served. The message is for the client and says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRequest {
    /// For the client; holds nothing of the body but field names.
    pub message: String,
    /// The path of the field, as in `messages[2].role`.
    pub param: Option<String>,
    /// Where bad JSON breaks.
    pub position: Option<Position>,
}

/// A place in the body. Both count from 1; the column counts bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Byte in the line.
    pub column: usize,
}

impl InvalidRequest {
    /// A fault of the field with this path.
    pub fn at(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { message: message.into(), param: Some(param.into()), position: None }
    }
}

impl From<InvalidJson> for InvalidRequest {
    fn from(fault: InvalidJson) -> Self {
        let (message, position) = match fault {
            InvalidJson::Utf8 { at } => (format!("the body is not valid UTF-8 (byte {at}); send JSON in UTF-8"), None),
            InvalidJson::Syntax { line, column } => {
                let place = Position { line, column };
                (format!("the body is not valid JSON at line {line}, column {column}"), Some(place))
            }
            InvalidJson::NotAnObject => ("the body must be a JSON object".to_owned(), None),
            InvalidJson::TooDeep => (format!("the body is nested too deeply; at most {MAX_DEPTH} levels"), None),
        };
        Self { message, param: None, position }
    }
}

/// Reads a request's body once.
///
/// `null` counts as absent. A member that is read here may stand in the body only once, and in small letters, because a
/// model server may read the other one. Members of other calls (`best_of` in a chat) are checked alike: servers share
/// their parsers.
pub fn peek(call: CallKind, body: &[u8]) -> Result<Peek, InvalidRequest> {
    let text = std::str::from_utf8(body).map_err(|error| InvalidJson::Utf8 { at: error.valid_up_to() })?;
    let mut found = Found::default();
    let mut fault = None;
    each_member(text, |key, value| match found.note(&key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            fault = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    if too_deep(text) {
        return Err(InvalidJson::TooDeep.into());
    }
    let prompt = found.prompt_of(call).map_or(0..0, |raw| range_in(text, raw.get()));
    Ok(Peek { prompt, ..found.check(call)? })
}

/// The fault by which a body has no members.
pub(crate) fn unreadable(body: &[u8]) -> InvalidRequest {
    match std::str::from_utf8(body) {
        Err(error) => InvalidJson::Utf8 { at: error.valid_up_to() }.into(),
        Ok(text) => {
            each_member(text, |_, _| ControlFlow::Continue(())).err().unwrap_or(InvalidJson::NotAnObject).into()
        }
    }
}

/// What the bodies of one kind of call say in their own way.
struct Ways {
    /// What its prompt bounds.
    bound: fn(&Found<'_>) -> Result<InputBound, InvalidRequest>,
    /// Refuses what calls of this kind cannot have; whether the answer is to be streamed stands beside.
    check: fn(&Found<'_>, bool) -> Result<(), InvalidRequest>,
    /// The least limit on completion tokens.
    least_output: u32,
    /// The most completion tokens of one choice, given the limit that the body states.
    max_output: fn(Option<u32>) -> Option<u32>,
    /// Whether an answer can begin with the prompt.
    echoes: bool,
}

const fn ways_of(call: CallKind) -> &'static Ways {
    match call.asks() {
        CallKind::Chat | CallKind::Responses | CallKind::Messages => &chat::WAYS,
        CallKind::Completions | CallKind::Fim => &completions::WAYS,
        CallKind::Embeddings => &embeddings::WAYS,
        CallKind::Rerank => &rerank::WAYS,
        CallKind::Speech => &speech::WAYS,
        CallKind::Transcriptions | CallKind::Translations => &transcript::WAYS,
        CallKind::Images => &picture::WAYS,
        CallKind::ImageEdits => &picture::EDIT_WAYS,
        CallKind::Video => &film::WAYS,
    }
}

/// The members that are read, each as it lies in the body.
#[derive(Default)]
struct Found<'a> {
    seen: u64,
    model: Option<&'a RawValue>,
    messages: Option<&'a RawValue>,
    prompt: Option<&'a RawValue>,
    input: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    max_completion_tokens: Option<&'a RawValue>,
    n: Option<&'a RawValue>,
    best_of: Option<&'a RawValue>,
    temperature: Option<&'a RawValue>,
    seed: Option<&'a RawValue>,
    suffix: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    functions: Option<&'a RawValue>,
    encoding_format: Option<&'a RawValue>,
    query: Option<&'a RawValue>,
    documents: Option<&'a RawValue>,
    top_n: Option<&'a RawValue>,
    return_documents: Option<&'a RawValue>,
    max_chunks_per_doc: Option<&'a RawValue>,
    response_format: Option<&'a RawValue>,
    stream_format: Option<&'a RawValue>,
    voice: Option<&'a RawValue>,
    speed: Option<&'a RawValue>,
    ref_audio: Option<&'a RawValue>,
    service_tier: Option<&'a RawValue>,
    duration_seconds: Option<&'a RawValue>,
    size: Option<&'a RawValue>,
    output_format: Option<&'a RawValue>,
    output_compression: Option<&'a RawValue>,
    width: Option<&'a RawValue>,
    height: Option<&'a RawValue>,
    num_inference_steps: Option<&'a RawValue>,
    /// Bytes of further members that chat templates put into the prompt.
    other_prompt_bytes: u64,
    /// Bytes of a template's arguments that it may put into every message.
    template_bytes: u64,
    /// Parts of the prompt in a form that no count of bytes bounds.
    media: u32,
    echo: bool,
    /// Prompts that vLLM answers beside those of `prompt`.
    has_embeds: bool,
    streams_less: bool,
}

impl<'a> Found<'a> {
    fn note(&mut self, key: &str, value: &'a RawValue) -> Result<(), InvalidRequest> {
        let seen = self.seen;
        let Some((bit, slot)) = self.slot(key) else { return self.note_other(key, value) };
        if seen & (1 << bit) != 0 {
            return Err(InvalidRequest::at(key, format!("`{key}` stands in the body more than once; send it once")));
        }
        *slot = (value.get() != "null").then_some(value);
        self.seen |= 1 << bit;
        Ok(())
    }

    /// Where a member is kept that is read, and its bit among those that have come.
    fn slot(&mut self, key: &str) -> Option<(u32, &mut Option<&'a RawValue>)> {
        let slot = match key {
            "model" => (0, &mut self.model),
            "messages" => (1, &mut self.messages),
            "prompt" => (2, &mut self.prompt),
            "input" => (3, &mut self.input),
            "stream" => (4, &mut self.stream),
            "stream_options" => (5, &mut self.stream_options),
            "max_tokens" => (6, &mut self.max_tokens),
            "max_completion_tokens" => (7, &mut self.max_completion_tokens),
            "n" => (8, &mut self.n),
            "best_of" => (9, &mut self.best_of),
            "temperature" => (10, &mut self.temperature),
            "seed" => (11, &mut self.seed),
            "suffix" => (12, &mut self.suffix),
            "tools" => (13, &mut self.tools),
            "functions" => (14, &mut self.functions),
            "encoding_format" => (20, &mut self.encoding_format),
            "query" => (21, &mut self.query),
            "documents" => (22, &mut self.documents),
            "top_n" => (23, &mut self.top_n),
            "return_documents" => (24, &mut self.return_documents),
            "max_chunks_per_doc" => (25, &mut self.max_chunks_per_doc),
            "response_format" => (26, &mut self.response_format),
            "stream_format" => (27, &mut self.stream_format),
            "voice" => (28, &mut self.voice),
            "speed" => (29, &mut self.speed),
            "ref_audio" => (30, &mut self.ref_audio),
            // It steers, and goes to no server.
            "service_tier" => (31, &mut self.service_tier),
            "size" => (40, &mut self.size),
            "output_format" => (41, &mut self.output_format),
            "output_compression" => (42, &mut self.output_compression),
            "width" => (43, &mut self.width),
            "height" => (44, &mut self.height),
            "num_inference_steps" => (45, &mut self.num_inference_steps),
            "duration_seconds" => (50, &mut self.duration_seconds),
            _ => return None,
        };
        Some(slot)
    }

    /// Members that count or are refused, and are not kept.
    fn note_other(&mut self, key: &str, value: &RawValue) -> Result<(), InvalidRequest> {
        match key {
            "tool_choice" | "structured_outputs" => {
                self.other_prompt_bytes += value.get().len() as u64;
            }
            // Servers that rank by a model for chats put it before each document.
            "instruct" | "instruction" => {
                self.template_bytes += value.get().len() as u64;
            }
            "chat_template" if value.get() != "null" => return Err(own_template()),
            "chat_template_kwargs" => {
                self.other_prompt_bytes += value.get().len() as u64;
                self.template_bytes += template_arguments(value)?;
            }
            // Extensions of vLLM and SGLang.
            "prompt_embeds" => {
                self.has_embeds |= value.get() != "null";
                self.note_media(u32::from(value.get() != "null"));
            }
            "input_embeds" | "input_ids" => {
                self.note_media(u32::from(value.get() != "null"));
            }
            "image_data" | "audio_data" | "video_data" => {
                self.note_media(content::listed_media(value, 0));
            }
            // Refused in streams (beams, prompt logprobs), in other places there (token ids, hidden states, citations,
            // transfer of caches), there alone (progress), or in pieces that cannot be joined (audio).
            "echo"
            | "use_beam_search"
            | "prompt_logprobs"
            | "return_token_ids"
            | "return_hidden_states"
            | "return_routed_experts"
            | "return_progress"
            | "kv_transfer_params"
            | "web_search_options"
            | "audio"
            | "modalities" => {
                let is_set = !matches!(value.get(), "null" | "false");
                self.streams_less |= is_set;
                self.echo |= key == "echo" && value.get() == "true";
            }
            _ => {
                let known = folds_to(key, &READ).or_else(|| folds_to_steering(key));
                return known.map_or(Ok(()), |known| Err(by_case(key, known)));
            }
        }
        Ok(())
    }

    /// Whether the middle is asked for. Nothing behind it is no middle.
    fn fills(&self) -> bool {
        self.suffix.is_some_and(|suffix| suffix.get() != "\"\"")
    }

    /// The member that bears the prompt of this call.
    fn prompt_of(&self, call: CallKind) -> Option<&'a RawValue> {
        match call.prompt() {
            "messages" => self.messages,
            "prompt" => self.prompt,
            "input" => self.input,
            _ => None,
        }
    }

    fn note_media(&mut self, parts: u32) {
        self.media = self.media.saturating_add(parts);
    }

    fn check(self, call: CallKind) -> Result<Peek, InvalidRequest> {
        let ways = ways_of(call);
        let model = scalar::text("model", self.model)?;
        let bound = self.bound(call)?;
        let stream = scalar::flag("stream", self.stream)?;
        (ways.check)(&self, stream)?;
        let least = ways.least_output;
        let max_tokens = scalar::count("max_tokens", self.max_tokens, least..=u32::MAX)?;
        let renamed = scalar::count("max_completion_tokens", self.max_completion_tokens, least..=u32::MAX)?;
        let is_renamed = renamed.is_some_and(|renamed| max_tokens.is_none_or(|limit| renamed < limit));
        let stated = if is_renamed { renamed } else { max_tokens };
        let n = scalar::count("n", self.n, 1..=MAX_CHOICES)?.unwrap_or(1);
        // OpenAI's API takes 0 for what is not asked for.
        let best_of = scalar::count("best_of", self.best_of, 0..=MAX_CHOICES)?.unwrap_or(1);
        let has_suffix = self.fills();
        scalar::unread_text("suffix", self.suffix)?;
        let wanted = self.wanted(call, &bound)?;
        Ok(Peek {
            model,
            // Sound that comes as it is, is no stream of events.
            stream: if let Wanted::Sound(spoken) = wanted { spoken.as_events } else { stream },
            include_usage: scalar::include_usage(self.stream_options)?,
            continuous_usage: scalar::continuous_usage(self.stream_options),
            max_output: (ways.max_output)(stated),
            max_output_stated: stated.is_some(),
            max_output_name: if is_renamed { "max_completion_tokens" } else { "max_tokens" },
            choices: n.max(best_of),
            given: n,
            echo: self.echo && ways.echoes,
            temperature_zero: scalar::temperature(self.temperature)? == Some(0.0),
            seeded: self.seed.is_some(),
            has_suffix,
            // Only when all are there is it known which are the best.
            streams_less: self.streams_less || best_of > n,
            prompt: 0..0,
            tier: scalar::tier(self.service_tier.filter(|_| call.generates()))?,
            voice: if let Wanted::Sound(_) = wanted { speech::voice_name(self.voice)? } else { None },
            wanted,
            bound,
        })
    }

    fn wanted(&self, call: CallKind, bound: &InputBound) -> Result<Wanted, InvalidRequest> {
        match call.asks() {
            CallKind::Embeddings => {
                let encoding = scalar::encoding(self.encoding_format)?;
                Ok(Wanted::Vectors(Vectors { inputs: bound.items, encoding }))
            }
            CallKind::Rerank => rerank::wanted(self).map(Wanted::Ranking),
            CallKind::Speech => speech::wanted(self).map(Wanted::Sound),
            CallKind::Transcriptions | CallKind::Translations => Ok(Wanted::Transcript),
            CallKind::Images => picture::wanted(self, false).map(Wanted::Pictures),
            CallKind::ImageEdits => picture::wanted(self, true).map(Wanted::Pictures),
            // Of a film there is no whole answer.
            CallKind::Video => Ok(Wanted::Choices),
            CallKind::Chat | CallKind::Completions | CallKind::Responses | CallKind::Messages | CallKind::Fim => {
                Ok(Wanted::Choices)
            }
        }
    }

    fn bound(&self, call: CallKind) -> Result<InputBound, InvalidRequest> {
        let mut bound = (ways_of(call).bound)(self)?;
        content::tools(self.tools)?;
        // Prompts of the other calls count as well, should a server put them in.
        let prompts =
            [("messages", self.messages), ("prompt", self.prompt), ("input", self.input), ("query", self.query)];
        let others = prompts.into_iter().filter(|(member, _)| *member != call.prompt()).filter_map(|(_, raw)| raw);
        bound.text_bytes += others.map(|raw| raw.get().len() as u64).sum::<u64>();
        // Templates of chats may put documents in.
        let documents = self.documents.filter(|_| call.prompt() != "query");
        let beside = [self.suffix, self.tools, self.functions, documents, self.response_format];
        bound.text_bytes += beside.into_iter().flatten().map(|raw| raw.get().len() as u64).sum::<u64>();
        bound.text_bytes += self.other_prompt_bytes;
        bound.text_bytes = bound.text_bytes.saturating_add(self.template_bytes.saturating_mul(bound.messages.into()));
        bound.media = bound.media.saturating_add(self.media);
        bound.has_tools = [self.tools, self.functions].into_iter().flatten().any(|raw| !is_empty_array(raw));
        Ok(bound)
    }
}

/// The names that are read above: from these none may differ by case alone.
const READ: [&str; 49] = [
    "model",
    "messages",
    "prompt",
    "input",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "best_of",
    "temperature",
    "seed",
    "suffix",
    "tools",
    "functions",
    "encoding_format",
    "query",
    "documents",
    "top_n",
    "return_documents",
    "max_chunks_per_doc",
    "instruct",
    "instruction",
    "tool_choice",
    "response_format",
    "structured_outputs",
    "chat_template",
    "chat_template_kwargs",
    "prompt_embeds",
    "input_embeds",
    "input_ids",
    "image_data",
    "audio_data",
    "video_data",
    "echo",
    "prompt_logprobs",
    "audio",
    "modalities",
    "stream_format",
    "voice",
    "speed",
    "ref_audio",
    "duration_seconds",
    "size",
    "output_format",
    "output_compression",
    "width",
    "height",
    "num_inference_steps",
];

fn by_case(key: &str, known: &str) -> InvalidRequest {
    let message =
        format!("`{key}` differs from `{known}` by case alone, and some model servers take it for that; leave it out");
    InvalidRequest::at(key, message)
}

fn own_template() -> InvalidRequest {
    InvalidRequest::at(
        "chat_template",
        "`chat_template` is not supported: the model's own template is used; leave it out",
    )
}

/// Checks `chat_template_kwargs`; returns the bytes of its texts, lists and objects.
fn template_arguments(raw: &RawValue) -> Result<u64, InvalidRequest> {
    const NAME: &str = "chat_template_kwargs";
    if raw.get() == "null" {
        return Ok(0);
    }
    let (mut texts, mut kept) = (0_u64, None);
    let listed = each_member(raw.get(), |key, value| {
        let text = value.get();
        if KEPT_ARGUMENTS.contains(&key.as_ref()) {
            kept = Some(key.into_owned());
            return ControlFlow::Break(());
        }
        if text.starts_with(['[', '{']) || (text.starts_with('"') && text.len() > MAX_WORD_BYTES) {
            texts += text.len() as u64;
        }
        ControlFlow::Continue(())
    });
    if let Some(key) = kept {
        let path = format!("{NAME}.{key}");
        let message = format!(
            "`{path}` is not supported: a template's arguments must not take the place of what it is filled with"
        );
        return Err(InvalidRequest::at(path, message));
    }
    listed.map_err(|_| InvalidRequest::at(NAME, format!("`{NAME}` must be an object")))?;
    Ok(texts)
}

fn is_empty_array(raw: &RawValue) -> bool {
    raw.get().strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with(']'))
}

#[cfg(test)]
mod tests;
