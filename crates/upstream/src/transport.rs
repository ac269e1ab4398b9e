//! Holds: the connections to one server, kept from one call to the next.
//!
//! Plain TCP, TLS or a Unix socket behind one call, with HTTP/1.1 on each. Dropping an answer before its end closes the
//! connection, which is how a call is cancelled. A connection has no task of its own: whoever waits for its answer moves its
//! bytes. hyper-util's client does the same for any number of servers, and more for each call than one server needs
//! (ARCHITECTURE.md).

use std::{
    collections::VecDeque,
    error::Error,
    future::poll_fn,
    io,
    path::PathBuf,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use batchin_domain::CallKind;
use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header, header::HOST, uri::PathAndQuery, uri::Scheme};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{SendRequest, handshake},
    },
    rt::{Read, Write},
};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{
    net::UnixStream,
    task::coop::unconstrained,
    time::{Instant, timeout},
};
use tower::Service;

use crate::{
    adapters::{INFILL_PATH, MODELS_PATH, Path},
    config::{Address, UpstreamConfig},
    decoding::{Coding, UnknownCoding},
    failure::{CallError, CallErrorKind, Retry},
    gathered::Gathered,
    upload::SentBody,
};

/// Idle connections kept to one server; as many as calls at once on a large replica.
const MAX_IDLE_CONNECTIONS: usize = 512;

/// Below the 5 s after which uvicorn, and so vLLM and SGLang, closes an idle connection.
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(4);

/// Prefix of calls where the address has no path of its own.
const DEFAULT_PREFIX: &str = "/v1";

/// Most bytes of a refusal that are read; its message lies within.
pub(crate) const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// What names the server where its address has no host.
const UNIX_HOST: HeaderValue = HeaderValue::from_static("localhost");

/// The connections to one server.
pub(crate) struct Transport {
    connector: Connector,
    /// Until a connection stands, TLS included.
    patience: Duration,
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
        Ok(Self { connector, patience: config.connect_timeout, host, idle: Arc::default() })
    }

    /// Sends a request to a path of the server; returns with the head of its answer.
    pub(crate) async fn send(
        &self,
        mut request: Request<SentBody>,
        now: Instant,
    ) -> Result<Response<AnswerBody>, SendError> {
        request.headers_mut().insert(HOST, self.host.clone());
        loop {
            let (mut connection, used) = match self.idle.take(now) {
                Some(connection) => (connection, true),
                // Boxed: most calls need no room for it in their futures.
                None => (Box::pin(self.connect()).await.map_err(SendError::Connect)?, false),
            };
            match connection.ask(request).await {
                Ok(response) => {
                    let (head, incoming) = response.into_parts();
                    let connection = Some((connection, Arc::clone(&self.idle)));
                    let body = AnswerBody::of(&head.headers, RawBody { incoming, connection });
                    return Ok(Response::from_parts(head, body));
                }
                // A server may close a connection just when it is used again. What comes back was not sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if used => request = unsent,
                    Some(_) | None => return Err(SendError::Broken),
                },
            }
        }
    }

    async fn connect(&self) -> Result<Connection, io::ErrorKind> {
        timeout(self.patience, self.connector.connect()).await.unwrap_or(Err(io::ErrorKind::TimedOut))
    }
}

impl Connector {
    async fn connect(&self) -> Result<Connection, io::ErrorKind> {
        match self {
            Self::Tcp(tcp, to) => {
                let stream = reached(tcp.clone(), to).await?.into_inner();
                Connection::over(TokioIo::new(Gathered(stream))).await
            }
            Self::Tls(tls, to) => Connection::over(reached(tls.clone(), to).await?).await,
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| error.kind())?;
                Connection::over(TokioIo::new(Gathered(stream))).await
            }
        }
    }
}

/// One connection. Dropped, it closes.
struct Connection {
    sender: SendRequest<SentBody>,
    /// Reads and writes; `None` once the connection has ended, of which `sender` and the answer know why.
    driver: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Connection {
    async fn over(stream: impl Read + Write + Send + Unpin + 'static) -> Result<Self, io::ErrorKind> {
        let (sender, driver) = handshake(stream).await.map_err(|error| kind_of(&error))?;
        let driver = Box::pin(async move { drop(driver.await) });
        let mut connection = Self { sender, driver: Some(driver) };
        connection.rest();
        Ok(connection)
    }

    /// Moves what can be moved now, and has the task woken when there is more.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            self.driver = None;
        }
    }

    /// Makes it ready for the next call, and has it wake nobody until then.
    fn rest(&mut self) {
        let driven = pin!(unconstrained(poll_fn(|cx| {
            self.drive(cx);
            Poll::Ready(())
        })));
        let _ = driven.poll(&mut Context::from_waker(Waker::noop()));
    }

    /// Sends a request; returns with the head of its answer.
    async fn ask(&mut self, request: Request<SentBody>) -> Result<Response<Incoming>, TrySendError<Request<SentBody>>> {
        // What the answer comes through is filled by the driver, in this task, so that it need not wake it; and it must not
        // count as work of the task, which would then have to be woken to go on.
        let mut answer = pin!(unconstrained(self.sender.try_send_request(request)));
        poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
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

/// The machine's own fault behind an error, if there is one. TLS wraps it in another that says nothing.
pub(crate) fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let (mut cause, mut found) = (Some(error), None);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        match io.map(io::Error::kind) {
            Some(io::ErrorKind::Other) => found = Some(io::ErrorKind::Other),
            Some(kind) => return Some(kind),
            None => {}
        }
        // The source of an error of this type is that of what it wraps.
        let wrapped = io.and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
        cause = wrapped.or_else(|| error.source());
    }
    found
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
    connection: Connection,
    since: Instant,
}

