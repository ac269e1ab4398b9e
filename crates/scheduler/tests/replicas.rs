//! Gates, routing, limits and preemption, one rule a test.

use std::time::Duration;

use batchin_domain::{Class, TaskId, Timestamp};
use batchin_scheduler::{Action, Event, Gate, Near, Outcome, Policy, ReplicaId, ReplicaSpec, Scheduler, Start, Ticket};

const A: ReplicaId = ReplicaId(1);
const B: ReplicaId = ReplicaId(2);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_seconds(1_000_000).after(Duration::from_millis(ms))
}

fn spec(id: ReplicaId, slots: impl Into<Option<u32>>) -> ReplicaSpec {
    ReplicaSpec { id, slots: slots.into(), cpu: false, cancels: true }
}

fn scheduler(specs: impl IntoIterator<Item = ReplicaSpec>) -> Scheduler {
    let mut scheduler = Scheduler::new(Policy { initial_limit: 64, ..Policy::default() });
    scheduler.set_replicas(specs.into_iter().collect(), at(0));
    scheduler
}

fn start(scheduler: &mut Scheduler, ticket: u64, replica: ReplicaId, class: Class, ms: u64) -> Vec<Action> {
    let task = Some(TaskId::new(uuid::Uuid::from_u128(u128::from(ticket))));
    let start = Start { ticket: Ticket(ticket), replica, class, prompt_bound: 100, expected: 1, task };
    scheduler.apply(Event::Started(start), at(ms))
}

fn first_byte(scheduler: &mut Scheduler, ticket: u64, ms: u64) {
    assert!(scheduler.apply(Event::FirstByte(Ticket(ticket)), at(ms)).is_empty());
}

fn done(scheduler: &mut Scheduler, ticket: u64, outcome: Outcome, ms: u64) -> Vec<Action> {
    scheduler.apply(Event::Done { ticket: Ticket(ticket), outcome }, at(ms))
}

/// Starts requests that have had their first byte.
fn running(scheduler: &mut Scheduler, tickets: std::ops::Range<u64>, class: Class) {
    for ticket in tickets {
        start(scheduler, ticket, A, class, 0);
        first_byte(scheduler, ticket, 0);
    }
}

#[test]
fn interactive_goes_to_the_least_loaded_in_turn_and_is_refused_at_the_cap() {
    let mut s = scheduler([spec(A, 2), spec(B, 4)]);
    let mut hits = [0, 0];
    for ticket in 0..24 {
        let replica = s.route([A, B], at(0)).unwrap();
        hits[(replica.0 - 1) as usize] += 1;
        start(&mut s, ticket, replica, Class::Interactive, 0);
    }
    assert_eq!(hits, [8, 16], "four times the slots of each, evenly filled");
    assert_eq!(s.route([A, B], at(0)), None);
    assert_eq!(s.may_start(A, Class::Interactive, 1, at(0)), Err(Gate::Slots));
    done(&mut s, 0, Outcome::Ok, 1);
    assert!(s.route([A, B], at(1)).is_some());

    let mut equal = scheduler([spec(A, None), spec(B, None)]);
    let picked: Vec<u32> = (0..6)
        .map(|ticket| {
            let replica = equal.route([A, B], at(0)).unwrap();
            start(&mut equal, ticket, replica, Class::Interactive, 0);
            done(&mut equal, ticket, Outcome::Ok, 0);
            replica.0
        })
        .collect();
    assert_eq!(picked, [1, 2, 1, 2, 1, 2], "equals take turns");
}

#[test]
fn unavailable_excluded_and_unknown_replicas_get_nothing() {
    let mut s = scheduler([spec(A, None), spec(B, None)]);
    s.set_available(A, false);
    assert_eq!(s.route([A, B], at(0)), Some(B));
    assert_eq!(s.route([A], at(0)), None);
    assert_eq!(s.route([ReplicaId(9)], at(0)), None);
    assert_eq!(s.pick([A], Class::Fill, 1, at(0)), Err(Gate::Unavailable));
    s.set_available(A, true);
    assert_eq!(s.route([A], at(0)), Some(A));
}

