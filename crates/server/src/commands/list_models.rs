//! Holds: `batchin models list`.

use std::io::Write;

use anyhow::Result;
use batchin_batch_cli::Outcome;
use batchin_config::Config;
use batchin_domain::Measure;
use serde_json::json;

use crate::wiring;

/// What is configured, and which weights can be fetched.
pub(super) fn run(config: &Config, as_json: bool, out: &mut impl Write) -> Result<Outcome> {
    let folder = wiring::weights_folder(config);
    for model in &config.models {
        let price = |measure| model.prices.standard().rate(measure).to_dollars_per_million_text();
        let (input, output) = (price(Measure::PromptTokens), price(Measure::CompletionTokens));
        if as_json {
            let number = |measure| serde_json::from_str::<serde_json::Number>(&price(measure));
            let row = json!({ "id": model.id, "aliases": model.aliases, "upstreams": model.upstreams,
                "std_input": number(Measure::PromptTokens)?, "std_output": number(Measure::CompletionTokens)?,
                "cached_input": number(Measure::CachedTokens)?, "cache_write": number(Measure::CacheWriteTokens)? });
            writeln!(out, "{row}")?;
        } else {
            let upstreams = model.upstreams.join(", ");
            writeln!(out, "{}  ${input} in, ${output} out per million tokens, on {upstreams}", model.id)?;
        }
    }
    for known in batchin_weights::known() {
        let here = batchin_weights::installed(known, &folder).is_some();
        let size = known.download_bytes();
        if as_json {
            writeln!(out, "{}", json!({ "weights": known.id, "installed": here, "download_bytes": size }))?;
        } else {
            let state = match &known.program {
                Some(program) if known.files.is_empty() => format!("needs the program {program} alone"),
                _ if here => "installed".to_owned(),
                _ => format!("`batchin models pull {}`", known.id),
            };
            writeln!(out, "weights {}  {} MB, {}, {state}", known.id, size / 1_000_000, known.license)?;
        }
    }
    Ok(Outcome::Done)
}
