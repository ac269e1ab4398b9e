//! Holds: leasing from purses to nodes and back.

use batchin_domain::{AccountId, KeyId, Purse};
use batchin_store::{FencedError, LeaseOutcome, NodeIdentity};

use crate::support::{both, now, this_month, units};

both! {
    async fn a_grant_covers_the_need_and_leaves_the_others_a_share(db) {
        let purse = Purse::Balance(db.account(1_000).await);
        let node = db.node().await;
        let granted = db.store.purses().lease(db.ask(node, purse, 100, 5_000)).await.unwrap();
        assert_eq!(granted, LeaseOutcome::Granted { quantity: units(500), left: units(500) });
        let other = db.node().await;
        let granted = db.store.purses().lease(db.ask(other, purse, 300, 0)).await.unwrap();
        assert_eq!(granted, LeaseOutcome::Granted { quantity: units(300), left: units(200) });
        assert_eq!(db.assert_clean().await.leased_nanos, 800);
    }

    async fn a_purse_is_exhausted_to_the_last_unit(db) {
        let account = db.account(1_000).await;
        let purse = Purse::Balance(account);
        let node = db.node().await;
        db.lease(node, purse, 999).await;
        let short = db.store.purses().lease(db.ask(node, purse, 2, 2)).await.unwrap();
        assert_eq!(short, LeaseOutcome::Short { available: units(1), recalling: false });
        db.lease(node, purse, 1).await;
        let short = db.store.purses().lease(db.ask(node, purse, 1, 1)).await.unwrap();
        assert_eq!(short, LeaseOutcome::Short { available: units(0), recalling: false });
        // Leases are invisible to the customer.
        db.assert_balance(account, 1_000).await;
        db.assert_clean().await;
    }

    async fn many_nodes_at_once_never_lease_more_than_there_is(db) {
        let purse = Purse::Balance(db.account(1_000).await);
        let mut nodes = Vec::new();
        for _ in 0..10 {
            nodes.push(db.node().await);
        }
        let purses = db.store.purses();
        let asks = (0..60).map(|n| purses.lease(db.ask(nodes[n % nodes.len()], purse, 30, 40)));
        let mut leased = 0;
        for outcome in futures::future::join_all(asks).await {
            if let LeaseOutcome::Granted { quantity, .. } = outcome.unwrap() {
                leased += quantity.units();
            }
        }
        assert!(leased <= 1_000 && leased > 970, "{leased}");
        assert_eq!(db.assert_clean().await.leased_nanos, leased);
    }

    async fn a_short_purse_recalls_what_other_nodes_have(db) {
        let purse = Purse::Balance(db.account(1_000).await);
        let (a, b) = (db.node().await, db.node().await);
        db.lease(a, purse, 900).await;
        assert!(db.store.purses().recalled(a).await.unwrap().is_empty());
        let short = db.store.purses().lease(db.ask(b, purse, 400, 400)).await.unwrap();
        assert_eq!(short, LeaseOutcome::Short { available: units(100), recalling: true });
        assert_eq!(db.store.purses().recalled(a).await.unwrap(), [purse]);
        assert!(db.store.purses().recalled(b).await.unwrap().is_empty());
        db.store.purses().release(a, &[(purse, units(850))]).await.unwrap();
        assert!(db.store.purses().recalled(a).await.unwrap().is_empty());
        db.lease(b, purse, 400).await;
        // Nothing to give back is an answer too.
        db.store.purses().lease(db.ask(b, purse, 900, 900)).await.unwrap();
        assert_eq!(db.store.purses().recalled(a).await.unwrap(), [purse]);
        db.store.purses().release(a, &[(purse, units(0))]).await.unwrap();
        assert!(db.store.purses().recalled(a).await.unwrap().is_empty());
        assert_eq!(db.assert_clean().await.leased_nanos, 450);
    }

    async fn a_grant_that_was_not_heard_of_is_not_granted_twice(db) {
        let purse = Purse::Balance(db.account(1_000).await);
        let node = db.node().await;
        let ask = db.ask(node, purse, 100, 100);
        for left in [900, 900] {
            let granted = db.store.purses().lease(ask).await.unwrap();
            assert_eq!(granted, LeaseOutcome::Granted { quantity: units(100), left: units(left) });
        }
        assert_eq!(db.assert_clean().await.leased_nanos, 100);
    }

    async fn more_than_is_leased_cannot_be_released(db) {
        let account = db.account(1_000).await;
        let purse = Purse::Balance(account);
        let (a, b) = (db.node().await, db.node().await);
        db.lease(a, purse, 100).await;
        db.lease(b, purse, 100).await;
        assert!(matches!(db.store.purses().release(a, &[(purse, units(101))]).await, Err(FencedError::Store(_))));
        assert_eq!(db.assert_clean().await.leased_nanos, 200);
        // What a node never had changes nothing.
        let other = Purse::Balance(db.account(5).await);
        db.store.purses().release(a, &[(other, units(5)), (purse, units(100))]).await.unwrap();
        assert_eq!(db.assert_clean().await.leased_nanos, 100);
    }

    async fn a_purse_without_an_owner_is_gone(db) {
        let node = db.node().await;
        let key = KeyId::new(db.id());
        for purse in [
            Purse::Balance(AccountId::new(db.id())),
            Purse::Budget(key, this_month()),
            Purse::Requests(key, now().minute()),
        ] {
            assert_eq!(db.store.purses().lease(db.ask(node, purse, 1, 1)).await.unwrap(), LeaseOutcome::Gone);
            db.store.purses().release(node, &[(purse, units(1))]).await.unwrap();
        }
        db.assert_clean().await;
    }

    async fn requests_of_a_minute_are_exact_over_nodes(db) {
        let key = db.key(db.account(0).await, 10, None).await;
        let minute = now().minute();
        let purse = Purse::Requests(key, minute);
        let (a, b) = (db.node().await, db.node().await);
        db.lease(a, purse, 6).await;
        db.lease(b, purse, 3).await;
        db.store.purses().release(a, &[(purse, units(2))]).await.unwrap();
        db.lease(b, purse, 3).await;
        assert_eq!(db.available(a, purse).await, units(0));
        // Nobody knows what a dead node let through: within its minute, all of it.
        let again = db.store.nodes().join(a.id, now(), std::time::Duration::from_secs(9)).await.unwrap();
        assert_eq!(db.available(again, purse).await, units(0));
        let next = batchin_domain::Minute::from_index(minute.index() + 1);
        assert_eq!(db.available(again, Purse::Requests(key, next)).await, units(10));
        assert_eq!(db.store.purses().sweep_minutes(next).await.unwrap(), 1);
        assert_eq!((db.count("lease").await, db.count("purse").await), (0, 1));
        db.assert_clean().await;
    }

    async fn a_fenced_node_leases_and_releases_nothing(db) {
        let purse = Purse::Balance(db.account(100).await);
        let old = db.node().await;
        db.lease(old, purse, 10).await;
        db.store.nodes().join(old.id, now(), std::time::Duration::from_secs(9)).await.unwrap();
        let never = NodeIdentity { id: batchin_domain::NodeId::new(db.id()), epoch: 1 };
        for node in [old, never] {
            assert!(matches!(db.store.purses().lease(db.ask(node, purse, 1, 1)).await, Err(FencedError::Fenced)));
            assert!(matches!(db.store.purses().release(node, &[(purse, units(1))]).await, Err(FencedError::Fenced)));
        }
        assert_eq!(db.assert_clean().await.leased_nanos, 0);
    }
}
