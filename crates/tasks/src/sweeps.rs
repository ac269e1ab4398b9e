//! Holds: removing what is old, one kind after the other, again and again.

use std::{error::Error, future::Future, pin::Pin, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::Tasks;

/// Between two rounds: nobody misses what is removed a minute later, and a round that finds nothing is a few look-ups.
const EVERY: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error + Send + Sync>;
type Sweep = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> + Send + Sync>;

/// Kinds of things that are removed when they are old.
#[derive(Default)]
pub struct Sweeps {
    /// Each with what is said where it fails.
    kinds: Vec<(&'static str, Sweep)>,
}

impl Sweeps {
    /// Adds a kind; what `failed` says is logged where it could not be swept. Any number of nodes may sweep at once.
    pub fn add<F, W, E>(&mut self, failed: &'static str, sweep: F)
    where
        F: Fn() -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Failure>,
    {
        let sweep = move || -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> {
            let swept = sweep();
            Box::pin(async move { swept.await.map_err(Into::into) })
        };
        self.kinds.push((failed, Box::new(sweep)));
    }

    /// Sweeps from now on, until the group stops.
    pub fn start(self, tasks: &Tasks) {
        tasks.spawn("sweeps", move |stop| async move {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                for (failed, sweep) in &self.kinds {
                    match stop.run_until_cancelled(sweep()).await {
                        Some(Ok(())) => {}
                        Some(Err(cause)) => warn!(error = &*cause as &dyn Error, "{failed}"),
                        None => return,
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_fails_keeps_no_other_from_being_swept() {
        let (swept, mut sweeps, tasks) = (Arc::new(Notify::new()), Sweeps::default(), Tasks::new());
        sweeps.add("it could not be swept", || async { Err("no") });
        let notified = Arc::clone(&swept);
        sweeps.add("it could not be swept", move || {
            let notified = Arc::clone(&notified);
            async move {
                notified.notify_one();
                Ok::<(), Failure>(())
            }
        });
        sweeps.start(&tasks);
        swept.notified().await;
        assert_eq!(tasks.shutdown(Duration::from_secs(10)).await, 0);
    }
}
