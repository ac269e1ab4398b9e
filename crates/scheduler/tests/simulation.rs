//! The scheduler in front of a simulated engine with continuous batching, on a virtual clock.

#![expect(clippy::unwrap_used, reason = "clippy only excuses the test functions themselves, not their helpers")]

mod engine;

use std::{collections::HashMap, time::Duration};

use batchin_domain::{AccountId, Class, Priority, TaskId, Timestamp};
use batchin_scheduler::{
    Action, Entry, Event, Outcome, Policy, Queue, ReplicaId, ReplicaSpec, Scheduler, Start, Ticket, Verdict,
};
use engine::{Engine, Report, Speed};

const REPLICA: ReplicaId = ReplicaId(0);
const PROMPT: u32 = 400;
const OUTPUT: u32 = 120;

/// Who decides when fill work starts.
#[derive(Clone, Copy, PartialEq)]
enum Fill {
    Ours,
    /// As much as the slots hold.
    Static,
    Never,
}

#[derive(Debug, Default)]
struct Result {
    fill_tokens: u64,
    /// Time to first byte of each interactive request, sorted.
    ttft: Vec<Duration>,
    /// Mean time between the tokens of each interactive request, sorted.
    tpot: Vec<Duration>,
    limit: u32,
}

struct Run {
    engine: Engine,
    scheduler: Scheduler,
    queue: Queue<()>,
    now: Timestamp,
    fill: Fill,
    next: u64,
    people: Vec<(u64, Timestamp)>,
    /// Time that each interactive request has decoded.
    decoding: HashMap<u64, Duration>,
    result: Result,
}

impl Run {
    fn new(speed: Speed, fill: Fill) -> Self {
        let now = Timestamp::from_seconds(1_000_000);
        let mut scheduler = Scheduler::new(Policy::default());
        scheduler.set_replicas(
            vec![ReplicaSpec { id: REPLICA, slots: Some(speed.slots), cpu: speed.cpu, cancels: true }],
            now,
        );
        Self {
            engine: Engine::new(speed),
            scheduler,
            queue: Queue::new(),
            now,
            fill,
            next: 0,
            people: Vec::new(),
            decoding: HashMap::new(),
            result: Result::default(),
        }
    }

    fn apply(&mut self, event: Event) {
        for Action::Cancel(ticket) in self.scheduler.apply(event, self.now) {
            self.engine.cancel(ticket.0);
            self.apply(Event::Done { ticket, outcome: Outcome::Cancelled });
        }
    }

    fn start(&mut self, class: Class) {
        let ticket = self.next;
        self.next += 1;
        self.engine.push(ticket, class, PROMPT, OUTPUT);
        let task = Some(TaskId::new(uuid::Uuid::from_u128(u128::from(ticket))));
        let start = Start { ticket: Ticket(ticket), replica: REPLICA, class, prompt_bound: PROMPT, expected: 1, task };
        self.apply(Event::Started(start));
        if class == Class::Interactive {
            self.people.push((ticket, self.now));
        }
    }

    fn dispatch(&mut self) {
        let fill_entry = Entry {
            account: AccountId::new(uuid::Uuid::nil()),
            weight: 1,
            priority: Priority::Fill,
            cost: 640,
            latest_start: None,
        };
        loop {
            if self.queue.is_empty() {
                self.queue.push(fill_entry, ()).unwrap();
            }
            let (scheduler, now, engine, fill) = (&self.scheduler, self.now, &self.engine, self.fill);
            let popped = self.queue.pop_where(now, |(), class| match fill {
                Fill::Ours => {
                    scheduler.pick([REPLICA], class, PROMPT, now).map_or_else(Verdict::from, |_| Verdict::Start)
                }
                Fill::Static if engine.len() < engine.speed.slots as usize - 1 => Verdict::Start,
                Fill::Static | Fill::Never => Verdict::CloseClass,
            });
            if popped.is_none() {
                return;
            }
            self.start(Class::Fill);
        }
    }

