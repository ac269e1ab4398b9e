//! One network address opens as many connections as it can, or connections that come to nothing: another is served.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

use crate::harness::{Backend, Node, PATIENCE, Settings, World, until};

/// Two addresses of this machine, as Linux has them.
pub(crate) const ONE: &str = "127.0.0.1";
const OTHER: &str = "127.0.0.2";
const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// A server with these lines in `[server]`.
async fn server(world: &World, lines: &str) -> Node {
    let text = world.configuration(&Settings::default()).replacen("[server]\n", &format!("[server]\n{lines}\n"), 1);
    world.overwrite_configuration(&text);
    world.node().await
}

pub(crate) async fn connect(node: &Node, from: &str) -> TcpStream {
    let url = node.address.url();
    let (_, address) = url.split_once("://").unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

async fn many(node: &Node, from: &str, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(connect(node, from).await);
    }
    held
}

/// What comes until the connection ends.
async fn rest(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // One that is reset has ended too.
    let _ = timeout(PATIENCE, connection.read_to_end(&mut bytes)).await.expect("the connection ends");
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) async fn ask(node: &Node, from: &str, request: &[u8]) -> String {
    let mut connection = connect(node, from).await;
    connection.write_all(request).await.unwrap();
    rest(&mut connection).await
}

/// Whether the other side has closed it.
fn is_closed(connection: &TcpStream) -> bool {
    match connection.try_read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(fault) => fault.kind() != std::io::ErrorKind::WouldBlock,
    }
}

async fn open_ones(held: &[TcpStream], count: usize) {
    let look = async || (held.iter().filter(|connection| !is_closed(connection)).count() == count).then_some(());
    until("those over the share are closed", look).await;
}

#[tokio::test]
async fn one_that_opens_as_many_as_it_can_leaves_room_for_another() {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let node = server(&world, "max_connections = 16").await;
    let silent = many(&node, ONE, 30).await;
    let refused = ask(&node, ONE, HEALTH).await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains("\r\nconnection: close\r\n") && refused.contains("\r\nretry-after: "), "{refused}");
    assert!(refused.contains(r#""code":"rate_limit_exceeded""#) && refused.contains("network address"), "{refused}");
    let served = ask(&node, OTHER, HEALTH).await;
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
    open_ones(&silent, 8).await;

    // A client sees the end of its connection before the server has given its place back.
    let counted = async || {
        let metrics = ask(&node, OTHER, b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        metrics.contains("\nbatchin_connections 9\n").then_some(metrics)
    };
    let metrics = until("the ended ones' places are free", counted).await;
    assert!(metrics.contains("batchin_connections_refused_total{reason=\"address\"} 23\n"), "{metrics}");
    assert_eq!(node.log().matches("connections are refused").count(), 1, "{}", node.log());
    drop(silent);
    let again = async || ask(&node, ONE, HEALTH).await.starts_with("HTTP/1.1 200 ").then_some(());
    until("places are free again", again).await;
}

#[tokio::test]
async fn a_trusted_proxy_may_have_all_and_beyond_them_everybody_is_told() {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let node = server(&world, "max_connections = 16\ntrusted_proxies = [\"127.0.0.1\"]").await;
    let mut proxied = many(&node, ONE, 15).await;
    let served = ask(&node, ONE, HEALTH).await;
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
    // That one's place is free some time after its client has seen the end.
    let last = async || {
        let mut connection = connect(&node, ONE).await;
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut status = [0; 13];
        timeout(PATIENCE, connection.read_exact(&mut status)).await.expect("it is answered").ok()?;
        (status == *b"HTTP/1.1 200 ").then_some(connection)
    };
    proxied.push(until("there is a place for the last one", last).await);
    // Who sends first and reads later gets to see it.
    let body = vec![b'x'; 3_000_000];
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let refused = ask(&node, OTHER, &[head.as_bytes(), &body].concat()).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains(r#""code":"service_unavailable""#), "{refused}");
    assert!(proxied.iter().all(|connection| !is_closed(connection)));
}

#[tokio::test]
async fn one_address_that_shakes_no_hands_leaves_room_for_another_and_is_closed() {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = format!("tls_cert_file = \"{}\"\ntls_key_file = \"{}\"", certificate.display(), key.display());
    let node = server(&world, &format!("max_connections = 16\n{files}")).await;

    let began = Instant::now();
    let mut half = many(&node, ONE, 15).await;
    // The first bytes of a ClientHello of 508.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4];
    for connection in half.iter_mut().take(4) {
        connection.write_all(&hello).await.unwrap();
    }
    open_ones(&half, 8).await;
    assert!(began.elapsed() < Duration::from_secs(8), "those over the share are closed at once");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let trusted = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([trusted]).local_address(Some(OTHER.parse().unwrap()));
    let url = format!("{}/healthz", node.address.url());
    let answer = timeout(PATIENCE, client.build().unwrap().get(&url).send()).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    open_ones(&half, 0).await;
    let taken = began.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(20)).contains(&taken), "{taken:?}");
}

#[tokio::test]
async fn more_connections_fit_than_the_soft_limit_of_files() {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), maximum: before.maximum }).unwrap();
    let node = server(&world, "max_connections = 1000").await;
    setrlimit(Resource::Nofile, before).unwrap();
    let held = many(&node, ONE, 200).await;
    let served = ask(&node, ONE, HEALTH).await;
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
    assert!(held.iter().all(|connection| !is_closed(connection)));
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;

