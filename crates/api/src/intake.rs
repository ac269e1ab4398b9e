//! Holds: a request's body between the connection and whoever reads it: not too slow, and read away if nobody wants it.
//!
//! A client that still sends does not look for an answer, and a connection that closes on what it sent takes the answer
//! with it. So whatever a handler leaves of a body is read and thrown away, within bounds, before any answer leaves.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use batchin_gateway::Promise;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, Sleep, sleep, timeout};

/// What is read and thrown away of a body that nobody wants, so that its client gets to read the answer.
const MAX_READ_AWAY_BYTES: u64 = 64 * 1024 * 1024;
/// How long that may take.
const READ_AWAY_TIMEOUT: Duration = Duration::from_secs(10);
/// The least that a body brings while it is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    bytes: u64,
    window: Duration,
}

impl Pace {
    /// So many bytes a second on average over a window; zero turns it off.
    pub(crate) fn of(bytes_per_second: u64, window: Duration) -> Self {
        let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Self { bytes: bytes_per_second.saturating_mul(millis).div_ceil(1_000), window }
    }
}

/// What front and handler share of a request.
pub(crate) struct Edge<B> {
    /// std mutex: held to put the body back and to take it out, never across an await.
    left: Mutex<Option<Intake<B>>>,
    /// What the body was compressed with is not what it says.
    undecodable: AtomicBool,
    /// What is known of an inference call's answer once it is admitted.
    promise: OnceLock<Promise>,
}

impl<B> Edge<B> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { left: Mutex::new(None), undecodable: AtomicBool::new(false), promise: OnceLock::new() })
    }

    /// The body, once whoever had it is done with it.
    pub(crate) fn take_back(&self) -> Option<Intake<B>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn promise(&self, promise: Promise) {
        // Told once.
        let _ = self.promise.set(promise);
    }

    pub(crate) fn promised(&self) -> Option<Promise> {
        self.promise.get().copied()
    }

    pub(crate) fn note_undecodable(&self) {
        self.undecodable.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_undecodable(&self) -> bool {
        self.undecodable.load(Ordering::Relaxed)
    }
}

/// A body as it comes from the connection.
pub(crate) struct Intake<B> {
    body: B,
    /// The client waits for a word before it sends.
    asked_first: bool,
    /// Somebody has read from it, which is that word.
    begun: bool,
    end: End,
    pace: Pace,
    window: Option<Window>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Whole,
    Broken,
    TooSlow,
}

/// Time that a body is waited for, and what it has brought in it.
struct Window {
    ends: Pin<Box<Sleep>>,
    bytes: u64,
    /// The last look found nothing. Only then has the client been slow, rather than whoever reads.
    waiting: bool,
}

/// The body took too long.
#[derive(Debug, thiserror::Error)]
#[error("the body comes too slowly")]
struct TooSlow;

impl<B> Intake<B> {
    /// A body; `asked_first` when its client waits for a word before it sends.
    pub(crate) fn new(body: B, asked_first: bool, pace: Pace) -> Self {
        Self { body, asked_first, begun: false, end: End::Open, pace, window: None }
    }

    /// It was given up because its client was too slow.
    pub(crate) fn is_too_slow(&self) -> bool {
        self.end == End::TooSlow
    }

    /// Its connection broke off.
    pub(crate) fn is_broken(&self) -> bool {
        self.end == End::Broken
    }

    /// Something of it may still be on its way.
    pub(crate) fn is_left(&self) -> bool {
        self.end == End::Open && (self.begun || !self.asked_first)
    }

    /// Gives it to a reader; it comes back when the reader drops it.
    pub(crate) fn lend(self, edge: &Arc<Edge<B>>) -> Lent<B> {
        Lent { intake: Some(self), edge: Arc::clone(edge) }
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin> Intake<B> {
    /// Throws away what is left, within bounds. Beyond them the connection closes with the answer.
    pub(crate) async fn read_away(mut self) {
        let throw_away = async {
            let mut seen = 0_u64;
            while let Some(Ok(frame)) = self.body.frame().await {
                seen += frame.data_ref().map_or(0, |data| data.len() as u64);
                if seen > MAX_READ_AWAY_BYTES {
                    break;
                }
            }
        };
        // The answer is the same whether or not the rest came.
        let _ = timeout(READ_AWAY_TIMEOUT, throw_away).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.begun = true;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(window) = &mut self.window {
                    window.bytes = window.bytes.saturating_add(frame.data_ref().map_or(0, |data| data.len() as u64));
                    window.waiting = false;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(cause))) => {
                self.end = End::Broken;
                Poll::Ready(Some(Err(cause.into())))
            }
            Poll::Ready(None) => {
                self.end = End::Whole;
                Poll::Ready(None)
            }
            Poll::Pending if self.pace.bytes == 0 => Poll::Pending,
            Poll::Pending => self.wait(cx),
        }
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Pace { bytes: least, window: length } = self.pace;
        let begin = || Window { ends: Box::pin(sleep(length)), bytes: 0, waiting: true };
        let window = self.window.get_or_insert_with(begin);
        // One that brought its least begins anew, and so does one that was not looked at while it ended.
        let is_over = window.ends.is_elapsed();
        if window.bytes >= least || (is_over && !window.waiting) {
            window.bytes = 0;
            window.ends.as_mut().reset(Instant::now() + length);
        }
        window.waiting = true;
        if window.ends.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.end = End::TooSlow;
        Poll::Ready(Some(Err(TooSlow.into())))
    }
}

