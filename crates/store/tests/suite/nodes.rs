//! Holds: joining, renewing, leaving and being given up.

use std::time::Duration;

use batchin_domain::{NodeId, Priority, Purse};
use batchin_store::{CommitError, FencedError, Reclaimed};

use crate::support::{both, completed, now, units};

const LEASE: Duration = Duration::from_secs(60);

both! {
    async fn joining_again_fences_the_old_epoch_and_takes_all_back(db) {
        let account = db.account(1_000).await;
        let purse = Purse::Balance(account);
        let old = db.node().await;
        assert_eq!(old.epoch, 1);
        db.lease(old, purse, 700).await;
        db.batch(account, Priority::High, 2).await;
        let tasks = db.claim(old, Priority::High, 2, now()).await.unwrap();
        let committer = db.committer(old);
        committer.commit(db.settlement(account, 100)).await.unwrap();

        let new = db.store.nodes().join(old.id, now(), LEASE).await.unwrap();
        assert_eq!((new.id, new.epoch), (old.id, 2));
        assert_eq!(committer.commit(db.settlement(account, 1)).await, Err(CommitError::Fenced));
        assert!(matches!(db.store.nodes().renew(old, now(), LEASE).await, Err(FencedError::Fenced)));
        assert!(matches!(db.claim(old, Priority::High, 2, now()).await, Err(FencedError::Fenced)));
        db.store.nodes().leave(old).await.unwrap();
        db.store.nodes().renew(new, now(), LEASE).await.unwrap();
        assert_eq!(db.available(new, purse).await, units(900));

        let again = db.claim(new, Priority::High, 2, now()).await.unwrap();
        assert_eq!(again.iter().map(|t| t.claim.task).collect::<Vec<_>>(), tasks.iter().map(|t| t.claim.task).collect::<Vec<_>>());
        assert!(again.iter().zip(&tasks).all(|(new, old)| new.claim.epoch > old.claim.epoch && new.attempts == 2));
        db.assert_balance(account, 900).await;
        db.assert_clean().await;
    }

    async fn leaving_gives_all_back(db) {
        let account = db.account(1_000).await;
        let purse = Purse::Balance(account);
        let (node, other) = (db.node().await, db.node().await);
        assert_eq!(db.store.nodes().live_nodes().await.unwrap(), 2);
        db.lease(node, purse, 700).await;
        db.batch(account, Priority::Low, 3).await;
        assert_eq!(db.claim(node, Priority::Low, 9, now()).await.unwrap().len(), 3);
        db.store.nodes().leave(node).await.unwrap();
        db.store.nodes().leave(node).await.unwrap();
        assert_eq!(db.store.nodes().live_nodes().await.unwrap(), 1);
        assert!(matches!(db.store.nodes().renew(node, now(), LEASE).await, Err(FencedError::Fenced)));
        assert_eq!(db.available(other, purse).await, units(1_000));
        assert_eq!(db.claim(other, Priority::Low, 9, now()).await.unwrap().len(), 3);
        db.assert_clean().await;
    }

    async fn only_who_stays_away_is_given_up(db) {
        let account = db.account(1_000).await;
        let purse = Purse::Balance(account);
        let lively = db.node().await;
        let lost = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::ZERO).await.unwrap();
        db.lease(lost, purse, 700).await;
        db.lease(lively, purse, 100).await;
        db.batch(account, Priority::Fill, 1).await;
        let task = db.claim(lost, Priority::Fill, 1, now()).await.unwrap().remove(0);

        let hour = Duration::from_secs(3_600);
        assert_eq!(db.store.nodes().reclaim(now(), hour).await.unwrap(), Reclaimed::default());
        db.store.nodes().renew(lost, now(), Duration::ZERO).await.unwrap();
        assert_eq!(db.store.nodes().reclaim(now(), Duration::ZERO).await.unwrap(), Reclaimed { nodes: 1, tasks: 1 });
        assert_eq!(db.store.nodes().reclaim(now(), Duration::ZERO).await.unwrap(), Reclaimed::default());

        assert!(matches!(db.store.nodes().renew(lost, now(), LEASE).await, Err(FencedError::Fenced)));
        db.store.nodes().renew(lively, now(), LEASE).await.unwrap();
        let late = db.committer(lost).commit(db.ending(&task, 5, completed())).await;
        assert_eq!(late, Err(CommitError::Fenced));
        assert_eq!(db.available(lively, purse).await, units(900));
        let again = db.claim(lively, Priority::Fill, 1, now()).await.unwrap().remove(0);
        assert_eq!((again.claim.task, again.attempts), (task.claim.task, 2));
        let back = db.store.nodes().join(lost.id, now(), LEASE).await.unwrap();
        assert!(back.epoch > lost.epoch + 1);
        db.assert_clean().await;
    }

    async fn many_reclaim_at_once_and_each_node_is_given_up_once(db) {
        let account = db.account(1_000).await;
        for _ in 0..6 {
            let node = db.store.nodes().join(NodeId::new(db.id()), now(), Duration::ZERO).await.unwrap();
            db.lease(node, Purse::Balance(account), 100).await;
        }
        let nodes = db.store.nodes();
        let all = futures::future::join_all((0..4).map(|_| nodes.reclaim(now(), Duration::ZERO))).await;
        // One that another is giving up is passed over.
        assert_eq!(all.into_iter().map(|r| r.unwrap().nodes).sum::<u64>(), 6);
        assert_eq!(db.assert_clean().await.leased_nanos, 0);
    }

    async fn without_any_node_there_is_still_the_one_that_asks(db) {
        assert_eq!(db.store.nodes().live_nodes().await.unwrap(), 1);
    }

    async fn late_usage_is_ours_to_bear_and_booked_once(db) {
        let account = db.account(100).await;
        let settlement = db.settlement(account, 30);
        for _ in 0..2 {
            db.store.ledger().book_late(settlement.charge_id, &settlement, now()).await.unwrap();
        }
        db.store.ledger().book_late(batchin_domain::TransferId::new(db.id()), &db.settlement(account, 0), now()).await.unwrap();
        db.assert_balance(account, 100).await;
        let report = db.assert_clean().await;
        assert_eq!((report.late_nanos, report.transfers), (30, 2));
    }

    async fn the_first_to_ask_says_what_all_have_in_common(db) {
        assert_eq!(db.store.agreement().agreed("blobs").await.unwrap(), None);
        assert_eq!(db.store.agreement().agree("blobs", "here").await.unwrap(), "here");
        assert_eq!(db.store.agreement().agree("blobs", "there").await.unwrap(), "here");
        assert_eq!(db.store.agreement().agree("other", "there").await.unwrap(), "there");
        assert_eq!(db.store.agreement().schema_ahead().await.unwrap(), 0);
        db.raw("INSERT INTO schema_version (version) VALUES (99)").await;
        assert_eq!(db.store.agreement().schema_ahead().await.unwrap(), 1);
    }

    async fn nodes_that_charge_by_other_prices_are_seen_while_they_live(db) {
        let (first, second) = (db.node().await, db.node().await);
        let one = db.store.prices().publish_prices("one", "[1]", now()).await.unwrap();
        db.store.agreement().note_prices(first.id, one).await.unwrap();
        let two = db.store.prices().publish_prices("two", "[2]", now()).await.unwrap();
        db.store.agreement().note_prices(second.id, two).await.unwrap();
        let others = async |node: batchin_store::NodeIdentity, prices: &str| db.store.agreement().other_prices(Some(node.id), prices).await.unwrap();
        assert_eq!(others(first, "one").await, [second.id]);
        assert_eq!(others(second, "two").await, [first.id]);
        // The same list as a later version is the same list.
        let again = db.store.prices().publish_prices("one", "[1]", now()).await.unwrap();
        assert!(again > two);
        db.store.agreement().note_prices(second.id, again).await.unwrap();
        assert_eq!(others(first, "one").await, []);
        assert_eq!(db.store.agreement().other_prices(None, "three").await.unwrap().len(), 2);
        db.store.nodes().leave(second).await.unwrap();
        assert_eq!(db.store.agreement().other_prices(None, "three").await.unwrap(), [first.id]);
    }
}
