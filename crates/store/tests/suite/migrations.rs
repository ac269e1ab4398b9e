//! Holds: opening databases and bringing them up to date.

use batchin_store::{ConnectError, ConnectOptions, Store};

use crate::support::{Db, both, connect};

async fn open(url: &str, migrate: bool) -> Result<Store, ConnectError> {
    Store::connect(ConnectOptions { url: url.to_owned(), max_connections: 2 }, migrate).await
}

both! {
    async fn migrating_again_changes_nothing(db) {
        let account = db.account(5).await;
        let again = connect(&db.url).await;
        again.ping().await.unwrap();
        assert_eq!(again.user(account).await.unwrap().unwrap().balance.nanos(), 5);
        assert_eq!(db.count("schema_version").await, 4);
        again.close().await.unwrap();
    }

    async fn a_newer_database_is_refused(db) {
        db.raw("INSERT INTO schema_version (version) VALUES (5)").await;
        for migrate in [true, false] {
            assert!(matches!(open(&db.url, migrate).await, Err(ConnectError::TooNew { found: 5, known: 4 })));
        }
    }

    async fn an_older_database_is_brought_up_to_date_only_when_asked(db) {
        for table in [
            "schema_version", "account", "app_user", "session", "api_key", "node", "purse", "lease", "transfer",
            "usage_log", "price_list", "idempotency", "batch", "task", "file",
            "webhook_key", "webhook_secret", "webhook_delivery", "webhook_attempt", "webhook_off",
        ] {
            db.raw(&format!("DROP TABLE {table}")).await;
        }
        assert!(matches!(open(&db.url, false).await, Err(ConnectError::TooOld { found: 0, known: 4 })));
        open(&db.url, true).await.unwrap();
        open(&db.url, false).await.unwrap();
        assert_eq!(db.count("account").await, 0);
    }

    async fn many_that_migrate_at_once_agree(db) {
        for table in [
            "schema_version", "account", "app_user", "session", "api_key", "node", "purse", "lease", "transfer",
            "usage_log", "price_list", "idempotency", "batch", "task", "file",
            "webhook_key", "webhook_secret", "webhook_delivery", "webhook_attempt", "webhook_off",
        ] {
            db.raw(&format!("DROP TABLE {table}")).await;
        }
        for opened in futures::future::join_all((0..6).map(|_| open(&db.url, true))).await {
            opened.unwrap().ping().await.unwrap();
        }
        assert_eq!(db.count("schema_version").await, 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_create_one_sqlite_file_at_once_agree() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("new.db").display());
        for opened in futures::future::join_all((0..6).map(|_| open(&url, true))).await {
            opened.unwrap().ping().await.unwrap();
        }
    }
}

#[tokio::test]
async fn only_two_kinds_of_database_are_known() {
    assert!(matches!(open("mysql://localhost/x", true).await, Err(ConnectError::UnknownScheme)));
    assert!(matches!(open("sqlite:/nowhere/at/all.db", true).await, Err(ConnectError::Open(_))));
}

/// Another process, such as the command line, writes to the same file: neither readers nor writers see it as busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_share_a_sqlite_file() {
    crate::support::on(Db::sqlite().await, async |db| {
        let account = db.account(1).await;
        let other = connect(&db.url).await;
        let mut work = tokio::task::JoinSet::new();
        for store in [db.store.clone(), other] {
            for _ in 0..4 {
                let (store, grants) = (store.clone(), (0..25).map(|_| db.grant(account, 1)).collect::<Vec<_>>());
                work.spawn(async move {
                    for grant in grants {
                        store.grant_credit(grant).await.unwrap();
                        store.user(account).await.unwrap();
                        store.check().await.unwrap();
                    }
                });
            }
        }
        while let Some(done) = work.join_next().await {
            done.unwrap();
        }
        db.assert_balance(account, 201).await;
        db.assert_clean().await;
    })
    .await;
}
