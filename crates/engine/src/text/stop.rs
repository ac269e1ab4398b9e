//! Holds: stop strings found across token boundaries. Text that could be the beginning of one is held back.

/// Watches a growing text for the first of several stop strings.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    /// Text that may yet turn out to be the beginning of a stop string; shorter than the longest of them.
    held: String,
}

impl StopMatcher {
    /// Empty stop strings are ignored: they would stop everything.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() }
    }

    /// Adds text and appends what is safe to show to `out`. True when a stop string was completed; nothing of it and
    /// nothing after it is shown.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> bool {
        if self.stops.is_empty() {
            out.push_str(text);
            return false;
        }
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            out.push_str(&self.held[..at]);
            self.held.clear();
            return true;
        }
        let keep = self.stops.iter().map(|stop| partial_suffix(&self.held, stop)).max().unwrap_or(0);
        let safe = self.held.len() - keep;
        out.push_str(&self.held[..safe]);
        self.held.drain(..safe);
        false
    }

    /// Ends the text without a stop string: what was held back is shown after all.
    pub(crate) fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

/// Bytes at the end of `text` that begin `stop` without completing it.
pub(crate) fn partial_suffix(text: &str, stop: &str) -> usize {
    (1..stop.len().min(text.len() + 1))
        .rev()
        .find(|&n| stop.is_char_boundary(n) && text.as_bytes().ends_with(&stop.as_bytes()[..n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], parts: &[&str]) -> (Vec<String>, bool) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&s| s.to_owned()).collect());
        let mut shown = Vec::new();
        for part in parts {
            let mut out = String::new();
            let stopped = matcher.push(part, &mut out);
            shown.push(out);
            if stopped {
                return (shown, true);
            }
        }
        let mut rest = String::new();
        matcher.finish(&mut rest);
        shown.push(rest);
        (shown, false)
    }

    fn check(stops: &[&str], parts: &[&str], shown: &[&str], stopped: bool) {
        assert_eq!(run(stops, parts), (shown.iter().map(|&s| s.to_owned()).collect(), stopped));
    }

    #[test]
    fn a_stop_string_over_several_tokens_is_never_shown() {
        check(&["END"], &["one E", "N", "D two"], &["one ", "", ""], true);
    }

    #[test]
    fn a_false_alarm_is_shown_late() {
        check(&["END"], &["one E", "N", "T"], &["one ", "", "ENT", ""], false);
        check(&["END"], &["one EN"], &["one ", "EN"], false);
    }

    #[test]
    fn overlapping_beginnings_are_found() {
        check(&["aab"], &["aa", "ab"], &["", "a"], true);
        check(&["abab"], &["aba", "bab"], &["", ""], true);
    }

    #[test]
    fn the_first_of_several_wins() {
        check(&["x", "bc"], &["abcx"], &["a"], true);
    }

    #[test]
    fn multibyte_stops_split_at_characters() {
        check(&["日本"], &["a日", "本b"], &["a", ""], true);
        check(&["é"], &["è"], &["è", ""], false);
    }

    #[test]
    fn an_empty_stop_string_stops_nothing() {
        check(&[""], &["abc"], &["abc", ""], false);
    }
}
