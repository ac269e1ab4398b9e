//! Holds: what goes to each kind of server, and what leaves of its answer, as transcripts that a person can read.
//!
//! Each file in `tests/golden/KIND/` is one. They were written by hand from the formats of those servers, and are played by
//! a server that answers by bytes. To add one, write what the client asks and what the server answers, and run this test: it
//! fails, says where it wrote the file with what was found in the other sections, and that is copied once it has been read.
//!
//! ```text
//! # What it shows.
//! settings: class 2, fim qwen
//!
//! == client asks POST /v1/chat/completions
//! {"model": "m", "messages": […]}
//!
//! == server gets POST /v1/chat/completions
//! {"model": "up", "messages": […]}
//!
//! == server answers 200 application/json
//! {"choices": […]}
//!
//! == client gets 200
//! {"id": "id_1", "choices": […]}
//! ```
//!
//! JSON is compared as JSON. Headers stand before a body, `base64: ` before one that is no text. A server that is asked
//! again has its two sections again; a client that asks again begins the next exchange with the same server. `counted:` has
//! the tokens of prompt and completion by which is billed. Where nothing is answered, the client gets `nothing:` with why
//! and who is asked next, or what it is told of its request. `settings:` are `class` (a batch's, to servers with
//! priorities), `held` (tokens), `fim` (as in a model's configuration), `stream_options` and `like` (what is said in the
//! recording of the client's own voice). Films are asked for by `POST /v1/videos`, and `GET` and `DELETE` of the server's id.

mod transcript;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_domain::{CallKind, Frame};
use batchin_openai::{GivenPictures, Peek, Usage, Wanted, peek};
use batchin_sim::{Then, WireRequest, WireServer, Written};
use batchin_tasks::Tasks;
use batchin_upstream::{
    Answer, Asker, Call, CallError, Carried, Content, Events, FilmAsk, FilmState, Fim, Fleet, Kind, Replica, Retry,
    Sound, Speech, Upload, UpstreamConfig, Voice,
};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::world::PATIENCE;
use transcript::{Exchange, Part, Transcript};

/// What the server calls the model that clients call `m`.
const UPSTREAM_MODEL: &str = "up";

#[tokio::test]
async fn every_transcript_is_played_as_it_is_written() {
    let mut wrong = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    // What is sent by a workflow is the operator's: the API's tests play it.
    for kind in Kind::ALL.iter().filter(|kind| !kind.can.is_empty() && !kind.needs_workflow) {
        let files = files(&folder.join(kind.name));
        assert!(!files.is_empty(), "{kind} has no transcript in {}", folder.display());
        for file in files {
            let expected = Transcript::read(&std::fs::read_to_string(&file).unwrap());
            let found = tokio::time::timeout(PATIENCE, play(*kind, &expected)).await;
            let found = found.unwrap_or_else(|_| panic!("{} hangs", file.display()));
            let same = expected.exchanges.iter().zip(&found.exchanges).all(|(expected, found)| expected.is(found));
            if !same {
                let beside = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file.strip_prefix(&folder).unwrap());
                std::fs::create_dir_all(beside.parent().unwrap()).unwrap();
                std::fs::write(&beside, found.write()).unwrap();
                wrong.push(format!("diff {} {}", file.display(), beside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "transcripts differ:\n{}", wrong.join("\n"));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()));
    let mut files: Vec<PathBuf> = entries.into_iter().flatten().collect();
    files.sort();
    files
}

/// What comes when the clients' and the servers' parts are played.
async fn play(kind: Kind, written: &Transcript) -> Transcript {
    let answers: VecDeque<Part> =
        written.exchanges.iter().flat_map(|exchange| exchange.answers.iter().cloned()).collect();
    let answers = Arc::new(Mutex::new(answers));
    let server = WireServer::start(move |request| {
        if is_probe(request) {
            return Written::answer(200, "application/json", "{}");
        }
        let answer = answers.lock().unwrap().pop_front();
        answer.map_or_else(
            || Written::answer(500, "text/plain", "the transcript has no answer for this"),
            |part| bytes(&part),
        )
    });
    let server = server.await.unwrap();
    let setting = |name: &str| written.settings.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str());
    let mut config = UpstreamConfig::new("gpu-1", kind, &format!("http://{}/v1", server.address())).unwrap();
    config.priority_enabled = setting("class").is_some();
    config.stream_options = setting("stream_options") != Some("false");
    let fleet = Fleet::new(vec![config], &Tasks::new(), 7).unwrap();
    let replica = fleet.replica("gpu-1").unwrap();
    let mut found =
        Transcript { shows: written.shows.clone(), settings: written.settings.clone(), ..Default::default() };
    let mut before = 0;
    for exchange in &written.exchanges {
        let told = match exchange.client.words() {
            (method, path) if path.starts_with("/v1/videos") => film(&replica, (method, path), &exchange.client).await,
            (_, path) => call(&replica, path, &exchange.client, &setting).await,
        };
        let requests = server.requests();
        let sent = requests[before..].iter().filter(|request| !is_probe(request)).map(Part::of_request).collect();
        before = requests.len();
        found.exchanges.push(Exchange { sent, told, ..exchange.clone() });
    }
    server.stop().await;
    found
}

