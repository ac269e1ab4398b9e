//! Holds: the replicas, the tickets in flight, and the choice among replicas.

use std::collections::{BTreeMap, HashMap};

use batchin_domain::{Class, Timestamp};

use crate::{
    Action, Event, Gate, Outcome, Policy, ReplicaId, ReplicaSpec, ReplicaView, Start, Ticket,
    preempt::{Preemptions, preempt},
    replica::Replica,
};

/// The state of all upstream replicas of a process.
///
/// A driver asks ([`Scheduler::route`], [`Scheduler::pick`]), tells ([`Scheduler::apply`]) in the same critical section,
/// carries out the actions, and sends [`Event::Tick`] at [`Scheduler::next_deadline`]. After every event but a chunk a
/// closed gate may have opened.
#[derive(Debug, Default)]
pub struct Scheduler {
    policy: Policy,
    replicas: BTreeMap<ReplicaId, Replica>,
    tickets: HashMap<Ticket, ReplicaId>,
    preemptions: Preemptions,
    starts: u64,
}

impl Scheduler {
    /// Without replicas.
    pub fn new(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Takes over the configured replicas. What is in flight and what was learned stays with each id; one that is gone
    /// gets nothing new and is forgotten with its last request.
    pub fn set_replicas(&mut self, specs: Vec<ReplicaSpec>, now: Timestamp) {
        self.replicas.values_mut().for_each(|replica| replica.listed = false);
        for spec in specs {
            match self.replicas.get_mut(&spec.id) {
                Some(replica) => replica.configure(spec, &self.policy),
                None => {
                    self.replicas.insert(spec.id, Replica::new(spec, &self.policy, now));
                }
            }
        }
        self.replicas.retain(|_, replica| replica.listed || replica.total() > 0);
    }

    /// Breaker and health (G5). A new replica is available.
    pub fn set_available(&mut self, replica: ReplicaId, available: bool) {
        if let Some(replica) = self.replicas.get_mut(&replica) {
            replica.available = available;
        }
    }

    /// The replica for an interactive request: the fewest outstanding tokens relative to slots, equals in turn. `None` means
    /// that every candidate is out of service or at its cap, and the request is refused. Interactive requests never
    /// queue here, and a replica that asked for a pause is only used when all did.
    pub fn route(&self, candidates: impl IntoIterator<Item = ReplicaId>, now: Timestamp) -> Option<ReplicaId> {
        self.pick(candidates, Class::Interactive, 0, now).ok()
    }

    /// The replica for a request of `class` whose prompt has at most `prompt_bound` tokens, chosen like
    /// [`Scheduler::route`] among those whose gates are open. The error is [`Gate::Prompt`] if a shorter prompt could
    /// start somewhere, else a gate that is closed on the last candidate.
    pub fn pick(
        &self,
        candidates: impl IntoIterator<Item = ReplicaId>,
        class: Class,
        prompt_bound: u32,
        now: Timestamp,
    ) -> Result<ReplicaId, Gate> {
        self.pick_near(candidates, (class, prompt_bound), None, now)
    }

    /// The same, where prompts that begin alike ran on one of the candidates last: it is chosen as long as it is not clearly
    /// more loaded than the others.
    pub fn pick_near(
        &self,
        candidates: impl IntoIterator<Item = ReplicaId>,
        (class, prompt_bound): (Class, u32),
        near: Option<Near>,
        now: Timestamp,
    ) -> Result<ReplicaId, Gate> {
        let mut closed = Gate::Unavailable;
        let mut best: Option<(Rank, ReplicaId)> = None;
        let mut known: Option<Rank> = None;
        for id in candidates {
            let Some(replica) = self.replicas.get(&id) else { continue };
            match replica.gate(class, prompt_bound, &self.policy, now) {
                Err(gate) if closed != Gate::Prompt => closed = gate,
                Err(_) => {}
                Ok(()) => {
                    let rank = self.rank(replica, now);
                    if near.is_some_and(|near| near.replica == id) {
                        known = Some(rank);
                    }
                    if best.is_none_or(|(other, _)| rank.before(&other)) {
                        best = Some((rank, id));
                    }
                }
            }
        }
        let (best, id) = best.ok_or(closed)?;
        match near.zip(known) {
            Some((near, known)) if known.is_near(&best, near.expected) => Ok(near.replica),
            _ => Ok(id),
        }
    }

    /// Whether a request of `class` may start on this replica now.
    pub fn may_start(&self, replica: ReplicaId, class: Class, prompt_bound: u32, now: Timestamp) -> Result<(), Gate> {
        let replica = self.replicas.get(&replica).ok_or(Gate::Unavailable)?;
        replica.gate(class, prompt_bound, &self.policy, now)
    }

    /// How many more interactive requests a replica takes; `None` where its slots are unknown, and it takes any number.
    pub fn room(&self, replica: ReplicaId) -> Option<u32> {
        self.replicas.get(&replica)?.room(&self.policy)
    }

    /// Takes an event in and says what must be done.
    #[must_use = "a cancellation that is not carried out leaves a person waiting"]
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        let touched = match event {
            Event::Started(start) => self.started(&start, now),
            Event::Unseen(ticket) => self.flight(ticket, |replica| replica.unseen(ticket)),
            Event::FirstByte(ticket) => self.flight(ticket, |replica| replica.first_byte(ticket, now)),
            Event::Chunk { ticket, gap, tokens } => {
                self.flight(ticket, |replica| replica.chunk(ticket, (gap, tokens), now))
            }
            Event::Done { ticket, outcome } => self.done(ticket, outcome, now),
            Event::Tick => return self.tick(now),
        };
        match touched.and_then(|id| self.replicas.get_mut(&id)) {
            Some(replica) => settle(replica, &mut self.preemptions, &self.policy, now),
            None => Vec::new(),
        }
    }

