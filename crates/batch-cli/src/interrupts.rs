//! Holds: Ctrl-C, and what a person wants when they press it.

use std::io::BufRead as _;
use std::pin::Pin;

use futures::stream::{self, Stream, StreamExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::progress::Progress;

/// Somebody who answers the question: a line, or nothing when there is no more.
pub(super) type Ask = Box<dyn FnMut() -> oneshot::Receiver<String>>;

/// Ctrl-C as a stream, and whom to ask about it; tests give their own.
pub struct Interrupts {
    signals: Pin<Box<dyn Stream<Item = ()>>>,
    ask: Option<Ask>,
}

/// What becomes of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    GoOn,
    Cancel,
    Detach,
}

impl Interrupts {
    /// Of this process. Until somebody waits for the first one, Ctrl-C ends the process as it always does.
    pub fn of_process(can_ask: bool) -> Self {
        let signals = stream::unfold(None, |known: Option<Signal>| async move {
            let mut known = match known {
                Some(known) => known,
                None => signal(SignalKind::interrupt()).ok()?,
            };
            known.recv().await?;
            Some(((), Some(known)))
        });
        let ask: Option<Ask> = can_ask.then(|| Box::new(from_terminal) as Ask);
        Self { signals: Box::pin(signals), ask }
    }

    #[cfg(test)]
    pub(super) fn scripted(signals: impl Stream<Item = ()> + 'static, ask: Option<Ask>) -> Self {
        Self { signals: Box::pin(signals), ask }
    }

    /// Returns with the next Ctrl-C.
    pub(super) async fn next(&mut self) {
        if self.signals.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Asks; without anybody to ask, and on a second Ctrl-C, the batch is left running.
    pub(super) async fn wish(&mut self, progress: &Progress) -> Wish {
        let Some(ask) = &mut self.ask else { return Wish::Detach };
        progress.say("Cancel the batch? [y]es, cancel it · [n]o, go on · [d]etach, leave it running");
        let answered = ask();
        tokio::select! {
            biased;
            line = answered => match line.as_deref().map(str::trim) {
                Ok("y" | "yes") => Wish::Cancel,
                Ok("d" | "detach") | Err(_) => Wish::Detach,
                Ok(_) => Wish::GoOn,
            },
            () = self.next() => Wish::Detach,
        }
    }
}

/// A thread of its own: reading from a terminal cannot be given up, and must not keep the process alive.
fn from_terminal() -> oneshot::Receiver<String> {
    let (answer, answered) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).is_ok_and(|read| read > 0) {
            // Nobody waits for the answer after a second Ctrl-C.
            let _ = answer.send(line);
        }
    });
    answered
}
