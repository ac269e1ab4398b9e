//! Holds: what is known of each choice of a stream: whether it has ended, and its tool calls.

use crate::calls::Calls;

/// Most bytes that are kept of a stream that passes through: the ends of 2,048 prompts with 128 answers each.
const MAX_KEPT_BYTES: usize = 32 * 1024 * 1024;

/// The choices of a stream so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choices {
    /// By index.
    tracks: Vec<Track>,
    ended: usize,
    kept: usize,
}

/// One choice of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    index: u64,
    ended: bool,
    pub(crate) calls: Calls,
}

impl Choices {
    /// The choice with this index. `None` when there are too many.
    pub(crate) fn at(&mut self, index: u64) -> Option<&mut Track> {
        let at = match self.tracks.binary_search_by_key(&index, |track| track.index) {
            Ok(at) => at,
            Err(at) => {
                self.keep(size_of::<Track>())?;
                self.tracks.insert(at, Track { index, ended: false, calls: Calls::default() });
                at
            }
        };
        self.tracks.get_mut(at)
    }

    /// Notes that so many bytes more are kept. `None` when these are too many.
    pub(crate) fn keep(&mut self, bytes: usize) -> Option<()> {
        self.kept = self.kept.saturating_add(bytes);
        (self.kept <= MAX_KEPT_BYTES).then_some(())
    }

    /// The choice ends. Whether it had not before.
    pub(crate) fn end(&mut self, index: u64) -> bool {
        let is_new = self.at(index).is_some_and(|track| !std::mem::replace(&mut track.ended, true));
        self.ended += usize::from(is_new);
        is_new
    }

    /// Whether the choice has ended.
    pub(crate) fn has_ended(&self, index: u64) -> bool {
        let track =
            self.tracks.binary_search_by_key(&index, |track| track.index).ok().and_then(|at| self.tracks.get(at));
        track.is_some_and(|track| track.ended)
    }

    /// Choices that were seen.
    pub(crate) fn seen(&self) -> usize {
        self.tracks.len()
    }

    /// Whether there are choices, and each has ended.
    pub(crate) fn have_ended(&self) -> bool {
        self.ended > 0 && self.ended == self.tracks.len()
    }
}
