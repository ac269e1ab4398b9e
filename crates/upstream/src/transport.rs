//! Holds: the connections to one server, kept from one call to the next.
//!
//! Plain TCP, TLS or a Unix socket behind one call, with HTTP/1.1 on each. Dropping an answer before its end closes the
//! connection, which is how a call is cancelled. hyper-util's client does the same for any number of servers, and more for each
//! call than one server needs (ARCHITECTURE.md).

use std::{
    collections::VecDeque,
    error::Error,
    future::poll_fn,
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::HOST, uri::PathAndQuery, uri::Scheme};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    rt::{Executor, Read, Write},
};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::connect::HttpConnector,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::UnixStream, time::Instant};
use tower::Service;

use batchin_openai::Endpoint;

use crate::{
    config::{Address, UpstreamConfig},
    dialect::HealthPath,
};

/// Idle connections kept to one server; as many as calls at once on a large replica.
const MAX_IDLE_CONNECTIONS: usize = 512;

/// Below the 5 s after which uvicorn, and so vLLM and SGLang, closes an idle connection.
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(4);

/// Prefix of calls where the address has no path of its own.
const DEFAULT_PREFIX: &str = "/v1";

/// What names the server where its address has no host.
const UNIX_HOST: HeaderValue = HeaderValue::from_static("localhost");

type Sender = SendRequest<Full<Bytes>>;

/// The connections to one server.
pub(crate) struct Transport {
    connector: Connector,
    host: HeaderValue,
    idle: Arc<Idle>,
}

enum Connector {
    Tcp(HttpConnector, Uri),
    Tls(HttpsConnector<HttpConnector>, Uri),
    Unix(PathBuf),
}

/// No TLS configuration could be made from the roots of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS cannot be set up")]
pub struct TlsError;

/// Why no answer began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SendError {
    /// There is no connection.
    #[error("no connection ({0})")]
    Connect(io::ErrorKind),
    /// The connection broke, or what came was no answer.
    #[error("the connection broke")]
    Broken,
}

impl Transport {
    pub(crate) fn new(config: &UpstreamConfig) -> Result<Self, TlsError> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.connect_timeout));
        http.enforce_http(false);
        let (connector, host) = match &config.address {
            Address::Unix(path) => (Connector::Unix(path.clone()), UNIX_HOST),
            Address::Http(base) if base.scheme() == Some(&Scheme::HTTPS) => {
                (Connector::Tls(tls(http)?, base.clone()), host(base, 443))
            }
            Address::Http(base) => (Connector::Tcp(http, base.clone()), host(base, 80)),
        };
        Ok(Self { connector, host, idle: Arc::default() })
    }

    /// Sends a request to a path of the server; returns with the head of its answer.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<AnswerBody>, SendError> {
        request.headers_mut().insert(HOST, self.host.clone());
        loop {
            let (mut sender, used) = match self.idle.take(Instant::now()) {
                Some(sender) => (sender, true),
                // Boxed: most calls need no room for it in their futures.
                None => (Box::pin(self.connector.connect()).await.map_err(SendError::Connect)?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let connection = Some((sender, Arc::clone(&self.idle)));
                    return Ok(response.map(|incoming| AnswerBody { incoming, connection }));
                }
                // A server may close a connection just when it is used again. What comes back was not sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if used => request = unsent,
                    Some(_) | None => return Err(SendError::Broken),
                },
            }
        }
    }
}

impl Connector {
    async fn connect(&self) -> Result<Sender, io::ErrorKind> {
        match self {
            Self::Tcp(tcp, to) => established(reached(tcp.clone(), to).await?).await,
            Self::Tls(tls, to) => established(reached(tls.clone(), to).await?).await,
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| error.kind())?;
                established(TokioIo::new(stream)).await
            }
        }
    }
}

async fn reached<C>(mut connector: C, to: &Uri) -> Result<C::Response, io::ErrorKind>
where
    C: Service<Uri>,
    C::Error: Into<Box<dyn Error + Send + Sync>>,
{
    poll_fn(|cx| connector.poll_ready(cx)).await.map_err(|error| kind_of(&*error.into()))?;
    connector.call(to.clone()).await.map_err(|error| kind_of(&*error.into()))
}

