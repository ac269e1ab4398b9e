//! Holds: what is said in a sound, as OpenAI's API tells it: asked of servers as JSON, told in the format of the request.
//!
//! Servers have `json`, and those that know when something was said `verbose_json`; the other formats are made of these
//! here, so that they are the same whoever answers. A stream is read as one of chunks, which is what vLLM sends.

mod captions;
mod stream;
#[cfg(test)]
mod tests;

use batchin_domain::listed;
use bytes::Bytes;
use serde::Deserialize;

use crate::{
    AskedAs, InvalidRequest, Names, Retelling, Telling,
    members::quoted,
    peek::unreadable,
    rewrite::{Change, Member, members_of, splice},
};
pub use stream::transcript_as_chunk;

listed! {
    /// A format of what is said, by its name in OpenAI's API.
    pub enum TranscriptFormat {
        /// `{"text": …}`
        Json => "json",
        /// The text alone.
        Text => "text",
        /// SubRip's captions.
        Srt => "srt",
        /// JSON with the segments, and when each was said.
        Verbose => "verbose_json",
        /// WebVTT's captions.
        Vtt => "vtt",
        /// JSON with segments by speaker.
        Diarized => "diarized_json",
    }
}

impl TranscriptFormat {
    /// The format in which servers are asked.
    const fn asked(self) -> Self {
        match self {
            Self::Json | Self::Text => Self::Json,
            Self::Verbose | Self::Srt | Self::Vtt => Self::Verbose,
            Self::Diarized => Self::Diarized,
        }
    }

    const fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Verbose | Self::Diarized)
    }

    /// The media type of its text.
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Verbose | Self::Diarized => "application/json",
            // As OpenAI sends the two.
            Self::Text | Self::Srt => "text/plain; charset=utf-8",
            Self::Vtt => "text/vtt; charset=utf-8",
        }
    }
}

const FORMAT: &str = "response_format";

/// The members of a call for what is said in a sound of so many milliseconds, as model servers are asked, and how their
/// answer is told. An answer that `is_kept` in a batch is JSON.
pub fn transcript_asked(body: &Bytes, sound_ms: u64, is_kept: bool) -> Result<AskedAs, InvalidRequest> {
    let Some((text, members)) = members_of(body) else { return Err(unreadable(body)) };
    let stated = |name: &str| {
        let found = members.iter().rev().find(|member| member.key == name);
        found.map(|member| member.value.get()).filter(|value| *value != "null")
    };
    let format = stated(FORMAT).map_or(Ok(TranscriptFormat::Json), format)?;
    let streams = stated("stream") == Some("true");
    if is_kept && !format.is_json() {
        let message = "`response_format` must be \"json\" or \"verbose_json\" in a batch, whose results are JSON";
        return Err(InvalidRequest::at(FORMAT, message));
    }
    if streams && !matches!(format, TranscriptFormat::Json | TranscriptFormat::Text | TranscriptFormat::Diarized) {
        let message = format!("`{FORMAT}` must be \"json\" in a stream; \"{}\" is told whole", format.name());
        return Err(InvalidRequest::at(FORMAT, message));
    }
    let makes_captions = matches!(format, TranscriptFormat::Srt | TranscriptFormat::Vtt);
    let change = |member: &Member<'_>| match member.key.as_ref() {
        // The sound goes beside the members. Usage is by its length, whatever servers count.
        "file" | FORMAT | "stream_options" => Change::Remove,
        // Captions are made of segments.
        "timestamp_granularities" | "timestamp_granularities[]" if makes_captions => Change::Remove,
        _ => Change::Keep,
    };
    let changes: Vec<Change> = members.iter().map(change).collect();
    let added = [(FORMAT, quoted(format.asked().name()))];
    let body = splice(text, &members, &changes, &added);
    Ok(AskedAs { body, retelling: Box::new(Transcript { format, sound_ms }) })
}

fn format(json: &str) -> Result<TranscriptFormat, InvalidRequest> {
    let named = serde_json::from_str::<&str>(json).ok().and_then(TranscriptFormat::from_name);
    named.ok_or_else(|| {
        let known = TranscriptFormat::ALL.map(TranscriptFormat::name).join(", ");
        InvalidRequest::at(FORMAT, format!("`{FORMAT}` must be one of {known}"))
    })
}

/// Tells what was said in the format of the request.
#[derive(Debug)]
struct Transcript {
    format: TranscriptFormat,
    sound_ms: u64,
}

/// What a server's answer has in it.
#[derive(Deserialize)]
struct Said {
    text: String,
    #[serde(default)]
    segments: Option<Vec<Segment>>,
}

/// A part of it, with its times in seconds.
#[derive(Deserialize)]
struct Segment {
    start: f64,
    end: f64,
    text: String,
}

impl Retelling for Transcript {
    fn whole(&self, answer: &[u8], _: Names<'_>) -> Bytes {
        let body = Bytes::copy_from_slice(answer);
        if self.format.is_json() {
            return with_duration(&body, self.sound_ms);
        }
        // It was read as an answer before.
        let Ok(Said { text, segments }) = serde_json::from_slice(answer) else { return body };
        match self.format {
            TranscriptFormat::Srt => captions::srt(&captions::cues(segments, text, self.sound_ms)).into(),
            TranscriptFormat::Vtt => captions::vtt(&captions::cues(segments, text, self.sound_ms)).into(),
            TranscriptFormat::Text
            | TranscriptFormat::Json
            | TranscriptFormat::Verbose
            | TranscriptFormat::Diarized => format!("{text}\n").into(),
        }
    }

    fn stream(&self, _: Names<'_>) -> Box<dyn Telling> {
        Box::new(stream::Stream::new(self.sound_ms))
    }

    fn content_type(&self) -> &'static str {
        self.format.content_type()
    }

    fn member<'a>(&self, member: &'a str) -> &'a str {
        member
    }
}

/// What the sound's length costs, as OpenAI tells it of models that are paid by it.
fn usage(sound_ms: u64) -> String {
    let (seconds, ms) = (sound_ms / 1_000, sound_ms % 1_000);
    let text = format!("{seconds}.{ms:03}");
    let seconds = text.trim_end_matches('0').trim_end_matches('.');
    format!("{{\"type\":\"duration\",\"seconds\":{seconds}}}")
}

/// The object with this as its usage, in place of what its server counted.
fn with_duration(body: &Bytes, sound_ms: u64) -> Bytes {
    let Some((text, members)) = members_of(body) else { return body.clone() };
    let change = |member: &Member<'_>| if member.key == "usage" { Change::Remove } else { Change::Keep };
    let changes: Vec<Change> = members.iter().map(change).collect();
    splice(text, &members, &changes, &[("usage", usage(sound_ms))])
}
