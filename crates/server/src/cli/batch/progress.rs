//! Holds: what a person sees while a batch runs: a bar on a terminal, a line now and then elsewhere.

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::follow::Totals;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

const TEMPLATE: &str = "{spinner} [{bar:20}] {pos}/{len} tasks {wide_msg}";

pub(super) struct Progress {
    /// None without a terminal.
    bar: Option<ProgressBar>,
    /// The first totals seen: rates count from there, also when watching what was begun before.
    first: Cell<Option<Totals>>,
    last_line: Cell<Option<(Instant, Totals)>>,
    trouble: RefCell<Option<&'static str>>,
}

impl Progress {
    pub(super) fn new(is_interactive: bool, tasks: usize) -> Self {
        let bar = is_interactive.then(|| {
            let length = u64::try_from(tasks).ok().filter(|tasks| *tasks > 0);
            let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
            bar.set_style(style());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, first: Cell::new(None), last_line: Cell::new(None), trouble: RefCell::new(None) }
    }

    /// A line that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.println(text),
            _ => {
                // Without anybody to read it, the run goes on all the same.
                let _ = writeln!(io::stderr(), "{text}");
            }
        }
    }

    pub(super) fn update(&self, totals: &Totals, elapsed: Duration) {
        let first = self.first.get().unwrap_or_else(|| {
            self.first.set(Some(*totals));
            *totals
        });
        let text = described(totals, &first, elapsed);
        if let Some(bar) = &self.bar {
            bar.set_length(totals.tasks);
            bar.set_position(totals.completed + totals.failed);
            bar.set_message(text);
            return;
        }
        let is_due = self.last_line.get().is_none_or(|(at, last)| last != *totals && at.elapsed() >= LINE_INTERVAL);
        if is_due {
            self.last_line.set(Some((Instant::now(), *totals)));
            self.say(&format!("{}/{} tasks {text}", totals.completed + totals.failed, totals.tasks));
        }
    }

    /// Says once that something is wrong, until [`Progress::trouble_over`].
    pub(super) fn trouble(&self, what: &'static str) {
        if self.trouble.replace(Some(what)) != Some(what) {
            self.say(&format!("{what}; trying again"));
        }
    }

    pub(super) fn trouble_over(&self) {
        if self.trouble.take().is_some() {
            self.say("the server answers again");
        }
    }

    /// Takes the bar away.
    pub(super) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[expect(clippy::expect_used, reason = "the template is a constant that a test renders")]
fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE).expect("the template is well-formed").progress_chars("=> ")
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown with one decimal")]
fn described(totals: &Totals, first: &Totals, elapsed: Duration) -> String {
    let done = (totals.completed + totals.failed).saturating_sub(first.completed + first.failed);
    let tokens = totals.tokens.saturating_sub(first.tokens);
    let seconds = elapsed.as_secs_f64().max(0.001);
    let mut text = format!(
        "· {:.1} tasks/s · {:.0} tokens/s · {} cents",
        done as f64 / seconds,
        tokens as f64 / seconds,
        totals.cost.to_cents_text()
    );
    if totals.failed > 0 {
        text.push_str(&format!(" · {} failed", totals.failed));
    }
    if totals.is_blocked {
        text.push_str(" · waiting for credit");
    }
    text
}

#[cfg(test)]
mod tests {
    use batchin_domain::Amount;

    use super::*;

    #[test]
    fn rates_count_from_what_was_seen_first() {
        let _ = style();
        let first = Totals { tasks: 10, completed: 4, tokens: 400, ..Totals::NONE };
        let cost = Amount::from_nanos(7_600).unwrap();
        let now = Totals { tasks: 10, completed: 8, failed: 1, tokens: 1_400, cost, is_blocked: true, ..Totals::NONE };
        assert_eq!(
            described(&now, &first, Duration::from_secs(2)),
            "· 2.5 tasks/s · 500 tokens/s · 0.00076 cents · 1 failed · waiting for credit"
        );
    }
}
