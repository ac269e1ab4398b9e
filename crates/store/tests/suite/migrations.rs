//! Holds: opening databases and bringing them up to date.

use batchin_domain::AccountId;
use batchin_store::{ConnectError, ConnectOptions, Store};
use uuid::Uuid;

use crate::support::{Db, both, connect};

/// As if nothing had ever been opened here.
async fn drop_all(db: &Db) {
    for table in db.tables().await {
        db.raw(&format!("DROP TABLE {table}")).await;
    }
}

/// How many migrations there are, by a database that has just been opened.
async fn known(db: &Db) -> usize {
    db.count("schema_version").await.try_into().unwrap()
}

async fn open(url: &str, migrate: bool) -> Result<Store, ConnectError> {
    Store::connect(ConnectOptions { url: url.to_owned(), max_connections: 2 }, migrate).await
}

both! {
    async fn migrating_again_changes_nothing(db) {
        let (account, migrations) = (db.account(5).await, known(db).await);
        let again = connect(&db.url).await;
        again.pulse().ping().await.unwrap();
        assert_eq!(again.accounts().user(account).await.unwrap().unwrap().balance.nanos(), 5);
        assert_eq!(known(db).await, migrations);
        again.close().await.unwrap();
    }

    async fn a_newer_database_is_refused(db) {
        let newer = known(db).await + 1;
        db.raw(&format!("INSERT INTO schema_version (version) VALUES ({newer})")).await;
        for migrate in [true, false] {
            let opened = open(&db.url, migrate).await;
            assert!(matches!(opened, Err(ConnectError::TooNew { found, known }) if (found, known + 1) == (newer, newer)));
        }
    }

    async fn an_older_database_is_brought_up_to_date_only_when_asked(db) {
        let migrations = known(db).await;
        drop_all(db).await;
        let old = open(&db.url, false).await;
        assert!(matches!(old, Err(ConnectError::TooOld { found: 0, known }) if known == migrations));
        open(&db.url, true).await.unwrap();
        open(&db.url, false).await.unwrap();
        assert_eq!(db.count("account").await, 0);
    }

    async fn many_that_migrate_at_once_agree(db) {
        let migrations = known(db).await;
        drop_all(db).await;
        for opened in futures::future::join_all((0..6).map(|_| open(&db.url, true))).await {
            opened.unwrap().pulse().ping().await.unwrap();
        }
        assert_eq!(known(db).await, migrations);
    }
}

/// The tables as a first version made them, with an account that has used its credit: nothing of it is lost on the way.
async fn what_was_booked_stays_booked(db: &Db, uuid: &str, bytes: &str, quote: fn(u8) -> String) {
    let first = include_str!("../../src/schema/0001_first.sql").replace("{uuid}", uuid).replace("{bytes}", bytes);
    drop_all(db).await;
    db.raw(&first).await;
    let (account, grant, charge, request) = (quote(1), quote(2), quote(3), quote(4));
    db.raw(&format!(
        "CREATE TABLE schema_version (version bigint NOT NULL); INSERT INTO schema_version (version) VALUES (1);
         INSERT INTO account (id, posted_debit, posted_credit, last_seq) VALUES ({account}, 2, 5, 2);
         INSERT INTO app_user (id, email, name, password_hash, role, created_at)
         VALUES ({account}, 'a@example.org', 'A', '', 0, 1);
         INSERT INTO transfer (id, account_id, seq, movement, amount, reference, reason, created_at)
         VALUES ({grant}, {account}, 1, 0, 5, 'invoice 1', 'paid', 1);
         INSERT INTO transfer (id, account_id, seq, movement, amount, request_id, price_version, created_at)
         VALUES ({charge}, {account}, 2, 1, 2, {request}, 1, 2);
         INSERT INTO usage_log (request_id, account_id, model, endpoint, class, input_tokens, output_tokens,
         cached_tokens, cost_nano, price_version, outcome, estimated, created_at, latency_us)
         VALUES ({request}, {account}, 'm', 0, 0, 1, 1, 0, 2, 1, 1, false, 2, 10)"
    ))
    .await;

    let store = open(&db.url, true).await.unwrap();
    let account = AccountId::new(Uuid::from_bytes([1; 16]));
    assert_eq!(store.accounts().user(account).await.unwrap().unwrap().balance.nanos(), 3);
    let credits = store.balances().credits(account, 9).await.unwrap();
    assert_eq!((credits.len(), credits[0].amount.nanos(), credits[0].reference.as_deref()), (1, 5, Some("invoice 1")));
    let report = store.check().await.unwrap();
    assert_eq!(report.faults, []);
    let mut again = db.grant(account, 7);
    again.reference = Some("invoice 1".to_owned());
    assert!(store.credit().grant_credit(again).await.is_err());
    assert_eq!((db.count("transfer").await, db.count("usage_log").await), (2, 1));
    store.close().await.unwrap();
}

#[tokio::test]
async fn sqlites_first_version_is_brought_up_to_date() {
    let quote = |n: u8| format!("x'{}'", format!("{n:02x}").repeat(16));
    what_was_booked_stays_booked(&Db::sqlite().await, "blob", "blob", quote).await;
}

#[tokio::test]
async fn postgresqls_first_version_is_brought_up_to_date() {
    let quote = |n: u8| format!("'{}'::uuid", format!("{n:02x}").repeat(16));
    what_was_booked_stays_booked(&Db::postgres().await, "uuid", "bytea", quote).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_create_one_sqlite_file_at_once_agree() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("new.db").display());
        for opened in futures::future::join_all((0..6).map(|_| open(&url, true))).await {
            opened.unwrap().pulse().ping().await.unwrap();
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
                        store.credit().grant_credit(grant).await.unwrap();
                        store.accounts().user(account).await.unwrap();
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
