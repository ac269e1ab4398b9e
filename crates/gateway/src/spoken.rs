//! Holds: sound on its way to whoever asked for it: in the format that they hear, counted, and paid for at its end.
//!
//! It passes as it is where the server speaks in that format, and is made into it as it comes where it does not. Its
//! bytes leave at once; its end waits until the charge is durable.

use std::{
    collections::VecDeque,
    future::Future,
    io::Cursor,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use batchin_domain::{AccountId, Measure};
use batchin_media::{
    EncodeWholeError, Encoder, Encoding, PcmSpec, Programs, StartError, WavReader, decode_to_pcm, encode_whole,
    probe_sound,
};
use batchin_openai::{Code, ErrorBody, InvalidRequest, SoundFormat, Spoken, sound_done_event, sound_event, sse};
use batchin_scheduler::Outcome as Ended;
use batchin_shares::Share;
use batchin_store::{CommitError, Outcome, StoredAnswer};
use batchin_tasks::Tasks;
use batchin_upstream::{Carried, MAX_ANSWER_BYTES, Sound, StreamError};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use tracing::warn;

use crate::{
    AdmitError, Fenced, Gateway,
    admit::Admitted,
    bill::{Bill, MAX_KEPT_ANSWER},
    dispatch::Running,
    idempotent::IdempotencyGuard,
    meter::Meter,
    probing::apart,
    reserve::Reservation,
};

/// What OpenAI's `pcm` is.
const PCM: PcmSpec = PcmSpec { rate: 24_000, channels: 1 };

type Committing = Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>;
type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, SoundError>> + Send>>;

/// Why a sound broke off.
#[derive(Debug, thiserror::Error)]
pub enum SoundError {
    /// The server broke off.
    #[error(transparent)]
    Upstream(#[from] StreamError),
    /// What it sent is not what it says, or could not be made into another format.
    #[error("the sound could not be made into the format that was asked for: {why}")]
    Unreadable {
        /// In words.
        why: String,
    },
    /// The format cannot be made here.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The charge did not become durable.
    #[error("the sound could not be charged for")]
    Uncharged,
}

impl SoundError {
    /// What a client is told of a format that this machine cannot make.
    pub(crate) fn refusal(&self) -> Option<InvalidRequest> {
        let Self::Start(StartError::CannotMake { can, .. }) = self else { return None };
        let can: Vec<_> = can.iter().map(|format| format.name()).collect();
        let message = format!("`response_format` cannot be made here; ask for one of {}", can.join(", "));
        Some(InvalidRequest::at("response_format", message))
    }

    fn unreadable(cause: &dyn std::fmt::Display) -> Self {
        Self::Unreadable { why: cause.to_string() }
    }
}

/// What a sound is made into, and how much of it there was.
pub(crate) struct Pipe {
    sound: Sound,
    work: Work,
    programs: Arc<Programs>,
    format: SoundFormat,
    /// Milliseconds of it, where they are counted.
    heard: Arc<AtomicU64>,
}

enum Work {
    /// It is in the right format.
    Pass,
    /// Its samples are made into another.
    Make(Box<Making>),
    /// Only all of it can be made into another.
    Gather(BytesMut),
    Over,
}

struct Making {
    /// Where the samples have a head, what reads it.
    wav: Option<WavReader>,
    spec: Option<PcmSpec>,
    /// As they come; `None` before the first.
    encoder: Option<Encoder>,
    /// All of them, where the format's own head is to say how long it is.
    all: Option<Vec<u8>>,
    bytes: u64,
}

impl Pipe {
    /// `counts`: how long it is has a price. `whole`: it is heard when all of it is there, and its head says how long it is.
    pub(crate) fn new(
        sound: Sound,
        format: SoundFormat,
        (counts, whole): (bool, bool),
        programs: Arc<Programs>,
    ) -> Self {
        let all = || whole.then(Vec::new);
        let making = |wav, spec| Work::Make(Box::new(Making { wav, spec, encoder: None, all: all(), bytes: 0 }));
        // One that is sent while it is made does not know its length.
        let passes = |carried| carried == format && !counts && !(whole && carried == SoundFormat::Wav);
        let work = match sound.carried() {
            Carried::File(carried) if passes(carried) => Work::Pass,
            Carried::Samples { rate } if rate == PCM.rate && passes(SoundFormat::Pcm) => Work::Pass,
            Carried::File(SoundFormat::Wav) => making(Some(WavReader::new()), None),
            Carried::Samples { rate } => making(None, Some(PcmSpec { rate, channels: 1 })),
            Carried::File(_) => Work::Gather(BytesMut::new()),
        };
        Self { sound, work, programs, format, heard: Arc::default() }
    }

    /// The next bytes that can be heard; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, SoundError> {
        loop {
            if matches!(self.work, Work::Over) {
                return Ok(None);
            }
            let encoder = match &mut self.work {
                Work::Make(making) => making.encoder.as_mut(),
                Work::Pass | Work::Gather(_) | Work::Over => None,
            };
            let sound = self.sound.next();
            // A program may write after it was given all that there is: the server may be silent for long.
            let piece = match encoder {
                Some(encoder) => tokio::select! {
                    piece = sound => piece,
                    written = encoder.written() => {
                        return written.map(Some).map_err(|cause| SoundError::unreadable(&cause));
                    }
                },
                None => sound.await,
            };
            let out = match piece.transpose()? {
                Some(piece) => self.take(piece).await?,
                None => self.finish().await?,
            };
            if !out.is_empty() {
                return Ok(Some(out));
            }
        }
    }

    async fn take(&mut self, piece: Bytes) -> Result<Bytes, SoundError> {
        match &mut self.work {
            Work::Pass => Ok(piece),
            Work::Over => Ok(Bytes::new()),
            Work::Gather(all) => {
                if all.len() + piece.len() > MAX_ANSWER_BYTES {
                    return Err(StreamError::TooLarge.into());
                }
                all.extend_from_slice(&piece);
                Ok(Bytes::new())
            }
            Work::Make(making) => {
                let Making { wav, spec, encoder, all, bytes } = &mut **making;
                let mut samples = Vec::new();
                let samples = match wav {
                    None => piece,
                    Some(reader) => {
                        reader.push(&piece, &mut samples).map_err(|cause| SoundError::unreadable(&cause))?;
                        *spec = reader.spec();
                        Bytes::from(samples)
                    }
                };
                let Some(spec) = *spec else { return Ok(Bytes::new()) };
                *bytes = bytes.saturating_add(samples.len() as u64);
                self.heard.store(milliseconds(*bytes, spec), Ordering::Relaxed);
                if let Some(all) = all {
                    if all.len() + samples.len() > MAX_ANSWER_BYTES {
                        return Err(StreamError::TooLarge.into());
                    }
                    all.extend_from_slice(&samples);
                    return Ok(Bytes::new());
                }
                let encoder = match encoder {
                    Some(encoder) => encoder,
                    None => encoder.insert(Encoder::start(&encoding(spec, self.format), &self.programs)?),
                };
                encoder.push(&samples).await.map_err(|cause| SoundError::unreadable(&cause))
            }
        }
    }

    async fn finish(&mut self) -> Result<Bytes, SoundError> {
        match std::mem::replace(&mut self.work, Work::Over) {
            Work::Pass | Work::Over => Ok(Bytes::new()),
            Work::Make(making) => match *making {
                Making { all: Some(all), spec: Some(spec), .. } => {
                    encoded(all, (spec, self.format), Arc::clone(&self.programs)).await
                }
                Making { encoder: Some(encoder), .. } => {
                    encoder.finish().await.map_err(|cause| SoundError::unreadable(&cause))
                }
                // Not even a head has come.
                Making { .. } => Err(StreamError::Truncated.into()),
            },
            Work::Gather(all) => {
                let all = all.freeze();
                let decoded = tokio::task::spawn_blocking(move || decode_to_pcm(&all)).await;
                let decoded = decoded.map_err(|cause| SoundError::unreadable(&cause))?;
                let decoded = decoded.map_err(|cause| SoundError::unreadable(&cause))?;
                self.heard.store(milliseconds(decoded.samples.len() as u64, decoded.spec), Ordering::Relaxed);
                encoded(decoded.samples, (decoded.spec, self.format), Arc::clone(&self.programs)).await
            }
        }
    }

    /// Milliseconds so far, where they are counted.
    pub(crate) fn heard(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heard)
    }
}

