//! Holds: the blocks of a content, and what a chat has in their place.

use std::borrow::Cow;

use batchin_openai::{InvalidRequest, compact};
use serde_json::value::RawValue;

use super::{
    members::{Members, inner, items, word},
    path::Path,
};

/// What the blocks of a message of the user may be.
pub(super) const OF_USER: &[&str] = &["text", "image", "document", "search_result", "tool_result"];

/// What the blocks of a message of the assistant may be.
pub(super) const OF_ASSISTANT: &[&str] = &["text", "thinking", "redacted_thinking", "tool_use"];

/// What the blocks of a system prompt may be.
pub(super) const OF_SYSTEM: &[&str] = &["text"];

/// What the blocks of a tool's result may be.
const OF_RESULT: &[&str] = &["text", "image", "document", "search_result"];

/// What the blocks of a document that is made of blocks may be.
const OF_DOCUMENT: &[&str] = &["text", "image"];

/// What a file is called that has no title.
const UNNAMED: &str = "document.pdf";

/// A content, by what a chat has places for.
#[derive(Default)]
pub(super) struct Content<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) thoughts: Vec<&'a str>,
    /// Tool calls, as a chat has them.
    pub(super) calls: Vec<String>,
    pub(super) results: Vec<ToolResult<'a>>,
}

/// A part of what is said.
pub(super) enum Part<'a> {
    /// A text, as it stands between its quotes.
    Text(Cow<'a, str>),
    /// A part of another kind, as a chat has it.
    Media(String),
}

/// What a tool gave back.
pub(super) struct ToolResult<'a> {
    /// The call's id, as it stands between its quotes.
    pub(super) call: &'a str,
    pub(super) failed: bool,
    pub(super) parts: Vec<Part<'a>>,
}

/// Reads a content, a text or a list of blocks that are of these kinds.
pub(super) fn content<'a>(json: &'a RawValue, path: &Path<'_>, kinds: &[&str]) -> Result<Content<'a>, InvalidRequest> {
    let mut content = Content::default();
    if let Some(text) = inner(json) {
        content.parts.push(Part::Text(Cow::Borrowed(text)));
        return Ok(content);
    }
    let blocks = items(json).ok_or_else(|| path.fault("must be a string or an array of blocks"))?;
    for (index, block) in blocks.into_iter().enumerate() {
        let path = path.item(index);
        let block = path.object(block)?;
        let kind = block.get("type").and_then(word).unwrap_or_default();
        if !kinds.contains(&kind.as_ref()) {
            return Err(path.member("type").fault(&one_of(kinds)));
        }
        content.take(&kind, &block, &path)?;
    }
    Ok(content)
}

/// The sentence that lists what is taken.
pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.as_slice() {
        [one] => format!("must be {one}"),
        [most @ .., last] => format!("must be {} or {last}", most.join(", ")),
        [] => "must not be there".to_owned(),
    }
}

impl<'a> Content<'a> {
    /// What is said after it in the same turn.
    pub(super) fn append(&mut self, mut later: Self) {
        self.parts.append(&mut later.parts);
        self.thoughts.append(&mut later.thoughts);
        self.calls.append(&mut later.calls);
        self.results.append(&mut later.results);
    }

    fn take(&mut self, kind: &str, block: &Members<'a>, path: &Path<'_>) -> Result<(), InvalidRequest> {
        match kind {
            "text" => self.parts.push(Part::Text(Cow::Borrowed(path.text(block, "text")?))),
            "image" => self.parts.push(Part::Media(image(block, path)?)),
            "document" => document(block, path, &mut self.parts)?,
            "search_result" => self.parts.push(Part::Text(Cow::Owned(search_result(block, path)?))),
            "thinking" => self.thoughts.push(path.text(block, "thinking")?),
            "tool_use" => self.calls.push(tool_use(block, path)?),
            "tool_result" => self.results.push(tool_result(block, path)?),
            // Redacted thoughts: only who wrote them can read them.
            _ => {}
        }
        Ok(())
    }
}

impl Part<'_> {
    /// The texts of these, with a blank line between them.
    pub(super) fn joined(parts: &[Self]) -> String {
        let texts: Vec<&str> = parts.iter().filter_map(Part::text).collect();
        texts.join("\\n\\n")
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Part::Text(text) => Some(text),
            Part::Media(_) => None,
        }
    }
}

/// Where a block's data comes from.
fn source<'a>(block: &Members<'a>, path: &Path<'_>) -> Result<(Members<'a>, Cow<'a, str>), InvalidRequest> {
    let json = block.get("source").ok_or_else(|| path.fault("is required and must be an object"))?;
    let source = path.object(json)?;
    let kind = source.get("type").and_then(word).unwrap_or_default();
    Ok((source, kind))
}

