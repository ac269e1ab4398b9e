//! Holds: what the process says about itself: log lines, traces, metrics.
//!
//! Installs the global subscriber and recorder once, at start-up. Never sees a prompt, a completion or a secret.

mod described;
mod json_lines;

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use batchin_config::{Log, LogFormat, Telemetry};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry};
use url::Url;

use self::json_lines::JsonLines;

/// What traces are filed under.
const SERVICE_NAME: &str = "batchin";

/// A collector that takes longer loses the spans rather than holding up the exporter.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest that a shutdown waits for the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Ends of the names of histograms, and their buckets; in seconds unless said.
const BUCKETS: [(&str, &[f64]); 5] = [
    // Time to first token: from a cached answer to a model that has to be loaded.
    ("ttft_seconds", FIRST_ANSWER),
    ("first_byte_seconds", FIRST_ANSWER),
    // Time per output token.
    ("tpot_seconds", &[0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0]),
    // Group commit.
    ("commit_seconds", &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0]),
    // Not seconds: settlements in one commit.
    ("group_size", &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]),
];

const FIRST_ANSWER: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// For every other histogram, in seconds: from an embedding to an answer of many thousand tokens.
const OTHER_BUCKETS: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// Why logs or traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one; a checked configuration never has this.
    #[error("log.level is no filter")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// The exporter of traces.
    #[error("cannot set up the export of traces")]
    Exporter(#[source] ExporterBuildError),
    /// A subscriber is installed already.
    #[error("logging is set up already")]
    Installed(#[source] TryInitError),
}

/// Keeps the export of traces alive. [`Tracing::shutdown`] sends what is left.
#[must_use = "traces end when this is dropped"]
#[derive(Debug)]
pub struct Tracing {
    provider: Option<SdkTracerProvider>,
}

/// Installs the subscriber: lines on standard error, and traces when an endpoint is configured.
pub fn init(log: &Log, telemetry: &Telemetry) -> Result<Tracing, TelemetryError> {
    let filter = EnvFilter::try_new(&log.level).map_err(TelemetryError::Filter)?;
    let provider = telemetry.otlp_endpoint.as_ref().map(tracer_provider).transpose()?;
    let traces = provider.as_ref().map(|provider| traces(provider.tracer(SERVICE_NAME)));
    tracing_subscriber::registry()
        .with(filter)
        .with(lines(log.format, io::stderr().is_terminal()))
        .with(traces)
        .try_init()
        .map_err(TelemetryError::Installed)?;
    Ok(Tracing { provider })
}

impl Tracing {
    /// Sends the spans that are still held; waits at most five seconds. Blocks, so call it after the runtime ended or
    /// on a thread that may block.
    pub fn shutdown(self) {
        if let Some(provider) = self.provider
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last traces were not delivered");
        }
    }
}

/// Installs the process's recorder of metrics. `render` of the handle gives the text of `/metrics`; somebody must call
/// its `run_upkeep` every few seconds, or histograms grow.
pub fn install_metrics() -> Result<PrometheusHandle, BuildError> {
    let handle = metrics_builder()?.install_recorder()?;
    described::describe();
    Ok(handle)
}

fn metrics_builder() -> Result<PrometheusBuilder, BuildError> {
    let with_defaults = PrometheusBuilder::new().set_buckets(OTHER_BUCKETS)?;
    BUCKETS.iter().try_fold(with_defaults, |builder, (name, buckets)| {
        builder.set_buckets_for_metric(Matcher::Suffix((*name).to_owned()), buckets)
    })
}

type Filtered = tracing_subscriber::layer::Layered<EnvFilter, Registry>;

fn lines(format: LogFormat, is_terminal: bool) -> Box<dyn Layer<Filtered> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    match (format, is_terminal) {
        (LogFormat::Pretty, _) | (LogFormat::Auto, true) => layer.with_ansi(is_terminal).with_target(false).boxed(),
        (LogFormat::Json, _) | (LogFormat::Auto, false) => {
            layer.fmt_fields(JsonFields::new()).event_format(JsonLines).boxed()
        }
    }
}

fn traces<S>(tracer: Tracer) -> OpenTelemetryLayer<S, Tracer>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer().with_tracer(tracer)
}

fn tracer_provider(endpoint: &Url) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(traces_address(endpoint))
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(TelemetryError::Exporter)?;
    let resource = Resource::builder().with_service_name(SERVICE_NAME).build();
    Ok(SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build())
}

/// The path that OTLP prescribes, unless the operator names one.
fn traces_address(endpoint: &Url) -> String {
    let text = endpoint.as_str().trim_end_matches('/');
    if endpoint.path().trim_matches('/').is_empty() { format!("{text}/v1/traces") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn each_histogram_has_the_buckets_of_its_kind() {
        let recorder = metrics_builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("batchin_ttft_seconds", "class" => "fill").record(0.3);
            metrics::histogram!("batchin_commit_seconds").record(0.0003);
            metrics::histogram!("batchin_queue_seconds").record(2.0);
            metrics::histogram!("batchin_upstream_first_byte_seconds").record(90.0);
            metrics::histogram!("batchin_commit_group_size").record(40.0);
        });
        let text = handle.render();
        for line in [
            "batchin_ttft_seconds_bucket{class=\"fill\",le=\"0.25\"} 0",
            "batchin_ttft_seconds_bucket{class=\"fill\",le=\"0.5\"} 1",
            "batchin_commit_seconds_bucket{le=\"0.0002\"} 0",
            "batchin_commit_seconds_bucket{le=\"0.0005\"} 1",
            "batchin_queue_seconds_bucket{le=\"300\"} 1",
            "batchin_upstream_first_byte_seconds_bucket{le=\"60\"} 0",
            "batchin_upstream_first_byte_seconds_bucket{le=\"120\"} 1",
            "batchin_commit_group_size_bucket{le=\"32\"} 0",
            "batchin_commit_group_size_bucket{le=\"64\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn the_path_of_otlp_is_added_where_none_is_given() {
        for (given, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://o.example/", "https://o.example/v1/traces"),
            ("https://o.example/custom/v1/traces", "https://o.example/custom/v1/traces"),
        ] {
            assert_eq!(traces_address(&Url::parse(given).unwrap()), expected);
        }
    }

    /// The only test that may install the global subscriber.
    #[test]
    fn a_span_reaches_the_collector_at_shutdown() {
        crate::tls::install_crypto_provider();
        let collector = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", collector.local_addr().unwrap());
        let received = std::thread::spawn(move || {
            let (mut stream, _) = collector.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4096];
            while !String::from_utf8_lossy(&request).contains("a_span_of_ours") {
                let read = stream.read(&mut part).unwrap();
                assert!(read > 0, "the exporter closed early");
                request.extend_from_slice(part.get(..read).unwrap());
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request).into_owned()
        });
        let log = Log { format: LogFormat::Json, level: "info".to_owned() };
        let telemetry = Telemetry { otlp_endpoint: Some(Url::parse(&endpoint).unwrap()) };
        let tracing = init(&log, &telemetry).unwrap();
        tracing::info_span!("a_span_of_ours").in_scope(|| {});
        tracing.shutdown();
        let request = received.join().unwrap();
        assert!(request.starts_with("POST /v1/traces"), "{request}");
        assert!(request.contains(SERVICE_NAME));
    }
}
