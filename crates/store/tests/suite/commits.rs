//! Holds: the group commit.

use std::{collections::HashSet, sync::Arc, time::Duration};

use batchin_domain::{CallKind, Counts, Measure, Priority, Purse};
use batchin_store::{
    CommitError, CommitterOptions, Outcome, Page, Settlement, TaskEnd, TaskError, UsageFilter, UsageMarks, UsageRecord,
};
use futures::future::join_all;

use crate::support::{both, completed, nanos, now, refused, units};

fn all_of(account: batchin_domain::AccountId) -> UsageFilter {
    UsageFilter { account, from: None, to: None, key: None, model: None }
}

const ALL: Page = Page { limit: 1_000, offset: 0 };

both! {
    async fn many_settlements_of_three_accounts_are_all_charged_in_sequence(db) {
        let node = db.node().await;
        let mut accounts = Vec::new();
        for _ in 0..3 {
            let account = db.account(1_000_000).await;
            db.lease(node, Purse::Balance(account), 400_000).await;
            accounts.push((account, db.key(account, 10, None).await));
        }
        let committer = db.committer(node);
        let settlements = (0..300).map(|n| {
            let (account, key) = accounts[n % 3];
            committer.commit(Settlement { key: Some(key), ..db.settlement(account, 1 + n as i64) })
        });
        assert!(join_all(settlements).await.into_iter().all(|r| r == Ok(())));
        for (n, (account, key)) in accounts.iter().enumerate() {
            let charged: i64 = (0..300).filter(|i| i % 3 == n as i64).map(|i| i + 1).sum();
            db.assert_balance(*account, 1_000_000 - charged).await;
            assert_eq!(db.store.accounts().spent_in_month(*key, now().month()).await.unwrap(), nanos(charged));
            assert_eq!(db.store.usage().usage_totals(&all_of(*account)).await.unwrap().requests, 100);
        }
        // The check looks at every account's sequence.
        let report = db.assert_clean().await;
        assert_eq!((report.usage_rows, report.transfers), (300, 303));
    }

    async fn flushes_of_a_stream_add_up_to_its_cost_in_any_order(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 700).await;
        let committer = db.committer(node);
        let first = db.settlement(account, 100);
        let request = first.usage.as_ref().unwrap().request;
        let flush = |charge: i64, cost: i64, output: u64, outcome: Outcome| {
            let mut next = db.settlement(account, charge);
            let mut usage = db.usage(cost);
            (usage.request, usage.outcome) = (request, outcome);
            usage.counts = Counts::of_tokens(10, output);
            next.usage = Some(usage);
            next
        };
        let parts = [
            flush(100, 100, 10, Outcome::Running),
            flush(50, 150, 15, Outcome::Running),
            flush(0, 150, 15, Outcome::Completed),
        ];
        committer.commit(parts[2].clone()).await.unwrap();
        committer.commit(parts[0].clone()).await.unwrap();
        committer.commit(parts[1].clone()).await.unwrap();
        // And three more requests, each with all its flushes in one group.
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let request = batchin_domain::RequestId::new(db.id());
            for part in [&parts[1], &parts[2], &parts[0]] {
                let mut part = part.clone();
                part.charge_id = batchin_domain::TransferId::new(db.id());
                part.usage.as_mut().unwrap().request = request;
                waiting.push(committer.submit(part).await.unwrap());
            }
        }
        for done in waiting.into_iter().take(6) {
            done.await.unwrap().unwrap();
        }
        committer.close();
        db.tasks.shutdown(Duration::from_secs(20)).await;
        let rows = db.store.usage().usage_logs(&all_of(account), ALL).await.unwrap();
        assert_eq!(rows.len(), 4);
        for row in &rows {
            assert_eq!((row.cost, row.counts.of(Measure::CompletionTokens), row.outcome), (nanos(150), 15, Outcome::Completed));
        }
        db.assert_balance(account, 400).await;
        db.assert_clean().await;
    }

    async fn a_stale_task_is_refused_and_the_rest_of_its_group_is_charged(db) {
        let account = db.account(1_000).await;
        let (old, new) = (db.node().await, db.node().await);
        db.lease(old, Purse::Balance(account), 500).await;
        db.batch(account, Priority::High, 2).await;
        let mut tasks = db.claim(old, Priority::High, 2, now()).await.unwrap();
        let (kept, lost) = (tasks.remove(0), tasks.remove(0));
        let requeue = batchin_store::Requeue { claim: lost.claim, not_before: now(), counts: true };
        db.store.claims().requeue(&[requeue]).await.unwrap();
        let again = db.claim(new, Priority::High, 2, now()).await.unwrap().remove(0);
        assert_eq!(again.claim.task, lost.claim.task);

        let committer = db.committer(old);
        let group = [
            db.settlement(account, 1),
            db.ending(&lost, 20, completed()),
            db.ending(&kept, 30, completed()),
            // The same end once more under another charge: a claim ends once.
            db.ending(&kept, 40, completed()),
        ];
        let results = join_all(group.into_iter().map(|s| committer.commit(s))).await;
        assert_eq!(results, [Ok(()), Err(CommitError::StaleTask), Ok(()), Err(CommitError::StaleTask)]);
        db.assert_balance(account, 969).await;
        assert_eq!(db.store.usage().usage_totals(&all_of(account)).await.unwrap().requests, 2);
        let tasks = db.store.batch_rows().tasks(kept.batch, 0, 9).await.unwrap();
        assert_eq!(tasks[0].usage.unwrap().cost, nanos(30));
        db.assert_clean().await;
    }

    async fn the_same_settlement_again_is_charged_once(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        db.batch(account, Priority::High, 2).await;
        let tasks = db.claim(node, Priority::High, 2, now()).await.unwrap();
        let committer = db.committer(node);
        let plain = db.settlement(account, 10);
        let task = db.ending(&tasks[0], 20, completed());
        for settlement in [&plain, &task] {
            committer.commit(settlement.clone()).await.unwrap();
        }
        // Alone, and in a group with one that is new.
        assert_eq!(committer.commit(plain.clone()).await, Ok(()));
        let fresh = db.ending(&tasks[1], 5, completed());
        let results = join_all([plain.clone(), fresh, plain.clone()].into_iter().map(|s| committer.commit(s))).await;
        assert_eq!(results, [Ok(()); 3]);
        // And among so many that PostgreSQL takes them by COPY.
        let many = (0..20).map(|_| db.settlement(account, 1)).chain([plain.clone()]).chain([plain]);
        let results = join_all(many.map(|s| committer.commit(s))).await;
        assert_eq!(results, [Ok(()); 22]);
        db.assert_balance(account, 945).await;
        db.assert_clean().await;
    }

    async fn a_poisoned_settlement_fails_alone(db) {
        let (account, poor) = (db.account(1_000).await, db.account(1_000).await);
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        db.lease(node, Purse::Balance(poor), 5).await;
        let committer = db.committer(node);
        let nobody = batchin_domain::AccountId::new(db.id());
        let group = [
            db.settlement(account, 10),
            db.settlement(poor, 6),
            db.settlement(nobody, 1),
            db.settlement(account, 20),
            db.settlement(poor, 5),
        ];
        let results = join_all(group.into_iter().map(|s| committer.commit(s))).await;
        let refused = Err(CommitError::Refused);
        assert_eq!(results, [Ok(()), refused, refused, Ok(()), Ok(())]);
        // The writer goes on.
        committer.commit(db.settlement(account, 30)).await.unwrap();
        db.assert_balance(account, 940).await;
        db.assert_balance(poor, 995).await;
        db.assert_clean().await;
    }

    async fn what_others_say_is_stored_whatever_characters_it_has(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        let batch = db.batch(account, Priority::High, 1).await;
        let task = db.claim(node, Priority::High, 1, now()).await.unwrap().remove(0);
        let said = TaskError { message: "a\0b".to_owned(), param: Some("\0".to_owned()), ..refused() };
        let mut ending = db.ending(&task, 1, TaskEnd::Failed(said));
        (ending.charge, ending.usage) = (nanos(0), None);
        db.committer(node).commit(ending).await.unwrap();
        let stored = db.store.batch_rows().tasks(batch, 0, 9).await.unwrap().remove(0).error.unwrap();
        assert_eq!((stored.message.as_str(), stored.param.as_deref()), ("a\u{fffd}b", Some("\u{fffd}")));
        db.assert_clean().await;
    }

    async fn what_was_handed_in_is_committed_though_nobody_waits_and_after_close(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        let committer = db.committer(node);
        for _ in 0..50 {
            drop(committer.submit(db.settlement(account, 1)).await.unwrap());
        }
        committer.close();
        assert_eq!(db.tasks.shutdown(Duration::from_secs(20)).await, 0);
        assert_eq!(committer.commit(db.settlement(account, 1)).await, Err(CommitError::Fenced));
        db.assert_balance(account, 950).await;
        db.assert_clean().await;
    }

    async fn what_is_free_is_written_without_a_charge(db) {
        let account = db.account(0).await;
        let node = db.node().await;
        let committer = db.committer(node);
        db.batch(account, Priority::High, 1).await;
        let task = db.claim(node, Priority::High, 1, now()).await.unwrap().remove(0);
        committer.commit(db.settlement(account, 0)).await.unwrap();
        committer.commit(db.ending(&task, 0, completed())).await.unwrap();
        assert_eq!(committer.commit(db.ending(&task, 0, completed())).await, Err(CommitError::StaleTask));
        let report = db.assert_clean().await;
        assert_eq!((report.usage_rows, report.transfers), (2, 0));
    }

    async fn sequence_numbers_go_on_over_groups_and_grants(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        let committer = db.committer(node);
        for round in 0..5 {
            let group = (0..7).map(|_| committer.commit(db.settlement(account, 1)));
            assert!(join_all(group).await.into_iter().all(|r| r.is_ok()));
            db.store.credit().grant_credit(db.grant(account, 1 + round)).await.unwrap();
        }
        assert_eq!(db.assert_clean().await.transfers, 41);
    }

    async fn a_usage_row_keeps_all_that_it_was_given(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        let key = db.key(account, 10, None).await;
        let mut settlement = Settlement { key: Some(key), ..db.settlement(account, 42) };
        let usage = settlement.usage.as_mut().unwrap();
        (usage.model, usage.call, usage.estimated, usage.ttft) = ("org/model".to_owned(), CallKind::Embeddings, true, None);
        (usage.class, usage.outcome) = (batchin_domain::Class::Low, Outcome::ClientGone);
        let sent = usage.clone();
        // Among so many that PostgreSQL takes them by COPY.
        let committer = db.committer(node);
        let others = (0..10).map(|_| db.settlement(account, 1));
        let all = join_all(others.chain([settlement]).map(|s| committer.commit(s))).await;
        assert_eq!(all, [Ok(()); 11]);
        let rows = db.store.usage().usage_logs(&all_of(account), ALL).await.unwrap();
        let row = rows.into_iter().find(|row| row.request == sent.request).unwrap();
        assert_eq!((row.request, row.key, row.model), (sent.request, Some(key), sent.model));
        assert_eq!((row.call, row.class, row.batch, row.counts), (Some(CallKind::Embeddings), 2, None, sent.counts));
        assert_eq!((row.cost, row.outcome, row.estimated), (nanos(42), Outcome::ClientGone, true));
        assert_eq!((row.created_at, row.latency, row.ttft), (now(), sent.latency, None));
    }

    async fn what_was_made_is_counted_in_rows_sums_tasks_and_batches(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        let committer = db.committer(node);
        let batch = db.batch(account, Priority::High, 2).await;
        let claimed = db.claim(node, Priority::High, 2, now()).await.unwrap();
        let made = |number: u64| {
            let counts = Measure::made().zip(number..).fold(Counts::NONE, |counts, (measure, n)| counts.with(measure, n));
            counts.with(Measure::VideoMs, if number == 40 { i64::MAX.unsigned_abs() } else { 0 })
        };
        let with = |mut settlement: Settlement, counts| {
            settlement.usage.as_mut().unwrap().counts = counts;
            settlement
        };
        // A flush, its end, and one that has none beside them.
        let flush = with(db.settlement(account, 1), made(10));
        let mut end = with(db.settlement(account, 2), made(20));
        end.usage.as_mut().unwrap().request = flush.usage.as_ref().unwrap().request;
        let mut flush = flush;
        flush.usage.as_mut().unwrap().outcome = Outcome::Running;
        for settlement in [flush, end, db.settlement(account, 1)] {
            committer.commit(settlement).await.unwrap();
        }
        let tasks = [(0, 30), (1, 40)].map(|(n, number): (usize, u64)| with(db.ending(&claimed[n], 3, completed()), made(number)));
        assert_eq!(join_all(tasks.into_iter().map(|s| committer.commit(s))).await, [Ok(()); 2]);

        let rows = db.store.usage().usage_logs(&all_of(account), ALL).await.unwrap();
        let mut found: Vec<_> = rows.iter().filter(|row| row.counts.has_made()).map(|row| row.counts).collect();
        found.sort_by_key(|counts| counts.of(Measure::Characters));
        assert_eq!((rows.len(), found), (4, vec![made(20), made(30), made(40)]));
        let sums = made(20).plus(made(30)).plus(made(40));
        let totals = db.store.usage().usage_totals(&all_of(account)).await.unwrap().counts;
        assert!(Measure::made().all(|measure| totals.of(measure) == sums.of(measure)), "{totals:?}");
        let of_tasks = db.store.batch_rows().tasks(batch, 0, 9).await.unwrap();
        assert_eq!(of_tasks.iter().map(|task| task.usage.unwrap().counts).collect::<Vec<_>>(), [made(30), made(40)]);
        let row = db.store.batch_rows().batch(account, batch).await.unwrap().unwrap();
        assert_eq!(row.usage.counts, made(30).plus(made(40)));
    }

    async fn what_a_flush_charged_too_much_is_given_back(db) {
        let account = db.account(1_000).await;
        let key = db.key(account, 10, Some(900)).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        db.lease(node, Purse::Budget(key, now().month()), 500).await;
        let committer = db.committer(node);
        let mut flush = Settlement { key: Some(key), budget_held: true, ..db.settlement(account, 200) };
        let usage = flush.usage.as_mut().unwrap();
        (usage.outcome, usage.estimated, usage.counts) = (Outcome::Running, true, Counts::of_tokens(900, 30));
        committer.commit(flush.clone()).await.unwrap();
        db.assert_balance(account, 800).await;
        let mut end = Settlement { key: Some(key), budget_held: true, ..db.settlement(account, 0) };
        end.given_back = nanos(150);
        let counts = Counts::of_tokens(5, 12).with(Measure::CachedTokens, 1).with(Measure::CacheWriteTokens, 2);
        end.usage = flush.usage.clone().map(|usage| UsageRecord {
            counts,
            cost: nanos(50),
            outcome: Outcome::Completed,
            estimated: false,
            marks: UsageMarks { below_pieces: true, ..UsageMarks::default() },
            ..usage
        });
        let other = db.settlement(account, 3);
        let results = join_all([end.clone(), other].map(|s| committer.commit(s))).await;
        assert_eq!(results, [Ok(()); 2]);
        // Once, however often it is handed in, and a flush that comes again changes nothing any more.
        committer.commit(end).await.unwrap();
        committer.commit(flush).await.unwrap();
        db.assert_balance(account, 947).await;
        let row = db.store.usage().usage_logs(&all_of(account), ALL).await.unwrap().into_iter().find(|row| row.key.is_some()).unwrap();
        assert_eq!((row.counts, row.cost), (counts, nanos(50)));
        assert_eq!((row.outcome, row.estimated, row.marks.names()), (Outcome::Completed, false, vec!["below_pieces"]));
        let report = db.assert_clean().await;
        assert_eq!((report.transfers, report.usage_rows), (4, 2));
        // What was given back can be spent again: of the balance, and of the key's month.
        let left = db.available(node, Purse::Balance(account)).await;
        assert_eq!(left, units(1_000 - 50 - 3 - 297));
        assert_eq!(db.available(node, Purse::Budget(key, now().month())).await, units(900 - 50 - 300));
    }

    async fn a_settlement_that_fails_is_heard_of_when_nobody_waits_for_it(db) {
        let account = db.account(100).await;
        let node = db.node().await;
        let (heard, failures) = std::sync::mpsc::channel();
        let on_failure = Arc::new(move |settlement: &Settlement, cause| {
            heard.send((settlement.charge_id, cause)).unwrap();
        });
        let options = CommitterOptions { give_up_after: Duration::from_secs(20), on_failure };
        let committer = batchin_store::Committer::start(db.store.ledger(), node, options, &db.tasks);
        db.store.nodes().leave(node).await.unwrap();
        let (in_time, too_late) = (db.settlement(account, 1), db.settlement(account, 1));
        let expected = [in_time.charge_id, too_late.charge_id].map(|id| (id, CommitError::Fenced));
        drop(committer.submit(in_time).await.unwrap());
        committer.close();
        db.tasks.shutdown(Duration::from_secs(20)).await;
        assert_eq!(committer.submit(too_late).await.unwrap_err(), CommitError::Fenced);
        assert_eq!(failures.try_iter().collect::<Vec<_>>(), expected);
    }

    async fn a_writer_that_cannot_write_gives_up_in_time(db) {
        let account = db.account(100).await;
        let node = db.node().await;
        let options = CommitterOptions { give_up_after: Duration::from_millis(200), on_failure: Arc::new(|_, _| ()) };
        let committer = batchin_store::Committer::start(db.store.ledger(), node, options, &db.tasks);
        db.store.clone().close().await.unwrap();
        let began = tokio::time::Instant::now();
        let group = (0..20).map(|_| committer.commit(db.settlement(account, 1)));
        assert_eq!(join_all(group).await, [Err(CommitError::Unavailable); 20]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn outcomes_are_stored_as_numbers_that_grow_towards_the_end() {
    let codes: HashSet<_> =
        [Outcome::Running, Outcome::Completed, Outcome::ClientGone, Outcome::UpstreamFailed].map(Outcome::code).into();
    assert_eq!(codes.len(), 4);
    for code in codes {
        let outcome = Outcome::from_code(code).unwrap();
        assert_eq!(outcome.code(), code);
        assert!(outcome == Outcome::Running || code > Outcome::Running.code());
    }
    assert_eq!(Outcome::from_code(9), None);
}
