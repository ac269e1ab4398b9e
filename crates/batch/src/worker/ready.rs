//! Holds: claimed tasks on their way to run: reading what they ask for, and starting what the gates let through.

use std::{collections::HashSet, sync::Arc};

use batchin_domain::RequestId;
use batchin_gateway::{Inbound, Running, Work};
use batchin_scheduler::{Entry, Verdict};
use batchin_store::{Claim, ClaimedTask};
use futures::future::join_all;
use metrics::gauge;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    Worker,
    queues::{Queues, Ready},
    room::has_room,
};
use crate::outcome::{Came, Money};

/// A rough output when a body sets no limit: only the order between accounts depends on it.
const ASSUMED_OUTPUT: u32 = 256;

impl Worker {
    /// Queues claimed tasks. Returns the ids of their models.
    pub(super) async fn make_ready(&self, queues: &mut Queues, tasks: Vec<ClaimedTask>) -> HashSet<String> {
        let mut found = HashSet::new();
        let mut over = Vec::new();
        self.lock().claims.extend(tasks.iter().map(|task| (task.claim, CancellationToken::new())));
        let bodies = self.blobs.read_many(&tasks.iter().map(|task| &task.body).collect::<Vec<_>>()).await;
        for (task, body) in tasks.into_iter().zip(bodies) {
            let body = match body {
                Ok(body) => body,
                Err(cause) => {
                    error!(error = &*cause as &dyn std::error::Error, "a task's body could not be read");
                    over.push((task, Came::NoBody));
                    continue;
                }
            };
            let call = match task.call {
                Ok(call) => call,
                Err(code) => {
                    error!(call = code, "a task asks for a kind of call that is not known here");
                    over.push((task, Came::UnknownCall));
                    continue;
                }
            };
            let inbound = Inbound {
                call,
                body,
                request: RequestId::new(self.gateway.ids().uuid()),
                class: task.priority.class(),
                task: Some((task.batch, task.claim.task)),
                sound: None,
                shown: None,
                pictures_in_both: false,
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
            let work = Work {
                class: inbound.class,
                prompt_bound,
                expected: checked.expected.tokens(),
                beginning: checked.beginning,
                task: Some(task.claim.task),
                unseen: false,
                account: task.account,
            };
            let cost = batchin_scheduler::cost_units(u32::try_from(prompt_bound).unwrap_or(u32::MAX), ASSUMED_OUTPUT);
            // A promoted task runs with those of its rank, at its own price.
            let entry = Entry { account: task.account, weight: 1, priority: task.rank, cost, latest_start: None };
            let model = checked.model.id.clone();
            found.insert(model.clone());
            if let Some(left) = queues.push(entry, Ready { task, inbound, work, model }) {
                over.push((left.task, Came::NoPlace));
            }
        }
        // Together: their ends are a few transactions then, and nothing else starts meanwhile.
        join_all(over.into_iter().map(|(task, came)| async move { self.conclude(&task, came).await })).await;
        found
    }

    /// Starts what the gates let through. Whether anything started.
    pub(super) fn start_ready(self: &Arc<Self>, queues: &mut Queues, stop: &CancellationToken) -> bool {
        let mut any = false;
        let catalog = self.gateway.catalog();
        let (all, models) = (self.lateness.limit(), catalog.models().len());
        for (id, queue) in queues.each_mut() {
            let Some(model) = catalog.find(id) else { continue };
            loop {
                let (of_model, of_all) = self.lock().running(id);
                if !has_room((of_model, of_all), all, models) {
                    break;
                }
                let now = self.gateway.clock().now();
                let mut place = None;
                let popped = queue.pop_where(now, |ready, class| {
                    match self.gateway.begin_task(model, Work { class, ..ready.work }) {
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
        gauge!("batchin_batch_tasks_running").set(self.lock().running_in_all() as f64);
        any
    }

    fn spawn(self: &Arc<Self>, ready: Ready, place: Running, stop: CancellationToken) {
        let cancelled = {
            let mut state = self.lock();
            *state.running.entry(ready.model.clone()).or_default() += 1;
            state.claims.entry(ready.task.claim).or_default().clone()
        };
        let worker = Arc::clone(self);
        let ran = Ran { worker: Arc::clone(self), claim: ready.task.claim };
        let mut slot = Some(Slot { worker: Arc::clone(self), model: ready.model.clone() });
        self.runs.spawn("batch_task", move |_| async move {
            let answered = tokio::select! {
                answered = worker.answer(&ready, place) => answered,
                () = cancelled.cancelled() => Err(Came::Lost),
                // Dropping the run closes the upstream's connection; the task goes on elsewhere or after the restart.
                () = stop.cancelled() => Err(Came::Stopping),
            };
            let came = match answered {
                Err(came) => came,
                // What the answer cost is spent: whoever stops waits for it.
                Ok(unsettled) => tokio::select! {
                    came = worker.keep(&ready, unsettled, &mut slot) => came,
                    () = cancelled.cancelled() => Came::Lost,
                },
            };
            let money = came.money();
            worker.conclude(&ready.task, came).await;
            if money == Money::Sufficed {
                worker.unblock(&ready.task).await;
            }
            drop((ran, slot));
            if money != Money::Untouched {
                worker.wake_unpaid(&ready.task).await;
            }
        });
    }
}

/// Forgets a task's claim when its run ends, and when it panics.
struct Ran {
    worker: Arc<Worker>,
    claim: Claim,
}

impl Drop for Ran {
    fn drop(&mut self) {
        self.worker.lock().claims.remove(&self.claim);
    }
}

/// A task's place among those that run, given back when it is dropped.
pub(super) struct Slot {
    worker: Arc<Worker>,
    model: String,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.worker.lock().freed(&self.model);
        self.worker.freed.notify_one();
    }
}
