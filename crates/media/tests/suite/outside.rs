//! Holds: somebody else's tools. What is missing fails the test that needs it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// A file in a folder of its own, which goes away with this.
pub struct Kept {
    _folder: TempDir,
    pub file: PathBuf,
}

/// Writes bytes into a file of this name.
pub fn kept(name: &str, bytes: &[u8]) -> Kept {
    let kept = place(name);
    std::fs::write(&kept.file, bytes).unwrap();
    kept
}

/// A file of this name that is not there yet.
pub fn place(name: &str) -> Kept {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join(name);
    Kept { _folder: folder, file }
}

/// Runs ffmpeg, which must neither fail nor say anything.
pub fn ffmpeg(arguments: &[&str]) -> Vec<u8> {
    let output = run(Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-y"]).args(arguments));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "ffmpeg {arguments:?}: {said}");
    output.stdout
}

/// What ffprobe says: `format` and `streams`.
pub fn ffprobe(file: &Path) -> Value {
    let arguments = ["-v", "error", "-count_frames", "-show_format", "-show_streams", "-of", "json"];
    let output = run(Command::new("ffprobe").args(arguments).arg(file));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "ffprobe {}: {said}", file.display());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The file's sound as ffmpeg decodes it: one channel of this rate.
pub fn decoded(file: &Path, rate: u32) -> Vec<i16> {
    let rate = rate.to_string();
    let bytes = ffmpeg(&["-i", file.to_str().unwrap(), "-map", "0:a", "-ac", "1", "-ar", &rate, "-f", "s16le", "-"]);
    bytes.as_chunks::<2>().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect()
}

fn run(command: &mut Command) -> Output {
    command.output().expect("ffmpeg and lame must be installed: scripts/setup.sh test")
}
