//! Holds: requests with an Idempotency-Key.

use std::time::Duration;

use batchin_domain::Purse;
use batchin_store::{Begun, IdempotencyScope, Settlement, StoredAnswer};

use crate::support::{both, now};

const ROUTE: &str = "POST /v1/chat/completions";
const PRINT: [u8; 32] = [3; 32];

fn answer(text: &str) -> StoredAnswer {
    StoredAnswer { status: 201, content_type: "application/json".to_owned(), body: Some(text.as_bytes().to_vec()) }
}

both! {
    async fn the_first_runs_the_second_waits_the_third_gets_the_answer(db) {
        let scope = IdempotencyScope { account: db.account(100).await, key: "k".to_owned() };
        let node = db.node().await;
        let begin = async || db.store.answers().begin_idempotent(&scope, ROUTE, PRINT, node, now()).await.unwrap();
        assert!(matches!(begin().await, Begun::First));
        assert!(matches!(begin().await, Begun::Running));
        db.lease(node, Purse::Balance(scope.account), 50).await;
        let stored = Some((scope.clone(), answer("hello")));
        let settlement = Settlement { answer: stored, ..db.settlement(scope.account, 5) };
        db.committer(node).commit(settlement).await.unwrap();
        let Begun::Done(done) = begin().await else { panic!("not done") };
        assert_eq!((done.status, done.content_type.as_str()), (201, "application/json"));
        assert_eq!(done.body.as_deref(), Some(b"hello".as_slice()));
        // The first answer stands.
        db.store.answers().remember_answer(&scope, &answer("other")).await.unwrap();
        db.store.answers().forget_idempotent(&scope, node).await.unwrap();
        let Begun::Done(done) = begin().await else { panic!("not done") };
        assert_eq!(done.body.as_deref(), Some(b"hello".as_slice()));
        db.assert_clean().await;
    }

    async fn a_key_is_good_for_one_request_of_one_account(db) {
        let (a, b) = (db.account(0).await, db.account(0).await);
        let node = db.node().await;
        let scope = |account, key: &str| IdempotencyScope { account, key: key.to_owned() };
        let begin = async |scope: IdempotencyScope, route: &str, print: [u8; 32]| {
            db.store.answers().begin_idempotent(&scope, route, print, node, now()).await.unwrap()
        };
        assert!(matches!(begin(scope(a, "k"), ROUTE, PRINT).await, Begun::First));
        assert!(matches!(begin(scope(a, "k"), ROUTE, [4; 32]).await, Begun::Mismatch));
        assert!(matches!(begin(scope(a, "k"), "POST /v1/batches", PRINT).await, Begun::Mismatch));
        assert!(matches!(begin(scope(b, "k"), ROUTE, PRINT).await, Begun::First));
        assert!(matches!(begin(scope(a, "l"), ROUTE, PRINT).await, Begun::First));
    }

    async fn one_of_many_at_once_is_the_first(db) {
        let scope = IdempotencyScope { account: db.account(0).await, key: "k".to_owned() };
        let node = db.node().await;
        let answers = db.store.answers();
        let all = (0..12).map(|_| answers.begin_idempotent(&scope, ROUTE, PRINT, node, now()));
        let firsts = futures::future::join_all(all).await.into_iter().filter(|b| matches!(b, Ok(Begun::First)));
        assert_eq!(firsts.count(), 1);
        // Nor do two take over from the same dead node.
        let new = db.store.nodes().join(node.id, now(), Duration::from_secs(9)).await.unwrap();
        let all = (0..12).map(|_| answers.begin_idempotent(&scope, ROUTE, PRINT, new, now()));
        let begun = futures::future::join_all(all).await;
        assert_eq!(begun.iter().filter(|b| matches!(b, Ok(Begun::First))).count(), 1);
        assert_eq!(begun.iter().filter(|b| matches!(b, Ok(Begun::Running))).count(), 11);
    }

    async fn what_a_dead_node_began_may_be_begun_again(db) {
        let scope = IdempotencyScope { account: db.account(0).await, key: "k".to_owned() };
        let (node, other) = (db.node().await, db.node().await);
        let begin = async |node| db.store.answers().begin_idempotent(&scope, ROUTE, PRINT, node, now()).await.unwrap();
        assert!(matches!(begin(node).await, Begun::First));
        assert!(matches!(begin(other).await, Begun::Running));
        db.store.nodes().leave(node).await.unwrap();
        assert!(matches!(begin(other).await, Begun::First));
        // The dead node's own end comes too late to matter.
        db.store.answers().forget_idempotent(&scope, node).await.unwrap();
        assert!(matches!(begin(other).await, Begun::Running));
    }

    async fn what_did_nothing_is_forgotten_and_what_is_old_is_swept(db) {
        let scope = IdempotencyScope { account: db.account(0).await, key: "k".to_owned() };
        let node = db.node().await;
        let begin = async || db.store.answers().begin_idempotent(&scope, ROUTE, PRINT, node, now()).await.unwrap();
        assert!(matches!(begin().await, Begun::First));
        db.store.answers().forget_idempotent(&scope, node).await.unwrap();
        assert!(matches!(begin().await, Begun::First));
        let large = StoredAnswer { body: None, ..answer("") };
        db.store.answers().remember_answer(&scope, &large).await.unwrap();
        assert!(matches!(begin().await, Begun::Done(StoredAnswer { body: None, .. })));
        let day = Duration::from_secs(86_400);
        assert_eq!(db.store.answers().sweep_idempotent(now().after(day), day).await.unwrap(), 0);
        let later = now().after(day).after(Duration::from_micros(1));
        assert_eq!(db.store.answers().sweep_idempotent(later, day).await.unwrap(), 1);
        assert!(matches!(begin().await, Begun::First));
    }
}
