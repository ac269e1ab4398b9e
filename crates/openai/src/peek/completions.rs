//! Holds: what the body of a text completion says in its own way.

use super::{InvalidRequest, Ways, content};

/// What `/v1/completions` produces at most when the body does not say.
pub const COMPLETIONS_DEFAULT_MAX_TOKENS: u32 = 16;

/// What is said of a body whose gap does not lie between two texts.
pub(crate) fn one_text(name: &'static str) -> InvalidRequest {
    InvalidRequest::at(name, format!("`{name}` must be one string where `suffix` asks for the middle"))
}

pub(super) const WAYS: Ways = Ways {
    bound: |found| content::inputs("prompt", found.prompt),
    check: |found, _| {
        if found.has_embeds {
            let message = "`prompt_embeds` is not supported: send the prompt as text or token ids in `prompt`";
            return Err(InvalidRequest::at("prompt_embeds", message));
        }
        if found.fills() && found.prompt.is_some_and(|prompt| !prompt.get().starts_with('"')) {
            return Err(one_text("prompt"));
        }
        if found.fills() && found.echo {
            return Err(InvalidRequest::at("echo", "`echo` cannot be asked for together with `suffix`"));
        }
        Ok(())
    },
    // Evaluation harnesses ask for nothing but the prompt's own logprobs.
    least_output: 0,
    max_output: |stated| stated.or(Some(COMPLETIONS_DEFAULT_MAX_TOKENS)),
    echoes: true,
};
