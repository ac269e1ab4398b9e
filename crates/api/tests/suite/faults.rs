//! Holds: every fault of a model server, as the table in docs/faults.md has it: what is told, charged and logged, and whether
//! another server is asked.
//!
//! The table is the test: each of its rows is played by a server that answers by bytes (`played.rs`), for each kind whose
//! errors look different; as a task of a batch, and where the model has another server, which works, for fewer of them. Each
//! such case is a model with a server of its own, so that none sees what others did.

mod played;

use std::{
    collections::HashMap,
    fmt,
    future::ready,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use batchin_domain::Clock as _;
use batchin_gateway::{Catalog, Model};
use batchin_store::PriceList;
use batchin_testkit::{
    Kind, TestServer,
    sim::{WireRequest, WireServer, Written},
};
use batchin_upstream::{Health, UpstreamConfig};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::batches::until_final;
use played::{FAULTS, Fault, played, well};

const TABLE: &str = include_str!("../../../../docs/faults.md");
/// Those whose errors look different.
const KINDS: [Kind; 5] = [Kind::VLLM, Kind::SGLANG, Kind::LLAMACPP, Kind::OLLAMA, Kind::OPENAI];
/// What no client and no log may see of a server.
const SECRET: &str = "sk-operator";
/// What a server may take that says nothing or stops: short, since it is waited for.
const SHORT: Duration = Duration::from_millis(500);
/// Tasks of servers that refuse our key wait for their breakers' trials.
const PATIENCE: Duration = Duration::from_secs(60);
/// Cases at once.
const AT_ONCE: usize = 8;

/// A row of the table.
struct Row {
    fault: Fault,
    cells: [&'static str; 6],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    Stream,
    Task,
}

/// One case: a model of its own.
struct Case {
    row: usize,
    kind: Kind,
    form: Form,
    has_other: bool,
}

impl Case {
    /// The model's name, and that of its server.
    fn name(&self) -> String {
        let servers = if self.has_other { "two" } else { "one" };
        format!("{}-{}-{:?}-{servers}", self.row, self.kind, self.form)
    }
}

/// The rows, each with its fault.
fn rows() -> Vec<Row> {
    let lines = TABLE.lines().skip_while(|line| !line.starts_with("| the server |")).skip(2);
    let rows: Vec<Row> = lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let known = FAULTS.iter().find(|(name, _)| *name == cells[0]);
            let (_, fault) = known.unwrap_or_else(|| panic!("nobody plays the row `{}`", cells[0]));
            Row { fault: *fault, cells: cells[1..].try_into().unwrap_or_else(|_| panic!("cells are missing: {line}")) }
        })
        .collect();
    for (name, fault) in FAULTS {
        assert!(rows.iter().any(|row| row.fault == fault), "the table has no row `{name}`");
    }
    rows
}

/// Whatever the rows say of something: each form, for each kind.
fn cases(rows: &[Row]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (row, kind) in (0..rows.len()).flat_map(|row| KINDS.map(|kind| (row, kind))) {
        for form in [Form::Whole, Form::Stream, Form::Task] {
            let is_played = rows[row].told(form) != "—" && (form != Form::Task || KINDS[..2].contains(&kind));
            cases.extend(is_played.then_some(Case { row, kind, form, has_other: false }));
            let is_played = rows[row].told(form) != "—" && kind == KINDS[0];
            cases.extend(is_played.then_some(Case { row, kind, form, has_other: true }));
        }
    }
    cases
}

