//! Holds: one upstream replica: what is in flight there, its gates and its limits.

mod gates;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use batchin_domain::{Class, TaskId, Timestamp};

use crate::{
    Outcome, Policy, ReplicaSpec, Start, Ticket,
    baseline::Baseline,
    cool_down::CoolDown,
    first_bytes::FirstBytes,
    limit::{CUT_OVERLOADED, CUT_SLOW, Limit},
    window::Window,
};

/// A replica's figures, for metrics and tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// Requests in flight, by [`Class::index`].
    pub in_flight: [u32; 4],
    /// Of those, without a first byte yet.
    pub waiting: [u32; 4],
    /// Prompt tokens of low and fill work without a first byte.
    pub batch_prompt_waiting: u64,
    /// Limits in force for high, low and fill; high is bound by it only where the slots are unknown.
    pub limits: [u32; 3],
    /// Whether it is in service.
    pub available: bool,
    /// Whether it asked for a pause that is not over.
    pub cooling: bool,
}

/// One request in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    pub class: Class,
    pub task: Option<TaskId>,
    pub started: Timestamp,
    pub first_byte: bool,
    pub tokens: u64,
    /// Its cancellation was asked for and has not been confirmed.
    pub cancelling: bool,
    prompt_bound: u32,
    expected: u32,
    /// Its first byte will not be seen; from here on it counts as had.
    unseen_until: Option<Timestamp>,
    /// A stream's first gap holds the rest of its prefill and does not count.
    past_first_gap: bool,
}

#[derive(Debug)]
pub(crate) struct Replica {
    pub spec: ReplicaSpec,
    pub available: bool,
    /// Still in the configuration; an unlisted one only waits for what it has in flight.
    pub listed: bool,
    pub flights: BTreeMap<Ticket, Flight>,
    /// Interactive requests without a first byte, oldest first.
    pub impatient: BTreeSet<(Timestamp, Ticket)>,
    /// Tokens that are expected of what is in flight, each request at least one.
    pub outstanding: u64,
    /// Requests to cancel that have not ended.
    pub cancelling: u32,
    /// When it last began something, in the scheduler's count of starts: rotates among equals.
    pub last_start: u64,
    in_flight: [u32; 4],
    /// Without a first byte, as far as one will be seen.
    waiting: [u32; 4],
    batch_prompt_waiting: u64,
    /// Requests whose first byte will not be seen, by the time from which it counts as had, with their class and prompt.
    unseen: BTreeMap<(Timestamp, Ticket), (Class, u32)>,
    first_bytes: FirstBytes,
    last_interactive: Option<Timestamp>,
    cool_down: CoolDown,
    baseline: Baseline,
    measuring: Option<Timestamp>,
    window: Window,
    /// While no interactive request is about, and while one is.
    limits: [Limits; 2],
}

/// One limit each for high, low and fill.
#[derive(Debug)]
struct Limits([Limit; 3]);

/// Long enough for running batch tasks to end and for 20 tokens after that.
const MEASURE_FOR: Duration = Duration::from_secs(30);
/// Between two measurements: an engine that gave no gaps to measure is not held idle for more than a seventh of the time.
const MEASURE_AGAIN: Duration = Duration::from_secs(180);
/// The classes that have a limit.
const LIMITED: [Class; 3] = [Class::High, Class::Low, Class::Fill];

impl Replica {
    pub fn new(spec: ReplicaSpec, policy: &Policy, now: Timestamp) -> Self {
        let limits = || Limits(std::array::from_fn(|_| Limit::new(policy.initial_limit)));
        let mut replica = Self {
            spec,
            available: true,
            listed: true,
            flights: BTreeMap::new(),
            impatient: BTreeSet::new(),
            outstanding: 0,
            cancelling: 0,
            last_start: 0,
            in_flight: [0; 4],
            waiting: [0; 4],
            batch_prompt_waiting: 0,
            unseen: BTreeMap::new(),
            first_bytes: FirstBytes::default(),
            last_interactive: None,
            cool_down: CoolDown::default(),
            baseline: Baseline::default(),
            measuring: None,
            window: Window::new(now.after(policy.control_interval), [0; 4]),
            limits: [limits(), limits()],
        };
        replica.configure(spec, policy);
        replica
    }

