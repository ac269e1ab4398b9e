//! Holds: the worker's claims: which tasks it takes, whether it still has them, and giving them back.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use batchin_domain::Priority;
use batchin_gateway::Catalog;
use batchin_scheduler::{Waiting, shares};
use batchin_store::{Backlog, Claim, ClaimedTask, FencedError, NodeIdentity, Probe, Requeue, Share};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Worker, queues::Queues};

/// Between two looks at which claims still stand: how long a cancelled task may go on.
const CLAIM_LOOK: Duration = Duration::from_millis(300);
/// Batches looked at for tasks in one go.
const BACKLOG: u32 = 512;
/// Batches that wait for something and are looked at in one go.
const PROBES: u32 = 512;

/// The shares of one look.
struct Look<'a> {
    catalog: &'a Catalog,
    queues: &'a Queues,
    /// Tasks of each model, by id, in `take`.
    taken: HashMap<String, u32>,
    take: Vec<Share>,
}

impl Look<'_> {
    fn id_of(&self, name: &str) -> String {
        // A name that is served no more has a queue of its own, which is emptied.
        self.catalog.find(name).map_or_else(|| name.to_owned(), |model| model.id.clone())
    }

    fn room(&self, id: &str) -> u32 {
        self.queues.room(id).saturating_sub(self.taken.get(id).copied().unwrap_or(0))
    }

    fn take(&mut self, id: &str, share: Share) {
        *self.taken.entry(id.to_owned()).or_default() += share.tasks;
        self.take.push(share);
    }
}

impl Worker {
    /// Claims what there is room for; `probing` looks at what waits, too. The models of which tasks were found.
    pub(super) async fn claim(&self, queues: &mut Queues, node: NodeIdentity, probing: bool) -> HashSet<String> {
        let mut found = HashSet::new();
        for rank in [None, Some(Priority::High), Some(Priority::Low), Some(Priority::Fill)] {
            let claimed = match rank {
                Some(rank) => self.claim_rank(rank, queues, node).await,
                None if probing => self.claim_probes(queues, node).await,
                None => continue,
            };
            match claimed {
                Ok(tasks) => {
                    if !tasks.is_empty() {
                        batchin_faults::point("task.claimed");
                    }
                    found.extend(self.make_ready(queues, tasks).await);
                }
                Err(FencedError::Fenced) => return HashSet::new(),
                Err(FencedError::Store(cause)) => {
                    warn!(error = &cause as &dyn std::error::Error, "tasks could not be claimed");
                    return HashSet::new();
                }
            }
        }
        found
    }

    /// Claims tasks of a rank, those of each model shared among the accounts that have some.
    async fn claim_rank(
        &self,
        rank: Priority,
        queues: &Queues,
        node: NodeIdentity,
    ) -> Result<Vec<ClaimedTask>, FencedError> {
        let (now, catalog) = (self.gateway.clock().now(), self.gateway.catalog());
        let without = full_models(&catalog, queues);
        let after = self.lock().looked.get(&rank).copied();
        let mut backlog =
            self.claims.backlog(rank, &without, (after, BACKLOG), now).await.map_err(FencedError::Store)?;
        if backlog.is_empty() && after.is_some() {
            backlog = self.claims.backlog(rank, &without, (None, BACKLOG), now).await.map_err(FencedError::Store)?;
        }
        let cut = backlog.len() >= usize::try_from(BACKLOG).unwrap_or(usize::MAX);
        match backlog.last().filter(|_| cut) {
            Some(last) => self.lock().looked.insert(rank, last.account),
            None => self.lock().looked.remove(&rank),
        };
        let mut look = Look { catalog: &catalog, queues, taken: HashMap::new(), take: Vec::new() };
        let mut by_model: BTreeMap<String, Vec<Waiting>> = BTreeMap::new();
        for Backlog { batch, account, model } in backlog {
            by_model.entry(model).or_default().push(Waiting { batch, account });
        }
        for (model, mut waiting) in by_model {
            let id = look.id_of(&model);
            let turn = (rank, model);
            if let Some(last) = self.lock().turns.get(&turn) {
                let next = waiting.partition_point(|one| one.account <= *last);
                waiting.rotate_left(next);
            }
            let shares = shares(&waiting, look.room(&id), false);
            for (batch, tasks) in shares.take {
                look.take(&id, Share { batch, model: turn.1.clone(), tasks });
            }
            match shares.last {
                Some(last) => self.lock().turns.insert(turn, last),
                None => self.lock().turns.remove(&turn),
            };
        }
        if look.take.is_empty() {
            return Ok(Vec::new());
        }
        self.claims.claim(node, &look.take, now).await
    }

