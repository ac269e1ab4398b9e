//! Holds: files in OpenAI's shapes: every call, every refusal, and what broken uploads leave behind.

use std::time::Duration;

use batchin_domain::{FileId, FilePurpose};
use batchin_files::NewOutput;
use batchin_store::{BlobRange, FileRoom};
use batchin_testkit::{Account, Call, Reply, TestServer, both, streamed};
use futures::{StreamExt, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const FILES: &str = "/openai/v1/files";
const BOUNDARY: &str = "the-boundary";
const FRAMED: &str = "multipart/form-data; boundary=the-boundary";
const MEGABYTE: usize = 1024 * 1024;

fn field(name: &str, value: &str) -> String {
    format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file_head(filename: &str) -> String {
    format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\n\
         content-type: application/octet-stream\r\n\r\n"
    )
}

fn file(filename: &str, content: &str) -> String {
    format!("{}{content}\r\n", file_head(filename))
}

fn end() -> String {
    format!("--{BOUNDARY}--\r\n")
}

fn post(server: &TestServer, key: &str, fields: &[String]) -> Call {
    let body = fields.concat() + &end();
    server.anonymous(Method::POST, FILES).key(key).header("content-type", FRAMED).body(body)
}

async fn uploaded(server: &TestServer, content: &str) -> Value {
    post(server, &server.owner.key, &[field("purpose", "batch"), file("in.jsonl", content)]).await.ok()
}

fn path_of(file: &Value) -> String {
    format!("{FILES}/{}", file["id"].as_str().unwrap())
}

fn stranger(server: &TestServer, account: &Account, method: Method, path: &str) -> Call {
    server.anonymous(method, path).key(&account.key)
}

fn delete(server: &TestServer, path: &str) -> Call {
    server.call(Method::DELETE, path)
}

/// Everything that lies in the blob folder.
fn blobs(server: &TestServer) -> Vec<std::path::PathBuf> {
    let folder = server.blob_folder().join("files");
    std::fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
}

async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Bytes that tell where they are.
fn numbered(megabytes: usize) -> Vec<u8> {
    (0..megabytes * MEGABYTE / 8).flat_map(|index| (index as u64).to_le_bytes()).collect()
}

#[track_caller]
fn at_fault(reply: &Reply, param: &str) {
    let error = reply.error(StatusCode::BAD_REQUEST, "invalid_request");
    assert_eq!(error["param"], param, "{error}");
}

both! {
    async fn a_file_is_uploaded_shown_listed_read_and_deleted(backend) {
        let server = TestServer::start().on(backend).await;
        let made = uploaded(&server, "{}\n{}\n").await;
        let created = made["created_at"].as_i64().unwrap();
        assert_eq!(made, json!({
            "id": made["id"], "object": "file", "bytes": 6, "created_at": created,
            "expires_at": created + 2_592_000, "filename": "in.jsonl", "purpose": "batch",
            "status": "processed", "status_details": null,
        }));
        assert!(made["id"].as_str().unwrap().starts_with("file-"));
        let path = path_of(&made);
        assert_eq!(server.get(&path).await.ok(), made);
        let list = server.get(FILES).await.ok();
        assert_eq!(list, json!({
            "object": "list", "data": [made], "first_id": made["id"], "last_id": made["id"], "has_more": false,
        }));
        let content = server.get(&format!("{path}/content")).await;
        assert_eq!((content.status, content.text().as_str()), (200, "{}\n{}\n"));
        assert_eq!(content.header("content-length"), "6");
        assert_eq!(content.header("content-type"), "application/octet-stream");
        assert_eq!(content.header("content-disposition"), "attachment; filename=\"in.jsonl\"");
        assert_eq!(content.header("accept-ranges"), "bytes");
        assert_eq!(blobs(&server).len(), 1);
        let gone = delete(&server, &path).await.ok();
        assert_eq!(gone, json!({ "id": made["id"], "object": "file", "deleted": true }));
        for call in [server.get(&path), server.get(&format!("{path}/content")), delete(&server, &path)] {
            call.await.error(StatusCode::NOT_FOUND, "not_found");
        }
        let none = json!({ "object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false });
        assert_eq!(server.get(FILES).await.ok(), none);
        assert_eq!(blobs(&server).len(), 0, "its content is gone with it");
        server.stop().await;
    }

    async fn the_fields_come_in_any_order_and_say_when_it_goes(backend) {
        let server = TestServer::start().on(backend).await;
        let after = [field("expires_after[seconds]", "3600"), field("expires_after[anchor]", "created_at")];
        for fields in [
            [file("grün \u{1f600}.txt", "abc"), field("purpose", "user_data"), after[0].clone(), after[1].clone()],
            [after[1].clone(), after[0].clone(), field("purpose", "user_data"), file("grün \u{1f600}.txt", "abc")],
        ] {
            let made = post(&server, &server.owner.key, &fields).await.ok();
            let lives = made["expires_at"].as_i64().unwrap() - made["created_at"].as_i64().unwrap();
            assert_eq!((lives, made["filename"].as_str().unwrap()), (3_600, "grün \u{1f600}.txt"));
            let named = server.get(&format!("{}/content", path_of(&made))).await;
            let expected = "attachment; filename=\"gr_n _.txt\"; filename*=UTF-8''gr%C3%BCn%20%F0%9F%98%80.txt";
            assert_eq!(named.header("content-disposition"), expected);
        }
        let stays = [field("purpose", "vision"), file("../a\\b.png", "x")];
        let stays = post(&server, &server.owner.key, &stays).await.ok();
        assert_eq!((&stays["expires_at"], stays["filename"].as_str()), (&Value::Null, Some("b.png")));
        server.clock.advance(Duration::from_secs(3_601));
        let list = server.get(FILES).await.ok();
        assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["id"]), (1, &stays["id"]));
        assert_eq!(blobs(&server).len(), 3);
        server.files.sweep().await.unwrap();
        assert_eq!(blobs(&server).len(), 1, "what expired is swept");
        server.stop().await;
    }

    async fn lists_are_paged_filtered_and_ordered(backend) {
        let server = TestServer::start().on(backend).await;
        let mut ids = Vec::new();
        for index in 0..5 {
            let purpose = if index == 2 { "evals" } else { "batch" };
            let fields = [field("purpose", purpose), file("a", "x")];
            ids.push(post(&server, &server.owner.key, &fields).await.ok()["id"].as_str().unwrap().to_owned());
        }
        let page = async |query: String| {
            let list = server.get(&format!("{FILES}?{query}")).await.ok();
            let seen: Vec<String> =
                list["data"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap().to_owned()).collect();
            (seen, list["has_more"].as_bool().unwrap())
        };
        let newest: Vec<String> = ids.iter().rev().cloned().collect();
        assert_eq!(page("limit=2".to_owned()).await, (newest[..2].to_vec(), true));
        assert_eq!(page(format!("limit=3&after={}", newest[1])).await, (newest[2..].to_vec(), false));
        assert_eq!(page(format!("order=asc&after={}", ids[3])).await, (ids[4..].to_vec(), false));
        assert_eq!(page("purpose=evals".to_owned()).await, (vec![ids[2].clone()], false));
        for (param, query) in [
            ("limit", "limit=0"), ("limit", "limit=10001"), ("order", "order=up"), ("purpose", "purpose=fun"),
            ("after", "after=x"), ("befor", "befor=x"),
        ] {
            at_fault(&server.get(&format!("{FILES}?{query}")).await, param);
        }
        server.stop().await;
    }

    async fn what_is_wrong_with_an_upload_is_named(backend) {
        let server = TestServer::start().on(backend).with_max_file_bytes(1_000_000).await;
        let (purpose, content) = (field("purpose", "batch"), file("a", "x"));
        let anchor = field("expires_after[anchor]", "created_at");
        for (param, fields) in [
            ("file", vec![purpose.clone()]),
            ("purpose", vec![content.clone()]),
            ("file", vec![purpose.clone(), file("a", "")]),
            ("file", vec![purpose.clone(), field("file", "x")]),
            ("file", vec![purpose.clone(), content.clone(), content.clone()]),
            ("purpose", vec![purpose.clone(), purpose.clone(), content.clone()]),
            ("purpose", vec![field("purpose", "batch_output"), content.clone()]),
            ("purpose", vec![content.clone(), field("purpose", "")]),
            ("purpose", vec![field("purpose", &"x".repeat(2_000)), content.clone()]),
            ("colour", vec![field("colour", &"red".repeat(30_000)), purpose.clone(), content.clone()]),
            ("expires_after[seconds]", vec![anchor.clone(), purpose.clone(), content.clone()]),
            ("expires_after[anchor]", vec![field("expires_after[seconds]", "3600"), purpose.clone(), content.clone()]),
            ("expires_after[anchor]", vec![field("expires_after[anchor]", "now"), purpose.clone(), content.clone()]),
            ("expires_after[seconds]", vec![anchor.clone(), field("expires_after[seconds]", "3599"), content.clone()]),
        ] {
            at_fault(&post(&server, &server.owner.key, &fields).await, param);
        }
        let large = [purpose.clone(), file("a", &"x".repeat(1_000_001))];
        for streams in [false, true] {
            let body = large.concat() + &end();
            let call = server.call(Method::POST, FILES).header("content-type", FRAMED);
            let call = match streams {
                false => call.body(body),
                true => call.body(streamed(stream::iter(body.into_bytes().chunks(10_000).map(|c| Ok(c.to_vec())).collect::<Vec<_>>()))),
            };
            let refused = call.await;
            refused.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
            assert_eq!(refused.header("x-should-retry"), "false");
        }
        let exact = [purpose.clone(), file("a", &"x".repeat(1_000_000))];
        assert_eq!(post(&server, &server.owner.key, &exact).await.ok()["bytes"], 1_000_000);
        let no_form = server.post(FILES, json!({ "purpose": "batch" })).await;
        no_form.error(StatusCode::BAD_REQUEST, "invalid_request");
        let cut = server.call(Method::POST, FILES).header("content-type", FRAMED).body(purpose + &content).await;
        cut.error(StatusCode::BAD_REQUEST, "invalid_request");
        until("nothing stays of what was refused", async || blobs(&server).len() == 1).await;
        assert_eq!(server.get(FILES).await.ok()["data"].as_array().unwrap().len(), 1);
        server.stop().await;
    }

    async fn nobody_else_has_a_file(backend) {
        let server = TestServer::start().on(backend).await;
        let other = server.account("eve@example.com").await;
        let made = uploaded(&server, "secret").await;
        let (path, content) = (path_of(&made), format!("{}/content", path_of(&made)));
        for (method, path) in [
            (Method::POST, FILES), (Method::GET, FILES), (Method::GET, path.as_str()),
            (Method::GET, content.as_str()), (Method::DELETE, path.as_str()),
        ] {
            server.anonymous(method, path).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
        }
        for (method, path) in
            [(Method::GET, &path), (Method::GET, &content), (Method::DELETE, &path)]
        {
            stranger(&server, &other, method, path).await.error(StatusCode::NOT_FOUND, "not_found");
        }
        assert_eq!(stranger(&server, &other, Method::GET, FILES).await.ok()["data"], json!([]));
        for wrong in ["file-x", "nothing", "0197f3a0-0000-7000-8000-000000000000"] {
            server.get(&format!("{FILES}/{wrong}")).await.error(StatusCode::NOT_FOUND, "not_found");
        }
        assert_eq!(server.get(&content).await.text(), "secret");
        for base in ["/v1/files", "/files"] {
            assert_eq!(server.get(base).await.ok()["data"][0]["id"], made["id"], "the same files under every base URL");
            assert_eq!(stranger(&server, &other, Method::GET, base).await.ok()["data"], json!([]));
            let one = path.replace(FILES, base);
            stranger(&server, &other, Method::GET, &one).await.error(StatusCode::NOT_FOUND, "not_found");
            server.anonymous(Method::DELETE, &one).await.error(StatusCode::UNAUTHORIZED, "unauthorized");
        }
        server.stop().await;
    }

    async fn a_large_file_is_streamed_in_and_out_and_taken_up_again(backend) {
        let server = TestServer::start().on(backend).await;
        let content = numbered(64);
        let pieces: Vec<_> = [field("purpose", "batch").into_bytes(), file_head("big").into_bytes()]
            .into_iter()
            .chain(content.chunks(100_000).map(<[u8]>::to_vec))
            .chain([format!("\r\n{}", end()).into_bytes()])
            .map(Ok)
            .collect();
        let call = server.call(Method::POST, FILES).header("content-type", FRAMED);
        let made = call.body(streamed(stream::iter(pieces))).await.ok();
        assert_eq!(made["bytes"], content.len());
        let path = format!("{}/content", path_of(&made));
        assert!(server.get(&path).await.body == content, "every byte is the same");
        let from = 12_345_678;
        let rest = server.get(&path).header("range", &format!("bytes={from}-")).await;
        assert_eq!(rest.status, 206);
        let whole = content.len();
        assert_eq!(rest.header("content-range"), format!("bytes {from}-{}/{whole}", whole - 1));
        assert_eq!(rest.header("content-length"), (whole - from).to_string());
        assert!(rest.body == content[from..], "it goes on where it was left");
        let tail = server.get(&path).header("range", "bytes=-8").header("if-range", rest.header("etag")).await;
        assert_eq!((tail.status, &tail.body[..]), (206, &content[whole - 8..]));
        let beyond = server.get(&path).header("range", &format!("bytes={whole}-")).await;
        beyond.error(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable");
        assert_eq!(beyond.header("content-range"), format!("bytes */{whole}"));
        server.stop().await;
    }

    async fn an_upload_that_breaks_off_leaves_nothing_behind(backend) {
        let server = TestServer::start().on(backend).await;
        let head = [field("purpose", "batch"), file_head("big")].concat().into_bytes();
        // Twelve megabytes, more than is held in memory, and then nothing, for as long as the client is there.
        let pieces = stream::iter(std::iter::once(head).chain((0..12).map(|_| vec![b'x'; MEGABYTE])).map(Ok));
        let call = server.call(Method::POST, FILES).header("content-type", FRAMED);
        let call = call.body(streamed(pieces.chain(stream::pending())));
        let leaving = tokio::time::timeout(Duration::from_secs(3), async {
            tokio::join!(call.send(), std::future::pending::<()>())
        });
        let seen = async { until("its bytes arrive", async || !blobs(&server).is_empty()).await };
        let (left, ()) = tokio::join!(leaving, seen);
        assert!(left.is_err());
        until("nothing is left", async || blobs(&server).is_empty()).await;
        until("its row is gone", async || {
            let later = server.store.file_rows().unfinished_files(server.clock_ahead(), 10).await.unwrap();
            later.is_empty() && server.store.file_rows().deleted_files(None, 10).await.unwrap().is_empty()
        })
        .await;
        assert_eq!(server.get(FILES).await.ok()["data"], json!([]));
        server.stop().await;
    }

    async fn what_a_killed_server_left_is_swept(backend) {
        let server = TestServer::start().on(backend).await;
        let mut upload = server.files.upload(server.owner.id).await.unwrap();
        for _ in 0..12 {
            upload.write(vec![b'x'; MEGABYTE].into()).await.unwrap();
        }
        // As a kill leaves it: neither given up nor finished.
        std::mem::forget(upload);
        until("its bytes arrive", async || !blobs(&server).is_empty()).await;
        server.files.sweep().await.unwrap();
        assert_eq!(blobs(&server).len(), 1, "it may still be on its way");
        server.clock.advance(Duration::from_secs(25 * 3_600));
        server.files.sweep().await.unwrap();
        assert_eq!(blobs(&server).len(), 0);
        assert!(server.store.file_rows().deleted_files(None, 10).await.unwrap().is_empty());
        server.stop().await;
    }

    async fn an_idempotency_key_gives_the_first_file_again(backend) {
        let server = TestServer::start().on(backend).await;
        let send = async |content: &str, boundary: &str| {
            let body = ([field("purpose", "batch"), file("a", content)].concat() + &end()).replace(BOUNDARY, boundary);
            let framed = format!("multipart/form-data; boundary={boundary}");
            let call = server.call(Method::POST, FILES).header("content-type", &framed);
            call.header("idempotency-key", "one").body(body).await
        };
        let first = send("abc", "b1").await.ok();
        let again = send("abc", "b2").await;
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.ok(), first);
        send("abd", "b1").await.error(StatusCode::CONFLICT, "conflict");
        until("one file stays", async || blobs(&server).len() == 1).await;
        assert_eq!(server.get(FILES).await.ok()["data"], json!([first]));
        server.stop().await;
    }

    async fn a_file_that_is_deleted_while_it_is_read_is_whole_or_breaks_off(backend) {
        let server = TestServer::start().on(backend).await;
        let content = "0123456789abcdef".repeat(MEGABYTE / 2);
        let made = uploaded(&server, &content).await;
        let path = format!("{}/content", path_of(&made));
        let mut reading = server.get(&path).open().await.bytes_stream();
        let mut read = reading.next().await.unwrap().unwrap().to_vec();
        delete(&server, &path_of(&made)).await.ok();
        while let Some(Ok(bytes)) = reading.next().await {
            read.extend_from_slice(&bytes);
        }
        assert!(content.as_bytes().starts_with(&read), "what came is right");
        server.get(&path).await.error(StatusCode::NOT_FOUND, "not_found");
        server.stop().await;
    }

    async fn a_file_of_parts_of_other_blobs_is_read_as_one(backend) {
        let server = TestServer::start().on(backend).await;
        let blobs: Vec<Vec<u8>> = (0..3).map(|n| (0..3 * MEGABYTE).map(|at| (at * (n + 7)) as u8).collect()).collect();
        for (index, blob) in blobs.iter().enumerate() {
            server.blobs.put(&format!("results/{index}"), blob.clone().into()).await.unwrap();
        }
        let new = NewOutput {
            id: FileId::new(server.gateway.ids().uuid()),
            account: server.owner.id,
            purpose: FilePurpose::BatchOutput,
            filename: "output.jsonl".to_owned(),
            expires_after: None,
        };
        let mut writer = server.files.create_from_manifest(new.clone()).await.unwrap();
        let mut expected = Vec::new();
        let mut push = async |index: usize, offset: usize, len: usize| {
            expected.extend_from_slice(&blobs[index][offset..offset + len]);
            let blob = format!("results/{index}");
            writer.push(&BlobRange { blob, offset: offset as u64, len: len as u64 }).await.unwrap();
        };
        push(0, 5, 2 * MEGABYTE).await;
        push(0, 5 + 2 * MEGABYTE, 10).await;
        push(1, 0, 0).await;
        // With a byte between them, as results lie in their blobs; more than one line takes.
        for at in 0..2_500 {
            push(1, at * 101, 100).await;
        }
        for at in (0..100).rev() {
            push(2, at * 20_000, 17).await;
        }
        push(0, 0, 3).await;
        let row = writer.finish().await.unwrap();
        assert_eq!((row.id, row.bytes), (new.id, expected.len() as u64));
        let path = format!("{FILES}/{}", row.id);
        assert_eq!(server.get(&path).await.ok()["purpose"], "batch_output");
        let read = server.get(&format!("{path}/content")).await;
        assert_eq!(read.header("content-length"), expected.len().to_string());
        assert!(read.body == expected);
        for (from, to) in [(0, 1), (2 * MEGABYTE - 3, 2 * MEGABYTE + 500), (2 * MEGABYTE + 777, expected.len() - 5)] {
            let part = server.get(&format!("{path}/content")).header("range", &format!("bytes={from}-{}", to - 1)).await;
            assert_eq!(part.status, 206);
            assert!(part.body == expected[from..to], "{from} to {to}");
        }
        // Whoever writes it again, after a kill, finds the one file.
        let again = server.files.create_from_manifest(new).await.unwrap();
        drop(again);
        assert_eq!(server.get(&format!("{path}/content")).await.body.len(), expected.len());
        server.stop().await;
    }

    async fn what_other_services_take_is_passed_over(backend) {
        let server = TestServer::start().on(backend).await;
        let fields = [
            field("visibility", "workspace"), field("purpose", "batch"), field("custom_llm_provider", "openai"),
            file("in.jsonl", "{}\n"), field("visibility", "again"),
        ];
        let made = post(&server, &server.owner.key, &fields).await.ok();
        assert_eq!((&made["purpose"], &made["bytes"], &made["filename"]), (&json!("batch"), &json!(3), &json!("in.jsonl")));
        assert!(made.get("visibility").is_none(), "the answer shows what was taken");
        let many: Vec<String> = (0..20).map(|index| field(&format!("more-{index}"), "x")).collect();
        post(&server, &server.owner.key, &many).await.error(StatusCode::BAD_REQUEST, "invalid_request");
        server.stop().await;
    }

    async fn an_account_keeps_as_much_as_it_may_and_uploads_together_no_more(backend) {
        let bounds = |files: &mut batchin_files::FilesOptions| {
            files.bounds.room = FileRoom { bytes: 1_000_000, files: 6 };
            files.bounds.without_credit = FileRoom { bytes: 300_000, files: 2 };
        };
        let server = TestServer::start().on(backend).with_files(bounds).await;
        let fields = |length: usize| [field("purpose", "user_data"), file("a", &"x".repeat(length))];
        let poor = server.account("poor@example.com").await;
        let gone = async || {
            server.store.file_rows().deleted_files(None, 10).await.unwrap().is_empty()
                && server.store.file_rows().unfinished_files(server.clock_ahead(), 10).await.unwrap().is_empty()
        };
        post(&server, &poor.key, &fields(100_000)).await.ok();
        let over = post(&server, &poor.key, &fields(250_000)).await;
        let error = over.error(StatusCode::PAYMENT_REQUIRED, "payment_required");
        assert!(error["message"].as_str().unwrap().contains("300000 bytes"), "{error}");
        assert_eq!(over.header("x-should-retry"), "false");
        until("what was refused is gone", async || gone().await).await;
        // What inline batches say is kept too, and is worth as much.
        let inline = || {
            let body = json!({ "messages": [{ "role": "user", "content": "x" }] });
            let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": body });
            let call = server.anonymous(Method::POST, "/v1/batches").key(&poor.key);
            call.json(json!({ "tasks": [task], "priority": "low" })).send()
        };
        inline().await.ok();
        inline().await.error(StatusCode::PAYMENT_REQUIRED, "payment_required");

        // All at once, from clients that say nothing of their length.
        let uploads = (0..8).map(|_| {
            let body = fields(300_000).concat() + &end();
            let pieces: Vec<_> = body.into_bytes().chunks(10_000).map(|piece| Ok(piece.to_vec())).collect();
            let call = server.call(Method::POST, FILES).header("content-type", FRAMED);
            call.body(streamed(stream::iter(pieces))).send()
        });
        let replies = futures::future::join_all(uploads).await;
        let made = replies.iter().filter(|reply| reply.status == 200).count();
        assert!(made <= 3, "{made} of 300,000 bytes where 1,000,000 may be");
        for refused in replies.iter().filter(|reply| reply.status != 200) {
            refused.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        }
        until("what was refused is gone", async || gone().await).await;
        for _ in made..3 {
            post(&server, &server.owner.key, &fields(300_000)).await.ok();
        }
        let over = post(&server, &server.owner.key, &fields(150_000)).await;
        over.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        until("what was refused is gone", async || gone().await).await;
        for _ in 0..3 {
            post(&server, &server.owner.key, &fields(1)).await.ok();
        }
        post(&server, &server.owner.key, &fields(1)).await.error(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
        until("what was refused is gone", async || gone().await).await;
        let list = server.get(&format!("{FILES}?order=asc")).await.ok();
        delete(&server, &path_of(&list["data"][0])).await.ok();
        post(&server, &server.owner.key, &fields(150_000)).await.ok();
        server.stop().await;
    }

    async fn a_disk_that_is_nearly_full_takes_no_files_and_money_still_moves(backend) {
        let folder = tempfile::tempdir().unwrap();
        let disk = batchin_files::DiskReserve { folders: vec![folder.path().to_owned()], bytes: u64::MAX };
        let server = TestServer::start().on(backend).with_files(|files| files.reserve = disk).await;
        let fields = [field("purpose", "batch"), file("a", "x")];
        let refused = post(&server, &server.owner.key, &fields).await;
        refused.error(StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage");
        assert_eq!(refused.header("retry-after"), "60");
        let body = json!({ "messages": [{ "role": "user", "content": "x" }] });
        let task = json!({ "custom_id": "a", "model": "chat-model", "request_body": body });
        let batch = server.post("/v1/batches", json!({ "tasks": [task], "priority": "low" })).await;
        batch.error(StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage");
        server.chat("chat-model").max_tokens(3).await.ok();
        assert_eq!(server.get("/v1/usage/summary").await.ok()["total_requests"], 1);
        server.stop().await;
    }

    async fn one_account_leaves_uploads_to_others_and_a_cut_one_is_free_at_once(backend) {
        let few = |files: &mut batchin_files::FilesOptions| files.max_uploads = 3;
        let server = TestServer::start().on(backend).with_files(few).await;
        let other = server.account("other@example.com").await;
        let dripping = || {
            let head = [field("purpose", "batch"), file_head("big")].concat().into_bytes();
            let call = server.call(Method::POST, FILES).header("content-type", FRAMED);
            call.body(streamed(stream::iter([Ok(head)]).chain(stream::pending()))).send()
        };
        let fields = [field("purpose", "batch"), file("a", "x")];
        let mut held = JoinSet::new();
        until("its part is used up", async || {
            // One more each time: that which comes while the look's own has the last place is refused.
            held.spawn(dripping());
            post(&server, &server.owner.key, &fields).await.status == 429
        })
        .await;
        post(&server, &other.key, &fields).await.ok();
        drop(held);
        // Their connections are closed now.
        until("their places are free", async || post(&server, &server.owner.key, &fields).await.status == 200).await;
        server.stop().await;
    }
}
