//! Holds: the programs that this machine has for formats which we do not make ourselves.
//!
//! LAME is under the LGPL and AAC is nobody's to bundle, so both are found at run time and never linked.

use std::path::{Path, PathBuf};

use crate::format::SoundFormat;

/// Which programs were found. Looked for once, so what is installed later counts after a restart.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    lame: Option<PathBuf>,
    ffmpeg: Option<PathBuf>,
}

/// A program, with where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program<'a> {
    Lame(&'a Path),
    Ffmpeg(&'a Path),
}

impl Programs {
    /// Those that lie in the folders of `PATH`.
    pub fn find() -> Self {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let find = |name: &str| {
            std::env::split_paths(&folders)
                .filter(|folder| folder.is_absolute())
                .map(|folder| folder.join(name))
                .find(|file| is_executable(file))
        };
        Self { lame: find("lame"), ffmpeg: find("ffmpeg") }
    }

    /// A machine that has none.
    pub const fn none() -> Self {
        Self { lame: None, ffmpeg: None }
    }

    /// The same machine without LAME.
    #[must_use]
    pub fn without_lame(self) -> Self {
        Self { lame: None, ..self }
    }

    /// The same machine with this file as its `ffmpeg`.
    #[must_use]
    pub fn with_ffmpeg(self, file: PathBuf) -> Self {
        Self { ffmpeg: Some(file), ..self }
    }

    /// Which one makes this format; `None` where none can, or none is needed.
    pub(crate) fn maker(&self, format: SoundFormat) -> Option<Program<'_>> {
        let ffmpeg = || self.ffmpeg.as_deref().map(Program::Ffmpeg);
        match format {
            SoundFormat::Mp3 => self.lame.as_deref().map(Program::Lame).or_else(ffmpeg),
            SoundFormat::Aac => ffmpeg(),
            SoundFormat::Opus | SoundFormat::Flac | SoundFormat::Wav | SoundFormat::Pcm => None,
        }
    }
}

/// The formats that can be made here, in the order of [`SoundFormat::ALL`].
pub fn formats(programs: &Programs) -> Vec<SoundFormat> {
    let can_be_made = |format: &SoundFormat| match format {
        SoundFormat::Mp3 | SoundFormat::Aac => programs.maker(*format).is_some(),
        SoundFormat::Opus | SoundFormat::Flac | SoundFormat::Wav | SoundFormat::Pcm => true,
    };
    SoundFormat::ALL.into_iter().filter(can_be_made).collect()
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file()
}
