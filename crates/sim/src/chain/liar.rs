//! Holds: an endpoint that passes all on to a chain, and bends what comes back as its script says. A fake, for tests.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use batchin_tasks::Tasks;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::http::{Http, client, post};

/// What changes an answer: the method, its parameters, and the reply with its `result` or `error`.
type Bend = Arc<dyn Fn(&str, &Value, &mut Value) + Send + Sync>;

/// What an endpoint does wrong.
#[derive(Clone)]
pub enum Fault {
    /// It answers 429, with `retry-after` where there is one.
    Busy {
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// It answers with this status and no JSON.
    Status(u16),
    /// It never answers.
    Silent,
    /// It sends the answer's first half as if that were all.
    Truncated,
    /// It knows no block above this one.
    Behind(u64),
    /// It changes replies.
    Bent(Bend),
}

impl Fault {
    /// Replies that are changed by a function of the method, its parameters and the reply.
    pub fn bent(bend: impl Fn(&str, &Value, &mut Value) + Send + Sync + 'static) -> Self {
        Self::Bent(Arc::new(bend))
    }
}

/// An endpoint in front of a chain. It does what it should until [`script`](Self::script) says otherwise.
pub struct Liar {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: Tasks,
}

struct Shared {
    http: Http,
    chain: String,
    /// std mutex: held to copy a script, never across an await.
    fault: Mutex<Option<Fault>>,
    requests: AtomicU64,
    calls: AtomicU64,
    most_bytes: AtomicU64,
}

impl Liar {
    /// Listens on a free port of the loopback address, in front of the chain with this URL.
    pub async fn start(chain: &str) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let shared = Arc::new(Shared {
            http: client(),
            chain: chain.to_owned(),
            fault: Mutex::new(None),
            requests: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            most_bytes: AtomicU64::new(0),
        });
        let (address, tasks, connections) = (listener.local_addr().unwrap(), Tasks::new(), Tasks::new());
        tasks.spawn("liar", |stop| {
            let shared = Arc::clone(&shared);
            async move {
                while let Some(Ok((socket, _))) = stop.run_until_cancelled(listener.accept()).await {
                    let shared = Arc::clone(&shared);
                    connections.spawn("liar_connection", |stop| async move {
                        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                        // An error is the client's leaving.
                        let _ = stop.run_until_cancelled(connection).await;
                    });
                }
                connections.shutdown(Duration::ZERO).await;
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    /// Its endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Does this from now on; nothing wrong with none.
    pub fn script(&self, fault: impl Into<Option<Fault>>) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault.into();
    }

    /// Requests so far, a batch as one.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Calls so far, each one of a batch.
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    /// Bytes of the largest request so far.
    pub fn most_bytes(&self) -> u64 {
        self.shared.most_bytes.load(Ordering::Relaxed)
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    shared.requests.fetch_add(1, Ordering::Relaxed);
    shared.calls.fetch_add(asked.as_array().map_or(1, |calls| calls.len() as u64), Ordering::Relaxed);
    shared.most_bytes.fetch_max(body.len() as u64, Ordering::Relaxed);
    let fault = shared.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let body = match &fault {
        Some(Fault::Busy { retry_after }) => return Ok(refused(429, *retry_after)),
        Some(Fault::Status(status)) => return Ok(refused(*status, None)),
        Some(Fault::Silent) => std::future::pending().await,
        Some(Fault::Behind(head)) => with_latest(asked.clone(), *head).to_string().into(),
        Some(Fault::Truncated | Fault::Bent(_)) | None => body,
    };
    let Some(mut answer) = post(&shared.http, &shared.chain, body).await else { return Ok(refused(502, None)) };
    match &fault {
        Some(Fault::Truncated) => answer.truncate(answer.len() / 2),
        Some(Fault::Bent(bend)) => answer = bent(&asked, &answer, |method, params, reply| bend(method, params, reply)),
        Some(Fault::Behind(head)) => {
            answer = bent(&asked, &answer, |method, params, reply| hide(*head, method, params, reply));
        }
        Some(Fault::Busy { .. } | Fault::Status(_) | Fault::Silent) | None => {}
    }
    Ok(Response::builder().header("content-type", "application/json").body(Full::new(answer)).unwrap())
}

fn refused(status: u16, retry_after: Option<u64>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"no")));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.into());
    }
    response
}

fn each(value: &mut Value) -> &mut [Value] {
    match value {
        Value::Array(all) => all,
        one => std::slice::from_mut(one),
    }
}

/// `latest` is an older block.
fn with_latest(mut asked: Value, head: u64) -> Value {
    for call in each(&mut asked) {
        if call["method"] == "eth_getBlockByNumber" && call["params"][0] == "latest" {
            call["params"][0] = json!(format!("{head:#x}"));
        }
    }
    asked
}

fn bent(asked: &Value, answer: &[u8], bend: impl Fn(&str, &Value, &mut Value)) -> Bytes {
    let mut asked = asked.clone();
    let mut answer: Value = serde_json::from_slice(answer).unwrap();
    for reply in each(&mut answer) {
        let call = each(&mut asked).iter().find(|call| call["id"] == reply["id"]).unwrap();
        bend(call["method"].as_str().unwrap(), &call["params"], reply);
    }
    answer.to_string().into()
}

/// Blocks above the head are not there.
fn hide(head: u64, method: &str, params: &Value, reply: &mut Value) {
    let number = |text: &Value| u64::from_str_radix(text.as_str()?.trim_start_matches("0x"), 16).ok();
    match method {
        "eth_getBlockByNumber" if number(&reply["result"]["number"]).is_some_and(|number| number > head) => {
            reply["result"] = Value::Null;
        }
        "eth_getLogs" if number(&params[0]["fromBlock"]).is_some_and(|number| number > head) => {
            *reply = json!({ "jsonrpc": "2.0", "id": reply["id"], "error": { "code": -32602, "message": "block range extends beyond current head block" } });
        }
        "eth_getLogs" | "eth_getTransactionReceipt" => {
            let number_of = |log: &Value| number(&log["blockNumber"]).unwrap_or(0);
            match &mut reply["result"] {
                Value::Array(logs) => logs.retain(|log| number_of(log) <= head),
                receipt if number_of(receipt) > head => *receipt = Value::Null,
                _ => {}
            }
        }
        _ => {}
    }
}
