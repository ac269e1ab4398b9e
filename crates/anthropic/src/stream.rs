//! Holds: a chat's stream, told as the events of a message.
//!
//! One block is told at a time. A chat may go on with any of its calls, so what comes for a later block waits until no more
//! can come for the one that is open: at once for thoughts and text, for a call when its arguments are a whole object.

use std::{collections::VecDeque, mem::discriminant, sync::Arc};

use batchin_openai::{Code, HeardCall, HeardChoice, Names, Telling, Usage, hear};
use bytes::Bytes;

use crate::{
    arguments::{CallIds, Object},
    ending::Ending,
    error::kind,
    wire::{Block, Counts, Delta, Ended, ErrorDetail, Event, Input, Message},
};

/// Room for an event with a few words.
const EVENT_BYTES: usize = 256;

/// A stream that is being told.
pub(crate) struct Stream {
    id: String,
    model: String,
    stop_sequences: Arc<[String]>,
    has_begun: bool,
    /// Those not told to their end; the first one may be open.
    blocks: VecDeque<Growing>,
    is_open: bool,
    /// The number of the first of them.
    index: u64,
    /// Numbers of calls that were told to their end.
    ended_calls: Vec<u64>,
    ids: CallIds,
    ending: Ending,
    usage: Option<Usage>,
}

/// A block that is not told to its end.
struct Growing {
    kind: Kind,
    /// What of it was not told yet.
    waiting: String,
}

enum Kind {
    Thinking,
    Text,
    Call(Call),
}

struct Call {
    number: u64,
    id: Option<String>,
    name: Option<String>,
    object: Object,
}

impl Telling for Stream {
    fn chunk(&mut self, data: &[u8]) -> Bytes {
        let heard = hear(data);
        if let Some(usage) = heard.usage {
            self.usage = Some(self.usage.map_or(usage, |earlier| Usage {
                prompt_tokens: usage.prompt_tokens.or(earlier.prompt_tokens),
                completion_tokens: usage.completion_tokens.or(earlier.completion_tokens),
                ..usage
            }));
        }
        let mut out = Vec::with_capacity(EVENT_BYTES);
        self.begin(&mut out);
        for choice in heard.choices.iter().filter(|choice| choice.index == 0) {
            self.take(choice);
        }
        self.tell(&mut out, false);
        out.into()
    }

    fn done(&mut self) -> Bytes {
        let mut out = Vec::with_capacity(EVENT_BYTES);
        self.begin(&mut out);
        self.tell(&mut out, true);
        let (stop_reason, stop_sequence) = self.ending.told(&self.stop_sequences);
        Event::MessageDelta { delta: Ended { stop_reason, stop_sequence }, usage: self.counts() }.write(&mut out);
        Event::MessageStop {}.write(&mut out);
        out.into()
    }

    fn failed(&mut self, code: Code, message: &str) -> Bytes {
        let mut out = Vec::with_capacity(EVENT_BYTES);
        Event::Error { error: ErrorDetail { kind: kind(code), message }, request_id: None }.write(&mut out);
        out.into()
    }
}

impl Stream {
    pub(crate) fn new(names: Names<'_>, stop_sequences: Arc<[String]>) -> Self {
        Self {
            id: names.id.to_owned(),
            model: names.model.to_owned(),
            stop_sequences,
            has_begun: false,
            blocks: VecDeque::new(),
            is_open: false,
            index: 0,
            ended_calls: Vec::new(),
            ids: CallIds::default(),
            ending: Ending::default(),
            usage: None,
        }
    }

    fn counts(&self) -> Counts {
        self.usage.map(Counts::from).unwrap_or_default()
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let message = Message {
            id: &self.id,
            role: "assistant",
            model: &self.model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: self.counts(),
        };
        Event::MessageStart { message }.write(out);
    }

    fn take(&mut self, choice: &HeardChoice<'_>) {
        self.take_text(Kind::Thinking, &choice.reasoning);
        self.take_text(Kind::Text, &choice.content);
        self.take_text(Kind::Text, &choice.refusal);
        for call in &choice.calls {
            self.take_call(call);
        }
        self.ending.refuses |= !choice.refusal.is_empty();
        self.ending.finish = choice.finish.or(self.ending.finish);
        if let Some(sequence) = &choice.stopped_by {
            self.ending.stopped_by = Some(sequence.as_ref().to_owned());
        }
    }

