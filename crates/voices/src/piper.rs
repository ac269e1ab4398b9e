//! Holds: a Piper voice: a network that makes sound of phonemes, with the description beside it.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rten::{Model, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::{NdTensor, Tensor, prelude::*};
use serde::Deserialize;

use crate::{
    chunk::Chunk,
    ids::{self, PhonemeIds},
    program::{Espeak, ProgramError},
    stretch::stretch,
    text::Clause,
};

/// Bytes of a description; they have about five thousand, and a hundred thousand with many speakers.
const MAX_DESCRIPTION: u64 = 4 * 1024 * 1024;

/// Phonemes that are made sound of at once, at speed 1: some twenty seconds, whose intermediate results take a hundred
/// megabytes. Slower speech has proportionally fewer.
const MAX_PHONEMES: usize = 240;

/// The fastest that a network speaks well: it gives each phoneme a whole number of steps, and at least one. Above, what it
/// says is shortened.
const FASTEST: f32 = 2.0;

/// Samples a second that a description may name.
const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 8_000..=96_000;

/// Why a voice could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file of it could not be read.
    #[error("{} could not be read; a Piper voice is NAME.onnx with NAME.onnx.json beside it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The description is not one of Piper's.
    #[error("{} does not describe a Piper voice", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The description says something that cannot be used.
    #[error("{}: {what}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it says.
        what: &'static str,
    },
    /// The network could not be loaded.
    #[error("{} is no network of a Piper voice", path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[derive(Deserialize)]
struct Description {
    audio: Audio,
    espeak: Language,
    #[serde(default)]
    inference: Inference,
    phoneme_type: Option<String>,
    phoneme_id_map: HashMap<String, Vec<i32>>,
    #[serde(default)]
    num_speakers: u32,
    #[serde(default)]
    speaker_id_map: BTreeMap<String, i32>,
}

#[derive(Deserialize)]
struct Audio {
    sample_rate: u32,
}

#[derive(Deserialize)]
struct Language {
    voice: String,
}

/// Piper's own values where the description has none.
#[derive(Clone, Copy, Deserialize)]
#[serde(default)]
struct Inference {
    noise_scale: f32,
    length_scale: f32,
    noise_w: f32,
}

impl Default for Inference {
    fn default() -> Self {
        Self { noise_scale: 0.667, length_scale: 1.0, noise_w: 0.8 }
    }
}

/// A loaded voice.
pub(crate) struct Piper {
    model: Model,
    nodes: Nodes,
    /// Shared by all requests: each computes at once what one thread is given.
    threads: Arc<ThreadPool>,
    ids: PhonemeIds,
    language: String,
    sample_rate: u32,
    inference: Inference,
    speakers: BTreeMap<String, i32>,
}

struct Nodes {
    input: NodeId,
    lengths: NodeId,
    scales: NodeId,
    /// In voices of several speakers alone.
    speaker: Option<NodeId>,
    output: NodeId,
}

impl Piper {
    /// Loads the network and its description, `.json` appended to its name.
    pub(crate) fn load(path: &Path, threads: usize) -> Result<Self, LoadError> {
        let mut beside = OsString::from(path);
        beside.push(".json");
        let beside = PathBuf::from(beside);
        let described = describe(&beside)?;
        let unusable = |what| LoadError::Unusable { path: beside.clone(), what };
        if described.phoneme_type.as_deref().is_some_and(|kind| kind != "espeak") {
            return Err(unusable("phoneme_type is not `espeak`; other kinds of phonemes are not known"));
        }
        if !SAMPLE_RATES.contains(&described.audio.sample_rate) {
            return Err(unusable("audio.sample_rate is not between 8000 and 96000"));
        }
        let ids = PhonemeIds::new(described.phoneme_id_map)
            .ok_or_else(|| unusable("phoneme_id_map lacks one of the marks `_`, `^` and `$`"))?;
        let network = |source| LoadError::Network { path: path.to_owned(), source };
        File::open(path).map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
        let model = Model::load_file(path).map_err(|error| network(error.into()))?;
        let node = |name| model.node_id(name).map_err(|error| network(error.into()));
        let speaker = if described.num_speakers > 1 { Some(node("sid")?) } else { None };
        let nodes = Nodes {
            input: node("input")?,
            lengths: node("input_lengths")?,
            scales: node("scales")?,
            speaker,
            output: node("output")?,
        };
        Ok(Self {
            model,
            nodes,
            threads: Arc::new(ThreadPool::with_num_threads(threads.max(1))),
            ids,
            language: described.espeak.voice,
            sample_rate: described.audio.sample_rate,
            inference: described.inference,
            speakers: described.speaker_id_map,
        })
    }

