//! Holds: an answer as server-sent events, written as its tokens come.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame as BodyFrame};
use tokio::sync::mpsc;

use super::{
    BrokenOff,
    answer::{Delta, Frame, Place, Shape, characters, finish_reason},
    cancel::CancelOnDrop,
    error::ApiError,
};
use crate::{
    generate::{Event, Finish, TokenLogprob, Usage},
    text::tool_calls::{Piece, ToolCallParser},
};

/// The body of a streamed answer. Dropping it gives the sequences up.
pub(super) struct Answer {
    _guard: CancelOnDrop,
    inbox: mpsc::Receiver<Event>,
    frame: Frame,
    choices: Vec<Choice>,
    /// Tokens of all choices so far.
    tokens: usize,
    open: usize,
    usages: Vec<(usize, Usage)>,
    out: String,
}

#[derive(Default)]
struct Choice {
    begun: bool,
    tools: Option<ToolCallParser>,
    calls: usize,
    tokens: usize,
    /// Characters of the tokens whose log probabilities were told.
    characters: usize,
}

impl Answer {
    pub(super) fn new(guard: CancelOnDrop, inbox: mpsc::Receiver<Event>, frame: Frame, choices: usize) -> Self {
        let tools = matches!(frame.shape(), Shape::Chat { tools: true });
        let choice = || Choice { tools: tools.then(ToolCallParser::default), ..Choice::default() };
        Self {
            _guard: guard,
            inbox,
            frame,
            choices: std::iter::repeat_with(choice).take(choices).collect(),
            tokens: 0,
            open: choices,
            usages: Vec::with_capacity(choices),
            out: String::new(),
        }
    }

    fn write(&mut self, event: Event) {
        match event {
            Event::Delta { choice, text, logprobs, tokens } => {
                self.count(choice, tokens);
                self.write_text(choice, &text, &logprobs);
            }
            Event::Done { choice, text, logprobs, finish, usage } => {
                self.count(choice, usage.completion);
                self.write_text(choice, &text, &logprobs);
                self.write_end(choice, finish);
                self.usages.push((choice, usage));
                self.open -= 1;
                if self.open == 0 {
                    self.frame.end(&mut self.out, &self.usages);
                }
            }
            Event::Failed => self.write_error(&ApiError::internal()),
        }
    }

    fn count(&mut self, choice: usize, tokens: usize) {
        self.tokens += tokens - self.choices[choice].tokens;
        self.choices[choice].tokens = tokens;
    }

    fn write_text(&mut self, choice: usize, text: &str, logprobs: &[TokenLogprob]) {
        let Self { frame, choices, out, tokens, .. } = self;
        let state = &mut choices[choice];
        let place = Place { choice, offset: state.characters, tokens: *tokens };
        if !state.begun && matches!(frame.shape(), Shape::Chat { .. }) {
            frame.chunk(out, place, &Delta::Role, &[]);
        }
        state.begun = true;
        state.characters += logprobs.iter().map(|token| characters(&token.bytes)).sum::<usize>();
        match &mut state.tools {
            Some(parser) => {
                let pieces = parser.push(text);
                write_pieces(frame, out, (place, state), pieces);
            }
            None if text.is_empty() && logprobs.is_empty() => {}
            None => frame.chunk(out, place, &Delta::Text(text), logprobs),
        }
    }

    fn write_end(&mut self, choice: usize, finish: Finish) {
        let Self { frame, choices, out, tokens, .. } = self;
        let state = &mut choices[choice];
        let place = Place { choice, offset: state.characters, tokens: *tokens };
        let mut called = false;
        if let Some(parser) = &mut state.tools {
            let pieces = parser.finish();
            called = parser.called();
            write_pieces(frame, out, (place, state), pieces);
        }
        frame.chunk(out, place, &Delta::Finish(finish_reason(finish, called)), &[]);
    }

    /// The status is long sent; the error goes where clients look for it, and the stream ends.
    fn write_error(&mut self, error: &ApiError) {
        self.open = 0;
        self.out.push_str(&format!("data: {}\n\ndata: [DONE]\n\n", error.to_json()));
    }
}

fn write_pieces(frame: &Frame, out: &mut String, (place, state): (Place, &mut Choice), pieces: Vec<Piece>) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => frame.chunk(out, place, &Delta::Text(&text), &[]),
            Piece::Call { name, arguments } => {
                let at = state.calls;
                state.calls += 1;
                frame.chunk(out, place, &Delta::Call { at, name: &name, arguments: &arguments }, &[]);
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BrokenOff;

    /// All events that have gathered leave in one frame.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, BrokenOff>>> {
        while self.open > 0 {
            match self.inbox.poll_recv(context) {
                Poll::Ready(Some(event)) => self.write(event),
                Poll::Ready(None) => self.write_error(&ApiError::unavailable("The engine is stopping.")),
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if self.out.is_empty() {
            return Poll::Ready(None);
        }
        let bytes = Bytes::from(std::mem::take(&mut self.out));
        Poll::Ready(Some(Ok(BodyFrame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.open == 0 && self.out.is_empty()
    }
}
