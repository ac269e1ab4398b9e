//! Holds: texts that are spoken, in every format, counted and paid for.

use std::{process::Stdio, time::Duration};

use batchin_testkit::sim::{
    Answer, Behaviour, End, Refusal,
    voice::{MS_PER_CHARACTER, RATE, samples, wav_head},
};
use batchin_testkit::{TestServer, both, usd};
use batchin_upstream::Kind;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::odd_servers::spent;

const PATH: &str = "/v1/audio/speech";
/// 20 characters, at $15 a million.
const TEXT: &str = "Twenty letters here.";
const COST: i64 = 20 * 15_000;
const TEXT_MS: u64 = 20 * MS_PER_CHARACTER as u64;

/// A client that leaves is charged behind its back.
async fn until_spent(server: &TestServer, nanos: i64) {
    let charged = async {
        while spent(server).await < nanos {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), charged).await.expect("it is charged");
    assert_eq!(spent(server).await, nanos);
}

fn asking(format: &str) -> Value {
    json!({ "model": "voice-model", "input": TEXT, "voice": "alloy", "response_format": format })
}

/// What ffprobe says of a sound: codec, samples a second, milliseconds that were decoded.
async fn probed(sound: &[u8], as_format: &[&str]) -> (String, u64, u64) {
    let run = async |program: &str, arguments: &[&str]| {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|cause| panic!("{program}: {cause}; `make test` installs it"));
        let mut stdin = child.stdin.take().unwrap();
        let sound = sound.to_vec();
        let writing = async move {
            // It may have heard enough before the end.
            let _ = stdin.write_all(&sound).await;
        };
        let ((), out) = tokio::join!(writing, child.wait_with_output());
        let out = out.unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let shown: [&str; 6] = ["-v", "error", "-show_entries", "stream=codec_name,sample_rate", "-of", "json"];
    let facts = run("ffprobe", &[&shown[..], as_format, &["-i", "pipe:0"]].concat()).await;
    let facts: Value = serde_json::from_slice(&facts).unwrap();
    let stream = &facts["streams"][0];
    let decoded = ["-f", "s16le", "-ac", "1", "-ar", "48000", "pipe:1"];
    let decoded = run("ffmpeg", &[&["-v", "error"][..], as_format, &["-i", "pipe:0"], &decoded].concat()).await;
    let rate = stream["sample_rate"].as_str().unwrap().parse().unwrap();
    (stream["codec_name"].as_str().unwrap().to_owned(), rate, decoded.len() as u64 / 96)
}

#[tokio::test]
async fn every_format_is_what_it_says_whatever_the_server_makes() {
    for kind in [Kind::OPENAI, Kind::VLLM_OMNI, Kind::EMBEDDED, Kind::COSYVOICE] {
        let server = TestServer::start().with_kind(kind).await;
        for (format, content_type, codec, rate) in [
            ("mp3", "audio/mpeg", "mp3", 24_000),
            ("opus", "audio/ogg", "opus", 48_000),
            ("aac", "audio/aac", "aac", 24_000),
            ("flac", "audio/flac", "flac", 24_000),
            ("wav", "audio/wav", "pcm_s16le", 24_000),
            ("pcm", "audio/pcm", "pcm_s16le", 24_000),
        ] {
            let reply = server.post(PATH, asking(format)).await;
            assert_eq!(reply.status, StatusCode::OK, "{kind} {format}: {}", reply.text());
            assert_eq!(reply.header("content-type"), content_type, "{kind}");
            let raw: &[&str] = if format == "pcm" { &["-f", "s16le", "-ar", "24000", "-ac", "1"] } else { &[] };
            let (is, at, ms) = probed(&reply.body, raw).await;
            let samples_a_second = if codec == "aac" { at } else { rate };
            assert_eq!((is.as_str(), at), (codec, samples_a_second), "{kind} {format}");
            if kind != Kind::COSYVOICE {
                assert!(ms.abs_diff(TEXT_MS) <= 60, "{kind} {format}: {ms} ms");
            }
        }
        assert_eq!(spent(&server).await, 6 * COST, "{kind}");
        server.ledger_check().await;
        server.stop().await;
    }
}

