//! Holds: the stream of one answer, event by event, ready to be passed on.
//!
//! It counts and renames while bytes pass through and keeps nothing of them. Dropping it closes the connection at
//! once, which is how a stream is cancelled.

use std::{
    collections::VecDeque,
    fmt, io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use batchin_openai::{
    AnswerError, AssembleError, Assembler, ChunkError, ChunkFacts, Code, ErrorBody, NativeEvents, Relay, UpstreamError,
    Usage, answer_bytes, infill_as_completion,
    sse::{self, Decoder, Item, SseEvent},
    transcript_as_chunk,
};
use bytes::Bytes;
use http_body::Body;
use tokio::time::{Instant, Sleep, timeout_at};

use crate::{
    call::Call,
    failure::{CallError, CallErrorKind, StreamError, Unanswered},
    lease::Lease,
    mixed::{Form, TooLarge},
    transport::{AnswerBody, BodyError, io_kind},
};

/// Events before the first text that wait for it, so that a failure before that can still be retried: a response that begins,
/// runs, and opens an item and a part of it, or a few that stay empty.
const MAX_PREAMBLE: usize = 16;

/// What passes through while a server says nothing.
const KEEP_ALIVE_FRAME: &[u8] = b": keep-alive\n\n";

const DONE_FRAME: &[u8] = b"data: [DONE]\n\n";

/// One event, ready for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The bytes to send on, blank line included, with the public id and model; empty where they are put together here,
    /// and where no client is to see them.
    pub frame: Bytes,
    /// Choices that got content with it; each holds at least one token.
    pub deltas: u32,
    /// Bytes of text in it, as in [`WholeAnswer`](batchin_openai::WholeAnswer).
    pub text_bytes: u64,
    /// Choices that end with it, each counted once in a stream.
    pub ends: u32,
    /// Counts in it, which grow from event to event where a server reports them all along.
    pub usage: Option<Usage>,
    /// What it is.
    pub kind: EventKind,
}

/// What an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Content, or an empty first delta.
    Delta,
    /// A choice ends with it.
    Finish,
    /// Counts without choices, readable or not; hidden from clients that did not ask for usage.
    Usage,
    /// `[DONE]`. The stream is complete and nothing follows.
    Done,
    /// The server failed in the middle; the frame says so in our shape, and nothing follows.
    Error(Box<UpstreamError>),
    /// The server is still there.
    KeepAlive,
}

/// The events of one answer, in order.
pub struct Events {
    feed: Feed,
    /// The event that `call` waited for.
    first: Option<Event>,
    lease: Lease,
}

/// An answer on its way from bytes to events.
pub(crate) struct Feed {
    /// `None` once the stream is over, so that the connection is let go.
    body: Option<AnswerBody>,
    /// What may follow `[DONE]`: the end of the body, after which the connection can be used again.
    tail: Option<AnswerBody>,
    form: Form,
    native: Native,
    decoder: Decoder,
    reader: Reader,
    /// What a whole answer that came in place of a stream still has to say.
    waiting: VecDeque<Event>,
    /// Choices that the answer has.
    answers: u32,
    /// Of answers to so many prompts the server counts one.
    counts_one_of: Option<u32>,
    models: Option<(String, String)>,
    at_end: bool,
    idle: Duration,
    last_byte: Instant,
    alarm: Pin<Box<Sleep>>,
}

/// In what form chunks come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Native {
    /// As chunks.
    None,
    /// As `/infill` has them.
    Infill {
        /// When they are said to be made, in seconds since 1970.
        created: i64,
    },
    /// As events of what is said in a sound, or as chunks.
    Transcript,
}

impl Native {
    /// The data as a chunk, or the whole answer as that of a chat or a completion.
    fn told(self, data: &Bytes) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::Infill { created } => Some(infill_as_completion(data, created)),
            Self::Transcript => Some(transcript_as_chunk(data)),
        }
    }
}

/// What becomes of each chunk.
pub(crate) enum Reader {
    /// It is passed on under the public names.
    PassOn(Box<Relay>),
    /// It is put together with the others.
    Assemble(Box<Assembler>),
    /// It is an event of a protocol of its own, and passed on as it came.
    Native(Box<dyn NativeEvents>),
}

