//! Holds: what each kind of server is sent, and what is made of servers that refuse it or answer in an unexpected wrapping.

use std::time::Duration;

use async_compression::{
    Level,
    tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder},
};
use batchin_domain::{CallKind, Capability};
use batchin_openai::peek;
use batchin_sim::{Answer as SimAnswer, Behaviour, End, Refusal, SimServer};
use batchin_tasks::Tasks;
use batchin_upstream::{
    Answer, Asker, Call, CallError, CallErrorKind, Check, Fim, Fleet, Kind, LimitName, Progress, Retry, UpstreamConfig,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn fleet(kind: Kind, base: &str, adjust: impl FnOnce(&mut UpstreamConfig)) -> Fleet {
    let mut config = UpstreamConfig::new("gpu-1", kind, base).unwrap();
    adjust(&mut config);
    Fleet::new(vec![config], &Tasks::new(), 7).unwrap()
}

fn call_of(kind: CallKind, body: &Value) -> Call<'static> {
    let body = Bytes::from(body.to_string());
    let peeked = peek(kind, &body).unwrap();
    Call {
        kind,
        native: None,
        body,
        upstream_model: Some("up"),
        public_id: "id_1".to_owned(),
        public_model: "m",
        stream: peeked.stream,
        include_usage: peeked.include_usage,
        continuous_usage: false,
        answers: 1,
        wanted: peeked.wanted,
        tier: None,
        request_id: "req-1".to_owned(),
        class_priority: None,
        max_tokens: None,
        held: None,
        fim: None,
        speech: None,
        uploads: Vec::new(),
        created: 7,
        asker: Asker::default(),
    }
}

fn chat(more: &Value) -> Call<'static> {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    call_of(CallKind::Chat, &body)
}

/// The call's outcome; a stream is read to its end and shows its frames.
async fn answered(fleet: &Fleet, call: Call<'_>) -> Result<String, CallError> {
    let answer = async {
        match fleet.replica("gpu-1").unwrap().call(call).await? {
            Answer::Whole { body, .. } => Ok(String::from_utf8(body.to_vec()).unwrap()),
            Answer::Sound(_) | Answer::Pictures(_) => panic!("nothing was to be made"),
            Answer::Events(mut events) => {
                let mut all = String::new();
                while let Some(event) = events.next().await {
                    all.push_str(std::str::from_utf8(&event.map_err(|_| broken())?.frame).unwrap());
                }
                Ok(all)
            }
        }
    };
    tokio::time::timeout(PATIENCE, answer).await.expect("the call hangs")
}

fn broken() -> CallError {
    CallError { kind: CallErrorKind::Reset, retry: batchin_upstream::Retry::OtherReplica, client_error: None }
}

/// The bodies that the server got, without model and messages.
fn seen(sim: &SimServer) -> Vec<Value> {
    let body = |bytes: &Bytes| {
        let mut body: Value = serde_json::from_slice(bytes).unwrap();
        body.as_object_mut().unwrap().retain(|name, _| name != "model" && name != "messages" && name != "prompt");
        body
    };
    sim.requests().iter().map(|request| body(&request.body)).collect()
}

fn refuses(status: u16, body: &Value) -> Behaviour {
    let body = body.to_string().into();
    Behaviour::Refuse(Refusal { status, content_type: "application/json", retry_after: None, body })
}

fn unsupported(name: &str, instead: &str) -> Behaviour {
    let message = format!("Unsupported parameter: '{name}' is not supported with this model. Use '{instead}' instead.");
    let error =
        json!({ "message": message, "type": "invalid_request_error", "param": name, "code": "unsupported_parameter" });
    refuses(400, &json!({ "error": error }))
}