    /// When to send the next [`Event::Tick`]; `None` while time alone changes nothing. Ask again after every event but
    /// a chunk.
    pub fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        self.replicas.values().filter_map(|replica| replica.next_deadline(&self.policy, now)).min()
    }

    /// A replica's figures.
    pub fn view(&self, replica: ReplicaId, now: Timestamp) -> Option<ReplicaView> {
        self.replicas.get(&replica).map(|replica| replica.view(&self.policy, now))
    }

    fn started(&mut self, start: &Start, now: Timestamp) -> Option<ReplicaId> {
        let replica = self.replicas.get_mut(&start.replica)?;
        if self.tickets.contains_key(&start.ticket) {
            return None;
        }
        self.tickets.insert(start.ticket, start.replica);
        self.starts += 1;
        replica.last_start = self.starts;
        replica.started(start, &self.policy, now);
        Some(start.replica)
    }

    fn done(&mut self, ticket: Ticket, outcome: Outcome, now: Timestamp) -> Option<ReplicaId> {
        let id = self.tickets.remove(&ticket)?;
        let replica = self.replicas.get_mut(&id)?;
        let flight = replica.done(ticket, outcome, &self.policy, now)?;
        if let Some(task) = flight.task.filter(|_| outcome == Outcome::Ok) {
            self.preemptions.forget(task);
        }
        if !replica.listed && replica.total() == 0 {
            self.replicas.remove(&id);
        }
        Some(id)
    }

    fn flight(&mut self, ticket: Ticket, change: impl FnOnce(&mut Replica)) -> Option<ReplicaId> {
        let id = *self.tickets.get(&ticket)?;
        self.replicas.get_mut(&id).map(change)?;
        Some(id)
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Action> {
        let Self { policy, replicas, preemptions, .. } = self;
        replicas.values_mut().flat_map(|replica| settle(replica, preemptions, policy, now)).collect()
    }

    fn rank(&self, replica: &Replica, now: Timestamp) -> Rank {
        Rank {
            cooling: replica.cooling(now),
            outstanding: replica.outstanding,
            slots: replica.spec.slots.unwrap_or(self.policy.assumed_slots).max(1),
            last_start: replica.last_start,
        }
    }
}

/// Where a prompt with the same beginning ran last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    /// There.
    pub replica: ReplicaId,
    /// Tokens that the request will take, roughly.
    pub expected: u32,
}

/// So many requests like the one that is to begin may a replica have to do more than others, and still be chosen for what it
/// has in its cache: the prompt need not be read there, which is most of the work of a long one.
const NEAR_AHEAD: u64 = 2;

/// What replicas are compared by.
#[derive(Clone, Copy)]
struct Rank {
    cooling: bool,
    outstanding: u64,
    slots: u32,
    last_start: u64,
}

impl Rank {
    /// Whether this one has hardly more to do than the best.
    fn is_near(&self, best: &Self, expected: u32) -> bool {
        let ahead = NEAR_AHEAD * u64::from(expected.max(1));
        let own = u128::from(self.outstanding) * u128::from(best.slots);
        let most = u128::from(best.outstanding.saturating_add(ahead)) * u128::from(self.slots);
        self.cooling <= best.cooling && own <= most
    }

    fn before(&self, other: &Self) -> bool {
        let load = |one: &Self, two: &Self| u128::from(one.outstanding) * u128::from(two.slots);
        (self.cooling, load(self, other), self.last_start) < (other.cooling, load(other, self), other.last_start)
    }
}

fn settle(replica: &mut Replica, preemptions: &mut Preemptions, policy: &Policy, now: Timestamp) -> Vec<Action> {
    replica.control(policy, now);
    preempt(replica, preemptions, policy, now)
}
