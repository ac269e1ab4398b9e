//! Holds: edits of a request's top-level members, made by splicing bytes.
//!
//! What is not named in the edit keeps its bytes: number spelling, key order, white space. A body is copied at most
//! once, and not at all when the edit changes nothing.

use std::{borrow::Cow, ops::ControlFlow, ops::Range};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::members::{each_member, is_quoted, quoted, range_in};

/// What to change in a request before it goes to a model server. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite<'a> {
    /// The server's own name of the model.
    pub model: Option<&'a str>,
    /// Whether the server shall stream. An absent member counts as false.
    pub stream: Option<bool>,
    /// Sets `stream_options.include_usage` and keeps the other stream options.
    pub include_usage: bool,
    /// The limit for a body that states none, under either name.
    pub max_tokens: Option<u32>,
    /// The server's scheduling priority, whatever the body says.
    pub priority: Option<i32>,
    /// Members to add where the body has none or null; values are JSON.
    pub defaults: &'a [(&'a str, &'a str)],
    /// Members to drop.
    pub remove: &'a [&'a str],
    /// Drops members that are null, for servers that judge by presence.
    pub drop_nulls: bool,
}

/// The edited body; the same bytes when nothing changes.
///
/// The body must be one that [`peek`](crate::peek()) accepted. Bytes that are not a JSON object come back as they are.
pub fn rewrite(body: &Bytes, edit: &Rewrite<'_>) -> Bytes {
    let Ok(text) = std::str::from_utf8(body) else { return body.clone() };
    let mut members = Vec::with_capacity(16);
    let listed = each_member(text, |key, value| {
        members.push(Member { key, value, at: range_in(text, value.get()) });
        ControlFlow::Continue(())
    });
    if listed.is_err() {
        return body.clone();
    }
    let mut changes: Vec<Change> = members.iter().map(|member| edit.change(member)).collect();
    // A later duplicate may be the one that a server reads, so it must not undo the edit.
    edit.silence_duplicates(&members, &mut changes);
    let added = edit.additions(&members);
    // What is added although a member of that name stands in the body replaces a null.
    let replaced = |member: &Member<'_>| added.iter().any(|(key, _)| *key == member.key);
    for (member, change) in members.iter().zip(&mut changes) {
        if replaced(member) {
            *change = Change::Remove;
        }
    }
    if added.is_empty() && changes.iter().all(|change| matches!(change, Change::Keep)) {
        return body.clone();
    }
    splice(text, &members, &changes, &added)
}

pub(crate) struct Member<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) value: &'a RawValue,
    pub(crate) at: Range<usize>,
}

impl Member<'_> {
    fn is_null(&self) -> bool {
        self.value.get() == "null"
    }
}

pub(crate) enum Change {
    Keep,
    Remove,
    Set(String),
}

impl Change {
    pub(crate) fn to(member: &Member<'_>, value: String) -> Self {
        if member.value.get() == value { Change::Keep } else { Change::Set(value) }
    }

    pub(crate) fn to_text(member: &Member<'_>, text: &str) -> Self {
        if is_quoted(member.value.get(), text) { Change::Keep } else { Change::Set(quoted(text)) }
    }
}

