//! Holds: the audit log: records as they are made, shown and checked, by us and by programs that we did not write.

use std::{path::Path, process::Command};

use batchin_audit::LogError;
use batchin_receipts::{Rotation, ShownRecord, Unsound, VerifyingKey, verify_record};
use batchin_testkit::{Reply, TestServer, audit, both};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const AUDIT: &str = "/v1/audit";
const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OF_HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

async fn make(server: &TestServer, input: &str, output: &str) -> Value {
    server.post(AUDIT, json!({ "input_text": input, "output_text": output, "model_id": "qwen3" })).await.ok()
}

/// Makes so many records, and lets them have their places.
async fn placed(server: &TestServer, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let made = make(server, &format!("question {number}"), "answer").await;
        ids.push(made["audit_id"].as_str().unwrap().to_owned());
    }
    while server.audit.extend().await.unwrap() {}
    ids
}

async fn public(server: &TestServer, path: &str) -> Reply {
    server.anonymous(Method::GET, path).await
}

async fn keys(server: &TestServer) -> Vec<VerifyingKey> {
    let keys = public(server, "/v1/audit/pubkeys").await.ok();
    keys["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["verify_key_hex"].as_str().unwrap().parse().unwrap())
        .collect()
}

async fn shown(server: &TestServer, id: &str) -> ShownRecord {
    serde_json::from_value(public(server, &format!("/v1/audit/{id}")).await.ok()).unwrap()
}

async fn valid(server: &TestServer, id: &str) -> bool {
    let verdict = public(server, &format!("/v1/audit/{id}/verify")).await.ok();
    assert_eq!(verdict["audit_id"], id);
    verdict["valid"].as_bool().unwrap()
}

both! {
    async fn a_record_is_made_shown_and_checked_without_the_server(backend) {
        let server = TestServer::start().on(backend).await;
        let made = make(&server, "hello", "").await;
        assert_eq!([&made["input_hash"], &made["output_hash"]], [OF_HELLO, OF_NOTHING]);
        let id = made["audit_id"].as_str().unwrap();
        // Signed at once, and logged a moment later.
        let waiting = shown(&server, id).await;
        assert!(waiting.log.is_none());
        assert_eq!(verify_record(&waiting, &keys(&server).await, &[]).unwrap().checkpoint, None);
        for accept in ["text/plain", "application/scitt-receipt+cose"] {
            let early = public(&server, &format!("/v1/audit/{id}")).await.status;
            let proof = server.anonymous(Method::GET, &format!("/v1/audit/{id}")).header("accept", accept).await;
            assert_eq!((early, proof.status), (200, 503), "{accept}");
        }
        assert!(server.audit.extend().await.unwrap());
        let record = shown(&server, id).await;
        let checked = verify_record(&record, &keys(&server).await, &[]).unwrap();
        assert_eq!(checked.checkpoint.unwrap().origin.as_str(), audit::ORIGIN);
        assert_eq!(checked.record.account_id, server.owner.id.to_string());
        assert!(valid(&server, id).await);
        let current = public(&server, "/v1/audit/pubkey/current").await;
        assert_eq!(current.header("access-control-allow-origin"), "*");
        assert_eq!(current.ok()["key_id"], record.key_id.as_str());
        assert_eq!(made["signature"], record.signature.as_str());
        // The prompt is one word, and cannot be found from what is public of it.
        let entries = public(&server, "/audit/log/tile/entries/000.p/1").await;
        let entry = batchin_receipts::entry_of(&record.signed_payload);
        assert_eq!(entries.body.as_ref(), [&[0, 32][..], entry.bytes()].concat());
        let blind = format!("\"blind\":\"{}\"", checked.record.blind);
        for word in ["hello", "hi", "yes", "no"] {
            let guess = record.signed_payload.replace(OF_HELLO, &batchin_receipts::Hash::of(word.as_bytes()).hex());
            let guess = guess.replace(&blind, "\"blind\":\"\"");
            assert_ne!(batchin_receipts::entry_of(&guess), entry, "{word}");
        }
        server.stop().await;
    }

    async fn records_are_listed_to_their_owner_alone(backend) {
        let server = TestServer::start().on(backend).await;
        let ids = placed(&server, 3).await;
        let page = server.get("/v1/audit?limit=2").await.ok();
        let listed: Vec<_> = page["data"].as_array().unwrap().iter().map(|row| row["audit_id"].clone()).collect();
        assert_eq!(listed, [json!(ids[2]), json!(ids[1])]);
        let rest = server.get(&format!("/v1/audit?after={}", page["next_after"].as_str().unwrap())).await.ok();
        assert_eq!([&rest["data"][0]["audit_id"], &rest["next_after"]], [&json!(ids[0]), &Value::Null]);
        let stranger = server.account("eve@example.com").await;
        let none = server.anonymous(Method::GET, AUDIT).key(&stranger.key).await.ok();
        assert_eq!(none, json!({ "data": [], "next_after": null }));
        // Whoever knows an id may see the record.
        assert_eq!(public(&server, &format!("/v1/audit/{}", ids[0])).await.status, 200);
        server.stop().await;
    }

    async fn what_is_wrong_is_named(backend) {
        let server = TestServer::start().on(backend).await;
        let good = json!({ "input_text": "a", "output_text": "b", "model_id": "m" });
        for (member, value, status) in [
            ("input_text", json!(7), 400),
            ("output_text", Value::Null, 400),
            ("model_id", json!(""), 400),
            ("model_id", json!("m".repeat(257)), 400),
            ("gpu_id", json!(["H200"]), 400),
            ("temperature", json!(1), 400),
            ("output_text", json!("x".repeat(1024 * 1024 + 1)), 413),
        ] {
            let mut body = good.clone();
            body[member] = value;
            let refused = server.post(AUDIT, body).await;
            assert_eq!((refused.status, refused.json()["error"]["param"].clone()), (status, json!(member)));
            if status == 413 {
                assert!(refused.text().contains("1048576"), "{}", refused.text());
            }
        }
        for member in ["input_text", "output_text", "model_id"] {
            let mut body = good.clone();
            body.as_object_mut().unwrap().remove(member);
            assert_eq!(server.post(AUDIT, body).await.json()["error"]["param"], member);
        }
        let broken = b"{\"input_text\":\"\xff\",\"output_text\":\"\",\"model_id\":\"m\"}";
        assert_eq!(server.call(Method::POST, AUDIT).body(broken.to_vec()).await.status, 400);
        for path in ["/v1/audit/0197f3a0-0000-7000-8000-000000000000", "/v1/audit/nonsense", "/v1/audit/nonsense/verify",
            "/audit/log/checkpoint", "/audit/log/tile/0/000.p/1", "/audit/log/tile/0/000", "/audit/log/tile/entries/000.p/1",
            "/audit/log/tile/9/9", "/audit/log/tile/0/x999/x999/x999/x999/x999/999", "/audit/log/tile/../checkpoint"]
        {
            public(&server, path).await.error(StatusCode::NOT_FOUND, "not_found");
        }
        // Once more under its key is the same record.
        let ask = async || server.post(AUDIT, good.clone()).header("idempotency-key", "k-1").await.ok();
        assert_eq!(ask().await, ask().await);
        assert_eq!(server.get(AUDIT).await.ok()["data"].as_array().unwrap().len(), 1);
        server.stop().await;
    }

    async fn what_is_changed_in_the_database_shows(backend) {
        let server = TestServer::start().on(backend).await;
        let ids = placed(&server, 300).await;
        let [first, last] = [&ids[0], &ids[299]];
        assert!(valid(&server, first).await && valid(&server, last).await);
        let spoil = async |statement: String, id: &str| {
            server.database.run(&statement);
            assert!(!valid(&server, id).await, "{statement}");
        };
        let id = |id: &str| match backend {
            batchin_testkit::Backend::Sqlite => format!("x'{}'", id.replace('-', "")),
            batchin_testkit::Backend::Postgres => format!("'{id}'"),
        };
        spoil(format!("UPDATE audit_entry SET log_index = 1000 WHERE id = {}", id(last)), last).await;
        let other = &ids[298];
        spoil(format!("UPDATE audit_entry SET log_index = NULL, body = replace(body, 'qwen3', 'qwen4') WHERE id = {}", id(other)), other).await;
        assert!(valid(&server, &ids[297]).await);
        spoil("DELETE FROM audit_tile WHERE level = 1".to_owned(), &ids[297]).await;
        assert!(valid(&server, first).await);
        spoil("UPDATE audit_log SET checkpoint = replace(checkpoint, 'example', 'exbmple')".to_owned(), first).await;
        server.stop().await;
    }

    async fn nodes_extend_one_log_and_a_restored_one_is_not_signed_on(backend) {
        let server = TestServer::start().on(backend).await;
        let (folder, tasks) = (tempfile::tempdir().unwrap(), batchin_tasks::Tasks::new());
        let other = audit::open(&server.store, (&server.clock, &tasks), &folder.path().join("signed.json")).await;
        let mut made = Vec::new();
        for number in 0..20 {
            made.push(make(&server, &number.to_string(), "answer").await["audit_id"].as_str().unwrap().to_owned());
            let (one, two) = tokio::join!(server.audit.extend(), other.extend());
            assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        }
        while other.extend().await.unwrap() {}
        let keys = keys(&server).await;
        let mut places = Vec::new();
        for id in &made {
            places.push(verify_record(&shown(&server, id).await, &keys, &[]).map(|_| ()));
        }
        assert_eq!(places, vec![Ok::<(), Unsound>(()); 20]);
        // The database is put back to a day on which the log was shorter.
        server.database.run("UPDATE audit_entry SET log_index = NULL");
        server.database.run("DELETE FROM audit_tile");
        let empty = batchin_receipts::Edge::default().root().hex();
        let empty = match backend {
            batchin_testkit::Backend::Sqlite => format!("x'{empty}'"),
            batchin_testkit::Backend::Postgres => format!("'\\x{empty}'::bytea"),
        };
        server.database.run(&format!("UPDATE audit_log SET checkpoint = NULL, checkpoint_size = 0, size = 0, root = {empty}"));
        server.database.run("DELETE FROM audit_entry WHERE id <> (SELECT id FROM audit_entry ORDER BY id DESC LIMIT 1)");
        let refused = other.extend().await;
        assert!(matches!(refused, Err(LogError::Memory { .. })), "{refused:?}");
        public(&server, "/audit/log/checkpoint").await.error(StatusCode::NOT_FOUND, "not_found");
        server.stop().await;
    }

    async fn another_key_signs(backend) {
        let server = TestServer::start().on(backend).await;
        another_key_signs_in_the_middle_of_a_stream(&server).await;
        server.stop().await;
    }
}

async fn another_key_signs_in_the_middle_of_a_stream(server: &TestServer) {
    let folder = tempfile::tempdir().unwrap();
    let tasks = batchin_tasks::Tasks::new();
    let other = audit::open(&server.store, (&server.clock, &tasks), &folder.path().join("signed.json")).await;
    let before = placed(server, 3).await;
    let waiting = make(server, "asked before", "").await["audit_id"].as_str().unwrap().to_owned();
    let next = other.rotate_key().await.unwrap();
    // A node that has not heard of it yet signs with the key before; its records count as well.
    let overlapping = make(server, "asked at the same time", "").await["audit_id"].as_str().unwrap().to_owned();
    assert!(server.audit.extend().await.unwrap(), "it hears of it");
    let after = placed(server, 3).await;
    let known = keys(server).await;
    assert_eq!((known.len(), known[0].bytes().to_vec()), (2, next.public));
    for id in before.iter().chain([&waiting, &overlapping]).chain(&after) {
        let checked = verify_record(&shown(server, id).await, &known, &[]).unwrap();
        assert_eq!(checked.checkpoint.unwrap().size, 9, "{id}");
        assert!(valid(server, id).await);
    }
    let signed_by = async |id: &str| shown(server, id).await.key_id;
    assert_eq!(
        (signed_by(&overlapping).await, signed_by(&after[2]).await),
        (known[1].id().to_string(), known[0].id().to_string())
    );
    // The log says so itself, signed by both keys.
    let bundle = public(server, "/audit/log/tile/entries/000.p/9").await.body;
    let mut rest = bundle.as_ref();
    let mut changes = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<2>() {
        let (entry, more) = more.split_at(usize::from(u16::from_be_bytes(*length)));
        changes.extend(std::str::from_utf8(entry).ok().and_then(|entry| Rotation::verified(entry).ok()));
        rest = more;
    }
    assert_eq!(changes.iter().map(|change| (change.from, change.to)).collect::<Vec<_>>(), [(known[1], known[0])]);
}

fn prepared(name: &str) -> std::path::PathBuf {
    let path = std::env::var_os(name).map(std::path::PathBuf::from);
    path.unwrap_or_else(|| panic!("{name} is not set: this test needs what `make test` prepares; run it with that"))
}

/// Runs a program that checks the log by itself.
async fn checked_by(server: &TestServer, program: &Path, script: &str, facts: Value) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/sdk").join(script);
    let (program, facts) = (program.to_owned(), facts.to_string());
    let base = server.url("");
    let run = tokio::task::spawn_blocking(move || Command::new(program).arg(script).arg(base).arg(facts).output());
    let run = run.await.unwrap().unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}

