//! Holds: what a key may spend in a month.

use batchin_domain::{Purse, Timestamp};
use batchin_store::{CommitError, KeyChange, LeaseOutcome, Settlement};

use crate::support::{both, nanos, now, this_month, units};

both! {
    async fn a_budget_is_leased_settled_and_exhausted_exactly(db) {
        let account = db.account(10_000).await;
        let key = db.key(account, 10, Some(100)).await;
        let budget = Purse::Budget(key, this_month());
        let (node, other) = (db.node().await, db.node().await);
        db.lease(node, Purse::Balance(account), 1_000).await;
        db.lease(node, budget, 70).await;
        db.lease(other, budget, 20).await;
        let held = Settlement { key: Some(key), budget_held: true, ..db.settlement(account, 60) };
        let committer = db.committer(node);
        committer.commit(held).await.unwrap();
        assert_eq!(db.store.accounts().spent_in_month(key, this_month()).await.unwrap(), nanos(60));
        assert_eq!(db.available(node, budget).await, units(10));
        let over = Settlement { key: Some(key), budget_held: true, ..db.settlement(account, 11) };
        assert_eq!(committer.commit(over).await, Err(CommitError::Refused));
        db.store.purses().release(node, &[(budget, units(10))]).await.unwrap();
        db.store.purses().release(other, &[(budget, units(20))]).await.unwrap();
        db.lease(other, budget, 40).await;
        assert_eq!(db.available(node, budget).await, units(0));
        let row = db.store.accounts().keys(account, now()).await.unwrap().remove(0);
        assert_eq!((row.spent_this_month, row.monthly_budget), (nanos(60), Some(nanos(100))));
        db.assert_clean().await;
    }

    async fn without_a_hold_the_month_is_counted_all_the_same(db) {
        let account = db.account(10_000).await;
        let key = db.key(account, 10, None).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 1_000).await;
        let committer = db.committer(node);
        for _ in 0..3 {
            committer.commit(Settlement { key: Some(key), ..db.settlement(account, 7) }).await.unwrap();
        }
        assert_eq!(db.store.accounts().spent_in_month(key, this_month()).await.unwrap(), nanos(21));
        // A budget that is set later counts what was spent before.
        let change = KeyChange { monthly_budget: Some(Some(nanos(30))), ..KeyChange::default() };
        db.store.accounts().update_key(account, key, change).await.unwrap();
        assert_eq!(db.available(node, Purse::Budget(key, this_month())).await, units(9));
        // And one that is below that leaves nothing.
        let change = KeyChange { monthly_budget: Some(Some(nanos(20))), ..KeyChange::default() };
        db.store.accounts().update_key(account, key, change).await.unwrap();
        assert_eq!(db.available(node, Purse::Budget(key, this_month())).await, units(0));
        db.assert_clean().await;
    }

    async fn a_month_that_begins_has_its_whole_budget(db) {
        let account = db.account(10_000).await;
        let key = db.key(account, 10, Some(100)).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 1_000).await;
        let next_month = this_month().next();
        let last_moment = Timestamp::from_micros(next_month.start().micros() - 1);
        db.lease(node, Purse::Budget(key, this_month()), 100).await;
        assert_eq!(db.available(node, Purse::Budget(key, this_month())).await, units(0));
        db.lease(node, Purse::Budget(key, next_month), 60).await;

        // A hold of the old month that is settled in the new one counts for the old.
        let mut late = Settlement { key: Some(key), budget_held: true, ..db.settlement(account, 90) };
        late.usage.as_mut().unwrap().created_at = last_moment;
        late.now = next_month.start();
        let mut new = Settlement { key: Some(key), budget_held: true, ..db.settlement(account, 50) };
        new.month = next_month;
        new.usage.as_mut().unwrap().created_at = next_month.start();
        let committer = db.committer(node);
        let both = futures::future::join(committer.commit(late), committer.commit(new)).await;
        assert_eq!(both, (Ok(()), Ok(())));
        assert_eq!(db.store.accounts().spent_in_month(key, this_month()).await.unwrap(), nanos(90));
        assert_eq!(db.store.accounts().spent_in_month(key, next_month).await.unwrap(), nanos(50));
        let row = db.store.accounts().keys(account, next_month.start()).await.unwrap().remove(0);
        assert_eq!(row.spent_this_month, nanos(50));
        db.assert_clean().await;

        let again = db.store.nodes().join(node.id, now(), std::time::Duration::from_secs(9)).await.unwrap();
        let left = db.store.purses().lease(db.ask(again, Purse::Budget(key, next_month), 51, 51)).await.unwrap();
        assert_eq!(left, LeaseOutcome::Short { available: units(50), recalling: false });
        assert_eq!(db.available(again, Purse::Budget(key, this_month())).await, units(10));
        db.assert_clean().await;
    }

    async fn a_key_without_a_budget_can_lease_one_without_end(db) {
        let key = db.key(db.account(0).await, 10, None).await;
        let node = db.node().await;
        db.lease(node, Purse::Budget(key, this_month()), 1_000_000_000_000).await;
        db.assert_clean().await;
    }
}
