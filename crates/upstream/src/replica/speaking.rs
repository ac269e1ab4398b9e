//! Holds: a text that one server is asked to speak, in its kind's own words.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_openai::{InvalidRequest, Rewrite, SoundFormat, SpeechAsked, rewrite, speech_asked};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::time::Instant;

use super::Replica;
use crate::{
    adapters::{Path, Speaking},
    call::{Call, Speech, Voice},
    failure::{CallError, CallErrorKind, Retry},
    form::Form,
    lease::Lease,
    sound::{Carried, Opening, Sound, told_by},
    transport::{AnswerBody, MAX_REFUSAL_BYTES, collect},
    upload::SentBody,
};

/// What OpenAI's `pcm` has, and so what servers that follow it mean.
const OPENAI_SAMPLE_RATE: u32 = 24_000;

/// How a request goes to a server, and what its answer is in.
struct Asking {
    path: Option<&'static str>,
    content_type: HeaderValue,
    body: Bytes,
    carried: Carried,
}

impl Replica {
    /// Sends a speech call. Returns once the first bytes of its sound have come; whether those are of the format that the
    /// client wants is told by [`Sound::carried`].
    pub(super) async fn speak(&self, call: &Call<'_>, speech: &Speech) -> Result<Sound, CallError> {
        let started = Instant::now();
        let mut lease = Lease::take(&self.record, call.asker, started)?;
        let formats: &[SoundFormat] = match (self.kind().speech, speech.format) {
            (Speaking::AsAsked, SoundFormat::Wav) | (Speaking::InWav(_) | Speaking::ByForm, _) => &[SoundFormat::Wav],
            (Speaking::AsAsked, format) => &[format, SoundFormat::Wav],
        };
        let mut failed = CallError::other_replica(CallErrorKind::BadAnswer);
        for format in formats {
            let asking = self.asking((call, speech), *format)?;
            match self.sound_of(call, asking, started).await {
                Ok((opening, carried, first)) => {
                    self.absent.answered(call.public_model, call.kind);
                    return Ok(opening.into_sound(carried, first, lease));
                }
                Err(error) if is_about_format(&error) => failed = error,
                Err(error) => {
                    failed = error;
                    break;
                }
            }
        }
        let failed = failed.renamed(call);
        lease.failed(&failed);
        self.not_served(call, &failed);
        Err(failed)
    }

    async fn sound_of(
        &self,
        call: &Call<'_>,
        asking: Asking,
        started: Instant,
    ) -> Result<(Opening, Carried, Bytes), CallError> {
        let response = self.sent(self.speech_request(call, &asking)?, started).await?;
        if !response.status().is_success() {
            return Err(Box::pin(self.refusal(response)).await);
        }
        if is_text(&response) {
            return Err(self.said_in_text(response).await);
        }
        let deadline = started + self.config.first_byte_timeout;
        let mut opening = Opening { body: response.into_body(), idle: self.config.idle_timeout, deadline };
        let first = opening.first().await?;
        // Some servers send what they have, whatever they are asked for.
        let carried = told_by(&first).map_or(asking.carried, Carried::File);
        Ok((opening, carried, first))
    }

    /// An error that comes with a good status.
    async fn said_in_text(&self, response: Response<AnswerBody>) -> CallError {
        let (head, body) = response.into_parts();
        let text = collect(body, MAX_REFUSAL_BYTES, self.config.idle_timeout).await.unwrap_or_default();
        let said = CallError::refused(StatusCode::INTERNAL_SERVER_ERROR, &head.headers, &text);
        CallError { retry: Retry::OtherReplica, client_error: None, ..said }
    }

