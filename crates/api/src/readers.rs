//! Holds: streams on their way to clients, and which of those do not read.
//!
//! A connection that takes no more bytes asks its stream for none, so a stream cannot notice by itself that nobody reads
//! it. It is looked at from beside; what it holds, its place among them, is free again once it is given up.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use batchin_gateway::{SoundError, SpokenStream};
use batchin_tasks::Tasks;
use bytes::Bytes;
use futures::Stream;
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval, sleep_until};
use tracing::info;

/// Looks at all streams while one may be silent for its patience.
const LOOKS: u32 = 4;
/// Patience may be set to nearly nothing, and a look must not spin.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);
/// A comment, which clients of server-sent events pass over.
pub(crate) const KEEP_ALIVE_FRAME: &[u8] = b": keep-alive\n\n";

/// All streams of this server.
pub(crate) struct Readers {
    /// Zero of the streams' own time.
    began: Instant,
    /// std mutex: held to add one, or to take all of them; never across an await.
    streams: Mutex<Vec<Weak<dyn Watched>>>,
}

/// A stream that can be given up from beside.
trait Watched: Send + Sync {
    /// When it was last asked for more, in milliseconds since the server began.
    fn asked_at(&self) -> u64;
    /// Drops it, unless it has ended. Whether it had not.
    fn give_up(&self) -> bool;
}

/// A stream, and what lives as long as it does.
struct Shared<S> {
    /// std mutex: held while the stream is asked for what it has; only a look from beside ever meets it.
    stream: Mutex<Option<S>>,
    asked_at: AtomicU64,
}

impl<S: Send> Watched for Shared<S> {
    fn asked_at(&self) -> u64 {
        self.asked_at.load(Ordering::Relaxed)
    }

    fn give_up(&self) -> bool {
        let stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        stream.is_some()
    }
}