async fn established(stream: impl Read + Write + Send + Unpin + 'static) -> Result<Sender, io::ErrorKind> {
    let (sender, connection) = handshake(stream).await.map_err(|error| kind_of(&error))?;
    // It ends with its sender and the answer under way, so nobody need wait for it. What fails, the answer shows.
    TokioExecutor::new().execute(async move { drop(connection.await) });
    Ok(sender)
}

/// The machine's own fault behind an error, if there is one.
pub(crate) fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

fn kind_of(error: &(dyn Error + 'static)) -> io::ErrorKind {
    io_kind(error).unwrap_or(io::ErrorKind::Other)
}

fn host(base: &Uri, default_port: u16) -> HeaderValue {
    let named = match base.port_u16() {
        Some(port) if port != default_port => base.authority().map(|authority| authority.as_str()),
        Some(_) | None => base.host(),
    };
    named.and_then(|name| HeaderValue::from_str(name).ok()).unwrap_or(UNIX_HOST)
}

/// The machine's own roots, or Mozilla's where it has none, as in a bare container.
fn tls(http: HttpConnector) -> Result<HttpsConnector<HttpConnector>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|_| TlsError)?;
    let config = match builder.clone().with_native_roots() {
        Ok(rooted) => rooted.with_no_client_auth(),
        Err(_) => builder.with_webpki_roots().with_no_client_auth(),
    };
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(http))
}

/// Connections without a call, the one that was used last at the end.
#[derive(Default)]
struct Idle {
    /// std mutex: held for a look at the list, never across an await.
    kept: Mutex<VecDeque<Kept>>,
}

struct Kept {
    sender: Sender,
    since: Instant,
}

impl Idle {
    /// One that a request can be sent on.
    fn take(&self, now: Instant) -> Option<Sender> {
        let mut kept = self.young(now);
        // The last one used has the longest to live. One whose answer has only just ended may need a moment, and one that
        // the server closed is never ready again.
        let place = kept.iter().rposition(|one| one.sender.is_ready())?;
        kept.remove(place).map(|one| one.sender)
    }

    fn keep(&self, sender: Sender, since: Instant) {
        let mut kept = self.young(since);
        if kept.len() < MAX_IDLE_CONNECTIONS && !sender.is_closed() {
            kept.push_back(Kept { sender, since });
        }
    }

    /// The list without those that have been idle for too long.
    fn young(&self, now: Instant) -> MutexGuard<'_, VecDeque<Kept>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.front().is_some_and(|one| now.saturating_duration_since(one.since) >= IDLE_CONNECTION_LIFE) {
            kept.pop_front();
        }
        kept
    }
}

