//! Holds: the members of a JSON object that a client sends to one of our own calls.
//!
//! Every fault names the field and says what it must be. Inference bodies are never read this way.

use std::{borrow::Cow, fmt, ops::RangeInclusive};

use batchin_domain::{
    Amount,
    text::{NOT_STORABLE, echo, is_storable},
};
use batchin_openai::Code;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{error::ApiError, nearest};

/// The members of a body, none of them unknown.
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// What became of a field that may be left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change<T> {
    /// Not mentioned.
    Keep,
    /// `null`.
    Clear,
    /// A value.
    Set(T),
}

impl<'a> Fields<'a> {
    /// Reads a body whose members are all in `known`.
    pub(crate) fn parse(body: &'a [u8], known: &[&str]) -> Result<Self, ApiError> {
        let text = std::str::from_utf8(body).map_err(|fault| {
            let message = format!("The body is not valid UTF-8 (byte {}); send JSON in UTF-8.", fault.valid_up_to());
            ApiError::new(Code::InvalidRequest, message)
        })?;
        if text.trim().is_empty() {
            return Err(ApiError::new(Code::InvalidRequest, "The body is empty; send a JSON object."));
        }
        let fields = serde_json::from_str::<Fields<'a>>(text).map_err(|fault| bad_json(&fault))?;
        for (index, (name, _)) in fields.0.iter().enumerate() {
            if !known.contains(&&**name) {
                return Err(unknown(name, known));
            }
            if fields.0.iter().take(index).any(|(earlier, _)| earlier == name) {
                return Err(invalid(name, "stands in the body more than once; send it once"));
            }
        }
        Ok(fields)
    }

    fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.get())
    }

    /// A text that must be there.
    pub(crate) fn text(&self, name: &'static str) -> Result<String, ApiError> {
        match self.raw(name) {
            None => Err(invalid(name, "is missing")),
            Some(raw) => text(name, raw),
        }
    }

    /// A text, if there is one; `null` is none.
    pub(crate) fn optional_text(&self, name: &'static str) -> Result<Option<String>, ApiError> {
        self.value(name).map(|raw| text(name, raw)).transpose()
    }

    /// A whole number in a range, if there is one; `null` is none.
    pub(crate) fn optional_count(
        &self,
        name: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ApiError> {
        self.value(name).map(|raw| count(name, raw, range)).transpose()
    }

    /// A sum of cents, if there is one; `null` is none.
    pub(crate) fn optional_cents(&self, name: &'static str) -> Result<Option<Amount>, ApiError> {
        self.value(name).map(|raw| cents(name, raw)).transpose()
    }

    /// A sum of cents that must be there and may be below 0: whether it is, and how much.
    pub(crate) fn signed_cents(&self, name: &'static str) -> Result<(bool, Amount), ApiError> {
        let raw = self.value(name).ok_or_else(|| invalid(name, "is missing"))?;
        let magnitude = raw.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        Ok((magnitude.is_some(), cents(name, magnitude.unwrap_or(raw))?))
    }

    /// `true` or `false`, if there is one; `null` is none.
    pub(crate) fn optional_flag(&self, name: &'static str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(raw) => Err(wrong_type(name, "true or false", raw)),
        }
    }

    /// What is to become of a field; `read` reads its value.
    pub(crate) fn change<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&'static str, &str) -> Result<T, ApiError>,
    ) -> Result<Change<T>, ApiError> {
        match self.raw(name) {
            None => Ok(Change::Keep),
            Some("null") => Ok(Change::Clear),
            Some(raw) => read(name, raw).map(Change::Set),
        }
    }

    /// The JSON of a member, if there is one; `null` is none.
    pub(crate) fn value(&self, name: &str) -> Option<&'a str> {
        self.raw(name).filter(|raw| *raw != "null")
    }
}

/// A JSON string.
pub(crate) fn text(name: &'static str, raw: &str) -> Result<String, ApiError> {
    let text: String = serde_json::from_str(raw).map_err(|_| wrong_type(name, "a string", raw))?;
    if is_storable(&text) { Ok(text) } else { Err(invalid(name, NOT_STORABLE)) }
}

/// A whole number in a range.
pub(crate) fn count(name: &'static str, raw: &str, range: RangeInclusive<u32>) -> Result<u32, ApiError> {
    if !raw.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        return Err(wrong_type(name, "a whole number", raw));
    }
    let fits = whole(raw).filter(|number| range.contains(number));
    let message = || format!("must be a whole number from {} to {}", range.start(), range.end());
    fits.ok_or_else(|| invalid(name, &message()))
}

