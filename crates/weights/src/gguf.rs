//! Holds: a writer of GGUF version 3, the file format of llama.cpp.
//!
//! Only what a converter needs: metadata, tensors in f32 and f16, one pass, little endian. It never reads GGUF.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::io::{self, Write};

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;

/// The format's default; a file that uses it need not say so.
const ALIGNMENT: u64 = 32;

/// Of a metadata entry.
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    String(String),
    I32s(Vec<i32>),
    Strings(Vec<String>),
}

/// How a tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TensorType {
    F32,
    F16,
}

impl TensorType {
    fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// A tensor whose numbers follow later.
pub(crate) struct TensorInfo {
    pub name: String,
    /// Slowest-varying dimension first, as in safetensors; GGUF's order is the reverse.
    pub shape: Vec<u64>,
    pub kind: TensorType,
}

impl TensorInfo {
    fn data_bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.kind.bytes()
    }
}

/// Writes everything before the tensors' numbers, padded to where they begin.
pub(crate) fn write_head(out: &mut impl Write, entries: &[(&str, Value)], tensors: &[&TensorInfo]) -> io::Result<()> {
    let mut head = Vec::new();
    head.extend(MAGIC);
    head.extend(VERSION.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        put_string(&mut head, key);
        put_value(&mut head, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        put_string(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        head.extend(tensor.shape.iter().rev().flat_map(|n| n.to_le_bytes()));
        head.extend(tensor.kind.code().to_le_bytes());
        head.extend(u64::to_le_bytes(offset));
        offset += tensor.data_bytes().next_multiple_of(ALIGNMENT);
    }
    out.write_all(&head)?;
    pad(out, head.len() as u64)
}

/// Writes the numbers of the next tensor, in the order given to [`write_head`].
pub(crate) fn write_tensor(
    out: &mut impl Write,
    kind: TensorType,
    numbers: impl Iterator<Item = f32>,
) -> io::Result<()> {
    let mut written = 0;
    for number in numbers {
        match kind {
            TensorType::F32 => out.write_all(&number.to_le_bytes())?,
            TensorType::F16 => out.write_all(&half::f16::from_f32(number).to_le_bytes())?,
        }
        written += kind.bytes();
    }
    pad(out, written)
}

fn pad(out: &mut impl Write, written: u64) -> io::Result<()> {
    let missing = written.next_multiple_of(ALIGNMENT) - written;
    out.write_all(&[0; ALIGNMENT as usize][..missing as usize])
}

fn put_string(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

fn put_value(head: &mut Vec<u8>, value: &Value) {
    const U32: u32 = 4;
    const I32: u32 = 5;
    const F32: u32 = 6;
    const BOOL: u32 = 7;
    const STRING: u32 = 8;
    const ARRAY: u32 = 9;
    match value {
        Value::U32(n) => {
            head.extend(U32.to_le_bytes());
            head.extend(n.to_le_bytes());
        }
        Value::F32(x) => {
            head.extend(F32.to_le_bytes());
            head.extend(x.to_le_bytes());
        }
        Value::Bool(yes) => {
            head.extend(BOOL.to_le_bytes());
            head.push(u8::from(*yes));
        }
        Value::String(text) => {
            head.extend(STRING.to_le_bytes());
            put_string(head, text);
        }
        Value::I32s(items) => {
            put_array(head, I32, items.len());
            head.extend(items.iter().flat_map(|n| n.to_le_bytes()));
        }
        Value::Strings(items) => {
            put_array(head, STRING, items.len());
            items.iter().for_each(|text| put_string(head, text));
        }
    }

    fn put_array(head: &mut Vec<u8>, item: u32, len: usize) {
        head.extend(ARRAY.to_le_bytes());
        head.extend(item.to_le_bytes());
        head.extend((len as u64).to_le_bytes());
    }
}