    /// Takes over a changed description; what was learned and what is in flight stay.
    pub fn configure(&mut self, spec: ReplicaSpec, policy: &Policy) {
        self.spec = ReplicaSpec { slots: spec.slots.filter(|slots| *slots > 0), ..spec };
        self.listed = true;
        let ceiling = self.ceiling(policy);
        self.limits.iter_mut().flat_map(|limits| &mut limits.0).for_each(|limit| limit.cap(ceiling));
    }

    pub fn total(&self) -> u32 {
        self.in_flight.iter().sum()
    }

    pub fn fill_in_flight(&self) -> u32 {
        self.in_flight[Class::Fill.index()]
    }

    pub fn view(&self, policy: &Policy, now: Timestamp) -> ReplicaView {
        ReplicaView {
            in_flight: self.in_flight,
            waiting: std::array::from_fn(|class| self.waiting[class] + self.unseen_waiting(class, now)),
            batch_prompt_waiting: self.batch_prompt_waiting(now),
            limits: LIMITED.map(|class| self.limit(class, policy, now)),
            available: self.available && self.listed,
            cooling: self.cooling(now),
        }
    }

    pub fn started(&mut self, start: &Start, policy: &Policy, now: Timestamp) {
        // Short tasks may all have ended before a decision was due; what they showed still counts.
        self.control(policy, now);
        let class = start.class.index();
        self.in_flight[class] += 1;
        self.waiting[class] += 1;
        match start.class {
            Class::Interactive => {
                self.last_interactive = Some(now);
                self.impatient.insert((now, start.ticket));
            }
            Class::Low | Class::Fill => self.batch_prompt_waiting += u64::from(start.prompt_bound),
            Class::High => {}
        }
        self.window.peak[class] = self.window.peak[class].max(self.in_flight[class]);
        self.note_used_up(policy, now);
        let flight = Flight {
            class: start.class,
            task: start.task,
            started: now,
            first_byte: false,
            tokens: 0,
            cancelling: false,
            prompt_bound: start.prompt_bound,
            expected: start.expected.max(1),
            unseen_until: None,
            past_first_gap: false,
        };
        self.outstanding += u64::from(flight.expected);
        self.flights.insert(start.ticket, flight);
    }

    /// The first byte of this request will not be seen. What it would have shown is taken from others: an interactive
    /// answer of a minute must not stop batch work for a minute.
    pub fn unseen(&mut self, ticket: Ticket) {
        let wait = self.first_bytes.nearly_all();
        let Some(flight) = self.flights.get_mut(&ticket) else { return };
        if flight.first_byte || flight.unseen_until.is_some() {
            return;
        }
        let until = flight.started.after(wait);
        flight.unseen_until = Some(until);
        let (class, prompt) = (flight.class, flight.prompt_bound);
        self.unseen.insert((until, ticket), (class, prompt));
        self.waiting[class.index()] -= 1;
        if is_batch(class) {
            self.batch_prompt_waiting -= u64::from(prompt);
        }
    }

    pub fn first_byte(&mut self, ticket: Ticket, now: Timestamp) {
        let Some(flight) = self.flights.get_mut(&ticket).filter(|flight| !flight.first_byte) else { return };
        flight.first_byte = true;
        if flight.unseen_until.is_none() {
            self.first_bytes.record(now.since(flight.started));
        }
        self.stop_waiting(ticket);
    }

    pub fn chunk(&mut self, ticket: Ticket, (gap, tokens): (Option<Duration>, u32), now: Timestamp) {
        self.first_byte(ticket, now);
        let Some(flight) = self.flights.get_mut(&ticket) else { return };
        flight.tokens = flight.tokens.saturating_add(u64::from(tokens));
        let counts = std::mem::replace(&mut flight.past_first_gap, true);
        let Some(gap) = gap.filter(|_| counts) else { return };
        let gap = gap / tokens.max(1);
        self.window.gap(gap);
        if self.in_flight[Class::Low.index()] + self.in_flight[Class::Fill.index()] == 0 {
            self.baseline.record(self.load(), gap);
        }
    }

