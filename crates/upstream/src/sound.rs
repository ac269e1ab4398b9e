//! Holds: the sound that a server makes, as it comes.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use batchin_openai::SoundFormat;
use bytes::Bytes;
use http_body::Body;
use tokio::time::{Instant, Sleep, timeout_at};

use crate::{
    failure::{CallError, CallErrorKind, StreamError},
    lease::Lease,
    transport::{AnswerBody, BodyError, io_kind},
};

/// Whatever a text of 4,096 characters sounds like, at a quarter of the speed and without compression.
pub const MAX_SOUND_BYTES: u64 = 1024 * 1024 * 1024;

/// What the bytes of a sound are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// A file of this format.
    File(SoundFormat),
    /// 16-bit little-endian samples of one channel without a head.
    Samples {
        /// So many a second.
        rate: u32,
    },
}

/// A sound on its way, of which the first bytes have come. Dropping it closes the connection, and thereby ends the work of
/// servers that stop when they are left.
pub struct Sound {
    carried: Carried,
    first: Option<Bytes>,
    /// `None` once it is over.
    body: Option<AnswerBody>,
    idle: Duration,
    last_byte: Instant,
    alarm: Pin<Box<Sleep>>,
    taken: u64,
    lease: Lease,
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sound").field("carried", &self.carried).field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// What tells files of sound apart: how they begin.
pub(crate) fn told_by(first: &[u8]) -> Option<SoundFormat> {
    match first {
        [b'R', b'I', b'F', b'F', ..] => Some(SoundFormat::Wav),
        [b'O', b'g', b'g', b'S', ..] => Some(SoundFormat::Opus),
        [b'f', b'L', b'a', b'C', ..] => Some(SoundFormat::Flac),
        [b'I', b'D', b'3', ..] => Some(SoundFormat::Mp3),
        // Twelve bits that mark a frame; the layer after them is 0 in AAC alone.
        [0xFF, second, ..] if second & 0xF6 == 0xF0 => Some(SoundFormat::Aac),
        [0xFF, second, ..] if second & 0xE0 == 0xE0 && second & 0x06 == 0x02 => Some(SoundFormat::Mp3),
        _ => None,
    }
}

/// A body of which the first bytes are waited for.
pub(crate) struct Opening {
    pub(crate) body: AnswerBody,
    pub(crate) idle: Duration,
    pub(crate) deadline: Instant,
}

impl Opening {
    /// The first bytes, so that a failure before them can still be tried elsewhere.
    pub(crate) async fn first(&mut self) -> Result<Bytes, CallError> {
        let next = std::future::poll_fn(|cx| poll_bytes(&mut self.body, cx));
        match timeout_at(self.deadline, next).await {
            Ok(Some(Ok(bytes))) => Ok(bytes),
            Ok(Some(Err(error))) => Err(CallError::broke_off(error)),
            // A sound of nothing.
            Ok(None) => Err(CallError::other_replica(CallErrorKind::BadAnswer)),
            Err(_) => Err(CallError::other_replica(CallErrorKind::Timeout)),
        }
    }

    pub(crate) fn into_sound(self, carried: Carried, first: Bytes, mut lease: Lease) -> Sound {
        lease.began();
        let now = Instant::now();
        Sound {
            carried,
            taken: first.len() as u64,
            first: Some(first),
            body: Some(self.body),
            idle: self.idle,
            last_byte: now,
            alarm: Box::pin(tokio::time::sleep_until(now + self.idle)),
            lease,
        }
    }
}

impl Sound {
    /// What its bytes are.
    pub const fn carried(&self) -> Carried {
        self.carried
    }

    /// The next bytes; `None` at the end, after which nothing follows, as after an error.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = match poll_bytes(body, cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.taken = self.taken.saturating_add(bytes.len() as u64);
                self.last_byte = Instant::now();
                if self.taken <= MAX_SOUND_BYTES {
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Some(Err(StreamError::TooLarge))
            }
            Poll::Ready(next) => next,
            Poll::Pending => {
                let silent_until = self.last_byte + self.idle;
                if self.alarm.deadline() < silent_until {
                    self.alarm.as_mut().reset(silent_until);
                }
                match self.alarm.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => Some(Err(StreamError::Stalled)),
                }
            }
        };
        self.body = None;
        match &next {
            None => self.lease.succeeded(),
            Some(_) => self.lease.stream_broke(),
        }
        Poll::Ready(next)
    }

    /// The next bytes, as [`poll_next`](Self::poll_next).
    pub async fn next(&mut self) -> Option<Result<Bytes, StreamError>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }
}

/// The next bytes of a body that are any.
fn poll_bytes(body: &mut AnswerBody, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
    loop {
        return Poll::Ready(match std::task::ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => Some(Ok(bytes)),
                Ok(_) | Err(_) => continue,
            },
            Some(Err(BodyError::Encoding)) => Some(Err(StreamError::BadEvent)),
            Some(Err(error)) => Some(Err(StreamError::Broken(io_kind(&error).unwrap_or(io::ErrorKind::UnexpectedEof)))),
            None => None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_beginnings() {
        for (first, expected) in [
            (&b"RIFF\xff\xff\xff\xffWAVE"[..], Some(SoundFormat::Wav)),
            (b"OggS\0\x02", Some(SoundFormat::Opus)),
            (b"fLaC", Some(SoundFormat::Flac)),
            (b"ID3\x04", Some(SoundFormat::Mp3)),
            (b"\xff\xfb\x90\x64", Some(SoundFormat::Mp3)),
            (b"\xff\xf3\x44\xc4", Some(SoundFormat::Mp3)),
            (b"\xff\xf1\x50\x80", Some(SoundFormat::Aac)),
            (b"\xff\xf9\x50\x80", Some(SoundFormat::Aac)),
            (b"\0\0\x01\0", None),
            (b"\xff", None),
            (b"", None),
        ] {
            assert_eq!(told_by(first), expected, "{first:?}");
        }
    }
}