/// Whether it is a look at the server's health.
fn is_probe(request: &WireRequest) -> bool {
    request.method == "GET" && !request.path.starts_with("/v1/videos")
}

fn bytes(part: &Part) -> Written {
    let (status, content_type) = part.words();
    let named = if content_type.is_empty() { String::new() } else { format!("content-type: {content_type}\r\n") };
    let more: String = part.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let body = part.bytes();
    let head = format!("HTTP/1.1 {status} \r\n{named}{more}content-length: {}\r\n\r\n", body.len());
    Written { bytes: [head.as_bytes(), &body].concat().into(), then: Then::Next }
}

/// A call, with what the gateway works out before it.
async fn call<'a>(replica: &Replica, path: &str, client: &Part, setting: &impl Fn(&str) -> Option<&'a str>) -> Part {
    let kind = CallKind::from_url(path).unwrap_or_else(|| panic!("no call is made at {path}"));
    let body = Bytes::from(client.bytes());
    let peeked = match peek(kind, &body) {
        Ok(peeked) => peeked,
        Err(fault) => return told(&format!("400, and the server is not asked: {}", fault.message), "", None),
    };
    let number = |name: &str| setting(name).map(|text| text.parse().unwrap());
    let sound = kind.hears().then(|| {
        let content = Content::Memory(Bytes::from_static(b"RIFF, a sound"));
        Arc::new(Upload { field: "file", content, name: "sound.wav".to_owned(), content_type: "audio/wav".to_owned() })
    });
    let call = Call {
        kind,
        native: None,
        uploads: sound.into_iter().collect(),
        upstream_model: Some(UPSTREAM_MODEL),
        public_id: "id_1".to_owned(),
        public_model: "m",
        stream: peeked.stream,
        include_usage: peeked.include_usage,
        continuous_usage: peeked.continuous_usage,
        answers: peeked.given * peeked.bound.items.max(1),
        wanted: peeked.wanted,
        tier: None,
        request_id: "req-1".to_owned(),
        class_priority: number("class").map(|class| class as i32),
        max_tokens: None,
        held: number("held"),
        fim: peeked.has_suffix.then(|| setting("fim").map_or(Fim::Usual(None), |word| Fim::named(word).unwrap())),
        speech: speech(&peeked, setting("like")),
        created: 7,
        asker: Asker::default(),
        body,
    };
    match replica.call(call).await {
        Ok(Answer::Whole { status, body, usage, .. }) => told(status.as_str(), &String::from_utf8_lossy(&body), usage),
        Ok(Answer::Events(events)) => streamed(*events).await,
        Ok(Answer::Sound(sound)) => heard(*sound).await,
        Ok(Answer::Pictures(given)) => told("200", &pictures(&given), None),
        Err(error) => failed(&error),
    }
}

fn speech(peeked: &Peek, like: Option<&str>) -> Option<Speech> {
    let Wanted::Sound(spoken) = peeked.wanted else { return None };
    let voice = match (like, &peeked.voice) {
        (Some(words), _) => Voice::Like {
            sound: Bytes::from_static(b"RIFF, a voice"),
            content_type: "audio/wav".to_owned(),
            words: words.to_owned(),
        },
        (None, Some(name)) => Voice::Named(name.clone()),
        (None, None) => Voice::Unsaid,
    };
    Some(Speech { voice, format: spoken.format })
}

