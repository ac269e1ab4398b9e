//! Holds: what a stream chunk says, and the frame that carries it on to the client.
//!
//! A borrowing pass and an allocation per chunk, and no pass for one that is alike the one before (`alike.rs`); the text of
//! a delta is measured, not decoded. Bytes change only where they must: names, numbers of tool calls, ends by a word that
//! OpenAI does not have, reasoning without its second name, usage that nobody asked for.

mod read;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;

use crate::{
    alike::{Alike, facts_of},
    error::UpstreamError,
    members::{quoted, range_in},
    passing::Choices,
    tier::Tier,
    usage::Usage,
};
use read::{Form, Found, read};

/// Before the data of an event.
const DATA: &[u8] = b"data: ";

/// What one chunk of a stream says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkFacts {
    /// `choices` is there and not empty.
    pub has_choices: bool,
    /// Choices whose delta has content: text, reasoning, a refusal or a tool call. At least one token each.
    pub deltas: u32,
    /// Bytes of text in it, as in [`WholeAnswer`](crate::WholeAnswer).
    pub text_bytes: u64,
    /// Choices that end with it, each counted once in a stream.
    pub ends: u32,
    /// Counts so far or in all, when the chunk carries them.
    pub usage: Option<Usage>,
    /// It has a `usage`, be its counts zeros or unreadable.
    pub has_usage: bool,
    /// The stream failed.
    pub error: Option<UpstreamError>,
}

/// The event's data cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// It is no chunk of an answer.
    #[error("the event's data is not a chunk")]
    NotAChunk,
    /// The stream has more choices or tool calls than are taken.
    #[error("the stream has too many choices or tool calls")]
    TooMuch,
}

/// A stream on its way through: the public names that every chunk gets, and what is known of its choices.
#[derive(Clone, Debug)]
pub struct Relay {
    id: String,
    model: String,
    include_usage: bool,
    hides_counts: bool,
    tier: Option<Tier>,
    choices: Choices,
    alike: Alike,
    around: Around,
}

/// What is sent around the text of a chunk that is alike.
#[derive(Clone, Debug, Default)]
struct Around {
    before: Box<[u8]>,
    /// Between the text and the text once more: reasoning has two names.
    between: Option<Box<[u8]>>,
    behind: Box<[u8]>,
}

impl Around {
    /// Of a frame in which the text stands at these places, in any order.
    fn cut(frame: &[u8], said: &[u8], at: usize, again: Option<usize>) -> Option<Self> {
        let first = again.map_or(at, |again| at.min(again));
        let (before, rest) = frame.split_at_checked(first)?;
        let mut behind = rest.strip_prefix(said)?;
        let mut between = None;
        if let Some(again) = again {
            let (piece, rest) = behind.split_at_checked(at.max(again).checked_sub(first + said.len())?)?;
            behind = rest.strip_prefix(said)?;
            between = Some(piece.into());
        }
        Some(Self { before: before.into(), between, behind: behind.into() })
    }

    fn framed(&self, text: &[u8]) -> Bytes {
        match &self.between {
            None => [&self.before, text, &self.behind].concat(),
            Some(between) => [&self.before, text, between, text, &self.behind].concat(),
        }
        .into()
    }
}

/// A chunk ready to be sent on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FramedChunk {
    /// `data: …` and the blank line, with the public id and model. Empty for what no client is to see: a chunk without
    /// choices, unless it is the usage that was asked for.
    pub frame: Bytes,
    /// What the chunk says.
    pub facts: ChunkFacts,
}

impl ChunkFacts {
    /// Reads the data of one event.
    pub fn of(data: &[u8]) -> Result<Self, ChunkError> {
        let text = std::str::from_utf8(data).map_err(|_| ChunkError::NotAChunk)?;
        Ok(read(text, Form::Chunk, &mut Choices::default())?.facts)
    }
}

impl Relay {
    /// At the start of a stream that gets these names. Without `include_usage` no usage leaves.
    pub fn new(id: &str, model: &str, include_usage: bool) -> Self {
        Self {
            id: quoted(id),
            model: quoted(model),
            include_usage,
            hides_counts: false,
            tier: None,
            choices: Choices::default(),
            alike: Alike::default(),
            around: Around::default(),
        }
    }

    /// The same where counts in chunks with choices are for us alone.
    #[must_use]
    pub fn hiding_counts(self, hides_counts: bool) -> Self {
        Self { hides_counts, ..self }
    }