impl Idle {
    /// The last one used, which has the longest to live. That the server has closed it shows when it is used.
    fn take(&self, now: Instant) -> Option<Connection> {
        self.young(now).pop_back().map(|one| one.connection)
    }

    fn keep(&self, mut connection: Connection, since: Instant) {
        connection.rest();
        let mut kept = self.young(since);
        if kept.len() < MAX_IDLE_CONNECTIONS && connection.sender.is_ready() {
            kept.push_back(Kept { connection, since });
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

/// An answer's body as it comes. Read to its end it leaves its connection for the next call; dropped before, it closes it.
pub(crate) struct RawBody {
    incoming: Incoming,
    /// Until the answer is whole.
    connection: Option<(Connection, Arc<Idle>)>,
}

/// An answer's body, decoded.
pub(crate) enum AnswerBody {
    /// As nearly all come.
    Plain(RawBody),
    /// It came compressed.
    Decoded(BoxStream<'static, io::Result<Bytes>>),
    /// In a way that cannot be read.
    Unreadable,
}

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// It has an encoding that is not known, or is not what it says.
    #[error("the answer's encoding cannot be read")]
    Encoding,
}

impl RawBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Some((connection, _)) = &mut self.connection {
            connection.drive(cx);
        }
        // The driver, which fills it, wakes the task.
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop())));
        let is_whole = match &frame {
            Some(Ok(_)) => self.incoming.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if is_whole && let Some((connection, idle)) = self.connection.take() {
            idle.keep(connection, Instant::now());
        }
        Poll::Ready(frame)
    }

    /// Its bytes. What breaks it is a [`BodyError`] inside.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            return Poll::Ready(match ready!(self.poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => Some(Ok(data)),
                // Trailers.
                Some(Ok(Err(_))) => continue,
                Some(Err(error)) => Some(Err(io::Error::other(BodyError::Broken(error)))),
                None => None,
            });
        }
    }
}

