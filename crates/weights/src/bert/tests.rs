use std::path::PathBuf;

use safetensors::tensor::TensorView;
use tempfile::TempDir;

use super::*;

const CONFIG: &str = r#"{"hidden_act": "gelu", "hidden_size": 8, "intermediate_size": 12, "layer_norm_eps": 1e-12,
"max_position_embeddings": 6, "num_attention_heads": 2, "num_hidden_layers": 1, "type_vocab_size": 2}"#;

const VOCAB: &str = "[PAD]\n[unused0]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n[\nhello\n##ing\nwörld\n";

/// The reference converter's output for this very checkpoint: llama.cpp's `gguf` package, driven from Python.
const REFERENCE: &[u8] = include_bytes!("reference.gguf");

struct Tiny {
    dir: TempDir,
    tensors: Vec<(String, Dtype, Vec<usize>)>,
    config: String,
    vocab: String,
}

impl Tiny {
    fn new() -> Self {
        let mut tensors = Vec::new();
        let mut add = |name: &str, dtype, shape: &[usize]| tensors.push((name.to_owned(), dtype, shape.to_vec()));
        add("embeddings.position_ids", Dtype::I64, &[1, 6]);
        add("embeddings.word_embeddings.weight", Dtype::F32, &[10, 8]);
        add("embeddings.position_embeddings.weight", Dtype::F32, &[6, 8]);
        add("embeddings.token_type_embeddings.weight", Dtype::F32, &[2, 8]);
        add("pooler.dense.weight", Dtype::F32, &[8, 8]);
        let dense = [
            ("attention.self.query", 8, 8),
            ("attention.self.key", 8, 8),
            ("attention.self.value", 8, 8),
            ("attention.output.dense", 8, 8),
            ("intermediate.dense", 12, 8),
            ("output.dense", 8, 12),
        ];
        for (part, rows, columns) in dense {
            let dtype = if part == "attention.self.key" { Dtype::F16 } else { Dtype::F32 };
            add(&format!("encoder.layer.0.{part}.weight"), dtype, &[rows, columns]);
            add(&format!("encoder.layer.0.{part}.bias"), Dtype::F32, &[rows]);
        }
        for norm in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
            add(&format!("{norm}.LayerNorm.weight"), Dtype::F32, &[8]);
            add(&format!("{norm}.LayerNorm.bias"), Dtype::F32, &[8]);
        }
        Self { dir: tempfile::tempdir().unwrap(), tensors, config: CONFIG.to_owned(), vocab: VOCAB.to_owned() }
    }

    fn convert(&self) -> Result<Vec<u8>, ConvertError> {
        let at = |name: &str| self.dir.path().join(name);
        let (safetensors, vocab, config, out) =
            (at("model.safetensors"), at("vocab.txt"), at("config.json"), at("out"));
        self.write_tensors(&safetensors);
        fs::write(&vocab, &self.vocab).unwrap();
        fs::write(&config, &self.config).unwrap();
        let from = Checkpoint { safetensors: &safetensors, vocab: &vocab, config: &config };
        convert(&from, "all-MiniLM-L6-v2", &out).map(|()| fs::read(out).unwrap())
    }

    fn write_tensors(&self, to: &PathBuf) {
        let data: Vec<Vec<u8>> = self.tensors.iter().map(|(name, dtype, shape)| numbers(name, *dtype, shape)).collect();
        let views =
            self.tensors.iter().zip(&data).map(|((name, dtype, shape), data)| {
                (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
            });
        fs::write(to, safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

/// Thirds, so that f16 has to round, and every tensor differs.
fn numbers(name: &str, dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    let seed: u32 = name.bytes().map(u32::from).sum();
    let number = |at: usize| (seed as f32 + at as f32) / 3.0 - 700.0;
    let count: usize = shape.iter().product();
    match dtype {
        Dtype::F32 => (0..count).flat_map(|at| number(at).to_le_bytes()).collect(),
        Dtype::F16 => (0..count).flat_map(|at| half::f16::from_f32(number(at)).to_le_bytes()).collect(),
        other => vec![0; count * other.bitsize() / 8],
    }
}

#[test]
fn equals_the_reference_converter() {
    assert!(Tiny::new().convert().unwrap() == REFERENCE);
}

#[test]
fn refuses_what_it_would_get_wrong() {
    fn check(spoil: impl FnOnce(&mut Tiny), expected: &str) {
        let mut tiny = Tiny::new();
        spoil(&mut tiny);
        assert_eq!(tiny.convert().unwrap_err().to_string(), expected);
    }
    let drop = |name: &'static str| move |tiny: &mut Tiny| tiny.tensors.retain(|(n, ..)| n != name);

    check(drop("encoder.layer.0.output.dense.bias"), "model.safetensors: tensor blk.0.ffn_down.bias is missing");
    check(drop("embeddings.LayerNorm.bias"), "model.safetensors: tensor token_embd_norm.bias is missing");
    check(
        |tiny| tiny.tensors.push(("encoder.layer.1.output.dense.bias".to_owned(), Dtype::F32, vec![8])),
        "model.safetensors: tensor encoder.layer.1.output.dense.bias is not part of a BERT model",
    );
    check(
        |tiny| tiny.tensors[1].1 = Dtype::BF16,
        "model.safetensors: tensor embeddings.word_embeddings.weight is in BF16, not in F32 or F16",
    );
    check(|tiny| tiny.vocab.push_str("more\n"), "vocab.txt has 11 tokens, the embedding table 10");
    check(|tiny| tiny.vocab = tiny.vocab.replace("[SEP]", "[sep]"), "vocab.txt: token [SEP] is missing");
    check(|tiny| tiny.config = CONFIG.replace("gelu", "relu"), "config.json: hidden_act is not supported");
    check(|tiny| tiny.config = "{}".to_owned(), "config.json does not describe a BERT model");
}
