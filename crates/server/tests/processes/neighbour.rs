//! A hostile neighbour: one account does everything at once that could stop another, for two minutes, and the other's
//! chats are answered as before.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use crate::harness::{Account, Address, Backend, Settings, World, chat, on_both};

/// How long the other account is watched by itself: enough for a 99th percentile.
const ALONE: Duration = Duration::from_secs(20);
/// How long the neighbour is there, and half a minute for the second database: what it keeps busy is mostly the same.
const TOGETHER: Duration = Duration::from_secs(120);
/// What an answer takes: as a short one of a common model does. Beside it stands what a build without optimisation adds.
const ANSWER: &str = "sim:tokens=10,first_ms=500";
/// Between two chats of the account that is watched.
const PACE: Duration = Duration::from_millis(100);
/// Readers that do not read, waiters, connections that only announce, uploads: each as many as were seen to do harm.
const READERS: usize = 30;
const WAITERS: usize = 50;
const ANNOUNCERS: usize = 111;
const UPLOADS: usize = 32;
/// Between two tries of one who was refused.
const PAUSE: Duration = Duration::from_secs(1);

/// Fires when the neighbour is to stop.
type Stop = watch::Receiver<bool>;

/// What became of one account's chats.
struct Seen {
    times: Vec<Duration>,
    failed: Vec<String>,
}

impl Seen {
    /// The 99th percentile.
    fn p99(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }
}

/// Chats at an even pace, each counted whatever becomes of it.
async fn watch_chats(account: &Account, at: &Address, time: Duration) -> Seen {
    let mut chats = JoinSet::new();
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + time;
    while Instant::now() < end {
        pace.tick().await;
        let (account, at) = (account.clone(), at.clone());
        chats.spawn(async move {
            let began = Instant::now();
            match account.try_chat(&at, &chat("answering", 10)).await {
                Ok(reply) if reply.status == 200 => Ok(began.elapsed()),
                Ok(reply) => Err(format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body))),
                Err(cause) => Err(cause.to_string()),
            }
        });
    }
    let mut seen = Seen { times: Vec::new(), failed: Vec::new() };
    for chat in chats.join_all().await {
        match chat {
            Ok(time) => seen.times.push(time),
            Err(failure) => seen.failed.push(failure),
        }
    }
    seen
}

/// Does something again and again until the neighbour stops.
fn again<F: Future<Output = ()> + Send>(
    all: &mut JoinSet<()>,
    mut stop: Stop,
    mut what: impl FnMut() -> F + Send + 'static,
) {
    all.spawn(async move {
        let done = async move {
            loop {
                what().await;
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = done => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    });
}

fn tasks(model: &str, number: usize) -> Vec<Value> {
    let task = |index| json!({"custom_id": format!("{index}"), "model": model, "request_body": chat(model, 10)});
    (0..number).map(task).collect()
}

async fn connect(at: &Address) -> Option<TcpStream> {
    TcpStream::connect(at.url().trim_start_matches("http://")).await.ok()
}

/// A connection that takes in little before it must be read, so that its sender waits from then on.
async fn connect_narrow(at: &Address) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4 << 10).ok()?;
    socket.connect(at.url().trim_start_matches("http://").parse().ok()?).await.ok()
}

