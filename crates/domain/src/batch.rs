//! Holds: the states of batches and tasks.

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    /// Accepted; no task has started.
    Pending,
    /// Some task has started.
    InProgress,
    /// Every task has ended and at least one completed.
    Completed,
    /// Every task has ended and none completed.
    Failed,
    /// Stopped by its owner; tasks that had completed keep their results.
    Cancelled,
    /// Its window passed.
    Expired,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits to be claimed.
    Pending,
    /// Claimed by a worker under a lease.
    Running,
    /// Has a result.
    Completed,
    /// Has an error and will not be tried again.
    Failed,
    /// Stopped before it ended.
    Cancelled,
    /// Not run in time.
    Expired,
}

macro_rules! stored {
    ($name:ident { $($variant:ident = $code:literal => $text:literal),+ $(,)? }) => {
        impl $name {
            /// The number it is stored as.
            pub const fn code(self) -> i16 {
                match self { $(Self::$variant => $code),+ }
            }

            /// From the number it is stored as.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)+ _ => None }
            }

            /// Its name in the API.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

stored!(BatchStatus {
    Pending = 0 => "pending",
    InProgress = 1 => "in_progress",
    Completed = 2 => "completed",
    Failed = 3 => "failed",
    Cancelled = 4 => "cancelled",
    Expired = 5 => "expired",
});
stored!(TaskStatus {
    Pending = 0 => "pending",
    Running = 1 => "running",
    Completed = 2 => "completed",
    Failed = 3 => "failed",
    Cancelled = 4 => "cancelled",
    Expired = 5 => "expired",
});

impl BatchStatus {
    /// Whether nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::InProgress)
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
}

impl TaskCounts {
    /// The status that follows once these tasks have ended; `None` while some have not.
    pub const fn outcome(self) -> Option<BatchStatus> {
        let ended = self.completed.saturating_add(self.failed).saturating_add(self.cancelled);
        if ended < self.total {
            return None;
        }
        Some(if self.cancelled > 0 {
            BatchStatus::Cancelled
        } else if self.completed == 0 && self.total > 0 {
            BatchStatus::Failed
        } else {
            BatchStatus::Completed
        })
    }
}
