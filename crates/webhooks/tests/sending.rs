//! Holds: what one try does to receivers that behave, that do not, and that are somewhere they must not be.
//!
//! Receivers and the name service are fakes of the outside world; the rest is ours, over real sockets.
#![expect(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use batchin_domain::{
    Timestamp,
    webhook::{EventId, EventKind, FailureKind, TargetPolicy, TryResult},
};
use batchin_tasks::Tasks;
use batchin_webhooks::{Lookup, Message, Sender, WebhookSecret, body, signature};
use futures::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};
use uuid::Uuid;

/// Long enough for a busy machine, and far above what a try that ends at once takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// For tries that are to run out of it.
const IMPATIENCE: Duration = Duration::from_millis(400);

fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-11-10T12:00:00Z").unwrap()
}

/// A fake name service: each question gets the next answer, the last one for good.
struct Names {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Names {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self { answers: answers.iter().map(parse).collect(), asked: AtomicUsize::new(0) })
    }
}

impl Lookup for Names {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let at = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let answer = self.answers[at].clone();
        Box::pin(async move { Ok(answer) })
    }
}

/// What a fake receiver does once it has read a request.
#[derive(Clone)]
enum Then {
    Answer(String),
    /// Begins an answer and adds a byte every now and then, for ever.
    Dribble(&'static str),
    /// Begins an answer and sends as much as the connection takes, for ever.
    Flood(&'static str),
    HangUp,
}

struct Receiver {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    /// Connections that were closed on it while it was sending.
    closed: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Receiver {
    async fn start(then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tasks) = (listener.local_addr().unwrap(), Tasks::new());
        let (requests, closed) = (Arc::default(), Arc::default());
        let receiver =
            Self { address, requests: Arc::clone(&requests), closed: Arc::clone(&closed), tasks: tasks.clone() };
        let connections = tasks.clone();
        tasks.spawn("receiver", move |stop| async move {
            while let Some(Ok((mut stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (then, requests, closed) = (then.clone(), Arc::clone(&requests), Arc::clone(&closed));
                connections.spawn("connection", move |stop| async move {
                    let served = async {
                        let request = read_request(&mut stream).await;
                        requests.lock().unwrap().push(request);
                        if answer(&mut stream, then).await.is_err() {
                            closed.fetch_add(1, Ordering::SeqCst);
                        }
                    };
                    stop.run_until_cancelled(served).await;
                });
            }
        });
        receiver
    }

    async fn answering(head: &str) -> Self {
        Self::start(Then::Answer(format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n"))).await
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hook?token=t", self.address.port())
    }

    fn seen(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    async fn stop(self) {
        assert_eq!(self.tasks.shutdown(PATIENCE).await, 0);
    }
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() >= length.parse().unwrap() {
                return text;
            }
        }
        let n = stream.read(&mut buffer).await.unwrap();
        if n == 0 {
            return text;
        }
        read.extend_from_slice(&buffer[..n]);
    }
}

async fn answer(stream: &mut TcpStream, then: Then) -> io::Result<()> {
    match then {
        Then::Answer(text) => stream.write_all(text.as_bytes()).await,
        Then::HangUp => Ok(()),
        Then::Dribble(head) => {
            stream.write_all(head.as_bytes()).await?;
            loop {
                sleep(Duration::from_millis(20)).await;
                stream.write_all(b"x").await?;
            }
        }
        Then::Flood(head) => {
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(&[b'x'; 8_192]).await?;
            }
        }
    }
}

/// Open to exactly one address of this machine, which stands for the public internet here.
fn policy() -> TargetPolicy {
    TargetPolicy { allow_http: true, allow: vec!["127.0.0.1/32".parse().unwrap()], own: Vec::new() }
}

fn sender(names: &Arc<Names>) -> Sender {
    // Whoever installed one before installed the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Sender::new(policy(), Arc::clone(names) as Arc<dyn Lookup>).unwrap().with_timeout(PATIENCE)
}

fn message(url: &str) -> Message {
    let id = EventId::new(Uuid::from_u128(7));
    let text = body(id, EventKind::BatchCompleted, Uuid::from_u128(8), now());
    Message::new(url, id, text, &[WebhookSecret::new([1; 32])], now())
}

async fn send(sender: &Sender, url: &str) -> TryResult {
    sender.send(&message(url), now()).await
}

fn status(status: u16) -> TryResult {
    TryResult { status: Some(status), failure: None, retry_after: None }
}

fn failed(kind: FailureKind) -> TryResult {
    TryResult { status: None, failure: Some(kind), retry_after: None }
}

#[tokio::test]
async fn a_request_is_what_receivers_expect() {
    let (receiver, names) = (Receiver::answering("204 No Content").await, Names::new(&[&["127.0.0.1"]]));
    assert_eq!(send(&sender(&names), &receiver.url("hook.example")).await, status(204));
    let seen = receiver.seen();
    let (head, body) = seen[0].split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some("POST /hook?token=t HTTP/1.1"));
    let headers: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
    let header = |name: &str| headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).unwrap().1;
    let id = "evt_00000000000000000000000000000007";
    assert_eq!((header("webhook-id"), header("content-type")), (id, "application/json"));
    assert_eq!(header("host"), format!("hook.example:{}", receiver.address.port()));
    assert_eq!(header("webhook-timestamp"), now().seconds().to_string());
    let expected = signature(&[WebhookSecret::new([1; 32])], id, now().seconds(), body.as_bytes());
    assert_eq!(header("webhook-signature"), expected);
    assert!(header("user-agent").starts_with("batchin-webhooks/"));
    let shape = r#"{"created_at":1794312000,"data":{"id":"00000000-0000-0000-0000-000000000008"},"id":"evt_00000000000000000000000000000007","object":"event","type":"batch.completed"}"#;
    let same = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(same(body), same(shape));
    receiver.stop().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_leads_nowhere() {
    let inside = Receiver::answering("200 OK").await;
    let names = Names::new(&[&["127.0.0.1"]]);
    for code in [301, 302, 307, 308] {
        let head = format!("{code} Elsewhere\r\nlocation: http://127.0.0.1:{}/", inside.address.port());
        let receiver = Receiver::answering(&head).await;
        let expected = TryResult { failure: Some(FailureKind::Redirected), ..status(code) };
        assert_eq!(send(&sender(&names), &receiver.url("hook.example")).await, expected);
        assert_eq!(receiver.seen().len(), 1);
        receiver.stop().await;
    }
    assert!(inside.seen().is_empty());
    inside.stop().await;
}

#[tokio::test]
async fn a_name_is_judged_by_where_the_connection_goes() {
    let receiver = Receiver::answering("200 OK").await;
    let url = receiver.url("hook.example");
    // Each of these is this machine too, and the receiver listens only on the one that is open.
    for denied in ["127.0.0.2", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "0.0.0.0"]
    {
        let names = Names::new(&[&[denied]]);
        assert_eq!(send(&sender(&names), &url).await, failed(FailureKind::Forbidden), "{denied}");
    }
    assert!(receiver.seen().is_empty());
    // Of mixed answers, only what is open is used.
    let mixed = Names::new(&[&["10.0.0.1", "::1", "127.0.0.1", "127.0.0.2"]]);
    assert_eq!(send(&sender(&mixed), &url).await, status(200));
    assert_eq!(receiver.seen().len(), 1);
    assert_eq!(send(&sender(&Names::new(&[&[]])), &url).await, failed(FailureKind::Unresolved));
    receiver.stop().await;
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_second_time_gains_nothing() {
    let receiver = Receiver::answering("500 Oops").await;
    let (open, closed): (&[&str], &[&str]) = (&["127.0.0.1"], &["127.0.0.2"]);
    let names = Names::new(&[open, closed, open, closed]);
    let (sender, url) = (sender(&names), receiver.url("rebinding.example"));
    let mut results = Vec::new();
    for _ in 0..4 {
        results.push(send(&sender, &url).await);
    }
    let denied = failed(FailureKind::Forbidden);
    assert_eq!(results, [status(500), denied, status(500), denied]);
    // One question a try: between looking and connecting there is no second answer.
    assert_eq!(names.asked.load(Ordering::SeqCst), 4);
    assert_eq!(receiver.seen().len(), 2);
    receiver.stop().await;
}

#[tokio::test]
async fn an_address_in_the_url_is_judged_without_asking_anybody() {
    let receiver = Receiver::answering("200 OK").await;
    let names = Names::new(&[&["127.0.0.1"]]);
    for host in ["127.0.0.2", "0x7f.2", "2130706434", "127.2", "１２７.０.０.２", "[::ffff:127.0.0.1]", "[::1]"] {
        assert_eq!(send(&sender(&names), &receiver.url(host)).await, failed(FailureKind::Forbidden), "{host}");
    }
    for url in ["ftp://127.0.0.1/", "http://127.0.0.1:22/", "http://ada:pw@127.0.0.1/", "nonsense"] {
        assert_eq!(send(&sender(&names), url).await, failed(FailureKind::Forbidden), "{url}");
    }
    assert!(receiver.seen().is_empty());
    for host in ["127.0.0.1", "0x7f.1", "2130706433"] {
        assert_eq!(send(&sender(&names), &receiver.url(host)).await, status(200), "{host}");
    }
    assert_eq!(names.asked.load(Ordering::SeqCst), 0);
    let strict = TargetPolicy { allow_http: false, ..policy() };
    let strict = Sender::new(strict, names).unwrap();
    assert_eq!(send(&strict, &receiver.url("127.0.0.1")).await, failed(FailureKind::Forbidden));
    receiver.stop().await;
}

#[tokio::test]
async fn who_answers_slowly_is_given_up_in_time() {
    let names = Names::new(&[&["127.0.0.1"]]);
    for begun in ["", "HTTP/1.1 200 OK\r\nx-slow: "] {
        let receiver = Receiver::start(Then::Dribble(begun)).await;
        let began = Instant::now();
        let sender = sender(&names).with_timeout(IMPATIENCE);
        let result = send(&sender, &receiver.url("hook.example")).await;
        // Bytes that are no HTTP end it at once.
        let expected = if begun.is_empty() { FailureKind::Broken } else { FailureKind::TimedOut };
        assert_eq!(result, failed(expected), "{begun:?}");
        assert!(began.elapsed() < PATIENCE / 2);
        receiver.stop().await;
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_and_counts() {
    let names = Names::new(&[&["127.0.0.1"]]);
    let flood = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
    let zipped = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1000000000000\r\n\r\n";
    for then in [Then::Flood(flood), Then::Flood(zipped), Then::Dribble(flood)] {
        let slow = matches!(then, Then::Dribble(_));
        let receiver = Receiver::start(then).await;
        let sender = if slow { sender(&names).with_timeout(IMPATIENCE) } else { sender(&names) };
        let began = Instant::now();
        assert_eq!(send(&sender, &receiver.url("hook.example")).await, status(200));
        assert!(began.elapsed() < PATIENCE / 2, "it was not cut");
        // The connection is closed on it, whatever it still has to say.
        let closed = async {
            while receiver.closed.load(Ordering::SeqCst) == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.unwrap();
        receiver.stop().await;
    }
}

#[tokio::test]
async fn what_else_goes_wrong_has_its_name() {
    let names = Names::new(&[&["127.0.0.1"]]);
    let receiver = Receiver::start(Then::HangUp).await;
    let url = receiver.url("hook.example");
    assert_eq!(send(&sender(&names), &url).await, failed(FailureKind::Broken));
    receiver.stop().await;
    assert_eq!(send(&sender(&names), &url).await, failed(FailureKind::Unreachable));
    let receiver = Receiver::answering("503 Busy\r\nretry-after: 77").await;
    let expected = TryResult { retry_after: Some(Duration::from_secs(77)), ..status(503) };
    assert_eq!(send(&sender(&names), &receiver.url("hook.example")).await, expected);
    // TLS is demanded where it was asked for: the receiver waits for a request that it could read.
    let url = receiver.url("hook.example").replace("http:", "https:");
    let sender = sender(&names).with_timeout(IMPATIENCE);
    assert_eq!(send(&sender, &url).await, failed(FailureKind::TimedOut));
    assert_eq!(receiver.seen().len(), 1);
    receiver.stop().await;
}