/// Mistral's 422.
fn forbidden(name: &str) -> Behaviour {
    let fault = json!({ "type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 1 });
    refuses(422, &json!({ "object": "error", "message": { "detail": [fault] }, "code": null }))
}

fn of(tokens: u32) -> Behaviour {
    Behaviour::Answer(SimAnswer::of(tokens))
}

#[tokio::test]
async fn every_kind_is_told_the_held_limit_by_the_name_it_reads() {
    for kind in Kind::that_can(Capability::Chat) {
        let sim = SimServer::start().await.unwrap();
        let fleet = fleet(kind, &sim.base_url(), |_| {});
        for more in [
            json!({ "max_completion_tokens": 5 }),
            json!({ "max_tokens": 5 }),
            json!({ "max_tokens": 9, "max_completion_tokens": 5 }),
            json!({ "max_tokens": 5.0, "n_predict": 100, "options": { "num_predict": 100 }, "extra_body": { "max_tokens": 100 } }),
        ] {
            answered(&fleet, chat(&more)).await.unwrap();
            let held = Call { max_tokens: Some(3), ..chat(&more) };
            answered(&fleet, held).await.unwrap();
        }
        let expected: Vec<_> =
            [5, 3].iter().cycle().take(8).map(|limit| json!({ "max_tokens": limit, "stream": false })).collect();
        let found: Vec<_> = seen(&sim)
            .into_iter()
            .map(|mut body| {
                body.as_object_mut().unwrap().entry("stream").or_insert(json!(false));
                body
            })
            .collect();
        assert_eq!(found, expected, "{kind}");
        assert_eq!(sim.requests()[0].headers["accept-encoding"], "identity");
        sim.stop().await;
    }
}

#[tokio::test]
async fn a_refused_limit_goes_by_its_other_name_and_then_at_once() {
    let sim = SimServer::start().await.unwrap();
    let fleet = fleet(Kind::OPENAI, &sim.base_url(), |_| {});
    sim.queue(unsupported("max_tokens", "max_completion_tokens"));
    for _ in 0..2 {
        let answer = answered(&fleet, chat(&json!({ "max_tokens": 3 }))).await.unwrap();
        assert!(answer.contains("\"completion_tokens\":3"), "{answer}");
    }
    // Another model of the same server, and the other call, are not concerned.
    answered(&fleet, Call { upstream_model: Some("other"), ..chat(&json!({ "max_tokens": 3 })) }).await.unwrap();
    answered(&fleet, call_of(CallKind::Completions, &json!({ "model": "m", "prompt": "a", "max_tokens": 3 })))
        .await
        .unwrap();
    let (old, new) = (json!({ "max_tokens": 3 }), json!({ "max_completion_tokens": 3 }));
    assert_eq!(seen(&sim), [old.clone(), new.clone(), new, old.clone(), old]);
    sim.stop().await;
}

#[tokio::test]
async fn a_server_without_any_limit_is_told_none() {
    let sim = SimServer::start().await.unwrap();
    let fleet = fleet(Kind::OPENAI, &sim.base_url(), |_| {});
    sim.queue(forbidden("max_tokens"));
    sim.queue(forbidden("max_completion_tokens"));
    sim.script_all(of(4));
    for _ in 0..2 {
        answered(&fleet, Call { max_tokens: Some(9), ..chat(&json!({})) }).await.unwrap();
    }
    assert_eq!(seen(&sim), [json!({ "max_tokens": 9 }), json!({ "max_completion_tokens": 9 }), json!({}), json!({})]);
    sim.stop().await;
}

#[tokio::test]
async fn an_encoding_that_is_refused_is_made_here() {
    let sim = SimServer::start().await.unwrap();
    let fleet = fleet(Kind::OPENAI, &sim.base_url(), |_| {});
    let embed = |format: &str| {
        call_of(CallKind::Embeddings, &json!({ "model": "m", "input": ["a", "b"], "encoding_format": format }))
    };
    sim.queue(Behaviour::Refuse(Refusal::vllm(400, "encoding_format: base64 is not supported")));
    for _ in 0..2 {
        let answer = answered(&fleet, embed("base64")).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["data"][1]["embedding"], "AAAAPwAAgL4AAAA+AAAAAAAAgD8AAIC/AABAPwAAAL8=");
    }
    let sent: Vec<_> =
        sim.requests().iter().map(|sent| String::from_utf8_lossy(&sent.body).contains("format")).collect();
    assert_eq!(sent, [true, false, false]);
    // A number of inputs is no encoding, whatever the client wrote.
    let refusal = Refusal::vllm(400, "at most 1 input; the value of encoding_format is fine");
    sim.queue(Behaviour::Refuse(refusal.clone()));
    let plain = call_of(CallKind::Embeddings, &json!({ "model": "other", "input": ["a", "b"] }));
    let refused = answered(&fleet, plain).await.unwrap_err();
    assert_eq!((refused.retry, sim.calls()), (Retry::Never, 4));
    sim.stop().await;
}

#[tokio::test]
async fn stream_options_that_are_refused_are_left_out_from_then_on() {
    let sim = SimServer::start().await.unwrap();
    let fleet = fleet(Kind::OPENAI, &sim.base_url(), |_| {});
    sim.queue(forbidden("stream_options"));
    sim.script_all(of(2));
    let asking = json!({ "stream": true, "stream_options": { "include_usage": true } });
    for more in [json!({ "stream": true }), json!({ "stream": true }), asking.clone()] {
        let answer = answered(&fleet, chat(&more)).await.unwrap();
        assert!(answer.ends_with("data: [DONE]\n\n"), "{answer}");
    }
    let bare = json!({ "stream": true });
    assert_eq!(seen(&sim), [asking, bare.clone(), bare.clone(), bare]);
    sim.stop().await;
}

/// An error in place of an answer or of a stream's first event, with status 200.
fn in_an_answer(error: &Value, streamed: bool) -> Behaviour {
    let (content_type, body) = if streamed {
        ("text/event-stream", format!("data: {error}\n\ndata: [DONE]\n\n"))
    } else {
        ("application/json", error.to_string())
    };
    Behaviour::Raw { content_type, pieces: vec![body.into()], gap: Duration::ZERO, end: End::Done }
}

#[tokio::test]
async fn a_refusal_in_an_answer_is_learnt_as_well() {
    let text = "unsupported parameter: max_tokens";
    let errors = [
        json!({ "error": { "message": text } }),
        json!({ "error": { "message": text, "type": "invalid_request_error", "code": "unsupported_parameter" } }),
        json!({ "error": { "message": "max_tokens: Extra inputs are not permitted", "code": 422 } }),
        json!({ "object": "error", "message": text, "type": "BadRequestError", "code": 400 }),
        json!({ "error": text }),
    ];
    // In either form, whatever was asked for.
    for (asked, came) in [(false, false), (true, true), (true, false), (false, true)] {
        for error in &errors {
            let sim = SimServer::start().await.unwrap();
            let fleet = fleet(Kind::OPENAI, &sim.base_url(), |config| config.stream_options = false);
            sim.queue(in_an_answer(error, came));
            for _ in 0..2 {
                let answer = answered(&fleet, chat(&json!({ "max_tokens": 3, "stream": asked }))).await.unwrap();
                assert!(answer.contains("\"choices\"") && !answer.contains("unsupported"), "{answer}");
            }
            let (old, new) =
                (json!({ "max_tokens": 3, "stream": asked }), json!({ "stream": asked, "max_completion_tokens": 3 }));
            assert_eq!(seen(&sim), [old, new.clone(), new], "{error}, {came}");
            sim.stop().await;
        }
    }
}

#[tokio::test]
async fn a_stream_s_first_event_teaches_and_a_later_one_does_not() {
    let refusal = json!({ "error": { "message": "stream_options is not supported", "type": "invalid_request_error" } });
    let asking = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let bare = json!({ "stream": true });
    let sim = SimServer::start().await.unwrap();
    let fleet = fleet(Kind::OPENAI, &sim.base_url(), |_| {});
    let later =
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"a\"}}}}]}}\n\ndata: {refusal}\n\n");
    let pieces = vec![later.into()];
    sim.queue(Behaviour::Raw { content_type: "text/event-stream", pieces, gap: Duration::ZERO, end: End::Done });
    let answer = answered(&fleet, chat(&bare)).await.unwrap();
    assert!(answer.contains("stream_options is not supported"), "{answer}");
    assert_eq!(seen(&sim), std::slice::from_ref(&asking), "the client has something of it");
    // A batch's task, whose answer is put together here.
    sim.queue(in_an_answer(&refusal, true));
    let mut assembly = fleet.replica("gpu-1").unwrap().assemble(chat(&bare)).await.unwrap();
    while !matches!(assembly.next().await.unwrap(), Progress::Whole(_)) {}
    answered(&fleet, chat(&bare)).await.unwrap();
    assert_eq!(seen(&sim)[1..], [asking, bare.clone(), bare]);
    sim.stop().await;
}