impl Reader {
    /// What the chunk says, and what is to be sent on.
    fn read(&mut self, data: &[u8], unreadable: StreamError) -> Result<(Bytes, ChunkFacts), StreamError> {
        match self {
            Self::PassOn(relay) => match relay.frame(data) {
                Ok(chunk) => Ok((chunk.frame, chunk.facts)),
                Err(ChunkError::NotAChunk) => Err(unreadable),
                Err(ChunkError::TooMuch) => Err(StreamError::TooLarge),
            },
            Self::Assemble(answer) => match answer.take(data) {
                Ok(facts) => Ok((Bytes::new(), facts)),
                Err(AssembleError::NotAChunk) => Err(unreadable),
                Err(AssembleError::TooLarge) => Err(StreamError::TooLarge),
            },
            Self::Native(events) => match events.facts(data) {
                Ok(facts) => Ok((sse::frame(data), facts)),
                Err(ChunkError::NotAChunk) => Err(unreadable),
                Err(ChunkError::TooMuch) => Err(StreamError::TooLarge),
            },
        }
    }

    /// The same of a whole answer.
    fn read_whole(&mut self, body: &Bytes) -> Result<Vec<(Bytes, ChunkFacts)>, StreamError> {
        match self {
            Self::PassOn(relay) => match relay.frame_whole(body) {
                Ok(chunks) => Ok(chunks.into_iter().map(|chunk| (chunk.frame, chunk.facts)).collect()),
                Err(ChunkError::NotAChunk) => Err(StreamError::BadEvent),
                Err(ChunkError::TooMuch) => Err(StreamError::TooLarge),
            },
            Self::Assemble(answer) => match answer.take_whole(body) {
                Ok(facts) => Ok(vec![(Bytes::new(), facts)]),
                Err(AnswerError::Refused(error)) => {
                    Ok(vec![(Bytes::new(), ChunkFacts { error: Some(error), ..ChunkFacts::default() })])
                }
                Err(AnswerError::NotAnAnswer) => Err(StreamError::BadEvent),
            },
            // Of an answer without events none can be made that has the server's own.
            Self::Native(_) => Err(StreamError::BadEvent),
        }
    }

    /// Whether each choice has ended that has been seen.
    fn is_finished(&self) -> bool {
        match self {
            Self::PassOn(relay) => relay.is_finished(),
            Self::Assemble(answer) => answer.is_finished(),
            Self::Native(events) => events.has_ended(),
        }
    }

    /// How many choices have been seen.
    fn seen(&self) -> usize {
        match self {
            Self::PassOn(relay) => relay.seen(),
            Self::Assemble(answer) => answer.seen(),
            Self::Native(events) => usize::from(events.has_begun()),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("lease", &self.lease).finish_non_exhaustive()
    }
}

impl Events {
    /// The events of an open feed, of which `first` has been taken.
    pub(crate) fn new(feed: Feed, first: Event, mut lease: Lease) -> Self {
        lease.began();
        Self { feed, first: Some(first), lease }
    }

    /// The next event; `None` after [`EventKind::Done`], [`EventKind::Error`] or an error.
    pub async fn next(&mut self) -> Option<Result<Event, StreamError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Whether this choice has ended; unknown where chunks are put together.
    pub fn has_ended(&self, index: u64) -> bool {
        match &self.feed.reader {
            Reader::PassOn(relay) => relay.has_ended(index),
            Reader::Assemble(_) => false,
            Reader::Native(events) => events.has_ended(),
        }
    }

    /// Whether each of the answers that were asked for has ended.
    pub(crate) fn is_whole(&self) -> bool {
        self.feed.is_whole()
    }

    /// What has been put together; `None` where chunks are passed on.
    pub(crate) fn into_answer(mut self) -> Option<Assembler> {
        let nothing = Reader::PassOn(Box::new(Relay::new("", "", false)));
        match std::mem::replace(&mut self.feed.reader, nothing) {
            Reader::Assemble(answer) => Some(*answer),
            Reader::PassOn(_) | Reader::Native(_) => None,
        }
    }

