//! Holds: what a file is for.

use crate::stored;

stored! {
    /// What a file is for, as its owner said.
    pub enum FilePurpose {
        /// The input of a batch.
        Batch = 0 => "batch",
        /// What a batch wrote; nobody uploads these.
        BatchOutput = 1 => "batch_output",
        /// Anything that a model is to see.
        UserData = 2 => "user_data",
        /// Kept for assistants.
        Assistants = 3 => "assistants",
        /// Kept for models that see.
        Vision = 4 => "vision",
        /// Kept for fine-tuning.
        FineTune = 5 => "fine-tune",
        /// Kept for evaluations.
        Evals = 6 => "evals",
    }
}

impl FilePurpose {
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
