//! Holds: a try of a batch task: its answer is streamed from the model server where that shows as much as a whole one,
//! watched, and put together.
//!
//! Nothing of a try that breaks off is kept or charged; the next upstream begins anew.

use std::{sync::Arc, task::Poll, time::Duration};

use batchin_domain::{AccountId, Measure};
use batchin_media::Programs;
use batchin_openai::{InvalidRequest, UpstreamError, Wanted};
use batchin_scheduler::Outcome as Ended;
use batchin_upstream::{
    Answer, Assembly, Call, CallError, CallErrorKind, Kind, MAX_ANSWER_BYTES, Progress, Retry, Sound, StreamError,
};
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use crate::{
    AdmitError, Caller, CapError, Fenced, Gateway, Inbound, NoRoom, ReserveError,
    admit::{Admitted, admit, admit_instead, admit_on},
    attempt::{RETRY_AFTER, call_of, choices_of},
    bill::{Arrival, Bill, Unsettled, pictured, take_whole, whole},
    dispatch::Running,
    failover::{Failover, NoAnswer},
    fallback::{MAX_FALLBACKS, note},
    made::Made,
    meter::Meter,
    pace::Pace,
    picture::{MadePictures, made},
    reserve::{Reservation, reserve, reserve_cap},
    spoken::{Pipe, SoundError, count},
};

/// Why a try of a task brought no result. Nothing was charged.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// It gave way to interactive work.
    #[error("the task gave way")]
    Preempted,
    /// This node may not spend now.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// No model can serve it.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// Its batch may not cost as much.
    #[error(transparent)]
    Cap(#[from] CapError),
    /// It cannot be paid for.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// No model server takes it now.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The model servers were asked, and this is what the last one said.
    #[error("the model server failed")]
    Upstream(UpstreamFailure),
}

/// What a model server did with a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamFailure {
    /// The HTTP status, where it sent one; where the task is at fault, the one that is told.
    pub status: Option<u16>,
    /// It took too long.
    pub timed_out: bool,
    /// Whether another try may go better.
    pub again: Again,
    /// What it said, without its address, where the task itself is at fault.
    pub said: Option<Box<UpstreamError>>,
    /// Every server of the model was asked and failed alike, while they answer others: it is the task's own fault.
    pub alike: bool,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Any server would say the same.
    Never,
    /// Later, and no sooner than the server asked for.
    After(Option<Duration>),
    /// Later; no server was asked this time, because it is known to be down.
    NotAsked(Option<Duration>),
}

/// An answer, however it came.
struct Given {
    body: Bytes,
    made: Option<MadePictures>,
    meter: Meter,
    /// When a stream's first byte came.
    ttft: Option<Duration>,
}

/// What one try works with.
#[derive(Clone, Copy)]
struct Try<'a> {
    admitted: &'a Admitted,
    /// Nothing counted yet: of a try that fails nothing is kept.
    meter: Meter,
    began: Instant,
    programs: &'a Arc<Programs>,
}

impl Gateway {
    /// Runs a batch task, in the place that it was given, up to the point where its answer is there;
    /// [`Unsettled::settle_task`] makes it durable.
    pub async fn run_task(
        &self,
        caller: &Caller,
        inbound: Inbound,
        running: Running,
    ) -> Result<Box<Unsettled>, TaskError> {
        let arrival = self.arrival()?;
        let inbound = if inbound.brings() { inbound.opened().await? } else { inbound };
        let mut admitted = match &running.instead {
            Some(model) => admit_instead(&arrival.catalog, model, &inbound)?,
            None => admit(&arrival.catalog, &inbound)?,
        };
        if admitted.own_voice().is_some() {
            self.find_voice(caller.account, &mut admitted).await??;
        }
        let mut reservation = reserve_task(&arrival, caller, &admitted).await?;
        let (mut place, mut fallbacks) = (Some(running), 0);
        let (given, running) = loop {
            let meter = Meter::new(&admitted, reservation.amount());
            let one = Try { admitted: &admitted, meter, began: Instant::now(), programs: self.programs() };
            let cause = match self.dispatch_task(caller.account, &inbound, one, place.take()).await {
                Ok(done) => break done,
                Err(cause) if fallbacks == MAX_FALLBACKS => return Err(cause),
                Err(cause) => cause,
            };
            fallbacks += 1;
            let next = self.task_falls_back(&arrival, (caller, &inbound), (&admitted, reservation), &cause).await;
            (admitted, reservation) = next.ok_or(cause)?;
        };
        let mut bill = Bill::open(self.clone(), arrival, caller, (inbound, admitted), reservation.amount());
        bill.meter = given.meter;
        bill.ttft = given.ttft;
        if let Some(made) = given.made {
            return Ok(pictured(bill, reservation, made, running));
        }
        if let Some(made) = Made::sound(bill.admitted.peek.wanted, given.body.clone()) {
            running.finish_whole(0);
            return Ok(Box::new(Unsettled { bill, reservation, body: Bytes::new(), made: Some(made), kept: None }));
        }
        if bill.ttft.is_none() {
            return Ok(whole(bill, reservation, given.body, running));
        }
        bill.note_marks(running.replica.name());
        running.finish(Ended::Ok);
        let body = bill.told(given.body);
        Ok(Box::new(Unsettled { bill, reservation, body, made: None, kept: None }))
    }

