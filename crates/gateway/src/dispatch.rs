//! Holds: the pure scheduler's driver: it tells what happens, and carries out what is decided.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use batchin_domain::{AccountId, Class, Clock, TaskId, Timestamp};
use batchin_scheduler::{
    Action, Affinity, Event, Gate, Near, Outcome, Policy, ReplicaId, ReplicaSpec, Scheduler, Start, Ticket,
};
use batchin_tasks::Tasks;
use batchin_upstream::{Asker, Fleet, Replica, Standing};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Model, line::Lines, pace::Step};

/// The scheduler is asked for its next deadline at least this often, so that a reload or a lost wake-up heals itself.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// A deadline that is due at once must not spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// Who runs next and where, for this node.
pub struct Dispatcher {
    /// std mutex: held for one decision and its event, never across an await.
    state: Mutex<State>,
    /// What one account may have of a replica's room for interactive requests, in percent, 1 to 100.
    most_percent: u64,
    clock: Arc<dyn Clock>,
    /// A gate may have opened.
    room: Notify,
    /// Who waits for one while a client waits.
    lines: Arc<Lines>,
}

struct State {
    scheduler: Scheduler,
    affinity: Affinity,
    ids: HashMap<String, ReplicaId>,
    cancels: HashMap<Ticket, CancellationToken>,
    /// Interactive requests in flight.
    holders: HashMap<Ticket, Holder>,
    /// How many of them each account has where.
    held: HashMap<Holder, u32>,
    next_ticket: u64,
    /// Interactive requests that began, ever.
    people: u64,
    /// A task was refused a place since the last notice that there may be room.
    refused: bool,
}

/// Whose request runs where.
type Holder = (ReplicaId, AccountId);

/// What is to begin.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Its class.
    pub class: Class,
    /// Upper bound of its prompt's tokens.
    pub prompt_bound: u64,
    /// Tokens of prompt and answer that it will take, roughly.
    pub expected: u64,
    /// How its prompt begins, where that is long enough for a server's cache to matter.
    pub beginning: Option<u64>,
    /// The batch task that it is an attempt of.
    pub task: Option<TaskId>,
    /// Whether its first byte will not be seen: see [`Running::unseen`].
    pub unseen: bool,
    /// Who pays.
    pub account: AccountId,
}

impl Work {
    /// As model servers tell callers apart.
    fn asker(&self, last_resort: bool) -> Asker {
        let id = self.account.uuid().as_u128();
        // Either half of an id alone may be the same for accounts that were made together.
        let account = (id as u64) ^ ((id >> 64) as u64);
        Asker { account, urgent: self.class == Class::Interactive, last_resort }
    }
}

/// A request in flight, as the scheduler knows it. Dropped without an outcome, it counts as cancelled.
pub struct Running {
    dispatcher: Arc<Dispatcher>,
    ticket: Ticket,
    done: bool,
    began: Instant,
    /// Where it runs.
    pub replica: Arc<Replica>,
    /// The model that a task runs on there, where that is not the one that it asks for.
    pub(crate) instead: Option<Arc<Model>>,
    /// Whose it is, to the model server's breaker.
    pub(crate) asker: Asker,
    /// Fires when interactive work needs its place; only that of work which waits can be needed.
    preempted: Option<CancellationToken>,
}

impl Dispatcher {
    /// A dispatcher for these upstreams. Of what a replica with known slots takes of people's requests, one account may
    /// have so many percent, 1 to 100, while it is alone; see [`ShareLimits`].
    ///
    /// [`ShareLimits`]: batchin_shares::ShareLimits
    pub fn start(
        fleet: &Fleet,
        (policy, most_percent): (Policy, u64),
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let state = State {
            scheduler: Scheduler::new(policy),
            affinity: Affinity::default(),
            ids: HashMap::new(),
            cancels: HashMap::new(),
            holders: HashMap::new(),
            held: HashMap::new(),
            next_ticket: 0,
            people: 0,
            refused: false,
        };
        let dispatcher = Arc::new(Self {
            state: Mutex::new(state),
            most_percent,
            clock,
            room: Notify::new(),
            lines: Arc::default(),
        });
        dispatcher.set_replicas(fleet);
        let ticking = Arc::clone(&dispatcher);
        tasks.spawn("scheduler_ticks", move |stop| async move { ticking.tick(stop).await });
        dispatcher
    }

    /// Takes over the upstreams after a reload, and those that are leaving.
    pub fn set_replicas(&self, fleet: &Fleet) {
        let mut state = self.lock();
        let mut specs = Vec::new();
        for replica in fleet.replicas().into_iter().chain(fleet.leaving()) {
            let next = ReplicaId(u32::try_from(state.ids.len()).unwrap_or(u32::MAX));
            let id = *state.ids.entry(replica.name().to_owned()).or_insert(next);
            specs.push(ReplicaSpec {
                id,
                slots: replica.config().slots,
                cpu: replica.kind().shares_processor,
                cancels: replica.kind().stops_when_left,
            });
        }
        let now = self.clock.now();
        state.scheduler.set_replicas(specs, now);
    }

