//! Holds: questions about usage.

use std::time::Duration;

use batchin_domain::{BatchStatus, Counts, Measure, Priority, Purse, RequestId, Timestamp};
use batchin_store::{Page, Settlement, Totals, UsageFilter, UsageRow};

use crate::support::{both, completed, now};

const HOUR: Duration = Duration::from_secs(3_600);

fn at(minutes: u64) -> Timestamp {
    now().after(Duration::from_secs(minutes * 60))
}

both! {
    async fn usage_is_listed_and_summed_by_account_key_model_and_time(db) {
        let (account, other) = (db.account(10_000).await, db.account(10_000).await);
        let (key, key2) = (db.key(account, 10, None).await, db.key(account, 10, None).await);
        let node = db.node().await;
        let committer = db.committer(node);
        for account in [account, other] {
            db.lease(node, Purse::Balance(account), 5_000).await;
        }
        for (account, key, model, minute, cost) in [
            (account, Some(key), "a", 0, 1),
            (account, Some(key), "b", 30, 20),
            (account, Some(key2), "a", 59, 300),
            (account, None, "a", 60, 4_000),
            (other, None, "a", 60, 500),
        ] {
            let mut settlement = Settlement { key, ..db.settlement(account, cost) };
            let usage = settlement.usage.as_mut().unwrap();
            (usage.model, usage.created_at) = (model.to_owned(), at(minute));
            committer.commit(settlement).await.unwrap();
        }
        let all = UsageFilter { account, from: None, to: None, key: None, model: None };
        let totals = |requests: u64, cost_nanos: i64| Totals {
            requests,
            counts: Counts::of_tokens(requests * 10, requests * 20)
                .with(Measure::CachedTokens, requests * 5)
                .with(Measure::CacheWriteTokens, requests * 3),
            cost_nanos,
        };
        for (filter, want) in [
            (all.clone(), totals(4, 4_321)),
            (UsageFilter { account: other, ..all.clone() }, totals(1, 500)),
            (UsageFilter { key: Some(key), ..all.clone() }, totals(2, 21)),
            (UsageFilter { model: Some("a".to_owned()), ..all.clone() }, totals(3, 4_301)),
            (UsageFilter { from: Some(at(30)), ..all.clone() }, totals(3, 4_320)),
            (UsageFilter { to: Some(at(30)), ..all.clone() }, totals(1, 1)),
            (UsageFilter { from: Some(at(30)), to: Some(at(60)), model: Some("a".to_owned()), ..all.clone() }, totals(1, 300)),
            (UsageFilter { model: Some("z".to_owned()), ..all.clone() }, totals(0, 0)),
        ] {
            assert_eq!(db.store.usage().usage_totals(&filter).await.unwrap(), want, "{filter:?}");
            let rows = db.store.usage().usage_logs(&filter, Page { limit: 9, offset: 0 }).await.unwrap();
            assert_eq!(rows.iter().map(|r| r.cost.nanos()).sum::<i64>(), want.cost_nanos);
            assert!(rows.is_sorted_by(|a, b| a.created_at >= b.created_at));
        }
        let page = db.store.usage().usage_logs(&all, Page { limit: 2, offset: 1 }).await.unwrap();
        assert_eq!(page.iter().map(|r| r.cost.nanos()).collect::<Vec<_>>(), [300, 20]);

        let models = db.store.usage().usage_by_model(&all).await.unwrap();
        let seen: Vec<_> = models.iter().map(|m| (m.model.as_str(), m.totals)).collect();
        assert_eq!(seen, [("a", totals(3, 4_301)), ("b", totals(1, 20))]);

        let series = async |limit| {
            let buckets = db.store.usage().usage_series(&all, HOUR, limit).await.unwrap();
            buckets.into_iter().map(|b| (b.start, b.totals)).collect::<Vec<_>>()
        };
        assert_eq!(series(9).await, [(at(0), totals(3, 321)), (at(60), totals(1, 4_000))]);
        assert_eq!(series(1).await, [(at(60), totals(1, 4_000))]);
        db.assert_clean().await;
    }

    async fn what_a_model_server_claims_never_makes_sums_fail(db) {
        let account = db.account(10_000).await;
        let node = db.node().await;
        let committer = db.committer(node);
        db.lease(node, Purse::Balance(account), 5_000).await;
        let batch = db.batch(account, Priority::High, 3).await;
        let each = |tokens| Measure::ALL.into_iter().fold(Counts::NONE, |counts, measure| counts.with(measure, tokens));
        for (task, tokens) in db.claim(node, Priority::High, 9, now()).await.unwrap().iter().zip([u64::MAX, 1 << 62, 7]) {
            let mut ending = db.ending(task, 1, completed());
            ending.usage.as_mut().unwrap().counts = each(tokens);
            committer.commit(ending).await.unwrap();
        }
        db.do_chores(node).await;
        let row = db.store.batch_rows().batch(account, batch).await.unwrap().unwrap();
        let most = i64::MAX.unsigned_abs();
        assert_eq!((row.status, row.counts.completed), (BatchStatus::Completed, 3));
        assert_eq!(row.usage.counts, each(most));
        let all = UsageFilter { account, from: None, to: None, key: None, model: None };
        let totals = Totals { requests: 3, counts: each(most), cost_nanos: 3 };
        assert_eq!(db.store.usage().usage_totals(&all).await.unwrap(), totals);
        assert_eq!(db.store.usage().usage_by_model(&all).await.unwrap()[0].totals, totals);
        assert_eq!(db.store.usage().usage_series(&all, HOUR, 9).await.unwrap()[0].totals, totals);
        assert_eq!(db.store.batch_rows().batches(account, 9, 0).await.unwrap().len(), 1);
        db.assert_clean().await;
    }

    async fn sums_are_exact_beyond_what_fits_half(db) {
        let account = db.account(10_000).await;
        let node = db.node().await;
        let committer = db.committer(node);
        db.lease(node, Purse::Balance(account), 5_000).await;
        for tokens in [(1_u64 << 40) + 1, (1 << 40) + 2, (1 << 32) - 1] {
            let mut settlement = db.settlement(account, 1);
            settlement.usage.as_mut().unwrap().counts = Counts::of_tokens(tokens, 1);
            committer.commit(settlement).await.unwrap();
        }
        let all = UsageFilter { account, from: None, to: None, key: None, model: None };
        let sums = db.store.usage().usage_totals(&all).await.unwrap().counts;
        assert_eq!(sums, Counts::of_tokens((1 << 41) + (1 << 32) + 2, 3));
    }

    async fn a_list_goes_on_after_a_row_whatever_comes_in(db) {
        let (account, other) = (db.account(10_000).await, db.account(10_000).await);
        let node = db.node().await;
        let committer = db.committer(node);
        for account in [account, other] {
            db.lease(node, Purse::Balance(account), 5_000).await;
        }
        // Three of them at one instant: the order is by time and id.
        for minute in [0, 1, 1, 1, 2] {
            let mut settlement = db.settlement(account, 1);
            settlement.usage.as_mut().unwrap().created_at = at(minute);
            committer.commit(settlement).await.unwrap();
        }
        let strangers = db.settlement(other, 1);
        let stranger = strangers.usage.as_ref().unwrap().request;
        committer.commit(strangers).await.unwrap();
        let all = UsageFilter { account, from: None, to: None, key: None, model: None };
        let whole: Vec<_> = ids(&db.store.usage().usage_logs(&all, Page { limit: 9, offset: 0 }).await.unwrap());
        let mut seen = vec![whole[0]];
        while let Some(row) = {
            // One comes in between every two pages.
            let mut settlement = db.settlement(account, 1);
            settlement.usage.as_mut().unwrap().created_at = at(10);
            committer.commit(settlement).await.unwrap();
            let last = *seen.last().unwrap();
            ids(&db.store.usage().usage_logs_after(&all, last, 1).await.unwrap().unwrap()).pop()
        } {
            seen.push(row);
        }
        assert_eq!(seen, whole);
        let filtered = UsageFilter { to: Some(at(1)), ..all.clone() };
        assert_eq!(ids(&db.store.usage().usage_logs_after(&filtered, whole[0], 9).await.unwrap().unwrap()), whole[4..]);
        assert!(db.store.usage().usage_logs_after(&all, stranger, 9).await.unwrap().is_none(), "it is another account's");
    }
}

fn ids(rows: &[UsageRow]) -> Vec<RequestId> {
    rows.iter().map(|row| row.request).collect()
}
