//! Holds: the worker: claims tasks, runs what the gates let through, and ends each exactly once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batchin_domain::{AccountId, BatchId, Ending, KeyId, Priority, RequestId};
use batchin_gateway::{Caller, Gateway, Inbound, RequestError, Running, TaskError, Work, endpoint_of};
use batchin_openai::Endpoint;
use batchin_scheduler::{Entry, Queue, Verdict, Waiting, shares};
use batchin_store::{Claim, ClaimedTask, FencedError, NodeIdentity, Requeue, StoreError, TaskEnd, TaskFinish};
use batchin_tasks::Tasks;
use bytes::Bytes;
use metrics::gauge;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    Batches, BlobError, Blobs, Files, depth,
    outcome::{Next, after},
    results::{NewResult, ResultWriter},
    steward::{Steward, StewardParts},
};

/// Between two looks at the durable queue while nothing else wakes the worker.
const POLL: Duration = Duration::from_millis(100);
/// Between two looks at which claims still stand: how long a cancelled task may go on.
const CLAIM_LOOK: Duration = Duration::from_millis(300);
/// Claimed tasks kept ready beyond those that run, so that a freed slot is filled without asking the database: as many
/// again as may run, and at least these.
const LEAST_READY: usize = 64;
/// Batches looked at for tasks in one go.
const BACKLOG: u32 = 512;
/// Before a batch is looked at again whose highest cost is in use by tasks that run.
const CAP_PAUSE: Duration = Duration::from_millis(500);
/// How long a key's limits are remembered.
const KEY_AGE: Duration = Duration::from_secs(1);
/// A rough output when a body sets no limit: only the order between accounts depends on it.
const ASSUMED_OUTPUT: u32 = 256;

/// The worker's bounds.
#[derive(Clone, Copy, Debug)]
pub struct WorkerOptions {
    /// Tasks in flight on this node, whatever the upstreams bear.
    pub concurrency: usize,
    /// Tries of a task that fails for reasons of the upstream.
    pub max_attempts: u32,
    /// How long what came of a batch is kept after its end.
    pub retention: Duration,
}

/// Runs batches on this node.
pub struct Worker {
    gateway: Gateway,
    blobs: Blobs,
    results: ResultWriter,
    options: WorkerOptions,
    /// Its own group, shut down before the gateway's.
    runs: Tasks,
    freed: Notify,
    /// std mutex: held for map look-ups, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Every claim that this worker knows it has, waiting or running, and how its run is stopped.
    claims: HashMap<Claim, CancellationToken>,
    /// Claims whose tasks run.
    running: usize,
    /// Claims that the store counted as ours at the last look and that this worker knew nothing of.
    strays: HashSet<Claim>,
    keys: HashMap<KeyId, (Caller, Instant)>,
    /// Where the last look at each rank ended.
    looked: HashMap<Priority, AccountId>,
}

/// A claimed task whose body has been read.
struct Ready {
    task: ClaimedTask,
    inbound: Inbound,
    prompt_bound: u64,
}

