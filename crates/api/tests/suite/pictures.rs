//! Holds: pictures that are made, kept, found by their addresses, and paid for by their pixels.

use std::{process::Stdio, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_testkit::sim::{
    Answer, Behaviour, Refusal,
    pictures::{JPEG, PictureMaker, PictureScript, png},
};
use batchin_testkit::{TestServer, both};
use batchin_upstream::Kind;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::odd_servers::spent;

const PATH: &str = "/v1/images/generations";
/// A picture of 1024 by 1024, in nano-dollars.
const COST: i64 = 3_000_000;
/// As long as a picture is kept whose client waited.
const A_DAY: Duration = Duration::from_secs(24 * 3_600);

fn asking(members: Value) -> Value {
    let mut body = json!({ "model": "draw-model", "prompt": "A red kite over the sea." });
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

/// The address without the server's own.
fn below(url: &Value) -> &str {
    url.as_str().and_then(|url| url.strip_prefix("http://batchin.test")).expect("an address of this server")
}

/// The format, width and height of what lies at an address, as ffprobe sees it.
async fn seen(server: &TestServer, url: &Value) -> (&'static str, u64, u64) {
    let reply = server.anonymous(Method::GET, below(url)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let mut child = Command::new("ffprobe")
        .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "json", "-i", "pipe:0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|cause| panic!("ffprobe: {cause}; `make test` installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let writing = async move {
        // It may have seen enough before the end.
        let _ = stdin.write_all(&reply.body).await;
    };
    let ((), out) = tokio::join!(writing, child.wait_with_output());
    let facts: Value = serde_json::from_slice(&out.unwrap().stdout).unwrap();
    let stream = &facts["streams"][0];
    let (format, content_type) = match stream["codec_name"].as_str() {
        Some("png") => ("png", "image/png"),
        Some("mjpeg") => ("jpeg", "image/jpeg"),
        Some("webp") => ("webp", "image/webp"),
        other => panic!("{other:?}"),
    };
    assert_eq!(reply.headers["content-type"], content_type);
    (format, stream["width"].as_u64().unwrap(), stream["height"].as_u64().unwrap())
}

async fn stored(server: &TestServer) -> usize {
    server.get("/v1/files").await.ok()["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn every_server_is_asked_in_its_words_and_answers_in_ours() {
    for (kind, maker) in [
        (Kind::VLLM_OMNI, PictureMaker::VllmOmni),
        (Kind::SGLANG_DIFFUSION, PictureMaker::SglangDiffusion),
        (Kind::SDCPP, PictureMaker::Sdcpp),
        (Kind::OPENAI, PictureMaker::OpenAi),
    ] {
        let server = TestServer::start().with_kind(kind).await;
        server.sim.script_pictures(PictureScript { maker, ..PictureScript::default() });
        let mut calls = 0;
        for format in [None, Some("png"), Some("jpeg"), Some("webp")] {
            let body = asking(json!({ "size": "96x64", "n": 2, "output_format": format, "seed": 7, "quality": "high",
                "layers": 4, "extra_params": {} }));
            let answer = server.post(PATH, body).await.ok();
            let pictures = answer["data"].as_array().unwrap();
            assert_eq!((pictures.len(), &answer["size"]), (2, &json!("96x64")), "{kind}: {answer}");
            for picture in pictures {
                let (is, width, height) = seen(&server, &picture["url"]).await;
                assert_eq!((is, width, height), (format.unwrap_or("png"), 96, 64), "{kind}");
                assert!(picture.get("b64_json").is_none() && picture.get("file_path").is_none(), "{picture}");
            }
            assert_eq!(answer["output_format"], format.unwrap_or("png"));
            assert!(["metrics", "peak_memory_mb", "id"].iter().all(|member| answer.get(*member).is_none()), "{answer}");
            assert_eq!(answer.get("usage").is_some(), kind == Kind::OPENAI, "only real counts are told: {answer}");
            assert_eq!(pictures[0].get("revised_prompt").is_some(), kind == Kind::OPENAI);
            calls += if kind == Kind::OPENAI && calls == 0 { 2 } else { 1 };
        }
        let requests = server.sim.requests();
        assert_eq!(requests.len(), calls, "{kind}: what it refused once is left out");
        for request in &requests {
            let sent: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!((&sent["size"], &sent["seed"], &sent["quality"]), (&json!("96x64"), &json!(7), &json!("high")));
            assert!(sent.get("layers").is_none() && sent.get("extra_params").is_none(), "{sent}");
            assert_eq!(request.path, PATH);
        }
        server.ledger_check().await;
        server.stop().await;
    }
}

both! {
    async fn pictures_are_charged_by_their_pixels(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM_OMNI).await;
        server.post(PATH, asking(json!({}))).await.ok();
        assert_eq!(spent(&server).await, COST);
        server.post(PATH, asking(json!({ "size": "512x512", "n": 3 }))).await.ok();
        assert_eq!(spent(&server).await, COST + 3 * COST / 4);
        // Fewer and smaller ones than were asked for cost less.
        server.sim.script_pictures(PictureScript { size: Some((512, 256)), number: Some(1), ..PictureScript::default() });
        let answer = server.post(PATH, asking(json!({ "n": 2 }))).await.ok();
        assert_eq!((answer["data"].as_array().unwrap().len(), &answer["size"]), (1, &json!("512x256")));
        assert_eq!(spent(&server).await, COST + 3 * COST / 4 + COST / 8);
        // More and larger ones cost what was asked for.
        server.sim.script_pictures(PictureScript { size: Some((2_048, 2_048)), number: Some(5), ..PictureScript::default() });
        let answer = server.post(PATH, asking(json!({ "n": 2 }))).await.ok();
        assert_eq!(answer["data"].as_array().unwrap().len(), 2);
        assert_eq!(spent(&server).await, 3 * COST + 3 * COST / 4 + COST / 8);
        let rows = server.get("/v1/usage/logs").await.ok();
        let images: Vec<_> = rows.as_array().unwrap().iter().map(|row| {
            assert_eq!((&row["endpoint"], &row["input_tokens"], &row["estimated"]), (&json!(PATH), &json!(0), &json!(false)));
            (row["images"].as_u64().unwrap(), row["pixels"].as_u64().unwrap())
        }).collect();
        let megapixel = 1_024 * 1_024;
        assert_eq!(images, [(2, 2 * megapixel), (1, megapixel / 8), (3, 3 * megapixel / 4), (1, megapixel)]);
        let sums = server.get("/v1/usage/summary").await.ok();
        assert_eq!(sums["total_images"], 7, "{sums}");
        server.ledger_check().await;
        server.stop().await;
    }

    async fn an_address_works_for_a_day_and_for_nobody_who_changes_it(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM_OMNI).await;
        let answer = server.post(PATH, asking(json!({ "size": "64x64", "n": 2 }))).await.ok();
        let urls: Vec<_> = answer["data"].as_array().unwrap().iter().map(|told| below(&told["url"]).to_owned()).collect();
        for (from, to) in [("signature=", "signature=0"), ("expires=1", "expires=2"), ("signature=", "sig=")] {
            let wrong = urls[0].replace(from, to);
            assert_eq!(server.anonymous(Method::GET, &wrong).await.status, StatusCode::NOT_FOUND, "{wrong}");
        }
        let (path, _) = urls[0].split_once('?').unwrap();
        let (_, of_the_other) = urls[1].split_once('?').unwrap();
        for wrong in [path.to_owned(), format!("{path}?{of_the_other}"), "/v1/images/nothing/content".to_owned()] {
            assert_eq!(server.anonymous(Method::GET, &wrong).await.status, StatusCode::NOT_FOUND, "{wrong}");
        }
        // A key changes nothing, whosever it is; and the pictures are files of who made them alone.
        let other = server.account("grace@example.com").await;
        assert_eq!(server.anonymous(Method::GET, path).key(&other.key).await.status, StatusCode::NOT_FOUND);
        assert_eq!(server.get("/v1/files?purpose=vision").await.ok()["data"].as_array().unwrap().len(), 2);
        let theirs = server.anonymous(Method::GET, "/v1/files").key(&other.key).await.ok();
        assert_eq!(theirs["data"].as_array().unwrap().len(), 0);
        // Part of one.
        let part = server.anonymous(Method::GET, &urls[0]).header("range", "bytes=0-7").await;
        assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT.as_u16(), &b"\x89PNG\r\n\x1a\n"[..]));
        // One that is deleted is gone.
        let id = path.split('/').nth(3).unwrap();
        server.call(Method::DELETE, &format!("/v1/files/{id}")).await.ok();
        assert_eq!(server.anonymous(Method::GET, &urls[0]).await.status, StatusCode::NOT_FOUND);
        server.clock.advance(A_DAY - Duration::from_secs(60));
        assert_eq!(server.anonymous(Method::GET, &urls[1]).await.status, StatusCode::OK);
        server.clock.advance(Duration::from_secs(61));
        assert_eq!(server.anonymous(Method::GET, &urls[1]).await.status, StatusCode::NOT_FOUND);
        assert_eq!(stored(&server).await, 0);
        server.stop().await;
    }

    async fn a_batch_makes_pictures(backend) {
        let server = TestServer::start().on(backend).with_kind(Kind::VLLM_OMNI).with_worker().await;
        let task = |id: &str, members: Value| {
            let mut body = asking(members);
            body.as_object_mut().unwrap().remove("model");
            json!({ "custom_id": id, "model": "draw-model", "url": PATH, "request_body": body })
        };
        let tasks = [
            task("a", json!({ "n": 2 })),
            task("b", json!({ "size": "64x64", "response_format": "b64_json", "output_format": "jpeg" })),
        ];
        let batch = server.post("/v1/batches", json!({ "tasks": tasks, "priority": "low" })).await.ok();
        let ended = crate::batches::until_final(&server, batch["id"].as_str().unwrap()).await;
        assert_eq!((&ended["status"], &ended["completed_tasks"]), (&json!("completed"), &json!(2)), "{ended}");
        let [of_two, in_it] = [0, 1].map(|at| ended["tasks"][at]["result"].clone());
        assert_eq!(of_two["data"].as_array().unwrap().len(), 2);
        assert_eq!(seen(&server, &of_two["data"][1]["url"]).await, ("png", 1_024, 1_024));
        assert_eq!(STANDARD.decode(in_it["data"][0]["b64_json"].as_str().unwrap()).unwrap(), JPEG);
        assert_eq!(ended["tasks"][0]["usage"]["images"], 2, "{ended}");
        // Half of the price; the last one is 96 by 64 and was to be 64 by 64.
        assert_eq!(spent(&server).await, COST + (64 * 64 * COST / (1_024 * 1_024)) / 2 + 1);
        // They stay as long as what else came of the batch.
        server.clock.advance(A_DAY * 29);
        seen(&server, &of_two["data"][0]["url"]).await;
        server.clock.advance(A_DAY * 2);
        assert_eq!(server.anonymous(Method::GET, below(&of_two["data"][0]["url"])).await.status, StatusCode::NOT_FOUND);
        server.ledger_check().await;
        server.stop().await;
    }
}