    /// Picks a replica and starts on it, in one step.
    pub fn begin(self: &Arc<Self>, candidates: &[Arc<Replica>], work: Work) -> Result<Running, Gate> {
        let Work { class, prompt_bound, expected, beginning, task, unseen, account } = work;
        let mut state = self.lock();
        let now = self.clock.now();
        let prompt_bound = u32::try_from(prompt_bound).unwrap_or(u32::MAX);
        let picked = state.pick(candidates, (work, prompt_bound), self.most_percent, now);
        state.refused |= picked.is_err() && task.is_some();
        let (chosen, last_resort) = picked?;
        let replica = candidates.iter().find(|replica| state.ids.get(replica.name()) == Some(&chosen));
        let replica = replica.map(Arc::clone).ok_or(Gate::Unavailable)?;
        let ticket = Ticket(state.next_ticket);
        state.next_ticket += 1;
        let preempted = (task.is_some() || class == Class::Fill).then(CancellationToken::new);
        if let Some(preempted) = &preempted {
            state.cancels.insert(ticket, preempted.clone());
        }
        if class == Class::Interactive {
            state.hold(ticket, (chosen, account));
        }
        let expected = u32::try_from(expected).unwrap_or(u32::MAX);
        let start = Start { ticket, replica: chosen, class, prompt_bound, expected, task };
        if let Some(beginning) = beginning {
            state.affinity.note(beginning, chosen);
        }
        for event in std::iter::once(Event::Started(start)).chain(unseen.then_some(Event::Unseen(ticket))) {
            let actions = state.scheduler.apply(event, now);
            carry_out(&state, &actions);
        }
        drop(state);
        let asker = work.asker(last_resort);
        Ok(Running {
            dispatcher: Arc::clone(self),
            ticket,
            done: false,
            began: Instant::now(),
            instead: None,
            replica,
            asker,
            preempted,
        })
    }

    /// When the first of these upstreams may take it, as far as they say.
    pub(crate) fn pause(candidates: &[Arc<Replica>], work: Work) -> Option<Duration> {
        candidates.iter().filter_map(|replica| replica.pause(work.asker(true))).min()
    }

    /// Whether one of these upstreams is there for it, however busy.
    pub(crate) fn is_one_up(candidates: &[Arc<Replica>], work: Work) -> bool {
        candidates.iter().any(|replica| replica.standing(work.asker(false)) != Standing::Refuses)
    }

    /// Who waits for a gate to open while a client waits.
    pub(crate) fn lines(&self) -> &Arc<Lines> {
        &self.lines
    }

    /// How many requests are under way at an upstream of this name. Whatever began before this looks is counted, since a
    /// request begins in one step with the look at whether its server takes it.
    pub fn outstanding(&self, upstream: &str) -> u64 {
        let state = self.lock();
        let view = state.ids.get(upstream).and_then(|id| state.scheduler.view(*id, self.clock.now()));
        view.map_or(0, |view| view.in_flight.into_iter().map(u64::from).sum())
    }

    /// How many requests stand in line while their clients wait.
    pub fn waiting(&self) -> usize {
        self.lines.waiting()
    }

    /// How many interactive requests began on this node, ever, and whether one is in flight.
    pub fn people(&self) -> (u64, bool) {
        let state = self.lock();
        (state.people, !state.holders.is_empty())
    }

    /// Waits until a gate that refused a task may have opened.
    pub async fn room(&self) {
        self.room.notified().await;
    }

    /// Tells of what happened, all of it now.
    fn apply<const N: usize>(&self, events: [Event; N]) {
        let mut state = self.lock();
        let now = self.clock.now();
        for event in events {
            let actions = state.scheduler.apply(event, now);
            carry_out(&state, &actions);
            if let Event::Done { ticket, .. } = event {
                state.cancels.remove(&ticket);
                state.give_back(ticket);
            }
        }
        // Requests in flight make thousands of events a second; who was not refused is not to look at any of them.
        let matters = |event: &Event| !matches!(event, Event::Chunk { .. });
        let matters = events.iter().any(matters);
        let may_open = matters && std::mem::take(&mut state.refused);
        drop(state);
        if matters {
            self.lines.wake();
        }
        if may_open {
            self.room.notify_one();
        }
    }

