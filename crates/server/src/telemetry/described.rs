//! Holds: what each metric is, for `# HELP`.
//!
//! One line for each name that the code records; a test reads the code and finds what is missing here.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Names, and what they count.
const COUNTERS: &[(&str, &str)] = &[
    ("batchin_batches_total", "Batches taken in, by priority."),
    ("batchin_chore_failures_total", "Work on a batch that failed and is tried again later, by chore."),
    ("batchin_commit_failures_total", "Group commits that failed, by reason."),
    ("batchin_completion_tokens_total", "Tokens of answers that were charged."),
    ("batchin_config_reloads_total", "Changed configurations, by outcome: taken_over or refused."),
    ("batchin_connections_refused_total", "Connections that found no place, by reason: full or address."),
    ("batchin_database_write_failures_total", "Writes that the database refused, by reason."),
    ("batchin_fallbacks_total", "Requests and tasks that went from one model to another, by the ids of both."),
    ("batchin_http2_unread_total", "Answers over HTTP/2 that ended because their clients took nothing of them."),
    ("batchin_http_errors_total", "Errors given to clients, by HTTP status."),
    ("batchin_late_usage_total", "Usage that came too late to be charged: the operator's loss."),
    ("batchin_lease_grants_total", "Times that this node asked the database for more of a purse, by kind of purse."),
    ("batchin_money_alarms_total", "What an operator has to see to of money that comes in, by what it is."),
    ("batchin_node_fenced_total", "Times that this node's epoch was ended from outside."),
    ("batchin_prompt_tokens_total", "Tokens of prompts that were charged."),
    ("batchin_requests_total", "Charged requests, by outcome: completed, client_gone or upstream_failed."),
    ("batchin_stalled_readers_total", "Streams that ended because their clients did not read."),
    ("batchin_upstream_calls_total", "Calls of model servers, by outcome."),
    ("batchin_upstream_failures_total", "Tries that made a request go to another model server, or fail."),
    ("batchin_usage_discrepancies_total", "Requests whose counts were odd, by model server and mark."),
    ("batchin_webhook_tries_total", "Tries to deliver a webhook, by outcome: delivered, retried, failed or off."),
];

/// Names, and what they are now.
const GAUGES: &[(&str, &str)] = &[
    (
        "batchin_batch_tasks_allowed",
        "Batch tasks that this node may run; fewer while it is late and people are served.",
    ),
    ("batchin_batch_tasks_running", "Batch tasks that this node runs."),
    ("batchin_batch_tasks_waiting", "Batch tasks that have not ended, of the whole platform, by priority."),
    (
        "batchin_audit_alarms_total",
        "Times that the audit log stood still, since it does not go on from what this node has signed.",
    ),
    ("batchin_audit_log_entries", "Entries of the audit log that have a place in it."),
    ("batchin_chain_block", "The newest block of a chain whose payments were read."),
    (
        "batchin_chain_second_endpoint_missing",
        "1 while large payments of a chain wait since no second endpoint can be asked.",
    ),
    (
        "batchin_config_last_success_timestamp_seconds",
        "When the configuration in force was taken over, in seconds since 1970.",
    ),
    ("batchin_connections", "Connections of clients that are open."),
    ("batchin_database_writes_failing", "Whether the database takes no writes: 1 or 0."),
    ("batchin_leases_open", "Purses that this node has something of."),
    ("batchin_node_disagreements", "Nodes and programs that differ from this one, by what differs."),
    ("batchin_upstream_breaker", "The state that the breaker of a model server is in: 1 for that one."),
    ("batchin_upstream_healthy", "Whether a model server is healthy: 1 or 0."),
    ("batchin_upstream_outstanding", "Calls under way to a model server."),
    ("batchin_upstream_trouble", "What is wrong with a model server now, by cause: 1 while it is so."),
];

/// Names, units, and what is measured.
const HISTOGRAMS: &[(&str, Unit, &str)] = &[
    ("batchin_commit_group_size", Unit::Count, "Settlements that one group commit wrote."),
    ("batchin_commit_seconds", Unit::Seconds, "What a group commit took."),
    ("batchin_request_seconds", Unit::Seconds, "From a request's admission to its durable charge."),
    ("batchin_tpot_seconds", Unit::Seconds, "Time per token of a stream, after the first one."),
    ("batchin_ttft_seconds", Unit::Seconds, "Time to the first event of a stream."),
    ("batchin_upstream_first_byte_seconds", Unit::Seconds, "Time to the first byte of a model server's answer."),
];

/// Tells the installed recorder.
pub(super) fn describe() {
    COUNTERS.iter().for_each(|(name, help)| describe_counter!(*name, *help));
    GAUGES.iter().for_each(|(name, help)| describe_gauge!(*name, *help));
    HISTOGRAMS.iter().for_each(|(name, unit, help)| describe_histogram!(*name, *unit, *help));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Names that stand as first argument of a macro that records, or as a constant, in the code of every crate.
    fn recorded(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                recorded(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("telemetry/described.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                let quoted = code.split('"').skip(1).step_by(2);
                let ending =
                    ["_total", "_seconds", "_size", "_open", "_running", "_waiting", "_healthy", "_outstanding"];
                let is_name =
                    |text: &&str| text.starts_with("batchin_") && ending.iter().any(|end| text.ends_with(end));
                let in_macro = code
                    .match_indices("!(\"batchin_")
                    .map(|(at, start)| code[at + start.len() - "batchin_".len()..].split('"').next().unwrap());
                let names = quoted.filter(is_name).chain(in_macro).filter(|name| !name.contains('{'));
                found.extend(names.map(str::to_owned));
            }
        }
    }

    #[test]
    fn every_metric_is_described_here_and_in_the_documentation() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut found = BTreeSet::new();
        for one in std::fs::read_dir(crates).unwrap().map(Result::unwrap) {
            recorded(&one.path().join("src"), &mut found);
        }
        let described: BTreeSet<String> = (COUNTERS.iter().chain(GAUGES).map(|(name, _)| *name))
            .chain(HISTOGRAMS.iter().map(|(name, ..)| *name))
            .map(str::to_owned)
            .collect();
        assert!(found.len() > 20, "the code records {found:?}");
        let documentation = std::fs::read_to_string(crates.parent().unwrap().join("docs/operating.md")).unwrap();
        for name in &found {
            assert!(described.contains(name), "{name} has no line in telemetry/described.rs");
            assert!(documentation.contains(&format!("`{name}`")), "{name} is not in docs/operating.md");
        }
    }

    #[test]
    fn what_is_recorded_has_its_help() {
        let recorder = super::super::metrics_builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            COUNTERS.iter().for_each(|(name, _)| metrics::counter!(*name).increment(1));
            GAUGES.iter().for_each(|(name, _)| metrics::gauge!(*name).set(1.0));
            HISTOGRAMS.iter().for_each(|(name, ..)| metrics::histogram!(*name).record(1.0));
        });
        let text = recorder.handle().render();
        let names: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(names.len(), COUNTERS.len() + GAUGES.len() + HISTOGRAMS.len());
        for name in names {
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
    }
}