    /// `None` when nothing by that name is in flight.
    pub fn done(&mut self, ticket: Ticket, outcome: Outcome, policy: &Policy, now: Timestamp) -> Option<Flight> {
        if self.flights.get(&ticket).is_some_and(|flight| !flight.first_byte) {
            self.stop_waiting(ticket);
        }
        let flight = self.flights.remove(&ticket)?;
        self.in_flight[flight.class.index()] -= 1;
        self.outstanding -= u64::from(flight.expected);
        self.cancelling -= u32::from(flight.cancelling);
        if flight.class == Class::Interactive {
            self.last_interactive = Some(now);
        }
        match outcome {
            Outcome::Ok => {
                self.window.completed();
                self.cool_down.answered();
            }
            Outcome::Overloaded { retry_after } => {
                self.cut_once(CUT_OVERLOADED, policy, now);
                self.cool_down.begin(retry_after, policy, now);
            }
            Outcome::Timeout => self.cut_once(CUT_OVERLOADED, policy, now),
            Outcome::Failed | Outcome::Cancelled => {}
        }
        Some(flight)
    }

    /// Reconsiders the limits when it is time and there is evidence.
    pub fn control(&mut self, policy: &Policy, now: Timestamp) {
        if now < self.window.due {
            return;
        }
        self.window.due = now.after(policy.control_interval);
        let window = &self.window;
        if !window.has_evidence() && !window.cut {
            return;
        }
        let (mean, ceiling) = (window.mean_gap(), self.ceiling(policy));
        for (at, class) in LIMITED.into_iter().enumerate() {
            let slow = mean.zip(self.target(class, policy, now)).is_some_and(|(mean, target)| mean > target);
            let (peak, used_up) = (self.window.peak[class.index()], self.window.used_up[class.index()]);
            let cut = self.window.cut;
            let limit = &mut self.limits_mut(policy, now).0[at];
            if slow && peak > 0 && !cut {
                limit.cut(CUT_SLOW, peak);
            } else if used_up && !slow && !cut {
                limit.grow(ceiling);
            }
        }
        if self.gap_unexplained(mean, policy, now) {
            self.measuring = Some(now.after(MEASURE_FOR));
        }
        self.window = Window::new(self.window.due, self.in_flight);
        self.note_used_up(policy, now);
    }

    /// Tokens are slow, and it is unknown whether they would be without batch work: without a look at the replica
    /// alone, a slow engine would never run more than one batch task.
    fn gap_unexplained(&self, mean: Option<Duration>, policy: &Policy, now: Timestamp) -> bool {
        let slow = mean.zip(self.target(Class::Fill, policy, now)).is_some_and(|(mean, target)| mean > target);
        let recently = self.measuring.is_some_and(|until| now < until.after(MEASURE_AGAIN));
        slow && !recently && policy.objective(Class::Fill).is_none() && self.baseline.median(self.load()).is_none()
    }

    /// Low and fill work holds back so that the gap without it can be seen.
    fn measuring(&self, now: Timestamp) -> bool {
        self.measuring.is_some_and(|until| now < until)
            && self.load() > 0
            && self.baseline.median(self.load()).is_none()
    }

    /// When time alone may change something here, strictly after `now`.
    pub fn next_deadline(&self, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
        let control = (self.batch_in_flight() > 0).then_some(self.window.due.max(now.after(Duration::from_micros(1))));
        let oldest = self.impatient.first().filter(|_| self.fill_in_flight() > 0);
        let preempt = oldest.map(|(since, _)| since.after(policy.patience(self.spec.slots)));
        let linger = self.last_interactive.map(|at| at.after(policy.linger));
        let times = [control, preempt, linger, self.measuring, self.cool_down.until()];
        let unseen = self.unseen.keys().map(|(until, _)| *until).find(|until| *until > now);
        times.into_iter().chain([unseen]).flatten().filter(|at| *at > now).min()
    }

