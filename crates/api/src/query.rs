//! Holds: the parameters of a query string, each fault named.

use std::{borrow::Cow, ops::RangeInclusive};

use batchin_domain::{
    Timestamp,
    text::{NOT_STORABLE, echo, is_storable},
};
use batchin_openai::Code;

use crate::{error::ApiError, nearest};

/// Most parameters that are looked at; no call takes as many.
const MAX_PARAMETERS: usize = 32;

/// A call's query parameters, none of them unknown or doubled.
pub(crate) struct Parameters<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Parameters<'a> {
    /// Reads a query string whose parameters are all in `known`.
    pub(crate) fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, ApiError> {
        let pairs: Vec<_> = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).take(MAX_PARAMETERS).collect();
        for (index, (name, value)) in pairs.iter().enumerate() {
            if !known.contains(&&**name) {
                let hint = match nearest::name(name, known) {
                    Some(near) => format!("perhaps `{near}` is meant"),
                    None => format!("this call takes {}", known.join(", ")),
                };
                return Err(invalid(name, &format!("is not known; {hint}")));
            }
            if pairs.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(invalid(name, "is given more than once"));
            }
            if !is_storable(value) {
                return Err(invalid(name, NOT_STORABLE));
            }
        }
        Ok(Self(pairs))
    }

    /// A parameter's text; an empty one counts as absent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| &**value).filter(|value| !value.is_empty())
    }

    /// A text that must be there.
    pub(crate) fn required(&self, name: &'static str) -> Result<&str, ApiError> {
        self.text(name).ok_or_else(|| invalid(name, "is missing"))
    }

    /// A whole number in a range.
    pub(crate) fn count<N>(&self, name: &'static str, range: RangeInclusive<N>, default: N) -> Result<N, ApiError>
    where
        N: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.text(name) else { return Ok(default) };
        let message = || format!("must be a whole number from {} to {}", range.start(), range.end());
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| invalid(name, &message()))
    }

    /// A point in time.
    pub(crate) fn time(&self, name: &'static str) -> Result<Option<Timestamp>, ApiError> {
        // A plus that was not escaped arrives as a blank.
        let parse = |text: &str| Timestamp::parse_rfc3339(&text.replace(' ', "+"));
        let wrong = || invalid(name, "must be a time such as 2026-11-22T08:00:00Z");
        self.text(name).map(|text| parse(text).ok_or_else(wrong)).transpose()
    }

    /// An id.
    pub(crate) fn id<I: std::str::FromStr>(&self, name: &'static str) -> Result<Option<I>, ApiError> {
        self.text(name).map(|text| text.parse().map_err(|_| invalid(name, "must be an id (a UUID)"))).transpose()
    }
}

/// A parameter is at fault.
pub(crate) fn invalid(name: &str, message: &str) -> ApiError {
    let shown = echo(name);
    ApiError::new(Code::InvalidRequest, format!("The query parameter `{shown}` {message}.")).at(shown)
}
