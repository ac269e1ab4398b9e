//! Holds: the shapes of messages, prompts and inputs, and the bound they put on the tokens read.
//!
//! It counts; texts are skipped over, never copied.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{InputBound, InvalidRequest, MAX_INPUTS};
use crate::{members::each_item, steering::folds_to};

/// The bound of a chat's `messages`: a non-empty array of objects with a `role`.
pub(super) fn messages(raw: Option<&RawValue>) -> Result<InputBound, InvalidRequest> {
    const SHAPE: &str = "`messages` must be a non-empty array of objects such as {\"role\": \"user\", \"content\": …}";
    let Some(raw) = raw else {
        return Err(InvalidRequest::at("messages", "`messages` is required: give it as an array of message objects"));
    };
    let text = raw.get();
    let mut walk = Walk::default();
    let outcome = Messages { walk: &mut walk }.deserialize(&mut serde_json::Deserializer::from_str(text));
    if let Some(fault) = walk.fault {
        return Err(fault.describe(walk.messages));
    }
    if outcome.is_err() || walk.messages == 0 {
        return Err(InvalidRequest::at("messages", SHAPE));
    }
    Ok(InputBound {
        text_bytes: text.len() as u64,
        messages: walk.messages,
        items: 1,
        media: walk.media,
        ..InputBound::default()
    })
}

/// Checks that tools are ones which the client runs itself: servers have others, which are billed by the call.
pub(super) fn tools(raw: Option<&RawValue>) -> Result<(), InvalidRequest> {
    #[derive(Deserialize)]
    struct Tool<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<&'a RawValue>,
    }
    // What is no list is the server's to refuse.
    let Some(text) = raw.map(RawValue::get).filter(|text| text.starts_with('[')) else { return Ok(()) };
    let shape = "`tools` must be an array of objects, each with one `type`";
    let tools: Vec<Tool<'_>> = serde_json::from_str(text).map_err(|_| InvalidRequest::at("tools", shape))?;
    let is_clients = |tool: &Tool<'_>| {
        let kind = tool.kind.map(RawValue::get);
        kind.is_none_or(|kind| matches!(kind, "null" | "\"function\"" | "\"custom\""))
    };
    let Some(index) = tools.iter().position(|tool| !is_clients(tool)) else { return Ok(()) };
    let path = format!("tools[{index}].type");
    let message =
        format!("`{path}` must be \"function\" or \"custom\": tools that a model server runs itself are not offered");
    Err(InvalidRequest::at(path, message))
}

/// The bound of a `prompt` or an `input`: a string, strings, token ids, or lists of token ids.
pub(super) fn inputs(name: &str, raw: Option<&RawValue>) -> Result<InputBound, InvalidRequest> {
    let Some(raw) = raw else {
        return Err(InvalidRequest::at(name, format!("`{name}` is required: give it as a string or an array")));
    };
    let text = raw.get();
    if text == "\"\"" {
        return Err(InvalidRequest::at(name, format!("`{name}` must not be empty")));
    }
    if text.starts_with('"') {
        return Ok(InputBound { text_bytes: text.len() as u64, items: 1, ..InputBound::default() });
    }
    let shape = || {
        let what = "a string, an array of strings, an array of token ids, or an array of arrays of token ids";
        InvalidRequest::at(name, format!("`{name}` must be {what}, none of them empty"))
    };
    let elements: Elements = serde_json::from_str(text).map_err(|_| shape())?;
    let (items, text_bytes, token_ids) = match elements.kind {
        Some(ElementKind::Text) => (elements.count, text.len() as u64, 0),
        Some(ElementKind::Token) => (1, 0, u64::from(elements.count)),
        Some(ElementKind::Tokens) => (elements.count, 0, elements.token_ids),
        None => return Err(shape()),
    };
    if let Some(bad) = elements.bad {
        return Err(bad_element(name, bad));
    }
    if items > MAX_INPUTS {
        return Err(InvalidRequest::at(name, format!("`{name}` has {items} elements; at most {MAX_INPUTS} per call")));
    }
    Ok(InputBound { text_bytes, items, token_ids, ..InputBound::default() })
}

