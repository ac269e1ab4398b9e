//! Holds: the API as one service: inference calls go straight to their handler, everything else through the router.
//!
//! A router that can hold any handler boxes its services, futures and extensions: some ten allocations that an inference
//! call need not make. The router knows these calls' paths for other methods alone.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::Body,
    extract::ConnectInfo,
    response::{IntoResponse, Response},
    routing::future::RouteFuture,
};
use batchin_domain::{CallKind, RequestId};
use batchin_openai::Code;
use batchin_shares::NoShare;
use bytes::Bytes;
use futures::FutureExt as _;
use http::{Method, Request, StatusCode, header::EXPECT};
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::Service;

use crate::{
    app::App,
    cors, decode,
    error::{ApiError, Unpaid},
    flavour, inference,
    intake::{Edge, Intake, Pace},
    late::{self, Work},
    request_id::{self, Named},
    told,
    unpaid::{Asker, Brought, receipted},
};

/// The whole HTTP API. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    front: Arc<Front>,
    peer: Option<SocketAddr>,
    /// Why this connection is not served.
    refusal: Option<NoShare>,
}

struct Front {
    router: Router,
    app: App,
    pace: Pace,
}

impl Api {
    pub(crate) fn new(router: Router, app: App) -> Self {
        let pace = Pace::of(app.settings.min_body_bytes_per_second, app.settings.body_window);
        Self { front: Arc::new(Front { router, app, pace }), peer: None, refusal: None }
    }

    /// The API for a connection from this address.
    #[must_use]
    pub fn for_peer(mut self, peer: SocketAddr) -> Self {
        self.peer = Some(peer);
        self
    }

    /// The API for a connection that is one too many: whatever is asked, the answer says so, and the connection closes.
    #[must_use]
    pub fn refusing(mut self, why: NoShare) -> Self {
        self.refusal = Some(why);
        self
    }
}

impl<B> Service<Request<B>> for Api
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Named<Answering<B>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Front { router, app, pace } = &*self.front;
        let id = RequestId::new(app.ids.uuid());
        let client = request_id::of_client(request.headers());
        let origin = cors::allowed(&app.settings.cors_origins, request.headers());
        let may_ask = origin.is_some() && cors::is_preflight(request.method(), request.headers());
        let call = inference_call(&request).filter(|_| app.settings.serves);
        let (asker, brought) = (Asker::of(app, request.headers()), Brought::with(app, &request));
        let (edge, request) = taken_in(request, *pace);
        let request = match self.refusal {
            None => request,
            Some(why) => Err(ApiError::connection_refused(why)),
        };
        let work = match request {
            Ok(request) if may_ask => {
                let mut answer = StatusCode::NO_CONTENT.into_response();
                *answer.headers_mut() = cors::preflight(request.headers());
                Doing::Known { answer: Some(answer) }
            }
            Ok(request) => match call {
                Some(call) => {
                    let (app, of_late, told) = (app.clone(), app.clone(), edge.clone());
                    let promised = move |promise| {
                        if let Some(edge) = told {
                            edge.promise(promise);
                        }
                    };
                    let answer = async move {
                        let answer = inference::answer(&app, (call, id), request, promised).await;
                        answer.unwrap_or_else(|error| told::refusal(error, Some(call), id))
                    };
                    let answer: Work = match brought {
                        Some(brought) => Box::pin(after_payment(brought, (Some(call), id), answer)),
                        None => Box::pin(answer),
                    };
                    Doing::Boxed { answer: Some(answer), app: of_late }
                }
                None => {
                    let answer = self.routed(router, id, request);
                    match brought {
                        Some(brought) => {
                            let answer = answer.map(|answer| answer.unwrap_or_else(|never| match never {}));
                            let answer: Work = Box::pin(after_payment(brought, (None, id), answer));
                            Doing::Boxed { answer: Some(answer), app: app.clone() }
                        }
                        None => Doing::Routed { answer },
                    }
                }
            },
            Err(refused) => Doing::Known { answer: Some(told::refusal(refused, call, id)) },
        };
        let answering = Answering {
            work,
            edge,
            named: (call, id),
            asker,
            silence: None,
            keep_alive: app.settings.keep_alive,
            leaving: None,
        };
        Named::new(answering, id, client).for_origin(origin, cors::varies(&app.settings.cors_origins))
    }
}

impl Api {
    fn routed(&self, router: &Router, id: RequestId, mut request: Request<Body>) -> RouteFuture<Infallible> {
        if let Some(uri) = flavour::meant(&request) {
            *request.uri_mut() = uri;
        }
        request.extensions_mut().insert(id);
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        router.clone().call(request)
    }
}

/// An answer to a call that a payment came with: the payment first, so that it can be spent.
async fn after_payment(
    brought: Brought,
    (call, id): (Option<CallKind>, RequestId),
    answer: impl Future<Output = Response>,
) -> Response {
    match brought.paid().await {
        Ok(Some(payment)) => receipted(&payment, answer.await),
        Ok(None) => answer.await,
        Err(error) => told::refusal(error, call, id),
    }
}

/// What of a request has a body, and the request as handlers see it: its body plain, and lent.
type TakenIn<B> = (Option<Arc<Edge<B>>>, Result<Request<Body>, ApiError>);

