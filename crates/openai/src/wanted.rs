//! Holds: what a whole answer must have in it, by what was asked for.

/// What a whole answer must have in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Choices, as they come.
    #[default]
    Choices,
    /// A vector for each input.
    Vectors(Vectors),
    /// The best of the documents.
    Ranking(Ranking),
}

/// The vectors of an embeddings call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors {
    /// How many.
    pub inputs: u32,
    /// How they are written.
    pub encoding: Encoding,
}

/// The ranking of a rerank call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranking {
    /// How many documents there are.
    pub documents: u32,
    /// How many of them are told, at most all.
    pub best: u32,
    /// Whether their texts are told too.
    pub returns_documents: bool,
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
