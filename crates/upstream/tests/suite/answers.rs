//! Holds: answers that come, whole and as streams, over real sockets, in every form that servers give them.

use std::time::Duration;

use batchin_domain::CallKind;
use batchin_openai::peek;
use batchin_sim::{Answer as SimAnswer, Behaviour, End, SimServer, UsageMode, prompt_tokens, token_text};
use batchin_tasks::Tasks;
use batchin_upstream::{Answer, Call, CallErrorKind, Fleet, Health, Kind, Retry, StreamError, UpstreamConfig};
use bytes::Bytes;

use crate::world::{
    PATIENCE, World, all, completion, deltas, ending, events, kinds, last_usage, of, put_together, raw, raw_as, said,
    streaming, usage, whole,
};

#[tokio::test]
async fn whole_answer_has_public_names_and_usage() {
    let world = World::with(Kind::VLLM, |config| config.api_key = Some("sk-1".into())).await;
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

fn embeddings() -> Call<'static> {
    let body = Bytes::from_static(br#"{"model":"e","input":["a b","c"]}"#);
    let wanted = peek(CallKind::Embeddings, &body).unwrap().wanted;
    Call { kind: CallKind::Embeddings, body, wanted, ..whole() }
}

#[tokio::test]
async fn vectors_that_do_not_belong_to_the_inputs_are_a_failure_of_the_server() {
    for data in [
        "[]",
        r#"[{"index":0,"embedding":[1]}]"#,
        r#"[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]"#,
        r#"[{"index":0,"embedding":[1]},{"index":1,"embedding":null}]"#,
    ] {
        let body = format!(r#"{{"object":"list","data":{data},"usage":{{"prompt_tokens":3,"total_tokens":3}}}}"#);
        let pieces = vec![Bytes::from(body)];
        let raw = Behaviour::Raw { content_type: "application/json", pieces, gap: Duration::ZERO, end: End::Done };
        let world = World::of(Kind::VLLM).await;
        let error = world.refused(raw, embeddings()).await;
        assert_eq!((error.kind, error.retry), (CallErrorKind::BadAnswer, Retry::OtherReplica), "{data}");
        world.end().await;
    }
}

#[tokio::test]
async fn more_inputs_than_a_server_takes_go_to_it_in_several_calls() {
    let world = World::with(Kind::VLLM, |config| config.max_embedding_inputs = Some(2)).await;
    let body = Bytes::from_static(br#"{"model":"e","input":["a","b c","d","e","f g h"],"encoding_format":"base64"}"#);
    let wanted = peek(CallKind::Embeddings, &body).unwrap().wanted;
    let call = || Call { body: body.clone(), wanted, ..embeddings() };
    let Answer::Whole { body: told, usage: counted, .. } = world.call(call()).await.unwrap() else {
        panic!("a stream")
    };
    let told = std::str::from_utf8(&told).unwrap();
    let places = [0, 1, 2, 3, 4].map(|index| told.find(&format!(r#""index":{index},"#)).unwrap());
    assert!(places.is_sorted() && told.matches("\"index\"").count() == 5, "{told}");
    assert!(told.contains(r#""usage":{"prompt_tokens":8,"total_tokens":8}"#), "{told}");
    assert_eq!((counted, world.sim.calls()), (usage(8, 0), 3));
    let sent =
        world.sim.requests().iter().map(|sent| String::from_utf8_lossy(&sent.body).into_owned()).collect::<Vec<_>>();
    for (body, input) in sent.iter().zip([r#"["a","b c"]"#, r#"["d","e"]"#, r#"["f g h"]"#]) {
        assert!(body.contains(&format!(r#""input":{input}"#)), "{body}");
    }
    // Few enough are not parted, and a part that fails fails them all.
    world.call(embeddings()).await.unwrap();
    assert_eq!(world.sim.calls(), 4);
    world.sim.queue(Behaviour::default());
    world.sim.queue(Behaviour::Drop);
    let error = world.call(call()).await.unwrap_err();
    assert_eq!((error.retry, world.sim.calls()), (Retry::OtherReplica, 6));
    world.end().await;
}

#[tokio::test]
async fn embeddings_have_an_id_too() {
    let world = World::of(Kind::VLLM).await;
    let Answer::Whole { body, usage: counted, .. } = world.call(embeddings()).await.unwrap() else {
        panic!("a stream")
    };
    let body = std::str::from_utf8(&body).unwrap();
    assert!(body.contains(r#""id":"chatcmpl_1""#) && body.contains(r#""index":1"#), "{body}");
    assert_eq!(counted, usage(3, 0));
    world.end().await;
}

#[tokio::test]
async fn stream_passes_event_by_event() {
    let world = World::of(Kind::VLLM).await;
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
    let world = World::of(Kind::VLLM).await;
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
    let world = World::of(Kind::VLLM).await;
    for _ in 0..10 {
        world.call(whole()).await.unwrap();
    }
    assert_eq!((world.sim.calls(), world.sim.inference_connections()), (10, 1));
    world.end().await;
}

#[tokio::test]
async fn usage_is_found_wherever_a_server_puts_it() {
    let world = World::of(Kind::OLLAMA).await;
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
async fn end_without_done_is_judged_by_the_finish_reason() {
    let world = World::of(Kind::OPENAI).await;
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
    let world = World::of(Kind::LLAMACPP).await;
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
async fn large_stream_is_not_gathered() {
    const TOKENS: u32 = 20_000;
    let world = World::of(Kind::VLLM).await;
    let (events, error) = world.stream(Behaviour::Answer(of(TOKENS))).await;
    assert_eq!((error, deltas(&events), last_usage(&events)), (None, TOKENS, usage(3, TOKENS.into())));
    world.end().await;
}

#[tokio::test]
async fn unix_socket_works_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let sim = SimServer::start_unix(&socket).await.unwrap();
    let tasks = Tasks::new();
    let config = UpstreamConfig::new("engine", Kind::EMBEDDED, &format!("unix:{}", socket.display())).unwrap();
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
async fn a_stream_is_put_together_to_the_answer_that_comes_whole() {
    let world = World::of(Kind::VLLM).await;
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

/// A chunk of an old SGLang or Ollama, which give an empty reason until the last.
const UNENDED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"\"}]}\n\n";
const ENDED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const SECOND: &str = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[tokio::test]
async fn an_empty_reason_is_no_end() {
    let world = World::of(Kind::SGLANG).await;
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
    let world = World::of(Kind::VLLM).await;
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
    let world = World::of(Kind::OPENAI).await;
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
    let world = World::of(Kind::OPENAI).await;
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
    let world = World::of(Kind::OPENAI).await;
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
        world.fleet.let_go(Duration::ZERO, |_| true);
        world.fleet.reload(vec![UpstreamConfig::new("gpu-1", Kind::OPENAI, &world.sim.base_url()).unwrap()]).unwrap();
    }
    world.end().await;
}

#[tokio::test]
async fn tool_calls_that_are_numbered_alike_reach_the_client_apart() {
    let world = World::of(Kind::SGLANG).await;
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
