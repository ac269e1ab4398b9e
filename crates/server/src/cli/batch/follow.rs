//! Holds: following batches until they end, or until the person has had enough.

use std::io::BufRead as _;
use std::time::Duration;

use batchin_domain::Amount;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::client::{Client, ClientError, Detail};
use super::progress::Progress;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Often enough for a person, rare enough for the server.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How following ended.
pub(super) enum Ended {
    Finished(Totals),
    /// The batches go on at the server.
    LeftRunning,
}

/// All batches of a run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Totals {
    pub tasks: u64,
    pub completed: u64,
    pub failed: u64,
    pub tokens: u64,
    pub cost: Amount,
    pub is_blocked: bool,
    pub is_cancelled: bool,
}

/// Ctrl-C, and whether somebody can be asked about it.
pub(super) struct Interrupts {
    pub can_ask: bool,
}

enum Wish {
    GoOn,
    Cancel,
    Leave,
}

pub(super) async fn to_the_end(
    client: &Client,
    ids: &[String],
    progress: &Progress,
    interrupts: &Interrupts,
) -> Result<Ended, ClientError> {
    let mut states: Vec<Option<Totals>> = vec![None; ids.len()];
    let mut is_ended = vec![false; ids.len()];
    let mut pause = FIRST_PAUSE;
    let started = Instant::now();
    let mut interrupt = Box::pin(tokio::signal::ctrl_c());
    loop {
        let round = poll(client, ids, (&mut states, &mut is_ended), progress);
        let wish = tokio::select! {
            polled = round => { polled?; Wish::GoOn }
            _ = &mut interrupt => {
                interrupt = Box::pin(tokio::signal::ctrl_c());
                asked(interrupts, progress).await
            }
        };
        match wish {
            Wish::GoOn => {}
            Wish::Leave => return Ok(Ended::LeftRunning),
            Wish::Cancel => cancel(client, ids, &is_ended, progress).await?,
        }
        let totals = states.iter().flatten().copied().fold(Totals::NONE, Totals::plus);
        progress.update(&totals, started.elapsed());
        if is_ended.iter().all(|ended| *ended) {
            return Ok(Ended::Finished(totals));
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = &mut interrupt => {
                interrupt = Box::pin(tokio::signal::ctrl_c());
                match asked(interrupts, progress).await {
                    Wish::GoOn => {}
                    Wish::Leave => return Ok(Ended::LeftRunning),
                    Wish::Cancel => cancel(client, ids, &is_ended, progress).await?,
                }
            }
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

async fn poll(
    client: &Client,
    ids: &[String],
    (states, is_ended): (&mut [Option<Totals>], &mut [bool]),
    progress: &Progress,
) -> Result<(), ClientError> {
    for ((id, state), is_ended) in ids.iter().zip(states).zip(is_ended) {
        if !*is_ended {
            let detail = client.detail(id, progress).await?;
            *is_ended = matches!(detail.status.as_str(), "completed" | "failed" | "cancelled" | "expired");
            *state = Some(Totals::of(&detail));
        }
    }
    Ok(())
}

async fn cancel(client: &Client, ids: &[String], is_ended: &[bool], progress: &Progress) -> Result<(), ClientError> {
    for (id, _) in ids.iter().zip(is_ended).filter(|(_, is_ended)| !**is_ended) {
        client.cancel(id, progress).await?;
    }
    progress.say("cancelled; what is done is delivered");
    Ok(())
}

/// A second Ctrl-C while the question stands leaves at once.
async fn asked(interrupts: &Interrupts, progress: &Progress) -> Wish {
    if !interrupts.can_ask {
        return Wish::Leave;
    }
    progress.say("Cancel the batch? [y]es, cancel · [n]o, go on watching · [l]eave it running");
    let (answer, answered) = oneshot::channel();
    // A thread of its own: reading from a terminal cannot be given up, and must not keep the process alive.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        // Nobody waits for the answer after a second Ctrl-C.
        let _ = answer.send(read.map(|_| line));
    });
    tokio::select! {
        line = answered => match line {
            Ok(Ok(line)) if matches!(line.trim(), "y" | "yes") => Wish::Cancel,
            Ok(Ok(line)) if matches!(line.trim(), "l" | "leave") => Wish::Leave,
            Ok(Ok(_)) => Wish::GoOn,
            Ok(Err(_)) | Err(_) => Wish::Leave,
        },
        _ = tokio::signal::ctrl_c() => Wish::Leave,
    }
}

impl Totals {
    pub(super) const NONE: Self = Self {
        tasks: 0,
        completed: 0,
        failed: 0,
        tokens: 0,
        cost: Amount::ZERO,
        is_blocked: false,
        is_cancelled: false,
    };

    /// From one batch; its own sums count, and those of its tasks where it states none.
    fn of(detail: &Detail) -> Self {
        let cents = |raw: &serde_json::value::RawValue| Amount::parse_cents(raw.get()).unwrap_or(Amount::ZERO);
        let by_task = || {
            let costs = detail.tasks.iter().filter_map(|task| task.cost_cents.as_deref());
            costs.map(cents).fold(Amount::ZERO, Amount::saturating_add)
        };
        let tokens =
            |usage: crate::cli::batch::client::Usage| usage.prompt_tokens.saturating_add(usage.completion_tokens);
        let tokens_by_task = || detail.tasks.iter().filter_map(|task| task.usage).map(tokens).sum();
        let is_blocked = |blocked: &serde_json::Value| {
            !(blocked.is_null()
                || *blocked == serde_json::Value::Bool(false)
                || blocked.as_array().is_some_and(Vec::is_empty))
        };
        Self {
            tasks: detail.total_tasks,
            completed: detail.completed_tasks,
            failed: detail.failed_tasks,
            tokens: detail.usage.map_or_else(tokens_by_task, tokens),
            cost: detail.cost_cents.as_deref().map_or_else(by_task, cents),
            is_blocked: detail.blocked.as_ref().is_some_and(is_blocked),
            is_cancelled: matches!(detail.status.as_str(), "cancelled" | "expired"),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            tasks: self.tasks + other.tasks,
            completed: self.completed + other.completed,
            failed: self.failed + other.failed,
            tokens: self.tokens + other.tokens,
            cost: self.cost.saturating_add(other.cost),
            is_blocked: self.is_blocked || other.is_blocked,
            is_cancelled: self.is_cancelled || other.is_cancelled,
        }
    }

    pub(super) fn is_all_completed(&self) -> bool {
        self.completed == self.tasks && self.failed == 0 && !self.is_cancelled
    }

    /// The last line of a run.
    pub(super) fn summary(&self, elapsed: Duration) -> String {
        let Self { tasks, completed, failed, tokens, .. } = self;
        let cost = self.cost.to_cents_text();
        let seconds = elapsed.as_secs_f64();
        format!(
            "{completed} of {tasks} tasks completed, {failed} failed, {tokens} tokens, {cost} cents, {seconds:.1} s"
        )
    }
}