impl AnswerBody {
    fn of(headers: &HeaderMap, mut raw: RawBody) -> Self {
        // A `transfer-encoding` other than `chunked` leaves open where the body ends, so that it would be waited for.
        let mut transfer = headers.get_all(header::TRANSFER_ENCODING).iter();
        let is_known = |name: &str| ["chunked", "identity"].iter().any(|known| name.trim().eq_ignore_ascii_case(known));
        if !transfer.all(|value| value.to_str().is_ok_and(is_known)) {
            return Self::Unreadable;
        }
        match Coding::of(headers) {
            Ok(None) => Self::Plain(raw),
            Ok(Some(coding)) => Self::Decoded(coding.decoded(stream::poll_fn(move |cx| raw.poll_bytes(cx)))),
            Err(UnknownCoding) => Self::Unreadable,
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this {
            Self::Plain(raw) => raw.poll_frame(cx).map_err(BodyError::Broken),
            Self::Decoded(pieces) => {
                let failed = |error: io::Error| error.downcast().unwrap_or(BodyError::Encoding);
                pieces.poll_next_unpin(cx).map_ok(Frame::data).map_err(failed)
            }
            Self::Unreadable => Poll::Ready(Some(Err(BodyError::Encoding))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Plain(raw) if raw.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(raw) => raw.incoming.size_hint(),
            Self::Decoded(_) | Self::Unreadable => SizeHint::default(),
        }
    }
}

/// The whole body. One that comes in one piece is not copied.
pub(crate) async fn collect(mut body: AnswerBody, most: usize, idle: Duration) -> Result<Bytes, CallError> {
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    loop {
        let frame = timeout(idle, body.frame()).await;
        let frame = frame.map_err(|_| CallError::other_replica(CallErrorKind::Timeout))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| match error {
            BodyError::Broken(_) => CallError::other_replica(CallErrorKind::Reset),
            BodyError::Encoding => CallError::other_replica(CallErrorKind::Encoding),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = all.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > most {
            return Err(CallError { kind: CallErrorKind::TooLarge, retry: Retry::Never, client_error: None });
        }
        if let Some(all) = &mut all {
            all.extend_from_slice(&data);
        } else if first.is_empty() {
            first = data;
        } else {
            let expected = body.size_hint().lower().min(most as u64);
            let mut joined = BytesMut::with_capacity(first.len() + data.len() + usize::try_from(expected).unwrap_or(0));
            joined.extend_from_slice(&first);
            joined.extend_from_slice(&data);
            all = Some(joined);
        }
        if body.is_end_stream() {
            break;
        }
    }
    Ok(all.map_or(first, BytesMut::freeze))
}

/// Where the calls of one server go: paths on it.
#[derive(Clone)]
pub(crate) struct Targets {
    /// By [`CallKind::index`].
    calls: Vec<Uri>,
    pub(crate) health: Uri,
    /// The list of models.
    pub(crate) models: Uri,
    /// What answers only to whoever has the key.
    pub(crate) guarded: Uri,
    /// Where llama.cpp fills in the middle.
    pub(crate) infill: Uri,
    /// What stands before all paths below the base, and before those at the root.
    prefixes: [String; 2],
}

impl Targets {
    /// `None` when an address and a path do not make a valid URI.
    pub(crate) fn of(config: &UpstreamConfig) -> Option<Self> {
        let prefix = match &config.address {
            Address::Http(uri) if uri.path() != "/" => uri.path().trim_end_matches('/'),
            Address::Http(_) | Address::Unix(_) => DEFAULT_PREFIX,
        };
        let at = |path: String| PathAndQuery::try_from(path).ok().map(Uri::from);
        let call = |kind: CallKind| at(format!("{prefix}{}", kind.path_below_v1()));
        let plain = |path| match path {
            Path::AtRoot(path) => format!("{}{path}", prefix.strip_suffix(DEFAULT_PREFIX).unwrap_or(prefix)),
            Path::BelowBase(path) => format!("{prefix}{path}"),
        };
        let root = prefix.strip_suffix(DEFAULT_PREFIX).unwrap_or(prefix);
        Some(Self {
            prefixes: [prefix.to_owned(), root.to_owned()],
            calls: CallKind::ALL.into_iter().map(call).collect::<Option<_>>()?,
            health: at(plain(config.kind.health_path))?,
            models: at(plain(MODELS_PATH))?,
            guarded: at(plain(config.kind.guarded_path))?,
            infill: at(plain(INFILL_PATH))?,
        })
    }

    /// A path with something behind it, which was checked to be no path itself.
    pub(crate) fn at(&self, path: Path, behind: &str) -> Result<Uri, CallError> {
        let [base, root] = &self.prefixes;
        let whole = match path {
            Path::AtRoot(path) => format!("{root}{path}{behind}"),
            Path::BelowBase(path) => format!("{base}{path}{behind}"),
        };
        let parsed = PathAndQuery::try_from(whole).map(Uri::from);
        parsed.map_err(|_| CallError::other_replica(CallErrorKind::BadAnswer))
    }

    pub(crate) fn call(&self, kind: CallKind) -> Uri {
        self.calls[kind.index()].clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::adapters::Kind;

    #[track_caller]
    fn check(kind: Kind, base: &str, chat: &str, health: &str) {
        let targets = Targets::of(&UpstreamConfig::new("a", kind, base).unwrap()).unwrap();
        let found = (targets.call(CallKind::Chat).to_string(), targets.health.to_string());
        assert_eq!(found, (chat.to_owned(), health.to_owned()));
    }

    #[test]
    fn calls_go_below_the_base_and_health_to_the_root() {
        check(Kind::VLLM, "http://h:8000/v1", "/v1/chat/completions", "/health");
        check(Kind::VLLM, "http://h:8000", "/v1/chat/completions", "/health");
        check(Kind::SGLANG, "http://h/v1/", "/v1/chat/completions", "/ready");
        check(Kind::OLLAMA, "http://h/v1", "/v1/chat/completions", "/");
        check(Kind::LLAMACPP, "http://h/gpu/v1", "/gpu/v1/chat/completions", "/gpu/health");
        check(Kind::OPENAI, "https://h/openai/v1", "/openai/v1/chat/completions", "/openai/v1/models");
        check(Kind::VLLM, "unix:/tmp/s", "/v1/chat/completions", "/health");
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
            let transport = Transport::new(&UpstreamConfig::new("a", Kind::OPENAI, base).unwrap()).unwrap();
            assert_eq!(transport.host, host, "{base}");
        }
    }

    /// A connection, and its other end, which says nothing.
    async fn connection() -> (Connection, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1_024);
        (Connection::over(TokioIo::new(ours)).await.unwrap(), theirs)
    }

    #[tokio::test]
    async fn connections_are_kept_while_they_are_open_and_young() {
        let (idle, began) = (Idle::default(), Instant::now());
        assert!(idle.take(began).is_none());
        let ((first, _first), (second, closing)) = (connection().await, connection().await);
        idle.keep(first, began);
        drop(closing);
        idle.keep(second, began);
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
        let transport = Transport::new(&UpstreamConfig::new("a", Kind::OPENAI, &base).unwrap()).unwrap();
        let client = async {
            for _ in 0..CALLS {
                let request = Request::post("/v1/x").body(SentBody::of(Bytes::from_static(b"question"))).unwrap();
                let answer = transport.send(request, Instant::now()).await.unwrap();
                assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "answer");
            }
        };
        tokio::join!(closing_after_each_answer(listener, CALLS), client);
    }
}
