//! Holds: how much of a class a replica bears, found by growing slowly and cutting fast.

/// Step time above target: small, because the target leaves room above what a person notices.
pub(crate) const CUT_SLOW: f64 = 0.85;
/// A refusal or a timeout: the replica is past its capacity.
pub(crate) const CUT_OVERLOADED: f64 = 0.5;
const SLOW_START: f64 = 1.5;

/// Requests in flight that a class may have.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    value: f64,
    slow_start: bool,
}

impl Limit {
    pub fn new(initial: u32) -> Self {
        Self { value: f64::from(initial.max(1)), slow_start: true }
    }

    /// At least one.
    pub fn whole(&self) -> u32 {
        self.value as u32
    }

    /// Grows by one, or by half in slow start, up to `ceiling`.
    pub fn grow(&mut self, ceiling: u32) {
        let grown = if self.slow_start { (self.value * SLOW_START).max(self.value + 1.0) } else { self.value + 1.0 };
        self.value = grown.min(f64::from(ceiling.max(1)));
    }

    /// Cuts from what was really in flight: a limit that nobody reached says nothing.
    pub fn cut(&mut self, factor: f64, peak: u32) {
        self.slow_start = false;
        self.value = (self.value.min(f64::from(peak)) * factor).max(1.0);
    }

    pub fn cap(&mut self, ceiling: u32) {
        self.value = self.value.min(f64::from(ceiling.max(1)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_its_way_up_and_never_below_one_or_above_the_ceiling() {
        let mut limit = Limit::new(2);
        let grown: Vec<u32> = std::iter::repeat_with(|| {
            limit.grow(64);
            limit.whole()
        })
        .take(10)
        .collect();
        assert_eq!(grown, [3, 4, 6, 10, 15, 22, 34, 51, 64, 64]);
        limit.cut(CUT_SLOW, 40);
        assert_eq!(limit.whole(), 34);
        limit.grow(64);
        assert_eq!(limit.whole(), 35);
        (0..50).for_each(|_| limit.cut(CUT_OVERLOADED, 0));
        assert_eq!(limit.whole(), 1);
    }
}
