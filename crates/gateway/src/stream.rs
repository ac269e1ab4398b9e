//! Holds: a stream on its way to the client.
//!
//! Events pass through as they come, counted. The last ones wait until the charge is durable. Whatever happens, the
//! stream settles exactly once: at its end, on a failure in the middle, or when the client goes away.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use batchin_domain::{AccountId, Measure};
use batchin_openai::{Code, ErrorBody, Telling, sse};
use batchin_scheduler::Outcome as Ended;
use batchin_shares::Share;
use batchin_store::{CommitError, Outcome, Settlement, StoredAnswer};
use batchin_tasks::Tasks;
use batchin_upstream::{Event, EventKind, Events, StreamError, is_about_server};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use tokio::{sync::oneshot, time::Instant};
use tracing::warn;

use crate::{
    attempt::choices_of,
    bill::{Bill, MAX_KEPT_ANSWER},
    dispatch::Running,
    idempotent::IdempotencyGuard,
    pace::Pace,
    reserve::Reservation,
};

/// What may follow the end of the last choice: usage and `[DONE]`, each once or, from some servers, a few times, and pings.
const MAX_TAIL_EVENTS: usize = 16;
/// Pings that come later than this after the end of the last choice are not waited for: its end and the charge wait with
/// them. Usage takes servers milliseconds.
const TAIL_PATIENCE: Duration = Duration::from_secs(5);

/// What is told of a server that says nothing about it, or nothing that is for clients.
const FAILED: &str = "The model server failed in the middle of the answer.";

const DONE_FRAME: &[u8] = b"data: [DONE]\n\n";

/// A stream's usage is flushed this often: what a crash can cost us stays below this much of a stream.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

type Committing = Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>;

/// What is needed to settle; taken exactly once.
struct Open {
    bill: Bill,
    reservation: Reservation,
    running: Running,
    guard: Option<IdempotencyGuard>,
    /// The last flush: whether it became durable is known before the next charge is made.
    flush: Option<Flush>,
}

struct Flush {
    done: oneshot::Receiver<Result<(), CommitError>>,
    settlement: Settlement,
}

/// What waits for the charge, or for the answer's end.
enum Last {
    /// A chunk, framed.
    Chunk(Bytes),
    /// The answer is whole.
    Done,
    /// The answer broke off: why, and the frame that says it where nothing is retold.
    Broken(Code, String, Bytes),
}

enum State {
    /// Events pass through.
    Flowing(Box<Events>),
    /// The last frames wait for the charge.
    Settling(Committing),
    /// What is left to send.
    Ending,
}

/// A metered stream of server-sent events.
pub struct MeteredStream {
    state: State,
    open: Option<Open>,
    tasks: Tasks,
    /// What waits for the answer's end.
    tail: Vec<Last>,
    /// What is left to send once the charge is durable.
    left: VecDeque<Bytes>,
    /// The protocol of the request, where that is not the one of chats.
    telling: Option<Box<dyn Telling>>,
    /// How fast the model server is; its stream is what tells.
    pace: Pace,
    /// Choices that have not ended.
    choices_left: u32,
    /// When the last of them ended, and how many events there were from then on.
    after_end: Option<(Instant, usize)>,
    show_usage: bool,
    /// Where in the tail the usage is that the upstream told.
    usage_at: Option<usize>,
    /// The client asked for a usage that it has not been told yet: what was told beside choices was for us alone.
    owes_usage: bool,
    flushed: Instant,
    /// The answer so far, while it may be asked for again.
    kept: Option<BytesMut>,
    _place: Share<AccountId>,
}

impl MeteredStream {
    pub(crate) fn new(
        bill: Bill,
        reservation: Reservation,
        events: Events,
        running: Running,
        rest: (Option<IdempotencyGuard>, Share<AccountId>),
    ) -> Self {
        let (guard, place) = rest;
        let (peek, kind) = (&bill.admitted.peek, running.replica.kind());
        let choices = choices_of(&bill.admitted, kind);
        Self {
            owes_usage: peek.include_usage
                && !peek.continuous_usage
                && kind.counts_all_along()
                && bill.admitted.asked.native.is_none(),
            state: State::Flowing(Box::new(events)),
            pace: Pace::new(choices),
            choices_left: choices,
            after_end: None,
            show_usage: bill.admitted.peek.include_usage,
            usage_at: None,
            flushed: Instant::now(),
            kept: guard.is_some().then(BytesMut::new),
            tasks: bill.gateway.tasks().clone(),
            telling: bill.telling(),
            open: Some(Open { bill, reservation, running, guard, flush: None }),
            tail: Vec::new(),
            left: VecDeque::new(),
            _place: place,
        }
    }

