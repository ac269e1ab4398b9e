//! Holds: the worker's claims: which tasks it takes, whether it still has them, and giving them back.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use batchin_domain::{BatchId, Priority, Timestamp};
use batchin_gateway::Catalog;
use batchin_scheduler::{Waiting, shares};
use batchin_store::{Backlog, Claim, ClaimedTask, FencedError, NodeIdentity, Place, Probe, Requeue, Share};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Worker, queues::Queues};

/// Between two looks at which claims still stand: how long a cancelled task may go on.
const CLAIM_LOOK: Duration = Duration::from_millis(300);
/// Batches looked at for tasks in one go.
const BACKLOG: u32 = 512;
/// Batches that wait for something and are looked at in one go.
const PROBES: u32 = 512;

/// What could be claimed of a rank, as a look at the durable queue found it.
pub(super) struct Seen {
    open: Vec<Open>,
    /// Models that were full and not looked for.
    without: Vec<String>,
    /// There may be more than was looked at.
    is_cut: bool,
}

struct Open {
    of: Backlog,
    /// The last task that was claimed of it since.
    after: Option<Place>,
}

impl Seen {
    /// Whether there may be something that is wanted and was not looked at: of a model that was full, or beyond what was
    /// looked at once nothing of that is wanted.
    fn is_spent(&self, is_wanted: impl Fn(&str) -> bool) -> bool {
        let is_known = || self.open.iter().any(|open| is_wanted(&open.of.model));
        self.without.iter().any(|model| is_wanted(model)) || (self.is_cut && !is_known())
    }

    /// Notes what was claimed of these shares: where fewer came than were asked for, there is nothing left.
    fn claimed(&mut self, shares: &[Share], tasks: &[ClaimedTask]) {
        let mut came: HashMap<(BatchId, &str), (u32, Place)> = HashMap::new();
        for task in tasks {
            let (number, last) = came.entry((task.batch, &task.model)).or_insert((0, task.place));
            *number += 1;
            *last = task.place.max(*last);
        }
        let asked: HashMap<_, _> = shares.iter().map(|share| ((share.batch, &*share.model), share.tasks)).collect();
        self.open.retain_mut(|Open { of, after }| {
            let name = (of.batch, &*of.model);
            let Some(asked) = asked.get(&name) else { return true };
            let Some((number, last)) = came.get(&name) else { return false };
            *after = Some(*last);
            number >= asked
        });
    }
}

/// The shares of one look.
struct Look<'a> {
    queues: &'a Queues,
    /// Tasks of each model, by id, in `take`.
    taken: HashMap<String, u32>,
    take: Vec<Share>,
}

impl Look<'_> {
    fn room(&self, id: &str) -> u32 {
        self.queues.room(id).saturating_sub(self.taken.get(id).copied().unwrap_or(0))
    }

    fn take(&mut self, id: &str, share: Share) {
        *self.taken.entry(id.to_owned()).or_default() += share.tasks;
        self.take.push(share);
    }
}