#[test]
fn each_gate_closes_for_its_own_reason() {
    let mut s = scheduler([spec(A, 16)]);
    assert_eq!(s.may_start(A, Class::Fill, 1, at(0)), Ok(()));

    start(&mut s, 1, A, Class::High, 0);
    assert_eq!(s.may_start(A, Class::Fill, 1, at(0)), Err(Gate::FirstByte));
    assert_eq!(s.may_start(A, Class::Low, 1, at(0)), Err(Gate::FirstByte));
    assert_eq!(s.may_start(A, Class::High, 1, at(0)), Ok(()));
    first_byte(&mut s, 1, 0);

    start(&mut s, 2, A, Class::Low, 0);
    assert_eq!(s.may_start(A, Class::Fill, 924, at(0)), Ok(()));
    assert_eq!(s.may_start(A, Class::Fill, 925, at(0)), Err(Gate::Prompt));
    first_byte(&mut s, 2, 0);
    assert_eq!(s.may_start(A, Class::Fill, 100_000, at(0)), Ok(()), "an oversize prompt passes alone");

    running(&mut s, 3..16, Class::High);
    assert_eq!(s.may_start(A, Class::High, 1, at(0)), Err(Gate::Slots), "one slot is left for a person");
    assert_eq!(s.may_start(A, Class::Interactive, 1, at(0)), Ok(()));
}

#[test]
fn an_answer_in_one_piece_holds_batch_work_back_only_as_long_as_others_lately_waited() {
    let mut s = scheduler([spec(A, 16)]);
    for ticket in 0..40 {
        start(&mut s, ticket, A, Class::Fill, ticket * 1_000);
        first_byte(&mut s, ticket, ticket * 1_000 + 200);
        done(&mut s, ticket, Outcome::Ok, ticket * 1_000 + 900);
    }
    start(&mut s, 100, A, Class::Interactive, 50_000);
    assert!(s.apply(Event::Unseen(Ticket(100)), at(50_000)).is_empty());
    assert_eq!(s.may_start(A, Class::Fill, 1, at(50_190)), Err(Gate::FirstByte));
    let opens = s.next_deadline(at(50_000)).unwrap();
    assert!((at(50_195)..at(50_220)).contains(&opens), "the driver is woken then");
    assert_eq!(s.may_start(A, Class::Fill, 1, opens), Ok(()), "no more than others lately waited");
    start(&mut s, 101, A, Class::Interactive, 51_000);
    assert_eq!(s.may_start(A, Class::Fill, 1, at(59_000)), Err(Gate::FirstByte), "a stream tells by itself");
    first_byte(&mut s, 101, 59_000);
    done(&mut s, 100, Outcome::Ok, 90_000);
    let mut never_seen = scheduler([spec(A, 16)]);
    start(&mut never_seen, 1, A, Class::High, 0);
    let _ = never_seen.apply(Event::Unseen(Ticket(1)), at(0));
    assert_eq!(never_seen.may_start(A, Class::Low, 1, at(999)), Err(Gate::FirstByte));
    assert_eq!(never_seen.may_start(A, Class::Low, 1, at(1_000)), Ok(()));
    start(&mut never_seen, 2, A, Class::Fill, 2_000);
    let _ = never_seen.apply(Event::Unseen(Ticket(2)), at(2_000));
    assert_eq!(never_seen.may_start(A, Class::Fill, 1_000, at(2_999)), Err(Gate::Prompt));
    assert_eq!(never_seen.may_start(A, Class::Fill, 1_000, at(3_000)), Ok(()));
}