/// What a cell says of a form, where it says something else of a stream.
fn of_form(cell: &'static str, form: Form) -> &'static str {
    match (cell.split_once("; of a stream "), form) {
        (Some((_, of_stream)), Form::Stream) => of_stream,
        (Some((general, _)), _) => general,
        (None, _) => cell,
    }
}

impl Row {
    fn told(&self, form: Form) -> &'static str {
        let [whole, stream, task, ..] = self.cells;
        match form {
            Form::Whole => whole,
            Form::Stream if stream == "the same" => whole,
            Form::Stream => stream,
            Form::Task => task,
        }
    }

    fn charged(&self, form: Form) -> &'static str {
        of_form(self.cells[3], form)
    }

    fn asks_another(&self, form: Form) -> bool {
        match of_form(self.cells[4], form) {
            "yes" => true,
            "no" => false,
            other => panic!("neither yes nor no: {other}"),
        }
    }

    /// Levels and texts.
    fn logged(&self, form: Form) -> Vec<(&'static str, &'static str)> {
        match of_form(self.cells[5], form) {
            "nothing" => Vec::new(),
            lines => lines
                .split(", ")
                .map(|line| line.split_once(' ').map(|(level, text)| (level, text.trim_matches('`'))).unwrap())
                .collect(),
        }
    }
}

/// A line of the log.
#[derive(Clone, Default)]
struct Line {
    level: String,
    upstream: String,
    text: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "upstream" {
            self.upstream = format!("{value:?}").trim_matches('"').to_owned();
        }
        self.text += &format!(" {value:?}");
    }
}

/// Keeps the server's log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("batchin") && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line { level: event.metadata().level().to_string(), ..Line::default() };
        event.record(&mut line);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Where the server of a case is found.
fn address(case: &Case, fault: Fault, (wire, silent): (&WireServer, &TcpListener)) -> String {
    let (at, name) = (wire.address(), case.name());
    match fault {
        // Nobody listens there.
        Fault::Refused => "http://127.0.0.1:1/v1".to_owned(),
        Fault::Tls => format!("https://{at}/{name}/v1"),
        Fault::TlsSilent => format!("https://{}/{name}/v1", silent.local_addr().unwrap()),
        _ => format!("http://{at}/{name}/v1"),
    }
}

/// Serves each case's model on a server of its own, and on one that works where it has another.
async fn serve(server: &TestServer, (cases, rows): (&[Case], &[Row]), (wire, silent): (&WireServer, &TcpListener)) {
    let mut well = UpstreamConfig::new("well", Kind::VLLM, &format!("http://{}/well/v1", wire.address())).unwrap();
    // It has room for all that comes.
    well.slots = Some(64);
    let of_case = |case: &Case| {
        let fault = rows[case.row].fault;
        let mut config = UpstreamConfig::new(&case.name(), case.kind, &address(case, fault, (wire, silent))).unwrap();
        config.api_key = Some(SECRET.into());
        match fault {
            Fault::TlsSilent => config.connect_timeout = SHORT,
            Fault::Silent => config.first_byte_timeout = SHORT,
            Fault::Stall => config.idle_timeout = SHORT,
            _ => {}
        }
        config
    };
    let fleet = server.gateway.fleet();
    fleet.reload(cases.iter().map(of_case).chain([well]).collect()).unwrap();
    let like = server.gateway.catalog().find("chat-model").unwrap().clone();
    let model = |case: &Case| {
        let upstreams = std::iter::once(case.name()).chain(case.has_other.then(|| "well".to_owned())).collect();
        Model {
            id: case.name(),
            aliases: Vec::new(),
            upstreams,
            upstream_model: Some("up".to_owned()),
            ..(*like).clone()
        }
    };
    let models: Vec<Model> = cases.iter().map(model).collect();
    let body = PriceList::body(models.iter().map(|model| (model.id.as_str(), &model.prices)));
    let version = server.store.prices().publish_prices("faults", &body, server.clock.now()).await.unwrap();
    server.gateway.reload(Catalog::new(version, models).unwrap());
}

fn asked(text: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": text }], "max_tokens": 50 })
}

/// What a client is told, in the words of the table.
async fn told(server: &TestServer, case: &Case) -> String {
    let name = case.name();
    let mut call = server.post("/v1/chat/completions", asked("a secret question")).with("model", name.as_str());
    if case.form == Form::Stream {
        call = call.stream();
    }
    let reply = call.await;
    let text = reply.text();
    assert!(!text.contains(SECRET) && !text.contains("127.0.0.1"), "{name}: {text}");
    if reply.status != 200 {
        assert_eq!(reply.status == 503, !reply.header("retry-after").is_empty(), "{name}: {text}");
        return format!("{} `{}`", reply.status, reply.json()["error"]["code"].as_str().unwrap());
    }
    let is_whole = case.form == Form::Whole && reply.json()["choices"][0]["message"]["content"] == "one two three";
    if is_whole || text.ends_with("data: [DONE]\n\n") {
        return "the answer".to_owned();
    }
    let last = text.trim_end().rsplit("data: ").next().unwrap();
    match serde_json::from_str::<Value>(last).unwrap_or_default()["error"]["code"].as_str() {
        Some(code) => format!("200, then `{code}`"),
        None => format!("200, then {text}"),
    }
}