    /// What another model would do for a task whose servers failed so: see [`Gateway::fall_back`].
    pub(crate) async fn task_falls_back(
        &self,
        arrival: &Arrival,
        (caller, inbound): (&Caller, &Inbound),
        (admitted, reservation): (&Admitted, Reservation),
        cause: &TaskError,
    ) -> Option<(Admitted, Reservation)> {
        let model = arrival.catalog.fallback_of(&admitted.model).filter(|_| cause.is_of_servers())?;
        let next = admit_on(model, inbound).ok()?.speaking_as(admitted);
        drop(reservation);
        let reservation = reserve_task(arrival, caller, &next).await.ok()?;
        note(&admitted.model, model);
        Some((next, reservation))
    }

    /// Tries one upstream after another until one has answered to the end; first where the task has its place, if it has one.
    async fn dispatch_task(
        &self,
        account: AccountId,
        inbound: &Inbound,
        one: Try<'_>,
        place: Option<Running>,
    ) -> Result<(Given, Running), TaskError> {
        let admitted = one.admitted;
        let work = admitted.work(inbound, account);
        let mut failover = Failover::new(self.replicas_for(&admitted.model, admitted.asked.call), work);
        let mut running = match place {
            Some(running) => running,
            None => failover.begin(self.dispatcher())?,
        };
        loop {
            let call = call_of(inbound, admitted, &running);
            let tried = tokio::select! {
                tried = answer(&running, call, one) => tried,
                () = running.preempted() => return Err(TaskError::Preempted),
            };
            match tried {
                Ok(given) => return Ok((given, running)),
                Err(error) => failover.failed(running, error, false)?,
            }
            running = failover.begin(self.dispatcher())?;
        }
    }
}

impl TaskError {
    /// Whether another model's servers may do better. Where servers are busy, a task waits.
    fn is_of_servers(&self) -> bool {
        match self {
            Self::NoRoom(NoRoom::NoUpstream { .. }) => true,
            Self::Upstream(failure) => failure.again != Again::Never && !matches!(failure.status, Some(429 | 503)),
            Self::NoRoom(NoRoom::Busy { .. })
            | Self::Preempted
            | Self::Fenced(_)
            | Self::Admit(_)
            | Self::Cap(_)
            | Self::Reserve(_) => false,
        }
    }
}

impl From<NoAnswer> for TaskError {
    fn from(none: NoAnswer) -> Self {
        match none {
            NoAnswer::NoRoom(none) => none.into(),
            // Tasks do not wait here.
            NoAnswer::NotFree => NoRoom::Busy { retry_after: RETRY_AFTER }.into(),
            NoAnswer::Failed { error, alike } => failure(error, alike),
        }
    }
}

/// Sets a task's highest possible cost aside, also on what its batch may cost.
async fn reserve_task(arrival: &Arrival, caller: &Caller, admitted: &Admitted) -> Result<Reservation, TaskError> {
    let cap = match caller.capped_by {
        Some(batch) => Some(reserve_cap(&arrival.epoch, batch, admitted.ceiling.cost).await?),
        None => None,
    };
    Ok(reserve(&arrival.epoch, caller, admitted.ceiling, arrival.came_in).await?.within(cap))
}

/// One try on one upstream.
async fn answer(running: &Running, mut call: Call<'_>, one: Try<'_>) -> Result<Given, CallError> {
    let replica = Arc::clone(&running.replica);
    batchin_faults::point("upstream.calling");
    if call.kind.generates() && streams_as_much(one.admitted, replica.kind()) {
        call.stream = true;
        let assembly = replica.assemble(call).await?;
        running.first_byte();
        return watched(running, assembly, one).await;
    }
    call.stream = false;
    if call.kind.generates() {
        running.unseen();
    }
    match replica.call(call).await? {
        Answer::Whole { body, usage, text_bytes, .. } => {
            let mut meter = one.meter;
            take_whole(&mut meter, replica.kind(), usage, text_bytes);
            Ok(Given { body, made: None, meter, ttft: None })
        }
        Answer::Pictures(given) => {
            let made = Some(made(*given, one.admitted.peek.wanted).await?);
            Ok(Given { body: Bytes::new(), made, meter: one.meter, ttft: None })
        }
        Answer::Sound(sound) => {
            running.first_byte();
            spoken(*sound, one).await
        }
        // The call asked for a whole answer; a server that streams all the same does not speak the protocol.
        Answer::Events(_) => Err(bad_answer()),
    }
}