    async fn tick(&self, stop: CancellationToken) {
        loop {
            let wait = {
                let state = self.lock();
                let now = self.clock.now();
                state.scheduler.next_deadline(now).map_or(LONGEST_SLEEP, |at| at.since(now).min(LONGEST_SLEEP))
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait.max(SHORTEST_SLEEP))).await.is_none() {
                return;
            }
            self.apply([Event::Tick]);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Chooses one of these upstreams, and one that only serves where no other does when no other does. Whether it is
    /// such a one.
    fn pick(
        &mut self,
        candidates: &[Arc<Replica>],
        (work, prompt_bound): (Work, u32),
        most_percent: u64,
        now: Timestamp,
    ) -> Result<(ReplicaId, bool), Gate> {
        let asker = work.asker(false);
        let expected = u32::try_from(work.expected).unwrap_or(u32::MAX);
        let near = work.beginning.and_then(|beginning| self.affinity.of(beginning));
        let near = near.map(|replica| Near { replica, expected });
        let known: Vec<(ReplicaId, Standing)> = candidates
            .iter()
            .filter_map(|replica| Some((*self.ids.get(replica.name())?, replica.standing(asker))))
            .collect();
        let mut closed = Gate::Unavailable;
        for level in [Standing::Takes, Standing::LastResort] {
            if !known.iter().any(|(_, standing)| *standing == level) {
                continue;
            }
            for (id, standing) in &known {
                self.scheduler.set_available(*id, *standing == level);
            }
            let has_part =
                |id: &ReplicaId| work.class == Class::Interactive && self.has_part((*id, work.account), most_percent);
            let open = known.iter().map(|(id, _)| *id).filter(|id| !has_part(id));
            match self.scheduler.pick_near(open, (work.class, prompt_bound), near, now) {
                Ok(chosen) => return Ok((chosen, level == Standing::LastResort)),
                Err(Gate::Unavailable) if known.iter().any(|(id, at)| *at == level && has_part(id)) => {
                    closed = Gate::Slots;
                }
                Err(gate) => closed = gate,
            }
        }
        Err(closed)
    }

    /// Whether an account has as much of a replica's room as it may, by the rule of [`batchin_shares::Shares`]: many answers of
    /// minutes must leave the next account's a place.
    fn has_part(&self, holder: Holder, most_percent: u64) -> bool {
        let Some(&held) = self.held.get(&holder) else { return false };
        let Some(room) = self.scheduler.room(holder.0) else { return false };
        let free = u64::from(room.saturating_sub(1));
        (u64::from(held) + 1) * (100 - most_percent.min(100)) > free * most_percent
    }

    fn hold(&mut self, ticket: Ticket, holder: Holder) {
        self.people = self.people.wrapping_add(1);
        self.holders.insert(ticket, holder);
        *self.held.entry(holder).or_default() += 1;
    }

    fn give_back(&mut self, ticket: Ticket) {
        let Some(holder) = self.holders.remove(&ticket) else { return };
        if let Entry::Occupied(mut held) = self.held.entry(holder) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

fn carry_out(state: &State, actions: &[Action]) {
    for Action::Cancel(ticket) in actions {
        if let Some(cancel) = state.cancels.get(ticket) {
            cancel.cancel();
        }
    }
}

impl Running {
    /// Wall-clock time.
    pub(crate) fn now(&self) -> Timestamp {
        self.dispatcher.clock.now()
    }

    /// The first byte arrived.
    pub fn first_byte(&self) {
        self.dispatcher.apply([Event::FirstByte(self.ticket)]);
    }

    /// Its answer will come in one piece, and its first byte will not be seen.
    pub fn unseen(&self) {
        self.dispatcher.apply([Event::Unseen(self.ticket)]);
    }

    /// Tells what a burst of a stream showed.
    pub(crate) fn paced_by(&self, step: Option<Step>) {
        if let Some(Step { gap, tokens }) = step {
            self.dispatcher.apply([Event::Chunk { ticket: self.ticket, gap, tokens }]);
        }
    }

    /// Waits until interactive work needs its place.
    pub(crate) async fn preempted(&self) {
        match &self.preempted {
            Some(preempted) => preempted.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// It ended well, with an answer that was not streamed. The time between its tokens is told as its mean: enough
    /// evidence for one control decision.
    pub(crate) fn finish_whole(mut self, tokens: u64) {
        const EVIDENCE: u32 = 3;
        self.done = true;
        let (ticket, elapsed) = (self.ticket, self.began.elapsed());
        let done = Event::Done { ticket, outcome: Outcome::Ok };
        match u32::try_from(tokens) {
            Ok(count) if count >= EVIDENCE => {
                let chunk = Event::Chunk { ticket, gap: Some(elapsed / count), tokens: 1 };
                self.dispatcher.apply([chunk, chunk, chunk, done]);
            }
            Ok(_) | Err(_) => self.dispatcher.apply([done]),
        }
    }

    /// It ended.
    pub fn finish(mut self, outcome: Outcome) {
        self.done = true;
        self.dispatcher.apply([Event::Done { ticket: self.ticket, outcome }]);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            self.dispatcher.apply([Event::Done { ticket: self.ticket, outcome: Outcome::Cancelled }]);
        }
    }
}