both! {
    async fn a_sound_is_charged_by_its_characters_or_its_seconds(backend) {
        let server = TestServer::start().on(backend).await;
        server.post(PATH, asking("wav")).await;
        assert_eq!(spent(&server).await, COST);
        // Accents count as they are seen.
        let accents = json!({ "model": "voice-model", "input": "e\u{301}te\u{301}", "response_format": "wav" });
        server.post(PATH, accents).await;
        assert_eq!(spent(&server).await, COST + 3 * 15_000);
        let timed = json!({ "model": "timed-voice-model", "input": TEXT, "response_format": "opus" });
        server.post(PATH, timed).await;
        assert_eq!(spent(&server).await, COST + 3 * 15_000 + TEXT_MS as i64 * 100);
        let rows = server.get("/v1/usage/logs").await.ok();
        let seen: Vec<_> = rows.as_array().unwrap().iter().map(|row| {
            assert_eq!((&row["endpoint"], &row["input_tokens"], &row["estimated"]), (&json!(PATH), &json!(0), &json!(false)));
            (row["characters"].as_u64().unwrap(), row["audio_seconds"].as_f64().unwrap())
        }).collect();
        // The server that was asked for WAV sent it as it is, and nobody listened.
        assert_eq!(seen, [(20, 1.2), (3, 0.0), (20, 0.0)]);
        let sums = server.get("/v1/usage/summary").await.ok();
        assert_eq!((&sums["total_characters"], &sums["total_audio_seconds"]), (&json!(43), &json!(1.2)));
        server.ledger_check().await;
        server.stop().await;
    }

    async fn a_batch_speaks_into_files(backend) {
        let server = TestServer::start().on(backend).with_worker().await;
        let task = |id: &str, format: &str| json!({ "custom_id": id, "model": "voice-model", "url": PATH,
            "request_body": { "input": TEXT, "response_format": format } });
        let body = json!({ "tasks": [task("a/b", "mp3"), task("c", "wav")], "priority": "low" });
        let batch = server.post("/v1/batches", body).await.ok();
        let ended = crate::batches::until_final(&server, batch["id"].as_str().unwrap()).await;
        assert_eq!((&ended["status"], &ended["completed_tasks"], &ended["characters"]), (&json!("completed"), &json!(2), &json!(40)));
        for (at, name, content_type, codec) in [(0, "a_b.mp3", "audio/mpeg", "mp3"), (1, "c.wav", "audio/wav", "pcm_s16le")] {
            let task = &ended["tasks"][at];
            let result = &task["result"];
            assert_eq!((&result["filename"], &result["content_type"]), (&json!(name), &json!(content_type)), "{task}");
            assert_eq!(task["usage"]["characters"], 20);
            let file = server.get(&format!("/v1/files/{}/content", result["file_id"].as_str().unwrap())).await;
            assert_eq!(file.body.len() as u64, result["bytes"].as_u64().unwrap());
            let (is, _, ms) = probed(&file.body, &[]).await;
            assert!(is == codec && ms.abs_diff(TEXT_MS) <= 50, "{is} {ms}");
        }
        // Half the price, in class low.
        assert_eq!(spent(&server).await, COST);
        server.ledger_check().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_speaks_the_format_is_passed_on_as_it_is() {
    let server = TestServer::start().with_kind(Kind::OPENAI).await;
    let mp3 = b"\xff\xf3\x44\xc4made elsewhere";
    let pieces = vec![Bytes::from_static(mp3)];
    server.sim.script_all(Behaviour::Raw { content_type: "audio/mpeg", pieces, gap: Duration::ZERO, end: End::Done });
    let reply = server.post(PATH, asking("mp3")).await;
    assert_eq!((&reply.body[..], reply.header("content-type")), (&mp3[..], "audio/mpeg"));
    let sent: Value = serde_json::from_slice(&server.sim.requests()[0].body).unwrap();
    assert_eq!(
        (&sent["response_format"], &sent["voice"], &sent["input"]),
        (&json!("mp3"), &json!("af_heart"), &json!(TEXT))
    );
    assert_eq!(server.sim.calls(), 1);
    server.stop().await;
}

#[tokio::test]
async fn each_kind_is_asked_in_its_words() {
    let asked = async |kind, body: Value| {
        let server = TestServer::start().with_kind(kind).await;
        let reply = server.post(PATH, body).await;
        let requests = server.sim.requests();
        server.stop().await;
        (reply, requests)
    };
    let (_, requests) = asked(Kind::VLLM_OMNI, asking("mp3")).await;
    let sent: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!((&sent["response_format"], &sent["stream_format"]), (&json!("wav"), &json!("audio")));
    let (_, requests) = asked(Kind::COSYVOICE, asking("mp3")).await;
    assert_eq!(requests[0].path, "/inference_sft");
    let form: Vec<(String, String)> = form_urlencoded::parse(&requests[0].body).into_owned().collect();
    assert_eq!(form, [("tts_text".to_owned(), TEXT.to_owned()), ("spk_id".to_owned(), "af_heart".to_owned())]);
    let mut instructed = asking("wav");
    instructed["instructions"] = json!("softly & slowly");
    let (_, requests) = asked(Kind::COSYVOICE, instructed).await;
    assert_eq!(requests[0].path, "/inference_instruct");
    let form: Vec<(String, String)> = form_urlencoded::parse(&requests[0].body).into_owned().collect();
    assert_eq!(form[2], ("instruct_text".to_owned(), "softly & slowly".to_owned()));
    // What it cannot do is said of the member.
    let mut fast = asking("wav");
    fast["speed"] = json!(2);
    let (reply, requests) = asked(Kind::COSYVOICE, fast).await;
    assert_eq!(reply.error(StatusCode::BAD_REQUEST, "invalid_request")["param"], "speed");
    assert!(requests.is_empty());
}

#[tokio::test]
async fn events_have_the_sound_in_them() {
    let server = TestServer::start().await;
    let mut body = asking("pcm");
    body["stream_format"] = json!("sse");
    let reply = server.post(PATH, body).await;
    assert!(reply.header("content-type").starts_with("text/event-stream"));
    let text = reply.text();
    let events: Vec<Value> = text
        .split("\n\n")
        .filter_map(|event| event.split_once("data: "))
        .map(|(_, data)| serde_json::from_str(data).unwrap())
        .collect();
    let (done, deltas) = events.split_last().unwrap();
    assert_eq!((&done["type"], &done["usage"]["characters"]), (&json!("speech.audio.done"), &json!(20)));
    assert!(deltas.len() > 2, "it comes in pieces");
    let sound = deltas.iter().flat_map(|event| {
        assert_eq!(event["type"], "speech.audio.delta");
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, event["audio"].as_str().unwrap()).unwrap()
    });
    assert_eq!(sound.collect::<Vec<u8>>(), samples(20 * MS_PER_CHARACTER));
    server.stop().await;
}

#[tokio::test]
async fn the_first_sound_leaves_before_the_last_is_made() {
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).await;
    let mut pieces = vec![Bytes::from(wav_head())];
    pieces.extend(samples(2_000).chunks(RATE as usize / 5 * 2).map(Bytes::copy_from_slice));
    // It never ends by itself.
    let endless = Behaviour::Raw { content_type: "audio/wav", pieces, gap: Duration::ZERO, end: End::Hang };
    for format in ["mp3", "opus", "flac", "wav", "pcm"] {
        server.sim.script_all(endless.clone());
        let mut response = server.post(PATH, asking(format)).open().await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.chunk().await.unwrap().is_some_and(|first| !first.is_empty()), "{format}");
    }
    // Whoever leaves pays for the text, and the server is left too.
    server.sim.until_aborted(5).await;
    until_spent(&server, 5 * COST).await;
    server.ledger_check().await;
    server.stop().await;
}

