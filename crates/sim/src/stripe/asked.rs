//! Holds: what a call asks the fake Stripe, and how it refuses.

use serde_json::{Map, Value, json};

/// The parameters of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Vec<(String, String)>);

/// A refusal: the status, and the members of `error`.
#[derive(Debug)]
pub(super) struct Refused(pub u16, pub Value);

impl Asked {
    pub(super) fn of(form: &[u8]) -> Self {
        Self(form_urlencoded::parse(form).map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_on(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.get(name)?.parse().ok()
    }

    /// The values of `name[]`, by whichever index.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        let is_it = |is: &str| is.strip_prefix(name).is_some_and(|rest| rest.starts_with('['));
        self.0.iter().filter(|(is, _)| is_it(is)).map(|(_, value)| value.as_str()).collect()
    }

    /// The members of `name[…]`, as metadata has them.
    pub(super) fn map(&self, name: &str) -> Value {
        let member = |is: &str| Some(is.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')?.to_owned());
        let map: Map<String, Value> =
            self.0.iter().filter_map(|(is, value)| Some((member(is)?, json!(value)))).collect();
        Value::Object(map)
    }

    pub(super) fn needed(&self, name: &str) -> Result<&str, Refused> {
        let missing = || Refused::param("parameter_missing", name, &format!("Missing required param: {name}."));
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(missing)
    }

    /// A whole number above zero.
    pub(super) fn amount(&self, name: &str) -> Result<i64, Refused> {
        let invalid = || Refused::param("parameter_invalid_integer", name, "Invalid integer");
        self.needed(name)?.parse().ok().filter(|amount| *amount > 0).ok_or_else(invalid)
    }

    /// Refuses what is none of these; a name that ends with `[` allows everything below it.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refused> {
        let is_known =
            |name: &str| known.iter().any(|known| name == *known || (known.ends_with('[') && name.starts_with(known)));
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            Some((name, _)) => {
                Err(Refused::param("parameter_unknown", name, &format!("Received unknown parameter: {name}")))
            }
            None => Ok(()),
        }
    }

    /// The same for the same parameters in whichever order.
    pub(super) fn print(&self) -> String {
        let mut pairs = self.0.clone();
        pairs.sort();
        format!("{pairs:?}")
    }
}

impl Refused {
    pub(super) fn param(code: &str, param: &str, message: &str) -> Self {
        Self(400, json!({ "code": code, "message": message, "param": param, "type": "invalid_request_error" }))
    }

    pub(super) fn invalid(message: &str) -> Self {
        Self(400, json!({ "message": message, "type": "invalid_request_error" }))
    }

    pub(super) fn missing(status: u16, kind: &str, id: &str) -> Self {
        let message = format!("No such {kind}: '{id}'");
        Self(
            status,
            json!({ "code": "resource_missing", "message": message, "param": "id", "type": "invalid_request_error" }),
        )
    }
}
