//! Holds: the sampling fields of a request, checked. Pure but for the seed of a request that names none.

use llama_cpp_2::{model::LlamaModel, token::LlamaToken};
use serde_json::{Value, json};

use super::{
    body::{GenerateBody, Logprobs, OneOrMany, ResponseFormat},
    error::ApiError,
};
use crate::{
    generate::SamplingParams,
    native::{self, Grammar},
};

/// With small models, drawing from the whole vocabulary reads as noise; these are llama.cpp's own defaults, used
/// where the client says nothing.
const DEFAULT_TOP_K: usize = 40;
const DEFAULT_MIN_P: f32 = 0.05;

/// Stop strings of a request, and bytes of each. Every token is compared with all of them.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 512;

/// As in OpenAI's API.
const MAX_TOP_LOGPROBS: usize = 20;
const MAX_BIASES: usize = 300;

/// Reads how tokens are to be chosen.
pub(super) fn params(body: &GenerateBody, vocabulary: i32) -> Result<SamplingParams, ApiError> {
    let top_k = match body.top_k {
        None => DEFAULT_TOP_K,
        // Both mean "all" to somebody.
        Some(-1 | 0) => 0,
        Some(k) => usize::try_from(k).map_err(|_| ApiError::invalid("top_k", "`top_k` must not be negative."))?,
    };
    Ok(SamplingParams {
        temperature: within("temperature", body.temperature, 1.0, (0.0, 2.0))?,
        top_p: within("top_p", body.top_p, 1.0, (0.0, 1.0))?,
        top_k,
        min_p: within("min_p", body.min_p, DEFAULT_MIN_P, (0.0, 1.0))?,
        seed: body.seed.map_or_else(rand::random, i64::cast_unsigned),
        frequency_penalty: within("frequency_penalty", body.frequency_penalty, 0.0, (-2.0, 2.0))?,
        presence_penalty: within("presence_penalty", body.presence_penalty, 0.0, (-2.0, 2.0))?,
        logit_bias: biases(body, vocabulary)?,
        logprobs: logprobs(body)?,
    })
}

/// A number within bounds, both inclusive.
fn within(name: &str, value: Option<f32>, default: f32, (low, high): (f32, f32)) -> Result<f32, ApiError> {
    let value = value.unwrap_or(default);
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(ApiError::invalid(name, format!("`{name}` must be between {low} and {high}.")))
    }
}

fn biases(body: &GenerateBody, vocabulary: i32) -> Result<Vec<(LlamaToken, f32)>, ApiError> {
    let Some(biases) = &body.logit_bias else { return Ok(Vec::new()) };
    let bad = || ApiError::invalid("logit_bias", "`logit_bias` maps token ids of this model to -100 … 100.");
    if biases.len() > MAX_BIASES {
        return Err(bad());
    }
    let parse = |(token, bias): (&String, &f32)| {
        let token = token.parse().ok().filter(|id| (0..vocabulary).contains(id))?;
        (-100.0..=100.0).contains(bias).then_some((LlamaToken(token), *bias))
    };
    biases.iter().map(|entry| parse(entry).ok_or_else(bad)).collect()
}

fn logprobs(body: &GenerateBody) -> Result<Option<usize>, ApiError> {
    let (name, top) = match (body.logprobs, body.top_logprobs) {
        (Some(Logprobs::Wanted(true)), top) => ("top_logprobs", top.unwrap_or(0)),
        (Some(Logprobs::Top(top)), _) => ("logprobs", top),
        (Some(Logprobs::Wanted(false)) | None, None | Some(0)) => return Ok(None),
        (Some(Logprobs::Wanted(false)) | None, Some(_)) => {
            return Err(ApiError::invalid("top_logprobs", "`top_logprobs` needs `logprobs: true`."));
        }
    };
    if top > MAX_TOP_LOGPROBS {
        return Err(ApiError::invalid(name, format!("At most {MAX_TOP_LOGPROBS} log probabilities can be had.")));
    }
    Ok(Some(top))
}

/// The stop strings.
pub(super) fn stops(body: &GenerateBody) -> Result<Vec<String>, ApiError> {
    let stops = match &body.stop {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop.clone()],
        Some(OneOrMany::Many(stops)) => stops.clone(),
    };
    if stops.len() > MAX_STOPS || stops.iter().any(|stop| stop.len() > MAX_STOP_BYTES) {
        let message = format!("`stop` takes up to {MAX_STOPS} strings of up to {MAX_STOP_BYTES} bytes.");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(stops)
}

