//! Holds: the inputs of an embeddings call parted over several calls, and their vectors as one answer.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    closing::usage_json,
    embeddings,
    members::range_in,
    rewrite::{Change, Member, members_of, splice},
    scan::items_in,
    usage::Usage,
    wanted::Vectors,
};

/// One call's vectors: the answer, as it is told to clients, for how many inputs, and what the server counted.
pub type Part = (Bytes, u32, Option<Usage>);

/// What of a body stands in each of its parts, at most, in bytes: it is sent as often as there are parts.
const MOST_BESIDE: usize = 64 * 1024;

/// A body as several, each with at most so many inputs, one made after the other.
#[derive(Debug)]
pub struct Parts {
    body: Bytes,
    input: Range<usize>,
    items: std::vec::IntoIter<Range<usize>>,
    most: usize,
}

/// The body as several. `None` where it has more beside its inputs than is repeated.
///
/// The body must be one that [`peek`](crate::peek()) accepted, with more inputs than that.
pub fn parts_of_input(body: &Bytes, most: u32) -> Option<Parts> {
    let (text, members) = members_of(body)?;
    let input = members.iter().find(|member| member.key == "input")?.value.get();
    let items: Vec<Range<usize>> = items_in(input).map(|item| range_in(text, item)).collect();
    let most = usize::try_from(most.max(1)).unwrap_or(usize::MAX);
    let parts = Parts { body: body.clone(), input: range_in(text, input), items: items.into_iter(), most };
    (text.len() - input.len() <= MOST_BESIDE).then_some(parts)
}

impl Iterator for Parts {
    /// A body, and how many inputs it has.
    type Item = (Bytes, u32);

    fn next(&mut self) -> Option<(Bytes, u32)> {
        let items: Vec<_> = self.items.by_ref().take(self.most).collect();
        let of = |range: &Range<usize>| self.body.get(range.clone()).unwrap_or_default();
        let list = items.iter().map(of).collect::<Vec<_>>().join(&b","[..]);
        let (before, behind) = (of(&(0..self.input.start)), of(&(self.input.end..self.body.len())));
        let inputs = u32::try_from(items.len()).ok().filter(|inputs| *inputs > 0)?;
        Some(([before, b"[", &list, b"]", behind].concat().into(), inputs))
    }
}

/// The first answer with the vectors of all of them, in their order, and the sum of what was counted; nothing is counted where
/// one server did not. `None`: one of them lacks its vectors.
pub fn join_vectors(parts: &[Part], vectors: Vectors) -> Option<(Bytes, Option<Usage>)> {
    let (first, ..) = parts.first()?;
    let (text, members) = members_of(first)?;
    let mut list = String::from("[");
    let mut inputs = 0;
    for (answer, count, _) in parts {
        let (_, members) = members_of(answer)?;
        let data = members.iter().rfind(|member| member.key == "data")?;
        if inputs > 0 {
            list.push(',');
        }
        embeddings::number_on(data.value, Vectors { inputs: *count, ..vectors }, inputs, &mut list).ok()?;
        inputs = inputs.checked_add(*count)?;
    }
    list.push(']');
    let usage = summed(parts);
    let last = members.iter().rposition(|member| member.key == "data");
    let change = |(at, member): (usize, &Member<'_>)| match member.key.as_ref() {
        "data" if Some(at) == last => Change::Set(std::mem::take(&mut list)),
        "usage" => Change::Remove,
        _ => Change::Keep,
    };
    let changes: Vec<Change> = members.iter().enumerate().map(change).collect();
    let told: Vec<_> = usage.iter().map(|usage| ("usage", usage_json(usage, false))).collect();
    Some((splice(text, &members, &changes, &told), usage))
}

