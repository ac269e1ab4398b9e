//! Holds: one answer in the making, wherever it is: waiting, in a slot, or put back for a more urgent one.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use batchin_domain::Class;
use llama_cpp_2::token::LlamaToken;
use tokio::sync::mpsc;

use super::Sampler;
use crate::text::{stop::StopMatcher, utf8::Utf8Buffer};

/// A prompt, what has been generated so far, and where the text goes.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Distinct within the process.
    pub(crate) id: u64,
    pub(crate) class: Class,
    /// The prompt and after it everything generated.
    pub(crate) tokens: Vec<LlamaToken>,
    /// How many of `tokens` are the prompt.
    pub(crate) prompt_len: usize,
    /// Tokens that may be generated.
    pub(crate) max_new: usize,
    /// Goes on after the model's end-of-text token; load generators ask for it.
    pub(crate) ignore_eos: bool,
    pub(crate) sampler: Sampler,
    pub(crate) text: TextOut,
    pub(crate) sink: Sink,
    pub(crate) cancelled: Cancelled,
    /// Prompt tokens that were not computed because another sequence had them; `None` before it first had a slot.
    pub(crate) cached: Option<usize>,
}

/// Set when the client has gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    pub(crate) fn set(&self) {
        self.0.store(true, Relaxed);
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The model's own end, or a stop string.
    Stop,
    /// `max_tokens` or the context.
    Length,
}

/// What one choice used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    pub(crate) cached: usize,
    pub(crate) completion: usize,
}

/// One token with the probability that it had.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenLogprob {
    /// May be a part of a character.
    pub(crate) bytes: Vec<u8>,
    pub(crate) logprob: f32,
    /// The likeliest tokens at this place, likeliest first.
    pub(crate) top: Vec<(Vec<u8>, f32)>,
}

/// News about one choice of a request.
#[derive(Debug)]
pub(crate) enum Event {
    /// More text. Only for streams; may be empty when only log probabilities are new. `tokens` have been generated so far.
    Delta { choice: usize, text: String, logprobs: Vec<TokenLogprob>, tokens: usize },
    /// The end. Carries the text since the last delta, which for a request that does not stream is all of it.
    Done { choice: usize, text: String, logprobs: Vec<TokenLogprob>, finish: Finish, usage: Usage },
    /// The engine could not go on.
    Failed,
}

/// Where a sequence's events go.
///
/// The channel holds as many events as the sequence can produce, so sending never waits and never fails for lack of
/// room; a closed channel means that the client has gone.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    pub(crate) choice: usize,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) streams: bool,
}

impl Sink {
    /// The end of a choice that was to have no tokens.
    pub(crate) fn end_unbegun(&self, prompt: usize) {
        let usage = Usage { prompt, cached: 0, completion: 0 };
        let (choice, text, finish) = (self.choice, String::new(), Finish::Length);
        // The channel has room, and its other end is still here.
        let _ = self.events.try_send(Event::Done { choice, text, logprobs: Vec::new(), finish, usage });
    }
}

impl Sequence {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.0.load(Relaxed)
    }

    /// How many tokens have been generated.
    pub(super) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Takes the next token, whose text is `piece`. Returns why the sequence is over, if it is.
    pub(super) fn accept(&mut self, token: LlamaToken, end_of_text: bool, piece: &[u8]) -> Option<Finish> {
        self.tokens.push(token);
        if end_of_text && !self.ignore_eos {
            self.text.finish();
            return Some(Finish::Stop);
        }
        if self.text.push(piece) {
            return Some(Finish::Stop);
        }
        if self.generated() >= self.max_new {
            self.text.finish();
            return Some(Finish::Length);
        }
        None
    }

    /// Hands over what is new, if this is a stream and there is something.
    pub(super) fn flush(&mut self) {
        if self.sink.streams && self.text.has_news() {
            let (text, logprobs) = self.text.take();
            self.send(Event::Delta { choice: self.sink.choice, text, logprobs, tokens: self.generated() });
        }
    }

    /// Reports the end.
    pub(super) fn finish(mut self, finish: Finish) {
        let (text, logprobs) = self.text.take();
        let usage = Usage { prompt: self.prompt_len, cached: self.cached.unwrap_or(0), completion: self.generated() };
        self.send(Event::Done { choice: self.sink.choice, text, logprobs, finish, usage });
    }

    /// Reports that the engine could not go on.
    pub(super) fn fail(self) {
        self.send(Event::Failed);
    }

    fn send(&self, event: Event) {
        if self.sink.events.try_send(event).is_err() {
            self.cancelled.set();
        }
    }
}

/// Bytes of tokens on their way to the reader: whole characters only, and nothing of a stop string.
#[derive(Debug)]
pub(crate) struct TextOut {
    characters: Utf8Buffer,
    stop: StopMatcher,
    whole: String,
    ready: String,
    logprobs: Vec<TokenLogprob>,
}

impl TextOut {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            characters: Utf8Buffer::default(),
            stop: StopMatcher::new(stops),
            whole: String::new(),
            ready: String::new(),
            logprobs: Vec::new(),
        }
    }

    pub(super) fn note_logprob(&mut self, logprob: TokenLogprob) {
        self.logprobs.push(logprob);
    }

    /// True when a stop string was completed.
    fn push(&mut self, piece: &[u8]) -> bool {
        self.whole.clear();
        self.characters.push(piece, &mut self.whole);
        self.stop.push(&self.whole, &mut self.ready)
    }

    pub(super) fn finish(&mut self) {
        self.whole.clear();
        self.characters.finish(&mut self.whole);
        if !self.stop.push(&self.whole, &mut self.ready) {
            self.stop.finish(&mut self.ready);
        }
    }

    fn has_news(&self) -> bool {
        !self.ready.is_empty() || !self.logprobs.is_empty()
    }

    fn take(&mut self) -> (String, Vec<TokenLogprob>) {
        (std::mem::take(&mut self.ready), std::mem::take(&mut self.logprobs))
    }
}
