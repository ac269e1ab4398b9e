//! Holds: rankings of documents: what servers are sent, and what they answer in one shape.
//!
//! Cohere's and Jina's shape is the one that leaves. Of servers' answers the places and scores are read, which each spells as
//! it likes; a document is told by the client's own text.

use std::{fmt::Write as _, ops::ControlFlow};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    closing::usage_json,
    members::{each_item, each_member, quoted},
    rewrite::{Change, Member, members_of, splice},
    scan::members_in,
    usage::{Usage, usage_of},
    wanted::Ranking,
};

/// The list does not rank the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRanking;

/// One document's place, as servers write it.
#[derive(Deserialize)]
struct Scored<'a> {
    index: u32,
    #[serde(borrow)]
    relevance_score: Option<&'a RawValue>,
    /// SGLang's and TEI's name for it.
    #[serde(borrow)]
    score: Option<&'a RawValue>,
}

struct Place<'a> {
    index: u32,
    /// As the server wrote it.
    score: &'a str,
    value: f64,
}

/// The body with each document as a text, which all servers take: Cohere's clients send `{"text": …}` too. What is no
/// document stays, for whoever checks the body.
pub fn documents_as_texts(body: &Bytes) -> Bytes {
    let Some((text, members)) = members_of(body) else { return body.clone() };
    let change = |member: &Member<'_>| match member.key.as_ref() {
        "documents" => as_texts(member.value).map_or(Change::Keep, Change::Set),
        _ => Change::Keep,
    };
    let changes: Vec<Change> = members.iter().map(change).collect();
    if changes.iter().all(|change| matches!(change, Change::Keep)) {
        return body.clone();
    }
    splice(text, &members, &changes, &[])
}

/// `None`: they are texts already.
fn as_texts(documents: &RawValue) -> Option<String> {
    let (mut any, mut out) = (false, String::with_capacity(documents.get().len()));
    each_item(documents.get(), |document: &RawValue| {
        let text = text_of(document.get());
        any |= text.is_some();
        out.push(if out.is_empty() { '[' } else { ',' });
        out.push_str(text.unwrap_or(document.get()));
    })
    .ok()?;
    out.push(']');
    any.then_some(out)
}

/// The one `text` of an object.
fn text_of(document: &str) -> Option<&str> {
    let mut texts = members_in(document).filter(|(name, _)| document.starts_with('{') && *name == "\"text\"");
    let (_, text) = texts.next()?;
    (text.starts_with('"') && texts.next().is_none()).then_some(text)
}

/// The answer of which this list is the result. `request` is the body that was sent.
pub(crate) fn told(
    list: &str,
    ranking: Ranking,
    (id, model): (&str, &str),
    (usage, request): (Option<Usage>, &[u8]),
) -> Result<Bytes, NoRanking> {
    let places = places(list, ranking)?;
    let documents = if ranking.returns_documents { documents_of(request) } else { Vec::new() };
    let mut out = String::with_capacity(128 + places.len() * 64);
    let _ = write!(out, "{{\"id\":{},\"object\":\"list\",\"model\":{},\"results\":[", quoted(id), quoted(model));
    for (at, place) in places.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let _ = write!(out, "{comma}{{\"index\":{},\"relevance_score\":{}", place.index, place.score);
        if let Some(text) = usize::try_from(place.index).ok().and_then(|index| documents.get(index)) {
            let _ = write!(out, ",\"document\":{{\"text\":{text}}}");
        }
        out.push('}');
    }
    out.push(']');
    if let Some(usage) = usage {
        let _ = write!(out, ",\"usage\":{}", usage_json(&usage, false));
    }
    out.push('}');
    Ok(out.into())
}

/// The best documents, the best first. A server that was told how many may have given more; never fewer.
fn places(list: &str, ranking: Ranking) -> Result<Vec<Place<'_>>, NoRanking> {
    let documents = usize::try_from(ranking.documents).map_err(|_| NoRanking)?;
    let best = usize::try_from(ranking.best).map_err(|_| NoRanking)?;
    let (mut places, mut seen, mut is_odd) = (Vec::with_capacity(documents), vec![false; documents], false);
    each_item(list, |scored: Scored<'_>| {
        let place = scored.place().filter(|place| {
            let index = usize::try_from(place.index).ok();
            index.and_then(|index| seen.get_mut(index)).is_some_and(|seen| !std::mem::replace(seen, true))
        });
        is_odd |= place.is_none();
        places.extend(place);
    })
    .map_err(|_| NoRanking)?;
    if is_odd || places.len() < best {
        return Err(NoRanking);
    }
    places.sort_by(|one, other| other.value.total_cmp(&one.value).then(one.index.cmp(&other.index)));
    places.truncate(best);
    Ok(places)
}

impl<'a> Scored<'a> {
    fn place(self) -> Option<Place<'a>> {
        let score = self.relevance_score.or(self.score)?.get();
        let value = score.parse().ok().filter(|value: &f64| value.is_finite())?;
        Some(Place { index: self.index, score, value })
    }
}

fn documents_of(request: &[u8]) -> Vec<&str> {
    let mut documents = Vec::new();
    // The body has been read before.
    let _read = std::str::from_utf8(request).map(|text| {
        each_member(text, |key, value| {
            if key == "documents" {
                let _listed = each_item(value.get(), |document: &RawValue| documents.push(document.get()));
            }
            ControlFlow::Continue(())
        })
    });
    documents
}