/// A frame of HTTP/2 (RFC 9113, 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The next frame; `None` once the connection has ended.
pub(crate) async fn next_frame(connection: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    connection.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    connection.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some(Frame { kind: head[3], stream, payload })
}

/// A head of static names and literal values (RFC 7541), `POST` unless it is the end.
fn login(stream: u32, flags: u8) -> Vec<u8> {
    let mut head = vec![0x83, 0x86, 0x04, 15];
    head.extend_from_slice(b"/v1/users/login");
    head.extend_from_slice(&[0x01, 1, b'x']);
    frame(HEADERS, END_HEADERS | flags, stream, &head)
}

/// The client goes on beyond what it is told: a library would wait.
#[tokio::test]
async fn one_connection_has_so_many_streams_and_no_more() {
    const STREAMS: u32 = 64;
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let node = world.node().await;
    let mut connection = connect(&node, ONE).await;
    connection.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let settings = timeout(PATIENCE, next_frame(&mut connection)).await.unwrap().expect("it speaks HTTP/2");
    let most = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("it says how many");
    assert_eq!(most[2..], STREAMS.to_be_bytes());

    // Each waits for its body.
    for number in 0..STREAMS + 10 {
        connection.write_all(&login(2 * number + 1, 0)).await.unwrap();
    }
    let mut refused = Vec::new();
    while refused.len() < 10 {
        let frame = timeout(PATIENCE, next_frame(&mut connection)).await.unwrap().expect("the connection goes on");
        assert_ne!(frame.kind, HEADERS, "nothing is answered yet");
        if frame.kind == RST_STREAM {
            assert_eq!(frame.payload, REFUSED_STREAM.to_be_bytes());
            refused.push(frame.stream);
        }
    }
    assert_eq!(refused, (STREAMS..STREAMS + 10).map(|number| 2 * number + 1).collect::<Vec<_>>());
    let served = ask(&node, ONE, HEALTH).await;
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");

    // The first one's end makes room for one more.
    connection.write_all(&frame(DATA, END_STREAM, 1, b"{}")).await.unwrap();
    while let Some(frame) = timeout(PATIENCE, next_frame(&mut connection)).await.unwrap() {
        if frame.kind == DATA && frame.stream == 1 {
            break;
        }
    }
    let next = 2 * (STREAMS + 10) + 1;
    connection.write_all(&login(next, END_STREAM)).await.unwrap();
    loop {
        let frame = timeout(PATIENCE, next_frame(&mut connection)).await.unwrap().expect("the connection goes on");
        assert!(frame.kind != RST_STREAM, "it has room");
        if frame.kind == HEADERS && frame.stream == next {
            break;
        }
    }
}

#[tokio::test]
async fn an_http2_client_that_is_gone_without_a_word_is_let_go() {
    let world = World::new(Backend::Sqlite, Settings::default()).await;
    let node = world.node().await;
    let mut connection = connect(&node, ONE).await;
    connection.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let mut was_asked = false;
    while let Some(frame) = timeout(2 * PATIENCE, next_frame(&mut connection)).await.expect("it is closed in time") {
        was_asked |= frame.kind == PING;
    }
    assert!(was_asked);
}
