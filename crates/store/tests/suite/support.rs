//! Holds: a database per test, and the few things that most tests begin with.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use batchin_domain::{
    AccountId, Amount, Balance, BatchId, CallKind, Chore, Class, Counts, KeyId, Measure, Month, NodeId, PriceVersion,
    Priority, Purse, Quantity, RequestId, TaskId, Timestamp, TransferId,
};
use batchin_store::{
    Backlog, BatchFiles, BatchTerms, BlobRange, CheckReport, ClaimedTask, Committer, CommitterOptions, ConnectOptions,
    CreditGrant, FencedError, LeaseAsk, LeaseOutcome, NewBatch, NewKey, NewTask, NewTasks, NewUser, NodeIdentity,
    Outcome, Role, Settlement, Share, Store, StoredResult, TaskEnd, TaskError, TaskFinish, UsageMarks, UsageRecord,
};
use batchin_tasks::Tasks;
use futures::FutureExt;
use tempfile::TempDir;
use uuid::Uuid;

/// Runs each body on SQLite and on PostgreSQL, each time on a database of its own.
macro_rules! both {
    ($(async fn $name:ident($db:ident) $body:block)+) => {$(
        async fn $name($db: &$crate::support::Db) $body
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                $crate::support::on($crate::support::Db::sqlite().await, async |db| super::$name(db).await).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                $crate::support::on($crate::support::Db::postgres().await, async |db| super::$name(db).await).await;
            }
        }
    )+};
}
pub(crate) use both;

/// A database that is removed after its test.
pub struct Db {
    pub store: Store,
    pub url: String,
    pub tasks: Tasks,
    /// The cluster's URL and the database's name in it.
    cluster: Option<(String, String)>,
    _dir: Option<TempDir>,
    next: AtomicU64,
}

static DATABASES: AtomicU64 = AtomicU64::new(0);

/// Runs the body and removes the database, also when the body fails.
pub async fn on(db: Db, body: impl AsyncFnOnce(&Db)) {
    let outcome = AssertUnwindSafe(body(&db)).catch_unwind().await;
    db.remove().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

pub fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-10T12:00:00Z").unwrap()
}

/// So much of a purse.
pub fn units(units: i64) -> Quantity {
    Quantity::from_units(units).unwrap()
}

pub fn nanos(nanos: i64) -> Amount {
    Amount::from_nanos(nanos).unwrap()
}

pub async fn connect(url: &str) -> Store {
    Store::connect(ConnectOptions { url: url.to_owned(), max_connections: 8 }, true).await.unwrap()
}

/// A connection past the store.
fn sqlite(file: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    connection
}

/// A connection past the store, which ends with its client.
pub async fn client(url: &str) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.expect("the cluster of BATCHIN_TEST_POSTGRES answers");
    Tasks::new().spawn("postgres", |_| async { drop(connection.await) });
    client
}

