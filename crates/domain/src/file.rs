//! Holds: what a file is for.

/// What a file is for, as its owner said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilePurpose {
    /// The input of a batch.
    Batch,
    /// What a batch wrote; nobody uploads these.
    BatchOutput,
    /// Anything that a model is to see.
    UserData,
    /// Kept for assistants.
    Assistants,
    /// Kept for models that see.
    Vision,
    /// Kept for fine-tuning.
    FineTune,
    /// Kept for evaluations.
    Evals,
}

impl FilePurpose {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Batch, Self::BatchOutput, Self::UserData, Self::Assistants, Self::Vision, Self::FineTune, Self::Evals];

    /// The number it is stored as.
    pub const fn code(self) -> i16 {
        match self {
            Self::Batch => 0,
            Self::BatchOutput => 1,
            Self::UserData => 2,
            Self::Assistants => 3,
            Self::Vision => 4,
            Self::FineTune => 5,
            Self::Evals => 6,
        }
    }

    /// From the number it is stored as.
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.code() == code)
    }

    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
            Self::UserData => "user_data",
            Self::Assistants => "assistants",
            Self::Vision => "vision",
            Self::FineTune => "fine-tune",
            Self::Evals => "evals",
        }
    }

    /// From its name in the API.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }

    /// Whether a client may upload one.
    pub const fn is_for_uploads(self) -> bool {
        !matches!(self, Self::BatchOutput)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for purpose in FilePurpose::ALL {
            assert_eq!(FilePurpose::from_code(purpose.code()), Some(purpose));
            assert_eq!(FilePurpose::from_name(purpose.name()), Some(purpose));
        }
        assert_eq!(FilePurpose::from_code(7), None);
        assert_eq!(FilePurpose::from_name("Batch"), None);
    }
}