#[test]
fn a_cpu_engine_takes_fewer_prompt_tokens_and_a_single_slot_still_serves_batches() {
    let mut s = scheduler([ReplicaSpec { cpu: true, ..spec(A, 8) }, spec(B, 1)]);
    start(&mut s, 1, A, Class::Fill, 0);
    assert_eq!(s.may_start(A, Class::Fill, 156, at(0)), Ok(()));
    assert_eq!(s.may_start(A, Class::Fill, 157, at(0)), Err(Gate::Prompt));
    assert_eq!(s.may_start(B, Class::Fill, 157, at(0)), Ok(()));
}

#[test]
fn a_refusal_pauses_batch_work_halves_its_limit_and_backs_off() {
    let mut s = scheduler([spec(A, 64), spec(B, 64)]);
    running(&mut s, 0..41, Class::Fill);
    let refused = |retry_after| Outcome::Overloaded { retry_after };
    done(&mut s, 0, refused(None), 10);
    assert_eq!(s.may_start(A, Class::High, 1, at(1_009)), Err(Gate::Unavailable));
    done(&mut s, 1, refused(None), 20);
    assert_eq!(s.view(A, at(20)).unwrap().limits[2], 20, "one burst is one cut");
    assert!(s.apply(Event::Tick, at(600)).is_empty());
    assert_eq!(s.next_deadline(at(600)), Some(at(1_020)));
    assert_eq!(s.may_start(A, Class::High, 1, at(1_020)), Ok(()));
    assert_eq!(s.route([A, B], at(500)), Some(B), "people go elsewhere meanwhile");
    assert_eq!(s.route([A], at(500)), Some(A), "and stay where there is no other place");

    done(&mut s, 2, refused(None), 2_000);
    assert_eq!(s.may_start(A, Class::High, 1, at(3_999)), Err(Gate::Unavailable), "the second in a row pauses longer");
    assert_eq!(s.may_start(A, Class::High, 1, at(4_000)), Ok(()));
    done(&mut s, 3, refused(Some(Duration::from_secs(3_600))), 5_000);
    assert_eq!(s.may_start(A, Class::High, 1, at(35_000)), Ok(()), "nobody asks for more than the longest pause");
}

#[test]
fn timeouts_cut_the_limit() {
    let mut s = scheduler([spec(A, 64)]);
    running(&mut s, 0..40, Class::Fill);
    done(&mut s, 0, Outcome::Timeout, 1);
    assert_eq!(s.view(A, at(1)).unwrap().limits[2], 20);
    assert_eq!(s.may_start(A, Class::High, 1, at(1)), Ok(()), "a timeout is no request for a pause");
}

/// One interactive stream and eight of fill, whose chunks come `gap_ms` apart for `ms`.
fn stream(s: &mut Scheduler, gap_ms: u64, ms: std::ops::Range<u64>) {
    for now in ms.step_by(gap_ms as usize) {
        for ticket in 0..9 {
            let gap = Some(Duration::from_millis(gap_ms));
            let _ = s.apply(Event::Chunk { ticket: Ticket(ticket), gap, tokens: 1 }, at(now));
        }
    }
}

#[test]
fn slow_tokens_cut_the_limit_while_a_person_is_about_and_fast_ones_raise_it() {
    let mut s = Scheduler::new(Policy { initial_limit: 8, ..Policy::default() });
    s.set_replicas(vec![spec(A, 64)], at(0));
    running(&mut s, 0..1, Class::Interactive);
    running(&mut s, 1..9, Class::Fill);
    stream(&mut s, 70, 70..570);
    assert_eq!(s.view(A, at(570)).unwrap().limits[2], 6);
    stream(&mut s, 20, 580..2_100);
    assert_eq!(s.view(A, at(2_100)).unwrap().limits[2], 9, "one an interval after the first cut");
}

