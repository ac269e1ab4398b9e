//! Holds: how one server is asked for what stands between a prompt and a suffix.

use batchin_domain::CallKind;
use batchin_openai::{Fim, InvalidRequest, Members, filled, infill};

use crate::{
    adapters::{Kind, Suffix},
    call::Call,
    failure::CallError,
};

/// What llama.cpp's `/infill` reads and completions do not: more of a prompt than is held, other answers than are read.
const INFILL_EXTRAS: [&str; 2] = ["input_extra", "response_fields"];

/// What becomes of a body on its way to one server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Middle {
    /// Members in place of the client's own.
    pub(crate) set: Members,
    /// Members that do not go on.
    pub(crate) remove: Vec<&'static str>,
    /// Whether the call goes to `/infill`, whose answers are no completions.
    pub(crate) is_infill: bool,
}

impl Middle {
    /// What this call needs at a server of this kind.
    pub(crate) fn of(call: &Call<'_>, kind: Kind) -> Result<Self, CallError> {
        if call.kind != CallKind::Completions {
            return Ok(Self::default());
        }
        let Some(fim) = call.fim else { return Ok(Self::without(kind)) };
        match (kind.suffix, fim) {
            (_, Fim::Off) => Err(CallError::unfit(no_middle())),
            (Suffix::Own, _) | (Suffix::Taken | Suffix::Filled, Fim::Server) | (Suffix::Taken, Fim::Usual(_)) => {
                Ok(Self::default())
            }
            (_, Fim::Filled(family) | Fim::Usual(Some(family))) => {
                let set = filled(&call.body, family, kind.most_stops).map_err(CallError::unfit)?;
                Ok(Self { set, remove: vec!["suffix"], is_infill: false })
            }
            (Suffix::Infill, Fim::Server | Fim::Usual(None)) => Self::infill(call),
            (Suffix::Filled, Fim::Usual(None)) => Err(CallError::unfit(no_middle())),
        }
    }

    /// An empty suffix asks for nothing, and some servers refuse it.
    fn without(kind: Kind) -> Self {
        match kind.suffix {
            Suffix::Filled | Suffix::Infill => Self { remove: vec!["suffix"], ..Self::default() },
            Suffix::Own | Suffix::Taken => Self::default(),
        }
    }

    fn infill(call: &Call<'_>) -> Result<Self, CallError> {
        if call.answers > 1 {
            let message = "this model fills in the middle once for a request: leave out `n` and `best_of`";
            return Err(CallError::unfit(InvalidRequest::at("n", message)));
        }
        let set = infill(&call.body).map_err(CallError::unfit)?;
        let remove = ["prompt", "suffix"].into_iter().chain(INFILL_EXTRAS).collect();
        Ok(Self { set, remove, is_infill: true })
    }
}

/// What is told of a model without marks.
pub(crate) fn no_middle() -> InvalidRequest {
    let message = "this model does not fill in the middle: leave out `suffix`. If it was trained to, its operator can name \
                   its family by `fim` in its configuration";
    InvalidRequest::at("suffix", message)
}
