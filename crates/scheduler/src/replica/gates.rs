//! Holds: the gates G1 to G7 of one replica.

use batchin_domain::{Class, Timestamp};

use super::Replica;
use crate::{
    Gate, Policy, Scrape,
    policy::{KV_CLOSED, KV_FULL},
};

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
                .and_then(|()| self.scrape_gate(policy, now))
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

    fn scrape_gate(&self, policy: &Policy, now: Timestamp) -> Result<(), Gate> {
        let Some(scrape) = self.fresh_scrape(policy, now) else { return Ok(()) };
        if scrape.kv_usage.is_some_and(|usage| usage >= KV_CLOSED) {
            return Err(Gate::Cache);
        }
        if scrape.waiting.is_some_and(|waiting| waiting > 0) { Err(Gate::EngineQueue) } else { Ok(()) }
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

    /// KV is so full that the engine is about to evict, by figures that are fresh.
    pub fn kv_full(&self, policy: &Policy, now: Timestamp) -> bool {
        self.fresh_scrape(policy, now).and_then(|scrape| scrape.kv_usage).is_some_and(|usage| usage >= KV_FULL)
    }

    fn fresh_scrape(&self, policy: &Policy, now: Timestamp) -> Option<&Scrape> {
        self.scraped.as_ref().filter(|(_, at)| now < at.after(policy.scrape_fresh)).map(|(scrape, _)| scrape)
    }
}
