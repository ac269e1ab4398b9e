//! Holds: customers who never stop asking, and the books that must balance after whatever happened meanwhile.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{Account, Address, Settings, TOKEN, World, chat, nanos, until};

/// Nano-dollars of every answer of the models that are asked.
pub const ANSWER: i64 = 10 * TOKEN;
/// What a client does that finds no server.
const PAUSE: Duration = Duration::from_millis(10);

/// Clients that ask until they are told to stop, whole answers and streams in turn.
pub struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    /// The models that the clients and the tasks ask for.
    pub fn settings() -> Settings {
        Settings::default()
            .model("brief", "sim:tokens=10,first_ms=15")
            .model("flowing", "sim:tokens=10,gap_ms=4")
            .model("task", "sim:tokens=10,first_ms=150")
    }

    /// So many tasks of the standard price.
    pub fn tasks(count: usize) -> Vec<Value> {
        let task =
            |index| json!({"custom_id": format!("task-{index}"), "model": "task", "request_body": chat("task", 10)});
        (0..count).map(task).collect()
    }

    /// Clients spread over the servers.
    pub fn start(account: &Account, at: &[&Address], clients: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut all = JoinSet::new();
        for client in 0..clients {
            all.spawn(ask(account.clone(), at[client % at.len()].clone(), stopped.clone(), client));
        }
        Self { stop, clients: all }
    }

    /// Ends the clients. Returns the ids of the answers that came whole.
    pub async fn stop(self) -> Vec<String> {
        self.stop.send(true).unwrap();
        self.clients.join_all().await.into_iter().flatten().collect()
    }
}

async fn ask(account: Account, at: Address, stop: watch::Receiver<bool>, first: usize) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for turn in first.. {
        if *stop.borrow() {
            break;
        }
        let answer = if turn.is_multiple_of(2) { whole(&account, &at).await } else { streamed(&account, &at).await };
        match answer {
            Some(id) => acknowledged.push(id),
            None => sleep(PAUSE).await,
        }
    }
    acknowledged
}

/// Asks for a whole answer; its id once it has come.
pub async fn whole(account: &Account, at: &Address) -> Option<String> {
    let reply = account.try_chat(at, &chat("brief", 10)).await.ok()?;
    (reply.status == 200).then(|| reply.json()["id"].as_str().unwrap().to_owned())
}

/// Asks for a stream, which is acknowledged with its `[DONE]`; the answer's id then.
pub async fn streamed(account: &Account, at: &Address) -> Option<String> {
    let mut events = account.try_stream(at, chat("flowing", 10)).await.ok()?;
    let mut id = None;
    while let Ok(Some(data)) = events.next().await {
        if data == "[DONE]" {
            return id;
        }
        let event: Value = serde_json::from_str(&data).unwrap();
        id = event["id"].as_str().map(ToOwned::to_owned).or(id);
    }
    None
}

/// The id of an answer is its request's, with a prefix and without dashes.
fn plain(id: &str) -> String {
    id.rsplit('_').next().unwrap_or_default().replace('-', "")
}

/// Acknowledged ≤ charged ≤ run, and each charge once, with nothing leased any more. Returns the rows of the usage log.
pub async fn books_balance(world: &World, account: &Account, at: &Address, acknowledged: &[String]) -> Vec<Value> {
    let ledger = world.settled().await;
    let run = i64::try_from(world.sim().calls()).unwrap() * ANSWER;
    let rows = charged_once(account, at, acknowledged, run).await;
    assert_eq!(ledger.usage_rows, u64::try_from(rows.len()).unwrap());
    rows
}

/// Acknowledged ≤ charged ≤ run, in nano-dollars, and each charge once. Returns the rows of the usage log.
pub async fn charged_once(account: &Account, at: &Address, acknowledged: &[String], run: i64) -> Vec<Value> {
    let rows = account.usage(at).await;
    let mut costs: HashMap<String, i64> = HashMap::new();
    for row in &rows {
        let cost = nanos(&row["cost_cents"]);
        assert_eq!(costs.insert(plain(row["id"].as_str().unwrap()), cost), None, "one row a request: {row}");
    }
    for id in acknowledged {
        assert_eq!(costs.get(&plain(id)), Some(&ANSWER), "the acknowledged answer {id} is charged");
    }
    let charged = account.funded - account.balance(at).await;
    assert_eq!(charged, costs.values().sum::<i64>());
    assert!(charged <= run, "{charged} nano-dollars charged for {run} that were run");
    rows
}

/// Waits for the batch's end; every task must have one result and one charge.
pub async fn each_task_once(account: &Account, at: &Address, batch: &str, tasks: usize) {
    until("the batch ends", async || (account.batch(at, batch).await["status"] == "completed").then_some(())).await;
    let rows: Vec<Value> = account.usage(at).await;
    assert_eq!(rows.iter().filter(|row| row["batch_id"] == batch).count(), tasks, "each task is charged once");
    let results = account.results(at, batch).await;
    let named: HashSet<&str> = results.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    assert_eq!((results.len(), named.len()), (tasks, tasks), "each task has one result");
}