    /// Claims one task of each batch that waits for something and is due, but of an account only one for each reason.
    async fn claim_probes(&self, queues: &Queues, node: NodeIdentity) -> Result<Vec<ClaimedTask>, FencedError> {
        let (now, catalog) = (self.gateway.clock().now(), self.gateway.catalog());
        let mut look = Look { catalog: &catalog, queues, taken: HashMap::new(), take: Vec::new() };
        let without = full_models(&catalog, queues);
        for Probe { of, .. } in self.claims.probes(&without, PROBES, now).await.map_err(FencedError::Store)? {
            let id = look.id_of(&of.model);
            if look.room(&id) > 0 {
                look.take(&id, Share { batch: of.batch, model: of.model, tasks: 1 });
            }
        }
        if look.take.is_empty() {
            return Ok(Vec::new());
        }
        self.claims.claim(node, &look.take, now).await
    }

    /// Gives a claim back. Many that end together, as those of a server that fails, are one transaction.
    pub(super) async fn requeue(&self, task: &ClaimedTask, pause: Duration, counts: bool) {
        let not_before = self.gateway.clock().now().after(pause);
        {
            let mut state = self.lock();
            state.claims.remove(&task.claim);
            state.returned.push(Requeue { claim: task.claim, not_before, counts });
        }
        batchin_faults::point("task.requeueing");
        let _turn = self.returning.lock().await;
        let back = std::mem::take(&mut self.lock().returned);
        // Whoever had the turn before may have written it.
        if !back.is_empty() {
            self.write_back(&back).await;
        }
        batchin_faults::point("task.requeued");
    }

    pub(super) async fn hand_back(&self, claims: Vec<Claim>) {
        if claims.is_empty() {
            return;
        }
        let not_before = self.gateway.clock().now();
        let back: Vec<_> = claims.into_iter().map(|claim| Requeue { claim, not_before, counts: false }).collect();
        self.write_back(&back).await;
        batchin_faults::point("claims.returned");
    }

    async fn write_back(&self, back: &[Requeue]) {
        if let Err(cause) = self.claims.requeue(back).await {
            // The claims end with this node's lease at the latest.
            warn!(error = &cause as &dyn std::error::Error, tasks = back.len(), "tasks could not be given back");
        }
    }

    /// Stops what this node runs without a claim any more, and hands back claims that it never heard of.
    pub(super) async fn watch(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(CLAIM_LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let before: Vec<Claim> = self.lock().claims.keys().copied().collect();
            match self.claims.claims_of(self.gateway.epoch().identity).await {
                Ok(claims) => {
                    let strays = self.compare(&before, &claims);
                    self.hand_back(strays).await;
                }
                Err(cause) => warn!(error = &cause as &dyn std::error::Error, "claims could not be read"),
            }
        }
    }

    /// Stops lost runs. Returns claims that were unknown here twice in a row: the answer to their claiming got lost.
    fn compare(&self, before: &[Claim], claims: &HashSet<Claim>) -> Vec<Claim> {
        let mut state = self.lock();
        let lost = before.iter().filter(|claim| !claims.contains(claim));
        let lost: Vec<Claim> = lost.filter(|claim| state.claims.contains_key(claim)).copied().collect();
        for claim in lost {
            if let Some(run) = state.claims.get(&claim) {
                run.cancel();
            }
            state.lost.insert(claim);
        }
        if !state.lost.is_empty() {
            self.freed.notify_one();
        }
        let unknown: HashSet<Claim> =
            claims.iter().filter(|claim| !state.claims.contains_key(claim)).copied().collect();
        let strays = unknown.intersection(&state.strays).copied().collect();
        state.strays = unknown;
        strays
    }
}

/// What tasks may call the models of which as many wait as are to.
fn full_models(catalog: &Catalog, queues: &Queues) -> Vec<String> {
    let mut names = Vec::new();
    for id in queues.models().filter(|id| queues.is_full(id)) {
        names.push(id.clone());
        names.extend(catalog.find(id).into_iter().flat_map(|model| model.aliases.iter().cloned()));
    }
    names
}
