//! Holds: the conversion of a BERT checkpoint for sentence embeddings to GGUF, matrices in f16.
//!
//! Does for `BertModel` what llama.cpp's own converter does, without Python. The pooler is left out, as sentence
//! embeddings take the mean over tokens; any other tensor it does not know is an error, never skipped.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter},
    path::Path,
};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::{
    disk::DiskError,
    gguf::{TensorInfo, TensorType, Value, write_head, write_tensor},
};

/// The layer count multiplies nothing here, but a file that claims more is not a sentence encoder.
const MAX_LAYERS: u32 = 256;

/// Why a checkpoint cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file of the checkpoint could not be read, or the result not written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// `config.json` is not that of a BERT model.
    #[error("config.json does not describe a BERT model")]
    Config(#[source] serde_json::Error),
    /// A setting that the conversion has no counterpart for.
    #[error("config.json: {setting} is not supported")]
    Unsupported {
        /// The setting's name.
        setting: &'static str,
    },
    /// `model.safetensors` is damaged.
    #[error("model.safetensors is damaged")]
    Tensors(#[source] safetensors::SafeTensorError),
    /// A tensor that a BERT model does not have.
    #[error("model.safetensors: tensor {name} is not part of a BERT model")]
    UnknownTensor {
        /// Its name.
        name: String,
    },
    /// A tensor in a number format that is not converted.
    #[error("model.safetensors: tensor {name} is in {dtype:?}, not in F32 or F16")]
    Format {
        /// Its name.
        name: String,
        /// The format found.
        dtype: Dtype,
    },
    /// A tensor without which there is no model.
    #[error("model.safetensors: tensor {name} is missing")]
    MissingTensor {
        /// Its GGUF name.
        name: String,
    },
    /// The vocabulary and the embedding table differ in length.
    #[error("vocab.txt has {vocab} tokens, the embedding table {rows}")]
    Vocabulary {
        /// Lines of the vocabulary.
        vocab: usize,
        /// Rows of the table.
        rows: usize,
    },
    /// A token that every BERT vocabulary has.
    #[error("vocab.txt: token {token} is missing")]
    MissingToken {
        /// The token.
        token: &'static str,
    },
}

/// The files of a checkpoint.
pub(crate) struct Checkpoint<'a> {
    pub safetensors: &'a Path,
    pub vocab: &'a Path,
    pub config: &'a Path,
}

#[derive(Deserialize)]
struct Config {
    hidden_act: String,
    hidden_size: u32,
    intermediate_size: u32,
    layer_norm_eps: f32,
    max_position_embeddings: u32,
    #[serde(default = "absolute")]
    position_embedding_type: String,
    num_attention_heads: u32,
    num_hidden_layers: u32,
    type_vocab_size: u32,
}

fn absolute() -> String {
    "absolute".to_owned()
}

/// Writes the checkpoint as GGUF to `out`. Reads the tensors into memory and blocks.
pub(crate) fn convert(from: &Checkpoint<'_>, name: &str, out: &Path) -> Result<(), ConvertError> {
    let config = fs::read(from.config).map_err(DiskError::on("read", from.config))?;
    let config: Config = serde_json::from_slice(&config).map_err(ConvertError::Config)?;
    check(&config)?;
    let vocab = fs::read_to_string(from.vocab).map_err(DiskError::on("read", from.vocab))?;
    let raw = fs::read(from.safetensors).map_err(DiskError::on("read", from.safetensors))?;
    let tensors = tensors(&raw, &config)?;

    let table = tensors.iter().find(|tensor| tensor.info.name == "token_embd.weight");
    let rows = table.and_then(|table| table.info.shape.first()).map_or(0, |rows| *rows as usize);
    let tokens: Vec<&str> = vocab.lines().collect();
    if tokens.len() != rows {
        return Err(ConvertError::Vocabulary { vocab: tokens.len(), rows });
    }
    let mut entries = model_entries(&config, name);
    entries.extend(tokenizer_entries(&config, &tokens)?);
    write(&entries, &tensors, out).map_err(|e| DiskError::on("write", out)(e).into())
}

fn check(config: &Config) -> Result<(), ConvertError> {
    if config.hidden_act != "gelu" {
        return Err(ConvertError::Unsupported { setting: "hidden_act" });
    }
    if config.position_embedding_type != "absolute" {
        return Err(ConvertError::Unsupported { setting: "position_embedding_type" });
    }
    if config.num_hidden_layers > MAX_LAYERS {
        return Err(ConvertError::Unsupported { setting: "num_hidden_layers" });
    }
    Ok(())
}

fn model_entries(config: &Config, name: &str) -> Vec<(&'static str, Value)> {
    const POOL_MEAN: u32 = 1;
    const FILE_TYPE_F16: u32 = 1;
    vec![
        ("general.architecture", Value::String("bert".to_owned())),
        ("general.name", Value::String(name.to_owned())),
        ("bert.context_length", Value::U32(config.max_position_embeddings)),
        ("bert.embedding_length", Value::U32(config.hidden_size)),
        ("bert.feed_forward_length", Value::U32(config.intermediate_size)),
        ("bert.block_count", Value::U32(config.num_hidden_layers)),
        ("bert.attention.head_count", Value::U32(config.num_attention_heads)),
        ("bert.attention.layer_norm_epsilon", Value::F32(config.layer_norm_eps)),
        ("bert.attention.causal", Value::Bool(false)),
        ("bert.pooling_type", Value::U32(POOL_MEAN)),
        ("general.file_type", Value::U32(FILE_TYPE_F16)),
    ]
}

