//! Holds: the pipeline: admit → reserve → dispatch → meter → settle.

use std::{sync::Arc, time::Duration};

use batchin_domain::{AccountId, Amount, Class, Counts, Makes, Measure, TransferId};
use batchin_files::WriteFileError;
use batchin_openai::Wanted;
use batchin_shares::{NoShare, Share};
use batchin_store::{IdempotencyScope, Outcome, Settlement, StoredAnswer, TaskFinish};
use batchin_upstream::{Answer, Events, Sound};
use bytes::Bytes;
use tokio::time::Instant;
use tracing::warn;

use crate::{
    AdmitError, Caller, DispatchError, Epoch, Fenced, Gateway, Inbound, KeyedError, MeteredStream, NoRoom, RateInfo,
    ReserveError, SettleError, TakeError,
    admit::{Admitted, admit},
    attempt::{RETRY_AFTER, call_of},
    bill::{Arrival, Bill, Unsettled, pictured, take_whole, whole},
    dispatch::{Running, Work},
    failover::{Failover, NoAnswer},
    fallback::{MAX_FALLBACKS, served_instead},
    idempotent::{IdempotencyGuard, Keyed, Turn},
    leaving::{Client, SeenThrough},
    picture::{MadePictures, made},
    reserve::{Reservation, reserve, take_request},
    spoken::{Pipe, SpokenStream},
};

/// How long a request under an Idempotency-Key waits for the first one's answer: as long as clients wait.
const IDEMPOTENT_PATIENCE: Duration = Duration::from_secs(600);

/// What is known of an answer once its request is admitted.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// It will be a stream.
    pub streams: bool,
    /// For the `x-ratelimit-*` headers.
    pub rate: Option<RateInfo>,
}

/// An answer and how the key stands.
pub struct Reply {
    /// For the `x-ratelimit-*` headers.
    pub rate: Option<RateInfo>,
    /// The model that answered, where it is not the one that was asked for.
    pub served: Option<String>,
    /// The answer.
    pub body: ReplyBody,
}