    /// Takes an event in. `Some` is what to send now.
    fn pass(&mut self, event: Event) -> Option<Bytes> {
        let meter = &mut self.open.as_mut()?.bill.meter;
        meter.said(event.deltas, event.text_bytes);
        match event.usage {
            Some(usage) => meter.report(usage),
            None if event.kind == EventKind::Usage => meter.reports_nothing(),
            None => {}
        }
        self.choices_left = self.choices_left.saturating_sub(event.ends);
        if self.choices_left == 0 && is_tail_over(&mut self.after_end, &event.kind) {
            self.complete();
            return None;
        }
        match event.kind {
            EventKind::KeepAlive => return Some(event.frame),
            EventKind::Usage if !self.show_usage => return None,
            // Of one choice; what is told are the counts of all, once.
            EventKind::Usage if self.choices_left > 0 => {
                self.owes_usage = true;
                return None;
            }
            EventKind::Usage => self.owes_usage = false,
            EventKind::Delta | EventKind::Finish | EventKind::Done | EventKind::Error(_) => {}
        }
        match event.kind {
            // From the last choice's end on, everything waits for the charge.
            EventKind::Delta | EventKind::Finish | EventKind::Usage if self.choices_left == 0 => {
                self.hold_back(event);
                return None;
            }
            EventKind::Delta | EventKind::Finish | EventKind::Usage if meter.is_over() => {
                // A choice that ends with it has its end told by it alone.
                if event.kind == EventKind::Finish && !event.frame.is_empty() {
                    self.tail.push(Last::Chunk(event.frame));
                }
                self.cut();
                return None;
            }
            EventKind::Delta | EventKind::Finish | EventKind::Usage | EventKind::KeepAlive => {}
            EventKind::Done if self.choices_left > 0 => {
                self.broken(StreamError::Truncated);
                return None;
            }
            EventKind::Done => {
                self.complete();
                return None;
            }
            // Nothing of the answer is missing.
            EventKind::Error(_) if self.choices_left == 0 => {
                self.complete();
                return None;
            }
            EventKind::Error(said) => {
                warn!(
                    upstream = self.upstream(),
                    status = said.status,
                    "a stream ended with an error of the model server"
                );
                self.tail.push(match is_about_server(&said) {
                    true => broken_off(FAILED, Code::UpstreamError),
                    false => Last::Broken(Code::UpstreamError, said.message, event.frame),
                });
                self.end(Outcome::UpstreamFailed);
                return None;
            }
        }
        let frame = match &mut self.telling {
            Some(telling) if !event.frame.is_empty() => telling.chunk(sse::data_of(&event.frame)),
            _ => event.frame,
        };
        if frame.is_empty() {
            return None;
        }
        self.keep(&frame);
        self.flush_if_due();
        batchin_faults::point("stream.passing");
        Some(frame)
    }

    /// Keeps what follows the last choice's end until the charge is durable.
    fn hold_back(&mut self, event: Event) {
        if event.kind == EventKind::Usage {
            self.usage_at = Some(self.tail.len());
        }
        self.tail.push(Last::Chunk(event.frame));
    }

    /// Every choice has ended. What the client is told of its usage is what it pays for.
    fn complete(&mut self) {
        let bill = self.open.as_ref().map(|open| &open.bill).filter(|_| self.show_usage);
        if let Some(bill) = bill.filter(|bill| self.owes_usage || bill.meter.corrected().is_some()) {
            let frame = bill.chunk_head(&bill.public_id()).usage(&bill.meter.usage());
            match self.usage_at {
                Some(at) if at < self.tail.len() => self.tail[at] = Last::Chunk(frame),
                Some(_) | None => self.tail.push(Last::Chunk(frame)),
            }
        }
        self.tail.push(Last::Done);
        self.end(Outcome::Completed);
    }

    /// The upstream goes on beyond what was asked for and held: the answer ends here, as it should have.
    fn cut(&mut self) {
        let Some(open) = self.open.as_mut() else { return };
        open.bill.meter.cut();
        warn!(upstream = open.running.replica.name(), "a stream was cut off that went on beyond its limit");
        let id = open.bill.public_id();
        let head = open.bill.chunk_head(&id);
        let ended =
            head.end_by_length(open_choices(&self.state, choices_of(&open.bill.admitted, open.running.replica.kind())));
        self.tail.push(Last::Chunk(ended));
        if self.show_usage {
            self.usage_at = Some(self.tail.len());
            self.tail.push(Last::Chunk(head.usage(&open.bill.meter.usage())));
        }
        self.complete();
    }

