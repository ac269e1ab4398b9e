//! Holds: `/v1/audio/speech`: the sound of a text, sent as it is made.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use batchin_voices::{Ask, AskError, Chunk, streamed_header};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{
    AnswerBody, BrokenOff, Service,
    body::{self, SpeechBody, VoiceName},
    error::ApiError,
};
use crate::speech::{self, Said};

/// Its path.
pub(super) const PATH: &str = "/v1/audio/speech";

/// What tells clients of `pcm` how many samples a second has.
const SAMPLE_RATE: header::HeaderName = header::HeaderName::from_static("x-sample-rate");

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Wav,
    Pcm,
}

pub(super) async fn speak(service: &Service, request: Request<Incoming>) -> Result<Response<AnswerBody>, ApiError> {
    let body: SpeechBody = body::parse(&body::read(request.into_body()).await?)?;
    let served = service.find_voice(body.model.as_deref())?;
    let text = body.input.ok_or_else(|| ApiError::invalid("input", "`input` is required."))?;
    let format = match body.response_format.as_deref() {
        None | Some("wav") => Format::Wav,
        Some("pcm") => Format::Pcm,
        Some(_) => return Err(ApiError::invalid("response_format", "`response_format` is wav or pcm.")),
    };
    if body.stream_format.is_some_and(|form| form != "audio") {
        return Err(ApiError::invalid("stream_format", "`stream_format` is audio; other forms are not supported."));
    }
    let voice = body.voice.map(|named| match named {
        VoiceName::Plain(name) | VoiceName::Object { id: name } => name,
    });
    let ask = Ask { text, voice, speed: body.speed.unwrap_or(1.0) };
    let speech = served.voice.say(&ask).map_err(|error| refusal(&error))?;
    let place = Arc::clone(&service.speaking).try_acquire_owned();
    let place = place.map_err(|_| ApiError::unavailable("Too many texts are being said; try again."))?;
    let mut inbox = speech::begin(speech, Arc::clone(&served.metrics), place);
    // What fails at once has a status of its own.
    let first = match inbox.recv().await {
        Some(Said::Piece(chunk)) => chunk,
        Some(Said::End) => return Err(refusal(&AskError::Empty)),
        None => return Err(ApiError::internal()),
    };
    Ok(answer(first, inbox, format))
}

fn refusal(error: &AskError) -> ApiError {
    let param = match error {
        AskError::Empty | AskError::TooLong { .. } => "input",
        AskError::Speed => "speed",
        AskError::Voice { .. } => "voice",
    };
    ApiError::invalid(param, format!("`{param}`: {error}."))
}

fn answer(first: Chunk, inbox: mpsc::Receiver<Said>, format: Format) -> Response<AnswerBody> {
    let Chunk { sample_rate, pcm } = first;
    let header = streamed_header(sample_rate);
    let mut begin = BytesMut::with_capacity(header.len() + pcm.len());
    if format == Format::Wav {
        begin.extend_from_slice(&header);
    }
    begin.extend_from_slice(&pcm);
    let mut response = Response::new(Sound { begin: Some(begin.freeze()), inbox }.boxed_unsync());
    let kind = HeaderValue::from_static(if format == Format::Wav { "audio/wav" } else { "audio/pcm" });
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(SAMPLE_RATE, sample_rate.into());
    response
}

/// The body of the answer. Dropping it ends the work.
struct Sound {
    begin: Option<Bytes>,
    inbox: mpsc::Receiver<Said>,
}

impl Body for Sound {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(begin) = self.begin.take() {
            return Poll::Ready(Some(Ok(Frame::data(begin))));
        }
        Poll::Ready(match ready!(self.inbox.poll_recv(context)) {
            Some(Said::Piece(chunk)) => Some(Ok(Frame::data(chunk.pcm.into()))),
            Some(Said::End) => None,
            None => Some(Err(BrokenOff)),
        })
    }
}
