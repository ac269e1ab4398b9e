//! Holds: `/v1/embeddings`.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{Request, Response};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    AnswerBody, Role, Service,
    body::{self, EmbeddingsBody, Prompt},
    error::ApiError,
    json_response,
};
use crate::embed::EmbedJob;

/// Inputs of one request, as in OpenAI's API.
const MAX_INPUTS: usize = 2048;

/// Longer inputs are refused without being tokenised; no vocabulary has tokens of so many bytes on average.
const MAX_BYTES_PER_TOKEN: usize = 64;

pub(super) async fn embed(service: &Service, request: Request<Incoming>) -> Result<Response<AnswerBody>, ApiError> {
    let body: EmbeddingsBody = body::parse(&body::read(request.into_body()).await?)?;
    let served = service.find(body.model.as_deref(), |role| matches!(role, Role::Embed { .. }))?;
    let Role::Embed { jobs } = &served.role else { return Err(ApiError::internal()) };
    let base64 = match body.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::invalid("encoding_format", "`encoding_format` is float or base64.")),
    };
    let width = usize::try_from(served.model.n_embd_out()).unwrap_or(0);
    if body.dimensions.is_some_and(|dimensions| dimensions != width) {
        let message = format!("This model's embeddings have {width} dimensions and cannot be shortened.");
        return Err(ApiError::invalid("dimensions", message));
    }
    let texts = texts(body.input)?;
    let mut inputs = Vec::with_capacity(texts.len());
    let mut tokens = 0;
    for (at, text) in texts.iter().enumerate() {
        let param = if texts.len() == 1 { "input".to_owned() } else { format!("input[{at}]") };
        if text.len() > served.context_limit * MAX_BYTES_PER_TOKEN {
            return Err(ApiError::context_length(&param, text.len() / MAX_BYTES_PER_TOKEN, served.context_limit));
        }
        let input = served.model.vocab().tokenize(text.as_bytes(), true, false);
        if input.len() > served.context_limit {
            return Err(ApiError::context_length(&param, input.len(), served.context_limit));
        }
        tokens += input.len();
        inputs.push(input);
    }
    let (job, vectors) = EmbedJob::new(inputs);
    jobs.try_send(job).map_err(|_| ApiError::unavailable("Too many requests wait for this model."))?;
    let vectors = vectors.await.map_err(|_| ApiError::internal())?;
    let data: Vec<Value> = vectors
        .into_iter()
        .enumerate()
        .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": encode(&vector, base64)}))
        .collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(json_response(&json!({"object": "list", "data": data, "model": served.id, "usage": usage})))
}

fn texts(input: Option<Prompt>) -> Result<Vec<String>, ApiError> {
    let texts = match input {
        None => return Err(ApiError::invalid("input", "`input` is required.")),
        Some(Prompt::Text(text)) => vec![text],
        Some(Prompt::Texts(texts)) => texts,
        Some(Prompt::Tokens(_) | Prompt::TokenLists(_)) => {
            let help = "Token ids belong to one vocabulary, and clients send those of OpenAI's. Send text instead; in \
                        LangChain, set check_embedding_ctx_length=False.";
            return Err(ApiError::invalid("input", help));
        }
    };
    if texts.is_empty() || texts.len() > MAX_INPUTS {
        return Err(ApiError::invalid("input", format!("`input` has between 1 and {MAX_INPUTS} texts.")));
    }
    if texts.iter().any(String::is_empty) {
        return Err(ApiError::invalid("input", "A text of `input` is empty."));
    }
    Ok(texts)
}

/// Numbers, or the little-endian bytes of their 32-bit floats.
fn encode(vector: &[f32], base64: bool) -> Value {
    if base64 {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        BASE64.encode(bytes).into()
    } else {
        vector.into()
    }
}