#[test]
fn without_a_person_slow_tokens_disturb_nobody_unless_an_objective_says_so() {
    for (objective, limit) in [(None, 12), (Some(Duration::from_millis(50)), 6)] {
        let mut s = Scheduler::new(Policy { initial_limit: 8, fill_target: objective, ..Policy::default() });
        s.set_replicas(vec![spec(A, 64)], at(0));
        running(&mut s, 1..9, Class::Fill);
        stream(&mut s, 70, 70..600);
        assert_eq!(s.view(A, at(600)).unwrap().limits[2], limit);
    }
}

#[test]
fn the_target_is_learned_from_what_a_person_has_alone() {
    for (alone_ms, limit) in [(60, 12), (30, 6)] {
        let mut s = Scheduler::new(Policy { initial_limit: 8, ..Policy::default() });
        s.set_replicas(vec![spec(A, 64)], at(0));
        running(&mut s, 0..1, Class::Interactive);
        stream(&mut s, alone_ms, 0..5_000);
        for ticket in 1..9 {
            start(&mut s, ticket, A, Class::Fill, 5_000);
        }
        stream(&mut s, 70, 5_000..5_600);
        assert_eq!(s.view(A, at(5_600)).unwrap().limits[2], limit, "70 ms where {alone_ms} ms is normal");
    }
}

#[test]
fn gaps_count_per_token_and_neither_first_ones_nor_held_up_ones_do() {
    let mut s = Scheduler::new(Policy { initial_limit: 4, ..Policy::default() });
    s.set_replicas(vec![spec(A, 64)], at(0));
    running(&mut s, 0..1, Class::Interactive);
    running(&mut s, 1..5, Class::Fill);
    for now in [100, 200, 300, 400, 500] {
        for ticket in 0..5 {
            let (gap, tokens) = if now == 100 { (Some(9_000), 1) } else { (Some(100), 5) };
            let gap = gap.map(Duration::from_millis);
            let _ = s.apply(Event::Chunk { ticket: Ticket(ticket), gap, tokens }, at(now));
            let _ = s.apply(Event::Chunk { ticket: Ticket(ticket), gap: None, tokens: 1 }, at(now));
        }
    }
    assert_eq!(s.view(A, at(500)).unwrap().limits[2], 6, "20 ms a token is fast");
}

#[test]
fn a_waiting_person_on_a_full_replica_has_the_cheapest_fill_work_cancelled() {
    let mut s = scheduler([spec(A, 8)]);
    running(&mut s, 0..7, Class::Fill);
    for (ticket, tokens) in [(0, 50), (1, 5), (2, 40), (3, 30), (4, 20), (5, 10), (6, 60)] {
        let _ = s.apply(Event::Chunk { ticket: Ticket(ticket), gap: None, tokens }, at(1));
    }
    for ticket in 10..13 {
        start(&mut s, ticket, A, Class::Interactive, 10);
    }
    assert_eq!(s.next_deadline(at(11)), Some(at(110)));
    assert!(s.apply(Event::Tick, at(109)).is_empty());
    let cancelled = s.apply(Event::Tick, at(110));
    assert_eq!(cancelled, [Action::Cancel(Ticket(1)), Action::Cancel(Ticket(5))], "ten in flight on eight slots");
    assert!(s.apply(Event::Tick, at(300)).is_empty(), "no second round before their connections are closed");
    assert!(done(&mut s, 1, Outcome::Cancelled, 301).is_empty());
    start(&mut s, 13, A, Class::Interactive, 301);
    assert_eq!(done(&mut s, 5, Outcome::Cancelled, 302), [Action::Cancel(Ticket(4))]);
}

#[test]
fn nothing_is_cancelled_where_it_would_not_help() {
    let person_waits = |spec: ReplicaSpec, fill: u64, class| {
        let mut s = scheduler([spec]);
        running(&mut s, 0..fill, class);
        start(&mut s, 100, A, Class::Interactive, 0);
        s.apply(Event::Tick, at(1_000)).len()
    };
    assert_eq!(person_waits(spec(A, 8), 8, Class::Fill), 1);
    assert_eq!(person_waits(spec(A, 8), 7, Class::Fill), 0, "the person has a slot");
    assert_eq!(person_waits(spec(A, 8), 8, Class::Low), 0, "only fill is cancelled");
    assert_eq!(person_waits(ReplicaSpec { cancels: false, ..spec(A, 8) }, 8, Class::Fill), 0);
    assert_eq!(person_waits(spec(A, None), 8, Class::Fill), 0, "unknown slots are not full");
}

