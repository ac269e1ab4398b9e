//! Holds: what a person sees while a batch runs: a bar on a terminal, a line now and then elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::totals::Totals;
use crate::counted::counted;

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Rates are those of the last half minute or so: a batch does not run evenly.
const RATE_WINDOW: Duration = Duration::from_secs(30);

const TEMPLATE: &str = "{spinner} [{bar:20}] {pos}/{len} tasks {wide_msg}";

pub(super) struct Progress {
    /// None without a terminal.
    bar: Option<ProgressBar>,
    samples: RefCell<Samples>,
    last_line: RefCell<Option<(Instant, String)>>,
    trouble: Cell<Option<&'static str>>,
}

/// What rates are computed from.
#[derive(Debug, Default)]
struct Samples(VecDeque<Sample>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    ended: u64,
    tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Rates {
    tasks: f64,
    tokens: f64,
}

impl Progress {
    pub(super) fn new(is_interactive: bool) -> Self {
        let bar = is_interactive.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let (samples, last_line) = (RefCell::default(), RefCell::default());
        Self { bar, samples, last_line, trouble: Cell::new(None) }
    }

    /// For commands that show nothing but trouble.
    pub(super) fn quiet() -> Self {
        Self::new(false)
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

    /// Something else writes to the terminal.
    pub(super) fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.suspend(write),
            _ => write(),
        }
    }

    pub(super) fn uploading(&self, sent: u64, total: u64) {
        let text = format!("uploading {} of {}", HumanBytes(sent), HumanBytes(total));
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => self.line_now_and_then(text),
        }
    }

    pub(super) fn update(&self, totals: &Totals) {
        let mut samples = self.samples.borrow_mut();
        samples.add(Sample { at: Instant::now(), ended: totals.ended(), tokens: totals.tokens });
        let text = described(totals, samples.rates());
        match &self.bar {
            Some(bar) => {
                bar.set_length(totals.tasks);
                bar.set_position(totals.ended());
                bar.set_message(text);
            }
            None => self.line_now_and_then(format!("{}/{} {text}", totals.ended(), counted(totals.tasks, "task"))),
        }
    }

    fn line_now_and_then(&self, text: String) {
        let mut last = self.last_line.borrow_mut();
        if last.as_ref().is_none_or(|(at, last)| *last != text && at.elapsed() >= LINE_INTERVAL) {
            self.say(&text);
            *last = Some((Instant::now(), text));
        }
    }

    /// Says once for each kind that something is wrong, until [`Progress::trouble_over`].
    pub(super) fn trouble(&self, kind: &'static str, what: &str) {
        if self.trouble.replace(Some(kind)) != Some(kind) {
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

impl Samples {
    fn add(&mut self, sample: Sample) {
        // Polls are at least 200 ms apart, so the window bounds the number.
        while self.0.get(1).is_some_and(|second| sample.at.duration_since(second.at) >= RATE_WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// None before anything could be measured.
    #[expect(clippy::cast_precision_loss, reason = "rates are shown with one decimal")]
    fn rates(&self) -> Option<Rates> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        (seconds > 0.0).then(|| Rates { tasks: rate(first.ended, last.ended), tokens: rate(first.tokens, last.tokens) })
    }
}

#[expect(clippy::expect_used, reason = "the template is a constant that a test renders")]
fn style() -> ProgressStyle {
    ProgressStyle::with_template(TEMPLATE).expect("the template is well-formed").progress_chars("=> ")
}

#[expect(clippy::cast_precision_loss, reason = "an estimate in seconds")]
fn described(totals: &Totals, rates: Option<Rates>) -> String {
    let mut text = String::new();
    if totals.status == "pending" && totals.tasks == 0 {
        return "· the server checks the file".to_owned();
    }
    // Writing to a text cannot fail.
    if let Some(Rates { tasks, tokens }) = rates {
        let _ = write!(text, "· {tasks:.1} tasks/s · {tokens:.0} tokens/s ");
    }
    let _ = write!(text, "· {}", counted(totals.cost.to_cents_text(), "cent"));
    let left = totals.tasks.saturating_sub(totals.ended());
    if let Some(rates) = rates.filter(|rates| left > 0 && rates.tasks > 0.0) {
        let _ = write!(text, " · {} left", duration(left as f64 / rates.tasks));
    }
    if totals.failed > 0 {
        let _ = write!(text, " · {} failed", totals.failed);
    }
    match totals.blocked.as_deref() {
        None => {}
        Some("payment_required") => text.push_str(" · waiting for credit"),
        Some("max_cost") => text.push_str(" · waiting: --max-cost-cents is set aside for what runs"),
        Some("budget_used_up") => text.push_str(" · waiting: the key's budget is used up"),
        Some(other) => {
            let _ = write!(text, " · waiting: {other}");
        }
    }
    text
}

/// The two largest units.
fn duration(seconds: f64) -> String {
    let rounded = Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |duration| duration.as_secs().max(1));
    match rounded {
        0..60 => format!("{rounded}s"),
        60..3_600 => format!("{}m {}s", rounded / 60, rounded % 60),
        3_600..86_400 => format!("{}h {}m", rounded / 3_600, rounded % 3_600 / 60),
        _ => format!("{}d {}h", rounded / 86_400, rounded % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use batchin_domain::Amount;

    use super::*;

    fn totals(completed: u64, failed: u64) -> Totals {
        Totals {
            status: "in_progress".to_owned(),
            tasks: 1_000,
            completed,
            failed,
            stopped: 0,
            tokens: 1_400,
            cost: Amount::from_nanos(7_600).unwrap(),
            blocked: None,
            ended_early: None,
        }
    }

    #[test]
    fn rates_are_those_of_the_last_half_minute() {
        let start = Instant::now();
        let mut samples = Samples::default();
        assert_eq!(samples.rates(), None);
        for (second, ended) in [(0, 0), (10, 1_000), (40, 1_300), (70, 1_360)] {
            samples.add(Sample { at: start + Duration::from_secs(second), ended, tokens: ended * 10 });
        }
        assert_eq!(samples.rates(), Some(Rates { tasks: 2.0, tokens: 20.0 }));
    }

    #[test]
    fn a_person_sees_rates_cost_and_time_left() {
        let _ = style();
        let rates = Some(Rates { tasks: 2.5, tokens: 500.0 });
        let blocked = Totals { blocked: Some("payment_required".to_owned()), ..totals(99, 1) };
        assert_eq!(
            described(&blocked, rates),
            "· 2.5 tasks/s · 500 tokens/s · 0.00076 cents · 6m 0s left · 1 failed · waiting for credit"
        );
        assert_eq!(described(&totals(0, 0), None), "· 0.00076 cents");
        for (seconds, text) in [(0.2, "1s"), (61.0, "1m 1s"), (7_260.0, "2h 1m"), (90_000.0, "1d 1h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
