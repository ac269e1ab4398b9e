//! Holds: calls and streams that fail or are left, one test per way that a server behaves.

use std::{io, time::Duration};

use batchin_openai::UpstreamError;
use batchin_sim::{Answer as SimAnswer, Behaviour, End, Refusal, SimServer};
use batchin_upstream::{
    BreakerState, CallError, CallErrorKind, EventKind, Kind, Retry, Standing, StreamError, UpstreamConfig,
};
use bytes::Bytes;

use crate::world::{ADA, BOB, PATIENCE, World, deltas, ending, events, kinds, of, put_together, raw, streaming, whole};

#[tokio::test]
async fn client_s_fault_is_told_to_the_client() {
    let world = World::of(Kind::SGLANG).await;
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
        let world = World::of(Kind::VLLM).await;
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
    let world = World::of(Kind::VLLM).await;
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
    let world = World::of(Kind::VLLM).await;
    assert_eq!(world.refused(Behaviour::Drop, whole()).await.kind, CallErrorKind::Reset);
    let broken = ending(10, End::Cut);
    assert_eq!(world.refused(broken, whole()).await.kind, CallErrorKind::Reset);
    world.end().await;

    let world = World::of(Kind::VLLM).await;
    let World { sim, fleet, .. } = &world;
    let address = sim.base_url();
    let gone = SimServer::start().await.unwrap();
    let dead = UpstreamConfig::new("dead", Kind::VLLM, &gone.base_url()).unwrap();
    gone.stop().await;
    fleet.reload(vec![UpstreamConfig::new("gpu-1", Kind::VLLM, &address).unwrap(), dead]).unwrap();
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
    let world = World::of(Kind::OPENAI).await;
    for body in ["<html>", "", "[]", "{\"id\":"] {
        let error = world.refused(raw(&[body], End::Done), whole()).await;
        assert_eq!((error.kind, error.retry), (CallErrorKind::BadAnswer, Retry::OtherReplica), "{body}");
        world.fleet.reload(Vec::new()).unwrap();
        world.fleet.let_go(Duration::ZERO, |_| true);
        world.fleet.reload(vec![UpstreamConfig::new("gpu-1", Kind::OPENAI, &world.sim.base_url()).unwrap()]).unwrap();
    }
    for body in ["", "data: [DONE]\n\n", "data: nonsense\n\n", ": ping\n\n"] {
        let error = world.refused(raw(&[body], End::Done), streaming()).await;
        assert_eq!((error.kind, error.retry), (CallErrorKind::BadAnswer, Retry::OtherReplica), "{body}");
        world.fleet.reload(Vec::new()).unwrap();
        world.fleet.let_go(Duration::ZERO, |_| true);
        world.fleet.reload(vec![UpstreamConfig::new("gpu-1", Kind::OPENAI, &world.sim.base_url()).unwrap()]).unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn error_as_first_event_fails_the_call() {
    let world = World::of(Kind::VLLM).await;
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
    let world = World::of(Kind::VLLM).await;
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
async fn silence_is_bounded() {
    let short = Duration::from_millis(400);
    let world = World::with(Kind::VLLM, |config| {
        config.first_byte_timeout = short;
        config.idle_timeout = short;
    })
    .await;
    assert_eq!(world.refused(Behaviour::Hang, whole()).await.kind, CallErrorKind::Timeout);
    assert_eq!(world.refused(Behaviour::Hang, streaming()).await.kind, CallErrorKind::Timeout);
    world.sim.until_aborted(2).await;
    world.fleet.reload(Vec::new()).unwrap();
    let mut config = UpstreamConfig::new("gpu-1", Kind::VLLM, &world.sim.base_url()).unwrap();
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
    let world = World::of(Kind::VLLM).await;
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
        let world = World::of(Kind::VLLM).await;
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

#[test]
fn errors_shown_to_clients_have_our_shape() {
    let error = UpstreamError { message: "m".into(), param: None, code: None, kind: None, status: Some(500) };
    assert_eq!(
        error.to_body().to_json(),
        r#"{"error":{"message":"m","type":"upstream_error","param":null,"code":null}}"#
    );
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_no_answer() {
    let world = World::of(Kind::VLLM).await;
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
