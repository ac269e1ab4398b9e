//! Holds: batches, tasks and claims.

use std::{collections::HashSet, time::Duration};

use batchin_domain::{
    AccountId, BatchId, BatchStatus, CallKind, Counts, Measure, Priority, Purse, TaskStatus, batch::TaskCounts,
};
use batchin_store::{BlobRange, CancelError, CommitError, NewBatch, NewTasks, Requeue, StoredResult};
use futures::future::join_all;

use crate::support::{Db, both, completed, failed, nanos, now, refused};

async fn counts(db: &Db, account: AccountId, batch: BatchId) -> (BatchStatus, TaskCounts) {
    let row = db.store.batch_rows().batch(account, batch).await.unwrap().unwrap();
    assert_eq!(row.status.is_final(), row.times.finished.is_some());
    (row.status, row.counts)
}

fn counted(total: u32, completed: u32, failed: u32, cancelled: u32) -> TaskCounts {
    TaskCounts { total, completed, failed, cancelled, expired: 0 }
}

both! {
    async fn a_batch_is_listed_newest_first_and_only_to_its_owner(db) {
        let (account, other) = (db.account(0).await, db.account(0).await);
        let mut ids = Vec::new();
        for n in 0..3 {
            let new = NewBatch { now: now().after(Duration::from_secs(n)), ..db.new_batch(account, Priority::Low, 1) };
            ids.push(new.id);
            db.store.openings().create_batch(new).await.unwrap();
        }
        let list = async |limit, offset| {
            let rows = db.store.batch_rows().batches(account, limit, offset).await.unwrap();
            rows.into_iter().map(|b| b.id).collect::<Vec<_>>()
        };
        assert_eq!(list(2, 0).await, [ids[2], ids[1]]);
        assert_eq!(list(2, 2).await, [ids[0]]);
        assert!(db.store.batch_rows().batches(other, 9, 0).await.unwrap().is_empty());
        assert!(db.store.batch_rows().batch(other, ids[0]).await.unwrap().is_none());
        let row = db.store.batch_rows().batch(account, ids[0]).await.unwrap().unwrap();
        assert_eq!((row.terms.priority, row.status, row.counts), (Priority::Low, BatchStatus::Pending, counted(1, 0, 0, 0)));
        assert_eq!((row.blocked, row.times.created, row.times.finished), (None, now(), None));
        db.assert_clean().await;
    }

    async fn tasks_come_in_pages_in_the_order_given(db) {
        let account = db.account(0).await;
        let tasks = db.new_tasks(0, 203);
        let new = NewBatch { tasks: NewTasks::Inline(tasks.clone()), ..db.new_batch(account, Priority::High, 0) };
        let batch = new.id;
        for _ in 0..2 {
            // The same batch again changes nothing.
            db.store.openings().create_batch(new.clone()).await.unwrap();
        }
        let mut seen = Vec::new();
        loop {
            let page = db.store.batch_rows().tasks(batch, seen.len() as u64, 100).await.unwrap();
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen.len(), 203);
        for (n, (task, new)) in seen.iter().zip(&tasks).enumerate() {
            assert_eq!((task.index, task.id, task.custom_id.as_str()), (n as u64, new.id, format!("t{n}").as_str()));
            assert_eq!((task.status, &task.result, &task.error), (TaskStatus::Pending, &None, &None));
            assert!(task.usage.is_none());
        }
    }

    async fn a_claim_hands_out_the_oldest_of_its_priority_with_all_that_running_needs(db) {
        let account = db.account(0).await;
        let key = db.key(account, 10, None).await;
        let node = db.node().await;
        let low = db.batch(account, Priority::Low, 2).await;
        let tasks = db.new_tasks(0, 3);
        let inline = NewTasks::Inline(tasks.clone());
        let first = NewBatch { key: Some(key), tasks: inline, ..db.new_batch(account, Priority::High, 0) };
        db.store.openings().create_batch(first.clone()).await.unwrap();
        let second = db.batch(account, Priority::High, 2).await;
        assert_eq!(db.store.claims().queue_depth(Priority::High).await.unwrap(), 5);
        assert_eq!(db.store.claims().queue_depth(Priority::Fill).await.unwrap(), 0);

        let claimed = db.claim(node, Priority::High, 4, now()).await.unwrap();
        assert_eq!(claimed.iter().map(|t| t.batch).collect::<Vec<_>>(), [first.id, first.id, first.id, second]);
        let (task, new) = (&claimed[1], &tasks[1]);
        assert_eq!((task.claim.task, task.claim.epoch, task.attempts), (new.id, 1, 1));
        assert_eq!((task.account, task.key, task.priority), (account, Some(key), Priority::High));
        assert_eq!((task.model.as_str(), task.call, task.custom_id.as_str()), ("m", Ok(CallKind::Chat), "t1"));
        assert_eq!(task.body, BlobRange { blob: "in".to_owned(), offset: 100, len: 100 });
        assert_eq!(db.store.claims().claims_of(node).await.unwrap(), claimed.iter().map(|t| t.claim).collect());
        assert_eq!(counts(db, account, first.id).await.0, BatchStatus::InProgress);
        assert_eq!(counts(db, account, low).await.0, BatchStatus::Pending);
        assert!(db.claim(node, Priority::High, 0, now()).await.unwrap().is_empty());
        assert!(db.claim(node, Priority::Fill, 9, now()).await.unwrap().is_empty());
        // A later version knows more kinds.
        db.raw("UPDATE task SET endpoint = 32767 WHERE state = 0").await;
        let rest = db.claim(node, Priority::High, 9, now()).await.unwrap();
        assert_eq!(rest.iter().map(|t| (t.batch, t.call)).collect::<Vec<_>>(), [(second, Err(i16::MAX))]);
        db.assert_clean().await;
    }

    async fn many_claim_at_once_and_no_task_goes_out_twice(db) {
        let account = db.account(0).await;
        for _ in 0..4 {
            db.batch(account, Priority::Fill, 60).await;
        }
        let nodes = [db.node().await, db.node().await, db.node().await];
        let claims = (0..24).map(|n| db.claim(nodes[n % 3], Priority::Fill, 10, now()));
        let all: Vec<_> = join_all(claims).await.into_iter().flat_map(Result::unwrap).map(|t| t.claim.task).collect();
        assert_eq!(all.len(), all.iter().collect::<HashSet<_>>().len());
        let mut rest = 240 - all.len();
        while rest > 0 {
            rest -= db.claim(nodes[0], Priority::Fill, 50, now()).await.unwrap().len();
        }
        assert!(db.claim(nodes[0], Priority::Fill, 50, now()).await.unwrap().is_empty());
        db.assert_clean().await;
    }

    async fn a_requeued_task_waits_its_time_and_its_old_claim_is_void(db) {
        let account = db.account(100).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 50).await;
        db.batch(account, Priority::High, 2).await;
        let claimed = db.claim(node, Priority::High, 2, now()).await.unwrap();
        let soon = now().after(Duration::from_secs(5));
        let back = |n: usize, counts| Requeue { claim: claimed[n].claim, not_before: soon, counts };
        db.store.claims().requeue(&[back(1, true), back(0, false)]).await.unwrap();
        // A second time the claims are out of date and are passed over.
        db.store.claims().requeue(&[back(1, false), back(0, false)]).await.unwrap();
        assert!(db.store.claims().claims_of(node).await.unwrap().is_empty());
        assert!(db.claim(node, Priority::High, 2, now()).await.unwrap().is_empty());
        let late = db.committer(node).commit(db.ending(&claimed[0], 5, completed())).await;
        assert_eq!(late, Err(CommitError::StaleTask));
        let again = db.claim(node, Priority::High, 2, soon).await.unwrap();
        assert_eq!(again.iter().map(|t| t.attempts).collect::<Vec<_>>(), [1, 2]);
        db.assert_balance(account, 100).await;
        db.assert_clean().await;
    }

    async fn a_batch_ends_with_its_last_task_as_its_tasks_did(db) {
        let account = db.account(100).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 50).await;
        let committer = db.committer(node);
        for (ends, want) in [
            ([true, true], (BatchStatus::Completed, counted(2, 2, 0, 0))),
            ([true, false], (BatchStatus::Completed, counted(2, 1, 1, 0))),
            ([false, false], (BatchStatus::Failed, counted(2, 0, 2, 0))),
        ] {
            let batch = db.batch(account, Priority::High, 2).await;
            let claimed = db.claim(node, Priority::High, 2, now()).await.unwrap();
            let end = |n: usize| if ends[n] { db.ending(&claimed[n], 3, completed()) } else { db.ending(&claimed[n], 0, failed()) };
            committer.commit(end(0)).await.unwrap();
            assert_eq!(counts(db, account, batch).await.0, BatchStatus::InProgress);
            committer.commit(end(1)).await.unwrap();
            assert_eq!(counts(db, account, batch).await.0, BatchStatus::Finalizing);
            db.do_chores(node).await;
            assert_eq!(counts(db, account, batch).await, want);
        }
        let account_batches = db.store.batch_rows().batches(account, 9, 0).await.unwrap();
        let mixed = db.store.batch_rows().tasks(account_batches[1].id, 0, 9).await.unwrap();
        assert_eq!((mixed[0].status, mixed[1].status), (TaskStatus::Completed, TaskStatus::Failed));
        let body = BlobRange { blob: "out".to_owned(), offset: 7, len: 9 };
        assert_eq!(mixed[0].result, Some(StoredResult { body, head: 5 }));
        assert_eq!((mixed[0].seq, mixed[1].seq), (Some(1), Some(2)));
        let ended = db.store.batch_rows().ended_tasks(account_batches[1].id, 1, 9).await.unwrap();
        assert_eq!(ended.iter().map(|task| task.id).collect::<Vec<_>>(), [mixed[1].id]);
        let usage = mixed[0].usage.unwrap();
        let each = |tasks: u64| {
            let prompt = Counts::of_tokens(10 * tasks, 20 * tasks);
            prompt.with(Measure::CachedTokens, 5 * tasks).with(Measure::CacheWriteTokens, 3 * tasks)
        };
        assert_eq!((usage.counts, usage.cost), (each(1), nanos(3)));
        assert_eq!(mixed[1].error, Some(refused()));
        let row = db.store.batch_rows().batch(account, account_batches[1].id).await.unwrap().unwrap();
        let sums = row.usage;
        assert_eq!((sums.counts, sums.cost), (each(2), nanos(3)));
        assert_eq!(row.reasoning_tokens, 2, "one task completed");
        db.assert_clean().await;
    }

    async fn a_group_that_ends_many_batches_counts_each(db) {
        let account = db.account(1_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        let mut batches = Vec::new();
        for n in 1..=5 {
            batches.push((db.batch(account, Priority::High, n).await, n as u32));
        }
        let claimed = db.claim(node, Priority::High, 50, now()).await.unwrap();
        let committer = db.committer(node);
        let ends = join_all(claimed.iter().map(|t| committer.commit(db.ending(t, 2, completed())))).await;
        assert_eq!(ends, [Ok(()); 15]);
        db.do_chores(node).await;
        for (batch, n) in batches {
            assert_eq!(counts(db, account, batch).await, (BatchStatus::Completed, counted(n, n, 0, 0)));
        }
        db.assert_balance(account, 970).await;
        db.assert_clean().await;
    }

    async fn cancelling_stops_what_waits_and_fences_what_runs(db) {
        let (account, other) = (db.account(100).await, db.account(0).await);
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 50).await;
        let batch = db.batch(account, Priority::High, 5).await;
        let claimed = db.claim(node, Priority::High, 3, now()).await.unwrap();
        let committer = db.committer(node);
        committer.commit(db.ending(&claimed[0], 4, completed())).await.unwrap();

        assert!(matches!(db.store.endings().cancel_batch(other, batch, now()).await, Err(CancelError::NotFound)));
        let cancelled = db.store.endings().cancel_batch(account, batch, now()).await.unwrap();
        assert_eq!((cancelled.status, cancelled.stopped), (BatchStatus::Cancelling, 4));
        let late = committer.commit(db.ending(&claimed[1], 4, completed())).await;
        assert_eq!(late, Err(CommitError::StaleTask));
        assert!(db.store.claims().claims_of(node).await.unwrap().is_empty());
        assert!(db.claim(node, Priority::High, 9, now()).await.unwrap().is_empty());
        let back = Requeue { claim: claimed[2].claim, not_before: now(), counts: false };
        db.store.claims().requeue(&[back]).await.unwrap();
        db.do_chores(node).await;
        assert_eq!(counts(db, account, batch).await, (BatchStatus::Cancelled, counted(5, 1, 0, 4)));
        let again = db.store.endings().cancel_batch(account, batch, now()).await.unwrap();
        assert_eq!((again.status, again.stopped), (BatchStatus::Cancelled, 0));
        db.assert_balance(account, 96).await;
        db.assert_clean().await;
    }

    async fn cancelling_while_tasks_end_loses_none(db) {
        let account = db.account(10_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 5_000).await;
        let committer = db.committer(node);
        for round in 0..6 {
            let batch = db.batch(account, Priority::High, 30).await;
            let claimed = db.claim(node, Priority::High, 20, now()).await.unwrap();
            let ends = join_all(claimed.iter().map(|t| committer.commit(db.ending(t, 1, completed()))));
            let endings = db.store.endings();
            let cancels = join_all((0..=round % 3).map(|_| endings.cancel_batch(account, batch, now())));
            let (ends, cancels) = futures::future::join(ends, cancels).await;
            let ended = ends.iter().filter(|e| e.is_ok()).count() as u32;
            let stopped: u64 = cancels.iter().map(|c| c.as_ref().unwrap().stopped).sum();
            assert!(cancels.iter().all(|c| c.as_ref().unwrap().status == BatchStatus::Cancelling));
            assert_eq!(u64::from(ended) + stopped, 30);
            db.do_chores(node).await;
            assert_eq!(counts(db, account, batch).await, (BatchStatus::Cancelled, counted(30, ended, 0, 30 - ended)));
        }
        db.assert_clean().await;
    }

    async fn why_a_batch_waits_is_said_until_it_ends(db) {
        let account = db.account(0).await;
        let batch = db.batch(account, Priority::High, 1).await;
        let blocked = async || db.store.batch_rows().batch(account, batch).await.unwrap().unwrap().blocked;
        db.store.claims().set_blocked(batch, Some(("insufficient balance", now()))).await.unwrap();
        assert_eq!(blocked().await.as_deref(), Some("insufficient balance"));
        db.store.claims().set_blocked(batch, None).await.unwrap();
        assert_eq!(blocked().await, None);
        db.store.claims().set_blocked(batch, Some(("no model", now()))).await.unwrap();
        db.store.endings().cancel_batch(account, batch, now()).await.unwrap();
        assert_eq!(blocked().await, None);
        db.store.claims().set_blocked(batch, Some(("too late", now()))).await.unwrap();
        assert_eq!(blocked().await, None);
    }
}