impl Worker {
    /// Starts to claim and run. `tasks` is asked to stop before the group that settles is.
    pub fn start(
        gateway: Gateway,
        (blobs, files, batches): (Blobs, Files, &Batches),
        options: WorkerOptions,
        tasks: &Tasks,
    ) {
        let results = ResultWriter::start(blobs.clone(), gateway.shared_ids(), tasks);
        let parts = StewardParts {
            gateway: gateway.clone(),
            blobs: blobs.clone(),
            files,
            results: results.clone(),
            retention: options.retention,
        };
        Steward::start(parts, batches.wake(), tasks);
        let worker = Arc::new(Self {
            gateway,
            blobs,
            results,
            options,
            runs: tasks.clone(),
            freed: Notify::new(),
            state: Mutex::default(),
        });
        let store = worker.gateway.store().clone();
        tasks.spawn("queue_depth", move |stop| depth::watch(store, stop));
        let watching = Arc::clone(&worker);
        tasks.spawn("claim_watch", move |stop| async move { watching.watch(stop).await });
        tasks.spawn("batch_worker", move |stop| worker.run(stop));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        // One queue a model: a closed gate of one model says nothing about another's.
        let mut queues: HashMap<String, Queue<Ready>> = HashMap::new();
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut node = self.gateway.epoch().identity;
        // The durable queue is looked at when it is time, and again while the last look found something.
        let (mut polled, mut more) = (true, true);
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
            // A claim is a transaction: one for half of what is kept ready, and not one for every task that ends.
            let waiting: usize = queues.values().map(Queue::len).sum();
            if polled || (more && waiting <= self.ready() / 2) {
                more = self.claim(&mut queues, node).await;
            }
            polled = false;
            let started = self.start_ready(&mut queues, &stop);
            queues.retain(|_, queue| !queue.is_empty());
            if more && started {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.freed.notified() => {}
                () = self.gateway.dispatcher().room() => {}
                _ = poll.tick() => polled = true,
            }
        }
        let now = self.gateway.clock().now();
        let mut waiting = Vec::new();
        for mut queue in queues.into_values() {
            while let Some(popped) = queue.pop_where(now, |_, _| Verdict::Start) {
                waiting.push(popped.item.task.claim);
            }
        }
        self.hand_back(waiting).await;
    }

    /// How many claimed tasks are kept ready.
    fn ready(&self) -> usize {
        self.options.concurrency.max(LEAST_READY)
    }

    /// Claims what there is room for. Whether anything was claimed.
    async fn claim(&self, queues: &mut HashMap<String, Queue<Ready>>, node: NodeIdentity) -> bool {
        let mut any = false;
        for rank in [Priority::High, Priority::Low, Priority::Fill] {
            let waiting: usize = queues.values().map(Queue::len).sum();
            let room = self.ready().saturating_sub(waiting);
            if room == 0 {
                return any;
            }
            match self.claim_rank(rank, u32::try_from(room).unwrap_or(u32::MAX), node).await {
                Ok(tasks) => {
                    if !tasks.is_empty() {
                        batchin_faults::point("task.claimed");
                    }
                    any |= !tasks.is_empty();
                    self.make_ready(queues, (tasks, rank)).await;
                }
                Err(FencedError::Fenced) => return false,
                Err(FencedError::Store(cause)) => {
                    warn!(error = &cause as &dyn std::error::Error, "tasks could not be claimed");
                    return false;
                }
            }
        }
        any
    }

    /// Claims tasks of a rank, shared among the accounts that have some.
    async fn claim_rank(&self, rank: Priority, room: u32, node: NodeIdentity) -> Result<Vec<ClaimedTask>, FencedError> {
        let (store, now) = (self.gateway.store(), self.gateway.clock().now());
        let after = self.lock().looked.get(&rank).copied();
        let mut backlog = store.backlog(rank, after, BACKLOG, now).await.map_err(FencedError::Store)?;
        if backlog.is_empty() && after.is_some() {
            backlog = store.backlog(rank, None, BACKLOG, now).await.map_err(FencedError::Store)?;
        }
        let cut = backlog.len() >= usize::try_from(BACKLOG).unwrap_or(usize::MAX);
        let waiting =
            |row: batchin_store::Backlog| Waiting { batch: row.batch, account: row.account, probe: row.blocked };
        let waiting: Vec<Waiting> = backlog.into_iter().map(waiting).collect();
        let shares = shares(&waiting, room, cut);
        match shares.last {
            Some(last) => self.lock().looked.insert(rank, last),
            None => self.lock().looked.remove(&rank),
        };
        if shares.take.is_empty() {
            return Ok(Vec::new());
        }
        store.claim(node, &shares.take, now).await
    }

    async fn make_ready(
        &self,
        queues: &mut HashMap<String, Queue<Ready>>,
        (tasks, rank): (Vec<ClaimedTask>, Priority),
    ) {
        self.lock().claims.extend(tasks.iter().map(|task| (task.claim, CancellationToken::new())));
        for (task, body) in self.with_bodies(tasks).await {
            let body = match body {
                Ok(body) => body,
                Err(cause) => {
                    error!(error = &*cause as &dyn std::error::Error, "a task's body could not be read");
                    self.requeue(&task, Duration::from_secs(5), true).await;
                    continue;
                }
            };
            let inbound = Inbound {
                endpoint: endpoint_of(task.endpoint).unwrap_or(Endpoint::Chat),
                body,
                request: RequestId::new(self.gateway.ids().uuid()),
                class: task.priority.class(),
                task: Some((task.batch, task.claim.task)),
                idempotency: None,
            };
            let prompt_bound = match self.gateway.check(&inbound) {
                Ok(checked) => checked.prompt_bound,
                Err(cause) => {
                    self.conclude(&task, cause).await;
                    continue;
                }
            };
            let cost = batchin_scheduler::cost_units(u32::try_from(prompt_bound).unwrap_or(u32::MAX), ASSUMED_OUTPUT);
            // A promoted task runs with those of its rank, at its own price.
            let entry = Entry { account: task.account, weight: 1, priority: rank, cost, latest_start: None };
            let model = task.model.clone();
            let ready = Ready { task, inbound, prompt_bound };
            if let Err(full) = queues.entry(model).or_default().push(entry, ready) {
                self.requeue(&full.0.task, POLL, false).await;
            }
        }
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

    /// Starts what the gates let through. Whether anything started.
    fn start_ready(self: &Arc<Self>, queues: &mut HashMap<String, Queue<Ready>>, stop: &CancellationToken) -> bool {
        let mut any = false;
        let catalog = self.gateway.catalog();
        for (model, queue) in queues.iter_mut() {
            let Some(model) = catalog.find(model) else { continue };
            let replicas = self.gateway.replicas_of(model);
            loop {
                if self.lock().running >= self.options.concurrency {
                    return any;
                }
                let now = self.gateway.clock().now();
                let mut place = None;
                let popped = queue.pop_where(now, |ready, class| {
                    let task = Some(ready.task.claim.task);
                    let work = Work { class, prompt_bound: ready.prompt_bound, task, unseen: false };
                    match self.gateway.dispatcher().begin(&replicas, work) {
                        Ok(running) => {
                            place = Some(running);
                            Verdict::Start
                        }
                        Err(gate) => gate.into(),
                    }
                });
                let Some((popped, place)) = popped.zip(place) else { break };
                self.spawn(popped.item, place, stop.clone());
                any = true;
            }
        }
        gauge!("batchin_batch_tasks_running").set(self.lock().running as f64);
        any
    }

    fn spawn(self: &Arc<Self>, ready: Ready, place: Running, stop: CancellationToken) {
        let cancelled = {
            let mut state = self.lock();
            state.running += 1;
            state.claims.entry(ready.task.claim).or_default().clone()
        };
        let worker = Arc::clone(self);
        self.runs.spawn("batch_task", move |_| async move {
            let claim = ready.task.claim;
            tokio::select! {
                () = worker.run_one(&ready, place) => {}
                // Cancelled by its owner or taken from this node: whoever did that has dealt with it.
                () = cancelled.cancelled() => {}
                // Dropping the run closes the upstream's connection; the task goes on elsewhere or after the restart.
                () = stop.cancelled() => worker.requeue(&ready.task, Duration::ZERO, false).await,
            }
            let mut state = worker.lock();
            state.running -= 1;
            state.claims.remove(&claim);
            drop(state);
            worker.freed.notify_one();
        });
    }

    async fn run_one(&self, ready: &Ready, place: Running) {
        let task = &ready.task;
        let caller = match self.caller(task).await {
            Ok(caller) => caller,
            Err(cause) => return self.conclude(task, RequestError::Store(cause)).await,
        };
        let unsettled = match self.gateway.run_task(&caller, ready.inbound.clone(), place).await {
            Ok(unsettled) => unsettled,
            // Preempted in favour of a person; a cancelled batch is noticed when it is claimed no more.
            Err(TaskError::Preempted | TaskError::Request(RequestError::Stopped)) => {
                return self.requeue(task, POLL, false).await;
            }
            Err(cause) => return self.conclude(task, cause).await,
        };
        batchin_faults::point("task.answered");
        let new = NewResult {
            batch: task.batch,
            task: task.claim.task,
            custom_id: task.custom_id.clone(),
            request: ready.inbound.request,
            body: unsettled.body.clone(),
        };
        let Some(result) = self.results.write(new).await else {
            return self.requeue(task, Duration::from_secs(1), false).await;
        };
        batchin_faults::point("result.written");
        let finish = TaskFinish {
            batch: task.batch,
            task: task.claim.task,
            epoch: task.claim.epoch,
            end: TaskEnd::Completed { result },
        };
        match unsettled.settle_task(finish).await {
            Ok(()) => {
                batchin_faults::point("task.finished");
                self.unblock(task).await;
            }
            Err(cause) => self.conclude(task, cause).await,
        }
    }

    /// Carries out what a failed try means.
    async fn conclude(&self, task: &ClaimedTask, cause: impl Into<TaskError>) {
        // The low bits of an id are random.
        let chance = self.gateway.ids().uuid().as_u128() as u32;
        match after(cause.into(), task.attempts, self.options.max_attempts, chance) {
            Next::WaitForMoney { reason, pause } => {
                self.block(task.batch, reason, pause).await;
                self.requeue(task, Duration::ZERO, false).await;
            }
            Next::CapReached => self.cap_reached(task).await,
            Next::Again { pause, counts } => self.requeue(task, pause, counts).await,
            Next::Fail(error) => {
                let caller = plain_caller(task);
                let finish = TaskFinish {
                    batch: task.batch,
                    task: task.claim.task,
                    epoch: task.claim.epoch,
                    end: TaskEnd::Failed(error),
                };
                batchin_faults::point("task.failing");
                match self.gateway.fail_task(&caller, finish).await {
                    Ok(()) | Err(RequestError::Stopped) => batchin_faults::point("task.failed"),
                    Err(cause) => {
                        warn!(error = &cause as &dyn std::error::Error, "a task's end could not be stored");
                        self.requeue(task, Duration::from_secs(1), false).await;
                    }
                }
            }
            Next::Leave => {}
        }
    }

    async fn requeue(&self, task: &ClaimedTask, pause: Duration, counts: bool) {
        self.lock().claims.remove(&task.claim);
        let not_before = self.gateway.clock().now().after(pause);
        let back = [Requeue { claim: task.claim, not_before, counts }];
        batchin_faults::point("task.requeueing");
        if let Err(cause) = self.gateway.store().requeue(&back).await {
            // The claim ends with this node's lease at the latest.
            warn!(error = &cause as &dyn std::error::Error, "a task could not be given back");
        }
        batchin_faults::point("task.requeued");
    }

    async fn hand_back(&self, claims: Vec<Claim>) {
        if claims.is_empty() {
            return;
        }
        let not_before = self.gateway.clock().now();
        let back: Vec<_> = claims.into_iter().map(|claim| Requeue { claim, not_before, counts: false }).collect();
        if let Err(cause) = self.gateway.store().requeue(&back).await {
            warn!(error = &cause as &dyn std::error::Error, "claimed tasks could not be given back");
        }
        batchin_faults::point("claims.returned");
    }

    /// The task could cost more than is left of what its batch may cost. What runs of the batch may give some back; when
    /// nothing does, the batch ends here.
    async fn cap_reached(&self, task: &ClaimedTask) {
        let store = self.gateway.store();
        let stopped = async {
            // This task is one of those that run.
            if store.running_tasks(task.batch).await? <= 1 {
                store.stop_batch(task.batch, Ending::CostReached, self.gateway.clock().now()).await?;
                return Ok::<_, StoreError>(true);
            }
            Ok(false)
        };
        match stopped.await {
            Ok(true) => {}
            Ok(false) => {
                self.block(task.batch, "max_cost", CAP_PAUSE).await;
                self.requeue(task, Duration::ZERO, false).await;
            }
            Err(cause) => {
                warn!(error = &cause as &dyn std::error::Error, "a batch could not be stopped at its highest cost");
                self.requeue(task, CAP_PAUSE, false).await;
            }
        }
    }

    async fn block(&self, batch: BatchId, reason: &str, pause: Duration) {
        let until = self.gateway.clock().now().after(pause);
        if let Err(cause) = self.gateway.store().set_blocked(batch, Some((reason, until))).await {
            warn!(error = &cause as &dyn std::error::Error, "a batch could not say that it waits");
        }
        batchin_faults::point("batch.blocked");
    }

    /// A task that was claimed to see whether its batch still waits has run: it waits no longer.
    async fn unblock(&self, task: &ClaimedTask) {
        if !task.blocked {
            return;
        }
        if let Err(cause) = self.gateway.store().set_blocked(task.batch, None).await {
            warn!(error = &cause as &dyn std::error::Error, "a batch could not say that it goes on");
        }
        batchin_faults::point("batch.unblocked");
    }

    /// Whose budget and balance the task counts for.
    async fn caller(&self, task: &ClaimedTask) -> Result<Caller, StoreError> {
        let plain = plain_caller(task);
        let capped_by = plain.capped_by;
        let Some(key) = task.key else { return Ok(plain) };
        if let Some((caller, read)) = self.lock().keys.get(&key)
            && read.elapsed() < KEY_AGE
        {
            return Ok(Caller { capped_by, ..caller.clone() });
        }
        let record = self.gateway.store().key_record(key).await?;
        let caller = Caller { monthly_budget: record.and_then(|record| record.monthly_budget), ..plain };
        let mut state = self.lock();
        state.keys.retain(|_, (_, read)| read.elapsed() < KEY_AGE);
        state.keys.insert(key, (caller.clone(), Instant::now()));
        Ok(caller)
    }

    /// Stops what this node runs without a claim any more, and hands back claims that it never heard of.
    async fn watch(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(CLAIM_LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let before: Vec<Claim> = self.lock().claims.keys().copied().collect();
            match self.gateway.store().claims_of(self.gateway.epoch().identity).await {
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
        lost.filter_map(|claim| state.claims.get(claim)).for_each(CancellationToken::cancel);
        let unknown: HashSet<Claim> =
            claims.iter().filter(|claim| !state.claims.contains_key(claim)).copied().collect();
        let strays = unknown.intersection(&state.strays).copied().collect();
        state.strays = unknown;
        strays
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who pays for a task, without what its key allows.
fn plain_caller(task: &ClaimedTask) -> Caller {
    Caller {
        account: task.account,
        key: task.key,
        rate_limit_rpm: None,
        monthly_budget: None,
        capped_by: task.capped.then_some(task.batch),
    }
}
