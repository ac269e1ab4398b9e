//! Holds: the loop that takes connections, and how it ends.
//!
//! A loop of our own, because axum-server's spawns the streams of HTTP/2 where nothing can end one of them.

use std::{pin::pin, sync::Arc, time::Duration};

use axum_server::accept::Accept;
use batchin_api::Api;
use hyper::{Request, body::Incoming};
use hyper_util::{rt::TokioIo, server::conn::auto::Builder, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::outgoing::{Streams, outgoing};

/// Before the next connection is asked for when one could not be had: there are too many files open, mostly.
const PAUSE: Duration = Duration::from_millis(50);

/// Ends a listener and its connections. Cheap to clone; clones are for the same one.
#[derive(Clone, Default)]
pub(super) struct Handle {
    closing: CancellationToken,
    cutting: CancellationToken,
    open: TaskTracker,
}

impl Handle {
    /// What runs until the last connection has ended.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.open
    }

    /// No new connections; idle ones close, and others once their requests have ended.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    /// Closes all connections now.
    pub(super) fn cut(&self) {
        self.closing.cancel();
        self.cutting.cancel();
    }
}

/// Takes connections until it is told to close; returns when the last one has ended.
pub(super) async fn accept<A>(listener: TcpListener, acceptor: A, serving: (Api, Builder<Streams>), handle: Handle)
where
    A: Accept<TcpStream, Api, Service = Api, Future: Send> + Clone + Send + 'static,
    A::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (api, http) = (serving.0, Arc::new(serving.1));
    while let Some(accepted) = handle.closing.run_until_cancelled(listener.accept()).await {
        let Ok((stream, peer)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        let (acceptor, api) = (acceptor.clone(), api.clone().for_peer(peer));
        // Children, so that connections do not wait for each other's look at the same token.
        let (closing, cutting) = (handle.closing.child_token(), handle.cutting.child_token());
        let http = Arc::clone(&http);
        handle.open.spawn(async move {
            cutting
                .run_until_cancelled_owned(async move {
                    if let Ok((stream, api)) = acceptor.accept(stream, api).await {
                        serve(stream, api, &http, &closing).await;
                    }
                })
                .await;
        });
    }
    // Whoever connects now is refused rather than left waiting.
    drop(listener);
    handle.open.close();
    handle.open.wait().await;
}

async fn serve<I>(stream: I, api: Api, http: &Builder<Streams>, closing: &CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(ServiceExt::<Request<Incoming>>::map_response(api, outgoing));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    // How it ended is its client's affair.
    if closing.run_until_cancelled(connection.as_mut()).await.is_none() {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}
