//! Holds: the gates G1 to G5 of one replica.

use batchin_domain::{Class, Timestamp};

use super::Replica;
use crate::{Gate, Policy};

impl Replica {
    /// Whether a request of `class` may start now. G2 comes last, so that [`Gate::Prompt`] means that only a shorter
    /// prompt is needed.
    pub fn gate(&self, class: Class, prompt_bound: u32, policy: &Policy, now: Timestamp) -> Result<(), Gate> {
        if !self.available || !self.listed {
            return Err(Gate::Unavailable);
        }
        match class {
            Class::Interactive => self.interactive_gate(policy),
            Class::High => self.slots_gate(policy, now).and_then(|()| match self.spec.slots {
                Some(_) => Ok(()),
                None => self.limit_gate(class, policy, now),
            }),
            Class::Low | Class::Fill => self
                .slots_gate(policy, now)
                .and_then(|()| self.first_byte_gate(now))
                .and_then(|()| self.limit_gate(class, policy, now))
                .and_then(|()| self.prompt_gate(prompt_bound, policy, now)),
        }
    }

    fn interactive_gate(&self, policy: &Policy) -> Result<(), Gate> {
        if self.room(policy) == Some(0) { Err(Gate::Slots) } else { Ok(()) }
    }

    /// What is left below the cap of interactive requests, where there is one.
    pub fn room(&self, policy: &Policy) -> Option<u32> {
        self.spec.slots.map(|slots| policy.interactive_cap(slots).saturating_sub(self.total()))
    }

    fn slots_gate(&self, policy: &Policy, now: Timestamp) -> Result<(), Gate> {
        if self.cooling(now) {
            return Err(Gate::Unavailable);
        }
        let full = self.spec.slots.is_some_and(|slots| self.total() >= policy.batch_slots(slots));
        if full { Err(Gate::Slots) } else { Ok(()) }
    }

    fn first_byte_gate(&self, now: Timestamp) -> Result<(), Gate> {
        if self.urgent_waits(now) { Err(Gate::FirstByte) } else { Ok(()) }
    }

    fn limit_gate(&self, class: Class, policy: &Policy, now: Timestamp) -> Result<(), Gate> {
        if class != Class::High && self.measuring(now) {
            return Err(Gate::Limit);
        }
        let reached = self.in_flight[class.index()] >= self.limit(class, policy, now);
        if reached { Err(Gate::Limit) } else { Ok(()) }
    }

    fn prompt_gate(&self, prompt_bound: u32, policy: &Policy, now: Timestamp) -> Result<(), Gate> {
        let budget = u64::from(policy.prefill_budget(self.spec.cpu));
        let waiting = self.batch_prompt_waiting(now);
        let fits = waiting == 0 || waiting + u64::from(prompt_bound) <= budget;
        if fits { Ok(()) } else { Err(Gate::Prompt) }
    }

    pub fn cooling(&self, now: Timestamp) -> bool {
        self.cool_down.until().is_some_and(|until| now < until)
    }
}