/// The schema of any JSON object.
pub(super) const ANY_OBJECT: &str = r#"{"type":"object"}"#;

/// The grammar that a response format asks for.
pub(super) fn response_grammar(format: Option<&ResponseFormat>) -> Result<Option<String>, ApiError> {
    let Some(format) = format else { return Ok(None) };
    let schema = match (format.r#type.as_str(), &format.json_schema) {
        ("text", _) => return Ok(None),
        ("json_object", _) => ANY_OBJECT,
        ("json_schema", Some(schema)) => schema.schema.as_ref().map_or(ANY_OBJECT, |schema| schema.get()),
        ("json_schema", None) => {
            return Err(ApiError::invalid("response_format.json_schema", "`json_schema` is required for this type."));
        }
        _ => {
            let message = "`type` must be one of text, json_object and json_schema.";
            return Err(ApiError::invalid("response_format.type", message));
        }
    };
    grammar_of("response_format.json_schema.schema", schema).map(Some)
}

/// Translates a JSON schema; `param` is blamed when it cannot be.
pub(super) fn grammar_of(param: &str, schema: &str) -> Result<String, ApiError> {
    if let Ok(schema) = serde_json::from_str(schema) {
        check_patterns(param, &schema)?;
    }
    translate(param, schema)
}

/// llama.cpp takes any text where it cannot translate a `pattern`; nobody who asked for one wants that.
fn check_patterns(path: &str, schema: &Value) -> Result<(), ApiError> {
    /// Members that have schemas by name, as lists, and as such.
    const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
    let Value::Object(members) = schema else { return Ok(()) };
    for (name, value) in members {
        let at = format!("{path}.{name}");
        match value {
            Value::String(pattern) if name == "pattern" => check_pattern(&at, pattern)?,
            Value::Object(schemas) if NAMED.contains(&name.as_str()) => {
                for (name, schema) in schemas {
                    check_patterns(&format!("{at}.{name}"), schema)?;
                }
            }
            // What is no schema is not looked at: these hold values.
            _ if ["const", "enum", "default", "examples"].contains(&name.as_str()) => {}
            Value::Array(schemas) => {
                for (index, schema) in schemas.iter().enumerate() {
                    check_patterns(&format!("{at}[{index}]"), schema)?;
                }
            }
            other => check_patterns(&at, other)?,
        }
    }
    Ok(())
}

/// A pattern is held to where it makes another grammar than one that cannot be translated, as none without anchors can.
fn check_pattern(param: &str, pattern: &str) -> Result<(), ApiError> {
    let with = |pattern: &str| translate(param, &json!({"type": "string", "pattern": pattern}).to_string());
    if with(pattern)? == with("x")? {
        let message = "This `pattern` cannot be held to: it must begin with ^ and end with $, and have no look-around, \
                       back references, anchors or escapes within that a grammar has no word for.";
        return Err(ApiError::invalid(param, message));
    }
    Ok(())
}

fn translate(param: &str, schema: &str) -> Result<String, ApiError> {
    native::grammar_of(schema).ok_or_else(|| unsupported(param))
}

/// A fresh matcher of a grammar.
pub(super) fn compile(param: &str, model: &LlamaModel, grammar: &str) -> Result<Grammar, ApiError> {
    Grammar::new(model, grammar).ok_or_else(|| unsupported(param))
}

fn unsupported(param: &str) -> ApiError {
    ApiError::invalid(param, "This JSON schema is not valid or uses what is not supported.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(schema: &Value) -> Option<String> {
        let answer = grammar_of("schema", &schema.to_string()).err()?.to_json();
        let error: Value = serde_json::from_str(&answer).unwrap();
        Some(error["error"]["param"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_pattern_is_held_to_or_named() {
        let of = |pattern: &str| json!({"type": "object", "properties": {"pattern": {"type": "string", "pattern": pattern}}});
        assert_eq!(refused(&of("^[a-z]{2,4}$")), None);
        for pattern in ["abc", "^abc", "^(?=a)b$", "^a\\bc$", "^(a)\\1$"] {
            assert_eq!(refused(&of(pattern)).as_deref(), Some("schema.properties.pattern.pattern"), "{pattern}");
        }
        let deep = json!({"$defs": {"x": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "x"}]}}, "$ref": "#/$defs/x"});
        assert_eq!(refused(&deep).as_deref(), Some("schema.$defs.x.anyOf[1].pattern"));
        assert_eq!(refused(&json!({"enum": [{"pattern": "x"}]})), None);
    }
}
