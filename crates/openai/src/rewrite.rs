//! Holds: edits of a request's top-level members, made by splicing bytes.
//!
//! What is not named in the edit keeps its bytes: number spelling, key order, white space. A body is copied at most
//! once, and not at all when the edit changes nothing.

use std::{borrow::Cow, ops::ControlFlow, ops::Range};

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    members::{each_member, is_quoted, quoted, range_in},
    peek::whole_number,
    steering::is_steering,
};

/// The name by which a server reads the most tokens that an answer may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LimitName {
    /// `max_tokens`, which all but OpenAI's newest models read.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`
    MaxCompletionTokens,
    /// `max_output_tokens`, of the Responses API alone.
    MaxOutputTokens,
    /// None: it is told no limit.
    None,
}

impl LimitName {
    /// Whether a body says its limit by this member.
    fn is_stated_by(self, key: &str) -> bool {
        match self {
            // In other calls it steers.
            LimitName::MaxOutputTokens => key == MAX_OUTPUT_TOKENS,
            LimitName::MaxTokens | LimitName::MaxCompletionTokens | LimitName::None => is_limit(key),
        }
    }

    /// The words in the configuration.
    pub const NAMES: [&'static str; 3] = ["max_tokens", "max_completion_tokens", "none"];

    /// The name that a configuration has.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "max_tokens" => Some(LimitName::MaxTokens),
            "max_completion_tokens" => Some(LimitName::MaxCompletionTokens),
            "none" => Some(LimitName::None),
            _ => None,
        }
    }

    /// The member; none where no limit is told.
    pub const fn member(self) -> Option<&'static str> {
        match self {
            LimitName::MaxTokens => Some(MAX_TOKENS),
            LimitName::MaxCompletionTokens => Some(MAX_COMPLETION_TOKENS),
            LimitName::MaxOutputTokens => Some(MAX_OUTPUT_TOKENS),
            LimitName::None => None,
        }
    }
}

const MAX_TOKENS: &str = "max_tokens";
const MAX_COMPLETION_TOKENS: &str = "max_completion_tokens";
const MAX_OUTPUT_TOKENS: &str = "max_output_tokens";

/// How a server is told the most tokens that an answer may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// The one name under which the limit goes on; the other is taken out.
    pub name: LimitName,
    /// The most that may be asked for. The server is told the smallest of this and what the body says, under either name;
    /// nothing when there is neither.
    pub most: Option<u32>,
    /// The least that is told: 1 for servers to which 0 means no limit.
    pub least: u32,
}

/// What to change in a request before it goes to a model server. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite<'a> {
    /// The server's own name of the model.
    pub model: Option<&'a str>,
    /// Whether the server shall stream. An absent member counts as false.
    pub stream: Option<bool>,
    /// Sets `stream_options.include_usage` and keeps the other stream options.
    pub include_usage: bool,
    /// With it, also sets `stream_options.continuous_usage_stats`: counts in every chunk.
    pub continuous_usage: bool,
    /// The limit of an answer's tokens; `None` leaves the body's own as they are.
    pub limit: Option<Limit>,
    /// The server's scheduling priority, whatever the body says.
    pub priority: Option<i32>,
    /// Members to add where the body has none or null, or where its own is dropped; values are JSON.
    pub defaults: &'a [(&'a str, &'a str)],
    /// Members that are set whatever the body has; values are JSON.
    pub set: &'a [(&'static str, String)],
    /// Members to drop.
    pub remove: &'a [&'a str],
    /// Drops the members of [`STEERING`](crate::STEERING), a `best_of` of 0, which asks for nothing, and writes whole
    /// numbers that are spelled `2.0` as such: some servers take them for another type.
    pub tidy: bool,
    /// Drops members that are null, for servers that judge by presence.
    pub drop_nulls: bool,
}

