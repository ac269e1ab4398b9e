//! Holds: forms as Stripe reads them: names in brackets, urlencoded.

use form_urlencoded::Serializer;

/// A form, or a query.
pub(crate) struct Form(Serializer<'static, String>);

impl Form {
    pub(crate) fn new() -> Self {
        Self(Serializer::new(String::new()))
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.append_pair(name, value);
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

    pub(crate) fn text(mut self) -> String {
        self.0.finish()
    }
}