#[test]
fn a_task_is_cancelled_for_others_five_times_at_most() {
    let mut s = scheduler([spec(A, 1)]);
    let task = Some(TaskId::new(uuid::Uuid::from_u128(7)));
    let mut cancelled = 0;
    for round in 0..8u64 {
        let (fill, person, ms) = (Ticket(round * 2), Ticket(round * 2 + 1), round * 1_000);
        let start = |ticket, class, task| {
            Event::Started(Start { ticket, replica: A, class, prompt_bound: 1, expected: 1, task })
        };
        let _ = s.apply(start(fill, Class::Fill, task), at(ms));
        let _ = s.apply(start(person, Class::Interactive, None), at(ms));
        cancelled += s.apply(Event::Tick, at(ms + 100)).len();
        for ticket in [fill, person] {
            let _ = s.apply(Event::Done { ticket, outcome: Outcome::Cancelled }, at(ms + 200));
        }
    }
    assert_eq!(cancelled, 5);
}

#[test]
fn a_reload_keeps_what_is_in_flight_and_learned() {
    let mut s = scheduler([spec(A, 64)]);
    running(&mut s, 0..40, Class::Fill);
    done(&mut s, 0, Outcome::Timeout, 1);
    s.set_replicas(vec![spec(A, 16), spec(B, 8)], at(2));
    let view = s.view(A, at(2)).unwrap();
    assert_eq!((view.in_flight[3], view.limits[2]), (39, 15));
    s.set_replicas(vec![spec(B, 8)], at(3));
    assert_eq!(s.route([A], at(3)), None);
    for ticket in 1..40 {
        assert!(s.view(A, at(4)).is_some(), "it stays until its last request has ended");
        done(&mut s, ticket, Outcome::Ok, 4);
    }
    assert_eq!(s.view(A, at(4)), None);
}

#[test]
fn an_idle_scheduler_needs_no_ticks() {
    let mut s = scheduler([spec(A, 8)]);
    assert_eq!(s.next_deadline(at(0)), None);
    start(&mut s, 1, A, Class::Fill, 0);
    assert_eq!(s.next_deadline(at(0)), Some(at(500)));
    done(&mut s, 1, Outcome::Ok, 10);
    assert_eq!(s.next_deadline(at(10)), None);
}

#[test]
fn a_slow_engine_is_looked_at_alone_before_its_slowness_is_blamed_on_batch_work() {
    let mut s = Scheduler::new(Policy { initial_limit: 8, ..Policy::default() });
    s.set_replicas(vec![spec(A, 64)], at(0));
    running(&mut s, 0..1, Class::Interactive);
    running(&mut s, 1..9, Class::Fill);
    stream(&mut s, 130, 0..700);
    let limit = s.view(A, at(700)).unwrap().limits[2];
    for ticket in 1..9 {
        done(&mut s, ticket, Outcome::Ok, 700);
    }
    assert_eq!(s.may_start(A, Class::Fill, 1, at(700)), Err(Gate::Limit), "held back to see the person alone");
    assert_eq!(s.may_start(A, Class::High, 1, at(700)), Ok(()));
    stream(&mut s, 100, 700..3_000);
    assert_eq!(s.may_start(A, Class::Fill, 1, at(3_000)), Ok(()), "seen");
    for ticket in 1..=u64::from(limit) {
        start(&mut s, ticket, A, Class::Fill, 3_000);
    }
    stream(&mut s, 130, 3_000..4_000);
    assert!(s.view(A, at(4_000)).unwrap().limits[2] > limit, "130 ms is fine where 100 ms is normal");
}

