//! Holds: all model servers by name.
//!
//! A snapshot that is swapped whole on reload; calls under way keep the replica they began with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use batchin_tasks::Tasks;
use futures::{StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    breaker::Trouble,
    config::{FleetError, UpstreamConfig},
    health::{HEALTH_INTERVAL, Health, Probed},
    replica::Replica,
};

/// Health probes at once.
const MAX_PROBES: usize = 16;

type Replicas = HashMap<String, Arc<Replica>>;

/// All upstreams. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Fleet {
    replicas: Arc<ArcSwap<Replicas>>,
    seed: u64,
    tasks: Tasks,
}

impl Fleet {
    /// The configured upstreams, probed from now on by a task of `tasks`. `seed` is any number that differs between
    /// nodes. Must be called within a Tokio runtime.
    pub fn new(configs: Vec<UpstreamConfig>, tasks: &Tasks, seed: u64) -> Result<Self, FleetError> {
        let replicas = build(configs, &Replicas::new(), seed, tasks)?;
        let fleet = Self { replicas: Arc::new(ArcSwap::from_pointee(replicas)), seed, tasks: tasks.clone() };
        let probed = fleet.clone();
        tasks.spawn("upstream_health", |stop| probed.watch(stop));
        Ok(fleet)
    }

    /// Takes over a new configuration, or none of it. Unchanged upstreams keep their connections and what is known of
    /// them; calls under way on changed and removed ones run to their end.
    pub fn reload(&self, configs: Vec<UpstreamConfig>) -> Result<(), FleetError> {
        let replicas = build(configs, &self.replicas.load(), self.seed, &self.tasks)?;
        self.replicas.store(Arc::new(replicas));
        Ok(())
    }

    /// The upstream of this name.
    pub fn replica(&self, name: &str) -> Option<Arc<Replica>> {
        self.replicas.load().get(name).cloned()
    }

    /// All upstreams, by name.
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        let sorted: BTreeMap<_, _> =
            self.replicas.load().iter().map(|(name, one)| (name.clone(), one.clone())).collect();
        sorted.into_values().collect()
    }

    /// Probes every upstream once, now.
    pub async fn probe_all(&self) {
        let probes = self.replicas().into_iter().map(|replica| async move {
            let upstream = replica.name();
            match replica.probe().await {
                // A call has met it, and that was told.
                Some((Health::Ill, Probed::KeyRefused)) if replica.status().trouble == Some(Trouble::KeyRefused) => {}
                Some((Health::Ill, Probed::KeyRefused)) => warn!(upstream, "upstream {upstream} refuses our key"),
                Some((Health::Ill, _)) => warn!(upstream, "upstream {upstream} does not answer"),
                Some((Health::Well, _)) => info!(upstream, "upstream {upstream} answers"),
                Some((Health::Unknown, _)) | None => {}
            }
        });
        stream::iter(probes).buffer_unordered(MAX_PROBES).collect::<()>().await;
    }

    async fn watch(self, stop: CancellationToken) {
        let mut ticks = interval(HEALTH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let rounds = async {
            loop {
                ticks.tick().await;
                self.probe_all().await;
            }
        };
        stop.run_until_cancelled(rounds).await;
    }
}

fn build(configs: Vec<UpstreamConfig>, known: &Replicas, seed: u64, tasks: &Tasks) -> Result<Replicas, FleetError> {
    let mut replicas = Replicas::with_capacity(configs.len());
    for (index, config) in configs.into_iter().enumerate() {
        let name = config.name.clone();
        if replicas.contains_key(&name) {
            return Err(FleetError::Duplicate { upstream: name });
        }
        let replica = match known.get(&name) {
            Some(unchanged) if *unchanged.config() == config => {
                unchanged.forget_absent();
                Arc::clone(unchanged)
            }
            _ => Arc::new(Replica::new(config, seed.wrapping_add(index as u64), tasks.clone())?),
        };
        replicas.insert(name, replica);
    }
    Ok(replicas)
}