impl Worker {
    /// Claims what there is room for. A `look` looks for what is new and at what waits, too; until the next one, claims go on
    /// with what it found. The models of which tasks were found.
    pub(super) async fn claim(&self, queues: &mut Queues, node: NodeIdentity, look: bool) -> HashSet<String> {
        let mut found = HashSet::new();
        if look {
            let mut state = self.lock();
            state.seen.clear();
            state.waiting.clear();
        }
        for rank in [None, Some(Priority::High), Some(Priority::Low), Some(Priority::Fill)] {
            let claimed = match rank {
                Some(rank) => self.claim_rank(rank, queues, node).await,
                None if look => self.claim_probes(queues, node).await,
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
        let known = {
            let mut state = self.lock();
            let mut known = state.seen.remove(&rank);
            if let Some(seen) = &mut known {
                seen.open.retain(|open| !state.waiting.contains(&open.of.batch));
            }
            known
        };
        let is_wanted = |model: &str| catalog.find(model).is_some_and(|model| queues.is_hungry(&model.id));
        let known = known.filter(|seen| !seen.is_spent(is_wanted));
        let mut seen = match known {
            Some(seen) => seen,
            None => self.look(rank, full_models(&catalog, queues), now).await?,
        };
        let mut look = Look { queues, taken: HashMap::new(), take: Vec::new() };
        let mut by_model: BTreeMap<&str, Vec<Waiting>> = BTreeMap::new();
        let mut after: HashMap<(BatchId, &str), Option<Place>> = HashMap::new();
        for Open { of: Backlog { batch, account, model }, after: place } in &seen.open {
            by_model.entry(model).or_default().push(Waiting { batch: *batch, account: *account });
            after.insert((*batch, model), *place);
        }
        for (model, mut waiting) in by_model {
            let id = id_of(&catalog, model);
            // Whose turn it is stays as it was.
            if look.room(id) == 0 {
                continue;
            }
            let turn = (rank, model.to_owned());
            if let Some(last) = self.lock().turns.get(&turn) {
                let next = waiting.partition_point(|one| one.account <= *last);
                waiting.rotate_left(next);
            }
            let shares = shares(&waiting, look.room(id), false);
            for (batch, tasks) in shares.take {
                let after = after.get(&(batch, model)).copied().flatten();
                look.take(id, Share { batch, model: model.to_owned(), tasks, after });
            }
            match shares.last {
                Some(last) => self.lock().turns.insert(turn, last),
                None => self.lock().turns.remove(&turn),
            };
        }
        let take = look.take;
        let claimed = if take.is_empty() { Vec::new() } else { self.claims.claim(node, &take, now).await? };
        seen.claimed(&take, &claimed);
        self.lock().seen.insert(rank, seen);
        Ok(claimed)
    }

    /// Looks at what could be claimed of a rank, but not for these models.
    async fn look(&self, rank: Priority, without: Vec<String>, now: Timestamp) -> Result<Seen, FencedError> {
        let after = self.lock().looked.get(&rank).copied();
        let mut found = self.claims.backlog(rank, &without, (after, BACKLOG), now).await.map_err(FencedError::Store)?;
        if found.is_empty() && after.is_some() {
            found = self.claims.backlog(rank, &without, (None, BACKLOG), now).await.map_err(FencedError::Store)?;
        }
        let is_cut = found.len() >= usize::try_from(BACKLOG).unwrap_or(usize::MAX);
        match found.last().filter(|_| is_cut) {
            Some(last) => self.lock().looked.insert(rank, last.account),
            None => self.lock().looked.remove(&rank),
        };
        Ok(Seen { open: found.into_iter().map(|of| Open { of, after: None }).collect(), without, is_cut })
    }

    /// Claims one task of each batch that waits for something and is due, but of an account only one for each reason.
    async fn claim_probes(&self, queues: &Queues, node: NodeIdentity) -> Result<Vec<ClaimedTask>, FencedError> {
        let (now, catalog) = (self.gateway.clock().now(), self.gateway.catalog());
        let mut look = Look { queues, taken: HashMap::new(), take: Vec::new() };
        let without = full_models(&catalog, queues);
        for Probe { of, .. } in self.claims.probes(&without, PROBES, now).await.map_err(FencedError::Store)? {
            let id = id_of(&catalog, &of.model).to_owned();
            if look.room(&id) > 0 {
                look.take(&id, Share { batch: of.batch, model: of.model, tasks: 1, after: None });
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

/// The id of the model of this name. One that is served no more has a queue of its own, which is emptied.
fn id_of<'a>(catalog: &'a Catalog, name: &'a str) -> &'a str {
    catalog.find(name).map_or(name, |model| &model.id)
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

#[cfg(test)]
mod tests {
    use batchin_domain::AccountId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_full_is_looked_for_and_what_was_seen_is_claimed_first() {
        let open = |model: &str| Open {
            of: Backlog {
                batch: BatchId::new(Uuid::from_u128(1)),
                account: AccountId::new(Uuid::from_u128(2)),
                model: model.to_owned(),
            },
            after: None,
        };
        let seen = |known: &[&str], without: &[&str], is_cut| Seen {
            open: known.iter().copied().map(open).collect(),
            without: without.iter().copied().map(str::to_owned).collect(),
            is_cut,
        };
        let wants_a = |model: &str| model == "a";
        assert!(!seen(&["a"], &[], true).is_spent(wants_a), "there is more, once that is claimed");
        assert!(seen(&["b"], &[], true).is_spent(wants_a), "it may be beyond what was seen");
        assert!(!seen(&["b"], &[], false).is_spent(wants_a), "there was none");
        assert!(seen(&["b"], &["a"], false).is_spent(wants_a), "it was full, and is not any more");
        assert!(!seen(&["a"], &["b"], false).is_spent(wants_a), "what was full is full");
        assert!(seen(&["a"], &["b"], false).is_spent(|_| true));
    }
}