/// The edited body; the same bytes when nothing changes.
///
/// The body must be one that [`peek`](crate::peek()) accepted. Bytes that are not a JSON object come back as they are.
pub fn rewrite(body: &Bytes, edit: &Rewrite<'_>) -> Bytes {
    let Some((text, members)) = members_of(body) else { return body.clone() };
    let limit = edit.limit.and_then(|limit| limit.among(&members));
    let mut changes: Vec<Change> = members.iter().map(|member| edit.change(member, limit)).collect();
    // A later duplicate may be the one that a server reads, so it must not undo the edit.
    edit.silence_duplicates(&members, &mut changes);
    let added = edit.additions(&members, limit);
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

/// The text of a body and its members, in order. `None`: it is no JSON object.
pub(crate) fn members_of(body: &Bytes) -> Option<(&str, Vec<Member<'_>>)> {
    let text = std::str::from_utf8(body).ok()?;
    let mut members = Vec::with_capacity(16);
    each_member(text, |key, value| {
        members.push(Member { key, value, at: range_in(text, value.get()) });
        ControlFlow::Continue(())
    })
    .ok()?;
    Some((text, members))
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

    fn to_number(member: &Member<'_>, number: u32) -> Self {
        if member.value.get().parse() == Ok(number) { Change::Keep } else { Change::Set(number.to_string()) }
    }

    pub(crate) fn to_text(member: &Member<'_>, text: &str) -> Self {
        if is_quoted(member.value.get(), text) { Change::Keep } else { Change::Set(quoted(text)) }
    }
}

impl Limit {
    /// The limit that the server is told, given what the body says.
    fn among(self, members: &[Member<'_>]) -> Option<u32> {
        let stated = members.iter().filter(|member| self.name.is_stated_by(&member.key));
        let told = stated.filter_map(|member| whole_number(member.value.get())).chain(self.most).min()?;
        Some(told.max(self.least))
    }
}

fn is_limit(key: &str) -> bool {
    key == MAX_TOKENS || key == MAX_COMPLETION_TOKENS
}

/// The name by which the body says how many tokens an answer may have, if it does.
pub fn stated_limit(body: &[u8]) -> Option<&'static str> {
    let mut found = None;
    for_each(body, |key, value| {
        let name = if key == MAX_TOKENS { MAX_TOKENS } else { MAX_COMPLETION_TOKENS };
        if is_limit(key) && value != "null" {
            found = Some(name);
        }
    });
    found
}

/// Whether `name` goes on as we write it: the body has none of its own, or of `stream_options` no more than we ask for.
pub fn added_alone(body: &[u8], name: &str) -> bool {
    let mut alone = true;
    for_each(body, |key, value| {
        if key == name && value != "null" {
            alone = name == "stream_options" && has_usage_alone(value);
        }
    });
    alone
}

fn has_usage_alone(options: &str) -> bool {
    let mut alone = true;
    for_each(options.as_bytes(), |key, _| alone &= key == "include_usage");
    alone
}

/// Calls `found` with the members of what is a JSON object.
fn for_each(body: &[u8], mut found: impl FnMut(&str, &str)) {
    let Ok(text) = std::str::from_utf8(body) else { return };
    // What is no object has no members; `peek` has refused it before.
    drop(each_member(text, |key, value| {
        found(&key, value.get());
        ControlFlow::Continue(())
    }));
}

impl Rewrite<'_> {
    fn change(&self, member: &Member<'_>, limit: Option<u32>) -> Change {
        let key = member.key.as_ref();
        if let Some((_, value)) = self.set.iter().find(|(name, _)| *name == key) {
            return Change::to(member, value.clone());
        }
        match key {
            "model" if let Some(model) = self.model => return Change::to_text(member, model),
            "stream" if let Some(stream) = self.stream => {
                let absent_means_the_same = member.is_null() && !stream;
                if !absent_means_the_same {
                    return Change::to(member, stream.to_string());
                }
            }
            "stream_options" if self.include_usage => return with_usage(member, self.wished()),
            "priority" if let Some(priority) = self.priority => return Change::to(member, priority.to_string()),
            key if let (Some(told), Some(limit)) = (self.limit, limit)
                && told.name.is_stated_by(key) =>
            {
                let is_read = told.name.member() == Some(key);
                return if is_read { Change::to_number(member, limit) } else { Change::Remove };
            }
            // More than the limit: some servers refuse it, and none may take it for one.
            "min_tokens" | "min_new_tokens"
                if limit.is_some_and(|limit| whole_number(member.value.get()).is_some_and(|least| least > limit)) =>
            {
                return Change::to_number(member, limit.unwrap_or_default());
            }
            "n" | "best_of" if self.tidy => match whole_number(member.value.get()) {
                Some(0) => return Change::Remove,
                Some(number) => return Change::to_number(member, number),
                None => {}
            },
            _ => {}
        }
        let goes = self.remove.contains(&key) || (self.tidy && is_steering(key));
        if goes || (self.drop_nulls && member.is_null()) {
            return Change::Remove;
        }
        Change::Keep
    }

    /// The stream options that are set.
    const fn wished(&self) -> &'static [&'static str] {
        if self.continuous_usage { &["include_usage", "continuous_usage_stats"] } else { &["include_usage"] }
    }

    /// Removes all but the first of the members that this edit sets.
    fn silence_duplicates(&self, members: &[Member<'_>], changes: &mut [Change]) {
        let set = [
            ("model", self.model.is_some()),
            ("stream", self.stream.is_some()),
            ("stream_options", self.include_usage),
            ("priority", self.priority.is_some()),
        ];
        let set = set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name);
        for name in set.chain(self.set.iter().map(|(name, _)| *name)) {
            let doubled = members.iter().zip(changes.iter_mut()).filter(|(member, _)| member.key == name).skip(1);
            doubled.for_each(|(_, change)| *change = Change::Remove);
        }
    }

    /// Members to append; values are JSON.
    fn additions(&self, members: &[Member<'_>], limit: Option<u32>) -> Vec<(&str, String)> {
        let present = |key: &str| members.iter().any(|member| member.key == key);
        let stays = |member: &Member<'_>| !member.is_null() && !self.remove.contains(&member.key.as_ref());
        let stated = |key: &str| members.iter().any(|member| member.key == key && stays(member));
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
            added.push(("stream_options", all_set(self.wished())));
        }
        if let Some(limit) = limit
            && let Some(name) = self.limit.and_then(|told| told.name.member())
            && !present(name)
        {
            added.push((name, limit.to_string()));
        }
        if let Some(priority) = self.priority
            && !present("priority")
        {
            added.push(("priority", priority.to_string()));
        }
        added.extend(self.set.iter().filter(|(key, _)| !present(key)).map(|(key, value)| (*key, value.clone())));
        let defaults = self.defaults.iter().filter(|(key, _)| !stated(key));
        added.extend(defaults.map(|(key, value)| (*key, (*value).to_owned())));
        added
    }
}

