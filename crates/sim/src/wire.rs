//! Holds: a simulated server below HTTP: each request is answered by the bytes that its script says, right or wrong.
//!
//! What a server of hyper's would mend or refuse to send (a length that is none, a connection that breaks) is written as it
//! stands. Requests state their length, as ours do.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use batchin_tasks::Tasks;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Most bytes of a request; a test sends few.
const MAX_REQUEST: usize = 1024 * 1024;
/// What a client that wants TLS begins with (RFC 8446, 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Requests kept for a test to look at.
const MAX_RECORDED: usize = 10_000;

/// A request as it came over the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireRequest {
    /// `GET`, `POST` and the like.
    pub method: String,
    /// What is asked for, with its query.
    pub path: String,
    /// Names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl WireRequest {
    /// The value of a header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(is, _)| is == name).map_or("", |(_, value)| value)
    }
}

/// What is written for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The answer's bytes, head and all.
    pub bytes: Bytes,
    /// What follows them.
    pub then: Then,
}

/// What a connection does once the bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It waits for the next request.
    Next,
    /// It ends in good order.
    Close,
    /// It breaks.
    Reset,
    /// It stays open and says nothing more.
    Hang,
}

impl Written {
    /// An answer in good order: this status, this type of content, this body.
    pub fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let head =
            format!("HTTP/1.1 {status} \r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n", body.len());
        Self { bytes: [head.as_bytes(), &body].concat().into(), then: Then::Next }
    }
}

type Script = Arc<dyn Fn(&WireRequest) -> Written + Send + Sync>;
type Seen = Arc<Mutex<Vec<WireRequest>>>;

/// A running server. It ends when [`stop`](Self::stop) is called or the runtime ends.
pub struct WireServer {
    address: SocketAddr,
    tasks: Tasks,
    /// std mutex: held for a push or a copy, never across an await.
    seen: Seen,
}

impl std::fmt::Debug for WireServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WireServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl WireServer {
    /// Listens on a free port of the loopback address, and does as the script says.
    pub async fn start(script: impl Fn(&WireRequest) -> Written + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let (address, script): (_, Script) = (listener.local_addr()?, Arc::new(script));
        let (tasks, connections, seen) = (Tasks::new(), Tasks::new(), Seen::default());
        let all = Arc::clone(&seen);
        tasks.spawn("wire", |stop| async move {
            while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
                let Ok((socket, _)) = accepted else { continue };
                let (script, seen) = (Arc::clone(&script), Arc::clone(&all));
                connections.spawn("wire_connection", |stop| async move {
                    // An error is the client's leaving.
                    stop.run_until_cancelled(serve(socket, &script, &seen)).await;
                });
            }
            connections.shutdown(Duration::ZERO).await;
        });
        Ok(Self { address, tasks, seen })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, in the order in which they were whole.
    pub fn requests(&self) -> Vec<WireRequest> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes the socket and all connections.
    pub async fn stop(self) {
        self.tasks.shutdown(Duration::from_secs(2)).await;
    }
}

async fn serve(mut socket: TcpStream, script: &Script, seen: &Seen) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = next(&mut socket, &mut buffer).await? {
        let written = script(&request);
        {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() < MAX_RECORDED {
                seen.push(request);
            }
        }
        socket.write_all(&written.bytes).await?;
        match written.then {
            Then::Next => {}
            Then::Close => return socket.shutdown().await,
            // What was written has left by then, and can be read before the break.
            Then::Reset => return socket.set_zero_linger(),
            Then::Hang => std::future::pending().await,
        }
    }
    Ok(())
}

/// The next request; `None` where the connection ended instead, or sent what is none.
async fn next(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<WireRequest>> {
    loop {
        if let Some((request, length)) = read(buffer) {
            buffer.drain(..length);
            return Ok(Some(request));
        }
        let mut piece = [0; 16 * 1024];
        let came = socket.read(&mut piece).await?;
        if came == 0 || buffer.len() > MAX_REQUEST {
            return Ok(None);
        }
        buffer.extend_from_slice(&piece[..came]);
        if buffer.first() == Some(&TLS_HANDSHAKE) {
            // As servers without TLS do.
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await?;
            return Ok(None);
        }
    }
}

/// A request and how many bytes it takes, once all of it is there.
fn read(buffer: &[u8]) -> Option<(WireRequest, usize)> {
    let head = buffer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let mut request = WireRequest { method, path, headers: lines.filter_map(header).collect(), body: Bytes::new() };
    let end = head + 4 + request.header("content-length").parse().unwrap_or(0);
    request.body = Bytes::copy_from_slice(buffer.get(head + 4..end)?);
    Some((request, end))
}