    /// Runs for `length` with a person arriving every `every`.
    fn run(mut self, length: Duration, every: Option<Duration>) -> Result {
        let (begin, end) = (self.now, self.now.after(length));
        let mut arrival = every.map(|every| begin.after(every));
        while self.now < end {
            if self.scheduler.next_deadline(self.now).is_none_or(|at| at - self.now < Duration::from_millis(5)) {
                self.apply(Event::Tick);
            }
            while let Some(at) = arrival.filter(|at| *at <= self.now) {
                self.start(Class::Interactive);
                arrival = every.map(|every| at.after(every));
            }
            self.dispatch();
            let (took, reports) = self.engine.step();
            self.now = self.now.after(took);
            self.apply(Event::Tick);
            for report in reports {
                self.report(report, took);
            }
        }
        self.result.ttft.sort_unstable();
        self.result.tpot = self.decoding.into_values().map(|total| total / OUTPUT).collect();
        self.result.tpot.sort_unstable();
        self.result.limit = self.scheduler.view(REPLICA, self.now).unwrap().limits[2];
        self.result
    }

    fn report(&mut self, report: Report, took: Duration) {
        match report {
            Report::FirstByte(ticket) => {
                if let Ok(at) = self.people.binary_search_by_key(&ticket, |(ticket, _)| *ticket) {
                    self.result.ttft.push(self.now - self.people[at].1);
                }
                self.apply(Event::FirstByte(Ticket(ticket)));
            }
            Report::Token(ticket, class) => {
                match class {
                    Class::Interactive => *self.decoding.entry(ticket).or_default() += took,
                    _ => self.result.fill_tokens += 1,
                }
                self.apply(Event::Chunk { ticket: Ticket(ticket), gap: Some(took), tokens: 1 });
            }
            Report::Done(ticket) => self.apply(Event::Done { ticket: Ticket(ticket), outcome: Outcome::Ok }),
        }
    }
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

const ENGINES: [Speed; 3] = [Speed::GPU, Speed::SMALL_GPU, Speed::CPU];

#[test]
fn with_nobody_about_the_limit_uses_the_slots_within_thirty_seconds() {
    for speed in ENGINES {
        let warm = Run::new(speed, Fill::Ours).run(Duration::from_secs(30), None);
        let slots = Policy::default().batch_slots(speed.slots);
        assert!(warm.limit >= slots * 9 / 10, "{speed:?}: {} of {slots}", warm.limit);

        let tokens = |fill, secs| Run::new(speed, fill).run(Duration::from_secs(secs), None).fill_tokens;
        let ours = tokens(Fill::Ours, 90) - tokens(Fill::Ours, 30);
        let best = tokens(Fill::Static, 90) - tokens(Fill::Static, 30);
        assert!(ours * 10 >= best * 9, "{speed:?}: {ours} of {best} tokens in a minute");
    }
}

#[test]
fn people_hardly_notice_fill_work_and_it_gets_what_is_idle() {
    for (speed, every_ms) in [(Speed::GPU, 200), (Speed::SMALL_GPU, 1_000), (Speed::CPU, 20_000)] {
        let every = Some(Duration::from_millis(every_ms));
        let run = |fill, every| Run::new(speed, fill).run(Duration::from_secs(400), every);
        let (alone, ours, flood) = (run(Fill::Never, every), run(Fill::Ours, every), run(Fill::Static, every));
        let idle_machine = run(Fill::Static, None);
        let inflation = p99(&ours.ttft).as_secs_f64() / p99(&alone.ttft).as_secs_f64();
        let harvest = ours.fill_tokens as f64 / idle_machine.fill_tokens as f64;
        println!(
            "p99 ttft {:?} alone, {:?} ours (x{inflation:.2}), {:?} static; harvest {harvest:.2}, limit {}; p99 tpot {:?} alone, {:?} ours, {:?} static",
            p99(&alone.ttft),
            p99(&ours.ttft),
            p99(&flood.ttft),
            ours.limit,
            p99(&alone.tpot),
            p99(&ours.tpot),
            p99(&flood.tpot),
        );
        assert!(inflation <= 2.0, "{speed:?}: x{inflation:.2}");
        assert!(p99(&ours.ttft) < p99(&flood.ttft), "{speed:?}: no better than a static limit");
        assert!(p99(&ours.tpot).as_secs_f64() <= 2.1 * p99(&alone.tpot).as_secs_f64(), "{speed:?}");
        assert!(harvest >= 0.5, "{speed:?}: {harvest:.2}");
    }
}