#[tokio::test]
async fn a_picture_is_told_as_it_is_asked_for() {
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).await;
    for (base, told, by_address, as_is) in [
        ("", None, true, false),
        ("", Some("url"), true, false),
        ("", Some("b64_json"), false, true),
        ("/openai", None, true, true),
        ("/openai", Some("url"), true, false),
        ("/openai", Some("b64_json"), false, true),
    ] {
        let body = asking(json!({ "size": "64x64", "response_format": told }));
        let answer = server.post(&format!("{base}{PATH}"), body).await.ok();
        let picture = &answer["data"][0];
        assert_eq!(picture.get("url").is_some(), by_address, "{base} {told:?}: {picture}");
        assert_eq!(picture.get("b64_json").is_some(), as_is, "{base} {told:?}");
        if as_is {
            assert_eq!(STANDARD.decode(picture["b64_json"].as_str().unwrap()).unwrap(), png((64, 64)));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn what_no_model_could_make_is_refused_by_its_member() {
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).await;
    for (members, param) in [
        (json!({ "prompt": null }), "prompt"),
        (json!({ "prompt": " " }), "prompt"),
        (json!({ "prompt": ["a"] }), "prompt"),
        (json!({ "prompt": "a <SD_cpp_extra_args>{}</sd_cpp_extra_args>" }), "prompt"),
        (json!({ "prompt": "a".repeat(32_001) }), "prompt"),
        (json!({ "n": 0 }), "n"),
        (json!({ "n": 11 }), "n"),
        (json!({ "size": "1024" }), "size"),
        (json!({ "size": "63x64" }), "size"),
        (json!({ "size": "64x4097" }), "size"),
        (json!({ "size": "+64x+64" }), "size"),
        (json!({ "size": 1024 }), "size"),
        (json!({ "width": 4_096 }), "width"),
        (json!({ "height": 4_096 }), "height"),
        (json!({ "output_format": "gif" }), "output_format"),
        (json!({ "output_compression": 101 }), "output_compression"),
        (json!({ "num_inference_steps": 201 }), "num_inference_steps"),
        (json!({ "response_format": "file" }), "response_format"),
        (json!({ "stream": true }), "stream"),
        (json!({ "model": "voice-model" }), "model"),
    ] {
        let reply = server.post(PATH, asking(members.clone())).await;
        let told: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            (reply.status, &told["error"]["param"]),
            (StatusCode::BAD_REQUEST.as_u16(), &json!(param)),
            "{members}: {told}"
        );
    }
    assert_eq!((server.sim.calls(), spent(&server).await), (0, 0));
    let unknown = server.anonymous(Method::POST, PATH).json(asking(json!({}))).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_picture_costs_nothing_and_another_server_is_asked() {
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).with_second_sim().await;
    let other = server.other_sim.as_ref().unwrap();
    let broken = PictureScript { bytes: Some(b"GIF89a, and no picture".as_slice().into()), ..PictureScript::default() };
    server.sim.script_pictures(broken.clone());
    for _ in 0..4 {
        let answer = server.post(PATH, asking(json!({ "size": "64x64" }))).await.ok();
        assert_eq!(seen(&server, &answer["data"][0]["url"]).await, ("png", 64, 64));
    }
    assert_eq!(other.calls(), 4);
    let before = spent(&server).await;
    other.script_pictures(broken);
    let reply = server.post(PATH, asking(json!({}))).await;
    assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{}", reply.text());
    assert_eq!((spent(&server).await, stored(&server).await), (before, 4));
    server.ledger_check().await;
    server.stop().await;
}