    /// The names of its speakers; none where it has only one.
    pub(crate) fn speakers(&self) -> impl Iterator<Item = &str> {
        self.speakers.keys().map(String::as_str).filter(|_| self.nodes.speaker.is_some())
    }

    /// The number of a speaker; of no name, the first one's.
    pub(crate) fn speaker(&self, name: Option<&str>) -> Option<i32> {
        match name {
            Some(name) => self.speakers.get(name).copied().filter(|_| self.nodes.speaker.is_some()),
            None => Some(0),
        }
    }

    /// The phonemes of an utterance with its pauses, in pieces that are made sound of at once.
    pub(crate) fn pronounce(
        &self,
        espeak: &Espeak,
        clauses: &[Clause],
        speed: f32,
    ) -> Result<Vec<Vec<char>>, ProgramError> {
        let mut phonemes = Vec::new();
        for clause in clauses {
            if !phonemes.is_empty() {
                phonemes.push(' ');
            }
            phonemes.extend(ids::phonemes(&espeak.phonemes(&self.language, &clause.text)?));
            phonemes.extend(clause.end.filter(|end| self.ids.knows(*end)));
        }
        let most = (MAX_PHONEMES as f32 * speed.min(1.0)) as usize;
        Ok(ids::pieces(&phonemes, most))
    }

    /// Makes sound of phonemes; the same ones sound a little different each time.
    pub(crate) fn sound(&self, phonemes: &[char], speaker: i32, speed: f32) -> Result<Chunk, rten::RunError> {
        let ids = self.ids.encode(phonemes);
        let Inference { noise_scale, length_scale, noise_w } = self.inference;
        let lengths = NdTensor::from_data([1], vec![i32::try_from(ids.len()).unwrap_or(i32::MAX)]);
        let scales = NdTensor::from_data([3], vec![noise_scale, length_scale / speed.min(FASTEST), noise_w]);
        let mut inputs: Vec<(NodeId, ValueOrView<'_>)> = vec![
            (self.nodes.input, NdTensor::from_data([1, ids.len()], ids).into()),
            (self.nodes.lengths, lengths.into()),
            (self.nodes.scales, scales.into()),
        ];
        if let Some(node) = self.nodes.speaker {
            inputs.push((node, NdTensor::from_data([1], vec![speaker]).into()));
        }
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(&self.threads)));
        let outputs = self.model.run(inputs, &[self.nodes.output], Some(options))?;
        let samples: Vec<f32> = outputs
            .into_iter()
            .next()
            .and_then(|output| Tensor::<f32>::try_from(output).ok())
            .map(|samples| samples.to_vec())
            .unwrap_or_default();
        // Saturates at the ends of i16.
        let pcm: Vec<u8> =
            samples.iter().flat_map(|sample| ((sample * f32::from(i16::MAX)) as i16).to_le_bytes()).collect();
        let pcm = if speed > FASTEST { stretch(&pcm, FASTEST / speed, self.sample_rate) } else { pcm };
        Ok(Chunk { sample_rate: self.sample_rate, pcm })
    }
}

fn describe(path: &Path) -> Result<Description, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = Vec::new();
    file.take(MAX_DESCRIPTION).read_to_end(&mut text).map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|source| LoadError::Description { path: path.to_owned(), source })
}