async fn encoded(
    samples: impl AsRef<[u8]>,
    (spec, format): (PcmSpec, SoundFormat),
    programs: Arc<Programs>,
) -> Result<Bytes, SoundError> {
    let made = encode_whole(samples.as_ref(), &encoding(spec, format), &programs).await;
    made.map_err(|cause| match cause {
        EncodeWholeError::Start(cause) => cause.into(),
        EncodeWholeError::Encode(cause) => SoundError::unreadable(&cause),
    })
}

/// Counts a sound that was made to its end, or left by its client.
pub(crate) fn count(meter: &mut Meter, characters: u64, heard: &AtomicU64) {
    meter.made(Measure::Characters, characters);
    meter.made(Measure::AudioMs, heard.load(Ordering::Relaxed));
}

fn encoding(from: PcmSpec, to: SoundFormat) -> Encoding {
    let format = match to {
        SoundFormat::Mp3 => batchin_media::SoundFormat::Mp3,
        SoundFormat::Opus => batchin_media::SoundFormat::Opus,
        SoundFormat::Aac => batchin_media::SoundFormat::Aac,
        SoundFormat::Flac => batchin_media::SoundFormat::Flac,
        SoundFormat::Wav => batchin_media::SoundFormat::Wav,
        SoundFormat::Pcm => batchin_media::SoundFormat::Pcm,
    };
    let encoding = Encoding::new(from, format);
    // Nothing beside the samples says what they are.
    if to == SoundFormat::Pcm { encoding.at_rate(PCM.rate).with_channels(PCM.channels) } else { encoding }
}