#[tokio::test]
async fn a_sound_that_breaks_off_is_no_file_and_costs_nothing() {
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).await;
    let cut = |end| {
        let pieces = [wav_head(), samples(400)].map(Bytes::from).into();
        Behaviour::Raw { content_type: "audio/wav", pieces, gap: Duration::ZERO, end }
    };
    server.sim.script_all(cut(End::Cut));
    for format in ["wav", "flac"] {
        let mut response = server.post(PATH, asking(format)).open().await;
        let broke = loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(broke, "{format}: a client must not take it for whole");
    }
    let mut events = asking("wav");
    events["stream_format"] = json!("sse");
    let text = server.post(PATH, events).await.text();
    assert!(text.contains("\"upstream_error\"") && !text.contains("speech.audio.done"), "{text}");
    assert_eq!(server.balance().await.nanos(), usd("1").nanos());
    server.ledger_check().await;
    server.stop().await;
}

#[tokio::test]
async fn before_the_first_sound_another_server_is_asked() {
    for failure in [
        Behaviour::Drop,
        Behaviour::Refuse(Refusal::fast_api(500, "no")),
        Behaviour::Refuse(Refusal::string(503, "full")),
        Behaviour::Raw {
            content_type: "application/json",
            pieces: vec![Bytes::from_static(b"{\"error\":{\"message\":\"CUDA\"}}")],
            gap: Duration::ZERO,
            end: End::Done,
        },
        Behaviour::Raw { content_type: "audio/wav", pieces: vec![], gap: Duration::ZERO, end: End::Done },
    ] {
        let server = TestServer::start().with_second_sim().with_kind(Kind::VLLM_OMNI).await;
        server.sim.script_all(failure.clone());
        server.other_sim.as_ref().unwrap().script_all(Behaviour::Answer(Answer::default()));
        for _ in 0..4 {
            let reply = server.post(PATH, asking("wav")).await;
            assert_eq!(reply.status, StatusCode::OK, "{failure:?}: {}", reply.text());
        }
        assert_eq!(spent(&server).await, 4 * COST);
        server.stop().await;
    }
}