/// What the client gets, and by what it is billed.
fn told(line: &str, body: &str, usage: Option<Usage>) -> Part {
    let count = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let counted = usage.map(|usage| format!("{} {}", count(usage.prompt_tokens), count(usage.completion_tokens)));
    let headers = counted.map(|counted| ("counted".to_owned(), counted)).into_iter().collect();
    Part { line: line.to_owned(), headers, body: body.trim_end().to_owned() }
}

async fn streamed(mut events: Events) -> Part {
    let (mut all, mut usage) = (String::new(), None);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                all += std::str::from_utf8(&event.frame).unwrap();
                usage = event.usage.or(usage);
            }
            Err(error) => all += &format!("and then: {error}"),
        }
    }
    told("200 text/event-stream", &all, usage)
}

async fn heard(mut sound: Sound) -> Part {
    let line = match sound.carried() {
        Carried::File(format) => format!("200 {}", format.name()),
        Carried::Samples { rate } => format!("200 samples, {rate} a second"),
    };
    let mut all = Vec::new();
    while let Some(piece) = sound.next().await {
        all.extend_from_slice(&piece.unwrap());
    }
    told(&line, &format!("base64: {}", STANDARD.encode(all)), None)
}

/// What the gateway makes its answer of.
fn pictures(given: &GivenPictures) -> String {
    let one = |picture: &batchin_openai::GivenPicture| json!({ "bytes": STANDARD.encode(&picture.bytes), "revised_prompt": picture.revised_prompt });
    let usage: Option<Value> = given.usage.as_deref().map(|usage| serde_json::from_str(usage).unwrap());
    json!({ "pictures": given.pictures.iter().map(one).collect::<Vec<_>>(), "usage": usage }).to_string()
}

fn failed(error: &CallError) -> Part {
    if let Some(said) = &error.client_error {
        return told(&error.shown_status().to_string(), &said.to_body().to_json(), None);
    }
    let next = match error.retry {
        Retry::OtherReplica => "another server is asked".to_owned(),
        Retry::Later(None) => "another server is asked, or this one later".to_owned(),
        Retry::Later(Some(pause)) => format!("another server is asked, or this one in {} s", pause.as_secs()),
        Retry::Never => "no other server is asked".to_owned(),
    };
    told(&format!("nothing: {error}; {next}"), "", None)
}

async fn film(replica: &Replica, (method, path): (&str, &str), client: &Part) -> Part {
    let job = path.trim_start_matches("/v1/videos").trim_start_matches('/');
    let outcome = match (method, job.strip_suffix("/content")) {
        ("POST", _) => {
            let asked: Value = serde_json::from_str(&client.body).unwrap();
            let of = |member: &str| u32::try_from(asked[member].as_u64().unwrap()).unwrap();
            let ask = FilmAsk {
                prompt: asked["prompt"].as_str().unwrap(),
                upstream_model: UPSTREAM_MODEL,
                public_model: "m",
                seconds: of("seconds"),
                fps: of("fps"),
                frame: Frame { width: of("width"), height: of("height") },
                request_id: "req-1",
                asker: Asker::default(),
            };
            replica.submit_film(&ask).await.map(|begun| format!("begun as {begun}"))
        }
        ("DELETE", _) => replica.leave_film(job).await.map(|()| "left".to_owned()),
        (_, Some(job)) => match replica.film_content(job).await {
            Ok(Some(mut film)) => {
                let mut bytes = Vec::new();
                while let Some(piece) = film.next().await.unwrap() {
                    bytes.extend_from_slice(&piece);
                }
                Ok(format!("a film of {} bytes", bytes.len()))
            }
            Ok(None) => Ok("no film".to_owned()),
            Err(error) => Err(error),
        },
        (_, None) => replica.film_state(job).await.map(|state| match state {
            FilmState::Running { progress } => format!("running, {progress} %"),
            FilmState::Done { ms } => format!("done, {ms:?} ms"),
            FilmState::Failed(said) => format!("failed: {}", said.message),
            FilmState::Lost => "lost".to_owned(),
        }),
    };
    outcome.map_or_else(|error| failed(&error), |said| told(&said, "", None))
}
