//! Holds: how many tasks have not ended, as a gauge for each priority.

use std::time::Duration;

use batchin_domain::Priority;
use batchin_store::Claims;
use metrics::gauge;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between two counts: a scraper seldom asks more often.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Counts until it is told to stop. Every node counts the whole queue.
pub(crate) async fn watch(claims: Claims, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(COUNT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        for priority in [Priority::High, Priority::Low, Priority::Fill] {
            match claims.queue_depth(priority).await {
                Ok(depth) => {
                    gauge!("batchin_batch_tasks_waiting", "priority" => priority.class().name()).set(depth as f64);
                }
                Err(cause) => warn!(error = &cause as &dyn std::error::Error, "waiting tasks could not be counted"),
            }
        }
    }
}