    /// The same where every chunk names the tier that it is served in.
    #[must_use]
    pub fn in_tier(self, tier: Option<Tier>) -> Self {
        Self { tier, ..self }
    }

    /// Reads the data of the next event and frames it.
    pub fn frame(&mut self, data: &[u8]) -> Result<FramedChunk, ChunkError> {
        if let Some(text) = self.alike.text_of(data) {
            return Ok(FramedChunk { frame: self.around.framed(text.as_bytes()), facts: facts_of(text) });
        }
        let text = std::str::from_utf8(data).map_err(|_| ChunkError::NotAChunk)?;
        let mut found = read(text, Form::Chunk, &mut self.choices)?;
        if let Some(choices) = found.choices.filter(|choices| choices.get() == "null") {
            found.edits.push((range_in(text, choices.get()), "[]".into()));
        }
        let leaves = found.facts.has_choices || (self.include_usage && found.facts.has_usage);
        let shows = self.include_usage && !(self.hides_counts && found.facts.has_choices);
        let frame = if leaves { self.written(text, &found, shows) } else { Bytes::new() };
        if found.edits.is_empty() {
            self.learn(text, &found, (shows, &frame));
        }
        Ok(FramedChunk { frame, facts: found.facts })
    }

    /// Frames a whole answer as the chunks of a stream: one with all choices, and the usage if it was asked for.
    pub fn frame_whole(&mut self, body: &[u8]) -> Result<Vec<FramedChunk>, ChunkError> {
        let text = std::str::from_utf8(body).map_err(|_| ChunkError::NotAChunk)?.trim();
        let mut found = read(text, Form::Whole, &mut self.choices)?;
        if found.facts.error.is_some() {
            return Ok(vec![FramedChunk { frame: Bytes::new(), facts: found.facts }]);
        }
        if !found.facts.has_choices {
            return Err(ChunkError::NotAChunk);
        }
        if let Some(object) = found.object.filter(|object| object.get() == "\"chat.completion\"") {
            found.edits.push((range_in(text, object.get()), "\"chat.completion.chunk\"".into()));
        }
        let frame = self.written(text, &found, false);
        let usage = self.include_usage.then(|| self.usage_chunk(&found)).flatten();
        let mut chunks = vec![FramedChunk { frame, facts: found.facts }];
        chunks.extend(usage);
        Ok(chunks)
    }

    /// Whether there is an answer and each of its choices has ended.
    pub fn is_finished(&self) -> bool {
        self.choices.have_ended()
    }

    /// Whether this choice has ended.
    pub fn has_ended(&self, index: u64) -> bool {
        self.choices.has_ended(index)
    }

    /// How many choices have been seen.
    pub fn seen(&self) -> usize {
        self.choices.seen()
    }

    /// Learns what is sent of chunks like this one.
    fn learn(&mut self, text: &str, found: &Found<'_>, (shows_usage, frame): (bool, &[u8])) {
        let Some(only) = self.alike.learn(text, &found.facts) else { return };
        let usage = found.usage.as_ref().filter(|_| !shows_usage).map(|(member, _)| (member, 0));
        let named = [(&found.id, self.id.len()), (&found.model, self.model.len())];
        let (twin, tier) = (found.twin.as_ref(), self.tier.map_or("", Tier::json).len());
        let tier = found.tier.as_ref().filter(|_| self.tier.is_some()).map(|place| (place, tier));
        let named = named.into_iter().filter_map(|(place, len)| Some((place.as_ref()?, len)));
        let replaced = named.chain(usage).chain(tier).chain(twin.map(|twin| (&twin.at, twin.value.len())));
        // Where in the frame a place of the chunk is.
        let sent = |at: usize| {
            let before = replaced.clone().filter(|(place, _)| place.start < at && place.end <= at);
            let (put, taken) = before.fold((0, 0), |(put, taken), (place, len)| (put + len, taken + place.len()));
            DATA.len() + at + put - taken
        };
        let start = sent(only.at.start);
        let again = twin.map(|twin| sent(twin.at.start) + twin.told_at + "\"".len());
        let said = text.get(only.at).unwrap_or_default();
        match Around::cut(frame, said.as_bytes(), start, again) {
            Some(around) => self.around = around,
            None => self.alike.forget(),
        }
    }

