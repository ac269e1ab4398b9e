//! Holds: which cache cell a new sequence gets, and what it can take over from others. Pure.

use llama_cpp_2::token::LlamaToken;

/// Waiting for another sequence to compute a common prefix pays from so many tokens on.
const WORTH_FOLLOWING: usize = 24;

/// What is known of one cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct CellView<'a> {
    /// Tokens whose keys and values are in the cache.
    pub(super) cached: &'a [LlamaToken],
    /// All tokens of the sequence that works in it, if any: it will have computed these.
    pub(super) live: Option<&'a [LlamaToken]>,
    /// When it was last used; larger is later.
    pub(super) used_at: u64,
}

/// What to do with a new sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The cell that it gets.
    pub(super) cell: usize,
    /// Keep or copy so many tokens from this cell, which may be `cell` itself.
    pub(super) source: Option<(usize, usize)>,
    /// Start only when this cell has computed so many tokens, then take them over.
    pub(super) follow: Option<(usize, usize)>,
}

/// How many tokens both begin with.
pub(super) fn common(a: &[LlamaToken], b: &[LlamaToken]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Chooses a cell for `tokens`, or `None` when every cell is live.
///
/// The best source is kept in place when most of it is wanted; otherwise the least recently used cell is given up and
/// the prefix copied there, so that a long conversation is not cut down to its system prompt.
pub(super) fn plan(tokens: &[LlamaToken], cells: &[CellView<'_>]) -> Option<Plan> {
    // The last token is always computed: its scores choose the next one.
    let wanted = &tokens[..tokens.len().saturating_sub(1)];
    let best =
        |lengths: &mut dyn Iterator<Item = (usize, usize)>| lengths.max_by_key(|&(_, n)| n).filter(|&(_, n)| n > 0);
    let source = best(&mut cells.iter().map(|cell| common(wanted, cell.cached)).enumerate());
    let ready = source.map_or(0, |(_, n)| n);
    let follow = best(&mut cells.iter().enumerate().filter_map(|(i, cell)| {
        let n = common(wanted, cell.live?);
        (n > cell.cached.len()).then_some((i, n))
    }))
    .filter(|&(_, n)| n >= ready + WORTH_FOLLOWING);
    let idle = |i: usize| cells[i].live.is_none();
    if let Some((i, n)) = source
        && idle(i)
        && n * 2 >= cells[i].cached.len()
    {
        return Some(Plan { cell: i, source, follow });
    }
    let oldest = (0..cells.len()).filter(|&i| idle(i) && Some(i) != source.map(|(i, _)| i));
    let cell = oldest.min_by_key(|&i| (!cells[i].cached.is_empty(), cells[i].used_at));
    // With a single idle cell, which is also the source, keeping its beginning is the best there is.
    let cell = cell.or_else(|| source.map(|(i, _)| i).filter(|&i| idle(i)))?;
    Some(Plan { cell, source, follow })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(ids: std::ops::Range<i32>) -> Vec<LlamaToken> {
        ids.map(LlamaToken).collect()
    }

    fn idle(cached: &[LlamaToken], used_at: u64) -> CellView<'_> {
        CellView { cached, live: None, used_at }
    }

    #[test]
    fn an_empty_cell_is_taken_before_a_used_one() {
        let old = tokens(50..60);
        let plan = plan(&tokens(0..10), &[idle(&old, 1), idle(&[], 9)]).unwrap();
        assert_eq!(plan, Plan { cell: 1, source: None, follow: None });
    }

    #[test]
    fn a_conversation_goes_on_in_its_cell() {
        let before = tokens(0..100);
        let plan = plan(&tokens(0..120), &[idle(&[], 0), idle(&before, 1)]).unwrap();
        assert_eq!(plan, Plan { cell: 1, source: Some((1, 100)), follow: None });
    }

    #[test]
    fn a_short_prefix_of_a_long_conversation_is_copied() {
        let long = tokens(0..100);
        let plan = plan(&tokens(0..30), &[idle(&long, 5), idle(&long[50..], 3), idle(&long[60..], 1)]).unwrap();
        assert_eq!(plan, Plan { cell: 2, source: Some((0, 29)), follow: None });
    }

    #[test]
    fn the_last_token_is_always_computed() {
        let same = tokens(0..100);
        assert_eq!(plan(&same, &[idle(&same, 0)]).unwrap().source, Some((0, 99)));
    }

    #[test]
    fn twins_that_arrive_together_compute_their_prefix_once() {
        let twin = tokens(0..100);
        let leader = CellView { cached: &twin[..10], live: Some(&twin), used_at: 1 };
        let plan = plan(&twin, &[leader, idle(&[], 0)]).unwrap();
        assert_eq!(plan, Plan { cell: 1, source: Some((0, 10)), follow: Some((0, 99)) });
    }

    #[test]
    fn no_idle_cell_means_no_plan() {
        let busy = tokens(0..3);
        assert_eq!(plan(&tokens(0..9), &[CellView { cached: &busy, live: Some(&busy), used_at: 0 }]), None);
    }
}
