//! Holds: webhooks in the running server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use batchin_config::Config;
use batchin_gateway::Gateway;
use batchin_store::Store;
use batchin_tasks::{Sweeps, Tasks};
use batchin_webhooks::{Deliverer, DelivererParts, Mailer, MasterKey, Sender, SystemLookup, Webhooks};

use crate::world::World;

/// Opens the accounts' secrets.
pub(super) async fn open(key: &MasterKey, store: &Store) -> Result<Webhooks> {
    Webhooks::open(store.outbox(), key, Arc::new(World), Arc::new(World)).await.context("webhook secrets")
}

/// Starts to deliver, and to forget what was, if this node can sign.
pub(super) fn start(
    config: &Config,
    webhooks: &Webhooks,
    gateway: &Gateway,
    (tasks, sweeps): (&Tasks, &mut Sweeps),
) -> Result<()> {
    if !webhooks.can_sign() {
        return Ok(());
    }
    let sender = Sender::new(config.webhooks.targets.clone(), Arc::new(SystemLookup))?;
    let mailer = config.smtp.clone().map(Mailer::new).transpose()?;
    let gateway = gateway.clone();
    let identity = move || {
        let epoch = gateway.epoch();
        epoch.holds().then_some(epoch.identity)
    };
    webhooks.add_sweep(config.webhooks.retention, sweeps);
    let webhooks = webhooks.clone();
    Deliverer::start(DelivererParts { webhooks, sender, mailer, identity: Arc::new(identity) }, tasks);
    Ok(())
}
