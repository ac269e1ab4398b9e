//! Holds: a stream whose headers leave before its answer is there.
//!
//! The work goes on as if the client still waited for the status, in a task: a client that does not read its stream asks
//! it for nothing, and must not keep what the work holds. What comes of it comes as the stream.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError,
    body::Body,
    response::{IntoResponse as _, Response},
};
use batchin_domain::CallKind;
use batchin_gateway::Promise;
use batchin_tasks::Tasks;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::DropGuard;

use crate::{
    error::ApiError,
    inference::{is_event_stream, started},
    readers::KEEP_ALIVE_FRAME,
    told,
};

/// An answer that is being worked on.
pub(crate) type Work = Pin<Box<dyn Future<Output = Response> + Send>>;

/// Headers now, with a comment at once and after each pause, and the answer when it is there. The work ends when the
/// body is dropped.
pub(crate) fn begin(work: Work, (call, promise): (CallKind, Promise), pause: Duration, tasks: &Tasks) -> Response {
    let left = tasks.stop_signal().child_token();
    let until_left = left.clone();
    let done = tasks.see_through("late_answer", async move { until_left.run_until_cancelled(work).await });
    let work = async { done.await.flatten().unwrap_or_else(|| ApiError::internal().into_response()) };
    let body = LateBody {
        state: State::Working(Box::pin(work)),
        call,
        said: false,
        pause,
        silence: Box::pin(sleep(pause)),
        _left: left.drop_guard(),
    };
    started(Body::new(body), promise.rate)
}

enum State {
    Working(Work),
    /// Its events pass through.
    Flowing(Body),
    /// It is no stream: an error, as one event.
    Gathering(Body, BytesMut),
    Ended,
}

struct LateBody {
    state: State,
    call: CallKind,
    /// The first comment has left.
    said: bool,
    pause: Duration,
    silence: Pin<Box<Sleep>>,
    /// Ends the work.
    _left: DropGuard,
}

impl HttpBody for LateBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.said, true) {
            return comment();
        }
        loop {
            match &mut this.state {
                State::Working(work) => match work.as_mut().poll(cx) {
                    Poll::Ready(answer) if answer.status() == StatusCode::OK && is_event_stream(answer.headers()) => {
                        this.state = State::Flowing(answer.into_body());
                    }
                    Poll::Ready(answer) => this.state = State::Gathering(answer.into_body(), BytesMut::new()),
                    Poll::Pending => {
                        if this.silence.as_mut().poll(cx).is_pending() {
                            return Poll::Pending;
                        }
                        this.silence.as_mut().reset(Instant::now() + this.pause);
                        return comment();
                    }
                },
                State::Flowing(body) => {
                    return Pin::new(body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)));
                }
                State::Gathering(body, text) => match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(frame))) => {
                        if let Some(data) = frame.data_ref() {
                            text.extend_from_slice(data);
                        }
                    }
                    Poll::Ready(Some(Err(cause))) => return Poll::Ready(Some(Err(cause.into()))),
                    Poll::Ready(None) => {
                        let event = told::as_event(this.call, text);
                        this.state = State::Ended;
                        return Poll::Ready(Some(Ok(Frame::data(event))));
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

fn comment() -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(KEEP_ALIVE_FRAME)))))
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;
    use http_body_util::BodyExt as _;

    use tokio::sync::oneshot;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(20);

    async fn told(answer: Response) -> String {
        let work = async move {
            sleep(PAUSE * 3).await;
            answer
        };
        let response =
            begin(Box::pin(work), (CallKind::Chat, Promise { streams: true, rate: None }), PAUSE, &Tasks::new());
        assert_eq!((response.status(), is_event_stream(response.headers())), (StatusCode::OK, true));
        let whole = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(whole.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_work_goes_on_unread_and_ends_when_its_reader_has_left() {
        let promise = || (CallKind::Chat, Promise { streams: true, rate: None });
        let (tasks, (done, told)) = (Tasks::new(), oneshot::channel());
        let work = async move {
            sleep(PAUSE).await;
            done.send(()).unwrap();
            Response::default()
        };
        let unread = begin(Box::pin(work), promise(), PAUSE, &tasks);
        told.await.unwrap();
        drop(unread);
        let (never, told) = oneshot::channel::<()>();
        let work = async move {
            let _never = never;
            std::future::pending().await
        };
        drop(begin(Box::pin(work), promise(), PAUSE, &tasks));
        assert!(told.await.is_err());
        assert_eq!(tasks.shutdown(PAUSE * 100).await, 0);
    }

    #[tokio::test]
    async fn what_comes_of_it_is_the_stream_and_an_error_is_an_event() {
        let events = ([(CONTENT_TYPE, "text/event-stream")], "data: 1\n\ndata: [DONE]\n\n").into_response();
        let text = told(events).await;
        assert!(text.starts_with(": keep-alive\n\n: keep-alive\n\n"), "{text}");
        assert!(text.ends_with("\n\ndata: 1\n\ndata: [DONE]\n\n"), "{text}");
        let text = told(ApiError::unavailable("No model server can serve this model now.").into_response()).await;
        let event = text.trim_start_matches(": keep-alive\n\n");
        let error = event.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n")).unwrap();
        let error: serde_json::Value = serde_json::from_str(error).unwrap();
        assert_eq!(error["error"]["code"], "service_unavailable");
    }
}
