//! Holds: the worker: claims tasks, runs what the gates let through, and ends each exactly once.

mod claiming;
mod lateness;
mod queues;
mod room;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batchin_domain::{AccountId, Amount, Ending, KeyId, Priority};
use batchin_files::{Blobs, Files};
use batchin_gateway::{Caller, Gateway, RequestError, Running, Work};
use batchin_openai::usage_of;
use batchin_scheduler::Verdict;
use batchin_store::{
    Claim, ClaimedTask, MoneyWait, Requeue, StoreError, TaskEnd, TaskError as EndError, TaskFinish, Unpaid,
    WAITS_FOR_BALANCE, WAITS_FOR_BUDGET, WAITS_FOR_CAP,
};
use batchin_tasks::Tasks;
use futures::future::join_all;
use metrics::gauge;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Batches, depth,
    outcome::{CAP_PAUSE, Came, Money, Next, Purse, Tried, next},
    results::{NewResult, ResultWriter},
    steward::{Steward, StewardParts},
};
use lateness::Lateness;
use queues::{Queues, Ready};
use room::has_room;

/// Between two looks at the durable queue while nothing else wakes the worker.
const POLL: Duration = Duration::from_millis(100);
/// Between two looks at which claims still stand: how long a cancelled task may go on.
const CLAIM_LOOK: Duration = Duration::from_millis(300);
/// Claimed tasks of each model kept ready beyond those that run, so that a freed slot is filled without asking the
/// database: as many again as may run, and at least these.
const LEAST_READY: usize = 64;
/// Before a batch without money is asked again while something of its account is set aside, here or on another node:
/// longer than a node keeps a lease that it does not use.
const HELD_PAUSE: Duration = Duration::from_secs(5);
/// Before it is asked again though nothing woke it. Credit does; whoever books it may die before.
const UNWOKEN_PAUSE: Duration = Duration::from_secs(600);
/// Other batches of an account that go on when one of them could be paid for.
const GO_ON: u32 = 32;
/// Accounts remembered whose batches wait for money.
const MOST_UNPAID: usize = 16_384;
/// How long a key's limits are remembered.
const KEY_AGE: Duration = Duration::from_secs(1);

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
    /// Where the last look at each rank ended that did not see all of it.
    looked: HashMap<Priority, AccountId>,
    /// The last account of each rank and model that got a share when there was no room for all.
    turns: HashMap<(Priority, String), AccountId>,
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
            lateness: Lateness::new(options.concurrency),
            returning: AsyncMutex::default(),
            state: Mutex::default(),
        });
        let store = worker.gateway.store().clone();
        tasks.spawn("queue_depth", move |stop| depth::watch(store, stop));
        let late = Arc::clone(&worker);
        tasks.spawn("lateness_watch", move |stop| async move {
            late.lateness.watch(&late.gateway, || late.lock().running("").1, stop).await;
        });
        let watching = Arc::clone(&worker);
        tasks.spawn("claim_watch", move |stop| async move { watching.watch(stop).await });
        tasks.spawn("batch_worker", move |stop| worker.run(stop));
    }

    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut queues = Queues::new(self.options.concurrency.max(LEAST_READY));
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut node = self.gateway.epoch().identity;
        // The durable queue is looked at when it is time, and again while the last look found something.
        let (mut polled, mut found) = (true, HashSet::new());
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
            if polled || found.iter().any(|model: &String| queues.is_hungry(model)) {
                found = self.claim(&mut queues, node, polled).await;
            }
            polled = false;
            let started = self.start_ready(&mut queues, &stop);
            queues.drop_empty();
            if started && !found.is_empty() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.freed.notified() => {}
                () = self.gateway.dispatcher().room() => {}
                _ = poll.tick() => polled = true,
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
            let gone = RequestError::ModelNotFound { model: model.clone() };
            self.conclude(task, Came::Failed(gone.into()))
        });
        // Together: their ends are a few transactions then, and nothing else starts meanwhile.
        join_all(ends).await;
    }

    /// Starts what the gates let through. Whether anything started.
    fn start_ready(self: &Arc<Self>, queues: &mut Queues, stop: &CancellationToken) -> bool {
        let mut any = false;
        let catalog = self.gateway.catalog();
        let (all, models) = (self.lateness.limit(), catalog.models().len());
        for (id, queue) in queues.each_mut() {
            let Some(model) = catalog.find(id) else { continue };
            let replicas = self.gateway.replicas_of(model);
            loop {
                let (of_model, of_all) = self.lock().running(id);
                if !has_room((of_model, of_all), all, models) {
                    break;
                }
                let now = self.gateway.clock().now();
                let mut place = None;
                let popped = queue.pop_where(now, |ready, class| {
                    let task = Some(ready.task.claim.task);
                    let (prompt_bound, account) = (ready.prompt_bound, ready.task.account);
                    let work = Work { class, prompt_bound, task, unseen: false, account };
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
        gauge!("batchin_batch_tasks_running").set(self.lock().running("").1 as f64);
        any
    }

    fn spawn(self: &Arc<Self>, ready: Ready, place: Running, stop: CancellationToken) {
        let cancelled = {
            let mut state = self.lock();
            *state.running.entry(ready.model.clone()).or_default() += 1;
            state.claims.entry(ready.task.claim).or_default().clone()
        };
        let worker = Arc::clone(self);
        let ran = Ran { worker: Arc::clone(self), model: ready.model.clone(), claim: ready.task.claim };
        self.runs.spawn("batch_task", move |_| async move {
            let came = tokio::select! {
                came = worker.run_one(&ready, place) => came,
                () = cancelled.cancelled() => Came::Lost,
                // Dropping the run closes the upstream's connection; the task goes on elsewhere or after the restart.
                () = stop.cancelled() => Came::Stopping,
            };
            let money = came.money();
            worker.conclude(&ready.task, came).await;
            if money == Money::Sufficed {
                worker.unblock(&ready.task).await;
            }
            drop(ran);
            if money != Money::Untouched {
                worker.wake_unpaid(&ready.task).await;
            }
        });
    }

    /// Runs a task until its answer is durable, or there is none.
    async fn run_one(&self, ready: &Ready, place: Running) -> Came {
        let task = &ready.task;
        let caller = match self.caller(task).await {
            Ok(caller) => caller,
            Err(cause) => return Came::Failed(RequestError::Store(cause).into()),
        };
        let unsettled = match self.gateway.run_task(&caller, ready.inbound.clone(), place).await {
            Ok(unsettled) => unsettled,
            Err(cause) => return Came::Failed(cause),
        };
        batchin_faults::point("task.answered");
        let new = NewResult {
            batch: task.batch,
            task: task.claim.task,
            custom_id: task.custom_id.clone(),
            request: ready.inbound.request,
            body: unsettled.body.clone(),
        };
        let told = usage_of(&unsettled.body).map_or(0, |usage| usage.reasoning_tokens);
        let reasoning_tokens = told.min(unsettled.units().output);
        let Some(result) = self.results.write(new).await else { return Came::NoResult };
        batchin_faults::point("result.written");
        let settled = unsettled.settle_task(finish(task, TaskEnd::Completed { result, reasoning_tokens })).await;
        if let Err(cause) = settled {
            return Came::Unsettled(cause);
        }
        batchin_faults::point("task.finished");
        Came::Completed
    }

    /// Carries out what follows from what came of a task.
    async fn conclude(&self, task: &ClaimedTask, mut came: Came) {
        // The low bits of an id are random.
        let chance = self.gateway.ids().uuid().as_u128() as u32;
        let tried = Tried { attempt: task.attempts, max_attempts: self.options.max_attempts, chance };
        loop {
            came = match next(came, tried) {
                Next::WaitForMoney { purse, needed } => self.await_money(task, purse, needed).await,
                Next::AskCap => self.ask_cap(task).await,
                Next::WaitForCap => self.wait_for_cap(task).await,
                Next::StopBatch => self.stop_batch(task).await,
                Next::Fail(error) => self.fail(task, error).await,
                Next::Again { pause, counts } => return self.requeue(task, pause, counts).await,
                Next::Leave => break,
            };
        }
        self.lock().claims.remove(&task.claim);
    }

    async fn fail(&self, task: &ClaimedTask, error: EndError) -> Came {
        batchin_faults::point("task.failing");
        match self.gateway.fail_task(&plain_caller(task), finish(task, TaskEnd::Failed(error))).await {
            Ok(()) => {
                batchin_faults::point("task.failed");
                Came::Ended
            }
            Err(RequestError::Stopped) => Came::Lost,
            Err(cause) => {
                warn!(error = &cause as &dyn std::error::Error, "a task's end could not be stored");
                Came::NotEnded(cause)
            }
        }
    }

    /// Gives a claim back. Many that end together, as those of a server that fails, are one transaction.
    async fn requeue(&self, task: &ClaimedTask, pause: Duration, counts: bool) {
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

    async fn hand_back(&self, claims: Vec<Claim>) {
        if claims.is_empty() {
            return;
        }
        let not_before = self.gateway.clock().now();
        let back: Vec<_> = claims.into_iter().map(|claim| Requeue { claim, not_before, counts: false }).collect();
        self.write_back(&back).await;
        batchin_faults::point("claims.returned");
    }

    async fn write_back(&self, back: &[Requeue]) {
        if let Err(cause) = self.gateway.store().requeue(back).await {
            // The claims end with this node's lease at the latest.
            warn!(error = &cause as &dyn std::error::Error, tasks = back.len(), "tasks could not be given back");
        }
    }

    /// The task could cost more than is left of what its batch may cost. What runs of the batch may give some back; when
    /// nothing does, the batch ends here.
    async fn ask_cap(&self, task: &ClaimedTask) -> Came {
        let running = self.gateway.store().running_tasks(task.batch).await;
        running.map_or_else(|cause| not_stopped(&cause), |running| Came::OverCap { running })
    }

    async fn stop_batch(&self, task: &ClaimedTask) -> Came {
        let now = self.gateway.clock().now();
        let stopped = self.gateway.store().stop_batch(task.batch, Ending::CostReached, now).await;
        stopped.map_or_else(|cause| not_stopped(&cause), |_| Came::Ended)
    }

    async fn wait_for_cap(&self, task: &ClaimedTask) -> Came {
        let until = self.gateway.clock().now().after(CAP_PAUSE);
        if let Err(cause) = self.gateway.store().set_blocked(task.batch, Some((WAITS_FOR_CAP, until))).await {
            warn!(error = &cause as &dyn std::error::Error, "a batch could not say that it waits");
        }
        batchin_faults::point("batch.blocked");
        Came::Waiting
    }

    /// Lets the task's batch wait until there is money.
    async fn await_money(&self, task: &ClaimedTask, purse: Purse, needed: Amount) -> Came {
        let now = self.gateway.clock().now();
        self.lock().note_unpaid(task.account);
        let stored = async {
            let wait = match (purse, task.key) {
                (Purse::Budget, Some(key)) => MoneyWait::Budget { key, month: now.month() },
                (Purse::Balance, _) | (Purse::Budget, None) => MoneyWait::Balance,
            };
            let (soon, later) = (now.after(HELD_PAUSE), now.after(UNWOKEN_PAUSE));
            let unpaid = Unpaid { batch: task.batch, account: task.account, wait, needed, soon, later };
            self.gateway.store().await_money(unpaid).await
        };
        if let Err(cause) = stored.await {
            warn!(error = &cause as &dyn std::error::Error, "a batch could not say that it waits");
        }
        batchin_faults::point("batch.blocked");
        Came::Waiting
    }

    /// A hold of the task's account has ended: what waits for money may find some.
    async fn wake_unpaid(&self, task: &ClaimedTask) {
        if !self.lock().unpaid.remove(&task.account) {
            return;
        }
        for reason in [WAITS_FOR_BALANCE, WAITS_FOR_BUDGET] {
            if let Err(cause) = self.gateway.store().wake_waiting(task.account, reason, None).await {
                warn!(error = &cause as &dyn std::error::Error, "batches that wait for money could not be woken");
            }
        }
    }

    /// A task that was claimed to see whether its batch still waits has run: it waits no longer.
    async fn unblock(&self, task: &ClaimedTask) {
        let Some(reason) = task.blocked.as_deref() else { return };
        let (store, now) = (self.gateway.store(), self.gateway.clock().now());
        let gone_on = match reason {
            WAITS_FOR_CAP => store.set_blocked(task.batch, None).await,
            reason => store.paid((task.batch, task.account), reason, GO_ON, now).await,
        };
        if let Err(cause) = gone_on {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a task's place back when its run ends, and when it panics.
struct Ran {
    worker: Arc<Worker>,
    model: String,
    claim: Claim,
}

impl Drop for Ran {
    fn drop(&mut self) {
        self.worker.lock().ended(&self.model, &self.claim);
        self.worker.freed.notify_one();
    }
}

impl State {
    /// How many tasks of a model run, and how many in all.
    fn running(&self, model: &str) -> (usize, usize) {
        (self.running.get(model).copied().unwrap_or(0), self.running.values().sum())
    }

    /// Who is forgotten is asked again all the same, only later.
    fn note_unpaid(&mut self, account: AccountId) {
        if self.unpaid.len() >= MOST_UNPAID {
            self.unpaid.clear();
        }
        self.unpaid.insert(account);
    }

    /// A task of a model runs no longer.
    fn ended(&mut self, model: &str, claim: &Claim) {
        self.claims.remove(claim);
        if let Some(running) = self.running.get_mut(model) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(model);
            }
        }
    }
}

fn not_stopped(cause: &StoreError) -> Came {
    warn!(error = cause as &dyn std::error::Error, "a batch could not be stopped at its highest cost");
    Came::NotStopped
}

fn finish(task: &ClaimedTask, end: TaskEnd) -> TaskFinish {
    TaskFinish { batch: task.batch, task: task.claim.task, epoch: task.claim.epoch, end }
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
