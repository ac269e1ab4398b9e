//! Holds: what the breaker must and must not do, by example and for any order of events.

use proptest::prelude::*;

use super::*;

const MIDDLE: u32 = u32::MAX / 2;

const A: u64 = 1;
const B: u64 = 2;

fn person(account: u64) -> Asker {
    Asker { account, urgent: true, last_resort: false }
}

fn task(account: u64) -> Asker {
    Asker { account, urgent: false, last_resort: false }
}

fn alone(asker: Asker) -> Asker {
    Asker { last_resort: true, ..asker }
}

/// One call from its beginning to its end; false when it was not let through.
fn call(breaker: &mut Breaker, asker: Asker, outcome: Outcome, now: Instant) -> bool {
    let Ok(ticket) = breaker.admit(asker, now) else { return false };
    breaker.after(ticket, outcome, now, MIDDLE);
    true
}

/// A breaker that lost connections have opened.
fn lost(now: Instant) -> Breaker {
    let mut breaker = Breaker::default();
    for _ in 0..LOST_TO_OPEN {
        assert!(call(&mut breaker, person(A), Outcome::Lost, now));
    }
    breaker
}

/// A breaker that failures of two accounts have opened.
fn failing(now: Instant) -> Breaker {
    let mut breaker = Breaker::default();
    for account in [A, B, A, B] {
        assert!(call(&mut breaker, person(account), Outcome::Failed, now));
    }
    assert_eq!(breaker.shut().map(|shut| shut.whose), Some(Whose::Everybody));
    breaker
}

#[test]
fn lost_connections_in_a_row_open_it_whoever_saw_them() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    for outcome in [Outcome::Lost, Outcome::Lost, Outcome::Failed, Outcome::Lost, Outcome::Lost, Outcome::Declined] {
        assert!(call(&mut breaker, person(A), outcome, now));
    }
    assert_eq!(breaker.phase(), Phase::Closed, "an answer of any kind ends the row");
    let breaker = lost(now);
    assert!(!breaker.would_admit(person(B), now) && !breaker.would_admit(task(B), now));
    assert_eq!(breaker.shut().map(|shut| shut.trouble), Some(Trouble::Unreachable));
}

#[test]
fn failures_of_one_account_shut_it_for_no_other() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    assert!(call(&mut breaker, person(B), Outcome::Answered, now));
    for _ in 0..1_000 {
        assert!(call(&mut breaker, task(A), Outcome::Failed, now), "it answers others");
    }
    // Nobody else was there for long: the account prefers other servers, and everybody else is let through.
    let later = now + WINDOW;
    for _ in 0..FAILURES_ALONE {
        assert!(call(&mut breaker, task(A), Outcome::Failed, later));
    }
    assert!(!breaker.would_admit(task(A), later) && breaker.would_admit(alone(task(A)), later));
    assert!(breaker.would_admit(person(B), later) && breaker.would_admit(task(B), later));
    assert!(call(&mut breaker, task(B), Outcome::Answered, later));
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn failures_of_most_accounts_open_it_for_all() {
    let now = Instant::now();
    failing(now);
    let mut breaker = Breaker::default();
    for account in 0..4 {
        assert_eq!(breaker.phase(), Phase::Closed, "{account}");
        call(&mut breaker, person(account), Outcome::Failed, now);
    }
    assert_eq!(breaker.shut().map(|shut| shut.whose), Some(Whose::Everybody), "once each of four");

    let mut breaker = Breaker::default();
    for account in 0..6 {
        call(&mut breaker, person(account), Outcome::Answered, now);
    }
    for account in [A, B, A, B, A, B, 3, 3] {
        call(&mut breaker, person(account), Outcome::Failed, now);
    }
    assert_eq!(breaker.phase(), Phase::Closed, "three of six are not most");
    call(&mut breaker, person(4), Outcome::Failed, now);
    assert_eq!(breaker.shut().map(|shut| shut.whose), Some(Whose::Everybody));
}

#[test]
fn a_person_makes_the_trial_before_a_task_and_others_before_the_one_whose_trial_failed() {
    let now = Instant::now();
    let mut breaker = failing(now);
    let until = breaker.shut().unwrap().until;
    assert!(!breaker.would_admit(task(A), until) && breaker.would_admit(person(A), until));
    assert!(breaker.would_admit(task(A), until + BATCH_LEAD));
    let ticket = breaker.admit(person(A), until).unwrap();
    assert!(ticket.trial);
    assert_eq!(breaker.admit(person(B), until), Err(None), "one trial at a time");
    breaker.after(ticket, Outcome::Failed, until, MIDDLE);
    let until = breaker.shut().unwrap().until;
    assert!(!breaker.would_admit(person(A), until) && breaker.would_admit(person(B), until));
    assert!(breaker.would_admit(person(A), until + REPEAT_LEAD));
}

