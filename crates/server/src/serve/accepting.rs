//! Holds: the loop that takes connections, and how it ends.
//!
//! A loop of our own, because axum-server's spawns the streams of HTTP/2 where nothing can end one of them.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum_server::accept::Accept;
use batchin_api::Api;
use hyper::{Request, body::Incoming};
use hyper_util::{rt::TokioIo, server::conn::auto::Builder, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};
use tower::ServiceExt;

use super::outgoing::{Streams, outgoing};

/// Before the next connection is asked for when one could not be had: there are too many files open, mostly.
const PAUSE: Duration = Duration::from_millis(50);

/// Ends a listener and its connections. Cheap to clone; clones are for the same one.
#[derive(Clone, Default)]
pub(super) struct Handle {
    closing: Signal,
    cutting: Signal,
    open: TaskTracker,
}

impl Handle {
    /// What runs until the last connection has ended.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.open
    }

    /// No new connections; idle ones close, and others once their requests have ended.
    pub(super) fn close(&self) {
        self.closing.set();
    }

    /// Closes all connections now.
    pub(super) fn cut(&self) {
        self.closing.set();
        self.cutting.set();
    }
}

/// A token, and whether it is cancelled, which connections look at each time they are polled: the token itself would take
/// a lock for that.
#[derive(Clone, Default)]
struct Signal {
    is_set: Arc<AtomicBool>,
    token: CancellationToken,
}

impl Signal {
    fn set(&self) {
        self.is_set.store(true, Ordering::Release);
        self.token.cancel();
    }
}

pin_project_lite::pin_project! {
    /// Runs something until it ends or a signal is set: `None` then. Begun again, it goes on.
    struct Until<F> {
        #[pin]
        work: F,
        signal: Signal,
        // The signal wakes this one.
        woken: Option<(Waker, Pin<Box<WaitForCancellationFutureOwned>>)>,
    }
}

impl<F> Until<F> {
    fn new(work: F, signal: &Signal) -> Self {
        Self { work, signal: signal.clone(), woken: None }
    }
}

impl<F: Future> Future for Until<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.woken.as_ref().is_none_or(|(waker, _)| !waker.will_wake(cx.waker())) {
            let mut wait = Box::pin(this.signal.token.clone().cancelled_owned());
            // Its answer is the flag, which was set before.
            let _ = wait.as_mut().poll(cx);
            *this.woken = Some((cx.waker().clone(), wait));
        }
        if this.signal.is_set.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        this.work.poll(cx).map(Some)
    }
}

/// Takes connections until it is told to close; returns when the last one has ended.
pub(super) async fn accept<A>(listener: TcpListener, acceptor: A, serving: (Api, Builder<Streams>), handle: Handle)
where
    A: Accept<TcpStream, Api, Service = Api, Future: Send> + Clone + Send + 'static,
    A::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (api, http) = (serving.0, Arc::new(serving.1));
    while let Some(accepted) = handle.closing.token.run_until_cancelled(listener.accept()).await {
        let Ok((stream, peer)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        let (acceptor, api) = (acceptor.clone(), api.clone().for_peer(peer));
        let (closing, cutting) = (handle.closing.clone(), handle.cutting.clone());
        let http = Arc::clone(&http);
        let connection = async move {
            if let Ok((stream, api)) = acceptor.accept(stream, api).await {
                serve(stream, api, &http, &closing).await;
            }
        };
        let until_cut = Until::new(connection, &cutting);
        handle.open.spawn(async move {
            until_cut.await;
        });
    }
    // Whoever connects now is refused rather than left waiting.
    drop(listener);
    handle.open.close();
    handle.open.wait().await;
}

async fn serve<I>(stream: I, api: Api, http: &Builder<Streams>, closing: &Signal)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(ServiceExt::<Request<Incoming>>::map_response(api, outgoing));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // How it ended is its client's affair.
    if Until::new(connection.as_mut(), closing).await.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
