//! Holds: what is done for batches beside running their tasks.

use std::time::Duration;

use batchin_domain::{BatchStatus, Chore, Ending, Priority, Purse, TaskStatus, Window, batch::TaskCounts};
use batchin_store::{
    BatchFiles, BatchRow, BatchTerms, ChoreError, CommitError, NewBatch, NewTasks, NodeIdentity, Piece, Probe, Requeue,
    Settlement, Share,
};

use crate::support::{Db, both, completed, nanos, now, units};

async fn row(db: &Db, new: &NewBatch) -> BatchRow {
    db.store.batch_rows().batch(new.account, new.id).await.unwrap().unwrap()
}

/// A batch made from a file of `total` lines, of which `loaded` are tasks.
async fn file_batch(
    db: &Db,
    node: NodeIdentity,
    terms: impl FnOnce(&mut BatchTerms),
    total: u32,
    loaded: u32,
) -> NewBatch {
    let account = db.account(10_000).await;
    let mut new = db.new_file_batch(account, Priority::Low);
    terms(&mut new.terms);
    db.store.openings().create_batch(new.clone()).await.unwrap();
    let taken = db.store.chores().take_chore(node, None, now()).await.unwrap().unwrap();
    assert_eq!((taken.id, taken.chore, taken.status), (new.id, Chore::Read, BatchStatus::Validating));
    db.store.chores().accept_batch(node, new.id, (total, Some("m")), now()).await.unwrap();
    let tasks = db.new_tasks(0, loaded as usize);
    db.store.chores().load_tasks(node, new.id, Piece { from: 0, bytes: 10, tasks: &tasks }, now()).await.unwrap();
    new
}

