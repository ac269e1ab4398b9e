//! Holds: what the body of a rerank call says in its own way.

use batchin_domain::{Counts, Measure};
use serde_json::value::RawValue;

use super::{Found, InputBound, InvalidRequest, MAX_INPUTS, Ways, scalar};
use crate::{members::each_item, wanted::Ranking};

/// A document is read in at most so many pieces, with the query before each.
const MAX_CHUNKS: u32 = 1_000;

pub(super) const WAYS: Ways = Ways {
    bound,
    check: |_, stream| {
        let message = "`stream` is not supported for rerank; leave it out";
        if stream { Err(InvalidRequest::at("stream", message)) } else { Ok(()) }
    },
    least_output: 1,
    max_output: |_| None,
    echoes: false,
};

pub(super) fn wanted(found: &Found<'_>) -> Result<Ranking, InvalidRequest> {
    let documents = documents(found.documents)?;
    let most = scalar::count("top_n", found.top_n, 1..=u32::MAX)?;
    let returns_documents = scalar::flag("return_documents", found.return_documents)?;
    Ok(Ranking { documents, best: most.unwrap_or(documents).min(documents), returns_documents })
}

/// Each document is a prompt, which the query and whatever a template adds belong to.
fn bound(found: &Found<'_>) -> Result<InputBound, InvalidRequest> {
    let query_bytes = query(found.query)?.get().len() as u64;
    let chunks = scalar::count("max_chunks_per_doc", found.max_chunks_per_doc, 1..=MAX_CHUNKS)?.unwrap_or(1);
    let documents = documents(found.documents)?;
    let prompts = found.documents.map_or(0, |raw| pieces(raw, chunks));
    let documents_bytes = found.documents.map_or(0, |raw| raw.get().len() as u64);
    let text_bytes = documents_bytes.saturating_add(query_bytes.saturating_mul(prompts.into()));
    let repeated_bytes = query_bytes.saturating_mul(prompts.saturating_sub(documents).into());
    let made = Counts::NONE.with(Measure::Searches, documents.into());
    Ok(InputBound { text_bytes, repeated_bytes, items: prompts, messages: prompts, made, ..InputBound::default() })
}

/// In how many pieces the documents are read at most, none of which is empty.
fn pieces(documents: &RawValue, chunks: u32) -> u32 {
    let mut pieces = 0_u32;
    let of = |document: &RawValue| u32::try_from(document.get().len()).unwrap_or(u32::MAX).clamp(1, chunks);
    let _listed = each_item(documents.get(), |document: &RawValue| pieces = pieces.saturating_add(of(document)));
    pieces
}

fn query(raw: Option<&RawValue>) -> Result<&RawValue, InvalidRequest> {
    let Some(raw) = raw else {
        return Err(InvalidRequest::at("query", "`query` is required: give it as a string"));
    };
    scalar::unread_text("query", Some(raw))?;
    if raw.get() == "\"\"" {
        return Err(InvalidRequest::at("query", "`query` must not be empty"));
    }
    Ok(raw)
}

/// How many there are. A `{"text": …}` is a text by now, so that anything else is no document.
fn documents(raw: Option<&RawValue>) -> Result<u32, InvalidRequest> {
    const NAME: &str = "documents";
    let shape =
        || InvalidRequest::at(NAME, "`documents` must be a non-empty array of strings or {\"text\": …} objects");
    let raw = raw.ok_or_else(|| {
        InvalidRequest::at(NAME, "`documents` is required: give it as an array of strings or {\"text\": …} objects")
    })?;
    let (mut count, mut bad) = (0_u32, None);
    let listed = each_item(raw.get(), |item: &RawValue| {
        if bad.is_none() && !item.get().starts_with('"') {
            bad = Some(count);
        }
        count = count.saturating_add(1);
    });
    if listed.is_err() || count == 0 {
        return Err(shape());
    }
    if let Some(index) = bad {
        let path = format!("{NAME}[{index}]");
        let message = format!("`{path}` must be a string or an object with a `text` that is one");
        return Err(InvalidRequest::at(path, message));
    }
    if count > MAX_INPUTS {
        return Err(InvalidRequest::at(NAME, format!("`{NAME}` has {count} elements; at most {MAX_INPUTS} per call")));
    }
    Ok(count)
}
