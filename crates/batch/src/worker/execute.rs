//! Holds: running a task, and carrying out what is decided about it.

use std::time::Duration;

use batchin_domain::{Amount, Ending};
use batchin_gateway::{Caller, Running, SettleError, Unsettled};
use batchin_store::{
    ClaimedTask, MoneyWait, StoreError, TaskEnd, TaskError as EndError, TaskFinish, Unpaid, WAITS_FOR_BALANCE,
    WAITS_FOR_BUDGET, WAITS_FOR_CAP,
};
use tokio::time::Instant;
use tracing::warn;

use super::{Worker, queues::Ready, ready::Slot};
use crate::{
    outcome::{CAP_PAUSE, Came, Next, Purse, Tried, next},
    results::NewResult,
};

/// Before a batch without money is asked again while something of its account is set aside, here or on another node:
/// longer than a node keeps a lease that it does not use.
const HELD_PAUSE: Duration = Duration::from_secs(5);
/// Before it is asked again though nothing woke it. Credit does; whoever books it may die before.
const UNWOKEN_PAUSE: Duration = Duration::from_secs(600);
/// Other batches of an account that go on when one of them could be paid for.
const GO_ON: u32 = 32;
/// Longest name of a file that a task made, in characters, its ending aside.
const MAX_STEM: usize = 64;
/// How long a key's limits are remembered.
const KEY_AGE: Duration = Duration::from_secs(1);

impl Worker {
    /// Runs a task until it is answered, or there is no answer.
    pub(super) async fn answer(&self, ready: &Ready, place: Running) -> Result<Box<Unsettled>, Came> {
        let task = &ready.task;
        let caller = match self.caller(task).await {
            Ok(caller) => caller,
            Err(cause) => {
                warn!(error = &cause as &dyn std::error::Error, "a task's key could not be read");
                return Err(Came::NoPayer);
            }
        };
        let unsettled = self.gateway.run_task(&caller, ready.inbound.clone(), place).await.map_err(Came::Failed)?;
        batchin_faults::point("task.answered");
        Ok(unsettled)
    }

    /// Sees to it that a task's answer is durable and settled. Its place goes to another meanwhile, as far as there is room.
    pub(super) async fn keep(&self, ready: &Ready, mut unsettled: Box<Unsettled>, slot: &mut Option<Slot>) -> Came {
        let task = &ready.task;
        let _room = self.results.room(ready.inbound.body.len() + unsettled.bytes()).await;
        *slot = None;
        if let Err(cause) = unsettled.keep(&file_stem(&task.custom_id)).await {
            warn!(error = &cause as &dyn std::error::Error, "what a task made could not be stored");
            return Came::NoResult;
        }
        let new = NewResult {
            batch: task.batch,
            task: task.claim.task,
            custom_id: task.custom_id.clone(),
            request: ready.inbound.request,
            body: unsettled.body.clone(),
        };
        let reasoning_tokens = unsettled.reasoning_tokens();
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
    pub(super) async fn conclude(&self, task: &ClaimedTask, mut came: Came) {
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
            Err(SettleError::Stopped) => Came::Lost,
            Err(cause) => {
                warn!(error = &cause as &dyn std::error::Error, "a task's end could not be stored");
                Came::NotEnded(cause)
            }
        }
    }

    /// The task could cost more than is left of what its batch may cost. What runs of the batch may give some back; when
    /// nothing does, the batch ends here.
    async fn ask_cap(&self, task: &ClaimedTask) -> Came {
        let running = self.claims.running_tasks(task.batch).await;
        running.map_or_else(|cause| not_stopped(&cause), |running| Came::OverCap { running })
    }

    async fn stop_batch(&self, task: &ClaimedTask) -> Came {
        let now = self.gateway.clock().now();
        let stopped = self.endings.stop_batch(task.batch, Ending::CostReached, now).await;
        stopped.map_or_else(|cause| not_stopped(&cause), |_| Came::Ended)
    }

    async fn wait_for_cap(&self, task: &ClaimedTask) -> Came {
        let until = self.gateway.clock().now().after(CAP_PAUSE);
        if let Err(cause) = self.claims.set_blocked(task.batch, Some((WAITS_FOR_CAP, until))).await {
            warn!(error = &cause as &dyn std::error::Error, "a batch could not say that it waits");
        }
        self.lock().waiting.insert(task.batch);
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
            self.claims.await_money(unpaid).await
        };
        if let Err(cause) = stored.await {
            warn!(error = &cause as &dyn std::error::Error, "a batch could not say that it waits");
        }
        self.lock().waiting.insert(task.batch);
        batchin_faults::point("batch.blocked");
        Came::Waiting
    }

    /// A hold of the task's account has ended: what waits for money may find some.
    pub(super) async fn wake_unpaid(&self, task: &ClaimedTask) {
        if !self.lock().unpaid.remove(&task.account) {
            return;
        }
        for reason in [WAITS_FOR_BALANCE, WAITS_FOR_BUDGET] {
            if let Err(cause) = self.claims.wake_waiting(task.account, reason, None).await {
                warn!(error = &cause as &dyn std::error::Error, "batches that wait for money could not be woken");
            }
        }
    }

    /// A task that was claimed to see whether its batch still waits has run: it waits no longer.
    pub(super) async fn unblock(&self, task: &ClaimedTask) {
        let Some(reason) = task.blocked.as_deref() else { return };
        let now = self.gateway.clock().now();
        let gone_on = match reason {
            WAITS_FOR_CAP => self.claims.set_blocked(task.batch, None).await,
            reason => self.claims.paid((task.batch, task.account), reason, GO_ON, now).await,
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
        let record = self.keys.key_record(key).await?;
        let caller = Caller { monthly_budget: record.and_then(|record| record.monthly_budget), ..plain };
        let mut state = self.lock();
        state.keys.retain(|_, (_, read)| read.elapsed() < KEY_AGE);
        state.keys.insert(key, (caller.clone(), Instant::now()));
        Ok(caller)
    }
}

/// A file's name without its ending: what of the task's own name any file system takes.
fn file_stem(custom_id: &str) -> String {
    let plain = |symbol: char| if symbol.is_ascii_alphanumeric() || "-_.".contains(symbol) { symbol } else { '_' };
    custom_id.chars().map(plain).take(MAX_STEM).collect()
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
