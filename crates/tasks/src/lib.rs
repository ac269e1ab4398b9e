//! Holds: background work: every task has an owner, a name, an end.
//!
//! Everything that runs beside a request is spawned through [`Tasks`], which shutdown waits for. A detached
//! `tokio::spawn` is banned by clippy: work started that way is lost on shutdown and its panics go unseen.

mod gather;
mod sweeps;

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt;
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, info_span, warn};

pub use gather::{Bounds, Gather, NotWritten};
pub use sweeps::Sweeps;

/// A group of tasks that end together. Cheap to clone; clones share the group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` until it returns. It is handed the group's stop signal and must return soon after that fires.
    ///
    /// A panic is logged with the task's name and ends only that task.
    #[expect(clippy::disallowed_methods, reason = "this is the replacement that the ban names")]
    pub fn spawn<F, W>(&self, name: &'static str, work: F)
    where
        F: FnOnce(CancellationToken) -> W,
        W: Future<Output = ()> + Send + 'static,
    {
        // A task's future is moved some ten times on its way to its thread; many are kilobytes.
        let work = Box::pin(work(self.stop.clone()));
        let guarded = async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                error!(task = name, "task {name} panicked");
            }
        };
        tokio::spawn(self.tracker.track_future(guarded.instrument(info_span!("task", name))));
    }

    /// Runs `work` to its end, from now on, even when the caller stops waiting for it, as a request does whose client
    /// leaves: what has an outside effect must hear what became of it. What it brings and nobody takes is dropped.
    /// `None`: it panicked.
    pub fn see_through<W>(&self, name: &'static str, work: W) -> impl Future<Output = Option<W::Output>> + use<W>
    where
        W: Future<Output: Send> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        self.spawn(name, move |_| async move {
            // Nobody listens any more: dropped here.
            let _ = done.send(work.await);
        });
        async { outcome.await.ok() }
    }

    /// The signal that shutdown has begun.
    pub fn stop_signal(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Asks every task to stop and waits for them, at most `patience`. Returns how many were still running then.
    pub async fn shutdown(&self, patience: Duration) -> usize {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(patience, self.tracker.wait()).await.is_err() {
            warn!(left = self.tracker.len(), "tasks still running after {patience:?}");
        }
        self.tracker.len()
    }
}
