//! Holds: things that are written together: one writer takes what has come, since each transaction costs the disk a wait.

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::Tasks;

/// How much may come together.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Things that wait, at most.
    pub waiting: usize,
    /// Things of one writing, at most.
    pub together: usize,
}

/// Why a thing is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// Too many wait, or nothing is taken any more.
    #[error("too many wait to be written")]
    Full,
    /// The writing failed; who writes has said why.
    #[error("the writing failed")]
    Failed,
}

type Waiting<T> = (T, oneshot::Sender<bool>);

/// Where things wait to be written.
#[derive(Debug)]
pub struct Gather<T>(mpsc::Sender<Waiting<T>>);

impl<T: Send + 'static> Gather<T> {
    /// Has `write` called with what has come together, one call after the other; it says whether all of that is written.
    pub fn start<W>(
        name: &'static str,
        bounds: Bounds,
        tasks: &Tasks,
        write: impl Fn(Vec<T>) -> W + Send + 'static,
    ) -> Self
    where
        W: Future<Output = bool> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(bounds.waiting);
        tasks.spawn(name, move |stop| write_all(receiver, bounds.together, stop, write));
        Self(sender)
    }

    /// Hands a thing in; it is written where this returns.
    pub async fn written(&self, thing: T) -> Result<(), NotWritten> {
        let (told, outcome) = oneshot::channel();
        self.0.try_send((thing, told)).map_err(|_| NotWritten::Full)?;
        if outcome.await.unwrap_or(false) { Ok(()) } else { Err(NotWritten::Failed) }
    }
}

/// Writes what has come together, until nobody is left who could bring anything.
async fn write_all<T, W: Future<Output = bool>>(
    mut waiting: mpsc::Receiver<Waiting<T>>,
    most: usize,
    stop: CancellationToken,
    write: impl Fn(Vec<T>) -> W,
) {
    let mut together = Vec::with_capacity(most);
    loop {
        let came = tokio::select! {
            came = waiting.recv_many(&mut together, most) => came,
            () = stop.cancelled() => {
                // Whoever waits already is served; nobody else comes in.
                waiting.close();
                waiting.recv_many(&mut together, most).await
            }
        };
        if came == 0 {
            return;
        }
        let (things, told): (Vec<_>, Vec<_>) = together.drain(..).unzip();
        let is_written = write(things).await;
        for told in told {
            // Whoever left does not hear it.
            let _ = told.send(is_written);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn what_comes_together_is_written_together_and_each_is_told() {
        let tasks = Tasks::new();
        let groups = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&groups);
        let gather = Gather::start("test", Bounds { waiting: 6, together: 4 }, &tasks, move |things: Vec<u32>| {
            let is_written = !things.contains(&5);
            seen.lock().unwrap().push(things);
            async move { is_written }
        });
        let outcomes = join_all((0..8).map(|number| gather.written(number))).await;
        let (written, failed, full) = (Ok(()), Err(NotWritten::Failed), Err(NotWritten::Full));
        assert_eq!(outcomes, [written, written, written, written, failed, failed, full, full]);
        assert_eq!(*groups.lock().unwrap(), [vec![0, 1, 2, 3], vec![4, 5]]);
        tasks.shutdown(std::time::Duration::from_secs(5)).await;
        assert_eq!(gather.written(9).await, full);
    }
}
