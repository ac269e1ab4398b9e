//! Holds: the API as one service: inference calls go straight to their handler, everything else through the router.
//!
//! A router that can hold any handler boxes its services, futures and extensions: some ten allocations that an inference
//! call need not make. The routes of these calls stand in the router too, for their other methods and for the description.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    BoxError, Router,
    body::Body,
    extract::ConnectInfo,
    response::{IntoResponse, Response},
    routing::future::RouteFuture,
};
use batchin_domain::RequestId;
use batchin_openai::Endpoint;
use bytes::Bytes;
use http::{Method, Request};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower::Service;

use crate::{
    app::App,
    inference,
    openai::flavour,
    request_id::{self, Named},
};

/// The whole HTTP API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    front: Arc<Front>,
    peer: Option<SocketAddr>,
}

struct Front {
    router: Router,
    app: App,
}

impl Api {
    pub(crate) fn new(router: Router, app: App) -> Self {
        Self { front: Arc::new(Front { router, app }), peer: None }
    }

    /// The API for a connection from this address.
    #[must_use]
    pub fn for_peer(mut self, peer: SocketAddr) -> Self {
        self.peer = Some(peer);
        self
    }
}

impl<B> Service<Request<B>> for Api
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Named<Answering>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Front { router, app } = &*self.front;
        let id = RequestId::new(app.ids.uuid());
        let client = request_id::of_client(request.headers());
        let answering = match inference_call(&request).filter(|_| app.settings.serves) {
            Some(endpoint) => {
                let (app, request) = (app.clone(), request.map(Body::new));
                let answer = async move { inference::answer(&app, endpoint, id, request).await.into_response() };
                Answering::Inference { answer: Box::pin(answer) }
            }
            None => {
                if let Some(uri) = flavour::meant(&request) {
                    *request.uri_mut() = uri;
                }
                request.extensions_mut().insert(id);
                if let Some(peer) = self.peer {
                    request.extensions_mut().insert(ConnectInfo(peer));
                }
                Answering::Routed { answer: router.clone().call(request) }
            }
        };
        Named::new(answering, id, client)
    }
}

/// Which inference call it is, if it is one.
fn inference_call<B>(request: &Request<B>) -> Option<Endpoint> {
    if request.method() != Method::POST {
        return None;
    }
    let path = request.uri().path();
    Endpoint::from_url(path.strip_prefix("/openai").filter(|below| below.starts_with("/v1/")).unwrap_or(path))
}

pin_project! {
    /// An answer to come.
    #[project = Projected]
    pub enum Answering {
        Inference { answer: Pin<Box<dyn Future<Output = Response> + Send>> },
        Routed { #[pin] answer: RouteFuture<Infallible> },
    }
}

impl Future for Answering {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Inference { answer } => answer.as_mut().poll(cx).map(Ok),
            Projected::Routed { answer } => answer.poll(cx),
        }
    }
}
