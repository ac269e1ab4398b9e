//! Holds: what is said in a sound: forms with a file, what they cost, and what is left of them.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_testkit::{
    Call, Reply, TestServer, both,
    sim::{Behaviour, End, ReceivedForm, Refusal},
    streamed,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};

use crate::{
    batches::until_final,
    embeddings::{raw, spent},
};

const PATH: &str = "/v1/audio/transcriptions";
const PATIENCE: Duration = Duration::from_secs(30);

/// What the simulated server says.
const SAID: &str = "Lorem ipsum ";
/// Of `hear-model`, a second of which costs a hundredth of a cent.
const NANOS_PER_MS: i64 = 100;

/// So many milliseconds of a sound of 8,000 samples a second.
fn wav(ms: u32) -> Vec<u8> {
    let bytes = ms * 16;
    let mut wav = [b"RIFF", &(36 + bytes).to_le_bytes()[..], b"WAVEfmt \x10\0\0\0\x01\0\x01\0"].concat();
    wav.extend_from_slice(&[8_000_u32.to_le_bytes(), 16_000_u32.to_le_bytes()].concat());
    wav.extend_from_slice(&[b"\x02\0\x10\0data", &bytes.to_le_bytes()[..]].concat());
    wav.extend((0..bytes).map(|at| (at % 251) as u8));
    wav
}

fn part(boundary: &str, name: &str, value: &str) -> Vec<u8> {
    format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
}

/// A form whose file comes first, as OpenAI's package for node sends it.
fn framed(boundary: &str, file: Option<&[u8]>, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    if let Some(file) = file {
        let head = "content-disposition: form-data; name=\"file\"; filename=\"../x\"\r\ncontent-type: text/html";
        body.extend_from_slice(&[format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes(), file, b"\r\n"].concat());
    }
    fields.iter().for_each(|(name, value)| body.extend_from_slice(&part(boundary, name, value)));
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

fn form(boundary: &str) -> String {
    format!("multipart/form-data; boundary={boundary}")
}

fn asked(server: &TestServer, path: &str, file: &[u8], fields: &[(&str, &str)]) -> Call {
    let body = framed("b", Some(file), &[&[("model", "hear-model")], fields].concat());
    server.call(Method::POST, path).header("content-type", &form("b")).body(body)
}

async fn refused(call: Call, param: &str) -> String {
    let error = call.send().await.error(StatusCode::BAD_REQUEST, "invalid_request");
    assert_eq!(error["param"], param, "{error}");
    error["message"].as_str().unwrap().to_owned()
}

async fn received(server: &TestServer) -> ReceivedForm {
    server.sim.requests().last().unwrap().form().await.expect("a form")
}

/// The files without a name that the server has open in its place for uploads.
fn spooled(server: &TestServer) -> Vec<PathBuf> {
    let folder = server.blob_folder().with_file_name("uploads");
    assert!(std::fs::read_dir(&folder).map_or(0, Iterator::count) == 0, "they have no names");
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    open.filter(|path| path.starts_with(&folder)).collect()
}

async fn until_gone(server: &TestServer) {
    let gone = async {
        while !spooled(server).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the upload is gone");
}

fn short() -> Behaviour {
    Behaviour::Answer(batchin_testkit::sim::Answer::of(2))
}

fn events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter(|event| !event.is_empty());
    data.map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

fn pieces(content_type: &'static str, pieces: &[&str], end: End) -> Behaviour {
    let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece.as_bytes())).collect();
    Behaviour::Raw { content_type, pieces, gap: Duration::ZERO, end }
}