#[test]
fn nobody_is_refused_where_nobody_else_could_serve() {
    let now = Instant::now();
    for mut breaker in [failing(now), lost(now)] {
        assert!(!breaker.would_admit(alone(task(B)), now), "batch work is spaced");
        assert!(call(&mut breaker, alone(person(A)), Outcome::Failed, now));
        assert!(!breaker.would_admit(person(B), now), "a failure beside the trial changes nothing");
        assert!(call(&mut breaker, alone(person(B)), Outcome::Answered, now));
        assert_eq!(breaker.phase(), Phase::Closed, "an answer does");
    }
}

#[test]
fn probation_doubles_up_to_a_minute() {
    let mut now = Instant::now();
    let mut breaker = lost(now);
    for strikes in 0..12_u32 {
        let until = breaker.shut().unwrap().until;
        let nominal = Duration::from_secs(1 << strikes.min(10)).min(LONGEST_PROBATION);
        assert!((until - now).abs_diff(nominal) < Duration::from_millis(10), "{strikes}: {:?}", until - now);
        now = until;
        let (last, next) = if strikes % 2 == 0 { (B, A) } else { (A, B) };
        assert_eq!(breaker.would_admit(person(last), now), strikes == 0, "others come first");
        assert!(call(&mut breaker, person(next), Outcome::Lost, now));
    }
    now = breaker.shut().unwrap().until;
    assert!(call(&mut breaker, person(A), Outcome::Answered, now));
    assert_eq!(breaker.phase(), Phase::Closed);
}

#[test]
fn a_server_that_can_be_reached_again_is_not_shut_for_one_account_s_failure() {
    let now = Instant::now();
    let mut breaker = lost(now);
    let until = breaker.shut().unwrap().until;
    assert!(call(&mut breaker, person(A), Outcome::Failed, until));
    assert!(breaker.would_admit(person(B), until));
}

#[test]
fn a_trial_given_up_may_be_made_again() {
    let now = Instant::now();
    let mut breaker = lost(now);
    let until = breaker.shut().unwrap().until;
    assert!(call(&mut breaker, person(A), Outcome::Abandoned, until));
    assert!(breaker.admit(person(A), until).unwrap().trial);
}

#[test]
fn calls_from_before_it_opened_say_nothing() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    let old = breaker.admit(person(B), now).unwrap();
    for _ in 0..LOST_TO_OPEN {
        call(&mut breaker, person(A), Outcome::Lost, now);
    }
    let open = breaker.clone();
    for outcome in [Outcome::Answered, Outcome::Lost, Outcome::Failed, Outcome::Abandoned] {
        breaker.after(old, outcome, now, 0);
        assert_eq!(breaker, open, "{outcome:?}");
    }
}

#[test]
fn a_refused_key_shows_at_once_and_an_answer_to_another_account_refutes_it() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    assert!(call(&mut breaker, person(A), Outcome::KeyRefused, now));
    let shut = breaker.shut().unwrap();
    assert_eq!((shut.trouble, shut.whose), (Trouble::KeyRefused, Whose::One(A)));
    let mut refuted = breaker.clone();
    assert!(call(&mut refuted, person(B), Outcome::Answered, now));
    assert!(call(&mut refuted, person(A), Outcome::KeyRefused, now));
    assert_eq!(refuted.phase(), Phase::Closed);
    assert!(call(&mut breaker, person(B), Outcome::KeyRefused, now));
    assert_eq!(breaker.shut().map(|shut| (shut.trouble, shut.whose)), Some((Trouble::KeyRefused, Whose::Everybody)));
}

#[test]
fn what_is_forbidden_to_one_account_may_be_what_it_asks_for() {
    let now = Instant::now();
    let mut breaker = Breaker::default();
    assert!(call(&mut breaker, person(A), Outcome::Forbidden, now));
    assert_eq!(breaker.shut().map(|shut| (shut.trouble, shut.whose)), Some((Trouble::Failing, Whose::One(A))));
    assert!(call(&mut breaker, person(B), Outcome::Forbidden, now));
    assert_eq!(breaker.shut().map(|shut| (shut.trouble, shut.whose)), Some((Trouble::KeyRefused, Whose::Everybody)));
}

