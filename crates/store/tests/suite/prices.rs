//! Holds: versions of the price list.

use batchin_domain::PriceVersion;

use crate::support::{both, now};

both! {
    async fn a_new_list_gets_a_version_and_the_same_one_keeps_its(db) {
        let publish = async |print: &str| db.store.prices().publish_prices(print, &format!("[{print}]"), now()).await.unwrap().0;
        assert_eq!(publish("a").await, 1);
        assert_eq!(publish("a").await, 1);
        assert_eq!(publish("b").await, 2);
        // Going back to an old list is a change like any other.
        assert_eq!(publish("a").await, 3);
        let old = db.store.prices().price_list(PriceVersion(2)).await.unwrap().unwrap();
        assert_eq!((old.version, old.body.as_str(), old.created_at), (PriceVersion(2), "[b]", now()));
        assert!(db.store.prices().price_list(PriceVersion(9)).await.unwrap().is_none());
    }

    async fn nodes_that_start_together_agree_on_the_version(db) {
        let prices = db.store.prices();
        let all = (0..8).map(|_| prices.publish_prices("a", "[]", now()));
        for version in futures::future::join_all(all).await {
            assert_eq!(version.unwrap(), PriceVersion(1));
        }
    }
}