    /// The chunk with the usage of a whole answer, which told it with its choices.
    fn usage_chunk(&self, found: &Found<'_>) -> Option<FramedChunk> {
        let (_, usage) = found.usage.as_ref().filter(|_| found.facts.has_usage)?;
        let mut text = format!("{{\"id\":{}", self.id);
        for (key, value) in [("object", found.object), ("created", found.created)] {
            let value = value.map_or("", |value| value.get());
            let value = if value == "\"chat.completion\"" { "\"chat.completion.chunk\"" } else { value };
            if !value.is_empty() {
                text.push_str(&format!(",\"{key}\":{value}"));
            }
        }
        text.push_str(&format!(",\"model\":{},\"choices\":[],\"usage\":{}", self.model, usage.get()));
        if let Some(tier) = self.tier {
            text.push_str(&format!(",\"service_tier\":{}", tier.json()));
        }
        text.push('}');
        let text = text.replace(['\n', '\r'], " ");
        let facts = ChunkFacts { usage: found.facts.usage, has_usage: true, ..ChunkFacts::default() };
        Some(FramedChunk { frame: crate::sse::frame(text.as_bytes()), facts })
    }

    fn written(&self, text: &str, found: &Found<'_>, keep_usage: bool) -> Bytes {
        const AROUND: usize = "data: ,\"id\":,\"model\":,\"choices\":[],\"service_tier\":\"default\"\n\n".len();
        const NOWHERE: Range<usize> = usize::MAX..usize::MAX;
        let usage = found.usage.as_ref().filter(|_| !keep_usage).map(|(member, _)| member.clone());
        let mut empty = found.members == usize::from(usage.is_some());
        let mut fixed = [
            (found.id.clone().unwrap_or(NOWHERE), self.id.as_str()),
            (found.model.clone().unwrap_or(NOWHERE), self.model.as_str()),
            (usage.unwrap_or(NOWHERE), ""),
            found.twin.as_ref().map_or((NOWHERE, ""), |twin| (twin.at.clone(), twin.value.as_str())),
            self.tier.zip(found.tier.clone()).map_or((NOWHERE, ""), |(tier, place)| (place, tier.json())),
        ];
        fixed.sort_unstable_by_key(|(place, _)| place.start);
        let fixed = fixed.iter().filter(|(place, _)| *place != NOWHERE);
        let mut out = Vec::with_capacity(text.len() + self.id.len() + self.model.len() + AROUND);
        out.extend_from_slice(DATA);
        let start = out.len();
        if found.edits.is_empty() {
            put_edited(text, fixed.map(|(place, value)| (place, *value)), &mut out);
        } else {
            let edits = found.edits.iter().map(|(place, value)| (place, value.as_ref()));
            let mut all: Vec<_> = fixed.map(|(place, value)| (place, *value)).chain(edits).collect();
            all.sort_by_key(|(place, _)| (place.start, place.end));
            put_edited(text, all.into_iter(), &mut out);
        }
        let added = [
            (found.id.is_none(), "\"id\":", self.id.as_str()),
            (found.model.is_none(), "\"model\":", self.model.as_str()),
            (found.choices.is_none(), "\"choices\":", "[]"),
            (self.tier.is_some() && found.tier.is_none(), "\"service_tier\":", self.tier.map_or("", Tier::json)),
        ];
        for (_, key, value) in added.into_iter().filter(|(is_missing, ..)| *is_missing) {
            out.extend_from_slice(if empty { b"" } else { b"," });
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(value.as_bytes());
            empty = false;
        }
        out.push(b'}');
        // A line break in JSON is white space, but in an event it would end the data.
        if memchr::memchr2(b'\n', b'\r', &out[start..]).is_some() {
            out[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        }
        out.extend_from_slice(b"\n\n");
        out.into()
    }
}

/// Writes the text up to its last brace, with these places replaced. They come in order and do not overlap.
fn put_edited<'a>(text: &str, edits: impl Iterator<Item = (&'a Range<usize>, &'a str)>, out: &mut Vec<u8>) {
    let mut from = 0;
    for (place, value) in edits {
        out.extend_from_slice(text.as_bytes().get(from..place.start).unwrap_or_default());
        out.extend_from_slice(value.as_bytes());
        from = place.end;
    }
    let end = text.trim_end();
    let rest = end.strip_suffix('}').unwrap_or(end);
    out.extend_from_slice(rest.as_bytes().get(from..).unwrap_or_default());
}
