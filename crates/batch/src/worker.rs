//! Holds: the worker: what it has of the durable queue, and its loop: claim, start what the gates let through, wait.

mod claims;
mod execute;
mod lateness;
mod queues;
mod ready;
mod room;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batchin_domain::{AccountId, BatchId, KeyId, Priority};
use batchin_files::{Blobs, Files};
use batchin_gateway::{AdmitError, Caller, Gateway};
use batchin_store::{BatchRows, Chores, Claim, Claims, Endings, Keys, Requeue};
use batchin_tasks::Tasks;
use futures::future::join_all;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Batches, depth,
    outcome::Came,
    results::ResultWriter,
    steward::{Steward, StewardParts},
};
use claims::Seen;
use lateness::Lateness;
use queues::{Queues, Ready};

/// Between two looks at the durable queue.
const POLL: Duration = Duration::from_millis(100);
/// Claimed tasks of each model kept ready beyond those that run, so that a freed slot is filled without asking the
/// database: as many again as may run, and at least these.
const LEAST_READY: usize = 64;
/// Accounts remembered whose batches wait for money.
const MOST_UNPAID: usize = 16_384;

/// The worker's bounds.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// Tasks that run on this node, whatever the upstreams bear. Those whose answers are becoming durable are not among
    /// them.
    pub concurrency: usize,
    /// Tries of a task that fails for reasons of the upstream.
    pub max_attempts: u32,
    /// How long what came of a batch is kept after its end.
    pub retention: Duration,
}

/// What a worker, and the steward beside it, work with.
pub struct WorkerParts {
    /// Answers the tasks.
    pub gateway: Gateway,
    /// The tasks that there are.
    pub claims: Claims,
    /// Where batches end whose cost is reached or whose window has passed.
    pub endings: Endings,
    /// What the keys may spend that tasks are paid by.
    pub keys: Keys,
    /// What is to be done to batches as a whole.
    pub chores: Chores,
    /// Where a batch that ends is read.
    pub rows: BatchRows,
    /// Where bodies and results are.
    pub blobs: Blobs,
    /// What becomes of results.
    pub files: Files,
}

/// Runs batches on this node.
pub struct Worker {
    gateway: Gateway,
    claims: Claims,
    endings: Endings,
    keys: Keys,
    blobs: Blobs,
    results: ResultWriter,
    options: WorkerOptions,
    /// Its own group, shut down before the gateway's.
    runs: Tasks,
    freed: Notify,
    /// How many may run beside people's requests.
    lateness: Lateness,
    /// One writer of returned claims at a time; what is returned meanwhile is written by the next, together.
    returning: AsyncMutex<()>,
    /// std mutex: held for map look-ups, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Every claim that this worker knows it has, waiting or running, and how its run is stopped.
    claims: HashMap<Claim, CancellationToken>,
    /// Claims whose tasks run, by model.
    running: HashMap<String, usize>,
    /// Claims that were lost since the queues were last looked through.
    lost: HashSet<Claim>,
    /// Accounts whose batches wait for money, as far as this node has seen: when one of their holds ends, they are asked.
    unpaid: HashSet<AccountId>,
    /// Claims that the store counted as ours at the last look and that this worker knew nothing of.
    strays: HashSet<Claim>,
    keys: HashMap<KeyId, (Caller, Instant)>,
    /// Claims on their way back to the queue.
    returned: Vec<Requeue>,
    /// What the last look at each rank found.
    seen: HashMap<Priority, Seen>,
    /// Batches that began to wait for something since then.
    waiting: HashSet<BatchId>,
    /// Where the last look at each rank ended that did not see all of it.
    looked: HashMap<Priority, AccountId>,
    /// The last account of each rank and model that got a share when there was no room for all.
    turns: HashMap<(Priority, String), AccountId>,
}

