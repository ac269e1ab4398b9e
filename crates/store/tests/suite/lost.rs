//! Holds: commits that happened and were not heard of. The connection is cut right after PostgreSQL has carried out a
//! COMMIT and before its reply is passed on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use batchin_domain::{NodeId, Priority, Purse};
use batchin_store::{
    Begun, CancelError, Committer, CommitterOptions, IdempotencyScope, LeaseOutcome, Share, Store, StoreError,
};
use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Db, completed, connect, now, on, units};

/// The way to a database that loses the replies to the next commits.
struct Cut {
    store: Store,
    commits: Arc<AtomicU32>,
}

impl Cut {
    async fn new(db: &Db) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (head, database) = db.url.rsplit_once('/').unwrap();
        let (user, server) = head.rsplit_once('@').unwrap();
        let (url, server) = (format!("{user}@127.0.0.1:{port}/{database}"), server.to_owned());
        let commits = Arc::new(AtomicU32::new(0));
        let to_lose = Arc::clone(&commits);
        db.tasks.spawn("cut", move |stop| async move {
            let mut open = tokio::task::JoinSet::new();
            while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
                let server = TcpStream::connect(&server).await.unwrap();
                open.spawn(pass(client, server, Arc::clone(&to_lose)));
            }
        });
        Self { store: connect(&url).await, commits }
    }

    /// The replies to the next `n` commits are lost.
    fn lose(&self, n: u32) {
        self.commits.store(n, Ordering::SeqCst);
    }

    /// All that were to be lost were.
    fn lost(&self) {
        assert_eq!(self.commits.load(Ordering::SeqCst), 0);
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, to_lose: Arc<AtomicU32>) {
    let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        let passed = tokio::select! {
            n = client.read(&mut up) => {
                let Ok(n @ 1..) = n else { return };
                let commit = up[..n].windows(6).any(|bytes| bytes == b"COMMIT");
                let lose = commit && to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                let sent = server.write_all(&up[..n]).await;
                if lose {
                    // Its reply says that the commit is done.
                    assert_ne!(server.read(&mut down).await.unwrap(), 0);
                    return;
                }
                sent
            }
            n = server.read(&mut down) => {
                let Ok(n @ 1..) = n else { return };
                client.write_all(&down[..n]).await
            }
        };
        if passed.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_commit_was_not_heard_of_is_charged_once() {
    on(Db::postgres().await, async |db| {
        let account = db.account(1_000).await;
        let node = db.node().await;
        db.lease(node, Purse::Balance(account), 500).await;
        db.batch(account, Priority::High, 2).await;
        let tasks = db.claim(node, Priority::High, 2, now()).await.unwrap();
        let cut = Cut::new(db).await;
        let options = CommitterOptions { give_up_after: Duration::from_secs(20), on_failure: Arc::new(|_, _| ()) };
        let committer = Committer::start(cut.store.ledger(), node, options, &db.tasks);
        cut.lose(3);
        let group = [
            db.settlement(account, 10),
            db.settlement(account, 0),
            db.ending(&tasks[0], 20, completed()),
            db.ending(&tasks[1], 0, completed()),
        ];
        let results = join_all(group.into_iter().map(|s| committer.commit(s))).await;
        assert_eq!(results, [Ok(()); 4]);
        committer.commit(db.settlement(account, 5)).await.unwrap();
        cut.lost();
        db.assert_balance(account, 965).await;
        assert_eq!(db.assert_clean().await.usage_rows, 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verbs_whose_commit_was_not_heard_of_are_done_once() {
    on(Db::postgres().await, async |db| {
        let account = db.account(1_000).await;
        let cut = Cut::new(db).await;
        let store = &cut.store;

        cut.lose(1);
        store.credit().grant_credit(db.grant(account, 100)).await.unwrap();
        cut.lost();
        db.assert_balance(account, 1_100).await;

        cut.lose(2);
        let node = store.nodes().join(NodeId::new(db.id()), now(), Duration::from_secs(60)).await.unwrap();
        cut.lost();
        store.nodes().renew(node, now(), Duration::from_secs(60)).await.unwrap();

        cut.lose(1);
        let granted = store.purses().lease(db.ask(node, Purse::Balance(account), 300, 300)).await.unwrap();
        assert!(matches!(granted, LeaseOutcome::Granted { quantity, .. } if quantity == units(300)));
        cut.lost();
        assert_eq!(db.assert_clean().await.leased_nanos, 300);

        cut.lose(1);
        let batch = db.new_batch(account, Priority::High, 20);
        let id = batch.id;
        store.openings().create_batch(batch).await.unwrap();
        cut.lost();
        assert_eq!(db.store.batch_rows().tasks(id, 0, 100).await.unwrap().len(), 20);

        // A claim that was not heard of is seen among the node's claims.
        cut.lose(1);
        assert!(
            store
                .claims()
                .claim(node, &[Share { batch: id, model: "m".to_owned(), tasks: 5, after: None }], now())
                .await
                .is_err()
        );
        cut.lost();
        assert_eq!(store.claims().claims_of(node).await.unwrap().len(), 5);

        cut.lose(1);
        let unheard = store.endings().cancel_batch(account, id, now()).await;
        assert!(matches!(unheard, Err(CancelError::Store(StoreError::Unsure(_)))));
        assert_eq!(store.endings().cancel_batch(account, id, now()).await.unwrap().stopped, 0);

        cut.lose(1);
        let scope = IdempotencyScope { account, key: "k".to_owned() };
        let begun = store.answers().begin_idempotent(&scope, "r", [1; 32], node, now()).await.unwrap();
        assert!(matches!(begun, Begun::First));
        cut.lost();
        assert!(matches!(
            store.answers().begin_idempotent(&scope, "r", [1; 32], node, now()).await.unwrap(),
            Begun::Running
        ));

        cut.lose(1);
        store.nodes().leave(node).await.unwrap();
        cut.lost();
        assert_eq!(db.assert_clean().await.leased_nanos, 0);
    })
    .await;
}
