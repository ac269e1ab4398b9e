//! Holds: what a test tells the fake Stripe to do, and what the fake remembers of calls.

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StripeFault {
    /// All is done, and nothing is ever answered.
    SilentAfterCommit,
    /// All is done, and the connection breaks.
    BrokenAfterCommit,
    /// All is done, and the answer is 500; by the same key it is 500 again.
    ErrorAfterCommit,
    /// Nothing is done, and the answer is this: 500, 503, 409.
    Error(u16),
    /// Nothing is done: 429, and the seconds to wait.
    Busy(u64),
    /// Exactly these bytes as a body, with status 200; nothing is done.
    Body(String),
}

/// An answer that is kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) print: String,
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) at: i64,
}

/// What becomes of a charge of a saved payment method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SavedOutcome {
    /// It is paid.
    #[default]
    Paid,
    /// It is under way until it is settled, as with bank accounts.
    Processing,
    /// It is declined for this reason, such as `insufficient_funds`.
    Declined(String),
    /// The bank wants its customer to be there.
    NeedsCustomer,
}

/// How a dispute ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisputeEnd {
    /// The merchant was right: the money comes back.
    Won,
    /// The buyer was.
    Lost,
    /// An inquiry is closed.
    WarningClosed,
}
