//! Holds: what several of the log's forms have in common.

/// A whole number as they write it: digits alone, without zeros before it.
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// The bytes that a signature of DSSE is over (pre-authentication encoding).
pub(crate) fn dsse(kind: &str, payload: &str) -> Vec<u8> {
    format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len()).into_bytes()
}