impl Worker {
    /// Starts to claim and run. `tasks` is asked to stop before the group that settles is.
    pub fn start(parts: WorkerParts, batches: &Batches, options: WorkerOptions, tasks: &Tasks) {
        let WorkerParts { gateway, claims, endings, keys, chores, rows, blobs, files } = parts;
        let results = ResultWriter::start(blobs.clone(), gateway.shared_ids(), options.concurrency, tasks);
        let parts = StewardParts {
            gateway: gateway.clone(),
            chores,
            endings: endings.clone(),
            rows,
            blobs: blobs.clone(),
            files,
            results: results.clone(),
            retention: options.retention,
        };
        Steward::start(parts, batches.wake(), tasks);
        let worker = Arc::new(Self {
            gateway,
            claims,
            endings,
            keys,
            blobs,
            results,
            options,
            runs: tasks.clone(),
            freed: Notify::new(),
            lateness: Lateness::new(options.concurrency),
            returning: AsyncMutex::default(),
            state: Mutex::default(),
        });
        let claims = worker.claims.clone();
        tasks.spawn("queue_depth", move |stop| depth::watch(claims, stop));
        let late = Arc::clone(&worker);
        tasks.spawn("lateness_watch", move |stop| async move {
            late.lateness.watch(&late.gateway, || late.lock().running_in_all(), stop).await;
        });
        let watching = Arc::clone(&worker);
        tasks.spawn("claim_watch", move |stop| async move { watching.watch(stop).await });
        tasks.spawn("batch_worker", move |stop| worker.run(stop));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut queues = Queues::new(self.options.concurrency.max(LEAST_READY));
        let mut node = self.gateway.epoch().identity;
        // The durable queue is looked at when it is time; until then what that look found is claimed as it is wanted.
        let (mut next_look, mut found) = (Instant::now(), HashSet::new());
        while !stop.is_cancelled() {
            let current = self.gateway.epoch().identity;
            if current != node {
                // What an ended epoch claimed has been taken back.
                queues.clear();
                let mut state = self.lock();
                state.claims.values().for_each(CancellationToken::cancel);
                state.claims.clear();
                drop(state);
                node = current;
            }
            self.drop_lost(&mut queues).await;
            let now = Instant::now();
            let is_time = now >= next_look;
            if is_time {
                next_look = now + POLL;
            }
            if is_time || found.iter().any(|model: &String| queues.is_hungry(model)) {
                found = self.claim(&mut queues, node, is_time).await;
            }
            let started = self.start_ready(&mut queues, &stop);
            queues.drop_empty();
            if started && !found.is_empty() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.freed.notified() => {}
                () = self.gateway.dispatcher().room() => {}
                () = sleep_until(next_look) => {}
            }
        }
        let waiting = queues.take_models(|_| true);
        self.hand_back(waiting.into_iter().map(|ready| ready.task.claim).collect()).await;
    }

    /// Takes out of the queues what is claimed no more, and ends what waits for a model that is served no more.
    async fn drop_lost(&self, queues: &mut Queues) {
        let lost = std::mem::take(&mut self.lock().lost);
        if !lost.is_empty() {
            let gone = queues.forget(|claim| lost.contains(claim));
            let mut state = self.lock();
            for ready in gone {
                state.claims.remove(&ready.task.claim);
            }
        }
        let catalog = self.gateway.catalog();
        let gone = queues.take_models(|model| catalog.find(model).is_none());
        let ends = gone.iter().map(|Ready { task, model, .. }| {
            let gone = AdmitError::ModelNotFound { model: model.clone() };
            self.conclude(task, Came::Failed(gone.into()))
        });
        // Together: their ends are a few transactions then, and nothing else starts meanwhile.
        join_all(ends).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many tasks of a model run, and how many in all.
    fn running(&self, model: &str) -> (usize, usize) {
        (self.running.get(model).copied().unwrap_or(0), self.running_in_all())
    }

    fn running_in_all(&self) -> usize {
        self.running.values().sum()
    }

    /// Who is forgotten is asked again all the same, only later.
    fn note_unpaid(&mut self, account: AccountId) {
        if self.unpaid.len() >= MOST_UNPAID {
            self.unpaid.clear();
        }
        self.unpaid.insert(account);
    }

    /// A task of a model runs no longer.
    fn freed(&mut self, model: &str) {
        if let Some(running) = self.running.get_mut(model) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(model);
            }
        }
    }
}