#[tokio::test]
async fn who_cannot_pay_gets_no_picture() {
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).with_balance("0.002999").await;
    assert_eq!(server.post(PATH, asking(json!({}))).await.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(server.sim.calls(), 0);
    server.post(PATH, asking(json!({ "size": "512x512" }))).await.ok();
    server.ledger_check().await;
    server.stop().await;
}

#[tokio::test]
async fn the_same_call_again_has_the_same_pictures() {
    let server = TestServer::start().with_kind(Kind::VLLM_OMNI).await;
    let body = asking(json!({ "size": "64x64" }));
    let first = server.post(PATH, body.clone()).header("idempotency-key", "one").await;
    let again = server.post(PATH, body).header("idempotency-key", "one").await;
    assert_eq!(first.text(), again.text());
    assert_eq!((server.sim.calls(), stored(&server).await), (1, 1));
    server.stop().await;
}

#[tokio::test]
async fn a_server_s_refusal_is_told_and_costs_nothing() {
    let server = TestServer::start().with_kind(Kind::SDCPP).await;
    server.sim.script_all(Behaviour::Refuse(Refusal::string(400, "prompt is too long for this model")));
    let reply = server.post(PATH, asking(json!({}))).await;
    let told: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(told["error"]["message"], "prompt is too long for this model", "{told}");
    server.sim.script_all(Behaviour::Answer(Answer::default()));
    assert_eq!((spent(&server).await, stored(&server).await), (0, 0));
    server.stop().await;
}
