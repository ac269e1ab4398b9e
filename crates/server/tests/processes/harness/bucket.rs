//! Holds: a bucket on an S3 server that is not ours, and what can be made to go wrong on the way to it.

use std::{
    io::Error,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, CONTENT_TYPE, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{Environment, PATIENCE};

const NAME: &str = "batchin";
/// Where in the bucket its blobs lie.
const PREFIX: &str = "some/where";
const KEY: &str = "test";
const SECRET: &str = "secret";

/// Whose server.
#[derive(Clone, Copy, Debug)]
pub enum Maker {
    /// PyPI's `moto`.
    Moto,
    /// crates.io's `s3s-fs`.
    S3s,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Every answer comes so much later.
    Slow(Duration),
    /// One of so many calls is answered with this status, and does nothing.
    Refused { one_in: usize, status: u16 },
    /// Of one of so many answers with a body comes half.
    Cut { one_in: usize },
    /// One of so many calls that change something does so and is never answered.
    Unanswered { one_in: usize },
}

/// A bucket. Its server ends with it.
pub struct Bucket {
    way: Arc<Way>,
    /// Where servers find it.
    address: String,
    kept: Kept,
    _serving: JoinSet<()>,
}

/// Where its server keeps the objects.
enum Kept {
    Memory { url: String, _process: Child },
    Folder(TempDir),
}

/// What lies between servers and the bucket.
struct Way {
    /// Where it leads.
    server: String,
    client: reqwest::Client,
    trouble: Mutex<Option<Trouble>>,
    calls: AtomicUsize,
    /// Calls that something went wrong with.
    troubled: AtomicUsize,
    /// Methods and paths of the calls that came, in order.
    seen: Mutex<Vec<(Method, String)>>,
}

impl Bucket {
    pub async fn new(maker: Maker) -> Self {
        // Whoever installed one before installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut serving = JoinSet::new();
        let (server, kept) = match maker {
            Maker::Moto => moto(&mut serving).await,
            Maker::S3s => s3s(&mut serving).await,
        };
        let way = Arc::new(Way {
            server,
            client: reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap(),
            trouble: Mutex::default(),
            calls: AtomicUsize::default(),
            troubled: AtomicUsize::default(),
            seen: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let through = Arc::clone(&way);
        serving.spawn(accept(listener, move |stream| {
            let way = Arc::clone(&through);
            async move {
                let passing = service_fn(|request| Arc::clone(&way).pass(request));
                // A connection that is broken off on purpose ends with an error.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), passing).await;
            }
        }));
        Self { way, address, kept, _serving: serving }
    }

    /// What a server needs to use it.
    pub fn environment(&self) -> Environment {
        let url = format!("s3://{NAME}/{PREFIX}");
        vec![
            ("BATCHIN_BLOBS__URL", url),
            ("AWS_ENDPOINT_URL", self.address.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// From now on this goes wrong, or nothing.
    pub fn trouble(&self, trouble: Option<Trouble>) {
        *self.way.trouble.lock().unwrap() = trouble;
    }

    /// Calls that something went wrong with so far.
    pub fn troubled(&self) -> usize {
        self.way.troubled.load(Ordering::Relaxed)
    }

    /// How often a method was called on what begins so.
    pub fn calls(&self, method: &Method, under: &str) -> usize {
        let path = format!("/{NAME}/{PREFIX}/{under}");
        self.way.seen.lock().unwrap().iter().filter(|(how, what)| how == method && what.starts_with(&path)).count()
    }

    /// The objects that there are below a folder.
    pub async fn objects(&self, folder: &str) -> Vec<String> {
        match &self.kept {
            Kept::Memory { url, .. } => {
                // moto lets anybody look.
                let listed = reqwest::get(format!("{url}/{NAME}?list-type=2&prefix={PREFIX}/{folder}")).await.unwrap();
                let listed = listed.text().await.unwrap();
                let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split('<').next());
                keys.map(ToOwned::to_owned).collect()
            }
            Kept::Folder(root) => {
                let mut found = Vec::new();
                files_below(&root.path().join(NAME).join(PREFIX).join(folder), &mut found);
                found.into_iter().map(|path| path.display().to_string()).collect()
            }
        }
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// Starts moto's server, which keeps everything in its memory.
async fn moto(serving: &mut JoinSet<()>) -> (String, Kept) {
    let python = std::env::var_os("BATCHIN_TEST_PYTHON");
    let python =
        python.expect("BATCHIN_TEST_PYTHON is not set: run this with `make test`, which prepares what it needs");
    let mut process = Command::new(python)
        .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
    let listening = async {
        loop {
            let line = said.next_line().await.unwrap().expect("moto starts");
            if let Some((_, url)) = line.split_once("Running on ") {
                return url.trim().to_owned();
            }
        }
    };
    let url = timeout(PATIENCE, listening).await.expect("moto starts in time");
    let made = reqwest::Client::new().put(format!("{url}/{NAME}")).send().await.unwrap();
    assert_eq!(made.status(), StatusCode::OK);
    // It logs each call, and must not wait for anybody who reads that.
    serving.spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
    (url.clone(), Kept::Memory { url, _process: process })
}

/// Serves s3s-fs in this process, on a folder.
async fn s3s(serving: &mut JoinSet<()>) -> (String, Kept) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(NAME)).unwrap();
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
    service.set_auth(SimpleAuth::from_single(KEY, SECRET));
    let service: S3Service = service.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    serving.spawn(accept(listener, move |stream| {
        let service = service.clone();
        async move {
            // Whoever calls may leave.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    }));
    (url, Kept::Folder(folder))
}

async fn accept<F: Future<Output = ()> + Send + 'static>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(serve(stream));
        while connections.try_join_next().is_some() {}
    }
}

impl Way {
    /// Passes a call on, and its answer back. An error closes the connection.
    async fn pass(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Error> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let trouble = *self.trouble.lock().unwrap();
        let (parts, body) = request.into_parts();
        self.seen.lock().unwrap().push((parts.method.clone(), parts.uri.path().to_owned()));
        let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.map_err(Error::other)?;
        let is_hit = |one_in: usize| number.is_multiple_of(one_in);
        match trouble {
            Some(Trouble::Slow(by)) => {
                self.troubled.fetch_add(1, Ordering::Relaxed);
                sleep(by).await;
            }
            Some(Trouble::Refused { one_in, status }) if is_hit(one_in) => {
                self.troubled.fetch_add(1, Ordering::Relaxed);
                return Ok(refusal(status));
            }
            _ => {}
        }
        let changes = !matches!(parts.method, Method::GET | Method::HEAD);
        let asked = self
            .client
            .request(parts.method, format!("{}{}", self.server, parts.uri))
            .headers(parts.headers)
            .body(body);
        let answer = asked.send().await.map_err(Error::other)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.map_err(Error::other)?;
        let body = match trouble {
            Some(Trouble::Unanswered { one_in }) if changes && is_hit(one_in) => {
                self.troubled.fetch_add(1, Ordering::Relaxed);
                return Err(Error::other("nothing comes back"));
            }
            Some(Trouble::Cut { one_in }) if is_hit(one_in) && !body.is_empty() => {
                self.troubled.fetch_add(1, Ordering::Relaxed);
                half_of(body)
            }
            _ => Body::from(body),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        for of_the_connection in [CONNECTION, TRANSFER_ENCODING] {
            response.headers_mut().remove(of_the_connection);
        }
        Ok(response)
    }
}

fn half_of(body: Bytes) -> Body {
    let half = body.slice(..body.len() / 2);
    let pieces = [Ok(half), Err(Error::other("the connection breaks"))];
    Body::from_stream(futures::stream::iter(pieces))
}

/// As S3 says that it cannot now.
fn refusal(status: u16) -> Response<Body> {
    let code = if status == 503 { "SlowDown" } else { "InternalError" };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>Later.</Message></Error>"
    );
    let response = Response::builder().status(status).header(CONTENT_TYPE, "application/xml");
    response.body(Body::from(body)).unwrap()
}
