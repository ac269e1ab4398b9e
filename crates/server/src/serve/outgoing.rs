//! Holds: answers on their way over HTTP/2, and those that nobody takes.
//!
//! An HTTP/1.1 connection that takes nothing is closed ([`Patient`](super::patience::Patient)). One of HTTP/2 goes on
//! with its other streams, and an answer for which its client makes no room is kept: for ever, if the client answers
//! pings. hyper asks no body while it waits for room, so a body cannot notice. Each stream knows what of its answer has
//! not been written yet, and is reset when none of it is for too long.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::{Buf, Bytes};
use hyper::{
    Response as HttpResponse,
    body::{Body as HttpBody, Frame, SizeHint},
    rt::Executor,
};
use pin_project_lite::pin_project;
use tokio::{
    task::futures::TaskLocalFuture,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::task::TaskTracker;

/// An answer that ends with its bytes, and whose rest is kept for as long as the connection once some of it was taken: of
/// all streams together no more than a request's head may take. Longer ones end in a frame of its own, once they have left.
const LITTLE: usize = 2 * 1024;

tokio::task_local! {
    /// Set in the tasks of HTTP/2 streams alone.
    static UNWRITTEN: Arc<Unwritten>;
}

/// Spawns the streams of HTTP/2 connections.
#[derive(Clone)]
pub(super) struct Streams {
    tasks: TaskTracker,
    for_room: Duration,
}

impl Streams {
    /// `for_room`: how long a client may take nothing of an answer before its stream is reset.
    pub(super) fn new(tasks: TaskTracker, for_room: Duration) -> Self {
        Self { tasks, for_room }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let unwritten = Unwritten::new();
        let stream = UNWRITTEN.scope(Arc::clone(&unwritten), stream);
        self.tasks.spawn(Watched { stream, unwritten, for_room: self.for_room, timer: None });
    }
}

pin_project! {
    /// A stream that ends when its client takes nothing of its answer. Its connection resets one that is dropped, and
    /// forgets what it has of its answer.
    struct Watched<F> {
        #[pin]
        stream: TaskLocalFuture<Arc<Unwritten>, F>,
        unwritten: Arc<Unwritten>,
        for_room: Duration,
        // Moved only when it fires, since moving it with every piece would cost more than the piece.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.stream.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        while let Some(since) = this.unwritten.waits_since() {
            let due = since + *this.for_room;
            if this.timer.is_none() {
                this.timer.set(Some(sleep_until(due)));
            }
            let Some(mut timer) = this.timer.as_mut().as_pin_mut() else { break };
            ready!(timer.as_mut().poll(cx));
            if due <= Instant::now() {
                metrics::counter!("batchin_http2_unread_total").increment(1);
                return Poll::Ready(());
            }
            timer.reset(due);
        }
        Poll::Pending
    }
}

/// What of a stream's answer its connection has and has not written.
struct Unwritten {
    /// std mutex: held to count, never across an await.
    count: Mutex<Count>,
}

struct Count {
    bytes: usize,
    /// When the last of it was written, or the first of it came.
    since: Instant,
    /// Waits for nothing to be left.
    ending: Option<Waker>,
}

impl Unwritten {
    fn new() -> Arc<Self> {
        Arc::new(Self { count: Mutex::new(Count { bytes: 0, since: Instant::now(), ending: None }) })
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, bytes: usize) {
        let mut count = self.lock();
        if count.bytes == 0 {
            count.since = Instant::now();
        }
        count.bytes += bytes;
    }

    fn take(&self, bytes: usize) {
        let mut count = self.lock();
        count.bytes = count.bytes.saturating_sub(bytes);
        count.since = Instant::now();
        let ending = if count.bytes == 0 { count.ending.take() } else { None };
        drop(count);
        if let Some(ending) = ending {
            ending.wake();
        }
    }

    fn waits_since(&self) -> Option<Instant> {
        let count = self.lock();
        (count.bytes > 0).then_some(count.since)
    }

    fn poll_written(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut count = self.lock();
        if count.bytes == 0 {
            return Poll::Ready(());
        }
        count.ending = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// An answer's body: over HTTP/1.1 as it is, over HTTP/2 counted and ended once it has left, as nobody could reset it
/// after its end.
pub(super) struct Outgoing {
    body: Body,
    has_ended: bool,
    unwritten: Option<Arc<Unwritten>>,
    /// It ends later than its last bytes.
    ends_apart: bool,
}

/// The answer as it leaves; to be called by the task that sends it.
pub(super) fn outgoing(answer: Response) -> HttpResponse<Outgoing> {
    let unwritten = UNWRITTEN.try_with(Arc::clone).ok();
    answer.map(|body| Outgoing { body, has_ended: false, unwritten, ends_apart: false })
}

impl HttpBody for Outgoing {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let this = self.get_mut();
        if !this.has_ended {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(frame) => return Poll::Ready(Some(frame.map(|frame| frame.map_data(|bytes| this.piece(bytes))))),
                None => this.has_ended = true,
            }
        }
        match this.unwritten.as_ref().filter(|_| this.ends_apart) {
            Some(unwritten) => unwritten.poll_written(cx).map(|()| None),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.ends_apart
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Outgoing {
    fn piece(&mut self, bytes: Bytes) -> Piece {
        let Some(unwritten) = &self.unwritten else { return Piece { bytes, unwritten: None } };
        unwritten.give(bytes.len());
        let is_all = self.body.is_end_stream() && !self.ends_apart;
        let bytes = if is_all && bytes.len() <= LITTLE {
            // Without what it may be a part of.
            Bytes::copy_from_slice(&bytes)
        } else {
            self.ends_apart = true;
            bytes
        };
        Piece { bytes, unwritten: Some(Arc::clone(unwritten)) }
    }
}

/// A part of an answer, which says when it is written or given up.
pub(super) struct Piece {
    bytes: Bytes,
    unwritten: Option<Arc<Unwritten>>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(unwritten) = &self.unwritten {
            unwritten.take(count);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(unwritten) = self.unwritten.as_ref().filter(|_| !self.bytes.is_empty()) {
            unwritten.take(self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests;