#[test]
fn looking_at_a_silent_engine_ends_by_itself() {
    let mut s = Scheduler::new(Policy { initial_limit: 8, ..Policy::default() });
    s.set_replicas(vec![spec(A, 64)], at(0));
    running(&mut s, 0..1, Class::Interactive);
    running(&mut s, 1..9, Class::Fill);
    stream(&mut s, 130, 0..530);
    for ticket in 1..9 {
        done(&mut s, ticket, Outcome::Ok, 530);
    }
    let until = s.next_deadline(at(3_000)).unwrap();
    assert_eq!(s.may_start(A, Class::Fill, 1, at(3_000)), Err(Gate::Limit));
    assert!(until <= at(31_000));
    assert_eq!(s.may_start(A, Class::Fill, 1, until), Ok(()));
}

#[test]
fn where_slots_are_unknown_even_high_work_feels_its_way() {
    let mut s = Scheduler::new(Policy::default());
    s.set_replicas(vec![spec(A, None)], at(0));
    let mut ticket = 0;
    let mut most = 0;
    for ms in (0..10_000).step_by(500) {
        let begin = ticket;
        while s.may_start(A, Class::High, 1, at(ms)).is_ok() {
            start(&mut s, ticket, A, Class::High, ms);
            ticket += 1;
        }
        most = most.max(ticket - begin);
        for one in begin..ticket {
            done(&mut s, one, Outcome::Ok, ms + 499);
        }
    }
    assert!((64..=1_024).contains(&most), "{most} at once after ten seconds without a refusal");
}

fn start_of(scheduler: &mut Scheduler, ticket: u64, replica: ReplicaId, expected: u32) {
    let (class, task) = (Class::Interactive, None);
    let start = Start { ticket: Ticket(ticket), replica, class, prompt_bound: 100, expected, task };
    assert!(scheduler.apply(Event::Started(start), at(0)).is_empty());
}

#[test]
fn load_is_counted_in_tokens_that_are_still_to_come() {
    let mut s = scheduler([spec(A, 8), spec(B, 8)]);
    start_of(&mut s, 1, A, 30_000);
    for ticket in 2..7 {
        assert_eq!(s.route([A, B], at(0)), Some(B), "five short ones are less than a long one");
        start_of(&mut s, ticket, B, 500);
    }
    done(&mut s, 1, Outcome::Ok, 1);
    assert_eq!(s.route([A, B], at(1)), Some(A), "what has ended is no load");
    let mut unequal = scheduler([spec(A, 2), spec(B, 8)]);
    start_of(&mut unequal, 1, A, 1_000);
    start_of(&mut unequal, 2, B, 3_000);
    assert_eq!(unequal.route([A, B], at(0)), Some(B), "relative to the slots");
}

#[test]
fn a_prompt_goes_where_its_beginning_is_unless_that_has_clearly_more_to_do() {
    let near = |s: &Scheduler, expected| {
        let near = Some(Near { replica: A, expected });
        s.pick_near([A, B], (Class::Interactive, 100), near, at(0)).unwrap()
    };
    let mut s = scheduler([spec(A, 8), spec(B, 8)]);
    start_of(&mut s, 1, A, 1_000);
    assert_eq!((near(&s, 1_000), s.route([A, B], at(0))), (A, Some(B)));
    start_of(&mut s, 2, A, 1_000);
    assert_eq!((near(&s, 1_000), near(&s, 999)), (A, B), "two like it ahead are the most");
    start_of(&mut s, 3, B, 1_000);
    assert_eq!(near(&s, 500), A, "compared with the others' load");
    s.set_available(A, false);
    assert_eq!(near(&s, 1_000), B, "one that takes nothing is not chosen");
    s.set_available(A, true);
    done(&mut s, 1, Outcome::Overloaded { retry_after: None }, 0);
    assert_eq!(near(&s, 1_000), B, "nor one that asked for a pause");
}
