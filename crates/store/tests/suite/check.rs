//! Holds: the ledger check sees each rule broken.

use batchin_domain::{ClassPrices, Measure, PriceVersion, Priority, Purse, Rate, Tariff, price::Factor};
use batchin_store::{Fault, PriceList, Settlement};

use crate::support::{Db, both, completed, now, this_month};

/// One of everything that the check looks at, and nothing wrong with it.
async fn some_of_everything(db: &Db) {
    let account = db.account(10_000).await;
    let key = db.key(account, 10, Some(1_000)).await;
    let node = db.node().await;
    db.lease(node, Purse::Balance(account), 5_000).await;
    db.lease(node, Purse::Budget(key, this_month()), 500).await;
    let committer = db.committer(node);
    for cost in [10, 20] {
        committer
            .commit(Settlement { key: Some(key), budget_held: true, ..db.settlement(account, cost) })
            .await
            .unwrap();
    }
    db.batch(account, Priority::High, 3).await;
    let tasks = db.claim(node, Priority::High, 2, now()).await.unwrap();
    committer.commit(db.ending(&tasks[0], 7, completed())).await.unwrap();
    let done = db.batch(account, Priority::Low, 1).await;
    let task = db.claim(node, Priority::Low, 1, now()).await.unwrap().remove(0);
    assert_eq!(task.batch, done);
    committer.commit(db.ending(&task, 8, completed())).await.unwrap();
    db.do_chores(node).await;
    let late = db.settlement(account, 3);
    db.store.ledger().book_late(late.charge_id, &late, now()).await.unwrap();
    let report = db.assert_clean().await;
    assert_eq!((report.accounts, report.transfers, report.usage_rows), (1, 6, 4));
    assert_eq!((report.leased_nanos, report.late_nanos), (4_955, 3));
}

/// Two rows at a published price, one of them capped.
async fn priced(db: &Db) {
    priced_by(db, Tariff::of_tokens(Rate::from_pico(1_500), Rate::from_pico(2_100)), 57).await;
}

/// The same at this price, by which each costs so much.
async fn priced_by(db: &Db, tariff: Tariff, cost: i64) {
    let price = ClassPrices::new(tariff, Factor::ONE, Factor::ONE, Factor::ONE);
    let body = PriceList::body([("m", &price)]);
    assert_eq!(db.store.prices().publish_prices("fingerprint", &body, now()).await.unwrap(), PriceVersion(1));
    let account = db.account(10_000).await;
    let node = db.node().await;
    db.lease(node, Purse::Balance(account), 5_000).await;
    let committer = db.committer(node);
    for capped in [false, true] {
        let mut settlement = db.settlement(account, cost);
        settlement.usage.as_mut().unwrap().marks.capped = capped;
        committer.commit(settlement).await.unwrap();
    }
}

/// Breaks something and sees that rule, among perhaps others, complain with these numbers.
async fn breaks(db: &Db, sql: &str, rule: &str, expected: i64, found: i64) {
    some_of_everything(db).await;
    db.raw(sql).await;
    let faults = db.store.check().await.unwrap().faults;
    let seen: Vec<&Fault> = faults.iter().filter(|fault| fault.rule == rule).collect();
    let [fault] = seen.as_slice() else { panic!("{rule}: {faults:?}") };
    assert_eq!((fault.expected, fault.found), (expected, found), "{fault:?}");
    assert!(fault.subject.parse::<uuid::Uuid>().is_ok());
}

