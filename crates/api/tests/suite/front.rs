//! Holds: what happens around handlers: bodies that nobody wants, that are compressed or come slowly, streams that begin
//! late or are not read, other origins, and the parts that one account may have.

use std::time::Duration;

use async_compression::{
    Level,
    tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder},
};
use batchin_testkit::{
    Reply, TestServer, both,
    sim::{Answer, Behaviour, End, Refusal},
    usd,
};
use bytes::Bytes;
use futures::{StreamExt as _, future::join_all};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// More than sockets hold between two sides that do not read.
const LARGE: usize = 12 * 1024 * 1024;

/// A connection of its own, to say exactly this.
async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.url("").trim_start_matches("http://")).await.unwrap()
}

fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n")
}

/// Sends all of it before it looks at the answer, as most clients do; the status that it then reads.
async fn sent_whole(server: &TestServer, head: String, body: &[u8]) -> std::io::Result<String> {
    let mut connection = connect(server).await;
    connection.write_all(head.as_bytes()).await?;
    for piece in body.chunks(64 * 1024) {
        connection.write_all(piece).await?;
    }
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

async fn compressed(coding: &str, text: &[u8]) -> Vec<u8> {
    macro_rules! by {
        ($encoder:ident) => {{
            let mut encoder = $encoder::with_quality(Vec::new(), Level::Fastest);
            encoder.write_all(text).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match coding {
        "gzip" => by!(GzipEncoder),
        "deflate" => by!(ZlibEncoder),
        "bare" => by!(DeflateEncoder),
        "br" => by!(BrotliEncoder),
        "zstd" => by!(ZstdEncoder),
        _ => text.to_vec(),
    }
}

fn chat() -> Value {
    json!({ "model": "chat-model", "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 3 })
}

fn late(first: u64) -> Behaviour {
    Behaviour::Answer(Answer { tokens: 3, first_byte: Duration::from_millis(first), ..Answer::default() })
}

/// A stream that has begun and does not end.
fn endless() -> Behaviour {
    Behaviour::Answer(Answer { tokens: 5, end: End::Hang, ..Answer::default() })
}

/// A stream of few tokens and more bytes than sockets hold.
fn wide() -> Behaviour {
    let event = json!({
        "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "chat-model", "padding": "x".repeat(60_000),
        "choices": [{ "index": 0, "delta": { "content": "a" }, "finish_reason": null }],
    });
    let piece = Bytes::from(format!("data: {event}\n\n"));
    let pieces = vec![piece; 2 * LARGE / 60_000];
    Behaviour::Raw { content_type: "text/event-stream", pieces, gap: Duration::ZERO, end: End::Hang }
}

both! {
    async fn whoever_sends_reads_the_answer_whatever_it_is(backend) {
        let server = TestServer::start().on(backend).with_rpm(1).await;
        server.chat("chat-model").max_tokens(1).await.ok();
        let body = vec![b'x'; LARGE];
        let length = LARGE.to_string();
        let right = format!("Bearer {}", server.owner.key);
        let (right, length) = (right.as_str(), length.as_str());
        let chats = "/v1/chat/completions";
        for (method, path, key, more, status) in [
            ("POST", chats, "Bearer batchin_api_wrong", ("accept", "*/*"), "401"),
            ("POST", "/openai/v1/files", "Bearer batchin_api_wrong", ("accept", "*/*"), "401"),
            ("POST", "/v1/keys", "Bearer batchin_api_wrong", ("accept", "*/*"), "401"),
            ("POST", "/v1/nothing", right, ("accept", "*/*"), "404"),
            ("PUT", chats, right, ("accept", "*/*"), "405"),
            ("DELETE", "/v1/models", right, ("accept", "*/*"), "405"),
            ("POST", "/v1/keys", right, ("accept", "*/*"), "413"),
            ("POST", chats, right, ("accept", "*/*"), "429"),
            ("POST", chats, right, ("content-encoding", "compress"), "415"),
            ("POST", chats, right, ("idempotency-key", "not one"), "400"),
            ("GET", "/v1/models", right, ("accept", "*/*"), "200"),
        ] {
            let head = head(method, path, &[("authorization", key), ("content-length", length), more]);
            let read = timeout(PATIENCE, sent_whole(&server, head, &body)).await.unwrap();
            assert_eq!(read.unwrap_or_else(|cause| panic!("{method} {path} {status}: {cause}")), status);
        }
        server.stop().await;
    }

    async fn whoever_asks_first_is_not_made_to_send(backend) {
        let server = TestServer::start().on(backend).await;
        for (path, key, length, status) in [
            ("/v1/chat/completions", "batchin_api_wrong", "1000000", "401"),
            ("/v1/nothing", server.owner.key.as_str(), "1000000", "404"),
            ("/v1/chat/completions", server.owner.key.as_str(), "900000000", "413"),
        ] {
            let key = format!("Bearer {key}");
            let headers = [("authorization", key.as_str()), ("content-length", length), ("expect", "100-continue")];
            let answer = timeout(PATIENCE, sent_whole(&server, head("POST", path, &headers), b"")).await.unwrap();
            assert_eq!(answer.unwrap(), status, "{path}");
        }
        server.stop().await;
    }

    async fn a_stream_begins_before_its_first_event_where_that_takes_long(backend) {
        let server = TestServer::start().on(backend).with_settings(|settings| settings.keep_alive = Duration::from_millis(300)).await;
        server.sim.script("chat-model", late(1_500));
        let response = server.chat("chat-model").max_tokens(3).stream().open().await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert!(response.headers().contains_key("x-ratelimit-limit-requests"));
        let text = response.text().await.unwrap();
        assert!(text.starts_with(": keep-alive\n\n: keep-alive\n\n"), "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        assert_eq!(server.get("/v1/usage/summary").await.ok()["total_output_tokens"], 3);

        // An error that comes early has its status; whoever leaves is heard; what is no stream waits.
        server.sim.script("chat-model", Behaviour::Refuse(Refusal::vllm(400, "no such thing")));
        assert_eq!(server.chat("chat-model").max_tokens(3).stream().await.status, 400);
        server.sim.script("chat-model", Behaviour::Hang);
        let gone = server.chat("chat-model").max_tokens(3).stream().open().await;
        assert_eq!(gone.status(), 200);
        drop(gone);
        timeout(PATIENCE, server.sim.until_aborted(1)).await.expect("the model server is told");
        server.sim.script("chat-model", late(800));
        assert_eq!(server.chat("chat-model").max_tokens(3).await.header("content-type"), "application/json");
        server.stop().await;
    }

    async fn an_answer_that_comes_late_is_given_again_under_its_key(backend) {
        let server = TestServer::start().on(backend).with_settings(|settings| settings.keep_alive = Duration::from_millis(200)).await;
        server.sim.script("chat-model", late(1_000));
        let ask = || server.chat("chat-model").max_tokens(3).stream().header("idempotency-key", "late");
        let data = |reply: Reply| reply.text().split("\n\n").filter(|event| event.starts_with("data: ")).map(str::to_owned).collect::<Vec<_>>();
        let (first, beside) = tokio::join!(ask().send(), ask().send());
        let (first, beside, again) = (data(first), data(beside), data(ask().await));
        assert_eq!((first.last().map(String::as_str), server.sim.calls()), (Some("data: [DONE]"), 1));
        assert_eq!((&first, &first), (&beside, &again));
        assert_eq!(server.get("/v1/usage/summary").await.ok()["total_requests"], 1);
        server.stop().await;
    }

    async fn a_reader_that_does_not_read_gives_its_place_back_and_pays(backend) {
        let quick = |settings: &mut batchin_api::ApiSettings| {
            (settings.keep_alive, settings.reader_patience) = (Duration::from_millis(100), Duration::from_secs(1));
        };
        let server = TestServer::start().on(backend).with_balance("100").with_max_in_flight(4).with_settings(quick).await;
        let other = server.account("other@example.com").await;
        server.grant(&other, usd("1")).await;
        server.sim.script("chat-model", wide());
        let key = format!("Bearer {}", server.owner.key);
        let mut body = chat();
        (body["stream"], body["max_tokens"]) = (json!(true), json!(2_048));
        let body = body.to_string();
        let mut stalled = Vec::new();
        for _ in 0..3 {
            let mut connection = connect(&server).await;
            let length = body.len().to_string();
            let head = head("POST", "/v1/chat/completions", &[("authorization", key.as_str()), ("content-length", length.as_str())]);
            connection.write_all((head + &body).as_bytes()).await.unwrap();
            stalled.push(connection);
        }
        timeout(PATIENCE, server.sim.until_calls(3)).await.unwrap();
        // Alone it may have all but one.
        server.sim.script("embed-model", Behaviour::default());
        let embed = |key: &str| {
            let body = json!({ "model": "embed-model", "input": "x" });
            server.anonymous(Method::POST, "/v1/embeddings").key(key).json(body)
        };
        let over = embed(&server.owner.key).await;
        over.error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded");
        assert!(over.header("retry-after").parse::<u64>().unwrap() <= 60);
        embed(&other.key).await.ok();
        timeout(PATIENCE, server.sim.until_aborted(3)).await.expect("streams that nobody reads end");
        let rows = async {
            loop {
                let rows = server.get("/v1/usage/logs").await.ok();
                if rows.as_array().unwrap().iter().filter(|row| row["status"] == "client_gone").count() == 3 {
                    return rows;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let rows = timeout(PATIENCE, rows).await.expect("they are charged");
        assert!(rows.as_array().unwrap().iter().all(|row| row["output_tokens"].as_i64().unwrap() > 0), "{rows}");
        embed(&server.owner.key).await.ok();
        drop(stalled);
        server.stop().await;
    }

    async fn who_waits_under_a_key_takes_nobodys_place(backend) {
        let server = TestServer::start().on(backend).with_max_in_flight(2).await;
        let other = server.account("other@example.com").await;
        server.grant(&other, usd("1")).await;
        server.sim.script("chat-model", late(1_500));
        let keyed = || server.chat("chat-model").max_tokens(3).header("idempotency-key", "one");
        let waiting = join_all((0..30).map(|_| keyed().send()));
        let beside = async {
            server.sim.until_calls(1).await;
            let call = server.anonymous(Method::POST, "/v1/embeddings").key(&other.key);
            call.json(json!({ "model": "embed-model", "input": "x" })).await
        };
        let (replies, beside) = tokio::join!(waiting, beside);
        beside.ok();
        let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
        // One runs, as many wait as may, the others are told to come back.
        assert_eq!((count(200), count(429)), (17, 13));
        assert_eq!(server.sim.calls(), 2);
        let refused = replies.iter().find(|reply| reply.status == 429).unwrap();
        refused.error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded");
        server.stop().await;
    }

    async fn who_cannot_pay_takes_nobodys_place(backend) {
        let server = TestServer::start().on(backend).with_max_in_flight(1).await;
        let beggar = server.account("beggar@example.com").await;
        server.sim.script("chat-model", endless());
        let held = server.chat("chat-model").max_tokens(2_000).stream().open().await;
        assert_eq!(held.status(), 200);
        // Full, and still told what is wrong with it rather than to come back.
        let call = server.anonymous(Method::POST, "/v1/chat/completions").key(&beggar.key).json(chat());
        call.await.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        server.chat("chat-model").max_tokens(3).await.error(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable");
        drop(held);
        server.stop().await;
    }

    async fn compressed_bodies_are_decoded_within_their_bounds(backend) {
        let server = TestServer::start().on(backend).with_settings(|settings| settings.max_body_bytes = 100_000).await;
        let send = |coding: &str, body: Vec<u8>| {
            let call = server.call(Method::POST, "/v1/chat/completions").header("content-encoding", coding);
            call.header("content-type", "application/json").body(body)
        };
        let plain = chat().to_string();
        for coding in ["gzip", "deflate", "br", "zstd", "identity"] {
            let answer = send(coding, compressed(coding, plain.as_bytes()).await).await.ok();
            assert_eq!(answer["usage"]["completion_tokens"], 3, "{coding}");
        }
        let bare = send("deflate", compressed("bare", plain.as_bytes()).await).await.ok();
        assert_eq!(bare["usage"]["completion_tokens"], 3, "as some send it");
        for coding in ["gzip", "zstd"] {
            let (begin, end) = plain.as_bytes().split_at(plain.len() / 2);
            let frames = [compressed(coding, begin).await, compressed(coding, end).await].concat();
            let answer = send(coding, frames).await.ok();
            assert_eq!(answer["usage"]["completion_tokens"], 3, "{coding} of two frames");
        }
        let zeros = vec![b' '; 2_000_000];
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let bomb = compressed(coding, &zeros).await;
            assert!(bomb.len() < 100_000, "{coding}");
            send(coding, bomb).await.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
            let error = send(coding, plain.clone().into_bytes()).await;
            let error = error.error(StatusCode::BAD_REQUEST, "invalid_request");
            assert!(error["message"].as_str().unwrap().contains("content-encoding"), "{error}");
            let mut cut = compressed(coding, plain.as_bytes()).await;
            cut.truncate(cut.len() / 2);
            send(coding, cut).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        }
        let unknown = send("compress", plain.clone().into_bytes()).await;
        unknown.error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
        assert_eq!(unknown.header("accept-encoding"), "gzip, deflate, br, zstd");
        let named = server.call(Method::POST, "/v1/keys").header("content-encoding", "gzip");
        assert_eq!(named.body(compressed("gzip", br#"{"name":"zip"}"#).await).await.ok()["name"], "zip");
        server.stop().await;
    }

    async fn other_origins_may_call_where_the_operator_says_so(backend) {
        let closed = TestServer::start().on(backend).await;
        let reply = closed.get("/v1/models").header("origin", "https://app.example.com").await;
        assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
        closed.stop().await;

        let origins = vec!["https://app.example.com".to_owned()];
        let server = TestServer::start().on(backend).with_settings(|settings| settings.cors_origins = origins).await;
        for (path, status) in [("/v1/models", 200), ("/v1/nothing", 404), ("/v1/keys", 200)] {
            let reply = server.get(path).header("origin", "https://app.example.com").await;
            assert_eq!((reply.status, reply.header("access-control-allow-origin")), (status, "https://app.example.com"));
            assert_eq!(reply.header("vary"), "origin");
            for exposed in ["x-request-id", "x-ratelimit-remaining-requests", "retry-after"] {
                assert!(reply.header("access-control-expose-headers").contains(exposed), "{exposed}");
            }
        }
        let ask = |origin: &str| {
            let call = server.anonymous(Method::OPTIONS, "/v1/chat/completions").header("origin", origin);
            call.header("access-control-request-method", "POST").header("access-control-request-headers", "authorization,x-stainless-os")
        };
        let may = ask("https://app.example.com").await;
        assert_eq!((may.status, may.header("access-control-allow-origin")), (204, "https://app.example.com"));
        assert_eq!(may.header("access-control-allow-headers"), "authorization,x-stainless-os");
        assert!(may.header("access-control-allow-methods").contains("PATCH"));
        let stranger = ask("https://evil.example.com").await;
        assert_eq!((stranger.status, stranger.header("access-control-allow-origin")), (204, ""));
        for call in [server.get("/v1/models"), server.get("/v1/models").header("origin", "https://evil.example.com")] {
            let reply = call.await;
            assert_eq!((reply.header("access-control-allow-origin"), reply.header("vary")), ("", "origin"), "for caches");
        }
        server.stop().await;

        let open = TestServer::start().on(backend).with_settings(|settings| settings.cors_origins = vec!["*".to_owned()]).await;
        let mut stream = open.chat("chat-model").max_tokens(2).stream().header("origin", "http://localhost:5173").open().await;
        assert_eq!(stream.headers()["access-control-allow-origin"], "*");
        while stream.chunk().await.unwrap().is_some() {}
        open.stop().await;
    }

    async fn health_has_two_names(backend) {
        let server = TestServer::start().on(backend).await;
        let said = server.anonymous(Method::GET, "/health").await.ok();
        assert_eq!(said, server.anonymous(Method::GET, "/healthz").await.ok());
        server.stop().await;
    }

    async fn a_body_that_drips_is_told_so(backend) {
        let quick = |settings: &mut batchin_api::ApiSettings| {
            (settings.min_body_bytes_per_second, settings.body_window) = (1_000_000, Duration::from_millis(500));
        };
        let server = TestServer::start().on(backend).with_settings(quick).await;
        for path in ["/v1/chat/completions", "/v1/keys", "/v1/batches"] {
            let pieces = futures::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok(vec![b' ']), ()))
            });
            let call = server.call(Method::POST, path).body(batchin_testkit::streamed(pieces.boxed()));
            let reply = timeout(PATIENCE, call.send()).await.expect("it does not wait for ever");
            reply.error(StatusCode::REQUEST_TIMEOUT, "request_timeout");
        }
        server.stop().await;
    }
}
