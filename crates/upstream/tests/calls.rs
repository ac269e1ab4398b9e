//! Holds: calls against a simulated model server over real sockets, one test per way that a server behaves.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "they are the assertions of a test")]

use std::{io, sync::Arc, time::Duration};

use batchin_openai::{Endpoint, UpstreamError, Usage, peek};
use batchin_sim::{Answer as SimAnswer, Behaviour, End, Refusal, SimServer, UsageMode, prompt_tokens, token_text};
use batchin_tasks::Tasks;
use batchin_upstream::{
    Answer, Asker, BreakerState, Call, CallError, CallErrorKind, Check, Event, EventKind, Events, Fleet, Health, Kind,
    Progress, Replica, Retry, Standing, StreamError, Trouble, UpstreamConfig,
};
use bytes::Bytes;

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A person of one account.
const ADA: Asker = Asker { account: 1, urgent: true, last_resort: false };
/// Another one.
const BOB: Asker = Asker { account: 2, ..ADA };

struct World {
    sim: SimServer,
    fleet: Fleet,
    tasks: Tasks,
}

impl World {
    async fn of(kind: Kind) -> Self {
        Self::with(kind, |_| {}).await
    }

    async fn with(kind: Kind, adjust: impl FnOnce(&mut UpstreamConfig)) -> Self {
        let sim = SimServer::start().await.unwrap();
        let mut config = UpstreamConfig::new("gpu-1", kind, &sim.base_url()).unwrap();
        adjust(&mut config);
        let tasks = Tasks::new();
        let fleet = Fleet::new(vec![config], &tasks, 7).unwrap();
        Self { sim, fleet, tasks }
    }

    fn replica(&self) -> Arc<Replica> {
        self.fleet.replica("gpu-1").unwrap()
    }

    async fn call(&self, call: Call<'_>) -> Result<Answer, CallError> {
        tokio::time::timeout(PATIENCE, self.replica().call(call)).await.expect("the call hangs")
    }

    async fn stream(&self, behaviour: Behaviour) -> (Vec<Event>, Option<StreamError>) {
        self.sim.script_all(behaviour);
        all(events(self.call(streaming()).await.unwrap())).await
    }

    async fn refused(&self, behaviour: Behaviour, call: Call<'_>) -> CallError {
        self.sim.script_all(behaviour);
        self.call(call).await.expect_err("the call succeeded")
    }

    async fn end(self) {
        assert_eq!(self.replica().outstanding(), 0);
        assert_eq!(self.tasks.shutdown(PATIENCE).await, 0);
        self.sim.stop().await;
    }
}

const CHAT: &str = r#"{"model":"qwen","messages":[{"role":"user","content":"one two three"}]}"#;

fn chat(body: &'static str) -> Call<'static> {
    let peeked = peek(Endpoint::Chat, body.as_bytes()).unwrap();
    Call {
        endpoint: Endpoint::Chat,
        body: Bytes::from_static(body.as_bytes()),
        upstream_model: Some("Qwen/Qwen3"),
        public_id: "chatcmpl_1".to_owned(),
        public_model: "qwen",
        stream: peeked.stream,
        include_usage: true,
        continuous_usage: false,
        answers: 1,
        request_id: "req-1".to_owned(),
        class_priority: None,
        max_tokens: None,
        held: None,
        asker: ADA,
    }
}

fn whole() -> Call<'static> {
    chat(CHAT)
}

fn streaming() -> Call<'static> {
    Call { stream: true, ..whole() }
}

fn completion(stream: bool) -> Call<'static> {
    let body = Bytes::from_static(br#"{"model":"qwen","prompt":"a b","max_tokens":100}"#);
    Call { endpoint: Endpoint::Completions, body, stream, ..whole() }
}

fn of(tokens: u32) -> SimAnswer {
    SimAnswer::of(tokens)
}

fn ending(tokens: u32, end: End) -> Behaviour {
    Behaviour::Answer(SimAnswer { end, ..of(tokens) })
}

fn raw(pieces: &[&'static str], end: End) -> Behaviour {
    raw_as("text/event-stream", pieces, end)
}

fn raw_as(content_type: &'static str, pieces: &[&'static str], end: End) -> Behaviour {
    let pieces = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
    Behaviour::Raw { content_type, pieces, gap: Duration::ZERO, end }
}

fn events(answer: Answer) -> Events {
    match answer {
        Answer::Events(events) => *events,
        Answer::Whole { .. } => panic!("not a stream"),
    }
}

async fn all(mut events: Events) -> (Vec<Event>, Option<StreamError>) {
    let mut seen = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, events.next()).await.expect("the stream hangs") {
            Some(Ok(event)) => seen.push(event),
            Some(Err(error)) => {
                assert!(events.next().await.is_none());
                return (seen, Some(error));
            }
            None => return (seen, None),
        }
    }
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    let kind = |event: &Event| match event.kind {
        EventKind::Delta => "delta",
        EventKind::Finish => "finish",
        EventKind::Usage => "usage",
        EventKind::Done => "done",
        EventKind::Error(_) => "error",
        EventKind::KeepAlive => "keep-alive",
    };
    events.iter().map(kind).collect()
}

fn usage(prompt_tokens: u64, completion_tokens: u64) -> Option<Usage> {
    Some(Usage::of(prompt_tokens, completion_tokens))
}

fn last_usage(events: &[Event]) -> Option<Usage> {
    events.iter().rev().find_map(|event| event.usage)
}

/// Bytes of text of the simulated model's first tokens.
fn said(tokens: u32) -> u64 {
    (0..tokens).map(|token| token_text(token).len() as u64).sum()
}