    /// As [`next`](Self::next), for bodies that are polled.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, StreamError>>> {
        if let Some(first) = self.first.take() {
            self.note(&first);
            return Poll::Ready(Some(Ok(first)));
        }
        let polled = self.feed.poll_decoded(cx);
        match &polled {
            Poll::Ready(Some(Ok(event))) => self.note(event),
            Poll::Ready(Some(Err(_))) => self.lease.stream_broke(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    /// Tells the replica how the stream went, once its last event is handed out.
    fn note(&mut self, event: &Event) {
        match event.kind {
            EventKind::Done => self.lease.succeeded(),
            EventKind::Error(_) => self.lease.stream_broke(),
            EventKind::Delta | EventKind::Finish | EventKind::Usage | EventKind::KeepAlive => {}
        }
    }
}

impl Feed {
    /// Waits for the first event that is more than a keep-alive, so that a failure before it can still be retried.
    pub(crate) async fn open(
        body: AnswerBody,
        (call, native, counts_one_of): (&Call<'_>, Native, Option<u32>),
        reader: Reader,
        idle: Duration,
        deadline: Instant,
    ) -> Result<(Self, Event), Unanswered> {
        let now = Instant::now();
        let mut feed = Self {
            body: Some(body),
            tail: None,
            form: Form::default(),
            native,
            decoder: Decoder::new(),
            reader,
            waiting: VecDeque::new(),
            answers: call.answers,
            counts_one_of,
            models: call.upstream_model.map(|upstream| (upstream.to_owned(), call.public_model.to_owned())),
            at_end: false,
            idle,
            last_byte: now,
            alarm: Box::pin(tokio::time::sleep_until(now + idle)),
        };
        let first = timeout_at(deadline, feed.first_event()).await;
        Err(Unanswered::Failed(match first {
            Ok(Some(Ok(Event { kind: EventKind::Error(said), .. }))) => return Err(Unanswered::Said(*said)),
            Ok(Some(Ok(Event { kind: EventKind::Done, .. }))) => CallError::other_replica(CallErrorKind::BadAnswer),
            Ok(Some(Ok(event))) => return Ok((feed, event)),
            Ok(Some(Err(error))) => CallError::broke_off(error),
            Err(_) => CallError::other_replica(CallErrorKind::Timeout),
            Ok(None) => CallError::other_replica(CallErrorKind::BadAnswer),
        }))
    }

    async fn first_event(&mut self) -> Option<Result<Event, StreamError>> {
        let mut before = VecDeque::new();
        loop {
            match std::future::poll_fn(|cx| self.poll_decoded(cx)).await {
                Some(Ok(Event { kind: EventKind::KeepAlive, .. })) => {}
                // Servers with protocols of their own tell that they have the call before they do anything about it.
                Some(Ok(event)) if self.says_nothing_yet(&event) && before.len() < MAX_PREAMBLE => {
                    before.push_back(event);
                }
                Some(Ok(event)) if !before.is_empty() && !matches!(event.kind, EventKind::Error(_)) => {
                    before.push_back(event);
                    let first = before.pop_front();
                    before.append(&mut self.waiting);
                    self.waiting = before;
                    return first.map(Ok);
                }
                other => return other,
            }
        }
    }

    fn says_nothing_yet(&self, event: &Event) -> bool {
        matches!(self.reader, Reader::Native(_)) && event.kind == EventKind::Delta && event.deltas == 0
    }

    /// Whether each of the answers that were asked for has ended.
    fn is_whole(&self) -> bool {
        let asked = usize::try_from(self.answers).unwrap_or(usize::MAX);
        self.reader.is_finished() && self.reader.seen() >= asked
    }

    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Event, StreamError>>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.body.is_none() {
                return Poll::Ready(None);
            }
            match self.decoded() {
                Ok(Some(event)) => {
                    self.release_after(&event.kind, cx);
                    return Poll::Ready(Some(Ok(event)));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(self.over(error)))),
            }
            if self.at_end {
                match self.form.take_json() {
                    None => return Poll::Ready(Some(self.ended())),
                    Some(body) => match self.whole(&body) {
                        Ok(()) => continue,
                        Err(error) => return Poll::Ready(Some(Err(self.over(error)))),
                    },
                }
            }
            match self.poll_body(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(self.over(error)))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next event among the bytes that are here.
    fn decoded(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            let item = if self.at_end { self.decoder.finish() } else { self.decoder.next_item() };
            match item.map_err(|_| StreamError::TooLarge)? {
                None => return Ok(None),
                Some(Item::Comment) => return Ok(Some(plain(KEEP_ALIVE_FRAME, EventKind::KeepAlive))),
                Some(Item::Event(event)) => {
                    if let Some(event) = self.event(&event)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    fn event(&mut self, event: &SseEvent) -> Result<Option<Event>, StreamError> {
        let data = event.data.trim_ascii();
        if data.is_empty() {
            return Ok(None);
        }
        if data == b"[DONE]" {
            // A stream without a reason for its end was cut off on its way.
            let done = || plain(DONE_FRAME, EventKind::Done);
            return self.reader.is_finished().then(done).ok_or(StreamError::Truncated).map(Some);
        }
        if event.event.as_deref() == Some(b"error") {
            return Ok(Some(self.failure(batchin_openai::upstream_error_message(500, data))));
        }
        let unreadable = if self.at_end { StreamError::Truncated } else { StreamError::BadEvent };
        let (frame, facts) = match self.native.told(&event.data) {
            Some(told) => self.reader.read(&told, unreadable)?,
            None => self.reader.read(data, unreadable)?,
        };
        Ok(Some(self.passed(frame, facts)))
    }

    fn passed(&self, frame: Bytes, facts: ChunkFacts) -> Event {
        let ChunkFacts { has_choices, deltas, text_bytes, ends, usage, has_usage, error } = facts;
        let usage = match self.counts_one_of {
            Some(prompts) => usage.map(|usage| usage.of_one_answer(prompts)),
            None => usage,
        };
        if let Some(error) = error {
            return Event { usage, ..self.failure(error) };
        }
        let kind = match (ends, has_choices, has_usage) {
            (1.., ..) => EventKind::Finish,
            (0, true, _) => EventKind::Delta,
            (0, false, true) => EventKind::Usage,
            // An empty object, or what a proxy says for itself.
            (0, false, false) => return plain(KEEP_ALIVE_FRAME, EventKind::KeepAlive),
        };
        Event { frame, deltas, text_bytes, ends, usage, kind }
    }

    /// The body was a whole answer, and is at its end.
    fn whole(&mut self, body: &Bytes) -> Result<(), StreamError> {
        let told = self.native.told(body);
        let body = told.as_ref().unwrap_or(body);
        let mut chunks = self.reader.read_whole(body)?;
        if let (Some(_), Reader::Assemble(_), [(_, facts)]) = (self.counts_one_of, &self.reader, &mut chunks[..]) {
            // It was not counted, as its server seemed to have done it.
            facts.text_bytes = answer_bytes(body);
        }
        self.waiting = chunks.into_iter().map(|(frame, facts)| self.passed(frame, facts)).collect();
        if !matches!(self.waiting.back(), Some(Event { kind: EventKind::Error(_), .. })) {
            self.waiting.push_back(plain(DONE_FRAME, EventKind::Done));
        }
        self.body = None;
        Ok(())
    }

    fn failure(&self, mut error: UpstreamError) -> Event {
        if let Some((upstream, public)) = &self.models {
            error.rename_model(upstream, public);
        }
        let body = error.to_body();
        let body = ErrorBody { code: body.code.or(Some(Code::UpstreamError.name())), ..body };
        let frame = sse::frame(body.to_json().as_bytes());
        Event { frame, deltas: 0, text_bytes: 0, ends: 0, usage: None, kind: EventKind::Error(Box::new(error)) }
    }

    /// The body is at its end and every event in it has been handed out.
    fn ended(&mut self) -> Result<Event, StreamError> {
        if self.is_whole() {
            self.body = None;
            return Ok(plain(DONE_FRAME, EventKind::Done));
        }
        Err(self.over(StreamError::Truncated))
    }

    /// Lets the connection go after an error. After `[DONE]` only the end of the body is to come; asking for it now
    /// makes the connection read it while the caller settles.
    fn release_after(&mut self, kind: &EventKind, cx: &mut Context<'_>) {
        match kind {
            EventKind::Done => self.tail = self.body.take().and_then(|body| unended(body, cx)),
            EventKind::Error(_) => self.body = None,
            EventKind::Delta | EventKind::Finish | EventKind::Usage | EventKind::KeepAlive => {}
        }
    }

    fn over(&mut self, error: StreamError) -> StreamError {
        self.body = None;
        error
    }

    /// Takes in the next bytes, or notices the end or a stall.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { return Poll::Ready(Ok(())) };
                self.last_byte = Instant::now();
                match self.form.take(data) {
                    Ok(events) => self.decoder.push(events.unwrap_or_default()),
                    Err(TooLarge) => return Poll::Ready(Err(StreamError::TooLarge)),
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Some(Err(BodyError::Encoding))) => Poll::Ready(Err(StreamError::BadEvent)),
            Poll::Ready(Some(Err(error))) => {
                let kind = io_kind(&error).unwrap_or(io::ErrorKind::UnexpectedEof);
                Poll::Ready(Err(StreamError::Broken(kind)))
            }
            Poll::Ready(None) => {
                self.at_end = true;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.poll_alarm(cx).map(Err),
        }
    }

    /// One timer for the whole stream: it is moved on when it rings, not with every delta.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            let due = self.last_byte + self.idle;
            if due <= Instant::now() {
                return Poll::Ready(StreamError::Stalled);
            }
            self.alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let unended = self.feed.tail.take().and_then(|tail| unended(tail, &mut Context::from_waker(Waker::noop())));
        if let Some(tail) = unended {
            self.lease.drain(tail);
        }
    }
}

/// The body, unless it is at its end.
fn unended(mut body: AnswerBody, cx: &mut Context<'_>) -> Option<AnswerBody> {
    match Pin::new(&mut body).poll_frame(cx) {
        Poll::Ready(None | Some(Err(_))) => None,
        Poll::Ready(Some(Ok(_))) | Poll::Pending => Some(body),
    }
}

fn plain(frame: &'static [u8], kind: EventKind) -> Event {
    Event { frame: Bytes::from_static(frame), deltas: 0, text_bytes: 0, ends: 0, usage: None, kind }
}
