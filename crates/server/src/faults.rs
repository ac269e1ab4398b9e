//! Holds: how a test asks this process for a fault. Only builds of the tests listen.

use std::time::Duration;

use anyhow::{Context as _, Result};
use batchin_faults::{Death, Plan};
use batchin_settings::Environment;

/// `POINT:N`: the process dies when it reaches the point for the N-th time.
const DIE_AT: &str = "BATCHIN_FAULT_DIE_AT";
/// Seconds that the clock is ahead of the machine's.
const CLOCK_AHEAD: &str = "BATCHIN_FAULT_CLOCK_AHEAD";

/// Takes what the environment asks for. A plan that cannot be read is an error: the test would wait in vain.
pub fn plan(environment: &Environment) -> Result<()> {
    if !batchin_faults::ENABLED {
        return Ok(());
    }
    let death = environment.value(DIE_AT).map(death).transpose().context(DIE_AT)?;
    let seconds = environment.value(CLOCK_AHEAD).map(str::parse).transpose().context(CLOCK_AHEAD)?;
    batchin_faults::plan(Plan { death, clock_ahead: Duration::from_secs(seconds.unwrap_or(0)) });
    Ok(())
}

fn death(text: &str) -> Result<Death> {
    let (point, hit) = text.split_once(':').context("must be POINT:N")?;
    Ok(Death { point: point.to_owned(), hit: hit.parse()? })
}