fn image(block: &Members<'_>, path: &Path<'_>) -> Result<String, InvalidRequest> {
    let path = path.member("source");
    let (source, kind) = source(block, &path)?;
    let url = match kind.as_ref() {
        "url" => path.text(&source, "url")?.to_owned(),
        "base64" => {
            let media = path.text(&source, "media_type")?;
            if !is_image(media) {
                return Err(path.member("media_type").fault("must be the type of an image, such as \"image/png\""));
            }
            format!("data:{media};base64,{}", path.text(&source, "data")?)
        }
        _ => return Err(path.member("type").fault("must be \"base64\" or \"url\"; files are not kept for messages")),
    };
    Ok(format!("{{\"type\":\"image_url\",\"image_url\":{{\"url\":\"{url}\"}}}}"))
}

/// Nothing that would end the type within the address that it becomes a part of.
fn is_image(media: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    media.strip_prefix("image/").is_some_and(|kind| !kind.is_empty() && kind.bytes().all(is_plain))
}

fn document<'a>(block: &Members<'a>, path: &Path<'_>, parts: &mut Vec<Part<'a>>) -> Result<(), InvalidRequest> {
    let title = path.text_if_any(block, "title")?.filter(|title| !title.is_empty());
    let context = path.text_if_any(block, "context")?.filter(|context| !context.is_empty());
    let path = path.member("source");
    let (source, kind) = source(block, &path)?;
    if kind == "base64" {
        parts.extend(context.map(|context| Part::Text(Cow::Borrowed(context))));
        parts.push(Part::Media(pdf(&source, title.unwrap_or(UNNAMED), &path)?));
        return Ok(());
    }
    let mut content = match kind.as_ref() {
        "text" => vec![Part::Text(Cow::Borrowed(path.text(&source, "data")?))],
        "content" => {
            let path = path.member("content");
            let json = source.get("content").ok_or_else(|| path.fault("is required"))?;
            self::content(json, &path, OF_DOCUMENT)?.parts
        }
        _ => {
            let must =
                "must be \"base64\", \"text\" or \"content\"; nothing is fetched, and files are not kept for messages";
            return Err(path.member("type").fault(must));
        }
    };
    parts.extend([title, context].into_iter().flatten().map(|head| Part::Text(Cow::Borrowed(head))));
    parts.append(&mut content);
    Ok(())
}

fn pdf(source: &Members<'_>, name: &str, path: &Path<'_>) -> Result<String, InvalidRequest> {
    const PDF: &str = "application/pdf";
    if path.text(source, "media_type")? != PDF {
        let must = format!("must be \"{PDF}\"; give other documents as text");
        return Err(path.member("media_type").fault(&must));
    }
    let data = path.text(source, "data")?;
    let data = format!("data:{PDF};base64,{data}");
    Ok(format!("{{\"type\":\"file\",\"file\":{{\"filename\":\"{name}\",\"file_data\":\"{data}\"}}}}"))
}

fn search_result(block: &Members<'_>, path: &Path<'_>) -> Result<String, InvalidRequest> {
    let (title, from) = (path.text(block, "title")?, path.text(block, "source")?);
    let path = path.member("content");
    let json = block.get("content").ok_or_else(|| path.fault("is required and must be an array of text blocks"))?;
    let content = content(json, &path, OF_SYSTEM)?;
    Ok(format!("{title}\\n{from}\\n\\n{}", Part::joined(&content.parts)))
}

fn tool_use(block: &Members<'_>, path: &Path<'_>) -> Result<String, InvalidRequest> {
    let (id, name) = (path.text(block, "id")?, path.text(block, "name")?);
    let input = match block.get("input") {
        None => "{}".to_owned(),
        Some(input) if input.get().starts_with('{') => compact(input.get()),
        Some(_) => return Err(path.member("input").fault("must be an object")),
    };
    let arguments = serde_json::Value::from(input);
    Ok(format!(
        "{{\"id\":\"{id}\",\"type\":\"function\",\"function\":{{\"name\":\"{name}\",\"arguments\":{arguments}}}}}"
    ))
}

fn tool_result<'a>(block: &Members<'a>, path: &Path<'_>) -> Result<ToolResult<'a>, InvalidRequest> {
    let call = path.text(block, "tool_use_id")?;
    let failed = path.flag(block, "is_error")?;
    let content = match block.get("content") {
        None => Content::default(),
        Some(json) => content(json, &path.member("content"), OF_RESULT)?,
    };
    Ok(ToolResult { call, failed, parts: content.parts })
}
