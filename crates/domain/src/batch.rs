//! Holds: the states of batches and tasks, and how a batch ends.

use std::{fmt, str::FromStr, time::Duration};

use crate::stored;

stored! {
    /// Where a batch stands.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum BatchStatus {
        /// Accepted; no task has started.
        Pending = 0 => "pending",
        /// Some task has started, or its file has been read and its tasks may start.
        InProgress = 1 => "in_progress",
        /// Every task has ended, and at least one of an inline batch completed.
        Completed = 2 => "completed",
        /// No task completed, or the file was at fault and nothing ran.
        Failed = 3 => "failed",
        /// Stopped by its owner or by its highest cost; tasks that had completed keep their results.
        Cancelled = 4 => "cancelled",
        /// Its window passed; tasks that had completed keep their results.
        Expired = 5 => "expired",
        /// Its file is being read; nothing runs before all of it has been checked.
        Validating = 6 => "pending",
        /// Every task has ended; its files are being put together.
        Finalizing = 7 => "in_progress",
        /// It is being stopped.
        Cancelling = 8 => "cancelled",
    }
}

stored! {
    /// Where a task stands.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum TaskStatus {
        /// Waits to be claimed.
        Pending = 0 => "pending",
        /// Claimed by a worker under a lease.
        Running = 1 => "running",
        /// Has a result.
        Completed = 2 => "completed",
        /// Has an error and will not be tried again.
        Failed = 3 => "failed",
        /// Stopped before it ended.
        Cancelled = 4 => "cancelled",
        /// Not run in time.
        Expired = 5 => "expired",
    }
}

stored! {
    /// Why a batch ends before all its tasks have run.
    pub enum Ending {
        /// Its owner stopped it.
        Cancelled = 0 => "cancelled",
        /// Its window passed.
        Expired = 1 => "expired",
        /// The next task could cost more than is left of the batch's highest cost.
        CostReached = 2 => "max_cost_reached",
    }
}

stored! {
    /// What a node has to do for a batch beside running its tasks. One node at a time does it.
    pub enum Chore {
        /// Nothing.
        None = 0 => "none",
        /// Check every line of its file.
        Read = 1 => "read",
        /// Make tasks of the lines, which have been checked.
        Load = 2 => "load",
        /// End the tasks that have not ended.
        Stop = 3 => "stop",
        /// Put its files together and end it.
        Close = 4 => "close",
    }
}

impl BatchStatus {
    /// Whether nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Expired)
    }

    /// Its name in OpenAI's shape.
    pub const fn openai_name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Pending | Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Cancelling => "cancelling",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }
}

impl TaskStatus {
    /// Whether it has a result or an error and nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

impl Ending {
    /// What becomes of a task that has not ended by then.
    pub const fn of_task(self) -> TaskStatus {
        match self {
            Self::Cancelled | Self::CostReached => TaskStatus::Cancelled,
            Self::Expired => TaskStatus::Expired,
        }
    }

    /// Where the batch stands while it is brought to this end.
    pub const fn on_the_way(self) -> BatchStatus {
        match self {
            Self::Cancelled | Self::CostReached => BatchStatus::Cancelling,
            Self::Expired => BatchStatus::Finalizing,
        }
    }

    /// How the batch ends.
    pub const fn of_batch(self) -> BatchStatus {
        match self {
            Self::Cancelled | Self::CostReached => BatchStatus::Cancelled,
            Self::Expired => BatchStatus::Expired,
        }
    }

    /// The code on the error line of a task that was not run, and a sentence for people.
    pub const fn explanation(self) -> (&'static str, &'static str) {
        match self {
            Self::Cancelled => ("batch_cancelled", "The batch was cancelled before this request was run."),
            Self::Expired => ("batch_expired", "This request could not be run before the completion window expired."),
            Self::CostReached => {
                ("batch_max_cost_reached", "The batch's highest cost was reached before this request was run.")
            }
        }
    }
}

/// How many tasks of a batch stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// All tasks.
    pub total: u32,
    /// With a result.
    pub completed: u32,
    /// With an error.
    pub failed: u32,
    /// Stopped before they ended.
    pub cancelled: u32,
    /// Not run in time.
    pub expired: u32,
}