/// Rounded up, so that a sound of a moment is a sound.
fn milliseconds(bytes: u64, spec: PcmSpec) -> u64 {
    let moments = bytes / spec.frame_bytes().max(1) as u64;
    moments.saturating_mul(1_000).div_ceil(u64::from(spec.rate.max(1)))
}

/// A recording that a voice is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recording {
    /// How long it is.
    pub duration: Duration,
    /// Its media type.
    pub content_type: &'static str,
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It is no sound, or one in a format that is not read.
    #[error(transparent)]
    Sound(#[from] batchin_media::SoundError),
    /// The work was given up.
    #[error("the server is ending")]
    GivenUp,
}

/// What a recording is, by what is in it.
pub async fn recording(bytes: Bytes) -> Result<Recording, RecordingError> {
    let facts = apart(move || probe_sound(Cursor::new(bytes))).await.ok_or(RecordingError::GivenUp)??;
    Ok(Recording { duration: facts.duration, content_type: facts.format.media_type() })
}

impl Gateway {
    /// Has the account's own voice speak, if it has one of that name.
    pub(crate) async fn find_voice(
        &self,
        account: AccountId,
        admitted: &mut Admitted,
    ) -> Result<Result<(), AdmitError>, Fenced> {
        let Some(name) = admitted.own_voice() else { return Ok(Ok(())) };
        let made = self.voices().voice(account, name).await.map_err(|cause| {
            warn!(error = &cause as &dyn std::error::Error, "a voice could not be looked up");
            Fenced
        })?;
        match made {
            Some(made) => admitted.speak_like(made),
            None => return Ok(admitted.no_such_voice()),
        }
        Ok(Ok(()))
    }
}

/// What is needed to settle; taken exactly once.
struct Open {
    bill: Bill,
    reservation: Reservation,
    running: Running,
    guard: Option<IdempotencyGuard>,
}

enum State {
    /// Sound passes.
    Flowing(Pieces),
    /// The end waits for the charge.
    Settling(Committing),
    /// What is left to send.
    Ending,
}

/// A sound that is being answered with. An error as its last piece: it is not whole, and the client must not take it for
/// that.
pub struct SpokenStream {
    spoken: Spoken,
    characters: u64,
    heard: Arc<AtomicU64>,
    first: Option<Bytes>,
    state: State,
    open: Option<Open>,
    tasks: Tasks,
    left: VecDeque<Result<Bytes, SoundError>>,
    /// The answer so far, while it may be asked for again.
    kept: Option<BytesMut>,
    _place: Share<AccountId>,
}

impl SpokenStream {
    /// Of a pipe whose first piece has come.
    pub(crate) fn new(
        (bill, reservation): (Bill, Reservation),
        (first, pipe): (Bytes, Pipe),
        running: Running,
        (guard, place): (Option<IdempotencyGuard>, Share<AccountId>),
        spoken: Spoken,
    ) -> Self {
        let heard = pipe.heard();
        let pieces =
            futures::stream::try_unfold(
                pipe,
                |mut pipe| async move { Ok(pipe.next().await?.map(|piece| (piece, pipe))) },
            );
        Self {
            spoken,
            characters: bill.admitted.peek.bound.made.of(Measure::Characters),
            heard,
            first: Some(first),
            state: State::Flowing(Box::pin(pieces)),
            tasks: bill.gateway.tasks().clone(),
            kept: guard.is_some().then(BytesMut::new),
            open: Some(Open { bill, reservation, running, guard }),
            left: VecDeque::new(),
            _place: place,
        }
    }

    /// Whether it is told in server-sent events.
    pub const fn is_events(&self) -> bool {
        self.spoken.as_events
    }

