//! Holds: which fill tasks are cancelled when a person waits on a full replica.

use std::collections::HashMap;

use batchin_domain::{Class, TaskId, Timestamp};

use crate::{Action, Policy, Ticket, policy::MAX_CANCELS, replica::Replica};

/// Tasks remembered in each of two generations. Forgetting one early costs it a few more preemptions.
const GENERATION_LEN: usize = 32_768;

/// How often each task was cancelled for others, in bounded memory.
#[derive(Debug, Default)]
pub(crate) struct Preemptions {
    young: HashMap<TaskId, u8>,
    old: HashMap<TaskId, u8>,
}

impl Preemptions {
    fn of(&self, task: TaskId) -> u8 {
        self.young.get(&task).or_else(|| self.old.get(&task)).copied().unwrap_or(0)
    }

    fn add(&mut self, task: TaskId) {
        let times = self.of(task).saturating_add(1);
        if self.young.len() >= GENERATION_LEN {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(task, times);
    }

    pub fn forget(&mut self, task: TaskId) {
        self.young.remove(&task);
        self.old.remove(&task);
    }
}

/// Cancels what the oldest waiting person needs; nothing while the last round has not ended.
pub(crate) fn preempt(
    replica: &mut Replica,
    preemptions: &mut Preemptions,
    policy: &Policy,
    now: Timestamp,
) -> Vec<Action> {
    let needed = cancels_needed(replica, policy, now);
    if needed == 0 {
        return Vec::new();
    }
    let mut victims: Vec<(bool, u64, Ticket)> = replica
        .flights
        .iter()
        .filter(|(_, flight)| flight.class == Class::Fill)
        // Where a client waits, what has begun to leave cannot begin anew.
        .filter(|(_, flight)| flight.task.is_some() || !flight.first_byte)
        .filter(|(_, flight)| flight.task.is_none_or(|task| preemptions.of(task) < policy.max_preemptions))
        .map(|(ticket, flight)| (flight.first_byte, flight.tokens, *ticket))
        .collect();
    victims.sort_unstable();
    victims.truncate(needed as usize);
    for (_, _, ticket) in &victims {
        let Some(flight) = replica.flights.get_mut(ticket) else { continue };
        flight.cancelling = true;
        replica.cancelling += 1;
        if let Some(task) = flight.task {
            preemptions.add(task);
        }
    }
    victims.into_iter().map(|(_, _, ticket)| Action::Cancel(ticket)).collect()
}

fn cancels_needed(replica: &Replica, policy: &Policy, now: Timestamp) -> u32 {
    let Some((since, _)) = replica.impatient.first() else { return 0 };
    let patient = now < since.after(policy.patience(replica.spec.slots));
    if patient || replica.cancelling > 0 || !replica.spec.cancels {
        return 0;
    }
    // With no more in flight than slots the waiting one has its slot, and a cancellation would gain nothing.
    let queued = replica.spec.slots.map_or(0, |slots| replica.total().saturating_sub(slots));
    queued.min(MAX_CANCELS)
}