fn taken_in<B>(request: Request<B>, pace: Pace) -> TakenIn<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if request.body().is_end_stream() {
        return (None, Ok(request.map(|_| Body::empty())));
    }
    let (mut parts, body) = request.into_parts();
    let edge = Edge::new();
    // Given back at once where nobody reads it.
    let lent = Intake::new(body, parts.headers.contains_key(EXPECT), pace).lend(&edge);
    let body = decode::coding(&parts.headers).map(|coding| match coding {
        None => Body::new(lent),
        Some(coding) => decode::decoded(coding, lent, Arc::clone(&edge), &mut parts.headers),
    });
    (Some(edge), body.map(|body| Request::from_parts(parts, body)))
}

/// Which inference call it is, if it is one.
fn inference_call<B>(request: &Request<B>) -> Option<CallKind> {
    if request.method() != Method::POST {
        return None;
    }
    let path = request.uri().path();
    if let Some((_, call)) = CallKind::BESIDE.into_iter().find(|(beside, _)| path == *beside) {
        return Some(call);
    }
    CallKind::from_url(path.strip_prefix("/openai").filter(|below| below.starts_with("/v1/")).unwrap_or(path))
}

pin_project! {
    #[project = DoingProjected]
    enum Doing {
        // What the router need not see, or not at once.
        Boxed { answer: Option<Work>, app: App },
        Routed { #[pin] answer: RouteFuture<Infallible> },
        Known { answer: Option<Response> },
    }
}

pin_project! {
    /// An answer to come.
    pub struct Answering<B> {
        #[pin]
        work: Doing,
        named: (Option<CallKind>, RequestId),
        // Where a refusal may say how to pay.
        asker: Option<Asker>,
        edge: Option<Arc<Edge<B>>>,
        // Until the headers of a stream leave without its first event.
        silence: Option<Pin<Box<Sleep>>>,
        keep_alive: Duration,
        // The answer, while what its client still sends is read away, or while it is looked up what there is to be paid.
        leaving: Option<Work>,
    }
}

impl<B> Future for Answering<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(leaving) = this.leaving {
            return leaving.as_mut().poll(cx).map(Ok);
        }
        let answer = match this.work.project() {
            DoingProjected::Routed { answer } => match answer.poll(cx) {
                Poll::Ready(Ok(answer)) => answer,
                Poll::Pending => return Poll::Pending,
            },
            DoingProjected::Known { answer } => answer.take().unwrap_or_default(),
            DoingProjected::Boxed { answer, app } => match answer.as_mut().map(|work| work.as_mut().poll(cx)) {
                Some(Poll::Ready(answer)) => answer,
                Some(Poll::Pending) => {
                    let promise = this.edge.as_ref().and_then(|edge| edge.promised()).filter(|promise| promise.streams);
                    let Some(promise) = promise else { return Poll::Pending };
                    let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(*this.keep_alive)));
                    let call = this.named.0.unwrap_or(CallKind::Chat);
                    return match (silence.as_mut().poll(cx), answer.take()) {
                        (Poll::Ready(()), Some(work)) => {
                            Poll::Ready(Ok(late::begin(work, (call, promise), *this.keep_alive, &app.tasks)))
                        }
                        (_, work) => {
                            *answer = work;
                            Poll::Pending
                        }
                    };
                }
                None => ApiError::internal().into_response(),
            },
        };
        let (intake, mut answer) = match this.edge.take().and_then(|edge| Some((edge.take_back()?, edge))) {
            Some((intake, edge)) => kept(intake, &edge, *this.named, answer),
            None => (None, answer),
        };
        let offer = this.asker.take().and_then(|asker| Some((asker, unpaid(&mut answer)?)));
        if intake.is_none() && offer.is_none() {
            return Poll::Ready(Ok(answer));
        }
        let mut leaving: Work = Box::pin(async move {
            if let Some(intake) = intake {
                intake.read_away().await;
            }
            match offer {
                Some((asker, unpaid)) => asker.offered(unpaid, answer).await,
                None => answer,
            }
        });
        match leaving.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending => {
                *this.leaving = Some(leaving);
                Poll::Pending
            }
        }
    }
}

/// What of a body is still to be read away, and the answer, in whose place another one comes if the body was at fault.
fn kept<B>(
    intake: Intake<B>,
    edge: &Edge<B>,
    (call, id): (Option<CallKind>, RequestId),
    answer: Response,
) -> (Option<Intake<B>>, Response) {
    if intake.is_too_slow() {
        let message = "The body did not arrive in time: it came too slowly.";
        return (None, told::refusal(ApiError::new(Code::RequestTimeout, message), call, id));
    }
    let answer = if edge.is_undecodable() && !intake.is_broken() {
        let message = "The body is not compressed as its content-encoding says.";
        told::refusal(ApiError::new(Code::InvalidRequest, message), call, id)
    } else {
        answer
    };
    (intake.is_left().then_some(intake), answer)
}

/// The mark of a refusal where money would help.
fn unpaid(answer: &mut Response) -> Option<Unpaid> {
    let is_refusal = answer.status() == StatusCode::PAYMENT_REQUIRED;
    is_refusal.then(|| answer.extensions_mut().remove::<Unpaid>()).flatten()
}