both! {
    async fn charges(db) {
        breaks(db, "UPDATE account SET posted_debit = posted_debit + 1", "posted_debit is the sum of charges", 45, 46).await;
    }

    async fn credits(db) {
        breaks(db, "UPDATE account SET posted_credit = posted_credit + 1", "posted_credit is the sum of credits and of what was given back", 10_000, 10_001).await;
    }

    async fn pending(db) {
        let rule = "pending_debit is what nodes have leased";
        breaks(db, "UPDATE account SET pending_debit = pending_debit - 1", rule, 4_955, 4_954).await;
    }

    async fn overspent(db) {
        let (before, after) = if db.is_postgres() {
            ("ALTER TABLE account DROP CONSTRAINT account_rule", "")
        } else {
            ("PRAGMA ignore_check_constraints = ON", "; PRAGMA ignore_check_constraints = OFF")
        };
        let sql = format!("{before}; UPDATE account SET posted_debit = 9000{after}");
        breaks(db, &sql, "nobody has spent or leased more than was credited", 10_000, 13_955).await;
    }

    async fn sequence(db) {
        breaks(db, "UPDATE transfer SET seq = 9 WHERE seq = 5", "sequence numbers have no gap", 5, 5).await;
    }

    async fn a_request_and_its_charges(db) {
        let rule = "a request's charges are its usage row's cost";
        breaks(db, "UPDATE usage_log SET cost_nano = 21 WHERE cost_nano = 20", rule, 21, 20).await;
    }

    async fn a_charge_and_its_request(db) {
        breaks(db, "DELETE FROM usage_log WHERE cost_nano = 10", "every charge has a usage row", 1, 0).await;
    }

    async fn a_budget_and_its_leases(db) {
        let rule = "what is leased of a budget or a batch's highest cost is what nodes have leased";
        breaks(db, "UPDATE purse SET leased = leased + 1 WHERE kind = 1", rule, 470, 471).await;
    }

    async fn a_months_spending(db) {
        breaks(db, "UPDATE purse SET spent = spent + 1 WHERE kind = 1", "a key's month is the cost of its requests", 30, 31).await;
    }

    async fn a_month_that_is_missing(db) {
        breaks(db, "DELETE FROM purse WHERE kind = 1", "a key's months together are the cost of its requests", 30, 0).await;
    }

    async fn a_batch_and_its_tasks(db) {
        let sql = "UPDATE batch SET failed = 1, completed = 0 WHERE total = 3";
        breaks(db, sql, "a batch's counters are its tasks", 1, 1).await;
    }

    async fn a_batch_that_never_ends(db) {
        let sql = "UPDATE batch SET finished_at = NULL WHERE total = 1";
        breaks(db, sql, "a batch whose tasks have all ended is closed or about to be", 4, 0).await;
    }

    async fn a_batch_that_ends_too_early(db) {
        let sql = "UPDATE batch SET finished_at = 1 WHERE total = 3";
        breaks(db, sql, "a batch ends after its last task", 3, 1).await;
    }

    async fn a_batch_that_costs_more_than_allowed(db) {
        let sql = "UPDATE batch SET max_cost_nano = 6 WHERE total = 3";
        breaks(db, sql, "a batch costs at most what its owner allowed", 6, 7).await;
    }

    async fn a_batch_and_the_cost_of_its_tasks(db) {
        let sql = "UPDATE batch SET cost_nano = 6 WHERE total = 3";
        breaks(db, sql, "a batch costs what its tasks cost", 7, 6).await;
    }

    async fn a_batch_and_its_highest_cost(db) {
        let sql = "INSERT INTO purse (kind, owner, win, spent) SELECT 3, id, 0, 6 FROM batch WHERE total = 3";
        breaks(db, sql, "what is counted on a batch's highest cost is what it cost", 7, 6).await;
    }

    async fn an_order_with_a_gap(db) {
        let sql = "UPDATE task SET seq = 2 WHERE cost_nano = 7";
        breaks(db, sql, "a batch's tasks ended in an order without gap", 2, 1).await;
    }

    async fn a_batch_of_a_node_that_is_gone(db) {
        let sql = "UPDATE batch SET chore = 3, steward = id WHERE total = 3";
        breaks(db, sql, "only a node that is alive cares for a batch", 1, 0).await;
    }

    async fn a_task_and_its_charge(db) {
        let sql = "UPDATE task SET cost_nano = 6 WHERE cost_nano = 7";
        breaks(db, sql, "a completed task was charged once", 6, 7).await;
    }

    async fn a_lease_of_a_node_that_is_gone(db) {
        let sql = "UPDATE node SET alive = false";
        let rule = "only a node that is alive has anything leased";
        breaks(db, sql, rule, 0, 4_955 + 470).await;
    }

    async fn a_task_of_a_node_that_is_gone(db) {
        breaks(db, "DELETE FROM node", "only a node that is alive runs a task", 1, 0).await;
    }

    async fn a_cost_and_its_counts(db) {
        let rule = "a request costs its tokens by its version of the prices";
        priced(db).await;
        db.assert_clean().await;
        // Ten tokens at 1,500 and twenty at 2,100 pico-dollars, rounded up.
        for cost in [56, 58] {
            db.raw(&format!("UPDATE usage_log SET cost_nano = {cost} WHERE marks = 0")).await;
            let faults: Vec<Fault> = db.store.check().await.unwrap().faults.into_iter().filter(|f| f.rule == rule).collect();
            let [fault] = faults.as_slice() else { panic!("{faults:?}") };
            assert_eq!((fault.expected, fault.found), (57, cost));
        }
        db.raw("UPDATE usage_log SET cost_nano = 57 WHERE marks = 0").await;
        // One that says that it was capped may cost less than its counts, and no more.
        for (cost, faults) in [(40, 0), (58, 1)] {
            db.raw(&format!("UPDATE usage_log SET cost_nano = {cost} WHERE marks = 1")).await;
            let report = db.store.check().await.unwrap();
            assert_eq!(report.faults.iter().filter(|fault| fault.rule == rule).count(), faults, "{:?}", report.faults);
            assert_eq!(report.capped_rows, 1);
        }
        // Counts as they were written before they had a bound.
        db.raw(&format!("UPDATE usage_log SET cost_nano = 40, input_tokens = {} WHERE marks = 1", i64::MAX)).await;
        assert!(db.store.check().await.unwrap().faults.iter().all(|fault| fault.rule != rule));
    }

    async fn a_cost_and_its_counts_of_a_cache(db) {
        let rule = "a request costs its tokens by its version of the prices";
        let rate = Rate::from_pico;
        let tariff = Tariff::of_tokens(rate(1_500), rate(2_100))
            .with(Measure::CachedTokens, rate(100))
            .with(Measure::CacheWriteTokens, rate(3_000));
        // Of ten tokens five were found and three were written: two at 1,500, five at 100, three at 3,000, and twenty at 2,100.
        priced_by(db, tariff, 55).await;
        db.assert_clean().await;
        for (cached, written, expected) in [
            (0, 0, Some(57)),
            (5, 2, Some(53)),
            (6, 3, Some(54)),
            (10, 0, Some(43)),
            // As many as there were to read, and no more.
            (8, 8, Some(49)),
            (i64::MAX, i64::MAX, Some(43)),
            (0, i64::MAX, Some(72)),
            (5, 3, None),
        ] {
            let set = format!("cached_tokens = {cached}, cache_write_tokens = {written}");
            db.raw(&format!("UPDATE usage_log SET {set} WHERE marks = 0")).await;
            let faults = db.store.check().await.unwrap().faults.into_iter().filter(|fault| fault.rule == rule);
            let found: Vec<_> = faults.map(|fault| (fault.expected, fault.found)).collect();
            assert_eq!(found, expected.map(|expected| (expected, 55)).into_iter().collect::<Vec<_>>(), "{set}");
        }
    }

    async fn a_cost_and_what_was_made(db) {
        let rule = "a request costs its tokens by its version of the prices";
        let rate = Rate::from_pico;
        let tariff = Tariff::of_tokens(rate(1_500), rate(2_100))
            .with(Measure::Characters, rate(15_000))
            .with(Measure::AudioMs, rate(100_000))
            .with(Measure::Pixels, rate(3_000_000_000))
            .with(Measure::Images, Rate::FREE);
        // The row of tokens alone, as without the others' prices.
        priced_by(db, tariff, 57).await;
        db.assert_clean().await;
        for (set, more) in [
            ("characters = 2", 30),
            ("characters = 2, audio_ms = 15", 32),
            ("characters = NULL, audio_ms = 14", 2),
            ("audio_ms = NULL, pixels = 1048576, images = 9", 3_000_000),
            ("pixels = 1, images = NULL", 3),
            ("pixels = 1099511627776", 3_145_728_000_000),
        ] {
            db.raw(&format!("UPDATE usage_log SET {set} WHERE marks = 0")).await;
            let faults = db.store.check().await.unwrap().faults.into_iter().filter(|fault| fault.rule == rule);
            let found: Vec<_> = faults.map(|fault| (fault.expected - 57, fault.found)).collect();
            assert_eq!(found, [(more, 57)], "{set}");
        }
    }

    async fn a_list_from_before_caches_had_a_price(db) {
        let body = r#"[{"model":"m","standard":{"input_pico":"1500","output_pico":"2100"},
            "high":{"input_pico":"1500","output_pico":"2100"},"low":{"input_pico":"1500","output_pico":"2100"},
            "fill":{"input_pico":"1500","output_pico":"2100"}}]"#;
        db.store.prices().publish_prices("fingerprint", body, now()).await.unwrap();
        let account = db.account(10_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 5_000).await;
        db.committer(node).commit(db.settlement(account, 57)).await.unwrap();
        db.assert_clean().await;
    }

    async fn a_cost_and_its_price(db) {
        priced(db).await;
        db.raw("UPDATE usage_log SET model = 'other' WHERE marks = 0").await;
        let faults = db.store.check().await.unwrap().faults;
        let [fault] = faults.as_slice() else { panic!("{faults:?}") };
        assert_eq!((fault.rule, fault.found), ("a request's version of the prices has its model", 57));
    }

    async fn a_check_of_many_faults_stops_at_a_handful(db) {
        for _ in 0..30 {
            db.account(1).await;
        }
        db.raw("UPDATE account SET posted_credit = 2").await;
        assert_eq!(db.store.check().await.unwrap().faults.len(), 20);
    }
}
