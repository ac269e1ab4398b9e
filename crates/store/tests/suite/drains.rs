//! Holds: model servers that get nothing new, as several nodes see them.

use std::time::Duration;

use batchin_domain::{Frame, NodeId, RequestId, VideoId};
use batchin_store::{Drain, FilmOrder, FilmPlace, NewFilm};

use crate::support::{Db, both, now};

async fn drains(db: &Db, node: NodeId) -> Vec<Drain> {
    db.store.drains().drains(node).await.unwrap()
}

async fn only(db: &Db, node: NodeId) -> Drain {
    let mut found = drains(db, node).await;
    assert_eq!(found.len(), 1);
    found.remove(0)
}

both! {
    async fn a_drain_is_one_for_all_nodes_and_each_says_what_it_has_under_way(db) {
        let (admin, here, there) = (db.account(0).await, db.node().await, db.node().await);
        let gone = db.node().await;
        assert_eq!(drains(db, here.id).await, []);
        let store = db.store.drains();
        store.drain("gpu-1", Some(admin), now()).await.unwrap();
        store.drain("gpu-1", None, now().after(Duration::from_secs(9))).await.unwrap();
        let seen = only(db, here.id).await;
        let by = Some(format!("{admin}@example.com"));
        let expected = Drain { upstream: "gpu-1".to_owned(), since: now(), by, noted: None, elsewhere: None };
        assert_eq!(seen, expected, "who said it first stands, and nobody has obeyed yet");

        store.note_outstanding(here.id, &seen, 3).await.unwrap();
        store.note_outstanding(there.id, &seen, 5).await.unwrap();
        assert_eq!(only(db, here.id).await, Drain { noted: Some(3), ..expected.clone() }, "one node is silent");
        store.note_outstanding(gone.id, &seen, 7).await.unwrap();
        assert_eq!(only(db, here.id).await, Drain { noted: Some(3), elsewhere: Some(12), ..expected.clone() });
        db.store.nodes().leave(gone).await.unwrap();
        store.note_outstanding(there.id, &seen, 0).await.unwrap();
        assert_eq!(only(db, here.id).await, Drain { noted: Some(3), elsewhere: Some(0), ..expected.clone() });
        assert_eq!(only(db, there.id).await, Drain { noted: Some(0), elsewhere: Some(3), ..expected.clone() });
    }

    async fn a_note_of_a_drain_that_is_over_says_nothing_of_the_next(db) {
        let (here, there) = (db.node().await, db.node().await);
        let store = db.store.drains();
        store.drain("gpu-1", None, now()).await.unwrap();
        let old = only(db, here.id).await;
        store.note_outstanding(there.id, &old, 0).await.unwrap();
        store.resume("gpu-1").await.unwrap();
        store.resume("gpu-1").await.unwrap();
        assert_eq!(drains(db, here.id).await, []);
        // It has not heard of the end yet.
        store.note_outstanding(there.id, &old, 0).await.unwrap();
        let later = now().after(Duration::from_millis(1));
        store.drain("gpu-1", None, later).await.unwrap();
        let new = only(db, here.id).await;
        assert_eq!((new.since, new.by.as_deref(), new.elsewhere), (later, None, None), "it may still send calls");
        store.note_outstanding(there.id, &new, 0).await.unwrap();
        assert_eq!(only(db, here.id).await.elsewhere, Some(0));
    }

    async fn films_are_counted_where_they_are_made(db) {
        let (account, node) = (db.account(0).await, db.node().await);
        let order = || FilmOrder {
            request: RequestId::new(db.id()),
            model: "film".to_owned(),
            prompt: "a kite".to_owned(),
            seconds: 4,
            frame: Frame { width: 848, height: 480 },
        };
        for _ in 0..2 {
            let new = NewFilm { id: VideoId::new(db.id()), account, key: None, order: order(), answer: None, now: now() };
            db.store.film_rows().create_film(&new).await.unwrap();
        }
        assert_eq!(db.store.drains().films_made().await.unwrap(), []);
        let claims = db.store.film_claims();
        let claimed = claims.claim_films(node, (16, 16), now()).await.unwrap();
        assert_eq!(claimed.len(), 2);
        for job in &claimed {
            let place = FilmPlace { upstream: "gpu-1".to_owned(), remote: "job".to_owned(), since: now() };
            assert!(claims.note_submitted(job.claim, &place).await.unwrap());
        }
        assert_eq!(db.store.drains().films_made().await.unwrap(), [("gpu-1".to_owned(), 2)]);
        assert!(claims.note_lost(claimed[0].claim).await.unwrap());
        assert_eq!(db.store.drains().films_made().await.unwrap(), [("gpu-1".to_owned(), 1)]);
    }
}