#[tokio::test]
async fn an_answer_s_error_that_is_no_refusal_teaches_nothing() {
    let urgent = || Call { class_priority: Some(5), ..chat(&json!({ "max_tokens": 3 })) };
    let refusal = json!({ "error": { "message": "unknown member: priority" } });
    let boom = json!({ "error": { "message": "boom" } });
    for errors in [
        vec![json!({ "error": { "message": "the priority queue is full", "type": "server_error" } })],
        vec![json!({ "error": { "message": "priority is not supported after a crash", "code": 500 } })],
        vec![json!({ "error": { "message": "max_tokens must be at least 16", "type": "invalid_request_error" } })],
        // Sent again, and not answered then either.
        vec![refusal, boom],
    ] {
        let sim = SimServer::start().await.unwrap();
        let fleet = fleet(Kind::VLLM, &sim.base_url(), |config| config.priority_enabled = true);
        errors.iter().for_each(|error| sim.queue(in_an_answer(error, false)));
        answered(&fleet, urgent()).await.unwrap_err();
        answered(&fleet, urgent()).await.unwrap();
        let asked = json!({ "max_tokens": 3, "priority": 5 });
        let bodies = seen(&sim);
        assert_eq!((&bodies[0], bodies.last(), bodies.len()), (&asked, Some(&asked), errors.len() + 1), "{errors:?}");
        sim.stop().await;
    }
}

