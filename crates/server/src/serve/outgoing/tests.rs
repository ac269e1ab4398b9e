//! Holds: what becomes of answers over HTTP/2, seen frame by frame.

use std::convert::Infallible;

use axum::response::IntoResponse as _;
use futures::{StreamExt as _, stream};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::{sleep, timeout},
};

use super::*;

const PATIENCE: Duration = Duration::from_millis(400);
const LONG: usize = 300_000;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// Bytes that say when they are gone.
struct Owned {
    bytes: Vec<u8>,
    _held: Arc<()>,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn answer(path: &str, held: Arc<()>) -> Response {
    let owned = move |length| Bytes::from_owner(Owned { bytes: vec![b'x'; length], _held: Arc::clone(&held) });
    match path {
        "/long" => Body::from(owned(LONG)).into_response(),
        "/pieces" => {
            let pieces = stream::iter((0..300).map(move |_| owned(LONG / 300)));
            Body::from_stream(pieces.map(Ok::<_, Infallible>)).into_response()
        }
        "/little" => Body::from(owned(LITTLE)).into_response(),
        "/never" => Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()).into_response(),
        "/late" => {
            let late = stream::once(async move {
                sleep(PATIENCE * 3).await;
                Ok::<_, Infallible>(Bytes::from_static(b"at last"))
            });
            Body::from_stream(late).into_response()
        }
        _ => ().into_response(),
    }
}

/// A client that speaks frames.
struct Client {
    io: DuplexStream,
    /// What its answers hold, and this.
    held: Arc<()>,
    streams: u32,
    tasks: TaskTracker,
}

struct Seen {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Client {
    /// Whose streams have so much room at first.
    async fn with_window(window: u32) -> Self {
        let (tasks, held, (io, theirs)) = (TaskTracker::new(), Arc::new(()), duplex(64 * 1024));
        let mut http = Builder::new(Streams::new(tasks.clone(), PATIENCE));
        http.http2().timer(TokioTimer::new());
        let answering = Arc::clone(&held);
        tasks.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let answer = answer(request.uri().path(), Arc::clone(&answering));
                async { Ok::<_, Infallible>(outgoing(answer)) }
            });
            let _ = http.serve_connection(TokioIo::new(theirs), service).await;
        });
        let mut client = Self { io, held, streams: 0, tasks };
        client.io.write_all(PREFACE).await.unwrap();
        let window = [&[0, 4], window.to_be_bytes().as_slice()].concat();
        client.send(SETTINGS, 0, (0, &window)).await;
        // The connection's own window is never what is short.
        client.send(WINDOW_UPDATE, 0, (0, &0x0fff_ffff_u32.to_be_bytes())).await;
        client
    }

    async fn send(&mut self, kind: u8, flags: u8, (stream, payload): (u32, &[u8])) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.io.write_all(&frame).await.unwrap();
    }

    /// Asks for this path on the next stream; which one that is.
    async fn get(&mut self, path: &str) -> u32 {
        let stream = 2 * self.streams + 1;
        self.streams += 1;
        let length = u8::try_from(path.len()).unwrap();
        let head = [&[0x82, 0x86, 0x04, length], path.as_bytes(), &[0x01, 1, b'x']].concat();
        self.send(HEADERS, END_HEADERS | END_STREAM, (stream, &head)).await;
        stream
    }

    async fn give_room(&mut self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, (stream, &bytes.to_be_bytes())).await;
    }

    /// The next frame of a stream.
    async fn next(&mut self) -> Seen {
        loop {
            let mut head = [0; 9];
            self.io.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.io.read_exact(&mut payload).await.unwrap();
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if stream > 0 {
                return Seen { kind: head[3], flags: head[4], stream, payload };
            }
        }
    }

    /// Takes what comes on this stream until it ends: the bytes, the frames that brought them, and whether it was reset.
    async fn take(&mut self, stream: u32) -> (usize, usize, bool) {
        let (mut bytes, mut frames) = (0, 0);
        loop {
            let seen = self.next().await;
            assert_eq!(seen.stream, stream, "nothing else was asked for");
            if seen.kind == RST_STREAM {
                assert_eq!(seen.payload, CANCEL.to_be_bytes());
                return (bytes, frames, true);
            }
            if seen.kind == DATA {
                (bytes, frames) = (bytes + seen.payload.len(), frames + 1);
            }
            if seen.flags & END_STREAM > 0 {
                return (bytes, frames, false);
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_reset_and_forgotten() {
    for (path, window) in [("/little", 0), ("/long", 0), ("/long", 1_000), ("/pieces", 0), ("/pieces", 150_000)] {
        let mut client = Client::with_window(window).await;
        let began = Instant::now();
        let unread = client.get(path).await;
        assert_eq!(client.next().await.kind, HEADERS);
        let mut taken = 0;
        while taken < window as usize {
            taken += client.next().await.payload.len();
        }
        let other = client.get("/nothing").await;
        assert_eq!(client.next().await.stream, other, "others are served meanwhile");
        let rest = timeout(PATIENCE * 10, client.take(unread)).await.expect("its time is over");
        assert_eq!((taken, rest), (window as usize, (0, 0, true)), "{path}");
        assert!(began.elapsed() >= PATIENCE);
        assert_eq!(Arc::strong_count(&client.held), 2, "{path}: the service has it, and the test");
        let other = client.get("/nothing").await;
        assert_eq!(client.next().await.stream, other, "the connection goes on");
    }
}

#[tokio::test]
async fn who_takes_a_little_in_time_gets_all() {
    let mut client = Client::with_window(0).await;
    let (slow, mut taken) = (client.get("/long").await, 0);
    assert_eq!(client.next().await.kind, HEADERS);
    for _ in 0..16 {
        sleep(PATIENCE / 4).await;
        client.give_room(slow, 1_000).await;
        let seen = client.next().await;
        assert_eq!(seen.kind, DATA);
        taken += seen.payload.len();
    }
    assert_eq!(taken, 16_000);
    client.give_room(slow, 1_000_000).await;
    let (rest, _, reset) = client.take(slow).await;
    assert_eq!((taken + rest, reset), (LONG, false));
}

#[tokio::test]
async fn an_answer_that_comes_late_is_waited_for() {
    let mut client = Client::with_window(1_000).await;
    let late = client.get("/late").await;
    let (taken, _, reset) = client.take(late).await;
    assert_eq!((taken, reset), (7, false));
}

#[tokio::test]
async fn a_little_answer_takes_one_frame() {
    let mut client = Client::with_window(1_000_000).await;
    let little = client.get("/little").await;
    assert_eq!(client.take(little).await, (LITTLE, 1, false));
    let long = client.get("/long").await;
    let (taken, _, reset) = client.take(long).await;
    assert_eq!((taken, reset), (LONG, false));
    assert_eq!(Arc::strong_count(&client.held), 2);
}

#[tokio::test]
async fn streams_end_with_their_connection() {
    let mut client = Client::with_window(1_000).await;
    for path in ["/long", "/pieces", "/never"] {
        client.get(path).await;
        while client.next().await.kind != HEADERS {}
    }
    assert_eq!(client.tasks.len(), 4);
    drop(client.io);
    client.tasks.close();
    timeout(PATIENCE / 2, client.tasks.wait()).await.expect("they do not wait for room");
}
