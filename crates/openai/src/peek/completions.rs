//! Holds: what the body of a text completion says in its own way.

use super::{InvalidRequest, Ways, content};

/// What `/v1/completions` produces at most when the body does not say.
pub const COMPLETIONS_DEFAULT_MAX_TOKENS: u32 = 16;

pub(super) const WAYS: Ways = Ways {
    bound: |found| content::inputs("prompt", found.prompt),
    check: |found, _| {
        if !found.has_embeds {
            return Ok(());
        }
        let message = "`prompt_embeds` is not supported: send the prompt as text or token ids in `prompt`";
        Err(InvalidRequest::at("prompt_embeds", message))
    },
    // Evaluation harnesses ask for nothing but the prompt's own logprobs.
    least_output: 0,
    max_output: |stated| stated.or(Some(COMPLETIONS_DEFAULT_MAX_TOKENS)),
    echoes: true,
};