fn deltas(events: &[Event]) -> u32 {
    events.iter().map(|event| event.deltas).sum()
}

#[tokio::test]
async fn whole_answer_has_public_names_and_usage() {
    let world = World::with(Kind::Vllm, |config| config.api_key = Some("sk-1".into())).await;
    world.sim.script("Qwen/Qwen3", Behaviour::Answer(of(5)));
    let Answer::Whole { status, body, usage: counted, text_bytes } = world.call(whole()).await.unwrap() else {
        panic!("a stream")
    };
    assert_eq!((status.as_u16(), counted), (200, usage(3, 5)));
    let body: &str = std::str::from_utf8(&body).unwrap();
    assert!(body.contains(r#""id":"chatcmpl_1""#) && body.contains(r#""model":"qwen""#), "{body}");
    assert!(!body.contains("Qwen3") && body.contains(token_text(4).trim()), "{body}");
    assert_eq!(text_bytes, 0, "the server counted");

    let sent = &world.sim.requests()[0];
    assert_eq!(sent.path, "/v1/chat/completions");
    assert_eq!(sent.headers["authorization"], "Bearer sk-1");
    assert_eq!(sent.headers["x-request-id"], "req-1");
    assert_eq!(sent.body, r#"{"model":"Qwen/Qwen3","messages":[{"role":"user","content":"one two three"}]}"#);
    assert_eq!(prompt_tokens(&sent.body), 3);
    world.end().await;
}

#[tokio::test]
async fn embeddings_have_an_id_too() {
    let world = World::of(Kind::Vllm).await;
    let body = Bytes::from_static(br#"{"model":"e","input":["a b","c"]}"#);
    let call = Call { endpoint: Endpoint::Embeddings, body, ..whole() };
    let Answer::Whole { body, usage: counted, .. } = world.call(call).await.unwrap() else { panic!("a stream") };
    let body = std::str::from_utf8(&body).unwrap();
    assert!(body.contains(r#""id":"chatcmpl_1""#) && body.contains(r#""index":1"#), "{body}");
    assert_eq!(counted, usage(3, 0));
    world.end().await;
}

#[tokio::test]
async fn stream_passes_event_by_event() {
    let world = World::of(Kind::Vllm).await;
    let (events, error) = world.stream(Behaviour::Answer(of(3))).await;
    assert_eq!(error, None);
    assert_eq!(kinds(&events), ["delta", "delta", "delta", "delta", "finish", "usage", "done"]);
    assert_eq!((deltas(&events), last_usage(&events)), (3, usage(3, 3)));
    assert_eq!(events.iter().map(|event| event.text_bytes).sum::<u64>(), said(3));
    assert_eq!(events[6].frame, "data: [DONE]\n\n");
    for event in &events[..6] {
        let frame = std::str::from_utf8(&event.frame).unwrap();
        assert!(frame.starts_with("data: {") && frame.ends_with("}\n\n"), "{frame}");
        assert!(frame.contains("\"chatcmpl_1\"") && frame.contains("\"qwen\"") && !frame.contains("Qwen3"), "{frame}");
    }
    let sent = String::from_utf8(world.sim.requests()[0].body.to_vec()).unwrap();
    assert!(
        sent.ends_with(r#","stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#),
        "{sent}"
    );
    world.end().await;
}

#[tokio::test]
async fn connections_are_used_again() {
    let world = World::of(Kind::Vllm).await;
    let long = Behaviour::Answer(SimAnswer { gap: Duration::from_millis(1), ..of(20) });
    for _ in 0..10 {
        assert_eq!(world.stream(long.clone()).await.1, None);
        world.call(whole()).await.unwrap();
    }
    assert_eq!((world.sim.calls(), world.sim.aborted()), (20, 0));
    // A connection may still be reading the end of its stream when the next call begins; closed after each stream,
    // there would be eleven.
    let connections = world.sim.inference_connections();
    assert!(connections <= 5, "{connections}");
    world.end().await;
}

#[tokio::test]
async fn whole_answers_need_one_connection() {
    let world = World::of(Kind::Vllm).await;
    for _ in 0..10 {
        world.call(whole()).await.unwrap();
    }
    assert_eq!((world.sim.calls(), world.sim.inference_connections()), (10, 1));
    world.end().await;
}

#[tokio::test]
async fn usage_is_found_wherever_a_server_puts_it() {
    let world = World::of(Kind::Ollama).await;
    let mode = |usage| Behaviour::Answer(SimAnswer { usage, ..of(4) });
    let (events, error) = world.stream(mode(UsageMode::ZerosThenLast)).await;
    assert_eq!((error, last_usage(&events)), (None, usage(3, 4)));
    assert_eq!(events.iter().filter(|event| event.usage.is_some()).count(), 1);

    let (events, _) = world.stream(mode(UsageMode::Never)).await;
    assert_eq!((last_usage(&events), deltas(&events)), (None, 4));
    let Answer::Whole { usage: counted, .. } = world.call(whole()).await.unwrap() else { panic!("a stream") };
    assert_eq!(counted, None);

    world.sim.script_all(mode(UsageMode::OnLastChunk));
    let (events, _) = all(self::events(world.call(completion(true)).await.unwrap())).await;
    assert_eq!(kinds(&events), ["delta", "delta", "delta", "delta", "finish", "done"]);
    assert_eq!(events[4].usage, usage(2, 4));
    world.end().await;
}

#[tokio::test]
async fn client_s_fault_is_told_to_the_client() {
    let world = World::of(Kind::Sglang).await;
    let shapes = [
        Refusal::vllm(400, "too long for Qwen/Qwen3"),
        Refusal::sglang(400, "too long for Qwen/Qwen3"),
        Refusal::llama_cpp(400, "too long for Qwen/Qwen3"),
        Refusal::fast_api(422, "too long for Qwen/Qwen3"),
        Refusal::string(413, "too long for Qwen/Qwen3"),
    ];
    for shape in shapes {
        for call in [whole(), streaming()] {
            let status = shape.status;
            let error = world.refused(Behaviour::Refuse(shape.clone()), call).await;
            assert_eq!((error.kind, error.retry), (CallErrorKind::Status(status), Retry::Never));
            assert_eq!(error.client_error.unwrap().message, "too long for qwen");
        }
    }
    assert_eq!(world.replica().status().breaker, BreakerState::Closed);
    world.end().await;
}

#[tokio::test]
async fn server_s_fault_is_not_told_and_is_tried_elsewhere() {
    for refusal in [
        Refusal::string(401, "Unauthorized"),
        Refusal::vllm(500, "boom"),
        Refusal::html(502),
        Refusal { status: 500, content_type: "text/plain", retry_after: None, body: Bytes::new() },
    ] {
        let world = World::of(Kind::Vllm).await;
        let status = refusal.status;
        let error = world.refused(Behaviour::Refuse(refusal), whole()).await;
        assert_eq!(
            error,
            CallError { kind: CallErrorKind::Status(status), retry: Retry::OtherReplica, client_error: None }
        );
        world.end().await;
    }
}

#[tokio::test]
async fn overloaded_server_is_left_alone_for_as_long_as_it_asks() {
    let world = World::of(Kind::Vllm).await;
    let error = world.refused(Behaviour::Refuse(Refusal::vllm(429, "slow down").retry_after("30")), whole()).await;
    assert_eq!(error.retry, Retry::Later(Some(Duration::from_secs(30))));
    assert_eq!(world.replica().status().breaker, BreakerState::Cooling);
    assert_eq!(world.replica().standing(ADA), Standing::Refuses, "what the server named itself is obeyed");
    assert_eq!(world.replica().standing(BOB), Standing::Takes, "it told one account");
    let error = world.refused(Behaviour::default(), whole()).await;
    assert_eq!(error.kind, CallErrorKind::Unavailable);
    let Retry::Later(Some(left)) = error.retry else { panic!("{error:?}") };
    assert!(left > Duration::from_secs(25), "{left:?}");
    assert_eq!(world.sim.calls(), 1);
    world.end().await;
}

#[tokio::test]
async fn broken_connections_are_told_apart() {
    let world = World::of(Kind::Vllm).await;
    assert_eq!(world.refused(Behaviour::Drop, whole()).await.kind, CallErrorKind::Reset);
    let broken = ending(10, End::Cut);
    assert_eq!(world.refused(broken, whole()).await.kind, CallErrorKind::Reset);
    world.end().await;

    let world = World::of(Kind::Vllm).await;
    let World { sim, fleet, .. } = &world;
    let address = sim.base_url();
    let gone = SimServer::start().await.unwrap();
    let dead = UpstreamConfig::new("dead", Kind::Vllm, &gone.base_url()).unwrap();
    gone.stop().await;
    fleet.reload(vec![UpstreamConfig::new("gpu-1", Kind::Vllm, &address).unwrap(), dead]).unwrap();
    let error = fleet.replica("dead").unwrap().call(whole()).await.expect_err("answered by nobody");
    assert_eq!(
        error,
        CallError {
            kind: CallErrorKind::Connect(io::ErrorKind::ConnectionRefused),
            retry: Retry::OtherReplica,
            client_error: None,
        }
    );
    assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn nonsense_is_no_answer() {
    let world = World::of(Kind::OpenAi).await;
    for body in ["<html>", "", "[]", "{\"id\":", "{\"error\":\"overloaded\"}"] {
        let error = world.refused(raw(&[body], End::Done), whole()).await;
        assert_eq!((error.kind, error.retry), (CallErrorKind::BadAnswer, Retry::OtherReplica), "{body}");
        world.fleet.reload(Vec::new()).unwrap();
        world.fleet.reload(vec![UpstreamConfig::new("gpu-1", Kind::OpenAi, &world.sim.base_url()).unwrap()]).unwrap();
    }
    for body in ["", "data: [DONE]\n\n", "data: nonsense\n\n", ": ping\n\n"] {
        let error = world.refused(raw(&[body], End::Done), streaming()).await;
        assert_eq!((error.kind, error.retry), (CallErrorKind::BadAnswer, Retry::OtherReplica), "{body}");
        world.fleet.reload(Vec::new()).unwrap();
        world.fleet.reload(vec![UpstreamConfig::new("gpu-1", Kind::OpenAi, &world.sim.base_url()).unwrap()]).unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn error_as_first_event_fails_the_call() {
    let world = World::of(Kind::Vllm).await;
    let client = r#"data: {"error":{"message":"prompt too long for Qwen/Qwen3","type":"BadRequestError","code":400}}"#;
    let error = world.refused(raw(&[": keep-alive\n\n", client, "\n\ndata: [DONE]\n\n"], End::Done), streaming()).await;
    assert_eq!((error.kind, error.retry), (CallErrorKind::Status(400), Retry::Never));
    assert_eq!(error.client_error.unwrap().message, "prompt too long for qwen");

    let server = r#"data: {"error":{"message":"CUDA","type":"InternalServerError","code":500}}"#;
    let error = world.refused(raw(&[server, "\n\ndata: [DONE]\n\n"], End::Done), streaming()).await;
    assert_eq!(error, CallError { kind: CallErrorKind::Status(500), retry: Retry::OtherReplica, client_error: None });
    world.end().await;
}

#[tokio::test]
async fn stream_that_fails_midway_says_so() {
    let world = World::of(Kind::Vllm).await;
    let message = r#"{"error":{"message":"worker at http://10.0.0.1:8000 died","code":500}}"#;
    let (events, error) = world.stream(ending(2, End::ErrorEvent(message.to_owned()))).await;
    assert_eq!((kinds(&events), error), (vec!["delta", "delta", "delta", "error"], None));
    let frame = std::str::from_utf8(&events[3].frame).unwrap();
    assert!(
        frame.starts_with(r#"data: {"error":{"message":"worker at [address] died","type":"upstream_error""#),
        "{frame}"
    );
    let EventKind::Error(said) = &events[3].kind else { panic!("no error") };
    assert_eq!(said.status, Some(500));

    let (events, error) = world.stream(ending(2, End::Cut)).await;
    assert!(matches!(error, Some(StreamError::Broken(_))), "{error:?}");
    assert_eq!(deltas(&events), 2);
    world.end().await;
}

#[tokio::test]
async fn end_without_done_is_judged_by_the_finish_reason() {
    let world = World::of(Kind::OpenAi).await;
    let (events, error) = world.stream(ending(2, End::WithoutDone)).await;
    assert_eq!((kinds(&events), error), (vec!["delta", "delta", "delta", "finish", "usage", "done"], None));
    let (events, error) = world.stream(ending(2, End::Silent)).await;
    assert_eq!((kinds(&events), error), (vec!["delta", "delta", "delta"], Some(StreamError::Truncated)));
    let half = ["data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n", "data: {\"choices\":[{\"del"];
    let (events, error) = world.stream(raw(&half, End::Done)).await;
    assert_eq!((kinds(&events), error), (vec!["delta"], Some(StreamError::Truncated)));
    let bare = ["data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n", "data: [DONE]"];
    let (events, error) = world.stream(raw(&bare, End::Done)).await;
    assert_eq!((kinds(&events), error), (vec!["finish", "done"], None));
    world.end().await;
}

#[tokio::test]
async fn odd_framing_is_read() {
    let world = World::of(Kind::LlamaCpp).await;
    let pieces = [
        ": ping\r\n\r",
        "\ndata: {\"choices\":[{\"delta\":{\"content\":\"gr",
        "\u{f6}\u{df}e\"}}]}\r\n\r\n",
        ": ping\r\n\r\nevent: chunk\ndata: {\"choices\":\ndata: [{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "event: error\ndata: {\"message\":\"late\"}\n\n",
    ];
    let (events, error) = world.stream(raw(&pieces, End::Done)).await;
    assert_eq!((kinds(&events), error), (vec!["delta", "keep-alive", "finish", "error"], None));
    assert!(std::str::from_utf8(&events[0].frame).unwrap().contains("größe"));
    assert!(!std::str::from_utf8(&events[2].frame).unwrap().trim_end().contains('\n'));
    world.end().await;
}

#[tokio::test]
async fn silence_is_bounded() {
    let short = Duration::from_millis(400);
    let world = World::with(Kind::Vllm, |config| {
        config.first_byte_timeout = short;
        config.idle_timeout = short;
    })
    .await;
    assert_eq!(world.refused(Behaviour::Hang, whole()).await.kind, CallErrorKind::Timeout);
    assert_eq!(world.refused(Behaviour::Hang, streaming()).await.kind, CallErrorKind::Timeout);
    world.sim.until_aborted(2).await;
    world.fleet.reload(Vec::new()).unwrap();
    let mut config = UpstreamConfig::new("gpu-1", Kind::Vllm, &world.sim.base_url()).unwrap();
    config.idle_timeout = short;
    world.fleet.reload(vec![config]).unwrap();
    assert_eq!(world.refused(ending(4, End::Hang), whole()).await.kind, CallErrorKind::Timeout);
    let (events, error) = world.stream(ending(4, End::Hang)).await;
    assert_eq!((deltas(&events), error), (4, Some(StreamError::Stalled)));
    world.sim.until_aborted(4).await;
    let slow = Behaviour::Answer(SimAnswer { gap: short / 8, ..of(12) });
    assert_eq!(world.stream(slow).await.1, None);
    world.end().await;
}

#[tokio::test]
async fn leaving_closes_the_connection() {
    let world = World::of(Kind::Vllm).await;
    world.sim.script_all(ending(3, End::Hang));
    let mut stream = events(world.call(streaming()).await.unwrap());
    stream.next().await.unwrap().unwrap();
    assert_eq!(world.replica().outstanding(), 1);
    drop(stream);
    tokio::time::timeout(PATIENCE, world.sim.until_aborted(1)).await.expect("the server still works");

    world.sim.script_all(Behaviour::Hang);
    for call in [whole(), streaming()] {
        let replica = world.replica();
        let seen = world.sim.calls();
        tokio::select! {
            _ = replica.call(call) => panic!("answered"),
            () = world.sim.until_calls(seen + 1) => {}
        }
    }
    tokio::time::timeout(PATIENCE, world.sim.until_aborted(3)).await.expect("the server still works");
    world.end().await;
}

#[test]
fn stream_may_outlive_its_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (world, stream) = runtime.block_on(async {
        let world = World::of(Kind::Vllm).await;
        let mut stream = events(world.call(streaming()).await.unwrap());
        while let Some(event) = stream.next().await {
            event.unwrap();
        }
        (world, stream)
    });
    drop(runtime);
    drop(stream);
    assert_eq!(world.replica().outstanding(), 0);
}

#[tokio::test]
async fn large_stream_is_not_gathered() {
    const TOKENS: u32 = 20_000;
    let world = World::of(Kind::Vllm).await;
    let (events, error) = world.stream(Behaviour::Answer(of(TOKENS))).await;
    assert_eq!((error, deltas(&events), last_usage(&events)), (None, TOKENS, usage(3, TOKENS.into())));
    world.end().await;
}

#[tokio::test]
async fn breaker_opens_after_failures_and_a_success_keeps_it_shut() {
    let world = World::of(Kind::Vllm).await;
    for _ in 0..2 {
        world.refused(Behaviour::Drop, whole()).await;
    }
    world.sim.script_all(Behaviour::default());
    world.call(whole()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(world.replica().status().breaker, BreakerState::Closed);
        world.refused(Behaviour::Drop, whole()).await;
    }
    assert_eq!(world.replica().status().breaker, BreakerState::Open);
    let standings = [ADA, BOB].map(|asker| world.replica().standing(asker));
    assert_eq!(standings, [Standing::LastResort, Standing::Takes], "one account's requests may be what breaks it");
    for _ in 0..2 {
        world.refused(Behaviour::Drop, Call { asker: BOB, ..whole() }).await;
    }
    for asker in [ADA, BOB] {
        assert_eq!(world.replica().standing(asker), Standing::LastResort);
        assert_eq!(world.replica().standing(Asker { urgent: false, ..asker }), Standing::Refuses);
    }
    let calls = world.sim.calls();
    assert_eq!(world.refused(Behaviour::default(), whole()).await.kind, CallErrorKind::Unavailable);
    assert_eq!(world.sim.calls(), calls);
    world.sim.script_all(Behaviour::default());
    let last = Asker { last_resort: true, ..BOB };
    world.call(Call { asker: last, ..whole() }).await.unwrap();
    assert_eq!(world.replica().status().breaker, BreakerState::Closed, "it answers");
    world.end().await;
}

#[tokio::test]
async fn what_fails_for_one_account_fails_for_no_other() {
    let bad = [
        Behaviour::Refuse(Refusal::vllm(500, "boom")),
        Behaviour::Refuse(Refusal::html(502)),
        Behaviour::Refuse(Refusal::string(403, "flagged")),
        Behaviour::Refuse(Refusal::vllm(429, "slow down").retry_after("60")),
        Behaviour::Refuse(Refusal::vllm(503, "not you")),
        raw(&["nonsense"], End::Done),
        ending(3, End::Cut),
    ];
    for behaviour in bad {
        let world = World::of(Kind::Vllm).await;
        for _ in 0..10 {
            let asker = Asker { urgent: false, last_resort: true, ..ADA };
            world.sim.queue(behaviour.clone());
            drop(world.call(Call { asker, ..whole() }).await);
            assert_eq!(world.replica().standing(BOB), Standing::Takes, "{behaviour:?}");
            assert!(world.call(Call { asker: BOB, ..whole() }).await.is_ok(), "{behaviour:?}");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn what_a_server_does_not_have_is_asked_of_others_first() {
    let world = World::of(Kind::Vllm).await;
    world.sim.queue(Behaviour::Refuse(Refusal::vllm(404, "The model `Qwen/Qwen3` does not exist.")));
    let error = world.call(whole()).await.expect_err("refused");
    assert_eq!((error.retry, &error.client_error), (Retry::OtherReplica, &None));
    assert!(error.is_not_served());
    let replica = world.replica();
    let serves = |endpoint| replica.serves("qwen", [endpoint].into_iter());
    assert!(replica.avoids("qwen", Endpoint::Chat) && !serves(Endpoint::Chat) && serves(Endpoint::Completions));
    assert_eq!((replica.standing(ADA), replica.status().breaker), (Standing::Takes, BreakerState::Closed));
    world.call(streaming()).await.unwrap();
    assert!(!replica.avoids("qwen", Endpoint::Chat) && serves(Endpoint::Chat), "it has it again");
    world.sim.queue(Behaviour::Refuse(Refusal::vllm(404, "The image could not be fetched")));
    let error = world.call(whole()).await.expect_err("refused");
    assert_eq!(error.client_error.expect("the client's").message, "The image could not be fetched");
    assert!(serves(Endpoint::Chat));
    world.end().await;
}

#[tokio::test]
async fn a_refused_key_makes_a_server_ill_until_it_is_taken() {
    let world = World::with(Kind::Vllm, |config| config.api_key = Some("sk-1".into())).await;
    until_probed(&world, Health::Well).await;
    world.refused(Behaviour::Refuse(Refusal::string(401, "Unauthorized")), whole()).await;
    let status = world.replica().status();
    assert_eq!((status.health, status.trouble), (Health::Ill, Some(Trouble::KeyRefused)));
    assert!(!world.replica().serves("qwen", [Endpoint::Chat].into_iter()));
    world.sim.script_all(Behaviour::default());
    world.call(Call { asker: BOB, ..whole() }).await.unwrap();
    assert_eq!(world.replica().status().health, Health::Well);
    world.end().await;
}

#[tokio::test]
async fn what_is_forbidden_to_one_account_is_there_for_others() {
    let world = World::of(Kind::Vllm).await;
    let serves = || world.replica().serves("qwen", [Endpoint::Chat].into_iter());
    world.refused(Behaviour::Refuse(Refusal::string(403, "flagged")), whole()).await;
    assert!(serves(), "it may be what this account asks");
    world.refused(Behaviour::Refuse(Refusal::string(403, "flagged")), Call { asker: BOB, ..whole() }).await;
    assert!(!serves(), "it is not");
    world.end().await;
}

#[tokio::test]
async fn an_operator_s_check_says_what_a_server_has() {
    for kind in Kind::ALL {
        let world = World::with(kind, |config| config.api_key = Some("sk-1".into())).await;
        let Check::Lists(models) = world.replica().check().await else { panic!("{kind}: no list") };
        assert!(kind.has(&models, "sim"), "{kind}: {models:?}");
        for (status, expected) in [
            (401, Check::KeyRefused),
            (402, Check::QuotaUsedUp),
            (403, Check::KeyRefused),
            (404, Check::NoList),
            (500, Check::Refuses(500)),
        ] {
            world.sim.set_health(status);
            assert_eq!(world.replica().check().await, expected, "{kind}");
        }
        world.end().await;
    }
    let gone = World::of(Kind::OpenAi).await;
    let replica = gone.replica();
    gone.sim.stop().await;
    assert_eq!(replica.check().await, Check::Silent);
    assert_eq!(gone.tasks.shutdown(PATIENCE).await, 0);
}

#[tokio::test]
async fn health_follows_the_server() {
    for kind in Kind::ALL {
        let world = World::of(kind).await;
        world.fleet.probe_all().await;
        assert_eq!(world.replica().status().health, Health::Well, "{kind}");
        world.sim.set_health(503);
        until_probed(&world, Health::Ill).await;
        assert_eq!(world.replica().standing(ADA), Standing::Refuses, "{kind}");
        world.sim.set_health(200);
        until_probed(&world, Health::Well).await;
        assert_eq!(world.replica().standing(ADA), Standing::Takes, "{kind}");
        world.end().await;
    }
}

/// Probes until the health is this; the background task probes as well, so the number of rounds is open.
async fn until_probed(world: &World, health: Health) {
    let probed = async {
        while world.replica().status().health != health {
            world.fleet.probe_all().await;
        }
    };
    tokio::time::timeout(PATIENCE, probed).await.expect("the health never changes");
}

#[tokio::test]
async fn reload_keeps_what_did_not_change() {
    let world = World::of(Kind::Vllm).await;
    world.sim.script_all(Behaviour::Answer(SimAnswer { gap: Duration::from_millis(2), ..of(30) }));
    let before = world.replica();
    let stream = events(world.call(streaming()).await.unwrap());
    let config = before.config().clone();
    let other = UpstreamConfig::new("b", Kind::OpenAi, "http://127.0.0.1:9").unwrap();
    world.fleet.reload(vec![config.clone(), other]).unwrap();
    assert!(Arc::ptr_eq(&before, &world.replica()));
    assert_eq!(world.fleet.replicas().len(), 2);

    let twice = world.fleet.reload(vec![config.clone(), config.clone()]).unwrap_err();
    assert!(twice.to_string().contains("gpu-1"));
    let with_slots = |slots| {
        let mut changed = config.clone();
        changed.slots = Some(slots);
        vec![changed]
    };
    assert!(world.fleet.reload(with_slots(0)).is_err());
    assert_eq!(world.fleet.replicas().len(), 2, "a refused configuration changes nothing");

    world.fleet.reload(with_slots(4)).unwrap();
    assert!(!Arc::ptr_eq(&before, &world.replica()));
    assert!(world.fleet.replica("b").is_none());
    let (seen, error) = all(stream).await;
    assert_eq!((error, deltas(&seen)), (None, 30));
    drop(before);
    world.end().await;
}

#[tokio::test]
async fn unix_socket_works_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let sim = SimServer::start_unix(&socket).await.unwrap();
    let tasks = Tasks::new();
    let config = UpstreamConfig::new("engine", Kind::Embedded, &format!("unix:{}", socket.display())).unwrap();
    let fleet = Fleet::new(vec![config], &tasks, 1).unwrap();
    fleet.probe_all().await;
    let replica = fleet.replica("engine").unwrap();
    assert_eq!(replica.status().health, Health::Well);
    sim.script_all(Behaviour::Answer(of(2)));
    let (seen, error) = all(events(replica.call(streaming()).await.unwrap())).await;
    assert_eq!((error, deltas(&seen)), (None, 2));
    assert!(matches!(replica.call(whole()).await, Ok(Answer::Whole { .. })));
    sim.stop().await;
    assert_eq!(tasks.shutdown(PATIENCE).await, 0);
}

#[tokio::test]
async fn many_calls_at_once_are_counted_to_zero() {
    let world = World::of(Kind::Vllm).await;
    world.sim.script_all(Behaviour::Answer(of(10)));
    let calls = (0..64).map(|index| {
        let replica = world.replica();
        async move {
            if index % 2 == 0 {
                return replica.call(whole()).await.is_ok();
            }
            let (seen, error) = all(events(replica.call(streaming()).await.unwrap())).await;
            error.is_none() && deltas(&seen) == 10
        }
    });
    assert!(futures::future::join_all(calls).await.into_iter().all(|fine| fine));
    world.end().await;
}

#[test]
fn errors_shown_to_clients_have_our_shape() {
    let error = UpstreamError { message: "m".into(), param: None, code: None, kind: None, status: Some(500) };
    assert_eq!(
        error.to_body().to_json(),
        r#"{"error":{"message":"m","type":"upstream_error","param":null,"code":null}}"#
    );
}

/// Takes an assembly to its end.
async fn put_together(replica: Arc<Replica>, call: Call<'_>) -> Result<(serde_json::Value, u64, u64), CallError> {
    let mut assembly = replica.assemble(call).await?;
    let mut pieces = 0;
    loop {
        match assembly.next().await? {
            Progress::Piece { deltas, .. } => pieces += u64::from(deltas),
            Progress::Whole(answer) => {
                return Ok((serde_json::from_slice(&answer.body).unwrap(), pieces, answer.text_bytes));
            }
        }
    }
}

#[tokio::test]
async fn a_stream_is_put_together_to_the_answer_that_comes_whole() {
    let world = World::of(Kind::Vllm).await;
    for make in [whole(), completion(false)] {
        world.sim.queue(Behaviour::Answer(of(7)));
        let Answer::Whole { body, .. } = world.replica().call(make.clone()).await.unwrap() else { panic!("a stream") };
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for end in [End::Done, End::WithoutDone] {
            world.sim.queue(ending(7, end));
            let streamed = Call { stream: true, ..make.clone() };
            let (assembled, deltas, text_bytes) = put_together(world.replica(), streamed).await.unwrap();
            assert_eq!((&assembled, deltas, text_bytes), (&body, 7, said(7)));
        }
    }
    world.end().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_answer() {
    let world = World::of(Kind::Vllm).await;
    let error = r#"{"error":{"message":"boom","code":500}}"#.to_owned();
    for (end, kind) in [
        (End::Silent, CallErrorKind::BadAnswer),
        (End::Cut, CallErrorKind::Reset),
        (End::ErrorEvent(error), CallErrorKind::Status(500)),
    ] {
        world.sim.queue(ending(3, end));
        let failed = put_together(world.replica(), streaming()).await.unwrap_err();
        assert_eq!((failed.kind, failed.retry), (kind, Retry::OtherReplica));
    }
    world.end().await;
}

/// A chunk of an old SGLang or Ollama, which give an empty reason until the last.
const UNENDED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"\"}]}\n\n";
const ENDED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const SECOND: &str = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[tokio::test]
async fn an_empty_reason_is_no_end() {
    let world = World::of(Kind::Sglang).await;
    let (events, error) = world.stream(raw(&[UNENDED, UNENDED, ENDED, DONE], End::Done)).await;
    assert_eq!((kinds(&events), error), (vec!["delta", "delta", "finish", "done"], None));
    assert!(std::str::from_utf8(&events[0].frame).unwrap().contains(r#""finish_reason":null"#));
    for cut in [&[UNENDED, UNENDED, DONE][..], &[UNENDED, UNENDED], &[UNENDED, ENDED, SECOND, DONE]] {
        let (events, error) = world.stream(raw(cut, End::Done)).await;
        assert_eq!(error, Some(StreamError::Truncated), "{cut:?}: {:?}", kinds(&events));
        world.sim.queue(raw(cut, End::Done));
        let failed = put_together(world.replica(), streaming()).await.unwrap_err();
        assert_eq!((failed.kind, failed.retry), (CallErrorKind::BadAnswer, Retry::OtherReplica), "{cut:?}");
        world.sim.script_all(Behaviour::default());
        world.call(whole()).await.unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn a_stream_that_just_ends_must_have_had_every_answer() {
    let world = World::of(Kind::Vllm).await;
    let two = || Call { answers: 2, ..streaming() };
    let ended_second = "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    for (pieces, expected) in [
        (vec![UNENDED, ENDED], Some(StreamError::Truncated)),
        (vec![UNENDED, ENDED, SECOND, ended_second], None),
        // A server that knows no `n` says so by its end.
        (vec![UNENDED, ENDED, DONE], None),
    ] {
        world.sim.script_all(raw(&pieces, End::Done));
        let (seen, error) = all(events(world.call(two()).await.unwrap())).await;
        assert_eq!(error, expected, "{pieces:?}");
        assert_eq!(seen.iter().map(|event| event.ends).sum::<u32>(), if pieces.len() == 4 { 2 } else { 1 });
        world.sim.queue(raw(&pieces, End::Done));
        assert_eq!(put_together(world.replica(), two()).await.is_ok(), expected.is_none(), "{pieces:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn what_has_no_choices_is_no_chunk() {
    let world = World::of(Kind::OpenAi).await;
    let pieces = [
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {}\n\n",
        UNENDED,
        "data: {}\n\n",
        "data: {\"error\":\"\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"}}],\"usage\":null}\n\n",
        ENDED,
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":\"?\"}}\n\n",
        "data: {\"usage\":{\"prompt_tokens\":7}}\n\n",
        DONE,
    ];
    for include_usage in [false, true] {
        world.sim.script_all(raw(&pieces, End::Done));
        let call = Call { include_usage, ..streaming() };
        let (seen, error) = all(events(world.call(call).await.unwrap())).await;
        let expected = vec!["delta", "keep-alive", "delta", "finish", "usage", "usage", "done"];
        assert_eq!((kinds(&seen), error), (expected, None));
        let chunks: Vec<&str> = seen
            .iter()
            .filter_map(|event| std::str::from_utf8(&event.frame).unwrap().strip_prefix("data: {"))
            .collect();
        assert_eq!(chunks.len(), if include_usage { 5 } else { 3 }, "{chunks:?}");
        assert!(chunks.iter().all(|chunk| chunk.contains("\"choices\":[")), "{chunks:?}");
        assert_eq!(chunks.iter().any(|chunk| chunk.contains("usage")), include_usage, "{chunks:?}");
        let told = last_usage(&seen).unwrap();
        assert_eq!((told.prompt_tokens, told.completion_tokens), (Some(7), None));
    }
    world.end().await;
}

/// A whole answer with blank lines before it, as servers send while they compute.
const WHOLE: [&str; 4] = [
    "\n",
    " {\"id\":\"x\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"Qwen/Qwen3\",\"choices\":[{\"index\":0,\"message\":",
    "{\"role\":\"assistant\",\"content\":\"ab\"},\"finish_reason\":\"stop\"}],",
    "\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}",
];

#[tokio::test]
async fn a_stream_that_comes_whole_is_a_stream_all_the_same() {
    let world = World::of(Kind::OpenAi).await;
    for content_type in ["application/json", "text/event-stream", "text/plain"] {
        let behaviour = raw_as(content_type, &WHOLE, End::Done);
        for include_usage in [false, true] {
            world.sim.script_all(behaviour.clone());
            let call = Call { include_usage, ..streaming() };
            let (seen, error) = all(events(world.call(call).await.unwrap())).await;
            let expected = if include_usage { vec!["finish", "usage", "done"] } else { vec!["finish", "done"] };
            assert_eq!((kinds(&seen), error), (expected, None));
            assert_eq!((seen[0].ends, seen[0].text_bytes, seen[0].usage), (1, 2, usage(3, 2)));
            let frame = std::str::from_utf8(&seen[0].frame).unwrap();
            let chunk = r#"{"id":"chatcmpl_1","object":"chat.completion.chunk","created":1,"model":"qwen","choices":[{"index":0,"delta":{"role":"assistant","content":"ab"},"finish_reason":"stop"}]}"#;
            assert_eq!(frame, format!("data: {chunk}\n\n"));
        }
        world.sim.queue(behaviour);
        let (answer, deltas, text_bytes) = put_together(world.replica(), streaming()).await.unwrap();
        assert_eq!((deltas, text_bytes, &answer["usage"]["prompt_tokens"]), (1, 0, &3.into()));
        assert_eq!((&answer["id"], &answer["choices"][0]["message"]["content"]), (&"chatcmpl_1".into(), &"ab".into()));
    }
    let refused = r#"{"error":{"message":"prompt too long for Qwen/Qwen3","code":400}}"#;
    let error = world.refused(raw_as("application/json", &[refused], End::Done), streaming()).await;
    assert_eq!((error.kind, error.retry), (CallErrorKind::Status(400), Retry::Never));
    assert_eq!(error.client_error.unwrap().message, "prompt too long for qwen");
    world.sim.queue(raw_as("application/json", &[refused], End::Done));
    let error = put_together(world.replica(), streaming()).await.unwrap_err();
    assert_eq!((error.kind, error.retry), (CallErrorKind::Status(400), Retry::Never));
    assert_eq!(
        world.refused(raw_as("application/json", &WHOLE[..3], End::Done), streaming()).await.kind,
        CallErrorKind::BadAnswer
    );
    assert_eq!(
        world.refused(raw_as("application/json", &WHOLE[..3], End::Cut), streaming()).await.kind,
        CallErrorKind::Reset
    );
    world.end().await;
}

#[tokio::test]
async fn a_whole_answer_that_comes_as_a_stream_is_put_together() {
    let world = World::of(Kind::OpenAi).await;
    let counted = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
    for content_type in ["text/event-stream", "application/json"] {
        world.sim.script_all(raw_as(content_type, &[": ping\n\n", UNENDED, UNENDED, ENDED, counted, DONE], End::Done));
        let Answer::Whole { body, usage: told, text_bytes, .. } = world.call(whole()).await.unwrap() else {
            panic!("a stream")
        };
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["id"], &body["object"]), (&"chatcmpl_1".into(), &"chat.completion".into()));
        assert_eq!(body["choices"][0]["message"]["content"], "aa");
        assert_eq!((told, text_bytes), (usage(3, 2), 2));
    }
    // A server that knows no `n` says so by its end.
    world.sim.script_all(raw(&[UNENDED, ENDED, DONE], End::Done));
    assert!(world.call(Call { answers: 2, ..whole() }).await.is_ok());
    let failed = "data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n";
    for (pieces, answers, kind) in [
        (&[UNENDED, UNENDED, DONE][..], 1, CallErrorKind::BadAnswer),
        (&[UNENDED, failed, DONE], 1, CallErrorKind::Status(500)),
        (&["data: nonsense\n\n"], 1, CallErrorKind::BadAnswer),
        // It was cut off before the second answer began.
        (&[UNENDED, ENDED], 2, CallErrorKind::BadAnswer),
    ] {
        let call = Call { answers, ..whole() };
        assert_eq!(world.refused(raw(pieces, End::Done), call).await.kind, kind, "{pieces:?}");
        world.fleet.reload(Vec::new()).unwrap();
        world.fleet.reload(vec![UpstreamConfig::new("gpu-1", Kind::OpenAi, &world.sim.base_url()).unwrap()]).unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn tool_calls_that_are_numbered_alike_reach_the_client_apart() {
    let world = World::of(Kind::Sglang).await;
    let call = |id: &str, name: &str| {
        format!(
            r#"data: {{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":0,"id":"{id}","function":{{"name":"{name}","arguments":"{{}}"}}}}]}}}}]}}"#
        )
    };
    let calls = Bytes::from(format!("{}\n\n{}\n\n{ENDED}{DONE}", call("a", "f"), call("b", "g")));
    let behaviour =
        Behaviour::Raw { content_type: "text/event-stream", pieces: vec![calls], gap: Duration::ZERO, end: End::Done };
    let (events, error) = world.stream(behaviour.clone()).await;
    assert_eq!((kinds(&events), error), (vec!["delta", "delta", "finish", "done"], None));
    for (event, index) in events.iter().zip([0, 1]) {
        let frame = std::str::from_utf8(&event.frame).unwrap();
        assert!(frame.contains(&format!(r#""tool_calls":[{{"index":{index},"#)), "{frame}");
    }
    world.sim.queue(behaviour);
    let (answer, ..) = put_together(world.replica(), streaming()).await.unwrap();
    let names: Vec<&serde_json::Value> = answer["choices"][0]["message"]["tool_calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| &call["function"]["name"])
        .collect();
    assert_eq!(names, ["f", "g"]);
    world.end().await;
}
