//! Holds: reading the members of Stripe's objects, in every form that they come in.

use serde_json::{Map, Value};

/// A member that is needed is not there, or is of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing(pub &'static str);

/// The members of an object; of what is none, there are none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Members<'a>(Option<&'a Map<String, Value>>);

impl<'a> Members<'a> {
    pub(crate) fn of(value: &'a Value) -> Self {
        Self(value.as_object())
    }

    /// The whole object as JSON.
    pub(crate) fn json(self) -> String {
        self.0.and_then(|members| serde_json::to_string(members).ok()).unwrap_or_default()
    }

    fn get(self, name: &str) -> Option<&'a Value> {
        self.0?.get(name).filter(|value| !value.is_null())
    }

    /// A text that is not empty.
    pub(crate) fn text(self, name: &str) -> Option<String> {
        self.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    pub(crate) fn needed_text(self, name: &'static str) -> Result<String, Missing> {
        self.text(name).ok_or(Missing(name))
    }

    /// A word of an enum; empty where there is none.
    pub(crate) fn word(self, name: &str) -> &'a str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// A currency, in lower case as Stripe writes it today.
    pub(crate) fn currency(self, name: &str) -> Option<String> {
        self.text(name).map(|code| code.to_ascii_lowercase())
    }

    /// A whole number, or nothing. A fraction, a float and a number in quotes are faults and never rounded.
    pub(crate) fn integer(self, name: &'static str) -> Result<Option<i64>, Missing> {
        self.get(name).map(|value| value.as_i64().ok_or(Missing(name))).transpose()
    }

    pub(crate) fn needed_integer(self, name: &'static str) -> Result<i64, Missing> {
        self.integer(name)?.ok_or(Missing(name))
    }

    pub(crate) fn flag(self, name: &str) -> Option<bool> {
        self.get(name)?.as_bool()
    }

    pub(crate) fn needed_flag(self, name: &'static str) -> Result<bool, Missing> {
        self.flag(name).ok_or(Missing(name))
    }

    /// The id of what is named here, by its id or as the object itself.
    pub(crate) fn id(self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(id) if !id.is_empty() => Some(id.clone()),
            object => Self::of(object).text("id"),
        }
    }

    /// The object, where it is one and no bare id.
    pub(crate) fn object(self, name: &str) -> Option<Self> {
        let object = self.get(name)?.as_object()?;
        Some(Self(Some(object)))
    }

    /// The members of an object, which are none where it is absent.
    pub(crate) fn within(self, name: &str) -> Self {
        self.object(name).unwrap_or(Self(None))
    }

    /// The objects of an array or of a list object.
    pub(crate) fn list(self, name: &str) -> impl Iterator<Item = Self> + use<'a> {
        let array = match self.get(name) {
            Some(Value::Array(array)) => Some(array),
            Some(Value::Object(list)) => list.get("data").and_then(Value::as_array),
            _ => None,
        };
        array.into_iter().flatten().map(Self::of)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_whole_or_a_fault() {
        let object = json!({ "is": 1000, "none": null, "most": i64::MAX, "less": -5, "float": 10.0, "text": "10", "above": u64::MAX });
        let members = Members::of(&object);
        let read = |name| members.integer(name);
        assert_eq!([read("is"), read("less"), read("most")], [Ok(Some(1000)), Ok(Some(-5)), Ok(Some(i64::MAX))]);
        assert_eq!([read("none"), read("absent")], [Ok(None), Ok(None)]);
        for name in ["float", "text", "above"] {
            assert_eq!(read(name), Err(Missing(name)));
        }
    }

    #[test]
    fn what_is_named_is_an_id_or_an_object() {
        let object = json!({ "id": "pi_1", "expanded": { "id": "ch_1" }, "bare": "ch_2", "none": null, "odd": [1], "empty": "" });
        let members = Members::of(&object);
        assert_eq!(members.id("expanded").as_deref(), Some("ch_1"));
        assert_eq!(members.id("bare").as_deref(), Some("ch_2"));
        assert_eq!(
            [members.id("none"), members.id("odd"), members.id("empty"), members.id("absent")],
            [None, None, None, None]
        );
        assert!(members.object("expanded").is_some() && members.object("bare").is_none());
        assert_eq!(Members::of(&json!({ "list": { "data": [{}, {}] } })).list("list").count(), 2);
        assert_eq!(Members::of(&json!({ "list": [{}] })).list("list").count(), 1);
        assert_eq!(Members::of(&json!("text")).list("list").count(), 0);
    }
}
