//! Holds: batches that wait for money, and what wakes them.

use std::time::Duration;

use batchin_domain::{AccountId, BatchId, Priority, Purse, Timestamp};
use batchin_store::{KeyChange, MoneyWait, NewBatch, Unpaid};

use crate::support::{Db, both, nanos, now, this_month, units};

fn soon() -> Timestamp {
    now().after(Duration::from_secs(5))
}

fn later() -> Timestamp {
    now().after(Duration::from_secs(600))
}

async fn wait(db: &Db, account: AccountId, batch: BatchId, wait: MoneyWait, needed: i64) {
    let unpaid = Unpaid { batch, account, wait, needed: nanos(needed), soon: soon(), later: later() };
    db.store.claims().await_money(unpaid).await.unwrap();
}

/// As [`wait`] for the balance, once it has been asked at `at`.
async fn wait_again(db: &Db, (account, batch): (AccountId, BatchId), needed: i64, at: Timestamp) {
    let (soon, later) = (at.after(Duration::from_secs(5)), at.after(Duration::from_secs(600)));
    let unpaid = Unpaid { batch, account, wait: MoneyWait::Balance, needed: nanos(needed), soon, later };
    db.store.claims().await_money(unpaid).await.unwrap();
}

/// The batches that are due to be asked; of an account's that wait for the same, the one whose turn it is.
async fn due(db: &Db, at: Timestamp) -> Vec<BatchId> {
    db.store.claims().probes(&[], 99, at).await.unwrap().into_iter().map(|probe| probe.of.batch).collect()
}