/// A ranking as Cohere's second version tells it: with `meta`, where the tokens that are billed stand too.
pub fn with_meta(body: &Bytes) -> Bytes {
    let Some((text, members)) = members_of(body) else { return body.clone() };
    let tokens = usage_of(body).and_then(|usage| usage.prompt_tokens).unwrap_or(0);
    let meta = format!("{{\"api_version\":{{\"version\":\"2\"}},\"billed_units\":{{\"input_tokens\":{tokens}}}}}");
    let keep: Vec<Change> = members.iter().map(|_| Change::Keep).collect();
    splice(text, &members, &keep, &[("meta", meta)])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Ranking = Ranking { documents: 2, best: 2, returns_documents: false };

    #[track_caller]
    fn check(list: &str, ranking: Ranking, results: &str) {
        let request = br#"{"query":"q","documents":["first","se\u0063ond","third"]}"#;
        let body = told(list, ranking, ("rerank_1", "m"), (Some(Usage::of(7, 0)), request)).unwrap();
        let usage = r#""usage":{"prompt_tokens":7,"total_tokens":7}"#;
        let expected = format!(r#"{{"id":"rerank_1","object":"list","model":"m","results":{results},{usage}}}"#);
        assert_eq!(body, expected);
    }

    #[test]
    fn each_server_s_list_becomes_one_shape() {
        let vllm = r#"[{"index":1,"document":{"text":"b","multi_modal":null},"relevance_score":0.98000},
            {"index":0,"document":{"text":"a"},"relevance_score":1.5e-3}]"#;
        let results = r#"[{"index":1,"relevance_score":0.98000},{"index":0,"relevance_score":1.5e-3}]"#;
        check(vllm, TWO, results);
        let llama = r#"[{"index":0,"relevance_score":-3.5},{"index":1,"relevance_score":2.25}]"#;
        check(llama, TWO, r#"[{"index":1,"relevance_score":2.25},{"index":0,"relevance_score":-3.5}]"#);
        let sglang = r#"[{"score":0.9,"document":"b","index":1,"meta_info":{"prompt_tokens":3}},
            {"score":0.1,"document":null,"index":0,"meta_info":null}]"#;
        let results = r#"[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}]"#;
        check(sglang, TWO, results);
        check(r#"[{"index":1,"score":0.9},{"index":0,"score":0.1,"text":"a"}]"#, TWO, results);
        // Equal scores keep the order of the documents.
        let equal = r#"[{"index":1,"score":0},{"index":0,"score":0}]"#;
        check(equal, TWO, r#"[{"index":0,"relevance_score":0},{"index":1,"relevance_score":0}]"#);
    }

    #[test]
    fn the_best_come_with_the_client_s_own_texts() {
        let ranking = Ranking { documents: 3, best: 1, returns_documents: true };
        let all = r#"[{"index":0,"score":1},{"index":1,"score":3,"document":"other"},{"index":2,"score":2}]"#;
        let results = r#"[{"index":1,"relevance_score":3,"document":{"text":"se\u0063ond"}}]"#;
        check(all, ranking, results);
        check(r#"[{"index":1,"score":3}]"#, ranking, results);
    }

    #[test]
    fn what_does_not_rank_the_documents_is_no_ranking() {
        for list in [
            "[]",
            "{}",
            "null",
            r#"[{"index":0,"score":1}]"#,
            r#"[{"index":0,"score":1},{"index":0,"score":2}]"#,
            r#"[{"index":0,"score":1},{"index":2,"score":2}]"#,
            r#"[{"index":0,"score":1},{"index":1}]"#,
            r#"[{"index":0,"score":1},{"index":1,"score":"2"}]"#,
            r#"[{"index":0,"score":1},{"index":1,"score":1e999}]"#,
            r#"[{"index":0,"score":1},{"score":2}]"#,
            "[0.5,0.1]",
        ] {
            assert_eq!(told(list, TWO, ("i", "m"), (None, b"{}")), Err(NoRanking), "{list}");
        }
    }

    #[test]
    fn documents_are_sent_as_texts() {
        let sent = |body: &'static str| documents_as_texts(&Bytes::from_static(body.as_bytes()));
        assert_eq!(
            sent(r#"{"query":"q","documents":[{"text":"a\n","id":{"text":1}}, "b"],"top_n" : 1}"#),
            r#"{"query":"q","documents":["a\n","b"],"top_n" : 1}"#
        );
        let plain = Bytes::from_static(br#"{"documents":["a", "b"]}"#);
        assert_eq!(documents_as_texts(&plain).as_ptr(), plain.as_ptr());
        for other in [r#"{"documents":[{"text":1},{"image":"x"}]}"#, r#"{"documents":[{"text":"a","text":"b"}]}"#, "[]"]
        {
            assert_eq!(sent(other), other);
        }
    }

    #[test]
    fn meta_tells_what_is_billed() {
        let body = Bytes::from_static(br#"{"results":[],"usage":{"prompt_tokens":7,"total_tokens":7}}"#);
        let meta = r#""meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":7}}"#;
        let usage = r#""usage":{"prompt_tokens":7,"total_tokens":7}"#;
        assert_eq!(with_meta(&body), format!(r#"{{"results":[],{usage},{meta}}}"#));
    }
}
