//! Holds: forms as Stripe reads them: names in brackets, urlencoded.

use form_urlencoded::byte_serialize;

/// A form, or a query.
pub(crate) struct Form(String);

impl Form {
    pub(crate) fn new() -> Self {
        Self(String::new())
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.extend(byte_serialize(name.as_bytes()));
        self.0.push('=');
        self.0.extend(byte_serialize(value.as_bytes()));
        self
    }

    #[must_use]
    pub(crate) fn with_number(self, name: &str, value: i64) -> Self {
        self.with(name, &value.to_string())
    }

    /// Nothing where there is no value: an empty one would ask Stripe to unset it.
    #[must_use]
    pub(crate) fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(crate) fn text(self) -> String {
        self.0
    }
}