#[test]
fn overload_pauses_as_asked_within_bounds() {
    let now = Instant::now();
    let pause = |seconds: Option<u64>| {
        let mut breaker = Breaker::default();
        let retry_after = seconds.map(Duration::from_secs);
        call(&mut breaker, person(A), Outcome::Overloaded { retry_after }, now);
        assert!(!breaker.would_admit(person(A), now));
        assert!(breaker.would_admit(person(B), now), "it told one account");
        assert_eq!(breaker.would_admit(alone(person(A)), now), seconds.is_none(), "what it named itself is obeyed");
        assert!(call(&mut breaker, person(B), Outcome::Overloaded { retry_after }, now));
        assert!(!breaker.would_admit(person(3), now), "it told two");
        match breaker.phase() {
            Phase::Cooling { until, .. } => {
                assert!(breaker.would_admit(person(3), until));
                until - now
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pause(None), OVERLOAD_PAUSE);
    assert_eq!(pause(Some(7)), Duration::from_secs(7));
    assert_eq!(pause(Some(100_000)), LONGEST_PAUSE);
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Answered),
        Just(Outcome::Declined),
        Just(Outcome::Lost),
        Just(Outcome::Failed),
        Just(Outcome::KeyRefused),
        Just(Outcome::Forbidden),
        Just(Outcome::QuotaUsedUp),
        (0..200_u64).prop_map(|secs| Outcome::Overloaded { retry_after: Some(Duration::from_secs(secs)) }),
        Just(Outcome::Overloaded { retry_after: None }),
        Just(Outcome::Abandoned),
    ]
}

/// What belongs to a request and not to the server.
fn own_fault() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Failed),
        Just(Outcome::KeyRefused),
        Just(Outcome::Forbidden),
        Just(Outcome::QuotaUsedUp),
        Just(Outcome::Declined),
        Just(Outcome::Answered),
        Just(Outcome::Abandoned),
        (0..200_u64).prop_map(|secs| Outcome::Overloaded { retry_after: Some(Duration::from_secs(secs)) }),
        Just(Outcome::Overloaded { retry_after: None }),
    ]
}

proptest! {
    #[test]
    fn whatever_one_account_does_nobody_else_is_held_back(
        steps in prop::collection::vec((own_fault(), 0..3_u64, any::<[bool; 3]>(), any::<u32>()), 0..200),
    ) {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for (outcome, seconds, [urgent, last_resort, other_too], chance) in steps {
            now += Duration::from_secs(seconds);
            if let Ok(ticket) = breaker.admit(Asker { account: A, urgent, last_resort }, now) {
                breaker.after(ticket, outcome, now, chance);
            }
            for asker in [person(B), task(B)] {
                prop_assert!(breaker.would_admit(asker, now), "{:?}", breaker);
            }
            if other_too {
                prop_assert!(call(&mut breaker, person(B), Outcome::Answered, now));
            }
        }
    }

    #[test]
    fn it_never_locks_up_nor_makes_two_trials(
        steps in prop::collection::vec((outcome(), 0..90_u64, 0..4_u64, any::<[bool; 3]>(), any::<u32>()), 0..100),
    ) {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        let mut running: Vec<Ticket> = Vec::new();
        for (outcome, seconds, account, [urgent, last_resort, ends], chance) in steps {
            now += Duration::from_secs(seconds);
            if ends && let Some(ticket) = running.pop() {
                breaker.after(ticket, outcome, now, chance);
            } else if let Ok(ticket) = breaker.admit(Asker { account, urgent, last_resort }, now) {
                let trying = matches!(breaker.phase(), Phase::Trying(_));
                prop_assert!(!ticket.trial || trying);
                prop_assert!(!(ticket.trial && running.iter().any(|one| one.trial && one.epoch == ticket.epoch)));
                running.push(ticket);
            }
        }
        for ticket in running {
            breaker.after(ticket, Outcome::Abandoned, now, 0);
        }
        let later = now + LONGEST_PAUSE + LONGEST_PROBATION * 2;
        for account in 0..4 {
            prop_assert!(breaker.would_admit(task(account), later), "{:?}", breaker);
        }
    }

    #[test]
    fn a_server_that_fails_for_everybody_is_shut_soon(
        accounts in prop::collection::vec(0..40_u64, 64..200),
    ) {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        let several = accounts.iter().filter(|account| **account != accounts[0]).count() > 1;
        for account in accounts {
            call(&mut breaker, alone(person(account)), Outcome::Failed, now);
        }
        prop_assert!(!several || breaker.shut().is_some_and(|shut| shut.whose == Whose::Everybody), "{:?}", breaker);
    }
}