    fn batch_in_flight(&self) -> u32 {
        self.total() - self.in_flight[Class::Interactive.index()]
    }

    /// Requests that are not there to be disturbed by.
    fn load(&self) -> u32 {
        self.in_flight[Class::Interactive.index()] + self.in_flight[Class::High.index()]
    }

    fn stop_waiting(&mut self, ticket: Ticket) {
        let Some(flight) = self.flights.get(&ticket) else { return };
        let class = flight.class;
        self.impatient.remove(&(flight.started, ticket));
        match flight.unseen_until {
            Some(until) => {
                self.unseen.remove(&(until, ticket));
            }
            None => {
                self.waiting[class.index()] -= 1;
                if is_batch(class) {
                    self.batch_prompt_waiting -= u64::from(flight.prompt_bound);
                }
            }
        }
    }

    /// Those whose first byte will not be seen and may not have come yet.
    fn unseen_now(&self, now: Timestamp) -> impl Iterator<Item = (Class, u32)> {
        self.unseen.iter().rev().take_while(move |((until, _), _)| now < *until).map(|(_, seen)| *seen)
    }

    fn unseen_waiting(&self, class: usize, now: Timestamp) -> u32 {
        self.unseen_now(now).filter(|(of, _)| of.index() == class).map(|_| 1).sum()
    }

    /// Prompt tokens of low and fill work without a first byte.
    fn batch_prompt_waiting(&self, now: Timestamp) -> u64 {
        let unseen = self.unseen_now(now).filter(|(class, _)| is_batch(*class)).map(|(_, prompt)| u64::from(prompt));
        self.batch_prompt_waiting + unseen.sum::<u64>()
    }

    /// Whether an interactive or high request waits for its first byte, or may do so unseen.
    fn urgent_waits(&self, now: Timestamp) -> bool {
        self.waiting[Class::Interactive.index()] + self.waiting[Class::High.index()] > 0
            || self.unseen_now(now).any(|(class, _)| !is_batch(class))
    }

    fn interactive_about(&self, policy: &Policy, now: Timestamp) -> bool {
        self.in_flight[Class::Interactive.index()] > 0
            || self.last_interactive.is_some_and(|at| now < at.after(policy.linger))
    }

    fn limit(&self, class: Class, policy: &Policy, now: Timestamp) -> u32 {
        let about = usize::from(self.interactive_about(policy, now));
        self.limits[about].0[class.index() - 1].whole()
    }

    fn limits_mut(&mut self, policy: &Policy, now: Timestamp) -> &mut Limits {
        let about = usize::from(self.interactive_about(policy, now));
        &mut self.limits[about]
    }

    /// The gap that `class` may cause. Without an objective and without a person about, none: a full machine is the aim.
    fn target(&self, class: Class, policy: &Policy, now: Timestamp) -> Option<Duration> {
        if class == Class::High {
            return None;
        }
        policy.objective(class).or_else(|| {
            let about = self.interactive_about(policy, now);
            about.then(|| Policy::learned_target(class, self.baseline.median(self.load())))
        })
    }

    fn ceiling(&self, policy: &Policy) -> u32 {
        self.spec.slots.map_or(policy.max_limit, |slots| policy.batch_slots(slots))
    }

    /// One cut a window, or the refusals of a single burst would take everything.
    fn cut_once(&mut self, factor: f64, policy: &Policy, now: Timestamp) {
        if std::mem::replace(&mut self.window.cut, true) {
            return;
        }
        let peak = self.window.peak;
        for (limit, class) in self.limits_mut(policy, now).0.iter_mut().zip(LIMITED) {
            limit.cut(factor, peak[class.index()]);
        }
    }

    fn note_used_up(&mut self, policy: &Policy, now: Timestamp) {
        for class in LIMITED {
            let reached = self.in_flight[class.index()] >= self.limit(class, policy, now);
            self.window.used_up[class.index()] |= reached;
        }
    }
}

/// Whether it is work that gives way.
fn is_batch(class: Class) -> bool {
    matches!(class, Class::Low | Class::Fill)
}
