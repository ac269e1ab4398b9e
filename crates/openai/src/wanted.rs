//! Holds: what a whole answer must have in it, by what was asked for.

/// What a whole answer must have in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Choices, as they come.
    #[default]
    Choices,
    /// A vector for each input.
    Vectors(Vectors),
}

/// The vectors of an embeddings call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// How many.
    pub inputs: u32,
    /// How they are written.
    pub encoding: Encoding,
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// The little-endian bytes of its 32-bit floats, in base64.
    Base64,
}
