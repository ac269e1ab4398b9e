//! Real speech: by the program espeak-ng, and by a Piper voice where its files are there.
#![expect(clippy::unwrap_used, reason = "clippy knows test functions, but not the helpers of an integration test")]

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use batchin_voices::{Ask, AskError, Chunk, ESPEAK_NG, Espeak, LoadError, MAX_CHARS, Voice};

/// Ten words that take espeak-ng and joe about four seconds.
const TEXT: &str = "The quick brown fox jumps over the lazy dog, and the batch job finished early today.";

fn espeak() -> Espeak {
    Espeak::find(Path::new(ESPEAK_NG)).unwrap()
}

/// The voice's file; `batchin models pull piper-en-us-joe` fetches it. Its source may vanish, so that it may be missing.
fn joe() -> Option<PathBuf> {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../data/models");
    let folder = std::env::var_os("BATCHIN_TEST_MODELS").map_or_else(default, PathBuf::from);
    let file = folder.join("piper-en-us-joe.onnx");
    file.exists().then_some(file)
}

/// Each voice that is here, with its name.
fn voices() -> Vec<(&'static str, Arc<Voice>)> {
    let piper = joe().map(|file| ("piper", Arc::new(Voice::piper(&file, espeak(), 1).unwrap())));
    [("espeak-ng", Arc::new(Voice::espeak(espeak())))].into_iter().chain(piper).collect()
}

fn ask(text: &str) -> Ask {
    Ask { text: text.to_owned(), voice: None, speed: 1.0 }
}

fn say(voice: &Arc<Voice>, ask: &Ask) -> Vec<Chunk> {
    voice.say(ask).unwrap().map(Result::unwrap).collect()
}

fn seconds(chunks: &[Chunk]) -> f32 {
    chunks.iter().map(|chunk| chunk.pcm.len() as f32 / 2.0 / chunk.sample_rate as f32).sum()
}

fn samples(chunks: &[Chunk]) -> Vec<i16> {
    let pcm = chunks.iter().flat_map(|chunk| chunk.pcm.as_chunks::<2>().0);
    pcm.map(|bytes| i16::from_le_bytes(*bytes)).collect()
}

/// Parts of a second that are loud enough to be heard.
fn heard(chunks: &[Chunk]) -> f32 {
    let samples = samples(chunks);
    let parts: Vec<bool> = samples.chunks(441).map(|part| part.iter().any(|sample| sample.abs() > 500)).collect();
    parts.iter().filter(|is_loud| **is_loud).count() as f32 / parts.len() as f32
}

#[test]
fn a_sentence_lasts_as_long_as_a_person_would_take_and_is_no_silence() {
    for (name, voice) in voices() {
        let said = say(&voice, &ask(TEXT));
        assert!((3.0..8.0).contains(&seconds(&said)), "{name}: {} s", seconds(&said));
        assert!(heard(&said) > 0.5, "{name}: {}", heard(&said));
        let peak = samples(&said).into_iter().map(i16::unsigned_abs).max().unwrap();
        assert!(peak > 4_000, "{name}: {peak}");
        assert!(said.iter().all(|chunk| chunk.sample_rate == 22_050), "{name}");
    }
}

#[test]
fn speed_divides_the_duration() {
    for (name, voice) in voices() {
        let took = |speed| seconds(&say(&voice, &Ask { speed, ..ask("Say this to me slowly or fast") }));
        let usual = took(1.0);
        for speed in [0.25, 0.5, 2.0, 4.0] {
            let ratio = usual / took(speed) / speed;
            assert!((0.75..1.35).contains(&ratio), "{name} at {speed}: {ratio}");
        }
    }
}

#[test]
fn sound_comes_clause_by_clause_before_the_rest_is_made() {
    let text = "This is the first clause of a longer text, and this is the second one of them; and here it ends.";
    for (name, voice) in voices() {
        let whole = say(&voice, &ask(text));
        assert_eq!(whole.len(), 3, "{name}");
        let mut speech = voice.say(&ask(text)).unwrap();
        let first = speech.next().unwrap().unwrap();
        assert!(seconds(&[first]) < seconds(&whole) / 2.0, "{name}");
    }
}