/// Stream options with these set and nothing else.
fn all_set(wished: &[&str]) -> String {
    let set: Vec<String> = wished.iter().map(|name| format!("\"{name}\":true")).collect();
    format!("{{{}}}", set.join(","))
}

/// The stream options with what is wished for set and everything else as it was.
fn with_usage(member: &Member<'_>, wished: &[&str]) -> Change {
    let text = member.value.get();
    let mut inner = Vec::new();
    let listed = each_member(text, |key, value| {
        inner.push(Member { key, value, at: range_in(text, value.get()) });
        ControlFlow::Continue(())
    });
    if listed.is_err() {
        return Change::Set(all_set(wished));
    }
    let is_set = |name: &&str| {
        let mut named = inner.iter().filter(|member| member.key == *name);
        named.next().is_some_and(|option| option.value.get() == "true") && named.next().is_none()
    };
    if wished.iter().all(is_set) {
        return Change::Keep;
    }
    let is_wished = |member: &Member<'_>| wished.contains(&member.key.as_ref());
    let changes: Vec<Change> =
        inner.iter().map(|member| if is_wished(member) { Change::Remove } else { Change::Keep }).collect();
    let added: Vec<_> = wished.iter().map(|name| (*name, "true".to_owned())).collect();
    let spliced = splice(text, &inner, &changes, &added);
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
    fn counts_all_along_are_asked_for_beside_the_last() {
        let edit = Rewrite { include_usage: true, continuous_usage: true, ..Rewrite::default() };
        let both = r#"{"stream_options":{"include_usage":true,"continuous_usage_stats":true}}"#;
        check("{}", &edit, both);
        check(r#"{"stream_options":{"include_usage":true}}"#, &edit, both);
        check(r#"{"stream_options":null}"#, &edit, both);
        check(r#"{"stream_options":{"continuous_usage_stats":false,"include_usage":true}}"#, &edit, both);
        check(both, &edit, both);
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
        let edit = Rewrite { drop_nulls: true, ..limited(LimitName::MaxTokens, Some(5)) };
        check(r#"{"suffix":null,"a":null}"#, &edit, r#"{"max_tokens":5}"#);
    }

    fn limited(name: LimitName, most: Option<u32>) -> Rewrite<'static> {
        Rewrite { limit: Some(Limit { name, most, least: 0 }), ..Rewrite::default() }
    }

    #[test]
    fn the_smallest_limit_goes_on_under_the_name_that_is_read() {
        let edit = limited(LimitName::MaxTokens, Some(9));
        check(r#"{"max_tokens":1}"#, &edit, r#"{"max_tokens":1}"#);
        check(r#"{"max_tokens":10,"a":1}"#, &edit, r#"{"max_tokens":9,"a":1}"#);
        check(r#"{"max_completion_tokens":1,"a":1}"#, &edit, r#"{"a":1,"max_tokens":1}"#);
        check(r#"{"max_completion_tokens":7,"max_tokens":8}"#, &edit, r#"{"max_tokens":7}"#);
        check(
            r#"{"max_tokens":16.0,"max_completion_tokens":1e1}"#,
            &limited(LimitName::MaxTokens, None),
            r#"{"max_tokens":10}"#,
        );
        check(r#"{"max_tokens":0}"#, &edit, r#"{"max_tokens":0}"#);
        check(r#"{"max_tokens":99999999999}"#, &limited(LimitName::MaxTokens, None), r#"{"max_tokens":4294967295}"#);
        check(r#"{"a":1}"#, &edit, r#"{"a":1,"max_tokens":9}"#);
        check(r#"{"max_tokens":null}"#, &edit, r#"{"max_tokens":9}"#);
        check(r#"{"max_completion_tokens":null,"max_tokens":null}"#, &edit, r#"{"max_tokens":9}"#);

        let edit = limited(LimitName::MaxCompletionTokens, None);
        check(r#"{"max_tokens":3,"a":1}"#, &edit, r#"{"a":1,"max_completion_tokens":3}"#);
        check(r#"{"max_tokens":null,"a":1}"#, &edit, r#"{"max_tokens":null,"a":1}"#);
        let edit = limited(LimitName::None, Some(9));
        check(r#"{"max_tokens":3,"a":1,"max_completion_tokens":4}"#, &edit, r#"{"a":1}"#);
        check(r#"{"max_tokens":3}"#, &Rewrite::default(), r#"{"max_tokens":3}"#);
        let least = Rewrite { limit: Some(Limit { least: 1, ..Limit::default() }), ..Rewrite::default() };
        check(r#"{"max_tokens":0}"#, &least, r#"{"max_tokens":1}"#);
        let edit = limited(LimitName::MaxTokens, Some(9));
        check(r#"{"min_tokens":20,"max_tokens":30}"#, &edit, r#"{"min_tokens":9,"max_tokens":9}"#);
        check(r#"{"min_tokens":2,"max_tokens":3}"#, &edit, r#"{"min_tokens":2,"max_tokens":3}"#);
    }

    #[test]
    fn a_tidy_body_steers_nothing() {
        let edit = Rewrite { tidy: true, ..Rewrite::default() };
        check(r#"{"n_predict":1,"a":2,"options":{"num_predict":3},"extra_body":{}}"#, &edit, r#"{"a":2}"#);
        check(r#"{"x-batchin-class":"high","pr\u0069ority":1,"user":"u"}"#, &edit, r#"{"user":"u"}"#);
        check(r#"{"n":2.0,"best_of":3e0}"#, &edit, r#"{"n":2,"best_of":3}"#);
        check(r#"{"n":2,"best_of":0}"#, &edit, r#"{"n":2}"#);
        let spelled = Bytes::from_static(br#"{"n":2,"seed":1.0,"stop":"max_tokens"}"#);
        assert_eq!(rewrite(&spelled, &edit).as_ptr(), spelled.as_ptr());
    }

    #[test]
    fn what_is_ours_in_a_body_is_known() {
        let ours = |body: &str| added_alone(body.as_bytes(), "stream_options");
        assert!(
            ours("{}") && ours(r#"{"stream_options":null}"#) && ours(r#"{"stream_options":{"include_usage":false}}"#)
        );
        assert!(!ours(r#"{"stream_options":{"include_usage":true,"x":1}}"#));
        assert!(!added_alone(br#"{"suffix":"s"}"#, "suffix") && added_alone(b"{}", "suffix"));
        assert_eq!(stated_limit(br#"{"max_completion_tokens":1}"#), Some("max_completion_tokens"));
        assert_eq!(stated_limit(br#"{"max_tokens":null,"a":1}"#), None);
    }

    #[test]
    fn priority_and_defaults_are_set() {
        let edit = Rewrite { priority: Some(-3), defaults: &[("suffix", "\"\"")], ..Rewrite::default() };
        check(r#"{"priority":7,"suffix":"s"}"#, &edit, r#"{"priority":-3,"suffix":"s"}"#);
        check(r#"{"a":1}"#, &edit, r#"{"a":1,"priority":-3,"suffix":""}"#);
        check(r#"{"suffix":null}"#, &edit, r#"{"priority":-3,"suffix":""}"#);
        let edit = Rewrite { remove: &["suffix"], defaults: &[("suffix", "\"\"")], ..Rewrite::default() };
        check(r#"{"suffix":"s","a":1}"#, &edit, r#"{"a":1,"suffix":""}"#);
    }

    #[test]
    fn what_is_set_is_set_once_whatever_stands_there() {
        let set = [("prompt", "\"p\"".to_owned()), ("stop", "[1]".to_owned())];
        let edit = Rewrite { set: &set, remove: &["suffix"], drop_nulls: true, ..Rewrite::default() };
        check(r#"{"prompt":"a","suffix":"b","x":1}"#, &edit, r#"{"prompt":"p","x":1,"stop":[1]}"#);
        check(r#"{"stop":null, "prompt" : "p","st\u006fp":2}"#, &edit, r#"{"stop":[1], "prompt" : "p"}"#);
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
