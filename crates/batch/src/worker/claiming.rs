//! Holds: which tasks the worker claims, and reading what they ask for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use batchin_domain::{Priority, RequestId};
use batchin_files::BlobError;
use batchin_gateway::{Catalog, Inbound, endpoint_of};
use batchin_scheduler::{Entry, Waiting, shares};
use batchin_store::{Backlog, ClaimedTask, FencedError, NodeIdentity, Probe, Share};
use bytes::Bytes;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    Worker,
    queues::{Queues, Ready},
};
use crate::outcome::Came;

/// Batches looked at for tasks in one go.
const BACKLOG: u32 = 512;
/// Batches that wait for something and are looked at in one go.
const PROBES: u32 = 512;
/// A rough output when a body sets no limit: only the order between accounts depends on it.
const ASSUMED_OUTPUT: u32 = 256;

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
        let (store, now, catalog) = (self.gateway.store(), self.gateway.clock().now(), self.gateway.catalog());
        let without = full_models(&catalog, queues);
        let after = self.lock().looked.get(&rank).copied();
        let mut backlog = store.backlog(rank, &without, (after, BACKLOG), now).await.map_err(FencedError::Store)?;
        if backlog.is_empty() && after.is_some() {
            backlog = store.backlog(rank, &without, (None, BACKLOG), now).await.map_err(FencedError::Store)?;
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
        store.claim(node, &look.take, now).await
    }

    /// Claims one task of each batch that waits for something and is due, but of an account only one for each reason.
    async fn claim_probes(&self, queues: &Queues, node: NodeIdentity) -> Result<Vec<ClaimedTask>, FencedError> {
        let (store, now, catalog) = (self.gateway.store(), self.gateway.clock().now(), self.gateway.catalog());
        let mut look = Look { catalog: &catalog, queues, taken: HashMap::new(), take: Vec::new() };
        let without = full_models(&catalog, queues);
        for Probe { of, .. } in store.probes(&without, PROBES, now).await.map_err(FencedError::Store)? {
            let id = look.id_of(&of.model);
            if look.room(&id) > 0 {
                look.take(&id, Share { batch: of.batch, model: of.model, tasks: 1 });
            }
        }
        if look.take.is_empty() {
            return Ok(Vec::new());
        }
        store.claim(node, &look.take, now).await
    }

    /// Queues claimed tasks. Returns the ids of their models.
    async fn make_ready(&self, queues: &mut Queues, tasks: Vec<ClaimedTask>) -> HashSet<String> {
        let mut found = HashSet::new();
        let mut over = Vec::new();
        self.lock().claims.extend(tasks.iter().map(|task| (task.claim, CancellationToken::new())));
        for (task, body) in self.with_bodies(tasks).await {
            let body = match body {
                Ok(body) => body,
                Err(cause) => {
                    error!(error = &*cause as &dyn std::error::Error, "a task's body could not be read");
                    over.push((task, Came::NoBody));
                    continue;
                }
            };
            let Some(endpoint) = endpoint_of(task.endpoint) else {
                error!(call = task.endpoint, "a task asks for a kind of call that is not known here");
                over.push((task, Came::UnknownCall));
                continue;
            };
            let inbound = Inbound {
                endpoint,
                body,
                request: RequestId::new(self.gateway.ids().uuid()),
                class: task.priority.class(),
                task: Some((task.batch, task.claim.task)),
                idempotency: None,
            };
            let checked = match self.gateway.check(&inbound) {
                Ok(checked) => checked,
                Err(cause) => {
                    over.push((task, Came::Failed(cause.into())));
                    continue;
                }
            };
            let prompt_bound = checked.prompt_bound;
            let cost = batchin_scheduler::cost_units(u32::try_from(prompt_bound).unwrap_or(u32::MAX), ASSUMED_OUTPUT);
            // A promoted task runs with those of its rank, at its own price.
            let entry = Entry { account: task.account, weight: 1, priority: task.rank, cost, latest_start: None };
            let model = checked.model.id.clone();
            found.insert(model.clone());
            if let Some(left) = queues.push(entry, Ready { task, inbound, prompt_bound, model }) {
                over.push((left.task, Came::NoPlace));
            }
        }
        // Together: their ends are a few transactions then, and nothing else starts meanwhile.
        join_all(over.into_iter().map(|(task, came)| async move { self.conclude(&task, came).await })).await;
        found
    }

    /// Reads the bodies of tasks, those of one file together.
    async fn with_bodies(&self, tasks: Vec<ClaimedTask>) -> Vec<(ClaimedTask, Result<Bytes, Arc<BlobError>>)> {
        let mut all = Vec::with_capacity(tasks.len());
        let mut rest = tasks.into_iter().peekable();
        while let Some(first) = rest.next() {
            let mut these = vec![first];
            while let Some(next) = rest.next_if(|next| these[0].batch == next.batch) {
                these.push(next);
            }
            let parts: Vec<_> =
                these.iter().map(|task| task.body.offset..task.body.offset.saturating_add(task.body.len)).collect();
            match self.blobs.read_parts(&these[0].body.blob, &parts).await {
                Ok(bodies) => all.extend(these.into_iter().zip(bodies.into_iter().map(Ok))),
                Err(cause) => {
                    let cause = Arc::new(cause);
                    all.extend(these.into_iter().map(|task| (task, Err(Arc::clone(&cause)))));
                }
            }
        }
        all
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
