//! Holds: that money would help where a call was refused: a mark beside the answer, for whoever can say how to pay.

use std::borrow::Cow;

use batchin_domain::Amount;

/// That money would help, in an answer's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Unpaid {
    /// At least so much.
    pub(crate) missing: Amount,
    /// Why.
    pub(crate) why: Cow<'static, str>,
    /// Who is asked.
    pub(crate) whom: Whom,
}

/// Who is asked to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Who wants to pay.
    Payer,
    /// Who wants something else, and needs no second payment while one is on its way.
    Anybody,
}