/// Has health checks find out which servers are down.
async fn find_the_lost(server: &TestServer, cases: &[Case], rows: &[Row]) {
    let is_lost = |case: &&Case| matches!(rows[case.row].fault, Fault::Refused | Fault::Tls | Fault::TlsSilent);
    let is_known = |case: &Case| {
        server.gateway.fleet().replica(&case.name()).is_some_and(|replica| replica.status().health == Health::Ill)
    };
    while !cases.iter().filter(is_lost).all(is_known) {
        server.gateway.fleet().probe_all().await;
    }
}

/// Runs the tasks of all cases as one batch, which ends once so many of them are left that wait: what each is told.
async fn tasks_told(server: &TestServer, cases: &[Case], waiting: u64) -> HashMap<String, String> {
    let of_case = |case: &Case| json!({ "custom_id": case.name(), "model": case.name(), "request_body": asked("hi") });
    let tasks: Vec<Value> = cases.iter().filter(|case| case.form == Form::Task).map(of_case).collect();
    let made = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "high" })).await.ok();
    let path = format!("/v1/batches/{}", made["id"].as_str().unwrap());
    let ended = async {
        loop {
            let batch = server.get(&path).await.ok();
            let of = |count: &str| batch[count].as_u64().unwrap();
            if of("completed_tasks") + of("failed_tasks") + waiting >= of("total_tasks") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Those that have not ended by then are among what is not as the table says.
    let _ = tokio::time::timeout(PATIENCE, ended).await;
    server.post(&format!("{path}/cancel"), json!({})).await.ok();
    until_final(server, made["id"].as_str().unwrap()).await;
    let results = server.get(&format!("{path}/results")).await.text();
    let told = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(!line.to_string().contains(SECRET) && !line.to_string().contains("127.0.0.1"), "{line}");
        let error = &line["error"];
        let told = match error["code"].as_str() {
            Some("batch_cancelled") => "waits".to_owned(),
            Some(code) => format!("{} `{code}`", error["status_code"]),
            None => "the answer".to_owned(),
        };
        (line["custom_id"].as_str().unwrap().to_owned(), told)
    };
    results.lines().map(told).collect()
}

/// Which lines of a case's log are not as the row says. Those of its tasks are lower, and there are more of them.
fn astray(case: &Case, row: &Row, log: &[Line]) -> Vec<String> {
    let name = case.name();
    let expected = row.logged(case.form);
    let of_case: Vec<&Line> = log.iter().filter(|line| line.upstream == name).collect();
    // On a slow machine the health check may have found out first, and said so: nobody asks that server then.
    let is_down = of_case.iter().any(|line| line.text.contains("does not answer"));
    let is = |line: &Line, level: &str, text: &str| line.level == level && line.text.contains(text);
    let missing = expected.iter().filter(|(level, text)| {
        let level = if case.form == Form::Task && *level == "INFO" { "DEBUG" } else { level };
        !is_down && !of_case.iter().any(|line| is(line, level, text))
    });
    let missing = missing.map(|(level, text)| format!("{name}: the log lacks {level} {text}"));
    let more = of_case.iter().filter(|line| {
        let is_known = expected.iter().any(|(level, text)| is(line, level, text));
        // What its health check finds is told beside.
        let is_probe = ["does not answer", " answers "].iter().any(|said| line.text.contains(said));
        !is_known && !is_probe && line.level != "DEBUG" && (case.form != Form::Task || line.level == "INFO")
    });
    missing.chain(more.map(|line| format!("{name}: the log has {} {}", line.level, line.text))).collect()
}