both! {
    async fn a_sound_is_written_down_and_charged_by_its_length(backend) {
        let server = TestServer::start().on(backend).await;
        server.sim.script_all(short());
        let sound = wav(2_500);
        let fields = [("language", "en"), ("temperature", "0"), ("prompt", "a \"b\"\nc"), ("hotwords", "x"), ("priority", "9")];
        for (at, path) in [PATH, "/v1/audio/translations", "/audio/transcriptions", "/openai/v1/audio/translations"].into_iter().enumerate() {
            let answer = asked(&server, path, &sound, &fields).await.ok();
            assert_eq!(answer, json!({ "text": SAID, "usage": { "type": "duration", "seconds": 2.5 } }), "{path}");
            assert_eq!(spent(&server).await, 2_500 * NANOS_PER_MS * (at as i64 + 1), "{path}");
        }
        let sent = received(&server).await;
        assert_eq!((sent.file.as_ref(), sent.filename.as_str(), sent.content_type.as_str()), (&*sound, "sound.wav", "audio/wav"));
        let mut names: Vec<(&str, &str)> = sent.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        names.sort_unstable();
        let told = [
            ("hotwords", "x"), ("language", "en"), ("model", "hear-model"), ("prompt", "a \"b\"\nc"), ("response_format", "json"),
            ("temperature", "0"),
        ];
        assert_eq!(names, told);
        assert_eq!(server.sim.requests()[3].path, "/v1/audio/translations");
        let row = &server.get("/v1/usage/logs").await.ok()[0];
        assert_eq!((&row["audio_seconds"], &row["input_tokens"], &row["output_tokens"]), (&json!(2.5), &json!(0), &json!(0)), "{row}");
        assert_eq!((&row["estimated"], &row["status"]), (&json!(false), &json!("completed")), "{row}");
        until_gone(&server).await;
        server.stop().await;
    }

    async fn a_sound_may_come_in_json(backend) {
        let server = TestServer::start().on(backend).await;
        let uri = format!("data:audio/wav;base64,{}", STANDARD.encode(wav(1_000)));
        let body = json!({ "file": uri, "model": "hear-model", "timestamp_granularities": ["word"], "response_format": "verbose_json" });
        let answer = server.post(PATH, body).await.ok();
        assert_eq!((&answer["usage"]["seconds"], &answer["language"]), (&json!(1), &json!("en")), "{answer}");
        assert_eq!(spent(&server).await, 1_000 * NANOS_PER_MS);
        let sent = received(&server).await;
        assert_eq!(sent.file, wav(1_000));
        assert!(sent.fields.contains(&("timestamp_granularities[]".to_owned(), "word".to_owned())), "{sent:?}");
        let address = json!({ "file": "https://example.com/a.wav", "model": "hear-model" });
        refused(server.post(PATH, address), "file").await;
        server.stop().await;
    }

    async fn tasks_of_batches_hear_too(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        server.sim.script_all(short());
        let uri = format!("data:audio/wav;base64,{}", STANDARD.encode(wav(4_000)));
        let task = |format: &str| {
            let body = json!({ "file": uri, "response_format": format });
            json!({ "custom_id": "a", "model": "hear-model", "url": PATH, "request_body": body })
        };
        let made = server.post("/v1/batches", json!({ "tasks": [task("json")], "priority": "low" })).await.ok();
        let batch = until_final(&server, made["id"].as_str().unwrap()).await;
        assert_eq!(batch["status"], "completed", "{batch}");
        let result = json!({ "text": SAID, "usage": { "type": "duration", "seconds": 4 } });
        assert_eq!((&batch["tasks"][0]["result"], &batch["tasks"][0]["usage"]["audio_seconds"]), (&result, &json!(4.0)));
        // Half price.
        assert_eq!(spent(&server).await, 4_000 * NANOS_PER_MS / 2);
        let bad = server.post("/v1/batches", json!({ "tasks": [task("srt")] })).await;
        assert_eq!(bad.status, 400, "{}", bad.text());
        server.stop().await;
    }

    async fn whoever_cannot_pay_for_all_of_it_is_not_heard(backend) {
        // A hundredth of a cent is a second.
        let server = TestServer::start().on(backend).with_balance("0").await;
        server.grant(&server.owner, batchin_domain::Amount::parse_cents("0.01").unwrap()).await;
        let reply = asked(&server, PATH, &wav(1_001), &[]).await;
        reply.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        assert_eq!(server.sim.calls(), 0);
        asked(&server, PATH, &wav(1_000), &[]).await.ok();
        assert_eq!(server.balance().await.nanos(), 0);
        server.stop().await;
    }
}

fn seen(reply: &Reply) -> (String, String) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    (reply.header("content-type").to_owned(), reply.text())
}