    fn speech_request(&self, call: &Call<'_>, asking: &Asking) -> Result<Request<SentBody>, CallError> {
        let mut request = Request::new(SentBody::of(asking.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = match asking.path {
            Some(path) => self.targets.at(Path::AtRoot(path), "")?,
            None => self.targets.call(call.kind),
        };
        self.set_headers(request.headers_mut(), call, asking.content_type.clone());
        Ok(request)
    }

    fn asking(&self, (call, speech): (&Call<'_>, &Speech), format: SoundFormat) -> Result<Asking, CallError> {
        let json = |set: Vec<(&'static str, String)>| {
            let remove = ["stream", "stream_format", "response_format", "voice"];
            let edit =
                Rewrite { model: call.upstream_model, set: &set, remove: &remove, tidy: true, ..Rewrite::default() };
            rewrite(&call.body, &edit)
        };
        let mut set = vec![("response_format", format!("\"{}\"", format.name()))];
        let members = match self.kind().speech {
            Speaking::AsAsked => &[][..],
            Speaking::InWav(members) => members,
            Speaking::ByForm => return self.asking_by_form(call, speech),
        };
        set.extend(members.iter().map(|(name, value)| (*name, (*value).to_owned())));
        match &speech.voice {
            Voice::Unsaid => {}
            Voice::Named(name) => set.push(("voice", text(name))),
            Voice::Like { .. } if self.kind().speech == Speaking::AsAsked => {
                return Err(unfit("voice", "`voice` is one of yours, and this model's servers have their own alone"));
            }
            Voice::Like { sound, content_type, words } => {
                set.push(("ref_audio", text(&data_uri(content_type, sound))));
                set.push(("ref_text", text(words)));
            }
        }
        let carried = match format {
            SoundFormat::Pcm => Carried::Samples { rate: OPENAI_SAMPLE_RATE },
            format => Carried::File(format),
        };
        let content_type = HeaderValue::from_static("application/json");
        Ok(Asking { path: None, content_type, body: json(set), carried })
    }

    /// In the forms of CosyVoice: by a voice that it was trained on, or like a sound.
    fn asking_by_form(&self, call: &Call<'_>, speech: &Speech) -> Result<Asking, CallError> {
        let SpeechAsked { input, instructions, speed } = speech_asked(&call.body);
        if speed.is_some_and(|speed| speed != 1.0) {
            return Err(unfit("speed", "`speed` cannot be changed with this model; leave it out"));
        }
        let carried = Carried::Samples { rate: self.config.sample_rate };
        let asking = |path, content_type: &str, body: Vec<u8>| {
            let content_type = HeaderValue::from_str(content_type);
            let content_type = content_type.map_err(|_| CallError::other_replica(CallErrorKind::BadAnswer))?;
            Ok(Asking { path: Some(path), content_type, body: body.into(), carried })
        };
        match &speech.voice {
            Voice::Unsaid => {
                Err(unfit("voice", "`voice` is required with this model: name one of its voices, or one of yours"))
            }
            Voice::Like { sound, words, .. } => {
                let form = Form::new(call.request_id.as_str());
                let form =
                    form.field("tts_text", &input).field("prompt_text", words).file("prompt_wav", "prompt.wav", sound);
                let (content_type, body) = form.end();
                asking("/inference_zero_shot", &content_type, body)
            }
            Voice::Named(name) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("tts_text", &input).append_pair("spk_id", name);
                let path = match &instructions {
                    Some(text) => {
                        form.append_pair("instruct_text", text);
                        "/inference_instruct"
                    }
                    None => "/inference_sft",
                };
                asking(path, "application/x-www-form-urlencoded", form.finish().into_bytes())
            }
        }
    }
}

/// Whether a server refuses the format of the sound, and may speak in another.
fn is_about_format(error: &CallError) -> bool {
    let said = error.client_error.as_deref();
    let names = |text: &str| text.contains("response_format") || text.contains("format");
    matches!(error.kind, CallErrorKind::Status(400 | 422))
        && said.is_some_and(|said| said.param.as_deref().is_some_and(names) || names(&said.message))
}

/// Whether an answer is words, and so no sound.
fn is_text(response: &Response<AnswerBody>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.trim_start().to_ascii_lowercase();
    kind.starts_with("application/json") || kind.starts_with("text/")
}

fn unfit(member: &'static str, message: &str) -> CallError {
    CallError::unfit(InvalidRequest::at(member, message))
}

/// A text as JSON.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn data_uri(content_type: &str, bytes: &[u8]) -> String {
    format!("data:{content_type};base64,{}", STANDARD.encode(bytes))
}