/// Sends a head and the first of its body's bytes, and then one more now and then.
async fn drip(at: Address, head: String) {
    let Some(mut connection) = connect(&at).await else { return };
    if connection.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let (mut from, mut to) = connection.split();
    let drops = async {
        while to.write_all(b" ").await.is_ok() {
            sleep(Duration::from_secs(5)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = drops => {}
        _ = from.read_to_end(&mut answer) => {}
    }
}

/// Asks for a long stream and reads nothing of it.
async fn ask_and_not_read(at: Address, key: String) {
    let Some(mut connection) = connect_narrow(&at).await else { return };
    let mut body = chat("flowing", 1_000);
    body["stream"] = true.into();
    let body = body.to_string();
    let head = head(&key, "/v1/chat/completions", "application/json", body.len());
    if connection.write_all(format!("{head}{body}").as_bytes()).await.is_ok() {
        // Until the server has had enough of it, which a write shows.
        while connection.write_all(b"\r\n").await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

fn head(key: &str, path: &str, kind: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\n\r\n"
    )
}

/// Starts all of it.
fn be_hostile(all: &mut JoinSet<()>, account: &Account, unfunded: &str, at: &Address, stop: &Stop) {
    for model in ["failing", "hanging", "answering"] {
        let (account, at) = (account.clone(), at.clone());
        again(all, stop.clone(), move || {
            let (account, at) = (account.clone(), at.clone());
            async move {
                let batch = json!({"priority": "high", "tasks": tasks(model, 500)});
                let _ = account.try_post(&at, "/v1/batches", &batch).await;
            }
        });
    }
    let poor = account.with_key(unfunded);
    for kind in ["batches", "text"] {
        let (poor, at) = (poor.clone(), at.clone());
        again(all, stop.clone(), move || {
            let (poor, at) = (poor.clone(), at.clone());
            async move {
                let mut tasks = tasks("answering", 3);
                if kind == "text" {
                    tasks[0]["custom_id"] = "a\0b".into();
                }
                let _ = poor.try_post(&at, "/v1/batches", &json!({"tasks": tasks})).await;
            }
        });
    }
    for _ in 0..READERS {
        let (key, at) = (account.key.clone(), at.clone());
        again(all, stop.clone(), move || ask_and_not_read(at.clone(), key.clone()));
    }
    for _ in 0..WAITERS {
        let (poor, at) = (poor.clone(), at.clone());
        again(all, stop.clone(), move || {
            let (poor, at) = (poor.clone(), at.clone());
            async move {
                let _ = poor.try_chat_once(&at, &chat("hanging", 10), "the same for all").await;
            }
        });
    }
    for announcer in 0..ANNOUNCERS + UPLOADS {
        let (path, kind) = if announcer < ANNOUNCERS {
            ("/v1/chat/completions", "application/json")
        } else {
            ("/openai/v1/files", "multipart/form-data; boundary=x")
        };
        let (head, at) = (head(&account.key, path, kind, 1 << 30), at.clone());
        again(all, stop.clone(), move || drip(at.clone(), head.clone()));
    }
    for _ in 0..8 {
        let (account, at) = (account.clone(), at.clone());
        again(all, stop.clone(), move || {
            let (account, at) = (account.clone(), at.clone());
            async move {
                // Leaves before the answer.
                let _ = tokio::time::timeout(PACE / 4, account.try_chat(&at, &chat("answering", 10))).await;
            }
        });
    }
}

on_both! {
    async fn whatever_one_account_does_another_is_answered(backend) {
        let settings = Settings { max_in_flight: 128, tasks_at_once: 64, lease_seconds: 20, ..Settings::default() }
            .model("answering", ANSWER)
            .model("failing", "sim:status=500")
            .model("flowing", "sim:tokens=1000,gap_ms=10")
            .model_on(1, "hanging", "sim:hang");
        let world = World::with_sims(backend, 2, settings).await;
        let mut node = world.node().await;
        let at = &node.address.clone();
        let (quiet, hostile) = (world.account(100_000).await, world.account(100_000).await);
        let unfunded = world.key(&hostile.email, &["--budget-cents", "0"]).await;
        // What is made once is made.
        watch_chats(&quiet, at, ALONE / 10).await;
        let alone = watch_chats(&quiet, at, ALONE).await;
        assert!(alone.failed.is_empty(), "{:?}", alone.failed);

        let (tell, stop) = watch::channel(false);
        let mut all = JoinSet::new();
        be_hostile(&mut all, &hostile, &unfunded, at, &stop);
        let time = if backend == Backend::Postgres { TOGETHER } else { TOGETHER / 4 };
        let together = watch_chats(&quiet, at, time).await;
        tell.send(true).unwrap();
        all.join_all().await;

        let asked = together.times.len() + together.failed.len();
        let (before, during) = (alone.p99(), together.p99());
        let said = format!("{asked} chats, {} failed; p99 {before:?} alone, {during:?} beside it", together.failed.len());
        // Shown where a test fails, or with --no-capture.
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{said}\n"));
        assert!(together.failed.len() * 100 <= asked, "{} of {asked}: {:?}", together.failed.len(), together.failed);
        assert!(during <= before * 3, "p99 {before:?} alone and {during:?} beside the neighbour");
        assert!(node.terminate().await.success());
        world.settled().await;
    }
}
