//! Holds: what runs beside requests: dealing with reports, watching chains, forgetting.

use batchin_tasks::{Sweeps, Tasks};

use crate::{
    Billing,
    intake::sweep,
    watcher::{LookError, Looked, Watcher, holder_of},
    worker::{Pace, Worker},
};

impl Billing {
    /// Deals with what comes in, from this node. Any number may.
    pub fn start(&self, pace: Pace, tasks: &Tasks) {
        if self.cards().is_some() {
            Worker::start(self.clone(), pace, tasks);
        }
        let holder = holder_of(self.ids().uuid());
        for place in 0..self.usdc().map_or(0, |usdc| usdc.chains.len()) {
            Watcher::new(self.clone(), place).start(holder, tasks);
        }
    }

    /// Has reports forgotten that were dealt with long ago.
    pub fn add_sweep(&self, sweeps: &mut Sweeps) {
        if self.cards().is_none() {
            return;
        }
        let billing = self.clone();
        sweeps.add("old reports of Stripe could not be swept", move || {
            let billing = billing.clone();
            async move { sweep(billing.inbox(), billing.now()).await }
        });
    }

    /// Reads what is new on a chain by its name, as the watcher does, and credits what is final.
    pub async fn look_at_chain(&self, name: &str) -> Result<Looked, LookError> {
        let place =
            self.usdc().and_then(|usdc| usdc.chains.iter().position(|watched| watched.options.chain.name == name));
        match place {
            Some(place) => Watcher::new(self.clone(), place).look().await,
            None => Ok(Looked::default()),
        }
    }
}