/// A whole number however it is written: `600`, `600.0`, `6e2`.
fn whole(raw: &str) -> Option<u32> {
    let parsed = raw.parse().ok();
    parsed.or_else(|| {
        let number: f64 = raw.parse().ok()?;
        let is_whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        // Whole and within the bounds, so that its digits are those of a u32.
        is_whole.then(|| format!("{number:.0}").parse().ok()).flatten()
    })
}

/// A sum of US cents, exactly as written.
pub(crate) fn cents(name: &'static str, raw: &str) -> Result<Amount, ApiError> {
    if !raw.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        return Err(wrong_type(name, "a number of US cents", raw));
    }
    Amount::parse_cents(raw).map_err(|fault| invalid(name, &fault.to_string()))
}

pub(crate) fn invalid(name: &str, message: &str) -> ApiError {
    let shown = echo(name);
    ApiError::new(Code::InvalidRequest, format!("`{shown}` {message}.")).at(shown)
}

fn wrong_type(name: &str, wanted: &str, raw: &str) -> ApiError {
    let found = match raw.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    invalid(name, &format!("must be {wanted}, not {found}"))
}

fn unknown(name: &str, known: &[&str]) -> ApiError {
    let hint = match nearest::name(name, known) {
        Some(near) => format!("is not known; perhaps `{near}` is meant"),
        None => format!("is not known; this call takes {}", known.join(", ")),
    };
    invalid(name, &hint)
}

fn bad_json(fault: &serde_json::Error) -> ApiError {
    let message = if fault.is_data() {
        "The body must be a JSON object.".to_owned()
    } else {
        format!("The body is not valid JSON at line {}, column {}.", fault.line(), fault.column())
    };
    ApiError::new(Code::InvalidRequest, message)
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http_body_util::BodyExt;

    use super::*;

    const KNOWN: &[&str] = &["email", "name", "rate_limit_rpm", "budget"];

    #[track_caller]
    fn check<T: fmt::Debug>(outcome: Result<T, ApiError>, param: serde_json::Value, message: &str) {
        let body = outcome.unwrap_err().into_response().into_body();
        let bytes = futures::executor::block_on(body.collect()).unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body["error"]["message"], message);
        assert_eq!(body["error"]["param"], param);
    }

    fn fields(body: &str) -> Result<Fields<'_>, ApiError> {
        Fields::parse(body.as_bytes(), KNOWN)
    }

    #[test]
    fn every_fault_names_its_field() {
        let names = |body: &str| fields(body).map(|fields| fields.0.len());
        check(names(r#"{"emial": 1}"#), "emial".into(), "`emial` is not known; perhaps `email` is meant.");
        check(
            names(r#"{"zzzzzz": 1}"#),
            "zzzzzz".into(),
            "`zzzzzz` is not known; this call takes email, name, rate_limit_rpm, budget.",
        );
        check(
            names(r#"{"name": 1, "name": 2}"#),
            "name".into(),
            "`name` stands in the body more than once; send it once.",
        );
        check(fields("{}").unwrap().text("email"), "email".into(), "`email` is missing.");
        let typed = fields(r#"{"email": null, "name": 3, "rate_limit_rpm": -1, "budget": "5"}"#).unwrap();
        check(typed.text("email"), "email".into(), "`email` must be a string, not null.");
        check(typed.optional_text("name"), "name".into(), "`name` must be a string, not a number.");
        check(
            typed.optional_count("rate_limit_rpm", 1..=10),
            "rate_limit_rpm".into(),
            "`rate_limit_rpm` must be a whole number from 1 to 10.",
        );
        check(typed.optional_cents("budget"), "budget".into(), "`budget` must be a number of US cents, not a string.");
        let nul = fields(r#"{"name": "a\u0000b"}"#).unwrap();
        check(nul.optional_text("name"), "name".into(), "`name` must not contain U+0000.");
    }

    #[test]
    fn broken_json_is_located() {
        let names = |body: &str| fields(body).map(|fields| fields.0.len());
        let null = serde_json::Value::Null;
        check(names("{\"email\":\n \"a\",}"), null.clone(), "The body is not valid JSON at line 2, column 6.");
        check(names("[1]"), null.clone(), "The body must be a JSON object.");
        check(names("  "), null.clone(), "The body is empty; send a JSON object.");
        check(names("{} x"), null, "The body is not valid JSON at line 1, column 4.");
    }

    #[test]
    fn null_clears_and_absence_keeps() {
        let change = |body: &str| fields(body).unwrap().change("budget", cents).unwrap();
        assert_eq!(change("{}"), Change::Keep);
        assert_eq!(change(r#"{"budget":null}"#), Change::Clear);
        assert_eq!(change(r#"{"budget":0.5}"#), Change::Set(Amount::from_nanos(5_000_000).unwrap()));
    }
}