/// Whether this body's stream from such a server says as much as its whole answer.
fn streams_as_much(admitted: &Admitted, kind: Kind) -> bool {
    let peek = &admitted.peek;
    // Events of other protocols are not put together here.
    admitted.asked.native.is_none() && !peek.streams_less && (!peek.bound.has_tools || kind.streams_tool_calls_alike)
}

/// Takes a stream to its end, and tells the scheduler how fast it comes.
async fn watched(running: &Running, mut assembly: Assembly, one: Try<'_>) -> Result<Given, CallError> {
    let ttft = Some(one.began.elapsed());
    let mut meter = one.meter;
    meter.streams_from(running.replica.kind());
    let mut left = choices_of(one.admitted, running.replica.kind());
    let mut pace = Pace::new(left);
    loop {
        let here = std::future::poll_fn(|cx| Poll::Ready(assembly.poll_next(cx))).await;
        let progress = match here {
            Poll::Ready(progress) => progress,
            Poll::Pending => {
                running.paced_by(pace.waits());
                assembly.next().await
            }
        };
        match progress? {
            Progress::Piece { deltas, text_bytes, ends, usage } => {
                pace.piece(deltas, ends > 0, Instant::now());
                left = left.saturating_sub(ends);
                meter.said(deltas, text_bytes);
                if let Some(usage) = usage {
                    meter.report(usage);
                }
                if left > 0 && meter.is_over() {
                    meter.cut();
                    running.paced_by(pace.waits());
                    let answer = assembly.cut().ok_or_else(bad_answer)?;
                    return Ok(Given { body: answer.body, made: None, meter, ttft });
                }
            }
            // A choice is missing.
            Progress::Whole(_) if left > 0 => return Err(bad_answer()),
            Progress::Whole(answer) => {
                running.paced_by(pace.waits());
                return Ok(Given { body: answer.body, made: None, meter, ttft });
            }
        }
    }
}

/// Takes a sound to its end.
async fn spoken(sound: Sound, one: Try<'_>) -> Result<Given, CallError> {
    let Wanted::Sound(spoken) = one.admitted.peek.wanted else { return Err(bad_answer()) };
    let counts = one.admitted.tariff.charges_for(Measure::AudioMs);
    let mut pipe = Pipe::new(sound, spoken.format, (counts, true), Arc::clone(one.programs));
    let (mut all, mut meter) = (BytesMut::new(), one.meter);
    while let Some(piece) = pipe.next().await.map_err(broken_sound)? {
        if all.len() + piece.len() > MAX_ANSWER_BYTES {
            return Err(CallError { kind: CallErrorKind::TooLarge, retry: Retry::Never, client_error: None });
        }
        all.extend_from_slice(&piece);
    }
    count(&mut meter, one.admitted.peek.bound.made.of(Measure::Characters), &pipe.heard());
    Ok(Given { body: all.freeze(), made: None, meter, ttft: None })
}

fn broken_sound(cause: SoundError) -> CallError {
    if let Some(InvalidRequest { message, param, .. }) = cause.refusal() {
        let said = UpstreamError { message, param, code: None, kind: None, status: None };
        return CallError { kind: CallErrorKind::Unfit, retry: Retry::Never, client_error: Some(Box::new(said)) };
    }
    let kind = match cause {
        SoundError::Upstream(StreamError::Stalled) => CallErrorKind::Timeout,
        SoundError::Upstream(StreamError::Broken(_)) => CallErrorKind::Reset,
        SoundError::Upstream(_) | SoundError::Unreadable { .. } | SoundError::Start(_) | SoundError::Uncharged => {
            CallErrorKind::BadAnswer
        }
    };
    CallError { kind, retry: Retry::OtherReplica, client_error: None }
}

fn bad_answer() -> CallError {
    CallError { kind: CallErrorKind::BadAnswer, retry: Retry::OtherReplica, client_error: None }
}

fn failure(error: CallError, alike: bool) -> TaskError {
    let pause = if let Retry::Later(pause) = error.retry { pause } else { None };
    let again = match (error.retry, error.kind) {
        (Retry::Never, _) => Again::Never,
        (_, CallErrorKind::Unavailable) => Again::NotAsked(pause),
        _ => Again::After(pause),
    };
    let status = match (&error.client_error, error.kind) {
        (Some(_), _) => Some(error.shown_status()),
        (None, CallErrorKind::Status(status)) => Some(status),
        (None, _) => None,
    };
    TaskError::Upstream(UpstreamFailure {
        status,
        timed_out: error.kind == CallErrorKind::Timeout,
        again,
        said: error.client_error,
        alike,
    })
}