#[tokio::test]
async fn the_same_key_hears_the_same_sound_and_pays_once() {
    let server = TestServer::start().await;
    let ask = || server.post(PATH, asking("wav")).header("idempotency-key", "k");
    let (first, again) = (ask().await, ask().await);
    assert_eq!((&first.body, first.header("content-type")), (&again.body, again.header("content-type")));
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!((spent(&server).await, server.sim.calls()), (COST, 1));
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_spoken_is_refused_for_free() {
    let server = TestServer::start().await;
    for (change, status, code, param) in [
        (json!({ "model": "nobody" }), 404, "model_not_found", Some("model")),
        (json!({ "model": "chat-model" }), 400, "invalid_request", Some("model")),
        (json!({ "voice": "whoever" }), 400, "invalid_request", Some("voice")),
        (json!({ "response_format": "mp4" }), 400, "invalid_request", Some("response_format")),
        (json!({ "input": "" }), 400, "invalid_request", Some("input")),
        (json!({ "speed": 9 }), 400, "invalid_request", Some("speed")),
        (json!({ "ref_audio": "file:///etc/passwd" }), 400, "invalid_request", Some("ref_audio")),
        (json!({ "ref_audio": "http://169.254.169.254/" }), 400, "invalid_request", Some("ref_audio")),
    ] {
        let mut body = asking("wav");
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let reply = server.post(PATH, body).await;
        let error = reply.error(StatusCode::from_u16(status).unwrap(), code);
        assert_eq!(error["param"].as_str(), param, "{change}");
    }
    let reply = server.anonymous(Method::POST, PATH).json(asking("wav")).await;
    reply.error(StatusCode::UNAUTHORIZED, "unauthorized");
    assert_eq!((server.sim.calls(), server.balance().await.nanos()), (0, usd("1").nanos()));
    let poor = TestServer::start().with_balance("0.0002").await;
    poor.post(PATH, asking("wav")).await.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
    assert_eq!(poor.sim.calls(), 0);
    poor.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn the_packages_that_clients_use_hear_it() {
    use crate::odd_servers::{prepared, told_by};
    let server = TestServer::start().await;
    let expected = sha256_hex(&samples(20 * MS_PER_CHARACTER));
    let python = told_by(&server, prepared("BATCHIN_TEST_PYTHON"), "speech_python.py").await;
    let events = json!(["speech.audio.delta", "speech.audio.done"]);
    assert_eq!(
        python,
        json!({ "whole": expected, "streamed": expected, "kind": "audio/pcm", "events": events, "refused": "voice" })
    );
    let node = told_by(&server, "node".into(), "speech_node.mjs").await;
    assert_eq!(node, json!({ "whole": expected, "ai": expected, "refused": "voice" }));
    server.stop().await;
}

fn sha256_hex(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A recording of so many milliseconds, with true lengths.
fn wav(ms: u32) -> Vec<u8> {
    let sound = samples(ms);
    let mut wav = wav_head();
    wav[4..8].copy_from_slice(&(36 + sound.len() as u32).to_le_bytes());
    wav[40..44].copy_from_slice(&(sound.len() as u32).to_le_bytes());
    wav.extend_from_slice(&sound);
    wav
}

fn made_of(sound: &[u8]) -> Value {
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sound);
    json!({ "name": "ada", "ref_text": "What I say.", "consent": "form 7", "audio_sample": format!("data:audio/wav;base64,{encoded}") })
}

const VOICES: &str = "/v1/audio/voices";

both! {
    async fn a_voice_of_the_account_speaks_where_servers_can_sound_like_it(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM_OMNI).await;
        let made = server.post(VOICES, made_of(&wav(1_500))).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
        let voice = made.json();
        assert_eq!((&voice["name"], &voice["duration_seconds"], &voice["content_type"]), (&json!("ada"), &json!(1.5), &json!("audio/wav")));
        server.post(VOICES, made_of(&wav(1_500))).await.error(StatusCode::CONFLICT, "conflict");
        assert_eq!(server.get(VOICES).await.ok()["data"], json!([voice]));

        let mut asked = asking("wav");
        asked["voice"] = json!("ada");
        assert_eq!(server.post(PATH, asked.clone()).await.status, StatusCode::OK);
        let sent: Value = serde_json::from_slice(&server.sim.requests()[0].body).unwrap();
        let reference = sent["ref_audio"].as_str().unwrap().strip_prefix("data:audio/wav;base64,").unwrap();
        let reference = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, reference).unwrap();
        assert!(reference == wav(1_500) && sent["ref_text"] == "What I say." && sent["voice"].is_null());

        let bob = server.account("bob@example.com").await;
        assert_eq!(server.get(VOICES).key(&bob.key).await.ok()["data"], json!([]));
        server.post(PATH, asked.clone()).key(&bob.key).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        server.call(Method::DELETE, &format!("{VOICES}/ada")).key(&bob.key).await.error(StatusCode::NOT_FOUND, "not_found");
        let gone = server.call(Method::DELETE, &format!("{VOICES}/ada")).await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
        let error = server.post(PATH, asked).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], "voice");
        for (method, path) in [(Method::GET, VOICES), (Method::POST, VOICES), (Method::DELETE, "/v1/audio/voices/ada")] {
            server.anonymous(method, path).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn a_voice_comes_as_a_form_too_and_goes_to_each_kind_in_its_words() {
    let server = TestServer::start().with_kind(Kind::COSYVOICE).await;
    let form = |sound: &[u8]| {
        let mut body = Vec::new();
        for (name, value) in [("name", "ada"), ("ref_text", "What I say."), ("consent", "yes"), ("more", "x")] {
            body.extend(format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
        }
        let head = "--b\r\nContent-Disposition: form-data; name=\"audio_sample\"; filename=\"a.wav\"\r\n\r\n";
        body.extend(head.bytes());
        body.extend_from_slice(sound);
        body.extend(b"\r\n--b--\r\n");
        server.call(Method::POST, VOICES).header("content-type", "multipart/form-data; boundary=b").body(body)
    };
    assert_eq!(form(&wav(2_000)).await.status, StatusCode::CREATED);
    let mut asked = asking("wav");
    asked["voice"] = json!({ "id": "ada" });
    assert_eq!(server.post(PATH, asked.clone()).await.status, StatusCode::OK);
    let sent = &server.sim.requests()[0];
    assert_eq!(sent.path, "/inference_zero_shot");
    let has = |part: &[u8]| sent.body.windows(part.len()).any(|window| window == part);
    assert!(has(b"name=\"tts_text\"\r\n\r\nTwenty letters here.") && has(b"name=\"prompt_text\"\r\n\r\nWhat I say."));
    assert!(has(&wav(2_000)));
    server.stop().await;

    let others = TestServer::start().with_kind(Kind::OPENAI).await;
    others.post(VOICES, made_of(&wav(1_000))).await;
    let error = others.post(PATH, asked).await.error(StatusCode::BAD_REQUEST, "invalid_request");
    assert_eq!((error["param"].as_str(), others.sim.calls()), (Some("voice"), 0));
    others.stop().await;
}

#[tokio::test]
async fn a_voice_that_cannot_be_made_is_refused_by_its_member() {
    let server = TestServer::start().await;
    for (member, value, param) in [
        ("name", json!(""), "name"),
        ("name", json!("a/b"), "name"),
        ("name", json!("x".repeat(129)), "name"),
        ("ref_text", json!(" "), "ref_text"),
        ("ref_text", json!("a\0"), "ref_text"),
        ("consent", json!(""), "consent"),
        ("audio_sample", json!(""), "audio_sample"),
        ("audio_sample", json!("https://example.com/a.wav"), "audio_sample"),
        ("audio_sample", json!("data:audio/wav;base64,AAAA"), "audio_sample"),
        ("audio_sample", made_of(&wav(900))["audio_sample"].clone(), "audio_sample"),
        ("audio_sample", made_of(&wav(61_000))["audio_sample"].clone(), "audio_sample"),
    ] {
        let mut body = made_of(&wav(1_000));
        body[member] = value;
        let error = server.post(VOICES, body).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        assert_eq!(error["param"], param, "{member}");
    }
    let large = made_of(&vec![0; 4_000_001]);
    server.post(VOICES, large).await.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
    server.post(VOICES, json!({ "nome": "ada" })).await.error(StatusCode::BAD_REQUEST, "invalid_request");
    assert_eq!(server.get(VOICES).await.ok()["data"], json!([]));
    server.stop().await;
}
