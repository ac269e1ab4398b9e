//! Holds: a whole answer, put together from the chunks of a stream.
//!
//! What the server would have sent in one piece, as far as chunks tell it. Texts and lists are joined as they lie in
//! the JSON, escapes and all: nothing is decoded, and a chunk costs at most two borrowing passes and no tree. It never
//! guesses what a body without chunks would have had; bodies whose streams say less are not assembled (see
//! [`Peek::streams_less`](crate::Peek::streams_less)).

mod choice;
mod merge;
#[cfg(test)]
mod tests;

use std::fmt;

use batchin_domain::CallKind;
use bytes::Bytes;
use serde::{
    Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    AnswerError, ChunkFacts, WholeAnswer,
    alike::{Alike, facts_of},
    answer::read_answer,
    blank::says_something,
    closing::{streams_deltas, usage_json},
    ending::{Ending, failed_choice},
    error::upstream_error_message,
    members::{Key, quoted},
    thought::is_thought,
    usage::{Usage, parse_usage},
};
use choice::{Choice, RawChoice};
use merge::{Members, Rule};

/// What an entry of a list takes beside its text, for the bound.
const ENTRY_BYTES: usize = 256;

/// Puts one answer together.
#[derive(Debug)]
pub struct Assembler {
    chat: bool,
    id: String,
    model: String,
    /// An answer that came in one piece after all.
    whole: Option<WholeAnswer>,
    /// Most bytes that are kept.
    most: usize,
    size: usize,
    /// Top-level members beside those that have a field here; the last one that says something counts.
    head: Members,
    usage: Option<(Usage, String)>,
    text_bytes: u64,
    /// By index.
    choices: Vec<Choice>,
    alike: Alike,
    /// What the text of a chunk that is alike is added to: a choice, and a member of it.
    grows: (u64, Box<str>),
}

/// A chunk that cannot be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// It is not a chunk of an answer.
    #[error("the event's data is not a chunk")]
    NotAChunk,
    /// The answer is larger than was agreed.
    #[error("the answer is too large")]
    TooLarge,
}

/// No chunk had a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream had no answer in it")]
pub struct NoAnswer;

impl Assembler {
    /// For an answer of at most `most` bytes that gets these public names.
    pub fn new(call: CallKind, id: &str, model: &str, most: usize) -> Self {
        Self {
            chat: streams_deltas(call),
            id: id.to_owned(),
            model: model.to_owned(),
            whole: None,
            most,
            size: 0,
            head: Members::default(),
            usage: None,
            text_bytes: 0,
            choices: Vec::new(),
            alike: Alike::default(),
            grows: Default::default(),
        }
    }

    /// Takes in the data of one event.
    pub fn take(&mut self, data: &[u8]) -> Result<ChunkFacts, AssembleError> {
        let facts = match self.alike.text_of(data).and_then(|text| self.grow(text)) {
            Some(facts) => facts,
            None => self.read(data)?,
        };
        if self.size > self.most { Err(AssembleError::TooLarge) } else { Ok(facts) }
    }

    fn read(&mut self, data: &[u8]) -> Result<ChunkFacts, AssembleError> {
        let text = std::str::from_utf8(data).map_err(|_| AssembleError::NotAChunk)?;
        let mut facts = ChunkFacts::default();
        let mut fault = Fault::default();
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let chunk = Chunk { answer: self, facts: &mut facts, fault: &mut fault };
        let read = deserializer.deserialize_map(chunk).and_then(|()| deserializer.end());
        read.map_err(|_| AssembleError::NotAChunk)?;
        if fault.stated || (fault.flat && !facts.has_choices && !facts.has_usage) {
            facts.error = Some(upstream_error_message(500, data));
        }
        match self.alike.learn(text, &facts) {
            Some(only) => self.grows = (only.index, only.key),
            // A chunk is alike the one that was taken in before it: its other members change nothing then.
            None => self.alike.forget(),
        }
        Ok(facts)
    }

    /// Takes in the text of a chunk that says nothing else. `None` when there is nothing that it goes on.
    fn grow(&mut self, text: &str) -> Option<ChunkFacts> {
        let (index, key) = &self.grows;
        let at = self.choices.binary_search_by_key(index, |choice| choice.index).ok()?;
        self.choices[at].grow(key, text)?;
        let facts = facts_of(text);
        self.text_bytes = self.text_bytes.saturating_add(facts.text_bytes);
        self.size += text.len() * if is_thought(key) { 2 } else { 1 };
        Some(facts)
    }

    /// Takes in a whole answer, for servers that stream none. Nothing else may be taken in.
    pub fn take_whole(&mut self, body: &Bytes) -> Result<ChunkFacts, AnswerError> {
        let whole = read_answer(body, &self.id, &self.model)?;
        // All choices end here, however many there are.
        let mut facts = ChunkFacts { ends: u32::MAX, has_choices: true, has_usage: true, ..ChunkFacts::default() };
        let is_counted = whole.usage.is_some_and(|usage| usage.counts_completion());
        facts.deltas = u32::from(is_counted || whole.text_bytes > 0);
        (facts.text_bytes, facts.usage) = (whole.text_bytes, whole.usage);
        self.whole = Some(whole);
        Ok(facts)
    }

    /// Whether there is an answer and each of its choices has ended.
    pub fn is_finished(&self) -> bool {
        let in_pieces = !self.choices.is_empty() && self.choices.iter().all(Choice::is_finished);
        in_pieces || self.whole.is_some()
    }

