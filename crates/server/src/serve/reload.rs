//! Holds: taking over a changed configuration without dropping a request.
//!
//! Models, prices and upstreams change; addresses, databases and folders need a restart, and the log says so.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result};
use batchin_gateway::Gateway;
use batchin_tasks::Tasks;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::listen::Tls;
use crate::{
    config::{Config, Sources},
    wiring,
};

/// Between two looks at whether the file has changed.
const LOOK: Duration = Duration::from_secs(1);

/// Reloads on SIGHUP and when the file has changed.
pub(super) fn watch(sources: Sources, gateway: Gateway, tls: Option<Tls>, tasks: &Tasks) {
    tasks.spawn("config_reload", move |stop| async move {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(cause) => {
                error!(%cause, "SIGHUP cannot be listened for");
                return;
            }
        };
        let mut ticks = tokio::time::interval(LOOK);
        let mut seen = sources.file.as_deref().and_then(stamp);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangup.recv() => {}
                _ = ticks.tick() => {
                    let now = sources.file.as_deref().and_then(stamp);
                    if now == seen {
                        continue;
                    }
                    seen = now;
                }
            }
            match reload(&sources, &gateway, tls.as_ref()).await {
                Ok(()) => info!("the configuration was taken over"),
                Err(cause) => error!("the configuration was not taken over; the old one stays: {cause:#}"),
            }
        }
    });
}

/// What changes when a file is written or replaced.
fn stamp(file: &Path) -> Option<(std::time::SystemTime, u64)> {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

async fn reload(sources: &Sources, gateway: &Gateway, tls: Option<&Tls>) -> Result<()> {
    let config = Config::load(sources)?;
    let upstreams = wiring::upstreams(&config)?;
    let (fingerprint, body) = wiring::price_list(&config);
    let version = gateway.store().publish_prices(&fingerprint, &body, gateway.clock().now()).await.context("prices")?;
    let catalog = wiring::catalog(&config, version)?;
    gateway.fleet().reload(upstreams)?;
    gateway.reload(catalog);
    if let Some(tls) = tls {
        tls.reload()?;
    }
    Ok(())
}
