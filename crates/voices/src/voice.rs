//! Holds: what can be asked to speak, what it is asked, and the sound that comes, a piece at a time.

use std::{collections::VecDeque, path::Path, sync::Arc};

use crate::{
    chunk::Chunk,
    piper::{LoadError, Piper},
    program::{Espeak, ProgramError},
    text::{self, Clause, MAX_CHARS},
};

/// The slowest that can be asked for, as a factor on the voice's own speed: OpenAI's bound.
pub const MIN_SPEED: f32 = 0.25;

/// The fastest: OpenAI's bound.
pub const MAX_SPEED: f32 = 4.0;

/// What clients of OpenAI name, who must name something. Here they mean the model's own voice.
const STAND_INS: [&str; 14] = [
    "default", "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer",
    "verse",
];

/// What is to be said, and how.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The text, at most [`MAX_CHARS`] characters.
    pub text: String,
    /// A name that [`Voice::names`] gives, or one of OpenAI's voices, which stands for the usual one, as does none.
    pub voice: Option<String>,
    /// A factor on the usual speed, [`MIN_SPEED`] to [`MAX_SPEED`].
    pub speed: f32,
}

/// Why something cannot be said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no word in the text.
    #[error("the text has no word that could be said")]
    Empty,
    /// The text is too long.
    #[error("the text has {chars} characters, more than {MAX_CHARS}; split it")]
    TooLong {
        /// Its length.
        chars: usize,
    },
    /// The speed is out of bounds.
    #[error("the speed must be between {MIN_SPEED} and {MAX_SPEED}")]
    Speed,
    /// There is no such voice.
    #[error("there is no such voice; {known}")]
    Voice {
        /// The voices that there are, in words.
        known: String,
    },
}

/// Why speech broke off.
#[derive(Debug, thiserror::Error)]
pub enum SpeechError {
    /// espeak-ng failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The network could not be computed.
    #[error("the network of the voice could not be computed")]
    Network(#[from] rten::RunError),
}

/// Something that speaks. Computes only while its [`Speech`] is asked for more.
pub struct Voice {
    espeak: Espeak,
    /// Without it, espeak-ng itself speaks.
    piper: Option<Piper>,
}

impl Voice {
    /// A Piper voice: a `.onnx` file with its `.onnx.json` beside it. `threads` compute it, for all who ask together.
    /// Blocks while it loads, for some tenths of a second.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when the files are not there, or not of a voice.
    pub fn piper(path: &Path, espeak: Espeak, threads: usize) -> Result<Self, LoadError> {
        Ok(Self { espeak, piper: Some(Piper::load(path, threads)?) })
    }

    /// espeak-ng itself, in each of its languages.
    pub fn espeak(espeak: Espeak) -> Self {
        Self { espeak, piper: None }
    }

    /// The voices that it can be asked for by name: a network's speakers where it has several, or espeak-ng's languages.
    pub fn names(&self) -> Vec<&str> {
        match &self.piper {
            Some(piper) => piper.speakers().collect(),
            None => self.espeak.voices().collect(),
        }
    }

    /// Begins to say something. Nothing is computed before the first piece is asked for.
    ///
    /// # Errors
    ///
    /// [`AskError`] when it cannot be said.
    pub fn say(self: &Arc<Self>, ask: &Ask) -> Result<Speech, AskError> {
        let chars = ask.text.chars().count();
        if chars > MAX_CHARS {
            return Err(AskError::TooLong { chars });
        }
        if !(MIN_SPEED..=MAX_SPEED).contains(&ask.speed) {
            return Err(AskError::Speed);
        }
        let named = ask.voice.as_deref().filter(|name| !STAND_INS.contains(name));
        let speaker = self.speaker(named).ok_or_else(|| AskError::Voice { known: self.known() })?;
        let utterances = text::utterances(&ask.text);
        if utterances.is_empty() {
            return Err(AskError::Empty);
        }
        let (pieces, speed) = (VecDeque::new(), ask.speed);
        Ok(Speech { voice: Arc::clone(self), speaker, speed, utterances: utterances.into(), pieces })
    }

    fn speaker(&self, name: Option<&str>) -> Option<Speaker> {
        match &self.piper {
            Some(piper) => piper.speaker(name).map(Speaker::Number),
            None => self.espeak.voice(name).map(|file| Speaker::File(file.to_owned())),
        }
    }

    fn known(&self) -> String {
        match self.names().as_slice() {
            [] => "this model has one, which needs no name".to_owned(),
            names => format!("known are {}", names.join(", ")),
        }
    }
}

/// Whom a voice speaks as.
enum Speaker {
    /// A speaker of a network.
    Number(i32),
    /// A voice file of espeak-ng.
    File(String),
}

/// Sound as it is made, a clause or a few short ones at a time. Ends after an error. Whoever drops it stops the work.
pub struct Speech {
    voice: Arc<Voice>,
    speaker: Speaker,
    speed: f32,
    utterances: VecDeque<Vec<Clause>>,
    /// Phonemes of the utterance under way.
    pieces: VecDeque<Vec<char>>,
}

impl Speech {
    /// One step; no chunk where an utterance has no phoneme.
    fn step(&mut self, utterance: &[Clause]) -> Result<Option<Chunk>, SpeechError> {
        match (&self.voice.piper, &self.speaker) {
            (Some(piper), Speaker::Number(_)) => {
                self.pieces = piper.pronounce(&self.voice.espeak, utterance, self.speed)?.into();
                self.piece()
            }
            (None, Speaker::File(file)) => {
                let text: Vec<&str> = utterance.iter().map(|clause| clause.text.as_str()).collect();
                Ok(Some(self.voice.espeak.say(file, &text.join(" "), self.speed)?))
            }
            // `Voice::speaker` gives each its own.
            (Some(_), Speaker::File(_)) | (None, Speaker::Number(_)) => Ok(None),
        }
    }

    fn piece(&mut self) -> Result<Option<Chunk>, SpeechError> {
        let (Some(piper), Speaker::Number(speaker)) = (&self.voice.piper, &self.speaker) else { return Ok(None) };
        let Some(phonemes) = self.pieces.pop_front() else { return Ok(None) };
        Ok(Some(piper.sound(&phonemes, *speaker, self.speed)?))
    }
}

impl Iterator for Speech {
    type Item = Result<Chunk, SpeechError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let made = if self.pieces.is_empty() {
                let utterance = self.utterances.pop_front()?;
                self.step(&utterance)
            } else {
                self.piece()
            };
            match made {
                Ok(Some(chunk)) if !chunk.pcm.is_empty() => return Some(Ok(chunk)),
                Ok(_) => {}
                Err(error) => {
                    self.utterances.clear();
                    self.pieces.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}
