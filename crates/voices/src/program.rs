//! Holds: the program espeak-ng: which voices it has, how it says that words are pronounced, and its own speech.
//!
//! Texts go to its standard input, never into its arguments, and voices are only what its own list names.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    child::{self, Bounds, RunError},
    chunk::Chunk,
    stretch::stretch,
    wav,
};

/// The program's usual name.
pub const ESPEAK_NG: &str = "espeak-ng";

/// It takes hundredths of a second for a clause; this is for a machine that swaps.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of its list of voices, which has 130 lines.
const MAX_LIST: usize = 256 * 1024;

/// Bytes of the phonemes of a clause.
const MAX_PHONEMES: usize = 64 * 1024;

/// Bytes of a clause's sound: twelve minutes of it.
const MAX_SOUND: usize = 32 * 1024 * 1024;

/// Words a minute at speed 1, espeak-ng's own.
const WORDS_PER_MINUTE: f32 = 175.0;

/// The fewest words a minute that it goes down to; below, what it says is stretched.
const SLOWEST: f32 = 80.0;

/// Its voice for a request that names none.
const DEFAULT_VOICE: &str = "en-us";

/// Why espeak-ng could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not on this machine.
    #[error(
        "the program {} is not installed; install it, on Debian and Ubuntu by `apt-get install espeak-ng`, on macOS by \
         `brew install espeak-ng`",
        program.display()
    )]
    Missing {
        /// What was looked for.
        program: PathBuf,
    },
    /// A run went wrong.
    #[error("the program {} failed", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// How.
        #[source]
        source: RunError,
    },
    /// It wrote something else than was asked for.
    #[error("the program {} wrote no {what}", program.display())]
    Output {
        /// The program.
        program: PathBuf,
        /// What was expected.
        what: &'static str,
    },
}

/// One of its voices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SystemVoice {
    /// Such as `en-us`.
    language: String,
    /// Such as `English_(America)`.
    name: String,
    /// By which it is asked for: alone unique.
    file: String,
}

/// espeak-ng as it is on this machine.
#[derive(Clone, Debug)]
pub struct Espeak {
    program: PathBuf,
    voices: Vec<SystemVoice>,
}

impl Espeak {
    /// Finds the program, by its path or by its name among the system's programs, and asks for its voices. Blocks for
    /// some hundredths of a second.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] when it is missing or cannot list its voices.
    pub fn find(program: &Path) -> Result<Self, ProgramError> {
        let mut espeak = Self { program: program.to_owned(), voices: Vec::new() };
        let list = espeak.run(&["--voices"], "", MAX_LIST)?;
        espeak.voices = voices(&String::from_utf8_lossy(&list));
        if espeak.voices.is_empty() { Err(espeak.unexpected("list of voices")) } else { Ok(espeak) }
    }

    /// Its languages, each of which is a voice, in its own order.
    pub fn voices(&self) -> impl Iterator<Item = &str> {
        self.voices.iter().map(|voice| voice.language.as_str())
    }

    /// The voice's file for a language or a name as `espeak-ng --voices` lists them; of none, the usual one's.
    pub(crate) fn voice(&self, name: Option<&str>) -> Option<&str> {
        let by = |pick: fn(&SystemVoice) -> &String, name: &str| {
            self.voices.iter().find(|voice| pick(voice).eq_ignore_ascii_case(name))
        };
        let found = match name {
            Some(name) => by(|voice| &voice.language, name).or_else(|| by(|voice| &voice.name, name)),
            None => by(|voice| &voice.language, DEFAULT_VOICE).or(self.voices.first()),
        };
        found.map(|voice| voice.file.as_str())
    }

    /// How a clause is pronounced, in the International Phonetic Alphabet, by the rules of a language of
    /// `espeak-ng --voices`.
    pub(crate) fn phonemes(&self, language: &str, text: &str) -> Result<String, ProgramError> {
        let arguments = ["-q", "-b", "1", "--ipa", "--stdin", "-v", language];
        let output = self.run(&arguments, text, MAX_PHONEMES)?;
        String::from_utf8(output).map_err(|_| self.unexpected("phonemes"))
    }

    /// A clause in the voice with this file. `speed` is 0.25 to 4.
    pub(crate) fn say(&self, file: &str, text: &str, speed: f32) -> Result<Chunk, ProgramError> {
        let wanted = WORDS_PER_MINUTE * speed;
        let words = format!("{:.0}", wanted.max(SLOWEST));
        let output = self.run(&["-b", "1", "--stdin", "--stdout", "-s", &words, "-v", file], text, MAX_SOUND)?;
        let (sample_rate, samples) = wav::parse(&output).ok_or_else(|| self.unexpected("sound"))?;
        let pcm = if wanted < SLOWEST { stretch(samples, SLOWEST / wanted, sample_rate) } else { samples.to_vec() };
        Ok(Chunk { sample_rate, pcm })
    }

    fn run(&self, arguments: &[&str], input: &str, output: usize) -> Result<Vec<u8>, ProgramError> {
        let program = self.program.clone();
        child::run(&self.program, arguments, input.as_bytes(), Bounds { time: PATIENCE, output }).map_err(|source| {
            match source {
                RunError::Io(error) if error.kind() == io::ErrorKind::NotFound => ProgramError::Missing { program },
                source => ProgramError::Run { program, source },
            }
        })
    }

    fn unexpected(&self, what: &'static str) -> ProgramError {
        ProgramError::Output { program: self.program.clone(), what }
    }
}

/// The lines below the heading: priority, language, age and gender, name, file.
fn voices(list: &str) -> Vec<SystemVoice> {
    let voice = |line: &str| {
        let mut columns = line.split_whitespace().map(str::to_owned);
        let (language, name, file) = (columns.nth(1)?, columns.nth(1)?, columns.next()?);
        Some(SystemVoice { language, name, file })
    };
    list.lines().skip(1).filter_map(voice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_voices_is_read() {
        let list = "Pty Language       Age/Gender VoiceName          File                 Other Languages\n \
                    5  af              --/M      Afrikaans          gmw/af               \n \
                    2  en-us           --/M      English_(America)  gmw/en-US            (en 3)\nnonsense\n";
        let espeak = Espeak { program: PathBuf::new(), voices: voices(list) };
        assert_eq!(espeak.voices().collect::<Vec<_>>(), ["af", "en-us"]);
        assert_eq!(espeak.voice(None), Some("gmw/en-US"));
        assert_eq!(espeak.voice(Some("afrikaans")), Some("gmw/af"));
        assert_eq!((espeak.voice(Some("gmw/af")), espeak.voice(Some("--path=/"))), (None, None));
    }

    #[test]
    fn a_missing_program_says_what_to_install() {
        let error = Espeak::find(Path::new("/nonexistent/espeak-ng")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/espeak-ng") && error.contains("apt-get install espeak-ng"), "{error}");
        assert!(matches!(Espeak::find(Path::new("true")), Err(ProgramError::Output { .. })));
    }
}