    fn take_text(&mut self, kind: Kind, text: &str) {
        if text.is_empty() {
            return;
        }
        match self.blocks.back_mut() {
            Some(last) if discriminant(&last.kind) == discriminant(&kind) => last.waiting.push_str(text),
            _ => self.push(kind, text),
        }
    }

    fn take_call(&mut self, part: &HeardCall<'_>) {
        self.ending.calls = true;
        if self.ended_calls.contains(&part.index) {
            return;
        }
        let is_it = |block: &Growing| matches!(&block.kind, Kind::Call(call) if call.number == part.index);
        let at = self.blocks.iter().position(is_it).unwrap_or_else(|| {
            let call = Call { number: part.index, id: None, name: None, object: Object::default() };
            self.push(Kind::Call(call), "");
            self.blocks.len() - 1
        });
        if let Some(Growing { kind: Kind::Call(call), waiting }) = self.blocks.get_mut(at) {
            if call.id.is_none() {
                call.id = part.id.as_deref().map(String::from);
            }
            if call.name.is_none() {
                call.name = part.name.as_deref().map(String::from);
            }
            waiting.push_str(call.object.take(&part.arguments));
        }
    }

    fn push(&mut self, kind: Kind, text: &str) {
        self.blocks.push_back(Growing { kind, waiting: text.to_owned() });
    }

    /// Tells what can be told: all of it when nothing follows.
    fn tell(&mut self, out: &mut Vec<u8>, is_all: bool) {
        while let Some(block) = self.blocks.front_mut() {
            if !self.is_open {
                // Its start holds its name, which must have come.
                if !is_all && matches!(&block.kind, Kind::Call(Call { name: None, .. })) {
                    return;
                }
                block.write_start(self.index, &mut self.ids, &self.id, out);
                self.is_open = true;
            }
            block.write_waiting(self.index, out);
            let may_end = match &block.kind {
                Kind::Thinking | Kind::Text => true,
                Kind::Call(call) => call.object.has_ended(),
            };
            let is_last = self.blocks.len() == 1;
            if !is_all && (is_last || !may_end) {
                return;
            }
            self.end_block(out);
        }
    }

    fn end_block(&mut self, out: &mut Vec<u8>) {
        match self.blocks.pop_front().map(|block| block.kind) {
            // Clients keep a signature beside the thoughts and send it back with them; this one is empty.
            Some(Kind::Thinking) => {
                let delta = Delta::Signature { signature: "" };
                Event::ContentBlockDelta { index: self.index, delta }.write(out);
            }
            Some(Kind::Call(call)) => self.ended_calls.push(call.number),
            Some(Kind::Text) | None => {}
        }
        Event::ContentBlockStop { index: self.index }.write(out);
        self.is_open = false;
        self.index += 1;
    }
}

impl Growing {
    fn write_start(&self, index: u64, ids: &mut CallIds, answer: &str, out: &mut Vec<u8>) {
        let content_block = match &self.kind {
            Kind::Thinking => Block::Thinking { thinking: "", signature: "" },
            Kind::Text => Block::Text { text: "" },
            Kind::Call(call) => Block::ToolUse {
                id: ids.next(call.id.as_deref(), answer),
                name: call.name.as_deref().unwrap_or_default(),
                input: Input::Empty {},
            },
        };
        Event::ContentBlockStart { index, content_block }.write(out);
    }

    fn write_waiting(&mut self, index: u64, out: &mut Vec<u8>) {
        if self.waiting.is_empty() {
            return;
        }
        let said = &self.waiting;
        let delta = match &self.kind {
            Kind::Thinking => Delta::Thinking { thinking: said },
            Kind::Text => Delta::Text { text: said },
            Kind::Call(_) => Delta::InputJson { partial_json: said },
        };
        Event::ContentBlockDelta { index, delta }.write(out);
        // Its room is kept for the next one.
        self.waiting.clear();
    }
}