    fn keep(&mut self, frame: &Bytes) {
        if let Some(kept) = &mut self.kept {
            if kept.len() + frame.len() <= MAX_KEPT_ANSWER {
                kept.extend_from_slice(frame);
            } else {
                self.kept = None;
            }
        }
    }

    /// Whose stream it is, until it has settled.
    fn upstream(&self) -> Option<&str> {
        self.open.as_ref().map(|open| open.running.replica.name())
    }

    /// The upstream broke off.
    fn broken(&mut self, cause: StreamError) {
        if self.choices_left == 0 {
            // Nothing of the answer is missing.
            return self.complete();
        }
        warn!(upstream = self.upstream(), error = %cause, "a stream broke off");
        let (message, code) = match cause {
            StreamError::Stalled => ("The model server stopped answering.", Code::UpstreamTimeout),
            StreamError::Truncated | StreamError::Broken(_) | StreamError::TooLarge | StreamError::BadEvent => {
                (FAILED, Code::UpstreamError)
            }
        };
        self.tail.push(broken_off(message, code));
        self.end(Outcome::UpstreamFailed);
    }

    /// Charges what has grown since the last flush, while the stream goes on.
    fn flush_if_due(&mut self) {
        if self.flushed.elapsed() < FLUSH_INTERVAL {
            return;
        }
        self.flushed = Instant::now();
        let Some(open) = self.open.as_mut() else { return };
        if let Some(flush) = &mut open.flush {
            match flush.done.try_recv() {
                Ok(Ok(())) => open.flush = None,
                // One that is still under way, or failed, is sorted out at the end.
                Ok(Err(_)) | Err(_) => return,
            }
        }
        let settlement = open.bill.settlement(Outcome::Running, &open.reservation);
        let amount = settlement.charge;
        if amount.is_zero() {
            return;
        }
        if let Some(done) = open.bill.epoch.committer.try_submit(settlement.clone()) {
            open.bill.charged = open.bill.charged.saturating_add(amount);
            open.reservation.settle_part(amount);
            open.flush = Some(Flush { done, settlement });
        }
    }

    /// Hands the final charge in; the tail is sent once it is durable.
    fn end(&mut self, outcome: Outcome) {
        if let (Outcome::UpstreamFailed, Some(Open { bill, .. })) = (outcome, &mut self.open)
            && bill.inbound.call.hears()
        {
            // A sound of which the rest is missing is not paid for.
            bill.meter.made(Measure::AudioMs, 0);
        }
        for last in std::mem::take(&mut self.tail) {
            let frame = self.told(last);
            self.left.push_back(frame);
        }
        let kept = self.answer_so_far();
        let Some(open) = self.open.take() else { return };
        self.state = State::Settling(Box::pin(open.settle(outcome, kept)));
    }

    /// In the protocol of the request.
    fn told(&mut self, last: Last) -> Bytes {
        match (&mut self.telling, last) {
            (None, Last::Chunk(frame) | Last::Broken(_, _, frame)) => frame,
            (None, Last::Done) => Bytes::from_static(DONE_FRAME),
            (Some(telling), Last::Chunk(frame)) => telling.chunk(sse::data_of(&frame)),
            (Some(telling), Last::Done) => telling.done(),
            (Some(telling), Last::Broken(code, message, frame)) => match telling.failed(code, &message) {
                // It has told another failure, which the client has not seen.
                said if said.is_empty() => frame,
                said => said,
            },
        }
    }

    /// The whole answer, if it was kept.
    fn answer_so_far(&mut self) -> Option<Vec<u8>> {
        let mut kept = self.kept.take()?;
        self.left.iter().for_each(|frame| kept.extend_from_slice(frame));
        Some(kept.to_vec())
    }
}