/// An answer.
pub enum ReplyBody {
    /// Whole, with its content type; its charge is durable.
    Whole(Bytes, &'static str),
    /// Server-sent events; the last of them wait until the charge is durable.
    Stream(Box<MeteredStream>),
    /// Sound, whose end waits until the charge is durable.
    Sound(Box<SpokenStream>),
    /// The first answer to the same Idempotency-Key.
    Replay(StoredAnswer),
}

/// Why a request got no answer. Nothing was charged.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// This node may not spend now.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// It is one too many of its minute.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// No model can serve it.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// Its Idempotency-Key is in its way.
    #[error(transparent)]
    Keyed(#[from] KeyedError),
    /// It cannot be paid for.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The account has its part of the requests that this node bears.
    #[error("the account has its part of the places")]
    OverShare {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// No model server answered.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    /// What was made for it could not be kept.
    #[error("what was made could not be kept")]
    Kept(#[source] WriteFileError),
    /// Its charge is not in the ledger.
    #[error(transparent)]
    Settle(#[from] SettleError),
}

/// A request that could be served.
pub struct Checked {
    /// The model that would serve it.
    pub model: Arc<crate::Model>,
    /// Whether its answer is to be streamed.
    pub streams: bool,
    /// The most prompt tokens it can have.
    pub prompt_bound: u64,
    /// How its prompt begins: see [`Work::beginning`].
    pub beginning: Option<u64>,
    /// The most it can cost.
    pub cost: Amount,
    /// What it will consume, roughly: see [`Admitted::expected`].
    pub expected: Counts,
    /// What that costs.
    pub expected_cost: Amount,
}

/// A request that may run.
struct One {
    arrival: Arrival,
    caller: Caller,
    inbound: Inbound,
    admitted: Admitted,
    reservation: Reservation,
    guard: Option<IdempotencyGuard>,
    place: Share<AccountId>,
}

/// What the upstream gave, with everything that belongs to the request.
struct Dispatched {
    answer: Given,
    running: Running,
}

/// An answer, of which pictures have been looked at.
enum Given {
    Pictures(MadePictures),
    Other(Answer),
}

impl Gateway {
    /// Answers an interactive request. `promised` is told once what is known before the answer, which may take long.
    pub async fn answer(
        &self,
        caller: &Caller,
        inbound: Inbound,
        promised: impl FnOnce(Promise),
    ) -> Result<Reply, AnswerError> {
        let arrival = self.arrival()?;
        let (epoch, came_in) = (Arc::clone(&arrival.epoch), arrival.came_in);
        let rate = take_request(&epoch, caller, came_in).await?;
        let inbound = if inbound.brings() { Box::pin(inbound.opened()).await? } else { inbound };
        let mut admitted = admit(&arrival.catalog, &inbound)?;
        if admitted.own_voice().is_some() {
            // Boxed: other requests need no room for it.
            Box::pin(self.find_voice(caller.account, &mut admitted)).await??;
        }
        if inbound.call.makes() == Makes::Pictures {
            self.shelf().files.check_disk().map_err(AnswerError::Kept)?;
        }
        promised(Promise { streams: admitted.peek.stream, rate });
        let guard = match &inbound.idempotency {
            Some(key) => {
                let scope = IdempotencyScope { account: caller.account, key: key.0.clone() };
                let route = inbound.call.path();
                let keyed = Keyed { scope, route, body: &inbound.body, patience: IDEMPOTENT_PATIENCE };
                match Box::pin(self.begin_idempotent(|| epoch.identity, keyed)).await? {
                    Turn::Replay(answer) => {
                        return Ok(Reply { rate, served: None, body: ReplyBody::Replay(answer) });
                    }
                    Turn::First(guard) => Some(guard),
                }
            }
            None => None,
        };
        let reservation = reserve(&epoch, caller, admitted.ceiling, came_in).await?;
        // After the money: who cannot pay, and who waits for another's answer, takes nobody's place.
        let place = self.in_flight(admitted.class).take(caller.account, 1).map_err(|why| match why {
            NoShare::Full => DispatchError::from(NoRoom::Busy { retry_after: RETRY_AFTER }).into(),
            NoShare::OverPart => AnswerError::OverShare { retry_after: RETRY_AFTER },
        })?;
        let one = Box::new(One { arrival, caller: caller.clone(), inbound, admitted, reservation, guard, place });
        // A stream that nobody takes any more settles as one whose client left.
        let (body, served) = SeenThrough::new(self.tasks(), |client| Box::pin(self.clone().give(one, client))).await?;
        Ok(Reply { rate, served, body })
    }

    /// Has the answer made, and charges for it.
    async fn give(self, one: Box<One>, client: Arc<Client>) -> Result<(ReplyBody, Option<String>), AnswerError> {
        let One { arrival, caller, inbound, mut admitted, mut reservation, guard, place } = *one;
        let mut fallbacks = 0;
        let dispatched = loop {
            let cause = match self.dispatch(caller.account, &inbound, &admitted, &client).await {
                Ok(dispatched) => break dispatched,
                Err(cause) => cause.in_class(admitted.class),
            };
            if fallbacks == MAX_FALLBACKS || client.is_gone() {
                return Err(cause.into());
            }
            fallbacks += 1;
            client.waits();
            let next = self.fall_back(&arrival, (&caller, &inbound), (&admitted, reservation), &cause);
            (admitted, reservation) = Box::pin(next).await.ok_or(cause)?;
        };
        let served = served_instead(&arrival.catalog, &admitted);
        let bill = Bill::open(self, arrival, &caller, (inbound, admitted), reservation.amount());
        let answer = match dispatched.answer {
            Given::Pictures(made) => {
                let unsettled = pictured(bill, reservation, made, dispatched.running);
                return Ok((Box::pin(kept(unsettled, &client, guard)).await?, served));
            }
            Given::Other(answer) => answer,
        };
        match answer {
            Answer::Events(events) => {
                let stream = open(bill, reservation, (events, dispatched.running), guard, place);
                Ok((ReplyBody::Stream(Box::new(stream)), served))
            }
            Answer::Sound(sound) => {
                let speaking = Self::speak((bill, reservation), *sound, dispatched.running, (guard, place));
                Ok((Box::pin(speaking).await?, served))
            }
            Answer::Whole { body, usage, text_bytes, .. } => {
                let mut bill = bill;
                take_whole(&mut bill.meter, dispatched.running.replica.kind(), usage, text_bytes);
                let unsettled = whole(bill, reservation, body, dispatched.running);
                Ok((settled(unsettled, &client, guard).await?, served))
            }
            // They have been looked at.
            Answer::Pictures(_) => Err(DispatchError::Failed.into()),
        }
    }

    /// Answers with a sound once its first bytes can be heard.
    async fn speak(
        (mut bill, reservation): (Bill, Reservation),
        sound: Sound,
        running: Running,
        rest: (Option<IdempotencyGuard>, Share<AccountId>),
    ) -> Result<ReplyBody, AnswerError> {
        let Wanted::Sound(spoken) = bill.admitted.peek.wanted else { return Err(DispatchError::Failed.into()) };
        bill.ttft = Some(bill.began.elapsed());
        let counts = bill.admitted.tariff.charges_for(Measure::AudioMs);
        let mut pipe = Pipe::new(sound, spoken.format, (counts, false), Arc::clone(bill.gateway.programs()));
        match pipe.next().await {
            Ok(Some(first)) => {
                let stream = SpokenStream::new((bill, reservation), (first, pipe), running, rest, spoken);
                Ok(ReplyBody::Sound(Box::new(stream)))
            }
            Ok(None) => Err(DispatchError::Failed.into()),
            Err(cause) => match cause.refusal() {
                Some(refusal) => Err(AdmitError::Invalid(refusal).into()),
                None => {
                    warn!(upstream = running.replica.name(), error = %cause, "a sound could not be read");
                    Err(DispatchError::Failed.into())
                }
            },
        }
    }

    /// Ends a task that has no answer; nothing is charged.
    pub async fn fail_task(&self, caller: &Caller, finish: TaskFinish) -> Result<(), SettleError> {
        let (epoch, now) = (self.live_epoch()?, self.clock().now());
        let settlement = Settlement {
            charge_id: TransferId::new(self.ids().uuid()),
            account: caller.account,
            key: caller.key,
            month: now.month(),
            budget_held: false,
            charge: Amount::ZERO,
            given_back: Amount::ZERO,
            usage: None,
            task: Some(finish),
            film: None,
            cap_held: false,
            answer: None,
            now,
        };
        Ok(epoch.committer.commit(settlement).await?)
    }

    /// Checks a body against the catalogue, without running it: the upper bound of its prompt's tokens.
    pub fn check(&self, inbound: &Inbound) -> Result<Checked, AdmitError> {
        let admitted = admit(&self.catalog(), inbound)?;
        let expected = admitted.expected(inbound.call);
        let cost = admitted.ceiling.cost;
        Ok(Checked {
            streams: admitted.peek.stream,
            prompt_bound: admitted.ceiling.most.of(Measure::PromptTokens),
            beginning: admitted.beginning(),
            expected,
            expected_cost: admitted.tariff.cost(expected).min(cost),
            cost,
            model: admitted.model,
        })
    }

    pub(crate) fn arrival(&self) -> Result<Arrival, Fenced> {
        let (began, came_in) = (Instant::now(), self.clock().now());
        Ok(Arrival { epoch: self.live_epoch()?, catalog: self.catalog(), came_in, began })
    }

    fn live_epoch(&self) -> Result<Arc<Epoch>, Fenced> {
        let epoch = self.epoch();
        if epoch.holds() { Ok(epoch) } else { Err(Fenced) }
    }

    /// Sends the request to one upstream after another until one answers.
    async fn dispatch(
        &self,
        account: AccountId,
        inbound: &Inbound,
        admitted: &Admitted,
        client: &Client,
    ) -> Result<Dispatched, DispatchError> {
        let unseen = !admitted.peek.stream && inbound.call.generates();
        let work = Work { unseen, ..admitted.work(inbound, account) };
        let mut failover = Failover::new(self.replicas_for(&admitted.model, admitted.asked.call), work);
        let until = Instant::now() + self.flex_patience();
        loop {
            let running = if work.class == Class::Interactive {
                failover.begin(self.dispatcher())?
            } else {
                client.waits();
                let servers = || self.replicas_now(&admitted.model, inbound.call.asks());
                let begun = failover.begin_in_turn(self.dispatcher(), (&admitted.model.id, until), servers);
                Box::pin(begun).await?
            };
            let call = call_of(inbound, admitted, &running);
            client.is_called_for(running.replica.kind());
            batchin_faults::point("upstream.calling");
            let called = tokio::select! {
                called = running.replica.call(call) => called,
                // Nothing of an answer is there yet: it waits for its turn again, as long as it may wait at all.
                () = running.preempted() => match Instant::now() < until {
                    true => continue,
                    false => return Err(NoAnswer::NotFree.into()),
                },
            };
            let given = match called {
                // Boxed: most answers are no pictures.
                Ok(Answer::Pictures(given)) => Box::pin(made(*given, admitted.peek.wanted)).await.map(Given::Pictures),
                Ok(answer) => Ok(Given::Other(answer)),
                Err(error) => Err(error),
            };
            match given {
                Ok(answer) => {
                    batchin_faults::point("upstream.answered");
                    if !unseen {
                        running.first_byte();
                    }
                    return Ok(Dispatched { answer, running });
                }
                Err(error) => failover.failed(running, error, client.is_gone())?,
            }
        }
    }
}

/// Keeps what an answer brings as files, charges for it and hands it over.
async fn kept(
    mut unsettled: Box<Unsettled>,
    client: &Client,
    guard: Option<IdempotencyGuard>,
) -> Result<ReplyBody, AnswerError> {
    let name = unsettled.name();
    unsettled.keep(&name).await.map_err(AnswerError::Kept)?;
    settled(unsettled, client, guard).await
}

/// Charges for a whole answer and hands it over.
async fn settled(
    unsettled: Box<Unsettled>,
    client: &Client,
    guard: Option<IdempotencyGuard>,
) -> Result<ReplyBody, AnswerError> {
    let outcome = if client.is_gone() { Outcome::ClientGone } else { Outcome::Completed };
    let content_type = unsettled.bill.content_type();
    let body = unsettled.settle(outcome, guard.map(IdempotencyGuard::keep), None).await?;
    Ok(ReplyBody::Whole(body, content_type))
}

/// Meters a stream.
fn open(
    mut bill: Bill,
    reservation: Reservation,
    upstream: (Box<Events>, Running),
    guard: Option<IdempotencyGuard>,
    place: Share<AccountId>,
) -> MeteredStream {
    let (events, running) = upstream;
    bill.ttft = Some(bill.began.elapsed());
    bill.meter.streams_from(running.replica.kind());
    MeteredStream::new(bill, reservation, *events, running, (guard, place))
}
