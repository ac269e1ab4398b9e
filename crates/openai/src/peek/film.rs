//! Holds: what the body of a call for a film says in its own way.

use batchin_domain::{
    Counts, Measure,
    film::{DEFAULT_FILM_SECONDS, MAX_FILM_PROMPT, MAX_FILM_SECONDS, most_film_ms},
    text::is_storable,
};
use serde_json::value::RawValue;

use super::{Found, InputBound, InvalidRequest, Ways, scalar};

pub(super) const WAYS: Ways =
    Ways { bound, check: |_, _| Ok(()), least_output: 1, max_output: |_| None, echoes: false };

/// No tokens: what it can last.
fn bound(found: &Found<'_>) -> Result<InputBound, InvalidRequest> {
    check_prompt(found.prompt)?;
    let seconds = scalar::count("duration_seconds", found.duration_seconds, 1..=MAX_FILM_SECONDS)?;
    let most = most_film_ms(seconds.unwrap_or(DEFAULT_FILM_SECONDS));
    Ok(InputBound { items: 1, made: Counts::NONE.with(Measure::VideoMs, most), ..InputBound::default() })
}

fn check_prompt(raw: Option<&RawValue>) -> Result<(), InvalidRequest> {
    const NAME: &str = "prompt";
    scalar::unread_text(NAME, raw)?;
    let wrong = |message: String| Err(InvalidRequest::at(NAME, message));
    let Some(raw) = raw else { return wrong("`prompt` is required: say what is to be seen, as a string".to_owned()) };
    let Ok(text) = serde_json::from_str::<String>(raw.get()) else {
        return wrong("`prompt` has a \\u escape that is half a character; send whole characters".to_owned());
    };
    let length = text.chars().count();
    if text.trim().is_empty() {
        return wrong("`prompt` must say what is to be seen".to_owned());
    }
    if !is_storable(&text) {
        return wrong("`prompt` must not contain U+0000".to_owned());
    }
    if length > MAX_FILM_PROMPT {
        return wrong(format!("`prompt` has {length} characters; at most {MAX_FILM_PROMPT}"));
    }
    Ok(())
}
