//! Holds: forgetting deliveries that have ended long ago.

use std::time::Duration;

use batchin_store::StoreError;
use batchin_tasks::Sweeps;
use tokio::time::sleep;

use crate::Webhooks;

/// Between two pieces of one sweep, for others to write.
const PIECE_PAUSE: Duration = Duration::from_millis(200);

impl Webhooks {
    /// Has deliveries that have ended forgotten after this time.
    pub fn add_sweep(&self, retention: Duration, sweeps: &mut Sweeps) {
        let webhooks = self.clone();
        sweeps.add("old webhooks could not be swept", move || {
            let webhooks = webhooks.clone();
            async move { webhooks.sweep(retention).await }
        });
    }

    async fn sweep(&self, retention: Duration) -> Result<(), StoreError> {
        let before = self.now().before(retention);
        while self.outbox().sweep_deliveries(before).await? > 0 {
            sleep(PIECE_PAUSE).await;
        }
        Ok(())
    }
}