#[test]
fn espeak_speaks_many_languages_and_each_sounds_its_own() {
    let voice = Arc::new(Voice::espeak(espeak()));
    assert!(voice.names().len() > 80 && voice.names().contains(&"de"));
    let said = |name: &str| samples(&say(&voice, &Ask { voice: Some(name.to_owned()), ..ask("Guten Tag, Universum") }));
    assert_ne!(said("de"), said("en-us"));
    assert_eq!(said("de"), said("German"));
    assert_eq!(said("alloy"), said("en-us"), "a name of OpenAI's stands for the usual voice");
}

#[test]
fn what_cannot_be_said_is_refused_before_any_work() {
    for (name, voice) in voices() {
        let refused = |ask: Ask| voice.say(&ask).map(|_| ()).unwrap_err();
        assert_eq!(refused(ask(" \u{0}...\n")), AskError::Empty, "{name}");
        assert_eq!(refused(ask(&"é".repeat(MAX_CHARS + 1))), AskError::TooLong { chars: MAX_CHARS + 1 }, "{name}");
        for speed in [0.24, 4.1, f32::NAN] {
            assert_eq!(refused(Ask { speed, ..ask("a") }), AskError::Speed, "{name}");
        }
        for unknown in ["nobody", "--path=/tmp", "-s9", ""] {
            let error = refused(Ask { voice: Some(unknown.to_owned()), ..ask("a") });
            assert!(matches!(error, AskError::Voice { .. }), "{name}: {error}");
        }
        assert!(voice.say(&ask(&"é".repeat(MAX_CHARS))).is_ok(), "{name}");
    }
}

#[test]
fn no_text_is_taken_for_a_command() {
    for (name, voice) in voices() {
        for text in
            ["--version", "-f /etc/passwd", "a\u{0}b", "\u{1}9sfast", "<speak>hi</speak>", "[[h@loU]]", "\u{feff}hi"]
        {
            let said = say(&voice, &ask(text));
            assert!(heard(&said) > 0.1, "{name}: {text:?}");
        }
    }
}

#[test]
fn digits_without_end_are_said_in_bounded_pieces() {
    for (name, voice) in voices() {
        let mut speech = voice.say(&ask(&"9".repeat(600))).unwrap();
        let first = speech.next().unwrap().unwrap();
        let bound = if name == "piper" { 60.0 } else { 400.0 };
        assert!(seconds(&[first]) < bound, "{name}");
    }
}

#[test]
fn files_that_are_no_voice_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.onnx");
    let load = || Voice::piper(&file, espeak(), 1).map(|_| ()).unwrap_err();
    assert!(matches!(load(), LoadError::Unreadable { path, .. } if path.ends_with("a.onnx.json")));
    let describe = |text: &str| std::fs::write(folder.path().join("a.onnx.json"), text).unwrap();
    describe("{}");
    assert!(matches!(load(), LoadError::Description { .. }));
    let described = |rate: u32, kind: &str, map: &str| {
        format!(
            r#"{{"audio": {{"sample_rate": {rate}}}, "espeak": {{"voice": "en-us"}}, "phoneme_type": "{kind}", "phoneme_id_map": {map}}}"#
        )
    };
    let map = r#"{"_": [0], "^": [1], "$": [2]}"#;
    for bad in [described(1, "espeak", map), described(22_050, "text", map), described(22_050, "espeak", "{}")] {
        describe(&bad);
        assert!(matches!(load(), LoadError::Unusable { .. }), "{bad}");
    }
    describe(&described(22_050, "espeak", map));
    assert!(matches!(load(), LoadError::Unreadable { path, .. } if path.ends_with("a.onnx")));
    std::fs::write(&file, "not a network").unwrap();
    assert!(matches!(load(), LoadError::Network { .. }));
}
