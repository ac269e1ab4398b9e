//! Holds: captions: what is said when, as SubRip and WebVTT write it.

use std::fmt::Write;

use super::Segment;

/// What is shown from one time to another, in milliseconds.
pub(super) struct Cue {
    from: u64,
    to: u64,
    text: String,
}

/// A cue for each segment; one for the whole sound where the server tells none.
pub(super) fn cues(segments: Option<Vec<Segment>>, text: String, sound_ms: u64) -> Vec<Cue> {
    let cue = |segment: Segment| Cue { from: ms(segment.start), to: ms(segment.end), text: shown(&segment.text) };
    let mut cues: Vec<Cue> = segments.unwrap_or_default().into_iter().map(cue).collect();
    if cues.is_empty() && !text.trim().is_empty() {
        cues.push(Cue { from: 0, to: sound_ms, text: shown(&text) });
    }
    cues
}

pub(super) fn srt(cues: &[Cue]) -> String {
    let mut out = String::new();
    for (index, cue) in cues.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}\n{} --> {}\n{}\n", index + 1, time(cue.from, ','), time(cue.to, ','), cue.text);
    }
    out
}

pub(super) fn vtt(cues: &[Cue]) -> String {
    let mut out = "WEBVTT\n\n".to_owned();
    for cue in cues {
        let _ = writeln!(out, "{} --> {}\n{}\n", time(cue.from, '.'), time(cue.to, '.'), cue.text);
    }
    out
}

/// Before the sound's beginning is at its beginning.
fn ms(seconds: f64) -> u64 {
    // A cast of a float ends at the bounds of the integer.
    (seconds * 1_000.0).round() as u64
}

/// A blank line would end the cue, and an arrow would be read as times.
fn shown(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("\n").replace("-->", "->")
}

fn time(ms: u64, point: char) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{point}{:03}", ms % 1_000)
}
