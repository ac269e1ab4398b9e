//! Holds: taking model servers out and back: which of them get nothing new, and what is still under way there.
//!
//! That a server is drained stands in the database. Each node looks for it beside requests, obeys, and notes there how many
//! calls it has still under way, so that any node can say when a server is idle.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use batchin_domain::AccountId;
use batchin_store::{Drain, StoreError};
use batchin_upstream::{Replica, ReplicaStatus};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::Gateway;

/// Between two looks at what is drained.
const LOOK: Duration = Duration::from_secs(1);

/// For so long a server that has left the configuration is still asked by requests that were admitted before: longer than
/// any of them waits for its money.
const LET_GO_AFTER: Duration = Duration::from_secs(30);

/// A model server as an operator sees it.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// How it stands on this node.
    pub status: ReplicaStatus,
    /// The models that name it.
    pub models: Vec<String>,
    /// Calls that this node has under way there, those that wait for a film among them.
    pub outstanding: u64,
    /// Films that it makes, for all nodes.
    pub films: u64,
    /// Whether it gets nothing new.
    pub drain: Option<Drain>,
    /// Whether it has left the configuration, and is still there for what is under way.
    pub is_leaving: bool,
}

impl Upstream {
    /// Whether it gets nothing new from any node, and nothing is under way there.
    pub fn is_idle(&self) -> bool {
        let elsewhere = self.drain.as_ref().and_then(|drain| drain.elsewhere);
        (self.outstanding, self.films, elsewhere) == (0, 0, Some(0))
    }
}

/// Why a model server was not drained, or resumed.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The configuration has none of this name.
    #[error("no model server of this name is configured")]
    Unknown,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Gateway {
    /// All model servers, by name.
    pub async fn upstreams(&self) -> Result<Vec<Upstream>, StoreError> {
        let drains = self.drains().drains(self.epoch().identity.id).await?;
        let mut drains: BTreeMap<String, Drain> = drains.into_iter().map(|one| (one.upstream.clone(), one)).collect();
        let films: BTreeMap<String, u64> = self.drains().films_made().await?.into_iter().collect();
        let catalog = self.catalog();
        let mut view = |replica: &Replica, is_leaving| {
            let name = replica.name();
            let names_it = |upstreams: &[String]| upstreams.iter().any(|upstream| upstream == name);
            let models = catalog.models().iter().filter(|model| names_it(&model.upstreams));
            Upstream {
                status: replica.status(),
                models: models.map(|model| model.id.clone()).collect(),
                outstanding: self.dispatcher().outstanding(name),
                films: films.get(name).copied().unwrap_or_default(),
                drain: drains.remove(name),
                is_leaving,
            }
        };
        let mut all: Vec<Upstream> = self.fleet().replicas().iter().map(|replica| view(replica, false)).collect();
        all.extend(self.fleet().leaving().iter().map(|replica| view(replica, true)));
        all.sort_by(|one, other| one.status.name.cmp(&other.status.name));
        Ok(all)
    }

    /// Has a server get nothing new from now on, from this node at once and from the others within two looks. What is under
    /// way there goes on.
    pub async fn drain(&self, upstream: &str, by: Option<AccountId>) -> Result<Upstream, DrainError> {
        self.fleet().replica(upstream).ok_or(DrainError::Unknown)?;
        self.drains().drain(upstream, by, self.clock().now()).await?;
        self.look_at_drains().await?;
        self.upstream(upstream).await
    }

    /// Has it get calls again.
    pub async fn resume(&self, upstream: &str) -> Result<Upstream, DrainError> {
        self.fleet().replica(upstream).ok_or(DrainError::Unknown)?;
        self.drains().resume(upstream).await?;
        self.look_at_drains().await?;
        self.upstream(upstream).await
    }

    /// Obeys what is drained now, and from then on looks for changes. To be awaited before the first request is taken: a
    /// restart undoes no drain.
    pub async fn follow_drains(&self) -> Result<(), StoreError> {
        self.look_at_drains().await?;
        let gateway = self.clone();
        self.tasks().spawn("upstream_drains", move |stop| async move {
            let mut ticks = interval(LOOK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut is_failing = false;
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                gateway.let_upstreams_go();
                let looked = gateway.look_at_drains().await;
                if let (Err(cause), false) = (&looked, is_failing) {
                    let error = cause as &dyn std::error::Error;
                    warn!(error, "it cannot be looked up which model servers are drained; what is known stays");
                }
                is_failing = looked.is_err();
            }
        });
        Ok(())
    }

    async fn upstream(&self, name: &str) -> Result<Upstream, DrainError> {
        let all = self.upstreams().await?;
        all.into_iter().find(|one| one.status.name == name && !one.is_leaving).ok_or(DrainError::Unknown)
    }

    async fn look_at_drains(&self) -> Result<(), StoreError> {
        let look = self.looks().begin();
        let node = self.epoch().identity.id;
        let drains = self.drains().drains(node).await?;
        let names: BTreeSet<String> = drains.iter().map(|drain| drain.upstream.clone()).collect();
        let Some(changed) = self.looks().apply(look, || self.fleet().set_drained(names)) else { return Ok(()) };
        for (upstream, is_drained) in changed {
            match is_drained {
                true => info!(upstream, "upstream {upstream} is drained: it gets no new calls"),
                false => info!(upstream, "upstream {upstream} gets calls again"),
            }
        }
        for drain in &drains {
            // Nothing new began since, so that it only falls.
            let outstanding = self.dispatcher().outstanding(&drain.upstream);
            if drain.noted != Some(outstanding) {
                self.drains().note_outstanding(node, drain, outstanding).await?;
            }
        }
        Ok(())
    }

    /// Forgets servers that have left the configuration once nothing is under way there.
    fn let_upstreams_go(&self) {
        if self.fleet().let_go(LET_GO_AFTER, |name| self.dispatcher().outstanding(name) == 0) {
            self.dispatcher().set_replicas(self.fleet());
        }
    }
}