fn tokenizer_entries(config: &Config, tokens: &[&str]) -> Result<Vec<(&'static str, Value)>, ConvertError> {
    let index: HashMap<&str, u32> = tokens.iter().zip(0..).map(|(token, at)| (*token, at)).collect();
    let id =
        |token: &'static str| index.get(token).map(|at| Value::U32(*at)).ok_or(ConvertError::MissingToken { token });
    Ok(vec![
        ("tokenizer.ggml.token_type_count", Value::U32(config.type_vocab_size)),
        ("tokenizer.ggml.model", Value::String("bert".to_owned())),
        // llama.cpp's name for the word-piece pre-tokenizer of BERT's uncased vocabulary.
        ("tokenizer.ggml.pre", Value::String("jina-v2-en".to_owned())),
        ("tokenizer.ggml.tokens", Value::Strings(tokens.iter().map(|token| word_start(token)).collect())),
        ("tokenizer.ggml.token_type", Value::I32s(tokens.iter().map(|token| token_type(token)).collect())),
        ("tokenizer.ggml.unknown_token_id", id("[UNK]")?),
        // The format's own spelling.
        ("tokenizer.ggml.seperator_token_id", id("[SEP]")?),
        ("tokenizer.ggml.padding_token_id", id("[PAD]")?),
        ("tokenizer.ggml.bos_token_id", id("[CLS]")?),
        ("tokenizer.ggml.mask_token_id", id("[MASK]")?),
    ])
}

/// BERT marks the pieces that continue a word, llama.cpp those that begin one.
fn word_start(token: &str) -> String {
    if token.starts_with('[') && token.ends_with(']') {
        token.to_owned()
    } else if let Some(rest) = token.strip_prefix("##") {
        rest.to_owned()
    } else {
        format!("\u{2581}{token}")
    }
}

fn token_type(token: &str) -> i32 {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    match token {
        "[PAD]" | "[UNK]" | "[CLS]" | "[SEP]" | "[MASK]" => CONTROL,
        _ => NORMAL,
    }
}

struct Tensor<'a> {
    info: TensorInfo,
    half: bool,
    data: &'a [u8],
}

impl Tensor<'_> {
    fn numbers(&self) -> Box<dyn Iterator<Item = f32> + '_> {
        if self.half {
            Box::new(self.data.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()))
        } else {
            Box::new(self.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)))
        }
    }
}

fn tensors<'a>(raw: &'a [u8], config: &Config) -> Result<Vec<Tensor<'a>>, ConvertError> {
    let file = SafeTensors::deserialize(raw).map_err(ConvertError::Tensors)?;
    let (_, metadata) = SafeTensors::read_metadata(raw).map_err(ConvertError::Tensors)?;
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        if name == "embeddings.position_ids" || name.starts_with("pooler.") {
            continue;
        }
        let view = file.tensor(&name).map_err(ConvertError::Tensors)?;
        let half = match view.dtype() {
            Dtype::F32 => false,
            Dtype::F16 => true,
            dtype => return Err(ConvertError::Format { name, dtype }),
        };
        let Some(gguf_name) = gguf_name(&name, config.num_hidden_layers) else {
            return Err(ConvertError::UnknownTensor { name });
        };
        let shape: Vec<u64> = view.shape().iter().map(|n| *n as u64).collect();
        let kind = stored_as(&gguf_name, shape.len());
        tensors.push(Tensor { info: TensorInfo { name: gguf_name, shape, kind }, half, data: view.data() });
    }
    complete(&tensors, config.num_hidden_layers)?;
    Ok(tensors)
}

/// Tables that are added and not multiplied stay exact, as llama.cpp expects them.
fn stored_as(gguf_name: &str, dimensions: usize) -> TensorType {
    let added = matches!(gguf_name, "token_types.weight" | "position_embd.weight");
    if dimensions == 2 && !added { TensorType::F16 } else { TensorType::F32 }
}

const EMBEDDINGS: [(&str, &str); 4] = [
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.token_type_embeddings", "token_types"),
    ("embeddings.LayerNorm", "token_embd_norm"),
];

const LAYER: [(&str, &str); 8] = [
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

fn gguf_name(name: &str, layers: u32) -> Option<String> {
    let (stem, suffix) = name.rsplit_once('.')?;
    if !matches!(suffix, "weight" | "bias") {
        return None;
    }
    if let Some((_, to)) = EMBEDDINGS.iter().find(|(from, _)| *from == stem) {
        return Some(format!("{to}.{suffix}"));
    }
    let (layer, part) = stem.strip_prefix("encoder.layer.")?.split_once('.')?;
    let layer: u32 = layer.parse().ok().filter(|layer| *layer < layers)?;
    let (_, to) = LAYER.iter().find(|(from, _)| *from == part)?;
    Some(format!("blk.{layer}.{to}.{suffix}"))
}

fn complete(tensors: &[Tensor<'_>], layers: u32) -> Result<(), ConvertError> {
    let there = |name: &str| tensors.iter().any(|tensor| tensor.info.name == name);
    let head = EMBEDDINGS.iter().map(|(_, to)| format!("{to}.weight"));
    let blocks = (0..layers)
        .flat_map(|n| LAYER.iter().flat_map(move |(_, to)| ["weight", "bias"].map(|s| format!("blk.{n}.{to}.{s}"))));
    match head.chain(["token_embd_norm.bias".to_owned()]).chain(blocks).find(|name| !there(name)) {
        Some(name) => Err(ConvertError::MissingTensor { name }),
        None => Ok(()),
    }
}

fn write(entries: &[(&str, Value)], tensors: &[Tensor<'_>], out: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(out)?);
    let infos: Vec<_> = tensors.iter().map(|tensor| &tensor.info).collect();
    write_head(&mut file, entries, &infos)?;
    for tensor in tensors {
        write_tensor(&mut file, tensor.info.kind, tensor.numbers())?;
    }
    file.into_inner()?.sync_all()
}

#[cfg(test)]
mod tests;
