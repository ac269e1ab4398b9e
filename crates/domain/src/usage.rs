//! Holds: what a request consumed.

/// Counted units of one request. Cached and reasoning tokens are parts of input and output, not additions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Prompt tokens.
    pub input: u64,
    /// Completion tokens.
    pub output: u64,
    /// Prompt tokens that the engine found in its prefix cache.
    pub cached: u64,
}

impl Units {
    /// Prompt and completion tokens together.
    pub const fn total(self) -> u64 {
        self.input.saturating_add(self.output)
    }

    /// The larger of each count: usage grows while a stream runs and never shrinks.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            input: self.input.max(other.input),
            output: self.output.max(other.output),
            cached: self.cached.max(other.cached),
        }
    }
}
