//! Holds: a response told event by event, while its chat goes on.
//!
//! An item opens with the first that is said in it and closes when something else is said. Calls stay open beside each
//! other, as their parts may come in turn. Texts are kept, since the end of each is told with all of it.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    echo::Echo,
    events::Events,
    item::{Call, Item, Part, Said, Status, logprobs_of, says_something},
    lived::{self, Piece},
    response::{Response, State},
};
use crate::{Code, Finish, HeardCall, HeardChoice, Names, Telling, Tier, Usage, hear};

/// A response that is being told.
#[derive(Debug)]
pub(super) struct Stream {
    echo: Arc<Echo>,
    id: String,
    model: String,
    created: i64,
    tier: Option<Tier>,
    stage: Stage,
    events: Events,
    items: Vec<Item>,
    /// From here on items are open: calls, or one that is none.
    open_from: usize,
    /// The item in which something was said last.
    last: usize,
    usage: Option<Usage>,
    finish: Option<Finish>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Silent,
    Begun,
    Done,
    Failed,
}

impl Telling for Stream {
    fn chunk(&mut self, data: &[u8]) -> Bytes {
        if matches!(self.stage, Stage::Done | Stage::Failed) {
            return Bytes::new();
        }
        self.events.expect(data.len());
        self.begin();
        let heard = hear(data);
        for choice in heard.choices.iter().filter(|choice| choice.index == 0) {
            self.take(choice);
        }
        self.usage = heard.usage.or(self.usage);
        self.events.take()
    }

    fn done(&mut self) -> Bytes {
        let state = State::ended_by(self.finish);
        let name = match state {
            State::Incomplete(_) => "response.incomplete",
            State::InProgress | State::Completed | State::Failed { .. } => "response.completed",
        };
        self.end(name, state, Self::close_all)
    }

    fn failed(&mut self, code: Code, message: &str) -> Bytes {
        if self.stage == Stage::Done {
            // The client has not seen the end, and with it not all of what was said.
            self.stage = Stage::Begun;
            (self.items, self.usage) = (Vec::new(), None);
            (self.open_from, self.last) = (0, 0);
        }
        self.end("response.failed", State::Failed { code, message }, |stream| {
            let open = stream.items.get_mut(stream.open_from..).unwrap_or_default();
            open.iter_mut().for_each(|item| item.status = Status::Incomplete);
        })
    }
}

impl Stream {
    pub(super) fn new(echo: Arc<Echo>, names: Names<'_>) -> Self {
        Self {
            echo,
            id: names.id.to_owned(),
            model: names.model.to_owned(),
            created: names.created,
            tier: names.tier,
            stage: Stage::Silent,
            events: Events::default(),
            items: Vec::new(),
            open_from: 0,
            last: 0,
            usage: None,
            finish: None,
        }
    }

    fn begin(&mut self) {
        if self.stage == Stage::Silent {
            self.stage = Stage::Begun;
            for name in ["response.created", "response.in_progress"] {
                self.tell_response(name, State::InProgress);
            }
        }
    }

    fn end(&mut self, name: &str, state: State<'_>, close: impl FnOnce(&mut Self)) -> Bytes {
        if matches!(self.stage, Stage::Silent | Stage::Begun) {
            self.begin();
            close(self);
            let is_failure = matches!(state, State::Failed { .. });
            self.tell_response(name, state);
            self.stage = if is_failure { Stage::Failed } else { Stage::Done };
        }
        self.events.take()
    }

    fn tell_response(&mut self, name: &str, state: State<'_>) {
        let names = Names { id: &self.id, model: &self.model, created: self.created, tier: self.tier };
        let response = Response { echo: &self.echo, names, state, items: &self.items, usage: self.usage };
        self.events.event(name).with("response", |out| response.write(out)).end();
    }

    fn take(&mut self, choice: &HeardChoice<'_>) {
        if !choice.reasoning.is_empty() {
            self.think(&choice.reasoning);
        }
        // Some tokens are no characters yet.
        if !choice.content.is_empty() || (choice.logprobs.is_some() && self.is_text_open()) {
            self.say(&choice.content, &logprobs_of(choice, self.echo.logprobs));
        }
        if !choice.refusal.is_empty() {
            self.refuse(&choice.refusal);
        }
        for heard in choice.calls.iter().filter(|heard| says_something(heard)) {
            self.call(heard);
        }
        if choice.finish.is_some() {
            self.finish = choice.finish;
            self.close_all();
        }
    }

