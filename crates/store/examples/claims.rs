//! Holds: how long it takes to look for tasks, claim and list them beside a long history.
//!
//! `claims DATABASE_URL ROWS`: on an empty database, then with so many finished rows.

use std::time::Duration;

use batchin_domain::{AccountId, BatchId, CallKind, NodeId, Priority, TaskId, Timestamp};
use batchin_store::{
    BatchTerms, ConnectOptions, NewBatch, NewTask, NewTasks, NewUser, NodeIdentity, Role, Share, Store,
};
use batchin_tasks::Tasks;
use tokio::time::Instant;
use uuid::Uuid;

/// Tasks claimed at once, as a worker does.
const CLAIM: u32 = 64;
/// Claims measured on each side.
const ROUNDS: u32 = 300;
/// Rows of history in one batch.
const PER_BATCH: u64 = 1_000_000;

fn now() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

/// Ids that grow, as the server's do.
fn id(number: u64) -> Uuid {
    Uuid::from_u128(u128::from(number) << 64 | 1)
}

#[tokio::main]
#[expect(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people, not a part of the server")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap();
    let rows: u64 = arguments.next().unwrap().parse().unwrap();
    let store = Store::connect(ConnectOptions { url: url.clone(), max_connections: 8 }, true).await.unwrap();
    let account = AccountId::new(id(1));
    let user = NewUser {
        id: account,
        email: "claims@example.org".to_owned(),
        name: "Claims".to_owned(),
        password_hash: "-".to_owned(),
        role: Role::User,
        now: now(),
    };
    store.accounts().create_user(user).await.unwrap();
    let node = store.nodes().join(NodeId::new(id(2)), now(), Duration::from_secs(3_600)).await.unwrap();
    let empty = measure(&store, node, account, 1 << 32).await;
    let began = Instant::now();
    fill(&url, account, rows).await;
    println!("{rows} finished rows written in {:?}", began.elapsed());
    let full = measure(&store, node, account, 1 << 33).await;
    for (name, empty, full) in [("p50", empty.0, full.0), ("p99", empty.1, full.1)] {
        let ratio = full.as_secs_f64() / empty.as_secs_f64();
        println!("claim of {CLAIM} tasks, {name}: {empty:?} on an empty table, {full:?} beside them: {ratio:.2}");
    }
}

/// The median and the 99th percentile of a look and a claim.
#[expect(clippy::unwrap_used, reason = "a measurement for people, not a part of the server")]
async fn measure(store: &Store, node: NodeIdentity, account: AccountId, first: u64) -> (Duration, Duration) {
    let task = |n: u64| NewTask {
        id: TaskId::new(id(first + n)),
        custom_id: format!("t{n}"),
        model: "m".to_owned(),
        call: CallKind::Chat,
        body_offset: n * 300,
        body_len: 300,
    };
    let new = NewBatch {
        id: BatchId::new(id(first)),
        account,
        key: None,
        terms: BatchTerms {
            priority: Priority::High,
            webhook_url: None,
            window: None,
            max_cost: None,
            call: None,
            metadata: None,
            output_seconds: None,
        },
        input_blob: "in".to_owned(),
        input_file: None,
        tasks: NewTasks::Inline((0..u64::from(CLAIM * ROUNDS)).map(task).collect()),
        answer: None,
        now: now(),
    };
    store.openings().create_batch(new).await.unwrap();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let backlog = store.claims().backlog(Priority::High, &[], (None, 512), now()).await.unwrap();
        let share = Share { batch: backlog.last().unwrap().batch, model: "m".to_owned(), tasks: CLAIM, after: None };
        let claimed = store.claims().claim(node, &[share], now()).await.unwrap();
        times.push(began.elapsed());
        assert_eq!(claimed.len(), CLAIM as usize);
    }
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Finished tasks of ended batches, written behind the store's back.
#[expect(clippy::unwrap_used, reason = "a measurement for people, not a part of the server")]
async fn fill(url: &str, account: AccountId, rows: u64) {
    let postgres = url.starts_with("postgres");
    let mut script = String::new();
    let account = account.uuid().simple().to_string();
    for batch in 0..rows.div_ceil(PER_BATCH) {
        let number = PER_BATCH.min(rows - batch * PER_BATCH);
        let uuid = format!("{:032x}", (1_u128 << 120) + u128::from(batch));
        let base = batch * PER_BATCH;
        let (account_id, batch_id, task_id, series) = if postgres {
            let series = format!("generate_series(0, {}) AS n(i)", number - 1);
            let task = format!("lpad(to_hex({base} + i), 32, '0')::uuid");
            (format!("'{account}'::uuid"), format!("'{uuid}'::uuid"), task, series)
        } else {
            let series = format!(
                "(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n)",
                number - 1
            );
            (format!("x'{account}'"), format!("x'{uuid}'"), format!("unhex(printf('%032x', {base} + i))"), series)
        };
        script.push_str(&format!(
            "INSERT INTO batch (id, account_id, priority, rank, status, total, loaded, completed, input_blob, created_at, \
             finished_at) VALUES ({batch_id}, {account_id}, 0, 0, 2, {number}, {number}, {number}, 'in', 1, 1);"
        ));
        script.push_str(&format!(
            "INSERT INTO task (id, batch_id, idx, account_id, custom_id, model, endpoint, state, epoch, attempts, \
             not_before, body_offset, body_len, seq, result_blob, result_offset, result_len, result_head, input_tokens, \
             output_tokens, cost_nano, finished_at) SELECT {task_id}, {batch_id}, i, {account_id}, 'task-' || i, 'm', 0, 2, \
             1, 1, 1, i * 300, 300, i + 1, 'results/a/b', i * 900, 800, 90, 20, 20, 20, 1 FROM {series};"
        ));
    }
    match url.strip_prefix("sqlite:") {
        Some(file) => rusqlite::Connection::open(file).unwrap().execute_batch(&script).unwrap(),
        None => {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
            Tasks::new().spawn("postgres", |_| async { drop(connection.await) });
            client.batch_execute(&(script + "ANALYZE")).await.unwrap();
        }
    }
}
