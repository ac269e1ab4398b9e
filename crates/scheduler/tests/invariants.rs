//! What holds after any sequence of events.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy only excuses the test functions themselves, not their helpers"
)]

use std::{collections::BTreeMap, time::Duration};

use batchin_domain::{Class, TaskId, Timestamp};
use batchin_scheduler::{Action, Event, Outcome, Policy, ReplicaId, ReplicaSpec, Scheduler, Start, Ticket};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait { ms: u64 },
    Try { replica: u32, class: Class, prompt: u32 },
    Unseen { nth: usize },
    FirstByte { nth: usize },
    Chunk { nth: usize, gap_ms: u64, tokens: u32 },
    Done { nth: usize, outcome: Outcome },
    Available { replica: u32, available: bool },
    Reload,
    Tick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = prop::sample::select(Class::ALL.to_vec());
    let outcome = prop::sample::select(vec![
        Outcome::Ok,
        Outcome::Overloaded { retry_after: None },
        Outcome::Timeout,
        Outcome::Failed,
        Outcome::Cancelled,
    ]);
    let step = prop_oneof![
        3 => (0u64..400).prop_map(|ms| Step::Wait { ms }),
        8 => (0u32..3, class, 1u32..2_000).prop_map(|(replica, class, prompt)| Step::Try { replica, class, prompt }),
        1 => (0usize..50).prop_map(|nth| Step::Unseen { nth }),
        5 => (0usize..50).prop_map(|nth| Step::FirstByte { nth }),
        6 => (0usize..50, 1u64..200, 0u32..4).prop_map(|(nth, gap_ms, tokens)| Step::Chunk { nth, gap_ms, tokens }),
        4 => (0usize..50, outcome).prop_map(|(nth, outcome)| Step::Done { nth, outcome }),
        1 => (0u32..3, prop::bool::weighted(0.8))
            .prop_map(|(replica, available)| Step::Available { replica, available }),
        1 => Just(Step::Reload),
        2 => Just(Step::Tick),
    ];
    prop::collection::vec(step, 1..400)
}

/// Replica 2's slots are unknown.
const SLOTS: [Option<u32>; 3] = [Some(4), Some(40), None];

fn specs() -> Vec<ReplicaSpec> {
    let spec = |id: u32| ReplicaSpec { id: ReplicaId(id), slots: SLOTS[id as usize], cpu: id == 0, cancels: true };
    (0..3).map(spec).collect()
}

#[derive(Clone, Copy)]
struct Running {
    replica: u32,
    class: Class,
    prompt: u32,
    first_byte: bool,
    unseen: bool,
    cancelled: bool,
}