both! {
    async fn who_waits_for_credit_is_woken_by_credit_and_by_nothing_else(db) {
        let (account, other) = (db.account(10).await, db.account(0).await);
        let batches = [db.batch(account, Priority::Low, 1).await, db.batch(account, Priority::High, 1).await];
        let of_other = db.batch(other, Priority::High, 1).await;
        for batch in batches {
            wait(db, account, batch, MoneyWait::Balance, 11).await;
        }
        wait(db, other, of_other, MoneyWait::Balance, 1).await;
        assert!(due(db, soon()).await.is_empty(), "nothing is set aside that could come back");
        let said = db.store.batch_rows().batch(account, batches[0]).await.unwrap().unwrap().blocked;
        assert_eq!(said.as_deref(), Some("payment_required"));
        assert!(db.store.claims().backlog(Priority::Low, &[], (None, 9), later()).await.unwrap().is_empty());
        db.store.credit().grant_credit(db.grant(account, 5)).await.unwrap();
        for batch in batches {
            assert_eq!(due(db, now()).await, [batch], "each is asked once");
            wait(db, account, batch, MoneyWait::Balance, 16).await;
        }
        assert!(due(db, soon()).await.is_empty());
        assert_eq!(due(db, later()).await, [batches[0], of_other], "who was not woken is asked once in a while");
    }

    async fn what_is_too_little_for_one_does_for_another_however_often_they_are_woken(db) {
        let account = db.account(0).await;
        let [dear, cheap] = [db.batch(account, Priority::Low, 1).await, db.batch(account, Priority::Low, 1).await];
        wait(db, account, cheap, MoneyWait::Balance, 1).await;
        wait(db, account, dear, MoneyWait::Balance, 50).await;
        db.store.credit().grant_credit(db.grant(account, 10)).await.unwrap();
        assert_eq!(due(db, now()).await, [dear]);
        wait(db, account, dear, MoneyWait::Balance, 50).await;
        // Whoever was woken before keeps its place before who is woken now.
        db.store.claims().wake_waiting(account, "payment_required", None).await.unwrap();
        assert_eq!(due(db, now()).await, [cheap]);
        db.store.claims().paid((cheap, account), "payment_required", 0, now()).await.unwrap();
        assert_eq!(due(db, now()).await, [dear]);
        wait(db, account, dear, MoneyWait::Balance, 50).await;
        assert!(due(db, soon()).await.is_empty());
    }

    async fn while_something_is_set_aside_one_is_asked_soon_and_each_in_turn(db) {
        let account = db.account(100).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 60).await;
        let batches = [db.batch(account, Priority::Low, 1).await, db.batch(account, Priority::Low, 1).await];
        for batch in batches {
            wait(db, account, batch, MoneyWait::Balance, 50).await;
        }
        assert!(due(db, now()).await.is_empty());
        let mut at = now();
        for batch in [batches[0], batches[1], batches[0]] {
            at = at.after(Duration::from_secs(5));
            assert_eq!(due(db, at).await, [batch]);
            wait_again(db, (account, batch), 50, at).await;
            assert!(due(db, at).await.is_empty(), "its answer is the other's for now");
        }
        db.store.purses().release(node, &[(Purse::Balance(account), units(60))]).await.unwrap();
        // What lies there covers it: who comes too late to hear of it looks after it.
        wait_again(db, (account, batches[0]), 50, at).await;
        for batch in [batches[1], batches[0]] {
            assert_eq!(due(db, now()).await, [batch]);
            wait_again(db, (account, batch), 101, at).await;
        }
        assert!(due(db, soon()).await.is_empty());

        db.store.claims().wake_waiting(account, "payment_required", None).await.unwrap();
        db.store.claims().paid((batches[1], account), "payment_required", 0, now()).await.unwrap();
        assert_eq!(due(db, now()).await, batches[..1]);
        db.store.claims().paid((batches[1], account), "payment_required", 1, now()).await.unwrap();
        assert!(due(db, later()).await.is_empty());
        assert_eq!(db.store.claims().backlog(Priority::Low, &[], (None, 9), now()).await.unwrap().len(), 2);
    }

    async fn a_higher_budget_wakes_the_batches_of_its_key(db) {
        let account = db.account(10_000).await;
        let key = db.key(account, 10, Some(100)).await;
        let budget = MoneyWait::Budget { key, month: this_month() };
        let new = NewBatch { key: Some(key), ..db.new_batch(account, Priority::High, 1) };
        let plain = db.batch(account, Priority::High, 1).await;
        db.store.openings().create_batch(new.clone()).await.unwrap();
        wait(db, account, new.id, budget, 101).await;
        wait(db, account, plain, MoneyWait::Balance, 20_000).await;
        assert!(due(db, soon()).await.is_empty());
        db.store.credit().grant_credit(db.grant(account, 5)).await.unwrap();
        assert_eq!(due(db, now()).await, [plain]);
        let change = KeyChange { monthly_budget: Some(Some(nanos(200))), ..KeyChange::default() };
        db.store.accounts().update_key(account, key, change).await.unwrap();
        let mut both = [plain, new.id];
        both.sort_unstable();
        assert_eq!(due(db, now()).await, both);
        // It was raised while nobody waited, and lifted.
        for (limit, needed) in [(Some(nanos(300)), 300), (None, 500)] {
            db.store.claims().paid((new.id, account), "budget_used_up", 0, now()).await.unwrap();
            let change = KeyChange { monthly_budget: Some(limit), ..KeyChange::default() };
            db.store.accounts().update_key(account, key, change).await.unwrap();
            wait(db, account, new.id, budget, needed).await;
            assert_eq!(due(db, now()).await, both);
        }
    }

    async fn one_account_hides_no_other_from_a_look_and_a_full_model_none(db) {
        let (many, one) = (db.account(0).await, db.account(0).await);
        for _ in 0..3 {
            let batch = db.batch(many, Priority::Low, 1).await;
            db.store.claims().set_blocked(batch, Some(("payment_required", now()))).await.unwrap();
        }
        let last = db.batch(one, Priority::Low, 1).await;
        db.store.claims().set_blocked(last, Some(("payment_required", soon()))).await.unwrap();
        let seen = db.store.claims().probes(&[], 2, soon()).await.unwrap();
        assert_eq!(seen.iter().map(|probe| probe.of.account).collect::<Vec<_>>(), [many, one]);
        assert!(db.store.claims().probes(&["another".to_owned(), "m".to_owned()], 2, soon()).await.unwrap().is_empty());
        // Each batch has a highest cost of its own.
        for _ in 0..2 {
            let batch = db.batch(many, Priority::Low, 1).await;
            db.store.claims().set_blocked(batch, Some(("max_cost", now()))).await.unwrap();
        }
        assert_eq!(db.store.claims().probes(&[], 9, soon()).await.unwrap().len(), 4);
    }

    async fn open_batches_are_counted_until_they_end(db) {
        let (account, poor) = (db.account(1).await, db.account(0).await);
        let batch = db.batch(account, Priority::High, 1).await;
        db.batch(account, Priority::Low, 1).await;
        assert_eq!(db.store.openings().open_batches(account).await.unwrap(), (2, true));
        assert_eq!(db.store.openings().open_batches(poor).await.unwrap(), (0, false));
        let node = db.node().await;
        db.store.endings().cancel_batch(account, batch, now()).await.unwrap();
        db.do_chores(node).await;
        assert_eq!(db.store.openings().open_batches(account).await.unwrap(), (1, true));
    }
}
