//! Holds: a load generator that counts exactly: it stops asking when its time is up and reads every answer to its end.
//!
//! Prints one line of JSON.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Parser;
use futures::future::join_all;
use http::{Request, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sends POST requests over kept connections, each of them one request after another.
#[derive(Parser)]
struct Arguments {
    /// http://HOST:PORT/PATH
    url: Uri,
    /// The body of every request.
    #[arg(long, conflicts_with = "bodies", required_unless_present = "bodies")]
    body: Option<String>,
    /// A file with one body a line, taken in turn.
    #[arg(long)]
    bodies: Option<PathBuf>,
    /// Requests at once.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// How long new requests are made.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How many requests are made at most.
    #[arg(long, default_value_t = u64::MAX)]
    requests: u64,
    /// Read the tokens that the answers report.
    #[arg(long)]
    tokens: bool,
}

/// What all connections share.
struct Plan {
    address: SocketAddr,
    path: String,
    authority: String,
    key: String,
    bodies: Vec<Bytes>,
    begun: AtomicU64,
    requests: u64,
    until: Instant,
    reads_tokens: bool,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    ok: u64,
    limited: u64,
    unavailable: u64,
    other: u64,
    broken: u64,
    bytes: u64,
    events: u64,
    tokens: u64,
    latencies_us: Vec<u64>,
    first_bytes_us: Vec<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run(arguments))?;
    writeln!(std::io::stdout(), "{report}")?;
    Ok(())
}

async fn run(arguments: Arguments) -> Result<Value> {
    let began = Instant::now();
    let plan = Arc::new(plan(&arguments, began)?);
    let all = join_all((0..arguments.connections).map(|_| connection(&plan))).await;
    let seconds = began.elapsed().as_secs_f64();
    let sum = |of: fn(&Seen) -> u64| all.iter().map(of).sum::<u64>();
    let sorted = |of: fn(&Seen) -> &[u64]| {
        let mut values: Vec<u64> = all.iter().flat_map(|seen| of(seen).iter().copied()).collect();
        values.sort_unstable();
        values
    };
    let (latencies, first) = (sorted(|seen| &seen.latencies_us), sorted(|seen| &seen.first_bytes_us));
    Ok(json!({
        "ok": sum(|seen| seen.ok), "status_429": sum(|seen| seen.limited), "status_503": sum(|seen| seen.unavailable),
        "status_other": sum(|seen| seen.other), "broken": sum(|seen| seen.broken), "seconds": seconds,
        "bytes": sum(|seen| seen.bytes), "events": sum(|seen| seen.events), "tokens": sum(|seen| seen.tokens),
        "p50_us": percentile(&latencies, 50), "p99_us": percentile(&latencies, 99),
        "first_byte_p50_us": percentile(&first, 50),
    }))
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or(0)
}

#[expect(clippy::disallowed_methods, reason = "a key on the command line would be seen by everybody")]
fn plan(arguments: &Arguments, began: Instant) -> Result<Plan> {
    let authority = arguments.url.authority().context("the URL has no host")?;
    let bodies = match (&arguments.body, &arguments.bodies) {
        (Some(body), _) => vec![Bytes::from(body.clone())],
        (None, Some(file)) => std::fs::read_to_string(file)?.lines().map(|line| Bytes::from(line.to_owned())).collect(),
        (None, None) => Vec::new(),
    };
    anyhow::ensure!(!bodies.is_empty(), "there is no body to send");
    Ok(Plan {
        address: authority.as_str().parse().context("the host must be an address with a port")?,
        path: arguments.url.path().to_owned(),
        authority: authority.to_string(),
        key: format!("Bearer {}", std::env::var("KEY").unwrap_or_else(|_| "none".to_owned())),
        bodies,
        begun: AtomicU64::new(0),
        requests: arguments.requests,
        until: began + Duration::from_secs_f64(arguments.seconds),
        reads_tokens: arguments.tokens,
    })
}

async fn connection(plan: &Plan) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < plan.until {
        let Ok((mut sender, driver)) = connect(plan).await else {
            seen.broken += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        if ask_while_driven(plan, &mut sender, &mut seen, driver).await {
            break;
        }
    }
    seen
}

/// [`ask_on`], with the connection driven beside it in the same task.
async fn ask_while_driven(plan: &Plan, sender: &mut Sender, seen: &mut Seen, driver: impl Future<Output = ()>) -> bool {
    let asking = ask_on(plan, sender, seen);
    tokio::pin!(asking, driver);
    tokio::select! {
        biased;
        is_over = &mut asking => is_over,
        // The connection has ended; the request under way learns of it at once.
        () = &mut driver => asking.await,
    }
}

type Sender = SendRequest<Full<Bytes>>;

async fn connect(plan: &Plan) -> Result<(Sender, impl Future<Output = ()>)> {
    let socket = TcpStream::connect(plan.address).await?;
    socket.set_nodelay(true)?;
    let (sender, driver) = http1::handshake(TokioIo::new(socket)).await?;
    // How a connection ends is seen by its requests.
    Ok((sender, async { drop(driver.await) }))
}

/// One request after another; `true` when no more are to be made, `false` when the connection is of no more use.
async fn ask_on(plan: &Plan, sender: &mut Sender, seen: &mut Seen) -> bool {
    while Instant::now() < plan.until {
        let turn = plan.begun.fetch_add(1, Ordering::Relaxed);
        if turn >= plan.requests {
            return true;
        }
        if sender.ready().await.is_err() {
            // Nothing was sent yet, so the turn is somebody else's.
            plan.begun.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        if ask(plan, sender, seen, turn).await.is_err() {
            seen.broken += 1;
            return false;
        }
    }
    true
}

async fn ask(plan: &Plan, sender: &mut Sender, seen: &mut Seen, turn: u64) -> Result<()> {
    let began = Instant::now();
    let body = plan.bodies[usize::try_from(turn)? % plan.bodies.len()].clone();
    let request = Request::post(plan.path.as_str())
        .header(header::HOST, plan.authority.as_str())
        .header(header::AUTHORIZATION, plan.key.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let (mut first, mut whole) = (None, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        first.get_or_insert_with(|| began.elapsed());
        seen.bytes += data.len() as u64;
        seen.events += data.windows(2).filter(|two| two == b"\n\n").count() as u64;
        if plan.reads_tokens {
            whole.extend_from_slice(&data);
        }
    }
    match status {
        200 => seen.ok += 1,
        429 => seen.limited += 1,
        503 => seen.unavailable += 1,
        _ => seen.other += 1,
    }
    if status == 200 {
        seen.latencies_us.push(u64::try_from(began.elapsed().as_micros())?);
        seen.first_bytes_us.push(u64::try_from(first.unwrap_or_default().as_micros())?);
        if plan.reads_tokens {
            let answer: Value = serde_json::from_slice(&whole)?;
            seen.tokens += answer["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        }
    }
    Ok(())
}
