//! Holds: results that gather, batch by batch, until they are worth an object of a bucket.

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use batchin_domain::{BatchId, IdSource};
use batchin_files::Blobs;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{GROUP_BYTES, Job, Segment, fresh_key};

/// How long the first result of an object waits for others: at some hundred results a second they are hundreds, and
/// nobody waits for a batch who minds half a second.
const GATHER: Duration = Duration::from_millis(400);
/// Objects on their way to the bucket at once; the results of more gather on.
const WRITES_AT_ONCE: usize = 16;

/// The results of one batch that gather.
struct Gathering {
    segment: Segment,
    /// Enough has been waited for others.
    due: Instant,
}

impl Gathering {
    fn is_due(&self, now: Instant) -> bool {
        self.segment.bytes.len() >= GROUP_BYTES || self.due <= now
    }
}

/// Writes what comes until nobody can send more and all is written. After `stop` nothing waits for others.
pub(super) async fn write_all(
    blobs: Blobs,
    ids: Arc<dyn IdSource>,
    mut jobs: mpsc::Receiver<Job>,
    stop: CancellationToken,
) {
    let mut gathering: BTreeMap<BatchId, Gathering> = BTreeMap::new();
    let mut writes = FuturesUnordered::new();
    let mut is_over = false;
    while !(is_over && gathering.is_empty() && writes.is_empty()) {
        let is_stopping = is_over || stop.is_cancelled();
        let due = gathering.values().map(|one| one.due).min().filter(|_| writes.len() < WRITES_AT_ONCE);
        tokio::select! {
            job = jobs.recv(), if !is_over => match job {
                Some((result, done)) => {
                    let due = Instant::now() + if is_stopping { Duration::ZERO } else { GATHER };
                    let fresh = || Gathering { segment: Segment::default(), due };
                    gathering.entry(result.batch).or_insert_with(fresh).segment.add(&result, done);
                }
                None => is_over = true,
            },
            () = until(due) => {}
            () = stop.cancelled(), if !is_stopping => gathering.values_mut().for_each(|one| one.due = Instant::now()),
            _ = writes.next(), if !writes.is_empty() => {}
        }
        let now = Instant::now();
        while writes.len() < WRITES_AT_ONCE {
            let due = gathering.iter().find(|(_, one)| is_over || one.is_due(now));
            let Some(batch) = due.map(|(batch, _)| *batch) else { break };
            let Some(one) = gathering.remove(&batch) else { break };
            let (blobs, key) = (blobs.clone(), fresh_key(batch, &*ids));
            writes.push(async move { one.segment.write(&blobs, key).await });
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
