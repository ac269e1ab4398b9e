//! Holds: the pause after an upstream said that it is overloaded.

use std::time::Duration;

use batchin_domain::Timestamp;

use crate::Policy;

#[derive(Debug, Default)]
pub(crate) struct CoolDown {
    until: Option<Timestamp>,
    in_a_row: u32,
}

impl CoolDown {
    pub fn until(&self) -> Option<Timestamp> {
        self.until
    }

    /// An answer ends the row of refusals, not the pause.
    pub fn answered(&mut self) {
        self.in_a_row = 0;
    }

    pub fn begin(&mut self, retry_after: Option<Duration>, policy: &Policy, now: Timestamp) {
        // Refusals of requests that were sent before the pause began are the same refusal.
        if self.until.is_none_or(|until| now >= until) {
            self.in_a_row = self.in_a_row.saturating_add(1);
        }
        let doubled = policy.cool_down.saturating_mul(1 << (self.in_a_row.saturating_sub(1)).min(16));
        let pause = doubled.max(retry_after.unwrap_or_default()).min(policy.max_cool_down);
        self.until = self.until.max(Some(now.after(pause)));
    }
}