    /// The media type of its bytes.
    pub const fn content_type(&self) -> &'static str {
        content_type(self.spoken)
    }

    fn framed(&mut self, piece: Bytes) -> Bytes {
        let piece = if self.spoken.as_events { sound_event(&piece) } else { piece };
        self.keep(&piece);
        piece
    }

    fn keep(&mut self, piece: &Bytes) {
        if let Some(kept) = &mut self.kept {
            if kept.len() + piece.len() <= MAX_KEPT_ANSWER {
                kept.extend_from_slice(piece);
            } else {
                self.kept = None;
            }
        }
    }

    fn end(&mut self, outcome: Outcome) {
        let kept = self.kept.take();
        let Some(mut open) = self.open.take() else { return };
        if outcome != Outcome::UpstreamFailed {
            count(&mut open.bill.meter, self.characters, &self.heard);
        }
        let stored = StoredAnswer {
            status: 200,
            content_type: self.content_type().to_owned(),
            body: kept.filter(|_| outcome == Outcome::Completed).map(|kept| kept.to_vec()),
        };
        self.state = State::Settling(Box::pin(open.settle(outcome, stored)));
    }

    /// All of it has come.
    fn complete(&mut self) {
        if self.spoken.as_events {
            let heard = self.heard.load(Ordering::Relaxed);
            let done = sound_done_event(self.characters, (heard > 0).then_some(heard as f64 / 1_000.0));
            self.keep(&done);
            self.left.push_back(Ok(done));
        }
        self.end(Outcome::Completed);
    }

    fn broken(&mut self, cause: SoundError) {
        let upstream = self.open.as_ref().map(|open| open.running.replica.name());
        warn!(upstream, error = %cause, "a sound broke off");
        let (message, code) = match &cause {
            SoundError::Upstream(StreamError::Stalled) => ("The model server stopped speaking.", Code::UpstreamTimeout),
            SoundError::Uncharged => {
                ("The ledger cannot be reached; what was sent is all there is.", Code::ServiceUnavailable)
            }
            SoundError::Upstream(_) | SoundError::Unreadable { .. } | SoundError::Start(_) => {
                ("The model server failed in the middle of the sound.", Code::UpstreamError)
            }
        };
        self.left.push_back(self.failure(message, code, cause));
        self.end(Outcome::UpstreamFailed);
    }

    /// As an event, or as what breaks the connection: a file that just ends looks whole.
    fn failure(&self, message: &str, code: Code, cause: SoundError) -> Result<Bytes, SoundError> {
        if !self.spoken.as_events {
            return Err(cause);
        }
        let body = ErrorBody { message, kind: code.kind(), param: None, code: Some(code.name()) };
        Ok(sse::frame(body.to_json().as_bytes()))
    }
}

/// The media type of an answer.
pub(crate) const fn content_type(spoken: Spoken) -> &'static str {
    if spoken.as_events { "text/event-stream" } else { spoken.format.content_type() }
}

impl Open {
    async fn settle(self, outcome: Outcome, stored: StoredAnswer) -> Result<(), CommitError> {
        let ended = match outcome {
            Outcome::Completed | Outcome::Running => Ended::Ok,
            Outcome::ClientGone => Ended::Cancelled,
            Outcome::UpstreamFailed => Ended::Failed,
        };
        self.running.finish(ended);
        let mut settlement = self.bill.settlement(outcome, &self.reservation);
        settlement.answer = self.guard.map(|guard| (guard.keep(), stored));
        self.reservation.settle(settlement.charge);
        batchin_faults::point("sound.ended");
        self.bill.epoch.committer.commit(settlement).await?;
        batchin_faults::point("sound.charged");
        self.bill.note(outcome);
        Ok(())
    }
}

impl Stream for SpokenStream {
    type Item = Result<Bytes, SoundError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Flowing(pieces) => {
                    // A node past its deadline sends no further byte.
                    if this.open.as_ref().is_some_and(|open| !open.bill.epoch.holds()) {
                        this.broken(SoundError::Uncharged);
                        continue;
                    }
                    if let Some(first) = this.first.take() {
                        return Poll::Ready(Some(Ok(this.framed(first))));
                    }
                    match pieces.as_mut().poll_next(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Some(Ok(piece))) => {
                            batchin_faults::point("sound.passing");
                            return Poll::Ready(Some(Ok(this.framed(piece))));
                        }
                        Poll::Ready(Some(Err(cause))) => this.broken(cause),
                        Poll::Ready(None) => this.complete(),
                    }
                }
                State::Settling(commit) => match commit.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => this.state = State::Ending,
                    Poll::Ready(Err(_)) => {
                        let message = "The sound could not be charged for; its end is withheld.";
                        let failure = this.failure(message, Code::ServiceUnavailable, SoundError::Uncharged);
                        this.left = VecDeque::from([failure]);
                        this.state = State::Ending;
                    }
                },
                State::Ending => return Poll::Ready(this.left.pop_front()),
            }
        }
    }
}

/// The client went away: the server's connection closes with the sound, and what was made is charged.
impl Drop for SpokenStream {
    fn drop(&mut self) {
        if matches!(self.state, State::Flowing(_)) {
            self.end(Outcome::ClientGone);
        }
        let State::Settling(settling) = std::mem::replace(&mut self.state, State::Ending) else { return };
        self.tasks.spawn("settle_abandoned_sound", move |_| async move {
            if let Err(cause) = settling.await {
                warn!(error = %cause, "an abandoned sound could not be settled");
            }
        });
    }
}