both! {
    async fn a_file_is_read_loaded_run_and_closed(db) {
        let node = db.node().await;
        let new = file_batch(db, node, |_| {}, 5, 3).await;
        let (account, id) = (new.account, new.id);
        db.lease(node, Purse::Balance(account), 100).await;
        let half = row(db, &new).await;
        assert_eq!((half.status, half.chore, half.loaded, half.loaded_bytes), (BatchStatus::InProgress, Chore::Load, 3, 10));
        assert_eq!((half.counts.total, half.model.as_deref(), half.inline), (5, Some("m"), false));
        // What is there runs while the rest is loaded, and the batch does not end with it.
        let committer = db.committer(node);
        for task in db.claim(node, Priority::Low, 9, now()).await.unwrap() {
            committer.commit(db.ending(&task, 2, completed())).await.unwrap();
        }
        assert_eq!(row(db, &new).await.status, BatchStatus::InProgress);
        db.assert_clean().await;
        // The same piece again is refused, and so is another node's.
        let piece = db.new_tasks(3, 2);
        let other = db.node().await;
        for (node, from) in [(node, 0), (other, 3)] {
            let again = db.store.chores().load_tasks(node, id, Piece { from, bytes: 20, tasks: &piece }, now()).await;
            assert!(matches!(again, Err(ChoreError::Lost)), "{again:?}");
        }
        db.store.chores().load_tasks(node, id, Piece { from: 3, bytes: 20, tasks: &piece }, now()).await.unwrap();
        assert_eq!(row(db, &new).await.chore, Chore::None);
        for task in db.claim(node, Priority::Low, 9, now()).await.unwrap() {
            committer.commit(db.ending(&task, 2, completed())).await.unwrap();
        }
        let ended = row(db, &new).await;
        assert_eq!((ended.status, ended.chore, ended.usage.cost), (BatchStatus::Finalizing, Chore::Close, nanos(10)));
        db.do_chores(other).await;
        let closed = row(db, &new).await;
        assert_eq!((closed.status, closed.chore), (BatchStatus::Completed, Chore::None));
        assert_eq!(closed.counts, TaskCounts { total: 5, completed: 5, ..TaskCounts::default() });
        db.assert_clean().await;
    }

    async fn a_file_at_fault_ends_its_batch_and_nothing_runs(db) {
        let node = db.node().await;
        let account = db.account(0).await;
        let new = db.new_file_batch(account, Priority::High);
        db.store.openings().create_batch(new.clone()).await.unwrap();
        db.store.chores().take_chore(node, None, now()).await.unwrap().unwrap();
        db.store.chores().reject_batch(node, new.id, "[1]", now()).await.unwrap();
        let failed = row(db, &new).await;
        assert_eq!((failed.status, failed.faults.as_deref(), failed.times.finished), (BatchStatus::Failed, Some("[1]"), Some(now())));
        assert!(matches!(db.store.chores().reject_batch(node, new.id, "[2]", now()).await, Err(ChoreError::Lost)));
        assert!(db.store.chores().take_chore(node, None, now()).await.unwrap().is_none());
        db.assert_clean().await;
    }

    async fn a_chore_of_a_node_that_is_gone_is_taken_up(db) {
        let lost = db.store.nodes().join(batchin_domain::NodeId::new(db.id()), now(), Duration::ZERO).await.unwrap();
        let new = file_batch(db, lost, |_| {}, 3, 1).await;
        let node = db.node().await;
        assert!(db.store.chores().take_chore(node, None, now()).await.unwrap().is_none());
        db.store.nodes().reclaim(now(), Duration::ZERO).await.unwrap();
        let taken = db.store.chores().take_chore(node, None, now()).await.unwrap().unwrap();
        assert_eq!((taken.id, taken.chore, taken.loaded), (new.id, Chore::Load, 1));
        let piece = db.new_tasks(1, 2);
        assert!(matches!(db.store.chores().load_tasks(lost, new.id, Piece { from: 1, bytes: 9, tasks: &piece }, now()).await, Err(ChoreError::Lost)));
        // What it has, it is told; what is given back undone is found again.
        assert_eq!(db.store.chores().chores_of(node).await.unwrap(), [new.id]);
        assert!(db.store.chores().chores_of(lost).await.unwrap().is_empty());
        db.store.chores().leave_chore(node, new.id).await.unwrap();
        assert_eq!(db.store.chores().take_chore(node, None, now()).await.unwrap().unwrap().id, new.id);
        db.store.chores().load_tasks(node, new.id, Piece { from: 1, bytes: 9, tasks: &piece }, now()).await.unwrap();
        db.assert_clean().await;
    }

    async fn a_batch_stopped_while_it_is_read_or_loaded_ends_with_all_its_lines(db) {
        let node = db.node().await;
        let account = db.account(0).await;
        let unread = db.new_file_batch(account, Priority::High);
        db.store.openings().create_batch(unread.clone()).await.unwrap();
        db.store.chores().take_chore(node, None, now()).await.unwrap().unwrap();
        assert_eq!(db.store.endings().cancel_batch(account, unread.id, now()).await.unwrap().status, BatchStatus::Cancelling);
        db.store.chores().accept_batch(node, unread.id, (3, None), now()).await.unwrap();
        assert_eq!(row(db, &unread).await.status, BatchStatus::Cancelling);
        let piece = Piece { from: 0, bytes: 20, tasks: &db.new_tasks(0, 3) };
        db.store.chores().load_tasks(node, unread.id, piece, now()).await.unwrap();
        db.do_chores(node).await;
        let stopped = row(db, &unread).await;
        assert_eq!((stopped.status, stopped.ending), (BatchStatus::Cancelled, Some(Ending::Cancelled)));
        assert_eq!(stopped.counts, TaskCounts { total: 3, cancelled: 3, ..TaskCounts::default() });
        assert_eq!(db.store.batch_rows().ended_tasks(unread.id, 0, 9).await.unwrap().len(), 3);

        // Of a file at fault nothing is a line; it ends as its owner was told.
        let faulty = db.new_file_batch(account, Priority::High);
        db.store.openings().create_batch(faulty.clone()).await.unwrap();
        db.store.chores().take_chore(node, None, now()).await.unwrap().unwrap();
        db.store.endings().cancel_batch(account, faulty.id, now()).await.unwrap();
        db.store.chores().reject_batch(node, faulty.id, "[1]", now()).await.unwrap();
        let ended = row(db, &faulty).await;
        assert_eq!((ended.status, ended.faults.as_deref()), (BatchStatus::Cancelled, Some("[1]")));

        let new = file_batch(db, node, |_| {}, 5, 2).await;
        assert_eq!(db.store.endings().cancel_batch(new.account, new.id, now()).await.unwrap().stopped, 5);
        assert!(db.claim(node, Priority::Low, 9, now()).await.unwrap().is_empty());
        db.store.chores().load_tasks(node, new.id, Piece { from: 2, bytes: 20, tasks: &db.new_tasks(2, 3) }, now()).await.unwrap();
        db.do_chores(node).await;
        let stopped = row(db, &new).await;
        assert_eq!(stopped.status, BatchStatus::Cancelled);
        assert_eq!(stopped.counts, TaskCounts { total: 5, cancelled: 5, ..TaskCounts::default() });
        let ended = db.store.batch_rows().ended_tasks(new.id, 0, 9).await.unwrap();
        assert_eq!(ended.iter().map(|task| task.seq).collect::<Vec<_>>(), (1..=5).map(Some).collect::<Vec<_>>());
        db.assert_clean().await;
    }

    async fn a_chore_that_fails_steps_behind_the_others(db) {
        let node = db.node().await;
        let (account, other) = (db.account(0).await, db.account(0).await);
        let mut made = Vec::new();
        for account in [account, account, other] {
            let new = db.new_file_batch(account, Priority::High);
            db.store.openings().create_batch(new.clone()).await.unwrap();
            made.push(new.id);
        }
        let take = async |full, at| db.store.chores().take_chore(node, full, at).await.unwrap().map(|batch| batch.id);
        let pause = |tries: u32| Duration::from_secs(10 * u64::from(tries));
        assert_eq!(take(None, now()).await, Some(made[0]));
        assert_eq!(db.store.chores().fail_chore(node, made[0], pause, now()).await.unwrap(), Some(1));
        // An account that has as many under way as it may is passed over.
        assert_eq!(take(Some(account), now()).await, Some(made[2]));
        assert_eq!(take(None, now()).await, Some(made[1]));
        assert_eq!(take(None, now()).await, None, "it is not its time yet");
        for id in [made[1], made[2]] {
            db.store.chores().leave_chore(node, id).await.unwrap();
        }
        let later = now().after(Duration::from_secs(10));
        assert_eq!(take(None, later).await, Some(made[1]));
        assert_eq!(take(None, later).await, Some(made[2]));
        assert_eq!(take(None, later).await, Some(made[0]), "after those that have not failed");
        assert_eq!(db.store.chores().fail_chore(node, made[0], pause, later).await.unwrap(), Some(2));
        assert_eq!(take(None, later.after(Duration::from_secs(19))).await, None);
        assert_eq!(take(None, later.after(Duration::from_secs(20))).await, Some(made[0]));
        // What gets on has not failed.
        db.store.chores().accept_batch(node, made[0], (1, None), later).await.unwrap();
        assert_eq!(db.store.chores().fail_chore(node, made[0], pause, later).await.unwrap(), Some(1));
        let other_node = db.node().await;
        assert_eq!(db.store.chores().fail_chore(other_node, made[1], pause, later).await.unwrap(), None, "it is another's");
        db.assert_clean().await;
    }

    async fn a_long_batch_is_stopped_bit_by_bit_and_what_ends_meanwhile_counts(db) {
        let node = db.node().await;
        let account = db.account(10_000).await;
        db.lease(node, Purse::Balance(account), 100).await;
        let new = db.new_batch(account, Priority::High, 1_200);
        db.store.openings().create_batch(new.clone()).await.unwrap();
        let claimed = db.claim(node, Priority::High, 2, now()).await.unwrap();
        db.store.endings().cancel_batch(account, new.id, now()).await.unwrap();
        assert_eq!(row(db, &new).await.status, BatchStatus::Cancelling);
        assert!(db.claim(node, Priority::High, 9, now()).await.unwrap().is_empty());
        let committer = db.committer(node);
        committer.commit(db.ending(&claimed[0], 4, completed())).await.unwrap();
        db.store.chores().take_chore(node, None, now()).await.unwrap().unwrap();
        db.store.chores().stop_tasks(node, new.id, 0..1_000, now()).await.unwrap();
        assert_eq!(committer.commit(db.ending(&claimed[1], 4, completed())).await, Err(CommitError::StaleTask));
        db.assert_clean().await;
        db.store.chores().stop_tasks(node, new.id, 1_000..2_000, now()).await.unwrap();
        let last = db.store.chores().stop_tasks(node, new.id, 2_000..3_000, now()).await;
        assert!(matches!(last, Err(ChoreError::Lost)), "it is to be closed, which is another chore");
        db.do_chores(node).await;
        let stopped = row(db, &new).await;
        assert_eq!((stopped.status, stopped.ending), (BatchStatus::Cancelled, Some(Ending::Cancelled)));
        assert_eq!(stopped.counts, TaskCounts { total: 1_200, completed: 1, cancelled: 1_199, ..TaskCounts::default() });
        db.assert_balance(account, 9_996).await;
        db.assert_clean().await;
    }

    async fn a_window_that_passes_expires_what_has_not_run(db) {
        let node = db.node().await;
        let new = file_batch(db, node, |terms| terms.window = Window::from_hours(2), 2, 2).await;
        db.lease(node, Purse::Balance(new.account), 100).await;
        let task = db.claim(node, Priority::Low, 1, now()).await.unwrap().remove(0);
        db.committer(node).commit(db.ending(&task, 3, completed())).await.unwrap();
        let later = now().after(Duration::from_secs(2 * 3_600));
        assert!(db.store.endings().overdue_batches(9, now().after(Duration::from_secs(7_199))).await.unwrap().is_empty());
        assert_eq!(db.store.endings().overdue_batches(9, later).await.unwrap(), [new.id]);
        db.store.endings().stop_batch(new.id, Ending::Expired, later).await.unwrap();
        assert!(db.store.endings().overdue_batches(9, later).await.unwrap().is_empty());
        assert_eq!(row(db, &new).await.status, BatchStatus::Finalizing);
        db.do_chores(node).await;
        let expired = row(db, &new).await;
        assert_eq!((expired.status, expired.counts.completed, expired.counts.expired), (BatchStatus::Expired, 1, 1));
        let tasks = db.store.batch_rows().tasks(new.id, 0, 9).await.unwrap();
        assert_eq!(tasks.iter().map(|t| t.status).collect::<Vec<_>>(), [TaskStatus::Completed, TaskStatus::Expired]);
        // Too late to be cancelled.
        assert_eq!(db.store.endings().cancel_batch(new.account, new.id, later).await.unwrap().status, BatchStatus::Expired);
        db.assert_clean().await;
    }

    async fn a_highest_cost_is_a_purse(db) {
        let node = db.node().await;
        let new = file_batch(db, node, |terms| terms.max_cost = Some(nanos(50)), 2, 2).await;
        let cap = Purse::Cap(new.id);
        assert_eq!(db.available(node, cap).await, units(50));
        db.lease(node, Purse::Balance(new.account), 100).await;
        db.lease(node, cap, 40).await;
        let claimed = db.claim(node, Priority::Low, 9, now()).await.unwrap();
        assert!(claimed.iter().all(|task| task.capped));
        let committer = db.committer(node);
        committer.commit(Settlement { cap_held: true, ..db.ending(&claimed[0], 30, completed()) }).await.unwrap();
        db.store.purses().release(node, &[(cap, units(10))]).await.unwrap();
        assert_eq!(db.available(node, cap).await, units(20));
        db.assert_clean().await;
        assert_eq!(db.store.claims().running_tasks(new.id).await.unwrap(), 1);
        db.store.endings().stop_batch(new.id, Ending::CostReached, now()).await.unwrap();
        db.do_chores(node).await;
        let stopped = row(db, &new).await;
        assert_eq!((stopped.status, stopped.ending), (BatchStatus::Cancelled, Some(Ending::CostReached)));
        db.assert_clean().await;
    }

    async fn a_batch_in_a_hurry_is_claimed_as_high_at_its_own_price(db) {
        let node = db.node().await;
        let new = file_batch(db, node, |terms| terms.window = Window::from_hours(2), 2, 2).await;
        let slow = file_batch(db, node, |_| {}, 1, 1).await;
        let waiting = db.store.chores().promotable(9).await.unwrap();
        assert_eq!(waiting.iter().map(|batch| batch.batch).collect::<Vec<_>>(), [new.id]);
        db.store.chores().promote(&[new.id]).await.unwrap();
        assert!(db.store.chores().promotable(9).await.unwrap().is_empty());
        let claimed = db.claim(node, Priority::High, 9, now()).await.unwrap();
        assert_eq!(claimed.iter().map(|t| (t.batch, t.priority)).collect::<Vec<_>>(), [(new.id, Priority::Low); 2]);
        assert_eq!(db.claim(node, Priority::Low, 9, now()).await.unwrap()[0].batch, slow.id);
    }

    async fn what_an_earlier_version_took_in_is_found(db) {
        let account = db.account(1).await;
        let batch = db.batch(account, Priority::Low, 2).await;
        db.raw("DELETE FROM batch_model").await;
        assert!(db.store.claims().backlog(Priority::Low, &[], (None, 9), now()).await.unwrap().is_empty());
        db.node().await;
        let found = db.store.claims().backlog(Priority::Low, &[], (None, 9), now()).await.unwrap();
        assert_eq!(found.iter().map(|one| one.batch).collect::<Vec<_>>(), [batch]);
    }

    async fn a_batch_that_waits_is_not_looked_at_before_its_time(db) {
        let node = db.node().await;
        let new = file_batch(db, node, |_| {}, 1, 1).await;
        let soon = now().after(Duration::from_secs(2));
        db.store.claims().set_blocked(new.id, Some(("max_cost", soon))).await.unwrap();
        for at in [now(), soon] {
            assert!(db.store.claims().backlog(Priority::Low, &[], (None, 9), at).await.unwrap().is_empty());
        }
        assert!(db.store.claims().probes(&[], 9, now()).await.unwrap().is_empty());
        let probes = db.store.claims().probes(&[], 9, soon).await.unwrap();
        let [Probe { of, reason }] = probes.as_slice() else { panic!("{probes:?}") };
        assert_eq!((of.batch, of.account, reason.as_str()), (new.id, new.account, "max_cost"));
        let share = Share { batch: of.batch, model: of.model.clone(), tasks: 1, after: None };
        let probe = db.store.claims().claim(node, &[share], soon).await.unwrap();
        assert_eq!(probe.iter().map(|task| (task.blocked.as_deref(), task.rank)).collect::<Vec<_>>(), [(Some("max_cost"), Priority::Low)]);
        db.store.claims().set_blocked(new.id, None).await.unwrap();
        db.store.claims().requeue(&[Requeue { claim: probe[0].claim, not_before: now(), counts: false }]).await.unwrap();
        assert_eq!(db.store.claims().backlog(Priority::Low, &[], (None, 9), soon).await.unwrap(), std::slice::from_ref(of));
        assert!(db.store.claims().backlog(Priority::Low, &[], (Some(new.account), 9), soon).await.unwrap().is_empty());
        let without = [of.model.clone(), "another".to_owned()];
        assert!(db.store.claims().backlog(Priority::Low, &without, (None, 9), soon).await.unwrap().is_empty());
    }

    async fn an_ended_batch_is_forgotten_but_for_its_counts(db) {
        let node = db.node().await;
        let account = db.account(100).await;
        db.lease(node, Purse::Balance(account), 50).await;
        let new = db.new_batch(account, Priority::High, 3);
        db.store.openings().create_batch(new.clone()).await.unwrap();
        // Nothing is forgotten of a batch that has not ended.
        assert_eq!(db.store.chores().sweep_tasks(new.id, 9).await.unwrap(), 0);
        let committer = db.committer(node);
        for task in db.claim(node, Priority::High, 3, now()).await.unwrap() {
            committer.commit(db.ending(&task, 2, completed())).await.unwrap();
        }
        db.store.chores().take_chore(node, None, now()).await.unwrap().unwrap();
        let day = now().after(Duration::from_secs(86_400));
        db.store.chores().close_batch(node, new.id, BatchFiles::default(), (day, now())).await.unwrap();
        assert!(db.store.chores().batches_to_sweep(9, now()).await.unwrap().is_empty());
        assert_eq!(db.store.chores().batches_to_sweep(9, day).await.unwrap(), [new.id]);
        assert_eq!(db.store.chores().sweep_tasks(new.id, 2).await.unwrap(), 2);
        // Half of it adds up to nothing, and whoever checks meanwhile is not told of a fault.
        assert_eq!(db.store.check().await.unwrap().faults, []);
        assert_eq!(db.store.chores().sweep_tasks(new.id, 2).await.unwrap(), 1);
        db.store.chores().swept(new.id).await.unwrap();
        assert!(db.store.chores().batches_to_sweep(9, day).await.unwrap().is_empty());
        let kept = row(db, &new).await;
        assert_eq!((kept.status, kept.counts.completed, kept.usage.cost), (BatchStatus::Completed, 3, nanos(6)));
        assert!(db.store.batch_rows().tasks(new.id, 0, 9).await.unwrap().is_empty());
        db.assert_clean().await;
    }

    async fn batches_come_in_pages_by_cursor(db) {
        let account = db.account(0).await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(db.batch(account, Priority::High, 1).await);
        }
        ids.reverse();
        let page = async |after, limit| {
            let rows = db.store.batch_rows().batches_after(account, after, limit).await.unwrap();
            rows.into_iter().map(|row| row.id).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 2).await, ids[..2]);
        assert_eq!(page(Some(ids[1]), 2).await, ids[2..4]);
        assert_eq!(page(Some(ids[3]), 9).await, ids[4..]);
        let nobodys = batchin_domain::BatchId::new(db.id());
        assert!(page(Some(nobodys), 9).await.is_empty());
    }

    async fn a_new_batch_needs_its_file(db) {
        let account = db.account(0).await;
        let gone = Some(batchin_domain::FileId::new(db.id()));
        let new = NewBatch { input_file: gone, tasks: NewTasks::File, ..db.new_file_batch(account, Priority::High) };
        let refused = db.store.openings().create_batch(new.clone()).await;
        assert!(matches!(refused, Err(batchin_store::CreateBatchError::NoFile)));
        assert!(db.store.batch_rows().batch(account, new.id).await.unwrap().is_none());
    }
}
