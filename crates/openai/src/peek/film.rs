//! Holds: what the body of a call for a film says in its own way.

use batchin_domain::{
    Counts, Measure,
    film::{DEFAULT_FILM_SECONDS, MAX_FILM_PROMPT, MAX_FILM_SECONDS, most_film_ms},
};

use super::{Found, InputBound, InvalidRequest, Ways, scalar};

pub(super) const WAYS: Ways =
    Ways { bound, check: |_, _| Ok(()), least_output: 1, max_output: |_| None, echoes: false };

/// No tokens: what it can last.
fn bound(found: &Found<'_>) -> Result<InputBound, InvalidRequest> {
    scalar::prompt_to_see(found.prompt, MAX_FILM_PROMPT)?;
    let seconds = scalar::count("duration_seconds", found.duration_seconds, 1..=MAX_FILM_SECONDS)?;
    let most = most_film_ms(seconds.unwrap_or(DEFAULT_FILM_SECONDS));
    Ok(InputBound { items: 1, made: Counts::NONE.with(Measure::VideoMs, most), ..InputBound::default() })
}
