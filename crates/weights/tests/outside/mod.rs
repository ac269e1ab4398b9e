//! Fakes of the outside world: a web server that behaves as a script says, and wheels made on the spot.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use zip::{ZipWriter, write::SimpleFileOptions};

/// One request as the fake server saw it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub path: String,
    pub range: Option<u64>,
    pub authorization: Option<String>,
}

/// What the fake server does with a request.
pub enum Act {
    /// Answers in full, honouring a range.
    Serve(Vec<u8>),
    /// Answers in full, as if it had not heard of ranges.
    ServeFromStart(Vec<u8>),
    /// Announces the rest of the body, sends this many bytes of it and closes.
    BreakAfter(Vec<u8>, usize),
    /// Announces the rest of the body, sends this many bytes of it and then nothing, with the connection open.
    StallAfter(Vec<u8>, usize),
    /// Answers with a status and no body.
    Status(u16),
    /// Says nothing, with the connection open.
    Silence,
}

/// A fake web server on this machine. Lives as long as the test process.
pub struct FakeServer {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl FakeServer {
    /// Starts one; `script` decides by the request and how many came before it.
    pub fn start(script: impl Fn(&Seen, usize) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, script) = (Arc::clone(&seen), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, script) = (Arc::clone(&log), Arc::clone(&script));
                thread::spawn(move || serve(stream.unwrap(), &log, &*script));
            }
        });
        Self { url, seen }
    }

    /// One that always serves this body.
    pub fn serving(body: &[u8]) -> Self {
        let body = body.to_vec();
        Self::start(move |_, _| Act::Serve(body.clone()))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// An address where nothing listens.
pub fn dead_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Seen>>, script: &dyn Fn(&Seen, usize) -> Act) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let mut seen = Seen { path: first.split(' ').nth(1).unwrap().to_owned(), ..Seen::default() };
    for line in lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        match line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value)) {
            Some((name, value)) if name == "range" => {
                seen.range = value.strip_prefix("bytes=").and_then(|v| v.strip_suffix('-')).map(|v| v.parse().unwrap());
            }
            Some((name, value)) if name == "authorization" => seen.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let before = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    act(stream, seen.range.unwrap_or(0) as usize, script(&seen, before));
}

// A client that hangs up early is part of the play, so failed writes are ignored.
fn act(mut stream: TcpStream, from: usize, act: Act) {
    let head = |status: u16, length: usize, range: &str| {
        format!(
            "HTTP/1.1 {status} Fake\r\ncontent-length: {length}\r\ncontent-type: text/html\r\nconnection: close\r\n{range}\r\n"
        )
    };
    let partial = |body: &[u8]| match from {
        0 => head(200, body.len(), ""),
        _ => {
            let range = format!("content-range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
            head(206, body.len() - from, &range)
        }
    };
    let (head, body) = match &act {
        Act::Serve(body) => (partial(body), &body[from..]),
        Act::ServeFromStart(body) => (head(200, body.len(), ""), &body[..]),
        Act::BreakAfter(body, n) | Act::StallAfter(body, n) => (partial(body), &body[from..(from + n).min(body.len())]),
        Act::Status(status) => (head(*status, 0, ""), &[][..]),
        Act::Silence => (String::new(), &[][..]),
    };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
    if matches!(act, Act::StallAfter(..) | Act::Silence) {
        // Until the client hangs up.
        let _ = std::io::Read::read(&mut stream, &mut [0]);
    }
}

/// A wheel of a package with this name, version 1.0, that holds these files.
pub fn wheel(package: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let info = format!("{}-1.0.dist-info", package.replace('-', "_"));
    let metadata = format!("Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n");
    let tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let own = [
        (format!("{info}/METADATA"), metadata.as_bytes()),
        (format!("{info}/WHEEL"), tag.as_bytes()),
        (format!("{info}/RECORD"), b""),
    ];
    let given = files.iter().map(|(name, content)| ((*name).to_owned(), *content));
    for (name, content) in given.chain(own) {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A package index that has these wheels, by package name.
pub fn fake_index(wheels: Vec<(String, Vec<u8>)>) -> FakeServer {
    FakeServer::start(move |request, _| {
        let find =
            |prefix: &str| wheels.iter().find(|(name, _)| request.path.starts_with(&format!("{prefix}/{name}/")));
        if let Some((name, _)) = find("/simple") {
            let file = format!("{}-1.0-py3-none-any.whl", name.replace('-', "_"));
            Act::ServeFromStart(format!("<html><a href=\"/files/{name}/{file}\">{file}</a></html>").into_bytes())
        } else if let Some((_, wheel)) = find("/files") {
            Act::ServeFromStart(wheel.clone())
        } else {
            Act::Status(404)
        }
    })
}
