//! Holds: log probabilities as a response tells them, from those that chats tell.

use std::{borrow::Cow, fmt::Write};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::members::{each_item, quoted};

#[derive(Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    token: Cow<'a, str>,
    logprob: f64,
    #[serde(default)]
    bytes: Option<Vec<u8>>,
    #[serde(default, borrow)]
    top_logprobs: Option<Vec<Token<'a>>>,
}

/// The items of the list, without brackets. A token that cannot be read is left out.
pub(super) fn told(content: &RawValue) -> String {
    let mut out = String::new();
    // What is no list has no tokens.
    let _listed = each_item(content.get(), |item: &RawValue| {
        if let Ok(token) = serde_json::from_str::<Token<'_>>(item.get()) {
            out.push_str(if out.is_empty() { "" } else { "," });
            token.write(true, &mut out);
        }
    });
    out
}

impl Token<'_> {
    fn write(&self, has_others: bool, out: &mut String) {
        let bytes = self.bytes.as_deref().unwrap_or(self.token.as_bytes());
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let (token, list) = (quoted(&self.token), list.join(","));
        // Writing to a text does not fail.
        let _ = write!(out, "{{\"token\":{token},\"logprob\":{},\"bytes\":[{list}]", self.logprob);
        if has_others {
            out.push_str(",\"top_logprobs\":[");
            for (at, other) in self.top_logprobs.iter().flatten().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                other.write(false, out);
            }
            out.push(']');
        }
        out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_bytes() {
        let chat = r#"[ {"token":"é","logprob":-0.5,"bytes":null,
            "top_logprobs":[{"token":"a\nb","logprob":-9999.0,"bytes":[97,10,98]}]}, {"token":1}, {"token":"x","logprob":-1e-05} ]"#;
        let raw: &RawValue = serde_json::from_str(chat).unwrap();
        let expected = r#"{"token":"é","logprob":-0.5,"bytes":[195,169],"top_logprobs":[{"token":"a\nb","logprob":-9999,"bytes":[97,10,98]}]},{"token":"x","logprob":-0.00001,"bytes":[120],"top_logprobs":[]}"#;
        assert_eq!(told(raw), expected);
    }
}
