//! Holds: a fake server of pictures, in the formats of those that there are. It draws nothing: each picture is white.
//!
//! PNGs are made in the size that is asked for; JPEG and WebP are two files that ffmpeg wrote once.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use batchin_openai::{Peek, PictureFormat, Wanted};
use bytes::Bytes;
use flate2::{Compression, Crc, write::ZlibEncoder};
use serde_json::{Value, json};

use crate::behaviour::Refusal;

/// 96 by 64 pixels.
pub const JPEG: &[u8] = include_bytes!("pictures/picture.jpg");
/// 96 by 64 pixels.
pub const WEBP: &[u8] = include_bytes!("pictures/picture.webp");

/// What a picture that is changed becomes where nobody says a size.
const EDITED: (u32, u32) = (768, 512);

/// In whose format pictures are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureMaker {
    /// OpenAI's, which refuses to be told that pictures are to come in base64.
    OpenAi,
    /// vLLM-Omni's.
    #[default]
    VllmOmni,
    /// SGLang Diffusion's, which keeps to PNG.
    SglangDiffusion,
    /// stable-diffusion.cpp's.
    Sdcpp,
}

/// What becomes of calls for pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PictureScript {
    /// In whose format they are answered.
    pub maker: PictureMaker,
    /// Width and height of every picture, whatever is asked for.
    pub size: Option<(u32, u32)>,
    /// What is sent for every picture.
    pub bytes: Option<Bytes>,
    /// How many come, whatever is asked for.
    pub number: Option<u32>,
}

/// A white PNG of this size (PNG specification, third edition): one bit a pixel.
pub fn png((width, height): (u32, u32)) -> Vec<u8> {
    let mut head = [width.to_be_bytes(), height.to_be_bytes()].concat();
    head.extend([1, 0, 0, 0, 0]);
    let mut row = vec![0];
    row.resize(1 + width.div_ceil(8) as usize, 0xff);
    let mut pixels = ZlibEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory cannot fail.
    for _ in 0..height {
        let _ = pixels.write_all(&row);
    }
    let pixels = pixels.finish().unwrap_or_default();
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", head), (b"IDAT", pixels), (b"IEND", Vec::new())] {
        let length = u32::try_from(data.len()).unwrap_or_default();
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(&data);
        out.extend(length.to_be_bytes());
        out.extend(kind);
        out.extend(data);
        out.extend(crc.sum().to_be_bytes());
    }
    out
}

/// The answer of such a server to a body.
pub(crate) fn answered(script: &PictureScript, peek: &Peek, body: &[u8]) -> Result<Value, Refusal> {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let response_format = asked["response_format"].as_str();
    match (script.maker, response_format) {
        (PictureMaker::OpenAi, Some(_)) => {
            return Err(Refusal::openai(400, "Unknown parameter: 'response_format'.", "response_format"));
        }
        (PictureMaker::VllmOmni, Some("url")) => {
            return Err(Refusal::vllm(400, "response_format 'url' is not supported; use 'b64_json'"));
        }
        (PictureMaker::SglangDiffusion, None | Some("url")) => {
            let message = "response_format='url' requires cloud storage to be configured.";
            return Err(Refusal::fast_api(400, message));
        }
        _ => {}
    }
    let Wanted::Pictures(wanted) = peek.wanted else { return Err(Refusal::vllm(400, "no pictures are asked for")) };
    let keeps_to_png = matches!(script.maker, PictureMaker::SglangDiffusion);
    let format = wanted.format.filter(|_| !keeps_to_png).unwrap_or(PictureFormat::Png);
    let picture = match (&script.bytes, format) {
        (Some(bytes), _) => bytes.to_vec(),
        (None, PictureFormat::Png) => png(script.size.or(wanted.size).unwrap_or(EDITED)),
        (None, PictureFormat::Jpeg) => JPEG.to_vec(),
        (None, PictureFormat::Webp) => WEBP.to_vec(),
    };
    let encoded = STANDARD.encode(picture);
    let one = match script.maker {
        PictureMaker::OpenAi => json!({ "b64_json": encoded, "revised_prompt": "A kite, in oil." }),
        PictureMaker::VllmOmni => json!({ "b64_json": encoded, "url": null, "revised_prompt": null }),
        PictureMaker::SglangDiffusion => {
            json!({ "b64_json": encoded, "url": null, "revised_prompt": null, "file_path": "/srv/outputs/a.png", "resize": null })
        }
        PictureMaker::Sdcpp => json!({ "b64_json": encoded }),
    };
    let data = vec![one; script.number.unwrap_or(wanted.most) as usize];
    let mut told = json!({ "created": 1, "data": data });
    match script.maker {
        PictureMaker::OpenAi => {
            told["usage"] = json!({ "input_tokens": 9, "output_tokens": 272, "total_tokens": 281,
                "input_tokens_details": { "text_tokens": 9, "image_tokens": 0 } });
        }
        PictureMaker::VllmOmni => {
            told["output_format"] = format.name().into();
            let (width, height) = wanted.size.unwrap_or(EDITED);
            told["size"] = format!("{width}x{height}").into();
            told["cot_output"] = Value::Null;
            told["metrics"] = json!({ "stage_durations": { "diffusion": 1.5 }, "peak_memory_mb": 20_000.0 });
        }
        PictureMaker::SglangDiffusion => {
            told["id"] = "a".into();
            told["peak_memory_mb"] = 20_000.0.into();
            told["inference_time_s"] = 1.5.into();
            told["usage"] = json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0,
                "prompt_tokens_details": null, "reasoning_tokens": 0, "image_count": wanted.most });
        }
        PictureMaker::Sdcpp => told["output_format"] = format.name().into(),
    }
    Ok(told)
}