impl Rewrite<'_> {
    fn change(&self, member: &Member<'_>) -> Change {
        let key = member.key.as_ref();
        match key {
            "model" if let Some(model) = self.model => return Change::to_text(member, model),
            "stream" if let Some(stream) = self.stream => {
                let absent_means_the_same = member.is_null() && !stream;
                if !absent_means_the_same {
                    return Change::to(member, stream.to_string());
                }
            }
            "stream_options" if self.include_usage => return with_usage(member),
            "priority" if let Some(priority) = self.priority => return Change::to(member, priority.to_string()),
            _ => {}
        }
        if self.remove.contains(&key) || (self.drop_nulls && member.is_null()) {
            return Change::Remove;
        }
        Change::Keep
    }

    /// Removes all but the first of the members that this edit sets.
    fn silence_duplicates(&self, members: &[Member<'_>], changes: &mut [Change]) {
        let set = [
            ("model", self.model.is_some()),
            ("stream", self.stream.is_some()),
            ("stream_options", self.include_usage),
            ("priority", self.priority.is_some()),
        ];
        for (name, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
            let doubled = members.iter().zip(changes.iter_mut()).filter(|(member, _)| member.key == name).skip(1);
            doubled.for_each(|(_, change)| *change = Change::Remove);
        }
    }

    /// Members to append; values are JSON.
    fn additions(&self, members: &[Member<'_>]) -> Vec<(&str, String)> {
        let present = |key: &str| members.iter().any(|member| member.key == key);
        let stated = |key: &str| members.iter().any(|member| member.key == key && !member.is_null());
        let mut added = Vec::new();
        if let Some(model) = self.model
            && !present("model")
        {
            added.push(("model", quoted(model)));
        }
        if self.stream == Some(true) && !present("stream") {
            added.push(("stream", "true".to_owned()));
        }
        if self.include_usage && !present("stream_options") {
            added.push(("stream_options", "{\"include_usage\":true}".to_owned()));
        }
        if let Some(limit) = self.max_tokens
            && !stated("max_tokens")
            && !stated("max_completion_tokens")
        {
            added.push(("max_tokens", limit.to_string()));
        }
        if let Some(priority) = self.priority
            && !present("priority")
        {
            added.push(("priority", priority.to_string()));
        }
        let defaults = self.defaults.iter().filter(|(key, _)| !stated(key));
        added.extend(defaults.map(|(key, value)| (*key, (*value).to_owned())));
        added
    }
}

/// The stream options with `include_usage` set and everything else as it was.
fn with_usage(member: &Member<'_>) -> Change {
    let text = member.value.get();
    let mut inner = Vec::new();
    let listed = each_member(text, |key, value| {
        inner.push(Member { key, value, at: range_in(text, value.get()) });
        ControlFlow::Continue(())
    });
    if listed.is_err() {
        return Change::Set("{\"include_usage\":true}".to_owned());
    }
    let is_usage = |member: &&Member<'_>| member.key == "include_usage";
    if inner.iter().filter(is_usage).count() == 1
        && inner.iter().filter(is_usage).all(|usage| usage.value.get() == "true")
    {
        return Change::Keep;
    }
    let changes: Vec<Change> =
        inner.iter().map(|member| if member.key == "include_usage" { Change::Remove } else { Change::Keep }).collect();
    let spliced = splice(text, &inner, &changes, &[("include_usage", "true".to_owned())]);
    Change::Set(String::from_utf8_lossy(&spliced).into_owned())
}

/// Writes the object anew: kept members with the bytes before them, added ones before the closing brace. The names of
/// added members need no escapes.
pub(crate) fn splice(text: &str, members: &[Member<'_>], changes: &[Change], added: &[(&str, String)]) -> Bytes {
    let grown = added.iter().map(|(key, value)| key.len() + value.len() + 4).sum::<usize>();
    let set = changes.iter().map(|change| if let Change::Set(value) = change { value.len() } else { 0 }).sum::<usize>();
    let mut out = Vec::with_capacity(text.len() + grown + set);
    let open = text.find('{').map_or(0, |brace| brace + 1);
    out.extend_from_slice(&text.as_bytes()[..open]);
    let (mut from, mut empty) = (open, true);
    for (member, change) in members.iter().zip(changes) {
        if !matches!(change, Change::Remove) {
            let lead = &text[from..member.at.start];
            // The first member that stays brings along the comma after one that went.
            let lead = if empty && from > open { lead.trim_start().trim_start_matches(',') } else { lead };
            out.extend_from_slice(lead.as_bytes());
            let value = if let Change::Set(value) = change { value } else { &text[member.at.clone()] };
            out.extend_from_slice(value.as_bytes());
            empty = false;
        }
        from = member.at.end;
    }
    for (key, value) in added {
        out.extend_from_slice(if empty { b"\"" } else { b",\"" });
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"\":");
        out.extend_from_slice(value.as_bytes());
        empty = false;
    }
    // With no member there is white space at most before the brace.
    out.extend_from_slice(&text.as_bytes()[from..]);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, edit: &Rewrite<'_>, expected: &str) {
        let out = rewrite(&Bytes::copy_from_slice(body.as_bytes()), edit);
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
    }

    #[test]
    fn nothing_to_do_copies_nothing() {
        let body = Bytes::from_static(br#"{"model":"a","stream":true,"stream_options":{"include_usage":true}}"#);
        let edit = Rewrite { model: Some("a"), stream: Some(true), include_usage: true, ..Rewrite::default() };
        assert_eq!(rewrite(&body, &edit).as_ptr(), body.as_ptr());
        let plain = Bytes::from_static(br#"{"model":"a"}"#);
        let edit = Rewrite { stream: Some(false), remove: &["suffix"], drop_nulls: true, ..Rewrite::default() };
        assert_eq!(rewrite(&plain, &edit).as_ptr(), plain.as_ptr());
    }

    #[test]
    fn model_is_replaced_in_place() {
        let edit = Rewrite { model: Some("Qwen/\"3\""), ..Rewrite::default() };
        check(
            "{ \"t\" : 1.50e0, \"model\" : \"a\" ,\n \"x\": [1 , 2]}\n",
            &edit,
            "{ \"t\" : 1.50e0, \"model\" : \"Qwen/\\\"3\\\"\" ,\n \"x\": [1 , 2]}\n",
        );
        check(r#"{"model":"a","m\u006fdel":"b"}"#, &edit, r#"{"model":"Qwen/\"3\""}"#);
        check("{}", &edit, r#"{"model":"Qwen/\"3\""}"#);
    }

    #[test]
    fn usage_is_merged_into_stream_options() {
        let edit = Rewrite { include_usage: true, ..Rewrite::default() };
        check(r#"{"a":1}"#, &edit, r#"{"a":1,"stream_options":{"include_usage":true}}"#);
        check(r#"{"stream_options":null}"#, &edit, r#"{"stream_options":{"include_usage":true}}"#);
        check(r#"{"stream_options":{}}"#, &edit, r#"{"stream_options":{"include_usage":true}}"#);
        check(
            r#"{"stream_options":{"include_usage":false,"x":1.0}}"#,
            &edit,
            r#"{"stream_options":{"x":1.0,"include_usage":true}}"#,
        );
    }

    #[test]
    fn members_are_removed_wherever_they_stand() {
        let edit = Rewrite { remove: &["x"], ..Rewrite::default() };
        check(r#"{"x":1,"a":2}"#, &edit, r#"{"a":2}"#);
        check(r#"{"a":2,"x":1}"#, &edit, r#"{"a":2}"#);
        check(r#"{"a":2, "x":1, "b":3}"#, &edit, r#"{"a":2, "b":3}"#);
        check(r#"{"x":1}"#, &edit, "{}");
        check(r#"{"x":1,"x":2,"a":3}"#, &edit, r#"{"a":3}"#);
        let edit = Rewrite { drop_nulls: true, max_tokens: Some(5), ..Rewrite::default() };
        check(r#"{"suffix":null,"a":null}"#, &edit, r#"{"max_tokens":5}"#);
    }

    #[test]
    fn limit_is_added_only_where_none_is_stated() {
        let edit = Rewrite { max_tokens: Some(9), ..Rewrite::default() };
        check(r#"{"max_tokens":1}"#, &edit, r#"{"max_tokens":1}"#);
        check(r#"{"max_completion_tokens":1}"#, &edit, r#"{"max_completion_tokens":1}"#);
        check(r#"{"a":1}"#, &edit, r#"{"a":1,"max_tokens":9}"#);
        check(r#"{"max_tokens":null}"#, &edit, r#"{"max_tokens":9}"#);
        check(
            r#"{"max_completion_tokens":null,"max_tokens":null}"#,
            &edit,
            r#"{"max_completion_tokens":null,"max_tokens":9}"#,
        );
    }

    #[test]
    fn priority_and_defaults_are_set() {
        let edit = Rewrite { priority: Some(-3), defaults: &[("suffix", "\"\"")], ..Rewrite::default() };
        check(r#"{"priority":7,"suffix":"s"}"#, &edit, r#"{"priority":-3,"suffix":"s"}"#);
        check(r#"{"a":1}"#, &edit, r#"{"a":1,"priority":-3,"suffix":""}"#);
        check(r#"{"suffix":null}"#, &edit, r#"{"priority":-3,"suffix":""}"#);
    }

    #[test]
    fn stream_is_forced_either_way() {
        let on = Rewrite { stream: Some(true), ..Rewrite::default() };
        check(r#"{"stream":null}"#, &on, r#"{"stream":true}"#);
        check(r#"{"a":1}"#, &on, r#"{"a":1,"stream":true}"#);
        let off = Rewrite { stream: Some(false), ..Rewrite::default() };
        check(r#"{"stream":true,"a":1}"#, &off, r#"{"stream":false,"a":1}"#);
        check(r#"{"stream":null}"#, &off, r#"{"stream":null}"#);
    }
}
