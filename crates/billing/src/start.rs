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

    /// Whoever watches a chain by its name; none where there is no such chain.
    pub fn watcher(&self, name: &str) -> Option<Watcher> {
        let chains = &self.usdc()?.chains;
        let place = chains.iter().position(|watched| watched.options.chain.name == name)?;
        Some(Watcher::new(self.clone(), place))
    }

    /// Reads what is new on a chain by its name, as a watcher does that has just begun, and credits what is final.
    pub async fn look_at_chain(&self, name: &str) -> Result<Looked, LookError> {
        match self.watcher(name) {
            Some(mut watcher) => watcher.look().await,
            None => Ok(Looked::default()),
        }
    }
}