#[tokio::test]
async fn what_the_client_wrote_teaches_nothing() {
    let sim = SimServer::start().await.unwrap();
    let fleet = fleet(Kind::OPENAI, &sim.base_url(), |_| {});
    // Its own options, a number that is out of range, and words of its own in an explanation.
    let own = json!({ "stream": true, "stream_options": { "include_usage": true, "chunk": 5 } });
    sim.queue(forbidden("stream_options"));
    let error = answered(&fleet, chat(&own)).await.unwrap_err();
    assert_eq!(error.client_error.unwrap().message, "body.stream_options: Extra inputs are not permitted");
    sim.queue(Behaviour::Refuse(Refusal::vllm(400, "max_tokens must be at least 16, got 3")));
    let error = answered(&fleet, chat(&json!({ "max_completion_tokens": 3 }))).await.unwrap_err();
    assert_eq!(error.client_error.unwrap().message, "max_completion_tokens must be at least 16, got 3");
    sim.queue(Behaviour::Refuse(Refusal::vllm(400, "unknown: max_tokens")));
    sim.queue(Behaviour::Refuse(Refusal::vllm(400, "unknown: max_tokens")));
    answered(&fleet, chat(&json!({ "max_tokens": 3 }))).await.unwrap_err();
    assert_eq!(sim.calls(), 4);
    answered(&fleet, chat(&json!({ "max_tokens": 3, "stream": true }))).await.unwrap();
    let last = seen(&sim).pop().unwrap();
    assert_eq!(last, json!({ "max_tokens": 3, "stream": true, "stream_options": { "include_usage": true } }));
    sim.stop().await;
}

