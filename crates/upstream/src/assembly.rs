//! Holds: an answer that is streamed to us and handed on whole.
//!
//! The stream shows the first byte and the time between tokens; who waits for the answer sees none of it.

use std::task::{Context, Poll};

use batchin_openai::{Usage, WholeAnswer};

use crate::{
    events::{Event, EventKind, Events},
    failure::{CallError, CallErrorKind},
};

/// A stream whose events are put together. Dropping it closes the connection and thereby cancels the work.
#[derive(Debug)]
pub struct Assembly {
    events: Option<Events>,
}

/// What has come of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A piece of it.
    Piece {
        /// Choices that got content with it.
        deltas: u32,
        /// Bytes of text in it, as in [`WholeAnswer`].
        text_bytes: u64,
        /// Choices that end with it.
        ends: u32,
        /// Counts so far or in all, when it carries them.
        usage: Option<Usage>,
    },
    /// All of it, as if it had come in one piece; nothing follows.
    Whole(WholeAnswer),
}

impl Assembly {
    pub(crate) fn new(events: Events) -> Self {
        Self { events: Some(events) }
    }

    /// The next piece, or the whole. An error is the end: nothing that came before it is an answer.
    pub async fn next(&mut self) -> Result<Progress, CallError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), to notice when nothing is here yet.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Progress, CallError>> {
        loop {
            let Some(events) = &mut self.events else {
                return Poll::Ready(Err(CallError::other_replica(CallErrorKind::BadAnswer)));
            };
            let event = match events.poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(event))) => event,
                // Nothing of the answer is missing.
                Poll::Ready(Some(Err(_))) if events.is_whole() => return Poll::Ready(self.whole()),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(CallError::broke_off(error))),
                Poll::Ready(None) => return Poll::Ready(self.whole()),
            };
            let Event { deltas, text_bytes, ends, usage, kind, .. } = event;
            return Poll::Ready(match kind {
                EventKind::KeepAlive => continue,
                EventKind::Delta | EventKind::Usage | EventKind::Finish => {
                    Ok(Progress::Piece { deltas, text_bytes, ends, usage })
                }
                EventKind::Done => self.whole(),
                EventKind::Error(_) if events.is_whole() => self.whole(),
                EventKind::Error(error) => Err(CallError::reported(*error)),
            });
        }
    }

    fn whole(&mut self) -> Result<Progress, CallError> {
        let answer = self.events.take().and_then(Events::into_answer).and_then(|answer| answer.finish().ok());
        let answer = answer.ok_or_else(|| CallError::other_replica(CallErrorKind::BadAnswer))?;
        Ok(Progress::Whole(answer))
    }

    /// What has come so far, ended by its length. The connection is closed, which cancels the rest.
    pub fn cut(mut self) -> Option<WholeAnswer> {
        let mut answer = self.events.take().and_then(Events::into_answer)?;
        answer.end_by_length();
        answer.finish().ok()
    }
}