/// A body in the hands of a reader.
pub(crate) struct Lent<B> {
    intake: Option<Intake<B>>,
    edge: Arc<Edge<B>>,
}

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        *self.edge.left.lock().unwrap_or_else(PoisonError::into_inner) = self.intake.take();
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin> HttpBody for Lent<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().intake {
            Some(intake) if intake.end == End::Open => intake.poll(cx),
            Some(_) | None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.intake.as_ref().is_none_or(|intake| intake.end != End::Open || intake.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.intake.as_ref().map_or_else(SizeHint::default, |intake| intake.body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::{StreamExt as _, channel::mpsc, stream};

    use super::*;

    const PACE: Pace = Pace { bytes: 1_000, window: Duration::from_millis(200) };

    fn lent(body: Body, asked_first: bool) -> (Arc<Edge<Body>>, Lent<Body>) {
        let edge = Edge::new();
        let lent = Intake::new(body, asked_first, PACE).lend(&edge);
        (edge, lent)
    }

    #[tokio::test]
    async fn what_a_reader_leaves_comes_back_and_what_was_never_sent_is_not_waited_for() {
        let body = || Body::from_stream(stream::iter(["a", "b", "c"].map(|text| Ok::<_, BoxError>(Bytes::from(text)))));
        let (edge, mut read) = lent(body(), true);
        assert_eq!(read.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        drop(read);
        let left = edge.take_back().unwrap();
        assert!(left.is_left(), "the client was told to send");
        left.read_away().await;
        let (edge, unread) = lent(body(), true);
        drop(unread);
        assert!(!edge.take_back().unwrap().is_left());
        let (edge, unread) = lent(body(), false);
        drop(unread);
        assert!(edge.take_back().unwrap().is_left());
    }

    /// So many bytes after each pause, in ten pieces.
    fn drip(bytes: usize, pause: Duration) -> Body {
        let pieces = stream::unfold(0, move |sent| async move {
            tokio::time::sleep(pause).await;
            (sent < 10).then(|| (Ok::<_, BoxError>(Bytes::from(vec![b'x'; bytes])), sent + 1))
        });
        Body::from_stream(pieces.boxed())
    }

    #[tokio::test]
    async fn a_body_that_drips_ends_and_one_that_comes_does_not() {
        let (edge, mut slow) = lent(drip(1, Duration::from_millis(40)), false);
        while let Some(Ok(_)) = slow.frame().await {}
        drop(slow);
        assert!(edge.take_back().unwrap().is_too_slow());
        let (edge, mut steady) = lent(drip(7_000, Duration::from_millis(40)), false);
        assert_eq!((&mut steady).collect().await.unwrap().to_bytes().len(), 70_000);
        drop(steady);
        let ended = edge.take_back().unwrap();
        assert!(!ended.is_too_slow() && !ended.is_left());
    }

    #[tokio::test]
    async fn a_reader_that_pauses_is_not_held_against_the_client() {
        let (mut sender, received) = mpsc::channel::<Result<Bytes, BoxError>>(4);
        let (edge, mut read) = lent(Body::from_stream(received), false);
        tokio::select! {
            biased;
            _ = read.frame() => panic!("nothing has come"),
            () = tokio::task::yield_now() => {}
        }
        sender.try_send(Ok(Bytes::from_static(b"x"))).unwrap();
        assert!(read.frame().await.unwrap().is_ok());
        // The window ends while nobody reads.
        tokio::time::sleep(PACE.window * 2).await;
        let later = async {
            tokio::time::sleep(PACE.window / 10).await;
            sender.try_send(Ok(Bytes::from_static(b"y"))).unwrap();
        };
        let (frame, ()) = tokio::join!(read.frame(), later);
        assert!(frame.unwrap().is_ok());
        drop(read);
        assert!(!edge.take_back().unwrap().is_too_slow());
    }
}