impl TaskCounts {
    /// How many have ended.
    pub const fn ended(self) -> u32 {
        let stopped = self.cancelled.saturating_add(self.expired);
        self.completed.saturating_add(self.failed).saturating_add(stopped)
    }

    /// How many have not.
    pub const fn left(self) -> u32 {
        self.total.saturating_sub(self.ended())
    }

    /// These tasks too.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self {
            total: self.total.saturating_add(more.total),
            completed: self.completed.saturating_add(more.completed),
            failed: self.failed.saturating_add(more.failed),
            cancelled: self.cancelled.saturating_add(more.cancelled),
            expired: self.expired.saturating_add(more.expired),
        }
    }

    /// How a batch ends whose tasks have all ended. One that was made inline and has no result at all has failed; one
    /// that was made from a file is completed all the same, as OpenAI's are.
    pub const fn outcome(self, ending: Option<Ending>, inline: bool) -> BatchStatus {
        match ending {
            Some(ending) => ending.of_batch(),
            None if inline && self.completed == 0 => BatchStatus::Failed,
            None => BatchStatus::Completed,
        }
    }
}

/// How long a batch may take, in whole hours; from 1 hour to 7 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    hours: u16,
}

/// The longest [`Window`]: a week, so that what a batch needs is kept for a bounded time.
const MAX_WINDOW_HOURS: u16 = 7 * 24;

impl Window {
    /// From a number of hours.
    pub const fn from_hours(hours: u16) -> Option<Self> {
        if hours >= 1 && hours <= MAX_WINDOW_HOURS { Some(Self { hours }) } else { None }
    }

    /// How many hours it has.
    pub const fn hours(self) -> u16 {
        self.hours
    }

    /// How long it is.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.hours as u64 * 3_600)
    }
}

/// `24h` or `7d`.
impl FromStr for Window {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |digits: &str| -> Result<u16, ()> {
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            if plain { digits.parse().map_err(|_| ()) } else { Err(()) }
        };
        let hours = match (text.strip_suffix('h'), text.strip_suffix('d')) {
            (Some(hours), _) => number(hours)?,
            (None, Some(days)) => number(days)?.checked_mul(24).ok_or(())?,
            (None, None) => return Err(()),
        };
        Self::from_hours(hours).ok_or(())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // OpenAI's own window is written in hours.
        if self.hours > 24 && self.hours.is_multiple_of(24) {
            write!(f, "{}d", self.hours / 24)
        } else {
            write!(f, "{}h", self.hours)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_whole_hours_or_days_up_to_a_week() {
        for (text, hours) in [("1h", 1), ("24h", 24), ("1d", 24), ("36h", 36), ("7d", 168), ("168h", 168)] {
            assert_eq!(text.parse::<Window>().unwrap().hours(), hours, "{text}");
        }
        for text in ["", "h", "0h", "8d", "169h", "24", "-1h", "+1h", "1.5h", "24H", "99999d", "1h "] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
        for hours in 1..=MAX_WINDOW_HOURS {
            let window = Window::from_hours(hours).unwrap();
            assert_eq!(window.to_string().parse(), Ok(window));
        }
        assert_eq!(Window::from_hours(24).unwrap().to_string(), "24h");
    }

    #[test]
    fn a_batch_ends_as_its_tasks_did() {
        let counts = TaskCounts { total: 3, completed: 1, failed: 2, ..TaskCounts::default() };
        assert_eq!(counts.left(), 0);
        assert_eq!(counts.outcome(None, true), BatchStatus::Completed);
        // Its owner has been told that it is cancelled, however few tasks that still concerned.
        assert_eq!(counts.outcome(Some(Ending::Cancelled), true), BatchStatus::Cancelled);
        let none = TaskCounts { completed: 0, failed: 3, ..counts };
        assert_eq!(
            (none.outcome(None, true), none.outcome(None, false)),
            (BatchStatus::Failed, BatchStatus::Completed)
        );
        let expired = TaskCounts { failed: 1, expired: 1, ..counts };
        assert_eq!(expired.outcome(Some(Ending::Expired), true), BatchStatus::Expired);
        let stopped = TaskCounts { failed: 1, cancelled: 1, ..counts };
        assert_eq!(stopped.outcome(Some(Ending::CostReached), false), BatchStatus::Cancelled);
    }
}