impl Readers {
    /// Watches streams until the tasks end. One that was not asked for more for `patience` is given up; a stream whose
    /// reader reads is asked after each pause of its keep-alive, so that must be the shorter of the two.
    pub(crate) fn start(patience: Duration, tasks: &Tasks) -> Arc<Self> {
        let readers = Arc::new(Self { began: Instant::now(), streams: Mutex::default() });
        let watching = Arc::clone(&readers);
        tasks.spawn("stream_readers", move |stop| async move {
            let mut ticks = interval((patience / LOOKS).max(SHORTEST_LOOK));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                watching.look(patience);
            }
        });
        readers
    }

    fn look(&self, patience: Duration) {
        let now = self.millis();
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        let streams = std::mem::take(&mut *self.lock());
        let mut alive: Vec<_> = Vec::with_capacity(streams.len());
        let mut given_up = 0_u64;
        for weak in streams {
            let Some(stream) = weak.upgrade() else { continue };
            if now.saturating_sub(stream.asked_at()) < patience {
                alive.push(weak);
            } else {
                given_up += u64::from(stream.give_up());
            }
        }
        self.lock().append(&mut alive);
        if given_up > 0 {
            metrics::counter!("batchin_stalled_readers_total").increment(given_up);
            info!("{given_up} streams ended because their clients do not read");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Watched>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a stream hands out, one after another.
pub(crate) trait Piece {
    /// Its bytes, or why the rest does not come.
    fn bytes(self) -> Result<Bytes, BoxError>;
}

impl Piece for Bytes {
    fn bytes(self) -> Result<Bytes, BoxError> {
        Ok(self)
    }
}

impl Piece for Result<Bytes, SoundError> {
    fn bytes(self) -> Result<Bytes, BoxError> {
        self.map_err(BoxError::from)
    }
}

/// Events as a body that is never silent for long, or sound, which is.
pub(crate) struct EventBody<S> {
    shared: Arc<Shared<S>>,
    readers: Arc<Readers>,
    keep_alive: Duration,
    /// What breaks a silence.
    frame: Option<&'static [u8]>,
    /// When the last frame left.
    last: Instant,
    /// Moved only when it fires, since moving it with every frame would cost more than the frame.
    silence: Pin<Box<Sleep>>,
    ended: bool,
}

/// The client did not read.
#[derive(Debug, thiserror::Error)]
#[error("the client does not read its stream")]
struct NotRead;

impl EventBody<Box<SpokenStream>> {
    /// Sound has nothing that could stand in a silence, unless it is told in events.
    pub(crate) fn of_sound(
        sound: Box<SpokenStream>,
        keep_alive: Duration,
        is_events: bool,
        readers: &Arc<Readers>,
    ) -> Self {
        let body = Self::new(sound, keep_alive, readers);
        Self { frame: body.frame.filter(|_| is_events), ..body }
    }
}

impl<T: Piece, S: Stream<Item = T> + Unpin + Send + 'static> EventBody<S> {
    /// The stream is dropped at its end, when the body is, or when nobody reads it.
    pub(crate) fn new(events: S, keep_alive: Duration, readers: &Arc<Readers>) -> Self {
        let last = Instant::now();
        let asked_at = AtomicU64::new(readers.millis());
        let shared = Arc::new(Shared { stream: Mutex::new(Some(events)), asked_at });
        let watched: Weak<Shared<S>> = Arc::downgrade(&shared);
        readers.lock().push(watched);
        let silence = Box::pin(sleep_until(last + keep_alive));
        let (readers, frame) = (Arc::clone(readers), Some(KEEP_ALIVE_FRAME));
        Self { shared, readers, keep_alive, frame, last, silence, ended: false }
    }

    /// `None`: it was given up.
    fn next(&mut self, cx: &mut Context<'_>) -> Option<Poll<Option<T>>> {
        let mut stream = self.shared.stream.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.asked_at.store(self.readers.millis(), Ordering::Relaxed);
        let polled = Pin::new(stream.as_mut()?).poll_next(cx);
        if let Poll::Ready(None) = polled {
            // What it holds is free before the connection is.
            *stream = None;
            self.ended = true;
        }
        Some(polled)
    }
}

impl<T: Piece, S: Stream<Item = T> + Unpin + Send + 'static> HttpBody for EventBody<S> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        match this.next(cx) {
            Some(Poll::Ready(Some(piece))) => {
                this.last = Instant::now();
                return Poll::Ready(Some(piece.bytes().map(Frame::data)));
            }
            Some(Poll::Ready(None)) => return Poll::Ready(None),
            Some(Poll::Pending) => {}
            None => {
                this.ended = true;
                return Poll::Ready(Some(Err(NotRead.into())));
            }
        }
        while this.silence.as_mut().poll(cx).is_ready() {
            let due = this.last + this.keep_alive;
            if due <= Instant::now() {
                this.last = Instant::now();
                this.silence.as_mut().reset(this.last + this.keep_alive);
                match this.frame {
                    Some(frame) => return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(frame))))),
                    // Asked again, all the same: that it is silent does not mean that nobody reads.
                    None => {
                        this.shared.asked_at.store(this.readers.millis(), Ordering::Relaxed);
                        continue;
                    }
                }
            }
            this.silence.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use http_body_util::BodyExt;

    use super::*;

    async fn next<S: Stream<Item = Bytes> + Unpin + Send + 'static>(body: &mut EventBody<S>) -> Option<Bytes> {
        Some(body.frame().await?.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn only_silence_is_broken() {
        let readers = Readers::start(Duration::from_secs(60), &Tasks::new());
        let (mut events, received) = mpsc::channel(8);
        let mut body = EventBody::new(received, Duration::from_millis(5), &readers);
        for _ in 0..3 {
            assert_eq!(next(&mut body).await.unwrap(), KEEP_ALIVE_FRAME);
        }
        events.try_send(Bytes::from_static(b"data: 1\n\n")).unwrap();
        drop(events);
        assert_eq!(next(&mut body).await.unwrap(), "data: 1\n\n");
        assert_eq!(next(&mut body).await, None);

        let (mut events, received) = mpsc::channel(8);
        let mut body = EventBody::new(received, Duration::from_secs(3_600), &readers);
        for text in ["a", "b"] {
            events.try_send(Bytes::from_static(text.as_bytes())).unwrap();
            assert_eq!(next(&mut body).await.unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_stream_that_nobody_asks_is_given_up_and_one_that_is_silent_is_not() {
        let (pause, patience) = (Duration::from_millis(20), Duration::from_millis(600));
        let readers = Readers::start(patience, &Tasks::new());
        let (stalled, received) = mpsc::channel::<Bytes>(8);
        let mut unread = EventBody::new(received, pause, &readers);
        let (silent, received) = mpsc::channel::<Bytes>(8);
        let mut read = EventBody::new(received, pause, &readers);
        while !stalled.is_closed() {
            assert_eq!(next(&mut read).await.unwrap(), KEEP_ALIVE_FRAME);
        }
        assert!(!silent.is_closed());
        assert!(unread.frame().await.unwrap().is_err(), "its connection is cut rather than ended");
        assert!(unread.frame().await.is_none());
    }
}
