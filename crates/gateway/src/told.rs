//! Holds: what people are told when no model can serve a request, wherever they read it.

use batchin_domain::text::echo;
use batchin_openai::Code;

use crate::AdmitError;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Whoever waits for the answer: a sentence.
    Client,
    /// The owner of a task that was taken when it could be served: a sentence.
    TaskOwner,
    /// The author of a line: what follows the name of the member at fault.
    LineAuthor,
}

impl AdmitError {
    /// Its code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Invalid(_) | Self::NotCapable { .. } | Self::OverModelLimit { .. } => Code::InvalidRequest,
            Self::ModelNotFound { .. } => Code::ModelNotFound,
            Self::Offline { .. } => Code::ServiceUnavailable,
        }
    }

    /// The member of the body at fault.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::Invalid(fault) => fault.param.as_deref(),
            Self::ModelNotFound { .. } | Self::NotCapable { .. } => Some("model"),
            Self::OverModelLimit { param, .. } => Some(param),
            Self::Offline { .. } => None,
        }
    }

    /// What is wrong and what to do.
    pub fn message(&self, to: Reader) -> String {
        match self {
            Self::Invalid(fault) => fault.message.clone(),
            Self::ModelNotFound { model } => match to {
                Reader::Client => {
                    format!("There is no model `{}`; GET /v1/models lists what is served.", echo(model))
                }
                Reader::TaskOwner => format!("The model `{model}` is no longer served here."),
                Reader::LineAuthor => format!("no model `{model}` is served here; GET /v1/models lists them"),
            },
            Self::Offline { .. } => match to {
                Reader::Client | Reader::TaskOwner => "No model server can serve this model now.".to_owned(),
                Reader::LineAuthor => "the model is offline; GET /v1/models shows when it is back".to_owned(),
            },
            Self::NotCapable { model, needs } => match to {
                Reader::Client => format!("`{model}` cannot do {}; GET /v1/models shows what it can.", needs.name()),
                Reader::TaskOwner => format!("The model `{model}` does not serve {}.", needs.name()),
                Reader::LineAuthor => format!("the model `{model}` does not serve {}", needs.name()),
            },
            Self::OverModelLimit { param, asked, limit } => match to {
                Reader::Client => format!("`{param}` is {asked}; this model has at most {limit}."),
                Reader::TaskOwner => format!("`{param}` is {asked}; the model has at most {limit}."),
                Reader::LineAuthor => format!("is {asked}; the model has at most {limit}"),
            },
        }
    }
}
