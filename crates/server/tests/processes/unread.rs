//! A client of HTTP/2 makes no room for what it asks for, and answers every ping.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    addresses::{
        DATA, END_HEADERS, END_STREAM, Frame, HEADERS, ONE, PING, PREFACE, RST_STREAM, SETTINGS, ask, connect, frame,
        next_frame,
    },
    harness::{Account, Backend, Node, PATIENCE, Settings, World, chat, until},
};

const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const CANCEL: u32 = 8;
/// The shortest that `server.write_timeout_seconds` may be.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// A string, whose length fits into one byte.
fn literal(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    assert!(length < 127);
    [&[length], bytes].concat()
}

/// A request of static names and literal values (RFC 7541).
fn request(stream: u32, account: &Account, path: &str, body: Option<&Value>) -> Vec<u8> {
    let method = if body.is_some() { 0x83 } else { 0x82 };
    let token = format!("Bearer {}", account.key);
    let mut head = vec![method, 0x86, 0x04];
    head.extend(literal(path.as_bytes()));
    head.push(0x01);
    head.extend(literal(b"x"));
    // `authorization` is the 23rd name: 15 in the first byte, and 8.
    head.extend([0x0f, 8]);
    head.extend(literal(token.as_bytes()));
    let Some(body) = body else { return frame(HEADERS, END_HEADERS | END_STREAM, stream, &head) };
    let body = frame(DATA, END_STREAM, stream, body.to_string().as_bytes());
    [frame(HEADERS, END_HEADERS, stream, &head), body].concat()
}

/// The next frame of a stream; what a connection itself asks for is answered.
async fn next(connection: &mut TcpStream) -> Frame {
    loop {
        let seen = timeout(PATIENCE, next_frame(connection)).await.unwrap().expect("the connection goes on");
        if seen.kind == PING {
            connection.write_all(&frame(PING, ACK, 0, &seen.payload)).await.unwrap();
        }
        if seen.stream > 0 {
            return seen;
        }
    }
}

async fn metrics(node: &Node) -> String {
    ask(node, ONE, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await
}

/// What an account may download and ask for, by the stream that it is asked for on.
async fn everything(node: &Node, account: &Account) -> BTreeMap<u32, Vec<u8>> {
    let at = &node.address;
    let task = |index| json!({"custom_id": format!("{index}"), "model": "fixed", "request_body": chat("fixed", 10)});
    let batch = account.submit(at, "high", &(0..20).map(task).collect::<Vec<_>>()).await;
    until("the batch has ended", async || (account.batch(at, &batch).await["status"] == "completed").then_some(()))
        .await;
    let file = account.upload(at, format!("{}\n", task(0)).repeat(20_000)).await;
    let mut stream = chat("endless", 60_000);
    stream["stream"] = true.into();
    let asked = [
        ("/metrics".to_owned(), None),
        ("/openapi.json".to_owned(), None),
        (format!("/v1/batches/{batch}"), None),
        (format!("/v1/batches/{batch}/results"), None),
        (format!("/openai/v1/files/{file}/content"), None),
        ("/v1/chat/completions".to_owned(), Some(chat("long", 10_000))),
        ("/v1/embeddings".to_owned(), Some(json!({"model": "vectors", "input": vec!["a"; 500]}))),
        ("/v1/chat/completions".to_owned(), Some(stream)),
    ];
    let asked = (0..).zip(asked).map(|(number, (path, body))| {
        let stream = 2 * number + 1;
        (stream, request(stream, account, &path, body.as_ref()))
    });
    asked.collect()
}

/// Of each answer some bytes are taken, so that what is left waits where no body is asked for it.
#[tokio::test]
async fn each_answer_that_nobody_takes_is_reset_and_the_connection_goes_on() {
    const TAKEN: usize = 1_000;
    let settings = Settings::default()
        .model("long", "sim:tokens=10000")
        .model("endless", "sim:tokens=60000,gap_ms=5")
        .embedding_model("vectors", "sim:tokens=1");
    let world = World::new(Backend::Sqlite, settings.clone()).await;
    let short = format!("[server]\nwrite_timeout_seconds = {}\n", WRITE_TIMEOUT.as_secs());
    world.overwrite_configuration(&world.configuration(&settings).replacen("[server]\n", &short, 1));
    let node = world.node().await;
    let account = world.account(100_000).await;
    let mut unread = everything(&node, &account).await;

    let mut connection = connect(&node, ONE).await;
    let window = [&[0, 4], u32::try_from(TAKEN).unwrap().to_be_bytes().as_slice()].concat();
    let room = frame(WINDOW_UPDATE, 0, 0, &0x0fff_ffff_u32.to_be_bytes());
    connection.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &window), &room].concat()).await.unwrap();
    let began = Instant::now();
    for asked in unread.values() {
        connection.write_all(asked).await.unwrap();
    }
    let count = u32::try_from(unread.len()).unwrap();
    let mut taken: BTreeMap<u32, usize> = BTreeMap::new();
    while !unread.is_empty() {
        let seen = next(&mut connection).await;
        match seen.kind {
            DATA => *taken.entry(seen.stream).or_default() += seen.payload.len(),
            RST_STREAM => {
                assert_eq!((seen.payload, taken[&seen.stream]), (CANCEL.to_be_bytes().to_vec(), TAKEN));
                assert!(began.elapsed() >= WRITE_TIMEOUT);
                unread.remove(&seen.stream);
            }
            _ => assert_eq!(seen.kind, HEADERS),
        }
    }
    assert!(began.elapsed() < WRITE_TIMEOUT * 2);

    let other = 2 * count + 1;
    connection.write_all(&request(other, &account, "/healthz", None)).await.unwrap();
    while next(&mut connection).await.stream != other {}
    let counted = format!("\nbatchin_http2_unread_total {count}\n");
    let free = async || {
        let shown = metrics(&node).await;
        let is_left = shown.contains("\nbatchin_upstream_outstanding{upstream=\"sim-0\"} 0\n");
        (is_left && shown.contains(&counted)).then_some(())
    };
    until("the stream has left its model server, and all of them are counted", free).await;
    world.settled().await;
}