    fn think(&mut self, more: &str) {
        if !matches!(self.open(), Some(Said::Reasoning(_))) {
            self.open_item(Said::Reasoning(String::new()));
            self.each_open(|item, at, events| lived::part_added(events, item, at));
        }
        self.grow(Piece { text: more, logprobs: "" });
    }

    fn say(&mut self, more: &str, logprobs: &str) {
        if !self.is_text_open() {
            self.open_part(Part::text());
        }
        self.grow(Piece { text: more, logprobs });
    }

    fn refuse(&mut self, more: &str) {
        if !matches!(self.open(), Some(Said::Message(parts)) if matches!(parts.last(), Some(Part::Refusal(_)))) {
            self.open_part(Part::Refusal(String::new()));
        }
        self.grow(Piece { text: more, logprobs: "" });
    }

    /// More of the newest part of what is open, which is no call.
    fn grow(&mut self, piece: Piece<'_>) {
        self.last = self.open_from;
        self.each_open(|item, at, events| lived::grown(events, item, at, piece));
    }

    fn call(&mut self, heard: &HeardCall<'_>) {
        let is_it = |item: &Item| matches!(&item.said, Said::Call(call) if call.index == heard.index);
        let known = self.items.iter().rposition(is_it);
        if known.is_none() {
            if !matches!(self.open(), Some(Said::Call(_))) {
                self.close_all();
            }
            self.items.push(Item::new(Said::Call(Call::new(heard.index)), &self.id, self.items.len()));
        }
        let at = known.unwrap_or(self.items.len().saturating_sub(1));
        self.last = at;
        let Some(item) = self.items.get_mut(at) else { return };
        let Said::Call(call) = &mut item.said else { return };
        call.take(heard);
        if call.called.is_none() && !call.name_in_chat.is_empty() {
            item.settle(&self.id, at, &self.echo.called);
            lived::call_added(&mut self.events, item, at);
        } else if call.called.is_some() && at >= self.open_from {
            lived::call_grown(&mut self.events, item, at, &heard.arguments);
        }
    }

    /// What is open: an item that is no call, or some call.
    fn open(&self) -> Option<&Said> {
        self.items.get(self.open_from..)?.last().map(|item| &item.said)
    }

    fn is_text_open(&self) -> bool {
        matches!(self.open(), Some(Said::Message(parts)) if matches!(parts.last(), Some(Part::Text { .. })))
    }

    fn each_open(&mut self, mut tell: impl FnMut(&mut Item, usize, &mut Events)) {
        for (at, item) in self.items.iter_mut().enumerate().skip(self.open_from) {
            tell(item, at, &mut self.events);
        }
    }

    /// Opens an item that is no call.
    fn open_item(&mut self, said: Said) {
        self.close_all();
        self.items.push(Item::new(said, &self.id, self.items.len()));
        self.each_open(|item, at, events| lived::added(events, item, at));
    }

    /// Opens a part in the message that is open, or in a new one.
    fn open_part(&mut self, part: Part) {
        if matches!(self.open(), Some(Said::Message(_))) {
            self.each_open(|item, at, events| lived::part_done(events, item, at));
        } else {
            self.open_item(Said::Message(Vec::new()));
        }
        if let Some(Said::Message(parts)) = self.items.last_mut().map(|item| &mut item.said) {
            parts.push(part);
        }
        self.each_open(|item, at, events| lived::part_added(events, item, at));
    }

    fn close_all(&mut self) {
        let is_cut = matches!(State::ended_by(self.finish), State::Incomplete(_));
        for (at, item) in self.items.iter_mut().enumerate().skip(self.open_from) {
            if matches!(&item.said, Said::Call(call) if call.called.is_none()) {
                item.settle(&self.id, at, &self.echo.called);
                lived::call_added(&mut self.events, item, at);
            }
            item.status = if is_cut && at == self.last { Status::Incomplete } else { Status::Completed };
            lived::done(&mut self.events, item, at);
        }
        self.open_from = self.items.len();
    }
}
