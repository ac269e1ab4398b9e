//! Holds: what a call for pictures asks for, for servers that are asked otherwise than in OpenAI's words.

use serde_json::Value;

/// What a call for pictures says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PictureAsked {
    /// What is to be seen.
    pub prompt: String,
    /// What is not.
    pub negative_prompt: String,
    /// Where chance begins, as it is said; null where it is not.
    pub seed: Value,
    /// Steps towards the picture, where that is said.
    pub steps: Option<u32>,
}

/// Reads a body that [`peek`](crate::peek()) accepted; what it cannot read is not asked for.
pub fn picture_asked(body: &[u8]) -> PictureAsked {
    let mut said: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |member: &str| said[member].as_str().unwrap_or_default().to_owned();
    PictureAsked {
        prompt: text("prompt"),
        negative_prompt: text("negative_prompt"),
        steps: said["num_inference_steps"].as_u64().and_then(|steps| u32::try_from(steps).ok()),
        seed: said.get_mut("seed").map(Value::take).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_asked_for() {
        let asked = picture_asked(br#"{"prompt":"a \u003ckite\u003e","negative_prompt":7,"num_inference_steps":-1}"#);
        assert_eq!(asked, PictureAsked { prompt: "a <kite>".to_owned(), ..PictureAsked::default() });
        let asked = picture_asked(br#"{"prompt":"","negative_prompt":"rain","seed":7,"num_inference_steps":30}"#);
        assert_eq!((asked.negative_prompt.as_str(), asked.seed, asked.steps), ("rain", 7.into(), Some(30)));
    }
}