fn bad_element(name: &str, index: u32) -> InvalidRequest {
    let path = format!("{name}[{index}]");
    let message = format!(
        "`{path}` is empty or of another type than the first element; all must be strings, token ids (whole numbers \
         from 0), or arrays of token ids"
    );
    InvalidRequest::at(path, message)
}

/// Why a message is refused. The index is the walk's count of messages that were fine.
enum Fault {
    NotAnObject,
    Role,
    Content,
    /// A member differs from this one by case alone.
    Case(&'static str),
}

/// The members of a message that are read here.
const READ: [&str; 3] = ["role", "content", "audio"];

/// The members of a content part that tell what it is.
const PART: [&str; 8] = ["type", "text", "image_url", "input_audio", "audio_url", "video_url", "input_video", "file"];

impl Fault {
    fn describe(&self, index: u32) -> InvalidRequest {
        let (field, must) = match self {
            Fault::NotAnObject => ("", "must be an object with a `role` and a `content`"),
            Fault::Role => (".role", "is required and must be a non-empty string such as \"user\""),
            Fault::Content => (".content", "must be a string, null or an array of content parts"),
            Fault::Case("role") => ("", "has a member that differs from `role` by case alone; leave it out"),
            Fault::Case("content") => ("", "has a member that differs from `content` by case alone; leave it out"),
            Fault::Case(_) => ("", "has a member that differs from `audio` by case alone; leave it out"),
        };
        let path = format!("messages[{index}]{field}");
        let message = format!("`{path}` {must}");
        InvalidRequest::at(path, message)
    }
}

#[derive(Default)]
struct Walk {
    messages: u32,
    /// Parts that are no text.
    media: u32,
    fault: Option<Fault>,
}

struct Messages<'w> {
    walk: &'w mut Walk,
}

impl<'de> DeserializeSeed<'de> for Messages<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Messages<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        loop {
            // Whatever goes wrong below this point without a fault of its own is a message of another type.
            self.walk.fault = Some(Fault::NotAnObject);
            if seq.next_element_seed(Message { walk: self.walk })?.is_none() {
                self.walk.fault = None;
                return Ok(());
            }
            self.walk.messages = self.walk.messages.saturating_add(1);
        }
    }
}

struct Message<'w> {
    walk: &'w mut Walk,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut has_role = false;
        while let Some(Name(key)) = map.next_key()? {
            match key.as_ref() {
                "role" => {
                    self.walk.fault = Some(Fault::Role);
                    let Name(role) = map.next_value()?;
                    has_role = !role.is_empty();
                }
                "content" => {
                    self.walk.fault = Some(Fault::Content);
                    let content: &RawValue = map.next_value()?;
                    let media = media_of(content).ok_or_else(|| serde::de::Error::custom("no content"))?;
                    self.walk.media = self.walk.media.saturating_add(media);
                }
                // llama.cpp, vLLM and OpenAI's audio answers name a former audio answer here.
                "audio" => {
                    let audio: Option<IgnoredAny> = map.next_value()?;
                    self.walk.media = self.walk.media.saturating_add(u32::from(audio.is_some()));
                }
                key => {
                    if let Some(known) = folds_to(key, &READ) {
                        self.walk.fault = Some(Fault::Case(known));
                        return Err(serde::de::Error::custom("a member in another case"));
                    }
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if has_role {
            return Ok(());
        }
        self.walk.fault = Some(Fault::Role);
        Err(serde::de::Error::custom("no role"))
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// How many parts of a message's content are no text; `None` when it is no content at all.
///
/// A string is judged by its first byte: unescaping it would cost a copy and refuse lone surrogates, which model
/// servers accept.
fn media_of(content: &RawValue) -> Option<u32> {
    match content.get().as_bytes().first() {
        Some(b'"' | b'n') => Some(0),
        Some(b'[') => serde_json::from_str::<Parts>(content.get()).ok().map(|parts| parts.media),
        _ => None,
    }
}

/// Lists of media are one for each prompt where there are several.
const MAX_LIST_DEPTH: u32 = 2;

/// How many images or sounds stand in a member beside the messages: one, or those of a list.
pub(super) fn listed_media(value: &RawValue, depth: u32) -> u32 {
    match value.get().as_bytes().first() {
        Some(b'n') => 0,
        Some(b'[') if depth < MAX_LIST_DEPTH => {
            let mut sum = 0_u32;
            // It is valid JSON, and an array.
            let _listed = each_item(value.get(), |item: &RawValue| {
                sum = sum.saturating_add(listed_media(item, depth + 1));
            });
            sum
        }
        _ => 1,
    }
}

struct Parts {
    media: u32,
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Parts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of parts")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Parts, S::Error> {
                let mut media = 0_u32;
                while let Some(part) = seq.next_element::<Part>()? {
                    media = media.saturating_add(u32::from(part.media));
                }
                Ok(Parts { media })
            }
        }
        deserializer.deserialize_seq(All)
    }
}