/// An answer's body. Read to its end it leaves its connection for the next call; dropped before, it closes it.
pub(crate) struct AnswerBody {
    incoming: Incoming,
    connection: Option<(Sender, Arc<Idle>)>,
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        let is_whole = match &frame {
            Some(Ok(_)) => this.incoming.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if is_whole && let Some((sender, idle)) = this.connection.take() {
            idle.keep(sender, Instant::now());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Where the calls of one server go: paths on it.
#[derive(Clone)]
pub(crate) struct Targets {
    chat: Uri,
    completions: Uri,
    embeddings: Uri,
    pub(crate) health: Uri,
}

impl Targets {
    /// `None` when an address and a path do not make a valid URI.
    pub(crate) fn of(config: &UpstreamConfig) -> Option<Self> {
        let prefix = match &config.address {
            Address::Http(uri) if uri.path() != "/" => uri.path().trim_end_matches('/'),
            Address::Http(_) | Address::Unix(_) => DEFAULT_PREFIX,
        };
        let at = |path: String| PathAndQuery::try_from(path).ok().map(Uri::from);
        let call = |endpoint: Endpoint| at(format!("{prefix}{}", endpoint.path_below_v1()));
        let health = match config.kind.health_path() {
            HealthPath::AtRoot(path) => format!("{}{path}", prefix.strip_suffix(DEFAULT_PREFIX).unwrap_or(prefix)),
            HealthPath::BelowBase(path) => format!("{prefix}{path}"),
        };
        Some(Self {
            chat: call(Endpoint::Chat)?,
            completions: call(Endpoint::Completions)?,
            embeddings: call(Endpoint::Embeddings)?,
            health: at(health)?,
        })
    }

    pub(crate) fn call(&self, endpoint: Endpoint) -> Uri {
        match endpoint {
            Endpoint::Chat => self.chat.clone(),
            Endpoint::Completions => self.completions.clone(),
            Endpoint::Embeddings => self.embeddings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::dialect::Kind;

    #[track_caller]
    fn check(kind: Kind, base: &str, chat: &str, health: &str) {
        let targets = Targets::of(&UpstreamConfig::new("a", kind, base).unwrap()).unwrap();
        let found = (targets.chat.to_string(), targets.health.to_string());
        assert_eq!(found, (chat.to_owned(), health.to_owned()));
    }

    #[test]
    fn calls_go_below_the_base_and_health_to_the_root() {
        check(Kind::Vllm, "http://h:8000/v1", "/v1/chat/completions", "/health");
        check(Kind::Vllm, "http://h:8000", "/v1/chat/completions", "/health");
        check(Kind::Sglang, "http://h/v1/", "/v1/chat/completions", "/ready");
        check(Kind::Ollama, "http://h/v1", "/v1/chat/completions", "/");
        check(Kind::LlamaCpp, "http://h/gpu/v1", "/gpu/v1/chat/completions", "/gpu/health");
        check(Kind::OpenAi, "https://h/openai/v1", "/openai/v1/chat/completions", "/openai/v1/models");
        check(Kind::Vllm, "unix:/tmp/s", "/v1/chat/completions", "/health");
    }

    #[test]
    fn every_transport_names_its_host() {
        let named = [
            ("http://h", "h"),
            ("http://h:80/v1", "h"),
            ("http://h:8000", "h:8000"),
            ("http://[::1]:8000", "[::1]:8000"),
            ("https://h", "h"),
            ("https://h:443", "h"),
            ("https://h:80", "h:80"),
            ("unix:/tmp/s", "localhost"),
        ];
        for (base, host) in named {
            let transport = Transport::new(&UpstreamConfig::new("a", Kind::OpenAi, base).unwrap()).unwrap();
            assert_eq!(transport.host, host, "{base}");
        }
    }

    /// A connection, and its other end, which says nothing.
    async fn connection() -> (Sender, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1_024);
        let mut sender = established(TokioIo::new(ours)).await.unwrap();
        poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
        (sender, theirs)
    }

    #[tokio::test]
    async fn connections_are_taken_while_they_are_open_and_young() {
        let (idle, began) = (Idle::default(), Instant::now());
        assert!(idle.take(began).is_none());
        let ((first, _first), (second, closing)) = (connection().await, connection().await);
        idle.keep(first, began);
        idle.keep(second, began);
        drop(closing);
        while idle.young(began)[1].sender.is_ready() {
            tokio::task::yield_now().await;
        }
        let first = idle.take(began).unwrap();
        assert!(idle.take(began).is_none(), "the server closed the other one");
        let later = began + IDLE_CONNECTION_LIFE / 2;
        idle.keep(first, later);
        assert_eq!(idle.young(began + IDLE_CONNECTION_LIFE).len(), 1);
        assert!(idle.take(later + IDLE_CONNECTION_LIFE).is_none(), "it has been idle for too long");
        assert!(idle.young(began).is_empty());
    }

    /// Answers one call on each connection and closes it, without a word about that in the answer.
    async fn closing_after_each_answer(listener: TcpListener, answers: usize) {
        let host = format!("host: {}\r\n", listener.local_addr().unwrap());
        for _ in 0..answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut piece) = (Vec::new(), [0; 1_024]);
            while !request.ends_with(b"question") {
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "the call broke off");
                request.extend_from_slice(&piece[..read]);
            }
            let head = String::from_utf8_lossy(&request);
            assert!(head.starts_with("POST /v1/x HTTP/1.1\r\n") && head.contains(&host), "{head}");
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nanswer").await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_server_may_close_its_connections_between_calls() {
        const CALLS: usize = 20;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let transport = Transport::new(&UpstreamConfig::new("a", Kind::OpenAi, &base).unwrap()).unwrap();
        let client = async {
            for _ in 0..CALLS {
                let request = Request::post("/v1/x").body(Full::new(Bytes::from_static(b"question"))).unwrap();
                let answer = transport.send(request).await.unwrap();
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "answer");
            }
        };
        tokio::join!(closing_after_each_answer(listener, CALLS), client);
    }
}