#[tokio::test]
async fn settings_say_it_before_a_refusal_does() {
    let sim = SimServer::start().await.unwrap();
    let fleet = fleet(Kind::OPENAI, &sim.base_url(), |config| {
        config.limit_name = LimitName::MaxCompletionTokens;
        config.stream_options = false;
    });
    answered(&fleet, chat(&json!({ "max_tokens": 3, "stream": true }))).await.unwrap();
    answered(&fleet, call_of(CallKind::Completions, &json!({ "model": "m", "prompt": "a", "max_tokens": 3 })))
        .await
        .unwrap();
    let bare = json!({ "max_completion_tokens": 3, "stream": true });
    assert_eq!(seen(&sim), [bare, json!({ "max_tokens": 3 })]);
    sim.stop().await;
}

/// Answers each connection's first call, which ends so, with these bytes and leaves the connection open.
async fn answering(listener: TcpListener, answer: Vec<u8>, end: &[u8]) {
    let mut open = Vec::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut request, mut piece) = (Vec::new(), [0; 4_096]);
        while !request.ends_with(end) {
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "the call broke off");
            request.extend_from_slice(&piece[..read]);
        }
        stream.write_all(&answer).await.unwrap();
        open.push(stream);
    }
}

/// What comes of a call to a server that answers with this head, beside its length, and body.
async fn wrapped(head: &str, body: &[u8], more: &Value) -> Result<String, CallError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fleet = fleet(Kind::OPENAI, &format!("http://{}", listener.local_addr().unwrap()), |_| {});
    let mut answer = format!("HTTP/1.1 {head}\r\n\r\n").into_bytes();
    answer.extend_from_slice(body);
    tokio::select! {
        () = answering(listener, answer, b"}") => panic!("it ended"),
        answer = answered(&fleet, chat(more)) => answer,
    }
}