fn summed(parts: &[Part]) -> Option<Usage> {
    parts.iter().try_fold(Usage::of(0, 0), |sum, (_, _, usage)| {
        let usage = usage.as_ref()?;
        let prompt = usage.prompt_tokens?;
        let cached = usage.cached_tokens.min(prompt);
        let written = usage.cache_write_tokens.min(prompt - cached);
        Some(Usage {
            cached_tokens: sum.cached_tokens.saturating_add(cached),
            cache_write_tokens: sum.cache_write_tokens.saturating_add(written),
            ..Usage::of(sum.prompt_tokens?.saturating_add(prompt), 0)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wanted::Encoding;

    #[test]
    fn inputs_are_parted_in_their_order() {
        let parts = |body: &'static str, most| {
            let parts = parts_of_input(&Bytes::from_static(body.as_bytes()), most).unwrap();
            parts.map(|(body, inputs)| (String::from_utf8_lossy(&body).into_owned(), inputs)).collect::<Vec<_>>()
        };
        let named = |input: &str, inputs| (format!(r#"{{"model":"m","input":{input}, "dimensions":2}}"#), inputs);
        assert_eq!(
            parts(r#"{"model":"m","input":["a,b" , "c","d"], "dimensions":2}"#, 2),
            [named(r#"["a,b","c"]"#, 2), named(r#"["d"]"#, 1)]
        );
        assert_eq!(
            parts(r#"{"model":"m","input":[[1,2],[3]], "dimensions":2}"#, 1),
            [named("[[1,2]]", 1), named("[[3]]", 1)]
        );
    }

    #[test]
    fn what_would_be_sent_again_and_again_is_bounded() {
        let with = |beside: usize| {
            let body = format!(r#"{{"model":"m","input":["a","b"],"user":"{}"}}"#, "u".repeat(beside));
            parts_of_input(&Bytes::from(body), 1).map(Iterator::count)
        };
        assert_eq!((with(1_000), with(MOST_BESIDE)), (Some(2), None));
    }

    #[test]
    fn what_caches_had_is_counted_together() {
        let part = |cached_tokens, cache_write_tokens| {
            (Bytes::new(), 1, Some(Usage { cached_tokens, cache_write_tokens, ..Usage::of(10, 0) }))
        };
        let expected = Usage { cached_tokens: 14, cache_write_tokens: 6, ..Usage::of(30, 0) };
        assert_eq!(summed(&[part(4, 6), part(10, 5), part(0, 0)]), Some(expected));
    }

    #[test]
    fn vectors_are_put_together_and_counted_together() {
        let part = |data: &str, tokens: u64, inputs| {
            let usage = format!(r#"{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}"#);
            let body = format!(r#"{{"id":"i","data":{data},"usage":{usage},"model":"m"}}"#);
            (Bytes::from(body), inputs, Some(Usage::of(tokens, 0)))
        };
        let vectors = Vectors { inputs: 3, encoding: Encoding::Float };
        let first = part(r#"[{"index":0,"embedding":[1]},{"embedding":[2],"index":1,"x":0}]"#, 5, 2);
        let second = part(r#"[{"index":0,"embedding":[3]}]"#, 2, 1);
        let (body, usage) = join_vectors(&[first.clone(), second.clone()], vectors).unwrap();
        let data = r#"[{"index":0,"embedding":[1]},{"embedding":[2],"index":1,"x":0},{"index":2,"embedding":[3]}]"#;
        let expected =
            format!(r#"{{"id":"i","data":{data},"model":"m","usage":{{"prompt_tokens":7,"total_tokens":7}}}}"#);
        assert_eq!((body, usage), (Bytes::from(expected), Some(Usage::of(7, 0))));
        // Half a count would be free work.
        let uncounted = (second.0, 1, None);
        let (body, usage) = join_vectors(&[first.clone(), uncounted], vectors).unwrap();
        assert_eq!((body, usage), (Bytes::from(format!(r#"{{"id":"i","data":{data},"model":"m"}}"#)), None));
        assert_eq!(join_vectors(&[first.clone(), (first.0, 1, None)], vectors), None);
    }
}