/// A content part. What is not plainly text counts as media, so that an unknown kind is never priced as text.
struct Part {
    media: bool,
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kind;
        impl<'de> Visitor<'de> for Kind {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a content part")
            }

            // vLLM takes a bare string as a text part.
            fn visit_str<E>(self, _: &str) -> Result<Part, E> {
                Ok(Part { media: false })
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Part, M::Error> {
                let (mut media, mut typed) = (true, false);
                while let Some(Name(key)) = map.next_key()? {
                    if key == "type" {
                        let Name(kind) = map.next_value()?;
                        let this =
                            !matches!(kind.as_ref(), "text" | "input_text" | "output_text" | "refusal" | "thinking");
                        // Of two types servers take one or the other.
                        (media, typed) = (this || (typed && media), true);
                    } else {
                        // A part that claims to be text and yet carries media is media, in whatever case.
                        let carries = matches!(
                            key.as_ref(),
                            "image_url" | "input_audio" | "audio_url" | "video_url" | "input_video" | "file"
                        ) || folds_to(&key, &PART).is_some();
                        map.next_value::<IgnoredAny>()?;
                        if carries {
                            return drain(map).map(|()| Part { media: true });
                        }
                    }
                }
                Ok(Part { media })
            }
        }
        deserializer.deserialize_any(Kind)
    }
}

fn drain<'de, M: MapAccess<'de>>(mut map: M) -> Result<(), M::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ElementKind {
    Text,
    Token,
    Tokens,
}

/// The elements of an array of inputs, counted.
struct Elements {
    kind: Option<ElementKind>,
    count: u32,
    token_ids: u64,
    /// Index of the first element that is empty or unlike the first.
    bad: Option<u32>,
}

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Elements;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Elements, S::Error> {
                let mut all = Elements { kind: None, count: 0, token_ids: 0, bad: None };
                while let Some(raw) = seq.next_element::<&'de RawValue>()? {
                    let (this, ids) = element(raw.get());
                    let fits = this.is_some() && (all.kind.is_none() || all.kind == this);
                    if !fits && all.bad.is_none() {
                        all.bad = Some(all.count);
                    }
                    all.kind = all.kind.or(this).or(Some(ElementKind::Text));
                    all.count = all.count.saturating_add(1);
                    all.token_ids += ids;
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(Walk)
    }
}

/// What one element is and how many token ids it has; `None` when it is empty or of no accepted type.
fn element(text: &str) -> (Option<ElementKind>, u64) {
    match text.as_bytes().first() {
        Some(b'"') => ((text != "\"\"").then_some(ElementKind::Text), 0),
        Some(b'[') => match serde_json::from_str::<TokenIds>(text) {
            Ok(TokenIds(ids)) if ids > 0 => (Some(ElementKind::Tokens), ids),
            _ => (None, 0),
        },
        _ => (text.parse::<u32>().is_ok().then_some(ElementKind::Token), 0),
    }
}

/// How many token ids an array has; other arrays do not parse.
struct TokenIds(u64);

impl<'de> Deserialize<'de> for TokenIds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Count;
        impl<'de> Visitor<'de> for Count {
            type Value = TokenIds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of token ids")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<TokenIds, S::Error> {
                let mut ids = 0;
                while seq.next_element::<u32>()?.is_some() {
                    ids += 1;
                }
                Ok(TokenIds(ids))
            }
        }
        deserializer.deserialize_seq(Count)
    }
}