async fn encodings(text: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    macro_rules! by {
        ($encoder:ident) => {{
            let mut encoder = $encoder::with_quality(Vec::new(), Level::Fastest);
            encoder.write_all(text).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    [
        ("gzip", by!(GzipEncoder)),
        ("deflate", by!(ZlibEncoder)),
        ("deflate", by!(DeflateEncoder)),
        ("br", by!(BrotliEncoder)),
        ("zstd", by!(ZstdEncoder)),
    ]
}

const WHOLE: &[u8] = br#"{"choices":[{"index":0,"message":{"content":"warm"},"finish_reason":"stop"}]}"#;
const STREAM: &[u8] = b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"warm\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

#[tokio::test]
async fn answers_that_come_compressed_are_read() {
    for (text, more) in [(WHOLE, json!({})), (STREAM, json!({ "stream": true }))] {
        for (encoding, body) in encodings(text).await {
            let head =
                |status: &str| format!("{status}\r\ncontent-encoding: {encoding}\r\ncontent-length: {}", body.len());
            let answer = wrapped(&head("200 OK"), &body, &more).await.unwrap();
            assert!(answer.contains("\"warm\""), "{encoding}: {answer}");
        }
    }
    for (encoding, refusal) in encodings(br#"{"error":{"message":"the prompt is too long"}}"#).await {
        let head = format!("400 Bad Request\r\ncontent-encoding: {encoding}\r\ncontent-length: {}", refusal.len());
        let error = wrapped(&head, &refusal, &json!({})).await.unwrap_err();
        assert_eq!(error.client_error.unwrap().message, "the prompt is too long", "{encoding}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_a_failure_at_once() {
    let length = |body: &[u8]| format!("content-length: {}", body.len());
    let cases = [(json!({}), CallErrorKind::Encoding), (json!({ "stream": true }), CallErrorKind::BadAnswer)];
    for (more, kind) in cases {
        for head in [
            format!("200 OK\r\ncontent-encoding: compress\r\n{}", length(WHOLE)),
            format!("200 OK\r\ncontent-encoding: gzip, br\r\n{}", length(WHOLE)),
            format!("200 OK\r\ncontent-encoding: gzip\r\n{}", length(WHOLE)),
            format!("200 OK\r\ncontent-encoding: br\r\n{}", length(WHOLE)),
            format!("200 OK\r\ncontent-encoding: zstd\r\n{}", length(WHOLE)),
            "200 OK\r\ntransfer-encoding: nonsense".to_owned(),
            "200 OK\r\ntransfer-encoding: gzip".to_owned(),
        ] {
            let error = wrapped(&head, WHOLE, &more).await.unwrap_err();
            assert_eq!(error.kind, kind, "{head}");
        }
    }
    let error =
        wrapped("400 Bad Request\r\ncontent-encoding: br\r\ncontent-length: 2", b"??", &json!({})).await.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Status(400));
}

#[tokio::test]
async fn a_compressed_answer_is_bounded_by_what_it_becomes() {
    for (encoding, bomb) in encodings(&vec![b' '; batchin_upstream::MAX_ANSWER_BYTES + 1]).await {
        let head = format!("200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}", bomb.len());
        let error = wrapped(&head, &bomb, &json!({})).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::TooLarge, "{encoding}");
    }
}

#[tokio::test]
async fn a_list_of_models_that_comes_compressed_is_read() {
    for (encoding, list) in encodings(br#"{"object":"list","data":[{"id":"up"}]}"#).await {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fleet = fleet(Kind::OPENAI, &format!("http://{}", listener.local_addr().unwrap()), |_| {});
        let length = list.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {length}\r\n\r\n");
        let answer = [head.into_bytes(), list].concat();
        let replica = fleet.replica("gpu-1").unwrap();
        let found = tokio::select! {
            () = answering(listener, answer, b"\r\n\r\n") => panic!("it ended"),
            found = tokio::time::timeout(PATIENCE, replica.check()) => found.unwrap(),
        };
        assert_eq!(found, Check::Lists(vec!["up".to_owned()]), "{encoding}");
    }
}

/// A call for the middle of a text whose marks only its server knows.
fn gap(more: &Value) -> Call<'static> {
    let mut body = json!({ "model": "m", "prompt": "a", "suffix": "b", "max_tokens": 5 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Call { fim: Some(Fim::Server), ..call_of(CallKind::Completions, &body) }
}

/// What comes of such a call to a llama-server that answers so.
async fn infilled(status: &str, body: &str, more: &Value) -> Result<String, CallError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fleet = fleet(Kind::LLAMACPP, &format!("http://{}/v1", listener.local_addr().unwrap()), |_| {});
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let once = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut request, mut piece) = (Vec::new(), [0; 4_096]);
        while !request.ends_with(b"}") {
            let read = stream.read(&mut piece).await.unwrap();
            assert!(read > 0, "the call broke off");
            request.extend_from_slice(&piece[..read]);
        }
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("POST /infill HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(r#""input_prefix":"a","input_suffix":"b""#), "{request}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    tokio::join!(once, answered(&fleet, gap(more))).1
}

#[tokio::test]
async fn llama_cpp_s_own_answers_are_completions() {
    let end = r#""content":"","stop":true,"stop_type":"limit","tokens_predicted":2,"tokens_evaluated":4"#;
    let usage = r#""usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}"#;
    let whole = infilled("200 OK", &format!("{{{}}}", end.replacen("\"\"", "\"xy\"", 1)), &json!({})).await.unwrap();
    let choice = r#""choices":[{"index":0,"text":"xy","logprobs":null,"finish_reason":"length"}]"#;
    assert!(whole.contains(choice) && whole.contains(usage) && whole.contains(r#""id":"id_1""#), "{whole}");
    let pieces = r#"data: {"index":0,"content":"x","stop":false}"#;
    let stream = format!("{pieces}\n\n{pieces}\n\ndata: {{{end}}}\n\n");
    let more = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let told = infilled("200 OK", &stream, &more).await.unwrap();
    assert_eq!(told.matches(r#""text":"x""#).count(), 2, "{told}");
    assert!(told.contains(usage) && told.ends_with("data: [DONE]\n\n") && !told.contains("content"), "{told}");
    // In place of a stream, and a stream that breaks off.
    let one = infilled("200 OK", &format!("{{{end}}}"), &more).await.unwrap();
    assert!(one.contains("\"finish_reason\":\"length\"") && one.ends_with("data: [DONE]\n\n"), "{one}");
    assert!(infilled("200 OK", &format!("{pieces}\n\n"), &more).await.is_err());
}