/// What is not as the row says.
fn differs(case: &Case, row: &Row, (told, cost, log): (&str, f64, &[Line]), seen: &[WireRequest]) -> Vec<String> {
    let name = case.name();
    let mut wrong = Vec::new();
    let mut check = |what: &str, found: &str, expected: &str| {
        if found != expected {
            wrong.push(format!("{name}: {what} is {found}, not {expected}"));
        }
    };
    let is_answered = case.has_other && row.asks_another(case.form);
    let expected = row.told(case.form);
    let at_once = expected.ends_with(" at once");
    check("told", told, if is_answered { "the answer" } else { expected.trim_end_matches(" at once") });
    let charged = match (cost > 0.0, row.charged(case.form)) {
        (false, _) => "nothing",
        (true, "nothing") => "something",
        (true, cell) => cell,
    };
    check("charged", charged, if is_answered { charged } else { row.charged(case.form) });
    let at = format!("/{name}/");
    let asked = seen.iter().filter(|request| request.method == "POST" && request.path.starts_with(&at)).count();
    let tries = match case.form {
        _ if matches!(row.fault, Fault::Refused | Fault::Tls | Fault::TlsSilent) => 0,
        Form::Task if !case.has_other && !at_once && expected != "the answer" => 3,
        _ => 1,
    };
    check("asked", &asked.to_string(), &tries.to_string());
    if !case.has_other && expected != "waits" {
        wrong.extend(astray(case, row, log));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_told_charged_and_logged_as_the_table_says() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    let rows = rows();
    let cases = cases(&rows);
    let scripts: HashMap<String, (Fault, Kind)> =
        cases.iter().map(|case| (case.name(), (rows[case.row].fault, case.kind))).collect();
    let wire =
        WireServer::start(move |request| match scripts.get(request.path.split('/').nth(1).unwrap_or_default()) {
            // Its health is not at fault.
            Some((fault, kind)) if request.method == "POST" => played(*fault, *kind, request),
            Some(_) => Written::answer(200, "application/json", "{}"),
            None => well(request),
        });
    let wire = wire.await.unwrap();
    let server = TestServer::start().with_worker().await;
    // Connections to it stand, and nobody speaks there.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve(&server, (&cases, &rows), (&wire, &silent)).await;
    let people = stream::iter(cases.iter().filter(|case| case.form != Form::Task))
        .map(|case| async {
            let told = tokio::time::timeout(PATIENCE / 4, told(&server, case)).await;
            told.ok().map(|told| (case.name(), told))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(ready)
        .collect::<HashMap<_, _>>();
    let mut all = people.await;
    let log_of_people = log.lines();
    find_the_lost(&server, &cases, &rows).await;
    let waits = |case: &&Case| case.form == Form::Task && !case.has_other && rows[case.row].told(Form::Task) == "waits";
    let waiting = cases.iter().filter(waits).count() as u64;
    all.extend(tasks_told(&server, &cases, waiting).await);
    let sums = server.get("/v1/usage/by-model").await.ok();
    let cost_of = |name: &str| {
        let row = sums.as_array().unwrap().iter().find(|row| row["model"] == name);
        row.map_or(0.0, |row| row["total_cost_cents"].as_f64().unwrap())
    };
    let (lines, seen) = (log.lines(), wire.requests());
    let wrong: Vec<String> = cases
        .iter()
        .flat_map(|case| {
            let name = case.name();
            let told = all.get(&name).map_or("nothing in time", String::as_str);
            let lines = if case.form == Form::Task { &lines } else { &log_of_people };
            differs(case, &rows[case.row], (told, cost_of(&name), lines), &seen)
        })
        .collect();
    assert_eq!(wrong, [""; 0], "{} of {} cases are not as docs/faults.md says", wrong.len(), cases.len());
    let hidden = [SECRET, "secret question", &wire.address().to_string()];
    assert!(!lines.iter().any(|line| hidden.iter().any(|hidden| line.text.contains(hidden))), "the log says too much");
    server.stop().await;
    wire.stop().await;
}
