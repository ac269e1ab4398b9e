//! Holds: an answer that is streamed to us and handed on whole.
//!
//! The stream shows the first byte and the time between tokens; who waits for the answer sees none of it.

use std::task::{Context, Poll};

use batchin_openai::WholeAnswer;

use crate::{
    call::{CallError, CallErrorKind},
    events::{Event, EventKind, Events},
};

/// A stream whose events are put together. Dropping it closes the connection and thereby cancels the work.
#[derive(Debug)]
pub struct Assembly {
    events: Option<Events>,
    deltas: u64,
}

/// What has come of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A piece of it.
    Piece {
        /// Choices that got content with it; each holds at least one token.
        deltas: u32,
        /// A choice ends with it.
        ends: bool,
    },
    /// All of it; nothing follows.
    Whole {
        /// As if it had come in one piece.
        answer: WholeAnswer,
        /// How many tokens it has at least, for when the server does not say.
        deltas: u64,
    },
}

impl Assembly {
    pub(crate) fn new(events: Events) -> Self {
        Self { events: Some(events), deltas: 0 }
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
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(CallError::broke_off(error))),
                Poll::Ready(None) => return Poll::Ready(self.whole()),
            };
            let Event { deltas, kind, .. } = event;
            self.deltas += u64::from(deltas);
            return Poll::Ready(match kind {
                EventKind::KeepAlive => continue,
                EventKind::Delta | EventKind::Usage => Ok(Progress::Piece { deltas, ends: false }),
                EventKind::Finish => Ok(Progress::Piece { deltas, ends: true }),
                EventKind::Done => self.whole(),
                EventKind::Error(error) => Err(CallError::reported(*error)),
            });
        }
    }

    fn whole(&mut self) -> Result<Progress, CallError> {
        let answer = self.events.take().and_then(Events::into_answer).and_then(|answer| answer.finish().ok());
        let answer = answer.ok_or_else(|| CallError::other_replica(CallErrorKind::BadAnswer))?;
        Ok(Progress::Whole { answer, deltas: self.deltas })
    }
}