/// An independent, naive account of what is in flight.
struct World {
    scheduler: Scheduler,
    running: BTreeMap<u64, Running>,
    now: Timestamp,
    next: u64,
    available: [bool; 3],
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_seconds(1_000_000);
        let mut scheduler = Scheduler::new(Policy { initial_limit: 8, ..Policy::default() });
        scheduler.set_replicas(specs(), now);
        Self { scheduler, running: BTreeMap::new(), now, next: 0, available: [true; 3] }
    }

    fn on(&self, replica: u32) -> impl Iterator<Item = &Running> {
        self.running.values().filter(move |one| one.replica == replica)
    }

    fn nth(&self, nth: usize) -> Option<u64> {
        self.running.keys().nth(nth % self.running.len().max(1)).copied()
    }

    fn apply(&mut self, event: Event) -> Result<(), TestCaseError> {
        for action in self.scheduler.apply(event, self.now) {
            let Action::Cancel(Ticket(ticket)) = action;
            let victim = self.running.get_mut(&ticket).expect("only what runs is cancelled");
            prop_assert_eq!(victim.class, Class::Fill);
            prop_assert!(!victim.cancelled, "cancelled twice");
            victim.cancelled = true;
        }
        Ok(())
    }

    fn try_start(&mut self, replica: u32, class: Class, prompt: u32) -> Result<(), TestCaseError> {
        let id = ReplicaId(replica);
        let verdict = self.scheduler.may_start(id, class, prompt, self.now);
        prop_assert_eq!(verdict.is_ok(), self.scheduler.pick([id], class, prompt, self.now) == Ok(id));
        if verdict.is_err() {
            return Ok(());
        }
        prop_assert!(self.available[replica as usize], "G5");
        let (total, slots) = (self.on(replica).count() as u32, SLOTS[replica as usize]);
        if class == Class::Interactive {
            prop_assert!(slots.is_none_or(|slots| total < 4 * slots));
        } else {
            let reserve = slots.map(|slots| (slots * 6).div_ceil(100).max(1));
            prop_assert!(slots.zip(reserve).is_none_or(|(slots, reserve)| total < slots - reserve), "G4");
        }
        if matches!(class, Class::Low | Class::Fill) {
            let urgent = |one: &&Running| {
                !one.first_byte && !one.unseen && matches!(one.class, Class::Interactive | Class::High)
            };
            prop_assert_eq!(self.on(replica).filter(urgent).count(), 0, "G1");
            let budget = if replica == 0 { 256 } else { 1_024 };
            let ahead =
                |one: &&Running| !one.first_byte && !one.unseen && matches!(one.class, Class::Low | Class::Fill);
            let waiting: u32 = self.on(replica).filter(ahead).map(|one| one.prompt).sum();
            prop_assert!(waiting == 0 || waiting + prompt <= budget, "G2");
        }
        let ticket = self.next;
        self.next += 1;
        self.running
            .insert(ticket, Running { replica, class, prompt, first_byte: false, unseen: false, cancelled: false });
        let task = Some(TaskId::new(uuid::Uuid::from_u128(u128::from(ticket % 7))));
        self.apply(Event::Started(Start {
            ticket: Ticket(ticket),
            replica: id,
            class,
            prompt_bound: prompt,
            expected: 1,
            task,
        }))
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Wait { ms } => self.now = self.now.after(Duration::from_millis(ms)),
            Step::Try { replica, class, prompt } => self.try_start(replica, class, prompt)?,
            Step::Unseen { nth } => {
                let Some(ticket) = self.nth(nth) else { return Ok(()) };
                let one = self.running.get_mut(&ticket).unwrap();
                one.unseen |= !one.first_byte;
                self.apply(Event::Unseen(Ticket(ticket)))?;
            }
            Step::FirstByte { nth } => {
                let Some(ticket) = self.nth(nth) else { return Ok(()) };
                self.running.get_mut(&ticket).unwrap().first_byte = true;
                self.apply(Event::FirstByte(Ticket(ticket)))?;
            }
            Step::Chunk { nth, gap_ms, tokens } => {
                let Some(ticket) = self.nth(nth) else { return Ok(()) };
                self.running.get_mut(&ticket).unwrap().first_byte = true;
                let gap = (gap_ms > 5).then(|| Duration::from_millis(gap_ms));
                self.apply(Event::Chunk { ticket: Ticket(ticket), gap, tokens })?;
            }
            Step::Done { nth, outcome } => {
                let Some(ticket) = self.nth(nth) else { return Ok(()) };
                self.running.remove(&ticket);
                self.apply(Event::Done { ticket: Ticket(ticket), outcome })?;
                self.apply(Event::Done { ticket: Ticket(ticket), outcome: Outcome::Cancelled })?;
            }
            Step::Available { replica, available } => {
                self.available[replica as usize] = available;
                self.scheduler.set_available(ReplicaId(replica), available);
            }
            Step::Reload => self.scheduler.set_replicas(specs(), self.now),
            Step::Tick => self.apply(Event::Tick)?,
        }
        self.check()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for replica in 0..3 {
            let view = self.scheduler.view(ReplicaId(replica), self.now).unwrap();
            for class in Class::ALL {
                let of_class = || self.on(replica).filter(|one| one.class == class);
                prop_assert_eq!(view.in_flight[class.index()] as usize, of_class().count());
                let waiting = of_class().filter(|one| !one.first_byte).count();
                let surely = of_class().filter(|one| !one.first_byte && !one.unseen).count();
                prop_assert!((surely..=waiting).contains(&(view.waiting[class.index()] as usize)));
            }
            prop_assert!(view.limits.iter().all(|limit| *limit >= 1));
            if let Some(slots) = SLOTS[replica as usize] {
                prop_assert!(view.in_flight[Class::Fill.index()] < slots, "fill leaves the reserve");
            }
        }
        let deadline = self.scheduler.next_deadline(self.now);
        prop_assert!(deadline.is_none_or(|at| at > self.now), "a driver never spins");
        let just_before =
            deadline.map_or(self.now.after(Duration::from_secs(3_600)), |at| Timestamp::from_micros(at.micros() - 1));
        for (replica, class) in (0..3).flat_map(|replica| Class::ALL.map(|class| (ReplicaId(replica), class))) {
            let verdict = |at| self.scheduler.may_start(replica, class, 100, at);
            prop_assert_eq!(verdict(self.now), verdict(just_before), "time opens a gate only at the deadline");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn gates_hold_and_counts_are_true(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step)?;
        }
        while let Some(ticket) = world.nth(0) {
            world.running.remove(&ticket);
            world.apply(Event::Done { ticket: Ticket(ticket), outcome: Outcome::Ok })?;
        }
        for replica in 0..3 {
            let view = world.scheduler.view(ReplicaId(replica), world.now).unwrap();
            prop_assert_eq!((view.in_flight, view.waiting, view.batch_prompt_waiting), ([0; 4], [0; 4], 0));
        }
    }
}