impl Db {
    pub async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", dir.path().join("batchin.db").display());
        Self::new(url, None, Some(dir)).await
    }

    #[expect(clippy::disallowed_methods, reason = "the test harness is told about its database like the server is")]
    pub async fn postgres() -> Self {
        let cluster = std::env::var("BATCHIN_TEST_POSTGRES");
        let cluster = cluster.expect("BATCHIN_TEST_POSTGRES is not set: run the tests with `make test`");
        let number = DATABASES.fetch_add(1, Ordering::Relaxed);
        let name = format!("batchin_test_{}_{number}", std::process::id());
        let admin = client(&cluster).await;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let (server, _) = cluster.rsplit_once('/').unwrap();
        Self::new(format!("{server}/{name}"), Some((cluster.clone(), name)), None).await
    }

    async fn new(url: String, cluster: Option<(String, String)>, dir: Option<TempDir>) -> Self {
        let store = connect(&url).await;
        Self { store, url, tasks: Tasks::new(), cluster, _dir: dir, next: AtomicU64::new(1) }
    }

    async fn remove(self) {
        self.tasks.shutdown(Duration::ZERO).await;
        if let Some((cluster, name)) = self.cluster {
            client(&cluster).await.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
        }
    }

    pub fn is_postgres(&self) -> bool {
        self.cluster.is_some()
    }

    /// Changes rows behind the store's back.
    pub async fn raw(&self, sql: &str) {
        match self.url.strip_prefix("sqlite:") {
            Some(file) => sqlite(file).execute_batch(sql).unwrap(),
            None => client(&self.url).await.batch_execute(sql).await.unwrap(),
        }
    }

    /// Whether the database refuses a statement.
    pub async fn refuses(&self, sql: &str) -> bool {
        match self.url.strip_prefix("sqlite:") {
            Some(file) => sqlite(file).execute_batch(sql).is_err(),
            None => client(&self.url).await.batch_execute(sql).await.is_err(),
        }
    }

    /// The names of all tables, as the database tells them.
    pub async fn tables(&self) -> Vec<String> {
        match self.url.strip_prefix("sqlite:") {
            Some(file) => {
                let connection = sqlite(file);
                let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
                let mut statement = connection.prepare(sql).unwrap();
                statement.query_map((), |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
            }
            None => {
                let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()";
                let rows = client(&self.url).await.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
        }
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &str) -> i64 {
        let [count] = self.numbers(&format!("SELECT count(*) FROM {table}")).await;
        count
    }

    /// The numbers of a query's first row.
    pub async fn numbers<const N: usize>(&self, sql: &str) -> [i64; N] {
        match self.url.strip_prefix("sqlite:") {
            Some(file) => {
                let row = |row: &rusqlite::Row<'_>| (0..N).map(|at| row.get(at)).collect::<Result<Vec<i64>, _>>();
                sqlite(file).query_row(sql, (), row).unwrap().try_into().unwrap()
            }
            None => {
                let row = client(&self.url).await.query_one(sql, &[]).await.unwrap();
                std::array::from_fn(|at| row.get(at))
            }
        }
    }

    /// A fresh id, larger than all before it.
    pub fn id(&self) -> Uuid {
        Uuid::from_u128(u128::from(self.next.fetch_add(1, Ordering::Relaxed)) << 64 | 7)
    }

    /// An account with this much credit.
    pub async fn account(&self, credit: i64) -> AccountId {
        let id = AccountId::new(self.id());
        let user = NewUser {
            id,
            email: format!("{id}@example.com"),
            name: "Ada".to_owned(),
            password_hash: "$argon2id$".to_owned(),
            role: Role::User,
            now: now(),
        };
        self.store.accounts().create_user(user).await.unwrap();
        if credit > 0 {
            self.store.credit().grant_credit(self.grant(id, credit)).await.unwrap();
        }
        id
    }

    pub fn grant(&self, account: AccountId, credit: i64) -> CreditGrant {
        let id = TransferId::new(self.id());
        let (actor, reason) = ("test".to_owned(), "test".to_owned());
        CreditGrant { id, account, amount: nanos(credit), actor, reason, reference: None, reverses: None, now: now() }
    }

    pub async fn key(&self, account: AccountId, rate_limit_rpm: u32, budget: Option<i64>) -> KeyId {
        let id = KeyId::new(self.id());
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(id.uuid().as_bytes());
        let last4 = "abcd".to_owned();
        let monthly_budget = budget.map(nanos);
        let key = NewKey { id, account, hash, last4, name: None, rate_limit_rpm, monthly_budget, now: now() };
        self.store.accounts().create_key(key).await.unwrap();
        id
    }

    pub async fn node(&self) -> NodeIdentity {
        self.store.nodes().join(NodeId::new(self.id()), now(), Duration::from_secs(60)).await.unwrap()
    }

    pub fn ask(&self, node: NodeIdentity, purse: Purse, need: i64, want: i64) -> LeaseAsk {
        LeaseAsk { node, purse, need: units(need), want: units(want), grant: self.id(), recall: true }
    }

    /// Leases exactly this much.
    pub async fn lease(&self, node: NodeIdentity, purse: Purse, need: i64) {
        match self.store.purses().lease(self.ask(node, purse, need, need)).await.unwrap() {
            LeaseOutcome::Granted { quantity, .. } => assert_eq!(quantity, units(need)),
            other => panic!("{other:?}"),
        }
    }

    /// What could be leased of a purse, by asking for more than there is.
    pub async fn available(&self, node: NodeIdentity, purse: Purse) -> Quantity {
        match self.store.purses().lease(self.ask(node, purse, i64::MAX, 0)).await.unwrap() {
            LeaseOutcome::Short { available, .. } => available,
            other => panic!("{other:?}"),
        }
    }

    pub async fn balance(&self, account: AccountId) -> i64 {
        self.store.accounts().user(account).await.unwrap().unwrap().balance.nanos()
    }

    pub async fn assert_balance(&self, account: AccountId, nanos: i64) {
        assert_eq!(self.store.accounts().user(account).await.unwrap().unwrap().balance, Balance::from_nanos(nanos));
    }

    /// One finished request's charge.
    pub fn settlement(&self, account: AccountId, charge: i64) -> Settlement {
        Settlement {
            charge_id: TransferId::new(self.id()),
            account,
            key: None,
            month: now().month(),
            budget_held: false,
            cap_held: false,
            charge: nanos(charge),
            given_back: Amount::ZERO,
            usage: Some(self.usage(charge)),
            task: None,
            film: None,
            answer: None,
            now: now(),
        }
    }

    pub fn usage(&self, cost: i64) -> UsageRecord {
        UsageRecord {
            request: RequestId::new(self.id()),
            model: "m".to_owned(),
            call: CallKind::Chat,
            class: Class::Interactive,
            task: None,
            counts: Counts::of_tokens(10, 20).with(Measure::CachedTokens, 5).with(Measure::CacheWriteTokens, 3),
            cost: nanos(cost),
            price_version: PriceVersion(1),
            outcome: Outcome::Completed,
            estimated: false,
            marks: UsageMarks::default(),
            created_at: now(),
            latency: Duration::from_millis(30),
            ttft: Some(Duration::from_millis(3)),
        }
    }

    /// A settlement that also ends a claimed task.
    pub fn ending(&self, task: &ClaimedTask, charge: i64, end: TaskEnd) -> Settlement {
        let mut settlement = self.settlement(task.account, charge);
        settlement.usage.as_mut().unwrap().task = Some((task.batch, task.claim.task));
        settlement.task = Some(TaskFinish { batch: task.batch, task: task.claim.task, epoch: task.claim.epoch, end });
        settlement
    }

    pub fn committer(&self, node: NodeIdentity) -> Committer {
        let options = CommitterOptions { give_up_after: Duration::from_secs(20), on_failure: Arc::new(|_, _| ()) };
        Committer::start(self.store.ledger(), node, options, &self.tasks)
    }

    pub async fn batch(&self, account: AccountId, priority: Priority, tasks: usize) -> BatchId {
        let batch = self.new_batch(account, priority, tasks);
        let id = batch.id;
        self.store.openings().create_batch(batch).await.unwrap();
        id
    }

    pub fn new_batch(&self, account: AccountId, priority: Priority, tasks: usize) -> NewBatch {
        NewBatch { tasks: NewTasks::Inline(self.new_tasks(0, tasks)), ..self.new_file_batch(account, priority) }
    }

    /// Tasks `t{first}` and on.
    pub fn new_tasks(&self, first: usize, number: usize) -> Vec<NewTask> {
        let task = |n: usize| NewTask {
            id: TaskId::new(self.id()),
            custom_id: format!("t{n}"),
            model: "m".to_owned(),
            call: CallKind::Chat,
            body_offset: n as u64 * 100,
            body_len: 100,
        };
        (first..first + number).map(task).collect()
    }

    /// A batch whose file is yet to be read.
    pub fn new_file_batch(&self, account: AccountId, priority: Priority) -> NewBatch {
        NewBatch {
            id: BatchId::new(self.id()),
            account,
            key: None,
            terms: BatchTerms {
                priority,
                webhook_url: None,
                window: None,
                max_cost: None,
                call: None,
                metadata: None,
                output_seconds: None,
            },
            input_blob: "in".to_owned(),
            input_file: None,
            tasks: NewTasks::File,
            answer: None,
            now: now(),
        }
    }

    /// Claims the oldest tasks of a rank.
    pub async fn claim(
        &self,
        node: NodeIdentity,
        rank: Priority,
        limit: u32,
        at: Timestamp,
    ) -> Result<Vec<ClaimedTask>, FencedError> {
        let mut backlog = self.store.claims().backlog(rank, &[], (None, 1_000), at).await.unwrap();
        backlog.sort_by(|a, b| (a.batch, &a.model).cmp(&(b.batch, &b.model)));
        let mut claimed = self.store.claims().claim(node, &[], at).await?;
        for Backlog { batch, model, .. } in backlog {
            let tasks = limit - u32::try_from(claimed.len()).unwrap();
            if tasks > 0 {
                claimed
                    .extend(self.store.claims().claim(node, &[Share { batch, model, tasks, after: None }], at).await?);
            }
        }
        Ok(claimed)
    }

    /// Does every chore but reading and loading, until there is none.
    pub async fn do_chores(&self, node: NodeIdentity) {
        while let Some(batch) = self.store.chores().take_chore(node, None, now()).await.unwrap() {
            match batch.chore {
                Chore::Stop => {
                    self.store
                        .chores()
                        .stop_tasks(node, batch.id, 0..u64::from(batch.counts.total), now())
                        .await
                        .unwrap();
                }
                Chore::Close => {
                    let times = (now().after(Duration::from_secs(60)), now());
                    self.store.chores().close_batch(node, batch.id, BatchFiles::default(), times).await.unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// The ledger has no fault.
    pub async fn assert_clean(&self) -> CheckReport {
        let report = self.store.check().await.unwrap();
        assert_eq!(report.faults, []);
        report
    }
}

pub fn completed() -> TaskEnd {
    let body = BlobRange { blob: "out".to_owned(), offset: 7, len: 9 };
    TaskEnd::Completed { result: StoredResult { body, head: 5 }, reasoning_tokens: 2 }
}

pub fn failed() -> TaskEnd {
    TaskEnd::Failed(refused())
}

pub fn refused() -> TaskError {
    TaskError {
        code: "server_error".to_owned(),
        message: "no".to_owned(),
        status: Some(400),
        kind: Some("invalid_request_error".to_owned()),
        param: Some("messages".to_owned()),
    }
}

pub fn this_month() -> Month {
    now().month()
}
