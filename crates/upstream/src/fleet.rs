//! Holds: all model servers by name.
//!
//! A snapshot that is swapped whole on reload; calls under way keep the replica they began with.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use batchin_tasks::Tasks;
use futures::{StreamExt, stream};
use tokio::time::{Instant, MissedTickBehavior, interval};
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

/// The upstreams at one moment.
#[derive(Debug, Default)]
struct Roster {
    configured: Replicas,
    /// Those that have left the configuration, and when: requests that go by the models of before still ask for them.
    leaving: HashMap<String, (Arc<Replica>, Instant)>,
}

/// All upstreams. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Fleet {
    roster: Arc<ArcSwap<Roster>>,
    /// Names of those that get nothing new. std mutex: held while the roster is swapped or its replicas are told, never
    /// across an await.
    drained: Arc<Mutex<BTreeSet<String>>>,
    seed: u64,
    tasks: Tasks,
}

impl Fleet {
    /// The configured upstreams, probed from now on by a task of `tasks`. `seed` is any number that differs between
    /// nodes. Must be called within a Tokio runtime.
    pub fn new(configs: Vec<UpstreamConfig>, tasks: &Tasks, seed: u64) -> Result<Self, FleetError> {
        let configured = build(configs, &Roster::default(), seed, tasks)?;
        let roster = Roster { configured, leaving: HashMap::new() };
        let roster = Arc::new(ArcSwap::from_pointee(roster));
        let fleet = Self { roster, drained: Arc::default(), seed, tasks: tasks.clone() };
        let probed = fleet.clone();
        tasks.spawn("upstream_health", |stop| probed.watch(stop));
        Ok(fleet)
    }

    /// Takes over a new configuration, or none of it. Unchanged upstreams keep their connections and what is known of
    /// them; calls under way on changed and removed ones run to their end. Removed ones stay [`known`](Self::known) until
    /// they are [let go](Self::let_go).
    pub fn reload(&self, configs: Vec<UpstreamConfig>) -> Result<(), FleetError> {
        let drained = self.drained();
        let before = self.roster.load();
        let configured = build(configs, &before, self.seed, &self.tasks)?;
        for (name, replica) in &configured {
            replica.set_drained(drained.contains(name));
        }
        let now = Instant::now();
        let removed = before.configured.iter().map(|(name, one)| (name.clone(), (one.clone(), now)));
        let mut leaving: HashMap<_, _> = before.leaving.clone().into_iter().chain(removed).collect();
        leaving.retain(|name, _| !configured.contains_key(name));
        self.roster.store(Arc::new(Roster { configured, leaving }));
        Ok(())
    }

    /// Forgets those that left the configuration at least so long ago, as far as they may be. Whether there was one.
    pub fn let_go(&self, after: Duration, may: impl Fn(&str) -> bool) -> bool {
        let _swapping = self.drained();
        let before = self.roster.load();
        let mut leaving = before.leaving.clone();
        leaving.retain(|name, (_, since)| since.elapsed() < after || !may(name));
        let any = leaving.len() < before.leaving.len();
        if any {
            self.roster.store(Arc::new(Roster { configured: before.configured.clone(), leaving }));
        }
        any
    }

    /// These and no others get nothing new from now on, whatever is reloaded. Returns which have changed, and whether
    /// they are drained now.
    pub fn set_drained(&self, names: BTreeSet<String>) -> Vec<(String, bool)> {
        let mut drained = self.drained();
        let roster = self.roster.load();
        let of = |(name, replica): (&String, &Arc<Replica>)| {
            let is_drained = names.contains(name);
            (replica.set_drained(is_drained) != is_drained).then(|| (name.clone(), is_drained))
        };
        let changed = roster.configured.iter().filter_map(of).collect();
        *drained = names;
        changed
    }

    /// The upstream of this name.
    pub fn replica(&self, name: &str) -> Option<Arc<Replica>> {
        self.roster.load().configured.get(name).cloned()
    }

    /// The same, and one that has left the configuration and was not let go yet.
    pub fn known(&self, name: &str) -> Option<Arc<Replica>> {
        let roster = self.roster.load();
        roster.configured.get(name).or_else(|| roster.leaving.get(name).map(|(replica, _)| replica)).cloned()
    }

    /// All upstreams, by name.
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        let sorted: BTreeMap<_, _> = self.roster.load().configured.clone().into_iter().collect();
        sorted.into_values().collect()
    }

    /// Those that have left the configuration and were not let go yet, by name.
    pub fn leaving(&self) -> Vec<Arc<Replica>> {
        let sorted: BTreeMap<_, _> = self.roster.load().leaving.clone().into_iter().collect();
        sorted.into_values().map(|(replica, _)| replica).collect()
    }

    fn drained(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner)
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

fn build(configs: Vec<UpstreamConfig>, known: &Roster, seed: u64, tasks: &Tasks) -> Result<Replicas, FleetError> {
    let mut replicas = Replicas::with_capacity(configs.len());
    for (index, config) in configs.into_iter().enumerate() {
        let name = config.name.clone();
        if replicas.contains_key(&name) {
            return Err(FleetError::Duplicate { upstream: name });
        }
        let before = known.configured.get(&name).or_else(|| known.leaving.get(&name).map(|(replica, _)| replica));
        let replica = match before {
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