    /// How many choices there are.
    pub fn seen(&self) -> usize {
        self.choices.len()
    }

    /// Ends the choices that go on, because their limit is reached.
    pub fn end_by_length(&mut self) {
        self.choices.iter_mut().for_each(Choice::end_by_length);
    }

    /// The answer as it would have come in one piece.
    pub fn finish(self) -> Result<WholeAnswer, NoAnswer> {
        if let Some(whole) = self.whole {
            return Ok(whole);
        }
        if self.choices.is_empty() {
            return Err(NoAnswer);
        }
        let object = if self.chat { "chat.completion" } else { "text_completion" };
        let mut out = String::with_capacity(self.size + self.id.len() + self.model.len() + ENTRY_BYTES);
        out.push_str("{\"id\":");
        out.push_str(&quoted(&self.id));
        out.push_str(",\"object\":\"");
        out.push_str(object);
        out.push('"');
        self.head.write_one("created", &mut out);
        out.push_str(",\"model\":");
        out.push_str(&quoted(&self.model));
        out.push_str(",\"choices\":[");
        for (at, choice) in self.choices.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            choice.write(self.chat, &mut out);
        }
        out.push(']');
        let usage = self.usage.map(|(usage, text)| {
            out.push_str(",\"usage\":");
            out.push_str(&text);
            usage
        });
        self.head.write_all(&["created"], &mut out);
        out.push('}');
        Ok(WholeAnswer { body: out.into(), usage, text_bytes: self.text_bytes })
    }

    /// Counts grow while a stream goes on, and zeros say nothing.
    fn take_usage(&mut self, raw: &RawValue) -> Option<Usage> {
        let usage = parse_usage(raw)?;
        match &mut self.usage {
            // Counts that tell less than what is known add nothing to the answer.
            Some((known, _)) if known.merged(usage) == *known && usage != *known => {}
            known => {
                let all = known.as_ref().map_or(usage, |(known, _)| known.merged(usage));
                // What was told in parts is told in one.
                let text = if all == usage { raw.get().to_owned() } else { usage_json(&all, true) };
                self.size += text.len();
                *known = Some((all, text));
            }
        }
        Some(usage)
    }

    fn choice(&mut self, index: u64) -> &mut Choice {
        let at = match self.choices.binary_search_by_key(&index, |choice| choice.index) {
            Ok(at) => at,
            Err(at) => {
                self.size += ENTRY_BYTES;
                self.choices.insert(at, Choice::new(index));
                at
            }
        };
        &mut self.choices[at]
    }

    fn take_choice(&mut self, raw: &RawChoice<'_>, facts: &mut ChunkFacts) -> Option<()> {
        let mut grown = 0;
        let chat = self.chat;
        let choice = self.choice(raw.index);
        let ends = raw.ends() && !choice.is_finished();
        facts.has_choices = true;
        if raw.ends() && raw.finish_reason.is_some_and(|reason| Ending::of(reason.get()) == Ending::Failed) {
            facts.error = Some(failed_choice());
        }
        let said = choice.take(raw, chat, &mut grown)?;
        facts.deltas = facts.deltas.saturating_add(u32::from(said.content));
        facts.text_bytes = facts.text_bytes.saturating_add(said.bytes());
        facts.ends = facts.ends.saturating_add(u32::from(ends));
        self.text_bytes = self.text_bytes.saturating_add(said.bytes());
        self.size += grown;
        Some(())
    }
}

/// One chunk on its way in.
struct Chunk<'s> {
    answer: &'s mut Assembler,
    facts: &'s mut ChunkFacts,
    fault: &'s mut Fault,
}

/// Whether a chunk is an error.
#[derive(Default)]
struct Fault {
    /// It has one.
    stated: bool,
    /// It is one, if it is nothing else.
    flat: bool,
}

impl<'de> Visitor<'de> for Chunk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a chunk")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Self { answer, facts, fault } = self;
        while let Some(Key(key)) = map.next_key()? {
            match key.as_ref() {
                "choices" => map.next_value_seed(Choices { answer: &mut *answer, facts: &mut *facts })?,
                // Ours takes their place, or they mean something in a stream alone.
                "id" | "model" | "obfuscation" => {
                    map.next_value::<IgnoredAny>()?;
                }
                "object" => fault.flat |= map.next_value::<&RawValue>()?.get() == "\"error\"",
                "usage" => {
                    let usage: &RawValue = map.next_value()?;
                    facts.has_usage = usage.get().starts_with('{');
                    facts.usage = answer.take_usage(usage);
                }
                "error" => fault.stated |= says_something(map.next_value::<&RawValue>()?.get()),
                // SGLang's errors and FastAPI's have no member around them.
                "message" | "detail" => fault.flat |= says_something(map.next_value::<&RawValue>()?.get()),
                _ => {
                    let value: &RawValue = map.next_value()?;
                    answer.size += answer.head.take(&key, value.get(), Rule::Last).unwrap_or(0);
                }
            }
        }
        Ok(())
    }
}

struct Choices<'s> {
    answer: &'s mut Assembler,
    facts: &'s mut ChunkFacts,
}

impl<'de> DeserializeSeed<'de> for Choices<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Choices<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of choices")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while let Some(raw) = seq.next_element::<RawChoice<'de>>()? {
            let taken = self.answer.take_choice(&raw, self.facts);
            taken.ok_or_else(|| serde::de::Error::custom("a choice that fits no other"))?;
        }
        Ok(())
    }
}