#[tokio::test]
async fn each_format_has_its_type() {
    let server = TestServer::start().await;
    server.sim.script_all(short());
    let cue = "00:00:00,000 --> 00:00:00,500\nLorem ipsum";
    for (format, content_type, text) in [
        ("text", "text/plain; charset=utf-8", "Lorem ipsum \n".to_owned()),
        ("srt", "text/plain; charset=utf-8", format!("1\n{cue}\n\n")),
        ("vtt", "text/vtt; charset=utf-8", format!("WEBVTT\n\n{}\n\n", cue.replace(',', "."))),
    ] {
        // The first answer again, though its parts are framed in another boundary.
        for boundary in ["b", "c"] {
            let fields = [("response_format", format), ("model", "hear-model")];
            let call = server.call(Method::POST, PATH).header("idempotency-key", format);
            let call = call.header("content-type", &form(boundary)).body(framed(boundary, Some(&wav(100)), &fields));
            assert_eq!(seen(&call.await), (content_type.to_owned(), text.clone()), "{format}");
        }
    }
    assert_eq!((server.sim.calls(), spent(&server).await), (3, 300 * NANOS_PER_MS));
    let other = asked(&server, PATH, &wav(101), &[("response_format", "srt")]).header("idempotency-key", "srt").await;
    other.error(StatusCode::CONFLICT, "conflict");
    server.stop().await;
}

