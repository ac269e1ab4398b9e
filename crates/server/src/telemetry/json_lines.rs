//! Holds: one log line as one JSON object, errors with everything that caused them.
//!
//! The JSON format of `tracing-subscriber` writes of an error only what it says itself, and an error of ours leaves its
//! cause to those below it: of a database's failure nothing would be left but that there was one.

use std::{error::Error, fmt};

use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

/// Causes of one error that are written; a longer chain is a loop.
const MAX_CAUSES: usize = 16;

/// Writes them.
pub(super) struct JsonLines;

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut members = Members(Map::new());
        members.add("timestamp", timestamp);
        members.add("level", event.metadata().level().as_str());
        members.add("target", event.metadata().target());
        event.record(&mut members);
        if let Some(span) = context.lookup_current() {
            let extensions = span.extensions();
            let written = extensions.get::<FormattedFields<JsonFields>>().map_or("", |fields| fields.fields.as_str());
            let mut fields: Map<String, Value> = serde_json::from_str(written).unwrap_or_default();
            fields.insert("name".to_owned(), span.name().into());
            members.add("span", fields);
        }
        let line = serde_json::to_string(&members.0).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

struct Members(Map<String, Value>);

impl Members {
    fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let (mut said, mut next) = (Vec::new(), Some(value));
        while let Some(cause) = next.filter(|_| said.len() < MAX_CAUSES) {
            said.push(cause.to_string());
            next = cause.source();
        }
        // Wrappers that only pass on what they wrap say it twice.
        said.dedup();
        self.add(field.name(), said.join(": "));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the chore failed")]
    struct Chore(#[source] io::Error);

    #[test]
    fn a_line_has_its_span_and_every_cause_of_its_error() {
        let written = Written::default();
        let into = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || into.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let _span = tracing::info_span!("request", id = 7).entered();
            let cause = Chore(io::Error::other("no space left"));
            tracing::warn!(error = &cause as &dyn Error, tasks = 3, "batch {} waits", 5);
        });
        let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["error"], "the chore failed: no space left");
        for (name, value) in [("message", json!("batch 5 waits")), ("tasks", json!(3)), ("level", json!("WARN"))] {
            assert_eq!(line[name], value, "{name}");
        }
        assert_eq!(line["span"], json!({ "name": "request", "id": 7 }));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
    }
}