impl Open {
    /// Charges what was consumed; what was held and not used is free again.
    async fn settle(self, outcome: Outcome, kept: Option<Vec<u8>>) -> Result<(), CommitError> {
        let ended = match outcome {
            Outcome::Completed | Outcome::Running => Ended::Ok,
            Outcome::ClientGone => Ended::Cancelled,
            Outcome::UpstreamFailed => Ended::Failed,
        };
        self.bill.note_marks(self.running.replica.name());
        self.running.finish(ended);
        if let Some(flush) = self.flush {
            if !matches!(flush.done.await, Ok(Ok(()) | Err(CommitError::Fenced))) {
                // Whether it is written is unknown. Under the same id it is charged once, and only once. While it is not
                // known to be, the end must not count on it: it could give back what was never charged.
                match self.bill.epoch.committer.commit(flush.settlement).await {
                    Ok(()) | Err(CommitError::Fenced) => {}
                    Err(cause) => return Err(cause),
                }
            }
            batchin_faults::point("stream.flushed");
        }
        let mut settlement = self.bill.settlement(outcome, &self.reservation);
        settlement.answer = self.guard.map(|guard| {
            // An answer that was cut off is not given again as if it were whole.
            let body = kept.filter(|_| outcome == Outcome::Completed);
            (guard.keep(), StoredAnswer { status: 200, content_type: "text/event-stream".to_owned(), body })
        });
        self.reservation.settle(settlement.charge);
        batchin_faults::point("stream.ended");
        self.bill.epoch.committer.commit(settlement).await?;
        batchin_faults::point("stream.charged");
        self.bill.note(outcome);
        Ok(())
    }
}

impl Stream for MeteredStream {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Flowing(events) => {
                    // Rule 3: a node past its deadline sends no further byte.
                    if this.open.as_ref().is_some_and(|open| !open.bill.epoch.holds()) {
                        this.tail.clear();
                        this.tail.push(broken_off(
                            "The server cannot reach its ledger any more; what was sent so far is all there is.",
                            Code::ServiceUnavailable,
                        ));
                        this.end(Outcome::UpstreamFailed);
                        continue;
                    }
                    match events.poll_next(cx) {
                        Poll::Pending => {
                            if let Some(open) = &this.open {
                                open.running.paced_by(this.pace.waits());
                            }
                            return Poll::Pending;
                        }
                        Poll::Ready(Some(Ok(event))) => {
                            this.pace.piece(event.deltas, event.kind == EventKind::Finish, Instant::now());
                            if let Some(frame) = this.pass(event) {
                                return Poll::Ready(Some(frame));
                            }
                        }
                        Poll::Ready(Some(Err(cause))) => this.broken(cause),
                        Poll::Ready(None) => this.broken(StreamError::Truncated),
                    }
                }
                State::Settling(commit) => match commit.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => this.state = State::Ending,
                    Poll::Ready(Err(_)) => {
                        let message = "The answer could not be charged for and is withheld.";
                        let frame = this.told(broken_off(message, Code::ServiceUnavailable));
                        this.left = VecDeque::from([frame]);
                        this.state = State::Ending;
                    }
                },
                State::Ending => match this.left.pop_front() {
                    // What says nothing in the protocol of the request.
                    Some(frame) if frame.is_empty() => {}
                    frame => return Poll::Ready(frame),
                },
            }
        }
    }
}

/// The client went away: the upstream's connection closes with the events, and what was produced is charged.
impl Drop for MeteredStream {
    fn drop(&mut self) {
        let settling: Committing = match (std::mem::replace(&mut self.state, State::Ending), self.open.take()) {
            (State::Settling(settling), _) => settling,
            (_, Some(open)) => Box::pin(open.settle(Outcome::ClientGone, None)),
            (_, None) => return,
        };
        self.tasks.spawn("settle_abandoned", move |_| async move {
            batchin_faults::point("stream.abandoned");
            if let Err(cause) = settling.await {
                warn!(error = %cause, "an abandoned stream could not be settled");
            }
        });
    }
}

/// Whether an answer that is whole is not to wait for what else its server wants to say.
fn is_tail_over(after_end: &mut Option<(Instant, usize)>, kind: &EventKind) -> bool {
    let (ended, events) = after_end.get_or_insert_with(|| (Instant::now(), 0));
    *events += 1;
    *events > MAX_TAIL_EVENTS || (*kind == EventKind::KeepAlive && ended.elapsed() > TAIL_PATIENCE)
}

/// The choices that have not ended yet.
fn open_choices(state: &State, given: u32) -> Vec<u64> {
    let State::Flowing(events) = state else { return Vec::new() };
    (0..u64::from(given)).filter(|index| !events.has_ended(*index)).collect()
}

fn broken_off(message: &str, code: Code) -> Last {
    let body = ErrorBody { message, kind: code.kind(), param: None, code: Some(code.name()) };
    Last::Broken(code, message.to_owned(), sse::frame(body.to_json().as_bytes()))
}