#[tokio::test]
async fn streams_are_openai_s_whatever_the_server_sends() {
    let server = TestServer::start().await;
    let delta = |text: &str| json!({ "type": "transcript.text.delta", "delta": text });
    let done = |text: &str| json!({ "type": "transcript.text.done", "text": text, "usage": { "type": "duration", "seconds": 1 } });
    let own = "data: {\"type\":\"transcript.text.delta\",\"delta\":\"Hi\"}\n\ndata: {\"type\":\"transcript.text.done\",\"text\":\"Hi\",\"usage\":{\"type\":\"tokens\"}}\n\n";
    let mut paid = 0;
    for (behaviour, expected) in [
        (short(), vec![delta("Lorem "), delta("ipsum "), done(SAID)]),
        (pieces("text/event-stream", &[own], End::Done), vec![delta("Hi"), done("Hi")]),
        (
            raw(&json!({ "text": "whole", "usage": { "type": "duration", "seconds": 7 } })),
            vec![delta("whole"), done("whole")],
        ),
    ] {
        server.sim.script_all(behaviour);
        let reply = asked(&server, PATH, &wav(1_000), &[("stream", "True")]).await;
        assert!(reply.header("content-type").starts_with("text/event-stream"));
        assert_eq!(events(&reply.text()), expected);
        paid += 1_000 * NANOS_PER_MS;
        assert_eq!(spent(&server).await, paid);
    }
    assert!(received(&server).await.fields.contains(&("stream".to_owned(), "true".to_owned())));
    // What is missing of an answer is not paid for.
    let begins = own.split_inclusive("\n\n").next().unwrap();
    for end in [End::Cut, End::Silent] {
        server.sim.script_all(pieces("text/event-stream", &[begins], end));
        let reply = asked(&server, PATH, &wav(1_000), &[("stream", "true")]).await;
        assert!(reply.text().contains("upstream_error"), "{}", reply.text());
        assert_eq!(spent(&server).await, paid);
    }
    refused(asked(&server, PATH, &wav(10), &[("stream", "true"), ("response_format", "vtt")]), "response_format").await;
    refused(asked(&server, PATH, &wav(10), &[("stream", "perhaps")]), "stream").await;
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_heard_is_refused_and_costs_nothing() {
    let server = TestServer::start().await;
    let sound = wav(10);
    for (file, said) in [(&b""[..], "is empty"), (&[7; 10_000], "wav, mp3"), (b"RIFFxxxxWAVE", "wav")] {
        let message = refused(asked(&server, PATH, file, &[]), "file").await;
        assert!(message.contains(said), "{message}");
    }
    for (fields, param) in [
        (&[("response_format", "mp3")][..], "response_format"),
        (&[("model", "hear-model")], "model"),
        (&[("temperature", "hot")], "temperature"),
        (&[("n", "2")], "n"),
    ] {
        refused(asked(&server, PATH, &sound, fields), param).await;
    }
    let sent = |file: Option<&[u8]>, fields: &[(&str, &str)]| {
        server.call(Method::POST, PATH).header("content-type", &form("b")).body(framed("b", file, fields))
    };
    refused(sent(None, &[("model", "hear-model")]), "file").await;
    refused(sent(Some(&sound), &[]), "model").await;
    refused(sent(Some(&sound), &[("model", "chat-model")]), "model").await;
    sent(Some(&sound), &[("model", "none")]).await.error(StatusCode::NOT_FOUND, "model_not_found");
    let many: Vec<(String, String)> = (0..64).map(|at| (format!("x{at}"), String::new())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    sent(Some(&sound), &many).await.error(StatusCode::BAD_REQUEST, "invalid_request");
    refused(sent(Some(&sound), &[("prompt", &"x".repeat(20_000))]), "prompt").await;
    let broken = server.call(Method::POST, PATH).header("content-type", &form("b")).body("--b\r\nx");
    broken.await.error(StatusCode::BAD_REQUEST, "invalid_request");
    for key in ["", "sk-nobody"] {
        let call = server.anonymous(Method::POST, PATH).key(key).header("content-type", &form("b"));
        assert_eq!(call.body(framed("b", Some(&sound), &[])).await.status, 401);
    }
    assert_eq!((server.sim.calls(), spent(&server).await), (0, 0));
    until_gone(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_file_over_the_bound_is_refused_however_it_comes() {
    let server = TestServer::start().with_settings(|settings| settings.max_sound_bytes = 100_000).await;
    let stated = asked(&server, PATH, &vec![0; 200_000], &[]).await;
    let body = framed("b", Some(&vec![0; 100_001]), &[("model", "hear-model")]);
    let chunks: Vec<_> = body.chunks(7_000).map(|chunk| Ok(chunk.to_vec())).collect();
    let unstated =
        server.call(Method::POST, PATH).header("content-type", &form("b")).body(streamed(stream::iter(chunks)));
    for reply in [stated, unstated.await] {
        let error = reply.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        assert!(error["message"].as_str().unwrap().contains("100000 bytes"), "{error}");
    }
    until_gone(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn another_server_gets_the_same_bytes() {
    let server = TestServer::start().with_second_sim().await;
    let other = server.other_sim.as_ref().unwrap();
    // More than is read at a time.
    let sound = wav(30_000);
    for failure in [Behaviour::Drop, Behaviour::Refuse(Refusal::vllm(500, "no"))] {
        let calls = (server.sim.calls(), other.calls());
        for sim in [&server.sim, other] {
            sim.queue(failure.clone());
        }
        let failed = asked(&server, PATH, &sound, &[]).await;
        assert!(failed.status >= 500, "{}", failed.text());
        assert_eq!((server.sim.calls(), other.calls()), (calls.0 + 1, calls.1 + 1));
    }
    assert_eq!(spent(&server).await, 0);
    for sim in [&server.sim, other] {
        for request in sim.requests() {
            assert_eq!(request.form().await.unwrap().file, sound);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing_behind() {
    let server = TestServer::start().with_files(|files| files.max_uploads = 1).await;
    let whole = framed("b", Some(&wav(30_000)), &[("model", "hear-model")]);
    let (half, _) = whole.split_at(whole.len() / 2);
    let (begun, told) = tokio::sync::oneshot::channel();
    let never = stream::iter([Ok(half.to_vec())]).chain(stream::once(async move {
        begun.send(()).unwrap();
        std::future::pending().await
    }));
    let call = server.call(Method::POST, PATH).header("content-type", &form("b")).body(streamed(never.boxed()));
    let mut clients = JoinSet::new();
    clients.spawn(call.send());
    told.await.unwrap();
    let begun = async {
        while spooled(&server).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, begun).await.expect("it is on the disk");
    let second = asked(&server, PATH, &wav(10), &[]).await;
    second.error(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable");
    clients.abort_all();
    until_gone(&server).await;
    server.sim.script_all(Behaviour::Hang);
    clients.spawn(asked(&server, PATH, &wav(10), &[]).send());
    timeout(PATIENCE, server.sim.until_calls(1)).await.unwrap();
    assert_eq!(spooled(&server).len(), 1);
    clients.abort_all();
    timeout(PATIENCE, server.sim.until_aborted(1)).await.unwrap();
    until_gone(&server).await;
    assert_eq!(spent(&server).await, 0);
    // Its place is free again.
    server.sim.script_all(short());
    asked(&server, PATH, &wav(10), &[]).await.ok();
    server.stop().await;
}

#[tokio::test]
async fn an_upload_that_drips_is_told_so() {
    let quick = |settings: &mut batchin_api::ApiSettings| {
        (settings.min_body_bytes_per_second, settings.body_window) = (1_000_000, Duration::from_millis(500));
    };
    let server = TestServer::start().with_settings(quick).await;
    let head = framed("b", Some(&wav(10)), &[]);
    let head = head[..100].to_vec();
    let pieces = stream::once(async move { Ok(head) }).chain(stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok(vec![b' ']), ()))
    }));
    let call = server.call(Method::POST, PATH).header("content-type", &form("b")).body(streamed(pieces.boxed()));
    let reply = timeout(PATIENCE, call.send()).await.expect("it does not wait for ever");
    reply.error(StatusCode::REQUEST_TIMEOUT, "request_timeout");
    until_gone(&server).await;
    server.stop().await;
}

/// Says that it is well until one call of any size comes, of which it keeps nothing, and answers that.
async fn forgetful(listener: TcpListener) {
    let mut piece = vec![0; 64 * 1024];
    let (mut socket, mut head) = loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        let read = socket.read(&mut piece).await.unwrap();
        if piece.starts_with(b"POST") {
            break (socket, piece[..read].to_vec());
        }
        socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    };
    let begins = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let read = socket.read(&mut piece).await.unwrap();
        head.extend_from_slice(&piece[..read]);
    };
    let text = String::from_utf8_lossy(&head[..begins]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("its length is known");
    let mut left = length.parse::<usize>().unwrap() - (head.len() - begins);
    while left > 0 {
        left -= socket.read(&mut piece).await.unwrap();
    }
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{\"text\":\"long\"}").await.unwrap();
}

/// A line of what the kernel says of this process, in bytes.
fn memory(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let told = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    told.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

#[tokio::test]
async fn a_large_file_is_never_in_memory() {
    const MEGABYTE: usize = 1_000_000;
    const MEGABYTES: usize = 95;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let mut model_server = JoinSet::new();
    model_server.spawn(forgetful(listener));
    let large = |settings: &mut batchin_api::ApiSettings| settings.max_sound_bytes = 100_000_000;
    let server = TestServer::start().with_settings(large).with_model_server(address).await;
    let head = framed("b", None, &[("model", "hear-model")]);
    let head = head.strip_suffix(b"--b--\r\n").unwrap();
    let file = b"--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n";
    // As from a pipe: its length is not known in its head.
    let mut sound = wav(0);
    sound.splice(40..44, [0xff; 4]);
    let begins = [head, file, &*sound].concat();
    let pieces = stream::once(async { Ok(begins) })
        .chain(stream::iter((0..MEGABYTES).map(|_| Ok(vec![0; MEGABYTE]))))
        .chain(stream::once(async { Ok(b"\r\n--b--\r\n".to_vec()) }));
    // The peak from here on.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    let call = server.call(Method::POST, PATH).header("content-type", &form("b")).body(streamed(pieces.boxed()));
    let answer = call.await.ok();
    let seconds = (MEGABYTES * MEGABYTE) as f64 / 16_000.0;
    assert_eq!(answer, json!({ "text": "long", "usage": { "type": "duration", "seconds": seconds } }));
    let grown = memory("VmHWM:").saturating_sub(before);
    assert!(grown < 30 * MEGABYTE as u64, "{grown} bytes");
    model_server.join_next().await.unwrap().unwrap();
    server.stop().await;
}