/// A log of several tiles, as it was at some size and is now.
async fn long_log(server: &TestServer) -> Value {
    let first = placed(server, 200).await;
    let old = public(server, "/audit/log/checkpoint").await.text();
    let second = placed(server, 330).await;
    let keys = public(server, "/v1/audit/pubkeys").await.ok();
    let key = &keys["data"][0];
    json!({ "old": old, "records": [first[0], first[199], second[100], second[329]], "note_key": key["note_key"],
        "key": key["verify_key_hex"], "pem": key["spki_pem"], "cose_key": key["cose_key_hex"], "origin": keys["origin"] })
}

#[tokio::test]
async fn python_s_cryptography_and_scitt_cose_agree() {
    let server = TestServer::start().await;
    let facts = long_log(&server).await;
    checked_by(&server, &prepared("BATCHIN_TEST_PYTHON"), "audit_python.py", facts).await;
    server.stop().await;
}

#[tokio::test]
async fn go_s_sumdb_agrees() {
    let server = TestServer::start().await;
    let facts = long_log(&server).await;
    checked_by(&server, &prepared("BATCHIN_TEST_PYTHON"), "audit_go.py", facts).await;
    server.stop().await;
}

#[tokio::test]
async fn webcrypto_agrees() {
    prepared("BATCHIN_TEST_NODE_MODULES");
    let server = TestServer::start().await;
    let facts = long_log(&server).await;
    checked_by(&server, Path::new("node"), "audit_node.mjs", facts).await;
    server.stop().await;
}
